//! Finding one session. Lists and counts are in `list`, what happened in `history`.

use std::sync::Arc;

use sessiond_core::caller::Caller;
use sessiond_core::ids::SessionNumber;
use sessiond_core::relation::{MayAct, MayLook, Way};
use sessiond_core::session::Session;
use sessiond_store::SessionRow;
use uuid::Uuid;

use super::View;
use super::access::other_surface;
use crate::context::AppContext;
use crate::error::{Error, Thing};

/// Questions about sessions and about what happened to them.
#[derive(Clone)]
pub struct Queries {
    pub(super) context: Arc<AppContext>,
}

impl Queries {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// One session of an application, live or ended.
    pub async fn get(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<View, Error> {
        let application = self.context.application_number(caller, application)?;
        let row = self.row(caller, Way::Management, id).await?;
        if row.session.application == application {
            self.context.view(caller, row).await
        } else {
            Err(Error::NotFound(Thing::Session))
        }
    }

    /// One session by its id alone, if the caller may know of it by this way.
    pub async fn find(&self, caller: &Caller, way: Way, id: Uuid) -> Result<View, Error> {
        let row = self.row(caller, way, id).await?;
        self.context.view(caller, row).await
    }

    /// A session by its id alone, for a caller who may act on it by this way.
    pub async fn find_to_act_on(&self, caller: &Caller, way: Way, id: Uuid) -> Result<MayAct, Error> {
        self.context.session_to_act_on(caller, way, id).await
    }

    /// A session by its id alone, for its feed, which belongs to the agent side. A session's own token may always learn how
    /// its session stands, an access token only as long as no revocation has barred it.
    pub async fn find_to_follow(&self, caller: &Caller, id: Uuid) -> Result<View, Error> {
        let row = self.row(caller, Way::Agents, id).await?;
        if caller.session().is_none() {
            self.context.check_not_barred(caller, row.session.application)?;
        }
        self.context.view(caller, row).await
    }

    /// The open session behind a number.
    pub fn open_session(&self, number: SessionNumber) -> Option<Session> {
        self.context.gate.known().session(number).cloned()
    }

    /// The open session behind an id, whosever it is.
    pub fn open_by_id(&self, id: Uuid) -> Option<Session> {
        let known = self.context.gate.known();
        known.session_number(id).and_then(|number| known.session(number)).cloned()
    }

    async fn row(&self, caller: &Caller, way: Way, id: Uuid) -> Result<SessionRow, Error> {
        let row = self.context.store.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        MayLook::judge(caller, way, row.session.clone()).map_err(other_surface)?;
        Ok(row)
    }
}
