//! The ways in over HTTP. A folder or file a surface, which says what it is as a [`Surface`](surface::Surface) on its routes;
//! this one holds what they share, and the column that puts them together.

mod again;
mod agents;
mod api;
mod bars;
pub mod connection;
mod directory;
pub mod document;
mod download;
mod elsewhere;
mod events;
pub mod export;
pub mod extract;
mod figures;
mod filter;
mod gateway;
pub mod health;
mod history;
mod idempotency;
mod ids;
mod limits_layer;
mod list_parameters;
mod media;
pub mod metrics;
mod oauth;
mod page;
pub mod problem;
mod request_layer;
mod revocations;
mod shared;
mod statistics;
pub mod surface;
mod terminals;
pub mod unknown;
mod words;
mod workloads;

use std::sync::Arc;

use axum::Router;
use document::Documented;
use sessiond_core::Time;
use surface::Routes;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::names::Names;
use crate::directory::Directory;
use crate::gate::Gate;
use crate::issuers::Issuers;
use crate::journals::Journals;
use crate::limits::Limits;
use crate::live::Live;
use crate::mcp;
use crate::nodes::{CatchUp, Peers};
use crate::sessions::{JobStatus, Sessions};
use crate::statistics::Statistics;
use crate::terminal::Terminals;
use crate::webhooks::Outbox;
use export::Exports;

/// What handlers work with; cheap to clone, as every request does.
#[derive(Clone)]
pub struct App(Arc<Shared>);

impl From<Shared> for App {
    fn from(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The parts of an [`App`].
pub struct Shared {
    pub gate: Arc<Gate>,
    pub sessions: Arc<Sessions>,
    pub directory: Arc<Directory>,
    pub issuers: Arc<Issuers>,
    pub auth: Arc<Auth>,
    pub live: Arc<Live>,
    pub gateway: Arc<mcp::Gateway>,
    pub outbox: Arc<Outbox>,
    pub lines: Journals,
    pub statistics: Arc<Statistics>,
    pub terminals: Arc<Terminals>,
    /// The way to other nodes.
    pub peers: Arc<Peers>,
    pub catch_up: Arc<CatchUp>,
    pub exports: Exports,
    pub job_status: Arc<JobStatus>,
    pub limits: Arc<Limits>,
    pub health: health::Cache,
    pub clock: Clock,
    pub config: Arc<Config>,
    /// The base of URLs for those who have not come by another of ours.
    pub public_url: Arc<str>,
    /// All names that are ours.
    pub names: Arc<Names>,
    /// Cancelled when the service is told to stop: streams end, `/readyz` says no.
    pub stopping: CancellationToken,
}

/// Times on the wire: ISO 8601, UTC, milliseconds, `Z`.
pub fn time(time: Time) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Every surface, one a line.
pub fn column() -> Vec<Routes> {
    vec![
        health::surface(),
        oauth::surface(),
        api::surface(),
        gateway::surface(),
        media::surface(),
        workloads::surface(),
        terminals::surface(),
    ]
}

/// The surfaces of a column behind one router. Where no route leads, a second router of nothing but the surfaces' prefixes
/// says whose answer that is: no parameter of a route can conflict with it.
pub fn router(app: App, column: Vec<Routes>) -> Router {
    let all = Documented::of(&column);
    let (mut somewhere, mut nowhere) = (Router::new(), Router::new());
    for surface in column {
        let (routes, rest) = surface.layered(&app, &all);
        somewhere = somewhere.merge(routes);
        nowhere = nowhere.merge(rest);
    }
    somewhere.fallback_service(nowhere.with_state::<()>(app.clone())).with_state(app)
}

/// The document of the API.
pub fn document() -> OpenApi {
    Documented::of(&column()).document
}

/// The OpenAPI document, as `openapi.yaml` holds it.
pub fn openapi_yaml() -> String {
    document::yaml(&document())
}
