//! The log, checked event by event while it is folded.

use std::collections::BTreeMap;

use super::{Difference, Report};
use crate::core::Time;
use crate::core::application::{
    Application, Envelope as DirectoryEnvelope, Organization, ServiceAccount, evolve_application,
    evolve_organization, evolve_service_account,
};
use crate::core::caller::{Actor, ActorKind};
use crate::core::event::{
    ACTIVITY, ActivityRecorded, ActivitySource, Counts, Event, Header, Personal, RevocationEvent,
    SessionEvent, body_digest, personal_digest,
};
use crate::core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, RevocationNumber, SessionNumber, StreamKind,
};
use crate::core::revocation::{self, Revocation};
use crate::core::session::{Envelope, Session, evolve};
use crate::store::{Batch, Detail};

/// An event exactly as it is stored.
#[derive(Debug)]
pub struct StoredEvent<'a> {
    pub header: Header<'a>,
    pub body: Option<&'a str>,
    pub body_digest: Option<&'a [u8]>,
    pub personal: Option<&'a str>,
    pub hash: &'a [u8],
    pub commit_hash: Option<&'a [u8]>,
}

/// The log so far: its chains, and the fold of every stream.
pub struct Log {
    position: i64,
    recorded_at: i64,
    commit_hash: [u8; 32],
    unknown: u64,
    /// Hashes of the commit that is being read.
    pending: Vec<[u8; 32]>,
    /// Sessions with a lifecycle event in the commit that is being read.
    lifecycle: Vec<i64>,
    /// Activity up to here is in its rows for sure; beyond, each session's rows may be at any of its activities.
    settled: i64,
    /// By kind and number.
    pub(super) streams: BTreeMap<(i64, i64), Chain>,
}

/// One stream: where it stands, and its fold.
#[derive(Default)]
pub(super) struct Chain {
    pub head: Head,
    /// It has events that only a newer release understands: what its row should be, this one cannot know.
    pub unknown: bool,
    pub state: State,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Nothing,
    Organization(Organization),
    Application(Box<Application>),
    ServiceAccount(Box<ServiceAccount>),
    Session(Box<Folded>),
    /// With the number of `Disconnected` events that carry it.
    Revocation(Box<Revocation>, u64),
}

/// A session's fold, and where its rows may stand.
pub(super) struct Folded {
    pub session: Session,
    /// What its lifecycle row shows: the end of the last commit that brought it a lifecycle event.
    pub row: Point,
    /// Where its hot row may stand short of the newest: after each activity that may not be settled yet.
    pub tail: Vec<Point>,
    /// Whether the last activity has its body, and with it the totals.
    pub counted: bool,
}

/// A session's activity columns after one of its events.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub last_active_at: Time,
    /// Not known where the activity that had them was pruned; then a later one is there and its row is newer.
    pub total: Option<Counts>,
    pub head: Head,
}

impl Folded {
    /// The newest point.
    pub fn newest(&self) -> Point {
        let Session { last_active_at, total, head, .. } = self.session;
        Point { last_active_at, total: self.counted.then_some(total), head }
    }

    /// The lifecycle row.
    pub fn lifecycle_row(&self) -> Session {
        let Point { last_active_at, total, head } = self.row;
        let total = total.unwrap_or(self.session.total);
        Session { last_active_at, total, head, ..self.session.clone() }
    }

    /// The hot row, where there must be one once all activity is settled.
    pub fn hot_row(&self) -> Option<&Session> {
        let newer = self.session.head.version > self.row.head.version;
        (newer && self.session.ended.is_none()).then_some(&self.session)
    }
}

impl Log {
    /// A log of which nothing was read yet. `settled` is how far activity was settled before the reading began.
    pub fn new(settled: Position) -> Self {
        Self {
            position: 0,
            recorded_at: i64::MIN,
            commit_hash: [0; 32],
            unknown: 0,
            pending: vec![],
            lifecycle: vec![],
            settled: settled.0,
            streams: BTreeMap::new(),
        }
    }

    /// The last position that was read.
    pub fn position(&self) -> i64 {
        self.position
    }

    pub fn report(&self) -> Report {
        let session = StreamKind::Session as i64;
        Report {
            events: self.position.unsigned_abs(),
            streams: self.streams.len() as u64,
            sessions: self.streams.range((session, i64::MIN)..=(session, i64::MAX)).count() as u64,
            unknown: self.unknown,
            position: Position(self.position),
            commit_hash: self.commit_hash,
        }
    }

    /// The rows that the log makes, each as a batch of one, by kind and number.
    pub fn into_rows(self) -> impl Iterator<Item = Batch> {
        self.streams.into_values().map(|chain| {
            let mut batch = Batch::default();
            match chain.state {
                State::Nothing => {}
                State::Organization(row) => batch.organizations.push(row),
                State::Application(row) => batch.applications.push(*row),
                State::ServiceAccount(row) => batch.service_accounts.push(*row),
                State::Session(folded) => {
                    batch.settle.extend(folded.hot_row().cloned());
                    batch.sessions.push(folded.lifecycle_row());
                }
                State::Revocation(row, disconnected_count) => {
                    batch.revocations.push(Revocation { disconnected_count, ..*row });
                }
            }
            batch
        })
    }

