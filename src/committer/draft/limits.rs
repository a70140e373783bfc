//! Limits on live sessions in a batch: how many there are with what the units before opened and ended, and who makes
//! room.

use std::collections::BTreeSet;

use sessiond_core::command::Connect;
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::policy::{ApplicationPolicy, OnLimit};
use sessiond_core::session::event::SessionEvent;
use sessiond_core::session::{Limit, Session};
use sessiond_core::status::{DerivedStatus, derived_status};

use super::Draft;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    Application(ApplicationNumber),
    Principal(ApplicationNumber, PrincipalNumber),
}

impl Draft<'_> {
    /// Notes that this batch opened or ended a session.
    pub(super) fn count(&mut self, event: &SessionEvent, session: &Session) {
        let by = match event {
            SessionEvent::Connected(_) => 1,
            SessionEvent::Disconnected(_) => -1,
            _ => return,
        };
        let principal = Counted::Principal(session.application, session.principal);
        for counted in [Counted::Application(session.application), principal] {
            *self.counts.entry(counted).or_default() += by;
        }
    }

    /// Who must be evicted so that one more session stays within the application's limits; or the limit that would be
    /// exceeded. `leaving` ends anyway. Sessions whose token has expired are not live: they always give way first.
    pub(super) fn room_for(
        &self,
        connect: &Connect,
        leaving: Option<SessionNumber>,
    ) -> Result<Vec<SessionNumber>, Limit> {
        let policy = self.application(connect.application).and_then(|one| one.policy.as_ref());
        let Some(policy) = policy else { return Ok(vec![]) };
        let mut out: BTreeSet<SessionNumber> = leaving.into_iter().collect();
        if let Some(most) = policy.max_per_principal {
            let counted = Counted::Principal(connect.application, connect.principal);
            self.make_room(counted, most, policy, &mut out).ok_or(Limit::PerPrincipal(most))?;
        }
        if let Some(most) = policy.max_per_application {
            let counted = Counted::Application(connect.application);
            self.make_room(counted, most, policy, &mut out).ok_or(Limit::PerApplication(most))?;
        }
        out.retain(|number| Some(*number) != leaving);
        Ok(out.into_iter().collect())
    }

    fn make_room(
        &self,
        counted: Counted,
        most: u32,
        policy: &ApplicationPolicy,
        out: &mut BTreeSet<SessionNumber>,
    ) -> Option<()> {
        let leaving = out.iter().filter(|number| self.is_counted(counted, **number)).count() as i64;
        // A limit that was lowered below what is there may ask for several.
        let excess = self.opened(counted) - leaving + 1 - i64::from(most);
        for _ in 0..excess {
            out.insert(self.gives_way(counted, policy.on_limit(), out)?);
        }
        Some(())
    }

    fn opened(&self, counted: Counted) -> i64 {
        let known = match counted {
            Counted::Application(application) => self.known.open_of_application(application),
            Counted::Principal(application, principal) => {
                self.known.count_of_principal(application, principal)
            }
        };
        known as i64 + self.counts.get(&counted).copied().unwrap_or(0)
    }

    fn is_counted(&self, counted: Counted, number: SessionNumber) -> bool {
        self.session(number).is_some_and(|session| match counted {
            Counted::Application(application) => session.application == application,
            Counted::Principal(application, principal) => {
                session.application == application && session.principal == principal
            }
        })
    }

    /// The session that gives way next.
    fn gives_way(
        &self,
        counted: Counted,
        on_limit: OnLimit,
        out: &BTreeSet<SessionNumber>,
    ) -> Option<SessionNumber> {
        let open = |number: &SessionNumber| {
            !out.contains(number) && self.session(*number).is_some_and(|session| session.ended.is_none())
        };
        let status = |number: &SessionNumber| {
            let seen_at = self.known.facts(*number).seen_at;
            self.session(*number).map(|session| derived_status(session, seen_at, self.now))
        };
        let (mut old, drafted) = self.candidates(counted, on_limit, out.len());
        let mut drafted: Vec<_> = drafted.into_iter().filter(open).collect();
        drafted.sort_unstable();
        let expired = |number: &SessionNumber| status(number) == Some(DerivedStatus::Expired);
        old.retain(open);
        let all = || old.iter().chain(&drafted).copied();
        if let Some(number) = all().find(expired) {
            return Some(number);
        }
        match on_limit {
            OnLimit::Reject => None,
            OnLimit::EvictOldest => all().min(),
            OnLimit::EvictIdleFirst => {
                let idle = all().filter(|number| status(number) == Some(DerivedStatus::Idle));
                idle.min().or_else(|| all().min())
            }
        }
    }

    /// Sessions among which the one to give way is: of a principal all; of an application, which may have very many, the
    /// first of each status that are still open; and what this batch opened.
    fn candidates(
        &self,
        counted: Counted,
        on_limit: OnLimit,
        leaving: usize,
    ) -> (Vec<SessionNumber>, Vec<SessionNumber>) {
        let opened = self.sessions.iter().filter(|(_, drafted)| drafted.entry.is_some());
        let opened = opened.map(|(number, _)| *number).filter(|number| self.is_counted(counted, *number));
        let opened = opened.collect();
        let old = match counted {
            Counted::Principal(application, principal) => {
                self.known.open_of_principal(application, principal).collect()
            }
            Counted::Application(application) => {
                let wanted: &[DerivedStatus] = match on_limit {
                    OnLimit::Reject => &[DerivedStatus::Expired],
                    _ => &[DerivedStatus::Expired, DerivedStatus::Idle, DerivedStatus::Active],
                };
                // As many as this batch may have ended or is about to, and one more.
                let few = self.sessions.len() + leaving + 1;
                wanted.iter().flat_map(|status| self.known.standing(application, *status).take(few)).collect()
            }
        };
        (old, opened)
    }
}
