//! HTTP+SSE (MCP 2024-11-05, basic/transports): `GET …/sse` opens a connection, and its client POSTs messages to the
//! endpoint that the connection names. Toward the upstream the gateway speaks Streamable HTTP, as for all other
//! clients.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use sessiond_core::session::Session;
use sessiond_core::session::event::Counts;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::budget::Rank;
use super::elsewhere::refused;
use super::event_id::{self, EventId};
use super::forward::{IncomingResponse, InitializeAnswer, OutgoingRequest};
use super::legacy::{entry_refused, warn_of_stranger};
use super::message::{self, Posted};
use super::pump::{self, ReadRight};
use super::reopen::SessionSetting;
use super::reply::{ErrorResponse, RpcError, last_words};
use super::resumable_stream::{End, NotHeld};
use super::sse_connection::{self, NO_SESSION, SseConnection};
use super::sse_exchange::convey;
use super::upstream::{self, LAST_EVENT_ID};
use super::{Gateway, RequestContext, check_content, check_takes_events, client_response, request_headers};
use crate::error::Error;
use crate::gate::Side;
use crate::sessions::Registration;

/// How long a client may take to send `initialize`, and how long to come back when its stream broke.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client's next message waits for the one before it.
const IN_ORDER: Duration = Duration::from_secs(5);
/// How many milliseconds after its stream broke a client comes back.
const RETRY: u32 = 1_000;

impl Gateway {
    /// Opens a connection, or goes on with one that broke.
    pub(super) async fn open_sse(
        self: &Arc<Self>,
        context: RequestContext,
        parts: &Parts,
    ) -> Result<Response, ErrorResponse> {
        if parts.method != Method::GET {
            return Err(ErrorResponse::method_not_allowed("GET, OPTIONS"));
        }
        check_takes_events(&parts.headers)?;
        let seal = |stream: &str| self.sessions.gateway.event_seal(NO_SESSION, stream);
        let last =
            request_headers::text(&parts.headers, &LAST_EVENT_ID).and_then(|id| EventId::parse(id, seal));
        let session = match last.as_ref().and_then(|last| last.upstream.as_ref()) {
            Some(id) => Some(self.session_by_id(&context, &String::from_utf8_lossy(id)).await?),
            None => None,
        };
        let node = last.as_ref().and_then(|last| event_id::node_of(&last.key));
        if let Some(peer) = self.owner(node, parts).await.map_err(|error| refused(error, &context))? {
            let pass = self.register_credential(&context)?.pass;
            if let Some(response) = self.handed_on(&peer, parts, Body::empty(), pass).await {
                return Ok(response);
            }
        }
        let after = last.as_ref().map_or(0, |last| last.number);
        let known = session.as_ref().and_then(|session| self.sse_connections.of_session(session.number));
        if let Some(connection) = known.filter(|connection| connection.is_of(&context.caller)) {
            // The connection is still there: the client first gets what it missed.
            if let Ok((reader, lost)) = connection.stream.attach_to_rest(after) {
                return self.sse_response(&context, &connection, reader, &lost);
            }
        }
        let mcp_session_id = last.and_then(|last| last.upstream).filter(|_| session.is_some());
        let (application, budget) = (context.application.number, &self.budget);
        let connection = SseConnection::new(
            &context.caller,
            application,
            after,
            mcp_session_id,
            budget,
            self.peers.own(),
            seal,
        );
        let reader =
            connection.stream.attach(after).map_err(|NotHeld| ErrorResponse::session_not_found(None))?;
        match session {
            Some(session) => {
                self.mark_as_sse(&session).await;
                self.bind_session(&context, &connection, session.clone(), None)?;
                self.listen_to_upstream(&context, &connection, session, &parts.headers);
            }
            None => {
                self.sse_connections.insert(&connection);
                let registration = self.register_credential(&context)?;
                tokio::spawn(self.clone().wait_for_session(connection.clone(), registration));
            }
        }
        self.sse_response(&context, &connection, reader, &[])
    }

    /// Gives up a connection that gets no session in time, or whose credential ends before.
    async fn wait_for_session(self: Arc<Self>, connection: Arc<SseConnection>, registration: Registration) {
        let ending = tokio::select! {
            biased;
            ending = registration.ended() => Some(ending),
            () = tokio::time::sleep(PATIENCE) => None,
        };
        if connection.session().is_none() {
            match ending {
                Some(ending) => connection.cut_off(&RpcError::cut_off_by(ending)),
                None => connection.stream.end(End::Done),
            }
            self.sse_connections.remove(&connection);
        }
    }

