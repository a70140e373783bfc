//! The only place that reads the time of day. Tests turn a clock of their own.
//!
//! Time here never goes back: who sets the machine's clock back by three hours must not give every token three hours more,
//! nor have every job wait for as long. What was counted goes on by the monotonic clock until the time of day has caught up,
//! or the process starts anew. A step forward is followed at once: it can only shorten.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

type Time = DateTime<Utc>;

/// How far wall and monotonic clock may part between two looks before it counts as a jump.
const JUMP: TimeDelta = TimeDelta::seconds(30);
/// A smaller step back is how clocks are kept, and nothing waits for it.
const SET_BACK: TimeDelta = TimeDelta::seconds(1);

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
    /// Wall time minus monotonic time, the largest there was; milliseconds.
    offset: AtomicI64,
    /// The same at the last look for a jump, and at the last for a step back.
    looked: AtomicI64,
    followed: AtomicI64,
    /// Process start or the last jump forward, whichever is later; milliseconds.
    steady_since: AtomicI64,
    /// What a test has turned the clock by; milliseconds.
    turned: AtomicI64,
    /// Wakes whoever waits for a moment when that is done.
    turning: Notify,
    /// What a test has set the machine's clock by; milliseconds.
    set: AtomicI64,
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
            looked: AtomicI64::new(now),
            followed: AtomicI64::new(now),
            steady_since: AtomicI64::new(now),
            turned: AtomicI64::new(0),
            turning: Notify::new(),
            set: AtomicI64::new(0),
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

    /// Now, in whole milliseconds. Never before what it was.
    pub fn now(&self) -> Time {
        let (offset, monotonic) = self.offset();
        let largest = self.inner.offset.fetch_max(offset, Ordering::Relaxed).max(offset);
        self.turned(largest + monotonic)
    }

    /// What this clock makes of another's time, such as a database's: a test's turns are added to it too.
    pub fn shifted(&self, now: Time) -> Time {
        self.turned(now.timestamp_millis())
    }

    /// The time of day as the machine has it: for what others' clocks have written, and for what they will compare.
    pub fn wall(&self) -> Time {
        let (offset, monotonic) = self.offset();
        self.turned(offset + monotonic)
    }

    /// Wall time minus monotonic time, and monotonic time.
    #[allow(clippy::disallowed_methods)] // this is the one place
    fn offset(&self) -> (i64, i64) {
        let monotonic = i64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let wall = Utc::now().timestamp_millis() + self.inner.set.load(Ordering::Relaxed);
        (wall - monotonic, monotonic)
    }

    fn turned(&self, milliseconds: i64) -> Time {
        let milliseconds = milliseconds + self.inner.turned.load(Ordering::Relaxed);
        Time::from_timestamp_millis(milliseconds).unwrap_or_default()
    }

    /// Moves this clock and its clones, as time passing would: no jump.
    pub fn turn(&self, by: TimeDelta) {
        self.inner.turned.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
        self.inner.turning.notify_waiters();
    }

    /// Resolves once so much time has passed.
    pub async fn sleep(&self, time: Duration) {
        let at = TimeDelta::from_std(time).ok().and_then(|time| self.now().checked_add_signed(time));
        self.reached(at.unwrap_or(Time::MAX_UTC)).await;
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

    /// Sets the machine's clock, as this clock and its clones see it.
    pub fn set(&self, by: TimeDelta) {
        self.inner.set.fetch_add(by.num_milliseconds(), Ordering::Relaxed);
        self.inner.turning.notify_waiters();
    }

    /// Compares wall and monotonic time; a difference that grew by more than 30 s since the last look is a jump.
    /// Returns by how much it jumped forward.
    pub fn check(&self) -> Option<TimeDelta> {
        let (offset, _) = self.offset();
        let jump = TimeDelta::milliseconds(offset - self.inner.looked.swap(offset, Ordering::Relaxed));
        if jump <= JUMP {
            return None;
        }
        self.inner.steady_since.store(self.now().timestamp_millis(), Ordering::Relaxed);
        Some(jump)
    }

    /// By how much the machine's clock was set back since this was asked last, if it was.
    pub fn set_back(&self) -> Option<TimeDelta> {
        let (offset, _) = self.offset();
        let by = TimeDelta::milliseconds(self.inner.followed.swap(offset, Ordering::Relaxed) - offset);
        (by > SET_BACK).then_some(by)
    }

    /// Since when this process has been running on a clock that did not jump: nobody is blamed for silence before.
    pub fn steady_since(&self) -> Time {
        Time::from_timestamp_millis(self.inner.steady_since.load(Ordering::Relaxed)).unwrap_or_default()
    }
}
