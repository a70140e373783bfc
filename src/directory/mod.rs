//! The application, as far as the directory goes: organizations, applications, service accounts and their tokens.

mod api_keys;
mod hooks;
mod issuers;
mod machines;
mod organizations;
mod principals;
mod service_accounts;
mod streams;
mod tokens;
mod upstreams;
mod webhooks;

use std::sync::Arc;

use sessiond_core::application::{Application, ApplicationChanged, ApplicationCreated, OauthClient};
use sessiond_core::caller::Caller;
use sessiond_core::once::Once;
use sessiond_core::organization::Organization;
use sessiond_core::policy::{ApplicationPolicy, Policy};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::streams::Registered;
use sessiond_store::{SideWrite, Store};
use uuid::Uuid;

use crate::clock::Clock;
use crate::committer::{
    ChangeApplication, ChangeStream, Committer, CreateApplication, CreateOrganization, Operation, Origin,
    RotateApplicationSecret, SetPolicy,
};
use crate::error::{Error, Thing};
use crate::gate::{Gate, Summary};
use crate::secret::{self, SecretKey};

pub use api_keys::{KeyView, NewKey, User};
pub use hooks::NewHook;
pub use issuers::NewIssuer;
pub use machines::{ChangedMachine, MachineSecret, NewMachine};
pub use principals::{Person, PersonQuery};
pub use upstreams::{NewUpstream, UpstreamSecret};
pub use webhooks::{NewWebhook, SigningKeys};

/// Longest name or description.
const LONGEST: usize = 200;
/// Shortest secret that may be chosen from outside.
pub const SHORTEST_SECRET: usize = 32;

/// Organizations, applications, service accounts.
pub struct Directory {
    committer: Committer,
    gate: Arc<Gate>,
    reader: Arc<dyn Store>,
    clock: Clock,
    key: SecretKey,
    policy: Policy,
}

/// How a new application is to authenticate.
#[derive(Debug, Default)]
pub struct NewApplication {
    pub name: String,
    /// `confidential` or `public`; confidential if not said.
    pub kind: Option<String>,
    pub redirect_uris: Vec<String>,
    pub pkce_required: Option<bool>,
    pub scopes: Option<Vec<String>>,
    pub allowed_resources: Vec<String>,
}

/// Something that was made, with the secret that is shown this once.
pub struct WithSecret<T> {
    pub made: T,
    pub secret: Option<String>,
}

/// Credentials chosen from outside for the first service account.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub client_id: String,
    pub client_secret: String,
}

/// An organization that could be founded.
pub struct Plan {
    founding: CreateOrganization,
    client_secret: String,
}

impl Plan {
    /// What is to be shown of it, once.
    pub fn credentials(&self) -> Credentials<'_> {
        let CreateOrganization { organization, application, account, .. } = &self.founding;
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

/// An organization that was just founded.
pub struct Founded {
    pub organization: Organization,
    pub application_id: Option<Uuid>,
    pub client_id: String,
    pub client_secret: String,
}

/// An issued access token.
pub struct Issued {
    pub token: String,
    pub scopes: Scopes,
    /// Seconds.
    pub expires_in: u32,
}

/// Where a page of a directory list begins, and how long it is.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    pub after: Option<(sessiond_core::Time, Uuid)>,
    pub limit: u32,
}

impl Directory {
    pub fn new(
        committer: Committer,
        gate: Arc<Gate>,
        reader: Arc<dyn Store>,
        clock: Clock,
        key: SecretKey,
        policy: Policy,
    ) -> Self {
        Self { committer, gate, reader, clock, key, policy }
    }

    // ---- applications ----

    /// The organization's applications, newest first.
    pub fn applications(
        &self,
        caller: &Caller,
        archived: bool,
        slice: Slice,
    ) -> (Vec<(Application, Summary)>, bool) {
        let known = self.gate.known_at(self.clock.now());
        let mut own: Vec<_> = known
            .applications
            .values()
            .filter(|one| one.organization == caller.organization && caller.may_touch(one.number))
            .filter(|one| archived || one.archived_at.is_none())
            .filter(|one| slice.after.is_none_or(|after| (one.created_at, one.id) < after))
            .collect();
        own.sort_unstable_by_key(|one| std::cmp::Reverse((one.created_at, one.id)));
        let more = own.len() > slice.limit as usize;
        own.truncate(slice.limit as usize);
        (own.into_iter().map(|one| (one.clone(), known.summary(one.number))).collect(), more)
    }

    /// One application, archived or not, with how many sessions it has.
    pub fn application(&self, caller: &Caller, id: Uuid) -> Result<(Application, Summary), Error> {
        let known = self.gate.known_at(self.clock.now());
        let one = known
            .application(id)
            .filter(|one| one.organization == caller.organization && caller.may_touch(one.number))
            .ok_or(Error::NotFound(Thing::Application))?;
        Ok((one.clone(), known.summary(one.number)))
    }

    /// The application whose gateway a caller wants: the one named, else the one the credential is bound to. An archived
    /// one has none. For every request, so it counts nothing.
    pub fn gateway_application(&self, caller: &Caller, named: Option<Uuid>) -> Option<Application> {
        let known = self.gate.known();
        let found = match named {
            Some(id) => known.application(id),
            None => caller.bound_to.and_then(|number| known.applications.get(&number)),
        };
        found
            .filter(|one| one.organization == caller.organization && caller.may_touch(one.number))
            .filter(|one| one.archived_at.is_none())
            .cloned()
    }

