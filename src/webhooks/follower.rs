//! The task behind the outbox. Memory runs ahead of the store. What is not saved when the process dies is read from the
//! log again, so that nothing is lost, and only attempts that were under way may arrive twice.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use metrics::gauge;
use sessiond_core::Time;
use sessiond_core::delivery::{Delivery, DeliveryStatus};
use sessiond_core::ids::{Position, StreamKind, Tip};
use sessiond_core::webhook::Because;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::{FinishedAttempt, attempt};
use super::cloud_event::posted_event;
use super::delivery_queue::{DeliveryQueue, QueuedDelivery, Standing};
use super::{Outbox, Resend};
use crate::error::{Error, Thing};
use crate::live::Outgoing;
use crate::meter;
use crate::secret;

/// How many attempts may be under way at a time, for all webhooks together.
const CONCURRENT_ATTEMPTS: usize = 32;
/// How many events are read at a time.
const PAGE: u32 = 200;
/// With so many deliveries not saved yet, no more events are taken from the log, and with twice as many none are sent.
const MOST_UNSAVED: usize = 1_000;
/// How often the clock is looked at while something waits for it.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// How seldom progress is saved that brought no delivery: saving it only spares reading the same events again.
const SAVE_PROGRESS: TimeDelta = TimeDelta::seconds(10);
/// How long attempts may still take after a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// A write to the store that is under way: deliveries, and the progress of webhooks that holds once they are written.
struct Saving {
    rows: BTreeMap<(Uuid, Position), Delivery>,
    progress: Vec<(Uuid, Position)>,
    outcome: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
}

pub struct Follower {
    outbox: Arc<Outbox>,
    queues: BTreeMap<Uuid, DeliveryQueue>,
    /// The log position of the last change to any webhook, when the webhooks were last looked at.
    changed_at: Position,
    under_way: JoinSet<FinishedAttempt>,
    /// The deliveries that have changed since they were saved.
    unsaved: BTreeMap<(Uuid, Position), Delivery>,
    saving: Option<Saving>,
    progress_saved_at: Time,
    to_disable: BTreeMap<Uuid, Because>,
    /// Counts rounds, so that another webhook begins in each.
    turn: usize,
}

impl Follower {
    /// Loads the queues as the store has them.
    pub async fn load(outbox: Arc<Outbox>) -> Result<Self, Error> {
        let now = outbox.clock.now();
        let mut follower = Self {
            queues: BTreeMap::new(),
            changed_at: Position(0),
            under_way: JoinSet::new(),
            unsaved: BTreeMap::new(),
            saving: None,
            progress_saved_at: now,
            to_disable: BTreeMap::new(),
            turn: 0,
            outbox,
        };
        let webhooks = follower.outbox.webhooks.clone();
        let progress: HashMap<_, _> = webhooks.progress().await?.into_iter().collect();
        for webhook in webhooks.all() {
            let reached = progress.get(&webhook.id).copied().unwrap_or(webhook.from);
            let mut queue = DeliveryQueue::new(webhook, reached);
            for delivery in webhooks.pending_deliveries(queue.webhook.id).await? {
                queue.add(QueuedDelivery { delivery, posted: None });
            }
            follower.queues.insert(queue.webhook.id, queue);
        }
        follower.refresh().await?;
        Ok(follower)
    }

    /// Delivers until it is told to stop, or until something breaks and the queues have to be loaded again.
    pub async fn run(mut self, inbox: &mut mpsc::Receiver<Resend>, stopping: &CancellationToken) {
        let mut tip = self.outbox.live.tip();
        while !stopping.is_cancelled() {
            let now = *tip.borrow_and_update();
            let more = match self.advance(now).await {
                Ok(more) => more,
                Err(error) => {
                    tracing::error!(?error, "following the log for webhooks failed; trying again");
                    break;
                }
            };
            let look = self.waits_for_the_clock();
            tokio::select! {
                () = stopping.cancelled() => {}
                () = std::future::ready(()), if more => {}
                changed = tip.changed() => if changed.is_err() { break },
                Some(came) = self.under_way.join_next(), if !self.under_way.is_empty() => match came {
                    Ok(came) => self.attempt_finished(came),
                    // An attempt that panics is a bug; its delivery is loaded again.
                    Err(_) => break,
                },
                outcome = saved(&mut self.saving), if self.saving.is_some() => self.was_saved(outcome).await,
                Some(resend) = inbox.recv() => self.resend(resend).await,
                () = tokio::time::sleep(CHECK_EVERY), if look => {}
            }
            while let Some(Ok(came)) = self.under_way.try_join_next() {
                self.attempt_finished(came);
            }
        }
        self.finish().await;
    }

