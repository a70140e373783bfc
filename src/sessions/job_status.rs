//! What the scheduler's jobs did last, for `/readyz?verbose`.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use sessiond_core::Time;

/// What each job did last.
#[derive(Default)]
pub struct JobStatus {
    jobs: Mutex<BTreeMap<&'static str, Job>>,
}

/// One job as it stands.
#[derive(Debug, Clone)]
pub struct Job {
    /// How often it runs.
    pub every: Duration,
    pub last_run: Option<Time>,
    /// When it last did its work without failing.
    pub last_success: Option<Time>,
    /// What it did then, in words; or why it failed.
    pub outcome: Result<String, String>,
    /// When it was announced.
    pub since: Time,
}

impl Job {
    /// Whether it has not run for much longer than it should.
    pub fn is_overdue(&self, now: Time) -> bool {
        let patience = self.every * 3 + Duration::from_secs(10);
        let last = self.last_run.unwrap_or(self.since);
        (now - last).to_std().is_ok_and(|silence| silence > patience)
    }
}

impl JobStatus {
    /// Adds a job that will run from now on.
    pub fn announce(&self, name: &'static str, every: Duration, now: Time) {
        let job = Job {
            every,
            last_run: None,
            last_success: None,
            outcome: Ok("has not run yet".to_owned()),
            since: now,
        };
        self.jobs.lock().insert(name, job);
    }

    /// Records what a job did.
    pub fn ran(&self, name: &'static str, now: Time, outcome: Result<String, String>) {
        if let Some(job) = self.jobs.lock().get_mut(name) {
            if outcome.is_ok() {
                job.last_success = Some(now);
            }
            (job.last_run, job.outcome) = (Some(now), outcome);
        }
    }

    /// Every job by name.
    pub fn jobs(&self) -> Vec<(&'static str, Job)> {
        self.jobs.lock().iter().map(|(name, job)| (*name, job.clone())).collect()
    }
}
