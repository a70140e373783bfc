//! Reports about many sessions at once, from whoever fronts them.

use futures_util::future::join_all;
use uuid::Uuid;

use super::Sessions;
use crate::committer::{CHUNK, Done, Work};
use crate::core::caller::Caller;
use crate::core::command::Command;
use crate::core::event::{ActivitySource, Counts};
use crate::core::ids::SessionNumber;
use crate::error::Error;

impl Sessions {
    /// Signs of life of many sessions, durable when this returns. Each is answered for itself, in the order given.
    pub async fn record_many(&self, caller: &Caller, items: &[(Uuid, Counts)]) -> Vec<Result<(), Error>> {
        let mut outcomes: Vec<Result<(), Error>> = Vec::with_capacity(items.len());
        let mut chunks = vec![vec![]; items.len().div_ceil(CHUNK)];
        for (index, (id, counts)) in items.iter().enumerate() {
            // Also what has ended: a request that is sent again is cut into the same chunks, whatever happened since.
            match self.reachable(caller, *id).await {
                Ok(session) => {
                    if session.ended.is_none() {
                        self.gate_presented(caller, session.number);
                    }
                    let presented = caller.presented(session.owner);
                    let source = ActivitySource::Report;
                    let command = Command::RecordActivity { source, counts: *counts, presented };
                    chunks[index / CHUNK].push((index, session.number, command));
                    outcomes.push(Ok(()));
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        let parts = chunks.iter().enumerate().map(|(part, chunk)| self.hand_in(caller, part, chunk));
        for (index, number, refused) in join_all(parts).await.into_iter().flatten() {
            outcomes[index] = match refused {
                // It ended after we looked: say how.
                Error::NotFound("Session") => {
                    Err(self.how_it_ended(number).await.unwrap_or_else(|error| error))
                }
                error => Err(error),
            };
        }
        outcomes
    }

    /// One transaction of them; returns what was refused.
    async fn hand_in(
        &self,
        caller: &Caller,
        part: usize,
        chunk: &[(usize, SessionNumber, Command)],
    ) -> Vec<(usize, SessionNumber, Error)> {
        if chunk.is_empty() {
            return vec![];
        }
        let items = chunk.iter().map(|(_, number, command)| (*number, command.clone())).collect();
        let answer = match self.part(caller, part).await {
            Ok(by) => self.committer.submit(by, Work::Report(items)).await,
            Err(error) => Err(error),
        };
        let of = |(place, error): (&(usize, SessionNumber, Command), Error)| (place.0, place.1, error);
        match answer.map(|answer| answer.done) {
            Ok(Done::Report(refusals)) if refusals.len() == chunk.len() => {
                let refused = chunk.iter().zip(refusals);
                refused.filter_map(|(place, refusal)| Some(of((place, refusal?.into())))).collect()
            }
            // Of a request sent again with a credential that reaches less, or more.
            Ok(Done::Report(_)) => chunk.iter().map(|place| of((place, super::once::reused()))).collect(),
            Ok(_) => chunk.iter().map(|place| of((place, super::unexpected()))).collect(),
            Err(error) => {
                let again = || match &error {
                    Error::Busy => Error::Busy,
                    Error::DiskFull => Error::DiskFull,
                    Error::Unprocessable { .. } => super::once::reused(),
                    other => Error::Internal(other.to_string()),
                };
                chunk.iter().map(|place| of((place, again()))).collect()
            }
        }
    }
}
