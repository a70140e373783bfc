//! Readings of counters: what they come to, in whatever order they arrive, held against a plain computation over the whole
//! set of them that shares nothing with the fold.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use sessiond_core::Time;
use sessiond_core::throughput::{Reading, Sample, Throughput};

use super::{PATIENT, SESSIONS, STATISTICS, again, with_session};

/// When a session began; milliseconds.
const BEGAN: i64 = 1_700_000_000_000;

/// What statistics show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    pub total: u64,
    pub last: u64,
    pub avg: u64,
    pub max: u64,
    pub sent_at: i64,
    pub updated_at: i64,
}

/// What a set of readings comes to: all of them sorted once, then looked at with binary searches.
pub fn figures(began: i64, reports: &[(i64, u64)]) -> Figures {
    let mut greatest = BTreeMap::new();
    for (at, counter) in reports.iter().filter(|(at, _)| *at > began) {
        let known = greatest.entry(*at).or_insert(0);
        *known = (*known).max(*counter);
    }
    let times: Vec<i64> = std::iter::once(began).chain(greatest.keys().copied()).collect();
    let counters: Vec<u64> = std::iter::once(0).chain(greatest.values().copied()).collect();
    let gains: Vec<u64> = (0..times.len())
        .map(|index| match index {
            0 => 0,
            _ => counters[index].checked_sub(counters[index - 1]).unwrap_or(counters[index]),
        })
        .collect();
    let totals: Vec<u64> = gains
        .iter()
        .scan(0, |sum, gain| {
            *sum += gain;
            Some(*sum)
        })
        .collect();
    // 100 Gbit/s are 12.5 million bytes a millisecond.
    let jump = |index: usize| gains[index] > 12_500_000 * (times[index] - times[index - 1]) as u64;
    let jumps: Vec<usize> = (1..times.len()).filter(|index| jump(*index)).collect();
    let mut figures = Figures { sent_at: began, updated_at: began, ..Figures::default() };
    let mut mark = 0;
    loop {
        let due = times.partition_point(|at| *at < times[mark] + 1_000);
        let jumped = jumps[jumps.partition_point(|index| *index <= mark)..].first().copied();
        match jumped.filter(|jumped| *jumped <= due) {
            Some(jumped) => mark = jumped,
            None if due < times.len() => {
                figures.last = totals[due] - totals[mark];
                figures.avg = figures.last * 8_000 / (times[due] - times[mark]) as u64;
                figures.max = figures.max.max(figures.avg);
                mark = due;
            }
            None => break,
        }
    }
    if let Some(sent) = gains.iter().rposition(|gain| *gain > 0) {
        figures.sent_at = times[sent];
    }
    figures.total = totals.last().copied().unwrap_or(0);
    figures.updated_at = times.last().copied().unwrap_or(began);
    figures
}

fn folded(reports: &[(i64, u64)]) -> (Figures, Vec<Reading>) {
    let mut throughput = Throughput::new(Time::from_timestamp_millis(BEGAN).unwrap());
    let readings = reports.iter().map(|(at, counter)| throughput.take(Sample { at: *at, counter: *counter }));
    let readings = readings.collect();
    let written = serde_json::to_string(&throughput).unwrap();
    assert_eq!(
        serde_json::from_str::<Throughput>(&written).unwrap(),
        throughput,
        "{written} reads back as it was"
    );
    let gauge = throughput.gauge();
    let figures = Figures {
        total: gauge.total,
        last: gauge.last,
        avg: gauge.avg,
        max: gauge.max,
        sent_at: gauge.sent_at,
        updated_at: gauge.at,
    };
    (figures, readings)
}

/// One step of a history: how much later than the one before, and what the counter does.
#[derive(Debug, Clone)]
pub enum Step {
    Gains(u64),
    Stays,
    /// The counter began anew and is here already.
    Restarts(u64),
}

pub fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let step = prop_oneof![
        6 => (0_u64..5_000_000).prop_map(Step::Gains),
        2 => Just(Step::Stays),
        1 => (0_u64..1_000_000).prop_map(Step::Restarts),
        1 => (1_000_000_000_000_u64..2_000_000_000_000).prop_map(Step::Gains),
    ];
    proptest::collection::vec((prop_oneof![1 => 1_i64..400, 2 => 400_i64..3_000], step), 0..60)
}

