//! Requests for what lives on another node: that one answers them.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use sessiond_core::caller::Caller;
use sessiond_core::session::Session;

use super::App;
use super::problem::Problem;
use crate::auth::ClientAddress;
use crate::error::Error;
use crate::gate::{Pass, Side};
use crate::nodes::{Peer, escorted, upgraded};

/// The answer of the node that a session lives on, if that is another than this one. A request that was handed on is answered
/// here, whatever becomes of it. It has no body.
pub async fn of_owner(app: &App, session: &Session, parts: &mut Parts) -> Result<Option<Response>, Problem> {
    let Some(peer) = elsewhere(app, session.node, parts).await? else { return Ok(None) };
    // It is registered first, so that whoever ends the session waits until nothing of it is handed on any more.
    let Some(pass) = app.gate.escort(session.number) else { return Ok(None) };
    hand_on(app, &peer, parts, pass).await.map(Some)
}

/// The answer of the node that delivers to webhooks, likewise, as long as the caller's credential is good.
pub async fn of_deliverer(
    app: &App,
    caller: &Caller,
    parts: &mut Parts,
) -> Result<Option<Response>, Problem> {
    let holder = app.outbox.deliverer().await?;
    let Some(peer) = elsewhere(app, holder, parts).await? else { return Ok(None) };
    let pass = app.sessions.admission.register(caller, Side::Management)?.pass;
    hand_on(app, &peer, parts, pass).await.map(Some)
}

async fn elsewhere(app: &App, node: Option<i64>, parts: &Parts) -> Result<Option<Peer>, Problem> {
    Ok(app.peers.elsewhere(node, &parts.extensions).await.map_err(Error::from)?)
}

async fn hand_on(app: &App, peer: &Peer, parts: &mut Parts, pass: Pass) -> Result<Response, Problem> {
    let from = ClientAddress::of(&parts.extensions);
    let client = parts.extensions.remove::<OnUpgrade>();
    let response = app.peers.hand_on(peer, parts, Body::empty(), from).await.map_err(|error| {
        tracing::warn!(%error, "a request for what lives on another node");
        let message = format!("This lives on another node, and {error}");
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "node_unreachable", message);
        Problem { retry_after: Some(1), ..problem }
    })?;
    Ok(match client {
        Some(client) => upgraded(response, client, pass),
        None => escorted(response, pass),
    })
}
