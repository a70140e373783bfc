//! What the committer takes: operations, each with what it can come to in its type.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sessiond_core::ids::SessionNumber;
use sessiond_core::revocation::Acknowledged;
use tokio::sync::oneshot;

use super::{BeginRevocation, Draft, Origin};
use crate::error::Error;
use crate::gate::{Flight, landed};
use crate::meter;
use crate::nodes::Barrier;

/// One unit of work: all of it happens, or none.
pub trait Operation: Send + 'static {
    /// What it comes to. Recorded for requests that take effect once, so nothing secret is in it; a field is added with a
    /// default and never changed, since records outlive an upgrade.
    type Outcome: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Whether its answer waits until what it cut off has let go: it is over, says the answer. Operations whose answer is
    /// not the last word see to that themselves.
    const WAITS: bool = true;

    /// Whether it is decided by what the clock says of other sessions, which are filed anew before.
    const LOOKS_AT_OTHERS: bool = false;

    /// Decides it: what is to be written goes into the draft, and nothing of it where it is refused.
    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Self::Outcome, Error>;

    /// How many sessions it may touch, where those may be many: a transaction has room for some.
    fn sessions(&self) -> usize {
        0
    }

    /// The session that an outcome is about, where it says something of one: it is forgotten with that.
    fn session(_: &Self::Outcome) -> Option<SessionNumber> {
        None
    }

    /// The revocation that it begins: in force in memory where there is no space to record it.
    fn revocation(&self) -> Option<&BeginRevocation> {
        None
    }
}

/// What has to happen before an operation is over, once it is on record.
#[derive(Default)]
pub(super) struct Following {
    /// What it cut off in this process.
    pub cut_off: Vec<Arc<Flight>>,
    /// The commit that the other nodes have to apply before, where it ends anything.
    pub awaited: Option<(Arc<Barrier>, i64)>,
}

/// What an operation is answered with.
pub struct Answer<Outcome> {
    pub outcome: Outcome,
    following: Following,
}

impl<Outcome> Answer<Outcome> {
    /// What was answered before, which cut off nothing now.
    pub(super) fn recorded(outcome: Outcome) -> Self {
        Self { outcome, following: Following::default() }
    }

    /// Waits until what the operation cut off has let go, but not for ever; and until what it ends has ended on every node,
    /// however long that takes. Says on how many it has.
    pub async fn landed(&self) -> Acknowledged {
        self.landed_here().await;
        match &self.following.awaited {
            Some((barrier, commit)) => barrier.wait(*commit).await,
            None => Acknowledged::ALONE,
        }
    }

    /// The same in this process alone: for whoever waits for the other nodes later, once for many operations.
    pub async fn landed_here(&self) {
        landed(&self.following.cut_off).await;
    }
}

/// An operation on its way through a batch, of whatever type.
pub(super) trait Unit: Send {
    fn decide(&mut self, draft: &mut Draft<'_>);
    fn sessions(&self) -> usize;
    fn looks_at_others(&self) -> bool;
    fn revocation(&self) -> Option<&BeginRevocation>;
    /// Tells what was decided, once that is durable, and what follows from it.
    fn answer(self: Box<Self>, following: Following);
    /// Tells that nothing was written. It may be tried again, with nobody left to tell.
    fn refuse(&mut self, error: Error);
}

type Reply<Outcome> = oneshot::Sender<Result<Answer<Outcome>, Error>>;

/// An operation that somebody handed in.
pub(super) struct Submitted<O: Operation> {
    origin: Origin,
    operation: O,
    decided: Option<Result<O::Outcome, Error>>,
    reply: Option<Reply<O::Outcome>>,
}

impl<O: Operation> Submitted<O> {
    pub fn new(origin: Origin, operation: O, reply: Option<Reply<O::Outcome>>) -> Box<Self> {
        Box::new(Self { origin, operation, decided: None, reply })
    }

    fn tell(&mut self, told: Result<Answer<O::Outcome>, Error>) {
        if let Some(limit) = told.as_ref().err().and_then(Error::limit) {
            metrics::counter!(meter::LIMITS_REACHED, "limit" => limit).increment(1);
        }
        // Whoever asked may have left; what was decided stands.
        self.reply.take().map(|reply| reply.send(told).ok());
    }
}

impl<O: Operation> Unit for Submitted<O> {
    fn decide(&mut self, draft: &mut Draft<'_>) {
        self.decided = Some(draft.decide(&self.origin, &self.operation));
    }

    fn sessions(&self) -> usize {
        self.operation.sessions()
    }

    fn looks_at_others(&self) -> bool {
        O::LOOKS_AT_OTHERS
    }

    fn revocation(&self) -> Option<&BeginRevocation> {
        self.operation.revocation()
    }

    fn answer(mut self: Box<Self>, following: Following) {
        if let Some(decided) = self.decided.take() {
            self.tell(decided.map(|outcome| Answer { outcome, following }));
        }
    }

    fn refuse(&mut self, error: Error) {
        self.tell(Err(error));
    }
}
