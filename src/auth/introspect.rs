//! What a token is worth, for resource servers that must decide on it and cannot read it (RFC 7662). Everything is answered
//! from memory.

use sessiond_core::Time;
use sessiond_core::actor::ActorKind;
use sessiond_core::application::Application;
use sessiond_core::bar::Barred;
use sessiond_core::caller::{Caller, CredentialKind};
use sessiond_core::ids::{OrganizationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::scope::Scopes;
use sessiond_core::session::Session;
use sessiond_core::status::{DerivedStatus, derived_status};
use uuid::Uuid;

use super::external::{external_caller, is_jwt};
use super::{Auth, session_caller};
use crate::gate::GateState;
use crate::secret::{self, TokenKind};

/// A token that opens something now.
#[derive(Debug)]
pub struct Introspected {
    /// The token's id; none for a token of another issuer that names none.
    pub id: Option<String>,
    pub scopes: Scopes,
    pub client_id: Option<String>,
    /// The principal's id, or the client's for a client's own token.
    pub subject: Option<String>,
    /// The issuer and the audience of a token of another issuer.
    pub issuer: Option<(String, String)>,
    /// The one application whose gateway the token opens, if it opens nothing else.
    pub only: Option<Uuid>,
    pub issued_at: Option<Time>,
    pub expires_at: Option<Time>,
    /// The session whose token this is, and the session's status.
    pub session: Option<(Uuid, DerivedStatus)>,
}

/// What giving up a token means (RFC 7009).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// The token is none of ours, has ended already, or is none that the caller may know of.
    Nothing,
    /// The token is another client's.
    NotYours,
    /// Tokens of this kind are revoked in another way.
    Unsupported,
    AccessToken(Uuid),
    Session(SessionNumber),
}

impl Auth {
    /// What a token of an organization opens now; `None` for everything else, for whatever reason.
    pub async fn introspect(&self, organization: OrganizationNumber, token: &str) -> Option<Introspected> {
        if is_jwt(token) {
            return self.introspect_external(organization, token).await;
        }
        let presented = secret::parse(token)?;
        match presented.kind {
            TokenKind::Access => {
                let caller = self.access(&presented).ok()?;
                let known = self.gate.known();
                let good = caller.organization == organization
                    && is_in_force(&known, &caller)
                    && known.bar_against(&caller, true, self.clock.now()).is_none();
                let id = Some(presented.id.simple().to_string());
                good.then(|| introspected(&known, &caller, id, None))
            }
            TokenKind::ApiKey => {
                let known = self.gate.known();
                let (key, caller) = self.key_behind(&known, &presented).ok()?;
                let good = key.organization == organization;
                good.then(|| Introspected {
                    issued_at: Some(key.created_at),
                    expires_at: Some(caller.credential.expires_at).filter(|at| *at != Time::MAX_UTC),
                    ..introspected(&known, &caller, Some(key.id.simple().to_string()), None)
                })
            }
            TokenKind::Session => {
                let caller = self.live_session(&presented).ok()??;
                let known = self.gate.known_at(self.clock.now());
                let number = caller.session()?;
                let session = known.session(number).filter(|session| session.organization == organization)?;
                let good = is_in_force(&known, &caller)
                    && session.suspended_at.is_none()
                    && known.covering(session).is_none()
                    && !known.disabled(session.principal)
                    && known.bar_on(Barred::Principal(session.principal), self.clock.now()).is_none();
                let seen_at = known.seen(number).and_then(|seen| seen.seen_at);
                let status = derived_status(session, seen_at, self.clock.now());
                let caller = session_caller(&known, session, known.session_token(number)?);
                good.then(|| introspected(&known, &caller, None, Some((session, status))))
            }
            TokenKind::Mcp | TokenKind::Terminal => None,
        }
    }

