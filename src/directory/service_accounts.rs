//! Service accounts: what an organization's own programs authenticate as.

use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::{ServiceAccount, ServiceAccountCommand, ServiceAccountCreated};
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::{Slice, WithSecret, check_gift, checked_name, client_scopes, overlap};
use crate::committer::CreateServiceAccount;
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::secret;

/// Service accounts.
#[derive(Clone)]
pub struct ServiceAccounts {
    context: Arc<AppContext>,
}

impl ServiceAccounts {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Lists the organization's service accounts, newest first.
    pub fn list(&self, caller: &Caller, archived: bool, slice: Slice) -> (Vec<ServiceAccount>, bool) {
        let known = self.context.gate.known();
        let own = known
            .streams::<ServiceAccount>()
            .filter(|one| one.organization == caller.organization && (archived || one.archived_at.is_none()));
        let (page, more) = slice.page(own, |one| (one.created_at, one.id));
        (page.into_iter().cloned().collect(), more)
    }

    /// Finds a service account, archived or not.
    pub fn find(&self, caller: &Caller, id: Uuid) -> Result<ServiceAccount, Error> {
        let known = self.context.gate.known();
        known
            .stream_by_id::<ServiceAccount>(id)
            .filter(|one| one.organization == caller.organization)
            .cloned()
            .ok_or(Error::NotFound(Thing::ServiceAccount))
    }

    /// Returns the id of the application a service account is bound to.
    pub fn bound_application(&self, account: &ServiceAccount) -> Option<Uuid> {
        account.application.map(|number| self.context.gate.known().application_id(number))
    }

    /// Makes a service account with its secret. Nobody gives away more than they have.
    pub async fn create(
        &self,
        caller: &Caller,
        name: &str,
        scopes: Option<&[String]>,
        application: Option<Uuid>,
    ) -> Result<WithSecret<ServiceAccount>, Error> {
        let scopes = match scopes {
            None => Scopes::default().with(Scope::ManagementAll),
            Some(words) => client_scopes("scopes", words)?,
        };
        if scopes.is_empty() {
            return Err(Error::field("scopes", "scopes must name at least one scope"));
        }
        check_gift(caller, scopes)?;
        let application = application.map(|id| self.context.application_number(caller, id)).transpose()?;
        let id = secret::new_id();
        let minted = secret::mint_client_secret(caller.once.as_deref());
        let created = ServiceAccountCreated {
            id,
            name: checked_name("name", name)?,
            client_id: format!("sa_{id}"),
            scopes: scopes.to_string(),
            application,
        };
        let organization = caller.organization;
        let creation = CreateServiceAccount { organization, created, secret_hash: minted.hash };
        let made = self.context.submit(caller, creation).await?;
        Ok(WithSecret { made, secret: Some(minted.text) })
    }

    /// Gives a service account a new secret; the old one opens nothing from now on, or from when its owner says.
    pub async fn rotate_secret(
        &self,
        caller: &Caller,
        id: Uuid,
        expire_old_at: Option<Time>,
    ) -> Result<WithSecret<ServiceAccount>, Error> {
        let account = self.find(caller, id)?;
        check_gift(caller, account.scopes)?;
        let minted = secret::mint_client_secret(caller.once.as_deref());
        let rotated = overlap(&self.context, caller, expire_old_at)?;
        let (number, command) = (Some(account.number.into()), ServiceAccountCommand::RotateSecret(rotated));
        let secret = SideWrite::ClientSecret {
            client_id: account.client_id,
            secret_hash: minted.hash,
            before_until: rotated.old_until,
        };
        let made = self.context.change_stream(caller, number, command, vec![secret]).await?;
        Ok(WithSecret { made, secret: Some(minted.text) })
    }

    /// Archives a service account: it gets no more tokens, and those it has open nothing.
    pub async fn archive(&self, caller: &Caller, id: Uuid) -> Result<ServiceAccount, Error> {
        let account = self.find(caller, id)?;
        check_gift(caller, account.scopes)?;
        let (number, command) = (Some(account.number.into()), ServiceAccountCommand::Archive);
        self.context.change_stream(caller, number, command, vec![]).await
    }
}
