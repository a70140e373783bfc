//! Sessions of work that is queued and run on somebody else's machines: how far it has come, what came of it, and whether
//! that is known where it ran.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use sessiond_core::phase::{Outcome, Phase};
use sessiond_core::principal::OWN_USERS;
use sessiond_core::reason::Reason;
use sessiond_core::relation::{MayAct, MayLook, Way};
use sessiond_core::session::ended::Ended;
use sessiond_core::session::event::{ActivitySource, Counts};
use sessiond_core::session::{Refusal, Session};
use sessiond_store::{Confirmation, SideWrite};
use uuid::Uuid;

use super::access::other_surface;
use super::parts::accepted;
use super::{Queries, View};
use crate::committer::{Activity, ChangePhase, Origin, RecordActivity, ReportActivity, SessionEnd};
use crate::context::AppContext;
use crate::error::{Error, Thing};

/// A session with what is known of it beyond its own events.
pub struct WorkView {
    pub view: View,
    /// The name of its application.
    pub application: String,
    /// The person it belongs to, where the organization named that person itself and the name was not erased since.
    pub owner: Option<String>,
    /// Whether its end is known where the work ran, and what was said about it there.
    pub confirmed: bool,
    pub said: Option<String>,
    /// The words of whoever ended it together with others.
    pub note: Option<String>,
}

/// How work is reported to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkEnd {
    /// The work ended by itself.
    Finished(Outcome),
    /// Something else ended the work.
    Stopped(Reason),
}

/// Sessions of work that runs on somebody else's machines.
#[derive(Clone)]
pub struct Workloads {
    context: Arc<AppContext>,
    queries: Queries,
}

impl Workloads {
    pub(super) fn new(context: Arc<AppContext>, queries: Queries) -> Self {
        Self { context, queries }
    }

    // ---- finding ----

    /// Finds a session, open or ended, if the caller may know of it.
    pub async fn find(&self, caller: &Caller, way: Way, id: Uuid) -> Result<MayLook, Error> {
        let session = self.context.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        MayLook::judge(caller, way, session).map_err(other_surface)
    }

    /// Finds the same session, as it is shown.
    pub async fn view(&self, caller: &Caller, way: Way, id: Uuid) -> Result<WorkView, Error> {
        let view = self.queries.find(caller, way, id).await?;
        self.views(vec![view]).await?.pop().ok_or(Error::NotFound(Thing::Session))
    }

    /// Adds to sessions what else is known of them, with a few questions to the store for all together.
    pub async fn views(&self, views: Vec<View>) -> Result<Vec<WorkView>, Error> {
        let confirmations = self.confirmations(&views).await?;
        let mut confirmed: HashMap<_, _> = confirmations.into_iter().map(|one| (one.session, one)).collect();
        let ends: Vec<_> = views.iter().map(|view| &view.session).filter(|one| one.ended.is_some()).collect();
        let ends: Vec<_> = ends.into_iter().map(|session| session.head.position).collect();
        let mut notes: HashMap<_, _> = self.context.store.notes(&ends).await?.into_iter().collect();
        let principals: BTreeSet<_> = views.iter().map(|view| view.session.principal).collect();
        let principals: Vec<_> = principals.into_iter().collect();
        let people = self.context.store.principals_numbered(&principals).await?.into_iter();
        let people = people.filter(|row| row.principal.issuer == OWN_USERS);
        let people: HashMap<_, _> = people.map(|row| (row.principal.number, row.principal.subject)).collect();
        let shown = |view: View| {
            let confirmation = confirmed.remove(&view.session.number);
            WorkView {
                application: self.application_name(view.session.application),
                owner: people.get(&view.session.principal).cloned().flatten(),
                confirmed: confirmation.is_some(),
                said: confirmation.and_then(|one| one.message),
                note: notes.remove(&view.session.head.position),
                view,
            }
        };
        Ok(views.into_iter().map(shown).collect())
    }

    fn application_name(&self, number: ApplicationNumber) -> String {
        self.context
            .gate
            .known()
            .stream::<Application>(number)
            .map_or_else(String::new, |one| one.name.clone())
    }

    /// Finds the applications of the caller's organization that have this name, archived ones too. With `either_case`, upper
    /// and lower case are the same.
    pub fn applications_named(&self, caller: &Caller, name: &str, either_case: bool) -> Vec<Uuid> {
        let folded = name.to_lowercase();
        let known = self.context.gate.known();
        let own = known.streams::<Application>().filter(|one| {
            let same = one.name == name || (either_case && one.name.to_lowercase() == folded);
            same && one.organization == caller.organization && caller.may_touch(one.number)
        });
        own.map(|one| one.id).collect()
    }

    /// Finds the principal of a person whom the organization names so, if there was ever a session or key of theirs.
    pub fn own_user(&self, caller: &Caller, name: &str) -> Option<Uuid> {
        let digest = self.context.key.subject_digest(OWN_USERS, name);
        let known = self.context.gate.known();
        let number = known.principal(caller.organization, &digest)?;
        Some(known.principal_id(number))
    }

    // ---- reports ----

    /// Records a sign of life, durable when this returns.
    pub async fn beat(&self, caller: &Caller, session: &MayAct) -> Result<Session, Error> {
        self.check_running(caller, session)?;
        let beat = RecordActivity { session: session.number, activity: beat(caller, session) };
        let outcome = self.context.submit_on_session(Origin::caller(caller), session.number, beat).await;
        outcome.map_err(|error| self.as_ended(session, error))
    }

