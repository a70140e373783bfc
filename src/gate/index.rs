//! Where open sessions are found by what they are, so that a list or a count costs what it returns. What a session's
//! derived status is changes with the clock alone: each is filed under what it was when last looked at, with the moment
//! at which that changes, and the look is taken again when the moment has come.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::change::SearchTerms;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::session::Session;
use sessiond_core::status::DerivedStatus;

use super::ordered::merged;

/// [`SearchTerms`] in memory: sessions share the texts that they have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedTerms {
    pub hostname: Option<Arc<str>>,
    pub client: Option<Arc<str>>,
    pub name: Option<Arc<str>>,
}

type Numbers = BTreeSet<SessionNumber>;

/// The open sessions of one application.
#[derive(Default, PartialEq)]
struct Shelf {
    standing: HashMap<(Kind, DerivedStatus), Numbers>,
    principals: HashMap<PrincipalNumber, Numbers>,
    hostnames: HashMap<Arc<str>, Numbers>,
    clients: HashMap<Arc<str>, Numbers>,
    resources: HashMap<String, Numbers>,
}

/// Open sessions by application and by what they are.
#[derive(Default, PartialEq)]
pub struct Index {
    shelves: HashMap<ApplicationNumber, Shelf>,
}

impl Index {
    pub fn insert(&mut self, session: &Session, terms: &SharedTerms, status: DerivedStatus) {
        let shelf = self.shelves.entry(session.application).or_default();
        shelf.standing.entry((session.kind, status)).or_default().insert(session.number);
        shelf.principals.entry(session.principal).or_default().insert(session.number);
        if let Some(hostname) = &terms.hostname {
            shelf.hostnames.entry(hostname.clone()).or_default().insert(session.number);
        }
        if let Some(client) = &terms.client {
            shelf.clients.entry(client.clone()).or_default().insert(session.number);
        }
        if let Some(resource) = &session.resource {
            shelf.resources.entry(resource.clone()).or_default().insert(session.number);
        }
    }

    pub fn remove(&mut self, session: &Session, terms: &SharedTerms, status: DerivedStatus) {
        let Some(shelf) = self.shelves.get_mut(&session.application) else { return };
        let number = session.number;
        take(&mut shelf.standing, &(session.kind, status), number);
        take(&mut shelf.principals, &session.principal, number);
        if let Some(hostname) = &terms.hostname {
            take(&mut shelf.hostnames, hostname, number);
        }
        if let Some(client) = &terms.client {
            take(&mut shelf.clients, client, number);
        }
        if let Some(resource) = &session.resource {
            take(&mut shelf.resources, resource, number);
        }
    }

    pub fn refile(&mut self, session: &Session, from: DerivedStatus, to: DerivedStatus) {
        let Some(shelf) = self.shelves.get_mut(&session.application) else { return };
        take(&mut shelf.standing, &(session.kind, from), session.number);
        shelf.standing.entry((session.kind, to)).or_default().insert(session.number);
    }

    /// The terms in the texts that other sessions have already.
    pub fn shared(&self, application: ApplicationNumber, terms: SearchTerms) -> SharedTerms {
        let shelf = self.shelves.get(&application);
        let shared = |texts: Option<&HashMap<Arc<str>, Numbers>>, text: Option<String>| {
            let text = text?;
            let same = texts.and_then(|texts| texts.get_key_value(text.as_str()));
            Some(same.map_or_else(|| text.into(), |(same, _)| same.clone()))
        };
        SharedTerms {
            hostname: shared(shelf.map(|shelf| &shelf.hostnames), terms.hostname),
            client: shared(shelf.map(|shelf| &shelf.clients), terms.client),
            name: terms.name.map(Into::into),
        }
    }

    /// How many open sessions an application has, by status as filed.
    pub fn count(&self, application: ApplicationNumber, status: DerivedStatus, kind: Option<Kind>) -> u64 {
        let Some(shelf) = self.shelves.get(&application) else { return 0 };
        let kinds = Kind::ALL.into_iter().filter(|one| kind.is_none_or(|kind| kind == *one));
        kinds.filter_map(|kind| shelf.standing.get(&(kind, status))).map(|numbers| numbers.len() as u64).sum()
    }

    /// How many open sessions an application has.
    pub fn open(&self, application: ApplicationNumber) -> u64 {
        DerivedStatus::OPEN.into_iter().map(|status| self.count(application, status, None)).sum()
    }

    /// How many sessions a principal has open in an application.
    pub fn count_of_principal(&self, application: ApplicationNumber, principal: PrincipalNumber) -> u64 {
        let shelf = self.shelves.get(&application);
        shelf.and_then(|shelf| shelf.principals.get(&principal)).map_or(0, |numbers| numbers.len() as u64)
    }