/// The reports of a history, in the order of their times.
pub fn history(began: i64, steps: &[(i64, Step)]) -> Vec<(i64, u64)> {
    let (mut at, mut counter) = (began, 0_u64);
    let report = |(later, step): &(i64, Step)| {
        at += later;
        counter = match step {
            Step::Gains(bytes) => counter.saturating_add(*bytes),
            Step::Stays => counter,
            Step::Restarts(here) => *here,
        };
        (at, counter)
    };
    steps.iter().map(report).collect()
}

/// The same in an order in which none comes after more than four newer ones, some of them twice.
pub fn arriving(history: &[(i64, u64)], delays: &[(usize, usize)]) -> Vec<(i64, u64)> {
    let delay = |index: usize| delays.get(index % delays.len().max(1)).copied().unwrap_or_default();
    let mut arrivals: Vec<(usize, usize, (i64, u64))> = vec![];
    for (index, report) in history.iter().enumerate() {
        let (late, twice) = delay(index);
        arrivals.push((index + late % 5, index, *report));
        if twice % 4 == 0 {
            arrivals.push((index + late % 5 + twice % 7, usize::MAX - index, *report));
        }
    }
    arrivals.sort_by_key(|(place, index, _)| (*place, *index));
    arrivals.into_iter().map(|(_, _, report)| report).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_the_order_within_the_window_the_gauge_is_that_of_the_set(
        steps in steps(),
        delays in proptest::collection::vec((0_usize..100, 0_usize..100), 1..40),
    ) {
        let history = history(BEGAN, &steps);
        let wanted = figures(BEGAN, &history);
        let (in_order, readings) = folded(&history);
        prop_assert_eq!(&in_order, &wanted);
        prop_assert!(readings.iter().all(|reading| reading.counts()));
        let arriving = arriving(&history, &delays);
        let (in_disorder, readings) = folded(&arriving);
        prop_assert_eq!(&in_disorder, &wanted, "{:?}", arriving);
        let counted = readings.iter().filter(|reading| reading.counts()).count();
        prop_assert_eq!(counted, history.len(), "each counts once");
    }

    #[test]
    fn what_comes_too_late_changes_nothing_and_is_said(steps in steps(), at in 0_i64..100_000, counter in any::<u64>()) {
        let history = history(BEGAN, &steps);
        let mut throughput = Throughput::new(Time::from_timestamp_millis(BEGAN).unwrap());
        for (at, counter) in &history {
            throughput.take(Sample { at: *at, counter: *counter });
        }
        let before = throughput.clone();
        let newer = history.iter().filter(|(other, _)| *other > BEGAN + at).count();
        let known = history.iter().any(|(other, _)| *other == BEGAN + at);
        let reading = throughput.take(Sample { at: BEGAN + at, counter });
        if newer > 4 {
            prop_assert!(!reading.counts(), "{:?}", reading);
            prop_assert_eq!(&throughput, &before);
        } else if at > 0 && !known && newer < 4 {
            prop_assert!(reading.counts(), "{:?}", reading);
        }
        // No figure is ever less than nothing, or more than fits.
        let gauge = before.gauge();
        prop_assert!(gauge.avg <= gauge.max && gauge.max <= i64::MAX as u64);
    }
}

#[test]
fn each_kind_of_reading_is_called_by_its_name() {
    let gigabyte = 1_000_000_000;
    let story = [
        ((1_000, 100), Reading::Counted, 100),
        ((1_000, 100), Reading::Repeated, 100),
        ((1_000, 90), Reading::Repeated, 100),
        ((3_000, 300), Reading::Counted, 300),
        ((2_000, 150), Reading::Counted, 300),
        ((4_000, 50), Reading::Restarted, 350),
        ((5_000, 50 + 100 * gigabyte), Reading::Jumped, 350 + 100 * gigabyte),
        ((6_000, 51 + 100 * gigabyte), Reading::Counted, 351 + 100 * gigabyte),
        ((1_500, 120), Reading::Late, 351 + 100 * gigabyte),
        ((0, 1), Reading::Late, 351 + 100 * gigabyte),
    ];
    let mut throughput = Throughput::new(Time::from_timestamp_millis(BEGAN).unwrap());
    for ((at, counter), wanted, total) in story {
        let reading = throughput.take(Sample { at: BEGAN + at, counter });
        assert_eq!((reading, throughput.gauge().total), (wanted, total), "{at} {counter}");
    }
    // A jump is measured by no interval.
    assert!(throughput.gauge().max < 10_000, "{:?}", throughput.gauge());
}

