//! Letting go in a batch: what is let go, and the event that accounts for it.

use sessiond_core::change::Change;
use sessiond_core::ids::OrganizationNumber;
use sessiond_core::organization::{Organization, OrganizationCommand};
use sessiond_core::retention;
use sessiond_store::{Cut, SideWrite};

use super::Draft;
use crate::committer::{FoldActivity, LetSessionsGo, Origin};
use crate::error::Error;

impl Draft<'_> {
    pub(in crate::committer) fn let_sessions_go(
        &mut self,
        origin: &Origin,
        letting: &LetSessionsGo,
    ) -> Result<bool, Error> {
        if !self.is_at(letting.organization, letting.as_of) {
            return Ok(false);
        }
        let Some((account, positions)) = retention::account(&letting.departing) else { return Ok(true) };
        for one in &account.applications {
            self.change(Change::SessionsLetGo(one.application, one.sessions));
        }
        let sessions = letting.departing.iter().map(|one| one.session).collect();
        let side = SideWrite::LetSessionsGo { sessions, positions, resources: account.resources.clone() };
        let command = OrganizationCommand::LetSessionsGo(Box::new(account));
        self.change_organization(origin, letting.organization, &command)?;
        self.write_beside(side);
        Ok(true)
    }

    pub(in crate::committer) fn fold_activity(
        &mut self,
        origin: &Origin,
        folding: &FoldActivity,
    ) -> Result<bool, Error> {
        if !self.is_at(folding.organization, folding.as_of) {
            return Ok(false);
        }
        let events = folding.events.iter().map(|one| (one.position, one.hash));
        let Some((account, positions)) = retention::folded(events) else { return Ok(true) };
        let side = SideWrite::Fold { positions, cuts: Cut::made_by(&folding.events) };
        self.change_organization(origin, folding.organization, &OrganizationCommand::FoldActivity(account))?;
        self.write_beside(side);
        Ok(true)
    }

    /// Whether nothing has happened to an organization since a version.
    fn is_at(&self, organization: OrganizationNumber, version: i64) -> bool {
        self.stream::<Organization>(organization).is_some_and(|one| one.head.version == version)
    }
}
