//! API keys: long-lived credentials of programs, for one surface or several, perhaps on behalf of a person.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{Head, OrganizationNumber, PrincipalNumber};
use crate::stream::Envelope;
use crate::stream::ItemRefusal;

/// What happens to an API key.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiKeyEvent {
    Created(ApiKeyCreated),
    /// It opens nothing any more.
    Revoked,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyCreated {
    pub id: Uuid,
    pub name: String,
    /// Scope words, separated by spaces.
    pub scopes: String,
    /// The person it acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalNumber>,
    /// Milliseconds since the epoch; absent if it never expires.
    #[serde(
        default,
        with = "chrono::serde::ts_milliseconds_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<Time>,
}

/// The fold of an API key's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    pub number: i64,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub name: String,
    pub scopes: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalNumber>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    pub created_at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
    #[serde(skip)]
    pub head: Head,
}

impl ApiKey {
    /// Whether a wish changes anything: revoking twice is success.
    pub(super) fn happens(&self, wish: &ApiKeyEvent) -> Result<bool, ItemRefusal> {
        match wish {
            ApiKeyEvent::Created(_) => Err(ItemRefusal::Gone),
            ApiKeyEvent::Revoked => Ok(self.revoked_at.is_none()),
        }
    }
}

pub(super) fn evolve(key: Option<ApiKey>, event: &ApiKeyEvent, envelope: &Envelope) -> Option<ApiKey> {
    match event {
        ApiKeyEvent::Created(created) => Some(ApiKey {
            number: envelope.number,
            id: created.id,
            organization: envelope.organization,
            name: created.name.clone(),
            scopes: created.scopes.clone(),
            principal: created.principal,
            expires_at: created.expires_at,
            created_at: envelope.occurred_at,
            revoked_at: None,
            head: envelope.head,
        }),
        ApiKeyEvent::Revoked => {
            key.map(|key| ApiKey { revoked_at: Some(envelope.occurred_at), head: envelope.head, ..key })
        }
    }
}
