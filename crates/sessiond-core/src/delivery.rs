//! Deliveries of webhooks: what came of an attempt, and when there is another. Not events: they stand beside the log.

use chrono::TimeDelta;
use uuid::Uuid;

use crate::Time;
use crate::ids::Position;

/// How long after each failed attempt the next one comes, in seconds. After the last of them there is none.
pub const RETRIES: [i64; 9] =
    [5, 5 * 60, 30 * 60, 2 * 3_600, 5 * 3_600, 10 * 3_600, 14 * 3_600, 20 * 3_600, 24 * 3_600];
/// However long a receiver asks to be left alone, this long is the most.
pub const LONGEST_WAIT: TimeDelta = TimeDelta::hours(24);
/// Of a retry's delay, at most this part is added or taken away, so that many do not come at once.
const JITTER: f64 = 0.1;

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The webhook's id.
    pub webhook: Uuid,
    /// The event's.
    pub position: Position,
    /// What must stay in order: the stream the event is of.
    pub stream: String,
    pub attempts: u32,
    /// When it is tried, or tried again; none when it is over.
    pub next_at: Option<Time>,
    pub delivered_at: Option<Time>,
    /// When it was given up.
    pub failed_at: Option<Time>,
    /// HTTP status of the last answer.
    pub status: Option<u16>,
    /// Why the last attempt failed, for people and in our own words.
    pub error: Option<String>,
    pub created_at: Time,
    pub updated_at: Time,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    Pending,
    Delivered,
    /// Given up.
    Failed,
}

impl DeliveryStatus {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempted {
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why it failed; none when it was delivered.
    pub error: Option<String>,
    /// How long the receiver asks to be left alone.
    pub retry_after: Option<TimeDelta>,
}

impl Attempted {
    pub fn delivered(&self) -> bool {
        self.error.is_none()
    }

    /// The endpoint wants nothing any more: 410.
    pub fn gone(&self) -> bool {
        self.status == Some(410)
    }

    /// The endpoint has too much to do: everything else to it waits too.
    pub fn throttled(&self) -> bool {
        matches!(self.status, Some(429 | 502 | 503 | 504))
    }
}

impl Delivery {
    /// One that is due at once.
    pub fn new(webhook: Uuid, position: Position, stream: String, now: Time) -> Self {
        Self {
            webhook,
            position,
            stream,
            attempts: 0,
            next_at: Some(now),
            delivered_at: None,
            failed_at: None,
            status: None,
            error: None,
            created_at: now,
            updated_at: now,
        }
    }

    pub fn delivery_status(&self) -> DeliveryStatus {
        match (self.next_at, self.delivered_at) {
            (Some(_), _) => DeliveryStatus::Pending,
            (None, Some(_)) => DeliveryStatus::Delivered,
            (None, None) => DeliveryStatus::Failed,
        }
    }

    /// Takes note of an attempt. `jitter` is between -1 and 1.
    pub fn attempted(&mut self, attempted: &Attempted, now: Time, jitter: f64) {
        self.attempts = self.attempts.saturating_add(1);
        self.updated_at = now;
        self.status = attempted.status;
        self.error.clone_from(&attempted.error);
        if attempted.delivered() {
            (self.next_at, self.delivered_at, self.failed_at) = (None, Some(now), None);
            return;
        }
        let delay = RETRIES.get(self.attempts as usize - 1);
        // One that is gone is not given up: should the endpoint be enabled again, it goes on.
        match delay.or(attempted.gone().then_some(&RETRIES[8])) {
            Some(seconds) => {
                let planned = *seconds as f64 * 1_000.0 * (1.0 + JITTER * jitter.clamp(-1.0, 1.0));
                let planned = TimeDelta::milliseconds(planned as i64);
                let asked = attempted.retry_after.unwrap_or_default().min(LONGEST_WAIT);
                self.next_at = Some(now + planned.max(asked));
            }
            None => (self.next_at, self.failed_at) = (None, Some(now)),
        }
    }

    /// Begins anew: somebody wants it sent again.
    pub fn resend(&mut self, now: Time) {
        (self.attempts, self.next_at, self.updated_at) = (0, Some(now), now);
        (self.delivered_at, self.failed_at) = (None, None);
    }
}
