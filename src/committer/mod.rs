//! The one writer. It takes what is waiting, decides it in order, writes it in one durable transaction, opens or
//! closes the Gate accordingly, and only then answers.

mod draft;
mod ends;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use draft::Draft;
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::actor::Actor;
use sessiond_core::application::{Application, ApplicationCommand, ApplicationCreated, UpstreamSet};
use sessiond_core::bar::Bar;
use sessiond_core::caller::{Authority, Caller};
use sessiond_core::command::{Command, Connect};
use sessiond_core::filter::Filter;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, ServiceAccountNumber,
    SessionNumber, Stream, Tip,
};
use sessiond_core::item::{Item, ItemEvent};
use sessiond_core::maxima::Maxima;
use sessiond_core::once::Once;
use sessiond_core::organization::{Organization, OrganizationCommand, OrganizationCreated};
use sessiond_core::policy::Policy;
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Revocation;
use sessiond_core::service_account::{ServiceAccount, ServiceAccountCommand, ServiceAccountCreated};
use sessiond_core::session::{Refusal, Session};
use sessiond_core::throughput::Reading;
use sessiond_core::token::AccessToken;
use sessiond_store::{Health, Loaded, SideWrite, StoreError, Writer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::Error;
use crate::gate::{Change, Flight, Gate};
use crate::tasks::vital;
use crate::{logs, meter};
pub use draft::{TOO_MANY, not_too_many};

/// Units that may wait; beyond that callers are told to come back.
const QUEUE: usize = 8_192;
/// Units decided into one transaction.
const BATCH: usize = 512;
/// How often the committer lets others run before it closes a batch.
const YIELDS: usize = 2;
/// Sessions that bulk units may touch in one transaction, so that nobody else waits long for it.
pub const CHUNK: usize = 500;
/// Size of the write-ahead log above which the committer empties it between batches.
const LARGE_WAL: u64 = 64 << 20;
/// Activity settles into its rows when the log's tail beyond them has so many events, or so much time has passed.
const UNSETTLED_EVENTS: i64 = 65_536;
const UNSETTLED_FOR: Duration = Duration::from_secs(10);
/// Hot rows written with one transaction while settling: little enough that nobody waits for it.
const SETTLE_SLICE: usize = 128;

/// Who wants something, as the envelope of its events will tell.
#[derive(Debug, Clone)]
pub struct By {
    pub actor: Actor,
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    /// The request that this is the effect of, where it is to take effect once. Its outcome is recorded with it; so a
    /// request hands in one unit, or one for each part of it.
    pub once: Option<Arc<Once>>,
    /// What the wish rests on: judged again in the batch, because what came before it in there may have ended it.
    pub authority: Option<Authority>,
}

impl By {
    /// sessiond itself.
    pub fn system() -> Self {
        Self { actor: Actor::SYSTEM, request_id: None, traceparent: None, once: None, authority: None }
    }

    /// A caller, with the request it made.
    pub fn caller(caller: &Caller) -> Self {
        Self {
            actor: caller.actor,
            request_id: caller.request_id.clone(),
            traceparent: caller.traceparent.clone(),
            once: caller.once.clone(),
            authority: Some(caller.authority()),
        }
    }

    /// What follows from what a caller did while it might: it goes on record, whatever became of the credential since.
    pub fn consequence_of(caller: &Caller) -> Self {
        Self { once: None, authority: None, ..Self::caller(caller) }
    }

    /// Whoever stands at the console.
    pub fn operator() -> Self {
        Self { actor: Actor::OPERATOR, ..Self::system() }
    }

    /// sessiond, on behalf of whoever asked.
    pub fn as_system(&self) -> Self {
        Self { actor: Actor::SYSTEM, once: None, ..self.clone() }
    }

    /// What this came to before, if its request repeats one that took effect.
    pub fn recorded(&self) -> Result<Option<Done>, Error> {
        let recorded = self.once.as_ref().and_then(|once| once.recorded.as_deref());
        recorded.map(|text| serde_json::from_str(text).map_err(unreadable)).transpose()
    }
}

impl Work {
    /// Whether something is to be gone from the disk when it is done.
    fn erases(&self) -> bool {
        matches!(self, Self::Side(SideWrite::ErasePrincipal(_) | SideWrite::ErasePersonal(_)))
    }
}

/// One unit of work: all of it happens, or none.
#[derive(Debug)]
pub enum Work {
    /// A wish about one open session. `token_hash` replaces its token where the wish is to renew it.
    Session {
        number: SessionNumber,
        command: Command,
        token_hash: Option<[u8; 32]>,
    },
    /// Open a session, or attach to one.
    Connect(Box<Opening>),
    /// The same kind of wish about many sessions, at most [`CHUNK`].
    Bulk {
        items: Vec<(SessionNumber, Command)>,
        revocation: Option<RevocationNumber>,
    },
    /// Wishes about many sessions, at most [`CHUNK`], each of which may be refused for itself.
    Report(Vec<(SessionNumber, Command)>),
    /// Readings of many sessions' counters, at most [`CHUNK`], each of which may be refused for itself.
    Measure(Vec<(SessionNumber, Command)>),
    /// Close the Gate for what the filter covers and record that a revocation began.
    BeginRevocation(Box<Beginning>),
    EndRevocation {
        number: RevocationNumber,
        /// Requests and streams that it cut off.
        streams_closed: u64,
    },
    /// A wish about a small thing of the directory, said as the event it wants. Without a stream: a new one.
    Item {
        organization: OrganizationNumber,
        stream: Option<Stream>,
        wish: ItemEvent,
        /// Written with it, if it happens.
        side: Vec<SideWrite>,
    },
    /// Make sure that there is a media stream, with an application for its app.
    Declare {
        organization: OrganizationNumber,
        declaration: Box<Declaration>,
    },
    /// Make sure that there is an application of this name.
    EnsureApplication {
        organization: OrganizationNumber,
        made: Box<ApplicationCreated>,
    },
    /// Know a principal, whether it is new or not.
    Introduce(Introduction),
    Organization {
        number: OrganizationNumber,
        command: OrganizationCommand,
    },
    CreateOrganization(Box<Founding>),
    CreateApplication {
        organization: OrganizationNumber,
        created: ApplicationCreated,
        secret_hash: Option<[u8; 32]>,
    },
    Application {
        number: ApplicationNumber,
        command: ApplicationCommand,
        secret_hash: Option<[u8; 32]>,
    },
    /// Name an upstream, with the sealed secret of its credential; none: the secret before is forgotten.
    SetUpstream {
        number: ApplicationNumber,
        set: UpstreamSet,
        sealed: Option<Vec<u8>>,
    },
    CreateServiceAccount {
        organization: OrganizationNumber,
        created: ServiceAccountCreated,
        secret_hash: [u8; 32],
    },
    ServiceAccount {
        number: ServiceAccountNumber,
        command: ServiceAccountCommand,
        secret_hash: Option<[u8; 32]>,
    },
    /// Issue an access token; the committer fills in where in the log. Its client was looked at as of a position: what has
    /// changed since has to be looked at again.
    IssueToken {
        token: AccessToken,
        as_of: Position,
    },
    Side(SideWrite),
    /// Report on the live writer.
    Health,
}

/// A revocation that is to begin, with what happens in the same transaction.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub filter: Filter,
    pub reason: Reason,
    pub note: Option<String>,
    /// What it bars beyond what its filter bars by itself.
    pub bar: Bar,
    /// The principal is disabled with it; with its public id.
    pub disable: Option<(PrincipalNumber, Uuid)>,
    /// It is a run of this schedule, for this moment. A run that is done already does not begin again.
    pub schedule: Option<(Stream, Time)>,
}

