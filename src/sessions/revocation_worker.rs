//! Carrying revocations out. The worker ends what each covers, chunk by chunk, by one code path for new, dropped and crashed
//! ones; whoever began one waits for the worker's count.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use sessiond_core::filter::Filter;
use sessiond_core::revocation::{Acknowledged, Revocation};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Revocations, Revoked};
use crate::committer::{Answer, BeginRevocation, CHUNK, EndRevocation, EndSessions, Origin, SessionEnd};
use crate::error::{Error, Thing};
use crate::meter;

/// How often it is looked whether a revocation that another node carries out still goes on there.
const LOOK: Duration = Duration::from_secs(2);
/// The pause before a revocation that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Those who wait for the worker, and what wakes it.
#[derive(Default)]
pub(super) struct Worker {
    wake: Notify,
    waiting: Mutex<HashMap<Uuid, Vec<Waiting>>>,
}

/// How many sessions a revocation has disconnected, and on how many nodes they have ended.
type Outcome = (u64, Option<Acknowledged>);

type Waiting = oneshot::Sender<Result<Outcome, Error>>;

/// What a revocation covers, in a word for the metrics.
fn scope(filter: &Filter) -> &'static str {
    if filter.session.is_some() {
        "session"
    } else if filter.whole_application().is_some() {
        "application"
    } else if !filter.whole_principals().is_empty() {
        "principal"
    } else if filter.whole_organization() {
        "organization"
    } else {
        "filter"
    }
}

impl Revocations {
    /// Begins a revocation and waits until the worker is through with it.
    pub(super) async fn carry_through(
        &self,
        origin: Origin,
        beginning: BeginRevocation,
    ) -> Result<Revoked, Error> {
        if let Some(begun) = origin.recorded::<BeginRevocation>()? {
            return self.carried_through_before(begun).await;
        }
        let id = beginning.id;
        let (tell, told) = oneshot::channel();
        self.worker.waiting.lock().insert(id, vec![tell]);
        let scope = scope(&beginning.filter);
        let begun = match self.context.committer.submit(origin, beginning).await {
            Ok(answer) => answer,
            Err(error) => {
                self.worker.waiting.lock().remove(&id);
                self.worker.wake.notify_one();
                return Err(error);
            }
        };
        metrics::counter!(meter::REVOCATIONS, "scope" => scope).increment(1);
        self.worker.wake.notify_one();
        // The worker goes on whether or not anybody still waits here.
        let (disconnected, nodes) = told.await.map_err(|_| Error::Busy)??;
        // Streams of sessions that it leaves alone may have been open by credentials that it bars.
        begun.landed_here().await;
        let credentials = self.credentials_of(&begun.outcome).await?;
        Ok(Revoked { id: Some(id), disconnected, nodes, credentials })
    }

    /// Answers a request that began a revocation before, with the revocation's count, once it has one.
    async fn carried_through_before(&self, begun: Revocation) -> Result<Revoked, Error> {
        let (id, credentials) = (begun.id, self.credentials_of(&begun).await?);
        let (tell, told) = oneshot::channel();
        // It waits before it looks: a revocation that ends after the look is told to all who wait.
        self.worker.waiting.lock().entry(id).or_default().push(tell);
        let stored = self.context.store.revocation_by_id(id).await;
        match stored.map(|revocation| revocation.filter(|revocation| revocation.ended_at.is_some())) {
            Ok(None) => {
                let (disconnected, nodes) = told.await.map_err(|_| Error::Busy)??;
                Ok(Revoked { id: Some(id), disconnected, nodes, credentials })
            }
            known => {
                drop(told);
                self.nobody_waits(id);
                known?;
                let (disconnected, nodes) = self.outcome(id).await?;
                Ok(Revoked { id: Some(id), disconnected, nodes, credentials })
            }
        }
    }

    /// Lets go of those who do not wait any more.
    fn nobody_waits(&self, id: Uuid) {
        let mut waiting = self.worker.waiting.lock();
        let line = waiting.entry(id).or_default();
        line.retain(|tell| !tell.is_closed());
        if line.is_empty() {
            waiting.remove(&id);
        }
    }

    /// Tells everybody who waits for a revocation what came of it.
    fn tell(&self, id: Uuid, outcome: impl Fn() -> Result<Outcome, Error>) {
        for tell in self.worker.waiting.lock().remove(&id).unwrap_or_default() {
            tell.send(outcome()).ok();
        }
    }

    /// Wakes the worker, in case a wake-up was dropped.
    pub fn wake(&self) {
        self.worker.wake.notify_one();
    }

