//! What whoever stands at the console does while the service is stopped: a lost secret is replaced, and a restore is written
//! down.

use std::sync::Arc;

use sessiond_core::api_key::ApiKey;
use sessiond_core::application::Application;
use sessiond_core::organization::{Organization, OrganizationRestored};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::{ServiceAccount, ServiceAccountCreated};
use sessiond_core::stream::Stream;
use uuid::Uuid;

use super::Credentials;
use crate::committer::{CreateServiceAccount, Origin, RecordRestore, ResetServiceAccount};
use crate::context::AppContext;
use crate::error::Error;
use crate::secret;

/// What the name of a service account is that is made because there is none left.
const NEW_ACCOUNT: &str = "recovered";

/// What is done at the console.
#[derive(Clone)]
pub struct Recovery {
    context: Arc<AppContext>,
}

/// A service account that could be given another secret.
pub struct Reset {
    organization: Organization,
    /// None: there is no administrator left, so one is made.
    account: Option<ServiceAccount>,
    id: Uuid,
    client_id: String,
    client_secret: String,
}

impl Reset {
    /// Returns what is to be shown of it, once.
    pub fn credentials(&self) -> Credentials<'_> {
        Credentials {
            organization: (&self.organization.name, self.organization.id),
            application: None,
            client_id: &self.client_id,
            client_secret: &self.client_secret,
        }
    }

    /// The name of the service account.
    pub fn name(&self) -> &str {
        self.account.as_ref().map_or(NEW_ACCOUNT, |account| &account.name)
    }
}

/// What a restore cannot judge: secrets that are as they were when the backup was taken. By name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LeftOpen {
    pub api_keys: Vec<String>,
    pub service_accounts: Vec<String>,
    /// Those that authenticate with a secret.
    pub applications: Vec<String>,
}

impl Recovery {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Plans another secret for an administrator of an organization: for the account that is named, else for the only
    /// one there is, else for one that is made. Nothing is changed yet.
    pub fn plan(&self, organization: &str, account: Option<&str>) -> Result<Reset, Error> {
        let organization = self.organization(organization)?;
        let account = self.account(&organization, account)?;
        let id = account.as_ref().map_or_else(secret::new_id, |account| account.id);
        let client_id = account.as_ref().map_or_else(|| format!("sa_{id}"), |one| one.client_id.clone());
        let client_secret = secret::mint_client_secret(None).text;
        Ok(Reset { organization, account, id, client_id, client_secret })
    }

    /// Does what was planned: the secret before and the tokens that were issued for it open nothing more.
    pub async fn reset(&self, reset: Reset) -> Result<(), Error> {
        let Reset { organization, account, id, client_id, client_secret } = reset;
        let secret_hash = secret::hash(&client_secret);
        let (origin, number) = (Origin::operator(), organization.number);
        if let Some(account) = account {
            let reset =
                ResetServiceAccount { organization: number, number: account.number, client_id, secret_hash };
            return self.context.committer.submit(origin, reset).await.map(|_| ());
        }
        // Whoever runs the installation ran it with an account of this organization.
        let scopes = Scopes::default().with(Scope::ManagementAll).with(Scope::McpInvoke);
        let scopes = if number.is_operators() { scopes.with(Scope::PlatformAdmin) } else { scopes };
        let created = ServiceAccountCreated {
            id,
            name: NEW_ACCOUNT.to_owned(),
            client_id,
            scopes: scopes.to_string(),
            application: None,
        };
        let creation = CreateServiceAccount { organization: number, created, secret_hash };
        self.context.committer.submit(origin, creation).await.map(|_| ())
    }

    /// Writes down that the installation was restored from a backup, which bars what was issued before unless that is kept.
    /// Returns how many API keys were revoked.
    pub async fn record_restore(
        &self,
        restored: OrganizationRestored,
        revoke_keys: bool,
    ) -> Result<u64, Error> {
        let record = RecordRestore { restored, revoke_keys };
        Ok(self.context.committer.submit(Origin::operator(), record).await?.outcome)
    }

    /// Lists the secrets that open something, whatever became of them after the backup.
    pub fn left_open(&self) -> LeftOpen {
        let known = self.context.gate.known();
        let accounts = known.streams::<ServiceAccount>().filter(|one| one.archived_at.is_none());
        let applications = known
            .streams::<Application>()
            .filter(|one| one.archived_at.is_none() && !one.on_the_way && one.oauth.r#type == "confidential");
        let keys = known.streams::<ApiKey>().filter(|key| key.exists());
        LeftOpen {
            api_keys: keys.map(|key| key.name.clone()).collect(),
            service_accounts: accounts.map(|one| one.name.clone()).collect(),
            applications: applications.map(|one| one.name.clone()).collect(),
        }
    }

    fn organization(&self, wanted: &str) -> Result<Organization, Error> {
        let known = self.context.gate.known();
        let named = |one: &&Organization| one.name == wanted || one.id.to_string() == wanted;
        let found: Vec<_> = known.streams::<Organization>().filter(named).cloned().collect();
        let all = known.streams::<Organization>().map(|one| format!("{} ({})", one.name, one.id));
        one_of(found, wanted, "organization", all.collect())
    }

    /// The account that is meant; none where one has to be made.
    fn account(
        &self,
        organization: &Organization,
        wanted: Option<&str>,
    ) -> Result<Option<ServiceAccount>, Error> {
        let known = self.context.gate.known();
        let own = known.streams::<ServiceAccount>();
        let own = own.filter(|one| one.organization == organization.number && one.archived_at.is_none());
        let meant = |one: &&ServiceAccount| match wanted {
            Some(wanted) => one.name == wanted || one.id.to_string() == wanted || one.client_id == wanted,
            None => one.scopes.has(Scope::ManagementAll),
        };
        let (found, others): (Vec<_>, Vec<_>) = own.partition(meant);
        let shown = |one: &&ServiceAccount| format!("{} ({})", one.name, one.id);
        match wanted {
            None if found.is_empty() => Ok(None),
            None if found.len() > 1 => {
                let message = format!(
                    "{} has several administrators; say with --service-account which one is to get another secret: {}",
                    organization.name,
                    found.iter().map(shown).collect::<Vec<_>>().join(", ")
                );
                Err(Error::field("service account", message))
            }
            wanted => {
                let all = found.iter().chain(&others).map(shown).collect();
                let found = found.into_iter().cloned().collect();
                one_of(found, wanted.unwrap_or_default(), "service account", all).map(Some)
            }
        }
    }
}

/// The one that is meant by a name or an id.
fn one_of<T>(mut found: Vec<T>, wanted: &str, what: &'static str, all: Vec<String>) -> Result<T, Error> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => {
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            Err(Error::field(what, format!("there is no {what} {wanted:?}; there are: {all}")))
        }
        (Some(_), false) => {
            let all = all.join(", ");
            Err(Error::field(
                what,
                format!("several are called {wanted:?}; name the {what} by its id: {all}"),
            ))
        }
    }
}
