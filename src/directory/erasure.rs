//! Erasure of a person: what is personal goes, what happened stays.

use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use sessiond_core::ids::SessionNumber;
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::Principals;
use crate::committer::{CHUNK, Origin, WriteBeside};
use crate::error::{Error, Thing};
use crate::logs::AUDIT;

impl Principals {
    /// Erases what a principal is called, and the personal facts of every session it has had. The log holds their digests,
    /// so it still proves itself. Returns how many sessions there were; doing it again is success.
    pub async fn erase(&self, caller: &Caller, principal: Uuid) -> Result<u64, Error> {
        let (number, applications, open) = {
            let known = self.context.gate.known();
            let number = known.principal_by_id(caller.organization, principal);
            let number = number.ok_or(Error::NotFound(Thing::Principal))?;
            let own = known.streams::<Application>().filter(|one| one.organization == caller.organization);
            let applications: Vec<_> = own.map(|one| one.number).collect();
            // Memory is read first: a session that ends in between is found twice, and not missed.
            let open = applications.iter().flat_map(|one| known.open_of_principal(*one, number));
            let open: Vec<_> = open.collect();
            (number, applications, open)
        };
        // These are several operations, and doing them again is success, so no outcome is recorded.
        let origin = Origin { once: None, ..Origin::caller(caller) };
        let erase = |side| self.context.committer.submit(origin.clone(), WriteBeside(side));
        erase(SideWrite::ErasePrincipal(number)).await?;
        let mut erased = 0;
        for chunk in open.chunks(CHUNK) {
            erased += chunk.len() as u64;
            erase(SideWrite::ErasePersonal(chunk.to_vec())).await?;
        }
        for application in applications {
            let mut after = SessionNumber(0);
            loop {
                let page = self.context.store.ended_of_principal(application, number, after, CHUNK).await?;
                let Some(last) = page.last().copied() else { break };
                after = last;
                erased += page.iter().filter(|number| !open.contains(number)).count() as u64;
                erase(SideWrite::ErasePersonal(page)).await?;
            }
        }
        tracing::info!(target: AUDIT, id = %principal, actor = %caller.actor.id, sessions = erased, "principal erased");
        Ok(erased)
    }
}
