//! Organizations: what happens to them, the fold and the decisions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, Position};
use crate::stream::Envelope;

/// What happens to an organization.
#[derive(Debug, Clone, PartialEq)]
pub enum OrganizationEvent {
    Created(OrganizationCreated),
    Renamed(OrganizationRenamed),
    /// Whose access tokens are accepted beside our own; replaces the list before.
    IssuersSet(IssuersSet),
    /// A revocation began that covers the organization: tokens issued before this event open no agent-side path.
    CredentialsBarred,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrganizationCreated {
    pub id: Uuid,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrganizationRenamed {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IssuersSet {
    pub issuers: Vec<Issuer>,
}

/// An external issuer of JWT access tokens (RFC 9068), as the organization trusts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issuer {
    /// The exact `iss`.
    pub issuer: String,
    /// One of a token's `aud` must be this.
    pub audience: String,
    /// Accepted signature algorithms, all asymmetric: `RS256`, `ES256`, …
    pub algorithms: Vec<String>,
    /// Where its keys are; discovered from the issuer's metadata if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// The application its tokens act in; for tokens that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationNumber>,
    /// Words of ours that its tokens may carry in `scope`; others in them are ignored.
    pub scopes: Vec<String>,
}

/// The fold of an organization's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Organization {
    pub number: OrganizationNumber,
    pub id: Uuid,
    pub name: String,
    pub created_at: Time,
    /// Position of its last revocation: credentials issued before it open no agent-side path.
    pub barred_before: Position,
    /// Whose access tokens are accepted beside our own.
    pub issuers: Vec<Issuer>,
    pub head: Head,
}

/// The fold of an organization. Events before `Created` fold to nothing.
pub fn evolve_organization(
    organization: Option<Organization>,
    event: &OrganizationEvent,
    envelope: &Envelope,
) -> Option<Organization> {
    let head = envelope.head;
    if let OrganizationEvent::Created(created) = event {
        return Some(Organization {
            number: OrganizationNumber(envelope.number),
            id: created.id,
            name: created.name.clone(),
            created_at: envelope.occurred_at,
            barred_before: Position(0),
            issuers: vec![],
            head,
        });
    }
    let organization = organization?;
    Some(match event {
        OrganizationEvent::Created(_) => organization,
        OrganizationEvent::Renamed(renamed) => {
            Organization { name: renamed.name.clone(), head, ..organization }
        }
        OrganizationEvent::IssuersSet(set) => {
            Organization { issuers: set.issuers.clone(), head, ..organization }
        }
        OrganizationEvent::CredentialsBarred => {
            Organization { barred_before: head.position, head, ..organization }
        }
    })
}

/// A wish about an organization.
#[derive(Debug, Clone)]
pub enum OrganizationCommand {
    Rename(OrganizationRenamed),
    SetIssuers(IssuersSet),
}

/// What a wish about an organization makes happen.
pub fn decide_organization(
    organization: &Organization,
    command: &OrganizationCommand,
) -> Option<OrganizationEvent> {
    match command {
        OrganizationCommand::Rename(renamed) => {
            (renamed.name != organization.name).then(|| OrganizationEvent::Renamed(renamed.clone()))
        }
        OrganizationCommand::SetIssuers(set) => {
            (set.issuers != organization.issuers).then(|| OrganizationEvent::IssuersSet(set.clone()))
        }
    }
}
