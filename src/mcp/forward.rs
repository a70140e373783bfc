//! One request to the server behind a session, and what is done when that server has forgotten it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, response};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use uuid::Uuid;

use super::Gateway;
use super::events::{BOM, Splitter};
use super::kept::{Held, Kept, sealed};
use super::message;
use super::reply::Fault;
use super::upstream::{self, CORRELATION, LAST_EVENT_ID, PROTOCOL_VERSION, SESSION};
use crate::core::ids::ApplicationNumber;
use crate::core::object::Object;
use crate::core::session::Session;

/// How long an upstream may take to open a session.
pub const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long it may take over a goodbye that nobody waits for.
const GOODBYE: Duration = Duration::from_secs(5);
/// Largest answer to `initialize`.
const LARGEST_HANDSHAKE: usize = 4 << 20;
/// Largest refusal that is read to see what it says.
pub(super) const LARGEST_REFUSAL: usize = 64 << 10;

/// A request on its way to an upstream. `headers` have been freed of what the upstream must not see.
#[derive(Clone)]
pub struct Outgoing {
    /// The one whose upstream it goes to: it has the credential for it.
    pub application: ApplicationNumber,
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What an upstream answered.
pub struct Incoming {
    pub head: response::Parts,
    pub body: Body,
}

impl Incoming {
    /// Whether it is a stream of server-sent events.
    pub fn is_events(&self) -> bool {
        is_stream(&self.head)
    }
}

/// What an upstream answered to `initialize`.
pub struct Greeting {
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
    /// `initialize`, and the request repeated: it was never delivered. Not so where an answer is `owed` that only the lost
    /// session could have given.
    pub async fn exchange(
        &self,
        session: &Session,
        held: &Held,
        url: &str,
        outgoing: Outgoing,
        owed: bool,
    ) -> Result<Incoming, Fault> {
        let mut outgoing = outgoing;
        correlate(&mut outgoing.headers, session.id);
        let mut kept = held.now();
        let mut healed = false;
        if kept.url != url {
            if owed {
                return Err(Fault::upstream_lost());
            }
            // The application names another upstream now, which must not see the session id of the one before.
            kept = self.heal(session, held, &kept, url, &outgoing.headers).await?;
            healed = true;
        }
        loop {
            let answer = self.send(&kept.url, kept.session.as_deref(), outgoing.clone()).await?;
            let (lost, answer) = is_lost(&kept, answer, self.patience()).await?;
            match lost {
                false => return usable(answer),
                true if owed => return Err(Fault::upstream_lost()),
                true if healed => {
                    return Err(Fault::upstream_refused("does not know a session it has just opened"));
                }
                true => kept = self.heal(session, held, &kept, url, &outgoing.headers).await?,
            }
            healed = true;
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
        outgoing: Outgoing,
    ) -> Result<Incoming, Fault> {
        let Outgoing { application, method, headers, body } = outgoing;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url.parse().map_err(|_| Fault::upstream_unreachable())?;
        *request.headers_mut() = headers;
        upstream::speak(&request.method().clone(), request.headers_mut());
        if let Some(id) = session.and_then(|id| HeaderValue::try_from(id).ok()) {
            request.headers_mut().insert(SESSION.clone(), id);
        }
        if let Some(cookies) = session.and_then(|session| self.jars.of(url, session)) {
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let goodbye = request.method() == Method::DELETE;
        let sending = self.upstreams.send(application, request);
        let Ok(answer) = tokio::time::timeout(self.config.upstream_timeout, sending).await else {
            return Err(Fault::upstream_refused("has not begun to answer in time"));
        };
        let (mut head, body) = answer?.into_parts();
        head.headers = upstream::arrived(&head.headers, &self.directory.passes_to_client(application));
        let given = head.headers.get(&SESSION).and_then(|id| id.to_str().ok());
        if let Some(session) = session.or(given) {
            match goodbye {
                true => self.jars.forget(url, session),
                false => self.jars.take(url, session, &head.headers),
            }
        }
        readable(Incoming { head, body: Body::new(body) })
    }

    /// Opens the session anew at the upstream, unless another request has done so since.
    async fn heal(
        &self,
        session: &Session,
        held: &Held,
        lost: &Arc<Kept>,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<Arc<Kept>, Fault> {
        let _alone = held.healing.lock().await;
        let now = held.now();
        if !Arc::ptr_eq(&now, lost) {
            return Ok(now);
        }
        let (application, mut headers) = (session.application, headers.clone());
        headers.remove(&LAST_EVENT_ID);
        headers.remove(&PROTOCOL_VERSION);
        let body = Bytes::from(lost.initialize.get().to_owned());
        let greeting = self
            .greet(url, Outgoing { application, method: Method::POST, headers: headers.clone(), body })
            .await?;
        // The client goes on in the revision it knows.
        if greeting.protocol_version.as_ref() != Some(&lost.protocol_version) {
            return Err(Fault::upstream_refused("lost the session and does not open it again"));
        }
        if let Ok(version) = HeaderValue::try_from(&lost.protocol_version) {
            headers.insert(PROTOCOL_VERSION.clone(), version);
        }
        let body = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let outgoing = Outgoing { application, method: Method::POST, headers, body };
        let answer = self.send(url, greeting.session.as_deref(), outgoing).await?;
        if !answer.head.status.is_success() {
            return Err(Fault::upstream_refused("lost the session and does not open it again"));
        }
        let kept = Kept { url: url.to_owned(), session: greeting.session, ..Kept::clone(lost) };
        tracing::info!(session = %session.id, "the upstream had lost the session; opened it there again");
        if let Err(error) = self.sessions.update_mcp(session, &sealed(&kept)).await {
            // It will have to be healed again after a restart, no more.
            tracing::warn!(?error, session = %session.id, "the upstream's new session could not be kept");
        }
        held.set(kept);
        Ok(held.now())
    }

    /// Sends an `initialize` and reads up to its answer.
    pub async fn greet(&self, url: &str, outgoing: Outgoing) -> Result<Greeting, Fault> {
        let greeting = async {
            let answer = usable(self.send(url, None, outgoing).await?)?;
            read_greeting(answer).await
        };
        tokio::time::timeout(HANDSHAKE, greeting)
            .await
            .unwrap_or_else(|_| Err(Fault::upstream_refused("does not answer to initialize")))
    }

    /// Tells an upstream that one of its sessions is over. Nobody waits for it.
    pub fn say_goodbye(
        self: &Arc<Self>,
        application: ApplicationNumber,
        url: String,
        session: Option<String>,
        protocol_version: Option<String>,
    ) {
        let Some(session) = session else { return };
        let gateway = self.clone();
        tokio::spawn(async move {
            let mut headers = HeaderMap::new();
            if let Some(version) = protocol_version.and_then(|version| HeaderValue::try_from(version).ok()) {
                headers.insert(PROTOCOL_VERSION.clone(), version);
            }
            let outgoing = Outgoing { application, method: Method::DELETE, headers, body: Bytes::new() };
            tokio::time::timeout(GOODBYE, gateway.send(&url, Some(&session), outgoing)).await.ok();
        });
    }
}

/// Whether an upstream says that it does not know the session. The spec's word for it is 404; a 400 is looked into, because
/// servers built on the TypeScript SDK's examples say so there.
async fn is_lost(kept: &Kept, answer: Incoming, patience: Duration) -> Result<(bool, Incoming), Fault> {
    if kept.session.is_none() {
        return Ok((false, answer));
    }
    match answer.head.status {
        StatusCode::NOT_FOUND => Ok((true, answer)),
        StatusCode::BAD_REQUEST => {
            let Incoming { head, body } = answer;
            let body = collect(body, LARGEST_REFUSAL, patience).await?;
            // What answers a request of the client's is no word about the session.
            let about_a_request = message::answered(&body).iter().any(|id| !id.is_null());
            let lost = !about_a_request && speaks_of_lost_session(&body);
            Ok((lost, Incoming { head, body: Body::from(body) }))
        }
        _ => Ok((false, answer)),
    }
}

/// The texts known in the field: `No valid session ID provided`, `Invalid session`, `Session … not found`, `Server not
/// initialized` (of a transport that was made for an id it does not know).
pub fn speaks_of_lost_session(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    let session =
        ["no valid session", "invalid session", "unknown session", "session expired", "session terminated"];
    session.iter().any(|words| text.contains(words))
        || text.contains("server not initialized")
        || text.split_once("session").is_some_and(|(_, rest)| rest.contains("not found"))
}

/// The whole of a body that has to be looked into.
pub(super) async fn collect(body: Body, largest: usize, patience: Duration) -> Result<Bytes, Fault> {
    let whole = tokio::time::timeout(patience, Limited::new(body, largest).collect()).await;
    match whole.map_err(|_| Fault::upstream_slow())? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Fault::upstream_refused("answers with more than can be taken"))
        }
        Err(_) => Err(Fault::upstream_lost()),
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

/// Answers that would mean something else coming from us: the client has shown its credentials to us, not to the upstream;
/// a redirect is for us to follow, which we never do; and 404 is what a client takes for the end of its session.
pub(super) fn usable(answer: Incoming) -> Result<Incoming, Fault> {
    let status = answer.head.status;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(
            Fault::upstream_refused(format_args!("does not let the gateway in (HTTP {})", status.as_u16())),
        ),
        StatusCode::NOT_FOUND => Err(Fault::upstream_refused("is not at the URL it was set to (HTTP 404)")),
        _ if status.is_redirection() => {
            let to = whereto(&answer.head.headers);
            tracing::warn!(to, %status, "the upstream redirects, which is not followed: its application must name it anew");
            Err(Fault::upstream_refused(format_args!(
                "has moved{to} (HTTP {}): set the application's upstream to where it is now",
                status.as_u16()
            )))
        }
        // Words about the connection and about what we say, which the client has no part in.
        StatusCode::NOT_ACCEPTABLE
        | StatusCode::LENGTH_REQUIRED
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::EXPECTATION_FAILED
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::UPGRADE_REQUIRED
        | StatusCode::HTTP_VERSION_NOT_SUPPORTED
        | StatusCode::NETWORK_AUTHENTICATION_REQUIRED => Err(Fault::upstream_refused(format_args!(
            "does not take what the gateway sends (HTTP {})",
            status.as_u16()
        ))),
        _ => Ok(answer),
    }
}

/// Refuses what was coded although we asked for it as it is: nobody here reads it, and none of what is promised about
/// answers would hold for it. Where the status alone says enough, it goes on without its body.
fn readable(answer: Incoming) -> Result<Incoming, Fault> {
    let Some(coding) = upstream::coding(&answer.head.headers) else { return Ok(answer) };
    let Incoming { mut head, body } = answer;
    let status = head.status;
    let says_enough = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::CONFLICT];
    if http_body::Body::is_end_stream(&body) || says_enough.contains(&status) {
        head.headers.remove(header::CONTENT_ENCODING);
        return Ok(Incoming { head, body: Body::empty() });
    }
    Err(Fault::upstream_refused(format_args!(
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

async fn read_greeting(answer: Incoming) -> Result<Greeting, Fault> {
    let Incoming { head, mut body } = answer;
    let session = head.headers.get(&SESSION).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let mut greeting = Greeting { head, read: Bytes::new(), rest: None, protocol_version: None, session };
    if !is_events(&greeting.head.headers) {
        let read = Limited::new(body, LARGEST_HANDSHAKE).collect().await;
        greeting.read = read.map_err(|_| Fault::upstream_lost())?.to_bytes();
        if greeting.head.status.is_success() {
            let initialized = message::initialized(&greeting.read).ok_or_else(|| unread(&greeting.read))?;
            greeting.protocol_version = agreed(Some(initialized))?;
        }
        return Ok(greeting);
    }
    let (mut splitter, mut read) = (Splitter::default(), Vec::new());
    while let Some(chunk) = data(&mut body).await {
        let chunk = chunk.map_err(|_| Fault::upstream_lost())?;
        read.extend_from_slice(&chunk);
        if read.len() > LARGEST_HANDSHAKE {
            return Err(Fault::upstream_refused("answers to initialize with more than 4 MiB"));
        }
        splitter.push(&chunk);
        while let Some(event) = splitter.next() {
            if !event.is_message {
                continue;
            }
            if let Some(initialized) = message::initialized(&event.data) {
                greeting.protocol_version = agreed(Some(initialized))?;
                greeting.read = read.into();
                greeting.rest = Some(body);
                return Ok(greeting);
            }
        }
    }
    Err(Fault::upstream_lost())
}

/// An `initialize` was answered with success, and with nothing that says what was agreed on: no client must take that for a
/// session.
fn unread(body: &[u8]) -> Fault {
    match body.starts_with(BOM) {
        true => Fault::marked(),
        false => Fault::upstream_refused("answers to initialize with what is no answer to it"),
    }
}

/// The revision that an answer to `initialize` names. One that is not known here nobody could go on in.
fn agreed(initialized: Option<message::Initialized>) -> Result<Option<String>, Fault> {
    let Some(result) = initialized.and_then(|one| one.result).map(|Object(result)| result) else {
        return Ok(None);
    };
    match message::LEGACY.contains(&result.protocol_version.as_str()) {
        true => Ok(Some(result.protocol_version)),
        false => {
            Err(Fault::upstream_refused("agrees to a revision that has no sessions or is not known here"))
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
