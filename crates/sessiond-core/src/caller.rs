//! Who asks, and by which credential.

use std::sync::Arc;

use uuid::Uuid;

use crate::Time;
use crate::actor::Actor;

use crate::idempotency::IdempotencyKey;
use crate::ids::{ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, SessionNumber};
use crate::organization::Issuer;
use crate::presented::Presented;
use crate::scope::Scopes;

use crate::session::ended::Ended;

/// Who asks: the outcome of authentication.
#[derive(Debug, Clone)]
pub struct Caller {
    pub organization: OrganizationNumber,
    pub organization_id: Uuid,
    pub actor: Actor,
    /// The person or agent it acts for, where the credential names one.
    pub principal: Option<PrincipalNumber>,
    pub scopes: Scopes,
    /// The application this caller is confined to: an application's token its own, a session token its session's.
    pub confined_to: Option<ApplicationNumber>,
    /// The application in which a service account creates by default.
    pub bound_to: Option<ApplicationNumber>,
    pub credential: Credential,
    /// Set for the token of a session that has ended: it opens the story of the end and nothing else.
    pub ended: Option<Ended>,
    /// The request, as the envelope of its events will tell.
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    /// Set for a request that is to take effect once.
    pub once: Option<Arc<IdempotencyKey>>,
}

/// What a command rests on, as far as it may have ended by the time the command is decided.
#[derive(Debug, Clone)]
pub struct Authority {
    pub organization: OrganizationNumber,
    pub scopes: Scopes,
    pub principal: Option<PrincipalNumber>,
    pub credential: Credential,
}

/// What was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub kind: CredentialKind,
    /// The log position at which it was issued; barred by any later revocation that covers it.
    pub issued_at: Position,
    pub expires_at: Time,
    /// Barred by itself: it was presented for a session that was revoked. Management paths do not care.
    pub barred: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// `sat_…`: an access token, by its id; `client` is the OAuth client it was issued to, `audience` the application
    /// whose gateway alone it opens.
    Access { token: Uuid, client: String, audience: Option<Uuid> },
    /// `sst_…`: the token of one session.
    Session(SessionNumber),
    /// `sak_…`: an API key, by its id, and which of its secrets: the one that it had after so many rotations.
    ApiKey { key: Uuid, rotations: u32 },
    /// The signature of a hook, by its id.
    Hook(Uuid),
    /// A JWT access token of an issuer that the organization trusts.
    External(Box<External>),
}

/// What an issuer says in one of its tokens, beyond what [`Caller`] holds of every credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    pub issuer: String,
    pub audience: String,
    pub subject: String,
    /// The OAuth client it was issued to: its `client_id` (RFC 9068), else its `azp`.
    pub client: Option<String>,
    /// Its `jti`, if it has one.
    pub id: Option<String>,
    pub issued_at: Time,
    /// Its `exp`, to the second: it is taken a little longer, because clocks differ.
    pub expires_at: Time,
    /// How the organization trusted its issuer when it was presented.
    pub trusted: Issuer,
}

impl Caller {
    /// Whether the caller may touch things of this application.
    pub fn may_touch(&self, application: ApplicationNumber) -> bool {
        self.confined_to.is_none_or(|own| own == application)
    }

    /// What the caller's commands rest on.
    pub fn authority(&self) -> Authority {
        Authority {
            organization: self.organization,
            scopes: self.scopes,
            principal: self.principal,
            credential: self.credential.clone(),
        }
    }

    /// The person it is the credential of; a session's own token is the session's.
    pub fn person(&self) -> Option<PrincipalNumber> {
        self.principal.filter(|_| self.session().is_none())
    }

    /// Whether what this request is to do was done before: it is answered as then, and checks of how things stand now
    /// must not come between.
    pub fn repeats(&self) -> bool {
        self.once.as_ref().is_some_and(|once| once.recorded.is_some())
    }

    /// The session whose own token was presented.
    pub fn session(&self) -> Option<SessionNumber> {
        match self.credential.kind {
            CredentialKind::Session(number) => Some(number),
            _ => None,
        }
    }

    /// The credential as the rules of a session owned by `owner` see it.
    pub fn presented(&self, owner: Actor) -> Presented {
        Presented {
            issued_at: self.credential.issued_at,
            expires_at: self.credential.expires_at,
            access_token: self.access_token(),
            renews: self.renews(),
            by_owner: owner == self.actor,
        }
    }

    /// Whether the credential renews a session's token that it outlives.
    pub fn renews(&self) -> bool {
        matches!(self.credential.kind, CredentialKind::Access { .. } | CredentialKind::External(_))
    }

    /// The OAuth client that the credential was issued to; an API key or a hook's signature was issued to none.
    pub fn client(&self) -> Option<&str> {
        match &self.credential.kind {
            CredentialKind::Access { client, .. } => Some(client),
            CredentialKind::External(external) => external.client.as_deref(),
            CredentialKind::Session(_) | CredentialKind::ApiKey { .. } | CredentialKind::Hook(_) => None,
        }
    }

    /// The application whose gateway is all that the credential opens.
    pub fn audience(&self) -> Option<Uuid> {
        match self.credential.kind {
            CredentialKind::Access { audience, .. } => audience,
            _ => None,
        }
    }

    /// The caller's access token, if that is what was presented.
    pub fn access_token(&self) -> Option<Uuid> {
        match self.credential.kind {
            CredentialKind::Access { token, .. } => Some(token),
            _ => None,
        }
    }
}
