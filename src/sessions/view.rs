//! One session as it is shown: its row from the store, with what memory knows better laid over it.

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ids::SessionNumber;
use sessiond_core::session::Session;
use sessiond_core::status::{DerivedStatus, derived_status};
use sessiond_store::{Detail, SessionRow};
use uuid::Uuid;

use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::telling::{EndTold, PersonNamed};

/// A session as it is shown.
#[derive(Debug, Clone)]
pub struct View {
    pub session: Session,
    pub detail: Detail,
    pub application_id: Uuid,
    pub organization_id: Uuid,
    /// Whom it belongs to, by name where the caller may know it.
    pub principal: PersonNamed,
    /// How it ended.
    pub end: Option<EndTold>,
    pub last_active_at: Time,
    pub derived: DerivedStatus,
}

impl AppContext {
    /// Shows a session that was read from its row.
    pub(super) async fn view(&self, caller: &Caller, row: SessionRow) -> Result<View, Error> {
        let SessionRow { session, detail } = row;
        let view = match session.ended {
            Some(_) => Some(self.as_shown(session, None, detail)),
            None => self.open_view(session.number, detail).await?,
        };
        let named = self.named(caller, view.into_iter().collect()).await?.pop();
        named.ok_or(Error::NotFound(Thing::Session))
    }

    /// Adds the names that the caller may know, with the same few questions to the store however many sessions there are.
    pub(super) async fn named(&self, caller: &Caller, mut views: Vec<View>) -> Result<Vec<View>, Error> {
        let told = self.telling.sessions(views.iter().map(|view| &view.session)).await?;
        let reader = caller.acquaintance();
        for view in &mut views {
            view.principal = self.telling.principal(view.session.principal, &told.people, reader);
            view.end = self.telling.end(&view.session, &view.detail, &told, reader);
        }
        Ok(views)
    }

    /// Shows a session without any names that has ended.
    pub(super) fn ended_view(&self, row: SessionRow) -> View {
        self.as_shown(row.session, None, row.detail)
    }

    /// Shows a session without any names that was open a moment ago: as memory has it, or by its last row where it has ended since.
    pub(super) async fn open_view(
        &self,
        number: SessionNumber,
        detail: Detail,
    ) -> Result<Option<View>, Error> {
        let seen = self.gate.known().seen(number);
        if let Some(seen) = seen {
            return Ok(Some(self.as_shown(seen.session, seen.seen_at, detail)));
        }
        let row = self.store.session_by_number(number).await?;
        Ok(row.map(|row| self.as_shown(row.session, None, row.detail)))
    }

    /// Shows a session without any names as it was at an instant.
    pub(super) fn view_at(&self, session: Session, detail: Detail, at: Time) -> View {
        self.as_shown_at(session, None, detail, at)
    }

    fn as_shown(&self, session: Session, seen_at: Option<Time>, detail: Detail) -> View {
        self.as_shown_at(session, seen_at, detail, self.clock.now())
    }

    fn as_shown_at(&self, session: Session, seen_at: Option<Time>, detail: Detail, at: Time) -> View {
        let known = self.gate.known();
        View {
            application_id: known.application_id(session.application),
            organization_id: known.organization_id(session.organization),
            principal: PersonNamed { id: known.principal_id(session.principal), ..PersonNamed::default() },
            end: None,
            last_active_at: seen_at.map_or(session.last_active_at, |seen| seen.max(session.last_active_at)),
            derived: derived_status(&session, seen_at, at),
            session,
            detail,
        }
    }
}
