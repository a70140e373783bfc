//! When a cron expression is due, held against a slow count of every minute: where clocks are set back and forward, in
//! every zone, from every instant around the change.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use sessiond_core::cron::{Cron, Unreadable};

type Time = DateTime<Utc>;

/// The minutes and hours that one of the expressions below names.
struct Named {
    expression: &'static str,
    by_interval: bool,
    minutes: &'static [u32],
    /// None: every one.
    hours: Option<&'static [u32]>,
}

const EVERY_QUARTER: &[u32] = &[0, 15, 30, 45];

const NAMED: &[Named] = &[
    Named { expression: "*/15 * * * *", by_interval: true, minutes: EVERY_QUARTER, hours: None },
    Named { expression: "10 * * * *", by_interval: true, minutes: &[10], hours: None },
    Named { expression: "@hourly", by_interval: true, minutes: &[0], hours: None },
    Named {
        expression: "20 */2 * * *",
        by_interval: true,
        minutes: &[20],
        hours: Some(&[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]),
    },
    Named { expression: "*/15 1 * * *", by_interval: true, minutes: EVERY_QUARTER, hours: Some(&[1]) },
    Named { expression: "30 1 * * *", by_interval: false, minutes: &[30], hours: Some(&[1]) },
    Named {
        expression: "45 0,1,2,3,23 * * *",
        by_interval: false,
        minutes: &[45],
        hours: Some(&[0, 1, 2, 3, 23]),
    },
    Named { expression: "0,40 1-3 * * *", by_interval: false, minutes: &[0, 40], hours: Some(&[1, 2, 3]) },
];

fn offset(zone: Tz, at: Time) -> i32 {
    zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()
}

impl Named {
    fn fits(&self, wall: NaiveDateTime) -> bool {
        let hour = self.hours.is_none_or(|hours| hours.contains(&wall.hour()));
        hour && wall.second() == 0 && self.minutes.contains(&wall.minute())
    }

    /// Every instant of a stretch of time at which it is due, by looking at each minute of it, and at each on the wall.
    fn all(&self, zone: Tz, from: Time, to: Time) -> BTreeSet<Time> {
        let minutes = |from: Time| {
            (0..).map(move |minute| from + TimeDelta::minutes(minute)).take_while(move |at| *at <= to)
        };
        if self.by_interval {
            return minutes(from).filter(|at| self.fits(at.with_timezone(&zone).naive_local())).collect();
        }
        // Each time on the wall comes once: the first time that it, or a later one where it is left out, is there.
        let mut all = BTreeSet::new();
        let mut reached = from.with_timezone(&zone).naive_local() - TimeDelta::minutes(1);
        for at in minutes(from) {
            let wall = at.with_timezone(&zone).naive_local();
            while reached < wall {
                reached += TimeDelta::minutes(1);
                if self.fits(reached) {
                    all.insert(at);
                }
            }
        }
        all
    }
}

/// The moments of a year at which the clocks of a zone are changed.
fn changes(zone: Tz, year: i32) -> Vec<Time> {
    let begin = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
    let mut all = vec![];
    for hour in 0..366 * 24 {
        let from = begin + TimeDelta::hours(hour);
        if offset(zone, from) == offset(zone, from + TimeDelta::hours(1)) {
            continue;
        }
        let minute = (0..60).map(|minute| from + TimeDelta::minutes(minute));
        all.extend(
            minute.map(|at| at + TimeDelta::minutes(1)).find(|at| offset(zone, *at) != offset(zone, from)),
        );
    }
    all
}

/// Asks from every few minutes around a change, and holds both answers against the count.
fn hold(zone: Tz, change: Time, step: i64) {
    let margin = TimeDelta::hours(30);
    for named in NAMED {
        let cron = Cron::read_new(named.expression, zone.name()).unwrap();
        let all = named.all(zone, change - margin, change + margin);
        for minute in (-200..200).step_by(usize::try_from(step).unwrap()) {
            let at = change + TimeDelta::minutes(minute);
            for at in [at, at + TimeDelta::milliseconds(20_400)] {
                let what = || format!("{} in {zone} at {at}", named.expression);
                let next = all.range(at + TimeDelta::milliseconds(1)..).next();
                assert_eq!(cron.next_after(at), next.copied(), "{}", what());
                assert_eq!(cron.last_until(at), all.range(..=at).next_back().copied(), "until: {}", what());
            }
        }
    }
}

#[test]
fn where_clocks_change_what_is_due_by_the_hour_comes_in_both_and_what_names_an_hour_comes_once() {
    for zone in [Tz::America__New_York, Tz::Europe__Berlin, Tz::Australia__Lord_Howe, Tz::Antarctica__Troll] {
        let changes = changes(zone, 2027);
        assert_eq!(changes.len(), 2, "{zone}");
        changes.into_iter().for_each(|change| hold(zone, change, 1));
    }
}