    /// Records signs of life of many sessions of work, durable when this returns. Each is answered for itself, in the order given.
    pub async fn beat_many(&self, caller: &Caller, ids: &[Uuid]) -> Vec<Result<(), Error>> {
        let mut beats = Vec::with_capacity(ids.len());
        let mut sessions = Vec::with_capacity(ids.len());
        for id in ids {
            // One that has ended has its place too: a request that is sent again is cut into the same parts, whatever happened
            // since.
            let session = self.context.session_to_act_on(caller, Way::Work, *id).await;
            sessions.push(session.as_ref().ok().cloned());
            beats.push(session.map(|session| (session.number, beat(caller, &session))));
        }
        let outcomes = self.context.in_parts(caller, beats, ReportActivity, accepted).await.into_iter();
        let as_ended = |(outcome, session): (Result<(), Error>, Option<MayAct>)| match session {
            Some(session) => outcome.map_err(|error| self.as_ended(&session, error)),
            None => outcome,
        };
        outcomes.zip(sessions).map(as_ended).collect()
    }

    /// Records how far the work behind a session has come.
    pub async fn change_phase(
        &self,
        caller: &Caller,
        session: &MayAct,
        phase: Phase,
    ) -> Result<Session, Error> {
        self.check_running(caller, session)?;
        let presented = caller.presented(session.owner);
        let change = ChangePhase { session: session.number, phase, presented };
        let outcome = self.context.submit_on_session(Origin::caller(caller), session.number, change).await;
        outcome.map_err(|error| self.as_ended(session, error))
    }

    /// Records that the work of a session has ended, as whoever ran it says. A session that has ended before stays as it is;
    /// then its end is confirmed.
    pub async fn report_end(
        &self,
        caller: &Caller,
        session: &MayAct,
        ending: WorkEnd,
        message: Option<String>,
    ) -> Result<(), Error> {
        let end = match (session.over(self.context.clock.now()), ending) {
            (None, WorkEnd::Finished(outcome)) => {
                Some(SessionEnd::Finish { outcome, message: message.clone() })
            }
            (None, WorkEnd::Stopped(reason)) => Some(SessionEnd::Disconnect(reason)),
            (Some(_), _) => session.ended.is_none().then_some(SessionEnd::Lifetime),
        };
        let finished = matches!(end, Some(SessionEnd::Finish { .. }));
        let ended = match end {
            Some(end) => self.context.end_session(Origin::caller(caller), session.number, end).await?,
            None => 0,
        };
        // A session that ends with what came of its work needs no confirmation.
        if finished && ended == 1 {
            return Ok(());
        }
        self.confirm(session.number, message).await
    }

    /// Ends work from outside. Returns whether this call did. It may be a while until that is known where the work runs.
    pub async fn terminate(&self, caller: &Caller, session: &MayAct) -> Result<bool, Error> {
        if session.over(self.context.clock.now()).is_some() && !caller.repeats() {
            return Ok(false);
        }
        let end = SessionEnd::Disconnect(Reason::Terminated);
        Ok(self.context.end_session(Origin::caller(caller), session.number, end).await? > 0)
    }

    /// Records that the end of a session is known where its work ran. The first confirmation stays.
    async fn confirm(&self, number: SessionNumber, message: Option<String>) -> Result<(), Error> {
        let confirmation = Confirmation { session: number, at: self.context.clock.now(), message };
        self.context.write_beside(SideWrite::Confirmation(confirmation)).await
    }

    /// Reads which of these sessions' ends are known where their work ran.
    async fn confirmations(&self, views: &[View]) -> Result<Vec<Confirmation>, Error> {
        let ended = views.iter().filter(|view| view.session.ended.is_some());
        let numbers: Vec<_> = ended.map(|view| view.session.number).collect();
        Ok(self.context.store.confirmations(&numbers).await?)
    }

    /// Returns how a session ended, or is about to end: its lifetime may have passed, or a revocation under way may cover it.
    pub fn ended(&self, session: &Session) -> Option<Ended> {
        session.over(self.context.clock.now()).or_else(|| {
            let known = self.context.gate.known();
            let revocation = known.covering(session)?;
            Some(Ended { at: revocation.instant, reason: revocation.reason, outcome: None })
        })
    }

    /// Refuses a session that has ended or is about to.
    fn check_running(&self, caller: &Caller, session: &Session) -> Result<(), Error> {
        match self.ended(session).filter(|_| !caller.repeats()) {
            Some(ended) => Err(Error::Gone(ended)),
            None => Ok(()),
        }
    }

    /// Turns a refusal into the end of the session, where that is its reason: whoever runs the work is not to take it for a
    /// fault of the own credential.
    fn as_ended(&self, session: &Session, error: Error) -> Error {
        let now = self.context.clock.now();
        match error {
            Error::Unauthorized { reason: Some(Refusal::Revoked(reason)) } => {
                Error::Gone(Ended { at: now, reason, outcome: None })
            }
            Error::Unauthorized { reason: Some(Refusal::Expired) } => {
                session.over(now).map_or(error, Error::Gone)
            }
            error => error,
        }
    }
}

fn beat(caller: &Caller, session: &Session) -> Activity {
    let presented = caller.presented(session.owner);
    Activity { source: ActivitySource::Heartbeat, counts: Counts::default(), presented }
}
