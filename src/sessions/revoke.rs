//! Revocation. The request records that it began, which closes the Gate; the worker ends what it covers, chunk by
//! chunk, by one code path for new, dropped and crashed ones; whoever asked waits for the worker's count.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Sessions, unexpected};
use crate::committer::{Answer, By, CHUNK, Done, Work};
use crate::core::caller::Caller;
use crate::core::command::Command;
use crate::core::reason::Reason;
use crate::core::revocation::{Filter, Revocation};
use crate::error::Error;
use crate::secret;

/// How long a connection may take to let go of what was cancelled before it is given up on.
const YIELD: Duration = Duration::from_millis(100);
/// Before a revocation that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest words an operator may give with a revocation.
const LONGEST_NOTE: usize = 200;

/// What a revocation came to.
#[derive(Debug, Clone, Copy)]
pub struct Revoked {
    /// The revocation's id; none where there was nothing to revoke.
    pub id: Option<Uuid>,
    /// How many sessions it disconnected: the number of `disconnected` events that carry it.
    pub disconnected: u64,
}

/// Those who wait for the worker, and what wakes it.
#[derive(Default)]
pub(super) struct Worker {
    wake: Notify,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<Result<u64, Error>>>>,
}

/// Waits until what was cancelled has let go, but not for ever.
pub(super) async fn wait_for(answer: &Answer) {
    let all = join_all(answer.flights.iter().map(|flight| flight.landed()));
    tokio::time::timeout(YIELD, all).await.ok();
}

impl Sessions {
    /// Ends every session of an application and bars the agent-side use of every token issued for it before.
    pub async fn revoke_all(
        &self,
        caller: &Caller,
        application: Uuid,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        self.revoke_application(caller, application, Reason::Revoked, note).await
    }

    /// The same, and the application is archived with it.
    pub async fn archive(&self, caller: &Caller, application: Uuid) -> Result<Revoked, Error> {
        self.revoke_application(caller, application, Reason::Archived, None).await
    }

    async fn revoke_application(
        &self,
        caller: &Caller,
        application: Uuid,
        reason: Reason,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let number = self.readable(caller, application)?;
        let filter = Filter { application: Some(number), session: None };
        self.revoke(caller, filter, reason, note).await
    }

    /// Ends one session and bars its token and the access token last presented with it.
    pub async fn revoke_one(
        &self,
        caller: &Caller,
        application: Uuid,
        id: Uuid,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let view = self.get(caller, application, id).await?;
        if view.session.ended.is_some() {
            return Ok(Revoked { id: None, disconnected: 0 });
        }
        let filter =
            Filter { application: Some(view.session.application), session: Some(view.session.number) };
        self.revoke(caller, filter, Reason::Revoked, note).await
    }

    async fn revoke(
        &self,
        caller: &Caller,
        filter: Filter,
        reason: Reason,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        if note.as_ref().is_some_and(|note| note.chars().count() > LONGEST_NOTE) {
            return Err(Error::field("reason", format!("reason must be at most {LONGEST_NOTE} characters")));
        }
        let (id, organization) = (secret::new_id(), caller.organization);
        let (tell, told) = oneshot::channel();
        self.revocations.waiting.lock().insert(id, tell);
        let work = Work::BeginRevocation { id, organization, filter, reason, note };
        if let Err(error) = self.committer.submit(By::caller(caller), work).await {
            self.revocations.waiting.lock().remove(&id);
            self.revocations.wake.notify_one();
            return Err(error);
        }
        self.revocations.wake.notify_one();
        // The worker goes on whether or not anybody still waits here.
        let disconnected = told.await.map_err(|_| Error::Busy)??;
        Ok(Revoked { id: Some(id), disconnected })
    }

    /// Wakes the worker, in case a wake-up was dropped.
    pub fn wake_revocations(&self) {
        self.revocations.wake.notify_one();
    }

    /// How many revocations have begun and not ended.
    pub fn unfinished_revocations(&self) -> usize {
        self.gate.known().revocations.len()
    }

    /// The worker: carries out every unfinished revocation, side by side, until it is told to stop.
    pub async fn run_revocations(&self, stopping: CancellationToken) {
        let mut running = FuturesUnordered::new();
        let mut begun = HashSet::new();
        loop {
            let unfinished: Vec<_> = self.gate.known().revocations.values().cloned().collect();
            // One that is in force in memory only, for want of disk space, has no log to end anything in. The committer
            // records it when it can; then it comes again under a number of its own.
            for revocation in unfinished.into_iter().filter(|revocation| !revocation.is_provisional()) {
                if begun.insert(revocation.number) {
                    running.push(async move {
                        (revocation.number, revocation.id, self.carry_out(&revocation).await)
                    });
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.revocations.wake.notified() => {}
                Some((number, id, outcome)) = running.next() => match outcome {
                    Ok(()) => {
                        begun.remove(&number);
                    }
                    Err(error) => {
                        // The next wake-up tries it again; the scheduler sees to it that there is one.
                        tracing::error!(?error, revocation = number.0, "a revocation could not go on");
                        begun.remove(&number);
                        // It goes on, but nobody should wait for what may take until somebody empties a disk.
                        if let (false, Some(tell)) =
                            (matches!(error, Error::Busy), self.revocations.waiting.lock().remove(&id))
                        {
                            tell.send(Err(error)).ok();
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Ends what one revocation covers. Anything may have happened before: it looks at what is left.
    async fn carry_out(&self, revocation: &Revocation) -> Result<(), Error> {
        let covered = self.gate.known().covered(revocation);
        let mut landing = Vec::new();
        for chunk in covered.chunks(CHUNK) {
            let command = Command::Disconnect { reason: revocation.reason };
            let items = chunk.iter().map(|number| (*number, command.clone())).collect();
            let work = Work::Bulk { items, revocation: Some(revocation.number) };
            let answer = self.committer.submit(By::system(), work).await?;
            landing.push(answer);
        }
        join_all(landing.iter().map(wait_for)).await;
        let answer = self.committer.submit(By::system(), Work::EndRevocation(revocation.number)).await?;
        let Done::Revocation(ended) = answer.done else { return Err(unexpected()) };
        if let Some(tell) = self.revocations.waiting.lock().remove(&revocation.id) {
            tell.send(Ok(ended.disconnected_count)).ok();
        }
        Ok(())
    }
}
