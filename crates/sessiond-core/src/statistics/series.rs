//! Steps made of cells.

use std::collections::BTreeMap;

use super::cell::{Cell, QUARTER};
use super::histogram::Histogram;
use super::window::Window;
use crate::Time;
use crate::reason::Reason;
use crate::session::event::Counts;

/// What a step, or a whole window, came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    pub connects: u64,
    pub ends: BTreeMap<Reason, u64>,
    pub activity: Counts,
    pub lifetimes: Histogram,
    /// How many were open at the same time, at most; none where that is not known.
    pub peak: Option<i64>,
    /// How many were open at its end, or are by now.
    pub last: i64,
    /// How long all that were open were so, together, and how long it lasted up to now; in milliseconds.
    pub open_for: i64,
    pub lasted: i64,
}

/// The reasons of ends of which nobody said goodbye: the session was given up because nothing was heard of it any more, or
/// because its time was over.
pub const ABANDONED: [Reason; 2] = [Reason::Stale, Reason::Lifetime];

impl Figures {
    pub fn ended(&self) -> u64 {
        self.ends.values().sum()
    }

    pub fn abandoned(&self) -> u64 {
        ABANDONED.iter().filter_map(|reason| self.ends.get(reason)).sum()
    }

    /// How many were open on average.
    pub fn mean(&self) -> f64 {
        if self.lasted == 0 { self.last as f64 } else { self.open_for as f64 / self.lasted as f64 }
    }

    /// Adds what came after it.
    pub fn append(&mut self, next: &Self) {
        self.connects += next.connects;
        for (reason, count) in &next.ends {
            *self.ends.entry(*reason).or_default() += count;
        }
        self.activity = self.activity.plus(next.activity);
        self.lifetimes.merge(&next.lifetimes);
        self.peak = self.peak.max(next.peak);
        self.last = next.last;
        self.open_for += next.open_for;
        self.lasted += next.lasted;
    }

    /// Takes out a part of the same time. How many of the rest were open at most is not known.
    pub fn subtract(&mut self, part: &Self) {
        self.connects = self.connects.saturating_sub(part.connects);
        for (reason, count) in &part.ends {
            let left = self.ends.get(reason).copied().unwrap_or(0).saturating_sub(*count);
            self.ends.insert(*reason, left);
        }
        self.ends.retain(|_, count| *count > 0);
        self.activity = self.activity.minus(part.activity);
        self.lifetimes.subtract(&part.lifetimes);
        self.peak = None;
        self.last -= part.last;
        self.open_for -= part.open_for;
    }
}

/// The steps of a window, of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    pub steps: Vec<Figures>,
    pub total: Figures,
}

impl Series {
    /// The steps of a window that had begun by now, by the group's cells in it (by hour, from the hour of its beginning on) and how
    /// many were open when that hour began.
    pub fn of(window: &Window, cells: &BTreeMap<i64, Cell>, open: i64, now: Time) -> Self {
        let mut open = open;
        if let Some(first) = cells.get(&window.begin().div_euclid(4)) {
            open = first.open;
            for quarter in first.quarters.iter().take(window.begin().rem_euclid(4) as usize) {
                open += quarter.net();
            }
        }
        let begun = window.steps().take_while(|(start, _)| start * QUARTER <= now.timestamp_millis());
        let steps: Vec<_> = begun.map(|(start, end)| step((start, end), cells, &mut open, now)).collect();
        let mut total = steps.first().cloned().unwrap_or_default();
        steps.iter().skip(1).for_each(|step| total.append(step));
        Self { steps, total }
    }

    /// Takes out a part.
    pub fn subtract(&mut self, part: &Self) {
        for (own, part) in self.steps.iter_mut().zip(&part.steps) {
            own.subtract(part);
        }
        self.total.subtract(&part.total);
    }
}

/// One step, from how many were open before it; after it `open` says how many are.
fn step((start, end): (i64, i64), cells: &BTreeMap<i64, Cell>, open: &mut i64, now: Time) -> Figures {
    let mut figures = Figures { peak: Some(*open), ..Figures::default() };
    for index in start..end {
        let elapsed = (now.timestamp_millis() - index * QUARTER).clamp(0, QUARTER);
        figures.lasted += elapsed;
        let quarter =
            cells.get(&index.div_euclid(4)).and_then(|cell| cell.quarters.get(index.rem_euclid(4) as usize));
        let Some(quarter) = quarter else {
            figures.open_for += *open * elapsed;
            continue;
        };
        figures.connects += quarter.connects;
        for (reason, count) in &quarter.ends {
            *figures.ends.entry(*reason).or_default() += count;
        }
        figures.activity = figures.activity.plus(quarter.activity);
        figures.lifetimes.merge(&quarter.lifetimes);
        figures.peak = figures.peak.max(Some(*open + quarter.rise as i64));
        figures.open_for += quarter.open_for(*open, elapsed);
        *open += quarter.net();
    }
    figures.last = *open;
    figures
}
