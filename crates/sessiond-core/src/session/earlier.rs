//! How a session stood before: what its status and its stage were derived from up to one of its events. Between two of these
//! the clock alone changes them, so that whoever asks about a moment in the past needs the first one after it, and not the
//! activity in between. `docs/decisions/0062-as-of.md` says why.

use chrono::TimeDelta;

use super::event::SessionEvent;
use super::{Session, evolve};
use crate::Time;
use crate::ids::{Position, SessionNumber};
use crate::phase::Phase;

/// How a session stood just before one of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierState {
    pub session: SessionNumber,
    /// Of the event that ended it.
    pub position: Position,
    pub last_active_at: Time,
    pub token_expires_at: Time,
    pub phase: Option<Phase>,
}

impl EarlierState {
    /// The state that an event ends, where from then on the session's status or stage is derived otherwise: its token or its phase is
    /// another one, or it had become idle and is active again. What lies between two such events has nothing that could not be
    /// told from the state that the second one ends.
    ///
    /// It is judged by when the event was recorded: up to then, whoever asked was told by what there was.
    pub fn ended_by(
        session: &Session,
        event: &SessionEvent,
        position: Position,
        recorded_at: Time,
    ) -> Option<Self> {
        let idle_after = TimeDelta::seconds(session.policy.idle_after.into());
        let ends = match event {
            SessionEvent::TokenRenewed(_) | SessionEvent::PhaseChanged(_) => true,
            SessionEvent::ActivityRecorded(_) => recorded_at - session.last_active_at >= idle_after,
            SessionEvent::Connected(_)
            | SessionEvent::Expired(_)
            | SessionEvent::Suspended
            | SessionEvent::Resumed
            | SessionEvent::Disconnected(_) => false,
        };
        ends.then_some(Self {
            session: session.number,
            position,
            last_active_at: session.last_active_at,
            token_expires_at: session.token_expires_at,
            phase: session.phase,
        })
    }

    /// The session as it was while it stood so, as far as its status and stage go: open, and last active when that state's last
    /// activity was, or not long before.
    pub fn of(&self, session: &Session) -> Session {
        Session {
            last_active_at: self.last_active_at,
            token_expires_at: self.token_expires_at,
            phase: self.phase,
            ..open(session)
        }
    }
}

/// A session before its end.
pub fn open(session: &Session) -> Session {
    Session { ended: None, message: None, ..session.clone() }
}

/// The fold of a session's events, the first of which opened it, in the order of the log.
pub fn folded<'event>(
    events: impl IntoIterator<Item = (&'event SessionEvent, super::Envelope)>,
) -> Option<Session> {
    events.into_iter().fold(None, |session, (event, envelope)| evolve(session, event, &envelope))
}
