//! Applications: made by their owners, or when another system first names one; and the media streams in them.

use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::application::{
    Application, ApplicationChanged, ApplicationCommand, ApplicationCreated, OauthClient,
};
use sessiond_core::caller::Caller;
use sessiond_core::idempotency::IdempotencyKey;
use sessiond_core::media_stream::{MediaStream, application_name};
use sessiond_core::policy::{ApplicationPolicy, Policy};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::{LONGEST, Slice, WithSecret, check_gift, checked_name, client_scopes, overlap};
use crate::committer::{ChangeApplication, CreateApplication, DeclareStream, EnsureApplication, Origin};
use crate::context::{AppContext, is_readable};
use crate::error::{Error, Thing};
use crate::gate::Summary;
use crate::secret;

/// The applications of organizations.
#[derive(Clone)]
pub struct Applications {
    context: Arc<AppContext>,
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

impl Applications {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Returns the server's policy, for what an application has not chosen for itself.
    pub fn server_policy(&self) -> Policy {
        self.context.policy
    }

    /// Lists the organization's applications, newest first.
    pub fn list(&self, caller: &Caller, archived: bool, slice: Slice) -> (Vec<(Application, Summary)>, bool) {
        let known = self.context.gate.known_at(self.context.clock.now());
        let own = known
            .streams::<Application>()
            .filter(|one| is_readable(caller, one) && (archived || one.archived_at.is_none()));
        let (page, more) = slice.page(own, |one| (one.created_at, one.id));
        (page.into_iter().map(|one| (one.clone(), known.summary(one.number))).collect(), more)
    }

    /// Finds an application, archived or not, with how many sessions it has.
    pub fn find(&self, caller: &Caller, id: Uuid) -> Result<(Application, Summary), Error> {
        let known = self.context.gate.known_at(self.context.clock.now());
        let one = known
            .application(id)
            .filter(|one| is_readable(caller, one))
            .ok_or(Error::NotFound(Thing::Application))?;
        Ok((one.clone(), known.summary(one.number)))
    }

    /// Finds the application whose gateway a caller asks for: the one named, else the one the credential is bound to. An archived
    /// one has no gateway. This runs for every request, so it counts no sessions.
    pub fn for_gateway(&self, caller: &Caller, named: Option<Uuid>) -> Option<Application> {
        let known = self.context.gate.known();
        let found = match named {
            Some(id) => known.application(id),
            None => caller.bound_to.and_then(|number| known.stream::<Application>(number)),
        };
        found.filter(|one| is_readable(caller, one) && one.archived_at.is_none()).cloned()
    }

    /// Makes an application; a confidential one gets a secret.
    pub async fn create(
        &self,
        caller: &Caller,
        new: NewApplication,
    ) -> Result<WithSecret<Application>, Error> {
        let (created, secret) = application_created(caller.once.as_deref(), new)?;
        check_gift(caller, Scopes::parse(&created.oauth.scopes.join(" ")).0)?;
        let organization = caller.organization;
        let secret_hash = secret.as_ref().map(|minted| minted.hash);
        let creation = CreateApplication { organization, created, secret_hash };
        let made = self.context.submit(caller, creation).await?;
        Ok(WithSecret { made, secret: secret.map(|minted| minted.text) })
    }

    /// Renames or describes an application.
    pub async fn change(
        &self,
        caller: &Caller,
        id: Uuid,
        name: Option<String>,
        description: Option<String>,
    ) -> Result<Application, Error> {
        let application = self.context.application(caller, id)?;
        let name = name.map(|name| checked_name("name", &name)).transpose()?;
        if description.as_ref().is_some_and(|text| text.chars().count() > 1_000) {
            return Err(Error::field("description", "description must be at most 1000 characters"));
        }
        if description.as_ref().is_some_and(|text| text.contains('\0')) {
            // Not every database keeps it, and nobody means it.
            return Err(Error::field("description", "description must not have the character U+0000"));
        }
        let changed = ApplicationChanged { name, description };
        self.context.submit(caller, ChangeApplication { number: application.number, changed }).await
    }

