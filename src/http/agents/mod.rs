//! The main surface: sessions of an application, read and ended by its owners, kept alive by its agents. What its parts
//! share is how a session looks.

mod instances;
mod me;
mod read;
mod write;

pub use instances::*;
pub use me::*;
pub use read::*;
pub use write::*;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::time;
use super::words::{Ender, KindWord, PresetWord, ReasonWord};
use crate::sessions::View;
use crate::telling::{EndedByBody, PersonNamed};
use sessiond_core::policy::Preset;

/// A session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub id: Uuid,
    /// Human-readable name.
    pub name: String,
    /// What sort of session.
    #[schema(value_type = KindWord)]
    pub kind: &'static str,
    /// What it is connected to within its application: the name of a media stream, the version of a workload's
    /// application.
    #[schema(required = true)]
    pub resource: Option<String>,
    /// Changes only when the session ends.
    pub status: Status,
    /// What the session is at the moment of asking.
    pub derived_status: Derived,
    /// When the session's token expires; null for kinds of session that have none.
    #[schema(required = false, format = DateTime)]
    pub token_expires_at: Option<String>,
    /// The last sign of life.
    #[schema(required = false, format = DateTime)]
    pub last_active_at: Option<String>,
    /// When the session was established.
    #[schema(required = false, format = DateTime)]
    pub connected_at: Option<String>,
    /// When it ended.
    #[schema(required = false, format = DateTime)]
    pub disconnected_at: Option<String>,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// The application that created the session.
    pub agent_id: Uuid,
    pub organization_id: Uuid,
    /// Whom it belongs to.
    pub principal_id: Uuid,
    /// The same, by name.
    pub principal: PersonNamed,
    /// Host name reported by the client.
    #[schema(required = true)]
    pub hostname: Option<String>,
    /// User agent reported by the client.
    #[schema(required = true)]
    pub user_agent: Option<String>,
    /// Client metadata.
    #[schema(required = true, value_type = Option<Object>)]
    pub client_info: Option<Value>,
    /// The client's own name, from its metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client: Option<String>,
    /// Whether an operator has suspended it: every request of it is refused until it is resumed.
    pub suspended: bool,
    /// The policy it was opened under, and keeps.
    pub policy: SessionPolicy,
    /// Why it ended.
    #[schema(required = false, value_type = Option<ReasonWord>)]
    pub disconnect_reason: Option<&'static str>,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Ender>)]
    pub ended_by: Option<EndedByBody>,
    /// Why it ended, in a sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub end_reason: Option<String>,
    /// What it has reported since it connected.
    pub activity: Activity,
}

/// Whether a session has ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Active,
    Disconnected,
}

/// Disconnected before expired before idle before active.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Derived {
    Active,
    Idle,
    Expired,
    Disconnected,
}

/// The policy a session keeps; in seconds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicy {
    /// The preset its application named.
    #[schema(required = true, value_type = Option<PresetWord>)]
    pub preset: Option<&'static str>,
    pub idle_after: u32,
    /// Null where nothing but the end of the session is ever reported.
    #[schema(required = true)]
    pub stale_after: Option<u32>,
    /// In place of `staleAfter` until the session's second request; for MCP sessions only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unused_after: Option<u32>,
    /// Absent where sessions have no token, and in those from before applications had policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub token_lifetime: Option<u32>,
    pub absolute_lifetime: u32,
}

/// Countable work.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl From<View> for Session {
    fn from(view: View) -> Self {
        use sessiond_core::status::DerivedStatus as D;
        let (session, detail) = (view.session, view.detail);
        let (ended_by, end_reason) = view.end.map(|end| (end.by.into(), end.why)).unzip();
        Self {
            id: session.id,
            name: detail.name.unwrap_or_else(|| "(erased)".to_owned()),
            kind: session.kind.word(),
            token_expires_at: session.expiry().map(time),
            status: if session.ended.is_some() { Status::Disconnected } else { Status::Active },
            derived_status: match view.derived {
                D::Active => Derived::Active,
                D::Idle => Derived::Idle,
                D::Expired => Derived::Expired,
                D::Disconnected => Derived::Disconnected,
            },
            last_active_at: Some(time(view.last_active_at)),
            connected_at: Some(time(session.connected_at)),
            disconnected_at: session.ended.map(|ended| time(ended.at)),
            created_at: time(session.connected_at),
            resource: session.resource,
            agent_id: view.application_id,
            organization_id: view.organization_id,
            principal_id: view.principal.id,
            principal: view.principal,
            hostname: detail.hostname,
            user_agent: detail.user_agent,
            client: detail.client,
            client_info: detail.client_info.and_then(|text| serde_json::from_str(&text).ok()),
            suspended: session.suspended_at.is_some(),
            policy: SessionPolicy {
                preset: session.policy.preset.map(Preset::word),
                idle_after: session.policy.idle_after,
                stale_after: session.policy.stale(),
                unused_after: session.policy.unused_after,
                token_lifetime: session.policy.token_lifetime,
                absolute_lifetime: session.policy.absolute_lifetime,
            },
            disconnect_reason: session.ended.map(|ended| ended.reason.word()),
            ended_by,
            end_reason,
            activity: Activity {
                requests: session.total.requests,
                bytes_in: session.total.bytes_in,
                bytes_out: session.total.bytes_out,
            },
        }
    }
}

/// One session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionEnvelope {
    pub session: Session,
    /// With `asOf`, where something was let go since: from when on it is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub exact_since: Option<String>,
}

impl SessionEnvelope {
    /// A session as it is now.
    pub fn of(view: View) -> Self {
        Self { session: view.into(), exact_since: None }
    }
}

/// A page of sessions, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionList {
    pub items: Vec<Session>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
    /// With `asOf`, where something was let go since: from when on it is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub exact_since: Option<String>,
}
