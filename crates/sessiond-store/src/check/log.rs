//! The log, checked event by event while it is folded.

use std::collections::BTreeMap;

use sessiond_core::Time;
use sessiond_core::chain::Header;
use sessiond_core::event::Event;
use sessiond_core::ids::{ApplicationNumber, Head, Position, SessionNumber, StreamKind};
use sessiond_core::revocation::RevocationEvent;
use sessiond_core::session::Session;
use sessiond_core::session::earlier::EarlierState;
use sessiond_core::session::event::{Counts, SessionEvent};
use sessiond_core::streams::{AnyEvent, AnyStream};
use sessiond_core::throughput::Throughput;

use super::let_go::{LetGoCheck, StoredCut, StoredGap};
use super::place::Place;
use super::{Difference, Report};
use crate::{Batch, Detail, SessionActivity};

/// An event exactly as it is stored.
#[derive(Debug)]
pub struct StoredEvent<'a> {
    pub header: Header<'a>,
    pub body: Option<&'a str>,
    pub body_digest: Option<&'a [u8]>,
    pub personal: Option<&'a str>,
    pub hash: &'a [u8],
    pub commit_hash: Option<&'a [u8]>,
    /// Where its predecessors in its stream were let go.
    pub cut: Option<StoredCut<'a>>,
}

/// The log so far: its chains, and the fold of every stream.
pub struct LogCheck {
    position: i64,
    recorded_at: i64,
    commit_hash: [u8; 32],
    unknown: u64,
    erased: u64,
    /// Hashes of the commit that is being read.
    pending: Vec<[u8; 32]>,
    /// Sessions with a lifecycle event in the commit that is being read.
    lifecycle: Vec<i64>,
    /// Activity up to here is in its rows for sure; beyond, each session's rows may be at any of its activities.
    settled: i64,
    pub(super) let_go: LetGoCheck,
    /// By kind and number.
    pub(super) streams: BTreeMap<(i64, i64), Chain>,
}

/// One stream: where it stands, and its fold.
#[derive(Default)]
pub(super) struct Chain {
    pub head: Head,
    /// Position of its last event that was read.
    read: i64,
    /// It has events that only a newer release understands: what its row should be, this one cannot know.
    pub unknown: bool,
    pub state: State,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Nothing,
    Session(Box<Folded>),
    /// A revocation's with the number of `Disconnected` events that carry it so far.
    Stream(AnyStream),
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
    /// How it stood before some of its events.
    pub earlier: Vec<EarlierState>,
    /// Position of the last of its events whose predecessors were let go: how it stood up to there is not known any more.
    pub cut: i64,
}

/// A session's activity columns after one of its events.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub last_active_at: Time,
    /// Not known where the activity that had them was pruned; then a later one is there and its row is newer.
    pub total: Option<Counts>,
    /// The same holds for this.
    pub throughput: Option<Box<Throughput>>,
    pub head: Head,
}

impl Chain {
    /// Whether nothing can follow.
    pub(super) fn has_ended(&self) -> bool {
        matches!(&self.state, State::Session(folded) if folded.session.ended.is_some())
    }

    /// Goes on after events that were let go.
    fn go_on_from(&mut self, cut: &StoredCut<'_>, place: &Place<'_>) -> Result<(), Difference> {
        let before = place.0.version - 1;
        if self.head.version >= before {
            // They were there when this was read.
            return Ok(());
        }
        if self.read == 0 {
            return Err(place.difference("version", "1: a stream keeps its beginning", place.0.version));
        }
        // The last one that was read may be gone by now, and then an earlier one is named.
        if cut.previous > self.read || cut.previous < 1 {
            return Err(place.difference("previous kept position", self.read, cut.previous));
        }
        let hash = cut.hash.try_into();
        let hash = hash.map_err(|_| place.difference("hash before", "32 bytes", hex::encode(cut.hash)))?;
        self.head = Head { version: before, position: Position(place.0.previous_position), hash };
        Ok(())
    }
}

