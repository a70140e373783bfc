//! Gives a connection of HTTP+SSE its session, and ends the one with the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use sessiond_core::session::Session;

use super::elsewhere::refused;
use super::forward::OutgoingRequest;
use super::get_stream::{RETRY_PAUSE, TRIES};
use super::in_flight::StopReason;
use super::legacy::entry_refused;
use super::reply::{ErrorResponse, RpcError};
use super::resumable_stream::End;
use super::sse::PATIENCE;
use super::sse_connection::SseConnection;
use super::sse_exchange::{no_stream, stream_taken};
use super::upstream::{self, LAST_EVENT_ID};
use super::upstream_sessions::{UpstreamState, to_json};
use super::{Gateway, RequestContext};
use crate::error::Error;
use crate::gate::Pass;
use crate::nodes::Owner;

/// How many open sessions of one principal are searched for one without a connection.
const MOST_OPEN: usize = 64;
/// The shortest pause before the standalone stream is opened again after the upstream closed it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(125);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Gateway {
    /// Gives a connection the session of a client that came back without saying which session it had: the SDKs' clients
    /// then open a new stream and go on as if nothing had happened. This is done only where exactly one session of this
    /// principal and client has lost its connection. A client that has just begun sends `initialize` first and never
    /// gets here.
    pub(super) async fn adopt_session(
        self: &Arc<Self>,
        context: &RequestContext,
        connection: &Arc<SseConnection>,
        headers: &HeaderMap,
    ) -> Result<(), ErrorResponse> {
        let mut without = vec![];
        for session in self.sessions.gateway.open_of(&context.caller, context.application.number, MOST_OPEN) {
            let read = self
                .sse_connections
                .of_session(session.number)
                .is_some_and(|connection| connection.stream.is_read());
            if read || !self.is_of_client(context, &session).await? {
                continue;
            }
            let upstream_session = self.upstream_sessions.of(&self.sessions.gateway, &session).await;
            let Some(state) = upstream_session.ok().map(|upstream| upstream.state()) else { continue };
            let elsewhere = self.peers.owner_of(state.sse_node).await;
            let elsewhere = elsewhere.map_err(|error| refused(error.into(), context))?;
            if state.is_sse && !matches!(elsewhere, Owner::There(_)) {
                without.push(session);
            }
        }
        let [session] = &without[..] else { return Ok(()) };
        self.mark_as_sse(session).await;
        let former = self.sse_connections.of_session(session.number);
        self.bind_session(context, connection, session.clone(), None)?;
        if let Some(former) = former {
            connection.take_over(&former).await;
        }
        self.listen_to_upstream(context, connection, session.clone(), headers);
        Ok(())
    }

    /// Keeps in the upstream state that the session's client speaks HTTP+SSE, and that its connection is here.
    pub(super) async fn mark_as_sse(&self, session: &Session) {
        let Ok(upstream_session) = self.upstream_sessions.of(&self.sessions.gateway, session).await else {
            return;
        };
        let (_hold, before) = self.alone_with(session, &upstream_session).await;
        let state =
            UpstreamState { is_sse: true, sse_node: self.peers.own(), ..UpstreamState::clone(&before) };
        if (before.is_sse, before.sse_node) == (state.is_sse, state.sse_node) {
            return;
        }
        if let Err(error) = self.sessions.gateway.update_state(session, &to_json(&state)).await {
            tracing::warn!(?error, session = %session.id, "a client that comes back will not find its session");
        }
        upstream_session.replace(state);
    }

    /// Gives a connection its session, and starts a task that ends each with the other.
    pub(super) fn bind_session(
        self: &Arc<Self>,
        context: &RequestContext,
        connection: &Arc<SseConnection>,
        session: Session,
        mcp_session_id: Option<&str>,
    ) -> Result<(), ErrorResponse> {
        let refused = |error| entry_refused(error, context, vec![], false);
        self.sessions.admission.check_again(&context.caller, session.application).map_err(refused)?;
        // The connection lives by the credential that opened the stream, which may no longer be good.
        let pass = match self.sessions.admission.enter(&connection.opener, &session) {
            Ok(pass) => pass,
            Err(error) => {
                connection.stream.end(End::Done);
                self.sse_connections.remove(connection);
                return Err(refused(error));
            }
        };
        connection.set_session(session.clone(), mcp_session_id);
        self.sse_connections.insert(connection);
        let context = RequestContext { caller: connection.opener.clone(), ..context.clone() };
        let mut in_flight = self.track(&context, &session, pass, vec![]);
        let (gateway, connection) = (self.clone(), connection.clone());
        tokio::spawn(async move {
            let stop = tokio::select! {
                biased;
                stop = in_flight.watch() => Some(stop),
                () = connection.stream.given_up().cancelled() => Some(StopReason::OverBudget),
                () = connection.stream.deserted(PATIENCE) => None,
            };
            match stop {
                // The client comes back to the same session after the restart; its calls are answered now, because the
                // next process knows nothing of them.
                Some(StopReason::Stopping) => connection.cut_off(&RpcError::stopping()),
                Some(stop) => connection.cut_off(&in_flight.rpc_error(stop)),
                None => connection.stream.end(End::Done),
            }
            let own = match (stop, in_flight.pass.as_ref().and_then(Pass::reason)) {
                (Some(StopReason::Ended), Some(reason)) => {
                    gateway.sse_connections.remember_ended(&connection, reason);
                    false
                }
                _ => gateway.sse_connections.remove(&connection),
            };
            in_flight.release_pass();
            if stop.is_none() && own {
                gateway.end_session(&context, &session).await.ok();
            }
        });
        Ok(())
    }

    /// Starts a task that puts onto the connection what the upstream sends by itself.
    pub(super) fn listen_to_upstream(
        self: &Arc<Self>,
        context: &RequestContext,
        connection: &Arc<SseConnection>,
        session: Session,
        headers: &HeaderMap,
    ) {
        let mut headers = upstream::to_upstream(headers, context.application.upstream_headers.as_ref());
        headers.remove(&LAST_EVENT_ID);
        let (application, body) = (session.application, Bytes::new());
        let outgoing = OutgoingRequest { application, method: Method::GET, headers, body };
        let listening = UpstreamListener {
            gateway: self.clone(),
            connection: connection.clone(),
            context: context.clone(),
            session,
            outgoing,
        };
        tokio::spawn(listening.run());
    }
}

