//! API keys: long-lived credentials of programs, for one surface or several, perhaps on behalf of a person.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{Head, OrganizationNumber, PrincipalNumber, StreamKind};
use crate::stream::{EMPTY, Envelope, Most, SecretRotated, Stream, StreamEvent, StreamRefusal, text};

/// What happens to an API key.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiKeyEvent {
    Created(ApiKeyCreated),
    /// It has another secret.
    SecretRotated(SecretRotated),
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
    /// How often it was given another secret.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rotations: u32,
    /// Until when the secret before the last rotation is good too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_until: Option<Time>,
    #[serde(skip)]
    pub head: Head,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl ApiKey {
    /// Until when one of its secrets is good, the one that it had after so many rotations: by its own end, and by what came
    /// after it. None: it is good no more, whatever the time.
    pub fn good_until(&self, rotations: u32) -> Option<Time> {
        let end = self.expires_at.unwrap_or(Time::MAX_UTC);
        if self.revoked_at.is_some() {
            None
        } else if rotations == self.rotations {
            Some(end)
        } else if rotations.checked_add(1) == Some(self.rotations) {
            self.old_until.map(|until| until.min(end))
        } else {
            None
        }
    }
}

impl Stream for ApiKey {
    const KIND: StreamKind = StreamKind::ApiKey;
    type Event = ApiKeyEvent;
    type Command = ApiKeyEvent;

    fn decide(before: Option<&Self>, command: &ApiKeyEvent) -> Result<Option<ApiKeyEvent>, StreamRefusal> {
        let happens = match (before, command) {
            (None, ApiKeyEvent::Created(_)) => true,
            // Revoking twice is success.
            (Some(key), ApiKeyEvent::Revoked) => key.revoked_at.is_none(),
            (Some(key), ApiKeyEvent::SecretRotated(_)) if key.revoked_at.is_none() => true,
            _ => return Err(StreamRefusal::Gone),
        };
        Ok(happens.then(|| command.clone()))
    }

    fn evolve(key: Option<Self>, event: &ApiKeyEvent, envelope: &Envelope) -> Option<Self> {
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
                rotations: 0,
                old_until: None,
                head: envelope.head,
            }),
            ApiKeyEvent::SecretRotated(rotated) => key.map(|key| ApiKey {
                rotations: key.rotations.saturating_add(1),
                old_until: rotated.old_until,
                head: envelope.head,
                ..key
            }),
            ApiKeyEvent::Revoked => {
                key.map(|key| ApiKey { revoked_at: Some(envelope.occurred_at), head: envelope.head, ..key })
            }
        }
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    /// One that has expired counts until it is revoked: the fold does not follow the clock.
    fn exists(&self) -> bool {
        self.revoked_at.is_none()
    }

    const MOST: Option<Most> =
        Some(Most { count: 10_000, plural: "API keys", code: "api_key_limit_reached" });
}

impl StreamEvent for ApiKeyEvent {
    const NAMES: &[&str] = &["api_key_created", "api_key_secret_rotated", "api_key_revoked"];

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "api_key_created",
            Self::SecretRotated(_) => "api_key_secret_rotated",
            Self::Revoked => "api_key_revoked",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Created(body) => text(body),
            Self::SecretRotated(body) => text(body),
            Self::Revoked => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "api_key_created" => Self::Created(serde_json::from_str(body)?),
            "api_key_secret_rotated" => Self::SecretRotated(serde_json::from_str(body)?),
            "api_key_revoked" => Self::Revoked,
            _ => return Ok(None),
        }))
    }
}
