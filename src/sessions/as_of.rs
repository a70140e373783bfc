//! Sessions as they were at a moment in the past: listed, counted and looked up as whoever asked then was told, by what was on
//! record by then. What was still open then is found in memory, or in the store by way of what has ended since
//! (`docs/decisions/0062-as-of.md`).

use std::collections::{BTreeMap, HashMap};

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::event::Event;
use sessiond_core::filter::{Facts, Filter};
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::organization::Organization;
use sessiond_core::relation::{MayLook, Way};
use sessiond_core::session::Session;
use sessiond_core::session::earlier::{EarlierState, folded, open};
use sessiond_core::session::event::SessionEvent;
use sessiond_core::status::{DerivedStatus, derived_status};
use sessiond_store::{Detail, EndedOrder, EndedPage, EndedSince, Entry};
use uuid::Uuid;

use super::access::other_surface;
use super::by_number::ByNumber;
use super::list::{Counts, ListQuery, Page};
use super::{Queries, SessionQuery, View};
use crate::error::{Error, Thing};
use crate::gate::Order;

/// How many sessions are looked at together while some are counted or looked for.
const CHUNK: usize = 1_000;

/// The moment that a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// What was on record by then, with the status that each had at that instant.
    Time(Time),
    /// What was on record up to this position, with the status that each had when it was recorded.
    Position(Position),
}

/// A moment of the log.
#[derive(Debug, Clone, Copy)]
struct Moment {
    position: Position,
    time: Time,
    /// The last session that had connected; none had where it is 0.
    last: SessionNumber,
    /// Since when nothing was let go of what is asked about, where that is later.
    exact_since: Option<Time>,
}

/// A session that had connected by then.
struct Candidate {
    /// As it is now.
    session: Session,
    detail: Option<Detail>,
}

/// One that fits, as it was, as far as its status and stage go.
struct Found {
    candidate: Candidate,
    status: DerivedStatus,
    then: Session,
}

/// Which sessions are looked for.
struct Search<'caller> {
    caller: &'caller Caller,
    /// What never changes of a session.
    fixed: Filter,
    /// What it depends on when that is asked.
    moving: Filter,
    applications: Vec<ApplicationNumber>,
    /// Whether those are wanted too that had ended by then.
    ended: bool,
    order: ByNumber,
}

impl Queries {
    /// A page of the sessions that fitted at a moment, in the order in which they connected.
    pub(super) async fn page_as_of(
        &self,
        caller: &Caller,
        query: &ListQuery,
        as_of: AsOf,
    ) -> Result<Page, Error> {
        if query.sort.by != Order::Connected {
            let message = "a list of the past is in the order in which sessions connected: with asOf, sort must be \
                           created or -created";
            return Err(Error::field("sort", message));
        }
        let moment = self.moment(caller, as_of).await?;
        let mut search = self.search(caller, &query.filter, query.sort.descending).await?;
        if let Some((_, id)) = query.after {
            let number = self.context.session_number(caller, id).await?;
            search.order.after = Some(number.ok_or_else(Error::foreign_cursor)?);
        }
        // One more than asked for tells whether there is another page.
        let wanted = query.skip + query.limit as usize + 1;
        let mut found = Vec::new();
        while found.len() < wanted {
            let (more, done) = self.look_on(&mut search, &moment, wanted - found.len()).await?;
            found.extend(more);
            if done {
                break;
            }
        }
        found.drain(..query.skip.min(found.len()));
        let more = found.len() > query.limit as usize;
        found.truncate(query.limit as usize);
        let next = found.last().filter(|_| more).map(|last| &last.then);
        let next = next.map(|session| (session.connected_at, session.id));
        let items = self.shown_as_of(caller, found, &moment).await?;
        Ok(Page { items, next, walk: None, position: moment.position, exact_since: moment.exact_since })
    }

