//! Why what is open must end: the session it belongs to has ended, or the credential that opened it.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::session::Refusal;

/// What ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Session(Reason),
    Credential(CredentialEnd),
    /// Neither: this process may not know any more what has ended. It may go on elsewhere, or here a little later.
    Lapsed,
}

/// What whoever is cut off by that is told: nothing of theirs has ended.
pub const LAPSED: &str = "this server has lost touch with its database; try again";

/// How a credential ended. The words are wire format; never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialEnd {
    /// Its own time is over.
    Expired,
    /// A revocation bars it from the agent side.
    Revoked,
    /// Its client gave it up (RFC 7009).
    GivenUp,
    /// The API key was deleted.
    ApiKeyDeleted,
    /// The hook was deleted.
    HookDeleted,
    /// There is a newer one in its place: of a session's token, or of an API key's secret.
    Replaced,
    /// The service account it was issued to was archived.
    ServiceAccountArchived,
    /// The application whose agent side it is used on was archived.
    ApplicationArchived,
    /// The organization trusts its issuer no more, or in another way.
    IssuerChanged,
    /// The person it acts for was disabled.
    PrincipalDisabled,
    /// The person or client is barred.
    Barred,
}

impl CredentialEnd {
    /// Every way, for whoever must know them all.
    pub const ALL: [Self; 11] = [
        Self::Expired,
        Self::Revoked,
        Self::GivenUp,
        Self::ApiKeyDeleted,
        Self::HookDeleted,
        Self::Replaced,
        Self::ServiceAccountArchived,
        Self::ApplicationArchived,
        Self::IssuerChanged,
        Self::PrincipalDisabled,
        Self::Barred,
    ];

    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::GivenUp => "given_up",
            Self::ApiKeyDeleted => "api_key_deleted",
            Self::HookDeleted => "hook_deleted",
            Self::Replaced => "replaced",
            Self::ServiceAccountArchived => "service_account_archived",
            Self::ApplicationArchived => "application_archived",
            Self::IssuerChanged => "issuer_changed",
            Self::PrincipalDisabled => "principal_disabled",
            Self::Barred => "barred",
        }
    }
}

impl std::fmt::Display for CredentialEnd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Expired => "the credential has expired",
            Self::Revoked => "the credential was revoked",
            Self::GivenUp => "the token was given up by its client",
            Self::ApiKeyDeleted => "the API key was deleted",
            Self::HookDeleted => "the hook was deleted",
            Self::Replaced => "the session's token was replaced by a newer one",
            Self::ServiceAccountArchived => "the service account was archived",
            Self::ApplicationArchived => "the application was archived",
            Self::IssuerChanged => "the organization's trust in the token's issuer was withdrawn or changed",
            Self::PrincipalDisabled => "the person it acts for was disabled",
            Self::Barred => "whoever it acts for is barred",
        })
    }
}

/// What whoever comes with such a credential is told.
impl From<CredentialEnd> for Refusal {
    fn from(end: CredentialEnd) -> Self {
        match end {
            CredentialEnd::Expired => Self::Expired,
            CredentialEnd::PrincipalDisabled => Self::PrincipalDisabled,
            CredentialEnd::Barred => Self::Barred,
            CredentialEnd::ApplicationArchived => Self::ApplicationArchived,
            CredentialEnd::Revoked
            | CredentialEnd::GivenUp
            | CredentialEnd::ApiKeyDeleted
            | CredentialEnd::HookDeleted
            | CredentialEnd::Replaced
            | CredentialEnd::ServiceAccountArchived
            | CredentialEnd::IssuerChanged => Self::CredentialBarred,
        }
    }
}
