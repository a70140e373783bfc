//! Webhooks out: an outbox by log position. One task reads the events that each commit added, queues a delivery for
//! every webhook that wants one, sends it until it is taken or given up, and keeps its state. Deliveries are made at
//! least once, in order for each stream (and so for each session), and at the same time for different streams and
//! webhooks.

mod attempt;
mod cloud_event;
mod delivery_queue;
mod follower;
mod sender;

use std::sync::Arc;
use std::time::{Duration, Instant};

use follower::Follower;
use sender::DeliveryRequest;
pub use sender::Sender;
use sessiond_core::delivery::Delivery;
use sessiond_core::ids::Position;
use sessiond_core::webhook::Webhook;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::directory::{PublicIds, Webhooks};
use crate::error::{Error, Thing};
use crate::live::Live;
use crate::nodes::Claims;
use crate::secret;

/// How many tests may be under way at a time.
const TESTS: usize = 8;
/// What a node claims that delivers, and how often the others look whether it still does.
const JOB: &str = "deliveries";
const LOOK: Duration = Duration::from_secs(2);
/// The pause before everything is loaded again after it could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The handle to the outbox.
pub struct Outbox {
    webhooks: Webhooks,
    public_ids: PublicIds,
    live: Arc<Live>,
    claims: Claims,
    clock: Clock,
    /// The base of our URLs, for receivers, who have not asked us by any URL.
    pub public_url: Arc<str>,
    sender: Sender,
    resends: mpsc::Sender<Resend>,
    /// The receiving end is here and not in the task, so that it survives a task that breaks.
    inbox: Mutex<mpsc::Receiver<Resend>>,
    tests: Semaphore,
}

/// A request to send a delivery again.
struct Resend {
    webhook: Uuid,
    position: Position,
    reply: oneshot::Sender<Result<Delivery, Error>>,
}

/// What a test has come to.
pub struct Tested {
    pub id: String,
    pub status: Option<u16>,
    pub error: Option<String>,
    pub took: Duration,
}

impl Outbox {
    pub fn new(
        webhooks: Webhooks,
        public_ids: PublicIds,
        live: Arc<Live>,
        claims: Claims,
        clock: Clock,
        sender: Sender,
        public_url: Arc<str>,
    ) -> Self {
        let (resends, inbox) = mpsc::channel(64);
        let (inbox, tests) = (Mutex::new(inbox), Semaphore::new(TESTS));
        Self { webhooks, public_ids, live, claims, clock, public_url, sender, resends, inbox, tests }
    }

    /// Checks the URL of a webhook and brings it into its normal form.
    pub fn check_url(&self, url: &str) -> Result<String, Error> {
        self.sender.allowances().check("url", url).map(Into::into)
    }

    /// The task of the outbox: delivers until it is told to stop.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut inbox = self.inbox.lock().await;
        while !stopping.is_cancelled() {
            if !self.claims.take(JOB).await {
                // Another node delivers, and this one does once that one is gone.
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(LOOK) => continue,
                }
            }
            match Follower::load(self.clone()).await {
                Ok(follower) => tokio::select! {
                    () = follower.run(&mut inbox, &stopping) => {}
                    () = self.claims.lost(JOB) => tracing::info!("another node delivers to webhooks from now on"),
                },
                Err(error) => tracing::error!(?error, "webhooks could not be loaded; trying again"),
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// The node that delivers, where there may be several.
    pub async fn deliverer(&self) -> Result<Option<i64>, Error> {
        Ok(self.claims.holder(JOB).await?)
    }

    /// Has a delivery sent again, as if it had never been tried.
    pub async fn resend(&self, webhook: Uuid, position: Position) -> Result<Delivery, Error> {
        let (reply, answer) = oneshot::channel();
        let resend = Resend { webhook, position, reply };
        self.resends.try_send(resend).map_err(|_| Error::Busy)?;
        answer.await.map_err(|_| Error::Busy)?
    }

    /// The `webhook-id` of an event's deliveries; none if there is no such event.
    pub async fn id_of(&self, position: Position) -> Result<Option<String>, Error> {
        let event = self.live.outgoing_at(position).await?;
        Ok(event.map(|event| cloud_event::id(position, &event.hash)))
    }

    /// Sends a test delivery, now and once, also to a webhook that is disabled.
    pub async fn test(&self, webhook: &Webhook) -> Result<Tested, Error> {
        let _permit = self.tests.try_acquire().map_err(|_| Error::Busy)?;
        let keys = self.webhooks.signing_keys(webhook.id).await?.ok_or(Error::NotFound(Thing::Webhook))?;
        let (id, now) = (format!("evt_test_{}", secret::new_id().simple()), self.clock.now());
        let body = cloud_event::test_body(&id, webhook, &self.public_ids, &self.public_url, now);
        let request = DeliveryRequest { url: webhook.url.clone(), id: id.clone(), body };
        let began = Instant::now();
        let attempted = self.sender.send(request, &keys, self.clock.wall()).await;
        Ok(Tested { id, status: attempted.status, error: attempted.error, took: began.elapsed() })
    }
}
