//! Throughput over time, for a plot.

use serde_json::{Value, json};

use super::{PATIENT, SESSIONS, STATISTICS, again, with_session};
use crate::support::Server;

/// A time, encoded for a query.
fn shown(milliseconds: i64) -> String {
    let time = sessiond_core::Time::from_timestamp_millis(milliseconds).unwrap();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, false)
}

fn asked(milliseconds: i64) -> String {
    shown(milliseconds).replace('+', "%2B")
}

/// A server with a session that has been sent 1,000 bytes a second for ten seconds, then nothing for ten, then 500 a
/// second for five, its counter beginning anew in between; and when it began.
async fn played() -> (Server, super::Caller, i64) {
    let (server, key) = with_session("one", &PATIENT).await;
    let told = key.response(&format!("{STATISTICS}/one")).await;
    let created = told["createdTime"].as_str().unwrap();
    let began = chrono::DateTime::parse_from_rfc3339(created).unwrap().timestamp_millis();
    server.turn(120);
    for (at, counter) in [(10, 10_000), (20, 10_000), (21, 500), (25, 2_500)] {
        let body = json!({ "totalBytesOut": counter, "time": shown(began + at * 1_000) });
        assert_eq!(key.post(&format!("{SESSIONS}/one:report"), body).await.status, 200);
    }
    (server, key, began)
}

