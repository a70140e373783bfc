//! Windows of time and their steps, by the calendar of a time zone.

use chrono::{Datelike, Offset, TimeZone, Timelike};
use chrono_tz::Tz;

use super::cell::QUARTER;
use crate::Time;

/// How long a step is. An hour that comes twice is two steps, and a day is what the calendar of the zone calls one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Quarter,
    Hour,
    Day,
    /// From Monday on.
    Week,
    Month,
}

impl Step {
    pub const ALL: [Self; 5] = [Self::Quarter, Self::Hour, Self::Day, Self::Week, Self::Month];

    pub fn word(self) -> &'static str {
        match self {
            Self::Quarter => "15m",
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::Week => "7d",
            Self::Month => "month",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.word() == word)
    }

    /// How many milliseconds a step takes at least.
    pub fn shortest(self) -> i64 {
        let hour = 4 * QUARTER;
        match self {
            Self::Quarter => QUARTER,
            // Where clocks are set by half an hour, an hour may be cut short.
            Self::Hour => 2 * QUARTER,
            Self::Day => 20 * hour,
            Self::Week => 164 * hour,
            Self::Month => 27 * 24 * hour,
        }
    }

    /// What is the same for all quarters of a step, and for no two steps one after the other.
    fn name(self, quarter: i64, zone: Tz) -> (i64, i64) {
        let time = Time::from_timestamp_millis(quarter * QUARTER).unwrap_or_default();
        let local = zone.from_utc_datetime(&time.naive_utc());
        let (date, offset) = (local.date_naive(), i64::from(local.offset().fix().local_minus_utc()));
        match self {
            Self::Quarter => (quarter, 0),
            Self::Hour => (i64::from(date.num_days_from_ce()) * 24 + i64::from(local.hour()), offset),
            Self::Day => (date.num_days_from_ce().into(), 0),
            Self::Week => ((date.num_days_from_ce() - 1).div_euclid(7).into(), 0),
            Self::Month => (i64::from(date.year()) * 12 + i64::from(date.month0()), 0),
        }
    }
}

/// A window of whole steps, in quarters of an hour since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Where each step begins.
    starts: Vec<i64>,
    /// Where the last one ends.
    end: i64,
}

/// The quarter of an instant.
pub fn quarter_of(time: Time) -> i64 {
    time.timestamp_millis().div_euclid(QUARTER)
}

/// The beginning of a quarter.
pub fn begin_of(quarter: i64) -> Time {
    Time::from_timestamp_millis(quarter * QUARTER).unwrap_or_default()
}

impl Window {
    /// The steps that have something in common with the time from one instant to another, which is later. It looks at each
    /// quarter of it.
    pub fn new(from: Time, to: Time, step: Step, zone: Tz) -> Self {
        let (mut first, last) = (quarter_of(from), quarter_of(to - chrono::TimeDelta::milliseconds(1)));
        let name = step.name(first, zone);
        while step.name(first - 1, zone) == name {
            first -= 1;
        }
        let (mut starts, mut name, mut end) = (vec![first], name, first + 1);
        loop {
            let next = step.name(end, zone);
            if next != name {
                if end > last {
                    return Self { starts, end };
                }
                starts.push(end);
                name = next;
            }
            end += 1;
        }
    }

    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub fn begin(&self) -> i64 {
        self.starts.first().copied().unwrap_or(self.end)
    }

    pub fn end(&self) -> i64 {
        self.end
    }

    /// Where each step begins and ends.
    pub fn steps(&self) -> impl Iterator<Item = (i64, i64)> {
        let ends = self.starts.iter().skip(1).copied().chain([self.end]);
        self.starts.iter().copied().zip(ends)
    }
}
