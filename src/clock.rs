//! The only place that reads the time of day. Tests turn a clock of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

type Time = DateTime<Utc>;

/// How far wall and monotonic clock may part between two looks before it counts as a jump.
const JUMP: TimeDelta = TimeDelta::seconds(30);

/// Longest time between two looks at the wall clock by whoever waits for a moment of it: it may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// Where "now" comes from. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// Wall time minus monotonic time at the last look; milliseconds.
    offset: AtomicI64,
    /// Process start or the last jump, whichever is later; milliseconds.
    steady_since: AtomicI64,
    /// What a test has turned the clock by; milliseconds.
    turned: AtomicI64,
    /// Wakes whoever waits for a moment when that is done.
    turning: Notify,
}

impl Clock {
    /// The system's clock.
    #[allow(clippy::disallowed_methods)] // this is the one place
    pub fn system() -> Self {
        let started = Instant::now();
        let now = Utc::now().timestamp_millis();
        let inner = Inner {
            started,
            offset: AtomicI64::new(now),
            steady_since: AtomicI64::new(now),
            turned: AtomicI64::new(0),
            turning: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A clock that starts ahead of the system's: as after a time in which nobody was there.
    pub fn ahead(by: TimeDelta) -> Self {
        let clock = Self::system();
        clock.turn(by);
        clock.inner.steady_since.store(clock.now().timestamp_millis(), Ordering::Relaxed);
        clock
    }

    /// Now, in whole milliseconds.
    #[allow(clippy::disallowed_methods)] // this is the one place
    pub fn now(&self) -> Time {
        let milliseconds = Utc::now().timestamp_millis() + self.inner.turned.load(Ordering::Relaxed);
        Time::from_timestamp_millis(milliseconds).unwrap_or_default()
    }

    /// Moves this clock and its clones, as time passing would: no jump.
    pub fn turn(&self, by: TimeDelta) {
        self.inner.turned.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
        self.inner.turning.notify_waiters();
    }

    /// Resolves at a moment.
    pub async fn reached(&self, at: Time) {
        loop {
            let turned = self.inner.turning.notified();
            tokio::pin!(turned);
            turned.as_mut().enable();
            let left = (at - self.now()).to_std().unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = turned => {}
                () = tokio::time::sleep(left.min(LOOK)) => {}
            }
        }
    }

    /// Compares wall and monotonic time; a difference that grew by more than 30 s since the last look is a jump.
    /// Returns by how much it jumped.
    #[allow(clippy::disallowed_methods)] // this is the one place
    pub fn check(&self) -> Option<TimeDelta> {
        let monotonic = i64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let wall = Utc::now().timestamp_millis();
        let offset = wall - monotonic;
        let jump = TimeDelta::milliseconds(offset - self.inner.offset.swap(offset, Ordering::Relaxed));
        if jump.abs() > JUMP {
            self.inner.steady_since.store(self.now().timestamp_millis(), Ordering::Relaxed);
            Some(jump)
        } else {
            None
        }
    }

    /// Since when this process has been running on a clock that did not jump: nobody is blamed for silence before.
    pub fn steady_since(&self) -> Time {
        Time::from_timestamp_millis(self.inner.steady_since.load(Ordering::Relaxed)).unwrap_or_default()
    }
}
