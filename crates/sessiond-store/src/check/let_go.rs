//! What the log no longer has, against what it says of that itself.

use std::collections::BTreeMap;

use sessiond_core::ids::ApplicationNumber;
use sessiond_core::organization::OrganizationEvent;
use sessiond_core::retention::{OfResource, ResourceTotals};
use sessiond_core::streams::AnyEvent;

use super::{Difference, LogCheck};

/// Where events were let go, as it is stored: one event of a commit of which something is kept, or whole commits.
#[derive(Debug)]
pub struct StoredGap<'a> {
    pub first: i64,
    pub last: i64,
    /// Of the one event.
    pub hash: Option<&'a [u8]>,
    pub commit_hash: Option<&'a [u8]>,
}

/// The same, by itself.
pub struct Gap {
    pub first: i64,
    pub last: i64,
    pub hash: Option<Vec<u8>>,
    pub commit_hash: Option<Vec<u8>>,
}

impl Gap {
    pub fn stored(&self) -> StoredGap<'_> {
        StoredGap {
            first: self.first,
            last: self.last,
            hash: self.hash.as_deref(),
            commit_hash: self.commit_hash.as_deref(),
        }
    }
}

/// What a kept event builds on whose predecessors in its stream were let go, as it is stored.
#[derive(Debug)]
pub struct StoredCut<'a> {
    /// Position of the last kept event before it in its stream.
    pub previous: i64,
    /// Hash of the event just before it.
    pub hash: &'a [u8],
}

/// How much is missing, and how much the log says was let go. While somebody lets go of more, what was read before is
/// told of later: from the log's end as it was when the check began, what is told may have been read.
pub(super) struct LetGoCheck {
    begun_at: i64,
    /// Positions that were passed over.
    pub missing: u64,
    /// Events that were let go, as the log says; and those of them that were so since the check began.
    told: u64,
    told_since: u64,
    sessions_since: u64,
    /// Rows of sessions that were in the log when it was read and are no more.
    rows_missing: u64,
    resources: BTreeMap<(ApplicationNumber, String), ResourceTotals>,
    disconnections: BTreeMap<i64, Disconnections>,
}

/// Sessions that a revocation disconnected.
#[derive(Default)]
struct Disconnections {
    /// Their events that were read.
    events: u64,
    let_go: u64,
    let_go_since: u64,
    /// How many there were, and where that is said.
    said: Option<(u64, String)>,
}

impl LetGoCheck {
    pub fn new(begun_at: i64) -> Self {
        Self {
            begun_at,
            missing: 0,
            told: 0,
            told_since: 0,
            sessions_since: 0,
            rows_missing: 0,
            resources: BTreeMap::new(),
            disconnections: BTreeMap::new(),
        }
    }

    /// Takes note of what an event says was let go.
    pub fn tell(&mut self, position: i64, event: &AnyEvent) {
        let since = position > self.begun_at;
        let events = match event {
            AnyEvent::Organization(OrganizationEvent::ActivityFolded(account)) => account.events,
            AnyEvent::Organization(OrganizationEvent::SessionsLetGo(account)) => {
                for one in &account.resources {
                    let key = (one.application, one.resource.clone());
                    self.resources.entry(key).or_default().add(one.sessions, one.bytes_out);
                }
                for one in &account.revocations {
                    let counted = self.disconnections.entry(one.revocation.0).or_default();
                    *if since { &mut counted.let_go_since } else { &mut counted.let_go } += one.sessions;
                }
                self.sessions_since += if since { account.sessions } else { 0 };
                account.events
            }
            _ => return,
        };
        self.told += events;
        self.told_since += if since { events } else { 0 };
    }

    /// A `Disconnected` that carries a revocation.
    pub fn disconnected(&mut self, revocation: i64) {
        self.disconnections.entry(revocation).or_default().events += 1;
    }

    /// A revocation has ended, and says how many sessions carry it.
    pub fn revocation_ended(&mut self, revocation: i64, said: u64, place: String) {
        self.disconnections.entry(revocation).or_default().said = Some((said, place));
    }

    /// Whether a session that was read may be gone by now.
    pub fn may_miss_row(&mut self) -> bool {
        self.rows_missing += 1;
        self.rows_missing <= self.sessions_since
    }

    /// Whether sessions were let go since the check began.
    pub fn since(&self) -> bool {
        self.sessions_since > 0
    }

    /// That at the end of the log as much is missing as was let go.
    pub fn complete(&self) -> Result<(), Difference> {
        let least = self.told - self.told_since;
        if self.missing < least || self.missing > self.told {
            return Err(Difference {
                place: "the log".to_owned(),
                what: "events that were let go".to_owned(),
                expected: format!("{}, as it says itself", self.told),
                found: self.missing.to_string(),
            });
        }
        for counted in self.disconnections.values() {
            let Some((said, place)) = &counted.said else { continue };
            let least = counted.events + counted.let_go;
            if *said < least || *said > least + counted.let_go_since {
                return Err(Difference {
                    place: place.clone(),
                    what: "disconnectedCount".to_owned(),
                    expected: least.to_string(),
                    found: said.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl LogCheck {
    /// What the sessions that were let go came to, by what they were connected to.
    pub fn resources(&self) -> Vec<OfResource> {
        let one =
            |((application, resource), totals): (&(ApplicationNumber, String), &ResourceTotals)| OfResource {
                application: *application,
                resource: resource.clone(),
                sessions: totals.sessions,
                bytes_out: totals.bytes_out,
            };
        self.let_go.resources.iter().map(one).collect()
    }

    /// Compares what the log says of them with the rows: sessions and bytes by application and resource.
    pub fn compare_resources(&self, rows: &BTreeMap<(i64, String), (i64, i64)>) -> Result<(), Difference> {
        let figures = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let expected = self
            .resources()
            .into_iter()
            .map(|one| ((one.application.0, one.resource), (figures(one.sessions), figures(one.bytes_out))));
        let expected: BTreeMap<_, _> = expected.collect();
        let either = expected.keys().chain(rows.keys());
        let Some(key) = either.into_iter().find(|key| expected.get(key) != rows.get(key)) else {
            return Ok(());
        };
        let text = |figures: Option<&(i64, i64)>| {
            figures.map_or_else(
                || "none".to_owned(),
                |(sessions, bytes)| format!("{sessions} sessions, {bytes} bytes"),
            )
        };
        Err(Difference {
            place: format!("row of let_go_resource {} {:?}", key.0, key.1),
            what: "row".to_owned(),
            expected: text(expected.get(key)),
            found: text(rows.get(key)),
        })
    }
}
