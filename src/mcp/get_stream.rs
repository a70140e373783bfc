//! Streams that a client asks for by GET: the standing one of a session, and the rest of one that it has lost.

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use sessiond_core::session::Session;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::budget::Rank;
use super::event_id::EventId;
use super::forward::{ExchangeOptions, OutgoingRequest};
use super::legacy::{UpstreamOutcome, UpstreamRequest, events, extra, not_entered};
use super::pump::{self, Pump, ReadRight};
use super::reply::{ErrorResponse, RpcError, last_words};
use super::resumable_stream::{End, ResumableStream};
use super::upstream::{self, LAST_EVENT_ID};
use super::upstream_sessions::STANDALONE_WAIT;
use super::{Gateway, RequestContext, client_response};

/// How long giving up a connection to an upstream may take.
const PARTING: Duration = Duration::from_secs(1);
/// How often, and after which time, an upstream that has a standing stream already is asked again.
pub(super) const TRIES: u32 = 5;
pub(super) const AGAIN: Duration = Duration::from_millis(50);

impl Gateway {
    /// Opens the standing stream of a session.
    pub(super) async fn open_standalone(
        self: &Arc<Self>,
        context: RequestContext,
        session: Session,
        parts: &Parts,
    ) -> Result<Response, ErrorResponse> {
        let former = self.streams.standalone(session.number);
        // Nobody reads it and somebody comes who does not ask for it: they have begun anew. Most upstreams allow one.
        if let Some(former) = former.as_ref().filter(|former| !former.is_read()) {
            former.end(End::Done);
            tokio::time::timeout(PARTING, former.upstream_released()).await.ok();
        }
        for _ in 0..TRIES {
            let response = self.request_standalone(&context, session.clone(), parts, None).await?;
            let Some(former) = former.as_ref().filter(|_| response.status() == StatusCode::CONFLICT) else {
                return Ok(response);
            };
            // The upstream has one still, read by a connection that is dead without our knowing, or has not noticed yet
            // that we gave it up: the new one counts.
            former.end(End::Done);
            tokio::time::timeout(PARTING, former.upstream_released()).await.ok();
            tokio::time::sleep(AGAIN).await;
        }
        self.request_standalone(&context, session, parts, None).await
    }

    /// Has a standing stream opened at the upstream: a new one, or one that goes on after an event.
    async fn request_standalone(
        self: &Arc<Self>,
        context: &RequestContext,
        session: Session,
        parts: &Parts,
        stream: Option<Arc<ResumableStream>>,
    ) -> Result<Response, ErrorResponse> {
        let outgoing =
            resuming(context, &session, parts, stream.as_ref().and_then(|stream| stream.upstream_id()));
        let upstream_request = self.register(context, session, (vec![], false), outgoing).await?;
        let pending = upstream_request.upstream_session.announce_standalone();
        self.exchange_detached(UpstreamRequest { stream, pending, is_standalone: true, ..upstream_request })
            .await
    }

    /// Goes on with a stream after an event of it. While the session lives nobody is told that a stream is gone, which
    /// clients take for the end of the session, or wait on for their own time-out: what is held is gone on with, calls whose
    /// answers are lost end with an error each, and a standing stream begins anew.
    pub(super) async fn resume(
        self: &Arc<Self>,
        context: RequestContext,
        session: Session,
        parts: &Parts,
        id: &str,
    ) -> Result<Response, ErrorResponse> {
        let seal = |key: &str| self.sessions.event_seal(session.number, key);
        let Some(from) = EventId::parse(id, seal) else {
            // Nobody can say of which stream it is: not one of ours, or not of this session.
            return self.open_standalone(context, session, parts).await;
        };
        let pass = self.sessions.enter(&context.caller, &session);
        let pass = pass.map_err(|error| not_entered(error, &context, vec![], false))?;
        let known = self.streams.find(&from.key, session.number);
        let more = |stream: &Arc<ResumableStream>| {
            stream.ended() != Some(End::Paused) || stream.last() > from.number
        };
        if let Some(stream) = known.clone().filter(more)
            && let Ok((reader, lost)) = stream.attach_to_rest(from.number)
        {
            let in_flight = self.track(&context, &session, pass, vec![]);
            let lost: Vec<_> = lost.iter().map(|id| RpcError::stream_lost().answer(id)).collect();
            let first = (!lost.is_empty()).then(|| last_words(None, &lost).into());
            let body = pump::body(first, stream, reader, ReadRight::InFlight(Box::new(in_flight)));
            return Ok(client_response(StatusCode::OK, &HeaderMap::new(), true, body));
        }
        drop(pass);
        let upstream_session = self.upstream_sessions.of(&self.sessions, &session).await;
        let here = upstream_session
            .map_err(|error| ErrorResponse::from_error(error, &context.metadata))?
            .state()
            .session_digest();
        let own = match &known {
            Some(stream) => stream.upstream_id().filter(|_| stream.is_of_session(&here)),
            None => from.upstream.clone().filter(|_| {
                from.session_digest.as_ref().is_none_or(|session_digest| *session_digest == here)
            }),
        };
        // An event of another session at the upstream says nothing to this one.
        let upstream = own.filter(|id| !id.is_empty());
        let (calls, seal) = (from.calls.clone(), seal(&from.key));
        let begin = EventId { upstream: upstream.clone(), session_digest: Some(here), ..from };
        let rank = if calls.is_empty() { Rank::Standalone } else { Rank::Call };
        let share = self.share_of(rank, &session, CancellationToken::new());
        let stream = Arc::new(ResumableStream::new(session.number, begin, seal, share));
        match (upstream, calls.is_empty()) {
            (None, true) => self.open_standalone(context, session, parts).await,
            (Some(_), true) => {
                match self.request_standalone(&context, session.clone(), parts, Some(stream)).await {
                    Ok(response) if response.status() == StatusCode::OK => Ok(response),
                    _ => self.open_standalone(context, session, parts).await,
                }
            }
            (None, false) => {
                // Better an error for each than a client that waits.
                let reader = stream.refuse(&RpcError::stream_lost());
                let reader = reader.map_err(|_| ErrorResponse::session_not_found(None))?;
                Ok(events(&HeaderMap::new(), stream, reader, ReadRight::Own))
            }
            (upstream, false) => {
                let outgoing = resuming(&context, &session, parts, upstream);
                let upstream_request = self.register(&context, session, (calls, false), outgoing).await?;
                self.exchange_detached(UpstreamRequest { stream: Some(stream), ..upstream_request }).await
            }
        }
    }

