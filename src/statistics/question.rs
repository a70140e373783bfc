//! Questions about a window of time, answered from what was counted.

use std::collections::{BTreeMap, HashMap};

use chrono::{SecondsFormat, TimeDelta};
use chrono_tz::Tz;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, Position, PrincipalNumber};
use sessiond_core::kind::Kind;
use sessiond_core::organization::Organization;
use sessiond_core::statistics::cell::{Cell, Dimension, Group, kind_value};
use sessiond_core::statistics::series::Series;
use sessiond_core::statistics::window::{Step, Window};
use sessiond_store::{CellPage, GroupCell};
use uuid::Uuid;

use super::{Counted, Statistics};
use crate::error::{Error, Thing};
use crate::telling::PersonNamed;

/// The most steps of an answer, and the most of all its groups together.
pub const MOST_STEPS: i64 = 10_000;
pub const MOST_GROUP_STEPS: i64 = 50_000;
/// The longest window, whatever the step.
const MOST_DAYS: i64 = 3_660;
/// The most cells that an answer by groups is made of.
const MOST_CELLS: usize = 200_000;
/// Cells read at a time.
const PAGE: u32 = 5_000;
/// How often an answer is begun anew because counting went on meanwhile.
const TRIES: u32 = 5;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    pub from: Option<Time>,
    pub to: Option<Time>,
    pub step: Option<Step>,
    pub zone: Tz,
    pub by: Option<Dimension>,
    /// How many groups are shown at most.
    pub groups: usize,
}

/// A group by name.
#[derive(Debug, Clone, PartialEq)]
pub enum Named {
    Kind(Kind),
    Client {
        name: String,
        version: Option<String>,
    },
    Host(String),
    Principal(PersonNamed),
    /// It has none, or it was erased.
    Nameless,
}

/// A group with its figures.
#[derive(Debug)]
pub struct ShownGroup {
    pub named: Named,
    pub series: Series,
}

/// What the answer is.
#[derive(Debug)]
pub struct Answered {
    pub window: Window,
    pub step: Step,
    pub series: Series,
    pub groups: Option<Vec<ShownGroup>>,
    /// All that is in no group that is shown.
    pub others: Option<Series>,
    pub position: Position,
    pub as_of: Time,
    pub behind: TimeDelta,
    /// Since when nothing had been let go when it was counted, where that is after the window's beginning.
    pub exact_since: Option<Time>,
}

/// Of which sessions, and when.
struct Asked {
    all: Group,
    window: Window,
    step: Step,
}

impl Asked {
    /// The hours that the window has something in common with.
    fn hours(&self) -> (i64, i64) {
        (self.window.begin().div_euclid(4), (self.window.end() - 1).div_euclid(4) + 1)
    }
}

impl Statistics {
    /// Statistics of an application, or of all that the caller may read.
    pub async fn ask(
        &self,
        caller: &Caller,
        application: Option<Uuid>,
        question: &Question,
    ) -> Result<Answered, Error> {
        let application = match application {
            Some(id) => self.context.application_number(caller, id)?,
            None => caller.confined_to.unwrap_or(ApplicationNumber(0)),
        };
        let all =
            Group { organization: caller.organization, application, dimension: Dimension::All, value: 0 };
        let (window, step) = self.window(caller, question)?;
        let asked = Asked { all, window, step };
        let mut tries = 0;
        loop {
            let counted = self.counted().await?;
            let answered = self.answer(caller, &asked, question, &counted).await;
            tries += 1;
            let now = self.context.store.counted_to().await?.unwrap_or_default();
            if now == counted.to || tries == TRIES {
                return answered;
            }
        }
    }

