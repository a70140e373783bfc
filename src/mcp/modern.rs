//! Requests of 2026-07-28, which has no sessions: each says in `_meta` who sends it. The session they belong to is ours
//! alone, found by whose credential it is, the client's name, and the conversation where the client names one.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use sessiond_core::session::event::Counts;
use sessiond_core::session::{Refusal as Rule, Session};

use super::forward::{Incoming, LARGEST_REFUSAL, Outgoing, collect, correlate, usable};
use super::legacy::{not_entered, taken, whole};
use super::message::{MODERN, Posted, error_code};
use super::reply::{Fault, Refusal};
use super::upstream::{self, LAST_EVENT_ID};
use super::{Gateway, Visit, handed_on, open};
use crate::error::Error;
use crate::gate::Pass;
use crate::sessions::NewSession;

/// The probe with which a client finds out what it talks to: it opens nothing.
const DISCOVER: &str = "server/discover";
const LISTEN: &str = "subscriptions/listen";
/// How long an upstream may take over what belongs to no session.
const UNATTENDED: Duration = Duration::from_secs(30);
/// Largest answer to that.
const LARGEST_UNATTENDED: usize = 4 << 20;
/// How often a session may end between being found and being entered.
const TRIES: u32 = 3;

impl Gateway {
    /// Serves one request or notification.
    pub(super) async fn call(
        self: &Arc<Self>,
        visit: Visit,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<Response, Refusal> {
        let mut headers = upstream::inward(&parts.headers, visit.application.upstream_headers.as_ref());
        headers.remove(&LAST_EVENT_ID);
        let bytes_in = body.len() as u64;
        let application = visit.application.number;
        let mut outgoing = Outgoing { application, method: Method::POST, headers, body };
        let Some((session, pass)) = self.found(&visit, parts, &posted).await? else {
            let response = self.unattended(&visit, &posted, outgoing).await?;
            return Ok(if posted.ids.is_empty() { taken(response) } else { response });
        };
        correlate(&mut outgoing.headers, session.id);
        if let Some(place) = posted.place {
            outgoing.body = place.name(&outgoing.body, session.id).into();
        }
        let requests = posted.ids.len() as u64;
        self.sessions.observe(&visit.caller, &session, Counts { requests, bytes_in, bytes_out: 0 });
        let mut errand = self.errand(&visit, &session, pass, posted.ids.clone());
        errand.share.set(outgoing.body.len());
        errand.listens = posted.method.as_deref() == Some(LISTEN);
        // Whoever goes away cancels the call (MCP 2026-07-28, basic/patterns/cancellation): dropping this drops the
        // connection to the upstream.
        let answer =
            async { understood(self.send(&visit.url, None, outgoing).await?, self.patience()).await };
        let answer = errand.wait(answer).await;
        errand.share.set(0);
        match answer {
            Ok(Understood::Answer(answer)) if posted.ids.is_empty() => Ok(taken(whole(answer, errand))),
            Ok(Understood::Answer(answer)) => Ok(whole(answer, errand)),
            Ok(Understood::LegacyOnly) => Err(legacy_only(&posted)),
            Err(fault) => Err(errand.failed(fault)),
        }
    }

    /// Has the upstream say which revisions it speaks instead of one that is not known here. Should it know that one, it is
    /// not served: nobody could say who is connected then.
    pub(super) async fn refused_by_upstream(
        self: &Arc<Self>,
        visit: Visit,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<Response, Refusal> {
        let (application, headers) = (
            visit.application.number,
            upstream::inward(&parts.headers, visit.application.upstream_headers.as_ref()),
        );
        let outgoing = Outgoing { application, method: Method::POST, headers, body };
        let answer = self.unattended(&visit, &posted, outgoing).await?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        Err(Refusal::bad_request(Fault::unsupported_version(posted.meta.revision())).to(&posted.ids))
    }

    /// The session a request belongs to, entered. One is opened if there is none, save for a probe or a notification.
    async fn found(
        &self,
        visit: &Visit,
        parts: &Parts,
        posted: &Posted,
    ) -> Result<Option<(Session, Pass)>, Refusal> {
        let opens = !posted.ids.is_empty() && posted.method.as_deref() != Some(DISCOVER);
        let correlation = posted.meta.correlation();
        let anchor = self.sessions.anchor(&visit.caller, &[posted.meta.client_name(), &correlation]);
        let refused = |error| Refusal::from_error(error, &visit.metadata).to(&posted.ids);
        for _ in 0..TRIES {
            let session = match self.sessions.anchored(visit.application.number, &anchor) {
                Some(session) => session,
                None if opens => self.opened_for(visit, parts, posted, &anchor).await.map_err(refused)?,
                None => return Ok(None),
            };
            match self.sessions.enter(&visit.caller, &session) {
                Ok(pass) => return Ok(Some((session, pass))),
                Err(Error::NotFound("Session")) => {}
                // A revocation that is under way covers it, but not who has a fresh credential: connecting ends it first.
                Err(Error::Unauthorized { reason: Some(Rule::Revoked(_)) }) if opens => {
                    self.opened_for(visit, parts, posted, &anchor).await.map_err(refused)?;
                }
                Err(Error::Unauthorized { reason: Some(Rule::Revoked(_)) }) => return Ok(None),
                Err(error) => return Err(not_entered(error, visit, posted.ids.clone(), false)),
            }
        }
        Err(refused(Error::Busy))
    }

    /// Opens a session, or attaches to the one that another request has just opened.
    async fn opened_for(
        &self,
        visit: &Visit,
        parts: &Parts,
        posted: &Posted,
        anchor: &str,
    ) -> Result<Session, Error> {
        let info = posted.meta.client_info.clone().filter(Value::is_object);
        let hostname = posted.meta.hostname().map(str::to_owned);
        let new = open::new_session(visit, parts, info, hostname, MODERN);
        let new = NewSession { anchor: Some(anchor.to_owned()), ..new };
        Ok(self.sessions.connect(&visit.caller, new).await?.session)
    }

    /// What belongs to no session is served whole, and only if the way is still open once the upstream has answered.
    async fn unattended(
        &self,
        visit: &Visit,
        posted: &Posted,
        outgoing: Outgoing,
    ) -> Result<Response, Refusal> {
        let refused = |error| Refusal::from_error(error, &visit.metadata).to(&posted.ids);
        let (caller, application) = (&visit.caller, visit.application.number);
        let stay = self.stay(visit).map_err(|refusal| refusal.to(&posted.ids))?;
        let answer = async {
            let Understood::Answer(answer) =
                understood(self.send(&visit.url, None, outgoing).await?, self.patience()).await?
            else {
                return Ok(None);
            };
            let events = answer.is_events();
            let Incoming { head, body } = answer;
            let body = collect(body, LARGEST_UNATTENDED, self.patience()).await?;
            Ok(Some(handed_on(head.status, &head.headers, events, Body::from(body))))
        };
        let answer = tokio::select! {
            biased;
            ending = stay.ended() => return Err(self.no_more(visit, ending).to(&posted.ids)),
            () = self.stopping.cancelled() => Err(Fault::stopping()),
            answer = tokio::time::timeout(UNATTENDED, answer) => {
                answer.unwrap_or_else(|_| Err(Fault::upstream_refused("has not answered in time")))
            }
        };
        self.sessions.still_welcome(caller, application).map_err(refused)?;
        match answer {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(legacy_only(posted)),
            Err(fault) => Err(Refusal::in_place_of_answer(fault, posted.ids.clone(), false)),
        }
    }
}

enum Understood {
    Answer(Incoming),
    /// It does not know what it was asked.
    LegacyOnly,
}

/// Takes an answer for what it is. A server of older revisions refuses in its own words, which every client is told in
/// those of the specification; and a failure must not pass for one of ours, which would end a client's probing.
async fn understood(answer: Incoming, patience: Duration) -> Result<Understood, Fault> {
    let status = answer.head.status;
    if status.is_success() {
        return Ok(Understood::Answer(answer));
    }
    if status != StatusCode::NOT_FOUND {
        usable(Incoming { head: answer.head.clone(), body: Body::empty() })?;
    }
    let Incoming { mut head, body } = answer;
    let body = collect(body, LARGEST_REFUSAL, patience).await?;
    // JSON-RPC's own codes, and those that the specification has taken for itself; the others are of older servers.
    let said = error_code(&body).filter(|code| matches!(code, -32_700..=-32_600 | -32_099..=-32_020));
    match said {
        Some(_) => {
            if status.is_server_error() {
                head.status = StatusCode::OK;
            }
            Ok(Understood::Answer(Incoming { head, body: Body::from(body) }))
        }
        None if status.is_client_error() => Ok(Understood::LegacyOnly),
        None => {
            let how = format!("failed (HTTP {})", status.as_u16());
            Err(Fault::upstream_refused(how))
        }
    }
}

fn legacy_only(posted: &Posted) -> Refusal {
    Refusal::bad_request(Fault::legacy_only(posted.meta.revision())).to(&posted.ids)
}
