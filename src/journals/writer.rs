//! The one writer of the second file. It takes the requests that wait, files their entries, packs those of one journal
//! into blocks, and writes the blocks in one transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::{Entry, Journal};
use sessiond_store::block::{Block, Packer, Run};
use sessiond_store::{Forget, Forgotten, JournalReader, JournalWriter, StoreError, Tail};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{Appended, State};
use crate::clock::Clock;
use crate::error::Error;

/// How many requests, and how many bytes in them, go into one transaction; the last request may exceed the bytes.
const BATCH: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;
/// From so many bytes on, compressing is left to a thread for blocking work.
const MUCH: usize = 32 << 10;
/// For how many journals the writer remembers where they end; at most twice as many are in memory.
const REMEMBERED: usize = 32_768;
/// How often it is tried to write to journals that another process writes to as well.
const TRIES: usize = 20;
/// How far an entry's time may be ahead of our clock.
const AHEAD: TimeDelta = TimeDelta::days(1);

type Reply<Answer> = oneshot::Sender<Result<Answer, Error>>;

/// A request to the writer.
pub(super) enum WriteRequest {
    Append(Append),
    Forget(Forget, Reply<Forgotten>),
    GiveBack(Reply<bool>),
}

/// Entries that are to be filed in one journal.
pub(super) struct Append {
    pub journal: Journal,
    pub session: SessionNumber,
    pub entries: Vec<Entry>,
    pub weight: usize,
    pub reply: Reply<Appended>,
    /// The space in the queue that the request takes until it is done.
    pub _queue_space: OwnedSemaphorePermit,
}

/// A journal and the session that it belongs to.
type Key = (Journal, SessionNumber);

pub(super) struct Task {
    writer: Box<dyn JournalWriter>,
    reader: Arc<dyn JournalReader>,
    clock: Clock,
    last_recorded_at: Time,
    /// The compressor; none while another thread works with it.
    packer: Option<Packer>,
    tails: Tails,
    state: Arc<State>,
}

impl Task {
    pub(super) fn new(
        writer: Box<dyn JournalWriter>,
        reader: Arc<dyn JournalReader>,
        clock: Clock,
        last_recorded_at: Time,
        state: Arc<State>,
    ) -> Result<Self, StoreError> {
        let packer = Some(Packer::new()?);
        Ok(Self { writer, reader, clock, last_recorded_at, packer, tails: Tails::default(), state })
    }

