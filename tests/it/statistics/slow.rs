//! An independent count of the log, slow and simple: event by event, from the table as it is.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use serde_json::Value;

use crate::support::Server;

/// An event of a session that statistics count, or a few more.
#[derive(Clone, Debug)]
pub struct Stored {
    pub session: i64,
    pub name: String,
    pub occurred_at: i64,
    pub recorded_at: i64,
    pub body: Value,
    pub personal: Value,
}

/// What one step, or the window, comes to by it.
#[derive(Debug, Default, PartialEq)]
pub struct Figures {
    pub connects: u64,
    pub ends: BTreeMap<String, u64>,
    pub peak: i64,
    pub last: i64,
    pub mean: f64,
    pub requests: u64,
    pub bytes_out: u64,
    /// Sorted.
    pub lifetimes: Vec<i64>,
}

type Row = (i64, String, i64, i64, String, Option<String>);

pub async fn events(server: &Server) -> Vec<Stored> {
    let sql = "select stream_number, type, occurred_at, recorded_at, body, personal from event \
               where stream_kind = 4 order by position";
    let rows: Vec<Row> = server.look_inside().await.rows(sql, &[]).await;
    let stored = |(session, name, occurred_at, recorded_at, body, personal): Row| Stored {
        session,
        name,
        occurred_at,
        recorded_at,
        body: serde_json::from_str(&body).unwrap(),
        personal: personal.map_or(Value::Null, |personal| serde_json::from_str(&personal).unwrap()),
    };
    rows.into_iter().map(stored).collect()
}

/// The sessions of each group.
pub fn groups(events: &[Stored], by: &str) -> BTreeMap<String, BTreeSet<i64>> {
    let mut groups: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.name == "connected") {
        let name = match by {
            "kind" => event.body["kind"].as_str().unwrap().to_owned(),
            "host" => event.personal["hostname"].as_str().unwrap_or_default().to_owned(),
            "client" => {
                let text =
                    |name: &str| event.personal["clientInfo"][name].as_str().unwrap_or_default().to_owned();
                format!("{}/{}", text("name"), text("version"))
            }
            _ => event.body["principal"].to_string(),
        };
        groups.entry(name).or_default().insert(event.session);
    }
    groups
}

/// Counts what is in a step, up to now.
pub fn count(events: &[Stored], (start, end): (i64, i64), now: i64) -> Figures {
    let connected: BTreeMap<i64, i64> = events
        .iter()
        .filter(|event| event.name == "connected")
        .map(|event| (event.session, event.occurred_at))
        .collect();
    let mut figures = Figures::default();
    let end = end.min(now.max(start));
    let (mut open, mut since, mut area) = (0_i64, start, 0_i64);
    let mut begun = false;
    for event in events {
        let change = match event.name.as_str() {
            "connected" => 1,
            "disconnected" => -1,
            _ => 0,
        };
        if event.recorded_at < start {
            open += change;
            continue;
        }
        if event.recorded_at > end || (event.recorded_at == end && end < now) {
            break;
        }
        if !begun {
            (figures.peak, begun) = (open, true);
        }
        area += open * (event.recorded_at - since);
        since = event.recorded_at;
        open += change;
        figures.peak = figures.peak.max(open);
        match event.name.as_str() {
            "connected" => figures.connects += 1,
            "disconnected" => {
                *figures.ends.entry(event.body["reason"].as_str().unwrap().to_owned()).or_default() += 1;
                figures.lifetimes.push((event.occurred_at - connected[&event.session]).max(0));
            }
            "activity_recorded" => {
                figures.requests += event.body["requests"].as_u64().unwrap_or(0);
                figures.bytes_out += event.body["bytesOut"].as_u64().unwrap_or(0);
            }
            _ => {}
        }
    }
    if !begun {
        figures.peak = open;
    }
    area += open * (end - since);
    figures.last = open;
    figures.mean = if end > start { area as f64 / (end - start) as f64 } else { open as f64 };
    figures.lifetimes.sort_unstable();
    figures
}

pub fn milliseconds(text: &Value) -> i64 {
    DateTime::parse_from_rfc3339(text.as_str().unwrap_or_else(|| panic!("{text}")))
        .unwrap()
        .timestamp_millis()
}

/// Compares what was answered of a step, or of a window, with what this count comes to.
pub fn compare(answered: &Value, slow: &Figures, place: &str) {
    let place = || format!("{place}: {answered} is not {slow:?}");
    assert_eq!(answered["connects"].as_u64().unwrap(), slow.connects, "{}", place());
    let ends: BTreeMap<String, u64> = serde_json::from_value(answered["ends"].clone()).unwrap();
    assert_eq!(ends, slow.ends, "{}", place());
    let of = |reason: &str| slow.ends.get(reason).copied().unwrap_or(0);
    assert_eq!(answered["abandoned"].as_u64().unwrap(), of("stale") + of("lifetime"), "{}", place());
    assert_eq!(answered["open"]["peak"].as_i64().unwrap(), slow.peak, "{}", place());
    assert_eq!(answered["open"]["last"].as_i64().unwrap(), slow.last, "{}", place());
    assert!((answered["open"]["mean"].as_f64().unwrap() - slow.mean).abs() < 1e-6, "{}", place());
    assert_eq!(answered["requests"].as_u64().unwrap(), slow.requests, "{}", place());
    assert_eq!(answered["bytesOut"].as_u64().unwrap(), slow.bytes_out, "{}", place());
    let lifetimes = &answered["lifetimes"];
    assert_eq!(lifetimes["count"].as_u64().unwrap(), slow.lifetimes.len() as u64, "{}", place());
    for (name, percent) in [("median", 50), ("p95", 95), ("p99", 99)] {
        let rank = (slow.lifetimes.len() * percent).div_ceil(100).max(1);
        let Some(exact) = slow.lifetimes.get(rank - 1) else {
            assert!(lifetimes[name].is_null(), "{}", place());
            continue;
        };
        let found = lifetimes[name].as_f64().unwrap() * 1_000.0;
        let exact = *exact as f64;
        assert!((found - exact).abs() <= exact / 128.0 + 0.5, "{name} {}", place());
    }
}
