//! A session that its upstream has lost is opened there anew, with the client's own words: its `initialize`, and what it has
//! asked for since that lasts (its log level, its subscriptions).

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use serde_json::{Value, json};
use sessiond_core::session::Session;
use tracing::Instrument;

use super::Gateway;
use super::forward::{Incoming, LARGEST_REFUSAL, Outgoing, collect};
use super::goodbye::Left;
use super::kept::{Held, Kept, sealed};
use super::line::End;
use super::message::Posted;
use super::reply::Fault;
use super::upstream::{LAST_EVENT_ID, PROTOCOL_VERSION};

/// How long an upstream may take over what it is told again, each, and all of it together.
const EACH: Duration = Duration::from_secs(5);
const ALL: Duration = Duration::from_secs(15);
/// Subscriptions that are remembered of a session, and how long the name of each may be.
const MOST_SUBSCRIPTIONS: usize = 256;
const LONGEST_URI: usize = 2_048;

/// What a client has said that lasts as long as its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lasting {
    Level(String),
    Subscribed(String),
    Unsubscribed(String),
}

impl Lasting {
    /// Of a message, if it is such.
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

    fn note(self, kept: &mut Kept) {
        match self {
            Self::Level(level) => kept.level = Some(level),
            Self::Subscribed(uri) if kept.subscriptions.len() < MOST_SUBSCRIPTIONS => {
                kept.subscriptions.insert(uri);
            }
            Self::Subscribed(_) => {}
            Self::Unsubscribed(uri) => {
                kept.subscriptions.remove(&uri);
            }
        }
    }
}

impl Gateway {
    /// Keeps what a client has said that lasts, so that it can be said again.
    pub(super) async fn remember(&self, session: &Session, held: &Held, lasting: Lasting) {
        let _alone = held.healing.lock().await;
        let before = held.now();
        let mut kept = Kept::clone(&before);
        lasting.note(&mut kept);
        if (&kept.level, &kept.subscriptions) == (&before.level, &before.subscriptions) {
            return;
        }
        if let Err(error) = self.sessions.update_mcp(session, &sealed(&kept)).await {
            tracing::warn!(?error, session = %session.id, "a subscription would not outlive the upstream's session");
        }
        held.set(kept);
    }

    /// Opens the session anew at the upstream, unless another request has done so since. It comes to its end also when nobody
    /// waits for it any more: otherwise nobody would know of what was opened.
    pub(super) async fn heal(
        self: &Arc<Self>,
        session: &Session,
        held: &Arc<Held>,
        lost: &Arc<Kept>,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<Arc<Kept>, Fault> {
        let (gateway, session, held, lost) = (self.clone(), session.clone(), held.clone(), lost.clone());
        let (url, headers) = (url.to_owned(), headers.clone());
        let healing = async move {
            let _alone = held.healing.lock().await;
            let now = held.now();
            if (now.healed, &now.url) != (lost.healed, &lost.url) {
                return Ok(now);
            }
            gateway.opened_anew(&session, &held, &now, &url, headers).await
        };
        tokio::spawn(healing.in_current_span()).await.unwrap_or_else(|_| Err(Fault::upstream_lost()))
    }

    async fn opened_anew(
        self: &Arc<Self>,
        session: &Session,
        held: &Held,
        lost: &Kept,
        url: &str,
        mut headers: HeaderMap,
    ) -> Result<Arc<Kept>, Fault> {
        let application = session.application;
        headers.remove(&LAST_EVENT_ID);
        headers.remove(&PROTOCOL_VERSION);
        let body = Bytes::from(lost.initialize.get().to_owned());
        let initialize = Outgoing { application, method: Method::POST, headers: headers.clone(), body };
        let greeting = self.greet(url, initialize).await?;
        let kept =
            Kept { url: url.to_owned(), session: greeting.session, healed: lost.healed + 1, ..lost.clone() };
        let not_again = |kept: &Kept| {
            self.goodbyes.left(Left::of(application, kept));
            Fault::upstream_refused("lost the session and does not open it again")
        };
        // The client goes on in the revision it knows.
        if greeting.protocol_version.as_ref() != Some(&lost.protocol_version) {
            return Err(not_again(&kept));
        }
        if let Ok(version) = HeaderValue::try_from(&lost.protocol_version) {
            headers.insert(PROTOCOL_VERSION.clone(), version);
        }
        let body = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let outgoing = Outgoing { application, method: Method::POST, headers: headers.clone(), body };
        match self.send(url, kept.session.as_deref(), outgoing).await {
            Ok(answer) if answer.head.status.is_success() => {}
            _ => return Err(not_again(&kept)),
        }
        tracing::info!(session = %session.id, "the upstream had lost the session; opened it there again");
        self.say_again(session, &kept, &headers).await;
        let is_open = || self.sessions.open_session(session.number).is_some();
        if is_open()
            && let Err(error) = self.sessions.update_mcp(session, &sealed(&kept)).await
        {
            // It will have to be healed again after a restart, no more.
            tracing::warn!(?error, session = %session.id, "the upstream's new session could not be kept");
        }
        if !is_open() {
            return Err(not_again(&kept));
        }
        let home = kept.home();
        held.set(kept);
        if lost.url != url {
            self.goodbyes.left(Left::of(application, lost));
        }
        // Nothing comes on the stream of a session that is lost: its client is to open another.
        if let Some(standing) = self.lines.standing(session.number).filter(|line| !line.is_at(&home)) {
            standing.end(End::Paused);
        }
        Ok(held.now())
    }

    /// Says what lasts to an upstream's new session. What it refuses now it may have refused before.
    async fn say_again(&self, session: &Session, kept: &Kept, headers: &HeaderMap) {
        let level = kept.level.iter().map(|level| ("logging/setLevel", json!({ "level": level })));
        let subscriptions =
            kept.subscriptions.iter().map(|uri| ("resources/subscribe", json!({ "uri": uri })));
        let all = level.chain(subscriptions).enumerate();
        let saying = async {
            for (number, (method, params)) in all {
                let id = format!("sessiond-again-{number}");
                let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
                let body = Bytes::from(body.to_string());
                let (application, headers) = (session.application, headers.clone());
                let outgoing = Outgoing { application, method: Method::POST, headers, body };
                let said = async {
                    let answer = self.send(&kept.url, kept.session.as_deref(), outgoing).await?;
                    let Incoming { body, .. } = answer;
                    collect(body, LARGEST_REFUSAL, EACH).await
                };
                if !matches!(tokio::time::timeout(EACH, said).await, Ok(Ok(_))) {
                    tracing::warn!(session = %session.id, method, "the upstream did not take again what the client had said");
                }
            }
        };
        tokio::time::timeout(ALL, saying).await.ok();
    }
}
