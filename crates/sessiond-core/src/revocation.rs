//! Revocations: what they cover, and their own small stream.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::barring::Barring;
use crate::filter::{Facts, Filter};
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, Position, RevocationNumber, StreamKind};
use crate::reason::Reason;
use crate::session::{Covered, Session};
use crate::stream::{Envelope, Stream, StreamEvent, StreamRefusal, text};

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
    /// On how many nodes it was true by then; none where there was one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Acknowledged>,
}

/// On how many nodes something is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Nodes that could let somebody in when that was asked, the one among them that asked.
    pub asked: u32,
    /// Those that have applied it, and let go of what it cut off.
    pub acknowledged: u32,
    /// Those whose leave to let somebody in has run out instead, until they have applied it.
    pub expired: u32,
}

impl Acknowledged {
    /// Where there is one process.
    pub const ALONE: Self = Self { asked: 1, acknowledged: 1, expired: 0 };
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

/// What the revocation worker wants of a revocation.
#[derive(Debug, Clone)]
pub enum RevocationCommand {
    Begin(Box<RevocationBegan>),
    /// With the number of requests and streams that it cut off, and the nodes on which that is true.
    End {
        streams_closed: u64,
        nodes: Option<Acknowledged>,
    },
}

impl Stream for Revocation {
    const KIND: StreamKind = StreamKind::Revocation;
    type Event = RevocationEvent;
    type Command = RevocationCommand;

    fn decide(
        before: Option<&Self>,
        command: &RevocationCommand,
    ) -> Result<Option<RevocationEvent>, StreamRefusal> {
        match (before, command) {
            (None, RevocationCommand::Begin(began)) => Ok(Some(RevocationEvent::Began(began.clone()))),
            (Some(before), RevocationCommand::End { streams_closed, nodes }) if before.ended_at.is_none() => {
                Ok(Some(RevocationEvent::Ended(RevocationEnded {
                    disconnected_count: before.disconnected_count,
                    streams_closed: Some(*streams_closed),
                    nodes: *nodes,
                })))
            }
            _ => Err(StreamRefusal::Gone),
        }
    }

    fn evolve(before: Option<Self>, event: &RevocationEvent, envelope: &Envelope) -> Option<Self> {
        let (at, head) = (envelope.occurred_at, envelope.head);
        match (before, event) {
            (_, RevocationEvent::Began(began)) => Some(Revocation {
                number: RevocationNumber(envelope.number),
                id: began.id,
                organization: envelope.organization,
                filter: began.filter.clone(),
                reason: began.reason,
                note: began.note.clone(),
                fence: head.position,
                instant: at,
                ended_at: None,
                disconnected_count: 0,
                head,
            }),
            (Some(before), RevocationEvent::Ended(ended)) => Some(Revocation {
                ended_at: Some(at),
                disconnected_count: ended.disconnected_count,
                head,
                ..before
            }),
            (None, RevocationEvent::Ended(_)) => None,
        }
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    fn application(&self) -> Option<ApplicationNumber> {
        self.filter.application
    }
}

impl StreamEvent for RevocationEvent {
    const NAMES: &[&str] = &["revocation_began", "revocation_ended"];

    fn name(&self) -> &'static str {
        match self {
            Self::Began(_) => "revocation_began",
            Self::Ended(_) => "revocation_ended",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Began(body) => text(body),
            Self::Ended(body) => text(body),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "revocation_began" => Self::Began(serde_json::from_str(body)?),
            "revocation_ended" => Self::Ended(serde_json::from_str(body)?),
            _ => return Ok(None),
        }))
    }
}
