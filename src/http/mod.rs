//! The ways in over HTTP. One file a surface; this one holds what they share and the router, one readable column.

mod agents;
pub mod connection;
mod directory;
mod download;
mod events;
pub mod extract;
mod family;
mod figures;
mod filter;
mod frame;
mod guard;
pub mod health;
mod history;
mod idempotency;
mod ids;
mod media;
pub mod metrics;
mod oauth;
mod page;
pub mod problem;
mod revocations;
mod shared;
mod terminals;
pub mod unknown;
mod words;
mod workloads;

use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use axum::middleware;
use axum::response::IntoResponse;
use axum::{Extension, Router};
use extract::Largest;
use family::Family;
use problem::Problem;
use sessiond_core::Time;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::names::Names;
use crate::directory::Directory;
use crate::issuers::Issuers;
use crate::journals::Journals;
use crate::limits::Limits;
use crate::live::Live;
use crate::mcp;
use crate::sessions::{JobStatus, Sessions};
use crate::terminal::Terminals;
use crate::webhooks::Outbox;

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
    pub sessions: Arc<Sessions>,
    pub directory: Arc<Directory>,
    pub issuers: Arc<Issuers>,
    pub auth: Arc<Auth>,
    pub live: Arc<Live>,
    pub gateway: Arc<mcp::Gateway>,
    pub outbox: Arc<Outbox>,
    pub lines: Journals,
    pub terminals: Arc<Terminals>,
    pub board: Arc<JobStatus>,
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

/// Largest body, save on `/mcp`.
const BODY: usize = 64 << 10;
/// The layer of routes that take reports about many sessions: bodies may be larger there.
const MANY: Extension<Largest> = Extension(Largest(2 << 20));

