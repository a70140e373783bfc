//! What is under way: requests and streams of a session, and the leave they hold to go on.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::reason::Reason;

/// The requests and streams of one session that are under way.
#[derive(Default)]
pub struct Flight {
    count: AtomicUsize,
    cancelled: CancellationToken,
    reason: OnceLock<Reason>,
    landed: Notify,
}

impl Flight {
    /// How many requests and streams are under way.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Tells what is under way that it is over, and why.
    pub(super) fn cancel(&self, reason: Reason) {
        self.reason.set(reason).ok();
        self.cancelled.cancel();
    }

    /// Waits until nothing is under way any more.
    pub async fn landed(&self) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            landed.await;
        }
    }
}

/// Leave to go on, as long as it is held and not cancelled.
pub struct Pass {
    flight: Arc<Flight>,
}

impl Pass {
    pub(super) fn enter(flight: &Arc<Flight>) -> Self {
        flight.count.fetch_add(1, Ordering::SeqCst);
        Self { flight: flight.clone() }
    }

    /// Resolves when the session ends, with the reason.
    pub async fn ended(&self) -> Reason {
        self.flight.cancelled.cancelled().await;
        self.reason().unwrap_or(Reason::Terminated)
    }

    /// The reason, if the session has ended.
    pub fn reason(&self) -> Option<Reason> {
        if self.flight.cancelled.is_cancelled() { self.flight.reason.get().copied() } else { None }
    }

    /// A token that is cancelled when the session ends.
    pub fn cancelled(&self) -> CancellationToken {
        self.flight.cancelled.clone()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.flight.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.flight.landed.notify_waiters();
        }
    }
}
