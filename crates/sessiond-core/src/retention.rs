//! Retention: how long an organization keeps what happened, and what remains of it in the log once it was let go.
//!
//! Whatever is let go leaves an event in the organization's stream that says how much it was, under a digest of its hashes:
//! the chains go on over it, and what was let go can be compared with a copy from before.
//! `docs/decisions/0049-what-is-let-go-leaves-its-hashes.md` says why.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, Position, RevocationNumber, SessionNumber};

/// How long things are kept, in seconds; none: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Every activity event; from then on the last of each day.
    pub activity_after: Option<u32>,
    /// A session after its end, with all that is known of it.
    pub ended_after: Option<u32>,
    /// Log lines and recordings, from when they were filed.
    pub journals_after: Option<u32>,
}

/// What an organization chose for itself, each in seconds: what is absent is the server's, `null` is for ever. Stored: add
/// optional fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub activity_after: Option<Option<u32>>,
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub ended_after: Option<Option<u32>>,
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub journals_after: Option<Option<u32>>,
}

/// Reads a member that is there, where `null` is something else than nothing.
pub fn said<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(member).map(Some)
}

impl Retention {
    /// The figures that are in force, over the server's.
    pub fn over(&self, server: Figures) -> Figures {
        Figures {
            activity_after: self.activity_after.unwrap_or(server.activity_after),
            ended_after: self.ended_after.unwrap_or(server.ended_after),
            journals_after: self.journals_after.unwrap_or(server.journals_after),
        }
    }
}

/// What lies before this instant has been kept for so many seconds.
pub fn kept_since(now: Time, seconds: u32) -> Time {
    now - chrono::TimeDelta::seconds(seconds.into())
}

/// Sessions that had ended were let go, some at a time, with everything that was known of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsLetGo {
    pub sessions: u64,
    /// Events of theirs that were still kept.
    pub events: u64,
    /// The last position among those.
    pub up_to: Position,
    /// SHA-256 (hex) over the hashes of those events, in the order of the log.
    pub digest: String,
    /// The latest of the sessions: numbers and ids go on from there.
    pub last_session: SessionNumber,
    pub last_id: Uuid,
    pub applications: Vec<OfApplication>,
    /// Of sessions that were connected to something within their application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<OfResource>,
    /// How many of them a revocation had disconnected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<OfRevocation>,
}

/// How many sessions were an application's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfApplication {
    pub application: ApplicationNumber,
    pub sessions: u64,
}

/// What the sessions of a resource came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfResource {
    pub application: ApplicationNumber,
    pub resource: String,
    pub sessions: u64,
    pub bytes_out: u64,
}

impl OfResource {
    /// What they came to, by itself.
    pub fn totals(&self) -> ResourceTotals {
        ResourceTotals { sessions: self.sessions, bytes_out: self.bytes_out }
    }
}

/// What sessions of a resource that have ended came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceTotals {
    pub sessions: u64,
    pub bytes_out: u64,
}

impl ResourceTotals {
    /// Counts some more sessions.
    pub fn add(&mut self, sessions: u64, bytes_out: u64) {
        self.sessions += sessions;
        self.bytes_out = self.bytes_out.saturating_add(bytes_out).min(i64::MAX as u64);
    }
}

/// How many sessions a revocation had disconnected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfRevocation {
    pub revocation: RevocationNumber,
    pub sessions: u64,
}

/// Old activity was folded: of each session and day the last event was kept, which has the running totals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityFolded {
    /// Events that were let go.
    pub events: u64,
    /// The last position among them.
    pub up_to: Position,
    /// SHA-256 (hex) over their hashes, in the order of the log.
    pub digest: String,
}

/// All that an organization has let go so far: the sum of its events about that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LetGo {
    pub sessions: u64,
    /// Events of those sessions.
    pub events: u64,
    /// Activity events of sessions that were kept.
    pub activity: u64,
    /// Whoever has followed the organization's lifecycle events up to here has missed none of those.
    pub up_to: Position,
    pub last_session: SessionNumber,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_id: Option<Uuid>,
}

impl LetGo {
    /// With some sessions more.
    pub fn with_sessions(&self, more: &SessionsLetGo) -> Self {
        let newer = more.last_session > self.last_session;
        Self {
            sessions: self.sessions + more.sessions,
            events: self.events + more.events,
            up_to: self.up_to.max(more.up_to),
            last_session: self.last_session.max(more.last_session),
            last_id: if newer { Some(more.last_id) } else { self.last_id },
            ..*self
        }
    }

    /// With some activity more.
    pub fn with_activity(&self, more: &ActivityFolded) -> Self {
        Self { activity: self.activity + more.events, ..self.clone() }
    }
}

/// A session that has ended, with what an account of its letting go needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Departing {
    pub session: SessionNumber,
    pub id: Uuid,
    pub application: ApplicationNumber,
    pub ended_at: Time,
    pub resource: Option<String>,
    pub bytes_out: u64,
    /// The revocation that disconnected it.
    pub revocation: Option<RevocationNumber>,
    /// Its events that are kept, in any order, with their hashes.
    pub events: Vec<(Position, [u8; 32])>,
}

/// The account of letting sessions go, with the positions of their events in the order of the log; none for none.
pub fn account(departing: &[Departing]) -> Option<(SessionsLetGo, Vec<Position>)> {
    let last = departing.iter().max_by_key(|one| one.session)?;
    let events = departing.iter().flat_map(|one| one.events.iter().copied());
    let (positions, digest) = in_order(events);
    let mut applications: BTreeMap<ApplicationNumber, u64> = BTreeMap::new();
    let mut resources: BTreeMap<(ApplicationNumber, &str), ResourceTotals> = BTreeMap::new();
    let mut revocations: BTreeMap<RevocationNumber, u64> = BTreeMap::new();
    for one in departing {
        *applications.entry(one.application).or_default() += 1;
        if let Some(resource) = &one.resource {
            resources.entry((one.application, resource)).or_default().add(1, one.bytes_out);
        }
        if let Some(revocation) = one.revocation {
            *revocations.entry(revocation).or_default() += 1;
        }
    }
    let account = SessionsLetGo {
        sessions: departing.len() as u64,
        events: positions.len() as u64,
        up_to: positions.last().copied().unwrap_or_default(),
        digest,
        last_session: last.session,
        last_id: last.id,
        applications: applications
            .into_iter()
            .map(|(application, sessions)| OfApplication { application, sessions })
            .collect(),
        resources: resources
            .into_iter()
            .map(|((application, resource), ResourceTotals { sessions, bytes_out })| OfResource {
                application,
                resource: resource.to_owned(),
                sessions,
                bytes_out,
            })
            .collect(),
        revocations: revocations
            .into_iter()
            .map(|(revocation, sessions)| OfRevocation { revocation, sessions })
            .collect(),
    };
    Some((account, positions))
}

/// The account of folding activity, with the positions in the order of the log; none for none.
pub fn folded(
    events: impl IntoIterator<Item = (Position, [u8; 32])>,
) -> Option<(ActivityFolded, Vec<Position>)> {
    let (positions, digest) = in_order(events);
    let up_to = positions.last().copied()?;
    Some((ActivityFolded { events: positions.len() as u64, up_to, digest }, positions))
}

fn in_order(events: impl IntoIterator<Item = (Position, [u8; 32])>) -> (Vec<Position>, String) {
    let in_order: BTreeMap<_, _> = events.into_iter().collect();
    let digest = hex::encode(crate::chain::digest_of(in_order.values()));
    (in_order.into_keys().collect(), digest)
}
