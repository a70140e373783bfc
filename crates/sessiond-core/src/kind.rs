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
    /// A viewer of a media stream.
    Media,
    /// A person at a web application that somebody else runs.
    Webui,
    /// Work that is queued and run on somebody else's machines.
    Task,
    /// A shell on a machine, in a WebSocket.
    Terminal,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Agent, Self::Mcp, Self::Media, Self::Webui, Self::Task, Self::Terminal];

    /// The word used in the log and in rows.
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Mcp => "mcp",
            Self::Media => "media",
            Self::Webui => "webui",
            Self::Task => "task",
            Self::Terminal => "terminal",
        }
    }

    /// Whether its sessions have a token of their own that expires. Others end at their lifetime, and not before.
    pub fn has_token(self) -> bool {
        matches!(self, Self::Agent | Self::Mcp)
    }

    /// The kind behind a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}
