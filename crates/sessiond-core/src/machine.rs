//! Machines that terminal sessions are opened on. What a machine is logged into with stands beside the log, sealed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{Head, OrganizationNumber, StreamKind};
use crate::stream::{EMPTY, Envelope, Most, Stream, StreamEvent, StreamRefusal, text};

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq)]
pub enum MachineEvent {
    Created(MachineCreated),
    Changed(MachineChanged),
    /// This is the key that the machine must show from now on.
    HostKeyPinned(HostKeyPinned),
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineCreated {
    pub id: Uuid,
    pub name: String,
    /// A name or an address.
    pub host: String,
    pub port: u16,
    /// Whom to log in as.
    pub user: String,
    pub credential: CredentialType,
    /// The public key that it must show, as OpenSSH writes it: type and base64. None: it must be learned first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
}

/// What a machine is logged into with. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialType {
    Password,
    PrivateKey,
}

impl CredentialType {
    pub fn word(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::PrivateKey => "private_key",
        }
    }
}

/// What is not said stays. Another host or port is another machine as far as its key goes: the one that was pinned is
/// forgotten.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineChanged {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// It is logged into with another secret, of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialType>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostKeyPinned {
    pub host_key: String,
}

/// The fold of a machine's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub number: i64,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub name: String,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub credential: CredentialType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    pub created_at: Time,
    pub updated_at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Time>,
    #[serde(skip)]
    pub head: Head,
}

impl Machine {
    /// What a change comes to: a host or port that is the machine's already is none. Where it leads elsewhere, the
    /// credential comes with it, so that nobody has a secret sent where its owner never wanted it.
    fn change(&self, changed: &MachineChanged) -> Result<Option<MachineEvent>, StreamRefusal> {
        let changed = MachineChanged {
            host: changed.host.clone().filter(|host| *host != self.host),
            port: changed.port.filter(|port| *port != self.port),
            ..changed.clone()
        };
        if (changed.host.is_some() || changed.port.is_some()) && changed.credential.is_none() {
            return Err(StreamRefusal::NeedsCredential);
        }
        Ok((changed != MachineChanged::default()).then_some(MachineEvent::Changed(changed)))
    }
}

impl Stream for Machine {
    const KIND: StreamKind = StreamKind::Machine;
    type Event = MachineEvent;
    type Command = MachineEvent;

    fn decide(before: Option<&Self>, command: &MachineEvent) -> Result<Option<MachineEvent>, StreamRefusal> {
        let happens = match (before, command) {
            (None, MachineEvent::Created(_)) => true,
            // Deleting twice is success.
            (Some(machine), MachineEvent::Deleted) => machine.exists(),
            (Some(machine), _) if !machine.exists() => return Err(StreamRefusal::Gone),
            (Some(machine), MachineEvent::Changed(changed)) => return machine.change(changed),
            (Some(machine), MachineEvent::HostKeyPinned(pinned)) => {
                machine.host_key.as_ref() != Some(&pinned.host_key)
            }
            _ => return Err(StreamRefusal::Gone),
        };
        Ok(happens.then(|| command.clone()))
    }

    fn evolve(machine: Option<Self>, event: &MachineEvent, envelope: &Envelope) -> Option<Self> {
        let (now, head) = (envelope.occurred_at, envelope.head);
        if let MachineEvent::Created(created) = event {
            return Some(Machine {
                number: envelope.number,
                id: created.id,
                organization: envelope.organization,
                name: created.name.clone(),
                host: created.host.clone(),
                port: created.port,
                user: created.user.clone(),
                credential: created.credential,
                host_key: created.host_key.clone(),
                created_at: now,
                updated_at: now,
                deleted_at: None,
                head,
            });
        }
        let before = Machine { updated_at: now, head, ..machine? };
        Some(match event {
            MachineEvent::Created(_) => before,
            MachineEvent::Changed(changed) => {
                let elsewhere = changed.host.as_ref().is_some_and(|host| *host != before.host)
                    || changed.port.is_some_and(|port| port != before.port);
                Machine {
                    name: changed.name.clone().unwrap_or(before.name),
                    host: changed.host.clone().unwrap_or(before.host),
                    port: changed.port.unwrap_or(before.port),
                    user: changed.user.clone().unwrap_or(before.user),
                    credential: changed.credential.unwrap_or(before.credential),
                    host_key: before.host_key.filter(|_| !elsewhere),
                    ..before
                }
            }
            MachineEvent::HostKeyPinned(pinned) => {
                Machine { host_key: Some(pinned.host_key.clone()), ..before }
            }
            MachineEvent::Deleted => Machine { deleted_at: Some(now), ..before },
        })
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    fn exists(&self) -> bool {
        self.deleted_at.is_none()
    }

    const MOST: Option<Most> =
        Some(Most { count: 10_000, plural: "machines", code: "machine_limit_reached" });
}

impl StreamEvent for MachineEvent {
    const NAMES: &[&str] =
        &["machine_created", "machine_changed", "machine_host_key_pinned", "machine_deleted"];

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "machine_created",
            Self::Changed(_) => "machine_changed",
            Self::HostKeyPinned(_) => "machine_host_key_pinned",
            Self::Deleted => "machine_deleted",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Created(body) => text(body),
            Self::Changed(body) => text(body),
            Self::HostKeyPinned(body) => text(body),
            Self::Deleted => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "machine_created" => Self::Created(serde_json::from_str(body)?),
            "machine_changed" => Self::Changed(serde_json::from_str(body)?),
            "machine_host_key_pinned" => Self::HostKeyPinned(serde_json::from_str(body)?),
            "machine_deleted" => Self::Deleted,
            _ => return Ok(None),
        }))
    }
}
