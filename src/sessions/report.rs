//! Reports about many sessions at once, from whoever fronts them.

use futures_util::future::join_all;
use sessiond_core::caller::Caller;
use sessiond_core::command::Command;
use sessiond_core::ids::SessionNumber;
use sessiond_core::session::Refusal;
use sessiond_core::session::event::{ActivitySource, Counts};
use uuid::Uuid;

use super::Sessions;
use crate::committer::{CHUNK, Done, Work};
use crate::error::Error;

/// A wish about a session that is open, or was.
type Wish = (SessionNumber, Command);
/// Makes one unit of work of several wishes, and finds in what came of it what came of each.
type Ask = fn(Vec<Wish>) -> Work;
type Read<Out> = fn(Done) -> Option<Vec<Result<Out, Refusal>>>;

impl Sessions {
    /// Signs of life of many sessions, durable when this returns. Each is answered for itself, in the order given.
    pub async fn record_many(&self, caller: &Caller, items: &[(Uuid, Counts)]) -> Vec<Result<(), Error>> {
        let mut wishes = Vec::with_capacity(items.len());
        for (id, counts) in items {
            // Also what has ended: a request that is sent again is cut into the same chunks, whatever happened since.
            let session = self.reachable(caller, *id).await;
            let session = session.and_then(|judged| judged.map_err(super::other_surface));
            wishes.push(session.map(|session| {
                if session.ended.is_none() {
                    self.gate_presented(caller, session.number);
                }
                let presented = caller.presented(session.owner);
                let source = ActivitySource::Report;
                (session.number, Command::RecordActivity { source, counts: *counts, presented })
            }));
        }
        let read = |done| match done {
            Done::Report(refusals) => Some(refusals.into_iter().map(|one| one.map_or(Ok(()), Err)).collect()),
            _ => None,
        };
        self.in_parts(caller, wishes, Work::Report, read).await
    }

    /// Hands wishes in, a transaction for each [`CHUNK`] of them, and answers each for itself, in the order given; what is
    /// no wish is answered as it came.
    pub(super) async fn in_parts<Out>(
        &self,
        caller: &Caller,
        wishes: Vec<Result<Wish, Error>>,
        ask: Ask,
        read: Read<Out>,
    ) -> Vec<Result<Out, Error>> {
        let mut chunks = vec![vec![]; wishes.len().div_ceil(CHUNK)];
        let mut outcomes: Vec<Option<Result<Out, Error>>> = Vec::with_capacity(wishes.len());
        for (index, wish) in wishes.into_iter().enumerate() {
            match wish {
                Ok((number, command)) => {
                    chunks[index / CHUNK].push((index, number, command));
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        let parts =
            chunks.iter().enumerate().map(|(part, chunk)| self.hand_in(caller, part, chunk, ask, read));
        for (index, number, outcome) in join_all(parts).await.into_iter().flatten() {
            outcomes[index] = Some(match outcome {
                // It ended after we looked: say how.
                Err(Error::NotFound("Session")) => {
                    Err(self.how_it_ended(number).await.unwrap_or_else(|error| error))
                }
                outcome => outcome,
            });
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(super::unexpected()))).collect()
    }

    /// One transaction of them.
    async fn hand_in<Out>(
        &self,
        caller: &Caller,
        part: usize,
        chunk: &[(usize, SessionNumber, Command)],
        ask: Ask,
        read: Read<Out>,
    ) -> Vec<(usize, SessionNumber, Result<Out, Error>)> {
        if chunk.is_empty() {
            return vec![];
        }
        let wishes = chunk.iter().map(|(_, number, command)| (*number, command.clone())).collect();
        let answer = match self.part(caller, part).await {
            Ok(by) => self.committer.submit(by, ask(wishes)).await,
            Err(error) => Err(error),
        };
        let all = |error: fn(&Error) -> Error, because: &Error| {
            chunk.iter().map(|(index, number, _)| (*index, *number, Err(error(because)))).collect()
        };
        let answer = match answer.map(|answer| read(answer.done)) {
            Ok(Some(outcomes)) => outcomes,
            Ok(None) => return all(|_| super::unexpected(), &super::unexpected()),
            Err(error) => return all(again, &error),
        };
        if answer.len() != chunk.len() {
            // Of a request sent again with a credential that reaches less, or more.
            return all(|_| super::once::reused(), &super::once::reused());
        }
        let places = chunk.iter().zip(answer);
        places.map(|((index, number, _), outcome)| (*index, *number, outcome.map_err(Error::from))).collect()
    }
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
