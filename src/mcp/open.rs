//! `initialize`: a session comes to be, here and at the upstream.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use sessiond_core::ending::Ending;
use sessiond_core::kind::Kind;
use sessiond_core::reason::Reason;
use sessiond_core::session::Session;
use sessiond_core::session::event::Counts;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::door;
use super::errand::Errand;
use super::forward::{Greeting, Outgoing, is_events, is_stream};
use super::goodbye::Left;
use super::kept::{Kept, sealed};
use super::message::{Initialize, Posted};
use super::pump::{By, Pump};
use super::reply::{Fault, Refusal};
use super::upstream::{self, PROTOCOL_VERSION, SESSION};
use super::{Gateway, Visit, handed_on, handover, legacy};
use crate::auth::ClientAddress;
use crate::gate::Departed;
use crate::sessions::{LARGEST_CLIENT_INFO, LONGEST, NewSession};

/// Largest `initialize`: it is kept, to be said again.
const LARGEST_INITIALIZE: usize = 256 << 10;

impl Gateway {
    /// Opens a session, and answers with an id of our own for it.
    pub(super) async fn initialize(
        self: &Arc<Self>,
        visit: Visit,
        parts: &Parts,
        posted: &Posted,
        body: Bytes,
    ) -> Result<Response, Refusal> {
        let bytes_in = body.len();
        match self.greeted_whoever_waits(&visit, parts, posted, body).await? {
            (greeting, None) => Ok(answer(greeting, None)),
            (greeting, Some((session, mcp_session_id))) => {
                self.supersede(&visit, parts, &session).await;
                self.opened(visit, session, posted, greeting, bytes_in, &mcp_session_id).await
            }
        }
    }

    /// Whoever opens a session with the id of one of theirs that is open begins anew: nobody would ever end the former.
    async fn supersede(self: &Arc<Self>, visit: &Visit, parts: &Parts, session: &Session) {
        let id = door::text(&parts.headers, &SESSION);
        let number = id.and_then(|id| self.auth.mcp_session(id)).filter(|number| *number != session.number);
        let former = number.and_then(|number| self.sessions.open_session(number));
        let here = former.filter(|former| former.application == visit.application.number);
        let Some(former) = here.filter(|former| self.sessions.belongs_to(&visit.caller, former)) else {
            return;
        };
        if !self.is_of_client(visit, &former).await.unwrap_or(false) {
            return;
        }
        // What its upstream has to be told follows from its end.
        if let Err(error) = self.sessions.end_minded(&visit.caller, former.number, Reason::Superseded).await {
            tracing::warn!(?error, session = %former.id, "a session that another took the place of was not ended");
        }
    }

    /// The same whether its client waits for it or not: otherwise a session would stay at the upstream of which nobody knows.
    async fn greeted_whoever_waits(
        self: &Arc<Self>,
        visit: &Visit,
        parts: &Parts,
        posted: &Posted,
        body: Bytes,
    ) -> Result<(Greeting, Option<(Session, String)>), Refusal> {
        let (done, waiting) = oneshot::channel();
        let (gateway, visit, parts, posted) = (self.clone(), visit.clone(), parts.clone(), posted.clone());
        let work = async move {
            let Some(initialize) = &posted.initialize else { return };
            let greeted = gateway.greeted(&visit, &parts, &posted, initialize, body).await;
            if let Err(Ok((_, Some((session, _))))) = done.send(greeted) {
                // Without an id nobody could ever use it.
                gateway.sessions.end_minded(&visit.caller, session.number, Reason::Failed).await.ok();
            }
        };
        let lost = |_| Err(Refusal::in_place_of_answer(Fault::upstream_lost(), vec![], false));
        handover::until(waiting, Box::pin(work.in_current_span())).await.unwrap_or_else(lost)
    }

    /// What came with a credential that has ended since, before there was a session: its client is to authenticate again.
    pub(super) fn no_more(&self, visit: &Visit, ending: Ending) -> Refusal {
        match (self.sessions.still_welcome(&visit.caller, visit.application.number), ending) {
            (Err(error), _) => Refusal::from_error(error, &visit.metadata),
            (Ok(()), Ending::Credential(end)) => Refusal::credential_ended(end),
            (Ok(()), Ending::Session(reason)) => Refusal::session_not_found(Some(reason)),
        }
    }

