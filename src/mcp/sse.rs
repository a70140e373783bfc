//! HTTP+SSE (MCP 2024-11-05, basic/transports): `GET …/sse` opens a wire, POSTs to the endpoint it names are its client's
//! messages. Toward the upstream it is Streamable HTTP like all the rest.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use url::Url;

use super::errand::{Errand, Stop};
use super::event_id::EventId;
use super::events::Splitter;
use super::forward::{Greeting, Incoming, Outgoing};
use super::kept::{Kept, sealed};
use super::legacy::{not_entered, warn_of_stranger};
use super::line::{End, Gone};
use super::message::{self, Posted};
use super::pump;
use super::reply::{Fault, Refusal};
use super::upstream::{self, LAST_EVENT_ID, PROTOCOL_VERSION};
use super::wire::Wire;
use super::{Gateway, Visit, check_content, door, outward, read_body};
use crate::core::event::Counts;
use crate::core::session::Session;
use crate::gate::Pass;

/// How long a client may take to say `initialize`, and to come back when its stream broke.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so much silence on a new stream its client is taken for one that came back.
const SILENT: Duration = Duration::from_secs(5);
/// Largest message that goes onto a stream, where each has to be whole.
const LARGEST: usize = 16 << 20;
/// Milliseconds after which a client whose stream broke comes back.
const RETRY: u32 = 1_000;
/// Most sessions of one principal among which one without its wire is looked for.
const MOST_OPEN: usize = 64;

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
        if !door::accepts(&parts.headers, "text/event-stream") {
            let fault = Fault::new(-32000, "Not Acceptable: Client must accept text/event-stream");
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, fault));
        }
        let last = door::text(&parts.headers, &LAST_EVENT_ID).and_then(EventId::parse);
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
        let wire = Wire::new(&visit.caller, visit.application.number, after, mcp_session_id);
        if let Some(session) = session {
            wire.give(session.clone(), None);
            self.keep_up(&visit, &wire, session.clone())?;
            self.stand_by(&visit, &wire, session, &parts.headers);
        } else {
            let (gateway, waiting) = (self.clone(), wire.clone());
            let (visit, headers) = (visit.clone(), parts.headers.clone());
            tokio::spawn(async move { gateway.wait_for_initialize(waiting, visit, headers).await });
        }
        self.wires.insert(&wire);
        let reader = wire.line.attach(after).map_err(|Gone| Refusal::session_not_found(None))?;
        Ok(self.on_wire(&visit, &wire, reader))
    }

    /// A client that has just begun says `initialize` at once. One that says nothing waits for answers, on a stream it had
    /// before; one that says nothing for long is none.
    async fn wait_for_initialize(self: &Arc<Self>, wire: Arc<Wire>, visit: Visit, headers: HeaderMap) {
        tokio::time::sleep(SILENT).await;
        if wire.session().is_none() {
            self.adopt(&visit, &wire, &headers).await.ok();
        }
        tokio::time::sleep(PATIENCE).await;
        if wire.session().is_none() {
            wire.line.end(End::Done);
            self.wires.remove(&wire);
        }
    }

    /// The stream, which begins by naming the endpoint.
    fn on_wire(&self, visit: &Visit, wire: &Arc<Wire>, reader: u64) -> Response {
        let prefix = Url::parse(&self.public_url).map(|url| url.path().trim_end_matches('/').to_owned());
        let prefix = prefix.unwrap_or_default();
        let endpoint = format!("{prefix}/mcp/{}/messages?sessionId={}", visit.application.id, wire.id);
        let first = Bytes::from(format!("event: endpoint\nretry: {RETRY}\ndata: {endpoint}\n\n"));
        let body = pump::body_after(Some(first), wire.line.clone(), reader, None);
        let mut response = (StatusCode::OK, body).into_response();
        *response.headers_mut() = outward(&HeaderMap::new(), true);
        response
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
        if wire.session().is_none() && posted.initialize.is_none() {
            self.adopt(&visit, &wire, &parts.headers).await?;
        }
        match (wire.session(), posted.initialize.is_some()) {
            (None, true) => {
                wire.owe(&posted.ids);
                let (gateway, parts) = (self.clone(), parts.clone());
                tokio::spawn(async move { gateway.greet_on(wire, visit, parts, posted, body).await });
            }
            (None, false) => {
                let fault = Fault::invalid_request("Invalid Request: the first message must be initialize");
                return Err(Refusal::bad_request(fault).to(&posted.ids));
            }
            (Some(_), true) => {
                let fault = Fault::invalid_request("Invalid Request: this session is initialized already");
                return Err(Refusal::bad_request(fault).to(&posted.ids));
            }
            (Some(session), false) => self.pass_on(wire, visit, session, parts, posted, body)?,
        }
        Ok((StatusCode::ACCEPTED, "Accepted").into_response())
    }

    /// Gives a wire the session of a client that came back without saying which it had: the SDKs' clients open a new stream
    /// then and go on as if nothing had been. Only where there can be no doubt, because one session alone of this principal
    /// and client has lost its wire.
    async fn adopt(
        self: &Arc<Self>,
        visit: &Visit,
        wire: &Arc<Wire>,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let mut without = vec![];
        for session in self.sessions.open_of(&visit.caller, visit.application.number, MOST_OPEN) {
            let read = self.wires.of_session(session.number).is_some_and(|wire| wire.line.is_read());
            if read || !self.is_of_client(visit, &session).await? {
                continue;
            }
            let far = self.far.of(&self.sessions, &session).await;
            without.extend(far.ok().filter(|far| far.now().wire).map(|_| session));
        }
        let [session] = &without[..] else { return Ok(()) };
        let former = self.wires.of_session(session.number);
        if !wire.give(session.clone(), None) {
            return Ok(());
        }
        self.wires.insert(wire);
        if let Some(former) = former {
            wire.succeed(&former).await;
        }
        self.keep_up(visit, wire, session.clone())?;
        self.stand_by(visit, wire, session.clone(), headers);
        Ok(())
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
        let mut headers = parts.clone();
        for_upstream(&mut headers.headers);
        let (greeting, opened) = match self.greeted(&visit, &headers, &posted, initialize, body).await {
            Ok(greeted) => greeted,
            Err(refusal) => return wire.refuse(&posted.ids, &refusal.fault).await,
        };
        if let Some((session, mcp_session_id)) = opened {
            let counts = Counts { requests: 1, bytes_in, bytes_out: 0 };
            self.sessions.observe(&visit.caller, &session, counts);
            wire.give(session.clone(), Some(&mcp_session_id));
            self.wires.insert(&wire);
            self.keep_wire(&session).await;
            if let Err(refusal) = self.keep_up(&visit, &wire, session) {
                return wire.cut_off(&refusal.fault);
            }
        }
        let Greeting { head, read, rest, .. } = greeting;
        let answer = Incoming { head, body: rest.unwrap_or_default() };
        if let Err(fault) = convey(&wire, &posted.ids, answer, &read).await {
            wire.refuse(&posted.ids, &fault).await;
        }
    }

    /// Remembers that a session is of HTTP+SSE.
    async fn keep_wire(&self, session: &Session) {
        let Ok(held) = self.far.of(&self.sessions, session).await else { return };
        let kept = Kept { wire: true, ..Kept::clone(&held.now()) };
        if let Err(error) = self.sessions.update_mcp(session, &sealed(&kept)).await {
            tracing::warn!(?error, session = %session.id, "a client that comes back will not find its session");
        }
        held.set(kept);
    }

    /// Watches over a wire with a session: ends it with the session, and the session with it.
    fn keep_up(self: &Arc<Self>, visit: &Visit, wire: &Arc<Wire>, session: Session) -> Result<(), Refusal> {
        let pass = self.sessions.enter(&visit.caller, &session);
        let pass = pass.map_err(|error| not_entered(error, visit, vec![], false))?;
        let mut errand = self.errand(visit, &session, pass, vec![]);
        let (gateway, wire, visit) = (self.clone(), wire.clone(), visit.clone());
        tokio::spawn(async move {
            let stop = tokio::select! {
                biased;
                stop = errand.watch() => Some(stop),
                () = wire.line.deserted(PATIENCE) => None,
            };
            match stop {
                // Its client comes back, to the same session; its calls are told now, because nothing of them is left.
                Some(Stop::Stopping) => wire.cut_off(&Fault::stopping()),
                Some(stop) => wire.cut_off(&errand.fault(stop)),
                None => wire.line.end(End::Done),
            }
            let own = match (stop, errand.pass.as_ref().and_then(Pass::reason)) {
                (Some(Stop::Ended), Some(reason)) => {
                    gateway.wires.bury(&wire, reason);
                    false
                }
                _ => gateway.wires.remove(&wire),
            };
            errand.let_go();
            if stop.is_none() && own {
                gateway.leave(&visit, &session).await.ok();
            }
        });
        Ok(())
    }

    /// Carries a message of a session to the upstream and what comes back to the wire.
    fn pass_on(
        self: &Arc<Self>,
        wire: Arc<Wire>,
        visit: Visit,
        session: Session,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<(), Refusal> {
        let pass = self.sessions.enter(&visit.caller, &session);
        let pass = match pass.map_err(|error| not_entered(error, &visit, posted.ids.clone(), posted.batch)) {
            Ok(pass) => pass,
            // It can pass: the call is answered, like all others, on the wire.
            Err(refusal) if refusal.fault == Fault::suspended() => {
                wire.owe(&posted.ids);
                tokio::spawn(async move { wire.refuse(&posted.ids, &refusal.fault).await });
                return Ok(());
            }
            Err(refusal) => return Err(refusal),
        };
        let (requests, bytes_in) = (posted.ids.len() as u64, body.len() as u64);
        self.sessions.observe(&visit.caller, &session, Counts { requests, bytes_in, bytes_out: 0 });
        let body = posted.place.map_or(body.clone(), |place| place.name(&body, session.id).into());
        let mut headers = upstream::inward(&parts.headers);
        for_upstream(&mut headers);
        let outgoing = Outgoing { application: session.application, method: Method::POST, headers, body };
        wire.owe(&posted.ids);
        let ready = posted.method.as_deref() == Some("notifications/initialized");
        let (gateway, headers) = (self.clone(), parts.headers.clone());
        let errand = gateway.errand(&visit, &session, pass, posted.ids);
        tokio::spawn(async move {
            gateway.exchange_on(&wire, errand, &visit, &session, outgoing).await;
            if ready {
                gateway.stand_by(&visit, &wire, session, &headers);
            }
        });
        Ok(())
    }

    /// Has what the upstream says by itself come on the wire too.
    fn stand_by(self: &Arc<Self>, visit: &Visit, wire: &Arc<Wire>, session: Session, headers: &HeaderMap) {
        let mut headers = upstream::inward(headers);
        headers.remove(&LAST_EVENT_ID);
        headers.remove(header::CONTENT_TYPE);
        for_upstream(&mut headers);
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let (application, body) = (session.application, Bytes::new());
        let outgoing = Outgoing { application, method: Method::GET, headers, body };
        let Ok(pass) = self.sessions.enter(&visit.caller, &session) else { return };
        let errand = self.errand(visit, &session, pass, vec![]);
        let (gateway, wire, visit) = (self.clone(), wire.clone(), visit.clone());
        tokio::spawn(async move {
            let standing = gateway.exchange_on(&wire, errand, &visit, &session, outgoing);
            tokio::select! {
                () = standing => {}
                () = wire.line.over() => {}
            }
        });
    }

    /// One exchange with the upstream, from a wire and back onto it.
    async fn exchange_on(
        &self,
        wire: &Wire,
        errand: Errand,
        visit: &Visit,
        session: &Session,
        mut outgoing: Outgoing,
    ) {
        let work = async {
            let far = self.far.of(&self.sessions, session).await.map_err(|_| Fault::upstream_lost())?;
            if let Ok(version) = HeaderValue::try_from(&far.now().protocol_version) {
                outgoing.headers.insert(PROTOCOL_VERSION.clone(), version);
            }
            let answer = self.exchange(session, &far, &visit.url, outgoing, false).await?;
            convey(wire, &errand.ids, answer, &[]).await
        };
        // What ends the session ends the wire, and says so there.
        let done = tokio::select! {
            biased;
            _ = errand.watch() => return,
            done = work => done,
        };
        match done {
            Ok(sent) => errand.handed_on(sent),
            Err(fault) => wire.refuse(&errand.ids, &fault).await,
        }
    }
}

