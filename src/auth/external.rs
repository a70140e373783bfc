//! JWT access tokens of issuers that an organization trusts: finds out from one who the caller is.

use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::bar::Barred;
use sessiond_core::caller::{Caller, Credential, CredentialKind};
use sessiond_core::ids::{OrganizationNumber, PrincipalNumber};
use sessiond_core::organization::{Issuer, Organization};
use sessiond_core::session::Refusal;
use sessiond_core::token::principal_id;
use uuid::Uuid;

use super::{Auth, NOBODY};
use crate::error::Error;
use crate::gate::GateState;
use crate::issuers::{Genuine, SKEW, Unverified};
use crate::secret;

/// How many genuine tokens are remembered, so that their rate limit can be checked before anything is verified.
const REMEMBERED: usize = 16_384;

/// Whether a bearer token has the shape of a JWT; none of ours has.
pub(super) fn is_jwt(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Auth {
    /// The caller who presents a token of another issuer.
    pub(super) async fn external(&self, token: &str) -> Result<Caller, Error> {
        let (organization, issuer, genuine) = self.genuine_external(token).await?;
        if genuine.expired {
            return Err(Error::Unauthorized { reason: Some(Refusal::Expired) });
        }
        let external = &genuine.external;
        let principal = self.principals.meet(organization, &external.issuer, &external.subject).await?;
        let known = self.gate.known();
        if known.disabled(principal) {
            return Err(Refusal::PrincipalDisabled.into());
        }
        if let Some(bar) = known.bar_on(Barred::Principal(principal), self.clock.now()) {
            return Err(Error::Barred(bar.told()));
        }
        Ok(external_caller(&known, (organization, principal), &issuer, genuine))
    }

    /// Verifies a token. Returns whose it is, and the issuer as that organization trusts it. Only the holder of a token that
    /// the issuer signed is told why it is not accepted.
    pub(super) async fn genuine_external(
        &self,
        token: &str,
    ) -> Result<(OrganizationNumber, Issuer, Genuine), Error> {
        let unverified = Unverified::read(token).ok_or(NOBODY)?;
        let (organization, issuer) = self.trusting(&unverified).ok_or(NOBODY)?;
        let genuine = self.issuers.verify(&unverified, &issuer).await.map_err(|fault| match fault {
            None => NOBODY,
            Some(fault) => {
                self.issuers.note(&issuer, fault);
                Error::Unfit(fault)
            }
        })?;
        // The issuer may have been removed while its keys were fetched; what counts is whether it is trusted now.
        let is_trusted = self.gate.known().issuers(&issuer.issuer).any(|(_, one)| *one == issuer);
        // Each principal of each organization has an allowance of its own: a token of the same issuer and subject that
        // another organization takes uses nothing of it up.
        let digest = self.principals.subject_digest(&genuine.external.issuer, &genuine.external.subject);
        let principal = principal_id(&digest);
        let allowance = secret::hash(&format!("{} {principal}", organization.0));
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(secret::hash(token), principal_id(&allowance));
        is_trusted.then_some((organization, issuer, genuine)).ok_or(NOBODY)
    }

    /// The organization that a token is meant for, with the issuer as it trusts it. A token that is meant for nobody goes to
    /// one of those who trust its issuer, so that its holder can be told why it is refused.
    fn trusting(&self, token: &Unverified<'_>) -> Option<(OrganizationNumber, Issuer)> {
        let known = self.gate.known();
        let found = |one: (&Organization, &Issuer)| (one.0.number, one.1.clone());
        let mut trusted = known.issuers(token.issuer()).filter(|(_, one)| token.is_for(one));
        match (trusted.next(), trusted.next()) {
            (Some(one), None) => Some(found(one)),
            // A token that is meant for several organizations does not say for which.
            (Some(_), Some(_)) => None,
            (None, _) => known.issuers(token.issuer()).find(|(_, one)| token.may_be_of(one)).map(found),
        }
    }

    /// The id that the rate limit counts a token under, if the token was found genuine before.
    pub(super) fn remembered(&self, token: &str) -> Option<Uuid> {
        self.remembered.lock().get(&secret::hash(token)).copied()
    }
}

/// The caller behind a genuine token of another issuer.
pub(super) fn external_caller(
    known: &GateState,
    (organization, principal): (OrganizationNumber, PrincipalNumber),
    issuer: &Issuer,
    genuine: Genuine,
) -> Caller {
    let Genuine { external, scopes, .. } = genuine;
    Caller {
        organization,
        organization_id: known.organization_id(organization),
        actor: Actor { kind: ActorKind::User, id: known.principal_id(principal) },
        principal: Some(principal),
        scopes,
        confined_to: issuer.application,
        bound_to: issuer.application,
        credential: Credential {
            issued_at: known.position_at(external.issued_at),
            expires_at: external.expires_at.checked_add_signed(SKEW).unwrap_or(external.expires_at),
            barred: false,
            kind: CredentialKind::External(Box::new(external)),
        },
        ended: None,
        request_id: None,
        traceparent: None,
        once: None,
    }
}
