//! The kinds of session and the policy a session is opened under.

use serde::{Deserialize, Serialize};

/// What sort of thing is connected. Stored as its word in `Connected`; never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An agent that reports its own heartbeats over REST.
    Agent,
    /// An MCP client whose requests pass our gateway.
    Mcp,
}

impl Kind {
    /// The word used in the log and in rows.
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Mcp => "mcp",
        }
    }

    /// The kind behind a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Agent, Self::Mcp].into_iter().find(|kind| kind.word() == word)
    }
}

/// How long things last. All figures are seconds, as `GET /api/v1/policy` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Without activity for this long a session reads as `idle`. Display only; nothing ends.
    pub idle_after: u32,
    /// Without a sign of life for this long the server disconnects a session that reports heartbeats.
    pub stale_after: u32,
    /// The same for MCP sessions, whose clients have no heartbeat. Paused while a call or stream is open.
    pub mcp_stale_after: u32,
    /// Life of the access tokens and session tokens issued here.
    pub token_lifetime: u32,
    /// A session ends this long after it connected, whatever happens.
    pub absolute_lifetime: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            idle_after: 300,
            stale_after: 900,
            mcp_stale_after: 3_600,
            token_lifetime: 3_600,
            absolute_lifetime: 86_400,
        }
    }
}

impl Policy {
    /// The part that one session of `kind` keeps for its whole life, whatever the policy becomes later.
    pub fn for_session(&self, kind: Kind) -> SessionPolicy {
        SessionPolicy {
            idle_after: self.idle_after,
            stale_after: match kind {
                Kind::Agent => self.stale_after,
                Kind::Mcp => self.mcp_stale_after,
            },
            absolute_lifetime: self.absolute_lifetime,
        }
    }
}

/// The policy a session was opened under, in seconds; recorded in its `Connected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicy {
    pub idle_after: u32,
    pub stale_after: u32,
    pub absolute_lifetime: u32,
}