    /// The open sessions of a principal in an application.
    pub fn of_principal(
        &self,
        application: ApplicationNumber,
        principal: PrincipalNumber,
    ) -> impl Iterator<Item = SessionNumber> {
        let shelf = self.shelves.get(&application);
        shelf.and_then(|shelf| shelf.principals.get(&principal)).into_iter().flatten().copied()
    }

    /// The open sessions that are connected to a resource of an application, oldest first.
    pub fn of_resource(
        &self,
        application: ApplicationNumber,
        resource: &str,
    ) -> impl Iterator<Item = SessionNumber> {
        let shelf = self.shelves.get(&application);
        shelf.and_then(|shelf| shelf.resources.get(resource)).into_iter().flatten().copied()
    }

    /// The open sessions of an application with a status as filed, oldest first.
    pub fn standing(
        &self,
        application: ApplicationNumber,
        status: DerivedStatus,
    ) -> impl Iterator<Item = SessionNumber> {
        let kinds = Kind::ALL.into_iter();
        let sets =
            kinds.filter_map(move |kind| self.shelves.get(&application)?.standing.get(&(kind, status)));
        ascending(sets.collect(), None)
    }

    /// Sets that hold every session of these applications that can fit the filter. With `as_filed`, only those filed
    /// under a status that is wanted: whoever asks so has had the moments looked at that have come.
    pub fn candidates(
        &self,
        filter: &Filter,
        applications: &[ApplicationNumber],
        as_filed: bool,
    ) -> Vec<&BTreeSet<SessionNumber>> {
        let mut sets = Vec::new();
        for shelf in applications.iter().filter_map(|application| self.shelves.get(application)) {
            let narrow = [
                filter.principal.map(|principal| shelf.principals.get(&principal)),
                filter.hostname.as_deref().map(|hostname| shelf.hostnames.get(hostname)),
                filter.client.as_deref().map(|client| shelf.clients.get(client)),
                filter.resource.as_deref().map(|resource| shelf.resources.get(resource)),
            ];
            if narrow.iter().any(|asked| matches!(asked, Some(None))) {
                continue;
            }
            match narrow.into_iter().flatten().flatten().min_by_key(|numbers| numbers.len()) {
                Some(numbers) => sets.push(numbers),
                None if !filter.principals.is_empty() => {
                    sets.extend(filter.principals.iter().filter_map(|one| shelf.principals.get(one)));
                }
                None => sets.extend(
                    shelf
                        .standing
                        .iter()
                        .filter(|((kind, status), _)| {
                            filter.kind.is_none_or(|wanted| wanted == *kind)
                                && (!as_filed || filter.has_status(*status))
                        })
                        .map(|(_, numbers)| numbers),
                ),
            }
        }
        sets
    }
}

fn take<Key: std::hash::Hash + Eq>(sets: &mut HashMap<Key, Numbers>, key: &Key, number: SessionNumber) {
    if let Some(numbers) = sets.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            sets.remove(key);
        }
    }
}

/// Numbers of several sets in order, newest first, from below `before`.
pub fn descending<'a>(
    sets: Vec<&'a Numbers>,
    before: Option<SessionNumber>,
) -> impl Iterator<Item = SessionNumber> + use<'a> {
    let before = before.unwrap_or(SessionNumber(i64::MAX));
    merged(sets.into_iter().map(|numbers| numbers.range(..before).rev().copied()).collect())
}

/// Numbers of several sets in order, oldest first, from above `after`.
pub fn ascending<'a>(
    sets: Vec<&'a Numbers>,
    after: Option<SessionNumber>,
) -> impl Iterator<Item = SessionNumber> + use<'a> {
    let from = after.map_or(SessionNumber(i64::MIN), |after| SessionNumber(after.0 + 1));
    let parts = sets.into_iter().map(|numbers| numbers.range(from..).copied().map(Reverse)).collect();
    merged(parts).map(|Reverse(number)| number)
}

/// When the status of a session changes by the clock alone, if it ever does.
pub fn changes_at(session: &Session, seen_at: Option<Time>, status: DerivedStatus) -> Option<Time> {
    let last = seen_at.map_or(session.last_active_at, |seen| seen.max(session.last_active_at));
    let idle_at = last + chrono::TimeDelta::seconds(session.policy.idle_after.into());
    match status {
        DerivedStatus::Active => Some(idle_at.min(session.token_expires_at)),
        DerivedStatus::Idle => Some(session.token_expires_at),
        DerivedStatus::Expired | DerivedStatus::Disconnected => None,
    }
}
