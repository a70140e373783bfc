//! One event of the log: what is wrong with it is said with its place, what it says is read and folded.

use sessiond_core::Time;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::chain::{Header, body_digest};
use sessiond_core::event::Event;
use sessiond_core::ids::{ApplicationNumber, Head, OrganizationNumber, SessionNumber, StreamKind};
use sessiond_core::personal::{Personal, personal_digest};
use sessiond_core::session::earlier::EarlierState;
use sessiond_core::session::event::{
    ACTIVITY, ActivityRecorded, ActivitySource, CONNECTED, Connected, Counts, SessionEvent,
};
use sessiond_core::session::{Envelope, evolve};
use sessiond_core::stream::Envelope as DirectoryEnvelope;

use super::Difference;
use super::log::{Folded, Point, State, StoredEvent, event_is_lifecycle};
use crate::Detail;

/// Where in the log something is, for saying so and for reading what stands there.
pub(super) struct Place<'a>(pub &'a Header<'a>);

impl Place<'_> {
    pub fn difference(
        &self,
        what: &str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Difference {
        let Header { position, stream_kind, stream_number, version, .. } = self.0;
        let kind = StreamKind::from_code(*stream_kind)
            .map_or_else(|| format!("stream of kind {stream_kind},"), |kind| kind.word().to_owned());
        Difference {
            place: format!("position {position} ({kind} {stream_number}, version {version})"),
            what: what.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    pub fn expect(&self, what: &str, expected: i64, found: i64) -> Result<(), Difference> {
        if expected == found { Ok(()) } else { Err(self.difference(what, expected, found)) }
    }

    pub fn expect_bytes(&self, what: &str, expected: &[u8], found: &[u8]) -> Result<(), Difference> {
        if expected == found {
            Ok(())
        } else {
            Err(self.difference(what, hex::encode(expected), hex::encode(found)))
        }
    }

    /// The digest of the body: made from it, or kept in its place where it was pruned.
    pub fn digest(&self, stored: &StoredEvent<'_>) -> Result<[u8; 32], Difference> {
        let Some(body) = stored.body else {
            if self.0.name != ACTIVITY {
                return Err(self.difference("body", "a body: only activity is ever pruned", "none"));
            }
            let kept = stored.body_digest.and_then(|digest| digest.try_into().ok());
            return kept
                .ok_or_else(|| self.difference("body_digest", "32 bytes: the body was pruned", "none"));
        };
        let digest = body_digest(body);
        match stored.body_digest {
            Some(kept) if self.erased(stored) => kept.try_into().map_err(|_| {
                self.difference(
                    "body_digest",
                    "32 bytes: what was personal in the body was erased",
                    hex::encode(kept),
                )
            }),
            Some(kept) => self.expect_bytes("body_digest", &digest, kept).map(|()| digest),
            None => Ok(digest),
        }
    }

    /// Whether a body may differ from what was hashed: of a `Connected` from before all that is personal stood beside it,
    /// once that was erased. Nothing that could have been erased is left in it.
    pub fn erased(&self, stored: &StoredEvent<'_>) -> bool {
        let bare = |body| serde_json::from_str::<Connected>(body).is_ok_and(|body| body.erased().is_none());
        self.0.name == CONNECTED
            && stored.personal.is_none()
            && stored.body_digest.is_some_and(|kept| kept.len() == 32)
            && stored.body.is_some_and(bare)
    }

    /// What the body says. A pruned activity counts nothing; a later one's totals make up for it.
    pub fn event(&self, stored: &StoredEvent<'_>) -> Result<Event, Difference> {
        let event = match stored.body {
            Some(body) => Event::parse(self.0.name, body)
                .map_err(|error| self.difference("body", format!("that of {}", self.0.name), error))?,
            None => Event::Session(SessionEvent::ActivityRecorded(ActivityRecorded {
                source: ActivitySource::Report,
                counts: Counts::default(),
                total: Counts::default(),
                throughput: None,
            })),
        };
        match (&event, stored.personal) {
            (_, None) | (Event::Unknown { .. }, _) => Ok(event),
            (Event::Session(SessionEvent::Connected(connected)), Some(personal)) => {
                let found = personal_digest(personal);
                if connected.personal == found {
                    return Ok(event);
                }
                Err(self.difference("SHA-256 of personal", &connected.personal, found))
            }
            (_, Some(personal)) => Err(self.difference("personal", "none", personal)),
        }
    }

    pub fn time(&self, what: &str, milliseconds: i64) -> Result<Time, Difference> {
        let time = Time::from_timestamp_millis(milliseconds);
        time.ok_or_else(|| self.difference(what, "a time", milliseconds))
    }

    pub fn directory_envelope(&self, head: Head) -> DirectoryEnvelope {
        DirectoryEnvelope {
            number: self.0.stream_number,
            organization: OrganizationNumber(self.0.organization),
            occurred_at: Time::from_timestamp_millis(self.0.occurred_at).unwrap_or_default(),
            head,
        }
    }

    /// The fold of a stream whose beginning was seen.
    pub fn begun<Value>(&self, folded: Option<Value>) -> Result<Value, Difference> {
        folded.ok_or_else(|| self.difference("type", "what a stream of its kind begins with", self.0.name))
    }

    pub fn session(
        &self,
        state: State,
        event: &SessionEvent,
        head: Head,
        settled: i64,
        stored: &StoredEvent<'_>,
    ) -> Result<State, Difference> {
        let pruned = stored.body.is_none();
        let mut actor = Actor::SYSTEM;
        if let SessionEvent::Connected(_) = event {
            actor = self.actor()?;
        }
        let envelope = Envelope {
            number: SessionNumber(self.0.stream_number),
            organization: OrganizationNumber(self.0.organization),
            application: ApplicationNumber(self.0.application.unwrap_or_default()),
            actor,
            occurred_at: self.time("occurred_at", self.0.occurred_at)?,
            head,
        };
        let State::Session(mut folded) = state else {
            let session = self.begun(evolve(None, event, &envelope))?;
            let row = Point {
                last_active_at: session.last_active_at,
                total: None,
                throughput: None,
                head: session.head,
            };
            let (tail, earlier) = (vec![], vec![]);
            return Ok(State::Session(Box::new(Folded {
                session,
                row,
                tail,
                counted: true,
                earlier,
                cut: 0,
            })));
        };
        let recorded_at = self.time("recorded_at", self.0.recorded_at)?;
        folded.earlier.extend(EarlierState::ended_by(&folded.session, event, head.position, recorded_at));
        if stored.cut.is_some() {
            folded.cut = self.0.position;
        }
        if event_is_lifecycle(event) {
            folded.tail.clear();
        } else {
            if self.0.position > settled {
                folded.tail.push(folded.newest());
            }
            folded.counted = !pruned;
        }
        let total = folded.session.total;
        folded.session = self.begun(evolve(Some(folded.session), event, &envelope))?;
        if pruned {
            folded.session.total = total;
        }
        Ok(State::Session(folded))
    }

    pub fn actor(&self) -> Result<Actor, Difference> {
        let kind = ActorKind::from_code(self.0.actor_kind)
            .ok_or_else(|| self.difference("actor_kind", "a known one", self.0.actor_kind))?;
        let id = match self.0.actor_id {
            None => uuid::Uuid::nil(),
            Some(bytes) => uuid::Uuid::from_slice(bytes)
                .map_err(|_| self.difference("actor_id", "16 bytes", hex::encode(bytes)))?,
        };
        Ok(Actor { kind, id })
    }

    /// The row of details that a `Connected` makes.
    pub fn detail(
        &self,
        event: &SessionEvent,
        personal: Option<&str>,
    ) -> Result<Option<(SessionNumber, ApplicationNumber, Detail)>, Difference> {
        let SessionEvent::Connected(connected) = event else { return Ok(None) };
        let personal: Option<Personal> = personal
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| self.difference("personal", "JSON of the personal facts", error))?;
        let detail = Detail::of(connected, personal.as_ref());
        let application = ApplicationNumber(self.0.application.unwrap_or_default());
        Ok(Some((SessionNumber(self.0.stream_number), application, detail)))
    }
}

/// The row of details that a `Connected`, as stored, makes. Both were checked when the log was walked.
pub(super) fn detail_of(body: Option<&str>, personal: Option<&str>) -> Option<Detail> {
    let connected = serde_json::from_str(body?).ok()?;
    let personal: Option<Personal> = personal.and_then(|personal| serde_json::from_str(personal).ok());
    Some(Detail::of(&connected, personal.as_ref()))
}
