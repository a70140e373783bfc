//! Requests of a session, in the revisions that have them: POST, GET and DELETE with an `Mcp-Session-Id`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::errand::Errand;
use super::event_id::EventId;
use super::forward::{Incoming, Outgoing};
use super::kept::{Held, Opening};
use super::line::{End, Line};
use super::message::Posted;
use super::pump::{self, Pump};
use super::reply::{Fault, Refusal};
use super::upstream::{self, LAST_EVENT_ID, SESSION};
use super::{Gateway, Visit, check_takes_events, door, era, handed_on, handover};
use crate::core::event::{Counts, UpstreamHeaders};
use crate::core::session::{Refusal as Rule, Session};
use crate::error::Error;
use crate::gate::Pass;
use crate::meter;
use crate::secret;

/// The first revision whose clients can take an event without data, which tells them an id to resume from.
const PRIMED: &str = "2025-11-25";
/// How long they wait before they do; the SDKs' servers say the same.
const RETRY: u32 = 1_000;
/// How long giving up a connection to an upstream may take.
const PARTING: Duration = Duration::from_secs(1);
/// How often, and after which time, an upstream that has a standing stream already is asked again.
pub(super) const TRIES: u32 = 5;
pub(super) const AGAIN: Duration = Duration::from_millis(50);

/// A request on its way to an upstream, with what comes back.
struct Carriage {
    errand: Errand,
    session: Session,
    far: Arc<Held>,
    url: String,
    outgoing: Outgoing,
    /// The line that its events are to go on; a new one if there is none.
    line: Option<Arc<Line>>,
    /// It is the standing stream.
    opening: Option<Opening>,
}

/// What came back.
enum Carried {
    /// Events, by the head they came under; the line has this reader.
    Events(HeaderMap, Arc<Line>, u64),
    Whole(Box<Incoming>, Errand),
    Failed(Fault, Errand),
}

impl Gateway {
    pub(super) async fn get(self: &Arc<Self>, visit: Visit, parts: &Parts) -> Result<Response, Refusal> {
        era::of_session(&parts.headers)?;
        check_takes_events(&parts.headers)?;
        let session = self.session(&visit, &parts.headers).await?;
        match door::text(&parts.headers, &LAST_EVENT_ID) {
            Some(id) => self.resume(visit, session, parts, id).await,
            None => self.stand(visit, session, parts).await,
        }
    }