    /// Registers at the Gate a request that belongs to no session yet, or that reads a stream which another request
    /// opened.
    pub(super) fn register_credential(
        &self,
        context: &RequestContext,
    ) -> Result<Registration, ErrorResponse> {
        let side = Side::Agent(context.application.number, None);
        let registration = self.sessions.admission.register(&context.caller, side);
        registration.map_err(|error| ErrorResponse::from_error(error, &context.metadata))
    }

    /// The response to the GET: the stream. It begins by naming the endpoint, and then tells which calls have lost
    /// their answers.
    fn sse_response(
        &self,
        context: &RequestContext,
        connection: &Arc<SseConnection>,
        reader: u64,
        lost: &[Value],
    ) -> Result<Response, ErrorResponse> {
        let prefix = Url::parse(&context.base).map(|url| url.path().trim_end_matches('/').to_owned());
        let prefix = prefix.unwrap_or_default();
        let endpoint =
            format!("{prefix}/mcp/{}/messages?sessionId={}", context.application.id, connection.id);
        let lost: Vec<_> = lost.iter().map(|id| RpcError::stream_lost().answer(id)).collect();
        let lost = last_words(None, &lost);
        let first = Bytes::from(format!("event: endpoint\nretry: {RETRY}\ndata: {endpoint}\n\n{lost}"));
        let right = ReadRight::Credential(self.register_credential(context)?.pass);
        let body = pump::body(Some(first), connection.stream.clone(), reader, right);
        Ok(client_response(StatusCode::OK, &HeaderMap::new(), true, body))
    }

    /// Accepts a client's message. Its answer comes on the connection.
    pub(super) async fn on_message(
        self: &Arc<Self>,
        context: RequestContext,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, ErrorResponse> {
        if parts.method != Method::POST {
            return Err(ErrorResponse::method_not_allowed("POST, OPTIONS"));
        }
        let query = parts.uri.query().unwrap_or_default();
        let id = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "sessionId");
        let node = id.as_ref().and_then(|(_, id)| sse_connection::node_of(id));
        if let Some(peer) = self.owner(node, parts).await.map_err(|error| refused(error, &context))? {
            let pass = self.register_credential(&context)?.pass;
            let response = self.handed_on(&peer, parts, body, pass).await;
            return response.ok_or_else(|| refused(Error::Busy, &context));
        }
        let connection = id.and_then(|(_, id)| self.sse_connections.find(&id));
        let connection = connection.filter(|connection| connection.application == context.application.number);
        let connection = connection.ok_or_else(|| ErrorResponse::session_not_found(None))?;
        if !connection.is_of(&context.caller) {
            warn_of_stranger(&context, connection.session().as_ref());
            return Err(ErrorResponse::session_not_found(None));
        }
        check_content(&parts.headers)?;
        if let Some(reason) = connection.end_reason() {
            return Err(ErrorResponse::session_not_found(Some(reason)));
        }
        let body = self.read_body(body).await?;
        let posted = message::read(&body).map_err(ErrorResponse::bad_request)?;
        let session_lock = connection.session_lock.clone().lock_owned().await;
        match (connection.session(), posted.initialize.is_some()) {
            (Some(_), true) => {
                let rpc_error =
                    RpcError::invalid_request("Invalid Request: this session is initialized already");
                return Err(ErrorResponse::bad_request(rpc_error).answering(&posted.ids));
            }
            (None, true) => {
                self.add_pending(&context, &connection, &posted.ids)?;
                let (gateway, parts) = (self.clone(), parts.clone());
                tokio::spawn(async move {
                    gateway.initialize_on(connection, context, parts, posted, body).await;
                    drop(session_lock);
                });
                return Ok(accepted());
            }
            (None, false) => self.adopt_session(&context, &connection, &parts.headers).await?,
            (Some(_), false) => {}
        }
        drop(session_lock);
        let Some(session) = connection.session() else {
            let rpc_error =
                RpcError::invalid_request("Invalid Request: the first message must be initialize");
            return Err(ErrorResponse::bad_request(rpc_error).answering(&posted.ids));
        };
        self.forward_on_sse(connection, context, session, parts, posted, body).await?;
        Ok(accepted())
    }