    /// The window that is asked about, and how it is divided.
    fn window(&self, caller: &Caller, question: &Question) -> Result<(Window, Step), Error> {
        let organization = self.context.gate.known().stream::<Organization>(caller.organization).cloned();
        let begun = organization.ok_or(Error::NotFound(Thing::Organization))?.created_at;
        let now = self.context.clock.now();
        let text = |time: Time| time.to_rfc3339_opts(SecondsFormat::Millis, true);
        let between = |field| {
            let message =
                format!("{field} must be a time from {} to {}, which is now", text(begun), text(now));
            Error::field(field, message)
        };
        if let Some(from) = question.from
            && (from < begun || from > now)
        {
            return Err(between("from"));
        }
        let to = question.to.map_or(now, |to| to.min(now));
        if to < begun {
            return Err(between("to"));
        }
        let from = question.from.unwrap_or_else(|| (to - TimeDelta::days(1)).max(begun));
        if question.to.is_some_and(|to| to <= from) && question.from.is_some() {
            return Err(Error::field("to", "to must be later than from"));
        }
        let span = to - from;
        let step = question.step.unwrap_or_else(|| step_for(span));
        if span > TimeDelta::days(MOST_DAYS) {
            return Err(Error::field("from", format!("a window has at most {MOST_DAYS} days")));
        }
        let too_many = |most: i64, what: &str| {
            let message =
                format!("an answer has at most {most} steps{what}: ask for a longer step or less time");
            Err(Error::field("step", message))
        };
        if span.num_milliseconds() / step.shortest() > 2 * MOST_STEPS {
            return too_many(MOST_STEPS, "");
        }
        let window = Window::new(from, to.max(from + TimeDelta::milliseconds(1)), step, question.zone);
        let steps = window.len() as i64;
        if steps > MOST_STEPS {
            return too_many(MOST_STEPS, "");
        }
        if question.by.is_some() && steps * question.groups as i64 > MOST_GROUP_STEPS {
            return too_many(MOST_GROUP_STEPS, " of all groups together");
        }
        Ok((window, step))
    }

    async fn answer(
        &self,
        caller: &Caller,
        asked: &Asked,
        question: &Question,
        counted: &Counted,
    ) -> Result<Answered, Error> {
        let mut cells = self.cells(asked, Dimension::All).await?;
        let own = cells.remove(&0).unwrap_or_default();
        let series = self.series(asked, asked.all, &own, counted).await?;
        let (mut groups, mut others) = (None, None);
        if let Some(by) = question.by {
            let mut rest = series.clone();
            let found = self.groups(asked, by, question.groups, counted).await?;
            found.iter().for_each(|(_, series)| rest.subtract(series));
            let is_something = rest.total.connects + rest.total.ended() > 0 || rest.total.open_for != 0;
            others = is_something.then_some(rest);
            groups = Some(self.named(caller, by, found).await?);
        }
        let exact_since = self.exact_since(asked, counted).await?;
        let (window, step) = (asked.window.clone(), asked.step);
        let (position, as_of, behind) = (counted.to.position, counted.as_of, counted.behind);
        Ok(Answered { window, step, series, groups, others, position, as_of, behind, exact_since })
    }

    async fn exact_since(&self, asked: &Asked, counted: &Counted) -> Result<Option<Time>, Error> {
        if counted.to.exact_after == Position(0) {
            return Ok(None);
        }
        let next = Position(counted.to.exact_after.0 + 1);
        let since = self.context.recorded_from(next).await?.unwrap_or(counted.as_of);
        let begin = sessiond_core::statistics::window::begin_of(asked.window.begin());
        Ok(Some(since).filter(|since| *since > begin))
    }

    /// The cells of a dimension in the window, by value and hour.
    async fn cells(
        &self,
        asked: &Asked,
        dimension: Dimension,
    ) -> Result<BTreeMap<i64, BTreeMap<i64, Cell>>, Error> {
        let (first, before) = asked.hours();
        let Group { organization, application, .. } = asked.all;
        let mut page = CellPage {
            organization,
            application,
            dimension,
            after: (first - 1, i64::MAX),
            before,
            limit: PAGE,
        };
        let (mut cells, mut count) = (BTreeMap::<i64, BTreeMap<i64, Cell>>::new(), 0);
        loop {
            let found = self.context.store.cells(&page).await?;
            count += found.len();
            if count > MOST_CELLS {
                let message = format!(
                    "the groups of this window have figures for more than {MOST_CELLS} hours: ask about less time"
                );
                return Err(Error::field("by", message));
            }
            let more = found.len() == PAGE as usize;
            for GroupCell { group, hour, cell } in found {
                page.after = (hour, group.value);
                cells.entry(group.value).or_default().insert(hour, cell);
            }
            if !more {
                return Ok(cells);
            }
        }
    }

