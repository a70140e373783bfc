//! One session as it is shown: its row from the store, with what memory knows better laid over it.

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use sessiond_core::relation::{MayAct, Way};
use sessiond_core::session::Session;
use sessiond_core::status::{DerivedStatus, derived_status};
use sessiond_store::{Detail, SessionRow};
use uuid::Uuid;

use super::{Sessions, other_surface};
use crate::error::{Error, Thing};

/// A session as it is shown.
#[derive(Debug, Clone)]
pub struct View {
    pub session: Session,
    pub detail: Detail,
    pub application_id: Uuid,
    pub organization_id: Uuid,
    pub principal_id: Uuid,
    pub last_active_at: Time,
    pub derived: DerivedStatus,
}

impl Sessions {
    /// The application behind an id, if the caller may read it: archived ones stay readable.
    pub(super) fn readable(&self, caller: &Caller, application: Uuid) -> Result<ApplicationNumber, Error> {
        let known = self.gate.known();
        let found = known.application(application).filter(|application| {
            application.organization == caller.organization && caller.may_touch(application.number)
        });
        found.map(|application| application.number).ok_or(Error::NotFound(Thing::Application))
    }

    /// The id of the person whose own credential was presented.
    pub fn person(&self, caller: &Caller) -> Option<Uuid> {
        caller.person().map(|number| self.gate.known().principal_id(number))
    }

    /// One session of an application, live or ended.
    pub async fn get(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<View, Error> {
        let application = self.readable(caller, application)?;
        let row = self.visible(caller, Way::Management, id).await?;
        if row.session.application == application {
            self.view(row).await
        } else {
            Err(Error::NotFound(Thing::Session))
        }
    }

    /// One session by its id alone, if the caller may know of it, by this way.
    pub async fn view_by_id(&self, caller: &Caller, way: Way, id: Uuid) -> Result<View, Error> {
        let row = self.visible(caller, way, id).await?;
        self.view(row).await
    }

    /// A session to act on, by its id alone, by this way.
    pub async fn to_act_on(&self, caller: &Caller, way: Way, id: Uuid) -> Result<MayAct, Error> {
        let session = self.look_up(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        MayAct::judge(caller, way, session).map_err(other_surface)
    }

    /// The same for its feed, which belongs to the agent side.
    pub async fn view_to_follow(&self, caller: &Caller, id: Uuid) -> Result<View, Error> {
        let row = self.told(caller, id).await?;
        self.view(row).await
    }

    pub(super) async fn view(&self, row: SessionRow) -> Result<View, Error> {
        let SessionRow { session, detail } = row;
        if session.ended.is_some() {
            return Ok(self.as_shown(session, None, detail));
        }
        self.open_view(session.number, detail).await?.ok_or(Error::NotFound(Thing::Session))
    }

    /// A session that was open a moment ago: as memory has it, or by its last row where it has ended since.
    pub(super) async fn open_view(
        &self,
        number: SessionNumber,
        detail: Detail,
    ) -> Result<Option<View>, Error> {
        let seen = self.gate.known().seen(number);
        if let Some(seen) = seen {
            return Ok(Some(self.as_shown(seen.session, seen.seen_at, detail)));
        }
        let row = self.reader.session_by_number(number).await?;
        Ok(row.map(|row| self.as_shown(row.session, None, row.detail)))
    }

    fn as_shown(&self, session: Session, seen_at: Option<Time>, detail: Detail) -> View {
        let known = self.gate.known();
        View {
            application_id: known.application_id(session.application),
            organization_id: known.organization_id(session.organization),
            principal_id: known.principal_id(session.principal),
            last_active_at: seen_at.map_or(session.last_active_at, |seen| seen.max(session.last_active_at)),
            derived: derived_status(&session, seen_at, self.clock.now()),
            session,
            detail,
        }
    }
}
