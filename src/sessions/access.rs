//! Which sessions a caller may act on or know of, and how an operation on one of them is handed in: what several subjects
//! ask of the context.

use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use sessiond_core::change::Change;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use sessiond_core::relation::{MayAct, OutOfReach, Way};
use sessiond_core::session::{Refusal, Session};
use uuid::Uuid;

use crate::committer::{EndSessions, Inform, Operation, Origin, SessionEnd};
use crate::context::AppContext;
use crate::error::{Error, Thing};

impl AppContext {
    /// The session behind an id, whoever asks: from memory while it is open, else from the store.
    pub(super) async fn session(&self, id: Uuid) -> Result<Option<Session>, Error> {
        let open = {
            let known = self.gate.known();
            known.session_number(id).and_then(|number| known.session(number)).cloned()
        };
        match open {
            Some(session) => Ok(Some(session)),
            None => Ok(self.store.session(id).await?.map(|row| row.session)),
        }
    }

    /// The session behind an id, open or ended, for a caller who may act on it by this way.
    pub(super) async fn session_to_act_on(
        &self,
        caller: &Caller,
        way: Way,
        id: Uuid,
    ) -> Result<MayAct, Error> {
        let session = self.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        MayAct::judge(caller, way, session).map_err(other_surface)
    }

    /// The same of an application's sessions, for those who manage them.
    pub(super) async fn managed_session(
        &self,
        caller: &Caller,
        application: Uuid,
        id: Uuid,
    ) -> Result<MayAct, Error> {
        let application = self.application_number(caller, application)?;
        let session = self.session(id).await?.filter(|session| session.application == application);
        let session = session.ok_or(Error::NotFound(Thing::Session))?;
        MayAct::judge(caller, Way::Management, session).map_err(other_surface)
    }

    /// The number of a session that the caller may know of, open or ended.
    pub(super) async fn session_number(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> Result<Option<SessionNumber>, Error> {
        let own = self.session(id).await?.filter(|session| {
            session.organization == caller.organization && caller.may_touch(session.application)
        });
        Ok(own.map(|session| session.number))
    }

    /// Refuses credentials on agent-side paths that were issued before the last revocation which covers them, and all of
    /// them where the application is archived.
    pub(super) fn check_agent_side(
        &self,
        caller: &Caller,
        application: ApplicationNumber,
    ) -> Result<(), Error> {
        self.check_not_barred(caller, application)?;
        let known = self.gate.known();
        let found = known.stream::<Application>(application).ok_or(Error::NotFound(Thing::Application))?;
        if found.archived_at.is_some() { Err(Error::NotFound(Thing::Application)) } else { Ok(()) }
    }

    /// The first half of that: an archived application's sessions may still be asked about.
    pub(super) fn check_not_barred(
        &self,
        caller: &Caller,
        application: ApplicationNumber,
    ) -> Result<(), Error> {
        let known = self.gate.known();
        if let Some(bar) = known.bar_against(caller, true, self.clock.now()) {
            return Err(Error::Barred(bar.told()));
        }
        let valid_from = known.valid_from(application, caller.principal);
        if caller.credential.barred || caller.credential.issued_at < valid_from {
            return Err(Refusal::CredentialBarred.into());
        }
        Ok(())
    }

    /// Remembers which access token keeps a session alive: revoking the session bars it.
    pub(super) fn note_presented(&self, caller: &Caller, number: SessionNumber) {
        if let Some(token) = caller.access_token().filter(|_| !caller.repeats()) {
            let another = self.gate.presented(number, token);
            if another && self.claims.shared() {
                // Where another process revokes the session it bars this token too. Whoever is at work there already has
                // come before this.
                self.committer.post(Origin::system(), Inform(Change::Presented(number, token))).ok();
            }
        }
    }

    /// Hands in an operation on an open session.
    pub(super) async fn submit_on_session<O>(
        &self,
        origin: Origin,
        number: SessionNumber,
        operation: O,
    ) -> Result<Session, Error>
    where
        O: Operation<Outcome = Box<Session>>,
    {
        match self.committer.submit(origin, operation).await {
            Ok(answer) => Ok(*answer.outcome),
            // It ended after we looked: the error says how.
            Err(Error::NotFound(Thing::Session)) => Err(self.how_session_ended(number).await?),
            Err(error) => Err(error),
        }
    }

    /// The error for an operation on a session that has ended meanwhile.
    pub(super) async fn how_session_ended(&self, number: SessionNumber) -> Result<Error, Error> {
        let row = self.store.session_by_number(number).await?;
        Ok(match row.and_then(|row| row.session.ended) {
            Some(ended) => Error::Gone(ended),
            None => Error::NotFound(Thing::Session),
        })
    }

    /// Ends a session and returns once nothing of it is under way any more. Returns how many this call ended: one or none.
    pub(super) async fn end_session(
        &self,
        origin: Origin,
        number: SessionNumber,
        end: SessionEnd,
    ) -> Result<u64, Error> {
        let ending = EndSessions { ends: vec![(number, end)], revocation: None };
        let answer = self.committer.submit(origin, ending).await?;
        answer.landed().await;
        Ok(answer.outcome)
    }
}

/// The error for a session that cannot be acted on by the way that was taken.
pub(super) fn other_surface(out: OutOfReach) -> Error {
    let OutOfReach::OtherKind(kind) = out else { return Error::NotFound(Thing::Session) };
    let message = format!(
        "This is a session of the kind {}, which is kept on a surface of its own; here agents keep theirs",
        kind.word()
    );
    Error::Denied { code: "other_surface", message }
}
