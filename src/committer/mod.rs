//! The one writer. It takes what is waiting, decides it in order, writes it in one durable transaction, opens or
//! closes the Gate accordingly, and only then answers.
//!
//! Whoever hands in an operation may rely on this:
//! - **Order**: operations are decided in the order in which they were handed in, each on what those before it have come to,
//!   also within a batch. Only those that touch many sessions may be put off, so that nobody waits long for a transaction
//!   ([`CHUNK`]).
//! - **All of it or nothing**: a refusal leaves nothing behind, and neither does an error of the store.
//! - **An answer is the last word**: it comes once the batch is on disk and the Gate says the same. Whatever was cut off has
//!   let go by then, or has had its time ([`Operation::WAITS`]).
//! - **Nobody pays for another**: where a batch fails, or a decision panics, each operation is tried again by itself.
//! - **Once**: an operation whose origin has an idempotency key takes effect once, and is answered the same every time.
//! - **Bounds**: [`QUEUE`] may wait; beyond, callers are told to come back.
//! - **A full disk** refuses everything alike; a revocation is in force in memory all the same, and is recorded once there is
//!   space.
//! - **What cannot be relied upon ends the process**: after an error that [ends all](StoreError::ends_all), memory may say what
//!   the disk does not.

mod audit;
mod draft;
mod operation;
mod operations;
mod origin;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use draft::Draft;
use operation::{Following, Submitted, Unit};
use sessiond_core::ids::{RevocationNumber, Tip};
use sessiond_core::maxima::Maxima;
use sessiond_core::policy::Policy;
use sessiond_core::revocation::Acknowledged;
use sessiond_store::{At, Check, StoreError, Writer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::Error;
use crate::gate::Gate;
use crate::nodes::{Applied, Barrier};
use crate::tasks::vital;
use crate::{logs, meter};
pub use draft::not_too_many;
pub use operation::{Answer, Operation};
pub use operations::*;
pub use origin::Origin;

/// Operations that may wait; beyond that callers are told to come back.
const QUEUE: usize = 8_192;
/// Operations decided into one transaction.
const BATCH: usize = 512;
/// How often the committer lets others run before it closes a batch.
const YIELDS: usize = 2;
/// Sessions that operations on many may touch in one transaction, so that nobody else waits long for it.
pub const CHUNK: usize = 500;

/// What waits for the committer.
enum Waiting {
    Unit(Box<dyn Unit>),
    /// Somebody wants to know what the live writer runs on.
    Health(oneshot::Sender<Result<Vec<Check>, Error>>),
}

/// The way to the committer. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Waiting>,
    applied: Arc<Applied>,
    barrier: Option<Arc<Barrier>>,
    stopped: CancellationToken,
}

impl Committer {
    /// Starts the committer of a store, with its one writer, where the Gate was filled; with whoever waits for other nodes, if
    /// there may be any.
    pub fn start(
        writer: Box<dyn Writer>,
        applied: Arc<Applied>,
        barrier: Option<Arc<Barrier>>,
        clock: Clock,
        rules: (Policy, Maxima),
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let stopped = CancellationToken::new();
        let task = Task {
            writer,
            gate: applied.gate(),
            applied: applied.clone(),
            barrier: barrier.clone(),
            clock,
            rules,
            queue: Queue { waiting, later: VecDeque::new(), health: vec![] },
            provisional: VecDeque::new(),
            last_provisional: 0,
        };
        vital("committer", task.run(stopped.clone()));
        Self { queue, applied, barrier, stopped }
    }

    /// How far the log goes; changes with each commit.
    pub fn tip(&self) -> watch::Receiver<Tip> {
        self.applied.tip()
    }

    /// Waits until all that this process has applied by now is true on every node, however long that takes. Says on how many it
    /// is; none where there is one process.
    pub async fn true_everywhere(&self) -> Option<Acknowledged> {
        let barrier = self.barrier.as_ref()?;
        let commit = *self.applied.commit().borrow();
        Some(barrier.wait(commit).await)
    }