    /// Counts the revocations that have begun and not ended.
    pub fn unfinished(&self) -> usize {
        self.context.gate.known().streams::<Revocation>().count()
    }

    /// Runs the worker: it carries out all unfinished revocations, side by side, until it is told to stop.
    pub async fn run(&self, stopping: CancellationToken) {
        let mut running = FuturesUnordered::new();
        let mut begun = HashSet::new();
        loop {
            let unfinished: Vec<_> = self.context.gate.known().streams::<Revocation>().cloned().collect();
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
                () = self.worker.wake.notified() => {}
                Some((number, id, outcome)) = running.next() => match outcome {
                    Ok(()) => {
                        begun.remove(&number);
                    }
                    Err(error) => {
                        // The next wake-up tries it again; the scheduler sees to it that there is one.
                        tracing::error!(?error, revocation = number.0, "a revocation could not go on");
                        begun.remove(&number);
                        // The revocation goes on, but nobody should wait until somebody makes room on a disk.
                        match error {
                            Error::Busy => {}
                            Error::DiskFull => self.tell(id, || Err(Error::DiskFull)),
                            error => self.tell(id, || Err(Error::Internal(error.to_string()))),
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Reads the request behind a revocation from its first event: the events that it causes name that request too.
    async fn cause(&self, revocation: &Revocation) -> Result<Origin, Error> {
        let began = self.context.store.event(revocation.fence).await?.map(|entry| entry.recorded);
        Ok(began.map_or_else(Origin::system, |began| Origin {
            request_id: began.request_id,
            traceparent: began.traceparent,
            ..Origin::system()
        }))
    }

    /// Ends what one revocation covers, whatever of it an earlier attempt, or another node, has ended.
    async fn carry_out(&self, revocation: &Revocation) -> Result<(), Error> {
        let job = format!("revocation {}", revocation.number.0);
        if !self.context.claims.take(&job).await {
            return self.carried_out_elsewhere(revocation, &job).await;
        }
        let cause = self.cause(revocation).await?;
        let covered = self.context.gate.known().covered_since_it_began(revocation);
        let mut landing = Vec::new();
        for chunk in covered.chunks(CHUNK) {
            let end = SessionEnd::Disconnect(revocation.reason);
            let ends = chunk.iter().map(|number| (*number, end.clone())).collect();
            let ending = EndSessions { ends, revocation: Some(revocation.number) };
            landing.push(self.context.committer.submit(cause.clone(), ending).await?);
        }
        join_all(landing.iter().map(Answer::landed_here)).await;
        let nodes = self.context.committer.true_everywhere().await;
        // This is read last: the worker may have been woken before the committer had cut anything off, and the operations above
        // wait for the committer.
        let here = self.context.gate.known().cut_off_by(revocation.number);
        let streams_closed = here + self.context.claims.cut_off_elsewhere(revocation.number).await;
        let end = EndRevocation { number: revocation.number, streams_closed, nodes };
        match self.context.committer.submit(cause, end).await {
            Ok(ended) => {
                metrics::counter!(meter::REVOKED).increment(ended.outcome.disconnected_count);
                self.tell(revocation.id, || Ok((ended.outcome.disconnected_count, nodes)));
                Ok(())
            }
            // Another node was faster.
            Err(Error::NotFound(Thing::Revocation)) => self.carried_out_elsewhere(revocation, &job).await,
            Err(error) => Err(error),
        }
    }

    /// Waits until a revocation is through that another node carries out, or until that node does no more.
    async fn carried_out_elsewhere(&self, revocation: &Revocation, job: &str) -> Result<(), Error> {
        let mut tip = self.context.committer.tip();
        while self.context.gate.known().stream::<Revocation>(revocation.number).is_some() {
            if tokio::time::timeout(LOOK, tip.changed()).await.is_err() && self.context.claims.take(job).await
            {
                // Begun again by the next wake-up.
                self.worker.wake.notify_one();
                return Ok(());
            }
        }
        let outcome = self.outcome(revocation.id).await?;
        self.tell(revocation.id, || Ok(outcome));
        Ok(())
    }

    /// What a revocation that is through has come to.
    async fn outcome(&self, id: Uuid) -> Result<Outcome, Error> {
        let revocation =
            self.context.store.revocation_by_id(id).await?.ok_or(Error::NotFound(Thing::Revocation))?;
        Ok((revocation.disconnected_count, self.ending_of(&revocation).await?.and_then(|ended| ended.nodes)))
    }
}
