//! Journals: what sessions say beside their events, which is log lines and recordings of terminals. They go to a second
//! file with a writer of its own, so that no heartbeat waits behind them. `docs/decisions/0013-lines-in-blocks.md` says
//! why the file holds blocks.
//!
//! Promises to those who write:
//! - An append is answered after the transaction that holds it was committed, whole or not at all. It survives the
//!   process; a power cut may take the last seconds.
//! - Positions count from 1 in each journal of a session, without gaps, also over restarts and after forgetting.
//! - Times never fall along a journal. Entries of one append are sorted by time. An entry that is older than the last
//!   one filed before gets that one's time, and an entry that lies more than a day ahead of our clock gets ours:
//!   otherwise one client's wrong clock would hold all later times at its own. The answer says how many entries were
//!   moved so.
//! - A damaged file closes this module, and nothing else; a failed flush ends the process, as in the first file.

mod read;
mod writer;

use std::sync::{Arc, OnceLock};

use futures_util::TryFutureExt;
use futures_util::stream::{BoxStream, StreamExt, try_unfold};
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_store::{Forget, JournalReader, OpenJournals, StoreError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::Error;

pub use read::{Filed, Page, Query, Start};
pub use sessiond_core::journal::{Code, Content, Entry, Journal, LARGEST_ENTRY, Level, Marks};
pub use sessiond_store::{Bounds, Forgotten};

use read::Cursor;
use writer::{Append, Task, WriteRequest};

/// How many requests may wait for the writer, and how many bytes in them; beyond either, callers are told to come back.
const QUEUE: usize = 8_192;
const QUEUE_BYTES: usize = 32 << 20;
/// The most bytes that one append may bring.
pub const LARGEST_APPEND: usize = 4 << 20;
/// How many blocks are looked at at a time for being old.
const OLD_BLOCKS: u32 = 1_000;
/// How many bytes an entry counts for beside what it holds.
const ENTRY_BYTES: usize = 64;

/// What an append has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The positions of the append's first and last entries.
    pub first: i64,
    pub last: i64,
    /// How many entries were given another time, so that times do not fall.
    pub moved: usize,
}

/// The handle to all journals. It is cheap to clone.
#[derive(Clone)]
pub struct Journals {
    queue: mpsc::Sender<WriteRequest>,
    /// How many bytes may still wait for the writer.
    queue_space: Arc<Semaphore>,
    /// None if the file could not be opened.
    reader: Option<Arc<dyn JournalReader>>,
    state: Arc<State>,
}

/// What the handle and the writer share.
#[derive(Default)]
struct State {
    /// Why nothing can be written any more.
    fault: OnceLock<String>,
    /// `stopped` is cancelled to end the writer, and `ended` when it has ended.
    stopped: CancellationToken,
    ended: CancellationToken,
}

impl State {
    /// Closes the journals: from now on callers are told that nothing can be written.
    fn close(&self, what: String) {
        if self.fault.set(what.clone()).is_ok() {
            tracing::error!(what, "log lines and recordings cannot be written any more; all else goes on");
        }
    }
}

impl Journals {
    /// Opens the file, making it if needed, and starts its one writer.
    pub async fn open(url: &str, clock: Clock) -> Result<Self, StoreError> {
        Self::start(sessiond_store::open_journals(url).await?, clock).await
    }

    /// Starts the one task that writes to journals that are open.
    pub async fn start(open: OpenJournals, clock: Clock) -> Result<Self, StoreError> {
        let OpenJournals { mut writer, reader } = open;
        let last_recorded_at = writer.last_recorded_at().await?.unwrap_or_default();
        let (queue, waiting) = mpsc::channel(QUEUE);
        let state = Arc::new(State::default());
        let task = Task::new(writer, reader.clone(), clock, last_recorded_at, state.clone())?;
        let running = tokio::spawn(task.run(waiting));
        let watched = state.clone();
        tokio::spawn(async move {
            if running.await.is_err_and(|error| error.is_panic()) {
                watched.close("their writer broke; this is a bug".to_owned());
            }
            watched.ended.cancel();
        });
        Ok(Self { queue, queue_space: Arc::new(Semaphore::new(QUEUE_BYTES)), reader: Some(reader), state })
    }

    /// Makes a handle for a file that cannot be used: it refuses everything, and all else goes on.
    pub fn closed(what: String) -> Self {
        let state = Arc::new(State::default());
        state.close(what);
        state.ended.cancel();
        Self { queue: mpsc::channel(1).0, queue_space: Arc::new(Semaphore::new(0)), reader: None, state }
    }

    /// Why nothing can be written any more; none while writing works.
    pub fn fault(&self) -> Option<&str> {
        self.state.fault.get().map(String::as_str)
    }

    /// Files entries at the end of a session's journal, and waits until they are committed.
    pub async fn append(
        &self,
        journal: Journal,
        session: SessionNumber,
        entries: Vec<Entry>,
    ) -> Result<Appended, Error> {
        let weight = weigh(journal, &entries)?;
        self.check_open()?;
        let permits = u32::try_from(weight).map_err(|_| Error::Busy)?;
        let queue_space =
            self.queue_space.clone().try_acquire_many_owned(permits).map_err(|_| Error::Busy)?;
        let (reply, answer) = oneshot::channel();
        let append = Append { journal, session, entries, weight, reply, _queue_space: queue_space };
        self.queue.try_send(WriteRequest::Append(append)).map_err(|_| self.closed_error())?;
        answer.await.map_err(|_| self.closed_error())?
    }

    /// Reads a page of a session's journal. A page has at most 4 MiB, and may therefore be shorter than its limit.
    pub async fn page(&self, journal: Journal, session: SessionNumber, query: &Query) -> Result<Page, Error> {
        let walk = Cursor::begin(self.reader()?, journal, session, query).await?;
        Ok(walk.page(query.limit).await?)
    }

