//! Reports about many sessions at once, from whoever fronts them.

use futures_util::future::join_all;
use sessiond_core::caller::Caller;
use sessiond_core::ids::SessionNumber;
use sessiond_core::session::Refusal;
use sessiond_core::session::event::{ActivitySource, Counts};
use uuid::Uuid;

use super::Sessions;
use crate::committer::{Activity, CHUNK, Operation, ReportActivity};
use crate::error::{Error, Thing};

impl Sessions {
    /// Signs of life of many sessions, durable when this returns. Each is answered for itself, in the order given.
    pub async fn record_many(&self, caller: &Caller, items: &[(Uuid, Counts)]) -> Vec<Result<(), Error>> {
        let mut reports = Vec::with_capacity(items.len());
        for (id, counts) in items {
            // Also what has ended: a request that is sent again is cut into the same chunks, whatever happened since.
            let session = self.reachable(caller, *id).await;
            let session = session.and_then(|judged| judged.map_err(super::other_surface));
            reports.push(session.map(|session| {
                if session.ended.is_none() {
                    self.gate_presented(caller, session.number);
                }
                let (source, presented) = (ActivitySource::Report, caller.presented(session.owner));
                (session.number, Activity { source, counts: *counts, presented })
            }));
        }
        self.in_parts(caller, reports, ReportActivity, accepted).await
    }

    /// Hands in what is reported of sessions, an operation for each [`CHUNK`] of them, and answers each for itself, in the
    /// order given; what is an error already is answered as it came.
    pub(super) async fn in_parts<Report: Clone, O: Operation, Out>(
        &self,
        caller: &Caller,
        reports: Vec<Result<(SessionNumber, Report), Error>>,
        operation: fn(Vec<(SessionNumber, Report)>) -> O,
        each: fn(O::Outcome) -> Vec<Result<Out, Refusal>>,
    ) -> Vec<Result<Out, Error>> {
        let mut chunks = vec![vec![]; reports.len().div_ceil(CHUNK)];
        let mut outcomes = Vec::with_capacity(reports.len());
        for (index, report) in reports.into_iter().enumerate() {
            match report {
                Ok((number, report)) => {
                    chunks[index / CHUNK].push((index, number, report));
                    // Until its part is answered.
                    outcomes.push(Err(Error::Busy));
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        let parts = chunks.into_iter().enumerate().map(|(part, chunk)| async move {
            let places: Vec<_> = chunk.iter().map(|(index, number, _)| (*index, *number)).collect();
            let reports = chunk.into_iter().map(|(_, number, report)| (number, report)).collect();
            let outcomes = self.hand_in(caller, part, operation(reports), each, places.len()).await;
            places.into_iter().zip(outcomes).collect::<Vec<_>>()
        });
        for ((index, number), outcome) in join_all(parts).await.into_iter().flatten() {
            outcomes[index] = match outcome {
                // It ended after we looked: say how.
                Err(Error::NotFound(Thing::Session)) => {
                    Err(self.how_it_ended(number).await.unwrap_or_else(|error| error))
                }
                outcome => outcome,
            };
        }
        outcomes
    }

    /// One part of a request, about so many sessions.
    async fn hand_in<O: Operation, Out>(
        &self,
        caller: &Caller,
        part: usize,
        operation: O,
        each: fn(O::Outcome) -> Vec<Result<Out, Refusal>>,
        count: usize,
    ) -> Vec<Result<Out, Error>> {
        if count == 0 {
            return vec![];
        }
        let answer = match self.part(caller, part).await {
            Ok(origin) => self.committer.submit(origin, operation).await,
            Err(error) => Err(error),
        };
        match answer.map(|answer| each(answer.outcome)) {
            Ok(outcomes) if outcomes.len() == count => {
                outcomes.into_iter().map(|outcome| outcome.map_err(Error::from)).collect()
            }
            // Of a request sent again with a credential that reaches less, or more.
            Ok(_) => (0..count).map(|_| Err(super::once::reused())).collect(),
            Err(error) => (0..count).map(|_| Err(again(&error))).collect(),
        }
    }
}

/// What was accepted of a report, in its order.
pub(super) fn accepted(refusals: Vec<Option<Refusal>>) -> Vec<Result<(), Refusal>> {
    refusals.into_iter().map(|refusal| refusal.map_or(Ok(()), Err)).collect()
}

/// The same failure, for each of those that share it.
fn again(error: &Error) -> Error {
    match error {
        Error::Busy => Error::Busy,
        Error::DiskFull => Error::DiskFull,
        Error::Unprocessable { .. } => super::once::reused(),
        other => Error::Internal(other.to_string()),
    }
}
