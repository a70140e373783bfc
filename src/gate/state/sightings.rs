//! Signs of life that are not in the log: where several processes serve, the others have to be told of them before they take
//! a session for stale that is alive here.

use std::collections::HashSet;

use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;

use super::{GateState, Open};

/// The sessions that were seen and of which nobody else may know.
#[derive(Default)]
pub struct Sightings {
    /// None where there is nobody to tell.
    seen: Option<Mutex<HashSet<SessionNumber>>>,
}

impl Sightings {
    pub fn note(&self, number: SessionNumber) {
        if let Some(seen) = &self.seen {
            seen.lock().insert(number);
        }
    }
}

impl Open {
    /// When the others have to know of a sign of life: a third of the time in which it would go stale has passed since the last
    /// that they know of.
    fn to_be_told_at(&self) -> Option<Time> {
        let known = self.alive_at.max(Some(self.session.last_active_at))?;
        let silence = self.session.stale_at(known) - known;
        known.checked_add_signed(silence / 3)
    }
}

impl GateState {
    /// From now on it is kept who was seen.
    pub(in crate::gate) fn keep_sightings(&mut self) {
        self.sightings.seen = Some(Mutex::default());
    }

    pub(in crate::gate) fn signs_unknown_elsewhere(&self, now: Time) -> Vec<(SessionNumber, Time)> {
        let Some(seen) = &self.sightings.seen else { return vec![] };
        let mut seen = seen.lock();
        seen.extend(self.holdings.sessions());
        let mut untold = vec![];
        seen.retain(|number| {
            let Some(open) = self.sessions.get(number) else { return false };
            let last = if open.busy() { Some(now) } else { open.seen_at() };
            let known = open.alive_at.max(Some(open.session.last_active_at));
            let Some(last) = last.filter(|last| Some(*last) > known) else { return false };
            // One that does not go stale is nobody's concern.
            let Some(at) = open.to_be_told_at() else { return false };
            if at <= now {
                untold.push((*number, last));
            }
            // It stays until it is known elsewhere: telling may fail.
            true
        });
        untold
    }

    pub(in crate::gate) fn seen_alive(&mut self, sessions: &[(SessionNumber, Time)]) {
        for (number, at) in sessions {
            if let Some(open) = self.sessions.get_mut(number) {
                open.alive_at = open.alive_at.max(Some(*at));
            }
        }
    }
}
