//! Streams that a client asks for by GET: the standalone stream of its session, and the rest of a stream whose
//! connection broke.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use sessiond_core::session::Session;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::budget::Rank;
use super::elsewhere::refused;
use super::event_id::{self, EventId};
use super::forward::{ExchangeOptions, OutgoingRequest};
use super::legacy::{UpstreamOutcome, UpstreamRequest, entry_refused, events_response, extra_headers};
use super::pump::{self, Pump, ReadRight};
use super::reply::{ErrorResponse, RpcError, last_words};
use super::resumable_stream::{End, ResumableStream};
use super::upstream::{self, LAST_EVENT_ID};
use super::upstream_sessions::STANDALONE_WAIT;
use super::{Gateway, RequestContext, client_response};

/// How long giving up a connection to an upstream may take.
const PARTING: Duration = Duration::from_secs(1);
/// How often, and after which pause, an upstream that still has a standalone stream for the session is asked again.
pub(super) const TRIES: u32 = 5;
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(50);

impl Gateway {
    /// Opens the standalone stream of a session.
    pub(super) async fn open_standalone(
        self: &Arc<Self>,
        context: RequestContext,
        session: Session,
        parts: &Parts,
    ) -> Result<Response, ErrorResponse> {
        let former = self.streams.standalone(session.number);
        // Nobody reads the former stream, and the client does not resume it: it has begun anew. Most upstreams allow
        // only one stream.
        if let Some(former) = former.as_ref().filter(|former| !former.is_read()) {
            former.end(End::Done);
            tokio::time::timeout(PARTING, former.upstream_released()).await.ok();
        }
        for _ in 0..TRIES {
            let Some(former) = former.as_ref() else { break };
            let response = self.request_standalone(&context, session.clone(), parts, None).await?;
            if response.status() != StatusCode::CONFLICT {
                return Ok(response);
            }
            // The upstream still has the former stream: its reader is a connection that is dead without our knowing, or
            // the upstream has not noticed that we gave the stream up. The new stream counts.
            former.end(End::Done);
            tokio::time::timeout(PARTING, former.upstream_released()).await.ok();
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let response = self.request_standalone(&context, session.clone(), parts, None).await?;
        let taken = response.status() == StatusCode::CONFLICT;
        let elsewhere = match taken {
            true => self.standalone_elsewhere(&context, &session, parts).await?,
            false => None,
        };
        Ok(elsewhere.unwrap_or(response))
    }

    /// Asks the upstream for a standalone stream: a new one, or one that goes on after an event.
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

    /// Resumes a stream after one of its events. As long as the session lives no client is told that a stream is gone,
    /// because clients take that for the end of the session, or wait until their own time-out. Instead the gateway
    /// hands on the events that it holds, answers each call whose answer is lost with an error, and begins a standalone
    /// stream anew.
    pub(super) async fn resume(
        self: &Arc<Self>,
        context: RequestContext,
        session: Session,
        parts: &Parts,
        id: &str,
    ) -> Result<Response, ErrorResponse> {
        let seal = |key: &str| self.sessions.gateway.event_seal(session.number, key);
        let Some(from) = EventId::parse(id, seal) else {
            // The id does not say of which stream it is: the gateway did not give it out, or not for this session.
            return self.open_standalone(context, session, parts).await;
        };
        let pass = self.sessions.admission.enter(&context.caller, &session);
        let mut pass = pass.map_err(|error| entry_refused(error, &context, vec![], false))?;
        let owner = self.owner(event_id::node_of(&from.key), parts).await;
        if let Some(peer) = owner.map_err(|error| refused(error, &context))? {
            if let Some(response) = self.handed_on(&peer, parts, Body::empty(), pass).await {
                return Ok(response);
            }
            // It cannot be asked: then this is as after its end.
            pass = self
                .sessions
                .admission
                .enter(&context.caller, &session)
                .map_err(|error| entry_refused(error, &context, vec![], false))?;
        }
        let known = self.streams.find(&from.key, session.number);
        let more = |stream: &Arc<ResumableStream>| {
            stream.ending() != Some(End::Paused) || stream.last_number() > from.number
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
        let upstream_session = self.upstream_sessions.of(&self.sessions.gateway, &session).await;
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
        // An event id of another session at the upstream means nothing to this one.
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
                // An error for each call is better than a client that waits for answers that are lost.
                let reader = stream.refuse(&RpcError::stream_lost());
                let reader = reader.map_err(|_| ErrorResponse::session_not_found(None))?;
                Ok(events_response(
                    &HeaderMap::new(),
                    stream,
                    reader,
                    ReadRight::Own(self.sessions.admission.lease()),
                ))
            }
            (upstream, false) => {
                let outgoing = resuming(&context, &session, parts, upstream);
                let upstream_request = self.register(&context, session, (calls, false), outgoing).await?;
                self.exchange_detached(UpstreamRequest { stream: Some(stream), ..upstream_request }).await
            }
        }
    }

