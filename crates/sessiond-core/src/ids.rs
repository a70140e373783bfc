//! Numbers and positions. Outside the house everything is named by UUID; inside, by small dense integers, because
//! an index over integers handed out in order stays compact and is written at its end.

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl From<$name> for i64 {
            fn from(number: $name) -> Self {
                number.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number! {
    /// A place in the log: contiguous from 1. Zero stands for "before everything".
    Position
}
number! {
    /// An organization, in the order they were created. Everything else belongs to exactly one.
    OrganizationNumber
}
impl OrganizationNumber {
    /// Whether it is the organization of whoever runs the installation: the first, made at the first start. What belongs to
    /// the machine or to all organizations alike is its own, and others' only by the operator's word.
    pub fn is_operators(self) -> bool {
        self.0 == 1
    }
}

number! {
    /// An application: what the main surface calls the agent.
    ApplicationNumber
}
number! {
    /// A service account of an organization.
    ServiceAccountNumber
}
number! {
    /// A session, in the order they connected.
    SessionNumber
}
number! {
    /// A revocation, in the order they began.
    RevocationNumber
}
number! {
    /// Who a session belongs to: a subject of an issuer, within one organization.
    PrincipalNumber
}

/// Which kind of stream an event belongs to. The codes are stored; never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i64)]
pub enum StreamKind {
    Organization = 1,
    Application = 2,
    ServiceAccount = 3,
    Session = 4,
    Revocation = 5,
    Principal = 6,
    ApiKey = 7,
    Schedule = 8,
    Webhook = 9,
    MediaStream = 10,
    Hook = 11,
    Machine = 12,
    Bar = 13,
}

impl StreamKind {
    /// The kind behind a stored code; `None` for one from a newer release.
    pub fn from_code(code: i64) -> Option<Self> {
        [
            Self::Organization,
            Self::Application,
            Self::ServiceAccount,
            Self::Session,
            Self::Revocation,
            Self::Principal,
            Self::ApiKey,
            Self::Schedule,
            Self::Webhook,
            Self::MediaStream,
            Self::Hook,
            Self::Machine,
            Self::Bar,
        ]
        .into_iter()
        .find(|kind| *kind as i64 == code)
    }

    /// The word used in exports and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Application => "application",
            Self::ServiceAccount => "service_account",
            Self::Session => "session",
            Self::Revocation => "revocation",
            Self::Principal => "principal",
            Self::ApiKey => "api_key",
            Self::Schedule => "schedule",
            Self::Webhook => "webhook",
            Self::MediaStream => "media_stream",
            Self::Hook => "hook",
            Self::Machine => "machine",
            Self::Bar => "bar",
        }
    }
}

/// One stream: everything that ever happened to one session, application, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    pub kind: StreamKind,
    pub number: i64,
}

impl From<SessionNumber> for StreamId {
    fn from(number: SessionNumber) -> Self {
        Self { kind: StreamKind::Session, number: number.0 }
    }
}

impl From<ApplicationNumber> for StreamId {
    fn from(number: ApplicationNumber) -> Self {
        Self { kind: StreamKind::Application, number: number.0 }
    }
}

impl From<OrganizationNumber> for StreamId {
    fn from(number: OrganizationNumber) -> Self {
        Self { kind: StreamKind::Organization, number: number.0 }
    }
}

impl From<ServiceAccountNumber> for StreamId {
    fn from(number: ServiceAccountNumber) -> Self {
        Self { kind: StreamKind::ServiceAccount, number: number.0 }
    }
}

impl From<RevocationNumber> for StreamId {
    fn from(number: RevocationNumber) -> Self {
        Self { kind: StreamKind::Revocation, number: number.0 }
    }
}

impl From<PrincipalNumber> for StreamId {
    fn from(number: PrincipalNumber) -> Self {
        Self { kind: StreamKind::Principal, number: number.0 }
    }
}

/// Where a stream stands: what the next event of it must build on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// Version of the stream's last event; 0 when it has none.
    pub version: i64,
    /// Position of the stream's last event; 0 when it has none.
    pub position: Position,
    /// Hash of the stream's last event; zeroes when it has none.
    pub hash: [u8; 32],
}

/// How far the log goes, for those who follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tip {
    pub position: Position,
    /// Position of the last event that is not activity.
    pub lifecycle: Position,
}