/// What a Streamable HTTP server wants to read, and old clients do not say.
fn for_upstream(headers: &mut HeaderMap) {
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
}

/// Puts an upstream's answer onto a wire: each message of a stream as it comes, anything else whole. Returns how many bytes
/// that were.
async fn convey(wire: &Wire, ids: &[Value], answer: Incoming, read: &[u8]) -> Result<u64, Fault> {
    let events = answer.is_events();
    let Incoming { head, mut body } = answer;
    if !events {
        let rest = Limited::new(body, LARGEST).collect().await;
        let too_large = "answers with more than a stream of 2024-11-05 can carry";
        let rest = rest.map_err(|_| Fault::upstream_refused(too_large))?.to_bytes();
        let whole = [read, &rest].concat();
        if message::answered(&whole).is_empty() {
            // Nothing is said to a notification, and what is no message is none to the client either.
            return match head.status.is_success() {
                true => Ok(0),
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
            if !event.data.is_empty() {
                sent += event.data.len() as u64;
                wire.say(&event.data).await;
            }
        }
        if splitter.waiting() > LARGEST {
            return Err(Fault::upstream_refused("answers with more than a stream of 2024-11-05 can carry"));
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    splitter.push(&data);
                }
            }
            Some(Err(_)) | None if wire.owes(ids) => return Err(Fault::upstream_lost()),
            Some(Err(_)) | None => return Ok(sent),
        }
    }
}
