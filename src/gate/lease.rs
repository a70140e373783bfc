//! Until when this process may let anybody in.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

/// The leave of a process to let somebody in and to hand on what comes. Where it is the only one that works on its store that
/// does not end; a node has it for as long as it is known to have applied what the others have committed.
#[derive(Debug)]
pub struct Lease {
    /// By [`Instant::now`]; [`FOR_EVER`] where it does not end.
    until: AtomicI64,
    extended: Notify,
}

const FOR_EVER: i64 = i64::MAX;

/// A moment, in milliseconds, by a clock that runs on while the machine is suspended and that nobody sets: a process that was
/// stopped for an hour knows that an hour has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(i64);

impl Instant {
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        Self(now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000))
    }

    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Default for Lease {
    /// One that does not end.
    fn default() -> Self {
        Self { until: AtomicI64::new(FOR_EVER), extended: Notify::new() }
    }
}

impl Lease {
    /// One that has yet to begin.
    pub fn none() -> Self {
        Self { until: AtomicI64::new(0), extended: Notify::new() }
    }

    /// Whether it is running.
    pub fn holds(&self) -> bool {
        let until = self.until.load(Ordering::SeqCst);
        until == FOR_EVER || Instant::now().0 < until
    }

    /// For how long it still runs; none where it does not end.
    pub fn left(&self) -> Option<Duration> {
        let until = Some(self.until.load(Ordering::SeqCst)).filter(|until| *until != FOR_EVER)?;
        Some(Duration::from_millis(u64::try_from(until - Instant::now().0).unwrap_or(0)))
    }

    /// Lets it run until a moment, if that is later than it does.
    pub fn extend(&self, until: Instant) {
        self.until.fetch_max(until.0, Ordering::SeqCst);
        self.extended.notify_waiters();
    }

    /// Ends it.
    pub fn give_up(&self) {
        self.until.store(0, Ordering::SeqCst);
        self.extended.notify_waiters();
    }

    /// Resolves when it is running no more.
    pub async fn ended(&self) {
        loop {
            let extended = self.extended.notified();
            tokio::pin!(extended);
            extended.as_mut().enable();
            let until = self.until.load(Ordering::SeqCst);
            if until == FOR_EVER {
                extended.await;
                continue;
            }
            let left = u64::try_from(until.saturating_sub(Instant::now().0)).unwrap_or(0);
            if left == 0 {
                return;
            }
            tokio::select! {
                () = extended => {}
                () = tokio::time::sleep(Duration::from_millis(left)) => {}
            }
        }
    }

    /// Resolves when it is running.
    pub async fn begun(&self) {
        loop {
            let extended = self.extended.notified();
            tokio::pin!(extended);
            extended.as_mut().enable();
            if self.holds() {
                return;
            }
            extended.await;
        }
    }
}
