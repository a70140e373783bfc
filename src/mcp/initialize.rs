//! `initialize`: opens a session at the upstream and here.

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

use super::forward::{InitializeAnswer, OutgoingRequest, is_events, is_stream};
use super::goodbye::AbandonedSession;
use super::in_flight::InFlight;
use super::message::{Initialize, Posted};
use super::pump::{Pump, ReadRight};
use super::reply::{ErrorResponse, RpcError};
use super::request_headers;
use super::upstream::{self, PROTOCOL_VERSION, SESSION};
use super::upstream_sessions::{UpstreamState, to_json};
use super::{Gateway, RequestContext, client_response, detach, legacy};
use crate::auth::ClientAddress;
use crate::error::Error;
use crate::gate::Departed;
use crate::sessions::{LARGEST_CLIENT_INFO, LONGEST, NewSession};

/// The largest `initialize` that is taken. It is stored, to be sent again when the upstream loses the session.
const LARGEST_INITIALIZE: usize = 256 << 10;

impl Gateway {
    /// Opens a session, and answers with a session id of our own.
    pub(super) async fn initialize(
        self: &Arc<Self>,
        context: RequestContext,
        parts: &Parts,
        posted: &Posted,
        body: Bytes,
    ) -> Result<Response, ErrorResponse> {
        let bytes_in = body.len();
        match self.initialize_detached(&context, parts, posted, body).await? {
            (initialize_answer, None) => Ok(initialize_response(initialize_answer, None)),
            (initialize_answer, Some((session, mcp_session_id))) => {
                self.supersede(&context, parts, &session).await;
                self.respond(context, session, posted, initialize_answer, bytes_in, &mcp_session_id).await
            }
        }
    }

    /// Ends the open session whose id an `initialize` came with: its client begins anew, and nobody else would ever end
    /// the former session.
    async fn supersede(self: &Arc<Self>, context: &RequestContext, parts: &Parts, session: &Session) {
        let id = request_headers::text(&parts.headers, &SESSION);
        let number = id.and_then(|id| self.auth.mcp_session(id)).filter(|number| *number != session.number);
        let former = number.and_then(|number| self.sessions.queries.open_session(number));
        let here = former.filter(|former| former.application == context.application.number);
        let Some(former) = here.filter(|former| self.sessions.gateway.belongs_to(&context.caller, former))
        else {
            return;
        };
        if !self.is_of_client(context, &former).await.unwrap_or(false) {
            return;
        }
        // The goodbye to the former session's upstream follows from its end.
        if let Err(error) =
            self.sessions.lifecycle.end_hosted(&context.caller, former.number, Reason::Superseded).await
        {
            tracing::warn!(?error, session = %former.id, "a session that another took the place of was not ended");
        }
    }

    /// Initializes the upstream to the end even if the client goes away: otherwise the upstream would keep a session
    /// that nobody knows of.
    async fn initialize_detached(
        self: &Arc<Self>,
        context: &RequestContext,
        parts: &Parts,
        posted: &Posted,
        body: Bytes,
    ) -> Result<(InitializeAnswer, Option<(Session, String)>), ErrorResponse> {
        let (done, waiting) = oneshot::channel();
        let (gateway, context, parts, posted) =
            (self.clone(), context.clone(), parts.clone(), posted.clone());
        let work = async move {
            let Some(initialize) = &posted.initialize else { return };
            let initialize_upstream =
                gateway.initialize_upstream(&context, &parts, &posted, initialize, body).await;
            if let Err(Ok((_, Some((session, _))))) = done.send(initialize_upstream) {
                // Without its id nobody could ever use the session.
                gateway
                    .sessions
                    .lifecycle
                    .end_hosted(&context.caller, session.number, Reason::Failed)
                    .await
                    .ok();
            }
        };
        let lost = |_| Err(ErrorResponse::in_place_of_answer(RpcError::upstream_lost(), vec![], false));
        detach::run_until(waiting, Box::pin(work.in_current_span())).await.unwrap_or_else(lost)
    }

    /// The response to a request whose credential ended before there was a session: the client is to authenticate
    /// again.
    pub(super) fn ended_before_session(&self, context: &RequestContext, ending: Ending) -> ErrorResponse {
        match (self.sessions.admission.check_again(&context.caller, context.application.number), ending) {
            (Err(error), _) => ErrorResponse::from_error(error, &context.metadata),
            (Ok(()), Ending::Credential(end)) => ErrorResponse::credential_ended(end),
            (Ok(()), Ending::Session(reason)) => ErrorResponse::session_not_found(Some(reason)),
            (Ok(()), Ending::Lapsed) => ErrorResponse::from_error(Error::Busy, &context.metadata),
        }
    }

