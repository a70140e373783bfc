//! Counts the log, page by page: what is to be written of each is a [`Count`]. All that counting needs to know is in what was
//! counted, so that whoever goes on from there, after a crash or on another node, comes to the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sessiond_core::event::{Event, Recorded};
use sessiond_core::ids::{Position, SessionNumber, StreamKind};
use sessiond_core::session::event::{ActivityRecorded, Counts, SessionEvent};
use sessiond_core::statistics::cell::{Cell, Counted, Dimension, Group, Traits, hour_of};

use crate::StoreError;
use crate::row::{Detail, Entry, SessionRow};
use crate::seam::{Count, CountedTo, GroupCell, LONGEST_LABEL, Label, Labelled, Store};

/// Cells that one transaction writes, or a few more: others wait for it.
const MOST_CELLS: usize = 1_000;
/// Sessions and groups that are kept in memory.
const MOST_KEPT: usize = 100_000;
/// Hours of any time that there may be a cell of.
const ANY_HOUR: i64 = i64::MAX;

/// What counts, with what it has read before.
#[derive(Default)]
pub struct Counter {
    counted: Option<CountedTo>,
    cells: HashMap<Group, (i64, Cell)>,
    traits: HashMap<SessionNumber, Traits>,
}

/// What is known by what it is called, in the course of a page.
#[derive(Default)]
struct Labels {
    known: HashMap<(i64, Dimension, String), i64>,
    new: Vec<Label>,
}

impl Counter {
    /// What the next events of the log add to what was counted, at most so many; none: there is no more. To be written before the
    /// next is asked for.
    pub async fn next(&mut self, store: &dyn Store, events: u32) -> Result<Option<Count>, StoreError> {
        let counted = store.counted_to().await?;
        if counted != self.counted || self.cells.len() > MOST_KEPT || self.traits.len() > MOST_KEPT {
            *self = Self::default();
        }
        let from = match counted {
            Some(counted) => counted,
            None => CountedTo { position: Position(0), exact_after: store.last_let_go().await? },
        };
        let page = store.log(from.position, events).await?;
        let Some(last) = page.last().map(|entry| entry.recorded.position) else { return Ok(None) };
        let mut count = Count { from: from.position, ..Count::default() };
        self.look_up(store, &page, &mut count).await?;
        let cut = before_cuts(store, from.position, &page).await?;
        let mut touched: BTreeSet<(Group, i64)> = BTreeSet::new();
        let mut reached = last;
        self.look_up_cells(store, &page).await?;
        for entry in &page {
            if touched.len() >= MOST_CELLS {
                reached = Position(entry.recorded.position.0 - 1);
                break;
            }
            self.take(&entry.recorded, &cut, &mut touched, &mut count.cells);
        }
        count.to = CountedTo { position: reached, ..from };
        self.finish(touched, &mut count, &page);
        self.counted = Some(count.to);
        Ok(Some(count))
    }

