//! Which organization may take an issuer's tokens for an audience. All organizations share the names of issuers, and mostly
//! of audiences too: if the first to claim one got it, it would get another's people. So an organization may take what names
//! it by its own id, or what the operator says. What other organizations trust is not looked at, so that nobody learns it.

use sessiond_core::ids::OrganizationNumber;
use uuid::Uuid;

use crate::config::IssuerClaim;
use crate::error::Error;

/// The organization that wants to take tokens, and where this service is.
pub struct Claimant<'a> {
    pub number: OrganizationNumber,
    pub id: Uuid,
    pub public_url: &'a str,
    /// What the operator has said.
    pub claims: &'a [IssuerClaim],
}

/// What an audience names.
#[derive(Debug, PartialEq)]
enum Named {
    Application(Uuid),
    Organization(Uuid),
    /// The audience is no URL of ours.
    Nothing,
}

impl Claimant<'_> {
    /// Checks that the organization may take tokens of this issuer for this audience. `owns` says whether an application is
    /// its own.
    pub fn check(&self, issuer: &str, audience: &str, owns: impl Fn(Uuid) -> bool) -> Result<(), Error> {
        let may = match self.named(audience) {
            Named::Application(id) => owns(id),
            Named::Organization(id) => id == self.id,
            Named::Nothing => {
                let mut said =
                    self.claims.iter().filter(|one| one.issuer == issuer && one.audience == audience);
                match said.next() {
                    Some(first) => {
                        first.organization == self.id || said.any(|one| one.organization == self.id)
                    }
                    None => self.number.is_operators(),
                }
            }
        };
        if may {
            return Ok(());
        }
        let (base, id) = (self.public_url, self.id);
        let message = format!(
            "An audience that others could name too needs the word of whoever runs this installation (--issuer-claim). \
             Have the issuer put your own into its tokens: {base}/api/v1/organizations/{id}, or {base}/mcp/<application id>"
        );
        Err(Error::Denied { code: "audience_not_own", message })
    }

    fn named(&self, audience: &str) -> Named {
        let Some(path) = audience.strip_prefix(self.public_url) else { return Named::Nothing };
        let id = |root: &str| path.strip_prefix(root).and_then(|id| Uuid::try_parse(id).ok());
        match (id("/mcp/"), id("/api/v1/organizations/")) {
            (Some(application), _) => Named::Application(application),
            (_, Some(organization)) => Named::Organization(organization),
            _ => Named::Nothing,
        }
    }
}
