//! Principals in a batch: whom somebody vouches for, met for the first time or again.

use sessiond_core::ids::{OrganizationNumber, PrincipalNumber};
use sessiond_core::token::Principal;
use sessiond_store::SideWrite;

use super::Draft;
use crate::committer::IntroducePrincipal;
use crate::error::Error;

impl Draft<'_> {
    /// The number of a principal, which is written down if it is new.
    pub(in crate::committer) fn meet(
        &mut self,
        introduction: &IntroducePrincipal,
    ) -> Result<PrincipalNumber, Error> {
        let IntroducePrincipal { organization, subject_digest, .. } = *introduction;
        let key = (organization, subject_digest);
        let drafted = self.principals.get(&key).copied();
        let number = match drafted.or_else(|| self.known.principal(organization, &subject_digest)) {
            Some(number) => number,
            None => {
                self.room_for_principal(organization)?;
                let (issuer, subject) = (introduction.issuer.clone(), introduction.subject.clone());
                self.record_principal(organization, issuer, subject, subject_digest)
            }
        };
        if introduction.name.is_some() || introduction.email.is_some() {
            let (name, email) = (introduction.name.clone(), introduction.email.clone());
            self.write_beside(SideWrite::DescribePrincipal { number, name, email });
        }
        Ok(number)
    }

    /// Writes down a principal that is new. Returns its number.
    pub(super) fn record_principal(
        &mut self,
        organization: OrganizationNumber,
        issuer: String,
        subject: String,
        subject_digest: [u8; 32],
    ) -> PrincipalNumber {
        self.log.last_principal += 1;
        let number = PrincipalNumber(self.log.last_principal);
        self.principals.insert((organization, subject_digest), number);
        let subject = Some(subject);
        let principal = Principal { number, organization, issuer, subject_digest, subject, kept_id: None };
        self.write_beside(SideWrite::Principal(principal));
        number
    }
}
