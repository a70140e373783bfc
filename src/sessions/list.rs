//! Reading: open sessions are found in memory, ended ones in the store, and both are shown alike.

use std::collections::HashMap;

use uuid::Uuid;

use super::wanted::{Sort, Wanted};
use super::{Sessions, View};
use crate::core::Time;
use crate::core::caller::Caller;
use crate::core::filter::Filter;
use crate::core::ids::{ApplicationNumber, Position, SessionNumber};
use crate::core::status::DerivedStatus;
use crate::error::Error;
use crate::gate::{Order, Slice};
use crate::store::{EndedPage, SessionRow};

/// Which sessions to list, in which order.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub wanted: Wanted,
    pub sort: Sort,
    pub limit: u32,
    /// So many of them are passed over first.
    pub skip: usize,
    /// Only what comes after this one: what it is ordered by, and its id.
    pub after: Option<(Time, Uuid)>,
}

/// A page of sessions.
pub struct Page {
    pub items: Vec<View>,
    /// Where the next page begins, if there is one.
    pub next: Option<(Time, Uuid)>,
    /// The log position the page was true at: follow from here and nothing is missed.
    pub position: Position,
}

/// How many sessions there are, by derived status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub active: u64,
    pub idle: u64,
    pub expired: u64,
    pub disconnected: u64,
    /// The log position the counts were true at.
    pub position: Position,
}

impl Sessions {
    /// A page of the sessions that fit.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Page, Error> {
        let filter = self.filter(caller, &query.wanted).await?;
        let after = match query.after {
            Some((at, id)) => {
                let number = self.number(caller, id).await?;
                Some((at, number.ok_or_else(Error::foreign_cursor)?))
            }
            None => None,
        };
        // One more than asked for tells whether there is another page.
        let limit = query.skip + query.limit as usize + 1;
        let slice = Slice { order: query.sort.by, descending: query.sort.descending, after, limit };
        let position = self.committer.tip().borrow().position;
        // Memory first: what ends in between is then found twice, not missed.
        let now = self.clock.now();
        let open = self.gate.known_in_order(slice.order, now).page(caller.organization, &filter, &slice, now);
        let mut places: Vec<(Time, SessionNumber, Option<SessionRow>)> =
            open.into_iter().map(|(at, number)| (at, number, None)).collect();
        for row in self.ended(caller, &filter, &slice).await? {
            let place = (ordered_by(&row, slice.order), row.session.number);
            places.retain(|(_, number, _)| *number != place.1);
            places.push((place.0, place.1, Some(row)));
        }
        let key = |place: &(Time, SessionNumber, Option<SessionRow>)| match slice.order {
            Order::Connected => (Time::default(), place.1),
            _ => (place.0, place.1),
        };
        places.sort_unstable_by_key(key);
        if slice.descending {
            places.reverse();
        }
        places.drain(..query.skip.min(places.len()));
        let more = places.len() > query.limit as usize;
        places.truncate(query.limit as usize);
        let last = places.last().map(|(at, number, _)| (*at, *number));
        let items = self.shown(places, &filter).await?;
        let next = match last.filter(|_| more) {
            Some((at, number)) => self.id_of(number, &items).await?.map(|id| (at, id)),
            None => None,
        };
        Ok(Page { items, next, position })
    }

    /// How many sessions fit, by status.
    pub async fn count(&self, caller: &Caller, wanted: &Wanted) -> Result<Counts, Error> {
        let filter = self.filter(caller, wanted).await?;
        let position = self.committer.tip().borrow().position;
        let now = self.clock.now();
        let open = self.gate.known_at(now).count(caller.organization, &filter, now);
        let mut counts =
            Counts { active: open.active, idle: open.idle, expired: open.expired, disconnected: 0, position };
        if !filter.has_status(DerivedStatus::Disconnected) {
            return Ok(counts);
        }
        let all = Filter { application: filter.application, ..Filter::default() };
        let whole = Filter { status: filter.status.clone(), ..all.clone() };
        if filter == whole {
            let open = self.gate.known_at(now).count(caller.organization, &all, now);
            counts.disconnected = open.total - (open.active + open.idle + open.expired);
            return Ok(counts);
        }
        for application in self.searched(caller, &filter) {
            counts.disconnected += self.reader.count_ended(application, &filter).await?;
        }
        Ok(counts)
    }

    /// The applications in which a filter may find something for this caller.
    fn searched(&self, caller: &Caller, filter: &Filter) -> Vec<ApplicationNumber> {
        let known = self.gate.known();
        let own = known.applications.values().filter(|one| {
            one.organization == caller.organization
                && caller.may_touch(one.number)
                && filter.application.is_none_or(|application| application == one.number)
                && (filter.applications.is_empty() || filter.applications.contains(&one.number))
        });
        own.map(|one| one.number).collect()
    }

    async fn ended(&self, caller: &Caller, filter: &Filter, slice: &Slice) -> Result<Vec<SessionRow>, Error> {
        let mut rows = Vec::new();
        if !filter.has_status(DerivedStatus::Disconnected) {
            return Ok(rows);
        }
        for application in self.searched(caller, filter) {
            let page = EndedPage {
                application,
                filter,
                order: match slice.order {
                    Order::Connected => None,
                    Order::LastActive => Some("last_active_at"),
                    Order::Expires => Some("token_expires_at"),
                },
                descending: slice.descending,
                after: slice.after,
                limit: slice.limit,
            };
            rows.extend(self.reader.ended(&page).await?);
        }
        Ok(rows)
    }

    /// Sessions as they are shown, save those that changed sides since they were found.
    async fn shown(
        &self,
        places: Vec<(Time, SessionNumber, Option<SessionRow>)>,
        filter: &Filter,
    ) -> Result<Vec<View>, Error> {
        let open: Vec<_> = places.iter().filter(|place| place.2.is_none()).map(|place| place.1).collect();
        // The rest of an open session is in memory.
        let mut details: HashMap<_, _> = self.reader.details(&open).await?.into_iter().collect();
        let mut items = Vec::with_capacity(places.len());
        for (_, number, row) in places {
            let view = match row {
                Some(row) => Some(self.view(row).await?),
                None => self.open_view(number, details.remove(&number).unwrap_or_default()).await?,
            };
            items.extend(view.filter(|view| filter.has_status(view.derived)));
        }
        Ok(items)
    }

    async fn id_of(&self, number: SessionNumber, items: &[View]) -> Result<Option<Uuid>, Error> {
        match items.iter().find(|view| view.session.number == number) {
            Some(view) => Ok(Some(view.session.id)),
            None => Ok(self.reader.session_by_number(number).await?.map(|row| row.session.id)),
        }
    }
}

fn ordered_by(row: &SessionRow, order: Order) -> Time {
    match order {
        Order::Connected => row.session.connected_at,
        Order::LastActive => row.session.last_active_at,
        Order::Expires => row.session.token_expires_at,
    }
}
