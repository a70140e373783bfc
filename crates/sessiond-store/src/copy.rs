//! Copying a store into another one, of whichever kind either is: the log and all that stands beside it, table by table, as it
//! lies there. Both kinds have the same tables with the same columns, so that nothing is said twice of what is in them; the
//! rows are not copied, because they are made from the log.
//!
//! What has been begun and not finished is marked in the target, and whoever looks at it is told so ([`look`](crate::look)):
//! half of a log is not to be taken for one.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sessiond_core::ids::Position;
use uuid::Uuid;

use crate::StoreError;
use crate::check::{Difference, Fault, Progress, Report};
use crate::tables::{BESIDE, JOURNALS, LOG};
use crate::values::Stored;

/// The mark of a store into which another one is being copied.
pub(crate) const COPYING: &str = "copying";
/// The one mark that is of what is copied: that people are filed under what they are called. All others are of the rows, or
/// of one database's housekeeping.
const MARK: &str = "mark";
const MARKS_COPIED: &str = "name = 'people'";

/// Rows that are held at a time, and bytes of them: of either, what is reached first.
const ROWS_AT_ONCE: usize = 1_024;
const BYTES_AT_ONCE: usize = 4 << 20;

/// What a value is where the two kinds of database agree on it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Integer(i64),
    Flag(bool),
    Text(String),
    Bytes(Vec<u8>),
    Id(Uuid),
}

impl Cell {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 16,
        }
    }
}

/// What the values of a column are. SQLite has neither flags nor ids: it keeps them as integers and as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Integer,
    Flag,
    Text,
    Bytes,
    Id,
}

impl Holds {
    /// What a column holds that is described in two databases; none if they do not mean the same.
    fn of_both(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Flag, Self::Integer | Self::Flag) | (Self::Integer, Self::Flag) => Some(Self::Flag),
            (Self::Id, Self::Bytes | Self::Id) | (Self::Bytes, Self::Id) => Some(Self::Id),
            (one, other) => (one == other).then_some(one),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub name: String,
    pub holds: Holds,
}

/// The rows of a table, with the columns by which all of them are read.
pub(crate) struct Chunk<'chunk> {
    pub table: &'static str,
    pub columns: &'chunk [Column],
    pub rows: Vec<Vec<Cell>>,
}

/// The tables of a store that is open for copying, and that nobody writes to meanwhile.
#[async_trait]
pub(crate) trait Tables: Send {
    /// The columns of a table that has rows, in the order of their names.
    async fn columns(&mut self, table: &'static str) -> Result<Vec<Column>, StoreError>;

    /// The rows of a table that meet a condition.
    async fn count(&mut self, table: &'static str, condition: &str) -> Result<u64, StoreError>;

    /// The last position of the log, with the hash of its commit.
    async fn head(&mut self) -> Result<(Position, Option<Vec<u8>>), StoreError>;

    /// How many sessions there are of each kind, in the order of their names.
    async fn sessions(&mut self) -> Result<Vec<(String, i64)>, StoreError>;
}

/// Where it is copied from.
#[async_trait]
pub(crate) trait Source: Tables {
    /// The rows of a table that meet a condition, in any order.
    fn rows<'rows>(
        &'rows mut self,
        table: &'static str,
        columns: &'rows [Column],
        condition: &'rows str,
    ) -> BoxStream<'rows, Result<Vec<Cell>, StoreError>>;
}

/// Where it is copied to.
#[async_trait]
pub(crate) trait Target: Tables {
    /// Writes rows. What is written has to survive only once it is [finished](Self::finish).
    async fn insert(&mut self, chunk: Chunk<'_>) -> Result<(), StoreError>;

    /// Sees to what is beside the tables that were copied, and has the medium keep them.
    async fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What the target was found to hold when it was checked as a whole.
    pub report: Report,
    /// How many sessions there are of each kind.
    pub sessions: Vec<(String, i64)>,
    /// Blocks of journals.
    pub blocks: u64,
}

/// What is known of a source once it was copied, and is to be found in its copy.
pub(crate) struct Original {
    head: (Position, Option<Vec<u8>>),
    events: u64,
    sessions: Vec<(String, i64)>,
    blocks: u64,
}

/// Copies all tables. Tells how many rows it has copied, of how many.
pub(crate) async fn tables(
    source: &mut dyn Source,
    target: &mut dyn Target,
    progress: Progress<'_>,
) -> Result<Original, StoreError> {
    let (mut done, mut total) = (0, 0);
    for (table, condition) in all() {
        total += source.count(table, condition).await?;
    }
    for (table, condition) in all() {
        let count = source.count(table, condition).await?;
        if count == 0 {
            continue;
        }
        let columns = common(table, &source.columns(table).await?, &target.columns(table).await?)?;
        let mut rows = source.rows(table, &columns, condition);
        while let Some(chunk) = next(&mut rows).await? {
            done += chunk.len() as u64;
            target.insert(Chunk { table, columns: &columns, rows: chunk }).await?;
            progress(done, total);
        }
        drop(rows);
        let copied = target.count(table, condition).await?;
        if copied != count {
            let what = format!("{copied} of {count} rows of {table} have arrived");
            return Err(StoreError::Failed(what));
        }
    }
    Ok(Original {
        head: source.head().await?,
        events: source.count("event", ALL).await?,
        sessions: source.sessions().await?,
        blocks: source.count("block", ALL).await?,
    })
}

/// A condition that every row meets.
const ALL: &str = "true";

/// What is copied: tables, and which of their rows.
fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let tables = LOG.into_iter().chain(BESIDE).chain(JOURNALS);
    tables.map(|table| (table, ALL)).chain([(MARK, MARKS_COPIED)])
}

/// What must have no rows where something is to be copied to. What is made from the log is nothing where there is no log.
pub(crate) fn must_be_empty() -> impl Iterator<Item = &'static str> {
    LOG.into_iter().chain(BESIDE).chain(JOURNALS)
}