    /// Counts the sessions that fitted at a moment, by the status that they had.
    pub(super) async fn count_as_of(
        &self,
        caller: &Caller,
        query: &SessionQuery,
        as_of: AsOf,
    ) -> Result<Counts, Error> {
        let moment = self.moment(caller, as_of).await?;
        let mut search = self.search(caller, query, true).await?;
        let wanted = search.moving.status.clone();
        // All that had ended is what had connected without what was open: nobody has to look at it.
        let all = Filter { application: search.fixed.application, ..Filter::default() };
        let by_difference = search.ended
            && search.fixed == all
            && search.moving == Filter { status: wanted.clone(), ..Filter::default() };
        if by_difference {
            (search.ended, search.moving.status) = (false, DerivedStatus::OPEN.to_vec());
        }
        let mut counts =
            Counts { position: moment.position, exact_since: moment.exact_since, ..Counts::default() };
        loop {
            let (found, done) = self.look_on(&mut search, &moment, CHUNK).await?;
            for one in found {
                *counts.of_mut(one.status) += 1;
            }
            if done {
                break;
            }
        }
        if by_difference {
            let mut connected = 0;
            for application in &search.applications {
                connected += self.context.store.sessions_up_to(*application, moment.last).await?;
            }
            counts.disconnected = connected.saturating_sub(counts.active + counts.idle + counts.expired);
            for status in
                DerivedStatus::OPEN.into_iter().filter(|one| !wanted.is_empty() && !wanted.contains(one))
            {
                *counts.of_mut(status) = 0;
            }
        }
        Ok(counts)
    }

    /// One session of an application as it was at a moment, and since when that is exact, where that is later. One that had not
    /// connected by then is not found.
    pub async fn get_as_of(
        &self,
        caller: &Caller,
        application: Uuid,
        id: Uuid,
        as_of: AsOf,
    ) -> Result<(View, Option<Time>), Error> {
        let application = self.context.application_number(caller, application)?;
        let row = self.context.store.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        MayLook::judge(caller, Way::Management, row.session.clone()).map_err(other_surface)?;
        let moment = self.moment(caller, as_of).await?;
        let session = self.open_session(row.session.number).unwrap_or(row.session);
        if session.application != application || session.connected_at_position > moment.position {
            return Err(Error::NotFound(Thing::Session));
        }
        let (then, status) = (session.clone(), DerivedStatus::Disconnected);
        let candidate = Candidate { session, detail: Some(row.detail) };
        let found = vec![Found { candidate, status, then }];
        let view = self.shown_as_of(caller, found, &moment).await?.pop();
        Ok((view.ok_or(Error::NotFound(Thing::Session))?, moment.exact_since))
    }

    /// The moment that is meant, where the log reaches to it.
    async fn moment(&self, caller: &Caller, as_of: AsOf) -> Result<Moment, Error> {
        let store = &self.context.store;
        let organization = self.context.gate.known().stream::<Organization>(caller.organization).cloned();
        let organization = organization.ok_or(Error::NotFound(Thing::Organization))?;
        let tip = self.context.committer.tip().borrow().position;
        let (begun, now) = (organization.created_at, self.context.clock.now());
        let (position, time) = match as_of {
            AsOf::Time(time) if time < begun || time > now => {
                let bounds = (begun.to_rfc3339(), now.to_rfc3339());
                let message = format!(
                    "asOf must be a time from {} to {}, which is now, or a position of the log",
                    bounds.0, bounds.1
                );
                return Err(Error::field("asOf", message));
            }
            AsOf::Time(time) => {
                let position = store.last_recorded_before(time + TimeDelta::milliseconds(1)).await?;
                (position.min(tip), time)
            }
            AsOf::Position(position) if position.0 < 1 || position > tip => {
                let message = format!("asOf must be a position of the log from 1 to {tip}, or a time");
                return Err(Error::field("asOf", message));
            }
            AsOf::Position(position) => {
                (position, self.context.recorded_from(position).await?.unwrap_or(now))
            }
        };
        let folded = store.folded_to().await?;
        let folded = folded.into_iter().find(|(number, _)| *number == organization.number);
        let exact_from =
            folded.map_or(organization.let_go.up_to, |(_, to)| to.max(organization.let_go.up_to));
        let exact_since = match position < exact_from {
            true => Some(self.context.recorded_from(exact_from).await?.unwrap_or(now)),
            false => None,
        };
        let last = store.last_connected(position).await?.unwrap_or_default();
        Ok(Moment { position, time, last, exact_since })
    }

