//! Backups: a copy that is taken beside the writer ([`backup`](crate::backup)), and put where a store is to be
//! ([`restore`](crate::restore)).

use sessiond_core::ids::{Position, SessionNumber};

/// What a copy of a store holds: the log up to a position, and what stood beside it there. The rows are not in it, because
/// [`rebuild`](crate::rebuild) makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackedUp {
    /// The last event in it, and the hash of that commit.
    pub position: Position,
    pub commit_hash: [u8; 32],
    /// What the secret key is known by that opens what is sealed in it.
    pub key_check: Option<[u8; 32]>,
    /// The last session in it. Journals of later ones must not be kept with it: their numbers will be given out again.
    pub last_session: SessionNumber,
}
