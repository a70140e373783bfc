//! The deliveries that wait for one webhook, in memory. Of each stream only the earliest delivery is ready: a later one
//! waits until the earlier one was delivered or given up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::delivery::{Attempted, Delivery, DeliveryStatus};
use sessiond_core::ids::Position;
use sessiond_core::webhook::Webhook;

use super::cloud_event::PostedEvent;
use crate::directory::SigningKeys;
use crate::meter;

/// How many attempts at one webhook may be under way at a time.
const CONCURRENT_ATTEMPTS: usize = 8;
/// How many deliveries of one webhook may wait in memory and in the table; further events wait in the log.
const LONGEST: usize = 1_024;
/// After so many failures in a row the endpoint is down: the failures are not about what it was sent.
const DOWN: u32 = 5;

/// A delivery, with its event if that is in memory.
#[derive(Debug, Clone)]
pub struct QueuedDelivery {
    pub delivery: Delivery,
    pub posted: Option<PostedEvent>,
}

/// How a webhook fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Ok,
    /// The last attempt failed.
    Failing,
    Disabled,
}

impl Standing {
    pub const ALL: [Self; 3] = [Self::Ok, Self::Failing, Self::Disabled];

    /// The word in what is measured.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Disabled => "disabled",
        }
    }
}

pub struct DeliveryQueue {
    pub webhook: Webhook,
    pub keys: Option<Arc<SigningKeys>>,
    /// The log position up to which every event that the webhook wants is in this queue, or delivered or given up.
    pub progress: Position,
    /// The part of `progress` that is in the store.
    pub saved: Position,
    waiting: BTreeMap<Position, QueuedDelivery>,
    streams: HashMap<String, StreamQueue>,
    /// The first waiting delivery of each stream without an attempt under way, by when it is due.
    ready: BTreeSet<(Time, Position)>,
    under_way: usize,
    /// How many attempts have failed in a row. Until one succeeds there is one attempt at a time, so that other
    /// webhooks are not kept waiting.
    failures: u32,
    /// The endpoint asked not to be called before this time.
    retry_not_before: Option<Time>,
}

/// The deliveries of one stream.
#[derive(Default)]
struct StreamQueue {
    waiting: BTreeSet<Position>,
    under_way: Option<Position>,
    /// Set when the delivery under way is to be sent once more, whatever comes of the attempt.
    again: bool,
    ready: Option<(Time, Position)>,
}

impl DeliveryQueue {
    pub fn new(webhook: Webhook, progress: Position) -> Self {
        Self {
            webhook,
            keys: None,
            progress,
            saved: progress,
            waiting: BTreeMap::new(),
            streams: HashMap::new(),
            ready: BTreeSet::new(),
            under_way: 0,
            failures: 0,
            retry_not_before: None,
        }
    }

    fn open(&self) -> bool {
        self.webhook.disabled.is_none() && self.keys.is_some()
    }

    /// Whether the queue takes more events from the log.
    pub fn takes_more(&self) -> bool {
        self.open() && self.waiting.len() < LONGEST
    }

    pub fn wants_activity(&self) -> bool {
        self.webhook.types.iter().any(|name| name == sessiond_core::session::event::ACTIVITY)
    }

    pub fn waiting(&self, position: Position) -> Option<&QueuedDelivery> {
        self.waiting.get(&position)
    }

    /// Adds a delivery, or replaces the one with the same position.
    pub fn add(&mut self, waiting: QueuedDelivery) {
        let (position, stream) = (waiting.delivery.position, waiting.delivery.stream.clone());
        let queue = self.streams.entry(stream.clone()).or_default();
        queue.waiting.insert(position);
        queue.again |= queue.under_way == Some(position);
        self.waiting.insert(position, waiting);
        self.offer(&stream);
    }

    /// Makes the first delivery of a stream ready, unless an attempt for the stream is under way.
    fn offer(&mut self, stream: &str) {
        let Some(queue) = self.streams.get_mut(stream) else { return };
        if let Some(before) = queue.ready.take() {
            self.ready.remove(&before);
        }
        let Some(first) = queue.waiting.first().copied() else {
            self.streams.remove(stream);
            return;
        };
        if queue.under_way.is_none()
            && let Some(due) = self.waiting.get(&first).and_then(|waiting| waiting.delivery.next_at)
        {
            queue.ready = Some((due, first));
            self.ready.insert((due, first));
        }
    }