    /// Runs a standalone stream from the upstream to the client. A server may hold the head back until its first event,
    /// perhaps for hours: so the client gets a head of ours after a moment. When the client goes, the wait for the
    /// upstream's head ends too.
    pub(super) async fn run_standalone(
        self: Arc<Self>,
        upstream_request: UpstreamRequest,
        reply: oneshot::Sender<UpstreamOutcome>,
    ) {
        let UpstreamRequest { in_flight, session, upstream_session, url, outgoing, stream, pending, .. } =
            upstream_request;
        let stream = match stream {
            Some(stream) => stream,
            None => self.new_stream(&in_flight, &upstream_session.state()).await,
        };
        let Ok(reader) = stream.attach(stream.after) else { return };
        let mut reply = Some(reply);
        let mut exchange =
            Box::pin(self.exchange(&session, &upstream_session, &url, outgoing, ExchangeOptions::default()));
        let soon = tokio::time::sleep(STANDALONE_WAIT);
        tokio::pin!(soon);
        let response = loop {
            tokio::select! {
                biased;
                response = in_flight.wait(&mut exchange) => break response,
                () = gone(&mut reply, &stream) => {
                    drop(exchange);
                    return self.streams.mark_ended(&stream);
                }
                () = &mut soon, if reply.is_some() => {
                    self.streams.insert(&stream);
                    let sent = reply.take().map(|reply| {
                        reply.send(UpstreamOutcome::Events(HeaderMap::new(), stream.clone(), reader)).is_ok()
                    });
                    if sent != Some(true) {
                        stream.leave(reader);
                    }
                }
            }
        };
        drop((pending, exchange));
        match (response, reply) {
            (Ok(response), reply) if response.is_events() => {
                stream.bind_to_session(upstream_session.state().session_digest());
                self.streams.insert(&stream);
                if let Some(reply) = reply
                    && reply
                        .send(UpstreamOutcome::Events(response.head.headers, stream.clone(), reader))
                        .is_err()
                {
                    stream.leave(reader);
                }
                let patience = self.config.upstream_timeout;
                Pump::new(in_flight, stream.clone(), patience, &[], Some(response.body)).run().await;
            }
            (Ok(response), Some(reply)) => {
                reply.send(UpstreamOutcome::Whole(Box::new(response), in_flight)).ok();
            }
            (Err(rpc_error), Some(reply)) => {
                reply.send(UpstreamOutcome::Failed(rpc_error, in_flight)).ok();
            }
            // The upstream has no stream to give, but the client has got a head already: its stream stays quiet for as
            // long as the client reads it.
            (Ok(_), None) => {
                let mut nobody = None;
                tokio::select! {
                    _ = in_flight.watch() => stream.cut_off(&[]),
                    () = gone(&mut nobody, &stream) => {}
                }
            }
            // The client comes back in a while, and then learns what is wrong.
            (Err(_), None) if in_flight.stopped().is_none() => stream.end(End::Paused),
            (Err(_), None) => stream.cut_off(&[]),
        }
        self.streams.mark_ended(&stream);
    }
}

/// Resolves once the client that waits for a stream, or reads it, has gone, or another stream has taken its place.
async fn gone(reply: &mut Option<oneshot::Sender<UpstreamOutcome>>, stream: &ResumableStream) {
    match reply {
        Some(reply) => reply.closed().await,
        None => tokio::select! {
            () = stream.deserted(Duration::ZERO) => {}
            () = stream.ended() => {}
        },
    }
}

/// The request for a standalone stream, or for what follows an event of one.
fn resuming(
    context: &RequestContext,
    session: &Session,
    parts: &Parts,
    after: Option<Bytes>,
) -> OutgoingRequest {
    let mut headers = upstream::to_upstream(&parts.headers, extra_headers(context));
    headers.remove(&LAST_EVENT_ID);
    if let Some(id) = after.and_then(|id| id.as_ref().try_into().ok()) {
        headers.insert(LAST_EVENT_ID.clone(), id);
    }
    OutgoingRequest { application: session.application, method: Method::GET, headers, body: Bytes::new() }
}
