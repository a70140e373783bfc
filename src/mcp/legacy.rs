//! Requests of a session, in the revisions that have them: POST, GET and DELETE with an `Mcp-Session-Id`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use sessiond_core::application::UpstreamHeaders;
use sessiond_core::session::event::Counts;
use sessiond_core::session::{Refusal, Session};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::budget::{Rank, Share};
use super::event_id::{self, EventId};
use super::forward::{ExchangeOptions, IncomingResponse, OutgoingRequest};
use super::in_flight::InFlight;
use super::message::Posted;
use super::pump::{self, Pump, ReadRight};
use super::reopen::SessionSetting;
use super::reply::{ErrorResponse, RpcError};
use super::resumable_stream::ResumableStream;
use super::upstream::{self, LAST_EVENT_ID, SESSION};
use super::upstream_sessions::{StandalonePending, UpstreamSession, UpstreamState};
use super::{Gateway, RequestContext, check_takes_events, client_response, detach, era, request_headers};
use crate::error::Error;
use crate::gate::Pass;
use crate::meter;

/// The first revision whose clients can take an event without data, which tells them an id to resume from.
const PRIMED: &str = "2025-11-25";
/// How many milliseconds a client waits before it resumes a stream; the SDKs' servers say the same.
const RETRY: u32 = 1_000;

/// A request on its way to an upstream, with all that its answer needs.
pub(super) struct UpstreamRequest {
    pub in_flight: InFlight,
    pub session: Session,
    pub upstream_session: Arc<UpstreamSession>,
    pub url: String,
    pub outgoing: OutgoingRequest,
    /// The stream that the events go on; a new one is made if there is none.
    pub stream: Option<Arc<ResumableStream>>,
    /// The setting that the request makes, where it makes one that lasts as long as the session.
    pub setting: Option<SessionSetting>,
    /// Whether the request asks for a standalone stream.
    pub is_standalone: bool,
    /// Makes calls of the session wait while the standalone stream is on its way.
    pub pending: Option<StandalonePending>,
}

/// What came back from the upstream.
pub(super) enum UpstreamOutcome {
    /// The upstream answers with events, under this head; the stream has the client as this reader.
    Events(HeaderMap, Arc<ResumableStream>, u64),
    /// The upstream answers with anything else.
    Whole(Box<IncomingResponse>, InFlight),
    /// There is no answer to hand on.
    Failed(RpcError, InFlight),
}

impl Gateway {
    /// Serves a GET: opens the session's standalone stream, or resumes a stream.
    pub(super) async fn get(
        self: &Arc<Self>,
        context: RequestContext,
        parts: &Parts,
    ) -> Result<Response, ErrorResponse> {
        era::of_session(&parts.headers)?;
        check_takes_events(&parts.headers)?;
        let session = self.session(&context, &parts.headers).await?;
        // An empty `Last-Event-ID` counts as none (WHATWG HTML, 9.2.4).
        match request_headers::text(&parts.headers, &LAST_EVENT_ID).filter(|id| !id.trim().is_empty()) {
            Some(id) => self.resume(context, session, parts, id).await,
            None => self.open_standalone(context, session, parts).await,
        }
    }