    /// Carries a standing stream from the upstream. Servers may send its head with its first event, which may be in hours: its
    /// client gets a head of ours after a moment, and what was to be waited for goes when the client does.
    pub(super) async fn run_standalone(
        self: Arc<Self>,
        upstream_request: UpstreamRequest,
        answer: oneshot::Sender<UpstreamOutcome>,
    ) {
        let UpstreamRequest { in_flight, session, upstream_session, url, outgoing, stream, pending, .. } =
            upstream_request;
        let stream = match stream {
            Some(stream) => stream,
            None => self.new_stream(&in_flight, &upstream_session.state()).await,
        };
        let Ok(reader) = stream.attach(stream.after) else { return };
        let mut answer = Some(answer);
        let mut exchange =
            Box::pin(self.exchange(&session, &upstream_session, &url, outgoing, ExchangeOptions::default()));
        let soon = tokio::time::sleep(STANDALONE_WAIT);
        tokio::pin!(soon);
        let came = loop {
            tokio::select! {
                biased;
                came = in_flight.wait(&mut exchange) => break came,
                () = gone(&mut answer, &stream) => {
                    drop(exchange);
                    return self.streams.ended(&stream);
                }
                () = &mut soon, if answer.is_some() => {
                    self.streams.insert(&stream);
                    let sent = answer.take().map(|answer| {
                        answer.send(UpstreamOutcome::Events(HeaderMap::new(), stream.clone(), reader)).is_ok()
                    });
                    if sent != Some(true) {
                        stream.leave(reader);
                    }
                }
            }
        };
        drop((pending, exchange));
        match (came, answer) {
            (Ok(came), answer) if came.is_events() => {
                stream.bind_to_session(upstream_session.state().session_digest());
                self.streams.insert(&stream);
                if let Some(answer) = answer
                    && answer
                        .send(UpstreamOutcome::Events(came.head.headers, stream.clone(), reader))
                        .is_err()
                {
                    stream.leave(reader);
                }
                let patience = self.config.upstream_timeout;
                Pump::new(in_flight, stream.clone(), patience, &[], Some(came.body)).run().await;
            }
            (Ok(came), Some(answer)) => {
                answer.send(UpstreamOutcome::Whole(Box::new(came), in_flight)).ok();
            }
            (Err(rpc_error), Some(answer)) => {
                answer.send(UpstreamOutcome::Failed(rpc_error, in_flight)).ok();
            }
            // There is no stream to be had, but its client has one already: it stays quiet for as long as it is read.
            (Ok(_), None) => {
                let mut nobody = None;
                tokio::select! {
                    _ = in_flight.watch() => stream.cut_off(&[]),
                    () = gone(&mut nobody, &stream) => {}
                }
            }
            // Its client comes back in a while and finds out.
            (Err(_), None) if in_flight.stopped().is_none() => stream.end(End::Paused),
            (Err(_), None) => stream.cut_off(&[]),
        }
        self.streams.ended(&stream);
    }
}

/// Resolves once whoever waits for a stream, or reads it, has gone, or another has taken its place.
async fn gone(answer: &mut Option<oneshot::Sender<UpstreamOutcome>>, stream: &ResumableStream) {
    match answer {
        Some(answer) => answer.closed().await,
        None => tokio::select! {
            () = stream.deserted(Duration::ZERO) => {}
            () = stream.over() => {}
        },
    }
}

/// Asks for a stream, or for what follows an event of one.
fn resuming(
    context: &RequestContext,
    session: &Session,
    parts: &Parts,
    after: Option<Bytes>,
) -> OutgoingRequest {
    let mut headers = upstream::to_upstream(&parts.headers, extra(context));
    headers.remove(&LAST_EVENT_ID);
    if let Some(id) = after.and_then(|id| id.as_ref().try_into().ok()) {
        headers.insert(LAST_EVENT_ID.clone(), id);
    }
    OutgoingRequest { application: session.application, method: Method::GET, headers, body: Bytes::new() }
}