    /// Sends the client's own `initialize` to the upstream and, if that succeeds, opens a session here.
    pub(super) async fn initialize_upstream(
        self: &Arc<Self>,
        context: &RequestContext,
        parts: &Parts,
        posted: &Posted,
        initialize: &Initialize,
        body: Bytes,
    ) -> Result<(InitializeAnswer, Option<(Session, String)>), ErrorResponse> {
        if body.len() > LARGEST_INITIALIZE {
            let rpc_error =
                RpcError::invalid_request("Payload Too Large: initialize must be at most 256 KiB");
            return Err(ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, rpc_error).answering(&posted.ids));
        }
        let info = initialize.client_info.as_ref();
        let client_session_id = member(info, "sessionId");
        if client_session_id.is_none() && self.config.require_client_session_id {
            // Clients of Kontext's gateway know this message.
            let rpc_error = RpcError::invalid_params("initialize requires clientInfo.sessionId");
            return Err(ErrorResponse::bad_request(rpc_error).answering(&posted.ids));
        }
        let said =
            std::str::from_utf8(&body).ok().and_then(|text| RawValue::from_string(text.to_owned()).ok());
        let said =
            said.ok_or_else(|| ErrorResponse::bad_request(RpcError::parse("Parse error: not UTF-8")))?;

        let (application, url) = (context.application.number, context.url.clone());
        let mut headers =
            upstream::to_upstream(&parts.headers, context.application.upstream_headers.as_ref());
        headers.remove(&PROTOCOL_VERSION);
        let outgoing = OutgoingRequest { application, method: Method::POST, headers, body };
        // The credential may have been revoked while the message came in, and again while the upstream answers.
        let refused = |error| ErrorResponse::from_error(error, &context.metadata).answering(&posted.ids);
        let registration =
            self.register_credential(context).map_err(|refusal| refusal.answering(&posted.ids))?;
        let initialize_answer = tokio::select! {
            biased;
            ending = registration.ended() => return Err(self.ended_before_session(context, ending).answering(&posted.ids)),
            () = self.stopping.cancelled() => Err(RpcError::stopping()),
            initialize_answer = self.send_initialize(&url, outgoing) => initialize_answer,
        };
        drop(registration);
        let in_place = |rpc_error| ErrorResponse::in_place_of_answer(rpc_error, posted.ids.clone(), false);
        let mut initialize_answer = initialize_answer.map_err(in_place)?;
        let upstream_session = initialize_answer.session.take();
        let abandoned = |protocol_version| {
            let (url, session) = (url.clone(), upstream_session.clone()?);
            Some(AbandonedSession { application, url, session, protocol_version })
        };
        let Some(protocol_version) = initialize_answer.protocol_version.clone() else {
            // The upstream refused: the client may read why, and no session has come to be.
            self.goodbyes.session_abandoned(abandoned(None));
            self.sessions.admission.check_again(&context.caller, application).map_err(refused)?;
            return Ok((initialize_answer, None));
        };
        let client = context.caller.client().map(str::to_owned);
        let session = upstream_session.clone();
        let state = UpstreamState {
            url: url.clone(),
            session,
            initialize: said,
            protocol_version: protocol_version.clone(),
            client,
            is_sse: false,
            sse_node: None,
            level: None,
            subscriptions: BTreeSet::new(),
            reopened: 0,
        };
        let new = new_session(context, parts, info.cloned(), member(info, "hostname"), &protocol_version);
        let new = NewSession { client_session_id, ..new };
        match self.open(context, new, state).await {
            Ok(opened) => Ok((initialize_answer, Some(opened))),
            Err(refusal) => {
                self.goodbyes.session_abandoned(abandoned(Some(protocol_version)));
                Err(refusal.answering(&posted.ids))
            }
        }
    }

    /// Records the session, and the state that is needed to speak for it at the upstream.
    async fn open(
        self: &Arc<Self>,
        context: &RequestContext,
        new: NewSession,
        state: UpstreamState,
    ) -> Result<(Session, String), ErrorResponse> {
        let refused = |error| ErrorResponse::from_error(error, &context.metadata);
        let opened = self.sessions.lifecycle.connect(&context.caller, new).await.map_err(refused)?;
        let session = opened.session;
        // A client that comes back under its own session id attaches to the session; nobody uses its former session at
        // the upstream any more.
        let former = if opened.opened {
            None
        } else {
            self.upstream_sessions.of(&self.sessions.gateway, &session).await.ok()
        };
        match self.sessions.gateway.keep_state(&session, &to_json(&state)).await {
            Ok(mcp_session_id) => {
                self.upstream_sessions.insert(session.number, state);
                if self.sessions.queries.open_session(session.number).is_none() {
                    // The session ended before the Gate could know that an upstream has to be told.
                    let Session { number, id, application, .. } = session;
                    self.goodbyes.departed(Departed { number, id, application });
                }
                if let Some(former) = former.map(|upstream_session| upstream_session.state()) {
                    self.goodbyes
                        .session_abandoned(AbandonedSession::of(context.application.number, &former));
                }
                Ok((session, mcp_session_id))
            }
            Err(error) => {
                // Without its id nobody could ever use the session.
                self.sessions
                    .lifecycle
                    .end_hosted(&context.caller, session.number, Reason::Failed)
                    .await
                    .ok();
                Err(refused(error))
            }
        }
    }

    /// Answers the client's `initialize`, with the session id in the head.
    async fn respond(
        self: &Arc<Self>,
        context: RequestContext,
        session: Session,
        posted: &Posted,
        initialize_answer: InitializeAnswer,
        bytes_in: usize,
        mcp_session_id: &str,
    ) -> Result<Response, ErrorResponse> {
        let refused = |error| ErrorResponse::from_error(error, &context.metadata);
        let pass = self.sessions.admission.enter(&context.caller, &session).map_err(refused)?;
        let counts = Counts { requests: 1, bytes_in: bytes_in as u64, bytes_out: 0 };
        self.sessions.traffic.observe(&context.caller, &session, counts);
        let in_flight = self.track(&context, &session, pass, posted.ids.clone());
        let mut response = match is_stream(&initialize_answer.head) {
            true => {
                let upstream_session =
                    self.upstream_sessions.of(&self.sessions.gateway, &session).await.map_err(refused)?;
                self.answer_on_stream(initialize_answer, in_flight, &upstream_session.state()).await
            }
            false => initialize_response(initialize_answer, Some(in_flight)),
        };
        if let Ok(id) = HeaderValue::try_from(mcp_session_id) {
            response.headers_mut().insert(SESSION.clone(), id);
        }
        Ok(response)
    }

    async fn answer_on_stream(
        self: &Arc<Self>,
        initialize_answer: InitializeAnswer,
        in_flight: InFlight,
        state: &UpstreamState,
    ) -> Response {
        let InitializeAnswer { head, read, rest, .. } = initialize_answer;
        let stream = self.new_stream(&in_flight, state).await;
        self.streams.insert(&stream);
        // The stream is new, so no other reader can have it and attaching cannot fail.
        let reader = stream.attach(stream.after).unwrap_or_default();
        let (gateway, pumped) = (self.clone(), stream.clone());
        tokio::spawn(async move {
            Pump::new(in_flight, pumped.clone(), gateway.config.upstream_timeout, &read, rest).run().await;
            gateway.streams.mark_ended(&pumped);
        });
        legacy::events_response(
            &head.headers,
            stream,
            reader,
            ReadRight::Own(self.sessions.admission.lease()),
        )
    }
}

