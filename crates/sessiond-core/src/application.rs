//! Applications: what happens to them, the fold and the decisions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;

use crate::ids::{ApplicationNumber, Head, OrganizationNumber, Position};
use crate::policy::ApplicationPolicy;
use crate::stream::{DirectoryRefusal, Envelope};

/// What happens to an application.
#[derive(Debug, Clone, PartialEq)]
pub enum ApplicationEvent {
    Created(Box<ApplicationCreated>),
    Changed(ApplicationChanged),
    SecretRotated,
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
    pub barred_before: Position,
    pub head: Head,
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

/// A wish about an application.
#[derive(Debug, Clone)]
pub enum ApplicationCommand {
    Change(ApplicationChanged),
    RotateSecret,
    SetUpstream(UpstreamSet),
    SetPolicy(Box<ApplicationPolicy>),
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
