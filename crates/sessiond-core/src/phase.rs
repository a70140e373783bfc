//! How far the work behind a session has come, and what came of it; for sessions of work that is queued and run.

use serde::{Deserialize, Serialize};

/// How far work has come that is not over. It only goes forward. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for its turn.
    Queued,
    /// What it needs is being prepared.
    Launching,
    Running,
}

impl Phase {
    pub const ALL: [Self; 3] = [Self::Queued, Self::Launching, Self::Running];

    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Launching => "launching",
            Self::Running => "running",
        }
    }

    /// The phase behind a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.word() == word)
    }
}

/// How far a session has come, over its whole life: the phase of what is not over, else how it ended. Sessions without
/// phases run, and are terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Queued,
    Launching,
    Running,
    Finished,
    Failed,
    Crashed,
    /// It was ended from outside, or by the clock.
    Terminated,
}

impl Stage {
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Launching,
        Self::Running,
        Self::Finished,
        Self::Failed,
        Self::Crashed,
        Self::Terminated,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Launching => "launching",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Terminated => "terminated",
        }
    }

    /// The stage behind a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.word() == word)
    }

    /// Of a session that is not over.
    pub fn open(phase: Option<Phase>) -> Self {
        match phase {
            Some(Phase::Queued) => Self::Queued,
            Some(Phase::Launching) => Self::Launching,
            Some(Phase::Running) | None => Self::Running,
        }
    }

    /// Of one that is.
    pub fn ended(outcome: Option<Outcome>) -> Self {
        match outcome {
            Some(Outcome::Finished) => Self::Finished,
            Some(Outcome::Failed) => Self::Failed,
            Some(Outcome::Crashed) => Self::Crashed,
            None => Self::Terminated,
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Crashed | Self::Terminated)
    }
}

/// What came of work that ended by itself. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it was to do.
    Finished,
    /// It says itself that it could not.
    Failed,
    /// It broke.
    Crashed,
}

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Finished, Self::Failed, Self::Crashed];

    pub fn word(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
        }
    }

    /// The outcome behind a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.word() == word)
    }
}
