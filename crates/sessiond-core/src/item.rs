//! The small things of a directory: principals' standing, API keys, schedules, webhooks, media streams, hooks, machines. Each
//! has a stream, events and a fold of its own; all of them always live in memory and share one shape of row, their fold as
//! JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::api_key::{ApiKey, ApiKeyEvent};
use crate::hook::{Hook, HookEvent};
use crate::ids::{Head, OrganizationNumber, Stream, StreamKind};
use crate::machine::{Machine, MachineEvent};
use crate::place::{MediaStream, MediaStreamEvent};
use crate::principal::{PrincipalEvent, Standing};
use crate::schedule::{Schedule, ScheduleEvent};
use crate::stream::Envelope;
use crate::stream::ItemRefusal;
use crate::webhook::{Webhook, WebhookEvent};

/// The fold of a small stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Item {
    Principal(Standing),
    ApiKey(ApiKey),
    Schedule(Box<Schedule>),
    Webhook(Webhook),
    MediaStream(MediaStream),
    Hook(Hook),
    Machine(Box<Machine>),
}

/// What happens to a small thing.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemEvent {
    Principal(PrincipalEvent),
    ApiKey(ApiKeyEvent),
    Schedule(ScheduleEvent),
    Webhook(WebhookEvent),
    MediaStream(MediaStreamEvent),
    Hook(HookEvent),
    Machine(MachineEvent),
}

impl Item {
    pub fn stream(&self) -> Stream {
        let (kind, number) = match self {
            Self::Principal(one) => (StreamKind::Principal, one.number.0),
            Self::ApiKey(one) => (StreamKind::ApiKey, one.number),
            Self::Schedule(one) => (StreamKind::Schedule, one.number),
            Self::Webhook(one) => (StreamKind::Webhook, one.number),
            Self::MediaStream(one) => (StreamKind::MediaStream, one.number),
            Self::Hook(one) => (StreamKind::Hook, one.number),
            Self::Machine(one) => (StreamKind::Machine, one.number),
        };
        Stream { kind, number }
    }

    pub fn id(&self) -> Uuid {
        match self {
            Self::Principal(one) => one.id,
            Self::ApiKey(one) => one.id,
            Self::Schedule(one) => one.id,
            Self::Webhook(one) => one.id,
            Self::MediaStream(one) => one.id,
            Self::Hook(one) => one.id,
            Self::Machine(one) => one.id,
        }
    }

    pub fn organization(&self) -> OrganizationNumber {
        match self {
            Self::Principal(one) => one.organization,
            Self::ApiKey(one) => one.organization,
            Self::Schedule(one) => one.organization,
            Self::Webhook(one) => one.organization,
            Self::MediaStream(one) => one.organization,
            Self::Hook(one) => one.organization,
            Self::Machine(one) => one.organization,
        }
    }

    pub fn head(&self) -> Head {
        match self {
            Self::Principal(one) => one.head,
            Self::ApiKey(one) => one.head,
            Self::Schedule(one) => one.head,
            Self::Webhook(one) => one.head,
            Self::MediaStream(one) => one.head,
            Self::Hook(one) => one.head,
            Self::Machine(one) => one.head,
        }
    }

    pub fn head_mut(&mut self) -> &mut Head {
        match self {
            Self::Principal(one) => &mut one.head,
            Self::ApiKey(one) => &mut one.head,
            Self::Schedule(one) => &mut one.head,
            Self::Webhook(one) => &mut one.head,
            Self::MediaStream(one) => &mut one.head,
            Self::Hook(one) => &mut one.head,
            Self::Machine(one) => &mut one.head,
        }
    }

    /// The fold as its row keeps it; the head stands beside it.
    pub fn state(&self) -> String {
        match self {
            Self::Principal(one) => text(one),
            Self::ApiKey(one) => text(one),
            Self::Schedule(one) => text(one),
            Self::Webhook(one) => text(one),
            Self::MediaStream(one) => text(one),
            Self::Hook(one) => text(one),
            Self::Machine(one) => text(one),
        }
    }