    /// Hands in an operation and waits until it is durable, or refused. What took effect before is answered from the record.
    pub async fn submit<O: Operation>(
        &self,
        origin: Origin,
        operation: O,
    ) -> Result<Answer<O::Outcome>, Error> {
        if let Some(outcome) = origin.recorded::<O>()? {
            if O::WAITS {
                // Whoever asked before may have left before it was true everywhere.
                self.true_everywhere().await;
            }
            return Ok(Answer::recorded(outcome));
        }
        let (reply, answer) = oneshot::channel();
        let unit = Submitted::new(origin, operation, Some(reply));
        self.queue.try_send(Waiting::Unit(unit)).map_err(|_| Error::Busy)?;
        let answer = answer.await.map_err(|_| Error::Busy)??;
        if O::WAITS {
            answer.landed().await;
        }
        Ok(answer)
    }

    /// Hands in an operation whose outcome nobody waits for: in the order of the calls, so that whatever is handed in after
    /// this finds it done.
    pub fn post<O: Operation>(&self, origin: Origin, operation: O) -> Result<(), Error> {
        if origin.recorded::<O>()?.is_some() {
            return Ok(());
        }
        let unit = Submitted::new(origin, operation, None);
        self.queue.try_send(Waiting::Unit(unit)).map_err(|_| Error::Busy)
    }

    /// What the live writer runs on; fails if it does not answer.
    pub async fn health(&self) -> Result<Vec<Check>, Error> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Waiting::Health(reply)).map_err(|_| Error::Busy)?;
        answer.await.map_err(|_| Error::Busy)?
    }

    /// Writes what still waits, closes the store and returns when all that is done.
    pub async fn stop(&self) {
        // The token tells the task to end, and something to do wakes it in case nothing else does.
        self.stopped.cancel();
        let unit = Submitted::new(Origin::system(), Nothing, None);
        self.queue.send(Waiting::Unit(unit)).await.ok();
        self.queue.closed().await;
    }
}

/// What waits for a batch.
struct Queue {
    waiting: mpsc::Receiver<Waiting>,
    /// Operations on many sessions that were put off, because the batch had enough of them.
    later: VecDeque<Box<dyn Unit>>,
    /// Who wants to know what the live writer runs on.
    health: Vec<oneshot::Sender<Result<Vec<Check>, Error>>>,
}

impl Queue {
    /// Waits until there is something to do. Whether anything can come any more.
    async fn wait(&mut self, units: &mut Vec<Box<dyn Unit>>) -> bool {
        if self.later.is_empty() {
            match self.waiting.recv().await {
                Some(one) => self.take(one, units),
                None => return false,
            }
        }
        units.extend(self.later.drain(..));
        true
    }

    /// Adds to a batch what waits by now, as far as there is room. Of those operations that touch many sessions it keeps for
    /// later what is more than a chunk, so that nobody waits long for the batch.
    fn fill(&mut self, units: &mut Vec<Box<dyn Unit>>) {
        while units.len() < BATCH
            && let Ok(one) = self.waiting.try_recv()
        {
            self.take(one, units);
        }
        let mut room = CHUNK;
        let put_off = units.extract_if(.., |unit| {
            let sessions = unit.sessions();
            let fits = sessions <= room || room == CHUNK;
            room = if fits { room.saturating_sub(sessions) } else { room };
            !fits
        });
        self.later.extend(put_off);
    }

    fn take(&mut self, one: Waiting, units: &mut Vec<Box<dyn Unit>>) {
        match one {
            Waiting::Unit(unit) => units.push(unit),
            Waiting::Health(reply) => self.health.push(reply),
        }
    }

    fn is_empty(&self) -> bool {
        self.later.is_empty() && self.waiting.is_empty()
    }
}

struct Task {
    writer: Box<dyn Writer>,
    gate: Arc<Gate>,
    /// Where the log stands, and the way of commits into the Gate.
    applied: Arc<Applied>,
    /// Who waits for the other nodes.
    barrier: Option<Arc<Barrier>>,
    clock: Clock,
    /// The server's figures for sessions, and the most that may be made on the way.
    rules: (Policy, Maxima),
    queue: Queue,
    /// Revocations that are in force in memory only, because the disk was full: to be recorded once there is space.
    provisional: VecDeque<(RevocationNumber, Box<dyn Unit>)>,
    last_provisional: i64,
}

