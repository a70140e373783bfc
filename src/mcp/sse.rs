//! HTTP+SSE (MCP 2024-11-05, basic/transports): `GET …/sse` opens a wire, POSTs to the endpoint it names are its client's
//! messages. Toward the upstream it is Streamable HTTP like all the rest.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use url::Url;

use super::errand::Errand;
use super::event_id::EventId;
use super::events::Splitter;
use super::forward::{Greeting, Incoming, Outgoing, collect, data};
use super::legacy::{not_entered, warn_of_stranger};
use super::line::{End, Gone};
use super::message::{self, Posted};
use super::pump;
use super::reply::{Fault, Refusal};
use super::upstream::{self, LAST_EVENT_ID, PROTOCOL_VERSION};
use super::wire::{NO_SESSION, Wire};
use super::{Gateway, Visit, check_content, check_takes_events, door, handed_on, read_body};
use crate::core::event::Counts;
use crate::core::session::Session;
use crate::error::Error;

/// How long a client may take to say `initialize`, and to come back when its stream broke.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long what a client says next waits for what it has said before.
const IN_ORDER: Duration = Duration::from_secs(5);
/// Largest message that goes onto a stream, where each has to be whole.
const LARGEST: usize = 16 << 20;
/// Milliseconds after which a client whose stream broke comes back.
const RETRY: u32 = 1_000;

