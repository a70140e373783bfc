//! Jobs that one node does at a time.

use std::sync::Arc;
use std::time::Duration;

use sessiond_core::ids::RevocationNumber;
use sessiond_store::{Nodes, StoreError};

/// How long a job is a node's that does not renew the claim: another takes it over after that.
const CLAIMED: Duration = Duration::from_secs(10);

/// How often a job is asked for that another is doing.
const LOOK: Duration = Duration::from_millis(50);

/// Who does what only one may do. A claim is for the load and not for correctness: a node that was stopped in the middle of
/// a job may go on with it when another has begun, so what a job decides is decided by the committer.
#[derive(Clone, Default)]
pub struct Claims {
    /// None: this process is the only one.
    among: Option<(Arc<dyn Nodes>, i64)>,
}

impl Claims {
    pub fn among(nodes: Arc<dyn Nodes>, own: i64) -> Self {
        Self { among: Some((nodes, own)) }
    }

    /// Whether there may be other processes.
    pub fn shared(&self) -> bool {
        self.among.is_some()
    }

    /// The node that does a job now; none where this process is the only one, and while nobody does it.
    pub async fn holder(&self, job: &str) -> Result<Option<i64>, StoreError> {
        match &self.among {
            Some((nodes, _)) => nodes.holder(job).await,
            None => Ok(None),
        }
    }

    /// How many requests and streams other processes have cut off for a revocation. It is asked once they have said that they
    /// have applied it.
    pub async fn cut_off_elsewhere(&self, revocation: RevocationNumber) -> u64 {
        let Some((nodes, own)) = &self.among else { return 0 };
        nodes.cut_off_elsewhere(*own, revocation).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "how many streams other nodes have cut off is not known");
            0
        })
    }

    /// Resolves when a job that was claimed is another's by now; renews the claim until then.
    pub async fn lost(&self, job: &str) {
        if self.among.is_none() {
            return std::future::pending().await;
        }
        while self.take(job).await {
            tokio::time::sleep(CLAIMED / 4).await;
        }
    }

    /// Waits for a job that is done by one at a time, and holds the claim until what this returns is dropped. Whoever cannot
    /// have it in time goes on without.
    pub async fn claimed(&self, job: String) -> Claimed {
        let held = tokio::time::timeout(CLAIMED, async {
            while !self.take(&job).await {
                tokio::time::sleep(LOOK).await;
            }
        });
        let held = held.await.is_ok();
        Claimed { claims: self.clone(), job: Some(job).filter(|_| held) }
    }

    /// Claims a job, or renews the claim. Whether it is this process's for the next seconds.
    pub async fn take(&self, job: &str) -> bool {
        self.claim(job, CLAIMED).await
    }

    async fn claim(&self, job: &str, lease: Duration) -> bool {
        let Some((nodes, own)) = &self.among else { return true };
        nodes.claim(job, *own, lease).await.unwrap_or_else(|error| {
            tracing::debug!(%error, job, "a job could not be claimed");
            false
        })
    }
}

/// The claim to a job, given back when it is dropped.
pub struct Claimed {
    claims: Claims,
    job: Option<String>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let Some(job) = self.job.take().filter(|_| self.claims.among.is_some()) else { return };
        let claims = self.claims.clone();
        // A claim that ends at once is no claim any more.
        tokio::spawn(async move { claims.claim(&job, Duration::ZERO).await });
    }
}
