//! Counting again what was counted: for `rebuild`, which then has it so, and for `verify`, which compares.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sessiond_core::Time;
use sessiond_core::event::Recorded;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, SessionNumber};
use sessiond_core::session::event::SessionEvent;
use sessiond_core::statistics::cell::{Cell, Counted, Dimension, Group, HOUR, Traits, hour_of};

use crate::StoreError;
use crate::check::{Difference, Fault, Progress};
use crate::counting::{Counter, of_session};
use crate::row::{Batch, SideWrite};
use crate::seam::{CellPage, Recount, Store, Writer};

/// Events read, and cells compared, at a time.
const PAGE: u32 = 1_000;

/// From where on all of the log is there: the first whole hour, and the last position before it.
async fn whole_from(store: &dyn Store) -> Result<(i64, Position), StoreError> {
    let gone = store.last_let_go().await?;
    if gone == Position(0) {
        return Ok((i64::MIN, Position(0)));
    }
    let next = store.log(gone, 1).await?;
    let Some(next) = next.first() else { return Ok((i64::MAX, store.head().await?)) };
    let hour = hour_of(next.recorded.recorded_at) + 1;
    let begin = Time::from_timestamp_millis(hour * HOUR).unwrap_or_default();
    Ok((hour, store.last_recorded_before(begin).await?))
}

/// Counts again as far back as all of the log is there.
pub(crate) async fn again(
    writer: &mut dyn Writer,
    store: &dyn Store,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let (hour, position) = whole_from(store).await?;
    let counted = store.counted_to().await?;
    let to = counted.filter(|counted| hour > i64::MIN && counted.position >= position);
    let to = to.map(|counted| crate::seam::CountedTo { position, ..counted });
    if to.is_some() || hour == i64::MIN {
        let session = match to {
            Some(_) => store.last_connected(position).await?.unwrap_or_default(),
            None => SessionNumber(0),
        };
        let side = vec![SideWrite::Recount(Recount { hour, session, to })];
        writer.commit(&Batch { side, ..Batch::default() }).await?;
    }
    let (mut counter, head) = (Counter::default(), store.head().await?);
    while let Some(count) = counter.next(store, PAGE).await? {
        progress(count.to.position.0.unsigned_abs(), head.0.unsigned_abs());
        let side = vec![SideWrite::Count(Box::new(count))];
        writer.commit(&Batch { side, ..Batch::default() }).await?;
    }
    Ok(())
}

/// What is counted a second time.
#[derive(Default)]
struct Second {
    traits: HashMap<SessionNumber, Traits>,
    /// By group and hour.
    cells: BTreeMap<(Group, i64), Cell>,
    /// The last hour of each group.
    last: BTreeMap<Group, i64>,
}

/// Groups that are compared: by kind there are few of them, and what is wrong with others is wrong with these.
fn compared(group: &Group) -> bool {
    matches!(group.dimension, Dimension::All | Dimension::Kind)
}

/// Compares what was counted with the log, as far back as all of it is there.
pub(crate) async fn compare(store: &dyn Store) -> Result<(), Fault> {
    let (hour, position) = whole_from(store).await?;
    let Some(counted) = store.counted_to().await?.filter(|counted| counted.position > position) else {
        return Ok(());
    };
    let mut second = Second::default();
    let (mut after, mut last_hour) = (position, hour);
    while after < counted.position {
        let page = store.log(after, PAGE).await?;
        let of_page: Vec<_> = page.iter().map(|entry| &entry.recorded).collect();
        let of_page: Vec<_> = of_page.into_iter().filter(|one| one.position <= counted.position).collect();
        let Some(last) = of_page.last() else { break };
        (after, last_hour) = (last.position, hour_of(last.recorded_at));
        second.take_page(store, &of_page, hour).await?;
    }
    // The last hour is not over, and somebody may have counted on in it.
    let still = store.counted_to().await? == Some(counted);
    let before = if still { last_hour.saturating_add(1) } else { last_hour };
    let difference = second.compare(store, (hour, before)).await?;
    if whole_from(store).await?.1 != position {
        // Some of what was compared was let go meanwhile.
        return Ok(());
    }
    difference.map_or(Ok(()), |difference| Err(difference.into()))
}

