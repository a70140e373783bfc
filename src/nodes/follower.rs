//! A node's life: it follows what others commit, renews its lease, and lets nobody in while that has run out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sessiond_core::ids::RevocationNumber;
use sessiond_store::{Nodes, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant as Awake;
use tokio_util::sync::CancellationToken;

use super::applied::Applied;
use crate::clock::Clock;
use crate::gate::{Gate, Instant, Lease};
use crate::{logs, secret};

/// How long a lease lasts, and how often it is renewed.
pub const LEASE: Duration = Duration::from_secs(2);
const RENEWED: Duration = Duration::from_millis(500);
/// By how much it ends earlier here than by the store's clock: that may be put forward a little.
const MARGIN: Duration = Duration::from_millis(100);
/// A renewal that takes longer will not come in time for the next.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How often commits are looked for where nothing tells of them.
const LOOK: Duration = Duration::from_millis(100);
/// Commits applied at a time.
const PAGE: u32 = 256;
/// Commits are kept for so long for those that are behind, and nodes that are gone for as long.
const KEPT: Duration = Duration::from_secs(600);
/// How often what is older is forgotten.
const FORGETS: Duration = Duration::from_secs(30);

/// A node.
pub struct Follower {
    nodes: Arc<dyn Nodes>,
    own: i64,
    applied: Arc<Applied>,
    lease: Arc<Lease>,
    gate: Arc<Gate>,
    clock: Clock,
    /// What it has said to have cut off, for revocations that are not through.
    said: Mutex<HashMap<RevocationNumber, u64>>,
}

impl Follower {
    /// Puts this process on record as a node.
    pub async fn join(
        nodes: Arc<dyn Nodes>,
        url: Option<&str>,
        (applied, clock): (Arc<Applied>, Clock),
    ) -> Result<Self, StoreError> {
        let own = nodes.join(secret::new_id(), url, env!("CARGO_PKG_VERSION")).await?;
        let gate = applied.gate();
        let lease = gate.lease();
        Ok(Self { nodes, own, applied, lease, gate, clock, said: Mutex::default() })
    }

    /// This node's number.
    pub fn own(&self) -> i64 {
        self.own
    }

    pub fn nodes(&self) -> Arc<dyn Nodes> {
        self.nodes.clone()
    }

    /// Lives until it is told to stop.
    pub async fn run(&self, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.follow() => {}
            () = self.renew() => {}
            () = self.acknowledge() => {}
            () = self.end_with_lease() => {}
            () = self.forget() => {}
        }
        self.lease.give_up();
        if let Err(error) = self.nodes.leave(self.own).await {
            tracing::warn!(%error, "the other nodes could not be told that this one stops; its lease runs out by itself");
        }
    }

    /// Applies what others commit, as soon as it is told of it.
    async fn follow(&self) {
        let mut failing = Failing::default();
        loop {
            self.nodes.news(LOOK).await;
            match self.catch_up().await {
                Ok(()) => failing.over("the commits of other nodes are read again"),
                Err(error) if error.ends_all() => end(&error),
                Err(error) => failing.because(&error, "the commits of other nodes cannot be read").await,
            }
        }
    }

    /// Applies all that others have committed by now.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        loop {
            let mut at = self.applied.lock().await;
            let commits = self.nodes.commits_after(at.commit, PAGE).await?;
            let all = commits.len() < PAGE as usize;
            let now = self.clock.now();
            commits.into_iter().for_each(|commit| self.applied.follow(&mut at, commit, now));
            if all {
                return Ok(());
            }
        }
    }

    /// Renews the lease. It is counted from before it was asked for, so that it never ends later here than by the store's clock.
    async fn renew(&self) {
        let mut failing = Failing::default();
        loop {
            let (before, next) = (Instant::now(), Awake::now() + RENEWED);
            let renewal = async {
                let settled = self.said().await?;
                self.nodes.renew(self.own, settled, LEASE).await
            };
            let outcome = tokio::time::timeout(PATIENCE, renewal).await.unwrap_or_else(|_| {
                Err(StoreError::Failed("the database did not answer in time".to_owned()))
            });
            match outcome {
                Ok(renewed) => {
                    failing.over("the lease is renewed again");
                    // Where the lease had run out, by the database's clock or by this node's, which is the earlier of the
                    // two, nobody waited for this node meanwhile.
                    if !renewed.held || !self.lease.holds() {
                        self.reach(renewed.head).await;
                    }
                    self.lease.extend(before.after(LEASE - MARGIN));
                }
                Err(error) if error.ends_all() => end(&error),
                Err(error) => {
                    failing
                        .because(
                            &error,
                            "the lease could not be renewed; nobody is let in once it has run out",
                        )
                        .await;
                }
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Waits until a commit is applied.
    async fn reach(&self, head: i64) {
        let mut commit = self.applied.commit();
        // Whoever publishes lives as long as this.
        commit.wait_for(|commit| *commit >= head).await.ok();
    }

    /// How far this node has come, once it has said what it cut off on the way.
    async fn said(&self) -> Result<i64, StoreError> {
        let settled = self.applied.settled();
        let cut_off = self.gate.known().all_cut_off();
        let mut said = self.said.lock().await;
        said.retain(|number, _| cut_off.iter().any(|(one, _)| one == number));
        let new: Vec<_> =
            cut_off.into_iter().filter(|(number, count)| said.get(number) != Some(count)).collect();
        if !new.is_empty() {
            self.nodes.cut_off(self.own, &new).await?;
            said.extend(new);
        }
        Ok(settled)
    }

    /// Tells the others at once that a commit is applied which somebody waits for, when all that it cut off has let go.
    async fn acknowledge(&self) {
        let mut awaited = self.applied.awaited();
        while awaited.changed().await.is_ok() {
            awaited.borrow_and_update();
            self.applied.landed().await;
            // The next renewal says it too.
            let said = async {
                let settled = self.said().await?;
                self.nodes.acknowledge(self.own, settled).await
            };
            if let Err(error) = said.await {
                tracing::warn!(%error, "the other nodes could not be told that a commit is applied");
            }
        }
    }

    /// Ends what is under way whenever the lease runs out: it may go on elsewhere, or here once there is a lease again.
    async fn end_with_lease(&self) {
        loop {
            self.lease.begun().await;
            self.lease.ended().await;
            tracing::warn!(
                "the lease has run out: nobody is let in, and what was under way is ended, until it is renewed"
            );
            self.gate.lapse();
        }
    }

    async fn forget(&self) {
        loop {
            tokio::time::sleep(FORGETS).await;
            if let Err(error) = self.nodes.forget(KEPT).await {
                tracing::warn!(%error, "old commits could not be forgotten");
            }
        }
    }
}

/// What fails again and again is said once, and once that it is over.
#[derive(Default)]
struct Failing {
    since: Option<Awake>,
}

impl Failing {
    async fn because(&mut self, error: &StoreError, what: &str) {
        if self.since.replace(Awake::now()).is_none() {
            tracing::warn!(%error, "{what}");
        }
        tokio::time::sleep(LOOK).await;
    }

    fn over(&mut self, what: &str) {
        if self.since.take().is_some() {
            tracing::info!("{what}");
        }
    }
}

/// What a node cannot follow any more it must load anew.
fn end(error: &StoreError) -> ! {
    logs::end(74, &format!("{error}: this process has to start anew"))
}
