//! Reports about many sessions at once, from whoever fronts them.

use futures_util::future::join_all;
use uuid::Uuid;

use super::Sessions;
use crate::committer::{By, CHUNK, Done, Work};
use crate::core::caller::Caller;
use crate::core::command::Command;
use crate::core::event::{ActivitySource, Counts};
use crate::core::ids::SessionNumber;
use crate::error::Error;

impl Sessions {
    /// Signs of life of many sessions, durable when this returns. Each is answered for itself, in the order given.
    pub async fn record_many(&self, caller: &Caller, items: &[(Uuid, Counts)]) -> Vec<Result<(), Error>> {
        let mut outcomes: Vec<Result<(), Error>> = Vec::with_capacity(items.len());
        let mut wishes = Vec::with_capacity(items.len());
        for (index, (id, counts)) in items.iter().enumerate() {
            match self.own(caller, *id).await {
                Ok(session) => {
                    self.gate_presented(caller, session.number);
                    let presented = caller.presented(session.owner);
                    let source = ActivitySource::Report;
                    let command = Command::RecordActivity { source, counts: *counts, presented };
                    wishes.push((index, session.number, command));
                    outcomes.push(Ok(()));
                }
                Err(error) => outcomes.push(Err(error)),
            }
        }
        let chunks = wishes.chunks(CHUNK).map(|chunk| self.hand_in(caller, chunk));
        for (index, number, refused) in join_all(chunks).await.into_iter().flatten() {
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
        chunk: &[(usize, SessionNumber, Command)],
    ) -> Vec<(usize, SessionNumber, Error)> {
        let items = chunk.iter().map(|(_, number, command)| (*number, command.clone())).collect();
        let answer = self.committer.submit(By::caller(caller), Work::Report(items)).await;
        let of = |(place, error): (&(usize, SessionNumber, Command), Error)| (place.0, place.1, error);
        match answer.map(|answer| answer.done) {
            Ok(Done::Report(refusals)) => {
                let refused = chunk.iter().zip(refusals);
                refused.filter_map(|(place, refusal)| Some(of((place, refusal?.into())))).collect()
            }
            Ok(_) => chunk.iter().map(|place| of((place, super::unexpected()))).collect(),
            Err(error) => {
                let again = || match &error {
                    Error::Busy => Error::Busy,
                    Error::DiskFull => Error::DiskFull,
                    other => Error::Internal(other.to_string()),
                };
                chunk.iter().map(|place| of((place, again()))).collect()
            }
        }
    }
}
