//! What upstreams are told when something of ours is over: that nobody waits for a call any more, and that nobody will
//! use a session again. Toward an upstream the gateway is the client. A client that is cut off here is cut off from us
//! alone: without a goodbye its tool would run to its end at the upstream, and its session would stay there for ever.
//!
//! A goodbye follows from an event. The Gate names each session that ends, in whichever way; its sealed
//! [`UpstreamState`] stays in the store until the upstream knows, so that a crash loses nothing. Only cancellations of
//! calls are in memory alone: in a crash their upstream loses the connection with us.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::upstream_sessions::{UpstreamSession, UpstreamState};
use crate::gate::Departed;

/// How long the goodbye of a session waits for its calls to end, so that they are cancelled first.
const LETTING_GO: Duration = Duration::from_secs(1);

/// The goodbyes that upstreams are still to be told.
pub struct Goodbyes {
    inbox: mpsc::UnboundedSender<Notice>,
    /// The cancellations of each session that are still to be sent.
    cancellations: Mutex<HashMap<SessionNumber, Vec<Cancellation>>>,
    pub(super) receivers: tokio::sync::Mutex<Receivers>,
    /// How many requests of each session may still be under way at its upstream.
    at_work: Mutex<HashMap<SessionNumber, usize>>,
    work_ended: Notify,
}

/// The ends from which the task that sends goodbyes receives.
pub(super) struct Receivers {
    pub notices: mpsc::UnboundedReceiver<Notice>,
    pub departures: mpsc::UnboundedReceiver<Departed>,
}

/// A reason to tell an upstream something.
pub(super) enum Notice {
    /// Cancellations of calls of this session wait to be sent.
    Cancellation(SessionNumber, ApplicationNumber),
    Departed(Departed),
    AbandonedSession(AbandonedSession),
}

/// Calls whose answers nobody waits for any more.
pub(super) struct Cancellation {
    pub id: Uuid,
    pub application: ApplicationNumber,
    pub upstream_session: Arc<UpstreamSession>,
    pub calls: Vec<Value>,
    pub reason: String,
}

/// A session at an upstream that none of ours uses any more.
#[derive(Debug, Clone)]
pub struct AbandonedSession {
    pub application: ApplicationNumber,
    pub url: String,
    pub session: String,
    pub protocol_version: Option<String>,
}

impl AbandonedSession {
    /// Names the session at the upstream, if the upstream has sessions.
    pub fn of(application: ApplicationNumber, state: &UpstreamState) -> Option<Self> {
        let protocol_version = Some(state.protocol_version.clone());
        let session = state.session.clone()?;
        Some(Self { application, url: state.url.clone(), session, protocol_version })
    }
}

/// A request that its upstream may be working on, for as long as this guard lives.
pub struct UpstreamWork {
    goodbyes: Arc<Goodbyes>,
    session: SessionNumber,
    id: Uuid,
    application: ApplicationNumber,
    upstream_session: Arc<UpstreamSession>,
}

impl UpstreamWork {
    /// Tells the upstream that nobody waits for these calls any more (MCP 2025-11-25, basic/utilities/cancellation).
    pub fn cancel(&self, calls: &[Value], reason: &str) {
        let Self { session, id, application, ref upstream_session, .. } = *self;
        if calls.is_empty() {
            return;
        }
        let (calls, reason) = (calls.to_vec(), reason.to_owned());
        let cancel =
            Cancellation { id, application, upstream_session: upstream_session.clone(), calls, reason };
        // The cancellation is stored before its notice is sent: the end of the session may be on its way already, and
        // must come after it.
        self.goodbyes.cancellations.lock().entry(session).or_default().push(cancel);
        self.goodbyes.inbox.send(Notice::Cancellation(session, application)).ok();
    }
}

impl Drop for UpstreamWork {
    fn drop(&mut self) {
        if let Entry::Occupied(mut at_work) = self.goodbyes.at_work.lock().entry(self.session) {
            *at_work.get_mut() -= 1;
            if *at_work.get() == 0 {
                at_work.remove();
            }
        }
        self.goodbyes.work_ended.notify_waiters();
    }
}

impl Goodbyes {
    pub fn new(departures: mpsc::UnboundedReceiver<Departed>) -> Arc<Self> {
        let (inbox, notices) = mpsc::unbounded_channel();
        let receivers = tokio::sync::Mutex::new(Receivers { notices, departures });
        let (cancellations, at_work, work_ended) = Default::default();
        Arc::new(Self { inbox, cancellations, receivers, at_work, work_ended })
    }

    /// Notes that a request of a session goes to its upstream.
    pub fn begin_work(
        self: &Arc<Self>,
        (session, id): (SessionNumber, Uuid),
        application: ApplicationNumber,
        upstream_session: &Arc<UpstreamSession>,
    ) -> UpstreamWork {
        *self.at_work.lock().entry(session).or_default() += 1;
        UpstreamWork {
            goodbyes: self.clone(),
            session,
            id,
            application,
            upstream_session: upstream_session.clone(),
        }
    }

    /// Notes that a session ended before the Gate could know that it is one of the gateway's.
    pub fn departed(&self, departed: Departed) {
        self.inbox.send(Notice::Departed(departed)).ok();
    }

    /// Notes that a session at an upstream was left for another, or never became one of ours.
    pub fn session_abandoned(&self, abandoned: Option<AbandonedSession>) {
        if let Some(abandoned) = abandoned {
            self.inbox.send(Notice::AbandonedSession(abandoned)).ok();
        }
    }

    /// Takes the cancellations of a session that are still to be sent.
    pub(super) fn take_cancellations(&self, session: SessionNumber) -> Vec<Cancellation> {
        self.cancellations.lock().remove(&session).unwrap_or_default()
    }

    /// Whether cancellations of a session are still to be sent.
    pub(super) fn has_cancellations(&self, session: SessionNumber) -> bool {
        self.cancellations.lock().contains_key(&session)
    }

    /// Waits until no request of a session is under way at its upstream, but not longer than [`LETTING_GO`].
    pub(super) async fn wait_for_work(&self, session: SessionNumber) {
        let wait_for_work = async {
            loop {
                let work_ended = self.work_ended.notified();
                tokio::pin!(work_ended);
                work_ended.as_mut().enable();
                if !self.at_work.lock().contains_key(&session) {
                    return;
                }
                work_ended.await;
            }
        };
        tokio::time::timeout(LETTING_GO, wait_for_work).await.ok();
    }
}
