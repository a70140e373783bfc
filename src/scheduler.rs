//! The clock's errands: a table of jobs, each idempotent, none overlapping itself. Only cron expressions: this
//! scheduler's interval jobs stop for good after a stall (https://github.com/mvniekerk/tokio-cron-scheduler/issues/113).
//! And it goes by the time of day: after a step back it would wait until that has come round again. So it is watched by
//! the monotonic clock, and begun anew. `docs/decisions/0020-time-does-not-go-back.md` says why.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use parking_lot::Mutex as Lock;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::directory::Directory;
use crate::error::Error;
use crate::limits::Limits;
use crate::lines::Lines;
use crate::logs;
use crate::meter;
use crate::sessions::{Board, Sessions};
use crate::tasks::vital;

/// How often the scheduler is looked after, and how long it may begin no job: several are due every second.
const LOOK: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(10);

/// What a job says it did.
type Outcome = Pin<Box<dyn Future<Output = Result<String, Error>> + Send>>;

/// A row of the table: name, cron expression (with seconds), how often that is, and what to do.
struct Row {
    name: &'static str,
    cron: &'static str,
    every: Duration,
    run: fn(Errand) -> Outcome,
}

/// What jobs work with.
#[derive(Clone)]
struct Errand {
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    limits: Arc<Limits>,
    lines: Lines,
    keep_activity: TimeDelta,
    keep_lines: TimeDelta,
    /// As many bytes of them at most.
    keep_lines_bytes: Option<u64>,
}

const TABLE: &[Row] = &[
    Row {
        name: "deadlines",
        cron: "* * * * * *",
        every: Duration::from_secs(1),
        run: |errand| Box::pin(deadlines(errand)),
    },
    Row {
        name: "revocations",
        cron: "*/5 * * * * *",
        every: Duration::from_secs(5),
        run: |errand| Box::pin(revocations(errand)),
    },
    Row {
        name: "schedules",
        cron: "* * * * * *",
        every: Duration::from_secs(1),
        run: |errand| Box::pin(schedules(errand)),
    },
    Row {
        name: "traffic",
        cron: "*/2 * * * * *",
        every: Duration::from_secs(2),
        run: |errand| Box::pin(traffic(errand)),
    },
    Row {
        name: "checkpoint",
        cron: "*/2 * * * * *",
        every: Duration::from_secs(2),
        run: |errand| Box::pin(checkpoint(errand)),
    },
    Row {
        name: "api keys",
        cron: "15 * * * * *",
        every: Duration::from_secs(60),
        run: |errand| Box::pin(key_uses(errand)),
    },
    Row {
        name: "webhooks",
        cron: "15 */10 * * * *",
        every: Duration::from_secs(600),
        run: |errand| Box::pin(webhooks(errand)),
    },
    Row {
        name: "prune",
        cron: "30 */10 * * * *",
        every: Duration::from_secs(600),
        run: |errand| Box::pin(prune(errand)),
    },
    Row {
        name: "lines",
        cron: "45 */10 * * * *",
        every: Duration::from_secs(600),
        run: |errand| Box::pin(lines(errand)),
    },
    Row {
        name: "lines checkpoint",
        cron: "*/2 * * * * *",
        every: Duration::from_secs(2),
        run: |errand| Box::pin(lines_checkpoint(errand)),
    },
    Row {
        name: "outcomes",
        cron: "45 * * * * *",
        every: Duration::from_secs(60),
        run: |errand| Box::pin(outcomes(errand)),
    },
    Row {
        name: "limits",
        cron: "15 * * * * *",
        every: Duration::from_secs(60),
        run: |errand| Box::pin(async move { Ok(format!("{} callers remembered", errand.limits.forget())) }),
    },
    Row {
        name: "metrics",
        cron: "*/5 * * * * *",
        every: Duration::from_secs(5),
        run: |_| Box::pin(async { Ok(meter::tidy().to_owned()) }),
    },
    Row {
        name: "logs",
        cron: "*/5 * * * * *",
        every: Duration::from_secs(5),
        run: |_| Box::pin(async { Ok(format!("{} lines were left out", logs::tell())) }),
    },
];

/// Announce expiries, end what is stale or has reached its lifetime. Looks first whether the clock jumped.
async fn deadlines(errand: Errand) -> Result<String, Error> {
    if let Some(jump) = errand.sessions.check_clock() {
        tracing::warn!(
            seconds = jump.num_seconds(),
            "the clock jumped: nobody goes stale before a whole timeout more"
        );
    }
    let upkeep = errand.sessions.tend().await?;
    Ok(format!("{} expiries announced, {} sessions ended", upkeep.expired, upkeep.ended))
}

/// Wake the revocation worker, in case a wake-up was dropped.
async fn revocations(errand: Errand) -> Result<String, Error> {
    errand.sessions.wake_revocations();
    Ok(format!("{} unfinished", errand.sessions.unfinished_revocations()))
}

/// Begin the scheduled revocations that are due.
async fn schedules(errand: Errand) -> Result<String, Error> {
    Ok(format!("{} began", errand.sessions.run_schedules().await?))
}

/// Record gateway traffic whose window has passed.
async fn traffic(errand: Errand) -> Result<String, Error> {
    Ok(format!("{} sessions recorded", errand.sessions.flush_traffic(false).await))
}

/// Keep the write-ahead log from growing.
async fn checkpoint(errand: Errand) -> Result<String, Error> {
    Ok(format!("the write-ahead log had {} KiB", errand.sessions.checkpoint().await? >> 10))
}

/// Write down when API keys were last used.
async fn key_uses(errand: Errand) -> Result<String, Error> {
    Ok(format!("{} keys used", errand.directory.write_key_uses().await?))
}

