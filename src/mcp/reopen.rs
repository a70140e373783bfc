//! Opens a session anew that its upstream has lost, with the client's own `initialize`, and repeats the settings that
//! the client has made since (its log level, its subscriptions).

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use serde_json::{Value, json};
use sessiond_core::session::Session;
use tracing::Instrument;

use super::Gateway;
use super::forward::{IncomingResponse, LARGEST_REFUSAL, OutgoingRequest, read_whole};
use super::goodbye::AbandonedSession;
use super::message::Posted;
use super::reply::RpcError;
use super::resumable_stream::End;
use super::upstream::{LAST_EVENT_ID, PROTOCOL_VERSION};
use super::upstream_sessions::{UpstreamSession, UpstreamState, to_json};

/// How long an upstream may take over each repeated setting.
const EACH: Duration = Duration::from_secs(5);
/// How long an upstream may take over all repeated settings together.
const ALL: Duration = Duration::from_secs(15);
/// How many subscriptions of a session are remembered.
const MOST_SUBSCRIPTIONS: usize = 256;
/// How long the URI of a subscription may be.
const LONGEST_URI: usize = 2_048;

/// Something that a client has set for as long as its session lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionSetting {
    /// The log level.
    Level(String),
    /// The URI of a resource that the client has subscribed to.
    Subscribed(String),
    /// The URI of a resource that the client has unsubscribed from.
    Unsubscribed(String),
}

impl SessionSetting {
    /// The setting that a message makes, if it makes one.
    pub fn of(posted: &Posted, body: &[u8]) -> Option<Self> {
        let (make, member): (fn(String) -> Self, _) = match posted.method.as_deref()? {
            "logging/setLevel" => (Self::Level, "level"),
            "resources/subscribe" => (Self::Subscribed, "uri"),
            "resources/unsubscribe" => (Self::Unsubscribed, "uri"),
            _ => return None,
        };
        let message: Value = serde_json::from_slice(body).ok()?;
        let text = message["params"][member].as_str().filter(|text| text.len() <= LONGEST_URI)?;
        Some(make(text.to_owned()))
    }

    /// Notes the setting in the upstream state.
    fn note(self, state: &mut UpstreamState) {
        match self {
            Self::Level(level) => state.level = Some(level),
            Self::Subscribed(uri) if state.subscriptions.len() < MOST_SUBSCRIPTIONS => {
                state.subscriptions.insert(uri);
            }
            Self::Subscribed(_) => {}
            Self::Unsubscribed(uri) => {
                state.subscriptions.remove(&uri);
            }
        }
    }
}

impl Gateway {
    /// Keeps a setting in the upstream state, so that it can be repeated.
    pub(super) async fn remember_setting(
        &self,
        session: &Session,
        upstream_session: &UpstreamSession,
        setting: SessionSetting,
    ) {
        let _alone = upstream_session.reopening.lock().await;
        let (_hold, before) = self.alone_with(session, upstream_session).await;
        let mut state = UpstreamState::clone(&before);
        setting.note(&mut state);
        if (&state.level, &state.subscriptions) == (&before.level, &before.subscriptions) {
            return;
        }
        if let Err(error) = self.sessions.gateway.update_state(session, &to_json(&state)).await {
            tracing::warn!(?error, session = %session.id, "a subscription would not outlive the upstream's session");
        }
        upstream_session.replace(state);
    }