    /// Works until it is told to stop, and then until no request waits.
    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<WriteRequest>) {
        let state = self.state.clone();
        loop {
            let first = tokio::select! {
                () = state.stopped.cancelled(), if !waiting.is_closed() => {
                    waiting.close();
                    continue;
                }
                first = waiting.recv() => first,
            };
            let Some(first) = first else { break };
            // This is no delay: every task that is ready to hand in a request gets to do so before the batch is closed.
            tokio::task::yield_now().await;
            self.process(first, &mut waiting).await;
            if let Err(error) = self.writer.maintain().await {
                report(&self.state, &error);
            }
        }
        self.reader.close().await;
        if let Err(error) = self.writer.close().await {
            tracing::error!(%error, "closing the file of log lines and recordings failed");
        }
    }

    /// Takes as many waiting requests as go into one transaction: appends together, any other request by itself.
    async fn process(&mut self, first: WriteRequest, waiting: &mut mpsc::Receiver<WriteRequest>) {
        let (mut appends, mut weight, mut next) = (Vec::new(), 0, Some(first));
        let other = loop {
            match next {
                Some(WriteRequest::Append(append)) => {
                    weight += append.weight;
                    appends.push(append);
                }
                other => break other,
            }
            let full = appends.len() >= BATCH || weight >= BATCH_BYTES;
            next = if full { None } else { waiting.try_recv().ok() };
        };
        if !appends.is_empty() {
            self.append(appends, weight).await;
        }
        match other {
            Some(WriteRequest::Forget(forget, reply)) => {
                let outcome = self.writer.forget(forget).await;
                reply.send(self.reported(outcome)).ok();
            }
            Some(WriteRequest::GiveBack(reply)) => {
                let outcome = self.writer.give_back().await;
                reply.send(self.reported(outcome)).ok();
            }
            Some(WriteRequest::Append(_)) | None => {}
        }
    }

    async fn append(&mut self, mut appends: Vec<Append>, weight: usize) {
        let now = self.clock.now();
        let mut tries = 0;
        loop {
            let mut drafts = match self.drafts(&appends).await {
                Ok(drafts) => drafts,
                Err(error) => return self.refuse(appends, &error),
            };
            let mut filed = Vec::with_capacity(appends.len());
            for append in &mut appends {
                let draft = drafts.entry((append.journal, append.session)).or_default();
                filed.push(draft.file(std::mem::take(&mut append.entries), now));
            }
            tries += 1;
            match self.write(drafts, weight, now).await {
                Ok(()) => {
                    for (append, appended) in appends.into_iter().zip(filed) {
                        // The caller may have left; what was written stands.
                        append.reply.send(Ok(appended)).ok();
                    }
                    return;
                }
                // Another process has written to one of these journals: they go behind that.
                Err((StoreError::Raced(_), runs)) if tries < TRIES => {
                    give_back(runs, &mut appends, &filed);
                    self.tails = Tails::default();
                }
                Err((error, _)) => return self.refuse(appends, &error),
            }
        }
    }

    /// Makes a draft for each journal, which begins where the journal ends.
    async fn drafts(&mut self, appends: &[Append]) -> Result<BTreeMap<Key, Draft>, StoreError> {
        if let Some(what) = self.state.fault.get() {
            return Err(StoreError::Corrupt(what.clone()));
        }
        let (mut drafts, mut unknown) = (BTreeMap::new(), Vec::new());
        for append in appends {
            let key = (append.journal, append.session);
            if let Some(tail) = self.tails.get(key) {
                drafts.entry(key).or_insert_with(|| Draft::after(tail));
            } else if drafts.insert(key, Draft::default()).is_none() {
                unknown.push(key);
            }
        }
        if !unknown.is_empty() {
            let tails = self.writer.tails(&unknown).await?;
            drafts.extend(unknown.into_iter().zip(tails.into_iter().map(Draft::after)));
        }
        Ok(drafts)
    }

    /// Writes the drafts in one transaction, and remembers where the journals end now. With an error it returns what was to be
    /// written.
    async fn write(
        &mut self,
        drafts: BTreeMap<Key, Draft>,
        weight: usize,
        now: Time,
    ) -> Result<(), (StoreError, Vec<Run>)> {
        let recorded_at = now.max(self.last_recorded_at);
        let tails: Vec<_> = drafts.iter().map(|(key, draft)| (*key, draft.tail)).collect();
        let runs: Vec<Run> = drafts.into_iter().map(|(key, draft)| draft.run(key)).collect();
        let (blocks, runs) = self.pack(runs, recorded_at, weight).await.map_err(|error| (error, vec![]))?;
        if let Err(error) = self.writer.commit(&blocks).await {
            return Err((error, runs));
        }
        self.last_recorded_at = recorded_at;
        for (key, tail) in tails {
            self.tails.put(key, tail);
        }
        Ok(())
    }

    /// Packs entries into blocks, and returns the entries with them. Much work is done where no other task waits for its turn.
    async fn pack(
        &mut self,
        runs: Vec<Run>,
        recorded_at: Time,
        weight: usize,
    ) -> Result<(Vec<Block>, Vec<Run>), StoreError> {
        let mut packer = match self.packer.take() {
            Some(packer) => packer,
            None => Packer::new()?,
        };
        let work = move || {
            let mut blocks = Vec::with_capacity(runs.len());
            let packed = runs.iter().try_for_each(|run| packer.pack(run, recorded_at, &mut blocks));
            packed.map(|()| (packer, blocks, runs))
        };
        let (packer, blocks, runs) = if weight < MUCH {
            work()?
        } else {
            let worked = tokio::task::spawn_blocking(work).await;
            worked.map_err(|error| StoreError::Failed(format!("compression: {error}")))??
        };
        self.packer = Some(packer);
        Ok((blocks, runs))
    }

    fn refuse(&mut self, appends: Vec<Append>, error: &StoreError) {
        report(&self.state, error);
        // It is unknown what the file holds now, so it is asked again.
        self.tails = Tails::default();
        for append in appends {
            append.reply.send(Err(Error::from(error))).ok();
        }
    }

    fn reported<Value>(&self, outcome: Result<Value, StoreError>) -> Result<Value, Error> {
        outcome.inspect_err(|error| report(&self.state, error)).map_err(Error::from)
    }
}

