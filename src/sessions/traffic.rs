//! Gateway traffic becomes activity, but not a flood: the first request after quiet is recorded at once, then at most
//! one event per session in [`WINDOW`]. That window is the most that a crash can lose of a session's traffic.

use std::collections::HashMap;

use chrono::TimeDelta;
use futures_util::{FutureExt, StreamExt, stream};
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ids::SessionNumber;
use sessiond_core::session::Session;
use sessiond_core::session::event::{ActivitySource, Counts};

use super::Sessions;
use crate::committer::{Activity, Origin, RecordActivity};

/// Least time between two activity events of one session's gateway traffic.
const WINDOW: TimeDelta = TimeDelta::seconds(15);

/// Sessions whose traffic goes to the committer at a time.
const AT_ONCE: usize = 256;

/// Sessions with traffic that is not in the log yet; how much it is stands with the session at the Gate.
#[derive(Default)]
pub(super) struct Traffic {
    sessions: HashMap<SessionNumber, Pending>,
}

struct Pending {
    recorded_at: Time,
    /// There is something to record: a sign of life, also one without anything to count.
    waiting: bool,
    /// The last caller, in whose name it will be recorded.
    caller: Caller,
    session: Session,
}

impl Sessions {
    /// Notes traffic of a session. Returns at once; what is due goes to the committer by itself.
    pub fn observe(self: &std::sync::Arc<Self>, caller: &Caller, session: &Session, counts: Counts) {
        let now = self.clock.now();
        self.gate.saw(session.number, now);
        // With the session, where whoever ends it finds it too.
        self.gate.count(session.number, counts);
        let mut traffic = self.traffic.lock();
        let pending = traffic.sessions.entry(session.number).or_insert_with(|| Pending {
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
        // Handed in here and not by a task of its own: the session's end, if it is next, must not overtake it.
        if self.committer.post(Origin::consequence_of(caller), activity(pending)).is_err() {
            (pending.recorded_at, pending.waiting) = (since, true);
        }
    }

    /// Counts traffic of an open session that is no sign of life.
    pub fn passed(&self, number: SessionNumber, counts: Counts) {
        self.gate.count(number, counts);
    }

    /// Records what a session's traffic has come to, durably.
    pub async fn flush(&self, number: SessionNumber) {
        let pending = self.traffic.lock().sessions.remove(&number);
        if let Some(mut pending) = pending.filter(|pending| pending.waiting) {
            let origin = Origin::consequence_of(&pending.caller);
            self.committer.submit(origin, activity(&mut pending)).await.ok();
        }
    }

    /// Records what has waited for its window, or (`all`) everything, and forgets the quiet.
    pub async fn flush_traffic(&self, all: bool) -> usize {
        let now = self.clock.now();
        let mut due = Vec::new();
        self.traffic.lock().sessions.retain(|_, pending| {
            if now - pending.recorded_at < WINDOW && !all {
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
        // Side by side, so that they share transactions: one after the other, each would wait for a flush of its own.
        let submit = |(origin, activity)| async move { self.committer.submit(origin, activity).await.ok() };
        stream::iter(due).for_each_concurrent(AT_ONCE, |one| submit(one).map(|_| ())).await;
        flushed
    }
}

fn activity(pending: &mut Pending) -> RecordActivity {
    pending.waiting = false;
    let presented = pending.caller.presented(pending.session.owner);
    // What there is to count is taken from memory when it is decided.
    let counts = Counts::default();
    let activity = Activity { source: ActivitySource::Gateway, counts, presented };
    RecordActivity { session: pending.session.number, activity }
}