impl Folded {
    /// The newest point.
    pub fn newest(&self) -> Point {
        let Session { last_active_at, total, head, .. } = self.session;
        let throughput = self.session.throughput.clone();
        Point { last_active_at, total: self.counted.then_some(total), throughput, head }
    }

    /// The lifecycle row.
    pub fn lifecycle_row(&self) -> Session {
        let Point { last_active_at, total, throughput, head } = self.row.clone();
        let (total, throughput) = match total {
            Some(total) => (total, throughput),
            None => (self.session.total, self.session.throughput.clone()),
        };
        Session { last_active_at, total, throughput, head, ..self.session.clone() }
    }

    /// The hot row, where there must be one once all activity is settled.
    pub fn hot_row(&self) -> Option<&Session> {
        let newer = self.session.head.version > self.row.head.version;
        (newer && self.session.ended.is_none()).then_some(&self.session)
    }
}

impl LogCheck {
    /// A log of which nothing was read yet. `settled` is how far activity was settled before the reading began, and `head`
    /// where the log ended then.
    pub fn new(settled: Position, head: Position) -> Self {
        Self {
            position: 0,
            recorded_at: i64::MIN,
            commit_hash: [0; 32],
            unknown: 0,
            erased: 0,
            pending: vec![],
            lifecycle: vec![],
            settled: settled.0,
            let_go: LetGoCheck::new(head.0),
            streams: BTreeMap::new(),
        }
    }

    /// Whether sessions that were read may be gone by now.
    pub(crate) fn is_letting_go(&self) -> bool {
        self.let_go.since()
    }

