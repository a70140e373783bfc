//! Scheduled revocations: runs when due, across restarts, with the clock turned.

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use serde_json::{Value, json};

use super::{begin, caused, session};
use crate::support::{Holder, Server};

async fn create(operator: &Holder, body: Value) -> Value {
    let (status, made) = operator.post("/api/v1/scheduled-revocations", body).await;
    assert_eq!(status, 201, "{made}");
    made["scheduledRevocation"].clone()
}

async fn get(operator: &Holder, id: &Value) -> Value {
    let path = format!("/api/v1/scheduled-revocations/{}", id.as_str().unwrap());
    operator.get(&path).await.1["scheduledRevocation"].clone()
}

async fn until_it_ran(server: &Server, operator: &Holder, id: &Value, runs: u64) -> Value {
    server.until("a run", || async { get(operator, id).await["runs"].as_u64() >= Some(runs) }).await;
    let schedule = get(operator, id).await;
    let revocation = schedule["lastRevocationId"].as_str().unwrap();
    let path = format!("/api/v1/revocations/{revocation}");
    server
        .until("the run's end", || async {
            operator.get(&path).await.1["revocation"]["status"] == "completed"
        })
        .await;
    operator.get(&path).await.1["revocation"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_one_moment_it_runs_once_as_a_revocation_of_its_own() {
    let (server, operator, first) = begin().await;
    let agents = operator.connect_many(3).await;
    let at = (server.clock.now() + TimeDelta::minutes(10)).to_rfc3339();
    let body =
        json!({ "name": "maintenance", "filter": { "applicationId": first }, "at": at, "reason": "window" });
    let made = create(&operator, body).await;
    assert_eq!((&made["status"], &made["runs"]), (&json!("active"), &json!(0)), "{made}");
    server.turn(599);
    assert_eq!(agents[0].call("heartbeat").await.0, 200, "not yet");
    server.turn(2);
    let revocation = until_it_ran(&server, &operator, &made["id"], 1).await;
    assert_eq!(revocation["disconnectedCount"], 3, "{revocation}");
    assert_eq!((&revocation["actor"]["kind"], &revocation["reason"]), (&json!("system"), &json!("window")));
    assert_eq!(revocation["scheduledRevocationId"], made["id"]);
    let id = revocation["id"].as_str().unwrap();
    assert_eq!(caused(&operator, id, "disconnected").await.len(), 3);
    let over = get(&operator, &made["id"]).await;
    assert_eq!((&over["status"], &over["nextRunAt"]), (&json!("over"), &Value::Null), "{over}");
    server.turn(100_000);
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(get(&server.operator().await, &made["id"]).await["runs"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nightly_sign_out_runs_every_night_in_its_time_zone() {
    let (server, operator, first) = begin().await;
    let body = json!({
        "name": "night", "filter": { "applicationId": first },
        "cron": "30 3 * * *", "timeZone": "America/New_York",
    });
    let made = create(&operator, body).await;
    let next: DateTime<Utc> = made["nextRunAt"].as_str().unwrap().parse().unwrap();
    let there = next.with_timezone(&chrono_tz::America::New_York);
    assert_eq!((there.hour(), there.minute(), there.second()), (3, 30, 0), "{made}");
    assert_eq!(there.nanosecond(), 0, "{made}");
    assert!(next > server.clock.now() && next - server.clock.now() <= TimeDelta::hours(25));
    for night in 1..=2_u64 {
        let operator = server.operator().await;
        let next: DateTime<Utc> =
            get(&operator, &made["id"]).await["nextRunAt"].as_str().unwrap().parse().unwrap();
        server.turn((next - server.clock.now()).num_seconds() - 60);
        let agent = server.operator().await.connect(json!({})).await;
        server.turn(62);
        let operator = server.operator().await;
        let revocation = until_it_ran(&server, &operator, &made["id"], night).await;
        assert_eq!(revocation["disconnectedCount"], 1, "night {night}: {revocation}");
        assert_eq!(session(&operator, &agent).await["disconnectReason"], "revoked");
        let after: DateTime<Utc> =
            get(&operator, &made["id"]).await["nextRunAt"].as_str().unwrap().parse().unwrap();
        assert_ne!(after.day(), next.day(), "the next one is another night's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_hour_that_comes_twice_it_runs_on_and_says_when_next() {
    let (server, _, first) = begin().await;
    let turn_to = |at: &str| {
        let at: DateTime<Utc> = at.parse().unwrap();
        server.turn((at - server.clock.now()).num_seconds());
    };
    turn_to("2027-11-07T05:25:00Z");
    let operator = server.operator().await;
    let body = json!({
        "name": "quarters", "filter": { "applicationId": first },
        "cron": "*/15 * * * *", "timeZone": "America/New_York",
    });
    let made = create(&operator, body).await;
    assert_eq!(made["nextRunAt"], "2027-11-07T05:30:00.000Z", "{made}");
    let mut runs = 0;
    for (now, next) in [("05:46", "06:00"), ("06:01", "06:15"), ("06:59", "07:00")] {
        turn_to(&format!("2027-11-07T{now}:00Z"));
        let operator = server.operator().await;
        runs += 1;
        until_it_ran(&server, &operator, &made["id"], runs).await;
        let schedule = get(&operator, &made["id"]).await;
        assert_eq!(schedule["nextRunAt"], format!("2027-11-07T{next}:00.000Z"), "at {now}: {schedule}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_missed_while_the_service_was_down_are_made_up_once_or_skipped_as_chosen() {
    let (server, operator, first) = begin().await;
    let second = super::application(&operator, "second").await;
    let schedule = |application: &str, missed: &str| {
        json!({
            "name": missed, "filter": { "applicationId": application },
            "cron": "0 * * * *", "missed": missed,
        })
    };
    let made_up = create(&operator, schedule(&first, "run_once")).await;
    let skipped = create(&operator, schedule(&second, "skip")).await;
    operator.connect(json!({ "applicationId": first })).await;
    let spared = operator.connect(json!({ "applicationId": second })).await;
    let server = server.restart_after(5 * 3_600).await;
    let operator = server.operator().await;
    let revocation = until_it_ran(&server, &operator, &made_up["id"], 1).await;
    assert_eq!(revocation["disconnectedCount"], 1, "{revocation}");
    server
        .until("the skip", || async { server.log().await.iter().any(|(name, _)| name == "schedule_skipped") })
        .await;
    assert_eq!(get(&operator, &made_up["id"]).await["runs"], 1, "five were missed, one makes up for them");
    assert_eq!(get(&operator, &skipped["id"]).await["runs"], 0);
    assert_ne!(session(&operator, &spared).await["disconnectReason"], "revoked");
    // The next one is missed by nobody, and runs for both.
    server.turn(3_600);
    let operator = server.operator().await;
    until_it_ran(&server, &operator, &made_up["id"], 2).await;
    until_it_ran(&server, &operator, &skipped["id"], 1).await;
    let server = server.restart_after(6 * 3_600).await;
    assert_eq!(get(&server.operator().await, &skipped["id"]).await["runs"], 1, "it is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_one_does_not_run_and_does_not_make_up_and_a_deleted_one_is_gone() {
    let (server, operator, first) = begin().await;
    let body = json!({ "name": "hourly", "filter": { "applicationId": first }, "cron": "0 * * * *" });
    let made = create(&operator, body.clone()).await;
    let path = format!("/api/v1/scheduled-revocations/{}", made["id"].as_str().unwrap());
    let (status, paused) = operator.post(&format!("{path}/pause"), json!({})).await;
    let paused = &paused["scheduledRevocation"];
    assert_eq!(
        (status.as_u16(), &paused["status"], &paused["nextRunAt"]),
        (200, &json!("paused"), &Value::Null)
    );
    assert_eq!(operator.post(&format!("{path}/pause"), json!({})).await.0, 200, "twice is success");
    server.turn(3 * 3_600);
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let operator = server.operator().await;
    let (_, resumed) = operator.post(&format!("{path}/resume"), json!({})).await;
    assert_eq!(resumed["scheduledRevocation"]["status"], "active");
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(get(&operator, &made["id"]).await["runs"], 0, "nothing is made up after a pause");
    assert_eq!(operator.delete(&path).await.0, 204);
    assert_eq!(operator.get(&path).await.0, 404);
    server.turn(2 * 3_600);
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert!(!server.log().await.iter().any(|(name, _)| name == "schedule_ran"));
    let operator = server.operator().await;
    let (_, list) = operator.get("/api/v1/scheduled-revocations").await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_can_never_run_is_refused_with_the_reason() {
    let (_server, operator, first) = begin().await;
    for (fields, field) in [
        (json!({}), "at"),
        (json!({ "at": "2020-01-01T00:00:00Z" }), "at"),
        (json!({ "at": "tomorrow" }), "at"),
        (json!({ "at": "2036-01-01T00:00:00Z", "cron": "0 3 * * *" }), "at"),
        (json!({ "at": "2036-01-01T00:00:00Z", "timeZone": "Europe/Berlin" }), "timeZone"),
        (json!({ "cron": "every night" }), "cron"),
        (json!({ "cron": "0 0 3 * * *" }), "cron"),
        (json!({ "cron": "0 3 30 2 *" }), "cron"),
        (json!({ "cron": "0 3 * * *", "timeZone": "Middle/Earth" }), "timeZone"),
        (json!({ "cron": "0 3 * * *", "name": "" }), "name"),
    ] {
        let mut body = json!({ "name": "x", "filter": { "applicationId": first } });
        for (name, value) in fields.as_object().unwrap() {
            body[name.as_str()] = value.clone();
        }
        let (status, refused) = operator.post("/api/v1/scheduled-revocations", body).await;
        assert_eq!((status.as_u16(), &refused["field"]), (400, &json!(field)), "{fields}: {refused}");
    }
}