#[test]
fn in_every_zone_of_the_world_the_change_of_its_clocks_loses_no_run_and_makes_none() {
    let zones: Vec<(Tz, Time)> =
        TZ_VARIANTS.iter().flat_map(|zone| changes(*zone, 2027).into_iter().map(|at| (*zone, at))).collect();
    assert!(zones.len() > 200, "{}", zones.len());
    // Many zones change at the same moment by the same: one of them does.
    let mut seen = BTreeSet::new();
    for (zone, change) in zones {
        let (before, after) = (offset(zone, change - TimeDelta::minutes(1)), offset(zone, change));
        if seen.insert((change, before, after)) {
            hold(zone, change, 23);
        }
    }
}

#[test]
fn every_quarter_of_an_hour_in_new_york_comes_in_the_second_of_two_equal_hours_too() {
    let at = |text: &str| text.parse::<Time>().unwrap();
    let cron = Cron::read_new("*/15 * * * *", "America/New_York").unwrap();
    let mut due = vec![at("2027-11-07T05:25:00Z")];
    while due.len() < 6 {
        due.push(cron.next_after(*due.last().unwrap()).unwrap());
    }
    let quarters = ["05:30", "05:45", "06:00", "06:15", "06:30"];
    assert_eq!(due[1..], quarters.map(|quarter| at(&format!("2027-11-07T{quarter}:00Z"))));
}

#[test]
fn what_comes_once_in_years_is_found_across_all_changes_between() {
    let cron = Cron::read_new("30 2 29 2 *", "Europe/Berlin").unwrap();
    let after = Utc.with_ymd_and_hms(2028, 3, 1, 0, 0, 0).unwrap();
    let next = cron.next_after(after).unwrap();
    assert_eq!(next, Utc.with_ymd_and_hms(2032, 2, 29, 1, 30, 0).unwrap());
    assert_eq!(cron.last_until(next - TimeDelta::seconds(1)).unwrap().year(), 2028);
    let minutes = Cron::read_new("* * 29 2 *", "Europe/Berlin").unwrap();
    assert_eq!(minutes.next_after(after), Some(Utc.with_ymd_and_hms(2032, 2, 28, 23, 0, 0).unwrap()));
}

#[test]
fn sunday_is_sunday_however_it_is_written() {
    let after = Utc.with_ymd_and_hms(2026, 12, 2, 12, 0, 0).unwrap();
    let due = |weekday: &str| {
        let cron = Cron::read_new(&format!("0 0 * * {weekday}"), "UTC").unwrap();
        cron.next_after(after).unwrap_or_else(|| panic!("{weekday} is never due")).date_naive().to_string()
    };
    for (weekday, day) in [
        ("0", "2026-12-06"),
        ("7", "2026-12-06"),
        ("SUN", "2026-12-06"),
        ("sun", "2026-12-06"),
        ("6-7", "2026-12-05"),
        ("5,7", "2026-12-04"),
        ("0L", "2026-12-27"),
        ("7L", "2026-12-27"),
        ("7l", "2026-12-27"),
        ("SUNL", "2026-12-27"),
        ("7#1", "2026-12-06"),
        ("SUN#2", "2026-12-13"),
        ("3,7L", "2026-12-09"),
        ("0,7#1", "2026-12-06"),
    ] {
        assert_eq!(due(weekday), day, "{weekday}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_for_what_is_wrong_with_it() {
    let refused = |expression: &str| match Cron::read_new(expression, "UTC") {
        Err(Unreadable::Expression(message)) => message,
        outcome => panic!("{expression}: {outcome:?}"),
    };
    for few in ["", "* * *", "0 3 * *", "0 0 3 * * *", "0 0 3 * * * 2027"] {
        assert!(refused(few).starts_with("cron must have five fields"), "{few}: {}", refused(few));
    }
    for odd in ["0 0 LW * *x", "61 * * * *", "0 25 * * *", "a b c d e", "0 0 32 * *", "*/0 * * * *"] {
        assert!(!refused(odd).contains("five fields"), "{odd}: {}", refused(odd));
    }
    for empty in ["1,,2 * * * *", ",1 * * * *", "1, * * * *", "0 0 * * 1,,3"] {
        assert!(refused(empty).contains("empty place"), "{empty}: {}", refused(empty));
    }
    assert!(Cron::read("1,,2 * * * *", "UTC").is_ok(), "one that an older release took goes on");
    assert!(matches!(Cron::read_new("0 3 * * *", "Mars/Olympus"), Err(Unreadable::TimeZone)));
}
