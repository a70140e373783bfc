//! What the clock demands of sessions, and what keeps the database in order: for the scheduler's jobs, each a function that
//! does what is due and says what it did.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use sessiond_core::application::Application;
use sessiond_core::ids::SessionNumber;
use sessiond_core::kind::Kind;
use sessiond_store::{Check, Prunable, SideWrite};

use super::Traffic;
use crate::committer::{CHUNK, MeetDeadlines, Origin};
use crate::context::AppContext;
use crate::error::Error;
use crate::gate::{Due, Summary};
use crate::meter;

/// How long a stop waits for readers that are still at work.
const READERS_LEAVE: Duration = Duration::from_secs(5);

/// What keeps sessions and their database in order.
#[derive(Clone)]
pub struct Maintenance {
    context: Arc<AppContext>,
    traffic: Traffic,
}

/// What the clock had the server do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeadlinesMet {
    pub expired: usize,
    pub ended: u64,
}

/// How many sessions there are, of all organizations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// All that there ever were, with the words of the statuses.
    pub by_status: [(&'static str, u64); 4],
    /// The open ones.
    pub by_kind: [(Kind, u64); 6],
}

impl Maintenance {
    pub(super) fn new(context: Arc<AppContext>, traffic: Traffic) -> Self {
        Self { context, traffic }
    }

    /// Announces expiries, ends what is stale and what has reached its lifetime.
    pub async fn run_deadlines(&self) -> Result<DeadlinesMet, Error> {
        let mut met = DeadlinesMet::default();
        // Statuses that have changed with the clock are filed here, so that whoever asks later waits for few.
        let now = self.context.clock.now();
        drop(self.context.gate.known_at(now));
        self.context.gate.end_replaced(now);
        loop {
            let not_before = self.context.clock.steady_since();
            let due = self.context.gate.due(self.context.clock.now(), not_before, CHUNK);
            if due.is_empty() {
                return Ok(met);
            }
            self.measure_delay(&due);
            met.expired += due.iter().filter(|(_, due)| *due == Due::Expire).count();
            let more = due.len() == CHUNK;
            let deadlines = MeetDeadlines { due, not_before };
            let ended = self.context.committer.submit(Origin::system(), deadlines).await?.outcome;
            met.ended += ended;
            if !more {
                return Ok(met);
            }
        }
    }

    /// Measures how long after their moment expiries are announced.
    fn measure_delay(&self, due: &[(SessionNumber, Due)]) {
        let (known, now) = (self.context.gate.known(), self.context.clock.now());
        for (number, _) in due.iter().filter(|(_, due)| *due == Due::Expire) {
            if let Some(session) = known.session(*number) {
                let delay = (now - session.token_expires_at).as_seconds_f64();
                metrics::histogram!(meter::EXPIRY_DELAY).record(delay);
            }
        }
    }

    /// Looks whether the wall clock jumped forward; after that nobody goes stale before a whole timeout has passed again.
    pub fn check_clock(&self) -> Option<TimeDelta> {
        self.context.clock.check()
    }

    /// Returns by how much the machine's clock was set back since this was asked last, if it was.
    pub fn clock_set_back(&self) -> Option<TimeDelta> {
        self.context.clock.set_back()
    }

    /// Drops bodies of activity events older than `keep`, save each session's last, a page at a time. Their digests
    /// stay, so the chain still holds.
    pub async fn prune(&self, keep: TimeDelta) -> Result<usize, Error> {
        let mut pruned = 0;
        loop {
            let before = self.context.clock.now() - keep;
            let Prunable { events, up_to } = self.context.store.prunable(before, 500).await?;
            let Some(up_to) = up_to else { return Ok(pruned) };
            pruned += events.len();
            self.context.write_beside(SideWrite::Prune { events, up_to }).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Forgets access tokens that expired more than a day ago.
    pub async fn forget_tokens(&self) -> Result<(), Error> {
        let before = self.context.clock.now() - TimeDelta::days(1);
        self.context.write_beside(SideWrite::ForgetTokens(before)).await
    }

    /// Upkeep of the store that holds up nobody. Says what it found.
    pub async fn maintain_store(&self) -> Result<String, Error> {
        Ok(self.context.store.maintain().await?)
    }

    /// What the live writer runs on; fails if it does not answer.
    pub async fn health(&self) -> Result<Vec<Check>, Error> {
        self.context.committer.health().await
    }

    /// Counts the open sessions.
    pub fn open_sessions(&self) -> usize {
        self.context.gate.known().open_sessions()
    }

    /// Counts the sessions of all organizations.
    pub fn counts(&self) -> Totals {
        let known = self.context.gate.known_at(self.context.clock.now());
        let mut all = Summary::default();
        let mut by_kind = Kind::ALL.map(|kind| (kind, 0));
        for number in known.streams::<Application>().map(|one| one.number) {
            let summary = known.summary(number);
            all.active += summary.active;
            all.idle += summary.idle;
            all.expired += summary.expired;
            all.total += summary.total;
            for (kind, open) in &mut by_kind {
                *open += known.open_of_kind(number, *kind);
            }
        }
        let open = all.active + all.idle + all.expired;
        let by_status = [
            ("active", all.active),
            ("idle", all.idle),
            ("expired", all.expired),
            ("disconnected", all.total.saturating_sub(open)),
        ];
        Totals { by_status, by_kind }
    }

    /// Bytes on disk, by what of the store they are.
    pub async fn sizes(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        Ok(self.context.store.sizes().await?)
    }

    /// Records what is only in memory, and closes the store.
    pub async fn stop(&self) {
        self.traffic.flush_all().await;
        // Readers close first, as the store asks for. If one does not let go, the stop does not wait for it.
        tokio::time::timeout(READERS_LEAVE, self.context.store.close()).await.ok();
        self.context.committer.stop().await;
    }
}
