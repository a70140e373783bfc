//! A request that is to take effect once, however often it is sent.

use std::sync::Arc;

use chrono::TimeDelta;

use crate::Time;
use crate::ids::SessionNumber;

/// How long an outcome is replayed.
pub const KEPT: TimeDelta = TimeDelta::hours(24);

/// What makes a request the same as one before. Travels with its caller, and with the operation that it hands to the
/// committer.
#[derive(Clone)]
pub struct IdempotencyKey {
    /// Keyed digest of who asks and the client's key: the key itself is nowhere.
    pub key: [u8; 32],
    /// Digest of the request.
    pub fingerprint: [u8; 32],
    /// Makes the secrets of this request others than those of the day before, under the same key.
    pub salt: [u8; 16],
    /// Its secrets are derived from this. Never stored.
    pub seed: [u8; 32],
    /// What the committer answered the first time, as JSON.
    pub recorded: Option<String>,
    /// The request is under way as long as anybody holds this: also where its client has gone and the committer has not
    /// decided yet.
    pub under_way: Arc<()>,
}

// By hand, because the seed gives its secrets away.
impl std::fmt::Debug for IdempotencyKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("IdempotencyKey")
            .field("recorded", &self.recorded.is_some())
            .finish_non_exhaustive()
    }
}

/// An outcome as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedOutcome {
    pub key: [u8; 32],
    pub fingerprint: [u8; 32],
    pub salt: [u8; 16],
    /// What the committer answered, as JSON.
    pub done: String,
    /// The session that the answer is about: it is forgotten with that.
    pub session: Option<SessionNumber>,
    pub recorded_at: Time,
}
