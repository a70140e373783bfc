//! Organizations: created, listed, renamed.

use std::sync::Arc;

use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use sessiond_core::organization::{
    Organization, OrganizationCommand, OrganizationCreated, OrganizationRenamed,
};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::ServiceAccountCreated;
use uuid::Uuid;

use super::applications::application_created;
use super::{LONGEST, NewApplication, SHORTEST_SECRET, Slice, checked_name};
use crate::committer::{ChangeOrganization, CreateOrganization, Origin};
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::secret;

/// Credentials chosen from outside for the first service account.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub client_id: String,
    pub client_secret: String,
}

/// An organization that could be created.
pub struct Plan {
    creation: CreateOrganization,
    client_secret: String,
}

impl Plan {
    /// Returns what is to be shown of it, once.
    pub fn credentials(&self) -> Credentials<'_> {
        let CreateOrganization { organization, application, account, .. } = &self.creation;
        Credentials {
            organization: (&organization.name, organization.id),
            application: application.as_ref().map(|application| application.id),
            client_id: &account.client_id,
            client_secret: &self.client_secret,
        }
    }
}

/// The credentials of an organization's first service account.
pub struct Credentials<'a> {
    /// Its name and id.
    pub organization: (&'a str, Uuid),
    pub application: Option<Uuid>,
    pub client_id: &'a str,
    pub client_secret: &'a str,
}

/// An organization that was just created.
pub struct CreatedOrganization {
    pub organization: Organization,
    pub application_id: Option<Uuid>,
    pub client_id: String,
    pub client_secret: String,
}

/// The organizations of the installation.
#[derive(Clone)]
pub struct Organizations {
    context: Arc<AppContext>,
}

impl Organizations {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Whether there is no organization yet.
    pub fn is_empty(&self) -> bool {
        self.context.gate.known().streams::<Organization>().next().is_none()
    }

    /// Plans, at the console, an organization with an application `default` and a service account that may do everything in it,
    /// and with `platform` run the installation too. Nothing is made yet: its credentials are shown once, and whoever
    /// cannot be shown them should not have them made.
    pub fn plan(&self, name: &str, chosen: Option<Chosen>, platform: bool) -> Result<Plan, Error> {
        let more = Scopes::default();
        let more = if platform { more.with(Scope::PlatformAdmin) } else { more };
        self.plan_by(&Origin::operator(), name, chosen, more)
    }

    /// Creates, at the console, what was planned.
    pub async fn create_planned(&self, plan: Plan) -> Result<CreatedOrganization, Error> {
        self.create_by(Origin::operator(), plan).await
    }

    /// Plans and creates an organization at once, where there is nobody to show its credentials to.
    pub async fn create(&self, name: &str, chosen: Option<Chosen>) -> Result<CreatedOrganization, Error> {
        let plan = self.plan(name, chosen, false)?;
        self.create_planned(plan).await
    }

    /// Creates, for a caller who runs the installation, an organization as [`Organizations::plan`] has it.
    pub async fn create_for(&self, caller: &Caller, name: &str) -> Result<CreatedOrganization, Error> {
        let origin = Origin::caller(caller);
        let plan = self.plan_by(&origin, name, None, Scopes::default())?;
        self.create_by(origin, plan).await
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
        let (application, application_secret) = application_created(None, application)?;
        let scopes = more.with(Scope::ManagementAll).with(Scope::McpInvoke);
        let creation = CreateOrganization {
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
        Ok(Plan { creation, client_secret })
    }

    async fn create_by(&self, origin: Origin, plan: Plan) -> Result<CreatedOrganization, Error> {
        let Plan { creation, client_secret } = plan;
        let (organization, account) = self.context.committer.submit(origin, creation).await?.outcome;
        // This holds for an answer from the record too: the first application is the one it was created with.
        let first = {
            let known = self.context.gate.known();
            let own = known.streams::<Application>().filter(|one| one.organization == organization.number);
            own.min_by_key(|one| one.number).map(|one| one.id)
        };
        Ok(CreatedOrganization {
            organization,
            application_id: first,
            client_id: account.client_id,
            client_secret,
        })
    }

    /// Lists all organizations, newest first.
    pub fn list(&self, slice: Slice) -> (Vec<Organization>, bool) {
        let known = self.context.gate.known();
        let (page, more) = slice.page(known.streams::<Organization>(), |one| (one.created_at, one.id));
        (page.into_iter().cloned().collect(), more)
    }

    /// Finds an organization.
    pub fn find(&self, id: Uuid) -> Result<Organization, Error> {
        let known = self.context.gate.known();
        known.stream_by_id(id).cloned().ok_or(Error::NotFound(Thing::Organization))
    }

    /// Renames an organization.
    pub async fn rename(&self, caller: &Caller, id: Uuid, name: &str) -> Result<Organization, Error> {
        let number = self.find(id)?.number;
        let command = OrganizationCommand::Rename(OrganizationRenamed { name: checked_name("name", name)? });
        let change = ChangeOrganization { number, command };
        self.context.submit(caller, change).await
    }
}

fn check_chosen(chosen: &Chosen) -> Result<(), Error> {
    if chosen.client_id.is_empty() || chosen.client_id.len() > LONGEST || chosen.client_id.contains(':') {
        return Err(Error::field(
            "client id",
            "the bootstrap client id must be 1 to 200 bytes without a colon",
        ));
    }
    if chosen.client_secret.len() < SHORTEST_SECRET {
        let message = format!("the bootstrap client secret must have at least {SHORTEST_SECRET} characters");
        return Err(Error::field("client secret", message));
    }
    Ok(())
}
