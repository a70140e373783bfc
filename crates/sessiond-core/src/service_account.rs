//! Service accounts: what happens to them, the fold and the decisions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, ServiceAccountNumber};
use crate::scope::Scopes;
use crate::stream::{DirectoryRefusal, Envelope};

/// What happens to a service account.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceAccountEvent {
    Created(ServiceAccountCreated),
    SecretRotated,
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

/// The fold of a service account. Events before `Created` fold to nothing.
pub fn evolve_service_account(
    account: Option<ServiceAccount>,
    event: &ServiceAccountEvent,
    envelope: &Envelope,
) -> Option<ServiceAccount> {
    let head = envelope.head;
    match (account, event) {
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
        (Some(account), ServiceAccountEvent::SecretRotated) => Some(ServiceAccount { head, ..account }),
        (Some(account), ServiceAccountEvent::Archived) => {
            Some(ServiceAccount { archived_at: Some(envelope.occurred_at), head, ..account })
        }
        (None, _) => None,
    }
}

/// A wish about a service account.
#[derive(Debug, Clone, Copy)]
pub enum ServiceAccountCommand {
    RotateSecret,
    Archive,
}

/// What a wish about a service account makes happen.
pub fn decide_service_account(
    account: &ServiceAccount,
    command: ServiceAccountCommand,
) -> Result<Vec<ServiceAccountEvent>, DirectoryRefusal> {
    match (account.archived_at, command) {
        (Some(_), ServiceAccountCommand::Archive) => Ok(vec![]),
        (Some(_), _) => Err(DirectoryRefusal::Archived),
        (None, ServiceAccountCommand::RotateSecret) => Ok(vec![ServiceAccountEvent::SecretRotated]),
        (None, ServiceAccountCommand::Archive) => Ok(vec![ServiceAccountEvent::Archived]),
    }
}
