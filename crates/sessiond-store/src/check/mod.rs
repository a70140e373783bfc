//! What [`Store::verify`](crate::Store::verify) and [`rebuild`](crate::rebuild) have in common in every store: a [`LogCheck`]
//! is handed what is stored, event by event and byte for byte, compares the log with itself, and says what each row that is
//! made from it must be, column by column. The tables have the same columns in every database.

mod let_go;
mod log;
mod place;
mod rows;
mod value;

use sessiond_core::ids::Position;

use crate::StoreError;

pub use let_go::{Gap, StoredCut, StoredGap};
pub use log::{LogCheck, StoredEvent};
pub use rows::{Page, Rows, Table, chosen_text, throughput_text};
pub use value::Value;

/// Events to read at a time: no snapshot is held for longer than that takes.
pub const PAGE: u32 = 4_096;

/// What was checked, when all of it was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Those that are kept, each proved by both chains.
    pub events: u64,
    /// Those that were let go: how many they were, and what the chains go on from, is taken from what they left.
    pub let_go: u64,
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

/// Told how far it is: events done, events in all.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);
