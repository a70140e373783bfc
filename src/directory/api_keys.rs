//! API keys: made, listed, revoked.

use std::sync::Arc;

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::api_key::{ApiKey, ApiKeyCreated, ApiKeyEvent};
use sessiond_core::caller::Caller;
use sessiond_core::ids::{OrganizationNumber, PrincipalNumber};
use sessiond_core::principal::OWN_USERS;
use sessiond_core::scope::{Scope, Scopes};
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::{Slice, check_gift, checked_name, known_scopes, overlap};
use crate::committer::{ChangeStream, IntroducePrincipal, Origin};
use crate::context::AppContext;
use crate::directory::WithSecret;
use crate::error::{Error, Thing};
use crate::secret::{self, TokenKind};

/// The longest life of keys of the workload surface.
const YEAR: TimeDelta = TimeDelta::days(365);
/// The longest life of any key that has an end.
const CENTURY: TimeDelta = TimeDelta::days(36_525);
/// Longest id, name or e-mail address of a user; bytes.
const LONGEST: usize = 320;

/// A key that is to be made.
#[derive(Debug)]
pub struct NewKey {
    pub name: String,
    pub scopes: Vec<String>,
    pub expires_at: Option<Time>,
    pub user: Option<User>,
}

/// The person a key acts for.
#[derive(Debug, Clone)]
pub struct User {
    pub id: String,
    pub name: Option<String>,
    pub email: Option<String>,
}

/// A key as it is shown.
#[derive(Debug)]
pub struct KeyView {
    pub key: ApiKey,
    pub last_used_at: Option<Time>,
    /// The person it acts for, with the id of that principal. What was erased is gone from here too.
    pub user: Option<(Uuid, User)>,
}

/// API keys.
#[derive(Clone)]
pub struct ApiKeys {
    context: Arc<AppContext>,
}

impl ApiKeys {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Makes an API key; its text is shown this once.
    pub async fn create(&self, caller: &Caller, new: NewKey) -> Result<WithSecret<KeyView>, Error> {
        let once = caller.once.as_deref();
        if let Some(key) = Origin::caller(caller).recorded::<ChangeStream<ApiKey>>()? {
            let secret = Some(secret::mint_for(once, TokenKind::ApiKey, key.id).text);
            return Ok(WithSecret { made: self.shown(key).await?, secret });
        }
        let name = checked_name("name", &new.name)?;
        let scopes = known_scopes("scopes", &new.scopes)?;
        if scopes.is_empty() {
            return Err(Error::field("scopes", "scopes must name at least one scope"));
        }
        check_gift(caller, scopes)?;
        let expires_at = self.expiry(new.expires_at, scopes.has(Scope::Session))?;
        let principal = match &new.user {
            Some(user) => {
                check_user(user)?;
                Some(self.own_user(caller.organization, user).await?)
            }
            None => None,
        };
        let id = secret::new_id();
        let minted = secret::mint_for(once, TokenKind::ApiKey, id);
        let created = ApiKeyCreated { id, name, scopes: scopes.to_string(), principal, expires_at };
        let side = vec![SideWrite::ApiKeySecret { id, secret_hash: minted.hash }];
        let key: ApiKey =
            self.context.change_stream(caller, None, ApiKeyEvent::Created(created), side).await?;
        Ok(WithSecret { made: self.shown(key).await?, secret: Some(minted.text) })
    }

    /// Reads when a new key is to expire.
    fn expiry(&self, wanted: Option<Time>, workloads: bool) -> Result<Option<Time>, Error> {
        let now = self.context.clock.now();
        let longest = now + if workloads { YEAR } else { CENTURY };
        match wanted {
            None => Ok(workloads.then_some(longest)),
            Some(at) if at <= now => Err(Error::field("expiresAt", "expiresAt must be in the future")),
            Some(at) if at > longest && workloads => {
                Err(Error::field("expiresAt", "a key with the scope session lives at most one year"))
            }
            Some(at) if at > longest => Err(Error::field(
                "expiresAt",
                "expiresAt is too far away; leave it out for a key without end",
            )),
            Some(at) => Ok(Some(at)),
        }
    }