    /// Does everything that can be done without waiting for others. Returns whether more can be done at once.
    async fn advance(&mut self, tip: Tip) -> Result<bool, Error> {
        self.refresh().await?;
        let more = self.read_log(tip).await?;
        self.disable().await;
        self.start();
        self.save();
        self.measure();
        Ok(more)
    }

    /// Says how much waits and how the webhooks fare, for whoever watches over the service.
    fn measure(&self) {
        let waiting: usize = self.queues.values().map(DeliveryQueue::len).sum();
        gauge!(meter::DELIVERIES_WAITING).set(waiting as f64);
        for standing in Standing::ALL {
            let count = self.queues.values().filter(|queue| queue.standing() == standing).count();
            gauge!(meter::WEBHOOKS, "standing" => standing.word()).set(count as f64);
        }
    }

    /// Looks at the webhooks again if any of them has changed.
    async fn refresh(&mut self) -> Result<(), Error> {
        let stored = self.outbox.webhooks.clone();
        let changed_at = stored.changed_at();
        if changed_at == self.changed_at {
            return Ok(());
        }
        let webhooks = stored.all();
        let there: HashMap<Uuid, ()> = webhooks.iter().map(|one| (one.id, ())).collect();
        self.queues.retain(|id, _| there.contains_key(id));
        self.unsaved.retain(|(id, _), _| there.contains_key(id));
        for webhook in webhooks {
            let id = webhook.id;
            let from = webhook.from;
            let queue = self.queues.entry(id).or_insert_with(|| DeliveryQueue::new(webhook.clone(), from));
            let resumed = queue.webhook.disabled.is_some() && webhook.disabled.is_none();
            let changed = queue.webhook.head != webhook.head || queue.keys.is_none();
            queue.webhook = webhook;
            if changed {
                queue.keys = match stored.signing_keys(id).await {
                    Ok(keys) => keys.map(Arc::new),
                    Err(error @ Error::Conflict { .. }) => {
                        tracing::error!(%error, webhook = %id, "a webhook's secret cannot be opened");
                        None
                    }
                    Err(error) => return Err(error),
                };
            }
            if resumed {
                let due = queue.resume(self.outbox.clock.now());
                self.unsaved.extend(due.into_iter().map(|one| ((id, one.position), one)));
            }
        }
        self.changed_at = changed_at;
        Ok(())
    }

    /// Reads the next events of the log and queues a delivery for every webhook that wants one. Returns whether there
    /// is more to read at once.
    async fn read_log(&mut self, tip: Tip) -> Result<bool, Error> {
        if self.unsaved.len() >= MOST_UNSAVED {
            return Ok(false);
        }
        let takers =
            || self.queues.values().filter(|queue| queue.takes_more() && queue.progress < tip.position);
        let Some(after) = takers().map(|queue| queue.progress).min() else { return Ok(false) };
        let activity = takers().any(DeliveryQueue::wants_activity);
        let news = activity || after < tip.lifecycle;
        let page = match news {
            true => self.outbox.live.outgoing(after, tip.position, activity, PAGE).await?,
            false => vec![],
        };
        let mut reached = if page.len() < PAGE as usize { tip.position } else { after };
        for event in &page {
            if self.unsaved.len() >= MOST_UNSAVED {
                reached = Position(event.frame.position.0 - 1);
                break;
            }
            self.enqueue(event);
            reached = reached.max(event.frame.position);
        }
        for queue in self.queues.values_mut().filter(|queue| queue.takes_more()) {
            queue.progress = queue.progress.max(reached);
        }
        Ok(self.queues.values().any(|queue| queue.takes_more() && queue.progress < tip.position))
    }

