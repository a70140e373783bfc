//! Operations that let go of what is kept no longer.

use sessiond_core::ids::OrganizationNumber;
use sessiond_core::retention::Departing;
use sessiond_store::FoldableEvent;

use crate::committer::{CHUNK, Draft, Operation, Origin};
use crate::error::Error;

/// Lets sessions go that have ended, at most [`CHUNK`]. The outcome is whether they were.
#[derive(Debug)]
pub struct LetSessionsGo {
    pub organization: OrganizationNumber,
    /// The version of the organization from before they were looked for. What is let go is an event of it, and so is what it
    /// chooses: where there was one since, somebody else may have let them go, or it may want to keep them.
    pub as_of: i64,
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

/// Lets activity go of which a later one says the same. The outcome is whether they were.
#[derive(Debug)]
pub struct FoldActivity {
    pub organization: OrganizationNumber,
    /// The version of the organization from before they were looked for. What is let go is an event of it, and so is what it
    /// chooses: where there was one since, somebody else may have let them go, or it may want to keep them.
    pub as_of: i64,
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
