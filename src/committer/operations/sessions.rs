//! Operations on sessions.

use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::command::{Command, Connect};
use sessiond_core::ids::{RevocationNumber, SessionNumber};
use sessiond_core::phase::{Outcome, Phase};
use sessiond_core::presented::Presented;
use sessiond_core::reason::Reason;
use sessiond_core::session::event::{ActivitySource, Counts};
use sessiond_core::session::{Refusal, Session};
use sessiond_core::throughput::{Reading, Sample};

use crate::committer::{Draft, Operation, Origin};
use crate::error::Error;
use crate::gate::Due;

/// Opens a session, or attaches to the one that holds the same natural key; with what belongs to it beside the rules.
#[derive(Debug)]
pub struct OpenSession {
    pub connect: Connect,
    /// None for kinds of session that have no token.
    pub token_hash: Option<[u8; 32]>,
    pub issuer: String,
    pub subject: String,
    pub subject_digest: [u8; 32],
}

/// A session as it stands after somebody connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connected {
    pub session: Box<Session>,
    /// Whether it was opened by that, and not attached to.
    pub opened: bool,
}

impl Operation for OpenSession {
    type Outcome = Connected;
    /// Who makes room under a limit depends on it.
    const LOOKS_AT_OTHERS: bool = true;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Connected, Error> {
        draft.connect(origin, self)
    }

    fn session(connected: &Connected) -> Option<SessionNumber> {
        Some(connected.session.number)
    }
}

/// What a session did.
#[derive(Debug, Clone, Copy)]
pub struct Activity {
    pub source: ActivitySource,
    pub counts: Counts,
    pub presented: Presented,
}

impl From<Activity> for Command {
    fn from(Activity { source, counts, presented }: Activity) -> Self {
        Self::RecordActivity { source, counts, presented }
    }
}

/// Records a sign of life of a session.
#[derive(Debug)]
pub struct RecordActivity {
    pub session: SessionNumber,
    pub activity: Activity,
}

impl Operation for RecordActivity {
    type Outcome = Box<Session>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Box<Session>, Error> {
        draft.command_session(origin, self.session, &self.activity.into())
    }

    fn session(session: &Box<Session>) -> Option<SessionNumber> {
        Some(session.number)
    }
}

/// Notes how far the work behind a session has come.
#[derive(Debug)]
pub struct ChangePhase {
    pub session: SessionNumber,
    pub phase: Phase,
    pub presented: Presented,
}

impl Operation for ChangePhase {
    type Outcome = Box<Session>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Box<Session>, Error> {
        let command = Command::ChangePhase { phase: self.phase, presented: self.presented };
        draft.command_session(origin, self.session, &command)
    }

    fn session(session: &Box<Session>) -> Option<SessionNumber> {
        Some(session.number)
    }
}

/// Refuses every request of a session from now on, or no longer, and changes nothing else.
#[derive(Debug)]
pub struct SetSuspended {
    pub session: SessionNumber,
    pub suspended: bool,
}

impl Operation for SetSuspended {
    type Outcome = Box<Session>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Box<Session>, Error> {
        let command = if self.suspended { Command::Suspend } else { Command::Resume };
        draft.command_session(origin, self.session, &command)
    }

    fn session(session: &Box<Session>) -> Option<SessionNumber> {
        Some(session.number)
    }
}

/// Replaces a session's token by one with this hash.
#[derive(Debug)]
pub struct RenewToken {
    pub session: SessionNumber,
    pub presented: Presented,
    pub token_hash: [u8; 32],
}

impl Operation for RenewToken {
    type Outcome = Box<Session>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Box<Session>, Error> {
        let command = Command::RenewToken { presented: self.presented };
        let session = draft.command_session(origin, self.session, &command)?;
        draft.issue_session_token(self.session, self.token_hash);
        Ok(session)
    }

    fn session(session: &Box<Session>) -> Option<SessionNumber> {
        Some(session.number)
    }
}

/// Records signs of life of many sessions, at most [`CHUNK`](crate::committer::CHUNK). Each may be refused for itself: the outcome has the
/// refusals, in the order of the sessions.
#[derive(Debug)]
pub struct ReportActivity(pub Vec<(SessionNumber, Activity)>);

impl Operation for ReportActivity {
    type Outcome = Vec<Option<Refusal>>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Self::Outcome, Error> {
        Ok(draft.report(origin, &self.0))
    }

    fn sessions(&self) -> usize {
        self.0.len()
    }
}

/// A reading of the counter of what a session was sent.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    pub sample: Sample,
    pub presented: Presented,
}

/// Takes readings of many sessions' counters, at most [`CHUNK`](crate::committer::CHUNK). Each may be refused for itself: the outcome has what
/// became of each, in their order.
#[derive(Debug)]
pub struct MeasureSessions(pub Vec<(SessionNumber, Measurement)>);

impl Operation for MeasureSessions {
    type Outcome = Vec<Result<Reading, Refusal>>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Self::Outcome, Error> {
        Ok(draft.measure(origin, &self.0))
    }

    fn sessions(&self) -> usize {
        self.0.len()
    }
}

/// How a session is to end.
#[derive(Debug, Clone)]
pub enum SessionEnd {
    Disconnect(Reason),
    /// The work behind it is over.
    Finish {
        outcome: Outcome,
        message: Option<String>,
    },
    /// Its absolute lifetime has passed.
    Lifetime,
}

impl From<&SessionEnd> for Command {
    fn from(end: &SessionEnd) -> Self {
        match end {
            SessionEnd::Disconnect(reason) => Self::Disconnect { reason: *reason },
            SessionEnd::Finish { outcome, message } => {
                Self::Finish { outcome: *outcome, message: message.clone() }
            }
            SessionEnd::Lifetime => Self::EndLifetime,
        }
    }
}

/// Ends sessions, at most [`CHUNK`](crate::committer::CHUNK), perhaps because a revocation covers them. The outcome is how many it ended.
#[derive(Debug)]
pub struct EndSessions {
    pub ends: Vec<(SessionNumber, SessionEnd)>,
    pub revocation: Option<RevocationNumber>,
}

impl Operation for EndSessions {
    type Outcome = u64;
    /// A revocation ends many before it answers, and waits for all of them at once.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<u64, Error> {
        let commands = self.ends.iter().map(|(number, end)| (*number, end.into()));
        Ok(draft.end_sessions(origin, commands, self.revocation))
    }

    fn sessions(&self) -> usize {
        self.ends.len()
    }
}

/// Does what the clock demands of sessions, at most [`CHUNK`](crate::committer::CHUNK). The outcome is how many it ended.
#[derive(Debug)]
pub struct MeetDeadlines {
    pub due: Vec<(SessionNumber, Due)>,
    /// The later of process start and last clock jump: our own absence never counts as theirs.
    pub not_before: Time,
}

impl Operation for MeetDeadlines {
    type Outcome = u64;
    /// Nobody is told that it is over.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<u64, Error> {
        let not_before = self.not_before;
        let command = |due| match due {
            Due::Expire => Command::Expire,
            Due::Lifetime => Command::EndLifetime,
            Due::Stale(seen_at) => Command::EndStale { not_before, seen_at },
        };
        Ok(draft.end_sessions(origin, self.due.iter().map(|(number, due)| (*number, command(*due))), None))
    }

    fn sessions(&self) -> usize {
        self.due.len()
    }
}
