//! Gateway traffic becomes activity, but not a flood: the first request after quiet is recorded at once, then at most
//! one event per session in [`WINDOW`]. That window is the most that a crash can lose of a session's traffic.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::change::Change;
use sessiond_core::ids::SessionNumber;
use sessiond_core::session::Session;
use sessiond_core::session::event::{ActivitySource, Counts};

use crate::committer::{Activity, Inform, Origin, RecordActivity};
use crate::context::AppContext;

/// Least time between two activity events of one session's gateway traffic.
const WINDOW: TimeDelta = TimeDelta::seconds(15);

/// How many sessions other processes are told of in one commit.
const MOST_TOLD: usize = 10_000;

/// How many sessions' traffic goes to the committer at a time.
const AT_ONCE: usize = 256;

/// Sessions with traffic that is not in the log yet; how much it is stands with the session at the Gate.
#[derive(Clone)]
pub struct Traffic {
    context: Arc<AppContext>,
    pending: Arc<Mutex<HashMap<SessionNumber, Pending>>>,
}

struct Pending {
    recorded_at: Time,
    /// Whether there is something to record: a sign of life, also one without anything to count.
    waiting: bool,
    /// The last caller, in whose name it will be recorded.
    caller: Caller,
    session: Session,
}

impl Traffic {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context, pending: Arc::default() }
    }

    /// Notes traffic of a session. Returns at once; what is due goes to the committer by itself.
    pub fn observe(&self, caller: &Caller, session: &Session, counts: Counts) {
        let now = self.context.clock.now();
        self.context.gate.saw(session.number, now);
        // The figures stand with the session, where whoever ends it finds them too.
        self.context.gate.count(session.number, counts);
        let mut all = self.pending.lock();
        let pending = all.entry(session.number).or_insert_with(|| Pending {
            recorded_at: now - WINDOW,
            waiting: false,
            caller: caller.clone(),
            session: session.clone(),
        });
        pending.waiting = true;
        pending.caller = caller.clone();
        // A credential that outlives the session's token renews it: that cannot wait for the window.
        let renews = caller.renews()
            && caller.credential.expires_at.min(session.lifetime_ends_at) > session.token_expires_at;
        if now - pending.recorded_at < WINDOW && !renews {
            return;
        }
        let since = std::mem::replace(&mut pending.recorded_at, now);
        // It is handed in here and not by a task of its own: the session's end, if it comes next, must not overtake it.
        if self.context.committer.post(Origin::consequence_of(caller), activity(pending)).is_err() {
            (pending.recorded_at, pending.waiting) = (since, true);
        }
    }

    /// Tells other processes, where there are any, of sessions that are alive here and that they would soon take for stale.
    pub async fn inform_of_signs(&self) {
        let untold = self.context.gate.signs_unknown_elsewhere(self.context.clock.now());
        for some in untold.chunks(MOST_TOLD) {
            let told = Inform(Change::SeenAlive(some.to_vec()));
            // What could not be told is looked at again: it stays until it is known elsewhere.
            if let Err(error) = self.context.committer.submit(Origin::system(), told).await {
                tracing::warn!(%error, "other nodes could not be told which sessions are alive here");
            }
        }
    }

    /// Counts traffic of an open session that is no sign of life.
    pub fn count(&self, number: SessionNumber, counts: Counts) {
        self.context.gate.count(number, counts);
    }

    /// Records what a session's traffic has come to, durably.
    pub async fn flush(&self, number: SessionNumber) {
        let pending = self.pending.lock().remove(&number);
        if let Some(mut pending) = pending.filter(|pending| pending.waiting) {
            let origin = Origin::consequence_of(&pending.caller);
            self.context.committer.submit(origin, activity(&mut pending)).await.ok();
        }
    }

    /// Records what has waited for its window, and forgets the sessions without traffic since. Returns how many it recorded.
    pub async fn flush_due(&self) -> usize {
        let now = self.context.clock.now();
        self.flush_where(|pending| now - pending.recorded_at >= WINDOW).await
    }

    /// Records everything. Returns for how many sessions.
    pub async fn flush_all(&self) -> usize {
        self.flush_where(|_| true).await
    }

    async fn flush_where(&self, is_due: impl Fn(&Pending) -> bool) -> usize {
        let now = self.context.clock.now();
        let mut due = Vec::new();
        self.pending.lock().retain(|_, pending| {
            if !is_due(pending) {
                return true;
            }
            let waiting = pending.waiting;
            if waiting {
                pending.recorded_at = now;
                due.push((Origin::consequence_of(&pending.caller), activity(pending)));
            }
            waiting
        });
        let flushed = due.len();
        // They go side by side, so that they share transactions: one after the other, each would wait for an fsync of its own.
        let committer = &self.context.committer;
        let submit = |(origin, activity)| committer.submit(origin, activity).map(|_| ());
        stream::iter(due).for_each_concurrent(AT_ONCE, submit).await;
        flushed
    }
}

fn activity(pending: &mut Pending) -> RecordActivity {
    pending.waiting = false;
    let presented = pending.caller.presented(pending.session.owner);
    // The figures are taken from memory when the operation is decided.
    let counts = Counts::default();
    let activity = Activity { source: ActivitySource::Gateway, counts, presented };
    RecordActivity { session: pending.session.number, activity }
}
