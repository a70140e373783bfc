//! Commands about a session, in the imperative: what someone wants to happen to it.

use chrono::TimeDelta;
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, OrganizationNumber, PrincipalNumber};
use crate::kind::Kind;
use crate::natural_key::{NaturalKey, natural_key};
use crate::personal::Personal;
use crate::phase::{Outcome, Phase};
use crate::presented::Presented;
use crate::reason::Reason;
use crate::session::event::{ActivitySource, Counts};

/// What somebody wants to happen to one session.
#[derive(Debug, Clone)]
pub enum Command {
    /// Open a session, or attach to the live one that holds the same natural key.
    Connect(Box<Connect>),
    /// A sign of life.
    RecordActivity {
        source: ActivitySource,
        counts: Counts,
        presented: Presented,
    },
    /// The work behind it has come so far.
    ChangePhase {
        phase: Phase,
        presented: Presented,
    },
    /// The work behind it is over.
    Finish {
        outcome: Outcome,
        message: Option<String>,
    },
    /// Replace the session's token.
    RenewToken {
        presented: Presented,
    },
    /// Announce that the token's time has passed.
    Expire,
    /// End it if there was no sign of life since before the stale timeout. `not_before` is the later of process start
    /// and last clock jump: our own absence never counts as theirs. `seen_at` is a sign of life not yet in the log.
    EndStale {
        not_before: Time,
        seen_at: Option<Time>,
    },
    /// End it if its absolute lifetime has passed.
    EndLifetime,
    /// Refuse every request of it from now on, and change nothing else.
    Suspend,
    Resume,
    /// End it.
    Disconnect {
        reason: Reason,
    },
}

impl Command {
    /// The credential that came with the command; the system presents none.
    pub fn presented(&self) -> Option<&Presented> {
        match self {
            Self::Connect(connect) => Some(&connect.presented),
            Self::RecordActivity { presented, .. }
            | Self::ChangePhase { presented, .. }
            | Self::RenewToken { presented } => Some(presented),
            _ => None,
        }
    }
}

/// What a new session brings along.
#[derive(Debug, Clone)]
pub struct Connect {
    pub id: Uuid,
    pub kind: Kind,
    pub organization: OrganizationNumber,
    pub application: ApplicationNumber,
    pub principal: PrincipalNumber,
    /// What the gateway knows a client by that has no session id.
    pub anchor: Option<String>,
    pub client_session_id: Option<String>,
    pub token_identifier: Option<String>,
    pub protocol_version: Option<String>,
    /// What it is connected to within its application.
    pub resource: Option<String>,
    pub phase: Option<Phase>,
    /// The node that it lives on, where it cannot go on anywhere else.
    pub node: Option<i64>,
    /// End it after so much time, if that comes before the policy's limit.
    pub lifetime: Option<TimeDelta>,
    /// Whoever opens it reports its end, and nothing in between: its silence means nothing.
    pub silent: bool,
    /// Refuse it where a live session has its natural key, instead of attaching to that one.
    pub exclusive: bool,
    /// Stored beside the event, erasable.
    pub personal: Personal,
    pub presented: Presented,
}

impl Connect {
    /// The personal facts as they are stored: with the names that the client chose, save that within a resource, which
    /// says where the session is and not whose.
    pub fn facts(&self) -> Personal {
        Personal {
            client_session_id: self.client_session_id.clone().filter(|_| self.resource.is_none()),
            token_identifier: self.token_identifier.clone(),
            ..self.personal.clone()
        }
    }

    /// The natural key: one live session per application may hold it. The principal's number must be known by now.
    pub fn key(&self) -> Option<NaturalKey<'_>> {
        natural_key(
            self.principal,
            self.anchor.as_deref(),
            self.resource.as_deref(),
            self.client_session_id.as_deref(),
            self.token_identifier.as_deref(),
        )
    }
}