impl Gateway {
    /// Opens a wire, or goes on with one.
    pub(super) async fn open_wire(
        self: &Arc<Self>,
        visit: Visit,
        parts: &Parts,
    ) -> Result<Response, Refusal> {
        if parts.method != Method::GET {
            return Err(Refusal::method_not_allowed("GET, OPTIONS"));
        }
        check_takes_events(&parts.headers)?;
        let seal = |stream: &str| self.sessions.event_seal(NO_SESSION, stream);
        let last = door::text(&parts.headers, &LAST_EVENT_ID).and_then(|id| EventId::parse(id, seal));
        let session = match last.as_ref().and_then(|last| last.upstream.as_ref()) {
            Some(id) => Some(self.session_named(&visit, &String::from_utf8_lossy(id)).await?),
            None => None,
        };
        let after = last.as_ref().map_or(0, |last| last.number);
        let known = session.as_ref().and_then(|session| self.wires.of_session(session.number));
        if let Some(wire) = known.filter(|wire| wire.is_of(&visit.caller)) {
            // Still the wire it was: what the client missed comes first.
            if let Ok(reader) = wire.line.attach(after) {
                return Ok(self.on_wire(&visit, &wire, reader));
            }
        }
        let mcp_session_id = last.and_then(|last| last.upstream).filter(|_| session.is_some());
        let wire = Wire::new(&visit.caller, visit.application.number, after, mcp_session_id, seal);
        let reader = wire.line.attach(after).map_err(|Gone| Refusal::session_not_found(None))?;
        match session {
            Some(session) => {
                self.wire_up(&visit, &wire, session.clone(), None)?;
                self.stand_by(&visit, &wire, session, &parts.headers);
            }
            None => {
                self.wires.insert(&wire);
                let (gateway, waiting) = (self.clone(), wire.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(PATIENCE).await;
                    if waiting.session().is_none() {
                        waiting.line.end(End::Done);
                        gateway.wires.remove(&waiting);
                    }
                });
            }
        }
        Ok(self.on_wire(&visit, &wire, reader))
    }

    /// The stream, which begins by naming the endpoint.
    fn on_wire(&self, visit: &Visit, wire: &Arc<Wire>, reader: u64) -> Response {
        let prefix = Url::parse(&visit.base).map(|url| url.path().trim_end_matches('/').to_owned());
        let prefix = prefix.unwrap_or_default();
        let endpoint = format!("{prefix}/mcp/{}/messages?sessionId={}", visit.application.id, wire.id);
        let first = Bytes::from(format!("event: endpoint\nretry: {RETRY}\ndata: {endpoint}\n\n"));
        let body = pump::body(Some(first), wire.line.clone(), reader, None);
        handed_on(StatusCode::OK, &HeaderMap::new(), true, body)
    }

    /// Takes a client's message. Its answer comes on the wire; here it is only accepted.
    pub(super) async fn on_message(
        self: &Arc<Self>,
        visit: Visit,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, Refusal> {
        if parts.method != Method::POST {
            return Err(Refusal::method_not_allowed("POST, OPTIONS"));
        }
        let query = parts.uri.query().unwrap_or_default();
        let id = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "sessionId");
        let wire = id.and_then(|(_, id)| self.wires.find(&id));
        let wire = wire.filter(|wire| wire.application == visit.application.number);
        let wire = wire.ok_or_else(|| Refusal::session_not_found(None))?;
        if !wire.is_of(&visit.caller) {
            warn_of_stranger(&visit, wire.session().as_ref());
            return Err(Refusal::session_not_found(None));
        }
        check_content(&parts.headers)?;
        if let Some(reason) = wire.ended() {
            return Err(Refusal::session_not_found(Some(reason)));
        }
        let body = read_body(body).await?;
        let posted = message::read(&body).map_err(Refusal::bad_request)?;
        let giving = wire.giving.clone().lock_owned().await;
        match (wire.session(), posted.initialize.is_some()) {
            (Some(_), true) => {
                let fault = Fault::invalid_request("Invalid Request: this session is initialized already");
                return Err(Refusal::bad_request(fault).to(&posted.ids));
            }
            (None, true) => {
                self.owe(&visit, &wire, &posted.ids)?;
                let (gateway, parts) = (self.clone(), parts.clone());
                tokio::spawn(async move {
                    gateway.greet_on(wire, visit, parts, posted, body).await;
                    drop(giving);
                });
                return Ok(accepted());
            }
            (None, false) => self.adopt(&visit, &wire, &parts.headers).await?,
            (Some(_), false) => {}
        }
        drop(giving);
        let Some(session) = wire.session() else {
            let fault = Fault::invalid_request("Invalid Request: the first message must be initialize");
            return Err(Refusal::bad_request(fault).to(&posted.ids));
        };
        self.pass_on(wire, visit, session, parts, posted, body).await?;
        Ok(accepted())
    }

    /// `initialize` on a wire.
    async fn greet_on(
        self: Arc<Self>,
        wire: Arc<Wire>,
        visit: Visit,
        parts: Parts,
        posted: Posted,
        body: Bytes,
    ) {
        let Some(initialize) = &posted.initialize else { return };
        let bytes_in = body.len() as u64;
        let (greeting, opened) = match self.greeted(&visit, &parts, &posted, initialize, body).await {
            Ok(greeted) => greeted,
            Err(refusal) => return wire.refuse(&posted.ids, &refusal.fault).await,
        };
        if let Some((session, mcp_session_id)) = opened {
            let counts = Counts { requests: 1, bytes_in, bytes_out: 0 };
            self.sessions.observe(&visit.caller, &session, counts);
            self.keep_wire(&session).await;
            if let Err(refusal) = self.wire_up(&visit, &wire, session, Some(&mcp_session_id)) {
                self.wires.remove(&wire);
                return wire.cut_off(&refusal.fault);
            }
        }
        let Greeting { head, read, rest, .. } = greeting;
        let answer = Incoming { head, body: rest.unwrap_or_default() };
        if let Err(fault) = convey(&wire, &posted.ids, answer, &read, self.patience()).await {
            wire.refuse(&posted.ids, &fault).await;
        }
    }

    /// Carries a message of a session to the upstream and what comes back to the wire.
    async fn pass_on(
        self: &Arc<Self>,
        wire: Arc<Wire>,
        visit: Visit,
        session: Session,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<(), Refusal> {
        let pass = self.sessions.enter(&visit.caller, &session);
        let pass = pass.map_err(|error| not_entered(error, &visit, posted.ids.clone(), posted.batch));
        self.owe(&visit, &wire, &posted.ids)?;
        let pass = match pass {
            Ok(pass) => pass,
            // It can pass: the call is answered, like all others, on the wire.
            Err(refusal) if refusal.fault == Fault::suspended() => {
                tokio::spawn(async move { wire.refuse(&posted.ids, &refusal.fault).await });
                return Ok(());
            }
            Err(refusal) => {
                wire.forgive(&posted.ids);
                return Err(refusal);
            }
        };
        let (requests, bytes_in) = (posted.ids.len() as u64, body.len() as u64);
        self.sessions.observe(&visit.caller, &session, Counts { requests, bytes_in, bytes_out: 0 });
        let body = posted.place.map_or(body.clone(), |place| place.name(&body, session.id).into());
        let headers = upstream::inward(&parts.headers, visit.application.upstream_headers.as_ref());
        let outgoing = Outgoing { application: session.application, method: Method::POST, headers, body };
        let ready = posted.method.as_deref() == Some("notifications/initialized");
        let asks = !posted.ids.is_empty();
        let (gateway, headers) = (self.clone(), parts.headers.clone());
        let errand = gateway.errand(&visit, &session, pass, posted.ids);
        let work = tokio::spawn(async move {
            gateway.exchange_on(&wire, errand, &visit, &session, outgoing).await.ok();
            if ready {
                gateway.stand_by(&visit, &wire, session, &headers);
            }
        });
        if !asks {
            // Clients send one message after the other: what follows must not overtake it.
            tokio::time::timeout(IN_ORDER, work).await.ok();
        }
        Ok(())
    }

    /// Notes that calls are owed an answer.
    fn owe(&self, visit: &Visit, wire: &Wire, ids: &[Value]) -> Result<(), Refusal> {
        match wire.owe(ids) {
            true => Ok(()),
            false => Err(Refusal::from_error(Error::Busy, &visit.metadata).to(ids)),
        }
    }

    /// One exchange with the upstream, from a wire and back onto it. An error has been said there.
    pub(super) async fn exchange_on(
        &self,
        wire: &Wire,
        errand: Errand,
        visit: &Visit,
        session: &Session,
        mut outgoing: Outgoing,
    ) -> Result<(), Fault> {
        let work = async {
            let far = self.far.of(&self.sessions, session).await.map_err(|_| Fault::upstream_lost())?;
            if let Ok(version) = HeaderValue::try_from(&far.now().protocol_version) {
                outgoing.headers.insert(PROTOCOL_VERSION.clone(), version);
            }
            let answer = self.exchange(session, &far, &visit.url, outgoing, false).await?;
            convey(wire, &errand.ids, answer, &[], self.patience()).await
        };
        // What ends the session ends the wire, and says so there.
        let done = tokio::select! {
            biased;
            _ = errand.watch() => return Ok(()),
            done = work => done,
        };
        match done {
            Ok(sent) => errand.handed_on(sent),
            Err(fault) => {
                wire.refuse(&errand.ids, &fault).await;
                return Err(fault);
            }
        }
        Ok(())
    }
}