impl Second {
    async fn take_page(
        &mut self,
        store: &dyn Store,
        page: &[&Recorded],
        from: i64,
    ) -> Result<(), StoreError> {
        let mut unknown = BTreeSet::new();
        for recorded in page {
            let Some((session, event)) = of_session(recorded) else { continue };
            match event {
                SessionEvent::Connected(connected) => {
                    let traits = Traits {
                        organization: recorded.organization,
                        application: recorded.application.unwrap_or_default(),
                        kind: connected.kind,
                        client: 0,
                        host: 0,
                        principal: 0,
                        connected_at: recorded.occurred_at,
                    };
                    self.traits.insert(session, traits);
                    unknown.remove(&session);
                }
                _ if !self.traits.contains_key(&session) => {
                    unknown.insert(session);
                }
                _ => {}
            }
        }
        let unknown: Vec<_> = unknown.into_iter().collect();
        for row in store.sessions(&unknown).await? {
            let session = row.session;
            let traits = Traits {
                organization: session.organization,
                application: session.application,
                kind: session.kind,
                client: 0,
                host: 0,
                principal: 0,
                connected_at: session.connected_at,
            };
            self.traits.insert(session.number, traits);
        }
        for recorded in page {
            self.take(store, recorded, from).await?;
        }
        Ok(())
    }

    async fn take(&mut self, store: &dyn Store, recorded: &Recorded, from: i64) -> Result<(), StoreError> {
        let Some((session, event)) = of_session(recorded) else { return Ok(()) };
        let Some(traits) = self.traits.get(&session).copied() else { return Ok(()) };
        let counted = match event {
            SessionEvent::Connected(_) => Counted::Connected,
            SessionEvent::ActivityRecorded(activity) => Counted::Activity(activity.counts),
            SessionEvent::Disconnected(end) => {
                let lasted = (recorded.occurred_at - traits.connected_at).num_milliseconds();
                self.traits.remove(&session);
                Counted::Ended(end.reason, u64::try_from(lasted).unwrap_or(0))
            }
            _ => return Ok(()),
        };
        let hour = hour_of(recorded.recorded_at);
        for group in traits.groups().filter(compared) {
            if !self.cells.contains_key(&(group, hour)) {
                let before = match self.last.get(&group).and_then(|last| self.cells.get(&(group, *last))) {
                    Some(before) => Some(before.clone()),
                    None if from == i64::MIN => None,
                    None => store.last_cells(&[group], from - 1).await?.pop().map(|found| found.cell),
                };
                self.cells.insert((group, hour), Cell::after(before.as_ref()));
                self.last.insert(group, hour);
            }
            if let Some(cell) = self.cells.get_mut(&(group, hour)) {
                cell.take(&counted, recorded.recorded_at);
            }
        }
        Ok(())
    }

    /// The first difference between what was counted and this, from an hour to before another.
    async fn compare(
        mut self,
        store: &dyn Store,
        (from, before): (i64, i64),
    ) -> Result<Option<Difference>, StoreError> {
        self.cells.retain(|(_, hour), _| *hour < before);
        let of: BTreeSet<(OrganizationNumber, ApplicationNumber, Dimension)> = self
            .cells
            .keys()
            .map(|(group, _)| (group.organization, group.application, group.dimension))
            .collect();
        for (organization, application, dimension) in of {
            let after = (from.saturating_sub(1), i64::MAX);
            let mut page = CellPage { organization, application, dimension, after, before, limit: PAGE };
            loop {
                let found = store.cells(&page).await?;
                let more = found.len() == PAGE as usize;
                for one in found {
                    page.after = (one.hour, one.group.value);
                    let expected = self.cells.remove(&(one.group, one.hour));
                    if expected.as_ref() != Some(&one.cell) {
                        return Ok(Some(difference(
                            (one.group, one.hour),
                            expected.as_ref(),
                            Some(&one.cell),
                        )));
                    }
                }
                if !more {
                    break;
                }
            }
        }
        let missing = self.cells.first_key_value();
        Ok(missing.map(|(key, expected)| difference(*key, Some(expected), None)))
    }
}

fn difference((group, hour): (Group, i64), expected: Option<&Cell>, found: Option<&Cell>) -> Difference {
    let text = |cell: Option<&Cell>| {
        cell.map_or("none".to_owned(), |cell| format!("open {} {}", cell.open, cell.body()))
    };
    Difference {
        place: format!(
            "row of statistic_cell, organization {} application {} dimension {} value {} hour {hour}",
            group.organization, group.application, group.dimension as i64, group.value
        ),
        what: "row".to_owned(),
        expected: text(expected),
        found: text(found),
    }
}