fn bytes(told: &Value) -> Vec<Value> {
    told["points"].as_array().unwrap().iter().map(|point| point["bytesOut"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_has_its_bytes_and_what_nobody_knows_is_null() {
    let (server, key, began) = played().await;
    let window = |step: i64| {
        let (from, to) = (asked(began - 5_000), asked(began + 31_000));
        format!("{SESSIONS}/one/throughput?from={from}&to={to}&step={step}")
    };
    let told = key.response(&window(5)).await;
    assert_eq!((&told["from"], &told["step"]), (&json!(shown(began - 5_000)), &json!(5)));
    let null = Value::Null;
    let wanted =
        [null.clone(), json!(5_000), json!(5_000), json!(0), json!(0), json!(2_500), null.clone(), null];
    assert_eq!(bytes(&told), wanted);
    assert_eq!(told["points"][1], json!({ "time": shown(began), "bytesOut": 5_000, "throughputOut": 8_000 }));
    assert_eq!(told["points"][0]["throughputOut"], Value::Null);
    // Within a step bytes are taken to have gone out evenly, and none is lost between two.
    let told = key.response(&window(1)).await;
    assert_eq!(told["points"].as_array().unwrap().len(), 36);
    assert_eq!(bytes(&told).iter().filter_map(Value::as_u64).sum::<u64>(), 12_500);
    assert_eq!(told["points"][5]["bytesOut"], 1_000);
    // The same beside the statistics, and after a restart.
    let path = window(5).replace("/v1/vhosts", "/v1/stats/current/vhosts");
    let before = key.get(&path).await;
    assert_eq!(key.get(&window(5)).await.text, before.text);
    let server = server.restart_after(120).await;
    assert_eq!(again(&server, &key).get(&path).await.text, before.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_hour_in_minutes_is_what_is_shown_if_nothing_is_said() {
    let (_server, key, began) = played().await;
    let told = key.response(&format!("{SESSIONS}/one/throughput")).await;
    assert_eq!((told["points"].as_array().unwrap().len(), &told["step"]), (60, &json!(60)));
    // One step from the beginning on, which ends with the last reading.
    let path = format!("{SESSIONS}/one/throughput?from={}&to={}", asked(began), asked(began + 25_000));
    let told = key.response(&path).await;
    assert_eq!(bytes(&told), [json!(12_500)]);
    assert_eq!(told["points"][0]["throughputOut"], 12_500 * 8 / 25);
    for (query, field) in [
        ("step=0", "step"),
        ("step=86401", "step"),
        ("step=x", "step"),
        ("from=x", "from"),
        ("to=yesterday", "to"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&step=1", "step"),
    ] {
        let told = key.get(&format!("{SESSIONS}/one/throughput?{query}")).await;
        let message = told.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(told.status, 400, "{query}");
        assert!(message.starts_with(&format!("[HTTP] {field} ")), "{query}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_ended_keeps_its_series_and_the_last_of_a_name_is_shown() {
    let (server, key, began) = played().await;
    let path = |session: &str| {
        format!("{SESSIONS}/{session}/throughput?from={}&to={}&step=5", asked(began), asked(began + 25_000))
    };
    let live = key.get(&path("one")).await;
    assert_eq!(live.status, 200);
    assert_eq!(key.delete(&format!("{SESSIONS}/one")).await.status, 200);
    assert_eq!(key.get(&format!("{STATISTICS}/one")).await.status, 404, "there is no such live session");
    assert_eq!(key.get(&path("one")).await.text, live.text);
    assert_eq!(key.get(&path("never")).await.status, 404);
    let server = server.restart_after(120).await;
    let key = again(&server, &key);
    assert_eq!(key.get(&path("one")).await.text, live.text, "after a restart, too");
    key.post(SESSIONS, json!({ "name": "one" })).await;
    let told = key.response(&path("one")).await;
    assert!(bytes(&told).iter().all(Value::is_null), "there is a new one of that name, which began later");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_live_and_ended_sessions_of_a_stream_an_app_and_a_host_were_sent_is_added_up() {
    let (server, key, began) = played().await;
    let others = [("stream", "two"), ("stream", "three"), ("other", "four")];
    for (stream, name) in others {
        let sessions = format!("/v1/vhosts/default/apps/app/streams/{stream}/sessions");
        key.put(&format!("/v1/vhosts/default/apps/app/streams/{stream}")).await;
        assert_eq!(key.post(&sessions, json!({ "name": name })).await.status, 201);
        let body = json!({ "totalBytesOut": 600 });
        server.turn(60);
        assert_eq!(key.post(&format!("{sessions}/{name}:report"), body).await.status, 200);
    }
    assert_eq!(key.delete(&format!("{SESSIONS}/one")).await.status, 200);
    assert_eq!(key.delete(&format!("{SESSIONS}/two")).await.status, 200);
    let total = async |place: &str, to: i64| {
        let path =
            format!("/v1/vhosts/default{place}/throughput?from={}&to={}&step=3600", asked(began), asked(to));
        let told = key.response(&path).await;
        bytes(&told).iter().filter_map(Value::as_u64).sum::<u64>()
    };
    // Until the last reading of each: a step that reaches beyond it is not known of it.
    let step = async |place: &str| {
        let path = format!(
            "/v1/vhosts/default{place}/throughput?from={}&to={}&step=1",
            asked(began),
            asked(began + 400_000)
        );
        bytes(&key.response(&path).await).iter().filter_map(Value::as_u64).sum::<u64>()
    };
    let near = |sum: u64, expected: u64| assert!(expected.abs_diff(sum) <= 30, "{sum} is not {expected}");
    near(total("/apps/app/streams/stream", began + 25_000).await, 12_500);
    near(step("/apps/app/streams/stream").await, 12_500 + 2 * 600);
    near(step("/apps/app/streams/other").await, 600);
    near(step("/apps/app").await, 12_500 + 3 * 600);
    near(step("").await, 12_500 + 3 * 600);
    assert_eq!(key.get("/v1/vhosts/default/apps/app/streams/none/throughput").await.status, 404);
    assert_eq!(key.get("/v1/vhosts/default/apps/none/throughput").await.status, 404);
    assert_eq!(key.get("/v1/vhosts/none/throughput").await.status, 404);
    key.put("/v1/vhosts/default/apps/app/streams/empty").await;
    let told = key.response("/v1/vhosts/default/apps/app/streams/empty/throughput").await;
    assert!(bytes(&told).iter().all(Value::is_null), "nothing is known of what nobody watched");
}
