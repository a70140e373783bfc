//! Webhooks out: where events are delivered to. What was delivered is not told here; it stands beside the log.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, Position, StreamKind};
use crate::stream::{EMPTY, Envelope, Most, SecretRotated, Stream, StreamEvent, StreamRefusal, text};

/// Types of events that a webhook may name: all there are.
pub const TYPES: [&str; 56] = [
    "activity_folded",
    "activity_recorded",
    "api_key_created",
    "api_key_revoked",
    "api_key_secret_rotated",
    "application_archived",
    "application_changed",
    "application_created",
    "application_credentials_barred",
    "application_policy_set",
    "application_secret_rotated",
    "application_upstream_set",
    "bar_lifted",
    "bar_placed",
    "connected",
    "disconnected",
    "expired",
    "hook_created",
    "hook_deleted",
    "hook_secret_rotated",
    "machine_changed",
    "machine_created",
    "machine_deleted",
    "machine_host_key_pinned",
    "media_stream_declared",
    "organization_created",
    "organization_credentials_barred",
    "organization_issuers_set",
    "organization_renamed",
    "organization_restored",
    "organization_retention_set",
    "phase_changed",
    "principal_credentials_barred",
    "principal_disabled",
    "principal_enabled",
    "resumed",
    "revocation_began",
    "revocation_ended",
    "schedule_created",
    "schedule_deleted",
    "schedule_paused",
    "schedule_ran",
    "schedule_resumed",
    "schedule_skipped",
    "service_account_archived",
    "service_account_created",
    "service_account_secret_rotated",
    "sessions_let_go",
    "suspended",
    "token_renewed",
    "webhook_changed",
    "webhook_created",
    "webhook_deleted",
    "webhook_disabled",
    "webhook_enabled",
    "webhook_secret_rotated",
];

/// What happens to a webhook.
#[derive(Debug, Clone, PartialEq)]
pub enum WebhookEvent {
    Created(WebhookCreated),
    Changed(WebhookChanged),
    SecretRotated(SecretRotated),
    /// Nothing more is sent until it is enabled again.
    Disabled(Disabled),
    Enabled,
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCreated {
    pub id: Uuid,
    pub url: String,
    /// Only what happens in this application; in the whole organization if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationNumber>,
    /// Types of events to deliver; empty means every lifecycle event.
    pub types: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookChanged {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disabled {
    pub because: Because,
}

/// Why a webhook was disabled. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// Its owner said so.
    Owner,
    /// The endpoint answered 410 Gone.
    Gone,
    /// One delivery failed as often as the schedule of retries allows.
    Failing,
}

/// The fold of a webhook's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    pub number: i64,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationNumber>,
    pub url: String,
    pub types: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub created_at: Time,
    pub updated_at: Time,
    /// What happened up to here is not delivered: where it was created.
    pub from: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Because>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Time>,
    #[serde(skip)]
    pub head: Head,
}

impl Webhook {
    /// Whether it wants an event of this type in this application.
    pub fn wants(&self, name: &str, application: Option<ApplicationNumber>) -> bool {
        self.deleted_at.is_none()
            && self.disabled.is_none()
            && (self.application.is_none() || self.application == application)
            && if self.types.is_empty() {
                name != crate::session::event::ACTIVITY
            } else {
                self.types.iter().any(|one| one == name)
            }
    }
}

impl Stream for Webhook {
    const KIND: StreamKind = StreamKind::Webhook;
    type Event = WebhookEvent;
    type Command = WebhookEvent;

    fn decide(before: Option<&Self>, command: &WebhookEvent) -> Result<Option<WebhookEvent>, StreamRefusal> {
        let happens = match (before, command) {
            (None, WebhookEvent::Created(_)) => true,
            // Deleting twice is success.
            (Some(webhook), WebhookEvent::Deleted) => webhook.exists(),
            (Some(webhook), _) if !webhook.exists() => return Err(StreamRefusal::Gone),
            (Some(_), WebhookEvent::Changed(changed)) => *changed != WebhookChanged::default(),
            (Some(_), WebhookEvent::SecretRotated(_)) => true,
            (Some(webhook), WebhookEvent::Disabled(_)) => webhook.disabled.is_none(),
            (Some(webhook), WebhookEvent::Enabled) => webhook.disabled.is_some(),
            _ => return Err(StreamRefusal::Gone),
        };
        Ok(happens.then(|| command.clone()))
    }

    fn evolve(webhook: Option<Self>, event: &WebhookEvent, envelope: &Envelope) -> Option<Self> {
        let (now, head) = (envelope.occurred_at, envelope.head);
        if let WebhookEvent::Created(created) = event {
            return Some(Webhook {
                number: envelope.number,
                id: created.id,
                organization: envelope.organization,
                application: created.application,
                url: created.url.clone(),
                types: created.types.clone(),
                description: created.description.clone(),
                created_at: now,
                updated_at: now,
                from: head.position,
                disabled: None,
                deleted_at: None,
                head,
            });
        }
        let before = webhook?;
        let updated = Webhook { updated_at: now, head, ..before };
        Some(match event {
            WebhookEvent::Created(_) | WebhookEvent::SecretRotated(_) => updated,
            WebhookEvent::Changed(changed) => Webhook {
                url: changed.url.clone().unwrap_or(updated.url),
                types: changed.types.clone().unwrap_or(updated.types),
                description: changed.description.clone().or(updated.description),
                ..updated
            },
            WebhookEvent::Disabled(disabled) => Webhook { disabled: Some(disabled.because), ..updated },
            WebhookEvent::Enabled => Webhook { disabled: None, ..updated },
            WebhookEvent::Deleted => Webhook { deleted_at: Some(now), ..updated },
        })
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    fn application(&self) -> Option<ApplicationNumber> {
        self.application
    }

    fn exists(&self) -> bool {
        self.deleted_at.is_none()
    }

    const MOST: Option<Most> = Some(Most { count: 100, plural: "webhooks", code: "webhook_limit_reached" });
}

impl StreamEvent for WebhookEvent {
    const NAMES: &[&str] = &[
        "webhook_created",
        "webhook_changed",
        "webhook_secret_rotated",
        "webhook_disabled",
        "webhook_enabled",
        "webhook_deleted",
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "webhook_created",
            Self::Changed(_) => "webhook_changed",
            Self::SecretRotated(_) => "webhook_secret_rotated",
            Self::Disabled(_) => "webhook_disabled",
            Self::Enabled => "webhook_enabled",
            Self::Deleted => "webhook_deleted",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Created(body) => text(body),
            Self::Changed(body) => text(body),
            Self::Disabled(body) => text(body),
            Self::SecretRotated(body) => text(body),
            Self::Enabled | Self::Deleted => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "webhook_created" => Self::Created(serde_json::from_str(body)?),
            "webhook_changed" => Self::Changed(serde_json::from_str(body)?),
            "webhook_secret_rotated" => Self::SecretRotated(serde_json::from_str(body)?),
            "webhook_disabled" => Self::Disabled(serde_json::from_str(body)?),
            "webhook_enabled" => Self::Enabled,
            "webhook_deleted" => Self::Deleted,
            _ => return Ok(None),
        }))
    }
}
