//! Admission hooks of media servers: made, listed, deleted, called.

use std::sync::Arc;

use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::admission_hook::{AdmissionHook, AdmissionHookCreated, AdmissionHookEvent};
use sessiond_core::caller::{Caller, Credential, CredentialKind};
use sessiond_core::ids::Position;
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::{Time, media_stream};
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::{Slice, WithSecret, checked_name, overlap};
use crate::committer::{ChangeStream, Origin};
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::secret::{self, labels};

/// Longest and shortest secret that may be chosen; bytes.
const LONGEST_SECRET: usize = 256;
const SHORTEST_SECRET: usize = 16;

/// A hook that is to be made.
#[derive(Debug)]
pub struct NewAdmissionHook {
    pub name: String,
    pub vhost: String,
    /// In seconds.
    pub lifetime: Option<u32>,
    /// What the media server signs with; made up if absent.
    pub secret: Option<String>,
}

/// The hooks that media servers call before they let somebody in.
#[derive(Clone)]
pub struct AdmissionHooks {
    context: Arc<AppContext>,
}

impl AdmissionHooks {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Makes a hook; its secret is shown this once.
    pub async fn create(
        &self,
        caller: &Caller,
        new: NewAdmissionHook,
    ) -> Result<WithSecret<AdmissionHook>, Error> {
        let once = caller.once.as_deref();
        let chosen = new.secret.clone();
        let secret = match &chosen {
            Some(secret) => checked_secret(secret)?.to_owned(),
            None => secret::hook_text(&secret::mint_signing_key(once)),
        };
        if let Some(made) = Origin::caller(caller).recorded::<ChangeStream<AdmissionHook>>()? {
            return Ok(WithSecret { made, secret: Some(secret) });
        }
        let name = checked_name("name", &new.name)?;
        let vhost =
            media_stream::checked_segment("vhost", &new.vhost).map_err(|what| Error::field("vhost", what))?;
        let id = secret::new_id();
        let created = AdmissionHookCreated { id, name, vhost: vhost.to_owned(), lifetime: new.lifetime };
        let sealed = self.context.key.seal(&labels::hook(id), secret.as_bytes());
        let side = vec![SideWrite::WebhookSecret { id, sealed }];
        let made =
            self.context.change_stream(caller, None, AdmissionHookEvent::Created(created), side).await?;
        Ok(WithSecret { made, secret: Some(secret) })
    }

    /// Lists the organization's hooks, newest first.
    pub fn list(&self, caller: &Caller, slice: Slice) -> (Vec<AdmissionHook>, bool) {
        let known = self.context.gate.known();
        let own = known
            .streams::<AdmissionHook>()
            .filter(|one| one.organization == caller.organization && one.deleted_at.is_none());
        let (page, more) = slice.page(own, |one| (one.created_at, one.id));
        (page.into_iter().cloned().collect(), more)
    }

    /// Finds a hook that is not deleted.
    pub fn find(&self, caller: &Caller, id: Uuid) -> Result<AdmissionHook, Error> {
        let hook = self.live_hook(id).filter(|hook| hook.organization == caller.organization);
        hook.ok_or(Error::NotFound(Thing::Hook))
    }

    /// Finds such a hook, whoever asks.
    fn live_hook(&self, id: Uuid) -> Option<AdmissionHook> {
        let known = self.context.gate.known();
        known.stream_by_id(id).filter(|hook: &&AdmissionHook| hook.deleted_at.is_none()).cloned()
    }

    /// Gives a hook another secret, chosen or made up; the old one is good no more, or as long as its owner says.
    pub async fn rotate_secret(
        &self,
        caller: &Caller,
        id: Uuid,
        chosen: Option<&str>,
        expire_old_at: Option<Time>,
    ) -> Result<WithSecret<AdmissionHook>, Error> {
        let hook = self.find(caller, id)?;
        let secret = match chosen {
            Some(secret) => checked_secret(secret)?.to_owned(),
            None => secret::hook_text(&secret::mint_signing_key(caller.once.as_deref())),
        };
        let rotated = overlap(&self.context, caller, expire_old_at)?;
        let sealed = self.context.key.seal(&labels::hook(id), secret.as_bytes());
        let side = vec![SideWrite::RotateWebhookSecret { id, sealed, before_until: rotated.old_until }];
        let (number, command) = (Some(hook.number), AdmissionHookEvent::SecretRotated(rotated));
        let made = self.context.change_stream(caller, number, command, side).await?;
        Ok(WithSecret { made, secret: Some(secret) })
    }

    /// Deletes a hook: it lets nobody in any more when this returns. What came in by it stays.
    pub async fn delete(&self, caller: &Caller, id: Uuid) -> Result<(), Error> {
        let hook = self.find(caller, id)?;
        let side = vec![SideWrite::ForgetWebhook(id)];
        self.context
            .change_stream::<AdmissionHook>(caller, Some(hook.number), AdmissionHookEvent::Deleted, side)
            .await
            .map(|_| ())
    }

    /// Finds the hook that is called, with the caller that its calls are made as, and the secrets of which one must have signed
    /// them.
    pub async fn called(&self, id: Uuid) -> Result<Option<(AdmissionHook, Caller, Vec<Vec<u8>>)>, Error> {
        let Some(hook) = self.live_hook(id) else { return Ok(None) };
        let Some(kept) = self.context.store.webhook_secret(id).await? else { return Ok(None) };
        let now = self.context.clock.now();
        let old = kept.before.filter(|(_, until)| now < *until).map(|(sealed, _)| sealed);
        let open = |sealed| self.context.key.open(&labels::hook(id), sealed);
        let secrets: Result<Vec<_>, _> =
            [Some(&kept.sealed), old.as_ref()].into_iter().flatten().map(|one| open(one)).collect();
        let secrets = secrets.map_err(|error| Error::Internal(error.to_string()))?;
        let caller = Caller {
            organization: hook.organization,
            organization_id: self.context.organization_id(hook.organization),
            actor: Actor { kind: ActorKind::Hook, id },
            principal: None,
            scopes: Scopes::default().with(Scope::Media),
            confined_to: None,
            bound_to: None,
            credential: Credential {
                kind: CredentialKind::Hook(id),
                issued_at: Position(i64::MAX),
                expires_at: Time::MAX_UTC,
                barred: false,
            },
            ended: None,
            request_id: None,
            traceparent: None,
            once: None,
        };
        Ok(Some((hook, caller, secrets)))
    }
}

fn checked_secret(secret: &str) -> Result<&str, Error> {
    let fits = (SHORTEST_SECRET..=LONGEST_SECRET).contains(&secret.len());
    if fits && secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(secret);
    }
    let message = format!(
        "secret must be {SHORTEST_SECRET} to {LONGEST_SECRET} visible ASCII characters; leave it out to have one made"
    );
    Err(Error::field("secret", message))
}