    /// The next event. The row of details that it makes is returned, where it makes one.
    pub fn take(&mut self, stored: &StoredEvent<'_>) -> Result<Option<(SessionNumber, Detail)>, Difference> {
        let header = &stored.header;
        let place = Place(header);
        place.expect("position", self.position + 1, header.position)?;
        if header.recorded_at < self.recorded_at {
            return Err(place.difference(
                "recorded_at",
                format!("{} or later", self.recorded_at),
                header.recorded_at,
            ));
        }
        let chain = self.streams.entry((header.stream_kind, header.stream_number)).or_default();
        place.expect("version", chain.head.version + 1, header.version)?;
        place.expect("previous_position", chain.head.position.0, header.previous_position)?;
        let digest = place.digest(stored)?;
        let hash = header.hash(&chain.head.hash, &digest);
        place.expect_bytes("hash", &hash, stored.hash)?;
        chain.head = Head { version: header.version, position: Position(header.position), hash };
        self.position = header.position;
        self.recorded_at = header.recorded_at;
        self.pending.push(hash);
        let event = place.event(stored)?;
        let detail = self.fold(stored, event)?;
        if let Some(found) = stored.commit_hash {
            let expected = crate::core::event::commit_hash(&self.commit_hash, &self.pending);
            place.expect_bytes("commit_hash", &expected, found)?;
            self.commit_hash = expected;
            self.committed();
        }
        Ok(detail)
    }

    /// That the log ends where a commit ends.
    pub fn complete(&self) -> Result<(), Difference> {
        if self.pending.is_empty() {
            return Ok(());
        }
        Err(Difference {
            place: format!("position {}, the last of the log", self.position),
            what: "commit_hash".to_owned(),
            expected: "the end of a commit".to_owned(),
            found: "none: the log's tail was cut off".to_owned(),
        })
    }

    /// A commit is whole: it left the lifecycle rows of the sessions it touched as they are now.
    fn committed(&mut self) {
        self.pending.clear();
        for number in self.lifecycle.drain(..) {
            let chain = self.streams.get_mut(&(StreamKind::Session as i64, number));
            if let Some(Chain { state: State::Session(folded), .. }) = chain {
                folded.row = folded.newest();
                folded.tail.clear();
            }
        }
    }

    fn fold(
        &mut self,
        stored: &StoredEvent<'_>,
        event: Event,
    ) -> Result<Option<(SessionNumber, Detail)>, Difference> {
        let place = Place(&stored.header);
        let key = (stored.header.stream_kind, stored.header.stream_number);
        if let Event::Session(SessionEvent::Disconnected(_)) = &event {
            self.count(stored)?;
        }
        let Some(chain) = self.streams.get_mut(&key) else { return Ok(None) };
        let envelope = place.directory_envelope(chain.head);
        chain.state = match (std::mem::take(&mut chain.state), event) {
            (state, Event::Unknown { .. }) => {
                self.unknown += 1;
                chain.unknown = true;
                state
            }
            (_, Event::Organization(event)) if key.0 == StreamKind::Organization as i64 => {
                State::Organization(evolve_organization(&event, &envelope))
            }
            (state, Event::Application(event)) if key.0 == StreamKind::Application as i64 => {
                let before = if let State::Application(before) = state { Some(*before) } else { None };
                let after = evolve_application(before, &event, &envelope);
                State::Application(Box::new(place.begun(after)?))
            }
            (state, Event::ServiceAccount(event)) if key.0 == StreamKind::ServiceAccount as i64 => {
                let before = if let State::ServiceAccount(before) = state { Some(*before) } else { None };
                let after = evolve_service_account(before, &event, &envelope);
                State::ServiceAccount(Box::new(place.begun(after)?))
            }
            (state, Event::Revocation(event)) if key.0 == StreamKind::Revocation as i64 => {
                place.revocation(state, &event, &envelope)?
            }
            (state, Event::Session(event)) if key.0 == StreamKind::Session as i64 => {
                if event_is_lifecycle(&event) {
                    self.lifecycle.push(key.1);
                }
                let detail = place.detail(&event, stored.personal)?;
                chain.state =
                    place.session(state, &event, chain.head, self.settled, stored.body.is_none())?;
                return Ok(detail);
            }
            _ => return Err(place.difference("type", "one of its kind of stream", stored.header.name)),
        };
        Ok(None)
    }

    /// Counts a `Disconnected` for the revocation that it carries.
    fn count(&mut self, stored: &StoredEvent<'_>) -> Result<(), Difference> {
        let Some(number) = stored.header.revocation else { return Ok(()) };
        match self.streams.get_mut(&(StreamKind::Revocation as i64, number)) {
            Some(Chain { state: State::Revocation(_, count), .. }) => {
                *count += 1;
                Ok(())
            }
            _ => Err(Place(&stored.header).difference("revocation", "one that began before", number)),
        }
    }
}

