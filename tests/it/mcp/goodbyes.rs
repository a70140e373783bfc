//! What the server behind is told when something here is over: whoever is cut off must not be cut off from us alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::sse::Old;
use super::upstream::{Sent, Upstream};
use super::{Client, House, Stream, call};
use crate::support::Daemon;

/// Every way in which an operator, its owner or the clock ends a session.
const WAYS: [&str; 10] = [
    "its client deletes it",
    "terminated",
    "one revoked",
    "all revoked",
    "revoked by a filter",
    "revoked by its owner",
    "the application archived",
    "stale",
    "unused",
    "lifetime",
];

fn is_goodbye(sent: &Sent) -> bool {
    sent.method == Method::DELETE
}

async fn end(house: &House, client: &Client, way: &str) {
    let sessions = house.sessions().await;
    let id = sessions[0]["id"].as_str().unwrap();
    let of_application = format!("/api/v1/applications/{}", house.application);
    let turn = async |seconds| {
        house.server.turn(seconds);
        house.server.running.as_ref().unwrap().house.sessions.maintenance.run_deadlines().await.unwrap();
    };
    let (status, body) = match way {
        "its client deletes it" => {
            let answer = client.request(Method::DELETE).send().await.unwrap();
            (answer.status(), Value::Null)
        }
        "terminated" => {
            house.operator.post(&format!("{of_application}/sessions/{id}/terminate"), json!({})).await
        }
        "one revoked" => house.operator.delete(&format!("{of_application}/sessions/{id}")).await,
        "all revoked" => house.operator.delete(&format!("{of_application}/sessions")).await,
        "revoked by a filter" => {
            let body = json!({ "filter": { "hostname": "laptop" } });
            house.operator.post("/api/v1/revocations", body).await
        }
        "revoked by its owner" => {
            let owner = house.server.holder(client.token.clone());
            owner.post(&format!("/api/v1/agent-sessions/{id}/disconnect"), json!({})).await
        }
        "the application archived" => house.operator.delete(&of_application).await,
        "stale" => {
            client.call("echo").await;
            turn(3_700).await;
            return;
        }
        "unused" => {
            turn(700).await;
            return;
        }
        "lifetime" => {
            turn(86_500).await;
            return;
        }
        way => panic!("{way}"),
    };
    assert!(status.is_success(), "{way}: {status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn however_a_session_ends_the_server_behind_is_told_once() {
    join_all(WAYS.map(async |way| {
        let (house, upstream) = House::with_fake(&[]).await;
        let client = house.connect().await;
        end(&house, &client, way).await;
        upstream.until(is_goodbye).await;
        let told = upstream.sent().into_iter().rfind(is_goodbye).unwrap();
        assert_eq!(told.header("mcp-session-id"), Some("upstream-1"), "{way}");
        assert_eq!(told.header("mcp-protocol-version"), Some("2025-11-25"), "{way}");
        // And not once more, at once or after a restart.
        let house = house.restart().await;
        house.connected().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(upstream.sent().iter().filter(|sent| is_goodbye(sent)).count(), 1, "{way}");
    }))
    .await;
}

/// What an upstream was told of calls, in the order of their ids.
fn cancelled(upstream: &Upstream) -> Vec<Value> {
    let cancelled = upstream.sent_rpc("notifications/cancelled");
    let mut ids: Vec<_> = cancelled.iter().map(|sent| sent.body["params"]["requestId"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_in_flight_is_cancelled_before_its_session_is_over() {
    for way in
        ["terminated", "one revoked", "all revoked", "the application archived", "its client deletes it"]
    {
        let (house, upstream) = House::with_fake(&[]).await;
        let client = house.connect().await;
        let mut streaming = Stream::of(client.begin(json!("s"), "hang").await);
        streaming.until("progress").await;
        // One whose client has gone: it is under way all the same.
        let mut left = Stream::of(client.begin(json!(2), "hang with id").await);
        left.until("progress").await;
        drop(left);
        let silent = {
            let client = client.clone();
            tokio::spawn(async move { client.begin(json!(3), "noted and silent").await })
        };
        upstream.until(|sent| sent.body["params"]["name"] == "noted and silent").await;
        // One that was answered, and one that is no call.
        client.call("echo").await;
        let mut listening = Stream::of(client.listen().await);
        listening.until("hello").await;

        end(&house, &client, way).await;
        upstream.until(is_goodbye).await;
        assert_eq!(cancelled(&upstream), [json!("s"), json!(2), json!(3)], "{way}");
        assert!(is_goodbye(upstream.sent().last().unwrap()), "{way}: first the calls, then the session");
        let one = &upstream.sent_rpc("notifications/cancelled")[0];
        assert_eq!(one.header("mcp-session-id"), Some("upstream-1"));
        assert!(one.body["params"]["reason"].as_str().unwrap().contains("disconnected"), "{:?}", one.body);
        assert!(one.body.get("id").is_none());
        silent.await.unwrap();
        house
            .server
            .until("the connection is given up", async || upstream.told.given_up.load(Ordering::SeqCst) >= 1)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_revision_without_sessions_ends_with_its_connection() {
    let (house, upstream) = House::with_fake(&[]).await;
    let modern = house.modern().await;
    let mut streaming = Stream::of(modern.begin(json!(1), "noted").await);
    streaming.until("progress").await;
    let silent = {
        let modern = modern.clone();
        tokio::spawn(async move { modern.begin(json!(2), "noted and silent").await })
    };
    upstream.until(|sent| sent.body["params"]["name"] == "noted and silent").await;
    house.revoke_all().await;
    house
        .server
        .until("both are given up", async || upstream.told.given_up.load(Ordering::SeqCst) == 2)
        .await;
    silent.await.unwrap();
    // It has no notifications/cancelled over HTTP, and no session to delete.
    assert!(upstream.sent_rpc("notifications/cancelled").is_empty());
    assert!(!upstream.sent().iter().any(is_goodbye));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_transport_tells_too() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    client.say(&call(json!(1), "hang")).await;
    client.say(&call(json!("two"), "silent")).await;
    client.stream.until("notifications/progress").await;
    upstream.until(|sent| sent.body["params"]["name"] == "silent").await;
    house.revoke_all().await;
    upstream.until(is_goodbye).await;
    assert_eq!(cancelled(&upstream), [json!("two"), json!(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_cut_off_while_its_session_goes_on_is_cancelled_alone() {
    let (house, upstream) = House::with_fake(&["--token-lifetime", "2s", "--upstream-timeout", "1s"]).await;
    let client = house.connect().await;
    // The server behind takes too long to begin.
    let (_, answer) = client.call("silent").await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("in time"), "{answer}");
    upstream.until(|sent| sent.body["params"]["requestId"] == 7).await;
    // The credential runs out.
    let mut stream = Stream::of(client.begin(json!(8), "hang").await);
    assert!(stream.end().await);
    upstream.until(|sent| sent.body["params"]["requestId"] == 8).await;
    assert!(!upstream.sent().iter().any(is_goodbye), "the session goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_nobody_could_tell_is_told_after_the_next_start() {
    let directory = tempfile::TempDir::new().unwrap();
    let upstream = Upstream::start().await;
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let (_, body) = operator.get("/api/v1/applications").await;
    let application = body["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/applications/{application}");
    let (status, body) = operator.put(&format!("{path}/upstream"), json!({ "url": upstream.url })).await;
    assert!(status.is_success(), "{body}");
    let mut client = Client {
        url: format!("{}/mcp/{application}", daemon.base),
        token: operator.token.clone().unwrap(),
        session: None,
        http: operator.http.clone(),
    };
    client.initialize().await;
    // It takes its time over what it is told, so that the telling is interrupted.
    *upstream.told.hesitates_to_part.lock() = true;
    let (status, body) = operator.delete(&format!("{path}/sessions")).await;
    assert_eq!((status, &body["disconnectedCount"]), (StatusCode::OK, &json!(1)));
    upstream.until(is_goodbye).await;
    daemon.kill();
    *upstream.told.hesitates_to_part.lock() = false;
    let before = upstream.sent().len();
    let daemon = Daemon::start(directory.path(), &[]);
    for _ in 0..1_000 {
        if upstream.sent().len() > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let again = &upstream.sent()[before..];
    assert!(matches!(again, [one] if is_goodbye(one)), "{again:?}");
    // Told is told.
    let operator = daemon.operator().await;
    assert!(daemon.terminate().success());
    drop(operator);
    let daemon = Daemon::start(directory.path(), &[]);
    daemon.operator().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(upstream.sent().len(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_heard_is_said_once_more_and_then_no_more() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    *upstream.told.parts_with.lock() = Some(StatusCode::SERVICE_UNAVAILABLE);
    end(&house, &client, "terminated").await;
    house
        .server
        .until("it is said twice", async || {
            upstream.sent().iter().filter(|sent| is_goodbye(sent)).count() == 2
        })
        .await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(upstream.sent().iter().filter(|sent| is_goodbye(sent)).count(), 2);
    // One that takes no goodbyes has heard it.
    *upstream.told.parts_with.lock() = Some(StatusCode::METHOD_NOT_ALLOWED);
    let client = house.connect().await;
    end(&house, &client, "terminated").await;
    house
        .server
        .until("it is said", async || upstream.sent().iter().filter(|sent| is_goodbye(sent)).count() == 3)
        .await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(upstream.sent().iter().filter(|sent| is_goodbye(sent)).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_end_at_once_do_not_flood_the_server_behind() {
    const CLIENTS: usize = 300;
    let (house, upstream) = House::with_fake(&["--mcp-unused-after", "1h"]).await;
    let token = house.token().await;
    for _ in 0..CLIENTS / 20 {
        join_all((0..20).map(async |_| house.client(&token).initialize().await)).await;
    }
    assert_eq!(house.revoke_all().await["disconnectedCount"], CLIENTS);
    house
        .server
        .until_within(60, "each is told", async || {
            upstream.sent().iter().filter(|sent| is_goodbye(sent)).count() == CLIENTS
        })
        .await;
    let most = upstream.told.most_partings.load(Ordering::SeqCst);
    assert!((1..=8).contains(&most), "{most} at a time");
    let mut told: Vec<_> = upstream
        .sent()
        .iter()
        .filter(|sent| is_goodbye(sent))
        .filter_map(|sent| sent.header("mcp-session-id").map(str::to_owned))
        .collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), CLIENTS, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_during_its_handshake_leaves_no_session_behind_for_good() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.hesitates.lock() = true;
    let client = house.client(&house.token().await);
    let asking = tokio::spawn(async move { client.try_initialize().await });
    upstream.until(|sent| sent.rpc() == "initialize").await;
    asking.abort();
    asking.await.ok();
    tokio::time::sleep(Duration::from_millis(200)).await;
    upstream.told.release.notify_one();
    house.server.until("it is one of ours", async || house.connected().await == 1).await;
    upstream.until(is_goodbye).await;
}
