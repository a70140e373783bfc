//! What must be known to speak to the server behind a session: sealed in the store, and in memory while the session is
//! open.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::core::ids::SessionNumber;
use crate::core::session::Session;
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
}

/// The far side of one open session, shared by its requests.
pub struct Held {
    now: RwLock<Arc<Kept>>,
    /// Held while the upstream is being greeted anew, so that it happens once however many requests find it lost.
    pub healing: tokio::sync::Mutex<()>,
}

impl Held {
    fn new(kept: Kept) -> Arc<Self> {
        Arc::new(Self { now: RwLock::new(Arc::new(kept)), healing: tokio::sync::Mutex::default() })
    }

    pub fn now(&self) -> Arc<Kept> {
        self.now.read().clone()
    }

    pub fn set(&self, kept: Kept) {
        *self.now.write() = Arc::new(kept);
    }
}

/// The far sides of sessions that passed here.
#[derive(Default)]
pub struct Far {
    held: Mutex<HashMap<SessionNumber, Arc<Held>>>,
}

/// Below this many nobody looks for what has ended.
const FEW: usize = 1_024;

impl Far {
    /// The far side of an open session, from memory or the store.
    pub async fn of(&self, sessions: &Sessions, session: &Session) -> Result<Arc<Held>, Error> {
        if let Some(held) = self.held.lock().get(&session.number) {
            return Ok(held.clone());
        }
        let kept = sessions.kept_mcp(session).await?.ok_or(Error::NotFound("Session"))?;
        let kept = serde_json::from_slice(&kept).map_err(|error| {
            Error::Internal(format!("what was kept of an MCP session does not parse: {error}"))
        })?;
        Ok(self.hold(sessions, session.number, || Held::new(kept)))
    }

    /// Takes a new far side in, in place of any other.
    pub fn insert(&self, sessions: &Sessions, number: SessionNumber, kept: Kept) {
        self.remove(number);
        self.hold(sessions, number, || Held::new(kept));
    }

    pub fn remove(&self, number: SessionNumber) -> Option<Arc<Held>> {
        self.held.lock().remove(&number)
    }

    fn hold(
        &self,
        sessions: &Sessions,
        number: SessionNumber,
        make: impl FnOnce() -> Arc<Held>,
    ) -> Arc<Held> {
        let mut held = self.held.lock();
        // Forgets what has ended whenever the map is about to grow: so it is never much larger than what is open.
        if held.len() >= FEW && held.len() == held.capacity() {
            held.retain(|number, _| sessions.open_session(*number).is_some());
        }
        held.entry(number).or_insert_with(make).clone()
    }
}

/// As it is stored.
pub fn sealed(kept: &Kept) -> Vec<u8> {
    // Plain data with string keys: serializing it cannot fail.
    serde_json::to_vec(kept).unwrap_or_default()
}
