//! Jobs that one node does at a time.

use std::sync::Arc;
use std::time::Duration;

use sessiond_store::Nodes;

/// How long a job is a node's that does not renew the claim: another takes it over after that.
const CLAIMED: Duration = Duration::from_secs(10);

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

    /// Resolves when a job that was claimed is another's by now; renews the claim until then.
    pub async fn lost(&self, job: &str) {
        if self.among.is_none() {
            return std::future::pending().await;
        }
        while self.take(job).await {
            tokio::time::sleep(CLAIMED / 4).await;
        }
    }

    /// Claims a job, or renews the claim. Whether it is this process's for the next seconds.
    pub async fn take(&self, job: &str) -> bool {
        let Some((nodes, own)) = &self.among else { return true };
        nodes.claim(job, *own, CLAIMED).await.unwrap_or_else(|error| {
            tracing::debug!(%error, job, "a job could not be claimed");
            false
        })
    }
}
