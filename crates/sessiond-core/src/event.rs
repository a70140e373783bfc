//! Facts, in the past tense. What is written here is written for ever: add variants or optional fields, never change
//! one. Golden lines of every event ever shipped are in `tests/golden/events.jsonl` and must always parse.

use serde_json::Value;

use crate::Time;
use crate::application::ApplicationEvent;
use crate::chain::Header;

use crate::organization::OrganizationEvent;
use crate::revocation::RevocationEvent;
use crate::service_account::ServiceAccountEvent;

use crate::session::event::{ACTIVITY, SessionEvent};

use crate::actor::Actor;

use crate::ids::{ApplicationNumber, OrganizationNumber, Position, RevocationNumber, StreamId};
use crate::streams::AnyEvent;

use crate::principal::PrincipalEvent;

/// Any event, by the kind of stream it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Organization(OrganizationEvent),
    Application(ApplicationEvent),
    ServiceAccount(ServiceAccountEvent),
    Session(SessionEvent),
    Revocation(RevocationEvent),
    Directory(AnyEvent),
    /// A type this release does not know, kept as it is: folds pass over it.
    Unknown {
        name: String,
        body: Value,
    },
}

/// An event with its envelope, as the log keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub position: Position,
    pub stream: StreamId,
    /// Counts from 1 in each stream, without a gap.
    pub version: i64,
    /// Position of the stream's event before this one; zero for its first.
    pub previous_position: Position,
    /// When it took effect.
    pub occurred_at: Time,
    /// When it was written; never falls along the log.
    pub recorded_at: Time,
    pub organization: OrganizationNumber,
    pub application: Option<ApplicationNumber>,
    pub actor: Actor,
    /// The revocation that caused it.
    pub revocation: Option<RevocationNumber>,
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    pub event: Event,
    /// The personal facts as stored: JSON of [`Personal`].
    pub personal: Option<String>,
}

/// Every event is written as version 1 of its type so far.
pub const TYPE_VERSION: i64 = 1;

/// Every type of event that is not of a stream in the registry.
const NAMES: [&str; 24] = [
    "organization_created",
    "organization_renamed",
    "organization_issuers_set",
    "organization_credentials_barred",
    "application_created",
    "application_changed",
    "application_secret_rotated",
    "application_upstream_set",
    "application_policy_set",
    "application_credentials_barred",
    "application_archived",
    "service_account_created",
    "service_account_secret_rotated",
    "service_account_archived",
    "connected",
    "activity_recorded",
    "token_renewed",
    "expired",
    "suspended",
    "resumed",
    "phase_changed",
    "disconnected",
    "revocation_began",
    "revocation_ended",
];

/// Every type there is, by kind of stream.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(AnyEvent::names())
}

impl Event {
    /// Whether it bars credentials that were issued before it.
    pub fn bars(&self) -> bool {
        matches!(
            self,
            Self::Organization(OrganizationEvent::CredentialsBarred)
                | Self::Application(ApplicationEvent::CredentialsBarred)
                | Self::Directory(AnyEvent::Principal(PrincipalEvent::CredentialsBarred(_)))
        )
    }

    /// The type in the envelope, snake_case; also the name of the event on feeds.
    pub fn name(&self) -> &str {
        match self {
            Self::Organization(event) => match event {
                OrganizationEvent::Created(_) => "organization_created",
                OrganizationEvent::Renamed(_) => "organization_renamed",
                OrganizationEvent::IssuersSet(_) => "organization_issuers_set",
                OrganizationEvent::CredentialsBarred => "organization_credentials_barred",
            },
            Self::Application(event) => match event {
                ApplicationEvent::Created(_) => "application_created",
                ApplicationEvent::Changed(_) => "application_changed",
                ApplicationEvent::SecretRotated => "application_secret_rotated",
                ApplicationEvent::UpstreamSet(_) => "application_upstream_set",
                ApplicationEvent::PolicySet(_) => "application_policy_set",
                ApplicationEvent::CredentialsBarred => "application_credentials_barred",
                ApplicationEvent::Archived => "application_archived",
            },
            Self::ServiceAccount(event) => match event {
                ServiceAccountEvent::Created(_) => "service_account_created",
                ServiceAccountEvent::SecretRotated => "service_account_secret_rotated",
                ServiceAccountEvent::Archived => "service_account_archived",
            },
            Self::Session(event) => match event {
                SessionEvent::Connected(_) => "connected",
                SessionEvent::ActivityRecorded(_) => ACTIVITY,
                SessionEvent::TokenRenewed(_) => "token_renewed",
                SessionEvent::Expired(_) => "expired",
                SessionEvent::Suspended => "suspended",
                SessionEvent::Resumed => "resumed",
                SessionEvent::PhaseChanged(_) => "phase_changed",
                SessionEvent::Disconnected(_) => "disconnected",
            },
            Self::Revocation(event) => match event {
                RevocationEvent::Began(_) => "revocation_began",
                RevocationEvent::Ended(_) => "revocation_ended",
            },
            Self::Directory(event) => event.name(),
            Self::Unknown { name, .. } => name,
        }
    }