/// A task that puts what the upstream sends by itself onto a connection.
struct UpstreamListener {
    gateway: Arc<Gateway>,
    connection: Arc<SseConnection>,
    context: RequestContext,
    session: Session,
    outgoing: OutgoingRequest,
}

impl UpstreamListener {
    /// Runs for as long as the connection lives. The upstream may close its standalone stream at any time, and a
    /// reopened session has another one; the client, who has one stream for everything, cannot know either.
    async fn run(mut self) {
        let (mut pause, mut taken_times) = (SHORTEST_PAUSE, 0);
        loop {
            let began = Instant::now();
            let again_in = match self.listen_once().await {
                ListenOutcome::Finished => return,
                ListenOutcome::Reopened => Duration::ZERO,
                // The upstream has not noticed yet that its former stream is over.
                ListenOutcome::AlreadyTaken if taken_times < TRIES => {
                    taken_times += 1;
                    RETRY_PAUSE
                }
                ListenOutcome::AlreadyTaken | ListenOutcome::Closed => {
                    let lasted = began.elapsed() > LONGEST_PAUSE;
                    pause = if lasted { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(again_in) => {}
                () = self.connection.stream.ended() => return,
            }
        }
    }

    /// Opens the standalone stream once, and puts its events onto the connection until it ends.
    async fn listen_once(&mut self) -> ListenOutcome {
        let Self { gateway, connection, context, session, .. } = &*self;
        let pass = match gateway.sessions.admission.enter(&context.caller, session) {
            Ok(pass) => pass,
            // The session is suspended, and goes on when it is resumed.
            Err(Error::Suspended(_)) => return ListenOutcome::Closed,
            Err(_) => return ListenOutcome::Finished,
        };
        let Ok(upstream_session) = gateway.upstream_sessions.of(&gateway.sessions.gateway, session).await
        else {
            return ListenOutcome::Finished;
        };
        let in_flight = gateway.track(context, session, pass, vec![]);
        let session_digest = upstream_session.state().session_digest();
        let listening =
            gateway.exchange_over_sse(connection, in_flight, context, session, self.outgoing.clone(), None);
        let outcome = tokio::select! {
            outcome = listening => outcome,
            () = connection.stream.ended() => return ListenOutcome::Finished,
            () = upstream_session.changed_from(&session_digest) => {
                self.outgoing.headers.remove(&LAST_EVENT_ID);
                return ListenOutcome::Reopened;
            }
        };
        match outcome {
            Err(rpc_error) if rpc_error == stream_taken() => ListenOutcome::AlreadyTaken,
            Err(rpc_error) if rpc_error == no_stream() => ListenOutcome::Finished,
            Err(_) => ListenOutcome::Closed,
            Ok(last) => {
                if let Some(id) = last.and_then(|id| HeaderValue::from_bytes(&id).ok()) {
                    self.outgoing.headers.insert(LAST_EVENT_ID.clone(), id);
                }
                ListenOutcome::Closed
            }
        }
    }
}

/// How a standalone stream from the upstream came to its end.
enum ListenOutcome {
    /// The connection has ended, or the upstream has no such stream.
    Finished,
    /// The upstream says that the session has such a stream already.
    AlreadyTaken,
    /// The upstream has closed the stream, or it broke.
    Closed,
    /// The session was opened anew at the upstream, and the stream was the former session's.
    Reopened,
}
