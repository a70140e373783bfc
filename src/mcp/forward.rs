//! Sends one request of a session to its upstream, and receives the response.

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
use super::lost_session::{Verdict, judge_response, rejoined_body};
use super::message;
use super::reopen::SessionSetting;
use super::reply::RpcError;
use super::sse_events::{BOM, Splitter};
use super::upstream::{self, CORRELATION, LAST_EVENT_ID, SESSION};
use super::upstream_sessions::UpstreamSession;

/// How long an upstream may take to open a session.
pub const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer to `initialize` that is taken.
const LARGEST_INITIALIZE_ANSWER: usize = 4 << 20;
/// The largest refusal that is read to find out what it says.
pub(super) const LARGEST_REFUSAL: usize = 64 << 10;

/// A request on its way to an upstream. Its `headers` hold only what may pass.
#[derive(Clone)]
pub struct OutgoingRequest {
    /// The application whose upstream the request goes to, and whose credential for it is used.
    pub application: ApplicationNumber,
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What the gateway knows of a request beside what it sends.
#[derive(Default)]
pub(super) struct ExchangeOptions<'a> {
    /// The ids of the calls in the request.
    pub ids: &'a [Value],
    /// Whether the request asks for the rest of an answer, which only the session that began it can give.
    pub resumes: bool,
    /// The setting that the request makes, where it makes one that lasts as long as the session.
    pub setting: Option<SessionSetting>,
}

/// An upstream's response: its head, and its body as it comes.
pub struct IncomingResponse {
    pub head: response::Parts,
    pub body: Body,
}

impl IncomingResponse {
    /// Whether the response is a stream of server-sent events.
    pub fn is_events(&self) -> bool {
        is_stream(&self.head)
    }
}

/// What an upstream answered to `initialize`.
pub struct InitializeAnswer {
    pub head: response::Parts,
    /// As much of the body as has been read: all of it, or up to the answer.
    pub read: Bytes,
    /// The rest of the body, if there may be more.
    pub rest: Option<Body>,
    /// The revision agreed on; none if the upstream refused.
    pub protocol_version: Option<String>,
    /// The upstream's own session id.
    pub session: Option<String>,
}

impl Gateway {
    /// Sends a request of a session. Where the upstream has lost the session, the gateway opens it there anew with the
    /// client's own `initialize` and repeats the request, which was never carried out. It does not repeat a request for
    /// the rest of an answer that only the lost session could have given.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        session: &Session,
        upstream_session: &Arc<UpstreamSession>,
        url: &str,
        mut outgoing: OutgoingRequest,
        options: ExchangeOptions<'_>,
    ) -> Result<IncomingResponse, RpcError> {
        set_session_header(&mut outgoing.headers, session.id);
        let mut state = upstream_session.state();
        let mut reopened = false;
        if state.url != url {
            if options.resumes {
                return Err(RpcError::upstream_lost());
            }
            // The application names another upstream now, which must not see the event ids of the former one.
            outgoing.headers.remove(&LAST_EVENT_ID);
            state = self.reopen(session, upstream_session, &state, url, &outgoing.headers).await?;
            reopened = true;
        }
        loop {
            let response = self.send(&state.url, state.session.as_deref(), outgoing.clone()).await?;
            let (verdict, response) =
                judge_response(&outgoing.method, options.ids, response, self.patience()).await?;
            match verdict == Verdict::Lost && state.session.is_some() {
                false => {
                    let response = check_status(response)?;
                    if let Some(setting) = options.setting.filter(|_| response.head.status.is_success()) {
                        self.remember_setting(session, upstream_session, setting).await;
                    }
                    return Ok(response);
                }
                true if options.resumes => return Err(RpcError::upstream_lost()),
                true if reopened => {
                    return Err(RpcError::upstream_refused("does not know a session it has just opened"));
                }
                true => {
                    state = self.reopen(session, upstream_session, &state, url, &outgoing.headers).await?
                }
            }
            reopened = true;
            // An event id of the lost session means nothing to the new one.
            outgoing.headers.remove(&LAST_EVENT_ID);
        }
    }

    /// How long an upstream may be silent in the middle of a response that is not a stream.
    pub(super) fn patience(&self) -> Duration {
        self.config.upstream_timeout
    }

    /// Sends a request and waits for the head of the response.
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
        let Ok(response) = tokio::time::timeout(self.config.upstream_timeout, sending).await else {
            return Err(RpcError::upstream_slow_to_begin());
        };
        let (mut head, body) = response?.into_parts();
        head.headers = upstream::from_upstream(
            &head.headers,
            &self.directory.upstream_settings.passes_to_client(application),
        );
        let given = head.headers.get(&SESSION).and_then(|id| id.to_str().ok());
        if let Some(session) = session.or(given) {
            match goodbye {
                true => self.jars.forget(url, session),
                false => self.jars.take(url, session, &head.headers, self.clock.now()),
            }
        }
        check_coding(IncomingResponse { head, body: Body::new(body) })
    }

    /// Sends an `initialize` and reads up to its answer.
    pub async fn send_initialize(
        &self,
        url: &str,
        outgoing: OutgoingRequest,
    ) -> Result<InitializeAnswer, RpcError> {
        let initialize_answer = async {
            let response = check_status(self.send(url, None, outgoing).await?)?;
            read_initialize_answer(response).await
        };
        tokio::time::timeout(INITIALIZE_TIMEOUT, initialize_answer)
            .await
            .unwrap_or_else(|_| Err(RpcError::upstream_refused("does not answer to initialize")))
    }
}

