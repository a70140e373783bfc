//! What the clock changes: statuses, the order of activity, deadlines.

use std::sync::atomic::Ordering;

use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_core::status::derived_status;

use super::GateState;
use crate::gate::Due;
use crate::gate::index;
use crate::gate::ordered::By;

/// Two that ask at the same time may bring their times in the wrong order; beyond this the clock was set back.
const SET_BACK: chrono::TimeDelta = chrono::TimeDelta::seconds(10);

impl GateState {
    /// Whether the status of some session has changed since it was looked at.
    pub(in crate::gate) fn is_behind(&self, now: Time) -> bool {
        now + SET_BACK < self.looked_at
            || self.changes.first().is_some_and(|(at, _)| *at <= now)
            || !self.woken.lock().is_empty()
    }

    /// Files sessions anew whose status has changed, at most `limit` of them.
    pub(in crate::gate) fn advance(&mut self, now: Time, limit: usize) {
        if now + SET_BACK < self.looked_at {
            // What had passed may not have passed yet.
            self.woken.lock().extend(self.sessions.keys().copied());
            self.looked_at = now;
        }
        self.looked_at = now.max(self.looked_at);
        let now = self.looked_at;
        let mut look: Vec<_> = {
            let mut woken = self.woken.lock();
            let from = woken.len().saturating_sub(limit);
            woken.drain(from..).collect()
        };
        let due = self.changes.iter().take_while(|(at, _)| *at <= now);
        look.extend(due.take(limit.saturating_sub(look.len())).map(|(_, number)| *number));
        for number in look {
            let Some(open) = self.sessions.get_mut(&number) else { continue };
            open.woken.store(false, Ordering::Relaxed);
            let status = derived_status(&open.session, open.seen_at(), now);
            if status != open.status {
                self.index.refile(&open.session, open.status, status);
                open.status = status;
            }
            open.changes_at.map(|at| self.changes.remove(&(at, number)));
            open.changes_at = index::changes_at(&open.session, open.seen_at(), status);
            self.changes.extend(open.changes_at.map(|at| (at, number)));
        }
    }

    /// How many sessions may have moved in the order of activity.
    pub(in crate::gate) fn stirred(&self) -> usize {
        self.stirred.lock().len()
    }

    /// Puts sessions where they belong in the order of activity, at most `limit` of them.
    pub(in crate::gate) fn move_stirred(&mut self, limit: usize) {
        let stirred = self.stirred.get_mut();
        let some = stirred.len().min(limit);
        for number in stirred.drain(..some) {
            let Some(open) = self.sessions.get_mut(&number) else { continue };
            // Before the look: whoever is seen after it is noted again.
            open.stirred.store(false, Ordering::Relaxed);
            let to = open.last_active_at();
            self.ordered.shift(
                open.session.application,
                By::Activity,
                (open.stands_at, number),
                (to, number),
            );
            open.stands_at = to;
        }
    }

    pub(in crate::gate) fn due(
        &mut self,
        now: Time,
        not_before: Time,
        limit: usize,
    ) -> Vec<(SessionNumber, Due)> {
        let mut due: Vec<_> = self
            .expiries
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(limit)
            .map(|(_, number)| (*number, Due::Expire))
            .collect();
        while due.len() < limit {
            let Some((at, number)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            self.deadlines.remove(&(at, number));
            let Some(open) = self.sessions.get_mut(&number) else { continue };
            if open.deadline != at {
                continue;
            }
            let earliest = open.next_deadline(not_before);
            let mut again = earliest;
            if now >= open.session.lifetime_ends_at {
                due.push((number, Due::Lifetime));
            } else if earliest <= now && !open.busy() {
                due.push((number, Due::Stale(open.last_sign())));
            }
            if again <= now {
                // Asked for, or paused while something is under way: look again soon.
                again = now + chrono::TimeDelta::seconds(1);
            }
            open.deadline = again;
            self.deadlines.insert((again, number));
        }
        due
    }
}
