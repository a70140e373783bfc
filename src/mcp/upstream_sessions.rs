//! What must be known to speak to the server behind a session: sealed in the store, and in memory while the session is
//! open.

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

use crate::error::Error;
use crate::sessions::Sessions;

/// The far side of a session. Never shown: it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct UpstreamState {
    /// Where the upstream session lives; another upstream must not see its id.
    pub url: String,
    /// The upstream's own session id; none where the upstream has no sessions.
    pub session: Option<String>,
    /// The client's `initialize`, to say again when the upstream has forgotten it.
    pub initialize: Box<RawValue>,
    /// The revision that was agreed on.
    pub protocol_version: String,
    /// The OAuth client that opened it, where its issuer says so: another client of the same person is somebody else.
    #[serde(default)]
    pub client: Option<String>,
    /// Whether its client speaks HTTP+SSE.
    #[serde(rename = "wire", default)]
    pub is_sse: bool,
    /// The log level that its client has asked for, and what it has subscribed to: said again to a new upstream session.
    #[serde(default)]
    pub level: Option<String>,
    #[serde(default)]
    pub subscriptions: BTreeSet<String>,
    /// How often it was opened anew at the upstream since it is held.
    #[serde(skip)]
    pub reopened: u64,
}

impl UpstreamState {
    fn size(&self) -> usize {
        self.initialize.get().len() + self.subscriptions.iter().map(String::len).sum::<usize>()
    }

    /// Names the upstream's session among those that this one of ours may come to have: what an event id is good for.
    pub fn session_digest(&self) -> String {
        let session = self.session.as_deref().unwrap_or_default();
        let digest = Sha256::new().chain_update(&self.url).chain_update([0]).chain_update(session).finalize();
        hex::encode(&digest[..4])
    }
}

/// The far side of one open session, shared by its requests.
pub struct UpstreamSession {
    state: RwLock<Arc<UpstreamState>>,
    /// Held while the upstream is being greeted anew, so that it happens once however many requests find it lost.
    pub reopening: tokio::sync::Mutex<()>,
    /// Held for writing while the standing stream is on its way to the upstream.
    opening: Arc<tokio::sync::RwLock<()>>,
    /// Until when calls wait for it.
    wait_until: Mutex<Option<Instant>>,
    /// Another was put in the place of what is held.
    changed: Notify,
}

/// The standing stream is on its way, as long as this is held.
pub type StandalonePending = tokio::sync::OwnedRwLockWriteGuard<()>;

/// How long a standing stream may be on its way before calls wait for it no more, and its client gets its head.
pub const STANDALONE_WAIT: Duration = Duration::from_millis(250);

impl UpstreamSession {
    fn new(state: UpstreamState) -> Arc<Self> {
        let (reopening, opening, wait_until, changed) = Default::default();
        Arc::new(Self { state: RwLock::new(Arc::new(state)), reopening, opening, wait_until, changed })
    }

    /// As it is now.
    pub fn state(&self) -> Arc<UpstreamState> {
        self.state.read().clone()
    }

    /// Puts another in its place, for all that hold it.
    pub fn replace(&self, state: UpstreamState) {
        *self.state.write() = Arc::new(state);
        self.changed.notify_waiters();
    }

    /// Resolves once the upstream's session is not this one any more.
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

    /// Says that the standing stream is on its way.
    pub fn announce_standalone(&self) -> Option<StandalonePending> {
        let opening = self.opening.clone().try_write_owned().ok()?;
        *self.wait_until.lock() = Some(Instant::now() + STANDALONE_WAIT);
        Some(opening)
    }

    /// Lets a standing stream that is on its way arrive first: servers ask their questions on it, and what a call makes
    /// them ask before it is there is lost. All calls wait for the same moment: one that never arrives costs that once.
    pub async fn wait_for_standalone(&self) {
        let Some(until) = *self.wait_until.lock() else { return };
        if Instant::now() < until && self.opening.try_read().is_err() {
            tokio::time::timeout_at(until, self.opening.read()).await.ok();
        }
    }
}

/// The far sides of sessions that passed here of late.
#[derive(Default)]
pub struct UpstreamSessions {
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    by_session: HashMap<SessionNumber, Arc<UpstreamSession>>,
    /// What is held of `initialize` messages.
    bytes: usize,
}

/// UpstreamSessions sides beyond this many, or this much, are forgotten as soon as nothing of theirs is under way: the store has them.
const MOST_SESSIONS: usize = 1_024;
const MOST_BYTES: usize = 32 << 20;

impl UpstreamSessions {
    /// The far side of an open session, from memory or the store.
    pub async fn of(&self, sessions: &Sessions, session: &Session) -> Result<Arc<UpstreamSession>, Error> {
        if let Some(held) = self.cached.lock().by_session.get(&session.number) {
            return Ok(held.clone());
        }
        let state = sessions.kept_mcp(session).await?.ok_or(Error::NotFound("Session"))?;
        let state = serde_json::from_slice(&state).map_err(|error| {
            Error::Internal(format!("what was kept of an MCP session does not parse: {error}"))
        })?;
        Ok(self.cached.lock().hold(session.number, state))
    }

    /// Takes a new far side in, in place of any other.
    pub fn insert(&self, number: SessionNumber, state: UpstreamState) {
        let mut cached = self.cached.lock();
        cached.by_session.remove(&number);
        cached.hold(number, state);
    }

    /// Forgets that of a session that has ended.
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

/// As it is stored.
pub fn to_json(state: &UpstreamState) -> Vec<u8> {
    // Plain data with string keys: serializing it cannot fail.
    serde_json::to_vec(state).unwrap_or_default()
}
