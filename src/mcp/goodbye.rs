//! What upstreams are told when something of ours is over: that nobody waits for a call any more, and that nobody will use a
//! session again. Toward an upstream the gateway is the client, and whoever is cut off here would otherwise be cut off from
//! us alone: the tool would run to its end, and the session stay there for ever.
//!
//! It follows from events. A session that ends, in whichever way, is named by the Gate; what has to be told about it is in the
//! store, so that a crash loses nothing: [`Kept`] stays sealed there until the upstream knows. Only calls in flight, whose
//! upstream loses the connection with us, are in memory alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::kept::{Held, Kept};
use crate::gate::Departed;

/// How long the end of a session waits for its calls to let go, so that they are cancelled first.
const LETTING_GO: Duration = Duration::from_secs(1);

/// What upstreams are still to be told.
pub struct Goodbyes {
    inbox: mpsc::UnboundedSender<Word>,
    /// Of calls, by their sessions, until they are said.
    cancels: Mutex<HashMap<SessionNumber, Vec<Cancel>>>,
    pub(super) outbox: tokio::sync::Mutex<Outbox>,
    /// How many requests of a session may still be under way at its upstream.
    asked: Mutex<HashMap<SessionNumber, usize>>,
    let_go: Notify,
}

/// What comes in.
pub(super) struct Outbox {
    pub words: mpsc::UnboundedReceiver<Word>,
    pub departures: mpsc::UnboundedReceiver<Departed>,
}

/// One thing to tell.
pub(super) enum Word {
    /// There is something about calls of a session.
    Cancel(SessionNumber, ApplicationNumber),
    Departed(Departed),
    Left(Left),
}

/// Nobody waits for the answers to these calls any more.
pub(super) struct Cancel {
    pub id: Uuid,
    pub application: ApplicationNumber,
    pub far: Arc<Held>,
    pub calls: Vec<Value>,
    pub reason: String,
}

/// A session at an upstream that none of ours uses any more.
#[derive(Debug, Clone)]
pub struct Left {
    pub application: ApplicationNumber,
    pub url: String,
    pub session: String,
    pub protocol_version: Option<String>,
}

impl Left {
    /// That of a far side, if its upstream has sessions.
    pub fn of(application: ApplicationNumber, kept: &Kept) -> Option<Self> {
        let protocol_version = Some(kept.protocol_version.clone());
        let session = kept.session.clone()?;
        Some(Self { application, url: kept.url.clone(), session, protocol_version })
    }
}

/// A request of a session that its upstream may be working on, as long as this is held.
pub struct Asked {
    goodbyes: Arc<Goodbyes>,
    session: SessionNumber,
    id: Uuid,
    application: ApplicationNumber,
    far: Arc<Held>,
}

impl Asked {
    /// Tells the upstream that nobody waits for these calls any more (MCP 2025-11-25, basic/utilities/cancellation).
    pub fn cancel(&self, calls: &[Value], reason: &str) {
        let Self { session, id, application, ref far, .. } = *self;
        if calls.is_empty() {
            return;
        }
        let (calls, reason) = (calls.to_vec(), reason.to_owned());
        let cancel = Cancel { id, application, far: far.clone(), calls, reason };
        // At once, and not with the word: the end of the session may be on its way already, and comes after it.
        self.goodbyes.cancels.lock().entry(session).or_default().push(cancel);
        self.goodbyes.inbox.send(Word::Cancel(session, application)).ok();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Entry::Occupied(mut asked) = self.goodbyes.asked.lock().entry(self.session) {
            *asked.get_mut() -= 1;
            if *asked.get() == 0 {
                asked.remove();
            }
        }
        self.goodbyes.let_go.notify_waiters();
    }
}

impl Goodbyes {
    pub fn new(departures: mpsc::UnboundedReceiver<Departed>) -> Arc<Self> {
        let (inbox, words) = mpsc::unbounded_channel();
        let outbox = tokio::sync::Mutex::new(Outbox { words, departures });
        let (cancels, asked, let_go) = Default::default();
        Arc::new(Self { inbox, cancels, outbox, asked, let_go })
    }

    /// Notes that a request of a session goes to its upstream.
    pub fn asks(
        self: &Arc<Self>,
        (session, id): (SessionNumber, Uuid),
        application: ApplicationNumber,
        far: &Arc<Held>,
    ) -> Asked {
        *self.asked.lock().entry(session).or_default() += 1;
        Asked { goodbyes: self.clone(), session, id, application, far: far.clone() }
    }

    /// A session ended before the Gate could know that it is one of the gateway's.
    pub fn departed(&self, departed: Departed) {
        self.inbox.send(Word::Departed(departed)).ok();
    }

    /// A session at an upstream was left for another, or never came to be one of ours.
    pub fn left(&self, left: Option<Left>) {
        if let Some(left) = left {
            self.inbox.send(Word::Left(left)).ok();
        }
    }

    /// What is to be said about calls of a session.
    pub(super) fn take_cancels(&self, session: SessionNumber) -> Vec<Cancel> {
        self.cancels.lock().remove(&session).unwrap_or_default()
    }

    /// Whether there is any.
    pub(super) fn cancels(&self, session: SessionNumber) -> bool {
        self.cancels.lock().contains_key(&session)
    }

    /// Waits until nothing of a session is under way any more, but not for long.
    pub(super) async fn quiet(&self, session: SessionNumber) {
        let quiet = async {
            loop {
                let let_go = self.let_go.notified();
                tokio::pin!(let_go);
                let_go.as_mut().enable();
                if !self.asked.lock().contains_key(&session) {
                    return;
                }
                let_go.await;
            }
        };
        tokio::time::timeout(LETTING_GO, quiet).await.ok();
    }
}
