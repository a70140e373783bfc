//! What the clock demands, for the scheduler's jobs: each a function that does what is due and says what it did.

use std::time::Duration;

use chrono::TimeDelta;
use sessiond_core::ids::SessionNumber;
use sessiond_store::{Check, Prunable, SideWrite};

use super::Sessions;
use crate::committer::{CHUNK, MeetDeadlines, Origin, WriteBeside};
use crate::error::Error;
use crate::gate::{Due, Summary};
use crate::meter;

/// How long a stop waits for readers that are still at work.
const READERS_LEAVE: Duration = Duration::from_secs(5);

/// What the clock had the server do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkeep {
    pub expired: usize,
    pub ended: u64,
}

impl Sessions {
    /// Announces expiries, ends what is stale and what has reached its lifetime.
    pub async fn run_deadlines(&self) -> Result<Upkeep, Error> {
        let mut upkeep = Upkeep::default();
        // Whoever asks later finds little that has changed with the clock.
        drop(self.gate.known_at(self.clock.now()));
        loop {
            let not_before = self.clock.steady_since();
            let due = self.gate.due(self.clock.now(), not_before, CHUNK);
            if due.is_empty() {
                return Ok(upkeep);
            }
            self.measure_delay(&due);
            upkeep.expired += due.iter().filter(|(_, due)| *due == Due::Expire).count();
            let more = due.len() == CHUNK;
            let deadlines = MeetDeadlines { due, not_before };
            let ended = self.committer.submit(Origin::system(), deadlines).await?.outcome;
            upkeep.ended += ended;
            if !more {
                return Ok(upkeep);
            }
        }
    }

    /// How long after they ran out expiries are announced.
    fn measure_delay(&self, due: &[(SessionNumber, Due)]) {
        let (known, now) = (self.gate.known(), self.clock.now());
        for (number, _) in due.iter().filter(|(_, due)| *due == Due::Expire) {
            if let Some(session) = known.session(*number) {
                let delay = (now - session.token_expires_at).as_seconds_f64();
                metrics::histogram!(meter::EXPIRY_DELAY).record(delay);
            }
        }
    }

    /// Looks whether the wall clock jumped forward; after that nobody goes stale before a whole timeout has passed again.
    pub fn check_clock(&self) -> Option<TimeDelta> {
        self.clock.check()
    }

    /// By how much the machine's clock was set back since this was asked last, if it was.
    pub fn clock_set_back(&self) -> Option<TimeDelta> {
        self.clock.set_back()
    }

    /// Drops bodies of activity events older than `keep`, save each session's last, a page at a time. Their digests
    /// stay, so the chain still holds.
    pub async fn prune(&self, keep: TimeDelta) -> Result<usize, Error> {
        let mut pruned = 0;
        loop {
            let before = self.clock.now() - keep;
            let Prunable { events, up_to } = self.reader.prunable(before, 500).await?;
            let Some(up_to) = up_to else { return Ok(pruned) };
            pruned += events.len();
            self.committer.submit(Origin::system(), WriteBeside(SideWrite::Prune { events, up_to })).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Forgets access tokens that expired more than a day ago.
    pub async fn forget_tokens(&self) -> Result<(), Error> {
        let before = self.clock.now() - TimeDelta::days(1);
        self.committer
            .submit(Origin::system(), WriteBeside(SideWrite::ForgetTokens(before)))
            .await
            .map(|_| ())
    }

    /// Upkeep of the store that holds up nobody. Says what it found.
    pub async fn maintain_store(&self) -> Result<String, Error> {
        Ok(self.reader.maintain().await?)
    }

    /// What the live writer runs on; fails if it does not answer.
    pub async fn health(&self) -> Result<Vec<Check>, Error> {
        self.committer.health().await
    }

    /// How many sessions are open.
    pub fn open_sessions(&self) -> usize {
        self.gate.known().open_sessions()
    }

    /// How many sessions are what now, in words, over all organizations.
    pub fn counts_by_status(&self) -> [(&'static str, u64); 4] {
        let known = self.gate.known_at(self.clock.now());
        let mut all = Summary::default();
        for number in known.applications.keys() {
            let summary = known.summary(*number);
            all.active += summary.active;
            all.idle += summary.idle;
            all.expired += summary.expired;
            all.total += summary.total;
        }
        let open = all.active + all.idle + all.expired;
        [
            ("active", all.active),
            ("idle", all.idle),
            ("expired", all.expired),
            ("disconnected", all.total.saturating_sub(open)),
        ]
    }

    /// Writes down what is only in memory and closes the store.
    pub async fn stop(&self) {
        self.flush_traffic(true).await;
        // Readers first, as the store asks for. One that does not let go keeps nobody waiting.
        tokio::time::timeout(READERS_LEAVE, self.reader.close()).await.ok();
        self.committer.stop().await;
    }
}
