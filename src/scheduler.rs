//! The scheduler: a table of jobs, each idempotent, none overlapping itself. It uses cron expressions only, because the
//! library's interval jobs stop for good after a stall (https://github.com/mvniekerk/tokio-cron-scheduler/issues/113).
//! The library goes by the time of day: after the clock was set back it would begin nothing until that time has come
//! round again. So a task watches it by the monotonic clock, and begins it anew.
//! `docs/decisions/0020-time-does-not-go-back.md` says why.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex as Lock;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::error::Error;
use crate::journals::Journals;
use crate::limits::Limits;
use crate::logs;
use crate::meter;
use crate::nodes::Claims;
use crate::retention::{LetGo, Retention};
use crate::sessions::{JobStatus, Sessions};
use crate::tasks::vital;

/// How often the library is watched, and how long it may begin no job: several jobs are due every second.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// The work of a job, and what it says that it did.
type JobFuture = Pin<Box<dyn Future<Output = Result<String, Error>> + Send>>;

/// A job: its name, its cron expression (with seconds), how often that is, on which nodes it runs, and its work.
struct JobSpec {
    name: &'static str,
    cron: &'static str,
    every: Duration,
    on: On,
    run: fn(JobContext) -> JobFuture,
}

/// The nodes on which a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// It is about what this process has, or about the machine.
    EveryNode,
    /// It is about what is on record, where one is enough.
    OneNode,
}

/// All that jobs work with.
#[derive(Clone)]
struct JobContext {
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    limits: Arc<Limits>,
    journals: Journals,
    retention: Retention,
    clock: Clock,
    claims: Claims,
    /// The most bytes of log lines and recordings that are kept.
    keep_lines_bytes: Option<u64>,
}

const JOBS: &[JobSpec] = &[
    JobSpec {
        name: "deadlines",
        cron: "* * * * * *",
        every: Duration::from_secs(1),
        on: On::EveryNode,
        run: |context| Box::pin(deadlines(context)),
    },
    JobSpec {
        name: "revocations",
        cron: "*/5 * * * * *",
        every: Duration::from_secs(5),
        on: On::EveryNode,
        run: |context| Box::pin(revocations(context)),
    },
    JobSpec {
        name: "schedules",
        cron: "* * * * * *",
        every: Duration::from_secs(1),
        on: On::OneNode,
        run: |context| Box::pin(schedules(context)),
    },
    JobSpec {
        name: "traffic",
        cron: "*/2 * * * * *",
        every: Duration::from_secs(2),
        on: On::EveryNode,
        run: |context| Box::pin(traffic(context)),
    },
    JobSpec {
        name: "checkpoint",
        cron: "*/2 * * * * *",
        every: Duration::from_secs(2),
        on: On::EveryNode,
        run: |context| Box::pin(checkpoint(context)),
    },
    JobSpec {
        name: "api keys",
        cron: "15 * * * * *",
        every: Duration::from_secs(60),
        on: On::EveryNode,
        run: |context| Box::pin(key_uses(context)),
    },
    JobSpec {
        name: "webhooks",
        cron: "15 */10 * * * *",
        every: Duration::from_secs(600),
        on: On::OneNode,
        run: |context| Box::pin(webhooks(context)),
    },
    JobSpec {
        name: "tokens",
        cron: "30 */10 * * * *",
        every: Duration::from_secs(600),
        on: On::OneNode,
        run: |context| Box::pin(tokens(context)),
    },
    JobSpec {
        name: "retention",
        cron: "*/5 * * * * *",
        every: Duration::from_secs(5),
        on: On::OneNode,
        run: |context| Box::pin(retention(context)),
    },
    JobSpec {
        name: "lines",
        cron: "45 */10 * * * *",
        every: Duration::from_secs(600),
        on: On::OneNode,
        run: |context| Box::pin(lines(context)),
    },
    JobSpec {
        name: "lines checkpoint",
        cron: "*/2 * * * * *",
        every: Duration::from_secs(2),
        on: On::EveryNode,
        run: |context| Box::pin(lines_checkpoint(context)),
    },
    JobSpec {
        name: "outcomes",
        cron: "45 * * * * *",
        every: Duration::from_secs(60),
        on: On::OneNode,
        run: |context| Box::pin(outcomes(context)),
    },
    JobSpec {
        name: "limits",
        cron: "15 * * * * *",
        every: Duration::from_secs(60),
        on: On::EveryNode,
        run: |context| Box::pin(async move { Ok(format!("{} callers remembered", context.limits.forget())) }),
    },
    JobSpec {
        name: "metrics",
        cron: "*/5 * * * * *",
        every: Duration::from_secs(5),
        on: On::EveryNode,
        run: |_| Box::pin(async { Ok(meter::tidy().to_owned()) }),
    },
    JobSpec {
        name: "logs",
        cron: "*/5 * * * * *",
        every: Duration::from_secs(5),
        on: On::EveryNode,
        run: |_| Box::pin(async { Ok(format!("{} lines were left out", logs::tell())) }),
    },
];

