//! HTTP+SSE (MCP 2024-11-05, basic/transports): `GET …/sse` opens a connection, and its client POSTs messages to the
//! endpoint that the connection names. Toward the upstream the gateway speaks Streamable HTTP, as for all other
//! clients.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use sessiond_core::session::Session;
use sessiond_core::session::event::Counts;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::budget::{Rank, Share};
use super::event_id::EventId;
use super::forward::{ExchangeOptions, IncomingResponse, InitializeAnswer, OutgoingRequest, data};
use super::in_flight::{InFlight, StopReason};
use super::legacy::{entry_refused, warn_of_stranger};
use super::message::{self, Posted};
use super::pump::{self, ReadRight};
use super::reopen::SessionSetting;
use super::reply::{ErrorResponse, RpcError, last_words};
use super::resumable_stream::{End, NotHeld};
use super::sse_connection::{NO_SESSION, SseConnection};
use super::sse_events::Splitter;
use super::upstream::{self, LAST_EVENT_ID, PROTOCOL_VERSION};
use super::{Gateway, RequestContext, check_content, check_takes_events, client_response, request_headers};
use crate::error::Error;
use crate::gate::{Pass, Side};
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
        let connection =
            SseConnection::new(&context.caller, application, after, mcp_session_id, budget, seal);
        let reader =
            connection.stream.attach(after).map_err(|NotHeld| ErrorResponse::session_not_found(None))?;
        match session {
            Some(session) => {
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
        let connection = id.and_then(|(_, id)| self.sse_connections.find(&id));
        let connection = connection.filter(|connection| connection.application == context.application.number);
        let connection = connection.ok_or_else(|| ErrorResponse::session_not_found(None))?;
        if !connection.is_of(&context.caller) {
            warn_of_stranger(&context, connection.session().as_ref());
            return Err(ErrorResponse::session_not_found(None));
        }
        check_content(&parts.headers)?;
        if let Some(reason) = connection.ended() {
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
                self.owe(&context, &connection, &posted.ids)?;
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
        self.owe(&context, &connection, &posted.ids)?;
        let pass = match pass {
            Ok(pass) => pass,
            // A suspension can pass: the call is answered on the connection, like all others.
            Err(refusal) if refusal.rpc_error == RpcError::suspended() => {
                tokio::spawn(async move { connection.refuse(&posted.ids, &refusal.rpc_error).await });
                return Ok(());
            }
            Err(refusal) => {
                connection.forgive(&posted.ids);
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

    /// Notes that calls are owed an answer, or refuses them where too many are.
    fn owe(
        &self,
        context: &RequestContext,
        connection: &SseConnection,
        ids: &[Value],
    ) -> Result<(), ErrorResponse> {
        match connection.owe(ids) {
            true => Ok(()),
            false => Err(ErrorResponse::from_error(Error::Busy, &context.metadata).answering(ids)),
        }
    }

    /// Sends a request to the upstream and puts the answer onto the connection; an error has been put there when this
    /// returns it. Returns the id of the upstream's last event with an id.
    pub(super) async fn exchange_over_sse(
        self: &Arc<Self>,
        connection: &SseConnection,
        mut in_flight: InFlight,
        context: &RequestContext,
        session: &Session,
        mut outgoing: OutgoingRequest,
        setting: Option<SessionSetting>,
    ) -> Result<Option<Bytes>, RpcError> {
        let Ok(upstream_session) = self.upstream_sessions.of(&self.sessions.gateway, session).await else {
            let rpc_error = RpcError::upstream_lost();
            connection.refuse(&in_flight.ids, &rpc_error).await;
            return Err(rpc_error);
        };
        in_flight.upstream_work = Some(self.goodbyes.begin_work(
            (session.number, session.id),
            session.application,
            &upstream_session,
        ));
        let work = async {
            if let Ok(version) = HeaderValue::try_from(&upstream_session.state().protocol_version) {
                outgoing.headers.insert(PROTOCOL_VERSION.clone(), version);
            }
            let options = ExchangeOptions { ids: &in_flight.ids, owed: false, setting };
            let answer = self.exchange(session, &upstream_session, &context.url, outgoing, options).await?;
            convey(
                connection,
                (&in_flight.ids, Some(&in_flight)),
                answer,
                &[],
                self.patience(),
                &in_flight.share,
            )
            .await
        };
        // The end of the session ends the connection too, whose own task tells the client.
        let done = tokio::select! {
            biased;
            stop = in_flight.watch() => {
                let rpc_error = in_flight.rpc_error(stop);
                in_flight.give_up(&rpc_error);
                let own = connection.opener.credential == in_flight.caller.credential;
                let ended = in_flight.pass.as_ref().and_then(Pass::credential_end);
                if stop == StopReason::OverBudget {
                    // The connection goes on, and nobody else would tell its client.
                    connection.refuse(&in_flight.ids, &rpc_error).await;
                } else if let Some(end) = ended.filter(|_| stop == StopReason::Ended && !own) {
                    // The message came with another credential than the stream, which goes on.
                    connection.refuse(&in_flight.ids, &RpcError::credential_ended(end)).await;
                }
                return Ok(None);
            }
            done = work => done,
        };
        match done {
            Ok(conveyed) => {
                in_flight.record_bytes(conveyed.bytes);
                Ok(conveyed.last)
            }
            Err(rpc_error) => {
                if rpc_error.may_leave_work() {
                    in_flight.give_up(&rpc_error);
                }
                connection.refuse(&in_flight.ids, &rpc_error).await;
                Err(rpc_error)
            }
        }
    }
}

/// The upstream already has a standalone stream for the session.
pub(super) fn stream_taken() -> RpcError {
    RpcError::upstream_refused("serves one stream a session")
}

/// The upstream has no standalone stream to give.
pub(super) fn no_stream() -> RpcError {
    RpcError::upstream_refused("has no stream of its own")
}

/// One message is larger than half of what one call may hold: it is held twice, as it came and as it is handed on.
fn too_large() -> RpcError {
    RpcError::upstream_refused("answers with more than a stream of 2024-11-05 can carry")
}

/// Reads the whole of an answer that is no stream.
async fn gather(
    mut body: Body,
    read: &[u8],
    patience: Duration,
    share: &Share,
) -> Result<BytesMut, RpcError> {
    let mut whole = BytesMut::from(read);
    let gathering = async {
        while let Some(data) = data(&mut body).await {
            whole.extend_from_slice(&data.map_err(|_| RpcError::upstream_lost())?);
            share.set(whole.capacity());
            if whole.len() > share.most() / 2 {
                return Err(too_large());
            }
        }
        Ok(())
    };
    let gathered = tokio::time::timeout(patience, gathering).await;
    gathered.map_err(|_| RpcError::upstream_slow())??;
    share.set(whole.capacity() + whole.len());
    Ok(whole)
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, "Accepted").into_response()
}

/// What an upstream's answer has come to.
#[derive(Default)]
struct Conveyed {
    bytes: u64,
    /// The id of the last event that had one.
    last: Option<Bytes>,
    /// An error that answers no call of this connection.
    stray: Option<RpcError>,
}

impl Conveyed {
    /// Puts one message of the upstream onto the connection. The answer to a call that nobody waits for is left out,
    /// and an error that answers no call is kept, because it may be about this one.
    async fn message(&mut self, connection: &SseConnection, in_flight: Option<&InFlight>, data: &[u8]) {
        let answered = message::answered(data);
        let wanted = if answered.is_empty() { message::asks(data) } else { connection.owes(&answered) };
        if wanted {
            self.bytes += data.len() as u64;
            in_flight.iter().for_each(|in_flight| in_flight.count_bytes(data.len() as u64));
            connection.say(data).await;
        } else if let Some(rpc_error) = message::error_in(data) {
            self.stray.get_or_insert(rpc_error);
        }
    }

    /// Ends the answer: a call that is still owed an answer gets the stray error, or else this one.
    fn over(
        self,
        connection: &SseConnection,
        ids: &[Value],
        otherwise: impl FnOnce() -> RpcError,
    ) -> Result<Self, RpcError> {
        match connection.owes(ids) {
            true => Err(self.stray.unwrap_or_else(otherwise)),
            false => Ok(self),
        }
    }
}

/// Puts an upstream's answer onto a connection: each message of a stream as it comes, anything else whole. A call that
/// the answer does not answer is an error: its client was told 202, and nobody else can tell it.
async fn convey(
    connection: &SseConnection,
    (ids, in_flight): (&[Value], Option<&InFlight>),
    answer: IncomingResponse,
    read: &[u8],
    patience: Duration,
    share: &Share,
) -> Result<Conveyed, RpcError> {
    let events = answer.is_events();
    let IncomingResponse { head, mut body } = answer;
    let mut conveyed = Conveyed::default();
    if !events {
        let whole = gather(body, read, patience, share).await?;
        for message in message::messages_in(&whole) {
            conveyed.message(connection, in_flight, message.as_bytes()).await;
        }
        let conveyed = conveyed.over(connection, ids, || RpcError::unanswered(head.status))?;
        return match head.status {
            // The answer held a message, or nothing was asked.
            _ if conveyed.bytes > 0 || head.status.is_success() => Ok(conveyed),
            StatusCode::CONFLICT => Err(stream_taken()),
            status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => Err(no_stream()),
            status => Err(RpcError::upstream_refused(format_args!("failed (HTTP {})", status.as_u16()))),
        };
    }
    let mut splitter = Splitter::default();
    splitter.push(read);
    loop {
        while let Some(event) = splitter.next() {
            conveyed.last = event.id.or(conveyed.last);
            if event.is_message && !event.data.is_empty() {
                let data = event.data;
                drop(event.raw);
                // The message is held twice: as it was read, and as it is handed on.
                share.set(2 * data.len());
                conveyed.message(connection, in_flight, &data).await;
            }
        }
        if splitter.waiting() > share.most() / 2 {
            return Err(too_large());
        }
        match data(&mut body).await {
            Some(Ok(data)) => {
                splitter.push(&data);
                share.set(splitter.memory());
            }
            Some(Err(_)) | None => return conveyed.over(connection, ids, RpcError::upstream_lost),
        }
    }
}
