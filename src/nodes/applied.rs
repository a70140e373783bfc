//! How far this process has applied the log.

use std::sync::Arc;

use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::change::ends;
use sessiond_core::ids::{Position, Tip};
use sessiond_store::{At, Commit, Loaded};
use tokio::sync::{MutexGuard, watch};
use tokio::time::Instant;

use crate::gate::{Committed, Flight, Gate, YIELD, landed};

/// The one way into the Gate for commits, this process's own and those of others: one after the other, in the order of the
/// log. Whoever decides holds [`Applied::lock`] while it does.
pub struct Applied {
    gate: Arc<Gate>,
    at: tokio::sync::Mutex<At>,
    tip: watch::Sender<Tip>,
    commit: watch::Sender<i64>,
    /// What commits of others have cut off here and has not let go yet.
    unlanded: Mutex<Vec<Unlanded>>,
    /// The last commit of another that somebody waits for, because it ends something.
    awaited: watch::Sender<i64>,
}

/// Something that a commit has cut off.
struct Unlanded {
    commit: i64,
    flight: Arc<Flight>,
    /// When it is given up on: whoever does not let go by then is dropped.
    until: Instant,
}

impl Applied {
    /// Begins where the Gate was filled.
    pub fn new(gate: Arc<Gate>, loaded: &Loaded) -> Self {
        let at = At { log: loaded.head, commit: loaded.commit };
        let tip = Tip { position: at.log.position, lifecycle: at.log.position };
        Self {
            gate,
            at: tokio::sync::Mutex::new(at),
            tip: watch::Sender::new(tip),
            commit: watch::Sender::new(at.commit),
            unlanded: Mutex::default(),
            awaited: watch::Sender::new(0),
        }
    }

    /// The Gate that it is applied to.
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    /// Keeps everybody else from applying anything meanwhile.
    pub async fn lock(&self) -> MutexGuard<'_, At> {
        self.at.lock().await
    }

    /// How far the log goes; changes with each commit that has events.
    pub fn tip(&self) -> watch::Receiver<Tip> {
        self.tip.subscribe()
    }

    /// The last commit that was applied; changes with each.
    pub fn commit(&self) -> watch::Receiver<i64> {
        self.commit.subscribe()
    }

    /// The last commit of another that somebody waits for.
    pub fn awaited(&self) -> watch::Receiver<i64> {
        self.awaited.subscribe()
    }

    /// The last commit that is applied with all that follows from it here: what it and those before it cut off has let go.
    pub fn settled(&self) -> i64 {
        let applied = *self.commit.borrow();
        let mut unlanded = self.unlanded.lock();
        let now = Instant::now();
        unlanded.retain(|one| one.flight.count() > 0 && one.until > now);
        unlanded.iter().map(|one| one.commit - 1).fold(applied, i64::min)
    }

    /// Resolves when all that was cut off by now has let go, or was given up on.
    pub async fn landed(&self) {
        let flights: Vec<_> = self.unlanded.lock().iter().map(|one| one.flight.clone()).collect();
        landed(&flights).await;
    }

    /// Applies a commit of another process, unless it was applied before.
    pub fn follow(&self, at: &mut At, commit: Commit, now: Time) {
        if commit.number <= at.commit {
            return;
        }
        let ends = commit.changes.iter().any(|change| ends(change, &commit.changes));
        let cut_off = self.gate.follow(commit.changes, now);
        let until = Instant::now() + YIELD;
        let cut_off = cut_off.into_iter().map(|flight| Unlanded { commit: commit.number, flight, until });
        self.unlanded.lock().extend(cut_off);
        *at = At { log: commit.head, commit: commit.number };
        self.publish(*at, commit.lifecycle);
        if ends {
            self.awaited.send_replace(commit.number);
        }
    }

    /// Applies a commit of this process. Returns for each of its operations what was cut off because of it.
    pub fn commit_own(
        &self,
        at: &mut At,
        after: At,
        lifecycle: Option<Position>,
        committed: Committed,
    ) -> Vec<Vec<Arc<Flight>>> {
        let cut_off = self.gate.commit(committed);
        *at = after;
        self.publish(after, lifecycle);
        cut_off
    }

    fn publish(&self, at: At, lifecycle: Option<Position>) {
        self.commit.send_replace(at.commit);
        self.tip.send_if_modified(|tip| {
            let further = at.log.position > tip.position;
            tip.position = at.log.position;
            tip.lifecycle = lifecycle.unwrap_or(tip.lifecycle);
            further
        });
    }
}