    /// Greets the upstream with the client's own words; when that succeeds, opens a session here.
    pub(super) async fn greeted(
        self: &Arc<Self>,
        visit: &Visit,
        parts: &Parts,
        posted: &Posted,
        initialize: &Initialize,
        body: Bytes,
    ) -> Result<(Greeting, Option<(Session, String)>), Refusal> {
        if body.len() > LARGEST_INITIALIZE {
            let fault = Fault::invalid_request("Payload Too Large: initialize must be at most 256 KiB");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, fault).to(&posted.ids));
        }
        let info = initialize.client_info.as_ref();
        let client_session_id = member(info, "sessionId");
        if client_session_id.is_none() && self.config.require_client_session_id {
            // The words that clients of Kontext's gateway know.
            let fault = Fault::invalid_params("initialize requires clientInfo.sessionId");
            return Err(Refusal::bad_request(fault).to(&posted.ids));
        }
        let said =
            std::str::from_utf8(&body).ok().and_then(|text| RawValue::from_string(text.to_owned()).ok());
        let said = said.ok_or_else(|| Refusal::bad_request(Fault::parse("Parse error: not UTF-8")))?;

        let (application, url) = (visit.application.number, visit.url.clone());
        let mut headers = upstream::inward(&parts.headers, visit.application.upstream_headers.as_ref());
        headers.remove(&PROTOCOL_VERSION);
        let outgoing = Outgoing { application, method: Method::POST, headers, body };
        // It may have been revoked while the message came, and again while the upstream answers.
        let refused = |error| Refusal::from_error(error, &visit.metadata).to(&posted.ids);
        let stay = self.stay(visit).map_err(|refusal| refusal.to(&posted.ids))?;
        let greeting = tokio::select! {
            biased;
            ending = stay.ended() => return Err(self.no_more(visit, ending).to(&posted.ids)),
            () = self.stopping.cancelled() => Err(Fault::stopping()),
            greeting = self.greet(&url, outgoing) => greeting,
        };
        drop(stay);
        let in_place = |fault| Refusal::in_place_of_answer(fault, posted.ids.clone(), false);
        let mut greeting = greeting.map_err(in_place)?;
        let upstream_session = greeting.session.take();
        let left = |protocol_version| {
            let (url, session) = (url.clone(), upstream_session.clone()?);
            Some(Left { application, url, session, protocol_version })
        };
        let Some(protocol_version) = greeting.protocol_version.clone() else {
            // It said no: the client may read why, and nothing has come to be.
            self.goodbyes.left(left(None));
            self.sessions.still_welcome(&visit.caller, application).map_err(refused)?;
            return Ok((greeting, None));
        };
        let client = visit.caller.client().map(str::to_owned);
        let session = upstream_session.clone();
        let kept = Kept {
            url: url.clone(),
            session,
            initialize: said,
            protocol_version: protocol_version.clone(),
            client,
            wire: false,
            level: None,
            subscriptions: BTreeSet::new(),
            healed: 0,
        };
        let new = new_session(visit, parts, info.cloned(), member(info, "hostname"), &protocol_version);
        let new = NewSession { client_session_id, ..new };
        match self.open(visit, new, kept).await {
            Ok(opened) => Ok((greeting, Some(opened))),
            Err(refusal) => {
                self.goodbyes.left(left(Some(protocol_version)));
                Err(refusal.to(&posted.ids))
            }
        }
    }

    /// Records the session, and what is needed to speak for it.
    async fn open(
        self: &Arc<Self>,
        visit: &Visit,
        new: NewSession,
        kept: Kept,
    ) -> Result<(Session, String), Refusal> {
        let refused = |error| Refusal::from_error(error, &visit.metadata);
        let opened = self.sessions.connect(&visit.caller, new).await.map_err(refused)?;
        let session = opened.session;
        // A client that comes back under its own session id attaches; its former far side has nobody left.
        let former = if opened.opened { None } else { self.far.of(&self.sessions, &session).await.ok() };
        match self.sessions.keep_mcp(&session, &sealed(&kept)).await {
            Ok(mcp_session_id) => {
                self.far.insert(session.number, kept);
                if self.sessions.open_session(session.number).is_none() {
                    // It has ended before anybody could know that there is an upstream to be told.
                    let Session { number, id, application, .. } = session;
                    self.goodbyes.departed(Departed { number, id, application });
                }
                if let Some(former) = former.map(|held| held.now()) {
                    self.goodbyes.left(Left::of(visit.application.number, &former));
                }
                Ok((session, mcp_session_id))
            }
            Err(error) => {
                // Without an id nobody could ever use it.
                self.sessions.end_minded(&visit.caller, session.number, Reason::Failed).await.ok();
                Err(refused(error))
            }
        }
    }

    /// The answer to the client, with its session id.
    async fn opened(
        self: &Arc<Self>,
        visit: Visit,
        session: Session,
        posted: &Posted,
        greeting: Greeting,
        bytes_in: usize,
        mcp_session_id: &str,
    ) -> Result<Response, Refusal> {
        let refused = |error| Refusal::from_error(error, &visit.metadata);
        let pass = self.sessions.enter(&visit.caller, &session).map_err(refused)?;
        let counts = Counts { requests: 1, bytes_in: bytes_in as u64, bytes_out: 0 };
        self.sessions.observe(&visit.caller, &session, counts);
        let errand = self.errand(&visit, &session, pass, posted.ids.clone());
        let mut response = match is_stream(&greeting.head) {
            true => {
                let far = self.far.of(&self.sessions, &session).await.map_err(refused)?;
                self.greeted_on_a_line(greeting, errand, &far.now()).await
            }
            false => answer(greeting, Some(errand)),
        };
        if let Ok(id) = HeaderValue::try_from(mcp_session_id) {
            response.headers_mut().insert(SESSION.clone(), id);
        }
        Ok(response)
    }

    async fn greeted_on_a_line(
        self: &Arc<Self>,
        greeting: Greeting,
        errand: Errand,
        kept: &Kept,
    ) -> Response {
        let Greeting { head, read, rest, .. } = greeting;
        let line = self.new_line(&errand, kept).await;
        self.lines.insert(&line);
        // Nobody else knows it yet.
        let reader = line.attach(line.after).unwrap_or_default();
        let (gateway, pumped) = (self.clone(), line.clone());
        tokio::spawn(async move {
            Pump::new(errand, pumped.clone(), gateway.config.upstream_timeout, &read, rest).run().await;
            gateway.lines.ended(&pumped);
        });
        legacy::events(&head.headers, line, reader, By::Own)
    }
}