/// A connect with what belongs to it beside the rules.
#[derive(Debug)]
pub struct Opening {
    pub connect: Connect,
    /// None for kinds of session that have no token.
    pub token_hash: Option<[u8; 32]>,
    pub issuer: String,
    pub subject: String,
    pub subject_digest: [u8; 32],
}

/// A media stream that is to be there, with how to make what is missing.
#[derive(Debug, Clone)]
pub struct Declaration {
    pub id: Uuid,
    /// Virtual host, app and stream.
    pub names: [String; 3],
    /// The application that stands for the app, where there is none of its name yet.
    pub application: ApplicationCreated,
}

/// A principal as whoever vouches for it describes it.
#[derive(Debug, Clone)]
pub struct Introduction {
    pub organization: OrganizationNumber,
    pub issuer: String,
    pub subject: String,
    pub subject_digest: [u8; 32],
    /// Replace what was known, where they are said.
    pub name: Option<String>,
    pub email: Option<String>,
}

/// An organization with its first service account, and an application to go with it.
#[derive(Debug)]
pub struct Founding {
    pub organization: OrganizationCreated,
    pub application: Option<ApplicationCreated>,
    pub application_secret_hash: Option<[u8; 32]>,
    pub account: ServiceAccountCreated,
    pub secret_hash: [u8; 32],
}

