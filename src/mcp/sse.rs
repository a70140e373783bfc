//! HTTP+SSE (MCP 2024-11-05, basic/transports): `GET …/sse` opens a wire, POSTs to the endpoint it names are its client's
//! messages. Toward the upstream it is Streamable HTTP like all the rest.

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
use super::errand::{Errand, Stop};
use super::event_id::EventId;
use super::events::Splitter;
use super::forward::{Asking, Greeting, Incoming, Outgoing, data};
use super::heal::Lasting;
use super::legacy::{not_entered, warn_of_stranger};
use super::line::{End, Gone};
use super::message::{self, Posted};
use super::pump::{self, By};
use super::reply::{Fault, Refusal, last_words};
use super::upstream::{self, LAST_EVENT_ID, PROTOCOL_VERSION};
use super::wire::{NO_SESSION, Wire};
use super::{Gateway, Visit, check_content, check_takes_events, door, handed_on};
use crate::error::Error;
use crate::gate::{Pass, Side};
use crate::sessions::Stay;

/// How long a client may take to say `initialize`, and to come back when its stream broke.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long what a client says next waits for what it has said before.
const IN_ORDER: Duration = Duration::from_secs(5);
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
            if let Ok((reader, lost)) = wire.line.attach_to_rest(after) {
                return self.on_wire(&visit, &wire, reader, &lost);
            }
        }
        let mcp_session_id = last.and_then(|last| last.upstream).filter(|_| session.is_some());
        let (application, budget) = (visit.application.number, &self.budget);
        let wire = Wire::new(&visit.caller, application, after, mcp_session_id, budget, seal);
        let reader = wire.line.attach(after).map_err(|Gone| Refusal::session_not_found(None))?;
        match session {
            Some(session) => {
                self.wire_up(&visit, &wire, session.clone(), None)?;
                self.stand_by(&visit, &wire, session, &parts.headers);
            }
            None => {
                self.wires.insert(&wire);
                let stay = self.stay(&visit)?;
                tokio::spawn(self.clone().wait_for_session(wire.clone(), stay));
            }
        }
        self.on_wire(&visit, &wire, reader, &[])
    }

    /// Gives up a wire that gets no session in time, or whose credential ends before.
    async fn wait_for_session(self: Arc<Self>, wire: Arc<Wire>, stay: Stay) {
        let ending = tokio::select! {
            biased;
            ending = stay.ended() => Some(ending),
            () = tokio::time::sleep(PATIENCE) => None,
        };
        if wire.session().is_none() {
            match ending {
                Some(ending) => wire.cut_off(&Fault::over(ending)),
                None => wire.line.end(End::Done),
            }
            self.wires.remove(&wire);
        }
    }

    /// Registers what belongs to no session yet, or is read by another request than the one that opened it.
    pub(super) fn stay(&self, visit: &Visit) -> Result<Stay, Refusal> {
        let side = Side::Agent(visit.application.number, None);
        let stay = self.sessions.stay(&visit.caller, side);
        stay.map_err(|error| Refusal::from_error(error, &visit.metadata))
    }

    /// The stream, which begins by naming the endpoint, and which of the calls answered meanwhile have lost their answers.
    fn on_wire(
        &self,
        visit: &Visit,
        wire: &Arc<Wire>,
        reader: u64,
        lost: &[Value],
    ) -> Result<Response, Refusal> {
        let prefix = Url::parse(&visit.base).map(|url| url.path().trim_end_matches('/').to_owned());
        let prefix = prefix.unwrap_or_default();
        let endpoint = format!("{prefix}/mcp/{}/messages?sessionId={}", visit.application.id, wire.id);
        let lost: Vec<_> = lost.iter().map(|id| Fault::stream_lost().answer(id)).collect();
        let lost = last_words(None, &lost);
        let first = Bytes::from(format!("event: endpoint\nretry: {RETRY}\ndata: {endpoint}\n\n{lost}"));
        let by = By::Credential(self.stay(visit)?.pass);
        let body = pump::body(Some(first), wire.line.clone(), reader, by);
        Ok(handed_on(StatusCode::OK, &HeaderMap::new(), true, body))
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
        let body = self.read_body(body).await?;
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
        let of = wire.session().map_or(NO_SESSION, |session| session.number);
        let share = self.budget.share(Rank::Call, (of, visit.application.number), CancellationToken::new());
        if let Err(fault) = convey(&wire, (&posted.ids, None), answer, &read, self.patience(), &share).await {
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
        let lasting = Lasting::of(&posted, &body).filter(|_| !posted.batch);
        let body = posted.place.map_or(body.clone(), |place| place.name(&body, session.id).into());
        let headers = upstream::inward(&parts.headers, visit.application.upstream_headers.as_ref());
        let outgoing = Outgoing { application: session.application, method: Method::POST, headers, body };
        let ready = posted.method.as_deref() == Some("notifications/initialized");
        let asks = !posted.ids.is_empty();
        let (gateway, headers) = (self.clone(), parts.headers.clone());
        let errand = gateway.errand(&visit, &session, pass, posted.ids);
        errand.share.set(outgoing.body.len());
        let work = tokio::spawn(async move {
            gateway.exchange_on(&wire, errand, &visit, &session, outgoing, lasting).await.ok();
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

    /// One exchange with the upstream, from a wire and back onto it. An error has been said there. Returns the id of the last
    /// event that had one.
    pub(super) async fn exchange_on(
        self: &Arc<Self>,
        wire: &Wire,
        mut errand: Errand,
        visit: &Visit,
        session: &Session,
        mut outgoing: Outgoing,
        lasting: Option<Lasting>,
    ) -> Result<Option<Bytes>, Fault> {
        let Ok(far) = self.far.of(&self.sessions, session).await else {
            let fault = Fault::upstream_lost();
            wire.refuse(&errand.ids, &fault).await;
            return Err(fault);
        };
        errand.asked = Some(self.goodbyes.asks((session.number, session.id), session.application, &far));
        let work = async {
            if let Ok(version) = HeaderValue::try_from(&far.now().protocol_version) {
                outgoing.headers.insert(PROTOCOL_VERSION.clone(), version);
            }
            let asking = Asking { ids: &errand.ids, owed: false, lasting };
            let answer = self.exchange(session, &far, &visit.url, outgoing, asking).await?;
            convey(wire, (&errand.ids, Some(&errand)), answer, &[], self.patience(), &errand.share).await
        };
        // What ends the session ends the wire, and says so there.
        let done = tokio::select! {
            biased;
            stop = errand.watch() => {
                let fault = errand.fault(stop);
                errand.give_up(&fault);
                let own = wire.opener.credential == errand.caller.credential;
                let ended = errand.pass.as_ref().and_then(Pass::credential_end);
                if stop == Stop::Crowded {
                    // The wire goes on: nobody else tells its client.
                    wire.refuse(&errand.ids, &fault).await;
                } else if let Some(end) = ended.filter(|_| stop == Stop::Ended && !own) {
                    // Of a message that came with another credential than the stream, which goes on.
                    wire.refuse(&errand.ids, &Fault::credential_ended(end)).await;
                }
                return Ok(None);
            }
            done = work => done,
        };
        match done {
            Ok(conveyed) => {
                errand.handed_on(conveyed.bytes);
                Ok(conveyed.last)
            }
            Err(fault) => {
                if fault.leaves_it_at_work() {
                    errand.give_up(&fault);
                }
                wire.refuse(&errand.ids, &fault).await;
                Err(fault)
            }
        }
    }
}

/// The upstream has a standing stream already.
pub(super) fn taken() -> Fault {
    Fault::upstream_refused("serves one stream a session")
}

/// The upstream has none to give.
pub(super) fn no_stream() -> Fault {
    Fault::upstream_refused("has no stream of its own")
}

/// More came in one message than is held for one call, twice over: as it came, and as it is said.
fn too_large() -> Fault {
    Fault::upstream_refused("answers with more than a stream of 2024-11-05 can carry")
}

/// The whole of an answer that is no stream.
async fn gather(mut body: Body, read: &[u8], patience: Duration, share: &Share) -> Result<BytesMut, Fault> {
    let mut whole = BytesMut::from(read);
    let gathering = async {
        while let Some(data) = data(&mut body).await {
            whole.extend_from_slice(&data.map_err(|_| Fault::upstream_lost())?);
            share.set(whole.capacity());
            if whole.len() > share.most() / 2 {
                return Err(too_large());
            }
        }
        Ok(())
    };
    let gathered = tokio::time::timeout(patience, gathering).await;
    gathered.map_err(|_| Fault::upstream_slow())??;
    share.set(whole.capacity() + whole.len());
    Ok(whole)
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, "Accepted").into_response()
}

/// What came of an answer.
#[derive(Default)]
struct Conveyed {
    bytes: u64,
    /// The id of the last event that had one.
    last: Option<Bytes>,
    /// An error that answers no call of this wire's.
    stray: Option<Fault>,
}

impl Conveyed {
    /// Says one message of the upstream's, if it is one: what answers a call that nobody waits for is not said, and an error
    /// about no call may be about this one.
    async fn message(&mut self, wire: &Wire, errand: Option<&Errand>, data: &[u8]) {
        let answered = message::answered(data);
        let wanted = if answered.is_empty() { message::asks(data) } else { wire.owes(&answered) };
        if wanted {
            self.bytes += data.len() as u64;
            errand.iter().for_each(|errand| errand.hands_on(data.len() as u64));
            wire.say(data).await;
        } else if let Some(fault) = message::error_in(data) {
            self.stray.get_or_insert(fault);
        }
    }

    /// Its answer is over: what is owed still was not in it.
    fn over(self, wire: &Wire, ids: &[Value], otherwise: impl FnOnce() -> Fault) -> Result<Self, Fault> {
        match wire.owes(ids) {
            true => Err(self.stray.unwrap_or_else(otherwise)),
            false => Ok(self),
        }
    }
}

/// Puts an upstream's answer onto a wire: each message of a stream as it comes, anything else whole. A call whose answer is not
/// in it is an error: the client was told 202, and nobody else can tell it.
async fn convey(
    wire: &Wire,
    (ids, errand): (&[Value], Option<&Errand>),
    answer: Incoming,
    read: &[u8],
    patience: Duration,
    share: &Share,
) -> Result<Conveyed, Fault> {
    let events = answer.is_events();
    let Incoming { head, mut body } = answer;
    let mut conveyed = Conveyed::default();
    if !events {
        let whole = gather(body, read, patience, share).await?;
        for message in message::apart(&whole) {
            conveyed.message(wire, errand, message.as_bytes()).await;
        }
        let conveyed = conveyed.over(wire, ids, || Fault::unanswered(head.status))?;
        return match head.status {
            // Something was said, or nothing was asked.
            _ if conveyed.bytes > 0 || head.status.is_success() => Ok(conveyed),
            StatusCode::CONFLICT => Err(taken()),
            status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => Err(no_stream()),
            status => Err(Fault::upstream_refused(format_args!("failed (HTTP {})", status.as_u16()))),
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
                // What was read, and what is said of it.
                share.set(2 * data.len());
                conveyed.message(wire, errand, &data).await;
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
            Some(Err(_)) | None => return conveyed.over(wire, ids, Fault::upstream_lost),
        }
    }
}
