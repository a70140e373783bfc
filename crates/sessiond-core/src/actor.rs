//! Who an event was done by.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who did something: a kind and an id, never a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    pub kind: ActorKind,
    /// Id of the session, application or service account; nil for the system and the operator at the console.
    pub id: Uuid,
}

impl Actor {
    /// sessiond itself: its scheduler and its revocation worker.
    pub const SYSTEM: Self = Self { kind: ActorKind::System, id: Uuid::nil() };
    /// Whoever runs `sessiond organizations …` or starts it on an empty database.
    pub const OPERATOR: Self = Self { kind: ActorKind::Operator, id: Uuid::nil() };

    /// The id as it is stored: the system and the operator have none.
    pub fn stored_id(&self) -> Option<&Uuid> {
        (!matches!(self.kind, ActorKind::System | ActorKind::Operator)).then_some(&self.id)
    }
}

/// The codes are stored; never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i64)]
pub enum ActorKind {
    System = 0,
    Operator = 1,
    Session = 2,
    Application = 3,
    ServiceAccount = 4,
    ApiKey = 5,
    /// A person or agent whom an external issuer vouches for; its id is the principal's.
    User = 6,
    /// A hook that a media server calls.
    Hook = 7,
}

impl ActorKind {
    pub const ALL: [Self; 8] = [
        Self::System,
        Self::Operator,
        Self::Session,
        Self::Application,
        Self::ServiceAccount,
        Self::ApiKey,
        Self::User,
        Self::Hook,
    ];

    /// The kind behind a stored code.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i64 == code)
    }

    /// The word used on feeds.
    pub fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Operator => "operator",
            Self::Session => "session",
            Self::Application => "application",
            Self::ServiceAccount => "service_account",
            Self::ApiKey => "api_key",
            Self::User => "user",
            Self::Hook => "hook",
        }
    }
}
