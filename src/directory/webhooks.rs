//! Webhooks in the directory: what their owners do with them, and what the outbox needs to know and to keep.

use std::sync::Arc;

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::delivery::{Delivery, DeliveryStatus};
use sessiond_core::ids::Position;
use sessiond_core::webhook::{
    Because, Disabled, TYPES, Webhook, WebhookChanged, WebhookCreated, WebhookEvent,
};
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::{Slice, WithSecret, overlap};
use crate::committer::{ChangeStream, CreateWebhook, Origin, WriteBeside};
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::secret::{self, labels};

/// After a rotation the secret before signs beside the new one for this long.
const OVERLAP: TimeDelta = TimeDelta::hours(24);
/// How long finished deliveries are kept, and those that failed.
const KEEP: TimeDelta = TimeDelta::days(7);
const KEEP_FAILED: TimeDelta = TimeDelta::days(30);
const LONGEST_DESCRIPTION: usize = 1_000;

/// A webhook that is to be made. The URL has been checked by the outbox's rules.
#[derive(Debug)]
pub struct NewWebhook {
    pub url: String,
    pub application: Option<Uuid>,
    pub types: Vec<String>,
    pub description: Option<String>,
}

/// What signs a webhook's deliveries: one secret, or two for a while after a rotation.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    pub now: Vec<u8>,
    pub before: Option<(Vec<u8>, sessiond_core::Time)>,
}

/// Webhooks, for their owners and for the outbox.
#[derive(Clone)]
pub struct Webhooks {
    context: Arc<AppContext>,
}

impl Webhooks {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    // ---- for owners ----

    /// Lists the organization's webhooks, newest first.
    pub fn list(&self, caller: &Caller, slice: Slice) -> (Vec<Webhook>, bool) {
        let known = self.context.gate.known();
        let own = known
            .streams::<Webhook>()
            .filter(|one| one.organization == caller.organization && one.deleted_at.is_none());
        let (page, more) = slice.page(own, |one| (one.created_at, one.id));
        (page.into_iter().cloned().collect(), more)
    }

    /// Finds a webhook that is not deleted.
    pub fn find(&self, caller: &Caller, id: Uuid) -> Result<Webhook, Error> {
        match self.context.gate.known().stream_by_id::<Webhook>(id) {
            Some(one) if one.organization == caller.organization && one.deleted_at.is_none() => {
                Ok(one.clone())
            }
            _ => Err(Error::NotFound(Thing::Webhook)),
        }
    }

    /// Makes a webhook with its signing secret. It gets what happens from now on.
    pub async fn create(&self, caller: &Caller, new: NewWebhook) -> Result<WithSecret<Webhook>, Error> {
        let once = caller.once.as_deref();
        if let Some(made) = Origin::caller(caller).recorded::<CreateWebhook>()? {
            let secret = secret::signing_text(&secret::mint_signing_key(once));
            return Ok(WithSecret { made, secret: Some(secret) });
        }
        check_types(&new.types)?;
        check_description(new.description.as_deref())?;
        let organization = caller.organization;
        let application = new.application;
        let application = application.map(|id| self.context.application_number(caller, id)).transpose()?;
        let id = secret::new_id();
        let key = secret::mint_signing_key(once);
        let created = WebhookCreated {
            id,
            url: new.url,
            application,
            types: new.types,
            description: new.description.filter(|text| !text.is_empty()),
        };
        let creation = CreateWebhook {
            organization,
            created,
            sealed: self.context.key.seal(&labels::webhook(id), &key),
        };
        let made = self.context.submit(caller, creation).await?;
        Ok(WithSecret { made, secret: Some(secret::signing_text(&key)) })
    }

    /// Changes a webhook, and whether it is enabled. A value that it has already is no change.
    pub async fn change(
        &self,
        caller: &Caller,
        id: Uuid,
        changed: WebhookChanged,
        enabled: Option<bool>,
    ) -> Result<Webhook, Error> {
        let mut webhook = self.find(caller, id)?;
        check_types(changed.types.as_deref().unwrap_or_default())?;
        check_description(changed.description.as_deref())?;
        let changed = WebhookChanged {
            url: changed.url.filter(|url| *url != webhook.url),
            types: changed.types.filter(|types| *types != webhook.types),
            description: changed
                .description
                .filter(|text| text != webhook.description.as_deref().unwrap_or_default()),
        };
        let wanted = match enabled {
            Some(true) => Some(WebhookEvent::Enabled),
            Some(false) => Some(WebhookEvent::Disabled(Disabled { because: Because::Owner })),
            None => None,
        };
        for command in [WebhookEvent::Changed(changed)].into_iter().chain(wanted) {
            webhook = self.context.change_stream(caller, Some(webhook.number), command, vec![]).await?;
        }
        Ok(webhook)
    }

    /// Gives a webhook a new signing secret; the one before signs beside it for a day, or until its owner says.
    pub async fn rotate_secret(
        &self,
        caller: &Caller,
        id: Uuid,
        expire_old_at: Option<Time>,
    ) -> Result<WithSecret<Webhook>, Error> {
        let key = secret::mint_signing_key(caller.once.as_deref());
        if let Some(made) = Origin::caller(caller).recorded::<ChangeStream<Webhook>>()? {
            return Ok(WithSecret { made, secret: Some(secret::signing_text(&key)) });
        }
        let webhook = self.find(caller, id)?;
        let wanted = expire_old_at.unwrap_or_else(|| self.context.clock.now() + OVERLAP);
        let rotated = overlap(&self.context, caller, Some(wanted))?;
        let side = SideWrite::RotateWebhookSecret {
            id,
            sealed: self.context.key.seal(&labels::webhook(id), &key),
            before_until: rotated.old_until,
        };
        let (number, command) = (Some(webhook.number), WebhookEvent::SecretRotated(rotated));
        let made = self.context.change_stream(caller, number, command, vec![side]).await?;
        Ok(WithSecret { made, secret: Some(secret::signing_text(&key)) })
    }

