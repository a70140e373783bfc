//! Writing.

use async_trait::async_trait;
use sessiond_core::Time;

use crate::StoreError;
use crate::row::{At, Batch, Commit};

/// Something that a store looked at, to say whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    /// What it is now, in a word or two.
    pub value: String,
    /// What is wrong with it, as a sentence; none if it is as it has to be.
    pub fault: Option<String>,
}

/// The one writer of a process. Where several processes write to a store they take turns: whoever has the turn has been told
/// of every commit before it, and decides alone what the log says next. Positions, versions, numbers and hashes are given
/// out from memory, and a store only refuses what does not fit.
#[async_trait]
pub trait Writer: Send {
    /// Waits for the turn, which lasts until it is used or dropped. A turn is short: everybody else waits meanwhile, and a
    /// store may take it away from whoever keeps it for seconds. Whoever decides in it says how far it has applied the log. Where
    /// commits since then are not kept any more it is an error that [ends all](StoreError::ends_all).
    async fn turn<'writer>(
        &'writer mut self,
        applied: Option<&At>,
    ) -> Result<Box<dyn Turn + 'writer>, StoreError>;

    /// Takes a turn and commits a batch in it: for whoever needs to know nothing of what others have committed.
    async fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.turn(None).await?.commit(batch).await.map(|_| ())
    }

    /// Upkeep between batches: asked for before each, and about every second while there are none. Whoever waits to have
    /// something written waits for this too, so it takes milliseconds, and for nobody who reads. What was erased by a batch
    /// is gone from the medium after one of the next turns, as soon as nobody reads the old state any more.
    ///
    /// An error is one that [ends all](StoreError::ends_all): what was committed is not any more where it will be found.
    async fn maintain(&mut self) -> Result<(), StoreError>;

    /// Tells that nothing has to be written now, about every second, for what a store puts off while there is. Takes
    /// milliseconds likewise. Whether a transaction was committed for it.
    async fn idle(&mut self) -> Result<bool, StoreError>;

    /// Looks at what the live writer runs on. None of the checks has a fault in a store that could be opened, unless
    /// somebody changed it since.
    async fn health(&mut self) -> Result<Vec<Check>, StoreError>;

    /// Writes whatever was put off, and closes the store in order. Nothing of what was committed depends on it.
    async fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// The right to say what the log says next.
#[async_trait]
pub trait Turn: Send {
    /// What others have committed after this commit, the last that was applied by now, oldest first: whoever decides applies it
    /// before. A store that only one process writes to has nothing to tell.
    fn missed(&mut self, after: i64) -> Vec<Commit>;

    /// The time by the store's own clock, where several processes write to it: theirs may differ, so none of them counts.
    fn now(&self) -> Option<Time>;

    /// Writes a batch in one transaction, and ends the turn. Returns the number of the commit; 0 where commits are not counted.
    ///
    /// - **Durability**: it returns once the batch would survive a power cut (or, where there is a replica that has to have
    ///   it, once that one has it).
    /// - **Atomicity**: whole or not at all. On an error nothing of it was written, and the writer goes on as if it had not
    ///   been asked, unless the error says that it is over ([`StoreError::ends_all`]). A store that does not know what a
    ///   commit has come to has to find out before it answers.
    /// - **Order**: who asks after it has returned sees it. Events go at the end of the log, in the batch's order; a position
    ///   that is taken, or a version in a stream, is [`StoreError::Raced`].
    /// - **Rows**: those of the batch replace rows of the same number. [`Batch::activity`] may follow later: see there.
    /// - **What stands beside the log** ([`Batch::side`]) is written in order, after all else of the batch.
    async fn commit(self: Box<Self>, batch: &Batch) -> Result<i64, StoreError>;
}
