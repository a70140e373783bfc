//! Organizations: founded, listed, renamed.

use sessiond_core::caller::Caller;
use sessiond_core::organization::{
    Organization, OrganizationCommand, OrganizationCreated, OrganizationRenamed,
};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::ServiceAccountCreated;
use uuid::Uuid;

use super::{Chosen, Directory, Founded, NewApplication, Plan, Slice, check_chosen, checked_name};
use crate::committer::{ChangeOrganization, CreateOrganization, Origin};
use crate::error::{Error, Thing};
use crate::secret;

impl Directory {
    /// Whether nobody has been here before.
    pub fn is_empty(&self) -> bool {
        self.gate.known().organizations.is_empty()
    }

    /// At the console: an organization with an application `default` and a service account that may do everything in it,
    /// and with `platform` run the installation too. Nothing is made yet: its credentials are shown once, and whoever
    /// cannot be shown them should not have them made.
    pub fn plan(&self, name: &str, chosen: Option<Chosen>, platform: bool) -> Result<Plan, Error> {
        let more = Scopes::default();
        let more = if platform { more.with(Scope::PlatformAdmin) } else { more };
        self.plan_by(&Origin::operator(), name, chosen, more)
    }

    /// At the console: founds what was planned.
    pub async fn carry_out(&self, plan: Plan) -> Result<Founded, Error> {
        self.found_by(Origin::operator(), plan).await
    }

    /// The two in one, where there is nobody to show anything to.
    pub async fn found(&self, name: &str, chosen: Option<Chosen>) -> Result<Founded, Error> {
        let plan = self.plan(name, chosen, false)?;
        self.carry_out(plan).await
    }

    /// For a caller who runs the installation: founds an organization as [`Directory::plan`] has it.
    pub async fn create_organization(&self, caller: &Caller, name: &str) -> Result<Founded, Error> {
        let origin = Origin::caller(caller);
        let plan = self.plan_by(&origin, name, None, Scopes::default())?;
        self.found_by(origin, plan).await
    }

    fn plan_by(
        &self,
        origin: &Origin,
        name: &str,
        chosen: Option<Chosen>,
        more: Scopes,
    ) -> Result<Plan, Error> {
        let name = checked_name("name", name)?;
        let (id, client_id, client_secret) = match chosen {
            Some(chosen) => {
                check_chosen(&chosen)?;
                (secret::new_id(), chosen.client_id, chosen.client_secret)
            }
            None => {
                let id = secret::new_id();
                (id, format!("sa_{id}"), secret::mint_client_secret(origin.once.as_deref()).text)
            }
        };
        let application = NewApplication { name: "default".to_owned(), ..NewApplication::default() };
        let (application, application_secret) = self.application_created(None, application)?;
        let scopes = more.with(Scope::ManagementAll).with(Scope::McpInvoke);
        let founding = CreateOrganization {
            organization: OrganizationCreated { id: secret::new_id(), name },
            application: Some(application),
            application_secret_hash: application_secret.map(|minted| minted.hash),
            account: ServiceAccountCreated {
                id,
                name: "bootstrap".to_owned(),
                client_id,
                scopes: scopes.to_string(),
                application: None,
            },
            secret_hash: secret::hash(&client_secret),
        };
        Ok(Plan { founding, client_secret })
    }

    async fn found_by(&self, origin: Origin, plan: Plan) -> Result<Founded, Error> {
        let Plan { founding, client_secret } = plan;
        let (organization, account) = self.committer.submit(origin, founding).await?.outcome;
        // Also where this was answered from the record: the first application is the one it was founded with.
        let first = {
            let known = self.gate.known();
            let own = known.applications.values().filter(|one| one.organization == organization.number);
            own.min_by_key(|one| one.number).map(|one| one.id)
        };
        Ok(Founded { organization, application_id: first, client_id: account.client_id, client_secret })
    }

    /// Every organization there is, newest first.
    pub fn organizations(&self, slice: Slice) -> (Vec<Organization>, bool) {
        let known = self.gate.known();
        let mut all: Vec<_> = known
            .organizations
            .values()
            .filter(|one| slice.after.is_none_or(|after| (one.created_at, one.id) < after))
            .collect();
        all.sort_unstable_by_key(|one| std::cmp::Reverse((one.created_at, one.id)));
        let more = all.len() > slice.limit as usize;
        all.truncate(slice.limit as usize);
        (all.into_iter().cloned().collect(), more)
    }

    /// One organization.
    pub fn organization(&self, id: Uuid) -> Result<Organization, Error> {
        let known = self.gate.known();
        let found = known.organizations.values().find(|one| one.id == id);
        found.cloned().ok_or(Error::NotFound(Thing::Organization))
    }

    /// Calls an organization something else.
    pub async fn rename_organization(
        &self,
        caller: &Caller,
        id: Uuid,
        name: &str,
    ) -> Result<Organization, Error> {
        let number = self.organization(id)?.number;
        let command = OrganizationCommand::Rename(OrganizationRenamed { name: checked_name("name", name)? });
        let change = ChangeOrganization { number, command };
        self.submit(caller, change).await
    }
}
