//! Principals in a batch: whom somebody vouches for, met for the first time or again.

use sessiond_core::change::Change;
use sessiond_core::ids::PrincipalNumber;
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
                self.chain.last_principal += 1;
                let number = PrincipalNumber(self.chain.last_principal);
                let principal = Principal {
                    number,
                    organization,
                    issuer: introduction.issuer.clone(),
                    subject_digest,
                    subject: Some(introduction.subject.clone()),
                };
                self.principals.insert(key, number);
                self.side.push(SideWrite::Principal(principal.clone()));
                self.change(Change::Principal(principal));
                number
            }
        };
        if introduction.name.is_some() || introduction.email.is_some() {
            let (name, email) = (introduction.name.clone(), introduction.email.clone());
            self.side.push(SideWrite::DescribePrincipal { number, name, email });
        }
        Ok(number)
    }
}