impl Task {
    async fn run(mut self, stopped: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut units = Vec::new();
            tokio::select! {
                open = self.queue.wait(&mut units) => if !open { break },
                _ = tick.tick() => {}
            }
            // Not a delay: whoever is ready to hand something in gets to do so before the batch is closed. Larger
            // batches rewrite the log's last page, and flush, less often per call.
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            self.queue.fill(&mut units);
            for reply in std::mem::take(&mut self.queue.health) {
                // Whoever asked may have left.
                reply.send(self.writer.health().await.map_err(Error::from)).ok();
            }
            self.process(units).await;
            if stopped.is_cancelled() && self.queue.is_empty() {
                break;
            }
        }
        if let Err(error) = self.writer.close().await {
            if error.ends_all() {
                fail_stop(&error);
            }
            tracing::error!(%error, "closing the database failed");
        }
    }

    async fn process(&mut self, mut units: Vec<Box<dyn Unit>>) {
        if let Err(error) = self.writer.maintain().await {
            fail_stop(&error);
        }
        self.record_provisional().await;
        if units.is_empty() {
            self.idle().await;
            return;
        }
        match self.attempt(&mut units, true).await {
            Ok(following) => answer(units, following),
            // Nothing of the batch was written, unless the error says otherwise. A full disk is full for everyone; anything
            // else may be one unit's fault, so each gets its own try.
            Err(StoreError::Full) => self.refuse_for_want_of_space(units),
            // Any of it may have been written: a second try could be a second time. If it was, the next turn brings it.
            Err(error @ StoreError::Unknown(_)) => refuse(units, &error),
            Err(error @ StoreError::Away(_)) => {
                tracing::warn!(%error, "nothing can be written for now");
                refuse(units, &error);
            }
            Err(_) if units.len() > 1 => {
                for unit in units {
                    let mut alone = vec![unit];
                    match self.attempt(&mut alone, false).await {
                        Ok(following) => answer(alone, following),
                        Err(StoreError::Full) => self.refuse_for_want_of_space(alone),
                        Err(error) => refuse(alone, &error),
                    }
                }
            }
            Err(error) => refuse(units, &error),
        }
    }

    /// Waits for the writer's turn, decides the units in order, with those that have come in meanwhile where there may be more,
    /// writes what they come to, and applies it to the Gate. Returns what follows from each of them.
    async fn attempt(
        &mut self,
        units: &mut Vec<Box<dyn Unit>>,
        more: bool,
    ) -> Result<Vec<Following>, StoreError> {
        let known = *self.applied.lock().await;
        let mut turn = self.writer.turn(Some(&known)).await.map_err(or_end)?;
        if more {
            self.queue.fill(units);
        }
        let now = turn.now().map_or_else(|| self.clock.now(), |now| self.clock.shifted(now));
        let mut at = self.applied.lock().await;
        for commit in turn.missed(at.commit) {
            self.applied.follow(&mut at, commit, now);
        }
        let mut decided = {
            let looks = units.iter().any(|unit| unit.looks_at_others());
            let known = if looks { self.gate.known_at(now) } else { self.gate.known() };
            let mut draft = Draft::new(&known, at.log, self.rules, now);
            for unit in units.iter_mut() {
                // What the unit left half done in the draft goes with the draft.
                catch_unwind(AssertUnwindSafe(|| unit.decide(&mut draft)))
                    .map_err(|_| StoreError::Failed("a decision panicked; this is a bug".to_owned()))?;
            }
            draft.finish()
        };
        let mut after = At { log: decided.log, commit: at.commit };
        if decided.batch.is_empty() {
            drop(turn);
        } else {
            let begun = Instant::now();
            let outcome = turn.commit(&decided.batch).await;
            measure(&decided.batch, begun.elapsed(), outcome.as_ref().err());
            after.commit = outcome.map_err(or_end)?;
            audit::tell(&decided.batch);
        }
        let awaited = self.barrier.as_ref().map(|barrier| (barrier.clone(), after.commit));
        let ends = if awaited.is_some() { decided.ends() } else { BTreeSet::new() };
        let committed = decided.committed(units.len(), now);
        let cut_off = self.applied.commit_own(&mut at, after, decided.batch.lifecycle, committed);
        drop(at);
        if decided.batch.is_empty() {
            self.idle().await;
        }
        let following = |(operation, cut_off)| Following {
            cut_off,
            awaited: awaited.clone().filter(|_| ends.contains(&operation)),
        };
        Ok(cut_off.into_iter().enumerate().map(following).collect())
    }

    /// Lets the writer do what it puts off while there is something to write. That it cannot is said when there is.
    async fn idle(&mut self) {
        let begun = Instant::now();
        let outcome = self.writer.idle().await;
        if !matches!(outcome, Ok(false)) {
            measure(&sessiond_store::Batch::default(), begun.elapsed(), outcome.as_ref().err());
        }
        if let Err(error) = outcome
            && error.ends_all()
        {
            fail_stop(&error);
        }
    }

    fn refuse_for_want_of_space(&mut self, units: Vec<Box<dyn Unit>>) {
        tracing::error!("the disk is full: nothing was written");
        for mut unit in units {
            let Some(beginning) = unit.revocation() else {
                unit.refuse(Error::DiskFull);
                continue;
            };
            self.last_provisional += 1;
            let number = RevocationNumber(-self.last_provisional);
            let (head, now) = (self.applied.tip().borrow().position, self.clock.now());
            let (changes, covered) = draft::provisional(&self.gate.known(), number, beginning, head, now);
            // In force first, and then told.
            self.gate.apply(changes, now);
            self.gate.cut_off(number, covered);
            unit.refuse(Error::DiskFull);
            self.provisional.push_back((number, unit));
        }
    }

    /// Records what could only be remembered, in case there is space by now. What it covers is denied all the while: the
    /// one that is on record is in force before the other goes.
    async fn record_provisional(&mut self) {
        while let Some((number, unit)) = self.provisional.pop_front() {
            let mut alone = vec![unit];
            if self.attempt(&mut alone, false).await.is_err() {
                alone.into_iter().for_each(|unit| self.provisional.push_front((number, unit)));
                return;
            }
            // Also where it was refused: its application may have been archived since.
            tracing::info!("a revocation that found the disk full is recorded now");
            self.gate.lift_provisional(number);
        }
    }
}

