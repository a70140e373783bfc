//! The task behind the outbox. Memory runs ahead of what is kept: what is not kept when the process dies is read from
//! the log again, so that nothing is lost, and only what was under way may arrive twice.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::delivery::{Delivery, DeliveryStatus};
use sessiond_core::ids::{Position, StreamKind, Tip};
use sessiond_core::webhook::Because;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::attempt::{Came, attempt};
use super::envelope::envelope;
use super::line::{Line, Waiting};
use super::{Outbox, Resend};
use crate::error::Error;
use crate::live::Outgoing;
use crate::secret;

/// Attempts under way at a time, at all webhooks together.
const SIDE_BY_SIDE: usize = 32;
/// Events read at a time.
const PAGE: i64 = 200;
/// With so much not kept yet, nothing more is taken or sent.
const UNKEPT: usize = 1_000;
/// How often the clock is looked at while something waits for it.
const LOOK: Duration = Duration::from_millis(250);
/// Progress alone, of which nothing came, is kept this seldom: it saves reading, nothing else.
const KEEP_PROGRESS: TimeDelta = TimeDelta::seconds(10);
/// After being told to stop, attempts have this long to come back.
const FAREWELL: Duration = Duration::from_secs(3);

/// Rows on their way into the store, with how far the webhooks are served once they are there.
struct Keeping {
    rows: BTreeMap<(Uuid, Position), Delivery>,
    progress: Vec<(Uuid, Position)>,
    outcome: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
}

pub struct Follower {
    outbox: Arc<Outbox>,
    lines: BTreeMap<Uuid, Line>,
    /// Where the last event of any webhook was when they were looked at.
    changed_at: Position,
    under_way: JoinSet<Came>,
    /// What is not kept yet, as it stands now.
    unkept: BTreeMap<(Uuid, Position), Delivery>,
    keeping: Option<Keeping>,
    progress_kept_at: Time,
    to_disable: BTreeMap<Uuid, Because>,
    /// Whose turn it is.
    turn: usize,
}

impl Follower {
    /// Begins where the last one was.
    pub async fn load(outbox: Arc<Outbox>) -> Result<Self, Error> {
        let now = outbox.clock.now();
        let mut follower = Self {
            lines: BTreeMap::new(),
            changed_at: Position(0),
            under_way: JoinSet::new(),
            unkept: BTreeMap::new(),
            keeping: None,
            progress_kept_at: now,
            to_disable: BTreeMap::new(),
            turn: 0,
            outbox,
        };
        let directory = follower.outbox.directory.clone();
        let progress: HashMap<_, _> = directory.webhook_progress().await?.into_iter().collect();
        for webhook in directory.every_webhook() {
            let reached = progress.get(&webhook.id).copied().unwrap_or(webhook.from);
            let mut line = Line::new(webhook, reached);
            for delivery in directory.pending_deliveries(line.webhook.id).await? {
                line.add(Waiting { delivery, envelope: None });
            }
            follower.lines.insert(line.webhook.id, line);
        }
        follower.refresh().await?;
        Ok(follower)
    }

