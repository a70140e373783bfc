//! Journals: log lines and recordings, in blocks. They have a writer and readers of their own, so that nothing that is
//! written to the log waits for them, and losing them loses no session.

use std::sync::Arc;

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::{Journal, Marks};

use crate::StoreError;
use crate::block::Block;

/// Journals that are open: their one writer, and what reads.
pub struct OpenJournals {
    pub writer: Box<dyn JournalWriter>,
    pub reader: Arc<dyn JournalReader>,
}

/// Where a journal begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first position that is not forgotten; one beyond the last if there is none.
    pub first: i64,
    /// The last position that was given out; 0 if none ever was.
    pub last: i64,
}

impl Bounds {
    /// Entries that are there.
    pub fn count(self) -> u64 {
        u64::try_from(self.last - self.first + 1).unwrap_or(0)
    }
}

/// Blocks of a journal to read.
#[derive(Debug, Clone)]
pub struct Stretch {
    pub journal: Journal,
    pub session: SessionNumber,
    /// First and last position. A block that has either in its middle belongs to the stretch.
    pub from: i64,
    pub to: i64,
    /// Only blocks that have one of these.
    pub marks: Marks,
    /// From its end.
    pub descending: bool,
    /// At most so many.
    pub blocks: usize,
}

/// How far a journal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Position of its last entry; 0 where there never was one.
    pub last: i64,
    /// That entry's time.
    pub at: i64,
}

impl Tail {
    pub const EMPTY: Self = Self { last: 0, at: i64::MIN };
}

/// What is to be forgotten, oldest first.
#[derive(Debug, Clone)]
pub enum Forget {
    /// What was recorded before.
    Before(Time),
    /// All that a session said. Its positions go on from where they were.
    Session(SessionNumber),
    /// As much as it takes for all journals to need no more bytes than these.
    ShrinkTo(u64),
    /// These blocks, each the oldest of its journal that is left but for others of these.
    Blocks(Arc<[i64]>),
    /// All that is known of sessions that were let go, also how far their journals went: they say no more.
    LetGo(Arc<[SessionNumber]>),
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub blocks: u64,
    pub entries: u64,
}

/// The one writer of journals. A store whose journals are damaged or gone says [`StoreError::Corrupt`]: they are closed, and
/// all else goes on. [`StoreError::Broken`] ends the process, as everywhere.
#[async_trait]
pub trait JournalWriter: Send {
    /// When the newest block was recorded.
    async fn last_recorded_at(&mut self) -> Result<Option<Time>, StoreError>;

    /// How far journals go, in the order in which they are asked for, also by what is forgotten.
    async fn tails(&mut self, journals: &[(Journal, SessionNumber)]) -> Result<Vec<Tail>, StoreError>;

    /// Writes blocks in one transaction; each begins where its journal ends. On an error nothing of them was written; where
    /// another process has written to one of the journals meanwhile it is [`StoreError::Raced`], which ends nothing here. What
    /// was written survives the process; a power cut may take the last of it, whole blocks from the end.
    async fn commit(&mut self, blocks: &[Block]) -> Result<(), StoreError>;

    /// Forgets some of what is to be forgotten, whole blocks, in one transaction that nobody waits long for. No blocks:
    /// there is no more.
    async fn forget(&mut self, forget: Forget) -> Result<Forgotten, StoreError>;

    /// Gives some of the space of what was forgotten back, where there is far more of it than will soon be needed again.
    /// Whether there is still more to give.
    async fn give_back(&mut self) -> Result<bool, StoreError>;

    /// Upkeep between batches, after each. Whoever writes waits for it.
    async fn maintain(&mut self) -> Result<(), StoreError>;

    /// Closes the journals in order. Nothing of what was committed depends on it.
    async fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Reading journals, a few blocks at a time.
#[async_trait]
pub trait JournalReader: Send + Sync {
    /// Where a journal begins and ends.
    async fn bounds(&self, journal: Journal, session: SessionNumber) -> Result<Bounds, StoreError>;

    /// First and last position of the first block that has an entry of this time or later.
    async fn block_at(
        &self,
        journal: Journal,
        session: SessionNumber,
        at: i64,
    ) -> Result<Option<(i64, i64)>, StoreError>;

    /// The first, or last, blocks of a stretch, in its direction. A block that cannot be as it was written is
    /// [`StoreError::Damaged`].
    async fn blocks(&self, stretch: &Stretch) -> Result<Vec<Block>, StoreError>;

    /// A page of blocks after one, oldest first, that were recorded before an instant: their numbers and sessions.
    async fn old_blocks(
        &self,
        after: i64,
        before: Time,
        limit: u32,
    ) -> Result<Vec<(i64, SessionNumber)>, StoreError>;

    /// Bytes that all journals need, without space that could be used again.
    async fn used_bytes(&self) -> Result<u64, StoreError>;

    /// As [`Store::sizes`](super::Store::sizes), of the journals.
    async fn sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError>;

    /// As [`Store::maintain`](super::Store::maintain), of the journals.
    async fn maintain(&self) -> Result<String, StoreError>;

    /// Ends all reading. To be called before [`JournalWriter::close`].
    async fn close(&self);
}
