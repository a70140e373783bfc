//! How activity settles: an event of activity does not rewrite its session's hot row (`session_activity`) at once, because
//! events are appended and rows are scattered. The newest figures wait here, and go into their rows in passes, a slice with
//! each transaction, in the order of session numbers. `mark('settled')` says how far the log is in the rows; what lies beyond
//! it is folded over them when the database is opened. `docs/decisions/0001-activity-settles.md` says why.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sessiond_core::event::Event;
use sessiond_core::ids::{Position, SessionNumber, StreamKind};
use sessiond_core::session::{Session, evolve};
use sqlx::SqliteConnection;

use super::{log, sessions};
use crate::StoreError;
use crate::row::{Batch, Entry, SessionActivity};

/// A pass begins when the log's tail beyond the rows has so many events, or so much time has passed since the last began.
const EVENTS: i64 = 65_536;
const INTERVAL: Duration = Duration::from_secs(10);
/// Hot rows written with one transaction: little enough that nobody waits for it.
const SLICE: usize = 128;
/// Events of the log's tail read at a time.
const PAGE: u32 = 2_000;

/// Figures by session, each the newest that was not handed on.
pub(super) type Unsettled = BTreeMap<SessionNumber, SessionActivity>;

/// What the log's tail says beyond the rows, as of its last position.
#[derive(Clone)]
pub(super) struct LogTail {
    pub(super) head: Position,
    pub(super) unsettled: Unsettled,
}

/// Activity on its way into the hot rows.
pub(super) struct Settling {
    /// The last position of the log, and the one up to which all activity is in the rows.
    head: Position,
    settled: Position,
    dirty: Unsettled,
    /// What the pass under way still has to write, and the position up to which all is settled once it is through.
    pass: Option<(Position, Unsettled)>,
    since: Instant,
}

/// What one transaction settles.
#[derive(Default)]
pub(super) struct Slice {
    pub(super) rows: Vec<SessionActivity>,
    /// Everything up to here is settled by it.
    pub(super) settled: Option<Position>,
    /// The last session that the pass is through with; none where it is through with all.
    last: Option<SessionNumber>,
}

impl Slice {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.settled.is_none()
    }
}

impl Settling {
    /// For who writes all rows at once.
    pub(super) fn nothing() -> Self {
        let (head, settled) = (Position(0), Position(0));
        Self { head, settled, dirty: Unsettled::new(), pass: None, since: Instant::now() }
    }

    /// Picks up where the rows of a database stand.
    pub(super) async fn begin(connection: &mut SqliteConnection) -> Result<Self, StoreError> {
        let settled = log::mark(&mut *connection, "settled").await?;
        let LogTail { head, unsettled } = tail(connection).await?;
        Ok(Self { head, settled, dirty: unsettled, pass: None, since: Instant::now() })
    }

    /// What is not settled, before anything was committed.
    pub(super) fn tail(&self) -> LogTail {
        LogTail { head: self.head, unsettled: self.dirty.clone() }
    }

    /// What the transaction of a batch settles along with it, while a pass is under way; a pass begins when one is due.
    pub(super) fn slice(&mut self, batch: &Batch) -> Slice {
        let tail = self.head.0 - self.settled.0;
        let due = tail > EVENTS || self.since.elapsed() >= INTERVAL;
        if self.pass.is_none() && due {
            self.since = Instant::now();
            if !self.dirty.is_empty() || tail > EVENTS {
                self.pass = Some((self.head, std::mem::take(&mut self.dirty)));
            }
        }
        let Some((target, left)) = &self.pass else { return Slice::default() };
        let whole = |number: &SessionNumber| {
            // Its row is written whole, with newer figures.
            batch.sessions.binary_search_by_key(number, |session| session.number).is_ok()
        };
        let some = left.iter().take(SLICE);
        Slice {
            last: left.keys().nth(SLICE - 1).copied(),
            rows: some.filter(|(number, _)| !whole(number)).map(|(_, activity)| activity.clone()).collect(),
            settled: (left.len() <= SLICE).then_some(*target),
        }
    }

    /// Takes note of what was committed: a batch, and with it a slice.
    pub(super) fn committed(&mut self, batch: &Batch, slice: &Slice) {
        if let Some(last) = batch.events.last() {
            self.head = last.recorded.position;
        }
        self.dirty.extend(batch.activity.iter().map(|activity| (activity.session, activity.clone())));
        if let Some(position) = slice.settled {
            self.settled = position;
            self.pass = None;
        } else if let (Some((_, left)), Some(last)) = (&mut self.pass, slice.last) {
            *left = left.split_off(&SessionNumber(last.0 + 1));
        }
        for session in &batch.sessions {
            self.dirty.remove(&session.number);
            if let Some((_, left)) = &mut self.pass {
                left.remove(&session.number);
            }
        }
    }

    /// Makes a pass due, where there is anything to settle; whether there is.
    pub(super) fn hurry(&mut self) -> bool {
        self.since = Instant::now().checked_sub(INTERVAL).unwrap_or(self.since);
        !self.dirty.is_empty() || self.pass.is_some()
    }
}

/// Reads the log's tail, and folds it over the rows of the sessions that it is about.
pub(super) async fn tail(connection: &mut SqliteConnection) -> Result<LogTail, StoreError> {
    let mut after = log::mark(&mut *connection, "settled").await?;
    let mut folds: BTreeMap<SessionNumber, (Session, bool)> = BTreeMap::new();
    loop {
        let page = log::page(&mut *connection, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.recorded.position;
        let of_sessions = || page.iter().filter(|entry| entry.recorded.stream.kind == StreamKind::Session);
        let mut numbers: Vec<_> = of_sessions().map(|entry| entry.envelope().number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.retain(|number| !folds.contains_key(number));
        for row in sessions::numbered(&mut *connection, &numbers).await? {
            folds.insert(row.session.number, (row.session, false));
        }
        of_sessions().for_each(|entry| fold(&mut folds, entry));
    }
    let newer = folds.into_values().filter(|(session, newer)| *newer && session.ended.is_none());
    let unsettled = newer.map(|(session, _)| (session.number, SessionActivity::of(&session))).collect();
    Ok(LogTail { head: after, unsettled })
}

fn fold(folds: &mut BTreeMap<SessionNumber, (Session, bool)>, entry: &Entry) {
    let envelope = entry.envelope();
    let Some((session, newer)) = folds.get_mut(&envelope.number) else { return };
    if entry.recorded.version <= session.head.version {
        return;
    }
    *newer = true;
    match &entry.recorded.event {
        Event::Session(event) => {
            if let Some(after) = evolve(Some(session.clone()), event, &envelope) {
                *session = after;
            }
        }
        // What a newer release wrote is passed over, but the next event of the stream builds on it all the same.
        _ => session.head = entry.head(),
    }
}