fn initialize_response(initialize_answer: InitializeAnswer, in_flight: Option<InFlight>) -> Response {
    let InitializeAnswer { head, read, rest, .. } = initialize_answer;
    let events = is_events(&head.headers);
    let body = match in_flight {
        Some(in_flight) => in_flight.relay(read, rest, events, false),
        None => Body::from(read),
    };
    let status = if head.status == StatusCode::ACCEPTED { StatusCode::OK } else { head.status };
    client_response(status, &head.headers, events, body)
}

/// The facts about a session that its client's first request gives.
pub(super) fn new_session(
    context: &RequestContext,
    parts: &Parts,
    info: Option<Value>,
    hostname: Option<String>,
    protocol_version: &str,
) -> NewSession {
    NewSession {
        application: Some(context.application.id),
        hostname: hostname.filter(|name| is_plain(name)),
        user_agent: request_headers::text(&parts.headers, &header::USER_AGENT).map(str::to_owned),
        client_info: info.map(shortened),
        ip: parts.extensions.get::<ClientAddress>().map(|address| address.0.to_string()),
        protocol_version: Some(protocol_version.to_owned()),
        ..NewSession::of(Kind::Mcp)
    }
}

fn member(info: Option<&Value>, name: &str) -> Option<String> {
    info?.get(name)?.as_str().map(str::to_owned).filter(|text| !text.is_empty())
}

/// Whether a text can be a hostname. One that cannot is left out, and is no reason to refuse a client that works
/// elsewhere.
fn is_plain(name: &str) -> bool {
    name.len() <= LONGEST && !name.trim().is_empty() && !name.chars().any(char::is_control)
}

/// Shortens client info that is too large to record. Icons may be pictures of any size (MCP 2025-11-25, schema
/// `Implementation`), so only the members that lists of sessions show remain.
fn shortened(mut info: Value) -> Value {
    if info.to_string().len() > LARGEST_CLIENT_INFO
        && let Some(members) = info.as_object_mut()
    {
        members.retain(|name, value| {
            matches!(name.as_str(), "name" | "version" | "title") && value.to_string().len() <= LONGEST
        });
    }
    info
}
