//! `derivedStatus`: a reading of the clock, never a write.

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::session::Session;

/// What a session is at the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DerivedStatus {
    /// Connected and active recently.
    Active,
    /// Connected, without recent activity.
    Idle,
    /// Its token has expired; the session has not ended.
    Expired,
    /// Ended.
    Disconnected,
}

impl DerivedStatus {
    pub const ALL: [Self; 4] = [Self::Active, Self::Idle, Self::Expired, Self::Disconnected];
    /// What a session can be that has not ended, in the order in which counts are given.
    pub const OPEN: [Self; 3] = [Self::Active, Self::Idle, Self::Expired];

    /// The word on the wire and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Disconnected => "disconnected",
        }
    }

    /// The status behind a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

/// `disconnected > expired > idle > active`. Expired from the instant of `token_expires_at` on; idle from the instant
/// at which `idle_after` has passed since the last activity. `seen_at` is a sign of life that is not in the log yet.
pub fn derived_status(session: &Session, seen_at: Option<Time>, now: Time) -> DerivedStatus {
    let last = seen_at.map_or(session.last_active_at, |seen| seen.max(session.last_active_at));
    if session.ended.is_some() {
        DerivedStatus::Disconnected
    } else if session.token_expired(now) {
        DerivedStatus::Expired
    } else if now - last >= chrono::TimeDelta::seconds(session.policy.idle_after.into()) {
        DerivedStatus::Idle
    } else {
        DerivedStatus::Active
    }
}