    /// Queues an event for the webhooks that want it.
    fn enqueue(&mut self, event: &Outgoing) {
        let (position, now) = (event.frame.position, self.outbox.clock.now());
        let mut posted = None;
        for queue in self.queues.values_mut().filter(|queue| queue.takes_more() && queue.progress < position)
        {
            queue.progress = position;
            let webhook = &queue.webhook;
            // A webhook is not told what happens to itself: each telling would be the next thing that happens to it.
            let own = event.stream.kind == StreamKind::Webhook && event.stream.number == webhook.number;
            if own
                || webhook.organization != event.organization
                || !webhook.wants(&event.frame.name, event.frame.application)
            {
                continue;
            }
            let posted = posted
                .get_or_insert_with(|| posted_event(event, &self.outbox.public_ids, &self.outbox.public_url));
            let stream = format!("{}/{}", event.stream.kind.word(), event.stream.number);
            let delivery = Delivery::new(webhook.id, position, stream, now);
            self.unsaved.insert((webhook.id, position), delivery.clone());
            queue.add(QueuedDelivery { delivery, posted: Some(posted.clone()) });
        }
    }

    /// Starts attempts for deliveries that are due, one of each webhook in turn.
    fn start(&mut self) {
        let now = self.outbox.clock.now();
        let is_due = |queue: &&DeliveryQueue| queue.due().is_some_and(|due| due <= now);
        let mut due: VecDeque<Uuid> = self.queues.values().filter(is_due).map(|one| one.webhook.id).collect();
        self.turn = self.turn.wrapping_add(1);
        due.rotate_left(self.turn % due.len().max(1));
        while self.under_way.len() < CONCURRENT_ATTEMPTS
            && self.unsaved.len() < MOST_UNSAVED * 2
            && let Some(id) = due.pop_front()
        {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            let (Some(keys), Some(waiting)) = (queue.keys.clone(), queue.take(now)) else { continue };
            due.push_back(id);
            let url = queue.webhook.url.clone();
            self.under_way.spawn(attempt(self.outbox.clone(), url, keys, waiting));
        }
    }

    fn attempt_finished(&mut self, came: FinishedAttempt) {
        let FinishedAttempt { mut waiting, attempted } = came;
        let now = self.outbox.clock.now();
        waiting.delivery.attempted(&attempted, now, secret::jitter());
        let id = waiting.delivery.webhook;
        // The webhook was deleted meanwhile.
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let because = match waiting.delivery.delivery_status() {
            _ if attempted.gone() => Some(Because::Gone),
            DeliveryStatus::Failed => Some(Because::Failing),
            _ => None,
        };
        if let Some(because) = because {
            // The queue stops at once, and not only when the end is on record.
            queue.webhook.disabled.get_or_insert(because);
            self.to_disable.entry(id).or_insert(because);
        }
        let stands = queue.attempt_finished(waiting, &attempted, now);
        self.unsaved.insert((id, stands.position), stands);
    }

    /// Records that webhooks are disabled whose endpoints cannot be served. What cannot be recorded now is tried again.
    async fn disable(&mut self) {
        for (id, because) in std::mem::take(&mut self.to_disable) {
            let Some(queue) = self.queues.get(&id) else { continue };
            let outcome = self.outbox.webhooks.disable(&queue.webhook, because).await;
            match outcome {
                Ok(()) => tracing::warn!(webhook = %id, ?because, "a webhook was disabled"),
                Err(Error::NotFound(_)) => {}
                Err(error) => {
                    tracing::error!(?error, webhook = %id, "a webhook could not be disabled; trying again");
                    self.to_disable.insert(id, because);
                }
            }
        }
    }

