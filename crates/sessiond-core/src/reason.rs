//! Why a session ended: one list for ever, shared by every surface.

use serde::{Deserialize, Serialize};

/// The reason in `Disconnected`. Words are wire format on every surface and in the log; never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The client said goodbye.
    Client,
    /// An operator ended this session and left every credential alone.
    Terminated,
    /// An operator ended it and barred the credentials it was opened with.
    Revoked,
    /// Its application was archived.
    Archived,
    /// No sign of life for the stale timeout.
    Stale,
    /// Ended by an idle limit.
    Idle,
    /// It reached its absolute lifetime.
    Lifetime,
    /// Ended to make room under a cap.
    Evicted,
    /// Replaced by a newer session with the same key.
    Superseded,
    /// The server behind it is gone.
    UpstreamLost,
    /// The machine behind it is gone.
    MachineLost,
    /// What it ran came to its own end.
    Exited,
    /// What it ran broke.
    Failed,
}

impl Reason {
    /// Every reason, for whoever must know them all.
    pub const ALL: [Self; 13] = [
        Self::Client,
        Self::Terminated,
        Self::Revoked,
        Self::Archived,
        Self::Stale,
        Self::Idle,
        Self::Lifetime,
        Self::Evicted,
        Self::Superseded,
        Self::UpstreamLost,
        Self::MachineLost,
        Self::Exited,
        Self::Failed,
    ];

    /// The word used on the wire and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Terminated => "terminated",
            Self::Revoked => "revoked",
            Self::Archived => "archived",
            Self::Stale => "stale",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Evicted => "evicted",
            Self::Superseded => "superseded",
            Self::UpstreamLost => "upstream_lost",
            Self::MachineLost => "machine_lost",
            Self::Exited => "exited",
            Self::Failed => "failed",
        }
    }

    /// The reason behind a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.word())
    }
}
