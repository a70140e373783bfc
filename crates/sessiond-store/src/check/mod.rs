//! `verify` compares the log with itself and every row with the log; `rebuild` makes the rows again from it. Both know
//! nothing of SQL: they are handed what is stored, byte for byte, and say what should be.

mod log;
mod place;
mod rows;
mod value;

pub use super::sqlite::rebuild;
use super::{Reader, StoreError};
pub use rows::throughput_text;
use sessiond_core::ids::Position;

pub(super) use log::{Log, StoredEvent};
pub(super) use rows::{Page, Rows, Table};
pub(super) use value::Value;

/// Events read with one statement: no snapshot is held for longer than that takes.
pub(super) const PAGE: i64 = 4_096;

/// What was checked, when all of it was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    pub streams: u64,
    pub sessions: u64,
    /// Events of types that only a newer release knows: their hashes were checked, what they mean was not.
    pub unknown: u64,
    /// Events of older releases whose bodies were freed of what was personal: their digests were checked, not the bodies.
    pub erased: u64,
    /// The last position of the log, and the hash of its last commit: whoever keeps the two elsewhere can tell later
    /// that nothing up to there was rewritten.
    pub position: Position,
    pub commit_hash: [u8; 32],
}

/// The first thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: an event by position and stream, or a row by table and number.
    pub place: String,
    /// What: a column or a property.
    pub what: String,
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, what, expected, found } = self;
        write!(formatter, "{place}: {what}: expected {expected}, found {found}")
    }
}

/// Why a check or a rebuild came to no good end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store is not what it should be.
    #[error("{0}")]
    Difference(Difference),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Difference> for Fault {
    fn from(difference: Difference) -> Self {
        Self::Difference(difference)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Told how far it is: events done, events in all.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// Walks the whole log and compares it with itself and with every row, then has SQLite check the file. Only reads, in pages
/// save for that last check, so that the database may
/// be in use meanwhile: each page of rows is compared with the log as it stood when that page was read. One thing cannot
/// be compared: the totals in a lifecycle row that is older than a hot row, once the activity they came from was pruned.
pub async fn verify(reader: &Reader, progress: Progress<'_>) -> Result<Report, Fault> {
    let settled = reader.mark("settled").await?;
    let mut log = Log::new(settled);
    let total = reader.head().await?.0;
    while reader.snapshot().await?.follow(&mut log).await? == PAGE {
        progress(log.position().unsigned_abs(), total.max(log.position()).unsigned_abs());
    }
    for table in Table::ALL {
        let mut after = Some(i64::MIN);
        while let Some(from) = after {
            let mut snapshot = reader.snapshot().await?;
            while snapshot.follow(&mut log).await? == PAGE {}
            log.complete()?;
            let page = snapshot.rows(table, from).await?;
            log.compare(table, from, &page)?;
            after = page.last;
        }
    }
    progress(log.position().unsigned_abs(), log.position().unsigned_abs());
    whole(reader.malformed().await?)?;
    Ok(log.report())
}

/// That SQLite finds nothing wrong with the file itself, its indexes included: the log can be right while a look-up by a
/// damaged index is not.
pub(super) fn whole(malformed: Option<String>) -> Result<(), Difference> {
    match malformed {
        None => Ok(()),
        Some(found) => Err(Difference {
            place: "the database file".to_owned(),
            what: "SQLite's integrity_check".to_owned(),
            expected: "ok".to_owned(),
            found,
        }),
    }
}
