//! Facts, in the past tense. What is written here is written for ever: add variants or optional fields, never change
//! one. Golden lines of every event ever shipped are in `tests/golden/events.jsonl` and must always parse.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Time;
use super::bar::Barring;
use super::caller::Actor;
use super::filter::Filter;
use super::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, Stream,
};
use super::item::ItemEvent;
use super::kind::Kind;
use super::phase::{Outcome, Phase};
use super::policy::{ApplicationPolicy, SessionPolicy};
use super::principal::PrincipalEvent;
use super::reason::Reason;
use super::throughput::Throughput;

/// Any event, by the kind of stream it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Organization(OrganizationEvent),
    Application(ApplicationEvent),
    ServiceAccount(ServiceAccountEvent),
    Session(SessionEvent),
    Revocation(RevocationEvent),
    Item(ItemEvent),
    /// A type this release does not know, kept as it is: folds pass over it.
    Unknown {
        name: String,
        body: Value,
    },
}

/// What happens to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    Connected(Box<Connected>),
    ActivityRecorded(ActivityRecorded),
    TokenRenewed(TokenRenewed),
    Expired(Expired),
    /// Every request is refused until it is resumed; nothing else changes.
    Suspended,
    Resumed,
    /// The work behind it has come further.
    PhaseChanged(PhaseChanged),
    Disconnected(Disconnected),
}

/// A session came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connected {
    pub id: Uuid,
    pub kind: Kind,
    pub principal: PrincipalNumber,
    /// What the gateway knows a client by that has no session id (a keyed digest, in hex); it is the natural key before
    /// the two below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// The name a session has within its resource. Without one it is personal: it stands beside the event since it can be
    /// erased there, and here in events from before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_session_id: Option<String>,
    /// In events from before it stood beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_identifier: Option<String>,
    /// Milliseconds since the epoch, as every time in a body.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub token_expires_at: Time,
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub lifetime_ends_at: Time,
    pub policy: SessionPolicy,
    /// The access token it was opened with, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Uuid>,
    /// The MCP revision that was negotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// What it is connected to within its application: a media stream, say. Where there is one, `clientSessionId` is
    /// unique within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// How far the work behind it has come; for work that is queued and run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// SHA-256 (hex) of the personal facts beside the body; they can be erased, this stays.
    pub personal: String,
}

/// Signs of life: one event for all calls of one session by one actor that met in a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityRecorded {
    pub source: ActivitySource,
    #[serde(flatten)]
    pub counts: Counts,
    /// Sums since the session connected, this event included: so a fold needs only a session's last activity.
    pub total: Counts,
    /// What readings of a counter have come to, this one included; for the same reason whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Box<Throughput>>,
}

/// Where a sign of life came from. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivitySource {
    /// `…/heartbeat`
    Heartbeat,
    /// `…/activity`
    Report,
    /// Requests that passed our MCP gateway.
    Gateway,
    /// A reading of a counter, by whoever serves the session.
    Reading,
}

/// Countable work. Zeroes are left out of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    #[serde(skip_serializing_if = "is_zero")]
    pub requests: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_in: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Counts {
    /// The largest count kept: SQLite's integers are signed.
    pub const MAX: u64 = i64::MAX as u64;

    /// The sum, held at [`Counts::MAX`].
    pub fn plus(self, other: Self) -> Self {
        let add = |left: u64, right: u64| left.saturating_add(right).min(Self::MAX);
        Self {
            requests: add(self.requests, other.requests),
            bytes_in: add(self.bytes_in, other.bytes_in),
            bytes_out: add(self.bytes_out, other.bytes_out),
        }
    }

    /// The difference, held at zero.
    pub fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            bytes_in: self.bytes_in.saturating_sub(other.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(other.bytes_out),
        }
    }
}

/// The session's token was replaced, or its owner presented a credential that outlives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRenewed {
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub token_expires_at: Time,
    /// The access token that was presented, by id; none where the session renewed its own token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Uuid>,
}

/// Announced, at most once per value of `token_expires_at`. Not an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expired {
    /// The instant that passed.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub token_expires_at: Time,
}

/// The end: nothing follows it in a session's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disconnected {
    pub reason: Reason,
    /// What came of the work behind it, where that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// In the words of whoever ran it, at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Disconnected {
    /// An end with nothing more to say about it.
    pub fn because(reason: Reason) -> Self {
        Self { reason, outcome: None, message: None }
    }
}

/// The work behind a session has come further.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseChanged {
    pub phase: Phase,
}

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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrganizationCreated {
    pub id: Uuid,
    pub name: String,
}

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

/// What happens to a revocation.
#[derive(Debug, Clone, PartialEq)]
pub enum RevocationEvent {
    Began(Box<RevocationBegan>),
    Ended(RevocationEnded),
}

/// From here on what it covers is refused; the worker ends it session by session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationBegan {
    pub id: Uuid,
    #[serde(flatten)]
    pub filter: Filter,
    /// What its `Disconnected` events will say.
    pub reason: Reason,
    /// The operator's own words, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How many sessions it covered when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<u64>,
    /// The schedule that wanted it, by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<i64>,
    /// What became of the credentials behind what it covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Barring>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationEnded {
    /// How many sessions this revocation disconnected: the number of `Disconnected` events that carry it.
    pub disconnected_count: u64,
    /// How many requests and streams that were under way it cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams_closed: Option<u64>,
}