    /// Gives an application a new secret; the old one opens nothing from now on, or from when its owner says. Tokens issued
    /// before stay valid.
    pub async fn rotate_secret(
        &self,
        caller: &Caller,
        id: Uuid,
        expire_old_at: Option<Time>,
    ) -> Result<WithSecret<Application>, Error> {
        let application = self.context.application(caller, id)?;
        check_gift(caller, rights_of(&application))?;
        if application.oauth.r#type == "public" {
            let message = "a public application has no secret to rotate".to_owned();
            return Err(Error::Conflict { code: "public_application", message });
        }
        let minted = secret::mint_client_secret(caller.once.as_deref());
        let rotated = overlap(&self.context, caller, expire_old_at)?;
        let (number, command) = (Some(application.number.into()), ApplicationCommand::RotateSecret(rotated));
        let client_id = application.oauth.client_id;
        let secret =
            SideWrite::ClientSecret { client_id, secret_hash: minted.hash, before_until: rotated.old_until };
        let made = self.context.change_stream(caller, number, command, vec![secret]).await?;
        Ok(WithSecret { made, secret: Some(minted.text) })
    }

    /// Sets the policy of an application, for sessions opened from now on.
    pub async fn set_policy(
        &self,
        caller: &Caller,
        id: Uuid,
        policy: ApplicationPolicy,
    ) -> Result<Application, Error> {
        let application = self.context.application(caller, id)?;
        let (number, command) =
            (Some(application.number.into()), ApplicationCommand::SetPolicy(Box::new(policy)));
        self.context.change_stream(caller, number, command, vec![]).await
    }

    // ---- named by other systems ----

    /// Makes sure that there is a media stream of these names (virtual host, app, stream), and returns it.
    pub async fn declare_stream(&self, caller: &Caller, names: [String; 3]) -> Result<MediaStream, Error> {
        let application = self.named_by_others(&application_name(&names[0], &names[1])).map_err(|_| {
            Error::field("app", format!("vhost and app must be at most {} characters together", LONGEST - 1))
        })?;
        let organization = caller.organization;
        let declaration = DeclareStream { organization, id: secret::new_id(), names, application };
        Ok(self.context.committer.submit(once_less(caller), declaration).await?.outcome)
    }

    /// Finds the application of this name that is not archived; makes it if there is none.
    pub async fn ensure(&self, caller: &Caller, name: &str) -> Result<Application, Error> {
        let made = self.named_by_others(name)?;
        let found = self.live_named(caller, &made.name);
        if let Some(found) = found {
            return Ok(found);
        }
        let ensured = EnsureApplication { organization: caller.organization, created: made };
        Ok(self.context.committer.submit(once_less(caller), ensured).await?.outcome)
    }

    /// Finds the application of this name, if it is not archived.
    fn live_named(&self, caller: &Caller, name: &str) -> Option<Application> {
        let known = self.context.gate.known();
        let mut own = known
            .streams::<Application>()
            .filter(|one| is_readable(caller, one) && one.archived_at.is_none());
        own.find(|one| one.name == name).cloned()
    }

    /// Describes a new application that another system names.
    fn named_by_others(&self, name: &str) -> Result<ApplicationCreated, Error> {
        let new = NewApplication { name: name.to_owned(), ..NewApplication::default() };
        Ok(ApplicationCreated { on_the_way: true, ..application_created(None, new)?.0 })
    }
}

/// Describes a new application, with its secret if it is confidential.
pub(super) fn application_created(
    once: Option<&IdempotencyKey>,
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

/// Returns the rights that an application's client may ask for.
pub fn rights_of(application: &Application) -> Scopes {
    Scopes::parse(&application.oauth.scopes.join(" ")).0
}

/// Returns the origin of an operation that only prepares what the request is about, and may be done twice.
fn once_less(caller: &Caller) -> Origin {
    Origin { once: None, ..Origin::caller(caller) }
}
