//! Requests of a session, in the revisions that have them: POST, GET and DELETE with an `Mcp-Session-Id`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use sessiond_core::application::UpstreamHeaders;
use sessiond_core::session::event::Counts;
use sessiond_core::session::{Refusal as Rule, Session};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::budget::{Rank, Share};
use super::errand::Errand;
use super::event_id::EventId;
use super::forward::{Asking, Incoming, Outgoing};
use super::heal::Lasting;
use super::kept::{Held, Kept, Opening};
use super::line::Line;
use super::message::Posted;
use super::pump::{self, By, Pump};
use super::reply::{Fault, Refusal};
use super::upstream::{self, LAST_EVENT_ID, SESSION};
use super::{Gateway, Visit, check_takes_events, door, era, handed_on, handover};
use crate::error::Error;
use crate::gate::Pass;
use crate::{meter, secret};

/// The first revision whose clients can take an event without data, which tells them an id to resume from.
const PRIMED: &str = "2025-11-25";
/// How long they wait before they do; the SDKs' servers say the same.
const RETRY: u32 = 1_000;

/// A request on its way to an upstream, with what comes back.
pub(super) struct Carriage {
    pub errand: Errand,
    pub session: Session,
    pub far: Arc<Held>,
    pub url: String,
    pub outgoing: Outgoing,
    /// The line that its events are to go on; a new one if there is none.
    pub line: Option<Arc<Line>>,
    /// What it says that lasts as long as the session.
    pub lasting: Option<Lasting>,
    /// It is a standing stream.
    pub stands: bool,
    /// Calls wait for it.
    pub opening: Option<Opening>,
}

/// What came back.
pub(super) enum Carried {
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
        // An empty one is none (WHATWG HTML, 9.2.4).
        match door::text(&parts.headers, &LAST_EVENT_ID).filter(|id| !id.trim().is_empty()) {
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
        let ended = self.sessions.disconnect(&visit.caller, session.id).await;
        ended.map(|_| ()).map_err(|error| Refusal::from_error(error, &visit.metadata))
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
        let lasting = Lasting::of(&posted, &body).filter(|_| !posted.batch);
        let body = match posted.place {
            Some(place) => place.name(&body, session.id).into(),
            None => body,
        };
        let (method, headers) = (Method::POST, upstream::inward(&parts.headers, extra(&visit)));
        let outgoing = Outgoing { application: session.application, method, headers, body };
        let asks = !posted.ids.is_empty();
        let carriage = self.admitted(&visit, session, (posted.ids, posted.batch), outgoing).await?;
        carriage.far.opened().await;
        let response = self.carried(Carriage { lasting, ..carriage }).await?;
        Ok(if asks { response } else { taken(response) })
    }

    /// Registers a request as under way, before anything else, so that a revocation finds it.
    pub(super) async fn admitted(
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
        errand.asked = Some(self.goodbyes.asks((session.number, session.id), session.application, &far));
        errand.share.set(outgoing.body.len());
        let (requests, bytes_in) = (errand.ids.len() as u64, outgoing.body.len() as u64);
        self.sessions.observe(&visit.caller, &session, Counts { requests, bytes_in, bytes_out: 0 });
        Ok(Carriage {
            errand,
            session,
            far,
            url: visit.url.clone(),
            outgoing,
            lasting: None,
            line: None,
            opening: None,
            stands: false,
        })
    }

