//! One request to the server behind a session, and its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, response};
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde_json::Value;
use sessiond_core::ids::ApplicationNumber;
use sessiond_core::object::Object;
use sessiond_core::session::Session;
use uuid::Uuid;

use super::Gateway;
use super::lost_session::{Verdict, body_again, judge_response};
use super::message;
use super::reopen::SessionSetting;
use super::reply::RpcError;
use super::sse_events::{BOM, Splitter};
use super::upstream::{self, CORRELATION, LAST_EVENT_ID, SESSION};
use super::upstream_sessions::UpstreamSession;

/// How long an upstream may take to open a session.
pub const HANDSHAKE: Duration = Duration::from_secs(30);
/// Largest answer to `initialize`.
const LARGEST_HANDSHAKE: usize = 4 << 20;
/// Largest refusal that is read to see what it says.
pub(super) const LARGEST_REFUSAL: usize = 64 << 10;

/// A request on its way to an upstream. `headers` have been freed of what the upstream must not see.
#[derive(Clone)]
pub struct OutgoingRequest {
    /// The one whose upstream it goes to: it has the credential for it.
    pub application: ApplicationNumber,
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What is known of a request that goes to an upstream, beside what is sent.
#[derive(Default)]
pub(super) struct ExchangeOptions<'a> {
    /// The calls in it.
    pub ids: &'a [Value],
    /// It asks for the rest of an answer, which only the session that began it can give.
    pub owed: bool,
    /// What it says that lasts as long as the session.
    pub setting: Option<SessionSetting>,
}

/// What an upstream answered.
pub struct IncomingResponse {
    pub head: response::Parts,
    pub body: Body,
}

impl IncomingResponse {
    /// Whether it is a stream of server-sent events.
    pub fn is_events(&self) -> bool {
        is_stream(&self.head)
    }
}

/// What an upstream answered to `initialize`.
pub struct InitializeAnswer {
    pub head: response::Parts,
    /// What has been read of the body: all of it, or up to the answer.
    pub read: Bytes,
    /// What may follow.
    pub rest: Option<Body>,
    /// The revision agreed on, unless the upstream refused.
    pub protocol_version: Option<String>,
    /// The upstream's own session id.
    pub session: Option<String>,
}

impl Gateway {
    /// Sends a request of a session. A session that the upstream has lost is opened there once more, with the client's own
    /// `initialize`, and the request repeated: it was never delivered. Not so where an answer is owed that only the lost
    /// session could have given.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        session: &Session,
        upstream_session: &Arc<UpstreamSession>,
        url: &str,
        mut outgoing: OutgoingRequest,
        options: ExchangeOptions<'_>,
    ) -> Result<IncomingResponse, RpcError> {
        correlate(&mut outgoing.headers, session.id);
        let mut state = upstream_session.state();
        let mut reopened = false;
        if state.url != url {
            if options.owed {
                return Err(RpcError::upstream_lost());
            }
            // The application names another upstream now, which must not see the ids of the one before.
            outgoing.headers.remove(&LAST_EVENT_ID);
            state = self.reopen(session, upstream_session, &state, url, &outgoing.headers).await?;
            reopened = true;
        }
        loop {
            let answer = self.send(&state.url, state.session.as_deref(), outgoing.clone()).await?;
            let (verdict, answer) =
                judge_response(&outgoing.method, options.ids, answer, self.patience()).await?;
            match verdict == Verdict::Lost && state.session.is_some() {
                false => {
                    let answer = usable(answer)?;
                    if let Some(setting) = options.setting.filter(|_| answer.head.status.is_success()) {
                        self.remember_setting(session, upstream_session, setting).await;
                    }
                    return Ok(answer);
                }
                true if options.owed => return Err(RpcError::upstream_lost()),
                true if reopened => {
                    return Err(RpcError::upstream_refused("does not know a session it has just opened"));
                }
                true => {
                    state = self.reopen(session, upstream_session, &state, url, &outgoing.headers).await?
                }
            }
            reopened = true;
            // Nothing of the new session can be resumed from an event of the old one.
            outgoing.headers.remove(&LAST_EVENT_ID);
        }
    }

    /// How long an upstream may be silent in the middle of an answer that is not a stream.
    pub(super) fn patience(&self) -> Duration {
        self.config.upstream_timeout
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        url: &str,
        session: Option<&str>,
        outgoing: OutgoingRequest,
    ) -> Result<IncomingResponse, RpcError> {
        let OutgoingRequest { application, method, headers, body } = outgoing;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url.parse().map_err(|_| RpcError::upstream_unreachable())?;
        *request.headers_mut() = headers;
        upstream::set_own_headers(&request.method().clone(), request.headers_mut());
        if let Some(id) = session.and_then(|id| HeaderValue::try_from(id).ok()) {
            request.headers_mut().insert(SESSION.clone(), id);
        }
        if let Some(cookies) = session.and_then(|session| self.jars.of(url, session)) {
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let goodbye = request.method() == Method::DELETE;
        let sending = self.upstreams.send(application, request);
        let Ok(answer) = tokio::time::timeout(self.config.upstream_timeout, sending).await else {
            return Err(RpcError::too_slow());
        };
        let (mut head, body) = answer?.into_parts();
        head.headers = upstream::from_upstream(&head.headers, &self.directory.passes_to_client(application));
        let given = head.headers.get(&SESSION).and_then(|id| id.to_str().ok());
        if let Some(session) = session.or(given) {
            match goodbye {
                true => self.jars.forget(url, session),
                false => self.jars.take(url, session, &head.headers, self.sessions.now()),
            }
        }
        readable(IncomingResponse { head, body: Body::new(body) })
    }

    /// Sends an `initialize` and reads up to its answer.
    pub async fn send_initialize(
        &self,
        url: &str,
        outgoing: OutgoingRequest,
    ) -> Result<InitializeAnswer, RpcError> {
        let initialize_answer = async {
            let answer = usable(self.send(url, None, outgoing).await?)?;
            read_initialize_answer(answer).await
        };
        tokio::time::timeout(HANDSHAKE, initialize_answer)
            .await
            .unwrap_or_else(|_| Err(RpcError::upstream_refused("does not answer to initialize")))
    }
}

