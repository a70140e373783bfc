//! What happened: the events of one session, and of the organization, in pages.

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, Position, RevocationNumber};
use sessiond_store::Addressed;
use uuid::Uuid;

use super::Queries;
use crate::error::Error;
use crate::telling::EventTold;

/// Which events of the organization to read, oldest first.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    pub application: Option<Uuid>,
    pub revocation: Option<Uuid>,
    /// Types of events; empty means every one but activity.
    pub types: Vec<String>,
    /// Recorded at this instant or later.
    pub from: Option<Time>,
    /// Recorded before this instant.
    pub until: Option<Time>,
    /// Only events beyond this position.
    pub after: Option<Position>,
    pub limit: u32,
}

/// The part of the log that an [`EventQuery`] asks for, in our own numbers.
#[derive(Debug)]
struct EventRange {
    application: Option<ApplicationNumber>,
    revocation: Option<RevocationNumber>,
    after: Position,
    up_to: Position,
}

/// How many events are looked through for one page: rare events are found over several pages.
const LOOK: i64 = 5_000;

/// An event with who is who in it, as far as the caller may know.
pub type NamedEvent = (Addressed, EventTold);

/// A page of events.
pub struct Events {
    pub items: Vec<NamedEvent>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Position>,
    /// The log position the page was true at.
    pub position: Position,
}

impl Queries {
    /// Lists a session's events before a position, newest first.
    pub async fn history(
        &self,
        caller: &Caller,
        application: Uuid,
        id: Uuid,
        activity: bool,
        before: Option<Position>,
        limit: u32,
    ) -> Result<Events, Error> {
        let position = self.context.committer.tip().borrow().position;
        let view = self.get(caller, application, id).await?;
        let newest = match before {
            None => view.session.head.position,
            Some(position) => {
                let last = self.context.store.event(position).await?.map(|entry| entry.recorded);
                let own = last.filter(|recorded| recorded.stream == view.session.number.into());
                let message = "cursor is not one that this server gave out for this session, or its event was let go since: begin at the first page";
                own.ok_or_else(|| Error::field("cursor", message))?.previous_position
            }
        };
        let mut items =
            self.context.store.session_history(view.session.number, newest, activity, limit + 1).await?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(|event| event.entry.recorded.position);
        Ok(Events { items: self.told(caller, items).await?, next, position })
    }

    /// Lists the organization's events, oldest first.
    pub async fn events(&self, caller: &Caller, query: &EventQuery) -> Result<Events, Error> {
        let position = self.context.committer.tip().borrow().position;
        let range = self.range(caller, query, position).await?;
        let activity = query.types.iter().any(|name| name == sessiond_core::session::event::ACTIVITY);
        let (items, next) = self.look_through(caller, query, &range, activity).await?;
        Ok(Events { items: self.told(caller, items).await?, next, position })
    }

    /// Adds to events who is who in them.
    async fn told(&self, caller: &Caller, events: Vec<Addressed>) -> Result<Vec<NamedEvent>, Error> {
        let telling = &self.context.telling;
        let told = telling.events(&events.iter().collect::<Vec<_>>()).await?;
        let reader = caller.acquaintance();
        let named = events.into_iter().map(|event| {
            let named = telling.event(&event, &told, reader);
            (event, named)
        });
        Ok(named.collect())
    }

    /// Looks for the events of a page. Returns them, and where the next page begins, if there may be one.
    async fn look_through(
        &self,
        caller: &Caller,
        query: &EventQuery,
        range: &EventRange,
        activity: bool,
    ) -> Result<(Vec<Addressed>, Option<Position>), Error> {
        let mut items: Vec<Addressed> = vec![];
        let mut after = range.after;
        loop {
            let page = self
                .context
                .store
                .organization_log(caller.organization, range.application, after, range.up_to, activity, 500)
                .await?;
            let Some(last) = page.last().map(|event| event.entry.recorded.position) else {
                return Ok((items, None));
            };
            for event in page {
                let recorded = &event.entry.recorded;
                let wanted = (query.types.is_empty()
                    || query.types.iter().any(|name| name == recorded.event.name()))
                    && range.revocation.is_none_or(|revocation| recorded.revocation == Some(revocation));
                if wanted && items.len() == query.limit as usize {
                    let next = items.last().map(|event| event.entry.recorded.position);
                    return Ok((items, next));
                }
                if wanted {
                    items.push(event);
                }
            }
            after = last;
            let looked = after.0 - range.after.0;
            if looked > LOOK && (!items.is_empty() || looked > 20 * LOOK) {
                return Ok((items, Some(after)));
            }
        }
    }

    async fn range(&self, caller: &Caller, query: &EventQuery, tip: Position) -> Result<EventRange, Error> {
        let application = match query.application {
            Some(id) => Some(self.context.application_number(caller, id)?),
            None => caller.confined_to,
        };
        let mut after = query.after.unwrap_or_default();
        let mut up_to = tip;
        let mut revocation = None;
        if let Some(id) = query.revocation {
            let found = self.context.revocation(caller, id).await?;
            // The events that a revocation caused lie between its beginning and its end.
            after = after.max(Position(found.fence.0 - 1));
            up_to = if found.ended_at.is_some() { found.head.position } else { tip };
            revocation = Some(found.number);
        }
        if let Some(from) = query.from {
            after = after.max(self.context.store.last_recorded_before(from).await?);
        }
        if let Some(until) = query.until {
            up_to = up_to.min(self.context.store.last_recorded_before(until).await?);
        }
        Ok(EventRange { application, revocation, after, up_to })
    }
}