/// Every documented route and its document.
pub fn documented() -> (Router<App>, utoipa::openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(agents::list, agents::revoke_all))
        .routes(routes!(agents::count))
        .routes(routes!(agents::list_all))
        .routes(routes!(agents::count_all))
        .routes(routes!(agents::get, agents::revoke))
        .routes(routes!(agents::terminate))
        .routes(routes!(agents::suspend))
        .routes(routes!(agents::resume))
        .routes(routes!(history::session_history))
        .routes(routes!(history::list_events))
        .routes(routes!(revocations::list_revocations, revocations::create_revocation))
        .routes(routes!(revocations::get_revocation))
        .routes(routes!(revocations::list_scheduled_revocations, revocations::create_scheduled_revocation))
        .routes(routes!(revocations::get_scheduled_revocation, revocations::delete_scheduled_revocation))
        .routes(routes!(revocations::pause_scheduled_revocation))
        .routes(routes!(revocations::resume_scheduled_revocation))
        .routes(routes!(events::application))
        .routes(routes!(agents::create))
        .routes(routes!(agents::heartbeat))
        .routes(routes!(agents::activity))
        .merge(OpenApiRouter::new().routes(routes!(agents::activity_many)).layer(MANY))
        .routes(routes!(agents::renew))
        .routes(routes!(agents::disconnect))
        .routes(routes!(events::session))
        .routes(routes!(agents::list_instances))
        .routes(routes!(agents::get_instance, agents::revoke_instance))
        .routes(routes!(agents::revoke_instances))
        .routes(routes!(directory::list_applications, directory::create_application))
        .routes(routes!(
            directory::get_application,
            directory::update_application,
            directory::archive_application
        ))
        .routes(routes!(directory::rotate_application_secret))
        .routes(routes!(directory::set_upstream))
        .routes(routes!(directory::get_policy, directory::set_policy))
        .routes(routes!(directory::list_service_accounts, directory::create_service_account))
        .routes(routes!(directory::get_service_account, directory::archive_service_account))
        .routes(routes!(directory::rotate_service_account_secret))
        .routes(routes!(agents::my_sessions))
        .routes(routes!(agents::my_session, agents::end_my_session))
        .routes(routes!(directory::list_principals))
        .routes(routes!(directory::get_principal))
        .routes(routes!(directory::disable_principal))
        .routes(routes!(directory::enable_principal))
        .routes(routes!(directory::erase_principal))
        .routes(routes!(directory::list_organizations, directory::create_organization))
        .routes(routes!(directory::get_organization, directory::update_organization))
        .routes(routes!(directory::get_issuers, directory::set_issuers))
        .routes(routes!(directory::list_api_keys, directory::create_api_key))
        .routes(routes!(directory::get_api_key, directory::revoke_api_key))
        .routes(routes!(directory::list_webhooks, directory::create_webhook))
        .routes(routes!(directory::get_webhook, directory::update_webhook, directory::delete_webhook))
        .routes(routes!(directory::rotate_webhook_secret))
        .routes(routes!(directory::test_webhook))
        .routes(routes!(directory::list_deliveries))
        .routes(routes!(directory::resend_delivery))
        .routes(routes!(directory::list_hooks, directory::create_hook))
        .routes(routes!(directory::get_hook, directory::delete_hook))
        .routes(routes!(media::list_vhosts))
        .routes(routes!(media::list_apps))
        .routes(routes!(media::list_streams))
        .routes(routes!(media::declare_stream))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(media::list_sessions, media::create_sessions))
                .routes(routes!(media::report_stream))
                .routes(routes!(media::report_app))
                .layer(MANY),
        )
        .routes(routes!(media::report_session, media::terminate_session))
        .routes(routes!(media::throughput))
        .routes(routes!(media::vhost_statistics))
        .routes(routes!(media::app_statistics))
        .routes(routes!(media::stream_statistics))
        .routes(routes!(media::session_statistics))
        .routes(routes!(media::current_throughput))
        .routes(routes!(media::call_hook))
        .routes(routes!(workloads::list_webui_sessions, workloads::create_webui_session))
        .routes(routes!(workloads::list_task_sessions, workloads::create_task_session))
        .routes(routes!(workloads::get_webui_session, workloads::delete_webui_session))
        .routes(routes!(
            workloads::get_task_session,
            workloads::delete_task_session,
            workloads::change_task_state
        ))
        .routes(routes!(workloads::terminate_webui_session))
        .routes(routes!(workloads::terminate_task_session))
        .routes(routes!(workloads::heartbeat_webui_session))
        .routes(routes!(workloads::heartbeat_task_session))
        .routes(routes!(workloads::end_webui_session))
        .routes(routes!(workloads::end_task_session))
        .routes(routes!(workloads::get_webui_logs))
        .routes(routes!(workloads::get_task_logs))
        .routes(routes!(workloads::download_webui_logs))
        .routes(routes!(workloads::download_task_logs))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(workloads::heartbeats))
                .routes(routes!(workloads::list_webui_logs, workloads::log_webui_session))
                .routes(routes!(workloads::list_task_logs, workloads::log_task_session))
                .layer(MANY),
        )
        .routes(routes!(terminals::list_machines, terminals::create_machine))
        .routes(routes!(terminals::get_machine, terminals::update_machine, terminals::delete_machine))
        .routes(routes!(terminals::test_machine))
        .routes(routes!(terminals::list_sessions, terminals::create_session))
        .routes(routes!(terminals::statistics))
        .routes(routes!(terminals::search_commands))
        .routes(routes!(terminals::get_session, terminals::terminate_session))
        .routes(routes!(terminals::create_viewer))
        .routes(routes!(terminals::session_logs))
        .routes(routes!(terminals::recording))
        .routes(routes!(agents::policy))
        .routes(routes!(oauth::token))
        .routes(routes!(oauth::introspect))
        .routes(routes!(oauth::revoke))
        .routes(routes!(oauth::authorization_server))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .split_for_parts();
    media::describe(&mut document);
    extract::describe(&mut document);
    terminals::describe(&mut document);
    idempotency::describe(&mut document);
    unknown::describe(&mut document);
    words::describe(&mut document);
    problem::describe(&mut document);
    shared::describe(&mut document);
    (router, document)
}

/// The whole service.
pub fn router(app: App) -> Router {
    let (documented, document) = documented();
    let parameters = Arc::new(unknown::Parameters::of(&document));
    documented
        .merge(health::documents(&document))
        .merge(workloads::documents(&document))
        .merge(oauth::aliases())
        .route("/v1/sessions/{sessionId}/ws", axum::routing::get(terminals::websocket))
        .merge(mcp::router(app.gateway.clone()))
        .fallback(|uri: Uri| async move { nothing_there(Family::of(uri.path())) })
        .method_not_allowed_fallback(|uri: Uri| async move { no_such_method(Family::of(uri.path())) })
        .layer(middleware::from_fn_with_state(parameters, unknown::layer))
        .layer(middleware::from_fn(idempotency::layer))
        .layer(middleware::from_fn_with_state(app.clone(), media::door))
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal server error")
                .into_response()
        }))
        .layer(middleware::from_fn_with_state(app.clone(), frame::frame))
        .with_state(app)
}

