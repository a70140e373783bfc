//! What only a store can mean that several processes work on, each of them a node.
//!
//! Every commit keeps what it changes in memory, so that whoever applies the commits in their order knows what the one
//! knows that made them. A node has a lease, which it renews; by the lease everybody else knows until when it may still let
//! somebody in, and so when it is certain that it does not.

use std::time::Duration;

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::RevocationNumber;
use uuid::Uuid;

use crate::StoreError;
use crate::row::Commit;

/// A node on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Given out once: a process that starts anew is another node.
    pub number: i64,
    pub id: Uuid,
    /// Where the other nodes reach it, if they do.
    pub url: Option<String>,
    pub version: String,
    pub started_at: Time,
    /// The last commit that it has said to have applied.
    pub applied: i64,
    /// By the store's clock; none while it loads, and lets nobody in.
    pub lease_expires_at: Option<Time>,
    /// Whether that has not passed.
    pub leased: bool,
}

/// What a renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// Whether the lease was running out all the while. If not, nobody waited for this node: it may let somebody in once
    /// it has applied the commits up to `head`.
    pub held: bool,
    /// The last commit.
    pub head: i64,
}

/// How a commit stands with the nodes that had a lease when that was asked first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those that have applied it, and said so.
    pub acknowledged: u32,
    /// Those whose lease has run out before they did.
    pub expired: u32,
    /// Those that may still let somebody in as if it had not happened.
    pub missing: u32,
}

/// Following the commits of others, and being followed.
#[async_trait]
pub trait Nodes: Send + Sync {
    /// Puts a node on record, without a lease.
    async fn join(&self, id: Uuid, url: Option<&str>, version: &str) -> Result<i64, StoreError>;

    /// Renews a node's lease, for so long from now by the store's clock, and says how far it has come. A node that is not on
    /// record any more is an error that [ends all](StoreError::ends_all).
    async fn renew(&self, node: i64, applied: i64, lease: Duration) -> Result<Renewed, StoreError>;

    /// Says at once how far a node has come, because somebody waits for it.
    async fn acknowledge(&self, node: i64, applied: i64) -> Result<(), StoreError>;

    /// Says how many requests and streams a node has cut off for revocations that others carry out. It is to be said before the
    /// node says that it has come so far.
    async fn cut_off(&self, node: i64, streams: &[(RevocationNumber, u64)]) -> Result<(), StoreError>;

    /// How many the other nodes have cut off for a revocation.
    async fn cut_off_elsewhere(&self, node: i64, revocation: RevocationNumber) -> Result<u64, StoreError>;

    /// Ends a node's lease, because it lets nobody in any more.
    async fn leave(&self, node: i64) -> Result<(), StoreError>;

    /// The nodes that are on record, in the order of their numbers.
    async fn nodes(&self) -> Result<Vec<Node>, StoreError>;

    /// How a commit stands with these nodes.
    async fn standing(&self, commit: i64, nodes: &[i64]) -> Result<Standing, StoreError>;

    /// The commits after one, oldest first, at most so many. Where some of them are not kept any more it is an error that
    /// [ends all](StoreError::ends_all): only a new start knows what they changed.
    async fn commits_after(&self, commit: i64, limit: u32) -> Result<Vec<Commit>, StoreError>;

    /// Resolves when something may have been committed, or acknowledged, since it resolved before: it is told, or
    /// `at_most` has passed.
    async fn news(&self, at_most: Duration);

    /// Whether the store tells of commits as they happen, and not only when it is asked.
    fn hears(&self) -> bool;

    /// Takes a job that only one node may do at a time, for so long, unless another has it.
    async fn claim(&self, job: &str, node: i64, lease: Duration) -> Result<bool, StoreError>;

    /// The node that has a job, if any has it now.
    async fn holder(&self, job: &str) -> Result<Option<i64>, StoreError>;

    /// Forgets commits that every node with a lease has applied and that are older than this, and nodes whose lease ran out
    /// before then.
    async fn forget(&self, older_than: Duration) -> Result<(), StoreError>;
}