/// What came of a unit. Recorded for requests that take effect once, so nothing secret is in what they can come to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// The session as it stands now; `opened` if this unit opened it.
    Session {
        session: Box<Session>,
        opened: bool,
    },
    /// How many sessions this unit ended.
    Bulk(u64),
    /// What of a report was refused, in its order.
    Report(Vec<Option<Refusal>>),
    /// What became of readings, in their order.
    Measured(Vec<Result<Reading, Refusal>>),
    Revocation(Revocation),
    Founded(Organization, ServiceAccount),
    Organization(Box<Organization>),
    Application(Box<Application>),
    ServiceAccount(Box<ServiceAccount>),
    #[serde(skip)]
    Token(AccessToken),
    Item(Box<Item>),
    Principal(PrincipalNumber),
    #[serde(skip)]
    Health(Health),
    Nothing,
}

/// What a unit is answered with: its outcome, and what it cancelled that is still under way.
pub struct Answer {
    pub done: Done,
    pub flights: Arc<Vec<Arc<Flight>>>,
}

struct Unit {
    by: By,
    work: Work,
    reply: oneshot::Sender<Result<Answer, Error>>,
}

/// The way to the committer. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Unit>,
    tip: watch::Receiver<Tip>,
    stopped: CancellationToken,
}

impl Committer {
    /// Starts the one writer of a database on what was loaded from it, after the Gate was filled with the same.
    pub fn start(
        writer: Writer,
        loaded: &Loaded,
        gate: Arc<Gate>,
        clock: Clock,
        rules: (Policy, Maxima),
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let tip = Tip { position: loaded.head, lifecycle: loaded.head };
        let (publish, tip) = watch::channel(tip);
        let stopped = CancellationToken::new();
        let chain = Chain {
            position: loaded.head,
            recorded_at: loaded.last_recorded_at.unwrap_or_default(),
            commit_hash: loaded.commit_hash,
            last_session: loaded.last_session.0,
            last_session_id: loaded.last_session_id,
            last_revocation: loaded.last_revocation,
            last_principal: loaded.last_principal,
        };
        let settling = Settling {
            settled: loaded.settled,
            dirty: loaded.unsettled.clone(),
            pass: None,
            since: Instant::now(),
        };
        let task = Task {
            writer,
            gate,
            clock,
            rules,
            chain,
            settling,
            publish,
            later: VecDeque::new(),
            batches: 0,
            erased: false,
            provisional: VecDeque::new(),
            last_provisional: 0,
        };
        vital("committer", task.run(waiting, stopped.clone()));
        Self { queue, tip, stopped }
    }

    /// How far the log goes; changes with each commit.
    pub fn tip(&self) -> watch::Receiver<Tip> {
        self.tip.clone()
    }

    /// Hands in a unit and waits until it is durable, or refused. What took effect before is answered from the record.
    pub async fn submit(&self, by: By, work: Work) -> Result<Answer, Error> {
        if let Some(done) = by.recorded()? {
            return Ok(Answer { done, flights: Arc::default() });
        }
        let (reply, answer) = oneshot::channel();
        let ends = work.ends_credentials();
        self.queue.try_send(Unit { by, work, reply }).map_err(|_| Error::Busy)?;
        let answer = answer.await.map_err(|_| Error::Busy)??;
        if ends {
            // It is over, says the answer: so nothing that the credential opened may still be handing anything on.
            answer.landed().await;
        }
        Ok(answer)
    }

    /// Hands in a unit whose outcome nobody waits for: in the order of the calls, so that whatever is handed in after this
    /// finds it done.
    pub fn post(&self, by: By, work: Work) -> Result<(), Error> {
        if by.recorded()?.is_some() {
            return Ok(());
        }
        let (reply, _) = oneshot::channel();
        self.queue.try_send(Unit { by, work, reply }).map_err(|_| Error::Busy)
    }