    /// Serves a DELETE: the client says that it needs its session no more.
    pub(super) async fn delete(
        self: &Arc<Self>,
        context: RequestContext,
        parts: &Parts,
    ) -> Result<Response, ErrorResponse> {
        era::of_session(&parts.headers)?;
        let session = self.session(&context, &parts.headers).await?;
        self.end_session(&context, &session).await?;
        // Every SDK takes 200 and 204 for success; the Python client takes 202 for a failure.
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Ends the session of a client that has gone for good.
    pub(super) async fn end_session(
        self: &Arc<Self>,
        context: &RequestContext,
        session: &Session,
    ) -> Result<(), ErrorResponse> {
        let ended = self.sessions.lifecycle.disconnect(&context.caller, session.id).await;
        ended.map(|_| ()).map_err(|error| ErrorResponse::from_error(error, &context.metadata))
    }

    /// The session that a request belongs to. An unknown session, another's, and one that has ended give one and the
    /// same 404, save that the owner of an ended session learns its reason.
    pub(super) async fn session(
        &self,
        context: &RequestContext,
        headers: &HeaderMap,
    ) -> Result<Session, ErrorResponse> {
        let Some(id) = headers.get(&SESSION) else {
            let rpc_error = RpcError::new(-32000, "Bad Request: Mcp-Session-Id header is required");
            return Err(ErrorResponse::bad_request(rpc_error));
        };
        self.session_by_id(context, id.to_str().unwrap_or("")).await
    }

    /// The session with this `Mcp-Session-Id`.
    pub(super) async fn session_by_id(
        &self,
        context: &RequestContext,
        id: &str,
    ) -> Result<Session, ErrorResponse> {
        let open = self.auth.mcp_session(id).and_then(|number| self.sessions.queries.open_session(number));
        if let Some(session) = open {
            let here = session.application == context.application.number;
            if here
                && self.sessions.gateway.belongs_to(&context.caller, &session)
                && self.is_of_client(context, &session).await?
            {
                return Ok(session);
            }
            warn_of_stranger(context, Some(&session));
            return Err(ErrorResponse::session_not_found(None));
        }
        let reason =
            self.sessions.gateway.how_it_ended(&context.caller, context.application.number, id).await;
        let reason = reason.map_err(|error| ErrorResponse::from_error(error, &context.metadata))?;
        if reason.is_none() {
            let (event, actor) = ("session_use_of_unknown", context.caller.actor.id);
            tracing::info!(target: "sessiond::security", event, %actor, "an id that was never given out to this client");
        }
        Err(ErrorResponse::session_not_found(reason))
    }

    /// Whether a session is of the client that asks. A session is bound to issuer, subject and client: issuer and
    /// subject are its principal, and the client is kept in the upstream state where the issuer names it.
    pub(super) async fn is_of_client(
        &self,
        context: &RequestContext,
        session: &Session,
    ) -> Result<bool, ErrorResponse> {
        let upstream_session = self.upstream_sessions.of(&self.sessions.gateway, session).await;
        let upstream_session =
            upstream_session.map_err(|error| ErrorResponse::from_error(error, &context.metadata))?;
        Ok(upstream_session
            .state()
            .client
            .as_deref()
            .is_none_or(|client| context.caller.client() == Some(client)))
    }

    /// Sends a POST to the upstream and hands its answer back.
    pub(super) async fn forward(
        self: &Arc<Self>,
        context: RequestContext,
        session: Session,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<Response, ErrorResponse> {
        let setting = SessionSetting::of(&posted, &body).filter(|_| !posted.batch);
        let body = match posted.insertion_point {
            Some(insertion_point) => insertion_point.insert(&body, session.id).into(),
            None => body,
        };
        let (method, headers) =
            (Method::POST, upstream::to_upstream(&parts.headers, extra_headers(&context)));
        let outgoing = OutgoingRequest { application: session.application, method, headers, body };
        let asks = !posted.ids.is_empty();
        let upstream_request = self.register(&context, session, (posted.ids, posted.batch), outgoing).await?;
        upstream_request.upstream_session.wait_for_standalone().await;
        let response = self.exchange_detached(UpstreamRequest { setting, ..upstream_request }).await?;
        Ok(if asks { response } else { accepted(response) })
    }

    /// Registers a request at the Gate before anything else is done, so that a revocation finds it.
    pub(super) async fn register(
        &self,
        context: &RequestContext,
        session: Session,
        (ids, batch): (Vec<Value>, bool),
        outgoing: OutgoingRequest,
    ) -> Result<UpstreamRequest, ErrorResponse> {
        let pass = match self.sessions.admission.enter(&context.caller, &session) {
            Ok(pass) => pass,
            Err(error) => return Err(entry_refused(error, context, ids, batch)),
        };
        let mut in_flight = self.track(context, &session, pass, ids);
        in_flight.batch = batch;
        let upstream_session = self.upstream_sessions.of(&self.sessions.gateway, &session).await;
        let upstream_session =
            upstream_session.map_err(|error| ErrorResponse::from_error(error, &context.metadata))?;
        in_flight.upstream_work = Some(self.goodbyes.begin_work(
            (session.number, session.id),
            session.application,
            &upstream_session,
        ));
        in_flight.share.set(outgoing.body.len());
        let (requests, bytes_in) = (in_flight.ids.len() as u64, outgoing.body.len() as u64);
        self.sessions.traffic.observe(&context.caller, &session, Counts { requests, bytes_in, bytes_out: 0 });
        Ok(UpstreamRequest {
            in_flight,
            session,
            upstream_session,
            url: context.url.clone(),
            outgoing,
            setting: None,
            stream: None,
            pending: None,
            is_standalone: false,
        })
    }

    /// Makes a share of the budget for something of a session.
    pub(super) fn share_of(&self, rank: Rank, session: &Session, given_up: CancellationToken) -> Share {
        self.budget.share(rank, (session.number, session.application), given_up)
    }

    /// Makes the record of a request that the Gate has let in.
    pub(super) fn track(
        &self,
        context: &RequestContext,
        session: &Session,
        pass: Pass,
        ids: Vec<Value>,
    ) -> InFlight {
        // From here on every log line about the request names its session.
        tracing::Span::current().record("session", tracing::field::display(session.id));
        InFlight {
            sessions: self.sessions.clone(),
            clock: self.clock.clone(),
            caller: context.caller.clone(),
            number: session.number,
            pass: Some(pass),
            ids,
            batch: false,
            listens: false,
            patience: self.patience(),
            stopping: self.stopping.clone(),
            counted: AtomicU64::new(0),
            upstream_work: None,
            share: self.share_of(Rank::Call, session, CancellationToken::new()),
        }
    }

    /// Sends the request by work that goes on whatever becomes of the client, and waits for what comes back.
    pub(super) async fn exchange_detached(
        self: &Arc<Self>,
        upstream_request: UpstreamRequest,
    ) -> Result<Response, ErrorResponse> {
        let (reply, waiting) = oneshot::channel();
        let gateway = self.clone();
        let work: detach::Work = match upstream_request.is_standalone {
            true => Box::pin(gateway.run_standalone(upstream_request, reply).in_current_span()),
            false => Box::pin(gateway.run_exchange(upstream_request, reply).in_current_span()),
        };
        match detach::run_until(waiting, work).await {
            Ok(UpstreamOutcome::Events(headers, stream, reader)) => {
                Ok(events_response(&headers, stream, reader, ReadRight::Own(self.sessions.admission.lease())))
            }
            Ok(UpstreamOutcome::Whole(answer, in_flight)) => Ok(whole_response(*answer, in_flight)),
            Ok(UpstreamOutcome::Failed(rpc_error, in_flight)) => Err(in_flight.failed(rpc_error)),
            Err(_) => Err(ErrorResponse::in_place_of_answer(RpcError::upstream_lost(), vec![], false)),
        }
    }

    /// Sends the request, says over `reply` what came back, and moves the events of a stream until it ends.
    async fn run_exchange(
        self: Arc<Self>,
        upstream_request: UpstreamRequest,
        reply: oneshot::Sender<UpstreamOutcome>,
    ) {
        let UpstreamRequest { in_flight, session, upstream_session, url, outgoing, setting, stream, .. } =
            upstream_request;
        let resumes = stream.is_some();
        // The exchange is boxed, because a stream that stays open for long would otherwise keep room for it.
        let options = ExchangeOptions { ids: &in_flight.ids, resumes, setting };
        let exchange = Box::pin(self.exchange(&session, &upstream_session, &url, outgoing, options));
        let response = in_flight.wait(exchange).await;
        // The request's own body is not held any longer.
        in_flight.share.set(0);
        let (stream, response) = match (stream, response) {
            (stream, Ok(incoming)) if incoming.is_events() => (stream, incoming),
            // A client that resumes a call waits for events: it gets the error as an event, and not as a status.
            (Some(stream), response) => {
                let rpc_error = response.err().unwrap_or_else(RpcError::upstream_lost);
                if let Ok(reader) = stream.refuse(&rpc_error) {
                    reply.send(UpstreamOutcome::Events(HeaderMap::new(), stream, reader)).ok();
                }
                return;
            }
            (None, Ok(incoming)) => {
                reply.send(UpstreamOutcome::Whole(Box::new(incoming), in_flight)).ok();
                return;
            }
            (None, Err(rpc_error)) => {
                reply.send(UpstreamOutcome::Failed(rpc_error, in_flight)).ok();
                return;
            }
        };
        let stream = match stream {
            Some(stream) => stream,
            None => self.new_stream(&in_flight, &upstream_session.state()).await,
        };
        self.streams.insert(&stream);
        let Ok(reader) = stream.attach(stream.after) else { return };
        if reply.send(UpstreamOutcome::Events(response.head.headers, stream.clone(), reader)).is_err() {
            stream.leave(reader);
        }
        let patience = self.config.upstream_timeout;
        Pump::new(in_flight, stream.clone(), patience, &[], Some(response.body)).run().await;
        self.streams.mark_ended(&stream);
    }

    /// Makes the stream for the answers to a request, with an id to resume from at once where clients can take one.
    pub(super) async fn new_stream(
        &self,
        in_flight: &InFlight,
        state: &UpstreamState,
    ) -> Arc<ResumableStream> {
        let (key, calls) = (event_id::new_key(self.peers.own()), in_flight.ids.clone());
        let seal = self.sessions.gateway.event_seal(in_flight.number, &key);
        let session_digest = Some(state.session_digest());
        let rank = if calls.is_empty() { Rank::Standalone } else { Rank::Call };
        let begin = EventId { key, calls, number: 0, upstream: None, session_digest };
        let stream = ResumableStream::new(in_flight.number, begin, seal, in_flight.share.sibling(rank));
        if state.protocol_version.as_str() >= PRIMED {
            stream.push(None, vec![], |id| format!("id: {id}\nretry: {RETRY}\ndata: \n\n").into()).await;
        }
        Arc::new(stream)
    }
}

/// The response to a request that the Gate does not let in.
pub(super) fn entry_refused(
    error: Error,
    context: &RequestContext,
    ids: Vec<Value>,
    batch: bool,
) -> ErrorResponse {
    match error {
        // A revocation that is under way covers the session. For its owner, who has a fresh credential, the session is
        // over.
        Error::Unauthorized { reason: Some(Refusal::Revoked(reason)) } => {
            ErrorResponse::session_not_found(Some(reason))
        }
        Error::Suspended(_) => ErrorResponse::in_place_of_answer(RpcError::suspended(), ids, batch),
        error => ErrorResponse::from_error(error, &context.metadata),
    }
}

/// Reports that somebody presented the id of another's session, which must have leaked from somewhere.
pub(super) fn warn_of_stranger(context: &RequestContext, session: Option<&Session>) {
    tracing::warn!(
        target: "sessiond::security",
        event = "session_use_by_another",
        session = session.map(|session| session.id.to_string()),
        actor_kind = context.caller.actor.kind.word(),
        actor = %context.caller.actor.id,
        request_id = context.caller.request_id,
        "somebody presented the id of another's MCP session",
    );
    metrics::counter!(meter::FOREIGN_SESSION).increment(1);
}

/// The headers that pass for this application beside those that always do.
pub(super) fn extra_headers(context: &RequestContext) -> Option<&UpstreamHeaders> {
    context.application.upstream_headers.as_ref()
}

/// The answer to a message that asks nothing: 202 without a body, however the upstream words its success (MCP
/// 2025-11-25, basic/transports, "Sending Messages to the Server"). Strict clients take anything else for a failure.
pub(super) fn accepted(response: Response) -> Response {
    match response.status().is_success() {
        true => StatusCode::ACCEPTED.into_response(),
        false => response,
    }
}

/// The response that hands a stream of events to the client.
pub(super) fn events_response(
    headers: &HeaderMap,
    stream: Arc<ResumableStream>,
    reader: u64,
    right: ReadRight,
) -> Response {
    client_response(StatusCode::OK, headers, true, pump::body(None, stream, reader, right))
}

/// The response that hands on an answer which is no stream, or a stream of 2026-07-28. An answer that reports success
/// but cannot hold what its calls are owed becomes an error for each call: clients would wait for the answers until
/// their own time-out.
pub(super) fn whole_response(answer: IncomingResponse, in_flight: InFlight) -> Response {
    let events = answer.is_events();
    let IncomingResponse { mut head, body } = answer;
    let empty =
        matches!(head.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    let must_answer = head.status.is_success() && !in_flight.ids.is_empty() && !events;
    if must_answer && (empty || !is_json(&head.headers)) {
        return in_flight.failed(RpcError::unanswered(head.status)).into_response();
    }
    if must_answer {
        head.headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    let body = match empty {
        true => Body::empty(),
        false => in_flight.relay(Bytes::new(), Some(body), events, must_answer),
    };
    client_response(head.status, &head.headers, events, body)
}

/// Whether a body is JSON, as far as its head says.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(media) = headers.get(header::CONTENT_TYPE) else { return true };
    let media =
        media.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media.ends_with("+json")
}
