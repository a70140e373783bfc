//! Lists and counts: open sessions are found in memory, ended ones in the store, and both are shown alike.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::status::DerivedStatus;
use sessiond_store::{EndedOrder, EndedPage, SessionRow};
use uuid::Uuid;

use super::as_of::AsOf;
use super::query::{SessionQuery, Sort};
use super::{Queries, View, WordQuery};
use crate::committer::{Nothing, Origin};
use crate::error::Error;
use crate::gate::{Order, Slice};

/// How long a list waits for the writer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Which sessions to list, in which order.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub filter: SessionQuery,
    pub sort: Sort,
    pub limit: u32,
    /// How many of them are left out before the first.
    pub skip: usize,
    /// The last session of the page before, by what it is ordered by, and its id.
    pub after: Option<(Time, Uuid)>,
    /// The moment that is asked about, where that is not now.
    pub as_of: Option<AsOf>,
    /// The words that sessions are looked for by.
    pub words: Option<WordQuery>,
    /// The walk that this page goes on with; none for its first page, and for lists that are no walk.
    pub walk: Option<Walk>,
}

/// A walk through a list, the latest active first: whoever is active meanwhile moves to where the walk has been already,
/// and comes again at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    pub began: Time,
    /// Whether all sessions that have not moved were shown. Then come those that have, in the order of their making.
    pub at_its_end: bool,
}

/// A page of sessions.
pub struct Page {
    pub items: Vec<View>,
    /// Where the next page begins, if there is one.
    pub next: Option<(Time, Uuid)>,
    /// The walk that it is a page of, for the next page to go on with.
    pub walk: Option<Walk>,
    /// The log position the page was true at: follow from here and nothing is missed.
    pub position: Position,
    /// Of a page of the past: since when nothing of it was let go, where that is later than what was asked about.
    pub exact_since: Option<Time>,
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
    /// Of counts of the past: since when nothing of it was let go, where that is later than what was asked about.
    pub exact_since: Option<Time>,
}

impl Counts {
    /// The count of a status.
    pub(super) fn of_mut(&mut self, status: DerivedStatus) -> &mut u64 {
        match status {
            DerivedStatus::Active => &mut self.active,
            DerivedStatus::Idle => &mut self.idle,
            DerivedStatus::Expired => &mut self.expired,
            DerivedStatus::Disconnected => &mut self.disconnected,
        }
    }
}

impl Queries {
    /// Lists a page of the sessions that fit. Page by page, each session that was there from the first to the last is shown.
    pub async fn list(&self, caller: &Caller, query: &ListQuery) -> Result<Page, Error> {
        if let Some(words) = &query.words {
            return self.page_found(caller, query, words).await;
        }
        if let Some(as_of) = query.as_of {
            return self.page_as_of(caller, query, as_of).await;
        }
        let latest_first = Sort { by: Order::LastActive, descending: true };
        if query.sort == latest_first && query.skip == 0 {
            self.walk(caller, query).await
        } else {
            self.page(caller, query).await
        }
    }

    /// Lists a page of a walk from the latest active on: first the sessions that have not moved since it began, then those
    /// that have.
    async fn walk(&self, caller: &Caller, query: &ListQuery) -> Result<Page, Error> {
        let walk = query.walk.unwrap_or(Walk { began: self.context.clock.now(), at_its_end: false });
        let mut page = None;
        if !walk.at_its_end {
            let bound = walk.began + TimeDelta::milliseconds(1);
            let mut unmoved = query.clone();
            let before = unmoved.filter.last_active_before;
            unmoved.filter.last_active_before = Some(before.map_or(bound, |before| before.min(bound)));
            let mut found = self.page(caller, &unmoved).await?;
            if query.walk.is_none() && found.next.is_some() {
                // A session whose activity is being written with a time before the walk began would move unseen.
                self.settled().await;
                found = self.page(caller, &unmoved).await?;
            }
            if found.next.is_some() {
                return Ok(Page { walk: Some(walk), ..found });
            }
            page = Some(found);
        }
        let walk = Walk { at_its_end: true, ..walk };
        let mut moved = ListQuery { sort: Sort { by: Order::Connected, descending: false }, ..query.clone() };
        let after = moved.filter.last_active_after;
        moved.filter.last_active_after = Some(after.map_or(walk.began, |after| after.max(walk.began)));
        let Some(page) = page else {
            return Ok(Page { walk: Some(walk), ..self.page(caller, &moved).await? });
        };
        // The rest of the page is filled with sessions that have moved; if there is no rest, one is read to know whether
        // there is another page.
        let left = query.limit - page.items.len() as u32;
        let rest = ListQuery { after: None, limit: left.max(1), ..moved };
        let rest = self.page(caller, &rest).await?;
        let shown: HashSet<_> = page.items.iter().map(|view| view.session.number).collect();
        let fresh = rest.items.iter().any(|view| !shown.contains(&view.session.number));
        Ok(match (left, fresh || rest.next.is_some()) {
            (_, false) => page,
            (0, true) => Page { next: Some((Time::default(), Uuid::nil())), walk: Some(walk), ..page },
            (_, true) => {
                let rest_items = rest.items.into_iter().filter(|view| !shown.contains(&view.session.number));
                Page {
                    items: page.items.into_iter().chain(rest_items).collect(),
                    next: rest.next,
                    walk: Some(walk),
                    position: page.position,
                    exact_since: None,
                }
            }
        })
    }

