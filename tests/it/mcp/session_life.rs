//! A session's life, before an upstream that does as it is told.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Client, House, NOT_FOUND, Stream, call, messages, not_found, refused};

#[tokio::test]
async fn initialize_opens_a_session_that_the_list_shows_and_delete_ends_it() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = house.client(&house.token().await);
    let answer = client.try_initialize().await;
    assert_eq!(answer.status(), StatusCode::OK);
    let id = answer.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    assert!(id.starts_with("smc_") && id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{id}");
    for header in ["set-cookie", "access-control-allow-origin", "www-authenticate"] {
        assert!(!answer.headers().contains_key(header), "{header}");
    }
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["id"], &body["result"]["protocolVersion"]), (&json!(0), &json!("2025-11-25")));
    client.session = Some(id);

    let sessions = house.sessions().await;
    assert_eq!(sessions.len(), 1);
    let session = &sessions[0];
    assert_eq!(session["derivedStatus"], "active");
    assert_eq!(session["hostname"], "laptop");
    assert_eq!(session["clientInfo"]["name"], "test");
    assert_eq!(session["name"], "test on laptop");

    let (status, answer) = client.call("echo").await;
    assert_eq!((status, &answer["result"]["content"][0]["text"]), (StatusCode::OK, &json!("done")));

    assert_eq!(client.request(Method::DELETE).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let session = &house.sessions().await[0];
    assert_eq!(session["derivedStatus"], "disconnected");
    upstream.until(|sent| sent.method == Method::DELETE).await;
    assert_eq!(
        refused(client.begin(json!(1), "echo").await).await,
        (StatusCode::NOT_FOUND, not_found("client"))
    );
    let again = client.request(Method::DELETE).send().await.unwrap();
    assert_eq!(refused(again).await, (StatusCode::NOT_FOUND, not_found("client")));
}

#[tokio::test]
async fn the_upstream_sees_its_own_session_id_ours_beside_it_and_never_the_token() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let request = client
        .request(Method::POST)
        .header("cookie", "a=b")
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("x-tenant", "blue")
        .header("sessiond-session-id", "forged")
        .header("x-forwarded-for", "10.0.0.1")
        .header("forwarded", "for=10.0.0.1")
        .json(&call(json!(1), "echo"));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    client.listen().await;
    client.request(Method::DELETE).send().await.unwrap();
    upstream.until(|sent| sent.method == Method::DELETE).await;

    let sent = upstream.sent();
    assert_eq!(sent.len(), 5);
    for sent in &sent {
        let text = format!("{sent:?}");
        assert!(!text.contains(&client.token) && !text.contains(client.session.as_ref().unwrap()), "{text}");
        assert_eq!(sent.header("authorization"), None);
        let initialize = sent.rpc() == "initialize";
        assert_eq!(sent.header("mcp-session-id"), (!initialize).then_some("upstream-1"));
    }
    let call = &upstream.sent_rpc("tools/call")[0];
    assert_eq!(call.header("x-tenant"), None, "nobody has said that it may pass");
    // Of cookies it gets those that it set itself.
    assert_eq!((call.header("cookie"), call.header("x-private")), (Some("upstream=1"), None));
    assert_eq!((call.header("x-forwarded-for"), call.header("forwarded")), (None, None));
    let id = house.sessions().await[0]["id"].clone();
    assert_eq!(call.header("sessiond-session-id"), id.as_str());
}

#[tokio::test]
async fn a_failed_initialize_opens_nothing_and_is_passed_on() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.closed.lock() = true;
    let answer = house.client(&house.token().await).try_initialize().await;
    assert!(!answer.headers().contains_key("mcp-session-id"));
    let (status, body) = refused(answer).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("Not today"), "{body}");
    assert_eq!(house.connected().await, 0);
}

#[tokio::test]
async fn an_answer_to_initialize_may_be_a_stream() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.greets_with_events.lock() = true;
    let mut client = house.client(&house.token().await);
    let answer = client.try_initialize().await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    client.session = Some(answer.headers()["mcp-session-id"].to_str().unwrap().to_owned());
    let text = answer.text().await.unwrap();
    assert!(text.starts_with("id: ") && !text.contains("id: p\n"), "the ids are ours: {text}");
    assert_eq!(messages(&text).last().unwrap()["result"]["serverInfo"]["name"], "fake");
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
}

#[tokio::test]
async fn initialize_with_a_stale_session_id_is_a_fresh_one() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = house.connect().await;
    client.request(Method::DELETE).send().await.unwrap();
    client.initialize().await;
    assert_eq!(house.connected().await, 2);
    assert!(upstream.sent_rpc("initialize").iter().all(|sent| sent.header("mcp-session-id").is_none()));
}

