//! Applications: what happens to them, the fold and the decisions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, Position, StreamKind};
use crate::policy::ApplicationPolicy;
use crate::stream::{EMPTY, Envelope, SecretRotated, Stream, StreamEvent, StreamRefusal, text};

/// What happens to an application.
#[derive(Debug, Clone, PartialEq)]
pub enum ApplicationEvent {
    Created(Box<ApplicationCreated>),
    Changed(ApplicationChanged),
    SecretRotated(SecretRotated),
    UpstreamSet(UpstreamSet),
    PolicySet(Box<ApplicationPolicy>),
    /// A revocation began that covers the application: tokens issued before this event open no agent-side path.
    CredentialsBarred,
    Archived,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationCreated {
    pub id: Uuid,
    pub name: String,
    pub oauth: OauthClient,
    /// Nobody asked for it: another system named it, and it was made for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_the_way: bool,
}

/// How an application authenticates. Stored and echoed; the secret is kept elsewhere, as a hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OauthClient {
    pub client_id: String,
    /// `confidential` or `public`.
    pub r#type: String,
    pub redirect_uris: Vec<String>,
    pub pkce_required: bool,
    pub scopes: Vec<String>,
    pub allowed_resources: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ApplicationChanged {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamSet {
    /// The MCP server behind the gateway.
    pub url: String,
    /// How the gateway authenticates there, as far as that is no secret; none: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<UpstreamCredential>,
    /// Headers that pass beside those that pass for everybody; none: no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<UpstreamHeaders>,
}

/// Headers that pass the gateway of an application beside those that pass every gateway, by name, in small letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamHeaders {
    /// Of a client's requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_upstream: Vec<String>,
    /// Of the upstream's answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_client: Vec<String>,
}

/// How the gateway authenticates at an upstream. The secret that belongs to it stands beside the log, sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum UpstreamCredential {
    /// The secret is the value of this header.
    Header { name: String },
    /// The secret is a client's, which gets a bearer token for it (RFC 6749, section 4.4).
    ClientCredentials {
        token_url: String,
        client_id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// RFC 8707.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resource: Option<String>,
    },
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
    #[serde(rename = "barred_before")]
    pub valid_from: Position,
    pub head: Head,
}

/// What somebody wants of an application. That its name is free is seen to beside the stream, where all of them are.
#[derive(Debug, Clone)]
pub enum ApplicationCommand {
    Create(Box<ApplicationCreated>),
    Change(ApplicationChanged),
    RotateSecret(SecretRotated),
    SetUpstream(UpstreamSet),
    SetPolicy(Box<ApplicationPolicy>),
    BarCredentials,
    Archive,
}

impl Stream for Application {
    const KIND: StreamKind = StreamKind::Application;
    type Event = ApplicationEvent;
    type Command = ApplicationCommand;

    fn decide(
        before: Option<&Self>,
        command: &ApplicationCommand,
    ) -> Result<Option<ApplicationEvent>, StreamRefusal> {
        use {ApplicationCommand as Command, ApplicationEvent as Event};
        Ok(match (before, command) {
            (None, Command::Create(created)) => Some(Event::Created(created.clone())),
            (Some(before), _) if before.archived_at.is_some() => return Err(StreamRefusal::Gone),
            (Some(before), Command::Change(changed)) => before.differing(changed).map(Event::Changed),
            (Some(_), Command::RotateSecret(rotated)) => Some(Event::SecretRotated(*rotated)),
            (Some(before), Command::SetUpstream(set)) => {
                (!before.has_upstream(set)).then(|| Event::UpstreamSet(set.clone()))
            }
            (Some(before), Command::SetPolicy(policy)) => {
                (before.policy.as_ref() != Some(policy)).then(|| Event::PolicySet(policy.clone()))
            }
            (Some(_), Command::BarCredentials) => Some(Event::CredentialsBarred),
            (Some(_), Command::Archive) => Some(Event::Archived),
            (Some(_), Command::Create(_)) | (None, _) => return Err(StreamRefusal::Gone),
        })
    }

