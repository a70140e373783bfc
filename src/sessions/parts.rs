//! Reports about many sessions at once: an operation for each part of them, and an answer for each session.

use futures_util::future::join_all;
use sessiond_core::caller::Caller;
use sessiond_core::ids::SessionNumber;
use sessiond_core::session::Refusal;

use crate::committer::{CHUNK, Operation};
use crate::context::AppContext;
use crate::error::{Error, Thing};

impl AppContext {
    /// Hands in reports about sessions, an operation for each [`CHUNK`] of them, and answers each report for itself, in the
    /// order given. A report that is an error already is answered with that.
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
                    // This stands in until its part is answered.
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
                // It ended after we looked: the error says how.
                Err(Error::NotFound(Thing::Session)) => {
                    Err(self.how_session_ended(number).await.unwrap_or_else(|error| error))
                }
                outcome => outcome,
            };
        }
        outcomes
    }

    /// Hands in one part of a request, which is about `count` sessions.
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
        let answer = match self.part_of_request(caller, part).await {
            Ok(origin) => self.committer.submit(origin, operation).await,
            Err(error) => Err(error),
        };
        match answer.map(|answer| each(answer.outcome)) {
            Ok(outcomes) if outcomes.len() == count => {
                outcomes.into_iter().map(|outcome| outcome.map_err(Error::from)).collect()
            }
            // The request was sent again with a credential that reaches less, or more.
            Ok(_) => (0..count).map(|_| Err(super::idempotency::reused())).collect(),
            Err(error) => (0..count).map(|_| Err(again(&error))).collect(),
        }
    }
}

/// Turns the refusals of a report into an outcome for each session, in its order.
pub(super) fn accepted(refusals: Vec<Option<Refusal>>) -> Vec<Result<(), Refusal>> {
    refusals.into_iter().map(|refusal| refusal.map_or(Ok(()), Err)).collect()
}

/// Makes the same error again, for each session of a part that failed as a whole.
fn again(error: &Error) -> Error {
    match error {
        Error::Busy => Error::Busy,
        Error::OutcomeUnknown => Error::OutcomeUnknown,
        Error::DiskFull => Error::DiskFull,
        Error::Unprocessable { .. } => super::idempotency::reused(),
        other => Error::Internal(other.to_string()),
    }
}