#[test]
fn of_two_readings_of_one_instant_the_greater_is_the_one() {
    let mut throughput = Throughput::new(Time::from_timestamp_millis(BEGAN).unwrap());
    for (at, counter) in [(1_000, 100), (2_000, 0), (3_000, 150), (2_000, 120)] {
        throughput.take(Sample { at: BEGAN + at, counter });
    }
    assert_eq!(throughput.gauge().total, 150, "the counter never began anew");
}

fn time(milliseconds: i64) -> String {
    Time::from_timestamp_millis(milliseconds).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// When the session `one` began.
async fn began(key: &super::Caller) -> i64 {
    let told = key.response(&format!("{STATISTICS}/one")).await;
    let created = told["createdTime"].as_str().unwrap();
    chrono::DateTime::parse_from_rfc3339(created).unwrap().timestamp_millis()
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_of_one_or_many_are_answered_each_for_itself() {
    let (server, key) = with_session("one", &PATIENT).await;
    key.post(SESSIONS, json!([{ "name": "two" }, { "name": "gone" }])).await;
    key.delete(&format!("{SESSIONS}/gone")).await;
    key.put("/v1/vhosts/default/apps/app/streams/other").await;
    let began = began(&key).await;
    server.turn(600);
    let reading = |session: &str, at: i64, counter: u64| json!({ "session": session, "totalBytesOut": counter, "time": time(began + at), "viewers": null });
    let items = json!([
        reading("one", 1_000, 10), reading("one", 1_000, 10), reading("one", 3_000, 5), reading("two", 9_000, 1),
        reading("gone", 1_000, 1), { "session": "one" }, { "session": 1, "totalBytesOut": 1 },
        { "session": "one", "totalBytesOut": "1" }, { "session": "one", "totalBytesOut": -1 },
        { "session": "one", "totalBytesOut": 1, "time": "yesterday" },
        { "session": "one", "totalBytesOut": 1, "time": time(began + 1_000_000) }, 7,
        reading("one", -1_000, 1),
    ]);
    let told = key.post(&format!("{SESSIONS}:report"), items).await;
    assert_eq!(told.status, 207);
    let said: Vec<String> = told.json().as_array().unwrap().iter().map(what_became).collect();
    let wanted = [
        "200 one counted",
        "200 one repeated",
        "200 one restarted",
        "200 two counted",
        "404 Could not find the session",
        "400 In the body, [5]: missing field `totalBytesOut` at line 1 column 17",
        "400 In the body, [6].session: invalid type: integer `1`, expected a string at line 1 column 12",
        "400 In the body, [7].totalBytesOut: invalid type: string \"1\", expected u64 at line 1 column 38",
        "400 In the body, [8].totalBytesOut: invalid value: integer `-1`, expected u64 at line 1 column 37",
        "400 time must be in RFC 3339, such as 2026-11-22T09:00:00.000+01:00",
        "400 time is more than 60 s in the future",
        "400 In the body, [11]: invalid type: integer `7`, expected struct MediaSessionReading at line 1 column 1",
        "200 one late",
    ];
    for (index, wanted) in wanted.iter().enumerate() {
        let (place, _) = wanted.split_once(" at line").unwrap_or((wanted, ""));
        assert!(said[index].starts_with(place), "{index}: {} is not {wanted}", said[index]);
    }
    assert_eq!(key.response(&format!("{STATISTICS}/one")).await["totalBytesOut"], 15);
    let at_once = json!([reading("one", 4_000, 6), reading("two", 10_000, 2)]);
    let told = key.post(&format!("{SESSIONS}:report"), at_once).await;
    assert_eq!(
        told.said(),
        (
            200,
            "[{\"message\":\"OK\",\"response\":{\"session\":\"one\",\"reading\":\"counted\"},\"statusCode\":200},\
              {\"message\":\"OK\",\"response\":{\"session\":\"two\",\"reading\":\"counted\"},\"statusCode\":200}]"
        )
    );
    // Of an app, each with its stream.
    let mut first = reading("one", 5_000, 7);
    first["stream"] = json!("stream");
    let mut second = first.clone();
    second["stream"] = json!("nope");
    let mut third = first.clone();
    third["stream"] = json!("other");
    let path = "/v1/vhosts/default/apps/app/sessions:report";
    let told = key.post(path, json!([first, second, third])).await;
    let said: Vec<String> = told.json().as_array().unwrap().iter().map(what_became).collect();
    let wanted = [
        "200 one counted",
        "404 Could not find the stream: [default/#default#app/nope]",
        "404 Could not find the session",
    ];
    assert_eq!((told.status, said), (207, wanted.map(str::to_owned).to_vec()));
    first["time"] = Value::Null;
    first["totalBytesOut"] = json!(9);
    let told = key.post(path, first).await;
    assert_eq!(told.json()["response"], json!({ "session": "one", "reading": "counted" }));
    let told = key.post("/v1/vhosts/default/apps/nope/sessions:report", json!([])).await;
    assert_eq!(told.status, 404);
    let many = vec![json!({ "session": "one", "totalBytesOut": 1 }); 10_001];
    assert_eq!(key.post(&format!("{SESSIONS}:report"), json!(many)).await.status, 400);
    assert_eq!(key.post(&format!("{SESSIONS}:report"), json!(many[1..])).await.status, 200);
    let told = key.post(&format!("{SESSIONS}/one:report"), json!([])).await;
    assert_eq!(told.status, 400);
}

fn what_became(item: &Value) -> String {
    let response = &item["response"];
    match response["session"].as_str() {
        Some(session) => {
            format!("{} {session} {}", item["statusCode"], response["reading"].as_str().unwrap())
        }
        None => format!("{} {}", item["statusCode"], item["message"].as_str().unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_session_takes_no_readings_and_says_so() {
    let (server, key) = with_session("one", &[]).await;
    let operator = server.operator().await;
    let id = operator.get("/api/v1/sessions?kind=media").await.1["items"][0].clone();
    let path = format!(
        "/api/v1/applications/{}/sessions/{}",
        id["agentId"].as_str().unwrap(),
        id["id"].as_str().unwrap()
    );
    operator.post(&format!("{path}/suspend"), json!({})).await;
    let told = key.post(&format!("{SESSIONS}/one:report"), json!({ "totalBytesOut": 1 })).await;
    let wanted = "{\"message\":\"[HTTP] the session is suspended; an operator can resume it (403)\",\"statusCode\":403}";
    assert_eq!(told.said(), (403, wanted));
    operator.post(&format!("{path}/resume"), json!({})).await;
    assert_eq!(key.post(&format!("{SESSIONS}/one:report"), json!({ "totalBytesOut": 1 })).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_report_is_a_sign_of_life_and_silence_ends_a_session() {
    let (server, key) = with_session("one", &["--stale-after", "60s"]).await;
    for counter in [1, 2, 3] {
        server.turn(40);
        let told = key.post(&format!("{SESSIONS}/one:report"), json!({ "totalBytesOut": counter })).await;
        assert_eq!(told.status, 200);
    }
    server.turn(61);
    let gone = async || key.response(SESSIONS).await == json!([]);
    server.until("the silent session to end", gone).await;
    let (_, all) = server.operator().await.get("/api/v1/sessions?kind=media&status=all").await;
    assert_eq!(all["items"][0]["disconnectReason"], "stale");
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_survive_a_restart_and_go_on_where_they_were() {
    let (server, key) = with_session("one", &PATIENT).await;
    let began = began(&key).await;
    server.turn(600);
    let reports = [(1_000, 500), (2_500, 900), (3_400, 1_000), (5_000, 200), (4_000, 1_100)];
    let report = async |key: &super::Caller, (at, counter): (i64, u64)| {
        let body = json!({ "totalBytesOut": counter, "time": time(began + at) });
        assert_eq!(key.post(&format!("{SESSIONS}/one:report"), body).await.status, 200);
    };
    for one in &reports[..3] {
        report(&key, *one).await;
    }
    let before = key.get(&format!("{STATISTICS}/one")).await;
    let server = server.restart_after(600).await;
    let key = again(&server, &key);
    assert_eq!(key.get(&format!("{STATISTICS}/one")).await.text, before.text);
    for one in &reports[3..] {
        report(&key, *one).await;
    }
    let told = key.response(&format!("{STATISTICS}/one")).await;
    let reports: Vec<_> = reports.iter().map(|(at, counter)| (began + at, *counter)).collect();
    let wanted = figures(began, &reports);
    assert_eq!(
        (&told["totalBytesOut"], &told["avgThroughputOut"], &told["maxThroughputOut"]),
        (&json!(wanted.total), &json!(wanted.avg), &json!(wanted.max))
    );
}
