//! Organizations, applications and service accounts: their folds. Their decisions are few and stand beside them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Time;
use super::caller::Scopes;
use super::event::{
    ApplicationChanged, ApplicationEvent, Issuer, IssuersSet, OauthClient, OrganizationEvent,
    OrganizationRenamed, ServiceAccountEvent, UpstreamCredential, UpstreamHeaders, UpstreamSet,
};
use super::ids::{ApplicationNumber, Head, OrganizationNumber, Position, ServiceAccountNumber};
use super::policy::ApplicationPolicy;

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

/// The fold of an application's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Application {
    pub number: ApplicationNumber,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub name: String,
    pub description: Option<String>,
    pub oauth: OauthClient,
    /// Made because another system named it; never meant where an application goes without saying.
    #[serde(default)]
    pub on_the_way: bool,
    pub upstream: Option<String>,
    /// How the gateway authenticates there.
    #[serde(default)]
    pub upstream_credential: Option<UpstreamCredential>,
    /// Headers that pass there and back beside those that always do.
    #[serde(default)]
    pub upstream_headers: Option<UpstreamHeaders>,
    pub policy: Option<ApplicationPolicy>,
    pub created_at: Time,
    pub updated_at: Time,
    pub archived_at: Option<Time>,
    /// Position of its last revocation: credentials issued before it open no agent-side path.
    pub barred_before: Position,
    pub head: Head,
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

/// What a directory fold needs from an event's envelope.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    pub number: i64,
    pub organization: OrganizationNumber,
    pub occurred_at: Time,
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

/// The fold of an application. Events before `Created` fold to nothing.
pub fn evolve_application(
    application: Option<Application>,
    event: &ApplicationEvent,
    envelope: &Envelope,
) -> Option<Application> {
    let (at, head) = (envelope.occurred_at, envelope.head);
    if let ApplicationEvent::Created(created) = event {
        return Some(Application {
            number: ApplicationNumber(envelope.number),
            id: created.id,
            organization: envelope.organization,
            name: created.name.clone(),
            description: None,
            oauth: created.oauth.clone(),
            on_the_way: created.on_the_way,
            upstream: None,
            upstream_credential: None,
            upstream_headers: None,
            policy: None,
            created_at: at,
            updated_at: at,
            archived_at: None,
            barred_before: Position(0),
            head,
        });
    }
    let application = application?;
    Some(match event {
        ApplicationEvent::Created(_) => application,
        ApplicationEvent::Changed(changed) => Application {
            name: changed.name.clone().unwrap_or(application.name),
            description: changed.description.clone().or(application.description),
            updated_at: at,
            head,
            ..application
        },
        ApplicationEvent::SecretRotated => Application { updated_at: at, head, ..application },
        ApplicationEvent::UpstreamSet(set) => Application {
            upstream: Some(set.url.clone()),
            upstream_credential: set.credential.clone(),
            upstream_headers: set.headers.clone(),
            updated_at: at,
            head,
            ..application
        },
        ApplicationEvent::PolicySet(policy) => {
            Application { policy: Some((**policy).clone()), updated_at: at, head, ..application }
        }
        ApplicationEvent::CredentialsBarred => {
            Application { barred_before: head.position, head, ..application }
        }
        ApplicationEvent::Archived => {
            Application { archived_at: Some(at), updated_at: at, head, ..application }
        }
    })
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

/// A wish about an application.
#[derive(Debug, Clone)]
pub enum ApplicationCommand {
    Change(ApplicationChanged),
    RotateSecret,
    SetUpstream(UpstreamSet),
    SetPolicy(Box<ApplicationPolicy>),
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

/// A wish about a service account.
#[derive(Debug, Clone, Copy)]
pub enum ServiceAccountCommand {
    RotateSecret,
    Archive,
}

/// Why the directory's rules said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryRefusal {
    #[error("another application of this organization has this name")]
    NameTaken,
    #[error("not found")]
    Archived,
}

/// What a wish about an application makes happen. `name_taken` tells whether another application of the organization
/// that is not archived holds the name in question.
pub fn decide_application(
    application: &Application,
    command: &ApplicationCommand,
    name_taken: bool,
) -> Result<Vec<ApplicationEvent>, DirectoryRefusal> {
    if application.archived_at.is_some() {
        return Err(DirectoryRefusal::Archived);
    }
    Ok(match command {
        ApplicationCommand::Change(changed) => {
            if name_taken {
                return Err(DirectoryRefusal::NameTaken);
            }
            let changed = ApplicationChanged {
                name: changed.name.clone().filter(|name| *name != application.name),
                description: changed
                    .description
                    .clone()
                    .filter(|text| Some(text) != application.description.as_ref()),
            };
            if changed == ApplicationChanged::default() {
                vec![]
            } else {
                vec![ApplicationEvent::Changed(changed)]
            }
        }
        ApplicationCommand::RotateSecret => vec![ApplicationEvent::SecretRotated],
        // Whether a credential's secret is another one is not to be seen from here: setting one is always a fact.
        ApplicationCommand::SetUpstream(set)
            if application.upstream.as_ref() == Some(&set.url)
                && application.upstream_headers == set.headers
                && application.upstream_credential.is_none()
                && set.credential.is_none() =>
        {
            vec![]
        }
        ApplicationCommand::SetUpstream(set) => vec![ApplicationEvent::UpstreamSet(set.clone())],
        ApplicationCommand::SetPolicy(policy) if application.policy.as_ref() == Some(policy) => vec![],
        ApplicationCommand::SetPolicy(policy) => vec![ApplicationEvent::PolicySet(policy.clone())],
    })
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
