//! When something is due that comes again and again, by a cron expression in a time zone.
//!
//! A cron expression speaks of the time on the wall, and where clocks are set back the same time comes twice. The rule
//! is that of Debian's cron(8): what is due by the minute or the hour (`*` in one of those fields) is due in both
//! hours, as time passes; what names its hours and minutes is due once, the first time. Where clocks are set forward, the
//! times between do not come: the former is not due there, the latter at the moment at which the clock goes on.
//! The search through the calendar is [`croner`]'s; from the wall to instants it is made here, because `croner` takes
//! a time that comes twice for its first meaning wherever it starts from (https://github.com/hexagon/croner-rust).

use chrono::{DateTime, NaiveDateTime, Offset, SubsecRound, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds};

use crate::Time;

/// What an expression looks like, for messages.
const FORM: &str = "minute hour day-of-month month day-of-week, such as 0 3 * * 1-5";

/// Names that stand for a whole expression.
const NICKNAMES: [(&str, &str); 6] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron expression of five fields in a time zone.
#[derive(Debug, Clone)]
pub struct Cron {
    pattern: croner::Cron,
    zone: Tz,
    /// Due by the minute or the hour, not at hours it names.
    by_interval: bool,
}

/// Why an expression or a time zone cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    Expression(String),
    TimeZone,
}

impl Cron {
    /// Reads an expression, and the name of a zone of the IANA time zone database.
    pub fn read(expression: &str, zone: &str) -> Result<Self, Unreadable> {
        let zone = zone.parse().map_err(|_| Unreadable::TimeZone)?;
        let nickname = NICKNAMES.iter().find(|(name, _)| expression.trim().eq_ignore_ascii_case(name));
        let spelled = nickname.map_or(expression, |(_, spelled)| spelled);
        let fields: Vec<&str> = spelled.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let message = format!("cron must have five fields ({FORM}), and has {}", fields.len());
            return Err(Unreadable::Expression(message));
        };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
        let text = [minute, hour, day, month, &sunday_is_zero(weekday)].join(" ");
        let pattern = parser
            .parse(&text)
            .map_err(|error| Unreadable::Expression(format!("cron cannot be read as {FORM}: {error}")))?;
        let by_interval = [minute, hour].iter().any(|field| field.contains(['*', '?']));
        Ok(Self { pattern, zone, by_interval })
    }

    /// Reads what somebody has just written: also holds it against what a reader of old expressions lets pass.
    pub fn read_new(expression: &str, zone: &str) -> Result<Self, Unreadable> {
        let cron = Self::read(expression, zone)?;
        match expression.split_ascii_whitespace().find(|field| field.split(',').any(str::is_empty)) {
            Some(field) => {
                Err(Unreadable::Expression(format!("cron has an empty place in its list {field:?}")))
            }
            None => Ok(cron),
        }
    }

    /// The first instant after another at which it is due, if it ever is again.
    pub fn next_after(&self, after: Time) -> Option<Time> {
        let after = after.trunc_subsecs(0);
        if !self.by_interval {
            let mut wall = self.next_wall(self.wall(after), false)?;
            while self.once(wall)? <= after {
                wall = self.next_wall(wall, false)?;
            }
            return self.once(wall);
        }
        let (mut from, mut inclusive) = (after, false);
        loop {
            let candidate = from + (self.next_wall(self.wall(from), inclusive)? - self.wall(from));
            let same = self.while_the_offset_stays(from, candidate);
            if same == candidate {
                return Some(candidate);
            }
            (from, inclusive) = (same + TimeDelta::seconds(1), true);
        }
    }

    /// The last instant up to another, that one included, at which it was due.
    pub fn last_until(&self, until: Time) -> Option<Time> {
        let until = until.trunc_subsecs(0);
        if !self.by_interval {
            // In the second of two equal hours, times that are still to come on the wall have been due.
            let mut wall = self.previous_wall(self.wall(until) + LONGEST_REPETITION)?;
            while self.once(wall)? > until {
                wall = self.previous_wall(wall - TimeDelta::seconds(1))?;
            }
            return self.once(wall);
        }
        let mut from = until;
        loop {
            let candidate = from - (self.wall(from) - self.previous_wall(self.wall(from))?);
            let same = self.while_the_offset_stays(from, candidate);
            if same == candidate {
                return Some(candidate);
            }
            from = same - TimeDelta::seconds(1);
        }
    }

    /// The time on the wall.
    fn wall(&self, at: Time) -> NaiveDateTime {
        at.with_timezone(&self.zone).naive_local()
    }

    /// The one instant for a time on the wall: the first of two, and for one that does not come the first that does.
    fn once(&self, wall: NaiveDateTime) -> Option<Time> {
        if let Some(at) = self.zone.from_local_datetime(&wall).earliest() {
            return Some(at.to_utc());
        }
        // With the offset from before the change, the time on the wall lies as far after it as it would have been.
        let before = self.zone.offset_from_utc_datetime(&(wall - TimeDelta::days(1))).fix();
        let after = before.from_local_datetime(&wall).single()?.to_utc();
        let last = self.while_the_offset_stays(after - TimeDelta::days(2), after);
        Some(last + TimeDelta::seconds(1))
    }

    /// How far one gets from an instant towards another, to the second, before the clocks are changed.
    fn while_the_offset_stays(&self, from: Time, to: Time) -> Time {
        let offset = |at: Time| self.zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        let (here, direction) = (offset(from), if to < from { -1 } else { 1 });
        let distance = (to - from).num_seconds().abs();
        let at = |seconds: i64| from + TimeDelta::seconds(direction * seconds);
        let mut same = 0;
        loop {
            // No zone changes its clocks twice in a day and has the same offset again.
            let next = distance.min(same + 86_400);
            if offset(at(next)) != here {
                let (mut same, mut other) = (same, next);
                while other - same > 1 {
                    let middle = same + (other - same) / 2;
                    if offset(at(middle)) == here { same = middle } else { other = middle }
                }
                return at(same);
            }
            if next == distance {
                return to;
            }
            same = next;
        }
    }

    fn next_wall(&self, wall: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
        let next = self.pattern.find_next_occurrence(&on_paper(wall), inclusive).ok()?;
        Some(next.naive_utc())
    }

    fn previous_wall(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        let previous = self.pattern.find_previous_occurrence(&on_paper(wall), true).ok()?;
        Some(previous.naive_utc())
    }
}

/// Longer than any clock is set back by.
const LONGEST_REPETITION: TimeDelta = TimeDelta::days(1);

/// A time on the wall for a search through a calendar in which every time comes once.
fn on_paper(wall: NaiveDateTime) -> DateTime<Utc> {
    wall.and_utc()
}

/// Sunday may be written as 7; `croner` knows that where it stands alone, but not before `L` and `#`.
fn sunday_is_zero(weekday: &str) -> String {
    let items = weekday.split(',').map(|item| match item.strip_prefix('7') {
        Some(rest) if rest.starts_with(['L', 'l', '#']) => format!("0{rest}"),
        _ => item.to_owned(),
    });
    items.collect::<Vec<_>>().join(",")
}
