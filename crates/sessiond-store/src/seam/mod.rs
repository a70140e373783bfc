//! The seam of the store: what the house asks of whatever remembers. Whoever implements these traits from what is written
//! here, and passes the conformance suite (`tests/it/store/conformance.rs`), has written another store.
//!
//! | trait | what it is |
//! |---|---|
//! | [`Writer`] | the one way to change anything: batches, one durable transaction each |
//! | [`Log`] | the events, in pages |
//! | [`Start`] | all that the service holds in memory, read once when it starts |
//! | [`SessionRows`], [`DirectoryRows`] | look-ups, lists and counts of what the log has made |
//! | [`Search`] | sessions by words of what they are called |
//! | [`Past`] | sessions as they were at a position of the log |
//! | [`Secrets`] | what is hashed or sealed, and never in the log |
//! | [`Outbox`] | how deliveries to webhooks stand |
//! | [`Retention`] | what may be let go |
//! | [`Statistics`] | what was counted of the log |
//! | [`Store`] | all of what can be read, as one value; checking it, its upkeep, and its end |
//! | [`JournalWriter`], [`JournalReader`] | lines and recordings, in blocks, apart from all else |
//! | [`Nodes`] | what only a store can mean that several processes work on |
//!
//! What holds for every method:
//! - **Absence is `Ok(None)`**, or a list without it; never an error.
//! - **Lists of numbers** are answered in no particular order, without what is not there, and none for none.
//! - **Pages** are given a place after (or before) which they begin and a limit. They hold what comes next in the order that
//!   the method names, as much as there is up to the limit; fewer than the limit means that there is no more. No answer
//!   holds a snapshot for longer than its page takes, and what is written between two pages does not shift them.
//! - **Reading sees commits whole**, and whatever was committed before it was asked.
//! - **Instants** are kept to the millisecond, texts and bytes as they are.
//! - **What something costs**: a look-up does not depend on how much there is, a page on what it returns.
//! - **Errors** are [`StoreError`](crate::StoreError)'s; it says what whoever asked has to do about each.

mod backup;
mod journals;
mod log;
mod nodes;
mod outbox;
mod past;
mod retention;
mod rows;
mod search;
mod secrets;
mod start;
mod statistics;
mod writer;

use async_trait::async_trait;

pub use backup::BackedUp;
pub use journals::{Bounds, Forget, Forgotten, JournalReader, JournalWriter, OpenJournals, Stretch, Tail};
pub use log::Log;
pub use nodes::{Node, Nodes, Renewed, Standing};
pub use outbox::Outbox;
pub use past::{EndedSince, Past};
pub use retention::{Cut, EndedBefore, Foldable, FoldableEvent, Retention};
pub use rows::{DirectoryRows, EndedOrder, EndedPage, EndedTerminal, SessionRows};
pub use search::{FoundBy, Postings, Search};
pub use secrets::{Sealed, SealedFor, Secrets, Witnesses};
pub use start::Start;
pub use statistics::{
    CellPage, Count, CountedTo, GroupCell, LONGEST_LABEL, Label, Labelled, Recount, Statistics,
};
pub use writer::{Check, Turn, Writer};

use crate::StoreError;
use crate::check::{Fault, Progress, Report};

/// A store that is open: this process's one writer, and what reads. Where there are no nodes there is one writer in the world;
/// how such a store keeps a second one out, or at least finds it out ([`StoreError::Raced`]), is its own affair.
pub struct Open {
    pub writer: Box<dyn Writer>,
    pub store: std::sync::Arc<dyn Store>,
    /// Where several processes may work on it.
    pub nodes: Option<std::sync::Arc<dyn Nodes>>,
}

/// What lies where a store should be, before anything is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Whether there is anything at all.
    pub exists: bool,
    /// Whether an event was ever recorded there.
    pub events: bool,
    /// Whether another store is being copied to it ([`copy`](crate::copy)), or that was begun and came to no end: then nothing
    /// of it is to be used.
    pub unfinished: bool,
    /// What the secret key of the store is known by ([`SideWrite::KeyCheck`](crate::SideWrite::KeyCheck)).
    pub key_check: Option<[u8; 32]>,
}

/// All that can be read. Many ask at the same time, beside the writer, which waits for none of them.
#[async_trait]
pub trait Store:
    Log + Start + SessionRows + Search + Past + DirectoryRows + Secrets + Outbox + Retention + Statistics
{
    /// Upkeep that needs no turn of the writer's: asked for every two seconds. It may take its time, and holds up neither
    /// the writer nor who reads. Says in a few words what it found, for whoever watches over the service.
    async fn maintain(&self) -> Result<String, StoreError>;

    /// Bytes on the medium, by what they are: a word of the store's own for each, the same ones at any time.
    async fn sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError>;

    /// Compares the log with itself (positions, versions, both chains of hashes) and every row that is made from it with
    /// what the log says, and lastly has the store look at its own medium. Only reads, and in pages, so that the writer may
    /// be at work. Fails with the first difference. [`check::LogCheck`](crate::check::LogCheck) does the comparing.
    async fn verify(&self, progress: Progress<'_>) -> Result<Report, Fault>;

    /// Ends all reading, once who reads has let go. To be called before [`Writer::close`]; whoever asks later gets an error.
    async fn close(&self);
}
