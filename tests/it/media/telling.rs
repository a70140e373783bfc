//! Who is told of a media session's end, and what ends one beside its own surface.

use std::time::Duration;

use serde_json::{Value, json};

use super::{PATIENT, SESSIONS, application, key, with_session};
use crate::support::{Feed, Server};
use crate::webhooks::{Receiver, webhook_to};

#[tokio::test(flavor = "multi_thread")]
async fn terminating_tells_the_media_server_by_webhook_and_on_the_feed() {
    let server = Server::with(&[&PATIENT[..], &["--webhook-allow-loopback"]].concat()).await;
    let (key, operator) = (key(&server).await, server.operator().await);
    // The receiver is away at first: it is told again.
    let receiver = Receiver::that(|_, before| {
        if before == 0 { crate::webhooks::Answer::Status(503) } else { crate::webhooks::Answer::Status(204) }
    });
    let receiver = receiver.await;
    key.put(super::STREAM).await;
    let made = webhook_to(&operator, &receiver).await;
    let path =
        format!("/api/v1/applications/{}/sessions/events", application(&operator, "default/app").await);
    let mut feed = Feed::open(&operator, &path, None).await;
    key.post(SESSIONS, json!({ "name": "my_session" })).await;
    key.delete(&format!("{SESSIONS}/my_session")).await;
    let frame = feed.next_named("disconnected").await;
    let names = |data: &Value| {
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        [text("resource"), text("clientSessionId"), text("reason")]
    };
    assert_eq!(names(&frame.data), ["stream", "my_session", "terminated"]);
    server.turn(10);
    let taken = receiver
        .until_that("the end", |taken| taken.iter().any(|one| one.accepted && one.event() == "disconnected"));
    let taken = taken.await;
    let one = taken.iter().find(|one| one.accepted && one.event() == "disconnected").unwrap();
    assert_eq!(names(&one.json()["data"]), ["stream", "my_session", "terminated"]);
    assert_eq!(one.header("webhook-signature"), one.signature(&made.secret));
    assert!(taken.iter().any(|one| !one.accepted), "it was tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_at_its_lifetime_and_zero_is_none_of_its_own() {
    let (server, key) =
        with_session("for ever", &["--stale-after", "200d", "--absolute-lifetime", "2h"]).await;
    key.post(SESSIONS, json!([{ "name": "short", "lifetime": 60_000 }, { "name": "zero", "lifetime": 0 }]))
        .await;
    server.turn(59);
    assert_eq!(key.response(SESSIONS).await, json!(["for ever", "short", "zero"]));
    server.turn(2);
    assert_eq!(key.response(SESSIONS).await, json!(["for ever", "zero"]), "at once, whoever announces it");
    let operator = server.operator().await;
    let path = "/api/v1/sessions?kind=media&status=disconnected";
    server
        .until("the end", async || operator.get(path).await.1["items"][0]["disconnectReason"] == "lifetime")
        .await;
    server.turn(7_200);
    assert_eq!(key.response(SESSIONS).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_all_of_an_organization_ends_viewers_and_agents_with_one_count_and_one_history() {
    let server = Server::with(&PATIENT).await;
    let (key, operator) = (key(&server).await, server.operator().await);
    let agents = operator.connect_many(7).await;
    let items: Vec<Value> = (0..40).map(|number| json!({ "name": format!("v{number}") })).collect();
    assert_eq!(key.post(SESSIONS, json!(items)).await.status, 201);
    key.delete(&format!("{SESSIONS}/v0")).await;
    let body = json!({ "filter": { "organization": true }, "reason": "over" });
    let (status, told) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(status, 201, "{told}");
    let revocation = &told["revocation"];
    assert_eq!(revocation["disconnectedCount"], agents.len() + 39, "{told}");
    assert_eq!(key.response(SESSIONS).await, json!([]));
    let id = revocation["id"].as_str().unwrap();
    let operator = server.operator().await;
    let path = format!("/api/v1/events?revocation={id}&types=disconnected&limit=200");
    let (_, events) = operator.get(&path).await;
    let ended = events["items"].as_array().unwrap();
    let viewers = ended.iter().filter(|event| event["resource"] == "stream").count();
    assert_eq!((ended.len(), viewers), (agents.len() + 39, 39));
    // The key is no token: its media server goes on.
    assert_eq!(key.post(SESSIONS, json!({ "name": "v1" })).await.status, 201);
    let (_, all) = operator.get("/api/v1/sessions/count").await;
    assert_eq!(all["total"], agents.len() + 41, "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_is_found_revoked_and_told_of_as_any_other() {
    let (server, key) = with_session("one", &PATIENT).await;
    let operator = server.operator().await;
    key.post(&format!("{SESSIONS}/one:report"), json!({ "totalBytesOut": 1_234 })).await;
    let id = application(&operator, "default/app").await;
    let path = format!("/api/v1/applications/{id}/sessions?resource=stream");
    let (_, list) = operator.get(&path).await;
    assert_eq!(list["items"][0]["activity"], json!({ "requests": 0, "bytesIn": 0, "bytesOut": 1_234 }));
    let session = list["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/applications/{id}/sessions/{session}");
    let (_, history) = operator.get(&format!("{path}/history")).await;
    let types: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(types.contains(&"connected"), "{types:?}");
    assert_eq!(operator.delete(&path).await.0, 200);
    assert_eq!(key.response(SESSIONS).await, json!([]));
    tokio::time::sleep(Duration::ZERO).await;
    assert_eq!(key.post(SESSIONS, json!({ "name": "one" })).await.status, 201);
}