/// Announces expiries, and ends sessions that are stale or have reached their lifetime. It looks first whether the
/// clock jumped.
async fn deadlines(context: JobContext) -> Result<String, Error> {
    if let Some(jump) = context.sessions.maintenance.check_clock() {
        tracing::warn!(
            seconds = jump.num_seconds(),
            "the clock jumped: nobody goes stale before a whole timeout more"
        );
    }
    let met = context.sessions.maintenance.run_deadlines().await?;
    Ok(format!("{} expiries announced, {} sessions ended", met.expired, met.ended))
}

/// Wakes the revocation worker, in case a wake-up was dropped.
async fn revocations(context: JobContext) -> Result<String, Error> {
    context.sessions.revocations.wake();
    Ok(format!("{} unfinished", context.sessions.revocations.unfinished()))
}

/// Begins the scheduled revocations that are due.
async fn schedules(context: JobContext) -> Result<String, Error> {
    Ok(format!("{} began", context.sessions.schedules.run_due().await?))
}

/// Records gateway traffic whose window has passed.
async fn traffic(context: JobContext) -> Result<String, Error> {
    context.sessions.traffic.inform_of_signs().await;
    Ok(format!("{} sessions recorded", context.sessions.traffic.flush_due().await))
}

/// Upkeep of the store, beside its writer.
async fn checkpoint(context: JobContext) -> Result<String, Error> {
    context.sessions.maintenance.maintain_store().await
}

/// Records when API keys were last used.
async fn key_uses(context: JobContext) -> Result<String, Error> {
    Ok(format!("{} keys used", context.directory.api_keys.write_uses().await?))
}

/// Forgets deliveries of webhooks that have been over for long.
async fn webhooks(context: JobContext) -> Result<String, Error> {
    context.directory.webhooks.forget_deliveries().await?;
    Ok("old deliveries forgotten".to_owned())
}

/// Forgets access tokens that expired long ago.
async fn tokens(context: JobContext) -> Result<String, Error> {
    context.sessions.maintenance.forget_tokens().await?;
    Ok("old access tokens forgotten".to_owned())
}

/// Lets go of ended sessions and folds activity that organizations keep no longer.
async fn retention(context: JobContext) -> Result<String, Error> {
    let LetGo { sessions, activity, more } = context.retention.run().await?;
    let more = if more { "; there is more" } else { "" };
    Ok(format!("{sessions} sessions let go, {activity} activity events folded{more}"))
}

/// Forgets log lines and recordings that are too old, or for which there is no room.
async fn lines(context: JobContext) -> Result<String, Error> {
    if let Some(closed) = closed(&context.journals) {
        return Ok(closed);
    }
    let mut forgotten = context.retention.forget_lines().await?;
    if let Some(bytes) = context.keep_lines_bytes {
        forgotten += context.journals.shrink_to(bytes).await?.entries;
    }
    let used = context.journals.used_bytes().await? >> 20;
    Ok(format!("{forgotten} entries forgotten, the others need {used} MiB"))
}

/// Upkeep of the journals, beside their writer. It is a job of its own, so that neither waits for the other.
async fn lines_checkpoint(context: JobContext) -> Result<String, Error> {
    if let Some(closed) = closed(&context.journals) {
        return Ok(closed);
    }
    context.journals.maintain().await
}

