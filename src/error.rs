//! The application's one error: what went wrong, free of HTTP. Each surface maps it to its own words in one place. Whatever is
//! decided by an error is decided by its variant: a `code` is for clients, and nothing here reads it.

use sessiond_core::bar::BarTold;
use sessiond_core::ids::StreamKind;
use sessiond_core::scope::Scopes;
use sessiond_core::session::Refusal;
use sessiond_core::session::ended::Ended;
use sessiond_store::StoreError;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong; `field` names the culprit where there is one.
    #[error("{message}")]
    Invalid { field: Option<&'static str>, message: String },
    /// Nothing valid was presented. `reason` may tell whoever was cut off why.
    #[error("Unauthorized")]
    Unauthorized { reason: Option<Refusal> },
    /// A token that whoever is trusted has signed, and that is no good for here; why, for whoever set that up.
    #[error("Unauthorized: {0}")]
    Unfit(&'static str),
    /// Valid, but without the right: these scopes are missing.
    #[error("Insufficient scope: {missing}")]
    Forbidden { missing: String },
    /// The right is there, but something stands against it.
    #[error("{message}")]
    Denied { code: &'static str, message: String },
    /// The session is suspended: every request of it is refused until it is resumed.
    #[error("{0}")]
    Suspended(Refusal),
    /// Whoever asks, or whom it is for, is barred; what that one is told.
    #[error("{}", .0.sentence())]
    Barred(BarTold),
    /// There are as many as there may be.
    #[error("{message}")]
    LimitReached {
        code: &'static str,
        message: String,
        /// Whoever asked is not let in, where otherwise something is not made.
        shuts_out: bool,
    },
    /// A token for a gateway that its client can never open.
    #[error("{0}")]
    InvalidTarget(String),
    /// There is no such thing, or none that the caller may know of.
    #[error("{} not found", .0.word())]
    NotFound(Thing),
    /// It is taken, or in the wrong state.
    #[error("{message}")]
    Conflict { code: &'static str, message: String },
    /// Another session has this key.
    #[error("{0}")]
    KeyTaken(Refusal),
    /// A revocation would bar more one by one than fits into the transaction that begins it.
    #[error("{0}")]
    TooManyToBar(String),
    /// This run of a schedule has begun already, or can begin no more.
    #[error("this run is over already")]
    RunOver,
    /// It was understood and makes no sense.
    #[error("{message}")]
    Unprocessable { code: &'static str, message: String },
    /// The session has ended.
    #[error("Session disconnected: {}", .0.reason)]
    Gone(Ended),
    /// The queue is full or the service is shutting down: try again.
    #[error("The service is busy; try again shortly")]
    Busy,
    /// It was handed to the database, which has not said whether it has it.
    #[error("The database has not said whether this was carried out")]
    OutcomeUnknown,
    /// No space is left to write to. What was revoked is denied from memory, but not recorded.
    #[error("The disk is full; nothing was written")]
    DiskFull,
    /// Our own fault; the text is for the log, never for the caller.
    #[error("Internal error")]
    Internal(String),
}

/// What may not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    ApiKey,
    Application,
    Bar,
    Delivery,
    Hook,
    Machine,
    MediaStream,
    Organization,
    Principal,
    Revocation,
    Schedule,
    ServiceAccount,
    Session,
    Webhook,
}

impl Thing {
    /// What it is called in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::ApiKey => "API key",
            Self::Bar => "Bar",
            Self::Application => "Application",
            Self::Delivery => "Delivery",
            Self::Hook => "Hook",
            Self::Machine => "Machine",
            Self::MediaStream => "Stream",
            Self::Organization => "Organization",
            Self::Principal => "Principal",
            Self::Revocation => "Revocation",
            Self::Schedule => "Scheduled revocation",
            Self::ServiceAccount => "Service account",
            Self::Session => "Session",
            Self::Webhook => "Webhook",
        }
    }
}

impl From<StreamKind> for Thing {
    fn from(kind: StreamKind) -> Self {
        match kind {
            StreamKind::Organization => Self::Organization,
            StreamKind::Application => Self::Application,
            StreamKind::ServiceAccount => Self::ServiceAccount,
            StreamKind::Session => Self::Session,
            StreamKind::Revocation => Self::Revocation,
            StreamKind::Principal => Self::Principal,
            StreamKind::ApiKey => Self::ApiKey,
            StreamKind::Schedule => Self::Schedule,
            StreamKind::Webhook => Self::Webhook,
            StreamKind::MediaStream => Self::MediaStream,
            StreamKind::Hook => Self::Hook,
            StreamKind::Machine => Self::Machine,
            StreamKind::Bar => Self::Bar,
        }
    }
}

impl Error {
    /// The limit that was reached, if it is one.
    pub fn limit(&self) -> Option<&'static str> {
        if let Self::LimitReached { code, .. } = self { Some(code) } else { None }
    }

    /// Refuses to whoever may not give these rights to hand out or to end a credential that has them: who could rotate the
    /// secret of one that may more would be that one, and who could end it would have locked it out.
    pub fn unless_may_give(own: Scopes, scopes: Scopes) -> Result<(), Self> {
        let lacking = own.lacks_to_give(scopes);
        if lacking.is_empty() { Ok(()) } else { Err(Self::Forbidden { missing: lacking.to_string() }) }
    }

    /// A cursor of another list, or made up.
    pub fn foreign_cursor() -> Self {
        Self::field("cursor", "cursor is not one that this server gave out; start without one")
    }

    /// A request that is wrong in a named field.
    pub fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { field: Some(field), message: message.into() }
    }
}

impl From<&StoreError> for Error {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Full => Self::DiskFull,
            StoreError::Away(_) => Self::Busy,
            StoreError::Unknown(_) => Self::OutcomeUnknown,
            error => Self::Internal(error.to_string()),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Ended(ended) => Self::Gone(ended),
            Refusal::Revoked(_) | Refusal::Expired | Refusal::CredentialBarred => {
                Self::Unauthorized { reason: Some(refusal) }
            }
            Refusal::KeyTaken => Self::KeyTaken(refusal),
            Refusal::PhasePassed(..) => Self::Conflict { code: "phase_passed", message: refusal.to_string() },
            Refusal::LimitReached(_) => {
                let message = refusal.to_string();
                Self::LimitReached { code: "session_limit_reached", message, shuts_out: false }
            }
            Refusal::Suspended => Self::Suspended(refusal),
            Refusal::PrincipalDisabled => {
                Self::Denied { code: "principal_disabled", message: refusal.to_string() }
            }
            // Whoever knows the bar says more.
            Refusal::Barred => Self::Denied { code: "barred", message: refusal.to_string() },
            Refusal::ApplicationArchived => Self::NotFound(Thing::Application),
            Refusal::Unknown => Self::NotFound(Thing::Session),
            Refusal::Lapsed => Self::Busy,
        }
    }
}
