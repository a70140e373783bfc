//! What is counted of one group of sessions in one hour (UTC), quarter by quarter: offsets of time zones are whole quarters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use crate::Time;
use crate::ids::{ApplicationNumber, OrganizationNumber};
use crate::kind::Kind;
use crate::reason::Reason;
use crate::session::event::Counts;

/// Milliseconds in a quarter of an hour, and in an hour.
pub const QUARTER: i64 = 900_000;
pub const HOUR: i64 = 4 * QUARTER;

/// What sessions are told apart by. The codes are stored; never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i64)]
pub enum Dimension {
    All = 0,
    Kind = 1,
    /// The client's name and version.
    Client = 2,
    Host = 3,
    Principal = 4,
}

impl Dimension {
    pub const ALL: [Self; 5] = [Self::All, Self::Kind, Self::Client, Self::Host, Self::Principal];

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|one| *one as i64 == code)
    }
}

/// A group of sessions. Application 0 is the whole organization: how many of several applications were open at the same time
/// does not follow from the applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    pub organization: OrganizationNumber,
    pub application: ApplicationNumber,
    pub dimension: Dimension,
    /// The place of the kind in [`Kind::ALL`] from 1, the number of the label or of the principal; 0 of all, and of what has none.
    pub value: i64,
}

/// What statistics tell sessions apart by, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    pub organization: OrganizationNumber,
    pub application: ApplicationNumber,
    pub kind: Kind,
    pub client: i64,
    pub host: i64,
    pub principal: i64,
    pub connected_at: Time,
}

impl Traits {
    /// The groups that a session is in.
    pub fn groups(&self) -> impl Iterator<Item = Group> {
        let organization = self.organization;
        let values = [0, kind_value(self.kind), self.client, self.host, self.principal];
        [ApplicationNumber(0), self.application].into_iter().flat_map(move |application| {
            let group = move |(dimension, value)| Group { organization, application, dimension, value };
            Dimension::ALL.into_iter().zip(values).map(group)
        })
    }
}

/// The value of a kind.
pub fn kind_value(kind: Kind) -> i64 {
    Kind::ALL.into_iter().zip(1..).find(|(one, _)| *one == kind).map_or(0, |(_, value)| value)
}

/// What happens to a session, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    Connected,
    /// What it did since it was counted last.
    Activity(Counts),
    /// Why it ended, and how many milliseconds it had lasted.
    Ended(Reason, u64),
}

/// What is counted in a quarter of an hour.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quarter {
    #[serde(rename = "c", default, skip_serializing_if = "is_zero")]
    pub connects: u64,
    #[serde(rename = "e", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ends: BTreeMap<Reason, u64>,
    #[serde(rename = "a", default, skip_serializing_if = "is_nothing")]
    pub activity: Counts,
    #[serde(rename = "l", default, skip_serializing_if = "Histogram::is_empty")]
    pub lifetimes: Histogram,
    /// By how much more were open than at its beginning, at most.
    #[serde(rename = "p", default, skip_serializing_if = "is_zero")]
    pub rise: u64,
    /// How long after its beginning each change was, in milliseconds: added where one more was open from then on, and taken
    /// away where one less was.
    #[serde(rename = "m", default, skip_serializing_if = "is_none")]
    pub moment: i64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none(number: &i64) -> bool {
    *number == 0
}

fn is_nothing(counts: &Counts) -> bool {
    *counts == Counts::default()
}

impl Quarter {
    /// By how much more are open at its end than at its beginning.
    pub fn net(&self) -> i64 {
        self.connects as i64 - self.ends.values().sum::<u64>() as i64
    }

    /// How long all that were open were so until an instant of it, in milliseconds, by how many were at its beginning and how
    /// long after that the instant is.
    pub fn open_for(&self, open: i64, elapsed: i64) -> i64 {
        (open + self.net()) * elapsed - self.moment
    }

    fn take(&mut self, counted: &Counted, elapsed: i64) {
        match counted {
            Counted::Connected => {
                self.connects += 1;
                self.rise = self.rise.max(u64::try_from(self.net()).unwrap_or(0));
                self.moment += elapsed;
            }
            Counted::Activity(counts) => self.activity = self.activity.plus(*counts),
            Counted::Ended(reason, lifetime) => {
                *self.ends.entry(*reason).or_default() += 1;
                self.lifetimes.add(*lifetime);
                self.moment -= elapsed;
            }
        }
    }
}

/// What is counted of a group in an hour.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cell {
    /// How many were open when the hour began.
    pub open: i64,
    pub quarters: [Quarter; 4],
}

/// The hour of an instant, in hours since 1970.
pub fn hour_of(time: Time) -> i64 {
    time.timestamp_millis().div_euclid(HOUR)
}

impl Cell {
    /// One in which nothing has happened yet, after another one of its group, or the first.
    pub fn after(before: Option<&Self>) -> Self {
        Self { open: before.map_or(0, Self::open_after), quarters: Default::default() }
    }

    /// How many were open when the hour ended, or are by now.
    pub fn open_after(&self) -> i64 {
        self.open + self.quarters.iter().map(Quarter::net).sum::<i64>()
    }

    /// Counts what happened at an instant of its hour. To be told in the order of the log.
    pub fn take(&mut self, counted: &Counted, at: Time) {
        let into = at.timestamp_millis().rem_euclid(HOUR);
        if let Some(quarter) = self.quarters.get_mut((into / QUARTER) as usize) {
            quarter.take(counted, into % QUARTER);
        }
    }

    /// As it is stored, beside what was open.
    pub fn body(&self) -> String {
        serde_json::to_string(&self.quarters).unwrap_or_default()
    }

    /// From what is stored.
    pub fn of(open: i64, body: &str) -> Result<Self, serde_json::Error> {
        Ok(Self { open, quarters: serde_json::from_str(body)? })
    }
}