fn event_is_lifecycle(event: &SessionEvent) -> bool {
    !matches!(event, SessionEvent::ActivityRecorded(_))
}

/// Where in the log something is, for saying so and for reading what stands there.
struct Place<'a>(&'a Header<'a>);

impl Place<'_> {
    fn difference(
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

    fn expect(&self, what: &str, expected: i64, found: i64) -> Result<(), Difference> {
        if expected == found { Ok(()) } else { Err(self.difference(what, expected, found)) }
    }

    fn expect_bytes(&self, what: &str, expected: &[u8], found: &[u8]) -> Result<(), Difference> {
        if expected == found {
            Ok(())
        } else {
            Err(self.difference(what, hex::encode(expected), hex::encode(found)))
        }
    }

    /// The digest of the body: made from it, or kept in its place where it was pruned.
    fn digest(&self, stored: &StoredEvent<'_>) -> Result<[u8; 32], Difference> {
        let Some(body) = stored.body else {
            if self.0.name != ACTIVITY {
                return Err(self.difference("body", "a body: only activity is ever pruned", "none"));
            }
            let kept = stored.body_digest.and_then(|digest| digest.try_into().ok());
            return kept
                .ok_or_else(|| self.difference("body_digest", "32 bytes: the body was pruned", "none"));
        };
        let digest = body_digest(body);
        if let Some(kept) = stored.body_digest {
            self.expect_bytes("body_digest", &digest, kept)?;
        }
        Ok(digest)
    }

    /// What the body says. A pruned activity counts nothing; a later one's totals make up for it.
    fn event(&self, stored: &StoredEvent<'_>) -> Result<Event, Difference> {
        let event = match stored.body {
            Some(body) => Event::parse(self.0.name, body)
                .map_err(|error| self.difference("body", format!("that of {}", self.0.name), error))?,
            None => Event::Session(SessionEvent::ActivityRecorded(ActivityRecorded {
                source: ActivitySource::Report,
                counts: Counts::default(),
                total: Counts::default(),
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

    fn time(&self, what: &str, milliseconds: i64) -> Result<Time, Difference> {
        let time = Time::from_timestamp_millis(milliseconds);
        time.ok_or_else(|| self.difference(what, "a time", milliseconds))
    }

    fn directory_envelope(&self, head: Head) -> DirectoryEnvelope {
        DirectoryEnvelope {
            number: self.0.stream_number,
            organization: OrganizationNumber(self.0.organization),
            occurred_at: Time::from_timestamp_millis(self.0.occurred_at).unwrap_or_default(),
            head,
        }
    }

    /// The fold of a stream whose beginning was seen.
    fn begun<Value>(&self, folded: Option<Value>) -> Result<Value, Difference> {
        folded.ok_or_else(|| self.difference("type", "what a stream of its kind begins with", self.0.name))
    }

    fn revocation(
        &self,
        state: State,
        event: &RevocationEvent,
        envelope: &DirectoryEnvelope,
    ) -> Result<State, Difference> {
        let (before, count) = match state {
            State::Revocation(before, count) => (Some(*before), count),
            _ => (None, 0),
        };
        if let RevocationEvent::Ended(ended) = event
            && ended.disconnected_count != count
        {
            let what = "disconnectedCount";
            return Err(self.difference(what, count, ended.disconnected_count));
        }
        let DirectoryEnvelope { number, organization, occurred_at, head } = *envelope;
        let number = RevocationNumber(number);
        let after = revocation::evolve(before, event, number, organization, occurred_at, head);
        Ok(State::Revocation(Box::new(self.begun(after)?), count))
    }

    fn session(
        &self,
        state: State,
        event: &SessionEvent,
        head: Head,
        settled: i64,
        pruned: bool,
    ) -> Result<State, Difference> {
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
            let row = Point { last_active_at: session.last_active_at, total: None, head: session.head };
            return Ok(State::Session(Box::new(Folded { session, row, tail: vec![], counted: true })));
        };
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

    fn actor(&self) -> Result<Actor, Difference> {
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
    fn detail(
        &self,
        event: &SessionEvent,
        personal: Option<&str>,
    ) -> Result<Option<(SessionNumber, Detail)>, Difference> {
        let SessionEvent::Connected(connected) = event else { return Ok(None) };
        let personal: Option<Personal> = personal
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| self.difference("personal", "JSON of the personal facts", error))?;
        let detail = Detail::of(connected, personal.as_ref());
        Ok(Some((SessionNumber(self.0.stream_number), detail)))
    }
}

/// The row of details that a `Connected`, as stored, makes. Both were checked when the log was walked.
pub(super) fn detail_of(body: Option<&str>, personal: Option<&str>) -> Option<Detail> {
    let connected = serde_json::from_str(body?).ok()?;
    let personal: Option<Personal> = personal.and_then(|personal| serde_json::from_str(personal).ok());
    Some(Detail::of(&connected, personal.as_ref()))
}