    async fn search<'caller>(
        &self,
        caller: &'caller Caller,
        query: &SessionQuery,
        descending: bool,
    ) -> Result<Search<'caller>, Error> {
        let filter = self.context.filter(caller, query).await?;
        let moving = Filter {
            status: filter.status.clone(),
            stage: filter.stage.clone(),
            last_active_after: filter.last_active_after,
            last_active_before: filter.last_active_before,
            ..Filter::default()
        };
        let fixed = Filter {
            status: vec![],
            stage: vec![],
            last_active_after: None,
            last_active_before: None,
            ..filter.clone()
        };
        let applications = self.searched(caller, &filter);
        let ended = filter.has_status(DerivedStatus::Disconnected);
        Ok(Search { caller, fixed, moving, applications, ended, order: ByNumber { descending, after: None } })
    }

    /// Looks at the next sessions, about so many: which of them fitted, and whether there are no more.
    async fn look_on(
        &self,
        search: &mut Search<'_>,
        moment: &Moment,
        limit: usize,
    ) -> Result<(Vec<Found>, bool), Error> {
        let limit = limit.clamp(50, CHUNK);
        let (candidates, bound) = self.candidates(search, moment, limit).await?;
        let changed = candidates.values().filter(|one| one.session.head.position > moment.position);
        let changed: Vec<_> = changed.map(|one| one.session.number).collect();
        let earlier = self.context.store.earlier_states(&changed, moment.position).await?;
        let earlier: HashMap<_, _> = earlier.into_iter().map(|state| (state.session, state)).collect();
        let mut found = Vec::new();
        for (number, candidate) in candidates {
            let then = stood(&candidate.session, earlier.get(&number), moment.position);
            let status = derived_status(&then, None, moment.time);
            found.push(Found { candidate, status, then });
        }
        if search.moving.last_active_after.or(search.moving.last_active_before).is_some() {
            self.fold(&mut found, moment).await?;
        }
        found.retain(|one| search.moving.fits(&one.then, &Facts::default(), moment.time));
        if search.order.descending {
            found.reverse();
        }
        search.order.after = bound;
        Ok((found, bound.is_none()))
    }

    /// The next sessions of which nothing speaks against their having fitted but what changes, by number; and the last number up to
    /// which these are all, if there may be more.
    async fn candidates(
        &self,
        search: &Search<'_>,
        moment: &Moment,
        limit: usize,
    ) -> Result<(BTreeMap<SessionNumber, Candidate>, Option<SessionNumber>), Error> {
        let mut candidates = BTreeMap::new();
        let mut bounds = Vec::new();
        // Memory first: what ends in between is then found twice, not missed.
        let open = self.open_then(search, moment, limit);
        bounds.extend(open.last().filter(|_| open.len() == limit).map(|session| session.number));
        let numbers = open.into_iter().map(|session| (session.number, Candidate { session, detail: None }));
        candidates.extend(numbers);
        for application in &search.applications {
            let rows = self.ended_then(search, moment, *application, limit).await?;
            bounds.extend(rows.last().filter(|_| rows.len() == limit).map(|row| row.session.number));
            for row in rows {
                if search.fixed.fits(&row.session, &row.facts(), moment.time) {
                    let candidate = Candidate { session: row.session, detail: Some(row.detail) };
                    candidates.insert(candidate.session.number, candidate);
                }
            }
        }
        let bound = search.order.nearest(bounds);
        if let Some(bound) = bound {
            candidates.retain(|number, _| search.order.is_within(*number, bound));
        }
        Ok((candidates, bound))
    }

    /// The next sessions that are open now and had connected by then.
    fn open_then(&self, search: &Search<'_>, moment: &Moment, limit: usize) -> Vec<Session> {
        let slice = search.order.slice(search.order.after_up_to(moment.last), limit);
        let known = self.context.gate.known();
        let open = known.page(search.caller.organization, &search.fixed, &slice, moment.time);
        let by_then = open.into_iter().take_while(|(_, number)| *number <= moment.last);
        by_then.filter_map(|(_, number)| known.session(number).cloned()).collect()
    }

    /// The next sessions of an application that had connected by then and have ended: since then, or whenever where those are
    /// wanted too.
    async fn ended_then(
        &self,
        search: &Search<'_>,
        moment: &Moment,
        application: ApplicationNumber,
        limit: usize,
    ) -> Result<Vec<sessiond_store::SessionRow>, Error> {
        let store = &self.context.store;
        if !search.ended && search.fixed.session.is_none() {
            let page = EndedSince {
                application,
                at: moment.position,
                descending: search.order.descending,
                after: search.order.after,
                last: moment.last,
                limit,
            };
            return Ok(store.ended_since(&page).await?);
        }
        let after = search.order.after_up_to(moment.last);
        let page = EndedPage {
            application,
            filter: &search.fixed,
            order: EndedOrder::Connected,
            descending: search.order.descending,
            after: after.map(|number| (Time::default(), number)),
            limit,
        };
        let mut rows = store.ended(&page).await?;
        rows.retain(|row| row.session.number <= moment.last);
        Ok(rows)
    }

    /// Puts in place of how sessions stood how they were, with all that is told of them.
    async fn fold(&self, found: &mut Vec<Found>, moment: &Moment) -> Result<(), Error> {
        let changed = found.iter().map(|one| &one.candidate.session);
        let changed: Vec<_> = changed
            .filter(|session| session.head.position > moment.position)
            .map(|session| (session.number, session.head.position))
            .collect();
        let entries = self.context.store.making(&changed, moment.position).await?;
        let mut made: HashMap<SessionNumber, Vec<&Entry>> = HashMap::new();
        for entry in &entries {
            made.entry(SessionNumber(entry.recorded.stream.number)).or_default().push(entry);
        }
        found.retain_mut(|one| {
            if one.candidate.session.head.position <= moment.position {
                return true;
            }
            // Whoever was let go meanwhile is not there any more.
            let Some(then) = made.get(&one.candidate.session.number).and_then(|made| fold_of(made)) else {
                return false;
            };
            one.status = derived_status(&then, None, moment.time);
            one.then = then;
            true
        });
        Ok(())
    }

    /// Sessions as they were, as they are shown.
    async fn shown_as_of(
        &self,
        caller: &Caller,
        mut found: Vec<Found>,
        moment: &Moment,
    ) -> Result<Vec<View>, Error> {
        self.fold(&mut found, moment).await?;
        let bare = found.iter().filter(|one| one.candidate.detail.is_none());
        let bare: Vec<_> = bare.map(|one| one.candidate.session.number).collect();
        let details = self.context.store.details(&bare).await?;
        let mut details: HashMap<_, _> = details.into_iter().collect();
        let views = found.into_iter().map(|one| {
            let detail = one.candidate.detail.or_else(|| details.remove(&one.then.number));
            self.context.view_at(one.then, detail.unwrap_or_default(), moment.time)
        });
        let views = views.collect();
        self.context.named(caller, views).await
    }
}

/// How a session stood at a position, as far as its status and its stage go.
fn stood(session: &Session, earlier: Option<&EarlierState>, at: Position) -> Session {
    if session.head.position <= at {
        return session.clone();
    }
    earlier.map_or_else(|| open(session), |state| state.of(session))
}

/// The fold of what a session is made of.
fn fold_of(entries: &[&Entry]) -> Option<Session> {
    let events = entries.iter().filter_map(|entry| match &entry.recorded.event {
        Event::Session(event) => Some((event as &SessionEvent, entry.envelope())),
        _ => None,
    });
    folded(events)
}
