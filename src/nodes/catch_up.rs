//! Looking once more, before somebody is told that there is no such thing: it may have come to be on another node a moment ago.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

use super::applied::Applied;
use super::follower::Follower;

/// How seldom the commits of others are asked for because something is not known.
const PAUSE: Duration = Duration::from_millis(20);

/// Applies what others have committed when something is not known, for all who ask at the same time together.
pub struct CatchUp {
    /// None where there are no others.
    follower: Option<Arc<Follower>>,
    applied: watch::Receiver<i64>,
    began: Mutex<Option<Instant>>,
}

impl CatchUp {
    pub fn new(follower: Option<Arc<Follower>>, applied: &Applied) -> Self {
        Self { follower, applied: applied.commit(), began: Mutex::default() }
    }

    /// The last commit that is applied here, where others commit too.
    pub fn at(&self) -> Option<i64> {
        self.follower.as_ref().map(|_| *self.applied.borrow())
    }

    /// Applies what others have committed by now. Says whether this process has come further than a commit.
    pub async fn further(&self, than: i64) -> bool {
        let Some(follower) = &self.follower else { return false };
        let asked = Instant::now();
        let mut began = self.began.lock().await;
        if began.is_none_or(|began| began < asked) {
            if let Some(began) = *began {
                sleep_until(began + PAUSE).await;
            }
            *began = Some(Instant::now());
            if let Err(error) = follower.catch_up().await {
                tracing::debug!(%error, "what others have committed cannot be looked for");
            }
        }
        *self.applied.borrow() > than
    }
}
