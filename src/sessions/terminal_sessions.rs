//! Terminal sessions: how much they are used, and those whose shells died with the process before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{OrganizationNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::phase::Outcome;
use sessiond_core::reason::Reason;

use crate::committer::{CHUNK, EndSessions, Origin, SessionEnd};
use crate::context::AppContext;
use crate::error::Error;
use crate::gate::{Order, Slice};

/// How much terminals were used in a period that ends now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Sessions that were open at some time in it.
    pub sessions: u64,
    /// Those that are now.
    pub active: u64,
    /// Their time within the period, together.
    pub seconds: f64,
    pub users: u64,
    /// By their machines, most used first.
    pub machines: Vec<MachineUse>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MachineUse {
    /// As the session's resource names it.
    pub machine: String,
    pub sessions: u64,
}

/// Sessions of shells on machines.
#[derive(Clone)]
pub struct TerminalSessions {
    context: Arc<AppContext>,
}

impl TerminalSessions {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// How much terminals of the caller's organization were used since an instant. Costs what was open since then. A person
    /// who sees only the own ones gets figures of these.
    pub async fn usage(&self, caller: &Caller, since: Time, most: usize) -> Result<Usage, Error> {
        let now = self.context.clock.now();
        let own = caller.principal.filter(|_| !caller.looks_at_all());
        let mut parts = Vec::new();
        // What is open first: what ends in between is then found twice, not missed, and counted once.
        let mut open = BTreeSet::new();
        {
            let known = self.context.gate.known_at(now);
            let filter = Filter { kind: Some(Kind::Terminal), principal: own, ..Filter::default() };
            let slice = Slice { order: Order::Connected, descending: false, after: None, limit: usize::MAX };
            for (_, number) in known.page(caller.organization, &filter, &slice, now) {
                let Some(session) = known.session(number) else { continue };
                open.insert((session.connected_at, session.principal, session.resource.clone()));
                parts.push((session.connected_at, now, session.principal, session.resource.clone()));
            }
        }
        let active = parts.len() as u64;
        for ended in self.context.reader.ended_terminals(caller.organization, since).await? {
            let mine = own.is_none_or(|own| own == ended.principal);
            let key = (ended.connected_at, ended.principal, ended.machine.clone());
            if mine && !open.contains(&key) {
                parts.push((ended.connected_at, ended.ended_at, ended.principal, ended.machine));
            }
        }
        let mut users = BTreeSet::new();
        let mut machines: BTreeMap<String, u64> = BTreeMap::new();
        let mut seconds = 0.0;
        for (from, to, principal, machine) in &parts {
            users.insert(*principal);
            seconds += (*to - since.max(*from)).as_seconds_f64().max(0.0);
            if let Some(machine) = machine {
                *machines.entry(machine.clone()).or_default() += 1;
            }
        }
        let mut machines: Vec<_> =
            machines.into_iter().map(|(machine, sessions)| MachineUse { machine, sessions }).collect();
        machines.sort_by_key(|one| std::cmp::Reverse(one.sessions));
        machines.truncate(most);
        Ok(Usage { sessions: parts.len() as u64, active, seconds, users: users.len() as u64, machines })
    }

    /// A shell has come to its own end. Returns how many sessions this call ended: one or none.
    pub async fn shell_ended(
        &self,
        caller: &Caller,
        number: SessionNumber,
        message: String,
    ) -> Result<u64, Error> {
        let end = SessionEnd::Finish { outcome: Outcome::Finished, message: Some(message) };
        self.context.end_session(Origin::consequence_of(caller), number, end).await
    }

    /// Ends terminal sessions whose shells died with the process before. Returns how many.
    pub async fn end_orphans(&self) -> Result<u64, Error> {
        let mut ended = 0;
        loop {
            let orphans = self.open_terminals(CHUNK).into_iter();
            let ends: Vec<_> =
                orphans.map(|number| (number, SessionEnd::Disconnect(Reason::Failed))).collect();
            if ends.is_empty() {
                return Ok(ended);
            }
            let ending = EndSessions { ends, revocation: None };
            match self.context.committer.submit(Origin::system(), ending).await?.outcome {
                0 => return Ok(ended),
                some => ended += some,
            }
        }
    }

    fn open_terminals(&self, limit: usize) -> Vec<SessionNumber> {
        let known = self.context.gate.known();
        let filter = Filter { kind: Some(Kind::Terminal), ..Filter::default() };
        let organizations: Vec<OrganizationNumber> = known.organizations.keys().copied().collect();
        let slice = Slice { order: Order::Connected, descending: false, after: None, limit };
        let now = self.context.clock.now();
        let pages = organizations.into_iter().flat_map(|one| known.page(one, &filter, &slice, now));
        pages.map(|(_, number)| number).take(limit).collect()
    }
}