    /// Opens the session anew at the upstream, unless another request has done so meanwhile. The work comes to its end
    /// even when nobody waits for it any more: otherwise nobody would know of the session that was opened.
    pub(super) async fn reopen(
        self: &Arc<Self>,
        session: &Session,
        upstream_session: &Arc<UpstreamSession>,
        lost: &Arc<UpstreamState>,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<Arc<UpstreamState>, RpcError> {
        let (gateway, session, upstream_session, lost) =
            (self.clone(), session.clone(), upstream_session.clone(), lost.clone());
        let (url, headers) = (url.to_owned(), headers.clone());
        let reopening = async move {
            let _alone = upstream_session.reopening.lock().await;
            let (_hold, now) = gateway.alone_with(&session, &upstream_session).await;
            if (now.reopened, &now.url) != (lost.reopened, &lost.url) {
                return Ok(now);
            }
            gateway.reopened_at_upstream(&session, &upstream_session, &now, &url, headers).await
        };
        tokio::spawn(reopening.in_current_span()).await.unwrap_or_else(|_| Err(RpcError::upstream_lost()))
    }

    /// Opens the session at the upstream and replaces its state. The caller holds the lock for that.
    async fn reopened_at_upstream(
        self: &Arc<Self>,
        session: &Session,
        upstream_session: &UpstreamSession,
        lost: &UpstreamState,
        url: &str,
        mut headers: HeaderMap,
    ) -> Result<Arc<UpstreamState>, RpcError> {
        let application = session.application;
        headers.remove(&LAST_EVENT_ID);
        headers.remove(&PROTOCOL_VERSION);
        let body = Bytes::from(lost.initialize.get().to_owned());
        let initialize =
            OutgoingRequest { application, method: Method::POST, headers: headers.clone(), body };
        let initialize_answer = self.send_initialize(url, initialize).await?;
        let state = UpstreamState {
            url: url.to_owned(),
            session: initialize_answer.session,
            reopened: lost.reopened + 1,
            ..lost.clone()
        };
        let refuse_reopening = |state: &UpstreamState| {
            self.goodbyes.session_abandoned(AbandonedSession::of(application, state));
            RpcError::upstream_refused("lost the session and does not open it again")
        };
        // The client goes on in the revision that it knows, so the upstream must agree to the same.
        if initialize_answer.protocol_version.as_ref() != Some(&lost.protocol_version) {
            return Err(refuse_reopening(&state));
        }
        if let Ok(version) = HeaderValue::try_from(&lost.protocol_version) {
            headers.insert(PROTOCOL_VERSION.clone(), version);
        }
        let body = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let outgoing = OutgoingRequest { application, method: Method::POST, headers: headers.clone(), body };
        match self.send(url, state.session.as_deref(), outgoing).await {
            Ok(answer) if answer.head.status.is_success() => {}
            _ => return Err(refuse_reopening(&state)),
        }
        tracing::info!(session = %session.id, "the upstream had lost the session; opened it there again");
        self.replay_settings(session, &state, &headers).await;
        let is_open = || self.sessions.queries.open_session(session.number).is_some();
        if is_open()
            && let Err(error) = self.sessions.gateway.update_state(session, &to_json(&state)).await
        {
            // After a restart the session will have to be reopened once more, and nothing worse.
            tracing::warn!(?error, session = %session.id, "the upstream's new session could not be kept");
        }
        if !is_open() {
            return Err(refuse_reopening(&state));
        }
        let session_digest = state.session_digest();
        upstream_session.replace(state);
        if lost.url != url {
            self.goodbyes.session_abandoned(AbandonedSession::of(application, lost));
        }
        // Nothing comes any more on the standalone stream of the lost session, so its client is to open another.
        if let Some(standalone) =
            self.streams.standalone(session.number).filter(|stream| !stream.is_of_session(&session_digest))
        {
            standalone.end(End::Paused);
        }
        Ok(upstream_session.state())
    }

    /// Repeats the settings to the upstream's new session. A setting that the upstream refuses now it may have refused
    /// before.
    async fn replay_settings(&self, session: &Session, state: &UpstreamState, headers: &HeaderMap) {
        let level = state.level.iter().map(|level| ("logging/setLevel", json!({ "level": level })));
        let subscriptions =
            state.subscriptions.iter().map(|uri| ("resources/subscribe", json!({ "uri": uri })));
        let all = level.chain(subscriptions).enumerate();
        let replaying = async {
            for (number, (method, params)) in all {
                let id = format!("sessiond-again-{number}");
                let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
                let body = Bytes::from(body.to_string());
                let (application, headers) = (session.application, headers.clone());
                let outgoing = OutgoingRequest { application, method: Method::POST, headers, body };
                let sending = async {
                    let answer = self.send(&state.url, state.session.as_deref(), outgoing).await?;
                    let IncomingResponse { body, .. } = answer;
                    read_whole(body, LARGEST_REFUSAL, EACH).await
                };
                if !matches!(tokio::time::timeout(EACH, sending).await, Ok(Ok(_))) {
                    tracing::warn!(session = %session.id, method, "the upstream did not take again what the client had said");
                }
            }
        };
        tokio::time::timeout(ALL, replaying).await.ok();
    }
}