/// The beginning of a body that has to be looked into, and the whole of it again.
pub(super) async fn look_into(
    mut body: Body,
    most: usize,
    patience: Duration,
) -> Result<(Bytes, Body), RpcError> {
    let mut read = BytesMut::new();
    let reading = async {
        while read.len() <= most {
            match data(&mut body).await {
                None => return Ok(None),
                Some(data) => read.extend_from_slice(&data.map_err(|_| RpcError::upstream_lost())?),
            }
        }
        Ok::<_, RpcError>(Some(()))
    };
    let more = tokio::time::timeout(patience, reading).await;
    let more = more.map_err(|_| RpcError::upstream_slow())??;
    let read = read.freeze();
    Ok((read.clone(), body_again(read, more.map(|()| body))))
}

/// The whole of a body that has to be looked into.
pub(super) async fn collect(body: Body, largest: usize, patience: Duration) -> Result<Bytes, RpcError> {
    let whole = tokio::time::timeout(patience, Limited::new(body, largest).collect()).await;
    match whole.map_err(|_| RpcError::upstream_slow())? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(RpcError::upstream_refused("answers with more than can be taken"))
        }
        Err(_) => Err(RpcError::upstream_lost()),
    }
}

/// The next data of a body; nothing at its end.
pub async fn data(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match body.frame().await?.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            // Trailers, which nobody has asked for.
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Tells the upstream which of our sessions a request belongs to.
pub fn correlate(headers: &mut HeaderMap, session: Uuid) {
    if let Ok(id) = HeaderValue::try_from(session.to_string()) {
        headers.insert(CORRELATION.clone(), id);
    }
}

/// Statuses that would mean something else coming from us: the client has shown its credentials to us, not to the upstream;
/// a redirect is for us to follow, which we never do; and 404 is what a client takes for the end of its session.
pub(super) fn can_be_used(status: StatusCode) -> bool {
    let ours = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::NOT_FOUND,
    ];
    !ours.contains(&status) && !OF_THE_WAY.contains(&status) && !status.is_redirection()
}

/// Words about the connection and about what we say, which the client has no part in.
const OF_THE_WAY: [StatusCode; 8] = [
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::EXPECTATION_FAILED,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::UPGRADE_REQUIRED,
    StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    StatusCode::NETWORK_AUTHENTICATION_REQUIRED,
];

/// An answer under a status that can be handed on.
pub(super) fn usable(answer: IncomingResponse) -> Result<IncomingResponse, RpcError> {
    let status = answer.head.status;
    if can_be_used(status) {
        return Ok(answer);
    }
    let number = status.as_u16();
    Err(match status {
        StatusCode::NOT_FOUND => RpcError::upstream_refused("is not at the URL it was set to (HTTP 404)"),
        _ if status.is_redirection() => {
            let to = whereto(&answer.head.headers);
            tracing::warn!(to, %status, "the upstream redirects, which is not followed: its application must name it anew");
            RpcError::upstream_refused(format_args!(
                "has moved{to} (HTTP {number}): set the application's upstream to where it is now"
            ))
        }
        _ if OF_THE_WAY.contains(&status) => {
            RpcError::upstream_refused(format_args!("does not take what the gateway sends (HTTP {number})"))
        }
        _ => RpcError::upstream_refused(format_args!("does not let the gateway in (HTTP {number})")),
    })
}