    /// What a token of another issuer is worth to the organization that asks.
    async fn introspect_external(&self, asks: OrganizationNumber, token: &str) -> Option<Introspected> {
        let (organization, issuer, genuine) = self.genuine_external(token).await.ok()?;
        let external = &genuine.external;
        let digest = self.principals.subject_digest(&external.issuer, &external.subject);
        let known = self.gate.known();
        // A principal that is only asked about is not recorded.
        let principal = known.principal(organization, &digest).unwrap_or(PrincipalNumber(0));
        let kept_out = known.disabled(principal)
            || known.bar_on(Barred::Principal(principal), self.clock.now()).is_some();
        if organization != asks || genuine.expired || kept_out {
            return None;
        }
        let introspected = Introspected {
            id: external.id.clone(),
            scopes: genuine.scopes,
            client_id: None,
            subject: Some(external.subject.clone()),
            issuer: Some((external.issuer.clone(), external.audience.clone())),
            only: None,
            issued_at: Some(external.issued_at),
            expires_at: Some(external.expires_at),
            session: None,
        };
        let caller = external_caller(&known, (organization, principal), &issuer, genuine);
        is_in_force(&known, &caller).then_some(introspected)
    }

    /// What it means that this caller gives up a token.
    pub fn given_up(&self, caller: &Caller, token: &str) -> GivenUp {
        let Some(presented) = secret::parse(token) else {
            // A JWT is another issuer's, and can be revoked only there.
            return if is_jwt(token) && token.starts_with("ey") {
                GivenUp::Unsupported
            } else {
                GivenUp::Nothing
            };
        };
        match presented.kind {
            TokenKind::Access => match self.access(&presented) {
                Ok(owner) if owner.organization == caller.organization => {
                    let same = client_of(&owner).is_some_and(|client| client_of(caller) == Some(client));
                    let manages = caller.confined_to.is_none()
                        && caller.scopes.has(sessiond_core::scope::Scope::ManagementAll);
                    if same || manages { GivenUp::AccessToken(presented.id) } else { GivenUp::NotYours }
                }
                _ => GivenUp::Nothing,
            },
            TokenKind::Session => match self.live_session(&presented) {
                Ok(Some(own)) => {
                    let may = own.organization == caller.organization
                        && own.confined_to.is_some_and(|application| caller.may_touch(application))
                        && caller.session().is_none_or(|session| own.session() == Some(session));
                    own.session().filter(|_| may).map_or(GivenUp::Nothing, GivenUp::Session)
                }
                _ => GivenUp::Nothing,
            },
            TokenKind::ApiKey => GivenUp::Unsupported,
            TokenKind::Mcp | TokenKind::Terminal => GivenUp::Nothing,
        }
    }
}

/// The OAuth client behind a caller.
fn client_of(caller: &Caller) -> Option<&str> {
    match &caller.credential.kind {
        CredentialKind::Access { client, .. } => Some(client),
        _ => None,
    }
}

/// Whether no revocation covers a credential, and its application is not archived.
fn is_in_force(known: &GateState, caller: &Caller) -> bool {
    let application = caller.bound_to.and_then(|number| known.stream::<Application>(number));
    let valid_from = known.barred_in(caller.organization, caller.bound_to, caller.principal);
    !caller.credential.barred
        && caller.credential.issued_at >= valid_from
        && application.is_none_or(|application| {
            application.archived_at.is_none() || caller.actor.kind == ActorKind::ServiceAccount
        })
}

/// What a token of ours is worth.
fn introspected(
    known: &GateState,
    caller: &Caller,
    id: Option<String>,
    session: Option<(&Session, DerivedStatus)>,
) -> Introspected {
    let client_id = match session {
        Some((session, _)) => known.client_id(session.owner),
        None => client_of(caller).map(str::to_owned),
    };
    let principal = caller.principal.map(|number| known.principal_id(number).to_string());
    Introspected {
        id,
        scopes: caller.scopes,
        subject: principal.or_else(|| client_id.clone()),
        client_id,
        issuer: None,
        only: caller.audience(),
        issued_at: None,
        expires_at: Some(caller.credential.expires_at),
        session: session.map(|(session, status)| (session.id, status)),
    }
}