    /// The steps of a group, by its cells in the window.
    async fn series(
        &self,
        asked: &Asked,
        group: Group,
        cells: &BTreeMap<i64, Cell>,
        counted: &Counted,
    ) -> Result<Series, Error> {
        let open = match cells.first_key_value() {
            Some((_, first)) => first.open,
            None => {
                let last = self.context.store.last_cells(&[group], asked.hours().0).await?;
                last.first().map_or(0, |found| found.cell.open_after())
            }
        };
        Ok(Series::of(&asked.window, cells, open, counted.as_of))
    }

    /// The groups with the most connects.
    async fn groups(
        &self,
        asked: &Asked,
        by: Dimension,
        most: usize,
        counted: &Counted,
    ) -> Result<Vec<(i64, Series)>, Error> {
        let mut cells = self.cells(asked, by).await?;
        if by == Dimension::Kind {
            // There are few of them: also those are shown that were open all the time, and to which nothing happened.
            for kind in Kind::ALL {
                cells.entry(kind_value(kind)).or_default();
            }
        }
        let window = asked.window.begin()..asked.window.end();
        let connects = |cells: &BTreeMap<i64, Cell>| -> u64 {
            let quarters = cells.iter().flat_map(|(hour, cell)| (hour * 4..).zip(&cell.quarters));
            quarters.filter(|(index, _)| window.contains(index)).map(|(_, quarter)| quarter.connects).sum()
        };
        let mut ranked: Vec<_> = cells.iter().map(|(value, cells)| (connects(cells), *value)).collect();
        ranked.sort_unstable_by_key(|(connects, value)| (std::cmp::Reverse(*connects), *value));
        let mut groups = Vec::new();
        for (_, value) in ranked {
            if groups.len() == most {
                break;
            }
            let group = Group { dimension: by, value, ..asked.all };
            let own = cells.remove(&value).unwrap_or_default();
            let quiet = own.is_empty();
            let series = self.series(asked, group, &own, counted).await?;
            if !quiet || series.total.last != 0 {
                groups.push((value, series));
            }
        }
        Ok(groups)
    }

    /// The groups by what they are called, as far as the caller may know.
    async fn named(
        &self,
        caller: &Caller,
        by: Dimension,
        groups: Vec<(i64, Series)>,
    ) -> Result<Vec<ShownGroup>, Error> {
        let values: Vec<_> = groups.iter().map(|(value, _)| *value).collect();
        let mut names: HashMap<i64, Named> = match by {
            Dimension::All => HashMap::new(),
            Dimension::Kind => {
                Kind::ALL.into_iter().map(|kind| (kind_value(kind), Named::Kind(kind))).collect()
            }
            Dimension::Client | Dimension::Host => {
                let labels = self.context.store.labels(&values).await?;
                labels.into_iter().map(|label| (label.number, of_label(by, label.text))).collect()
            }
            Dimension::Principal => {
                let telling = &self.context.telling;
                let people = telling.people(values.iter().copied().map(PrincipalNumber).collect()).await?;
                let reader = caller.acquaintance();
                let shown = |value: i64| people.shown(PrincipalNumber(value), reader);
                let named =
                    values.iter().filter_map(|value| Some((*value, Named::Principal(shown(*value)?))));
                named.collect()
            }
        };
        let shown = groups.into_iter().map(|(value, series)| ShownGroup {
            named: names.remove(&value).unwrap_or(Named::Nameless),
            series,
        });
        Ok(shown.collect())
    }
}

fn of_label(by: Dimension, text: String) -> Named {
    if by == Dimension::Host {
        return Named::Host(text);
    }
    let read = serde_json::from_str::<(String, Option<String>)>(&text);
    read.map_or(Named::Nameless, |(name, version)| Named::Client { name, version })
}

/// The step for whoever names none: some dozens to some hundreds of them.
fn step_for(span: TimeDelta) -> Step {
    match span.num_hours() {
        hours if hours <= 6 => Step::Quarter,
        hours if hours <= 336 => Step::Hour,
        hours if hours <= 17_568 => Step::Day,
        _ => Step::Month,
    }
}
