//! The issuers whose access tokens an organization takes beside ours.

use std::sync::Arc;

use sessiond_core::caller::Caller;
use sessiond_core::organization::{Issuer, IssuersSet, Organization, OrganizationCommand};
use sessiond_core::scope::Scope;
use uuid::Uuid;

use super::{check_gift, client_scopes};
use crate::committer::ChangeOrganization;
use crate::context::AppContext;
use crate::error::Error;

/// Most issuers of one organization.
const MOST: usize = 20;
/// Longest audience.
const LONGEST_AUDIENCE: usize = 1_024;

/// An issuer that an organization is to trust; its URLs were looked at already.
#[derive(Debug)]
pub struct NewIssuer {
    pub issuer: String,
    pub audience: String,
    pub algorithms: Vec<String>,
    pub jwks_uri: Option<String>,
    pub application: Option<Uuid>,
    pub scopes: Vec<String>,
}

/// The issuers whose access tokens organizations take beside ours.
#[derive(Clone)]
pub struct TrustedIssuers {
    context: Arc<AppContext>,
}

impl TrustedIssuers {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Lists the issuers that the caller's organization trusts, with the ids of the applications their tokens act in.
    pub fn list(&self, caller: &Caller) -> Vec<(Issuer, Option<Uuid>)> {
        let known = self.context.gate.known();
        let organization = known.stream::<Organization>(caller.organization);
        let issuers = organization.map(|one| one.issuers.clone()).unwrap_or_default();
        let shown = issuers.into_iter().map(|issuer| {
            let application = issuer.application.map(|number| known.application_id(number));
            (issuer, application)
        });
        shown.collect()
    }

    /// Trusts these and no others. Tokens of one that is left out open nothing when this returns.
    pub async fn set(&self, caller: &Caller, new: Vec<NewIssuer>) -> Result<(), Error> {
        if new.len() > MOST {
            return Err(Error::field("issuers", format!("issuers must be at most {MOST}")));
        }
        let issuers = new.into_iter().map(|one| self.checked_issuer(caller, one));
        let issuers = issuers.collect::<Result<Vec<_>, _>>()?;
        for (at, issuer) in issuers.iter().enumerate() {
            let same = |one: &Issuer| one.issuer == issuer.issuer && one.audience == issuer.audience;
            if issuers[..at].iter().any(same) {
                return Err(Error::field("issuers", "issuers name the same issuer and audience twice"));
            }
        }
        let command = OrganizationCommand::SetIssuers(IssuersSet { issuers });
        let change = ChangeOrganization { number: caller.organization, command };
        self.context.submit(caller, change).await.map(|_| ())
    }

    fn checked_issuer(&self, caller: &Caller, new: NewIssuer) -> Result<Issuer, Error> {
        let NewIssuer { issuer, audience, mut algorithms, jwks_uri, application, scopes } = new;
        if audience.is_empty() || audience.len() > LONGEST_AUDIENCE || audience.chars().any(char::is_control)
        {
            let message =
                format!("audience must be 1 to {LONGEST_AUDIENCE} bytes, without control characters");
            return Err(Error::field("audience", message));
        }
        algorithms.dedup();
        let words = client_scopes("scopes", &scopes)?;
        if words.is_empty() || words.has(Scope::PlatformAdmin) {
            let message =
                "scopes must name at least one; platform:admin is given to no other issuer's tokens";
            return Err(Error::field("scopes", message));
        }
        check_gift(caller, words)?;
        let application = application.map(|id| {
            let known = self.context.gate.known();
            let own = known.application(id).filter(|one| one.organization == caller.organization);
            own.map(|one| one.number)
                .ok_or_else(|| Error::field("applicationId", "applicationId names no application of yours"))
        });
        let scopes = words.iter().map(|scope| scope.word().to_owned()).collect();
        Ok(Issuer { issuer, audience, algorithms, jwks_uri, application: application.transpose()?, scopes })
    }
}