    /// Reads a row back.
    pub fn read(kind: StreamKind, state: &str, head: Head) -> Result<Option<Self>, serde_json::Error> {
        let mut item = match kind {
            StreamKind::Principal => Self::Principal(serde_json::from_str(state)?),
            StreamKind::ApiKey => Self::ApiKey(serde_json::from_str(state)?),
            StreamKind::Schedule => Self::Schedule(Box::new(serde_json::from_str(state)?)),
            StreamKind::Webhook => Self::Webhook(serde_json::from_str(state)?),
            StreamKind::MediaStream => Self::MediaStream(serde_json::from_str(state)?),
            StreamKind::Hook => Self::Hook(serde_json::from_str(state)?),
            StreamKind::Machine => Self::Machine(Box::new(serde_json::from_str(state)?)),
            _ => return Ok(None),
        };
        *item.head_mut() = head;
        Ok(Some(item))
    }
}

impl ItemEvent {
    /// The kind of stream it belongs to.
    pub fn kind(&self) -> StreamKind {
        match self {
            Self::Principal(_) => StreamKind::Principal,
            Self::ApiKey(_) => StreamKind::ApiKey,
            Self::Schedule(_) => StreamKind::Schedule,
            Self::Webhook(_) => StreamKind::Webhook,
            Self::MediaStream(_) => StreamKind::MediaStream,
            Self::Hook(_) => StreamKind::Hook,
            Self::Machine(_) => StreamKind::Machine,
        }
    }

