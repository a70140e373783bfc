//! The life of a session after it was opened: signs of life, renewal, suspension, and its end. How it is opened is in
//! `connect`.

use std::sync::Arc;

use sessiond_core::caller::Caller;
use sessiond_core::ids::SessionNumber;
use sessiond_core::reason::Reason;
use sessiond_core::relation::{MayAct, OutOfReach, Way};
use sessiond_core::session::Session;
use sessiond_core::session::event::{ActivitySource, Counts};
use uuid::Uuid;

use super::access::other_surface;
use super::parts::accepted;
use super::{Traffic, View};
use crate::committer::{
    Activity, Origin, RecordActivity, RenewToken, ReportActivity, SessionEnd, SetSuspended,
};
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::secret::{self, TokenKind};

/// Sessions from their opening to their end.
#[derive(Clone)]
pub struct Lifecycle {
    pub(super) context: Arc<AppContext>,
    traffic: Traffic,
}

impl Lifecycle {
    pub(super) fn new(context: Arc<AppContext>, traffic: Traffic) -> Self {
        Self { context, traffic }
    }

    /// Records a sign of life, durable when this returns.
    pub async fn record(
        &self,
        caller: &Caller,
        id: Uuid,
        source: ActivitySource,
        counts: Counts,
    ) -> Result<Session, Error> {
        let session = self.open_session(caller, id, other_surface).await?;
        self.context.note_presented(caller, session.number);
        let activity = Activity { source, counts, presented: caller.presented(session.owner) };
        let (session, origin) = (session.number, Origin::caller(caller));
        self.context.submit_on_session(origin, session, RecordActivity { session, activity }).await
    }

    /// Records signs of life of many sessions, durable when this returns. Each is answered for itself, in the order given.
    pub async fn record_many(&self, caller: &Caller, items: &[(Uuid, Counts)]) -> Vec<Result<(), Error>> {
        let mut reports = Vec::with_capacity(items.len());
        for (id, counts) in items {
            // One that has ended has its place too: a request that is sent again is cut into the same parts, whatever
            // happened since.
            reports.push(self.any_session(caller, *id, other_surface).await.map(|session| {
                if session.ended.is_none() {
                    self.context.note_presented(caller, session.number);
                }
                let (source, presented) = (ActivitySource::Report, caller.presented(session.owner));
                (session.number, Activity { source, counts: *counts, presented })
            }));
        }
        self.context.in_parts(caller, reports, ReportActivity, accepted).await
    }

    /// Replaces the session's token; the old one is dead when this returns.
    pub async fn renew(&self, caller: &Caller, id: Uuid) -> Result<(Session, String), Error> {
        let session = self.open_session(caller, id, no_token).await?;
        let token = secret::mint_for(caller.once.as_deref(), TokenKind::Session, id);
        let (presented, session) = (caller.presented(session.owner), session.number);
        let renewal = RenewToken { session, presented, token_hash: token.hash };
        Ok((self.context.submit_on_session(Origin::caller(caller), session, renewal).await?, token.text))
    }

    /// Ends a session whose client says goodbye. Ending twice is success.
    pub async fn disconnect(&self, caller: &Caller, id: Uuid) -> Result<View, Error> {
        let session = self.session_to_end(caller, id).await?;
        if session.ended.is_none() {
            self.traffic.flush(session.number).await;
            self.end(caller, &session, Reason::Client).await?;
        }
        let row = self.context.store.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        self.context.view(caller, row).await
    }