    /// The sessions that were read.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Session> {
        let session = StreamKind::Session as i64;
        let chains = self.streams.range((session, i64::MIN)..=(session, i64::MAX));
        chains.filter_map(|(_, chain)| match &chain.state {
            State::Session(folded) => Some(&folded.session),
            State::Nothing | State::Stream(_) => None,
        })
    }

    /// The last position that was read.
    pub fn position(&self) -> i64 {
        self.position
    }

    pub fn report(&self) -> Report {
        let session = StreamKind::Session as i64;
        Report {
            events: self.position.unsigned_abs() - self.let_go.missing,
            let_go: self.let_go.missing,
            streams: self.streams.len() as u64,
            sessions: self.streams.range((session, i64::MIN)..=(session, i64::MAX)).count() as u64,
            unknown: self.unknown,
            erased: self.erased,
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
                State::Session(folded) => {
                    batch.activity.extend(folded.hot_row().map(SessionActivity::of));
                    batch.sessions.push(folded.lifecycle_row());
                    batch.earlier = folded.earlier;
                }
                State::Stream(row) => batch.streams.push(row),
            }
            batch
        })
    }

    /// The next event. The row of details that it makes is returned, where it makes one.
    pub fn take(
        &mut self,
        stored: &StoredEvent<'_>,
    ) -> Result<Option<(SessionNumber, ApplicationNumber, Detail)>, Difference> {
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
        if let Some(cut) = &stored.cut {
            chain.go_on_from(cut, &place)?;
        }
        place.expect("version", chain.head.version + 1, header.version)?;
        place.expect("previous_position", chain.head.position.0, header.previous_position)?;
        let digest = place.digest(stored)?;
        let hash = header.hash(&chain.head.hash, &digest);
        place.expect_bytes("hash", &hash, stored.hash)?;
        chain.head = Head { version: header.version, position: Position(header.position), hash };
        chain.read = header.position;
        self.erased += u64::from(stored.body_digest.is_some() && place.erased(stored));
        self.position = header.position;
        self.recorded_at = header.recorded_at;
        self.pending.push(hash);
        let event = place.event(stored)?;
        let detail = self.fold(stored, event)?;
        if let Some(found) = stored.commit_hash {
            self.end_commit(|expected| place.expect_bytes("commit_hash", expected, found))?;
        }
        Ok(detail)
    }

    /// The next stretch of the log that was let go. Of a commit of which something is kept every hash is there, and the chain
    /// of commits is proved over it; whole commits are passed over by the hash of the last, which the next builds on.
    pub fn take_gap(&mut self, stored: &StoredGap<'_>) -> Result<(), Difference> {
        let wrong = |what: &str, expected: String, found: String| Difference {
            place: format!("positions {} to {}, which were let go", stored.first, stored.last),
            what: what.to_owned(),
            expected,
            found,
        };
        // While this was read more may have gone, and be one stretch now with what was passed before.
        let moved = stored.hash.is_none() && stored.first <= self.position;
        if !moved && stored.first != self.position + 1 {
            return Err(wrong("first", (self.position + 1).to_string(), stored.first.to_string()));
        }
        if stored.last < stored.first {
            return Err(wrong("last", format!("{} or later", stored.first), stored.last.to_string()));
        }
        self.let_go.missing += stored.last.abs_diff(self.position);
        self.position = stored.last;
        let bytes = |what, found: &[u8]| {
            <[u8; 32]>::try_from(found).map_err(|_| wrong(what, "32 bytes".to_owned(), hex::encode(found)))
        };
        if let Some(hash) = stored.hash {
            self.pending.push(bytes("hash", hash)?);
            return stored.commit_hash.map_or(Ok(()), |found| {
                self.end_commit(|expected| match expected == found {
                    true => Ok(()),
                    false => Err(wrong("commit_hash", hex::encode(expected), hex::encode(found))),
                })
            });
        }
        if !moved && !self.pending.is_empty() {
            return Err(wrong("first", "the beginning of a commit".to_owned(), "its middle".to_owned()));
        }
        let missing = || wrong("commit_hash", "that of the last commit".to_owned(), "none".to_owned());
        self.commit_hash = bytes("commit_hash", stored.commit_hash.ok_or_else(missing)?)?;
        self.committed();
        Ok(())
    }

    /// The commit that is being read ends here, where it says so by the right hash.
    fn end_commit(&mut self, check: impl FnOnce(&[u8]) -> Result<(), Difference>) -> Result<(), Difference> {
        let expected = sessiond_core::chain::commit_hash(&self.commit_hash, &self.pending);
        check(&expected)?;
        self.commit_hash = expected;
        self.committed();
        Ok(())
    }

    /// That the log ends where a commit ends.
    pub fn complete(&self) -> Result<(), Difference> {
        if self.pending.is_empty() {
            return self.let_go.complete();
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
    ) -> Result<Option<(SessionNumber, ApplicationNumber, Detail)>, Difference> {
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
            (state, Event::Stream(event)) if key.0 == event.kind() as i64 => {
                let before = if let State::Stream(before) = state { Some(before) } else { None };
                self.let_go.tell(stored.header.position, &event);
                if let AnyEvent::Revocation(RevocationEvent::Ended(ended)) = &event {
                    let place = place.difference("", "", "").place;
                    self.let_go.revocation_ended(key.1, ended.disconnected_count, place);
                }
                State::Stream(place.begun(AnyStream::evolve(before, &event, &envelope))?)
            }
            (state, Event::Session(event)) if key.0 == StreamKind::Session as i64 => {
                if event_is_lifecycle(&event) {
                    self.lifecycle.push(key.1);
                }
                let detail = place.detail(&event, stored.personal)?;
                chain.state = place.session(state, &event, chain.head, self.settled, stored)?;
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
            Some(Chain { state: State::Stream(AnyStream::Revocation(revocation)), .. }) => {
                revocation.disconnected_count += 1;
                self.let_go.disconnected(number);
                Ok(())
            }
            _ => Err(Place(&stored.header).difference("revocation", "one that began before", number)),
        }
    }
}

pub(super) fn event_is_lifecycle(event: &SessionEvent) -> bool {
    !matches!(event, SessionEvent::ActivityRecorded(_))
}