#[tokio::test]
async fn a_client_that_names_its_session_attaches_to_it_and_the_former_id_is_dead() {
    let (house, upstream) = House::with_fake(&["--require-client-session-id"]).await;
    let token = house.token().await;
    let mut client = house.client(&token);
    let answer = client.try_initialize().await;
    let (status, body) = refused(answer).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains(r#""message":"initialize requires clientInfo.sessionId""#), "{body}");
    assert!(upstream.sent().is_empty());

    let mut ids = vec![];
    for _ in 0..2 {
        let info = json!({ "name": "test", "version": "1", "sessionId": "mine" });
        let answer = client.try_initialize_as(info).await;
        assert_eq!(answer.status(), StatusCode::OK);
        ids.push(answer.headers()["mcp-session-id"].to_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(house.connected().await, 1);
    // The upstream is told that nobody will use the former session.
    upstream
        .until(|sent| sent.method == Method::DELETE && sent.header("mcp-session-id") == Some("upstream-1"))
        .await;
    client.session = Some(ids[0].clone());
    assert_eq!(
        refused(client.begin(json!(1), "echo").await).await,
        (StatusCode::NOT_FOUND, NOT_FOUND.to_owned())
    );
    client.session = Some(ids[1].clone());
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
}

#[tokio::test]
async fn sessions_survive_a_restart_of_sessiond() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    let house = house.restart().await;
    let client = Client { session: client.session, ..house.client(&client.token) };
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    assert_eq!(upstream.sent_rpc("initialize").len(), 1);
    assert_eq!(house.connected().await, 1);
    assert_eq!(client.request(Method::DELETE).send().await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_stop_of_sessiond_ends_streams_and_no_session() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut listening = Stream::of(client.listen().await);
    listening.until("notifications/hello").await;
    let mut plain = Stream::of(client.begin(json!("p"), "hang").await);
    plain.until("progress").await;
    let mut resumable = Stream::of(client.begin(json!("r"), "hang with id").await);
    resumable.until("progress").await;
    let stopped = Instant::now();
    let house = house.restart().await;
    assert!(stopped.elapsed() < Duration::from_secs(7), "{:?}", stopped.elapsed());
    assert!(listening.end().await && plain.end().await && resumable.end().await);
    // Who can ask the upstream for the rest is not told that the call failed.
    assert_eq!(messages(&plain.text).last().unwrap()["error"]["data"]["reason"], "shutdown");
    assert!(!resumable.text.contains("error"), "{}", resumable.text);
    let client = Client { session: client.session, ..house.client(&client.token) };
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
}

#[tokio::test]
async fn traffic_is_activity_with_its_counts() {
    let (house, _upstream) = House::with_fake(&["--idle-after", "1s"]).await;
    let client = house.connect().await;
    let status = || async { house.sessions().await[0]["derivedStatus"].as_str().unwrap().to_owned() };
    assert_eq!(status().await, "active");
    house.server.turn(2);
    assert_eq!(status().await, "idle");
    client.call("echo").await;
    assert_eq!(status().await, "active");
    house.server.turn(20);
    client.call("echo").await;
    client.request(Method::DELETE).send().await.unwrap();
    let log = house.server.log().await;
    let total = &log.iter().rfind(|(name, _)| name == "activity_recorded").unwrap().1["total"];
    // initialize and two calls: a notification is no request
    assert_eq!(total["requests"], 3, "{log:?}");
    assert!(total["bytesIn"].as_u64().unwrap() > 300 && total["bytesOut"].as_u64().unwrap() > 150, "{total}");
}

#[tokio::test]
async fn a_session_that_made_no_second_request_goes_stale_sooner_also_after_a_restart() {
    let (house, _upstream) = House::with_fake(&["--token-lifetime", "10h"]).await;
    let (token, mut used) = (house.token().await, house.client(&house.token().await));
    used.initialize().await;
    assert_eq!(used.call("echo").await.0, StatusCode::OK);
    let mut unused = house.client(&token);
    unused.initialize().await;
    let answer = unused.listen().await;
    assert_eq!(answer.status(), StatusCode::OK);
    drop(answer);
    let house = house.restart().await;
    let reasons = async |seconds| {
        house.server.turn(seconds);
        house.server.running.as_ref().unwrap().house.sessions.maintenance.run_deadlines().await.unwrap();
        // The newest first.
        let sessions = house.sessions().await;
        [sessions[0]["disconnectReason"].clone(), sessions[1]["disconnectReason"].clone()]
    };
    let sessions = house.sessions().await;
    assert_eq!(
        (&sessions[0]["policy"]["unusedAfter"], &sessions[0]["policy"]["staleAfter"]),
        (&json!(600), &json!(3_600))
    );
    let requests = [&sessions[0]["activity"]["requests"], &sessions[1]["activity"]["requests"]];
    assert_eq!(requests, [&json!(1), &json!(2)], "notifications and streams are no requests");
    assert_eq!(reasons(500).await, [Value::Null, Value::Null]);
    assert_eq!(reasons(101).await, [json!("stale"), Value::Null]);
    assert_eq!(reasons(3_000).await, [json!("stale"), json!("stale")]);
}

#[tokio::test]
async fn silence_during_a_call_is_no_silence_and_counts_from_its_end() {
    let (house, upstream) = House::with_fake(&["--mcp-stale-after", "60s"]).await;
    let client = house.connect().await;
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.begin(json!(7), "silent").await }
    });
    let status = async || house.sessions().await[0]["derivedStatus"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(500)).await;
    house.server.turn(100);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_ne!(status().await, "disconnected", "a call is under way");
    // Its client goes away, but it is under way as long as the upstream works on it.
    calling.abort();
    house.server.turn(100);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_ne!(status().await, "disconnected", "a client that goes away cancels nothing");
    upstream.told.release.notify_one();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_ne!(status().await, "disconnected", "it has only just ended");
    house.server.turn(61);
    house.server.until("it goes stale", async || status().await == "disconnected").await;
    assert_eq!(house.sessions().await[0]["disconnectReason"], "stale");
}