    /// When the next delivery is due; none if there is none, or if no further attempt may begin.
    pub fn due(&self) -> Option<Time> {
        let (due, _) =
            self.ready.first().filter(|_| self.open() && self.under_way < self.concurrent_attempts())?;
        Some(self.retry_not_before.map_or(*due, |until| until.max(*due)))
    }

    /// How many deliveries wait in memory.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How the webhook fares, in the words of what is measured.
    pub fn standing(&self) -> Standing {
        match (&self.webhook.disabled, self.failures) {
            (Some(_), _) => Standing::Disabled,
            (None, 0) => Standing::Ok,
            (None, _) => Standing::Failing,
        }
    }

    fn concurrent_attempts(&self) -> usize {
        if self.failures > 0 { 1 } else { CONCURRENT_ATTEMPTS }
    }

    /// Takes the next delivery that is due. It counts as under way until [`Self::attempt_finished`].
    pub fn take(&mut self, now: Time) -> Option<QueuedDelivery> {
        self.due().filter(|due| *due <= now)?;
        let (_, position) = self.ready.pop_first()?;
        let taken = self.waiting.get(&position)?.clone();
        if let Some(queue) = self.streams.get_mut(&taken.delivery.stream) {
            (queue.ready, queue.under_way) = (None, Some(position));
        }
        self.under_way += 1;
        Some(taken)
    }

    /// Takes a delivery back after an attempt, with its outcome. Returns the delivery as it stands now.
    pub fn attempt_finished(
        &mut self,
        mut came: QueuedDelivery,
        attempted: &Attempted,
        now: Time,
    ) -> Delivery {
        self.under_way = self.under_way.saturating_sub(1);
        let was_down = self.failures >= DOWN;
        self.failures = if attempted.delivered() { 0 } else { self.failures.saturating_add(1) };
        let asked = attempted.retry_after.filter(|_| attempted.throttled()).map(|wait| now + wait);
        self.retry_not_before =
            asked.max(self.retry_not_before.filter(|until| self.failures > 0 && *until > now));
        let (position, stream) = (came.delivery.position, came.delivery.stream.clone());
        let over = came.delivery.delivery_status() != DeliveryStatus::Pending;
        let outcome = match (attempted.delivered(), over) {
            (true, _) => "delivered",
            (false, false) => "failed",
            (false, true) => "given_up",
        };
        metrics::counter!(meter::DELIVERIES, "outcome" => outcome).increment(1);
        let mut again = false;
        if let Some(queue) = self.streams.get_mut(&stream) {
            queue.under_way = None;
            again = std::mem::take(&mut queue.again);
            if over && !again {
                queue.waiting.remove(&position);
            }
        }
        let mut stands = came.delivery.clone();
        if again {
            stands = self.waiting.get(&position).map_or(stands, |waiting| waiting.delivery.clone());
        } else if over {
            self.waiting.remove(&position);
        } else {
            // The delivery will wait for long, and the log has its event.
            came.posted = None;
            self.waiting.insert(position, came);
        }
        self.offer(&stream);
        if was_down && attempted.delivered() {
            self.make_all_due(now);
        }
        stands
    }

    /// Makes everything due after the webhook was enabled again. Returns the deliveries that changed.
    pub fn resume(&mut self, now: Time) -> Vec<Delivery> {
        (self.failures, self.retry_not_before) = (0, None);
        self.make_all_due(now);
        self.waiting.values().map(|waiting| waiting.delivery.clone()).collect()
    }

    /// Makes everything due: the endpoint is there again, and nothing needs to wait for it any longer.
    fn make_all_due(&mut self, now: Time) {
        for waiting in self.waiting.values_mut() {
            waiting.delivery.next_at = waiting.delivery.next_at.map(|at| at.min(now));
        }
        let streams: Vec<_> = self.streams.keys().cloned().collect();
        for stream in streams {
            self.offer(&stream);
        }
    }
}
