//! The kinds of session.

use serde::{Deserialize, Serialize};

/// What sort of thing is connected. Stored as its word in `Connected`; never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An agent that reports its own heartbeats over REST.
    Agent,
    /// An MCP client whose requests pass our gateway.
    Mcp,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Agent, Self::Mcp];

    /// The word used in the log and in rows.
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Mcp => "mcp",
        }
    }

    /// The kind behind a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}
