//! Operations that let go of what is kept no longer.

use sessiond_core::ids::OrganizationNumber;
use sessiond_core::retention::{Departing, Retention};
use sessiond_store::FoldableEvent;

use crate::committer::{CHUNK, Draft, Operation, Origin};
use crate::error::Error;

/// Lets sessions go that have ended, at most [`CHUNK`]. The outcome is whether the organization still wants that.
#[derive(Debug)]
pub struct LetSessionsGo {
    pub organization: OrganizationNumber,
    /// What it had chosen when they were looked for.
    pub chosen: Retention,
    pub departing: Vec<Departing>,
}

impl Operation for LetSessionsGo {
    type Outcome = bool;
    /// Nobody is told.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<bool, Error> {
        draft.let_sessions_go(origin, self)
    }

    fn sessions(&self) -> usize {
        CHUNK
    }
}

/// Lets activity go of which a later one says the same. The outcome is whether the organization still wants that.
#[derive(Debug)]
pub struct FoldActivity {
    pub organization: OrganizationNumber,
    /// What it had chosen when they were looked for.
    pub chosen: Retention,
    pub events: Vec<FoldableEvent>,
}

impl Operation for FoldActivity {
    type Outcome = bool;
    /// Nobody is told.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<bool, Error> {
        draft.fold_activity(origin, self)
    }

    fn sessions(&self) -> usize {
        CHUNK
    }
}