/// Forget deliveries of webhooks that have been over for long.
async fn webhooks(errand: Errand) -> Result<String, Error> {
    errand.directory.forget_deliveries().await?;
    Ok("old deliveries forgotten".to_owned())
}

/// Drop old activity bodies and long-expired tokens.
async fn prune(errand: Errand) -> Result<String, Error> {
    errand.sessions.forget_tokens().await?;
    let pruned = errand.sessions.prune(errand.keep_activity).await?;
    Ok(format!("{pruned} activity bodies dropped"))
}

/// Forget log lines and recordings that are old, or more than there is to be room for.
async fn lines(errand: Errand) -> Result<String, Error> {
    if let Some(closed) = closed(&errand.lines) {
        return Ok(closed);
    }
    let before = errand.sessions.now().checked_sub_signed(errand.keep_lines).unwrap_or_default();
    let mut forgotten = errand.lines.forget(before).await?.entries;
    if let Some(bytes) = errand.keep_lines_bytes {
        forgotten += errand.lines.shrink_to(bytes).await?.entries;
    }
    let used = errand.lines.used_bytes().await? >> 20;
    Ok(format!("{forgotten} entries forgotten, the others need {used} MiB"))
}

/// Keep their write-ahead log from growing; beside the other file's, so that neither waits.
async fn lines_checkpoint(errand: Errand) -> Result<String, Error> {
    if let Some(closed) = closed(&errand.lines) {
        return Ok(closed);
    }
    Ok(format!("the write-ahead log had {} KiB", errand.lines.checkpoint().await? >> 10))
}

/// What is said where lines are closed. That is no failure of these jobs: all else is ready.
fn closed(lines: &Lines) -> Option<String> {
    lines.fault().map(|fault| format!("nothing is written any more: {fault}"))
}

/// Forget what requests came to that are not replayed any more.
async fn outcomes(errand: Errand) -> Result<String, Error> {
    Ok(format!("{} pages of outcomes forgotten", errand.sessions.forget_outcomes().await?))
}

/// The jobs, running.
pub struct Jobs {
    stopping: CancellationToken,
    watch: JoinHandle<()>,
}

impl Jobs {
    /// No job begins after this.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.watch.await.ok();
    }
}

/// What the scheduler runs, and when it last began something.
struct Table {
    errand: Errand,
    board: Arc<Board>,
    running: Vec<Arc<Mutex<()>>>,
    began: Arc<Lock<Instant>>,
}

/// Starts the jobs; they write what they did on the board.
pub async fn start(
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    limits: Arc<Limits>,
    lines: Lines,
    board: Arc<Board>,
    config: &Config,
) -> Result<Jobs, JobSchedulerError> {
    let keep_activity = TimeDelta::from_std(config.keep_activity).unwrap_or(TimeDelta::MAX);
    let keep_lines = TimeDelta::from_std(config.keep_lines).unwrap_or(TimeDelta::MAX);
    let keep_lines_bytes = (config.keep_lines_mib > 0).then(|| u64::from(config.keep_lines_mib) << 20);
    let errand = Errand { sessions, limits, directory, lines, keep_activity, keep_lines, keep_lines_bytes };
    for row in TABLE {
        board.announce(row.name, row.every, errand.sessions.now());
    }
    let running = TABLE.iter().map(|_| Arc::default()).collect();
    let table = Table { errand, board, running, began: Arc::new(Lock::new(Instant::now())) };
    let scheduler = table.begin().await?;
    let stopping = CancellationToken::new();
    let watch = vital("scheduler", table.watch(scheduler, stopping.clone()));
    Ok(Jobs { stopping, watch })
}

impl Table {
    /// A scheduler that goes by the time of day as it is now.
    async fn begin(&self) -> Result<JobScheduler, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        for (row, running) in TABLE.iter().zip(&self.running) {
            let (board, errand, running) = (self.board.clone(), self.errand.clone(), running.clone());
            let began = self.began.clone();
            let job = Job::new_async(row.cron, move |_, _| {
                let (board, errand, running) = (board.clone(), errand.clone(), running.clone());
                *began.lock() = Instant::now();
                Box::pin(async move {
                    // The last run is still going: this one is not needed.
                    let Ok(_running) = running.try_lock() else { return };
                    let outcome = (row.run)(errand.clone()).await;
                    if let Err(error) = &outcome {
                        tracing::error!(job = row.name, ?error, "a job failed; it will run again");
                    }
                    board.ran(row.name, errand.sessions.now(), outcome.map_err(|error| error.to_string()));
                })
            })?;
            scheduler.add(job).await?;
        }
        scheduler.start().await?;
        Ok(scheduler)
    }

    /// Begins a scheduler anew when the time of day was set back, or it begins no job for another reason.
    async fn watch(self, mut scheduler: JobScheduler, stopping: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                _ = look.tick() => {}
            }
            let back = self.errand.sessions.clock_set_back();
            if let Some(by) = back {
                tracing::warn!(
                    seconds = by.num_seconds(),
                    "the clock was set back: time goes on here as it did, so that nothing lasts longer; restart to follow the \
                     clock as it is now"
                );
            } else if self.began.lock().elapsed() < SILENCE {
                continue;
            } else {
                tracing::warn!("no job has begun for {} s; the scheduler begins anew", SILENCE.as_secs());
            }
            scheduler.shutdown().await.ok();
            *self.began.lock() = Instant::now();
            match self.begin().await {
                Ok(anew) => scheduler = anew,
                Err(error) => tracing::error!(%error, "the scheduler could not begin anew; trying again"),
            }
        }
        scheduler.shutdown().await.ok();
    }
}