    /// Looks up by what the sessions of a page are counted.
    async fn look_up(
        &mut self,
        store: &dyn Store,
        page: &[Entry],
        count: &mut Count,
    ) -> Result<(), StoreError> {
        let mut connected = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for (session, event) in page.iter().filter_map(|entry| of_session(&entry.recorded)) {
            match event {
                SessionEvent::Connected(_) => {
                    connected.insert(session);
                    unknown.insert(session);
                }
                SessionEvent::ActivityRecorded(_) | SessionEvent::Disconnected(_)
                    if !self.traits.contains_key(&session) =>
                {
                    unknown.insert(session);
                }
                _ => {}
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let numbers: Vec<_> = unknown.into_iter().collect();
        let rows = store.sessions(&numbers).await?;
        let older: Vec<_> = numbers.into_iter().filter(|number| !connected.contains(number)).collect();
        let mut labelled: HashMap<_, _> =
            store.labelled(&older).await?.into_iter().map(|one| (one.session, one)).collect();
        let new = rows.iter().filter(|row| connected.contains(&row.session.number));
        let (given, labels) = label(store, new).await?;
        count.labels = labels;
        for one in given {
            labelled.insert(one.session, one);
            if one.client != 0 || one.host != 0 {
                count.sessions.push(one);
            }
        }
        for row in rows {
            let traits = traits(&row, labelled.get(&row.session.number));
            self.traits.insert(row.session.number, traits);
        }
        Ok(())
    }

    /// Looks up how the groups of a page stand.
    async fn look_up_cells(&mut self, store: &dyn Store, page: &[Entry]) -> Result<(), StoreError> {
        let sessions =
            page.iter().filter_map(|entry| of_session(&entry.recorded)).map(|(session, _)| session);
        let traits = sessions.filter_map(|session| self.traits.get(&session));
        let groups: BTreeSet<_> = traits.flat_map(Traits::groups).collect();
        let unknown: Vec<_> = groups.into_iter().filter(|group| !self.cells.contains_key(group)).collect();
        for found in store.last_cells(&unknown, ANY_HOUR).await? {
            self.cells.insert(found.group, (found.hour, found.cell));
        }
        Ok(())
    }

    /// Counts an event. Cells whose hour is over by it go into `over`.
    fn take(
        &mut self,
        recorded: &Recorded,
        cut: &HashMap<Position, Counts>,
        touched: &mut BTreeSet<(Group, i64)>,
        over: &mut Vec<GroupCell>,
    ) {
        let Some((session, event)) = of_session(recorded) else { return };
        let Some(traits) = self.traits.get(&session).copied() else { return };
        let counted = match event {
            SessionEvent::Connected(_) => Counted::Connected,
            SessionEvent::ActivityRecorded(activity) => {
                Counted::Activity(done(activity, cut.get(&recorded.position)))
            }
            SessionEvent::Disconnected(end) => {
                let lasted = (recorded.occurred_at - traits.connected_at).num_milliseconds();
                Counted::Ended(end.reason, u64::try_from(lasted).unwrap_or(0))
            }
            _ => return,
        };
        let hour = hour_of(recorded.recorded_at);
        for group in traits.groups() {
            let (of, cell) = self.cells.entry(group).or_insert_with(|| (hour, Cell::default()));
            if *of != hour {
                let next = Cell::after(Some(cell));
                let before = std::mem::replace(cell, next);
                if touched.contains(&(group, *of)) {
                    over.push(GroupCell { group, hour: *of, cell: before });
                }
                *of = hour;
            }
            cell.take(&counted, recorded.recorded_at);
            touched.insert((group, hour));
        }
        if matches!(event, SessionEvent::Disconnected(_)) {
            self.traits.remove(&session);
        }
    }

    /// Puts the cells that stand as they are in memory beside those whose hour is over, and leaves out what is for events that
    /// were not counted.
    fn finish(&mut self, touched: BTreeSet<(Group, i64)>, count: &mut Count, page: &[Entry]) {
        for (group, hour) in touched {
            if let Some((_, cell)) = self.cells.get(&group).filter(|(of, _)| *of == hour) {
                count.cells.push(GroupCell { group, hour, cell: cell.clone() });
            }
        }
        let left = page.iter().filter(|entry| entry.recorded.position > count.to.position);
        for (session, event) in left.filter_map(|entry| of_session(&entry.recorded)) {
            if matches!(event, SessionEvent::Connected(_)) {
                self.traits.remove(&session);
                count.sessions.retain(|one| one.session != session);
            }
        }
        let said = |label: &Label| {
            let mut sessions = count.sessions.iter();
            sessions.any(|one| one.client == label.number || one.host == label.number)
        };
        count.labels.retain(said);
    }
}

pub(crate) fn of_session(recorded: &Recorded) -> Option<(SessionNumber, &SessionEvent)> {
    match &recorded.event {
        Event::Session(event) if recorded.stream.kind == StreamKind::Session => {
            Some((SessionNumber(recorded.stream.number), event))
        }
        _ => None,
    }
}

/// What an activity has come to since the one before it of which something is known.
fn done(activity: &ActivityRecorded, before: Option<&Counts>) -> Counts {
    before.map_or(activity.counts, |before| activity.total.minus(*before))
}

fn traits(row: &SessionRow, labelled: Option<&Labelled>) -> Traits {
    let session = &row.session;
    Traits {
        organization: session.organization,
        application: session.application,
        kind: session.kind,
        client: labelled.map_or(0, |one| one.client),
        host: labelled.map_or(0, |one| one.host),
        principal: session.principal.0,
        connected_at: session.connected_at,
    }
}

/// What the sessions' totals were before each activity of a page before which others were let go.
async fn before_cuts(
    store: &dyn Store,
    after: Position,
    page: &[Entry],
) -> Result<HashMap<Position, Counts>, StoreError> {
    let Some(last) = page.last() else { return Ok(HashMap::new()) };
    let cuts: BTreeSet<_> = store.cuts(after, last.recorded.position).await?.into_iter().collect();
    let mut before = HashMap::new();
    for entry in page.iter().filter(|entry| cuts.contains(&entry.recorded.position)) {
        let Some((session, SessionEvent::ActivityRecorded(_))) = of_session(&entry.recorded) else {
            continue;
        };
        let position = entry.recorded.position;
        let earlier = store.making(&[(session, position)], Position(position.0 - 1)).await?;
        let total = earlier.iter().rev().find_map(|entry| match of_session(&entry.recorded) {
            Some((_, SessionEvent::ActivityRecorded(activity))) => Some(activity.total),
            _ => None,
        });
        before.insert(position, total.unwrap_or_default());
    }
    Ok(before)
}

/// Gives new sessions their labels, and makes those that there are not yet.
async fn label(
    store: &dyn Store,
    rows: impl Iterator<Item = &SessionRow>,
) -> Result<(Vec<Labelled>, Vec<Label>), StoreError> {
    let texts: Vec<_> = rows.map(|row| (row, client_of(&row.detail), host_of(&row.detail))).collect();
    let mut wanted: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for (row, client, host) in &texts {
        for (dimension, text) in [(Dimension::Client, client), (Dimension::Host, host)] {
            let of = wanted.entry((row.session.organization, dimension)).or_default();
            of.extend(text.clone());
        }
    }
    let mut labels = Labels::default();
    for ((organization, dimension), texts) in wanted {
        let texts: Vec<_> = texts.into_iter().collect();
        if texts.is_empty() {
            continue;
        }
        for one in store.labels_called(organization, dimension, &texts).await? {
            labels.known.insert((organization.0, dimension, one.text), one.number);
        }
        for text in texts {
            let key = (organization.0, dimension, text);
            if !labels.known.contains_key(&key) {
                // Numbered below, once it is known which numbers are free.
                labels.new.push(Label { number: 0, organization, dimension, text: key.2 });
            }
        }
    }
    if !labels.new.is_empty() {
        let last = store.last_label().await?;
        for (label, number) in labels.new.iter_mut().zip(last + 1..) {
            label.number = number;
            labels.known.insert((label.organization.0, label.dimension, label.text.clone()), number);
        }
    }
    let number = |row: &SessionRow, dimension, text: Option<String>| {
        let key = text.map(|text| (row.session.organization.0, dimension, text));
        key.and_then(|key| labels.known.get(&key).copied()).unwrap_or(0)
    };
    let given = texts.into_iter().map(|(row, client, host)| Labelled {
        session: row.session.number,
        client: number(row, Dimension::Client, client),
        host: number(row, Dimension::Host, host),
    });
    Ok((given.collect(), labels.new))
}

fn host_of(detail: &Detail) -> Option<String> {
    detail.hostname.as_deref().map(shortened)
}

/// The client's name and version, as JSON.
fn client_of(detail: &Detail) -> Option<String> {
    let name = detail.client.as_deref()?;
    let info = detail.client_info.as_deref().and_then(|info| serde_json::from_str(info).ok());
    let info: serde_json::Value = info.unwrap_or_default();
    let version = info.get("version").and_then(serde_json::Value::as_str);
    let version = version.filter(|version| !version.contains('\0')).map(shortened);
    serde_json::to_string(&(shortened(name), version)).ok()
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_LABEL).collect()
}
