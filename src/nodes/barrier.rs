//! Waiting until a commit is true on every node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sessiond_core::revocation::Acknowledged;
use sessiond_store::{Nodes, Standing, StoreError};

use crate::meter;

/// How often the store is asked while somebody waits, where it does not tell by itself.
const LOOK: Duration = Duration::from_millis(20);
/// The pause after the store could not be asked.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits for the other nodes.
pub struct Barrier {
    nodes: Arc<dyn Nodes>,
    /// This node.
    own: i64,
}

impl Barrier {
    pub fn new(nodes: Arc<dyn Nodes>, own: i64) -> Self {
        Self { nodes, own }
    }

    /// Waits until every other node that may let somebody in has applied a commit and said so, or its lease has run out by the
    /// store's clock. That takes as long as it takes: who is told that something is over may rely on it. What the commit
    /// cut off here has landed already.
    pub async fn wait(&self, commit: i64) -> Acknowledged {
        let begun = Instant::now();
        let asked = loop {
            match self.asked().await {
                Ok(asked) => break asked,
                Err(error) => self.pause(&error).await,
            }
        };
        let standing = loop {
            match self.nodes.standing(commit, &asked).await {
                Ok(standing) if standing.missing == 0 => break standing,
                Ok(_) => self.nodes.news(LOOK).await,
                Err(error) => self.pause(&error).await,
            }
        };
        metrics::histogram!(meter::BARRIER).record(begun.elapsed());
        let Standing { acknowledged, expired, .. } = standing;
        Acknowledged { asked: acknowledged + expired + 1, acknowledged: acknowledged + 1, expired }
    }

    /// The other nodes with a lease.
    async fn asked(&self) -> Result<Vec<i64>, StoreError> {
        let nodes = self.nodes.nodes().await?;
        let asked = nodes.into_iter().filter(|node| node.leased && node.number != self.own);
        Ok(asked.map(|node| node.number).collect())
    }

    async fn pause(&self, error: &StoreError) {
        tracing::warn!(%error, "the other nodes cannot be asked whether they have applied a commit; asking again");
        tokio::time::sleep(PAUSE).await;
    }
}
