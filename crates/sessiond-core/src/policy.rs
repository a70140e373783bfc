//! How long things last and how many there may be: the server's figures, an application's own, and what a session keeps.

use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// The server's figures. All are seconds, as `GET /api/v1/policy` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Without activity for this long a session reads as `idle`. Display only; nothing ends.
    pub idle_after: u32,
    /// Without a sign of life for this long the server disconnects a session that reports heartbeats.
    pub stale_after: u32,
    /// The same for MCP sessions, whose clients have no heartbeat. Paused while a call or stream is open.
    pub mcp_stale_after: u32,
    /// The same for MCP sessions that made no second request: most such clients are gone. At most `mcp_stale_after`.
    pub mcp_unused_after: u32,
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
            mcp_unused_after: 600,
            token_lifetime: 3_600,
            absolute_lifetime: 86_400,
        }
    }
}

/// A named set of figures. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// NIST SP 800-63B-4, section 2.1.3: at most 30 days; no inactivity timeout is asked for.
    Aal1,
    /// Section 2.2.3: at most 24 hours, 1 hour without activity.
    Aal2,
    /// Section 2.3.3: at most 12 hours, 15 minutes without activity.
    Aal3,
}

impl Preset {
    pub const ALL: [Self; 3] = [Self::Aal1, Self::Aal2, Self::Aal3];

    pub fn word(self) -> &'static str {
        match self {
            Self::Aal1 => "aal1",
            Self::Aal2 => "aal2",
            Self::Aal3 => "aal3",
        }
    }

    /// The preset behind a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.word() == word)
    }

    /// Its figures, in place of the server's.
    pub fn over(self, policy: Policy) -> Policy {
        let (absolute_lifetime, inactivity) = match self {
            Self::Aal1 => (30 * 86_400, None),
            Self::Aal2 => (86_400, Some(3_600)),
            Self::Aal3 => (43_200, Some(900)),
        };
        let mcp_stale_after = inactivity.unwrap_or(policy.mcp_stale_after);
        Policy {
            absolute_lifetime,
            stale_after: inactivity.unwrap_or(policy.stale_after),
            mcp_stale_after,
            mcp_unused_after: policy.mcp_unused_after.min(mcp_stale_after),
            token_lifetime: policy.token_lifetime.min(absolute_lifetime),
            ..policy
        }
    }
}

/// An application's own policy: what it leaves out is the preset's, else the server's. Stored: add optional fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_stale_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_unused_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_lifetime: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute_lifetime: Option<u32>,
    /// Most sessions of one principal that may be live in the application at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_principal: Option<u32>,
    /// Most sessions that may be live in the application at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_application: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_limit: Option<OnLimit>,
}

/// What happens to a connect that would exceed a limit. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLimit {
    /// It is refused.
    Reject,
    /// The oldest that is idle makes room; where none is idle, the oldest.
    EvictIdleFirst,
    /// The oldest makes room.
    EvictOldest,
}

impl ApplicationPolicy {
    /// The figures that are in force, over the server's.
    pub fn over(&self, server: Policy) -> Policy {
        let base = self.preset.map_or(server, |preset| preset.over(server));
        let mcp_stale_after = self.mcp_stale_after.unwrap_or(base.mcp_stale_after);
        Policy {
            idle_after: self.idle_after.unwrap_or(base.idle_after),
            stale_after: self.stale_after.unwrap_or(base.stale_after),
            mcp_stale_after,
            mcp_unused_after: self.mcp_unused_after.unwrap_or(base.mcp_unused_after).min(mcp_stale_after),
            token_lifetime: self.token_lifetime.unwrap_or(base.token_lifetime),
            absolute_lifetime: self.absolute_lifetime.unwrap_or(base.absolute_lifetime),
        }
    }

    /// What a connect beyond a limit meets; refusal unless said otherwise.
    pub fn on_limit(&self) -> OnLimit {
        self.on_limit.unwrap_or(OnLimit::Reject)
    }
}

impl Policy {
    /// The part that one session of `kind` keeps for its whole life, whatever the policy becomes later.
    pub fn for_session(&self, kind: Kind, preset: Option<Preset>) -> SessionPolicy {
        SessionPolicy {
            idle_after: self.idle_after,
            stale_after: if kind == Kind::Mcp { self.mcp_stale_after } else { self.stale_after },
            absolute_lifetime: self.absolute_lifetime,
            token_lifetime: kind.has_token().then_some(self.token_lifetime),
            unused_after: (kind == Kind::Mcp).then_some(self.mcp_unused_after),
            preset,
        }
    }
}

impl SessionPolicy {
    /// In `stale_after`: longer than anything lasts.
    pub const NEVER: u32 = u32::MAX;

    /// After how long a silence it is stale, if ever.
    pub fn stale(&self) -> Option<u32> {
        (self.stale_after != Self::NEVER).then_some(self.stale_after)
    }
}

/// The policy a session was opened under, in seconds; recorded in its `Connected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicy {
    pub idle_after: u32,
    /// [`SessionPolicy::NEVER`] for sessions of which only the beginning and the end are ever reported.
    pub stale_after: u32,
    pub absolute_lifetime: u32,
    /// Absent in sessions from before applications had policies: the server's figure holds. Absent too where sessions
    /// have no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_lifetime: Option<u32>,
    /// In place of `stale_after` until the session's second request. Absent in sessions of agents, and in those from before
    /// there was this figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_after: Option<u32>,
    /// The preset that the application's policy named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
}