    /// Writes what still waits, settles, closes the database and returns when all that is done.
    pub async fn stop(&self) {
        let (reply, _) = oneshot::channel();
        // A unit that writes nothing wakes the task in case nothing else does; the token tells it to end.
        self.stopped.cancel();
        let work = Work::Health;
        self.queue.send(Unit { by: By::system(), work, reply }).await.ok();
        self.queue.closed().await;
    }
}

/// Where the log stands.
#[derive(Debug, Clone, Copy)]
struct Chain {
    position: Position,
    recorded_at: Time,
    commit_hash: [u8; 32],
    last_session: i64,
    last_session_id: Uuid,
    last_revocation: i64,
    last_principal: i64,
}

/// Activity on its way into the hot rows.
struct Settling {
    settled: Position,
    dirty: BTreeSet<SessionNumber>,
    /// What the pass under way still has to write, and the position up to which all is settled once it is through.
    pass: Option<(Position, BTreeSet<SessionNumber>)>,
    since: Instant,
}

struct Task {
    writer: Writer,
    gate: Arc<Gate>,
    clock: Clock,
    /// The server's figures for sessions, and the most that may be made on the way.
    rules: (Policy, Maxima),
    chain: Chain,
    settling: Settling,
    publish: watch::Sender<Tip>,
    /// Bulk units put off, because the batch had enough of them.
    later: VecDeque<Unit>,
    batches: u64,
    /// Something was erased, and may still stand in the write-ahead log.
    erased: bool,
    /// Revocations that are in force in memory only, because the disk was full: to be recorded once there is space.
    provisional: VecDeque<(RevocationNumber, Unit)>,
    last_provisional: i64,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<Unit>, stopped: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut units = Vec::with_capacity(BATCH);
        loop {
            units.extend(self.later.drain(..));
            if units.is_empty() {
                tokio::select! {
                    received = waiting.recv_many(&mut units, BATCH) => if received == 0 { break },
                    _ = tick.tick() => {}
                }
            }
            // Not a delay: whoever is ready to hand something in gets to do so before the batch is closed. Larger
            // batches rewrite the log's last page, and flush, less often per call.
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            while units.len() < BATCH
                && let Ok(unit) = waiting.try_recv()
            {
                units.push(unit);
            }
            self.put_off_bulk(&mut units);
            self.process(std::mem::take(&mut units)).await;
            if stopped.is_cancelled() && waiting.is_empty() && self.later.is_empty() {
                break;
            }
        }
        self.settling.since = Instant::now() - UNSETTLED_FOR;
        while !self.settling.dirty.is_empty() || self.settling.pass.is_some() {
            if self.settle_only().await.is_err() {
                break;
            }
        }
        if let Err(error) = self.writer.close().await {
            tracing::error!(%error, "closing the database failed");
        }
    }

    /// Leaves bulk units for at most a chunk of sessions in the batch, so that nobody waits long for it.
    fn put_off_bulk(&mut self, units: &mut Vec<Unit>) {
        let mut room = CHUNK;
        let put_off = units.extract_if(.., |unit| match &unit.work {
            Work::Bulk { items, .. } | Work::Report(items) if items.len() <= room || room == CHUNK => {
                room = room.saturating_sub(items.len());
                false
            }
            Work::Measure(items) if items.len() <= room || room == CHUNK => {
                room = room.saturating_sub(items.len());
                false
            }
            Work::Bulk { .. } | Work::Report(_) | Work::Measure(_) => true,
            _ => false,
        });
        self.later.extend(put_off);
    }

    async fn process(&mut self, units: Vec<Unit>) {
        if let Err(error) = self.writer.check_files() {
            fail_stop(&error);
        }
        self.record_provisional().await;
        self.empty_wal_of_what_was_erased().await;
        let erases = units.iter().any(|unit| unit.work.erases());
        if units.is_empty() {
            self.settle_only().await.ok();
            return;
        }
        match self.attempt(&units).await {
            Ok(answers) => reply(units, answers),
            // Nothing of the batch was written. A full disk is full for everyone; anything else may be one unit's
            // fault, so each gets its own try.
            Err(StoreError::Full) => self.refuse_for_want_of_space(units),
            Err(_) if units.len() > 1 => {
                for unit in units {
                    match self.attempt(std::slice::from_ref(&unit)).await {
                        Ok(answers) => reply(vec![unit], answers),
                        Err(StoreError::Full) => self.refuse_for_want_of_space(vec![unit]),
                        Err(error) => reply(vec![unit], vec![Err(error.into())]),
                    }
                }
            }
            Err(error) => reply(units, vec![Err(error.into())]),
        }
        self.batches += 1;
        self.erased |= erases;
        if self.batches.is_multiple_of(64) && self.writer.wal_bytes() > LARGE_WAL {
            self.writer.truncate_wal().await.ok();
        }
    }

    /// Decides the units in order, writes what they come to, and applies it to the Gate.
    async fn attempt(&mut self, units: &[Unit]) -> Result<Vec<Result<Answer, Error>>, StoreError> {
        let now = self.clock.now();
        let health = if units.iter().any(|unit| matches!(unit.work, Work::Health)) {
            Some(self.writer.health().await?)
        } else {
            None
        };
        let (outcomes, mut decided) = {
            // Who makes room under a limit depends on what the clock says of whom.
            let opens = units.iter().any(|unit| matches!(unit.work, Work::Connect(_)));
            let known = if opens { self.gate.known_at(now) } else { self.gate.known() };
            let mut draft = Draft::new(&known, self.chain, self.rules, now);
            let mut outcomes = Vec::with_capacity(units.len());
            for unit in units {
                let outcome = catch_unwind(AssertUnwindSafe(|| draft.decide(&unit.by, &unit.work)));
                match outcome {
                    Ok(outcome) => outcomes.push(outcome),
                    // What the unit left half done in the draft goes with the draft.
                    Err(_) => {
                        return Err(StoreError::Failed("a decision panicked; this is a bug".to_owned()));
                    }
                }
            }
            (outcomes, draft.finish())
        };
        self.add_settling(&mut decided);
        if !decided.batch.is_empty() {
            self.commit(&decided.batch).await?;
        }
        self.chain = decided.chain;
        self.settled(&decided.batch, decided.active);
        let flights = Arc::new(self.gate.apply(decided.changes));
        if let Some(last) = decided.batch.events.last() {
            let position = last.recorded.position;
            self.publish.send_modify(|tip| {
                tip.position = position;
                tip.lifecycle = decided.lifecycle.unwrap_or(tip.lifecycle);
            });
        }
        let answer = |done: Done| {
            let done = match (done, &health) {
                (Done::Nothing, Some(health)) => Done::Health(health.clone()),
                (done, _) => done,
            };
            Answer { done, flights: flights.clone() }
        };
        Ok(outcomes.into_iter().map(|outcome| outcome.map(answer)).collect())
    }

    async fn commit(&mut self, batch: &sessiond_store::Batch) -> Result<(), StoreError> {
        let begun = Instant::now();
        let outcome = self.writer.commit(batch).await;
        measure(batch, begun.elapsed(), outcome.as_ref().err());
        if let Err(error @ (StoreError::Broken(_) | StoreError::Corrupt(_) | StoreError::Raced(_))) = &outcome
        {
            fail_stop(error);
        }
        outcome
    }

    /// What was erased is gone once the write-ahead log was emptied, which has to wait until nobody reads the old one.
    async fn empty_wal_of_what_was_erased(&mut self) {
        if self.erased && self.writer.truncate_wal().await.is_ok() {
            self.erased = self.writer.wal_bytes() > 0;
        }
    }

    fn refuse_for_want_of_space(&mut self, units: Vec<Unit>) {
        tracing::error!("the disk is full: nothing was written");
        for mut unit in units {
            if let Work::BeginRevocation(beginning) = &unit.work {
                self.last_provisional += 1;
                let number = RevocationNumber(-self.last_provisional);
                let (head, now) = (self.chain.position, self.clock.now());
                let changes = draft::provisional(&self.gate.known(), number, beginning, head, now);
                self.gate.apply(changes);
                let told = std::mem::replace(&mut unit.reply, oneshot::channel().0);
                told.send(Err(Error::DiskFull)).ok();
                self.provisional.push_back((number, unit));
            } else {
                unit.reply.send(Err(Error::DiskFull)).ok();
            }
        }
    }

    /// Records what could only be remembered, in case there is space by now. What it covers is denied all the while: the
    /// one that is on record is in force before the other goes.
    async fn record_provisional(&mut self) {
        while let Some((number, unit)) = self.provisional.pop_front() {
            if self.attempt(std::slice::from_ref(&unit)).await.is_err() {
                self.provisional.push_front((number, unit));
                return;
            }
            // Also where it was refused: its application may have been archived since.
            tracing::info!("a revocation that found the disk full is recorded now");
            self.gate.apply(vec![Change::LiftRevocation(number)]);
        }
    }

    // ---- settling ----

    /// Adds a slice of hot rows to a batch while a pass is under way, and begins a pass when one is due.
    fn add_settling(&mut self, decided: &mut draft::Decided) {
        let settling = &mut self.settling;
        let tail = self.chain.position.0 - settling.settled.0;
        let due = tail > UNSETTLED_EVENTS || settling.since.elapsed() >= UNSETTLED_FOR;
        if settling.pass.is_none() && due {
            settling.since = Instant::now();
            if !settling.dirty.is_empty() || tail > UNSETTLED_EVENTS {
                settling.pass = Some((self.chain.position, std::mem::take(&mut settling.dirty)));
            }
        }
        let Some((target, left)) = &mut settling.pass else { return };
        let known = self.gate.known();
        for number in left.iter().take(SETTLE_SLICE) {
            // One whose lifecycle row is written, now or when it ended, has its figures there.
            let written = decided.batch.sessions.binary_search_by_key(number, |session| session.number);
            if written.is_err() {
                let current = decided.sessions.get(number).or_else(|| known.session(*number));
                decided.batch.settle.extend(current.cloned());
            }
        }
        if left.len() <= SETTLE_SLICE {
            decided.batch.settled = Some(*target);
        }
    }

    /// Takes note of what a commit settled and what it made dirty.
    fn settled(&mut self, batch: &sessiond_store::Batch, active: Vec<SessionNumber>) {
        self.settling.dirty.extend(active);
        if let Some(position) = batch.settled {
            self.settling.settled = position;
            self.settling.pass = None;
        } else if let Some((_, left)) = &mut self.settling.pass {
            for _ in 0..SETTLE_SLICE {
                left.pop_first();
            }
        }
        for session in &batch.sessions {
            self.settling.dirty.remove(&session.number);
            if let Some((_, left)) = &mut self.settling.pass {
                left.remove(&session.number);
            }
        }
    }

    /// A transaction of its own for settling, when nothing else is going on.
    async fn settle_only(&mut self) -> Result<(), StoreError> {
        let mut decided = draft::Decided::empty(self.chain);
        self.add_settling(&mut decided);
        if !decided.batch.is_empty() {
            self.commit(&decided.batch).await?;
        }
        // Also where nothing had to be written: the slice is done.
        self.settled(&decided.batch, vec![]);
        Ok(())
    }
}

