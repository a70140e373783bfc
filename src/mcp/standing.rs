//! Streams that a client asks for by GET: the standing one of a session, and the rest of one that it has lost.

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use sessiond_core::session::Session;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::budget::Rank;
use super::event_id::EventId;
use super::forward::{Asking, Outgoing};
use super::kept::OVERTAKEN;
use super::legacy::{Carriage, Carried, events, extra, not_entered};
use super::line::{End, Line};
use super::pump::{self, By, Pump};
use super::reply::{Fault, Refusal, last_words};
use super::upstream::{self, LAST_EVENT_ID};
use super::{Gateway, Visit, handed_on};

/// How long giving up a connection to an upstream may take.
const PARTING: Duration = Duration::from_secs(1);
/// How often, and after which time, an upstream that has a standing stream already is asked again.
pub(super) const TRIES: u32 = 5;
pub(super) const AGAIN: Duration = Duration::from_millis(50);

impl Gateway {
    /// Opens the standing stream of a session.
    pub(super) async fn stand(
        self: &Arc<Self>,
        visit: Visit,
        session: Session,
        parts: &Parts,
    ) -> Result<Response, Refusal> {
        let former = self.lines.standing(session.number);
        // Nobody reads it and somebody comes who does not ask for it: they have begun anew. Most upstreams allow one.
        if let Some(former) = former.as_ref().filter(|former| !former.is_read()) {
            former.end(End::Done);
            tokio::time::timeout(PARTING, former.parted()).await.ok();
        }
        for _ in 0..TRIES {
            let response = self.stood(&visit, session.clone(), parts, None).await?;
            let Some(former) = former.as_ref().filter(|_| response.status() == StatusCode::CONFLICT) else {
                return Ok(response);
            };
            // The upstream has one still, read by a connection that is dead without our knowing, or has not noticed yet
            // that we gave it up: the new one counts.
            former.end(End::Done);
            tokio::time::timeout(PARTING, former.parted()).await.ok();
            tokio::time::sleep(AGAIN).await;
        }
        self.stood(&visit, session, parts, None).await
    }

    /// Has a standing stream opened at the upstream: a new one, or one that goes on after an event.
    async fn stood(
        self: &Arc<Self>,
        visit: &Visit,
        session: Session,
        parts: &Parts,
        line: Option<Arc<Line>>,
    ) -> Result<Response, Refusal> {
        let outgoing = resuming(visit, &session, parts, line.as_ref().and_then(|line| line.upstream_id()));
        let carriage = self.admitted(visit, session, (vec![], false), outgoing).await?;
        let opening = carriage.far.opening();
        self.carried(Carriage { line, opening, stands: true, ..carriage }).await
    }

    /// Goes on with a stream after an event of it. While the session lives nobody is told that a stream is gone, which
    /// clients take for the end of the session, or wait on for their own time-out: what is held is gone on with, calls whose
    /// answers are lost end with an error each, and a standing stream begins anew.
    pub(super) async fn resume(
        self: &Arc<Self>,
        visit: Visit,
        session: Session,
        parts: &Parts,
        id: &str,
    ) -> Result<Response, Refusal> {
        let seal = |key: &str| self.sessions.event_seal(session.number, key);
        let Some(from) = EventId::parse(id, seal) else {
            // Nobody can say of which stream it is: not one of ours, or not of this session.
            return self.stand(visit, session, parts).await;
        };
        let pass = self.sessions.enter(&visit.caller, &session);
        let pass = pass.map_err(|error| not_entered(error, &visit, vec![], false))?;
        let known = self.lines.find(&from.key, session.number);
        let more = |line: &Arc<Line>| line.ended() != Some(End::Paused) || line.last() > from.number;
        if let Some(line) = known.clone().filter(more)
            && let Ok((reader, lost)) = line.attach_to_rest(from.number)
        {
            let errand = self.errand(&visit, &session, pass, vec![]);
            let lost: Vec<_> = lost.iter().map(|id| Fault::stream_lost().answer(id)).collect();
            let first = (!lost.is_empty()).then(|| last_words(None, &lost).into());
            let body = pump::body(first, line, reader, By::Errand(Box::new(errand)));
            return Ok(handed_on(StatusCode::OK, &HeaderMap::new(), true, body));
        }
        drop(pass);
        let far = self.far.of(&self.sessions, &session).await;
        let here = far.map_err(|error| Refusal::from_error(error, &visit.metadata))?.now().home();
        let own = match &known {
            Some(line) => line.upstream_id().filter(|_| line.is_at(&here)),
            None => from.upstream.clone().filter(|_| from.home.as_ref().is_none_or(|home| *home == here)),
        };
        // An event of another session at the upstream says nothing to this one.
        let upstream = own.filter(|id| !id.is_empty());
        let (calls, seal) = (from.calls.clone(), seal(&from.key));
        let begin = EventId { upstream: upstream.clone(), home: Some(here), ..from };
        let rank = if calls.is_empty() { Rank::Standing } else { Rank::Call };
        let share = self.share_of(rank, &session, CancellationToken::new());
        let line = Arc::new(Line::new(session.number, begin, seal, share));
        match (upstream, calls.is_empty()) {
            (None, true) => self.stand(visit, session, parts).await,
            (Some(_), true) => match self.stood(&visit, session.clone(), parts, Some(line)).await {
                Ok(response) if response.status() == StatusCode::OK => Ok(response),
                _ => self.stand(visit, session, parts).await,
            },
            (None, false) => {
                // Better an error for each than a client that waits.
                let reader = line.refuse(&Fault::stream_lost());
                let reader = reader.map_err(|_| Refusal::session_not_found(None))?;
                Ok(events(&HeaderMap::new(), line, reader, By::Own))
            }
            (upstream, false) => {
                let outgoing = resuming(&visit, &session, parts, upstream);
                let carriage = self.admitted(&visit, session, (calls, false), outgoing).await?;
                self.carried(Carriage { line: Some(line), ..carriage }).await
            }
        }
    }

