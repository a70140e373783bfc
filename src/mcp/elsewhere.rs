//! Streams and connections that live on another node: the bytes are where they were opened, and so the request is handed on.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use sessiond_core::session::Session;

use super::legacy::entry_refused;
use super::reply::ErrorResponse;
use super::upstream_sessions::{UpstreamSession, UpstreamState};
use super::{Gateway, RequestContext};
use crate::auth::ClientAddress;
use crate::error::Error;
use crate::gate::Pass;
use crate::nodes::{Claimed, HandedOn, Peer, escorted};

impl Gateway {
    /// The other node that something lives on, if the request is to be handed on to it.
    pub(super) async fn owner(&self, node: Option<i64>, parts: &Parts) -> Result<Option<Peer>, Error> {
        Ok(self.peers.elsewhere(node, &parts.extensions).await?)
    }

    /// What another node answers, good for as long as a pass; none where it cannot be asked.
    pub(super) async fn handed_on(
        &self,
        peer: &Peer,
        parts: &Parts,
        body: Body,
        pass: Pass,
    ) -> Option<Response> {
        match self.peers.hand_on(peer, parts, body, ClientAddress::of(&parts.extensions)).await {
            Ok(response) => Some(escorted(response, pass)),
            Err(error) => {
                tracing::warn!(%error, "a request for a stream that lives on another node");
                None
            }
        }
    }

    /// Asks the other nodes for a session's standalone stream, because its upstream has one with one of them. That one gives
    /// the former stream up for the new one.
    pub(super) async fn standalone_elsewhere(
        &self,
        context: &RequestContext,
        session: &Session,
        parts: &Parts,
    ) -> Result<Option<Response>, ErrorResponse> {
        if parts.extensions.get::<HandedOn>().is_some() {
            return Ok(None);
        }
        let nodes = self.peers.nodes().await.map_err(|error| refused(error.into(), context))?;
        let others = nodes.iter().filter(|one| one.leased && Some(one.number) != self.peers.own());
        for other in others {
            let peer = Peer { number: other.number, url: other.url.clone() };
            let pass = self.sessions.admission.enter(&context.caller, session);
            let pass = pass.map_err(|error| entry_refused(error, context, vec![], false))?;
            let response = self.handed_on(&peer, parts, Body::empty(), pass).await;
            if let Some(response) = response.filter(|response| response.status() != StatusCode::CONFLICT) {
                return Ok(Some(response));
            }
        }
        Ok(None)
    }

    /// Keeps other nodes from changing what is kept of a session's upstream until what this returns is dropped, and reads what
    /// they have made of it.
    pub(super) async fn alone_with(
        &self,
        session: &Session,
        upstream_session: &UpstreamSession,
    ) -> (Claimed, Arc<UpstreamState>) {
        let hold = self.claims.claimed(format!("upstream session {}", session.number.0)).await;
        if self.peers.own().is_some() {
            match self.sessions.gateway.state(session).await {
                Ok(Some(kept)) => upstream_session.take_over(&kept),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(?error, session = %session.id, "what is kept of an upstream cannot be read");
                }
            }
        }
        (hold, upstream_session.state())
    }
}

/// The error for a store that cannot be asked about the other nodes.
pub(super) fn refused(error: Error, context: &RequestContext) -> ErrorResponse {
    ErrorResponse::from_error(error, &context.metadata)
}