    /// The type in the envelope.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Principal(event) => match event {
                PrincipalEvent::CredentialsBarred(_) => "principal_credentials_barred",
                PrincipalEvent::Disabled(_) => "principal_disabled",
                PrincipalEvent::Enabled => "principal_enabled",
            },
            Self::ApiKey(event) => match event {
                ApiKeyEvent::Created(_) => "api_key_created",
                ApiKeyEvent::Revoked => "api_key_revoked",
            },
            Self::Schedule(event) => match event {
                ScheduleEvent::Created(_) => "schedule_created",
                ScheduleEvent::Paused => "schedule_paused",
                ScheduleEvent::Resumed => "schedule_resumed",
                ScheduleEvent::Ran(_) => "schedule_ran",
                ScheduleEvent::Skipped(_) => "schedule_skipped",
                ScheduleEvent::Deleted => "schedule_deleted",
            },
            Self::Webhook(event) => match event {
                WebhookEvent::Created(_) => "webhook_created",
                WebhookEvent::Changed(_) => "webhook_changed",
                WebhookEvent::SecretRotated => "webhook_secret_rotated",
                WebhookEvent::Disabled(_) => "webhook_disabled",
                WebhookEvent::Enabled => "webhook_enabled",
                WebhookEvent::Deleted => "webhook_deleted",
            },
            Self::MediaStream(MediaStreamEvent::Declared(_)) => "media_stream_declared",
            Self::Hook(HookEvent::Created(_)) => "hook_created",
            Self::Hook(HookEvent::Deleted) => "hook_deleted",
            Self::Machine(event) => match event {
                MachineEvent::Created(_) => "machine_created",
                MachineEvent::Changed(_) => "machine_changed",
                MachineEvent::HostKeyPinned(_) => "machine_host_key_pinned",
                MachineEvent::Deleted => "machine_deleted",
            },
        }
    }

    /// The body as it is stored and hashed.
    pub fn body(&self) -> String {
        match self {
            Self::Principal(PrincipalEvent::CredentialsBarred(body) | PrincipalEvent::Disabled(body)) => {
                text(body)
            }
            Self::ApiKey(ApiKeyEvent::Created(body)) => text(body),
            Self::Schedule(ScheduleEvent::Created(body)) => text(body),
            Self::Schedule(ScheduleEvent::Ran(body)) => text(body),
            Self::Schedule(ScheduleEvent::Skipped(body)) => text(body),
            Self::Webhook(WebhookEvent::Created(body)) => text(body),
            Self::Webhook(WebhookEvent::Changed(body)) => text(body),
            Self::Webhook(WebhookEvent::Disabled(body)) => text(body),
            Self::MediaStream(MediaStreamEvent::Declared(body)) => text(body),
            Self::Hook(HookEvent::Created(body)) => text(body),
            Self::Machine(MachineEvent::Created(body)) => text(body),
            Self::Machine(MachineEvent::Changed(body)) => text(body),
            Self::Machine(MachineEvent::HostKeyPinned(body)) => text(body),
            Self::Principal(PrincipalEvent::Enabled)
            | Self::ApiKey(ApiKeyEvent::Revoked)
            | Self::Schedule(ScheduleEvent::Paused | ScheduleEvent::Resumed | ScheduleEvent::Deleted)
            | Self::Webhook(WebhookEvent::SecretRotated | WebhookEvent::Enabled | WebhookEvent::Deleted)
            | Self::Hook(HookEvent::Deleted)
            | Self::Machine(MachineEvent::Deleted) => "{}".to_owned(),
        }
    }

    /// Reads an event back; `None` for a type that is not of these streams.
    pub fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "principal_credentials_barred" => Self::Principal(PrincipalEvent::CredentialsBarred(of(body)?)),
            "principal_disabled" => Self::Principal(PrincipalEvent::Disabled(of(body)?)),
            "principal_enabled" => Self::Principal(PrincipalEvent::Enabled),
            "api_key_created" => Self::ApiKey(ApiKeyEvent::Created(of(body)?)),
            "api_key_revoked" => Self::ApiKey(ApiKeyEvent::Revoked),
            "schedule_created" => Self::Schedule(ScheduleEvent::Created(of(body)?)),
            "schedule_paused" => Self::Schedule(ScheduleEvent::Paused),
            "schedule_resumed" => Self::Schedule(ScheduleEvent::Resumed),
            "schedule_ran" => Self::Schedule(ScheduleEvent::Ran(of(body)?)),
            "schedule_skipped" => Self::Schedule(ScheduleEvent::Skipped(of(body)?)),
            "schedule_deleted" => Self::Schedule(ScheduleEvent::Deleted),
            "webhook_created" => Self::Webhook(WebhookEvent::Created(of(body)?)),
            "webhook_changed" => Self::Webhook(WebhookEvent::Changed(of(body)?)),
            "webhook_secret_rotated" => Self::Webhook(WebhookEvent::SecretRotated),
            "webhook_disabled" => Self::Webhook(WebhookEvent::Disabled(of(body)?)),
            "webhook_enabled" => Self::Webhook(WebhookEvent::Enabled),
            "webhook_deleted" => Self::Webhook(WebhookEvent::Deleted),
            "media_stream_declared" => Self::MediaStream(MediaStreamEvent::Declared(of(body)?)),
            "hook_created" => Self::Hook(HookEvent::Created(of(body)?)),
            "hook_deleted" => Self::Hook(HookEvent::Deleted),
            "machine_created" => Self::Machine(MachineEvent::Created(of(body)?)),
            "machine_changed" => Self::Machine(MachineEvent::Changed(of(body)?)),
            "machine_host_key_pinned" => Self::Machine(MachineEvent::HostKeyPinned(of(body)?)),
            "machine_deleted" => Self::Machine(MachineEvent::Deleted),
            _ => return Ok(None),
        }))
    }
}

