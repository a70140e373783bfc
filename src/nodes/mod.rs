//! Several processes on one store, each of them a node: following what the others commit, the lease by which each may let
//! somebody in, and waiting until a commit is true on all of them. `docs/decisions/0058-nodes.md` says why it is done so.

mod applied;
mod barrier;
mod catch_up;
mod claims;
mod escort;
mod follower;
mod peers;

pub use applied::Applied;
pub use barrier::Barrier;
pub use catch_up::CatchUp;
pub use claims::{Claimed, Claims};
pub use escort::{escorted, upgraded};
pub use follower::Follower;
pub use peers::{HandedOn, Owner, Peer, Peers, Unreachable};
pub use sessiond_store::Node;
