//! What was at a position of the log, which is asked about moments in the past.

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::session::earlier::EarlierState;

use crate::StoreError;
use crate::row::{Entry, SessionRow};

/// Sessions of an application to read that were open at a position and have ended since, in the order of their numbers.
#[derive(Debug, Clone, Copy)]
pub struct EndedSince {
    pub application: ApplicationNumber,
    pub at: Position,
    pub descending: bool,
    /// Only those beyond this one, in the direction; it need not be there.
    pub after: Option<SessionNumber>,
    /// Only those up to this one: none that came later was open then.
    pub last: SessionNumber,
    pub limit: usize,
}

/// Sessions as they were at a position of the log: of what lies before and after, an answer costs what is asked for, and no more
/// where there is more.
#[async_trait]
pub trait Past: Send + Sync {
    /// The last session, whosever it is, that had connected at a position; of those that are kept.
    async fn last_connected(&self, at: Position) -> Result<Option<SessionNumber>, StoreError>;

    /// A page of sessions that have ended since, as they are now.
    async fn ended_since(&self, page: &EndedSince) -> Result<Vec<SessionRow>, StoreError>;

    /// How many sessions of an application there are up to a number, open and ended.
    async fn sessions_up_to(
        &self,
        application: ApplicationNumber,
        last: SessionNumber,
    ) -> Result<u64, StoreError>;

    /// How these sessions stood at a position, in no order; without those of which the state that they are in now, or at their end,
    /// had begun by then ([`EarlierState`]).
    async fn earlier_states(
        &self,
        sessions: &[SessionNumber],
        at: Position,
    ) -> Result<Vec<EarlierState>, StoreError>;

    /// What these sessions are made of up to a position, oldest first: all their events that are no activity, and of each the
    /// last activity. With each comes the position of one of its events, at `at` or later where it has any: the last one, say.
    async fn making(
        &self,
        sessions: &[(SessionNumber, Position)],
        at: Position,
    ) -> Result<Vec<Entry>, StoreError>;
}
