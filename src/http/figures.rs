//! How long things last, as every surface shows it.

use serde::Serialize;
use sessiond_core::policy::Policy;

/// How long things last, in seconds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Policy)]
pub struct PolicyBody {
    /// Without activity for this long a session reads as `idle`.
    pub idle_after: u32,
    /// Without a sign of life for this long a session is disconnected.
    pub stale_after: u32,
    /// The same for MCP sessions.
    pub mcp_stale_after: u32,
    /// The same for MCP sessions that made no second request.
    pub mcp_unused_after: u32,
    /// Life of tokens issued here.
    pub token_lifetime: u32,
    /// A session ends this long after it connected, whatever happens.
    pub absolute_lifetime: u32,
}

impl From<Policy> for PolicyBody {
    fn from(policy: Policy) -> Self {
        Self {
            idle_after: policy.idle_after,
            stale_after: policy.stale_after,
            mcp_stale_after: policy.mcp_stale_after,
            mcp_unused_after: policy.mcp_unused_after,
            token_lifetime: policy.token_lifetime,
            absolute_lifetime: policy.absolute_lifetime,
        }
    }
}