    /// Deletes a webhook: nothing more is sent, and its secret is forgotten.
    pub async fn delete(&self, caller: &Caller, id: Uuid) -> Result<(), Error> {
        if caller.repeats() {
            return Ok(());
        }
        let webhook = self.find(caller, id)?;
        let (number, side) = (Some(webhook.number), vec![SideWrite::ForgetWebhook(id)]);
        self.context.change_stream::<Webhook>(caller, number, WebhookEvent::Deleted, side).await.map(|_| ())
    }

    /// Lists a webhook's deliveries before a position, newest first; and whether there are more.
    pub async fn deliveries(
        &self,
        webhook: &Webhook,
        status: Option<DeliveryStatus>,
        before: Option<Position>,
        limit: u32,
    ) -> Result<(Vec<Delivery>, bool), Error> {
        let before = before.unwrap_or(Position(i64::MAX));
        let mut found = self.context.store.deliveries(webhook.id, status, before, limit + 1).await?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        Ok((found, more))
    }

    /// Finds a delivery.
    pub async fn delivery(&self, webhook: Uuid, position: Position) -> Result<Option<Delivery>, Error> {
        Ok(self.context.store.delivery(webhook, position).await?)
    }

    // ---- for the outbox ----

    /// Returns the position of the last event of any webhook: while it is the same, no webhook has changed.
    pub fn changed_at(&self) -> Position {
        self.context.gate.known().streams::<Webhook>().map(|one| one.head.position).max().unwrap_or_default()
    }

    /// Lists every webhook of every organization that is not deleted.
    pub fn all(&self) -> Vec<Webhook> {
        self.context
            .gate
            .known()
            .streams::<Webhook>()
            .filter(|one| one.deleted_at.is_none())
            .cloned()
            .collect()
    }

    /// Opens the keys that sign a webhook's deliveries; none once it is deleted, a conflict if another key file sealed them.
    pub async fn signing_keys(&self, id: Uuid) -> Result<Option<SigningKeys>, Error> {
        let Some(kept) = self.context.store.webhook_secret(id).await? else { return Ok(None) };
        let open = |sealed: &[u8]| self.context.key.open(&labels::webhook(id), sealed);
        let now = open(&kept.sealed).map_err(|_| Error::Conflict {
            code: "webhook_secret_unreadable",
            message: "the webhook's secret was sealed with another key file; rotate it".to_owned(),
        })?;
        let before = kept.before.and_then(|(sealed, until)| Some((open(&sealed).ok()?, until)));
        Ok(Some(SigningKeys { now, before }))
    }

    /// Reads how far each webhook has been served, as far as that was kept.
    pub async fn progress(&self) -> Result<Vec<(Uuid, Position)>, Error> {
        Ok(self.context.store.webhook_progress().await?)
    }

    /// Lists a webhook's unfinished deliveries, oldest first.
    pub async fn pending_deliveries(&self, webhook: Uuid) -> Result<Vec<Delivery>, Error> {
        Ok(self.context.store.pending_deliveries(webhook).await?)
    }

    /// Keeps how deliveries stand and how far webhooks have been served, in one transaction.
    pub async fn keep_deliveries(
        &self,
        rows: Vec<Delivery>,
        progress: Vec<(Uuid, Position)>,
    ) -> Result<(), Error> {
        let kept = WriteBeside(SideWrite::Deliveries { rows, progress });
        self.context.committer.submit(Origin::system(), kept).await.map(|_| ())
    }

    /// Disables a webhook, because its endpoint says or shows that it cannot be served.
    pub async fn disable(&self, webhook: &Webhook, because: Because) -> Result<(), Error> {
        let disabling = ChangeStream::<Webhook> {
            organization: webhook.organization,
            number: Some(webhook.number),
            command: WebhookEvent::Disabled(Disabled { because }),
            side: vec![],
        };
        self.context.committer.submit(Origin::system(), disabling).await.map(|_| ())
    }

    /// Forgets deliveries that finished long ago, and some of those of deleted webhooks.
    pub async fn forget_deliveries(&self) -> Result<(), Error> {
        let now = self.context.clock.now();
        let old = SideWrite::ForgetDeliveries { before: now - KEEP, failed_before: now - KEEP_FAILED };
        self.context.write_beside(old).await?;
        let deleted: Vec<Uuid> = {
            let known = self.context.gate.known();
            known.streams::<Webhook>().filter(|one| one.deleted_at.is_some()).map(|one| one.id).collect()
        };
        for id in deleted {
            if !self.context.store.deliveries(id, None, Position(i64::MAX), 1).await?.is_empty() {
                let rest = SideWrite::ForgetDeliveriesOf(id);
                self.context.write_beside(rest).await?;
            }
        }
        Ok(())
    }
}

fn check_types(types: &[String]) -> Result<(), Error> {
    match types.iter().find(|word| !TYPES.contains(&word.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let message = format!("unknown type of event {unknown:?}; there are: {}", TYPES.join(", "));
            Err(Error::field("types", message))
        }
    }
}

fn check_description(text: Option<&str>) -> Result<(), Error> {
    if text.is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION) {
        return Err(Error::field("description", "description must be at most 1000 characters"));
    }
    Ok(())
}
