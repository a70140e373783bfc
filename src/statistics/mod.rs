//! Statistics: one task counts the log a little behind it, and whoever asks is answered from what was counted. The rules are in
//! `sessiond_core::statistics`; `docs/decisions/0063-statistics.md` says why it is done so.

mod question;

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
pub use question::{Answered, Named, Question, ShownGroup};
use sessiond_core::Time;
use sessiond_store::counting::Counter;
use sessiond_store::{CountedTo, SideWrite};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::AppContext;
use crate::error::Error;
use crate::meter;

/// What a node claims that counts.
const JOB: &str = "statistics";
/// How often the log is counted on while nobody asks.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that are read at a time, and the pause after them, in which others have the store.
const PAGE: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(5);
/// How long whoever asks waits for what is not counted yet, and how often they look.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Counts, and answers from what was counted.
pub struct Statistics {
    context: Arc<AppContext>,
    /// Somebody waits for the newest.
    asked: Notify,
}

/// How far counting has come for somebody who asks.
#[derive(Debug, Clone, Copy)]
struct Counted {
    to: CountedTo,
    /// What was counted is true at this instant, which was so long ago.
    as_of: Time,
    behind: chrono::TimeDelta,
}

impl Statistics {
    pub fn new(context: Arc<AppContext>) -> Self {
        Self { context, asked: Notify::new() }
    }

    /// The task that counts, while no other node does.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut counter = Counter::default();
        while !stopping.is_cancelled() {
            if self.context.claims.take(JOB).await
                && let Err(error) = self.count_all(&mut counter, &stopping).await
            {
                tracing::warn!(%error, "the log could not be counted for statistics; trying again");
                counter = Counter::default();
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.asked.notified() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Counts up to the end of the log.
    async fn count_all(&self, counter: &mut Counter, stopping: &CancellationToken) -> Result<(), Error> {
        let mut claimed = Instant::now();
        while !stopping.is_cancelled() {
            let Some(count) = counter.next(self.context.store.as_ref(), PAGE).await? else { break };
            let behind = self.context.committer.tip().borrow().position.0 - count.to.position.0;
            self.context.write_beside(SideWrite::Count(Box::new(count))).await?;
            gauge!(meter::STATISTICS_BEHIND).set(behind.max(0) as f64);
            if behind > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            if claimed.elapsed() > PERIOD {
                if !self.context.claims.take(JOB).await {
                    break;
                }
                claimed = Instant::now();
            }
        }
        Ok(())
    }

    /// Waits until all is counted that is in the log by now, but not for long.
    async fn counted(&self) -> Result<Counted, Error> {
        let wanted = self.context.committer.tip().borrow().position;
        let until = Instant::now() + PATIENCE;
        loop {
            let to = self.context.store.counted_to().await?.unwrap_or_default();
            if to.position >= wanted {
                let as_of = self.context.clock.now();
                return Ok(Counted { to, as_of, behind: chrono::TimeDelta::zero() });
            }
            if Instant::now() >= until {
                let (as_of, now) = (self.context.recorded_from(to.position).await?, self.context.clock.now());
                let as_of = as_of.unwrap_or(now);
                return Ok(Counted { to, as_of, behind: now - as_of });
            }
            self.asked.notify_one();
            tokio::time::sleep(LOOK).await;
        }
    }
}
