//! Hooks: where a media server asks whether a viewer may come in, and says that one has left. The secret that it signs
//! with stands beside the log, sealed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{Head, OrganizationNumber};
use crate::stream::Envelope;
use crate::stream::ItemRefusal;

/// What happens to a hook.
#[derive(Debug, Clone, PartialEq)]
pub enum HookEvent {
    Created(HookCreated),
    /// It lets nobody in any more.
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookCreated {
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
pub struct Hook {
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

impl Hook {
    /// Whether a wish changes anything: deleting twice is success.
    pub(super) fn happens(&self, wish: &HookEvent) -> Result<bool, ItemRefusal> {
        match wish {
            HookEvent::Created(_) => Err(ItemRefusal::Gone),
            HookEvent::Deleted => Ok(self.deleted_at.is_none()),
        }
    }
}

pub(super) fn evolve(hook: Option<Hook>, event: &HookEvent, envelope: &Envelope) -> Option<Hook> {
    match event {
        HookEvent::Created(created) => Some(Hook {
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
        HookEvent::Deleted => {
            hook.map(|hook| Hook { deleted_at: Some(envelope.occurred_at), head: envelope.head, ..hook })
        }
    }
}
