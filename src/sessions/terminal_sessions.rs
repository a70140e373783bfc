//! Terminal sessions: how much they are used, and those whose shells died with the process before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{OrganizationNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::organization::Organization;
use sessiond_core::phase::Outcome;
use sessiond_core::reason::Reason;
use sessiond_core::session::Session;

use crate::committer::{CHUNK, EndSessions, Origin, SessionEnd};
use crate::context::AppContext;
use crate::error::Error;
use crate::gate::{Order, Slice};

/// How much terminals were used in a period that ends now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Sessions that were open at some time in it.
    pub sessions: u64,
    /// Sessions that are open now.
    pub active: u64,
    /// The time within the period for which they were open, added up.
    pub seconds: f64,
    pub users: u64,
    /// How many there were on each machine, the most used first.
    pub machines: Vec<MachineUse>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MachineUse {
    /// The machine, as the session's resource names it.
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

    /// Adds up how much terminals of the caller's organization were used since an instant. It costs what was open since then. A
    /// person who sees only the own terminals gets figures of these.
    pub async fn usage(&self, caller: &Caller, since: Time, most: usize) -> Result<Usage, Error> {
        let now = self.context.clock.now();
        let own = caller.principal.filter(|_| !caller.looks_at_all());
        let mut parts = Vec::new();
        // Open sessions are read first: one that ends in between is found twice and counted once, and not missed.
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
        for ended in self.context.store.ended_terminals(caller.organization, since).await? {
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

    /// Records that a shell has come to its own end. Returns how many sessions this call ended: one or none.
    pub async fn shell_ended(
        &self,
        caller: &Caller,
        number: SessionNumber,
        message: String,
    ) -> Result<u64, Error> {
        let end = SessionEnd::Finish { outcome: Outcome::Finished, message: Some(message) };
        self.context.end_session(Origin::consequence_of(caller), number, end).await
    }

    /// Ends the terminal sessions of a node that is gone, or those of no node: their shells died with the process. Returns
    /// how many.
    pub async fn end_orphans(&self, node: Option<i64>) -> Result<u64, Error> {
        let mut ended = 0;
        loop {
            let orphans = self
                .open_terminals(|session| (session.node == node).then_some(session.number), CHUNK)
                .into_iter();
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

    /// The nodes that open terminals live on.
    pub fn nodes(&self) -> BTreeSet<i64> {
        self.open_terminals(|session| session.node, usize::MAX).into_iter().collect()
    }

    /// What is wanted of each open terminal of which something is, of so many.
    fn open_terminals<Value>(&self, wanted: impl Fn(&Session) -> Option<Value>, limit: usize) -> Vec<Value> {
        let known = self.context.gate.known();
        let filter = Filter { kind: Some(Kind::Terminal), ..Filter::default() };
        let organizations: Vec<OrganizationNumber> =
            known.streams::<Organization>().map(|one| one.number).collect();
        let slice = Slice { order: Order::Connected, descending: false, after: None, limit: usize::MAX };
        let now = self.context.clock.now();
        let pages = organizations.into_iter().flat_map(|one| known.page(one, &filter, &slice, now));
        pages.filter_map(|(_, number)| known.session(number).and_then(&wanted)).take(limit).collect()
    }
}