/// What a job reports where the journals are closed. That is no failure of the job: all else is ready.
fn closed(journals: &Journals) -> Option<String> {
    journals.fault().map(|fault| format!("nothing is written any more: {fault}"))
}

/// Forgets outcomes of requests that are not replayed any more.
async fn outcomes(context: JobContext) -> Result<String, Error> {
    Ok(format!("{} pages of outcomes forgotten", context.sessions.idempotency.forget_outcomes().await?))
}

/// The running jobs.
pub struct Jobs {
    stopping: CancellationToken,
    watch: JoinHandle<()>,
}

impl Jobs {
    /// Stops the scheduler. No job begins after this.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.watch.await.ok();
    }
}

/// What the scheduler runs, and when it last began a job.
struct Runner {
    context: JobContext,
    status: Arc<JobStatus>,
    running: Vec<Arc<Mutex<()>>>,
    began: Arc<Lock<Instant>>,
}

/// Starts the jobs, which record what they did in the status.
pub async fn start(
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    limits: Arc<Limits>,
    retention: Retention,
    (clock, claims): (Clock, Claims),
    status: Arc<JobStatus>,
    config: &Config,
) -> Result<Jobs, JobSchedulerError> {
    let keep_lines_bytes = (config.keep_lines_mib > 0).then(|| u64::from(config.keep_lines_mib) << 20);
    let context = JobContext {
        sessions,
        limits,
        directory,
        journals: retention.journals().clone(),
        retention,
        clock,
        claims,
        keep_lines_bytes,
    };
    for job in JOBS {
        status.announce(job.name, job.every, context.clock.now());
    }
    let running = JOBS.iter().map(|_| Arc::default()).collect();
    let runner = Runner { context, status, running, began: Arc::new(Lock::new(Instant::now())) };
    let scheduler = runner.begin().await?;
    let stopping = CancellationToken::new();
    let watch = vital("scheduler", runner.watch(scheduler, stopping.clone()));
    Ok(Jobs { stopping, watch })
}

impl Runner {
    /// Begins a scheduler that goes by the time of day as it is now.
    async fn begin(&self) -> Result<JobScheduler, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        for (job, running) in JOBS.iter().zip(&self.running) {
            let (status, context, running) = (self.status.clone(), self.context.clone(), running.clone());
            let began = self.began.clone();
            let job = Job::new_async(job.cron, move |_, _| {
                let (status, context, running) = (status.clone(), context.clone(), running.clone());
                *began.lock() = Instant::now();
                Box::pin(async move {
                    // The job's last run still goes on, so this run is not needed.
                    let Ok(_running) = running.try_lock() else { return };
                    let outcome = match job.on == On::EveryNode || context.claims.take(job.name).await {
                        true => (job.run)(context.clone()).await,
                        false => Ok("another node does it".to_owned()),
                    };
                    if let Err(error) = &outcome {
                        tracing::error!(job = job.name, ?error, "a job failed; it will run again");
                    }
                    status.ran(job.name, context.clock.now(), outcome.map_err(|error| error.to_string()));
                })
            })?;
            scheduler.add(job).await?;
        }
        scheduler.start().await?;
        Ok(scheduler)
    }

    /// Begins a scheduler anew when the time of day was set back, or it begins no job for another reason.
    async fn watch(self, mut scheduler: JobScheduler, stopping: CancellationToken) {
        let mut check_tick = interval(CHECK_EVERY);
        check_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                _ = check_tick.tick() => {}
            }
            let back = self.context.sessions.maintenance.clock_set_back();
            if let Some(by) = back {
                tracing::warn!(
                    seconds = by.num_seconds(),
                    "the clock was set back: time goes on here as it did, so that nothing lasts longer; restart to follow the \
                     clock as it is now"
                );
            } else if self.began.lock().elapsed() < LONGEST_SILENCE {
                continue;
            } else {
                tracing::warn!(
                    "no job has begun for {} s; the scheduler begins anew",
                    LONGEST_SILENCE.as_secs()
                );
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