/// Ends the process: after a failed flush nobody knows what is on disk, and trying again would hide it; and where the
/// file is gone or another process writes to it, what memory says is not what is there.
fn fail_stop(error: &StoreError) -> ! {
    tracing::error!(%error, "ending: nothing that is written from here on could be relied upon");
    logs::end(74)
}

/// Counts a commit, for whoever watches over the service.
fn measure(batch: &sessiond_store::Batch, took: Duration, error: Option<&StoreError>) {
    if let Some(error) = error {
        let kind = match error {
            StoreError::Full => "full",
            StoreError::Broken(_) | StoreError::Corrupt(_) | StoreError::Raced(_) => "broken",
            StoreError::Damaged { .. } => "damaged",
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

fn unreadable(error: serde_json::Error) -> Error {
    Error::Internal(format!("a recorded outcome cannot be read: {error}"))
}

fn reply(units: Vec<Unit>, answers: Vec<Result<Answer, Error>>) {
    for (unit, answer) in units.into_iter().zip(answers) {
        if let Err(Error::Conflict { code, .. } | Error::Denied { code, .. }) = &answer
            && code.ends_with("_limit_reached")
        {
            metrics::counter!(meter::LIMITS_REACHED, "limit" => *code).increment(1);
        }
        // Whoever asked may have left; what was decided stands.
        unit.reply.send(answer).ok();
    }
}
