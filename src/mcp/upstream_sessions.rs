//! What the gateway must know to speak to the upstream for a session: encrypted in the store, and in memory while the
//! session is open.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sessiond_core::ids::SessionNumber;
use sessiond_core::session::Session;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{Error, Thing};
use crate::sessions::GatewaySessions;

/// The state of a session at its upstream. It is secret, and so has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct UpstreamState {
    /// The URL at which the session was opened; another upstream must not see the session's id.
    pub url: String,
    /// The upstream's own session id; none where the upstream has no sessions.
    pub session: Option<String>,
    /// The client's `initialize`, which is sent again when the upstream has lost the session.
    pub initialize: Box<RawValue>,
    /// The revision that was agreed on.
    pub protocol_version: String,
    /// The OAuth client that opened the session, where its issuer names it: another client of the same person is
    /// somebody else.
    #[serde(default)]
    pub client: Option<String>,
    /// Whether the session's client speaks HTTP+SSE. The stored form still has this field's former name.
    #[serde(rename = "wire", default)]
    pub is_sse: bool,
    /// The node that the connection of such a client is at, where there may be several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sse_node: Option<i64>,
    /// The log level that the client has set, which is repeated to a new session at the upstream.
    #[serde(default)]
    pub level: Option<String>,
    /// The URIs of the resources that the client has subscribed to, which are repeated likewise.
    #[serde(default)]
    pub subscriptions: BTreeSet<String>,
    /// How often the session was reopened at the upstream since its state is in memory.
    #[serde(skip)]
    pub reopened: u64,
}

impl UpstreamState {
    fn size(&self) -> usize {
        self.initialize.get().len() + self.subscriptions.iter().map(String::len).sum::<usize>()
    }

    /// Names this session at the upstream among those that a session of ours comes to have: an event id is good only
    /// for the session that gave it.
    pub fn session_digest(&self) -> String {
        let session = self.session.as_deref().unwrap_or_default();
        let digest = Sha256::new().chain_update(&self.url).chain_update([0]).chain_update(session).finalize();
        hex::encode(&digest[..4])
    }
}

/// The upstream's side of one open session, shared by the session's requests.
pub struct UpstreamSession {
    state: RwLock<Arc<UpstreamState>>,
    /// Held while the session is reopened, so that this happens once, however many requests find it lost.
    pub reopening: tokio::sync::Mutex<()>,
    /// Held for writing while the request for the standalone stream is on its way.
    opening: Arc<tokio::sync::RwLock<()>>,
    /// Until when calls wait for the standalone stream.
    wait_until: Mutex<Option<Instant>>,
    /// Wakes those who wait for another state.
    changed: Notify,
}

/// Guards the time in which the request for the standalone stream is on its way.
pub type StandalonePending = tokio::sync::OwnedRwLockWriteGuard<()>;

/// How long the request for a standalone stream may be on its way before calls no longer wait for it, and before its
/// client gets a head of ours.
pub const STANDALONE_WAIT: Duration = Duration::from_millis(250);

impl UpstreamSession {
    fn new(state: UpstreamState) -> Arc<Self> {
        let (reopening, opening, wait_until, changed) = Default::default();
        Arc::new(Self { state: RwLock::new(Arc::new(state)), reopening, opening, wait_until, changed })
    }

    /// The state as it is now.
    pub fn state(&self) -> Arc<UpstreamState> {
        self.state.read().clone()
    }

    /// Replaces the state, for all who share it.
    pub fn replace(&self, state: UpstreamState) {
        *self.state.write() = Arc::new(state);
        self.changed.notify_waiters();
    }

    /// Takes over what another node has made of the state, if that is another.
    pub fn take_over(&self, kept: &[u8]) {
        let own = self.state();
        let Ok(kept) = serde_json::from_slice::<UpstreamState>(kept) else { return };
        if to_json(&kept) != to_json(&own) {
            let anew = (&kept.session, &kept.url) != (&own.session, &own.url);
            self.replace(UpstreamState { reopened: own.reopened + u64::from(anew), ..kept });
        }
    }

    /// Resolves once the session at the upstream is another than this one.
    pub async fn changed_from(&self, session_digest: &str) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.state().session_digest() != session_digest {
                return;
            }
            changed.await;
        }
    }

    /// Notes that the request for the standalone stream is on its way, unless another such request is.
    pub fn announce_standalone(&self) -> Option<StandalonePending> {
        let opening = self.opening.clone().try_write_owned().ok()?;
        *self.wait_until.lock() = Some(Instant::now() + STANDALONE_WAIT);
        Some(opening)
    }

    /// Lets the request for a standalone stream arrive first: servers ask their questions on that stream, and a
    /// question that a call makes them ask earlier is lost. All calls wait until the same moment, so that a stream
    /// which never comes costs that wait only once.
    pub async fn wait_for_standalone(&self) {
        let Some(until) = *self.wait_until.lock() else { return };
        if Instant::now() < until && self.opening.try_read().is_err() {
            tokio::time::timeout_at(until, self.opening.read()).await.ok();
        }
    }
}

/// The upstream's side of the sessions that were used lately.
#[derive(Default)]
pub struct UpstreamSessions {
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    by_session: HashMap<SessionNumber, Arc<UpstreamSession>>,
    /// How many bytes the states hold.
    bytes: usize,
}

/// Beyond this many states, those of sessions with no request under way are forgotten: the store has them.
const MOST_SESSIONS: usize = 1_024;
/// Beyond this many bytes, they are forgotten too.
const MOST_BYTES: usize = 32 << 20;

impl UpstreamSessions {
    /// The upstream's side of an open session, from memory or the store.
    pub async fn of(
        &self,
        sessions: &GatewaySessions,
        session: &Session,
    ) -> Result<Arc<UpstreamSession>, Error> {
        if let Some(held) = self.cached.lock().by_session.get(&session.number) {
            return Ok(held.clone());
        }
        let state = sessions.state(session).await?.ok_or(Error::NotFound(Thing::Session))?;
        let state = serde_json::from_slice(&state).map_err(|error| {
            Error::Internal(format!("what was kept of an MCP session does not parse: {error}"))
        })?;
        Ok(self.cached.lock().hold(session.number, state))
    }

    /// Adds a new state, in place of any other.
    pub fn insert(&self, number: SessionNumber, state: UpstreamState) {
        let mut cached = self.cached.lock();
        cached.by_session.remove(&number);
        cached.hold(number, state);
    }

    /// Forgets the state of a session that has ended.
    pub fn remove(&self, number: SessionNumber) {
        self.cached.lock().by_session.remove(&number);
    }
}

impl Cached {
    fn hold(&mut self, number: SessionNumber, state: UpstreamState) -> Arc<UpstreamSession> {
        if self.by_session.len() >= MOST_SESSIONS || self.bytes >= MOST_BYTES {
            self.by_session.retain(|_, held| Arc::strong_count(held) > 1);
            self.bytes = self.by_session.values().map(|held| held.state().size()).sum();
        }
        self.bytes += state.size();
        self.by_session.entry(number).or_insert_with(|| UpstreamSession::new(state)).clone()
    }
}

/// The state as it is stored, before it is encrypted.
pub fn to_json(state: &UpstreamState) -> Vec<u8> {
    // Plain data with string keys: serializing it cannot fail.
    serde_json::to_vec(state).unwrap_or_default()
}