/// What a wish, said as the event it wants, makes happen: that event, or nothing where it is so already.
pub fn decide(item: Option<&Item>, wish: &ItemEvent) -> Result<Option<ItemEvent>, ItemRefusal> {
    let happens = match (item, wish) {
        (before @ (None | Some(Item::Principal(_))), ItemEvent::Principal(wish)) => {
            let before = if let Some(Item::Principal(standing)) = before { Some(standing) } else { None };
            crate::principal::happens(before, wish)
        }
        (None, ItemEvent::ApiKey(ApiKeyEvent::Created(_)))
        | (None, ItemEvent::Schedule(ScheduleEvent::Created(_)))
        | (None, ItemEvent::Webhook(WebhookEvent::Created(_)))
        | (None, ItemEvent::MediaStream(MediaStreamEvent::Declared(_)))
        | (None, ItemEvent::Hook(HookEvent::Created(_)))
        | (None, ItemEvent::Machine(MachineEvent::Created(_))) => true,
        (Some(Item::ApiKey(key)), ItemEvent::ApiKey(wish)) => key.happens(wish)?,
        (Some(Item::Schedule(schedule)), ItemEvent::Schedule(wish)) => schedule.happens(wish)?,
        (Some(Item::Webhook(webhook)), ItemEvent::Webhook(wish)) => webhook.happens(wish)?,
        (Some(Item::MediaStream(stream)), ItemEvent::MediaStream(wish)) => stream.happens(wish),
        (Some(Item::Hook(hook)), ItemEvent::Hook(wish)) => hook.happens(wish)?,
        (Some(Item::Machine(machine)), ItemEvent::Machine(wish)) => machine.happens(wish)?,
        _ => return Err(ItemRefusal::Gone),
    };
    Ok(happens.then(|| wish.clone()))
}

/// The fold. An event before the one that begins a stream of its kind folds to nothing.
pub fn evolve(item: Option<Item>, event: &ItemEvent, envelope: &Envelope) -> Option<Item> {
    match (item, event) {
        (None, ItemEvent::Principal(event)) => {
            crate::principal::evolve(None, event, envelope).map(Item::Principal)
        }
        (Some(Item::Principal(before)), ItemEvent::Principal(event)) => {
            crate::principal::evolve(Some(before), event, envelope).map(Item::Principal)
        }
        (None, ItemEvent::ApiKey(event)) => crate::api_key::evolve(None, event, envelope).map(Item::ApiKey),
        (Some(Item::ApiKey(before)), ItemEvent::ApiKey(event)) => {
            crate::api_key::evolve(Some(before), event, envelope).map(Item::ApiKey)
        }
        (None, ItemEvent::Schedule(event)) => {
            crate::schedule::evolve(None, event, envelope).map(Box::new).map(Item::Schedule)
        }
        (Some(Item::Schedule(before)), ItemEvent::Schedule(event)) => {
            crate::schedule::evolve(Some(*before), event, envelope).map(Box::new).map(Item::Schedule)
        }
        (None, ItemEvent::Webhook(event)) => crate::webhook::evolve(None, event, envelope).map(Item::Webhook),
        (Some(Item::Webhook(before)), ItemEvent::Webhook(event)) => {
            crate::webhook::evolve(Some(before), event, envelope).map(Item::Webhook)
        }
        (None, ItemEvent::MediaStream(event)) => {
            Some(Item::MediaStream(crate::place::evolve(None, event, envelope)))
        }
        (Some(Item::MediaStream(before)), ItemEvent::MediaStream(event)) => {
            Some(Item::MediaStream(crate::place::evolve(Some(before), event, envelope)))
        }
        (None, ItemEvent::Hook(event)) => crate::hook::evolve(None, event, envelope).map(Item::Hook),
        (Some(Item::Hook(before)), ItemEvent::Hook(event)) => {
            crate::hook::evolve(Some(before), event, envelope).map(Item::Hook)
        }
        (None, ItemEvent::Machine(event)) => {
            crate::machine::evolve(None, event, envelope).map(Box::new).map(Item::Machine)
        }
        (Some(Item::Machine(before)), ItemEvent::Machine(event)) => {
            crate::machine::evolve(Some(*before), event, envelope).map(Box::new).map(Item::Machine)
        }
        _ => None,
    }
}

/// Plain data with string keys: serializing it cannot fail.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| Value::Null.to_string())
}

fn of<T: DeserializeOwned>(body: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(body)
}