/// The error, unless it ends all.
fn or_end(error: StoreError) -> StoreError {
    if error.ends_all() {
        fail_stop(&error);
    }
    error
}

/// Ends the process: after a failed flush nobody knows what is on disk, and trying again would hide it; and where the
/// file is gone or another process writes to it, what memory says is not what is there.
fn fail_stop(error: &StoreError) -> ! {
    logs::end(74, &format!("{error}: nothing that is written from here on could be relied upon"))
}

/// Counts a commit, for whoever watches over the service.
fn measure(batch: &sessiond_store::Batch, took: Duration, error: Option<&StoreError>) {
    if let Some(error) = error {
        let kind = match error {
            StoreError::Full => "full",
            StoreError::Broken(_) | StoreError::Corrupt(_) | StoreError::Raced(_) => "broken",
            StoreError::Damaged { .. } => "damaged",
            StoreError::Unknown(_) => "unknown",
            StoreError::Away(_) => "away",
            StoreError::Failed(_) => "failed",
        };
        metrics::counter!(meter::STORE_ERRORS, "kind" => kind).increment(1);
        return;
    }
    metrics::histogram!(meter::APPEND).record(took);
    metrics::histogram!(meter::BATCH).record(batch.events.len() as f64);
    // A batch has many events of few types.
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in &batch.events {
        *counts.entry(entry.recorded.event.name()).or_default() += 1;
    }
    for (name, count) in counts {
        metrics::counter!(meter::EVENTS, "type" => name.to_owned()).increment(count);
    }
}

fn answer(units: Vec<Box<dyn Unit>>, following: Vec<Following>) {
    units.into_iter().zip(following).for_each(|(unit, following)| unit.answer(following));
}

fn refuse(units: Vec<Box<dyn Unit>>, error: &StoreError) {
    units.into_iter().for_each(|mut unit| unit.refuse(Error::from(error)));
}