    fn evolve(before: Option<Self>, event: &ApplicationEvent, envelope: &Envelope) -> Option<Self> {
        if let ApplicationEvent::Created(created) = event {
            return Some(Self::created(created, envelope));
        }
        let (at, head) = (envelope.occurred_at, envelope.head);
        let before = before?;
        Some(match event {
            ApplicationEvent::Created(_) => before,
            ApplicationEvent::Changed(changed) => Self {
                name: changed.name.clone().unwrap_or(before.name),
                description: changed.description.clone().or(before.description),
                updated_at: at,
                head,
                ..before
            },
            ApplicationEvent::SecretRotated(_) => Self { updated_at: at, head, ..before },
            ApplicationEvent::UpstreamSet(set) => Self {
                upstream: Some(set.url.clone()),
                upstream_credential: set.credential.clone(),
                upstream_headers: set.headers.clone(),
                updated_at: at,
                head,
                ..before
            },
            ApplicationEvent::PolicySet(policy) => {
                Self { policy: Some((**policy).clone()), updated_at: at, head, ..before }
            }
            ApplicationEvent::CredentialsBarred => Self { valid_from: head.position, head, ..before },
            ApplicationEvent::Archived => Self { archived_at: Some(at), updated_at: at, head, ..before },
        })
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    fn application(&self) -> Option<ApplicationNumber> {
        Some(self.number)
    }
}

impl Application {
    fn created(created: &ApplicationCreated, envelope: &Envelope) -> Self {
        Self {
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
            created_at: envelope.occurred_at,
            updated_at: envelope.occurred_at,
            archived_at: None,
            valid_from: Position(0),
            head: envelope.head,
        }
    }

    /// What of a change differs from what is so already; none: nothing.
    fn differing(&self, changed: &ApplicationChanged) -> Option<ApplicationChanged> {
        let changed = ApplicationChanged {
            name: changed.name.clone().filter(|name| *name != self.name),
            description: changed.description.clone().filter(|text| Some(text) != self.description.as_ref()),
        };
        (changed != ApplicationChanged::default()).then_some(changed)
    }

    /// Whether its upstream is set so already. Whether a credential's secret is another one is not to be seen from here:
    /// setting one is always a fact.
    fn has_upstream(&self, set: &UpstreamSet) -> bool {
        self.upstream.as_ref() == Some(&set.url)
            && self.upstream_headers == set.headers
            && self.upstream_credential.is_none()
            && set.credential.is_none()
    }
}

impl StreamEvent for ApplicationEvent {
    const NAMES: &[&str] = &[
        "application_created",
        "application_changed",
        "application_secret_rotated",
        "application_upstream_set",
        "application_policy_set",
        "application_credentials_barred",
        "application_archived",
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "application_created",
            Self::Changed(_) => "application_changed",
            Self::SecretRotated(_) => "application_secret_rotated",
            Self::UpstreamSet(_) => "application_upstream_set",
            Self::PolicySet(_) => "application_policy_set",
            Self::CredentialsBarred => "application_credentials_barred",
            Self::Archived => "application_archived",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Created(body) => text(body),
            Self::Changed(body) => text(body),
            Self::UpstreamSet(body) => text(body),
            Self::PolicySet(body) => text(body),
            Self::SecretRotated(body) => text(body),
            Self::CredentialsBarred | Self::Archived => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "application_created" => Self::Created(serde_json::from_str(body)?),
            "application_changed" => Self::Changed(serde_json::from_str(body)?),
            "application_secret_rotated" => Self::SecretRotated(serde_json::from_str(body)?),
            "application_upstream_set" => Self::UpstreamSet(serde_json::from_str(body)?),
            "application_policy_set" => Self::PolicySet(serde_json::from_str(body)?),
            "application_credentials_barred" => Self::CredentialsBarred,
            "application_archived" => Self::Archived,
            _ => return Ok(None),
        }))
    }
}