/// The upstream has a standing stream already.
pub(super) fn taken() -> Fault {
    Fault::upstream_refused("serves one stream a session")
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, "Accepted").into_response()
}

/// Puts an upstream's answer onto a wire: each message of a stream as it comes, anything else whole. Returns how many bytes
/// that were.
async fn convey(
    wire: &Wire,
    ids: &[Value],
    answer: Incoming,
    read: &[u8],
    patience: Duration,
) -> Result<u64, Fault> {
    let events = answer.is_events();
    let Incoming { head, mut body } = answer;
    if !events {
        let rest = collect(body, LARGEST, patience).await?;
        let whole = [read, &rest].concat();
        if message::answered(&whole).is_empty() {
            // Nothing is said to a notification, and what is no message is none to the client either.
            return match head.status.is_success() {
                true => Ok(0),
                false if head.status == StatusCode::CONFLICT => Err(taken()),
                false => Err(Fault::upstream_refused(format_args!("failed (HTTP {})", head.status.as_u16()))),
            };
        }
        for message in message::apart(&whole) {
            wire.say(message.as_bytes()).await;
        }
        return Ok(whole.len() as u64);
    }
    let (mut splitter, mut sent) = (Splitter::default(), 0);
    splitter.push(read);
    loop {
        while let Some(event) = splitter.next() {
            if event.is_message && !event.data.is_empty() {
                sent += event.data.len() as u64;
                wire.say(&event.data).await;
            }
        }
        if splitter.waiting() > LARGEST {
            return Err(Fault::upstream_refused("answers with more than a stream of 2024-11-05 can carry"));
        }
        match data(&mut body).await {
            Some(Ok(data)) => splitter.push(&data),
            Some(Err(_)) | None if wire.owes(ids) => return Err(Fault::upstream_lost()),
            Some(Err(_)) | None => return Ok(sent),
        }
    }
}
