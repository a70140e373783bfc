//! JWT access tokens of issuers that an organization trusts: from what one says to who asks.

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

/// Genuine tokens whose principal is remembered, so that a limit can be put on it before anything is verified.
const REMEMBERED: usize = 16_384;

/// Whether a bearer token has the shape of a JWT; none of ours has.
pub(super) fn is_jwt(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl Auth {
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

    /// A token with whose it is and by what issuer. Whoever signed it, and nobody else, is told why it is no good.
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
        // It may have been removed, or revoked, while its keys were fetched: what counts is how things stand after.
        let stands = self.gate.known().issuers(&issuer.issuer).any(|(_, one)| *one == issuer);
        // One allowance for each principal of each organization: what another organization takes for a token of the same
        // issuer and subject uses nothing of it up.
        let digest = self.principals.subject_digest(&genuine.external.issuer, &genuine.external.subject);
        let principal = principal_id(&digest);
        let allowance = secret::hash(&format!("{} {principal}", organization.0));
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(secret::hash(token), principal_id(&allowance));
        stands.then_some((organization, issuer, genuine)).ok_or(NOBODY)
    }

    /// Who trusts the issuer of a token: whom it is meant for; of one that is meant for nobody, somebody, who can tell why.
    fn trusting(&self, token: &Unverified<'_>) -> Option<(OrganizationNumber, Issuer)> {
        let known = self.gate.known();
        let found = |one: (&Organization, &Issuer)| (one.0.number, one.1.clone());
        let mut trusted = known.issuers(token.issuer()).filter(|(_, one)| token.is_for(one));
        match (trusted.next(), trusted.next()) {
            (Some(one), None) => Some(found(one)),
            // One that is meant for several says nothing clear.
            (Some(_), Some(_)) => None,
            (None, _) => known.issuers(token.issuer()).find(|(_, one)| token.may_be_of(one)).map(found),
        }
    }

    /// Whose allowance a token uses up that was found genuine before.
    pub(super) fn remembered(&self, token: &str) -> Option<Uuid> {
        self.remembered.lock().get(&secret::hash(token)).copied()
    }
}

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
