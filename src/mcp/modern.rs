//! Requests of 2026-07-28, which has no sessions: each says in `_meta` who sends it. The session that they belong to
//! exists only here. It is found by its anchor: whose credential it is, the client's name, and the conversation where
//! the client names one.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use sessiond_core::session::event::Counts;
use sessiond_core::session::{Refusal, Session};

use super::forward::{
    IncomingResponse, LARGEST_REFUSAL, OutgoingRequest, check_status, read_whole, set_session_header,
};
use super::legacy::{accepted, entry_refused, whole_response};
use super::message::{MODERN, Posted, error_code};
use super::reply::{ErrorResponse, RpcError};
use super::upstream::{self, LAST_EVENT_ID};
use super::{Gateway, RequestContext, client_response, initialize};
use crate::error::{Error, Thing};
use crate::gate::Pass;
use crate::sessions::NewSession;

/// The probe by which a client finds out what it talks to; it opens no session.
const DISCOVER: &str = "server/discover";
const LISTEN: &str = "subscriptions/listen";
/// How long an upstream may take over a request that belongs to no session.
const WITHOUT_SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer to such a request.
const LARGEST_WITHOUT_SESSION: usize = 4 << 20;
/// How often a session may end between being found and being entered.
const TRIES: u32 = 3;

impl Gateway {
    /// Serves one request or notification.
    pub(super) async fn serve_modern(
        self: &Arc<Self>,
        context: RequestContext,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<Response, ErrorResponse> {
        let mut headers =
            upstream::to_upstream(&parts.headers, context.application.upstream_headers.as_ref());
        headers.remove(&LAST_EVENT_ID);
        let bytes_in = body.len() as u64;
        let application = context.application.number;
        let mut outgoing = OutgoingRequest { application, method: Method::POST, headers, body };
        let Some((session, pass)) = self.find_or_open_session(&context, parts, &posted).await? else {
            let response = self.serve_without_session(&context, &posted, outgoing).await?;
            return Ok(if posted.ids.is_empty() { accepted(response) } else { response });
        };
        set_session_header(&mut outgoing.headers, session.id);
        if let Some(insertion_point) = posted.insertion_point {
            outgoing.body = insertion_point.insert(&outgoing.body, session.id).into();
        }
        let requests = posted.ids.len() as u64;
        self.sessions.traffic.observe(&context.caller, &session, Counts { requests, bytes_in, bytes_out: 0 });
        let mut in_flight = self.track(&context, &session, pass, posted.ids.clone());
        in_flight.share.set(outgoing.body.len());
        in_flight.listens = posted.method.as_deref() == Some(LISTEN);
        // A client that goes away cancels its call (MCP 2026-07-28, basic/patterns/cancellation): dropping this future
        // drops the connection to the upstream.
        let answer =
            async { interpret(self.send(&context.url, None, outgoing).await?, self.patience()).await };
        let answer = in_flight.wait(answer).await;
        in_flight.share.set(0);
        match answer {
            Ok(Interpreted::Answer(answer)) if posted.ids.is_empty() => {
                Ok(accepted(whole_response(answer, in_flight)))
            }
            Ok(Interpreted::Answer(answer)) => Ok(whole_response(answer, in_flight)),
            Ok(Interpreted::LegacyOnly) => Err(legacy_only(&posted)),
            Err(rpc_error) => Err(in_flight.failed(rpc_error)),
        }
    }

    /// Asks the upstream which revisions it speaks, for a request in a revision that is not known here. Should the
    /// upstream know that revision, the request is refused all the same: nobody could say who is connected then.
    pub(super) async fn refused_by_upstream(
        self: &Arc<Self>,
        context: RequestContext,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<Response, ErrorResponse> {
        let (application, headers) = (
            context.application.number,
            upstream::to_upstream(&parts.headers, context.application.upstream_headers.as_ref()),
        );
        let outgoing = OutgoingRequest { application, method: Method::POST, headers, body };
        let answer = self.serve_without_session(&context, &posted, outgoing).await?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        Err(ErrorResponse::bad_request(RpcError::unsupported_version(posted.meta.revision()))
            .answering(&posted.ids))
    }

    /// The session that a request belongs to, and the Gate's pass to it. A session is opened if there is none, but not
    /// for a probe or a notification.
    async fn find_or_open_session(
        &self,
        context: &RequestContext,
        parts: &Parts,
        posted: &Posted,
    ) -> Result<Option<(Session, Pass)>, ErrorResponse> {
        let opens = !posted.ids.is_empty() && posted.method.as_deref() != Some(DISCOVER);
        let correlation = posted.meta.correlation();
        let anchor =
            self.sessions.gateway.anchor(&context.caller, &[posted.meta.client_name(), &correlation]);
        let refused = |error| ErrorResponse::from_error(error, &context.metadata).answering(&posted.ids);
        for _ in 0..TRIES {
            let session = match self.sessions.gateway.anchored(context.application.number, &anchor) {
                Some(session) => session,
                None if opens => {
                    self.open_anchored(context, parts, posted, &anchor).await.map_err(refused)?
                }
                None => return Ok(None),
            };
            match self.sessions.admission.enter(&context.caller, &session) {
                Ok(pass) => return Ok(Some((session, pass))),
                Err(Error::NotFound(Thing::Session)) => {}
                // A revocation that is under way covers the session, but not a client with a fresh credential: its
                // connect ends the session first.
                Err(Error::Unauthorized { reason: Some(Refusal::Revoked(_)) }) if opens => {
                    self.open_anchored(context, parts, posted, &anchor).await.map_err(refused)?;
                }
                Err(Error::Unauthorized { reason: Some(Refusal::Revoked(_)) }) => return Ok(None),
                Err(error) => return Err(entry_refused(error, context, posted.ids.clone(), false)),
            }
        }
        Err(refused(Error::Busy))
    }

    /// Opens a session, or attaches to the one that another request has just opened.
    async fn open_anchored(
        &self,
        context: &RequestContext,
        parts: &Parts,
        posted: &Posted,
        anchor: &str,
    ) -> Result<Session, Error> {
        let info = posted.meta.client_info.clone().filter(Value::is_object);
        let hostname = posted.meta.hostname().map(str::to_owned);
        let new = initialize::new_session(context, parts, info, hostname, MODERN);
        let new = NewSession { anchor: Some(anchor.to_owned()), ..new };
        Ok(self.sessions.lifecycle.connect(&context.caller, new).await?.session)
    }

    /// Serves a request that belongs to no session. The answer is read whole, and handed on only if the credential is
    /// still good by then.
    async fn serve_without_session(
        &self,
        context: &RequestContext,
        posted: &Posted,
        outgoing: OutgoingRequest,
    ) -> Result<Response, ErrorResponse> {
        let refused = |error| ErrorResponse::from_error(error, &context.metadata).answering(&posted.ids);
        let (caller, application) = (&context.caller, context.application.number);
        let registration =
            self.register_credential(context).map_err(|refusal| refusal.answering(&posted.ids))?;
        let answer = async {
            let Interpreted::Answer(answer) =
                interpret(self.send(&context.url, None, outgoing).await?, self.patience()).await?
            else {
                return Ok(None);
            };
            let events = answer.is_events();
            let IncomingResponse { head, body } = answer;
            let body = read_whole(body, LARGEST_WITHOUT_SESSION, self.patience()).await?;
            Ok(Some(client_response(head.status, &head.headers, events, Body::from(body))))
        };
        let answer = tokio::select! {
            biased;
            ending = registration.ended() => return Err(self.ended_before_session(context, ending).answering(&posted.ids)),
            () = self.stopping.cancelled() => Err(RpcError::stopping()),
            answer = tokio::time::timeout(WITHOUT_SESSION_TIMEOUT, answer) => {
                answer.unwrap_or_else(|_| Err(RpcError::upstream_refused("has not answered in time")))
            }
        };
        self.sessions.admission.check_again(caller, application).map_err(refused)?;
        match answer {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(legacy_only(posted)),
            Err(rpc_error) => Err(ErrorResponse::in_place_of_answer(rpc_error, posted.ids.clone(), false)),
        }
    }
}

enum Interpreted {
    Answer(IncomingResponse),
    /// The upstream does not know what it was asked, as servers of older revisions do not.
    LegacyOnly,
}

/// Interprets the upstream's answer. A server of older revisions refuses in its own words, and the client is told in
/// those of the specification. A failure of the upstream must not pass for one of ours, which would end a client's
/// probing.
async fn interpret(answer: IncomingResponse, patience: Duration) -> Result<Interpreted, RpcError> {
    let status = answer.head.status;
    if status.is_success() {
        return Ok(Interpreted::Answer(answer));
    }
    if status != StatusCode::NOT_FOUND {
        check_status(IncomingResponse { head: answer.head.clone(), body: Body::empty() })?;
    }
    let IncomingResponse { mut head, body } = answer;
    let body = read_whole(body, LARGEST_REFUSAL, patience).await?;
    // These are JSON-RPC's own codes and those that the specification has reserved; other codes are of older servers.
    let said = error_code(&body).filter(|code| matches!(code, -32_700..=-32_600 | -32_099..=-32_020));
    match said {
        Some(_) => {
            if status.is_server_error() {
                head.status = StatusCode::OK;
            }
            Ok(Interpreted::Answer(IncomingResponse { head, body: Body::from(body) }))
        }
        None if status.is_client_error() => Ok(Interpreted::LegacyOnly),
        None => {
            let how = format!("failed (HTTP {})", status.as_u16());
            Err(RpcError::upstream_refused(how))
        }
    }
}

fn legacy_only(posted: &Posted) -> ErrorResponse {
    ErrorResponse::bad_request(RpcError::legacy_only(posted.meta.revision())).answering(&posted.ids)
}
