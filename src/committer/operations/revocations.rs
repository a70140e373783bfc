//! Operations on revocations.

use sessiond_core::Time;
use sessiond_core::bar::KeepOut;
use sessiond_core::barring::BarOptions;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{OrganizationNumber, PrincipalNumber, RevocationNumber};
use sessiond_core::reason::Reason;
use sessiond_core::revocation::{Acknowledged, Revocation};
use uuid::Uuid;

use crate::committer::{Draft, Operation, Origin};
use crate::error::Error;

/// Closes the Gate for what a filter covers and records that a revocation began, with what happens in the same transaction.
#[derive(Debug, Clone)]
pub struct BeginRevocation {
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub filter: Filter,
    pub reason: Reason,
    pub note: Option<String>,
    /// What it bars beyond what its filter bars by itself.
    pub bar: BarOptions,
    /// The principals behind what it covers are kept out from then on.
    pub keep_out: Option<KeepOut>,
    /// The principal is disabled with it; with its public id.
    pub disable: Option<(PrincipalNumber, Uuid)>,
    /// It is a run of this schedule, for this moment. A run that is done already does not begin again.
    pub schedule: Option<(i64, Time)>,
}

impl Operation for BeginRevocation {
    type Outcome = Revocation;
    /// Its worker has more to cut off before anybody is answered.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Revocation, Error> {
        draft.begin_revocation(origin, self)
    }

    fn revocation(&self) -> Option<&BeginRevocation> {
        Some(self)
    }
}

/// Records that a revocation is through.
#[derive(Debug)]
pub struct EndRevocation {
    pub number: RevocationNumber,
    /// Requests and streams that it cut off.
    pub streams_closed: u64,
    /// On how many nodes what it ended has ended.
    pub nodes: Option<Acknowledged>,
}

impl Operation for EndRevocation {
    type Outcome = Revocation;
    /// What it ended has ended before.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Revocation, Error> {
        draft.end_revocation(origin, self.number, (self.streams_closed, self.nodes))
    }
}
