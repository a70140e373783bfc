//! Revocations: what they cover, and their own small stream.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::bar::Barring;
use crate::filter::{Facts, Filter};
use crate::ids::{Head, OrganizationNumber, Position, RevocationNumber};
use crate::reason::Reason;

use crate::session::{Covered, Session};

/// What happens to a revocation.
#[derive(Debug, Clone, PartialEq)]
pub enum RevocationEvent {
    Began(Box<RevocationBegan>),
    Ended(RevocationEnded),
}

/// From here on what it covers is refused; the worker ends it session by session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationBegan {
    pub id: Uuid,
    #[serde(flatten)]
    pub filter: Filter,
    /// What its `Disconnected` events will say.
    pub reason: Reason,
    /// The operator's own words, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How many sessions it covered when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<u64>,
    /// The schedule that wanted it, by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<i64>,
    /// What became of the credentials behind what it covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Barring>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationEnded {
    /// How many sessions this revocation disconnected: the number of `Disconnected` events that carry it.
    pub disconnected_count: u64,
    /// How many requests and streams that were under way it cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams_closed: Option<u64>,
}

/// The fold of a revocation's events, with the count of what it has recorded so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    pub number: RevocationNumber,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub filter: Filter,
    pub reason: Reason,
    pub note: Option<String>,
    /// Position of `RevocationBegan`: what connected after it is not touched.
    pub fence: Position,
    /// When it began: the `occurred_at` of everything it does.
    pub instant: Time,
    pub ended_at: Option<Time>,
    /// How many `Disconnected` events carry this revocation.
    pub disconnected_count: u64,
    pub head: Head,
}

impl Revocation {
    /// As it would begin: what connects at `fence` or later is not touched.
    pub fn planned(
        number: RevocationNumber,
        organization: OrganizationNumber,
        (filter, reason): (&Filter, Reason),
        fence: Position,
        instant: Time,
    ) -> Self {
        Self {
            number,
            id: Uuid::nil(),
            organization,
            filter: filter.clone(),
            reason,
            note: None,
            fence,
            instant,
            ended_at: None,
            disconnected_count: 0,
            head: Head::default(),
        }
    }

    /// What a decision about a session that it covers depends on.
    pub fn covered(&self) -> Covered {
        Covered { reason: self.reason, instant: self.instant }
    }

    /// In force in memory only, because it found the disk full; its number is negative and of no log.
    pub fn is_provisional(&self) -> bool {
        self.number.0 < 0
    }

    /// Whether this revocation, begun and not ended, covers the session, as it stood at the revocation's instant. That
    /// can still be told later: nothing keeps a covered session alive from then on, so one that was active since was not
    /// covered where it would have mattered.
    pub fn covers(&self, session: &Session, facts: &Facts<'_>) -> bool {
        let last = facts.seen_at.map_or(session.last_active_at, |seen| seen.max(session.last_active_at));
        self.ended_at.is_none()
            && !(self.filter.moves() && last > self.instant)
            && session.organization == self.organization
            && session.connected_at_position < self.fence
            && self.filter.fits(session, facts, self.instant)
    }
}

/// The fold. Cannot fail: what happened, happened. `head` is where the stream stands after the event.
pub fn evolve(
    revocation: Option<Revocation>,
    event: &RevocationEvent,
    number: RevocationNumber,
    organization: OrganizationNumber,
    occurred_at: Time,
    head: Head,
) -> Option<Revocation> {
    match (revocation, event) {
        (_, RevocationEvent::Began(began)) => Some(Revocation {
            number,
            id: began.id,
            organization,
            filter: began.filter.clone(),
            reason: began.reason,
            note: began.note.clone(),
            fence: head.position,
            instant: occurred_at,
            ended_at: None,
            disconnected_count: 0,
            head,
        }),
        (Some(revocation), RevocationEvent::Ended(ended)) => Some(Revocation {
            ended_at: Some(occurred_at),
            disconnected_count: ended.disconnected_count,
            head,
            ..revocation
        }),
        (None, RevocationEvent::Ended(_)) => None,
    }
}