fn nothing_there(family: Family) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", family.nothing_there())
}

fn no_such_method(family: Family) -> Problem {
    if family == Family::Media {
        return nothing_there(family);
    }
    let message = "Method not allowed at this path; see Allow";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// The document's head; the operations come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "sessiond",
        description = include_str!("begin.md"),
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "http://127.0.0.1:8080", description = "`make run`")),
    tags(
        (name = "agentSessions", description = "Sessions of an application: list, inspect, revoke."),
        (name = "revocations", description = "Ending many sessions, now or on a schedule, with an exact count."),
        (name = "events", description = "The log: what happened, by whom and why."),
        (name = "agent", description = "The write side: what agents, and those who front them, report."),
        (name = "agentInstances", description = "The older names of the same sessions."),
        (name = "applications", description = "Applications, what they are called elsewhere agents."),
        (name = "serviceAccounts", description = "Credentials of an organization's own programs."),
        (name = "apiKeys", description = "Long-lived credentials of programs, for one surface or several."),
        (name = "principals", description = "The people and clients behind sessions."),
        (name = "terminals", description = "Shells on machines, in a WebSocket, recorded."),
        (name = "me", description = "A person's own sessions."),
        (name = "workloads", description = "WebUI and task sessions, as portals and clusters report and end them."),
        (name = "organizations", description = "Organizations, for whoever runs the installation."),
        (name = "issuers", description = "Whose JWT access tokens are taken beside our own."),
        (name = "webhooks", description = "Where events are delivered to."),
        (name = "hooks", description = "Where media servers ask whether a viewer may come in."),
        (name = "media", description = "Viewers of media streams: reported, listed by name, measured, terminated; in the words of OvenMediaEngine's REST API."),
        (name = "oauth", description = "Tokens."),
        (name = "service", description = "The service itself."),
    ),
    // What only parameters are made of is not found by itself.
    components(schemas(
        words::EndingWord,
        words::StageWord,
        words::StatusWord,
        filter::SessionSort,
        terminals::LogFormat,
        terminals::PeriodWord,
        terminals::StatusWord,
        workloads::LogSort,
        workloads::WorkloadSort,
    )),
    modifiers(&Security),
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some(
            "An access token (`sat_…`) from `POST /oauth2/token`, a JWT access token of an issuer that the organization trusts, an API key (`sak_…`), or a session's token (`sst_…`)."
                .into(),
        );
        let mut basic = Http::new(HttpAuthScheme::Basic);
        basic.description = Some("OAuth client id and secret.".into());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("client", SecurityScheme::Http(basic));
        let mut token = Http::new(HttpAuthScheme::Basic);
        token.description = Some(
            "An API key with the scope `media` (`sak_…`), in base64 as it is: no user and no colon.".into(),
        );
        components.add_security_scheme("accessToken", SecurityScheme::Http(token));
        let mut key = Http::new(HttpAuthScheme::Bearer);
        key.description = Some("An API key with the scope `terminal` (`sak_…`).".into());
        components.add_security_scheme("terminalKey", SecurityScheme::Http(key));
        let key = ApiKeyValue::with_description("apiKey", "An API key with the scope `session` (`sak_…`).");
        components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let signature = ApiKeyValue::with_description(
            "X-OME-Signature",
            "HMAC-SHA1 of the body with the hook's secret, in base64 for URLs without padding.",
        );
        components.add_security_scheme("hookSignature", SecurityScheme::ApiKey(ApiKey::Header(signature)));
    }
}

/// The OpenAPI document, as `openapi.yaml` holds it.
pub fn openapi_yaml() -> String {
    yaml(&documented().1)
}

/// A document as YAML; the same document gives the same bytes.
fn yaml(document: &utoipa::openapi::OpenApi) -> String {
    // Plain data with string keys: writing it cannot fail.
    let text = document.to_yaml().unwrap_or_default();
    format!("{}\n", text.trim_end())
}