    /// Makes an application; a confidential one gets a secret.
    pub async fn create_application(
        &self,
        caller: &Caller,
        new: NewApplication,
    ) -> Result<WithSecret<Application>, Error> {
        let (created, secret) = self.application_created(caller.once.as_deref(), new)?;
        check_gift(caller, Scopes::parse(&created.oauth.scopes.join(" ")).0)?;
        let organization = caller.organization;
        let secret_hash = secret.as_ref().map(|minted| minted.hash);
        let creation = CreateApplication { organization, created, secret_hash };
        let made = self.submit(caller, creation).await?;
        Ok(WithSecret { made, secret: secret.map(|minted| minted.text) })
    }

    fn application_created(
        &self,
        once: Option<&Once>,
        new: NewApplication,
    ) -> Result<(ApplicationCreated, Option<secret::Minted>), Error> {
        let kind = new.kind.unwrap_or_else(|| "confidential".to_owned());
        let secret = match kind.as_str() {
            "confidential" => Some(secret::mint_client_secret(once)),
            "public" => None,
            _ => return Err(Error::field("oauth.type", "oauth.type must be \"confidential\" or \"public\"")),
        };
        let scopes = new.scopes.unwrap_or_else(|| vec![Scope::McpInvoke.word().to_owned()]);
        client_scopes("oauth.scopes", &scopes)?;
        let id = secret::new_id();
        let oauth = OauthClient {
            client_id: format!("app_{id}"),
            r#type: kind,
            redirect_uris: new.redirect_uris,
            pkce_required: new.pkce_required.unwrap_or(true),
            scopes,
            allowed_resources: new.allowed_resources,
        };
        let name = checked_name("name", &new.name)?;
        Ok((ApplicationCreated { id, name, oauth, on_the_way: false }, secret))
    }

    /// Renames or describes an application.
    pub async fn change_application(
        &self,
        caller: &Caller,
        id: Uuid,
        name: Option<String>,
        description: Option<String>,
    ) -> Result<Application, Error> {
        let (application, _) = self.application(caller, id)?;
        let name = name.map(|name| checked_name("name", &name)).transpose()?;
        if description.as_ref().is_some_and(|text| text.chars().count() > 1_000) {
            return Err(Error::field("description", "description must be at most 1000 characters"));
        }
        let changed = ApplicationChanged { name, description };
        self.submit(caller, ChangeApplication { number: application.number, changed }).await
    }

    /// Gives an application a new secret; the old one opens nothing from now on. Tokens issued before stay valid.
    pub async fn rotate_application_secret(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> Result<WithSecret<Application>, Error> {
        let (application, _) = self.application(caller, id)?;
        check_gift(caller, rights_of(&application))?;
        if application.oauth.r#type == "public" {
            let message = "a public application has no secret to rotate".to_owned();
            return Err(Error::Conflict { code: "public_application", message });
        }
        let minted = secret::mint_client_secret(caller.once.as_deref());
        let rotation = RotateApplicationSecret { number: application.number, secret_hash: minted.hash };
        let made = self.submit(caller, rotation).await?;
        Ok(WithSecret { made, secret: Some(minted.text) })
    }

    /// Sets the policy of an application, for sessions opened from now on.
    pub async fn set_policy(
        &self,
        caller: &Caller,
        id: Uuid,
        policy: ApplicationPolicy,
    ) -> Result<Application, Error> {
        let (application, _) = self.application(caller, id)?;
        self.submit(caller, SetPolicy { number: application.number, policy }).await
    }

    /// What an operation comes to that a caller wants.
    async fn submit<O: Operation>(&self, caller: &Caller, operation: O) -> Result<O::Outcome, Error> {
        Ok(self.committer.submit(Origin::caller(caller), operation).await?.outcome)
    }

    /// Does what a caller wants of a stream of its organization; without a number, of a new one.
    async fn change_stream<S>(
        &self,
        caller: &Caller,
        number: Option<i64>,
        command: S::Command,
        side: Vec<SideWrite>,
    ) -> Result<S, Error>
    where
        S: Registered<Command: Send> + Send + Sync,
    {
        let organization = caller.organization;
        self.submit(caller, ChangeStream { organization, number, command, side }).await
    }
}

fn checked_name(field: &'static str, name: &str) -> Result<String, Error> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > LONGEST || name.chars().any(char::is_control) {
        let message = format!("{field} must be 1 to {LONGEST} characters, without control characters");
        return Err(Error::field(field, message));
    }
    Ok(name.to_owned())
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

/// Scopes by their words; what is no word of ours is refused.
fn known_scopes(field: &'static str, words: &[String]) -> Result<Scopes, Error> {
    let mut scopes = Scopes::default();
    for word in words {
        scopes = scopes.with(Scope::from_word(word).ok_or_else(|| Error::field(field, unknown_scope(word)))?);
    }
    Ok(scopes)
}

/// The same for an OAuth client: the words of other surfaces are for API keys.
fn client_scopes(field: &'static str, words: &[String]) -> Result<Scopes, Error> {
    let scopes = known_scopes(field, words)?;
    match scopes.iter().find(|scope| scope.is_for_keys()) {
        Some(scope) => Err(Error::field(field, format!("{} is for API keys only", scope.word()))),
        None => Ok(scopes),
    }
}

/// Nobody gives away, or takes from others, more than they have.
fn check_gift(caller: &Caller, scopes: Scopes) -> Result<(), Error> {
    Error::unless_may_give(caller.scopes, scopes)
}

/// The rights that an application's client may ask for.
pub fn rights_of(application: &Application) -> Scopes {
    Scopes::parse(&application.oauth.scopes.join(" ")).0
}

fn unknown_scope(word: &str) -> String {
    let all: Vec<_> = Scope::ALL.into_iter().map(Scope::word).collect();
    format!("unknown scope {word:?}; there are: {}", all.join(", "))
}