    /// Begins to save all that is not saved yet, unless a write is still under way. It must be all, because progress
    /// may be saved only with every delivery up to it.
    fn save(&mut self) {
        if self.saving.is_some() {
            return;
        }
        let now = self.outbox.clock.now();
        let all = now - self.progress_saved_at >= SAVE_PROGRESS;
        if self.unsaved.is_empty() && !all {
            return;
        }
        if all {
            self.progress_saved_at = now;
        }
        let rows = std::mem::take(&mut self.unsaved);
        let queues = self.queues.values().filter(|queue| queue.saved != queue.progress);
        let with_rows = |id| rows.range((id, Position(i64::MIN))..=(id, Position(i64::MAX))).next().is_some();
        let progress: Vec<_> = queues
            .map(|queue| (queue.webhook.id, queue.progress))
            .filter(|(id, _)| all || with_rows(*id))
            .collect();
        if rows.is_empty() && progress.is_empty() {
            return;
        }
        let (webhooks, written) = (self.outbox.webhooks.clone(), rows.values().cloned().collect());
        let reached = progress.clone();
        let outcome = Box::pin(async move { webhooks.keep_deliveries(written, reached).await });
        self.saving = Some(Saving { rows, progress, outcome });
    }

    async fn was_saved(&mut self, outcome: Result<(), Error>) {
        let Some(Saving { rows, progress, .. }) = self.saving.take() else { return };
        match outcome {
            Ok(()) => {
                for (id, reached) in progress {
                    if let Some(queue) = self.queues.get_mut(&id) {
                        queue.saved = reached;
                    }
                }
            }
            Err(error) => {
                tracing::error!(?error, "deliveries could not be kept; trying again");
                for (key, row) in rows {
                    self.unsaved.entry(key).or_insert(row);
                }
                tokio::time::sleep(CHECK_EVERY).await;
            }
        }
    }

    /// Makes a delivery due again, and saves that before it answers.
    async fn resend(&mut self, resend: Resend) {
        let Resend { webhook, position, reply } = resend;
        reply.send(self.requeue(webhook, position).await).ok();
    }

    async fn requeue(&mut self, id: Uuid, position: Position) -> Result<Delivery, Error> {
        self.refresh().await?;
        let now = self.outbox.clock.now();
        let queue = self.queues.get(&id).ok_or(Error::NotFound(Thing::Webhook))?;
        if queue.webhook.disabled.is_some() {
            let message = "the webhook is disabled; enable it first".to_owned();
            return Err(Error::Conflict { code: "webhook_disabled", message });
        }
        let webhooks = &self.outbox.webhooks;
        let (known, posted) = match (queue.waiting(position), self.unsaved.get(&(id, position))) {
            (Some(waiting), _) => (Some(waiting.delivery.clone()), waiting.posted.clone()),
            (None, Some(delivery)) => (Some(delivery.clone()), None),
            (None, None) => (webhooks.delivery(id, position).await?, None),
        };
        let mut delivery = known.ok_or(Error::NotFound(Thing::Delivery))?;
        delivery.resend(now);
        webhooks.keep_deliveries(vec![delivery.clone()], vec![]).await?;
        self.unsaved.insert((id, position), delivery.clone());
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.add(QueuedDelivery { delivery: delivery.clone(), posted });
        }
        Ok(delivery)
    }

    /// Whether something waits for a certain time, so that only the clock can wake the task.
    fn waits_for_the_clock(&self) -> bool {
        !self.to_disable.is_empty()
            || self.queues.values().any(|queue| queue.due().is_some() || queue.saved != queue.progress)
    }

    /// Waits for the attempts under way, and saves everything.
    async fn finish(mut self) {
        let farewell = tokio::time::sleep(STOP_PATIENCE);
        tokio::pin!(farewell);
        loop {
            tokio::select! {
                () = &mut farewell => break,
                came = self.under_way.join_next() => match came {
                    Some(Ok(came)) => self.attempt_finished(came),
                    Some(Err(_)) => {}
                    None => break,
                },
            }
        }
        self.disable().await;
        if self.saving.is_some() {
            let outcome = saved(&mut self.saving).await;
            self.was_saved(outcome).await;
        }
        self.save();
        if self.saving.is_some()
            && let Err(error) = saved(&mut self.saving).await
        {
            tracing::warn!(?error, "deliveries could not be kept: some may be sent twice");
        }
    }
}

/// Waits for the write that is under way.
async fn saved(saving: &mut Option<Saving>) -> Result<(), Error> {
    match saving {
        Some(saving) => saving.outcome.as_mut().await,
        None => Ok(()),
    }
}
