//! Hooks: where a media server asks whether a viewer may come in, and says that one has left. The secret that it signs
//! with stands beside the log, sealed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{Head, OrganizationNumber, StreamKind};
use crate::stream::{EMPTY, Envelope, Most, SecretRotated, Stream, StreamEvent, StreamRefusal, text};

/// What happens to a hook.
#[derive(Debug, Clone, PartialEq)]
pub enum AdmissionHookEvent {
    Created(AdmissionHookCreated),
    /// Its calls are signed with another secret.
    SecretRotated(SecretRotated),
    /// It lets nobody in any more.
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionHookCreated {
    pub id: Uuid,
    pub name: String,
    /// The virtual host of the streams that it is asked about.
    pub vhost: String,
    /// Sessions end so many seconds after they began; at the end of their application's policy if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u32>,
}

/// The fold of a hook's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionHook {
    pub number: i64,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub name: String,
    pub vhost: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u32>,
    pub created_at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Time>,
    #[serde(skip)]
    pub head: Head,
}

impl Stream for AdmissionHook {
    const KIND: StreamKind = StreamKind::Hook;
    type Event = AdmissionHookEvent;
    type Command = AdmissionHookEvent;

    fn decide(
        before: Option<&Self>,
        command: &AdmissionHookEvent,
    ) -> Result<Option<AdmissionHookEvent>, StreamRefusal> {
        let happens = match (before, command) {
            (None, AdmissionHookEvent::Created(_)) => true,
            // Deleting twice is success.
            (Some(hook), AdmissionHookEvent::Deleted) => hook.deleted_at.is_none(),
            (Some(hook), AdmissionHookEvent::SecretRotated(_)) if hook.deleted_at.is_none() => true,
            _ => return Err(StreamRefusal::Gone),
        };
        Ok(happens.then(|| command.clone()))
    }

    fn evolve(hook: Option<Self>, event: &AdmissionHookEvent, envelope: &Envelope) -> Option<Self> {
        match event {
            AdmissionHookEvent::Created(created) => Some(AdmissionHook {
                number: envelope.number,
                id: created.id,
                organization: envelope.organization,
                name: created.name.clone(),
                vhost: created.vhost.clone(),
                lifetime: created.lifetime,
                created_at: envelope.occurred_at,
                deleted_at: None,
                head: envelope.head,
            }),
            AdmissionHookEvent::SecretRotated(_) => {
                hook.map(|hook| AdmissionHook { head: envelope.head, ..hook })
            }
            AdmissionHookEvent::Deleted => hook.map(|hook| AdmissionHook {
                deleted_at: Some(envelope.occurred_at),
                head: envelope.head,
                ..hook
            }),
        }
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    fn exists(&self) -> bool {
        self.deleted_at.is_none()
    }

    const MOST: Option<Most> = Some(Most { count: 100, plural: "hooks", code: "hook_limit_reached" });
}

impl StreamEvent for AdmissionHookEvent {
    const NAMES: &[&str] = &["hook_created", "hook_secret_rotated", "hook_deleted"];

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "hook_created",
            Self::SecretRotated(_) => "hook_secret_rotated",
            Self::Deleted => "hook_deleted",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Created(body) => text(body),
            Self::SecretRotated(body) => text(body),
            Self::Deleted => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "hook_created" => Self::Created(serde_json::from_str(body)?),
            "hook_secret_rotated" => Self::SecretRotated(serde_json::from_str(body)?),
            "hook_deleted" => Self::Deleted,
            _ => return Ok(None),
        }))
    }
}
