//! How a session ended.

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::phase::Outcome;
use crate::reason::Reason;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Time,
    pub reason: Reason,
    /// What came of the work behind it, where that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl Ended {
    /// Whether there is no more to wait for from those who ran the work, had they this long: it ended by itself, or long
    /// enough ago.
    pub fn known_by(&self, settled_by: Time) -> bool {
        self.outcome.is_some() || self.at <= settled_by
    }
}
