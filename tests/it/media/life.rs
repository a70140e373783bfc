//! A media server that runs several hundred sessions through their lives, with restarts of sessiond in between. What the
//! statistics then say is held against a computation over what was reported.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::readings::{Figures, arriving, figures, history, steps};
use super::{Caller, PATIENT, again, key};
use crate::support::Server;

const STREAMS: [&str; 3] = ["news", "sport", "weather"];
const PER_STREAM: usize = 110;
/// In how many parts the histories are reported: sessiond begins again between them.
const PARTS: usize = 4;
/// All readings lie within this time from the beginning of their sessions; seconds.
const LONGEST: i64 = 60 * 3;

/// A session, as its media server knows it.
struct Played {
    name: String,
    began: i64,
    /// In the order in which they are reported.
    reports: Vec<(i64, u64)>,
    ended: bool,
}

fn sessions_of(stream: &str) -> String {
    format!("/v1/vhosts/default/apps/live/streams/{stream}/sessions")
}

fn at(text: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text.as_str().unwrap()).unwrap().timestamp_millis()
}

fn time(milliseconds: i64) -> String {
    let time = sessiond_core::Time::from_timestamp_millis(milliseconds).unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, false)
}

fn statistics(stream: &str, name: &str) -> String {
    format!("/v1/stats/current/vhosts/default/apps/live/streams/{stream}/sessions/{name}")
}

/// Opens the sessions of a stream, each with a history of its own to report.
async fn open(key: &Caller, stream: &str, chance: &mut TestRunner) -> Vec<Played> {
    let names: Vec<_> = (0..PER_STREAM).map(|number| format!("{stream}-{number}")).collect();
    let items: Vec<_> = names.iter().map(|name| json!({ "name": name, "protocol": "webrtc" })).collect();
    let told = key.post(&sessions_of(stream), json!(items)).await;
    assert_eq!(told.status, 201, "{told:?}");
    let began = join_all(
        names
            .iter()
            .map(|name| async { key.response(&statistics(stream, name)).await["createdTime"].clone() }),
    );
    let began = began.await;
    let delays = proptest::collection::vec((0_usize..100, 0_usize..100), 1..40);
    names
        .into_iter()
        .zip(began)
        .map(|(name, began)| {
            let began = at(&began);
            let steps = steps().new_tree(chance).unwrap().current();
            let delays = delays.new_tree(chance).unwrap().current();
            Played { name, began, reports: arriving(&history(began, &steps), &delays), ended: false }
        })
        .collect()
}

/// Reports one part of what all sessions of a stream have, mixed, in two calls.
async fn report(key: &Caller, stream: &str, played: &[Played], part: usize) {
    let mut items = vec![];
    for one in played.iter().filter(|one| !one.ended) {
        let cut = |part: usize| one.reports.len() * part / PARTS;
        items.extend(one.reports[cut(part)..cut(part + 1)].iter().map(|(at, counter)| {
            json!({ "session": one.name, "totalBytesOut": counter, "time": time(*at), "stream": stream })
        }));
    }
    for half in [&items[..items.len() / 2], &items[items.len() / 2..]] {
        let path = if part.is_multiple_of(2) {
            format!("{}:report", sessions_of(stream))
        } else {
            "/v1/vhosts/default/apps/live/sessions:report".to_owned()
        };
        let told = key.post(&path, json!(half)).await;
        assert_eq!(told.status, 200, "{told:?}");
    }
}

/// What statistics say.
fn told(statistics: &Value) -> Figures {
    let figure = |name: &str| statistics[name].as_u64().unwrap();
    Figures {
        total: figure("totalBytesOut"),
        last: figure("lastThroughputOut"),
        avg: figure("avgThroughputOut"),
        max: figure("maxThroughputOut"),
        sent_at: at(&statistics["lastSentTime"]),
        updated_at: at(&statistics["lastUpdatedTime"]),
    }
}

/// What has been reported of a session after so many parts.
fn reported(one: &Played, parts: usize) -> Figures {
    figures(one.began, &one.reports[..one.reports.len() * parts / PARTS])
}

async fn check(key: &Caller, stream: &str, played: &[Played], ended: u64, parts: usize) {
    let live: Vec<_> = played.iter().filter(|one| !one.ended).collect();
    let names: Vec<_> = live.iter().map(|one| one.name.clone()).collect();
    assert_eq!(key.response(&sessions_of(stream)).await, json!(names));
    let mut sum = Figures::default();
    for one in &live {
        let wanted = reported(one, parts);
        let statistics = key.response(&statistics(stream, &one.name)).await;
        assert_eq!(told(&statistics), wanted, "{} after {parts} parts", one.name);
        sum.total += wanted.total;
        sum.last += wanted.last;
        sum.avg += wanted.avg;
        sum.max += wanted.max;
        sum.sent_at = sum.sent_at.max(wanted.sent_at);
        sum.updated_at = sum.updated_at.max(wanted.updated_at);
    }
    sum.total += ended;
    let path = format!("/v1/stats/current/vhosts/default/apps/live/streams/{stream}");
    let statistics = key.response(&path).await;
    assert_eq!(told(&statistics), sum, "{stream} after {parts} parts");
    assert_eq!(statistics["totalConnections"], live.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_sessions_across_restarts_have_the_statistics_of_what_was_reported() {
    let mut server = Server::with(&PATIENT).await;
    let mut key = key(&server).await;
    let mut chance = TestRunner::deterministic();
    let mut streams = BTreeMap::new();
    for stream in STREAMS {
        streams.insert(stream, (open(&key, stream, &mut chance).await, 0));
    }
    for part in 0..PARTS {
        server = server.restart_after(LONGEST).await;
        key = again(&server, &key);
        for (stream, (played, ended)) in &mut streams {
            report(&key, stream, played, part).await;
            check(&key, stream, played, *ended, part + 1).await;
            // Some end, one way or the other, and what they were sent stays.
            for one in played.iter_mut().filter(|one| !one.ended).step_by(9) {
                let path = format!("{}/{}", sessions_of(stream), one.name);
                assert_eq!(key.delete(&path).await.status, 200);
                one.ended = true;
                *ended += reported(one, part + 1).total;
            }
            check(&key, stream, played, *ended, part + 1).await;
        }
    }
    // The app and the virtual host are the sum of their streams.
    let mut total = 0;
    for stream in STREAMS {
        let path = format!("/v1/stats/current/vhosts/default/apps/live/streams/{stream}");
        total += key.response(&path).await["totalBytesOut"].as_u64().unwrap();
    }
    for place in ["default/apps/live", "default"] {
        let told = key.response(&format!("/v1/stats/current/vhosts/{place}")).await;
        assert_eq!(told["totalBytesOut"], total, "{place}");
    }
    let database = server.database();
    server.stop().await;
    let verified = crate::support::daemon::sessiond(&["verify", "--database", &database]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}