/// The columns that a table has in both stores.
fn common(table: &str, from: &[Column], to: &[Column]) -> Result<Vec<Column>, StoreError> {
    let both = |(from, to): (&Column, &Column)| {
        let holds = from.holds.of_both(to.holds).filter(|_| from.name == to.name)?;
        Some(Column { name: from.name.clone(), holds })
    };
    let columns: Option<Vec<_>> = from.iter().zip(to).map(both).collect();
    columns
        .filter(|columns| columns.len() == from.len().max(to.len()))
        .ok_or_else(|| StoreError::Failed(format!("{table} does not have the same columns in both stores")))
}

/// The next rows of a table, as many as are held at a time.
async fn next(
    rows: &mut BoxStream<'_, Result<Vec<Cell>, StoreError>>,
) -> Result<Option<Vec<Vec<Cell>>>, StoreError> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while chunk.len() < ROWS_AT_ONCE && bytes < BYTES_AT_ONCE {
        let Some(row) = rows.try_next().await? else { break };
        bytes += row.iter().map(Cell::size).sum::<usize>();
        chunk.push(row);
    }
    Ok((!chunk.is_empty()).then_some(chunk))
}

/// The values of a row, in the order of the columns.
pub(crate) fn cells(row: &impl Stored, columns: &[Column]) -> Result<Vec<Cell>, StoreError> {
    let cell = |Column { name, holds }: &Column| {
        let cell = match holds {
            Holds::Integer => row.optional_integer(name)?.map(Cell::Integer),
            Holds::Flag => row.optional_flag(name)?.map(Cell::Flag),
            Holds::Text => row.optional_string(name)?.map(Cell::Text),
            Holds::Bytes => row.optional_bytes(name)?.map(|bytes| Cell::Bytes(bytes.to_vec())),
            Holds::Id => row.optional_id(name)?.map(Cell::Id),
        };
        Ok(cell.unwrap_or(Cell::Null))
    };
    columns.iter().map(cell).collect()
}

impl Original {
    /// Compares a copy, of which the rows were made and all was checked, with what it was made from.
    pub(crate) async fn compare(self, copy: &mut dyn Tables, report: Report) -> Result<Copied, Fault> {
        let sessions = copy.sessions().await?;
        let shown = |(position, hash): &(Position, Option<Vec<u8>>)| {
            format!("position {position}, commit hash {}", hex::encode(hash.as_deref().unwrap_or_default()))
        };
        let found = (report.position, self.head.1.as_ref().map(|_| report.commit_hash.to_vec()));
        for (what, expected, found) in [
            ("events", self.events.to_string(), report.events.to_string()),
            ("the end of the log", shown(&self.head), shown(&found)),
            ("sessions by kind", format!("{:?}", self.sessions), format!("{sessions:?}")),
            ("blocks of journals", self.blocks.to_string(), copy.count("block", ALL).await?.to_string()),
        ] {
            if expected != found {
                let (place, what) = ("the copy".to_owned(), what.to_owned());
                return Err(Difference { place, what, expected, found }.into());
            }
        }
        Ok(Copied { report, sessions, blocks: self.blocks })
    }
}

/// What keeps something from being copied into a store.
pub(crate) fn not_empty(table: &str) -> StoreError {
    StoreError::Failed(format!(
        "the store to copy to is not empty: there is something in its table {table}. Name one where nothing is"
    ))
}
