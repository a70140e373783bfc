//! Terminals whose node is gone: their shells have died with it, and whoever notices records that.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::registry::Terminals;
use crate::error::Error;
use crate::nodes::Claims;

/// How often the other nodes are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a node must have been without a lease, for as long as this one looks, before it counts as gone. After an outage of
/// the database no node has a lease, and the first that has one again is not to take the others for dead.
const GONE: Duration = Duration::from_secs(5);
/// What the claim is called.
const JOB: &str = "orphaned terminals";

impl Terminals {
    /// Ends the terminals of nodes that are gone, until it is told to stop. One node does so at a time.
    pub async fn end_those_of_gone_nodes(&self, claims: Claims, stopping: CancellationToken) {
        let mut missing: HashMap<i64, Instant> = HashMap::new();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = sleep(LOOK) => {}
            }
            if !claims.take(JOB).await {
                missing.clear();
                continue;
            }
            if let Err(error) = self.look(&mut missing).await {
                tracing::warn!(%error, "terminals of nodes that are gone could not be ended; trying again");
            }
        }
    }

    async fn look(&self, missing: &mut HashMap<i64, Instant>) -> Result<(), Error> {
        let nodes = self.peers.nodes().await?;
        let leased = |number: i64| nodes.iter().any(|node| node.number == number && node.leased);
        let without: Vec<_> =
            self.sessions.terminals.nodes().into_iter().filter(|number| !leased(*number)).collect();
        missing.retain(|number, _| without.contains(number));
        for number in without {
            let since = *missing.entry(number).or_insert_with(Instant::now);
            if since.elapsed() >= GONE {
                let ended = self.sessions.terminals.end_orphans(Some(number)).await?;
                tracing::warn!(
                    node = number,
                    ended,
                    "a node is gone, and with it the shells of its terminals"
                );
            }
        }
        Ok(())
    }
}
