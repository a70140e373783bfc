//! Organizations: what happens to them, the fold and the decisions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, Position, StreamKind};
use crate::retention::{ActivityFolded, LetGo, Retention, SessionsLetGo};
use crate::stream::{EMPTY, Envelope, Stream, StreamEvent, StreamRefusal, text};

/// What happens to an organization.
#[derive(Debug, Clone, PartialEq)]
pub enum OrganizationEvent {
    Created(OrganizationCreated),
    Renamed(OrganizationRenamed),
    /// Whose access tokens are accepted beside our own; replaces the list before.
    IssuersSet(IssuersSet),
    /// A revocation began that covers the organization: tokens issued before this event open no agent-side path.
    CredentialsBarred,
    /// The installation was restored from a backup: what happened after the backup is not in the log.
    Restored(OrganizationRestored),
    /// How long it keeps things; replaces what it chose before.
    RetentionSet(Retention),
    SessionsLetGo(Box<SessionsLetGo>),
    ActivityFolded(ActivityFolded),
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrganizationRestored {
    /// When the backup was taken.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub taken_at: Time,
    /// Tokens issued before this event open as they did before; otherwise they open nothing at all, because which of them
    /// were revoked or given up after the backup is not known any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credentials_kept: bool,
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
    #[serde(rename = "barred_before")]
    pub valid_from: Position,
    /// Position of the last restore that kept no credentials: tokens issued before it open nothing at all, on whichever side.
    #[serde(default)]
    pub restored_at: Position,
    /// Whose access tokens are accepted beside our own.
    pub issuers: Vec<Issuer>,
    /// How long it keeps things, as far as it chose that itself.
    #[serde(default)]
    pub retention: Retention,
    /// What it has let go.
    #[serde(default)]
    pub let_go: LetGo,
    pub head: Head,
}

/// What somebody wants of an organization.
#[derive(Debug, Clone)]
pub enum OrganizationCommand {
    Create(OrganizationCreated),
    Rename(OrganizationRenamed),
    SetIssuers(IssuersSet),
    BarCredentials,
    Restore(OrganizationRestored),
    SetRetention(Retention),
    LetSessionsGo(Box<SessionsLetGo>),
    FoldActivity(ActivityFolded),
}

impl Stream for Organization {
    const KIND: StreamKind = StreamKind::Organization;
    type Event = OrganizationEvent;
    type Command = OrganizationCommand;

    fn decide(
        before: Option<&Self>,
        command: &OrganizationCommand,
    ) -> Result<Option<OrganizationEvent>, StreamRefusal> {
        use OrganizationCommand as Command;
        Ok(match (before, command) {
            (None, Command::Create(created)) => Some(OrganizationEvent::Created(created.clone())),
            (Some(before), Command::Rename(renamed)) => {
                (renamed.name != before.name).then(|| OrganizationEvent::Renamed(renamed.clone()))
            }
            (Some(before), Command::SetIssuers(set)) => {
                (set.issuers != before.issuers).then(|| OrganizationEvent::IssuersSet(set.clone()))
            }
            (Some(_), Command::BarCredentials) => Some(OrganizationEvent::CredentialsBarred),
            (Some(_), Command::Restore(restored)) => Some(OrganizationEvent::Restored(restored.clone())),
            (Some(before), Command::SetRetention(retention)) => {
                (*retention != before.retention).then_some(OrganizationEvent::RetentionSet(*retention))
            }
            (Some(_), Command::LetSessionsGo(account)) => {
                Some(OrganizationEvent::SessionsLetGo(account.clone()))
            }
            (Some(_), Command::FoldActivity(account)) => {
                Some(OrganizationEvent::ActivityFolded(account.clone()))
            }
            (Some(_), Command::Create(_)) | (None, _) => return Err(StreamRefusal::Gone),
        })
    }

    fn evolve(before: Option<Self>, event: &OrganizationEvent, envelope: &Envelope) -> Option<Self> {
        let head = envelope.head;
        match (before, event) {
            (_, OrganizationEvent::Created(created)) => Some(Organization {
                number: OrganizationNumber(envelope.number),
                id: created.id,
                name: created.name.clone(),
                created_at: envelope.occurred_at,
                valid_from: Position(0),
                restored_at: Position(0),
                issuers: vec![],
                retention: Retention::default(),
                let_go: LetGo::default(),
                head,
            }),
            (Some(before), OrganizationEvent::Renamed(renamed)) => {
                Some(Organization { name: renamed.name.clone(), head, ..before })
            }
            (Some(before), OrganizationEvent::IssuersSet(set)) => {
                Some(Organization { issuers: set.issuers.clone(), head, ..before })
            }
            (Some(before), OrganizationEvent::CredentialsBarred) => {
                Some(Organization { valid_from: head.position, head, ..before })
            }
            (Some(before), OrganizationEvent::Restored(restored)) if restored.credentials_kept => {
                Some(Organization { head, ..before })
            }
            (Some(before), OrganizationEvent::Restored(_)) => {
                Some(Organization { valid_from: head.position, restored_at: head.position, head, ..before })
            }
            (Some(before), OrganizationEvent::RetentionSet(retention)) => {
                Some(Organization { retention: *retention, head, ..before })
            }
            (Some(before), OrganizationEvent::SessionsLetGo(account)) => {
                Some(Organization { let_go: before.let_go.with_sessions(account), head, ..before })
            }
            (Some(before), OrganizationEvent::ActivityFolded(account)) => {
                Some(Organization { let_go: before.let_go.with_activity(account), head, ..before })
            }
            (None, _) => None,
        }
    }

    fn organization(&self) -> OrganizationNumber {
        self.number
    }
}

impl StreamEvent for OrganizationEvent {
    const NAMES: &[&str] = &[
        "organization_created",
        "organization_renamed",
        "organization_issuers_set",
        "organization_credentials_barred",
        "organization_restored",
        "organization_retention_set",
        "sessions_let_go",
        "activity_folded",
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "organization_created",
            Self::Renamed(_) => "organization_renamed",
            Self::IssuersSet(_) => "organization_issuers_set",
            Self::CredentialsBarred => "organization_credentials_barred",
            Self::Restored(_) => "organization_restored",
            Self::RetentionSet(_) => "organization_retention_set",
            Self::SessionsLetGo(_) => "sessions_let_go",
            Self::ActivityFolded(_) => "activity_folded",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Created(body) => text(body),
            Self::Renamed(body) => text(body),
            Self::IssuersSet(body) => text(body),
            Self::CredentialsBarred => EMPTY.to_owned(),
            Self::Restored(body) => text(body),
            Self::RetentionSet(body) => text(body),
            Self::SessionsLetGo(body) => text(body),
            Self::ActivityFolded(body) => text(body),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "organization_created" => Self::Created(serde_json::from_str(body)?),
            "organization_renamed" => Self::Renamed(serde_json::from_str(body)?),
            "organization_issuers_set" => Self::IssuersSet(serde_json::from_str(body)?),
            "organization_credentials_barred" => Self::CredentialsBarred,
            "organization_restored" => Self::Restored(serde_json::from_str(body)?),
            "organization_retention_set" => Self::RetentionSet(serde_json::from_str(body)?),
            "sessions_let_go" => Self::SessionsLetGo(serde_json::from_str(body)?),
            "activity_folded" => Self::ActivityFolded(serde_json::from_str(body)?),
            _ => return Ok(None),
        }))
    }
}
