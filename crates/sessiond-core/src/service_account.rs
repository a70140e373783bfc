//! Service accounts: what happens to them, the fold and the decisions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, ServiceAccountNumber, StreamKind};
use crate::scope::Scopes;
use crate::stream::{EMPTY, Envelope, SecretRotated, Stream, StreamEvent, StreamRefusal, text};

/// What happens to a service account.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceAccountEvent {
    Created(ServiceAccountCreated),
    SecretRotated(SecretRotated),
    Archived,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountCreated {
    pub id: Uuid,
    pub name: String,
    pub client_id: String,
    /// OAuth scope words, separated by spaces: the most it may ask for.
    pub scopes: String,
    /// The application in which it creates sessions when it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationNumber>,
}

/// The fold of a service account's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceAccount {
    pub number: ServiceAccountNumber,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub name: String,
    pub client_id: String,
    pub scopes: Scopes,
    pub application: Option<ApplicationNumber>,
    pub created_at: Time,
    pub archived_at: Option<Time>,
    pub head: Head,
}

/// What somebody wants of a service account.
#[derive(Debug, Clone)]
pub enum ServiceAccountCommand {
    Create(ServiceAccountCreated),
    RotateSecret(SecretRotated),
    Archive,
}

impl Stream for ServiceAccount {
    const KIND: StreamKind = StreamKind::ServiceAccount;
    type Event = ServiceAccountEvent;
    type Command = ServiceAccountCommand;

    fn decide(
        before: Option<&Self>,
        command: &ServiceAccountCommand,
    ) -> Result<Option<ServiceAccountEvent>, StreamRefusal> {
        use {ServiceAccountCommand as Command, ServiceAccountEvent as Event};
        let archived = before.is_some_and(|before| before.archived_at.is_some());
        match (before, command) {
            (None, Command::Create(created)) => Ok(Some(Event::Created(created.clone()))),
            // Archiving twice is success.
            (Some(_), Command::Archive) => Ok((!archived).then_some(Event::Archived)),
            (Some(_), Command::RotateSecret(rotated)) if !archived => {
                Ok(Some(Event::SecretRotated(*rotated)))
            }
            _ => Err(StreamRefusal::Gone),
        }
    }

    fn evolve(before: Option<Self>, event: &ServiceAccountEvent, envelope: &Envelope) -> Option<Self> {
        let head = envelope.head;
        match (before, event) {
            (_, ServiceAccountEvent::Created(created)) => Some(ServiceAccount {
                number: ServiceAccountNumber(envelope.number),
                id: created.id,
                organization: envelope.organization,
                name: created.name.clone(),
                client_id: created.client_id.clone(),
                scopes: Scopes::parse(&created.scopes).0,
                application: created.application,
                created_at: envelope.occurred_at,
                archived_at: None,
                head,
            }),
            (Some(before), ServiceAccountEvent::SecretRotated(_)) => Some(ServiceAccount { head, ..before }),
            (Some(before), ServiceAccountEvent::Archived) => {
                Some(ServiceAccount { archived_at: Some(envelope.occurred_at), head, ..before })
            }
            (None, _) => None,
        }
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }
}

impl StreamEvent for ServiceAccountEvent {
    const NAMES: &[&str] =
        &["service_account_created", "service_account_secret_rotated", "service_account_archived"];

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "service_account_created",
            Self::SecretRotated(_) => "service_account_secret_rotated",
            Self::Archived => "service_account_archived",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Created(body) => text(body),
            Self::SecretRotated(body) => text(body),
            Self::Archived => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "service_account_created" => Self::Created(serde_json::from_str(body)?),
            "service_account_secret_rotated" => Self::SecretRotated(serde_json::from_str(body)?),
            "service_account_archived" => Self::Archived,
            _ => return Ok(None),
        }))
    }
}
