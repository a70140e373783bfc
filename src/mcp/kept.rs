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
pub struct Kept {
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
    #[serde(default)]
    pub wire: bool,
    /// The log level that its client has asked for, and what it has subscribed to: said again to a new upstream session.
    #[serde(default)]
    pub level: Option<String>,
    #[serde(default)]
    pub subscriptions: BTreeSet<String>,
    /// How often it was opened anew at the upstream since it is held.
    #[serde(skip)]
    pub healed: u64,
}

impl Kept {
    fn size(&self) -> usize {
        self.initialize.get().len() + self.subscriptions.iter().map(String::len).sum::<usize>()
    }

    /// Names the upstream's session among those that this one of ours may come to have: what an event id is good for.
    pub fn home(&self) -> String {
        let session = self.session.as_deref().unwrap_or_default();
        let digest = Sha256::new().chain_update(&self.url).chain_update([0]).chain_update(session).finalize();
        hex::encode(&digest[..4])
    }
}

/// The far side of one open session, shared by its requests.
pub struct Held {
    now: RwLock<Arc<Kept>>,
    /// Held while the upstream is being greeted anew, so that it happens once however many requests find it lost.
    pub healing: tokio::sync::Mutex<()>,
    /// Held for writing while the standing stream is on its way to the upstream.
    opening: Arc<tokio::sync::RwLock<()>>,
    /// Until when calls wait for it.
    waited_for: Mutex<Option<Instant>>,
    /// Another was put in the place of what is held.
    changed: Notify,
}

/// The standing stream is on its way, as long as this is held.
pub type Opening = tokio::sync::OwnedRwLockWriteGuard<()>;

/// How long a standing stream may be on its way before calls wait for it no more, and its client gets its head.
pub const OVERTAKEN: Duration = Duration::from_millis(250);

impl Held {
    fn new(kept: Kept) -> Arc<Self> {
        let (healing, opening, waited_for, changed) = Default::default();
        Arc::new(Self { now: RwLock::new(Arc::new(kept)), healing, opening, waited_for, changed })
    }

    /// As it is now.
    pub fn now(&self) -> Arc<Kept> {
        self.now.read().clone()
    }

    /// Puts another in its place, for all that hold it.
    pub fn set(&self, kept: Kept) {
        *self.now.write() = Arc::new(kept);
        self.changed.notify_waiters();
    }

    /// Resolves once the upstream's session is not this one any more.
    pub async fn left(&self, home: &str) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.now().home() != home {
                return;
            }
            changed.await;
        }
    }

    /// Says that the standing stream is on its way.
    pub fn opening(&self) -> Option<Opening> {
        let opening = self.opening.clone().try_write_owned().ok()?;
        *self.waited_for.lock() = Some(Instant::now() + OVERTAKEN);
        Some(opening)
    }

    /// Lets a standing stream that is on its way arrive first: servers ask their questions on it, and what a call makes
    /// them ask before it is there is lost. All calls wait for the same moment: one that never arrives costs that once.
    pub async fn opened(&self) {
        let Some(until) = *self.waited_for.lock() else { return };
        if Instant::now() < until && self.opening.try_read().is_err() {
            tokio::time::timeout_at(until, self.opening.read()).await.ok();
        }
    }
}

/// The far sides of sessions that passed here of late.
#[derive(Default)]
pub struct Far {
    held: Mutex<Holding>,
}

#[derive(Default)]
struct Holding {
    by_session: HashMap<SessionNumber, Arc<Held>>,
    /// What is held of `initialize` messages.
    bytes: usize,
}

/// Far sides beyond this many, or this much, are forgotten as soon as nothing of theirs is under way: the store has them.
const MOST: usize = 1_024;
const MOST_BYTES: usize = 32 << 20;

impl Far {
    /// The far side of an open session, from memory or the store.
    pub async fn of(&self, sessions: &Sessions, session: &Session) -> Result<Arc<Held>, Error> {
        if let Some(held) = self.held.lock().by_session.get(&session.number) {
            return Ok(held.clone());
        }
        let kept = sessions.kept_mcp(session).await?.ok_or(Error::NotFound("Session"))?;
        let kept = serde_json::from_slice(&kept).map_err(|error| {
            Error::Internal(format!("what was kept of an MCP session does not parse: {error}"))
        })?;
        Ok(self.held.lock().hold(session.number, kept))
    }

    /// Takes a new far side in, in place of any other.
    pub fn insert(&self, number: SessionNumber, kept: Kept) {
        let mut held = self.held.lock();
        held.by_session.remove(&number);
        held.hold(number, kept);
    }

    /// Forgets that of a session that has ended.
    pub fn remove(&self, number: SessionNumber) {
        self.held.lock().by_session.remove(&number);
    }
}

impl Holding {
    fn hold(&mut self, number: SessionNumber, kept: Kept) -> Arc<Held> {
        if self.by_session.len() >= MOST || self.bytes >= MOST_BYTES {
            self.by_session.retain(|_, held| Arc::strong_count(held) > 1);
            self.bytes = self.by_session.values().map(|held| held.now().size()).sum();
        }
        self.bytes += kept.size();
        self.by_session.entry(number).or_insert_with(|| Held::new(kept)).clone()
    }
}

/// As it is stored.
pub fn sealed(kept: &Kept) -> Vec<u8> {
    // Plain data with string keys: serializing it cannot fail.
    serde_json::to_vec(kept).unwrap_or_default()
}