    /// Carries out `initialize` for a connection.
    async fn initialize_on(
        self: Arc<Self>,
        connection: Arc<SseConnection>,
        context: RequestContext,
        parts: Parts,
        posted: Posted,
        body: Bytes,
    ) {
        let Some(initialize) = &posted.initialize else { return };
        let bytes_in = body.len() as u64;
        let (initialize_answer, opened) =
            match self.initialize_upstream(&context, &parts, &posted, initialize, body).await {
                Ok(initialize_upstream) => initialize_upstream,
                Err(refusal) => return connection.refuse(&posted.ids, &refusal.rpc_error).await,
            };
        if let Some((session, mcp_session_id)) = opened {
            let counts = Counts { requests: 1, bytes_in, bytes_out: 0 };
            self.sessions.traffic.observe(&context.caller, &session, counts);
            self.mark_as_sse(&session).await;
            if let Err(refusal) = self.bind_session(&context, &connection, session, Some(&mcp_session_id)) {
                self.sse_connections.remove(&connection);
                return connection.cut_off(&refusal.rpc_error);
            }
        }
        let InitializeAnswer { head, read, rest, .. } = initialize_answer;
        let answer = IncomingResponse { head, body: rest.unwrap_or_default() };
        let of = connection.session().map_or(NO_SESSION, |session| session.number);
        let share = self.budget.share(Rank::Call, (of, context.application.number), CancellationToken::new());
        if let Err(rpc_error) =
            convey(&connection, (&posted.ids, None), answer, &read, self.patience(), &share).await
        {
            connection.refuse(&posted.ids, &rpc_error).await;
        }
    }

    /// Sends a message of a session to the upstream, and what comes back to the connection.
    async fn forward_on_sse(
        self: &Arc<Self>,
        connection: Arc<SseConnection>,
        context: RequestContext,
        session: Session,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<(), ErrorResponse> {
        let pass = self.sessions.admission.enter(&context.caller, &session);
        let pass = pass.map_err(|error| entry_refused(error, &context, posted.ids.clone(), posted.batch));
        self.add_pending(&context, &connection, &posted.ids)?;
        let pass = match pass {
            Ok(pass) => pass,
            // A suspension can pass: the call is answered on the connection, like all others.
            Err(refusal) if refusal.rpc_error == RpcError::suspended() => {
                tokio::spawn(async move { connection.refuse(&posted.ids, &refusal.rpc_error).await });
                return Ok(());
            }
            Err(refusal) => {
                connection.remove_pending(&posted.ids);
                return Err(refusal);
            }
        };
        let (requests, bytes_in) = (posted.ids.len() as u64, body.len() as u64);
        self.sessions.traffic.observe(&context.caller, &session, Counts { requests, bytes_in, bytes_out: 0 });
        let setting = SessionSetting::of(&posted, &body).filter(|_| !posted.batch);
        let body = posted
            .insertion_point
            .map_or(body.clone(), |insertion_point| insertion_point.insert(&body, session.id).into());
        let headers = upstream::to_upstream(&parts.headers, context.application.upstream_headers.as_ref());
        let outgoing =
            OutgoingRequest { application: session.application, method: Method::POST, headers, body };
        let ready = posted.method.as_deref() == Some("notifications/initialized");
        let asks = !posted.ids.is_empty();
        let (gateway, headers) = (self.clone(), parts.headers.clone());
        let in_flight = gateway.track(&context, &session, pass, posted.ids);
        in_flight.share.set(outgoing.body.len());
        let work = tokio::spawn(async move {
            gateway
                .exchange_over_sse(&connection, in_flight, &context, &session, outgoing, setting)
                .await
                .ok();
            if ready {
                gateway.listen_to_upstream(&context, &connection, session, &headers);
            }
        });
        if !asks {
            // Clients send one message after the other, and a later one must not overtake this one.
            tokio::time::timeout(IN_ORDER, work).await.ok();
        }
        Ok(())
    }

    /// Notes that calls wait for an answer, or refuses them where too many do.
    fn add_pending(
        &self,
        context: &RequestContext,
        connection: &SseConnection,
        ids: &[Value],
    ) -> Result<(), ErrorResponse> {
        match connection.add_pending(ids) {
            true => Ok(()),
            false => Err(ErrorResponse::from_error(Error::Busy, &context.metadata).answering(ids)),
        }
    }
}

/// The response to a message that was accepted.
fn accepted() -> Response {
    (StatusCode::ACCEPTED, "Accepted").into_response()
}