/// Reads the beginning of a body, up to about `most` bytes. Returns that beginning, and a body that begins with it.
pub(super) async fn read_beginning(
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
    let more = more.map_err(|_| RpcError::upstream_slow_to_finish())??;
    let read = read.freeze();
    Ok((read.clone(), rejoined_body(read, more.map(|()| body))))
}

/// Reads the whole of a body.
pub(super) async fn read_whole(body: Body, largest: usize, patience: Duration) -> Result<Bytes, RpcError> {
    let whole = tokio::time::timeout(patience, Limited::new(body, largest).collect()).await;
    match whole.map_err(|_| RpcError::upstream_slow_to_finish())? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(RpcError::upstream_refused("answers with more than can be taken"))
        }
        Err(_) => Err(RpcError::upstream_lost()),
    }
}

/// The next data of a body; `None` at its end.
pub async fn data(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        match body.frame().await?.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            // Trailers are passed over: nobody has asked for them.
            Ok(Err(_)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Tells the upstream which of our sessions a request belongs to.
pub fn set_session_header(headers: &mut HeaderMap, session: Uuid) {
    if let Ok(id) = HeaderValue::try_from(session.to_string()) {
        headers.insert(CORRELATION.clone(), id);
    }
}

/// Whether a status means the same to the client when it comes from us. 401, 403 and 407 would not, because the client
/// shows its credentials to us and not to the upstream; nor would a redirect, which we never follow; nor 404, by which
/// a client knows the end of its session.
pub(super) fn may_be_passed_on(status: StatusCode) -> bool {
    let ours = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        StatusCode::NOT_FOUND,
    ];
    !ours.contains(&status) && !ABOUT_CONNECTION.contains(&status) && !status.is_redirection()
}

/// Statuses about the connection or about what the gateway itself sends, which the client has no part in.
const ABOUT_CONNECTION: [StatusCode; 8] = [
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::LENGTH_REQUIRED,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::EXPECTATION_FAILED,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::UPGRADE_REQUIRED,
    StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    StatusCode::NETWORK_AUTHENTICATION_REQUIRED,
];

/// Lets a response pass if its status may be handed on, and turns it into an error otherwise.
pub(super) fn check_status(response: IncomingResponse) -> Result<IncomingResponse, RpcError> {
    let status = response.head.status;
    if may_be_passed_on(status) {
        return Ok(response);
    }
    let number = status.as_u16();
    Err(match status {
        StatusCode::NOT_FOUND => RpcError::upstream_refused("is not at the URL it was set to (HTTP 404)"),
        _ if status.is_redirection() => {
            let to = redirect_target(&response.head.headers);
            tracing::warn!(to, %status, "the upstream redirects, which is not followed: its application must name it anew");
            RpcError::upstream_refused(format_args!(
                "has moved{to} (HTTP {number}): set the application's upstream to where it is now"
            ))
        }
        _ if ABOUT_CONNECTION.contains(&status) => {
            RpcError::upstream_refused(format_args!("does not take what the gateway sends (HTTP {number})"))
        }
        _ => RpcError::upstream_refused(format_args!("does not let the gateway in (HTTP {number})")),
    })
}

/// Refuses a body with a content coding, although the gateway asked for none: nobody here decodes it, and so none of
/// what is promised about answers would hold. Where the status alone says enough, the response passes without its body.
fn check_coding(response: IncomingResponse) -> Result<IncomingResponse, RpcError> {
    let Some(coding) = upstream::coding(&response.head.headers) else { return Ok(response) };
    let IncomingResponse { mut head, body } = response;
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

/// Says in words where a redirect leads, without the parts of the URL that may be secret.
fn redirect_target(headers: &HeaderMap) -> String {
    let said = headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
    let to = said.map(|to| to.split(['?', '#']).next().unwrap_or(to)).filter(|to| !to.is_empty());
    match to {
        // What stands before an `@` in a URL is a user name, and maybe a password.
        Some(to) if !to.contains('@') => format!(" to {}", to.chars().take(200).collect::<String>()),
        _ => " and does not say where to".to_owned(),
    }
}

/// Reads the answer to `initialize`: a JSON body whole, a stream up to the answer.
async fn read_initialize_answer(response: IncomingResponse) -> Result<InitializeAnswer, RpcError> {
    let IncomingResponse { head, mut body } = response;
    let session = head.headers.get(&SESSION).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let mut initialize_answer =
        InitializeAnswer { head, read: Bytes::new(), rest: None, protocol_version: None, session };
    if !is_events(&initialize_answer.head.headers) {
        let read = Limited::new(body, LARGEST_INITIALIZE_ANSWER).collect().await;
        initialize_answer.read = read.map_err(|_| RpcError::upstream_lost())?.to_bytes();
        if initialize_answer.head.status.is_success() {
            let initialized = message::initialized(&initialize_answer.read)
                .ok_or_else(|| not_initialized(&initialize_answer.read))?;
            initialize_answer.protocol_version = agreed_version(Some(initialized))?;
        }
        return Ok(initialize_answer);
    }
    let (mut splitter, mut read) = (Splitter::default(), Vec::new());
    while let Some(chunk) = data(&mut body).await {
        let chunk = chunk.map_err(|_| RpcError::upstream_lost())?;
        read.extend_from_slice(&chunk);
        if read.len() > LARGEST_INITIALIZE_ANSWER {
            return Err(RpcError::upstream_refused("answers to initialize with more than 4 MiB"));
        }
        splitter.push(&chunk);
        while let Some(event) = splitter.next() {
            if !event.is_message {
                continue;
            }
            if let Some(initialized) = message::initialized(&event.data) {
                initialize_answer.protocol_version = agreed_version(Some(initialized))?;
                initialize_answer.read = read.into();
                initialize_answer.rest = Some(body);
                return Ok(initialize_answer);
            }
        }
    }
    Err(RpcError::upstream_lost())
}

/// The error for an `initialize` that was answered with success but without a result that names what was agreed on: no
/// client must take such an answer for a session.
fn not_initialized(body: &[u8]) -> RpcError {
    match body.starts_with(BOM) {
        true => RpcError::byte_order_mark(),
        false => RpcError::upstream_refused("answers to initialize with what is no answer to it"),
    }
}

/// The revision that an answer to `initialize` names. A revision that is not known here is refused: nobody could go on
/// in it.
fn agreed_version(initialized: Option<message::Initialized>) -> Result<Option<String>, RpcError> {
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

/// Whether a response is a stream of server-sent events to be carried on.
pub fn is_stream(head: &response::Parts) -> bool {
    head.status.is_success() && is_events(&head.headers)
}

/// Whether a body is of server-sent events.
pub fn is_events(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}
