//! Several processes on one store, each of them a node: following what the others commit, the lease by which each may let
//! somebody in, and waiting until a commit is true on all of them. `docs/decisions/0058-nodes.md` says why it is done so.

mod applied;
mod barrier;
mod claims;
mod follower;

pub use applied::Applied;
pub use barrier::Barrier;
pub use claims::Claims;
pub use follower::Follower;