    /// A share of what may be held, for something of a session.
    pub(super) fn share_of(&self, rank: Rank, session: &Session, given_up: CancellationToken) -> Share {
        self.budget.share(rank, (session.number, session.application), given_up)
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
            counted: AtomicU64::new(0),
            asked: None,
            share: self.share_of(Rank::Call, session, CancellationToken::new()),
        }
    }

    /// Goes to the upstream by itself, whatever becomes of the client, and waits for what comes back.
    pub(super) async fn carried(self: &Arc<Self>, carriage: Carriage) -> Result<Response, Refusal> {
        let (answer, waiting) = oneshot::channel();
        let gateway = self.clone();
        let carry: handover::Work = match carriage.stands {
            true => Box::pin(gateway.carry_standing(carriage, answer).in_current_span()),
            false => Box::pin(gateway.carry(carriage, answer).in_current_span()),
        };
        match handover::until(waiting, carry).await {
            Ok(Carried::Events(headers, line, reader)) => Ok(events(&headers, line, reader, By::Own)),
            Ok(Carried::Whole(answer, errand)) => Ok(whole(*answer, errand)),
            Ok(Carried::Failed(fault, errand)) => Err(errand.failed(fault)),
            Err(_) => Err(Refusal::in_place_of_answer(Fault::upstream_lost(), vec![], false)),
        }
    }

    async fn carry(self: Arc<Self>, carriage: Carriage, answer: oneshot::Sender<Carried>) {
        let Carriage { errand, session, far, url, outgoing, lasting, line, .. } = carriage;
        let owed = line.is_some();
        // In a box: a stream that stays open long after would keep room for it.
        let asking = Asking { ids: &errand.ids, owed, lasting };
        let exchange = Box::pin(self.exchange(&session, &far, &url, outgoing, asking));
        let came = errand.wait(exchange).await;
        // What was asked is not kept any longer.
        errand.share.set(0);
        let (line, came) = match (line, came) {
            (line, Ok(incoming)) if incoming.is_events() => (line, incoming),
            // Whoever resumes a call waits for events, and not for what is wrong with them.
            (Some(line), came) => {
                let fault = came.err().unwrap_or_else(Fault::upstream_lost);
                if let Ok(reader) = line.refuse(&fault) {
                    answer.send(Carried::Events(HeaderMap::new(), line, reader)).ok();
                }
                return;
            }
            (None, Ok(incoming)) => {
                answer.send(Carried::Whole(Box::new(incoming), errand)).ok();
                return;
            }
            (None, Err(fault)) => {
                answer.send(Carried::Failed(fault, errand)).ok();
                return;
            }
        };
        let line = match line {
            Some(line) => line,
            None => self.new_line(&errand, &far.now()).await,
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
    pub(super) async fn new_line(&self, errand: &Errand, kept: &Kept) -> Arc<Line> {
        let (key, calls) = (secret::request_id(), errand.ids.clone());
        let seal = self.sessions.event_seal(errand.number, &key);
        let home = Some(kept.home());
        let rank = if calls.is_empty() { Rank::Standing } else { Rank::Call };
        let begin = EventId { key, calls, number: 0, upstream: None, home };
        let line = Line::new(errand.number, begin, seal, errand.share.beside(rank));
        if kept.protocol_version.as_str() >= PRIMED {
            line.push(None, vec![], |id| format!("id: {id}\nretry: {RETRY}\ndata: \n\n").into()).await;
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
pub(super) fn extra(visit: &Visit) -> Option<&UpstreamHeaders> {
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
pub(super) fn events(headers: &HeaderMap, line: Arc<Line>, reader: u64, by: By) -> Response {
    handed_on(StatusCode::OK, headers, true, pump::body(None, line, reader, by))
}

/// An answer that is no stream, or one of 2026-07-28. One that says yes to calls and cannot hold their answers is an error for
/// each: clients would wait for them until their own time-out.
pub(super) fn whole(answer: Incoming, errand: Errand) -> Response {
    let events = answer.is_events();
    let Incoming { mut head, body } = answer;
    let empty =
        matches!(head.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    let must_answer = head.status.is_success() && !errand.ids.is_empty() && !events;
    if must_answer && (empty || !is_json(&head.headers)) {
        return errand.failed(Fault::unanswered(head.status)).into_response();
    }
    if must_answer {
        head.headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    let body = match empty {
        true => Body::empty(),
        false => errand.relay(Bytes::new(), Some(body), events, must_answer),
    };
    handed_on(head.status, &head.headers, events, body)
}

/// Whether a body is JSON, as far as its head says.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(media) = headers.get(header::CONTENT_TYPE) else { return true };
    let media =
        media.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media.ends_with("+json")
}