    /// Finds the principal behind a user of the organization's own naming; makes it if it is new.
    async fn own_user(
        &self,
        organization: OrganizationNumber,
        user: &User,
    ) -> Result<PrincipalNumber, Error> {
        let introduction = IntroducePrincipal {
            organization,
            issuer: OWN_USERS.to_owned(),
            subject: user.id.clone(),
            subject_digest: self.context.key.subject_digest(OWN_USERS, &user.id),
            name: user.name.clone(),
            email: user.email.clone(),
        };
        self.context.introduce(introduction).await
    }

    /// Lists the organization's API keys, newest first; revoked ones where they are asked for.
    pub async fn list(
        &self,
        caller: &Caller,
        revoked: bool,
        slice: Slice,
    ) -> Result<(Vec<KeyView>, bool), Error> {
        let (keys, more) = {
            let known = self.context.gate.known();
            let own = known.streams::<ApiKey>().filter(|key| {
                key.organization == caller.organization && (revoked || key.revoked_at.is_none())
            });
            let (page, more) = slice.page(own, |key| (key.created_at, key.id));
            (page.into_iter().cloned().collect::<Vec<_>>(), more)
        };
        let mut shown = Vec::with_capacity(keys.len());
        for key in keys {
            shown.push(self.shown(key).await?);
        }
        Ok((shown, more))
    }

    /// Finds an API key, revoked or not.
    pub async fn find(&self, caller: &Caller, id: Uuid) -> Result<KeyView, Error> {
        self.shown(self.own_key(caller, id)?).await
    }

    /// Revokes an API key: it opens nothing any more when this returns. Revoking twice is success.
    pub async fn revoke(&self, caller: &Caller, id: Uuid) -> Result<(), Error> {
        let key = self.own_key(caller, id)?;
        check_gift(caller, Scopes::parse(&key.scopes).0)?;
        self.context
            .change_stream::<ApiKey>(caller, Some(key.number), ApiKeyEvent::Revoked, vec![])
            .await
            .map(|_| ())
    }

    /// Gives an API key another secret; the old one opens nothing from now on, or from when its owner says. Its text is shown
    /// this once.
    pub async fn rotate_secret(
        &self,
        caller: &Caller,
        id: Uuid,
        expire_old_at: Option<Time>,
    ) -> Result<WithSecret<KeyView>, Error> {
        let key = self.own_key(caller, id)?;
        check_gift(caller, Scopes::parse(&key.scopes).0)?;
        let minted = secret::mint_for(caller.once.as_deref(), TokenKind::ApiKey, id);
        let rotated = overlap(&self.context, caller, expire_old_at)?;
        let side = vec![SideWrite::RotateApiKeySecret { id, secret_hash: minted.hash }];
        let (number, command) = (Some(key.number), ApiKeyEvent::SecretRotated(rotated));
        let made = self.context.change_stream(caller, number, command, side).await?;
        Ok(WithSecret { made: self.shown(made).await?, secret: Some(minted.text) })
    }

    /// Records when keys were last used. Returns how many were.
    pub async fn write_uses(&self) -> Result<usize, Error> {
        let used = self.context.gate.known().key_secrets.unrecorded();
        let count = used.len();
        if count > 0 {
            self.context.write_beside(SideWrite::ApiKeysUsed(used)).await?;
        }
        Ok(count)
    }

    fn own_key(&self, caller: &Caller, id: Uuid) -> Result<ApiKey, Error> {
        let known = self.context.gate.known();
        let own = known.stream_by_id::<ApiKey>(id).filter(|key| key.organization == caller.organization);
        own.cloned().ok_or(Error::NotFound(Thing::ApiKey))
    }

    async fn shown(&self, key: ApiKey) -> Result<KeyView, Error> {
        let user = match key.principal {
            Some(number) => self.context.store.principal(number).await?.map(|row| {
                let id = row.principal.subject.clone().unwrap_or_default();
                (row.principal.id(), User { id, name: row.name, email: row.email })
            }),
            None => None,
        };
        let last_used_at = self.context.gate.known().key_secrets.used_at(key.id);
        Ok(KeyView { key, last_used_at, user })
    }
}

fn check_user(user: &User) -> Result<(), Error> {
    for (field, text) in
        [("user.id", Some(&user.id)), ("user.name", user.name.as_ref()), ("user.email", user.email.as_ref())]
    {
        let Some(text) = text else { continue };
        if text.trim().is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
            let message = format!("{field} must be 1 to {LONGEST} bytes, without control characters");
            return Err(Error::field(field, message));
        }
    }
    Ok(())
}