    /// Waits until what is being decided now can be seen, but not for long: a list must not depend on the writer.
    async fn settled(&self) {
        let waited = self.context.committer.submit(Origin::system(), Nothing);
        tokio::time::timeout(PATIENCE, waited).await.ok();
    }

    async fn page(&self, caller: &Caller, query: &ListQuery) -> Result<Page, Error> {
        let filter = self.context.filter(caller, &query.filter).await?;
        let after = match query.after {
            // The end of a walk begins here, after no session.
            Some((_, id)) if id.is_nil() => None,
            Some((at, id)) => {
                let number = self.context.session_number(caller, id).await?;
                Some((at, number.ok_or_else(Error::foreign_cursor)?))
            }
            None => None,
        };
        // One more than asked for tells whether there is another page.
        let limit = query.skip + query.limit as usize + 1;
        let slice = Slice { order: query.sort.by, descending: query.sort.descending, after, limit };
        let position = self.context.committer.tip().borrow().position;
        // Memory first: what ends in between is then found twice, not missed.
        let now = self.context.clock.now();
        let open = self.context.gate.known_in_order(slice.order, now).page(
            caller.organization,
            &filter,
            &slice,
            now,
        );
        let mut entries: Vec<(Time, SessionNumber, Option<SessionRow>)> =
            open.into_iter().map(|(at, number)| (at, number, None)).collect();
        for row in self.ended(caller, &filter, &slice).await? {
            let entry = (ordered_by(&row, slice.order), row.session.number);
            entries.retain(|(_, number, _)| *number != entry.1);
            entries.push((entry.0, entry.1, Some(row)));
        }
        let key = |entry: &(Time, SessionNumber, Option<SessionRow>)| match slice.order {
            Order::Connected => (Time::default(), entry.1),
            _ => (entry.0, entry.1),
        };
        entries.sort_unstable_by_key(key);
        if slice.descending {
            entries.reverse();
        }
        entries.drain(..query.skip.min(entries.len()));
        let more = entries.len() > query.limit as usize;
        entries.truncate(query.limit as usize);
        let last = entries.last().map(|(at, number, _)| (*at, *number));
        let items = self.shown(caller, entries, &filter).await?;
        let next = match last.filter(|_| more) {
            Some((at, number)) => self.id_of(number, &items).await?.map(|id| (at, id)),
            None => None,
        };
        Ok(Page { items, next, walk: None, position, exact_since: None })
    }

    /// Counts the sessions that fit, by status; as of a moment in the past where one is named.
    pub async fn count(
        &self,
        caller: &Caller,
        query: &SessionQuery,
        as_of: Option<AsOf>,
    ) -> Result<Counts, Error> {
        if let Some(as_of) = as_of {
            return self.count_as_of(caller, query, as_of).await;
        }
        let filter = self.context.filter(caller, query).await?;
        let position = self.context.committer.tip().borrow().position;
        let now = self.context.clock.now();
        let open = self.context.gate.known_at(now).count(caller.organization, &filter, now);
        let mut counts = Counts {
            active: open.active,
            idle: open.idle,
            expired: open.expired,
            position,
            ..Counts::default()
        };
        if !filter.has_status(DerivedStatus::Disconnected) {
            return Ok(counts);
        }
        let all = Filter { application: filter.application, ..Filter::default() };
        let whole = Filter { status: filter.status.clone(), ..all.clone() };
        if filter == whole {
            let open = self.context.gate.known_at(now).count(caller.organization, &all, now);
            counts.disconnected = open.total - (open.active + open.idle + open.expired);
            return Ok(counts);
        }
        for application in self.searched(caller, &filter) {
            counts.disconnected += self.context.store.count_ended(application, &filter).await?;
        }
        Ok(counts)
    }

    /// Returns the applications in which a filter may find something for this caller.
    pub(super) fn searched(&self, caller: &Caller, filter: &Filter) -> Vec<ApplicationNumber> {
        let known = self.context.gate.known();
        let own = known.streams::<Application>().filter(|one| {
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
                    Order::Connected => EndedOrder::Connected,
                    Order::LastActive => EndedOrder::LastActive,
                    Order::Expires => EndedOrder::Expires,
                },
                descending: slice.descending,
                after: slice.after,
                limit: slice.limit,
            };
            rows.extend(self.context.store.ended(&page).await?);
        }
        Ok(rows)
    }

    /// Returns sessions as they are shown, without those that no longer have a status that fits.
    pub(super) async fn shown(
        &self,
        caller: &Caller,
        entries: Vec<(Time, SessionNumber, Option<SessionRow>)>,
        filter: &Filter,
    ) -> Result<Vec<View>, Error> {
        let open: Vec<_> = entries.iter().filter(|entry| entry.2.is_none()).map(|entry| entry.1).collect();
        // The rest of an open session is in memory.
        let mut details: HashMap<_, _> = self.context.store.details(&open).await?.into_iter().collect();
        let mut items = Vec::with_capacity(entries.len());
        for (_, number, row) in entries {
            let view = match row {
                Some(row) => Some(self.context.ended_view(row)),
                None => self.context.open_view(number, details.remove(&number).unwrap_or_default()).await?,
            };
            items.extend(view.filter(|view| filter.has_status(view.derived)));
        }
        self.context.named(caller, items).await
    }

    pub(super) async fn id_of(&self, number: SessionNumber, items: &[View]) -> Result<Option<Uuid>, Error> {
        match items.iter().find(|view| view.session.number == number) {
            Some(view) => Ok(Some(view.session.id)),
            None => Ok(self.context.store.session_by_number(number).await?.map(|row| row.session.id)),
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