fn answer(greeting: Greeting, errand: Option<Errand>) -> Response {
    let Greeting { head, read, rest, .. } = greeting;
    let events = is_events(&head.headers);
    let body = match errand {
        Some(errand) => errand.relay(read, rest, events, false),
        None => Body::from(read),
    };
    let status = if head.status == StatusCode::ACCEPTED { StatusCode::OK } else { head.status };
    handed_on(status, &head.headers, events, body)
}

/// What a client's first request says of it.
pub(super) fn new_session(
    visit: &Visit,
    parts: &Parts,
    info: Option<Value>,
    hostname: Option<String>,
    protocol_version: &str,
) -> NewSession {
    NewSession {
        application: Some(visit.application.id),
        hostname: hostname.filter(|name| is_plain(name)),
        user_agent: door::text(&parts.headers, &header::USER_AGENT).map(str::to_owned),
        client_info: info.map(fitting),
        ip: parts.extensions.get::<ClientAddress>().map(|address| address.0.to_string()),
        protocol_version: Some(protocol_version.to_owned()),
        ..NewSession::of(Kind::Mcp)
    }
}

fn member(info: Option<&Value>, name: &str) -> Option<String> {
    info?.get(name)?.as_str().map(str::to_owned).filter(|text| !text.is_empty())
}

/// A hostname that is not one is left out; it is no reason to refuse a client that works elsewhere.
fn is_plain(name: &str) -> bool {
    name.len() <= LONGEST && !name.trim().is_empty() && !name.chars().any(char::is_control)
}

/// Icons may be pictures of any size (MCP 2025-11-25, schema `Implementation`): what is too large is recorded without what
/// no list of sessions shows.
fn fitting(mut info: Value) -> Value {
    if info.to_string().len() > LARGEST_CLIENT_INFO
        && let Some(members) = info.as_object_mut()
    {
        members.retain(|name, value| {
            matches!(name.as_str(), "name" | "version" | "title") && value.to_string().len() <= LONGEST
        });
    }
    info
}
