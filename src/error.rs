//! The application's one error: what went wrong, free of HTTP. Each surface maps it to its own words in one place.

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
    /// There is no such thing, or none that the caller may know of.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// It is taken, or in the wrong state.
    #[error("{message}")]
    Conflict { code: &'static str, message: String },
    /// It was understood and makes no sense.
    #[error("{message}")]
    Unprocessable { code: &'static str, message: String },
    /// The session has ended.
    #[error("Session disconnected: {}", .0.reason)]
    Gone(Ended),
    /// The queue is full or the service is shutting down: try again.
    #[error("The service is busy; try again shortly")]
    Busy,
    /// No space is left to write to. What was revoked is denied from memory, but not recorded.
    #[error("The disk is full; nothing was written")]
    DiskFull,
    /// Our own fault; the text is for the log, never for the caller.
    #[error("Internal error")]
    Internal(String),
}

impl Error {
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

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::DiskFull,
            error => Self::Internal(error.to_string()),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Ended(ended) => Self::Gone(ended),
            Refusal::Revoked(_) | Refusal::Expired | Refusal::CredentialBarred => {
                Self::Unauthorized { reason: Some(refusal) }
            }
            Refusal::KeyTaken => Self::Conflict { code: "session_key_taken", message: refusal.to_string() },
            Refusal::PhasePassed(..) => Self::Conflict { code: "phase_passed", message: refusal.to_string() },
            Refusal::LimitReached(_) => {
                Self::Conflict { code: "session_limit_reached", message: refusal.to_string() }
            }
            Refusal::Suspended => Self::Denied { code: "session_suspended", message: refusal.to_string() },
            Refusal::PrincipalDisabled => {
                Self::Denied { code: "principal_disabled", message: refusal.to_string() }
            }
            Refusal::ApplicationArchived => Self::NotFound("Application"),
            Refusal::Unknown => Self::NotFound("Session"),
        }
    }
}