    /// Suspends a session: every request of it is refused from now on, and nothing else changes.
    pub async fn suspend(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<View, Error> {
        self.set_suspended(caller, application, id, true).await
    }

    /// Lets a suspended session go on.
    pub async fn resume(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<View, Error> {
        self.set_suspended(caller, application, id, false).await
    }

    async fn set_suspended(
        &self,
        caller: &Caller,
        application: Uuid,
        id: Uuid,
        suspended: bool,
    ) -> Result<View, Error> {
        let session = self.context.managed_session(caller, application, id).await?;
        if let Some(ended) = session.ended.filter(|_| !caller.repeats()) {
            return Err(Error::Gone(ended));
        }
        let (session, origin) = (session.number, Origin::caller(caller));
        self.context.submit_on_session(origin, session, SetSuspended { session, suspended }).await?;
        let row = self.context.store.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        self.context.view(caller, row).await
    }

    /// Ends a session whose token its client gives up. Returns how many it ended: one or none.
    pub async fn give_up(&self, caller: &Caller, number: SessionNumber) -> Result<u64, Error> {
        self.traffic.flush(number).await;
        self.end_by(caller, number, SessionEnd::Disconnect(Reason::Client)).await
    }

    /// Ends one session for an operator, and leaves every credential alone. Returns how many it ended: one or none.
    pub async fn terminate(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<u64, Error> {
        let session = self.context.managed_session(caller, application, id).await?;
        if session.ended.is_some() && !caller.repeats() {
            return Ok(0);
        }
        self.end(caller, &session, Reason::Terminated).await
    }

    /// Ends a session and returns once nothing of it is under way any more. Returns how many this call ended: one or none.
    pub async fn end(&self, caller: &Caller, session: &MayAct, reason: Reason) -> Result<u64, Error> {
        self.end_by(caller, session.number, SessionEnd::Disconnect(reason)).await
    }

    /// The same for a session whose other end the service itself holds: a shell that is over, a session of the gateway that
    /// its client never got. That it ends follows from what was done before, and rests on no credential.
    pub async fn end_hosted(
        &self,
        caller: &Caller,
        number: SessionNumber,
        reason: Reason,
    ) -> Result<u64, Error> {
        self.context.end_session(Origin::consequence_of(caller), number, SessionEnd::Disconnect(reason)).await
    }

    async fn end_by(&self, caller: &Caller, number: SessionNumber, end: SessionEnd) -> Result<u64, Error> {
        self.context.end_session(Origin::caller(caller), number, end).await
    }

    // ---- what a caller may act on ----

    /// Finds the open session behind an id on the agent side, to act on. One that has ended is 410, a foreign one 404, and
    /// `out_of_reach` makes the error for one that is none of this side's.
    async fn open_session(
        &self,
        caller: &Caller,
        id: Uuid,
        out_of_reach: fn(OutOfReach) -> Error,
    ) -> Result<MayAct, Error> {
        let session = self.any_session(caller, id, out_of_reach).await?;
        if caller.repeats() {
            return Ok(session);
        }
        if let Some(ended) = session.ended {
            return Err(Error::Gone(ended));
        }
        self.context.check_agent_side(caller, session.application)?;
        Ok(session)
    }

    /// Finds the same session, open or ended.
    async fn any_session(
        &self,
        caller: &Caller,
        id: Uuid,
        out_of_reach: fn(OutOfReach) -> Error,
    ) -> Result<MayAct, Error> {
        let session = self.context.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        let application = session.application;
        let judged = MayAct::judge(caller, Way::Agents, session);
        if judged.as_ref().err() == Some(&OutOfReach::Unknown) {
            return Err(Error::NotFound(Thing::Session));
        }
        // A barred credential is told so, whatever it asks about; any other is told how the session ended.
        self.context.check_not_barred(caller, application)?;
        judged.map_err(out_of_reach)
    }

    /// Finds the session that a client says goodbye to. A session's own token may always learn how its session stands, an access
    /// token only as long as no revocation has barred it.
    async fn session_to_end(&self, caller: &Caller, id: Uuid) -> Result<MayAct, Error> {
        let session = self.context.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        let session = MayAct::judge(caller, Way::Agents, session).map_err(other_surface)?;
        if caller.session().is_none() {
            self.context.check_not_barred(caller, session.application)?;
        }
        Ok(session)
    }
}

/// The error for a session whose token cannot be renewed because its kind has none.
fn no_token(out: OutOfReach) -> Error {
    let OutOfReach::OtherKind(kind) = out else { return Error::NotFound(Thing::Session) };
    let message = format!("A session of the kind {} has no token to renew", kind.word());
    Error::Conflict { code: "no_session_token", message }
}