    /// Delivers until it is told to stop, or something breaks and it has to be loaded again.
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
                    Ok(came) => self.came_back(came),
                    // A bug; what it was about is loaded again.
                    Err(_) => break,
                },
                outcome = kept(&mut self.keeping), if self.keeping.is_some() => self.was_kept(outcome).await,
                Some(wish) = inbox.recv() => self.resend(wish).await,
                () = tokio::time::sleep(LOOK), if look => {}
            }
            while let Some(Ok(came)) = self.under_way.try_join_next() {
                self.came_back(came);
            }
        }
        self.finish().await;
    }

    /// Everything that can be done without waiting for others. Returns whether there is more at once.
    async fn advance(&mut self, tip: Tip) -> Result<bool, Error> {
        self.refresh().await?;
        let more = self.take_in(tip).await?;
        self.disable().await;
        self.start();
        self.keep();
        Ok(more)
    }

    /// Looks at the webhooks again if any of them changed.
    async fn refresh(&mut self) -> Result<(), Error> {
        let directory = self.outbox.directory.clone();
        let changed_at = directory.webhooks_changed_at();
        if changed_at == self.changed_at {
            return Ok(());
        }
        let webhooks = directory.every_webhook();
        let there: HashMap<Uuid, ()> = webhooks.iter().map(|one| (one.id, ())).collect();
        self.lines.retain(|id, _| there.contains_key(id));
        self.unkept.retain(|(id, _), _| there.contains_key(id));
        for webhook in webhooks {
            let id = webhook.id;
            let from = webhook.from;
            let line = self.lines.entry(id).or_insert_with(|| Line::new(webhook.clone(), from));
            let resumed = line.webhook.disabled.is_some() && webhook.disabled.is_none();
            let changed = line.webhook.head != webhook.head || line.keys.is_none();
            line.webhook = webhook;
            if changed {
                line.keys = match directory.signing_keys(id).await {
                    Ok(keys) => keys.map(Arc::new),
                    Err(error @ Error::Conflict { .. }) => {
                        tracing::error!(%error, webhook = %id, "a webhook's secret cannot be opened");
                        None
                    }
                    Err(error) => return Err(error),
                };
            }
            if resumed {
                let due = line.resume(self.outbox.clock.now());
                self.unkept.extend(due.into_iter().map(|one| ((id, one.position), one)));
            }
        }
        self.changed_at = changed_at;
        Ok(())
    }

    /// Reads what comes next in the log and gives a delivery to every webhook that wants it. Returns whether there is
    /// more to read at once.
    async fn take_in(&mut self, tip: Tip) -> Result<bool, Error> {
        if self.unkept.len() >= UNKEPT {
            return Ok(false);
        }
        let takers = || self.lines.values().filter(|line| line.takes() && line.progress < tip.position);
        let Some(after) = takers().map(|line| line.progress).min() else { return Ok(false) };
        let activity = takers().any(Line::wants_activity);
        let news = activity || after < tip.lifecycle;
        let page = match news {
            true => self.outbox.live.outgoing(after, tip.position, activity, PAGE).await?,
            false => vec![],
        };
        let mut reached = if page.len() < PAGE as usize { tip.position } else { after };
        for event in &page {
            if self.unkept.len() >= UNKEPT {
                reached = Position(event.frame.position.0 - 1);
                break;
            }
            self.give(event);
            reached = reached.max(event.frame.position);
        }
        for line in self.lines.values_mut().filter(|line| line.takes()) {
            line.progress = line.progress.max(reached);
        }
        Ok(self.lines.values().any(|line| line.takes() && line.progress < tip.position))
    }

    /// Gives an event to the webhooks that want it.
    fn give(&mut self, event: &Outgoing) {
        let (position, now) = (event.frame.position, self.outbox.clock.now());
        let mut posted = None;
        for line in self.lines.values_mut().filter(|line| line.takes() && line.progress < position) {
            line.progress = position;
            let webhook = &line.webhook;
            // What happens to a webhook is not told to itself: telling it would be the next thing that happens to it.
            let own = event.stream.kind == StreamKind::Webhook && event.stream.number == webhook.number;
            if own
                || webhook.organization != event.organization
                || !webhook.wants(&event.frame.name, event.frame.application)
            {
                continue;
            }
            let envelope = posted
                .get_or_insert_with(|| envelope(event, &self.outbox.directory, &self.outbox.public_url));
            let stream = format!("{}/{}", event.stream.kind.word(), event.stream.number);
            let delivery = Delivery::new(webhook.id, position, stream, now);
            self.unkept.insert((webhook.id, position), delivery.clone());
            line.add(Waiting { delivery, envelope: Some(envelope.clone()) });
        }
    }

    /// Starts what is due, one of each webhook in turn.
    fn start(&mut self) {
        let now = self.outbox.clock.now();
        let is_due = |line: &&Line| line.due().is_some_and(|due| due <= now);
        let mut due: VecDeque<Uuid> = self.lines.values().filter(is_due).map(|one| one.webhook.id).collect();
        self.turn = self.turn.wrapping_add(1);
        due.rotate_left(self.turn % due.len().max(1));
        while self.under_way.len() < SIDE_BY_SIDE
            && self.unkept.len() < UNKEPT * 2
            && let Some(id) = due.pop_front()
        {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            let (Some(keys), Some(waiting)) = (line.keys.clone(), line.take(now)) else { continue };
            due.push_back(id);
            let url = line.webhook.url.clone();
            self.under_way.spawn(attempt(self.outbox.clone(), url, keys, waiting));
        }
    }

    fn came_back(&mut self, came: Came) {
        let Came { mut waiting, attempted } = came;
        let now = self.outbox.clock.now();
        waiting.delivery.attempted(&attempted, now, secret::jitter());
        let id = waiting.delivery.webhook;
        // Deleted meanwhile.
        let Some(line) = self.lines.get_mut(&id) else { return };
        let because = match waiting.delivery.delivery_status() {
            _ if attempted.gone() => Some(Because::Gone),
            DeliveryStatus::Failed => Some(Because::Failing),
            _ => None,
        };
        if let Some(because) = because {
            // At once, not only when it is on record.
            line.webhook.disabled.get_or_insert(because);
            self.to_disable.entry(id).or_insert(because);
        }
        let stands = line.came_back(waiting, &attempted, now);
        self.unkept.insert((id, stands.position), stands);
    }

    /// Puts on record which webhooks cannot be served. What cannot be recorded now is tried again.
    async fn disable(&mut self) {
        for (id, because) in std::mem::take(&mut self.to_disable) {
            let Some(line) = self.lines.get(&id) else { continue };
            let outcome = self.outbox.directory.disable_webhook(&line.webhook, because).await;
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

    /// Begins to keep what is not kept yet, unless the last of it is still on its way. Always all of it: progress may
    /// only be kept with everything up to it.
    fn keep(&mut self) {
        if self.keeping.is_some() {
            return;
        }
        let now = self.outbox.clock.now();
        let all = now - self.progress_kept_at >= KEEP_PROGRESS;
        if self.unkept.is_empty() && !all {
            return;
        }
        if all {
            self.progress_kept_at = now;
        }
        let rows = std::mem::take(&mut self.unkept);
        let lines = self.lines.values().filter(|line| line.kept != line.progress);
        let with_rows = |id| rows.range((id, Position(i64::MIN))..=(id, Position(i64::MAX))).next().is_some();
        let progress: Vec<_> = lines
            .map(|line| (line.webhook.id, line.progress))
            .filter(|(id, _)| all || with_rows(*id))
            .collect();
        if rows.is_empty() && progress.is_empty() {
            return;
        }
        let (directory, written) = (self.outbox.directory.clone(), rows.values().cloned().collect());
        let reached = progress.clone();
        let outcome = Box::pin(async move { directory.keep_deliveries(written, reached).await });
        self.keeping = Some(Keeping { rows, progress, outcome });
    }

    async fn was_kept(&mut self, outcome: Result<(), Error>) {
        let Some(Keeping { rows, progress, .. }) = self.keeping.take() else { return };
        match outcome {
            Ok(()) => {
                for (id, reached) in progress {
                    if let Some(line) = self.lines.get_mut(&id) {
                        line.kept = reached;
                    }
                }
            }
            Err(error) => {
                tracing::error!(?error, "deliveries could not be kept; trying again");
                for (key, row) in rows {
                    self.unkept.entry(key).or_insert(row);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Makes a delivery due again, on record before it is answered.
    async fn resend(&mut self, wish: Resend) {
        let Resend { webhook, position, reply } = wish;
        reply.send(self.sent_again(webhook, position).await).ok();
    }

    async fn sent_again(&mut self, id: Uuid, position: Position) -> Result<Delivery, Error> {
        self.refresh().await?;
        let now = self.outbox.clock.now();
        let line = self.lines.get(&id).ok_or(Error::NotFound("Webhook"))?;
        if line.webhook.disabled.is_some() {
            let message = "the webhook is disabled; enable it first".to_owned();
            return Err(Error::Conflict { code: "webhook_disabled", message });
        }
        let directory = &self.outbox.directory;
        let (known, envelope) = match (line.waiting(position), self.unkept.get(&(id, position))) {
            (Some(waiting), _) => (Some(waiting.delivery.clone()), waiting.envelope.clone()),
            (None, Some(delivery)) => (Some(delivery.clone()), None),
            (None, None) => (directory.delivery(id, position).await?, None),
        };
        let mut delivery = known.ok_or(Error::NotFound("Delivery"))?;
        delivery.resend(now);
        directory.keep_deliveries(vec![delivery.clone()], vec![]).await?;
        self.unkept.insert((id, position), delivery.clone());
        if let Some(line) = self.lines.get_mut(&id) {
            line.add(Waiting { delivery: delivery.clone(), envelope });
        }
        Ok(delivery)
    }

    /// Whether something waits for a moment to come, and nothing else would wake us then.
    fn waits_for_the_clock(&self) -> bool {
        !self.to_disable.is_empty()
            || self.lines.values().any(|line| line.due().is_some() || line.kept != line.progress)
    }

    /// Lets what is under way come back, and keeps everything.
    async fn finish(mut self) {
        let farewell = tokio::time::sleep(FAREWELL);
        tokio::pin!(farewell);
        loop {
            tokio::select! {
                () = &mut farewell => break,
                came = self.under_way.join_next() => match came {
                    Some(Ok(came)) => self.came_back(came),
                    Some(Err(_)) => {}
                    None => break,
                },
            }
        }
        self.disable().await;
        if self.keeping.is_some() {
            let outcome = kept(&mut self.keeping).await;
            self.was_kept(outcome).await;
        }
        self.keep();
        if self.keeping.is_some()
            && let Err(error) = kept(&mut self.keeping).await
        {
            tracing::warn!(?error, "deliveries could not be kept: some may be sent twice");
        }
    }
}

/// Waits for what is on its way into the store.
async fn kept(keeping: &mut Option<Keeping>) -> Result<(), Error> {
    match keeping {
        Some(keeping) => keeping.outcome.as_mut().await,
        None => Ok(()),
    }
}
