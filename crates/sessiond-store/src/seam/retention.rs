//! What may be let go.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::{OrganizationNumber, Position, SessionNumber};
use sessiond_core::retention::Departing;

use crate::StoreError;

/// How much ended before an instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndedBefore {
    pub sessions: u64,
    /// Events that they have had, whether all of them are kept or not.
    pub events: u64,
}

/// Activity that may be let go, since a later one of its session and day says what it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foldable {
    pub events: Vec<FoldableEvent>,
    /// How far the log was looked through; none: there was nothing to look at.
    pub up_to: Option<Position>,
}

/// One of those events, and the one after it in its stream, which will have to go on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldableEvent {
    pub organization: OrganizationNumber,
    pub position: Position,
    pub hash: [u8; 32],
    /// The last kept event before it in its stream.
    pub previous: Position,
    pub next: Position,
}

/// From where a kept event goes on whose predecessors in its stream were let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Of the kept event.
    pub position: Position,
    /// The last kept event before it in its stream.
    pub previous: Position,
    /// Of the event just before it.
    pub hash: [u8; 32],
}

impl Cut {
    /// Where the log goes on if these events are let go: each at the end of the run of them that it is for.
    pub fn made_by(events: &[FoldableEvent]) -> Vec<Self> {
        let in_order: BTreeMap<_, _> = events.iter().map(|one| (one.position, one)).collect();
        let mut cuts: BTreeMap<Position, Self> = BTreeMap::new();
        for one in in_order.values() {
            let previous = cuts.remove(&one.position).map_or(one.previous, |before| before.previous);
            cuts.insert(one.next, Self { position: one.next, previous, hash: one.hash });
        }
        cuts.into_values().collect()
    }
}

/// Look-ups for letting go, a chunk at a time. What they find is let go by
/// [`SideWrite::LetSessionsGo`](crate::SideWrite::LetSessionsGo) and [`SideWrite::Fold`](crate::SideWrite::Fold), in the
/// transaction of the event that accounts for it.
#[async_trait]
pub trait Retention: Send + Sync {
    /// How many sessions of an organization ended before an instant.
    async fn ended_before(
        &self,
        organization: OrganizationNumber,
        before: Time,
    ) -> Result<EndedBefore, StoreError>;

    /// Sessions of an organization that ended before an instant, the first to end first: at most so many, and as many as
    /// have this many events together. Where the first has more by itself it comes alone, with one more than this many. Those
    /// stay that an unfinished revocation disconnected, because its count is not on record yet.
    async fn departing(
        &self,
        organization: OrganizationNumber,
        before: Time,
        sessions: u32,
        events: usize,
    ) -> Result<Vec<Departing>, StoreError>;

    /// Looks through events after a position that were recorded before an instant, at most `limit` of them, for activity of
    /// some organizations whose next event in its stream is activity of the same day (UTC). What has not come into the
    /// rows yet ([`Batch::activity`](crate::Batch::activity)) is not looked at, and the activity at which a session's row
    /// stands ([`Batch::sessions`](crate::Batch::sessions)) is not named.
    async fn foldable(
        &self,
        organizations: &[OrganizationNumber],
        after: Position,
        before: Time,
        limit: u32,
    ) -> Result<Foldable, StoreError>;

    /// The same of one session that has ended, whatever the day and however young, newest first; among its newest events, at most
    /// `limit` of them.
    async fn foldable_of(
        &self,
        organization: OrganizationNumber,
        session: SessionNumber,
        limit: usize,
    ) -> Result<Vec<FoldableEvent>, StoreError>;

    /// How far folding has come, by organization ([`SideWrite::FoldedTo`](crate::SideWrite::FoldedTo)).
    async fn folded_to(&self) -> Result<Vec<(OrganizationNumber, Position)>, StoreError>;
}