/// Gives appends the entries again that were to be filed for them.
fn give_back(runs: Vec<Run>, appends: &mut [Append], filed: &[Appended]) {
    let entries = runs.into_iter().map(|run| ((run.journal, run.session), run.entries.into_iter()));
    let mut entries: BTreeMap<Key, _> = entries.collect();
    for (append, appended) in appends.iter_mut().zip(filed) {
        let count = usize::try_from(appended.last - appended.first + 1).unwrap_or_default();
        let own = entries.get_mut(&(append.journal, append.session));
        append.entries.extend(own.into_iter().flat_map(|own| own.by_ref().take(count)));
    }
}

/// Does what an error calls for: ends the process, closes the journals, or logs it.
pub(super) fn report(state: &State, error: &StoreError) {
    match error {
        StoreError::Broken(what) => {
            // A disk that cannot flush this file will not flush the other one either, and there it matters: the process
            // ends.
            crate::logs::end(74, &format!("the file of log lines cannot be flushed ({what})"));
        }
        StoreError::Corrupt(what) => state.close(what.clone()),
        error => tracing::error!(%error, "log lines or recordings could not be written"),
    }
}

/// Entries on their way into one journal.
struct Draft {
    /// The position of the first entry.
    first: i64,
    entries: Vec<Entry>,
    tail: Tail,
}

impl Default for Draft {
    fn default() -> Self {
        Self::after(Tail::EMPTY)
    }
}

impl Draft {
    fn after(tail: Tail) -> Self {
        Self { first: tail.last.saturating_add(1), entries: Vec::new(), tail }
    }

    /// Files the entries of one append, in order of time, none before what is filed already.
    fn file(&mut self, mut entries: Vec<Entry>, now: Time) -> Appended {
        let (now, latest) = (now.timestamp_micros(), (now + AHEAD).timestamp_micros());
        let mut moved = 0;
        for entry in entries.iter_mut().filter(|entry| entry.at > latest) {
            entry.at = now.max(self.tail.at);
            moved += 1;
        }
        entries.sort_by_key(|entry| entry.at);
        for entry in entries.iter_mut().take_while(|entry| entry.at < self.tail.at) {
            entry.at = self.tail.at;
            moved += 1;
        }
        let first = self.tail.last.saturating_add(1);
        self.tail.last = self.tail.last.saturating_add_unsigned(entries.len() as u64);
        self.tail.at = entries.last().map_or(self.tail.at, |entry| entry.at);
        self.entries.append(&mut entries);
        Appended { first, last: self.tail.last, moved }
    }

    fn run(self, (journal, session): Key) -> Run {
        Run { journal, session, first: self.first, entries: self.entries }
    }
}

/// Where the journals end that were written to last. There are two generations: when the younger is full, it becomes
/// the older one, and the former older one is dropped.
#[derive(Default)]
struct Tails {
    young: HashMap<Key, Tail>,
    old: HashMap<Key, Tail>,
}

impl Tails {
    fn get(&self, key: Key) -> Option<Tail> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn put(&mut self, key: Key, tail: Tail) {
        if self.young.len() >= REMEMBERED && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, tail);
    }
}