    /// Carries a standing stream from the upstream. Servers may send its head with its first event, which may be in hours: its
    /// client gets a head of ours after a moment, and what was to be waited for goes when the client does.
    pub(super) async fn carry_standing(
        self: Arc<Self>,
        carriage: Carriage,
        answer: oneshot::Sender<Carried>,
    ) {
        let Carriage { errand, session, far, url, outgoing, line, opening, .. } = carriage;
        let line = match line {
            Some(line) => line,
            None => self.new_line(&errand, &far.now()).await,
        };
        let Ok(reader) = line.attach(line.after) else { return };
        let mut answer = Some(answer);
        let mut exchange = Box::pin(self.exchange(&session, &far, &url, outgoing, Asking::default()));
        let soon = tokio::time::sleep(OVERTAKEN);
        tokio::pin!(soon);
        let came = loop {
            tokio::select! {
                biased;
                came = errand.wait(&mut exchange) => break came,
                () = gone(&mut answer, &line) => {
                    drop(exchange);
                    return self.lines.ended(&line);
                }
                () = &mut soon, if answer.is_some() => {
                    self.lines.insert(&line);
                    let sent = answer.take().map(|answer| {
                        answer.send(Carried::Events(HeaderMap::new(), line.clone(), reader)).is_ok()
                    });
                    if sent != Some(true) {
                        line.leave(reader);
                    }
                }
            }
        };
        drop((opening, exchange));
        match (came, answer) {
            (Ok(came), answer) if came.is_events() => {
                line.settle_at(far.now().home());
                self.lines.insert(&line);
                if let Some(answer) = answer
                    && answer.send(Carried::Events(came.head.headers, line.clone(), reader)).is_err()
                {
                    line.leave(reader);
                }
                let patience = self.config.upstream_timeout;
                Pump::new(errand, line.clone(), patience, &[], Some(came.body)).run().await;
            }
            (Ok(came), Some(answer)) => {
                answer.send(Carried::Whole(Box::new(came), errand)).ok();
            }
            (Err(fault), Some(answer)) => {
                answer.send(Carried::Failed(fault, errand)).ok();
            }
            // There is no stream to be had, but its client has one already: it stays quiet for as long as it is read.
            (Ok(_), None) => {
                let mut nobody = None;
                tokio::select! {
                    _ = errand.watch() => line.cut_off(&[]),
                    () = gone(&mut nobody, &line) => {}
                }
            }
            // Its client comes back in a while and finds out.
            (Err(_), None) if errand.stopped().is_none() => line.end(End::Paused),
            (Err(_), None) => line.cut_off(&[]),
        }
        self.lines.ended(&line);
    }
}

/// Resolves once whoever waits for a stream, or reads it, has gone, or another has taken its place.
async fn gone(answer: &mut Option<oneshot::Sender<Carried>>, line: &Line) {
    match answer {
        Some(answer) => answer.closed().await,
        None => tokio::select! {
            () = line.deserted(Duration::ZERO) => {}
            () = line.over() => {}
        },
    }
}

/// Asks for a stream, or for what follows an event of one.
fn resuming(visit: &Visit, session: &Session, parts: &Parts, after: Option<Bytes>) -> Outgoing {
    let mut headers = upstream::inward(&parts.headers, extra(visit));
    headers.remove(&LAST_EVENT_ID);
    if let Some(id) = after.and_then(|id| id.as_ref().try_into().ok()) {
        headers.insert(LAST_EVENT_ID.clone(), id);
    }
    Outgoing { application: session.application, method: Method::GET, headers, body: Bytes::new() }
}