    /// Reads all entries of a session's journal that match, whatever the limit, page by page. Nothing is held between
    /// pages: entries that are forgotten meanwhile are left out, and entries that are filed meanwhile come along.
    pub fn download(
        &self,
        journal: Journal,
        session: SessionNumber,
        query: Query,
    ) -> BoxStream<'static, Result<Page, Error>> {
        let reader = self.reader().cloned();
        let begun = async move { Ok(Cursor::begin(&reader?, journal, session, &query).await?) };
        let pages = |walk| {
            try_unfold(walk, |mut walk: Cursor| async move {
                let next_page = walk.next_page().await?;
                Ok(next_page.map(|next_page| (next_page, walk)))
            })
        };
        begun.map_ok(pages).try_flatten_stream().boxed()
    }

    /// Where a session's journal begins and ends, and thereby how many entries it has.
    pub async fn bounds(&self, journal: Journal, session: SessionNumber) -> Result<Bounds, Error> {
        Ok(self.reader()?.bounds(journal, session).await?)
    }

    /// Forgets what was recorded before a time, in small transactions.
    pub async fn forget(&self, before: Time) -> Result<Forgotten, Error> {
        self.forget_all(Forget::Before(before)).await
    }

    /// Forgets all that a session said. If the session says more, its positions go on from where they were.
    pub async fn forget_session(&self, session: SessionNumber) -> Result<Forgotten, Error> {
        self.forget_all(Forget::Session(session)).await
    }

    /// Forgets all that is known of sessions that were let go.
    pub async fn let_go(&self, sessions: &[SessionNumber]) -> Result<Forgotten, Error> {
        self.forget_all(Forget::LetGo(sessions.into())).await
    }

    /// A page of blocks after one, oldest first, that were recorded before a time: their numbers and sessions.
    pub async fn old_blocks(&self, after: i64, before: Time) -> Result<Vec<(i64, SessionNumber)>, Error> {
        Ok(self.reader()?.old_blocks(after, before, OLD_BLOCKS).await?)
    }

    /// Forgets these blocks, which [`Journals::old_blocks`] has named.
    pub async fn forget_blocks(&self, numbers: &[i64]) -> Result<Forgotten, Error> {
        self.forget_all(Forget::Blocks(numbers.into())).await
    }

    /// Forgets the oldest entries of all sessions, until the file needs no more than so many bytes.
    pub async fn shrink_to(&self, bytes: u64) -> Result<Forgotten, Error> {
        self.forget_all(Forget::ShrinkTo(bytes)).await
    }

    async fn forget_all(&self, forget: Forget) -> Result<Forgotten, Error> {
        let mut all = Forgotten::default();
        loop {
            let some = self.ask(|reply| WriteRequest::Forget(forget.clone(), reply)).await?;
            if some.blocks == 0 {
                break;
            }
            all.blocks += some.blocks;
            all.entries += some.entries;
        }
        while self.ask(WriteRequest::GiveBack).await? {}
        Ok(all)
    }

    /// How many bytes the file needs for all that is in it.
    pub async fn used_bytes(&self) -> Result<u64, Error> {
        Ok(self.reader()?.used_bytes().await?)
    }

    /// Bytes on disk, by what they are.
    pub async fn sizes(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        Ok(self.reader()?.sizes().await?)
    }

    /// Upkeep that holds up nobody. Says what it found.
    pub async fn maintain(&self) -> Result<String, Error> {
        let outcome = self.reader()?.maintain().await;
        outcome.inspect_err(|error| writer::report(&self.state, error)).map_err(Error::from)
    }

    /// Writes what still waits, closes the file, and returns when that is done.
    pub async fn stop(&self) {
        self.state.stopped.cancel();
        self.state.ended.cancelled().await;
    }

    async fn ask<Answer>(
        &self,
        unit: impl FnOnce(oneshot::Sender<Result<Answer, Error>>) -> WriteRequest,
    ) -> Result<Answer, Error> {
        self.check_open()?;
        let (reply, answer) = oneshot::channel();
        self.queue.send(unit(reply)).await.map_err(|_| self.closed_error())?;
        answer.await.map_err(|_| self.closed_error())?
    }

    fn reader(&self) -> Result<&Arc<dyn JournalReader>, Error> {
        self.reader.as_ref().ok_or_else(|| self.closed_error())
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.fault().is_some() { Err(self.closed_error()) } else { Ok(()) }
    }

    /// The error for a caller whom the writer does not answer.
    fn closed_error(&self) -> Error {
        match self.fault() {
            Some(what) => Error::Internal(format!("log lines and recordings are closed: {what}")),
            None => Error::Busy,
        }
    }
}

/// How many bytes entries count for while they wait; an error if they cannot be filed.
fn weigh(journal: Journal, entries: &[Entry]) -> Result<usize, Error> {
    if entries.is_empty() {
        return Err(Error::field("entries", "entries has none; send at least one"));
    }
    let mut weight = 0;
    for entry in entries {
        if entry.journal() != journal {
            let (word, other) = (journal.word(), entry.journal().word());
            return Err(Error::Internal(format!("an entry of {other} was to go to {word}")));
        }
        let size = entry.bytes().len();
        if size > LARGEST_ENTRY {
            let message = format!("text has {size} bytes; at most {LARGEST_ENTRY} fit in one entry");
            return Err(Error::field("text", message));
        }
        weight += size + ENTRY_BYTES;
    }
    if weight > LARGEST_APPEND {
        let message = format!(
            "entries come to {weight} bytes with {ENTRY_BYTES} for each beside its text; send at most \
             {LARGEST_APPEND} at once"
        );
        return Err(Error::field("entries", message));
    }
    Ok(weight)
}