/// Refuses what was coded although we asked for it as it is: nobody here reads it, and none of what is promised about
/// answers would hold for it. Where the status alone says enough, it goes on without its body.
fn readable(answer: IncomingResponse) -> Result<IncomingResponse, RpcError> {
    let Some(coding) = upstream::coding(&answer.head.headers) else { return Ok(answer) };
    let IncomingResponse { mut head, body } = answer;
    let status = head.status;
    let says_enough = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::CONFLICT];
    if http_body::Body::is_end_stream(&body) || says_enough.contains(&status) {
        head.headers.remove(header::CONTENT_ENCODING);
        return Ok(IncomingResponse { head, body: Body::empty() });
    }
    Err(RpcError::upstream_refused(format_args!(
        "answers in a coding that it was asked not to use: {coding} (HTTP {})",
        status.as_u16()
    )))
}

/// Where a redirect leads, in words for people: without what may be secret in it, or is no text.
fn whereto(headers: &HeaderMap) -> String {
    let said = headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
    let to = said.map(|to| to.split(['?', '#']).next().unwrap_or(to)).filter(|to| !to.is_empty());
    match to {
        // What stands before an `@` is a user's.
        Some(to) if !to.contains('@') => format!(" to {}", to.chars().take(200).collect::<String>()),
        _ => " and does not say where to".to_owned(),
    }
}

async fn read_initialize_answer(answer: IncomingResponse) -> Result<InitializeAnswer, RpcError> {
    let IncomingResponse { head, mut body } = answer;
    let session = head.headers.get(&SESSION).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let mut initialize_answer =
        InitializeAnswer { head, read: Bytes::new(), rest: None, protocol_version: None, session };
    if !is_events(&initialize_answer.head.headers) {
        let read = Limited::new(body, LARGEST_HANDSHAKE).collect().await;
        initialize_answer.read = read.map_err(|_| RpcError::upstream_lost())?.to_bytes();
        if initialize_answer.head.status.is_success() {
            let initialized = message::initialized(&initialize_answer.read)
                .ok_or_else(|| unread(&initialize_answer.read))?;
            initialize_answer.protocol_version = agreed(Some(initialized))?;
        }
        return Ok(initialize_answer);
    }
    let (mut splitter, mut read) = (Splitter::default(), Vec::new());
    while let Some(chunk) = data(&mut body).await {
        let chunk = chunk.map_err(|_| RpcError::upstream_lost())?;
        read.extend_from_slice(&chunk);
        if read.len() > LARGEST_HANDSHAKE {
            return Err(RpcError::upstream_refused("answers to initialize with more than 4 MiB"));
        }
        splitter.push(&chunk);
        while let Some(event) = splitter.next() {
            if !event.is_message {
                continue;
            }
            if let Some(initialized) = message::initialized(&event.data) {
                initialize_answer.protocol_version = agreed(Some(initialized))?;
                initialize_answer.read = read.into();
                initialize_answer.rest = Some(body);
                return Ok(initialize_answer);
            }
        }
    }
    Err(RpcError::upstream_lost())
}

/// An `initialize` was answered with success, and with nothing that says what was agreed on: no client must take that for a
/// session.
fn unread(body: &[u8]) -> RpcError {
    match body.starts_with(BOM) {
        true => RpcError::marked(),
        false => RpcError::upstream_refused("answers to initialize with what is no answer to it"),
    }
}

/// The revision that an answer to `initialize` names. One that is not known here nobody could go on in.
fn agreed(initialized: Option<message::Initialized>) -> Result<Option<String>, RpcError> {
    let Some(result) = initialized.and_then(|one| one.result).map(|Object(result)| result) else {
        return Ok(None);
    };
    match message::LEGACY.contains(&result.protocol_version.as_str()) {
        true => Ok(Some(result.protocol_version)),
        false => {
            Err(RpcError::upstream_refused("agrees to a revision that has no sessions or is not known here"))
        }
    }
}

/// Whether an answer is a stream of server-sent events to be carried on.
pub fn is_stream(head: &response::Parts) -> bool {
    head.status.is_success() && is_events(&head.headers)
}

/// Whether a body is of server-sent events.
pub fn is_events(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}
