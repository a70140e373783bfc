//! Reading: rows from the store, with what memory knows better laid over them.

use uuid::Uuid;

use super::Sessions;
use crate::core::Time;
use crate::core::caller::Caller;
use crate::core::ids::{ApplicationNumber, Position};
use crate::core::session::Session;
use crate::core::status::{DerivedStatus, derived_status};
use crate::error::Error;
use crate::store::{Detail, Listed, SessionPage, SessionRow};

/// Which sessions to list.
#[derive(Debug, Clone, Copy)]
pub struct ListQuery {
    /// Active and idle ones, or (false) also, or only, the expired and ended.
    pub live: bool,
    pub inactive: bool,
    pub limit: u32,
    /// Only what comes after this one, newest first.
    pub after: Option<(Time, Uuid)>,
}

/// A page of sessions, newest first.
pub struct Page {
    pub items: Vec<View>,
    /// Where the next page begins, if there is one.
    pub next: Option<(Time, Uuid)>,
    /// The log position the page was true at: follow from here and nothing is missed.
    pub position: Position,
}

/// A session as it is shown.
#[derive(Debug, Clone)]
pub struct View {
    pub session: Session,
    pub detail: Detail,
    pub application_id: Uuid,
    pub organization_id: Uuid,
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
        found.map(|application| application.number).ok_or(Error::NotFound("Application"))
    }

    /// A page of an application's sessions.
    pub async fn list(&self, caller: &Caller, application: Uuid, query: ListQuery) -> Result<Page, Error> {
        let application = self.readable(caller, application)?;
        let position = self.committer.tip().borrow().position;
        let now = self.clock.now();
        let listed = match (query.live, query.inactive) {
            (true, false) => Listed::Live,
            (false, _) => Listed::Inactive,
            (true, true) => Listed::All,
        };
        let overdue = self.gate.known().overdue(application, now);
        // One more than asked for tells whether there is another page.
        let limit = query.limit + 1;
        let page = SessionPage { application, listed, now, overdue: &overdue, after: query.after, limit };
        let mut rows = self.reader.sessions(&page).await?;
        let more = rows.len() > query.limit as usize;
        rows.truncate(query.limit as usize);
        let next = rows.last().filter(|_| more).map(|row| (row.session.connected_at, row.session.id));
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            let view = self.view(row).await?;
            let live = matches!(view.derived, DerivedStatus::Active | DerivedStatus::Idle);
            // It may have changed sides since the row was read.
            if (live && query.live) || (!live && query.inactive) {
                items.push(view);
            }
        }
        Ok(Page { items, next, position })
    }

    /// One session of an application, live or ended.
    pub async fn get(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<View, Error> {
        let application = self.readable(caller, application)?;
        let row = self.reader.session(id).await?.filter(|row| row.session.application == application);
        self.view(row.ok_or(Error::NotFound("Session"))?).await
    }

    /// One session by its id alone, if it is the caller's to see.
    pub async fn view_by_id(&self, caller: &Caller, id: Uuid) -> Result<View, Error> {
        let row = self.visible(caller, id).await?;
        self.view(row).await
    }

    /// The same for its feed, which belongs to the agent side.
    pub async fn view_to_follow(&self, caller: &Caller, id: Uuid) -> Result<View, Error> {
        let row = self.told(caller, id).await?;
        self.view(row).await
    }

    async fn view(&self, row: SessionRow) -> Result<View, Error> {
        let number = row.session.number;
        let mut row = row;
        let mut seen_at = None;
        if row.session.ended.is_none() {
            let seen = self.gate.known().seen(number);
            match seen {
                Some(seen) => {
                    row.session = seen.session;
                    seen_at = seen.seen_at;
                }
                // It ended since the row was read: its last row tells how.
                None => row = self.reader.session_by_number(number).await?.unwrap_or(row),
            }
        }
        let known = self.gate.known();
        let session = row.session;
        Ok(View {
            application_id: known.application_id(session.application),
            organization_id: known.organization_id(session.organization),
            last_active_at: seen_at.map_or(session.last_active_at, |seen| seen.max(session.last_active_at)),
            derived: derived_status(&session, seen_at, self.clock.now()),
            session,
            detail: row.detail,
        })
    }
}