/// Facts that can be erased: who and where a session came from. Kept beside the body, with a salt inside, so that
/// the digest in the hashed body tells nothing once this text is gone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Personal {
    pub salt: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_info: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The name the client gives this run of itself; one live session per application may hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_session_id: Option<String>,
    /// What the client calls its credential; the natural key where there is no `clientSessionId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_identifier: Option<String>,
}

impl Connected {
    /// The event without what is personal in it, where it is from before that stood beside it.
    pub fn erased(&self) -> Option<Self> {
        let named = self.client_session_id.is_some() && self.resource.is_none();
        (named || self.token_identifier.is_some()).then(|| Self {
            client_session_id: self.client_session_id.clone().filter(|_| !named),
            token_identifier: None,
            ..self.clone()
        })
    }
}

impl Personal {
    /// The client's own name: `name` in its metadata, where that is text.
    pub fn client(&self) -> Option<&str> {
        self.client_info.as_ref()?.get("name")?.as_str()
    }
}

/// The digest (hex) of the personal facts as they are stored.
pub fn personal_digest(stored: &str) -> String {
    hex::encode(Sha256::digest(stored.as_bytes()))
}

/// An event with its envelope, as the log keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub position: Position,
    pub stream: Stream,
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

/// Every type there is, by kind of stream.
pub const NAMES: [&str; 48] = [
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
    "principal_credentials_barred",
    "principal_disabled",
    "principal_enabled",
    "api_key_created",
    "api_key_revoked",
    "schedule_created",
    "schedule_paused",
    "schedule_resumed",
    "schedule_ran",
    "schedule_skipped",
    "schedule_deleted",
    "webhook_created",
    "webhook_changed",
    "webhook_secret_rotated",
    "webhook_disabled",
    "webhook_enabled",
    "webhook_deleted",
    "media_stream_declared",
    "hook_created",
    "hook_deleted",
    "machine_created",
    "machine_changed",
    "machine_host_key_pinned",
    "machine_deleted",
];

/// The type that a session begins with.
pub const CONNECTED: &str = "connected";

/// The one type that is not a lifecycle event; feeds leave it out unless asked.
pub const ACTIVITY: &str = "activity_recorded";

impl Event {
    /// Whether it bars credentials that were issued before it.
    pub fn bars(&self) -> bool {
        matches!(
            self,
            Self::Organization(OrganizationEvent::CredentialsBarred)
                | Self::Application(ApplicationEvent::CredentialsBarred)
                | Self::Item(ItemEvent::Principal(PrincipalEvent::CredentialsBarred(_)))
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
            Self::Item(event) => event.name(),
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
            Self::Item(event) => return event.body(),
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
            _ => match ItemEvent::parse(name, body)? {
                Some(event) => Self::Item(event),
                None => Self::Unknown { name: name.to_owned(), body: read(body)? },
            },
        })
    }
}

/// An event's envelope exactly as it is stored: what its hash covers. Kept apart from [`Recorded`], because damage and
/// newer releases bring values that no `Recorded` can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub position: i64,
    pub stream_kind: i64,
    pub stream_number: i64,
    pub version: i64,
    pub previous_position: i64,
    pub occurred_at: i64,
    pub recorded_at: i64,
    pub name: &'a str,
    pub type_version: i64,
    pub organization: i64,
    pub application: Option<i64>,
    pub actor_kind: i64,
    pub actor_id: Option<&'a [u8]>,
    pub revocation: Option<i64>,
    pub request_id: Option<&'a str>,
    pub traceparent: Option<&'a str>,
}

impl Header<'_> {
    /// The hash of an event: SHA-256 over the hash before it in its stream, the envelope and the digest of the body.
    /// What may be missing is marked as there or not, what has no fixed length carries its length: no two envelopes
    /// have the same bytes.
    pub fn hash(&self, before: &[u8; 32], body_digest: &[u8; 32]) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(320);
        bytes.extend_from_slice(before);
        for number in [
            self.position,
            self.stream_kind,
            self.stream_number,
            self.version,
            self.previous_position,
            self.occurred_at,
            self.recorded_at,
            self.type_version,
            self.organization,
            self.actor_kind,
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for number in [self.application, self.revocation] {
            bytes.push(u8::from(number.is_some()));
            bytes.extend_from_slice(&number.unwrap_or(0).to_be_bytes());
        }
        for part in [
            Some(self.name.as_bytes()),
            self.actor_id,
            self.request_id.map(str::as_bytes),
            self.traceparent.map(str::as_bytes),
        ] {
            bytes.push(u8::from(part.is_some()));
            let part = part.unwrap_or_default();
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(body_digest);
        Sha256::digest(&bytes).into()
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

/// SHA-256 of a body as stored.
pub fn body_digest(body: &str) -> [u8; 32] {
    Sha256::digest(body.as_bytes()).into()
}

/// The hash of a commit: SHA-256 over the commit before it and the hashes of its events, in order. Stored with the
/// last event of the commit, so that a stream that was cut out whole, or a tail that was cut off, shows.
pub fn commit_hash<'a>(before: &[u8; 32], events: impl IntoIterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    for hash in events {
        hasher.update(hash);
    }
    hasher.finalize().into()
}
