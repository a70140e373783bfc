//! Sessions of work that is queued and run on somebody else's machines: how far it has come, and what came of it.

use super::{Sessions, View};
use crate::committer::{By, Work};
use crate::core::caller::Caller;
use crate::core::command::Command;
use crate::core::ids::SessionNumber;
use crate::core::phase::{Outcome, Phase};
use crate::core::session::Session;
use crate::error::Error;
use crate::store::{Confirmation, SideWrite};

impl Sessions {
    /// The work behind a session has come so far.
    pub async fn change_phase(
        &self,
        caller: &Caller,
        session: &Session,
        phase: Phase,
    ) -> Result<Session, Error> {
        let command = Command::ChangePhase { phase, presented: caller.presented(session.owner) };
        self.wish(caller, session.number, command, None).await.map(|(session, _)| session)
    }

    /// The work behind a session is over. Returns how many this call ended: one or none.
    pub async fn finish(
        &self,
        caller: &Caller,
        number: SessionNumber,
        outcome: Outcome,
        message: Option<String>,
    ) -> Result<u64, Error> {
        self.end_by(caller, number, Command::Finish { outcome, message }).await
    }

    /// Keeps that the end of a session is known where its work ran. The first confirmation stays.
    pub async fn confirm(&self, number: SessionNumber, message: Option<String>) -> Result<(), Error> {
        let confirmation = Confirmation { session: number, at: self.clock.now(), message };
        let work = Work::Side(SideWrite::Confirmation(confirmation));
        self.committer.submit(By::system(), work).await.map(|_| ())
    }

    /// Which of these ends are known where the work ran.
    pub async fn confirmations(&self, views: &[View]) -> Result<Vec<Confirmation>, Error> {
        let ended = views.iter().filter(|view| view.session.ended.is_some());
        let numbers: Vec<_> = ended.map(|view| view.session.number).collect();
        Ok(self.reader.confirmations(&numbers).await?)
    }
}