    pub(super) async fn delete(self: &Arc<Self>, visit: Visit, parts: &Parts) -> Result<Response, Refusal> {
        era::of_session(&parts.headers)?;
        let session = self.session(&visit, &parts.headers).await?;
        self.leave(&visit, &session).await?;
        // 200 and 204 are what every SDK takes for success; 202 the Python client calls a failure.
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// The client of a session has gone for good.
    pub(super) async fn leave(self: &Arc<Self>, visit: &Visit, session: &Session) -> Result<(), Refusal> {
        let far = self.far.of(&self.sessions, session).await.ok();
        let ended = self.sessions.disconnect(&visit.caller, session.id).await;
        ended.map_err(|error| Refusal::from_error(error, &visit.metadata))?;
        self.far.remove(session.number);
        if let Some(kept) = far.map(|held| held.now()) {
            let version = Some(kept.protocol_version.clone());
            self.say_goodbye(session.application, kept.url.clone(), kept.session.clone(), version);
        }
        Ok(())
    }

    /// The session a request belongs to. Unknown, another's and ended are one and the same 404, save that its owner
    /// learns how it ended.
    pub(super) async fn session(&self, visit: &Visit, headers: &HeaderMap) -> Result<Session, Refusal> {
        let Some(id) = headers.get(&SESSION) else {
            let fault = Fault::new(-32000, "Bad Request: Mcp-Session-Id header is required");
            return Err(Refusal::bad_request(fault));
        };
        self.session_named(visit, id.to_str().unwrap_or("")).await
    }

    /// The session with this `Mcp-Session-Id`.
    pub(super) async fn session_named(&self, visit: &Visit, id: &str) -> Result<Session, Refusal> {
        let open = self.auth.mcp_session(id).and_then(|number| self.sessions.open_session(number));
        if let Some(session) = open {
            let here = session.application == visit.application.number;
            if here
                && self.sessions.belongs_to(&visit.caller, &session)
                && self.is_of_client(visit, &session).await?
            {
                return Ok(session);
            }
            warn_of_stranger(visit, Some(&session));
            return Err(Refusal::session_not_found(None));
        }
        let reason = self.sessions.how_mcp_ended(&visit.caller, visit.application.number, id).await;
        let reason = reason.map_err(|error| Refusal::from_error(error, &visit.metadata))?;
        if reason.is_none() {
            let (event, actor) = ("session_use_of_unknown", visit.caller.actor.id);
            tracing::info!(target: "sessiond::security", event, %actor, "an id that was never given out to this client");
        }
        Err(Refusal::session_not_found(reason))
    }

    /// A session is bound to issuer, subject and client. The first two are its principal; the third is kept beside it,
    /// where the issuer says it.
    pub(super) async fn is_of_client(&self, visit: &Visit, session: &Session) -> Result<bool, Refusal> {
        let far = self.far.of(&self.sessions, session).await;
        let far = far.map_err(|error| Refusal::from_error(error, &visit.metadata))?;
        Ok(far.now().client.as_deref().is_none_or(|client| visit.caller.client() == Some(client)))
    }

    /// Carries a POST to the upstream and the answer back.
    pub(super) async fn forward(
        self: &Arc<Self>,
        visit: Visit,
        session: Session,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<Response, Refusal> {
        let body = match posted.place {
            Some(place) => place.name(&body, session.id).into(),
            None => body,
        };
        let (method, headers) = (Method::POST, upstream::inward(&parts.headers, extra(&visit)));
        let outgoing = Outgoing { application: session.application, method, headers, body };
        let asks = !posted.ids.is_empty();
        let carriage = self.admitted(&visit, session, (posted.ids, posted.batch), outgoing).await?;
        carriage.far.opened().await;
        let response = self.carried(carriage).await?;
        Ok(if asks { response } else { taken(response) })
    }

    /// Opens the standing stream of a session.
    async fn stand(
        self: &Arc<Self>,
        visit: Visit,
        session: Session,
        parts: &Parts,
    ) -> Result<Response, Refusal> {
        let outgoing = || {
            let (method, headers) = (Method::GET, upstream::inward(&parts.headers, extra(&visit)));
            Outgoing { application: visit.application.number, method, headers, body: Bytes::new() }
        };
        let former = self.lines.standing(session.number);
        // Nobody reads it and somebody comes who does not ask for it: they have begun anew. Most upstreams allow one.
        if let Some(former) = former.as_ref().filter(|former| !former.is_read()) {
            former.end(End::Done);
            tokio::time::timeout(PARTING, former.parted()).await.ok();
        }
        for _ in 0..TRIES {
            let mut carriage = self.admitted(&visit, session.clone(), (vec![], false), outgoing()).await?;
            carriage.opening = carriage.far.opening();
            let response = self.carried(carriage).await?;
            let Some(former) = former.as_ref().filter(|_| response.status() == StatusCode::CONFLICT) else {
                return Ok(response);
            };
            // The upstream has one still, read by a connection that is dead without our knowing, or has not noticed yet
            // that we gave it up: the new one counts.
            former.end(End::Done);
            tokio::time::timeout(PARTING, former.parted()).await.ok();
            tokio::time::sleep(AGAIN).await;
        }
        let carriage = self.admitted(&visit, session, (vec![], false), outgoing()).await?;
        self.carried(carriage).await
    }

    /// Goes on with a stream after an event of it.
    async fn resume(
        self: &Arc<Self>,
        visit: Visit,
        session: Session,
        parts: &Parts,
        id: &str,
    ) -> Result<Response, Refusal> {
        let gone = || {
            let why = "Not Found: this stream cannot be resumed from this Last-Event-ID; the session goes on";
            Refusal::stream_not_found(why)
        };
        let seal = |key: &str| self.sessions.event_seal(session.number, key);
        let from = EventId::parse(id, seal).ok_or_else(gone)?;
        let pass = self.sessions.enter(&visit.caller, &session);
        let pass = pass.map_err(|error| not_entered(error, &visit, vec![], false))?;
        let known = self.lines.find(&from.key, session.number);
        let more = |line: &Arc<Line>| line.ended() != Some(End::Paused) || line.last() > from.number;
        if let Some(line) = known.clone().filter(more) {
            let reader = line.attach(from.number).map_err(|_| gone())?;
            let errand = self.errand(&visit, &session, pass, vec![]);
            return Ok(events(&HeaderMap::new(), line, reader, Some(errand)));
        }
        drop(pass);
        let upstream = known.and_then(|line| line.upstream_id()).or(from.upstream.clone());
        let calls = from.calls.clone();
        let seal = seal(&from.key);
        let line = Arc::new(Line::new(session.number, EventId { upstream: upstream.clone(), ..from }, seal));
        if upstream.is_none() && !calls.is_empty() {
            // They were lost with us: better an error for each than a client that waits.
            let reader = line.refuse(&Fault::stream_lost()).map_err(|_| gone())?;
            return Ok(events(&HeaderMap::new(), line, reader, None));
        }
        let mut headers = upstream::inward(&parts.headers, extra(&visit));
        headers.remove(&LAST_EVENT_ID);
        if let Some(id) = upstream.and_then(|id| id.as_ref().try_into().ok()) {
            headers.insert(LAST_EVENT_ID.clone(), id);
        }
        let (application, body) = (session.application, Bytes::new());
        let outgoing = Outgoing { application, method: Method::GET, headers, body };
        let carriage = self.admitted(&visit, session, (calls, false), outgoing).await?;
        self.carried(Carriage { line: Some(line), ..carriage }).await
    }

    /// Registers a request as under way, before anything else, so that a revocation finds it.
    async fn admitted(
        &self,
        visit: &Visit,
        session: Session,
        (ids, batch): (Vec<Value>, bool),
        outgoing: Outgoing,
    ) -> Result<Carriage, Refusal> {
        let pass = match self.sessions.enter(&visit.caller, &session) {
            Ok(pass) => pass,
            Err(error) => return Err(not_entered(error, visit, ids, batch)),
        };
        let mut errand = self.errand(visit, &session, pass, ids);
        errand.batch = batch;
        let far = self.far.of(&self.sessions, &session).await;
        let far = far.map_err(|error| Refusal::from_error(error, &visit.metadata))?;
        let (requests, bytes_in) = (errand.ids.len() as u64, outgoing.body.len() as u64);
        self.sessions.observe(&visit.caller, &session, Counts { requests, bytes_in, bytes_out: 0 });
        Ok(Carriage { errand, session, far, url: visit.url.clone(), outgoing, line: None, opening: None })
    }

    /// What was let in to ask this.
    pub(super) fn errand(&self, visit: &Visit, session: &Session, pass: Pass, ids: Vec<Value>) -> Errand {
        // From here on whatever is logged about the request says whose it is.
        tracing::Span::current().record("session", tracing::field::display(session.id));
        Errand {
            sessions: self.sessions.clone(),
            caller: visit.caller.clone(),
            number: session.number,
            pass: Some(pass),
            ids,
            batch: false,
            listens: false,
            patience: self.patience(),
            stopping: self.stopping.clone(),
        }
    }

    /// Goes to the upstream by itself, whatever becomes of the client, and waits for what comes back.
    async fn carried(self: &Arc<Self>, carriage: Carriage) -> Result<Response, Refusal> {
        let (answer, waiting) = oneshot::channel();
        let carry = Box::pin(self.clone().carry(carriage, answer).in_current_span());
        match handover::until(waiting, carry).await {
            Ok(Carried::Events(headers, line, reader)) => Ok(events(&headers, line, reader, None)),
            Ok(Carried::Whole(answer, errand)) => Ok(whole(*answer, errand)),
            Ok(Carried::Failed(fault, errand)) => Err(errand.failed(fault)),
            Err(_) => Err(Refusal::in_place_of_answer(Fault::upstream_lost(), vec![], false)),
        }
    }

    async fn carry(self: Arc<Self>, carriage: Carriage, answer: oneshot::Sender<Carried>) {
        let Carriage { errand, session, far, url, outgoing, line, opening } = carriage;
        let owed = line.as_ref().is_some_and(|line| !line.calls.is_empty());
        // In a box: a stream that stays open long after would keep room for it.
        let exchange = Box::pin(self.exchange(&session, &far, &url, outgoing, owed));
        let came = errand.wait(exchange).await;
        drop(opening);
        let (line, came) = match (line, came) {
            (line, Ok(incoming)) if incoming.is_events() => (line, incoming),
            // Whoever resumes a call waits for events, and not for what is wrong with them.
            (Some(line), came) if owed => {
                let fault = came.err().unwrap_or_else(Fault::upstream_lost);
                if let Ok(reader) = line.refuse(&fault) {
                    answer.send(Carried::Events(HeaderMap::new(), line, reader)).ok();
                }
                return;
            }
            (_, Ok(incoming)) => {
                answer.send(Carried::Whole(Box::new(incoming), errand)).ok();
                return;
            }
            (_, Err(fault)) => {
                answer.send(Carried::Failed(fault, errand)).ok();
                return;
            }
        };
        let line = match line {
            Some(line) => line,
            None => self.new_line(&errand, &far.now().protocol_version).await,
        };
        self.lines.insert(&line);
        let Ok(reader) = line.attach(line.after) else { return };
        if answer.send(Carried::Events(came.head.headers, line.clone(), reader)).is_err() {
            line.leave(reader);
        }
        let patience = self.config.upstream_timeout;
        Pump::new(errand, line.clone(), patience, &[], Some(came.body)).run().await;
        self.lines.ended(&line);
    }

    /// A line for what an errand asked, with an id to resume from at once where clients can take one.
    pub(super) async fn new_line(&self, errand: &Errand, protocol_version: &str) -> Arc<Line> {
        let (key, calls) = (secret::request_id(), errand.ids.clone());
        let seal = self.sessions.event_seal(errand.number, &key);
        let line = Line::new(errand.number, EventId { key, calls, number: 0, upstream: None }, seal);
        if protocol_version >= PRIMED {
            line.push(None, |id| format!("id: {id}\nretry: {RETRY}\ndata: \n\n").into()).await;
        }
        Arc::new(line)
    }
}

pub(super) fn not_entered(error: Error, visit: &Visit, ids: Vec<Value>, batch: bool) -> Refusal {
    match error {
        // A revocation that is under way covers it: for its owner, who has a fresh credential, it is over.
        Error::Unauthorized { reason: Some(Rule::Revoked(reason)) } => {
            Refusal::session_not_found(Some(reason))
        }
        Error::Denied { code: "session_suspended", .. } => {
            Refusal::in_place_of_answer(Fault::suspended(), ids, batch)
        }
        error => Refusal::from_error(error, &visit.metadata),
    }
}

/// Whoever has another's session id has it from somewhere.
pub(super) fn warn_of_stranger(visit: &Visit, session: Option<&Session>) {
    tracing::warn!(
        target: "sessiond::security",
        event = "session_use_by_another",
        session = session.map(|session| session.id.to_string()),
        actor_kind = visit.caller.actor.kind.word(),
        actor = %visit.caller.actor.id,
        request_id = visit.caller.request_id,
        "somebody presented the id of another's MCP session",
    );
    metrics::counter!(meter::FOREIGN_SESSION).increment(1);
}

/// Which headers pass for this application beside those that always do.
fn extra(visit: &Visit) -> Option<&UpstreamHeaders> {
    visit.application.upstream_headers.as_ref()
}

/// The answer to what asks nothing: 202 without a body, whatever the upstream said of its success (MCP 2025-11-25,
/// basic/transports, "Sending Messages to the Server"). Strict clients take anything else for a failure.
pub(super) fn taken(response: Response) -> Response {
    match response.status().is_success() {
        true => StatusCode::ACCEPTED.into_response(),
        false => response,
    }
}

/// A stream of events.
pub(super) fn events(headers: &HeaderMap, line: Arc<Line>, reader: u64, errand: Option<Errand>) -> Response {
    handed_on(StatusCode::OK, headers, true, pump::body(None, line, reader, errand))
}

/// An answer that is no stream.
pub(super) fn whole(answer: Incoming, errand: Errand) -> Response {
    let events = answer.is_events();
    let Incoming { head, body } = answer;
    let empty = matches!(head.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT);
    let body = if empty { Body::empty() } else { errand.relay(Bytes::new(), Some(body), events) };
    handed_on(head.status, &head.headers, events, body)
}