    /// The body as it is stored and hashed. Field order is the order of the structs above.
    pub fn body(&self) -> String {
        let text = match self {
            Self::Organization(event) => match event {
                OrganizationEvent::Created(body) => serde_json::to_string(body),
                OrganizationEvent::Renamed(body) => serde_json::to_string(body),
                OrganizationEvent::IssuersSet(body) => serde_json::to_string(body),
                OrganizationEvent::CredentialsBarred => Ok("{}".to_owned()),
            },
            Self::Application(event) => match event {
                ApplicationEvent::Created(body) => serde_json::to_string(body),
                ApplicationEvent::Changed(body) => serde_json::to_string(body),
                ApplicationEvent::UpstreamSet(body) => serde_json::to_string(body),
                ApplicationEvent::PolicySet(body) => serde_json::to_string(body),
                ApplicationEvent::SecretRotated
                | ApplicationEvent::CredentialsBarred
                | ApplicationEvent::Archived => Ok("{}".to_owned()),
            },
            Self::ServiceAccount(event) => match event {
                ServiceAccountEvent::Created(body) => serde_json::to_string(body),
                ServiceAccountEvent::SecretRotated | ServiceAccountEvent::Archived => Ok("{}".to_owned()),
            },
            Self::Session(event) => match event {
                SessionEvent::Connected(body) => serde_json::to_string(body),
                SessionEvent::ActivityRecorded(body) => serde_json::to_string(body),
                SessionEvent::TokenRenewed(body) => serde_json::to_string(body),
                SessionEvent::Expired(body) => serde_json::to_string(body),
                SessionEvent::Suspended | SessionEvent::Resumed => Ok("{}".to_owned()),
                SessionEvent::PhaseChanged(body) => serde_json::to_string(body),
                SessionEvent::Disconnected(body) => serde_json::to_string(body),
            },
            Self::Revocation(event) => match event {
                RevocationEvent::Began(body) => serde_json::to_string(body),
                RevocationEvent::Ended(body) => serde_json::to_string(body),
            },
            Self::Directory(event) => return event.body(),
            Self::Unknown { body, .. } => serde_json::to_string(body),
        };
        // Every body is plain data with string keys: serializing it cannot fail.
        text.unwrap_or_else(|_| "{}".to_owned())
    }

    /// Reads an event back. A type from a newer release becomes [`Event::Unknown`]; a known type whose body does not
    /// parse is an error, because that is damage.
    pub fn parse(name: &str, body: &str) -> Result<Self, serde_json::Error> {
        use {
            ApplicationEvent as A, OrganizationEvent as O, RevocationEvent as R, ServiceAccountEvent as S,
            SessionEvent as E,
        };
        let read = serde_json::from_str;
        Ok(match name {
            "organization_created" => Self::Organization(O::Created(serde_json::from_str(body)?)),
            "organization_renamed" => Self::Organization(O::Renamed(serde_json::from_str(body)?)),
            "organization_issuers_set" => Self::Organization(O::IssuersSet(serde_json::from_str(body)?)),
            "organization_credentials_barred" => Self::Organization(O::CredentialsBarred),
            "application_created" => Self::Application(A::Created(serde_json::from_str(body)?)),
            "application_changed" => Self::Application(A::Changed(serde_json::from_str(body)?)),
            "application_secret_rotated" => Self::Application(A::SecretRotated),
            "application_upstream_set" => Self::Application(A::UpstreamSet(serde_json::from_str(body)?)),
            "application_policy_set" => Self::Application(A::PolicySet(serde_json::from_str(body)?)),
            "application_credentials_barred" => Self::Application(A::CredentialsBarred),
            "application_archived" => Self::Application(A::Archived),
            "service_account_created" => Self::ServiceAccount(S::Created(serde_json::from_str(body)?)),
            "service_account_secret_rotated" => Self::ServiceAccount(S::SecretRotated),
            "service_account_archived" => Self::ServiceAccount(S::Archived),
            "connected" => Self::Session(E::Connected(serde_json::from_str(body)?)),
            ACTIVITY => Self::Session(E::ActivityRecorded(serde_json::from_str(body)?)),
            "token_renewed" => Self::Session(E::TokenRenewed(serde_json::from_str(body)?)),
            "expired" => Self::Session(E::Expired(serde_json::from_str(body)?)),
            "suspended" => Self::Session(E::Suspended),
            "resumed" => Self::Session(E::Resumed),
            "phase_changed" => Self::Session(E::PhaseChanged(serde_json::from_str(body)?)),
            "disconnected" => Self::Session(E::Disconnected(serde_json::from_str(body)?)),
            "revocation_began" => Self::Revocation(R::Began(serde_json::from_str(body)?)),
            "revocation_ended" => Self::Revocation(R::Ended(serde_json::from_str(body)?)),
            _ => match AnyEvent::parse(name, body)? {
                Some(event) => Self::Directory(event),
                None => Self::Unknown { name: name.to_owned(), body: read(body)? },
            },
        })
    }
}

impl Recorded {
    /// The envelope as it is stored.
    pub fn header(&self) -> Header<'_> {
        Header {
            position: self.position.0,
            stream_kind: self.stream.kind as i64,
            stream_number: self.stream.number,
            version: self.version,
            previous_position: self.previous_position.0,
            occurred_at: self.occurred_at.timestamp_millis(),
            recorded_at: self.recorded_at.timestamp_millis(),
            name: self.event.name(),
            type_version: TYPE_VERSION,
            organization: self.organization.0,
            application: self.application.map(|application| application.0),
            actor_kind: self.actor.kind as i64,
            actor_id: self.actor.stored_id().map(|id| id.as_bytes().as_slice()),
            revocation: self.revocation.map(|revocation| revocation.0),
            request_id: self.request_id.as_deref(),
            traceparent: self.traceparent.as_deref(),
        }
    }
}
