//! The revision without sessions, 2026-07-28: what the gateway makes of it, and what ends it.

use std::sync::atomic::Ordering;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{House, Modern, Stream, call, messages};

#[tokio::test]
async fn a_probe_opens_no_session_and_a_call_opens_one_that_later_calls_renew() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    let answer = client.request(&client.body(json!("d"), "server/discover", json!({}))).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("mcp-session-id"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["id"], &body["result"]["supportedVersions"]), (&json!("d"), &json!(["2026-07-28"])));
    let gone = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    let request = client.http.post(&client.url).bearer_auth(&client.token);
    let request = request.header("accept", "*/*").header("mcp-protocol-version", "2026-07-28").json(&gone);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(house.connected().await, 0);

    for _ in 0..3 {
        let answer = client.begin(json!(7), "echo").await;
        assert!(answer.status() == StatusCode::OK && !answer.headers().contains_key("mcp-session-id"));
    }
    // A fresh token, and an id that means nothing any more.
    let refreshed = Modern { token: house.token().await, ..client.clone() };
    let body = refreshed.body(json!(1), "tools/call", json!({ "name": "echo" }));
    let request =
        refreshed.request(&body).header("mcp-session-id", "smc_made-up").header("last-event-id", "7");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);

    let sessions = house.sessions().await;
    assert_eq!(sessions.len(), 1);
    let session = &sessions[0];
    assert_eq!(
        (&session["derivedStatus"], &session["clientInfo"]["name"]),
        (&json!("active"), &json!("modern"))
    );
    for sent in upstream.sent_rpc("tools/call") {
        assert_eq!(sent.header("sessiond-session-id"), session["id"].as_str());
        assert_eq!(sent.body["params"]["_meta"]["sessiond/sessionId"], session["id"]);
        assert_eq!(
            (sent.header("mcp-session-id"), sent.header("last-event-id"), sent.header("authorization")),
            (None, None, None)
        );
    }
}

#[tokio::test]
async fn clients_conversations_and_principals_are_told_apart() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let plain = house.modern().await;
    let info = |name: &str| json!({ "io.modelcontextprotocol/clientInfo": { "name": name, "version": "1" } });
    let trace =
        |digit: &str| json!({ "traceparent": format!("00-{}-b7ad6b7169203331-01", digit.repeat(32)) });
    let talking = |conversation: &str| json!({ "baggage": format!("gen_ai.conversation.id={conversation}") });
    let of = |meta: Value| Modern { meta, ..plain.clone() };
    let others = Modern { token: house.token_of_another().await, ..plain.clone() };
    let distinct = [
        plain.clone(),
        others,
        of(info("another")),
        of(json!({ "io.modelcontextprotocol/clientInfo": null })),
        of(trace("a")),
        of(trace("b")),
        of(talking("one")),
        of(talking("two")),
        of(json!({ "sessiond/correlation": "one" })),
    ];
    for _ in 0..2 {
        for client in &distinct {
            assert_eq!(client.call("echo").await.0, StatusCode::OK);
        }
    }
    assert_eq!(house.sessions().await.len(), distinct.len());
    assert_eq!(house.connected().await, distinct.len());
    // Many at once that nobody has seen before are one, too.
    let many = of(json!({ "sessiond/correlation": "at once", "sessiond/hostname": "laptop" }));
    let calls = futures_util::future::join_all((0..50).map(|_| many.call("echo"))).await;
    assert!(calls.iter().all(|(status, _)| *status == StatusCode::OK));
    assert_eq!(house.connected().await, distinct.len() + 1);
    assert_eq!(house.sessions().await.iter().filter(|session| session["hostname"] == "laptop").count(), 1);
}

#[tokio::test]
async fn a_restart_finds_the_session_again() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    client.call("echo").await;
    let house = house.restart().await;
    let client = Modern { url: house.server.url(&house.path()), ..client };
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    assert_eq!(house.connected().await, 1);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    let mut stream = Stream::of(client.begin(json!(1), "noted").await);
    stream.until("progress").await;
    drop(stream);
    let silent = {
        let client = client.clone();
        tokio::spawn(async move { client.begin(json!(2), "noted and silent").await })
    };
    upstream.until(|sent| sent.body["params"]["name"] == "noted and silent").await;
    silent.abort();
    house
        .server
        .until("both are cancelled", async || upstream.told.given_up.load(Ordering::SeqCst) == 2)
        .await;
}

#[tokio::test]
async fn terminating_ends_streams_gracefully_and_the_next_request_opens_another_session() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    let mut listening = Stream::of(client.listen().await);
    listening.until("acknowledged").await;
    let mut calling = Stream::of(client.begin(json!(5), "hang").await);
    calling.until("progress").await;
    let id = house.sessions().await[0]["id"].as_str().unwrap().to_owned();
    house.terminate(&id).await;
    assert!(listening.end().await && calling.end().await);
    let result =
        json!({ "resultType": "complete", "_meta": { "io.modelcontextprotocol/subscriptionId": "l" } });
    assert_eq!(
        messages(&listening.text).last(),
        Some(&json!({ "jsonrpc": "2.0", "id": "l", "result": result }))
    );
    let last = messages(&calling.text).pop().unwrap();
    assert_eq!(
        (&last["id"], &last["error"]["code"], &last["error"]["data"]["reason"]),
        (&json!(5), &json!(-32001), &json!("terminated"))
    );
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    assert_eq!(house.connected().await, 2);
}

#[tokio::test]
async fn a_revoke_ends_streams_with_its_reason_and_bars_every_later_request() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    let mut listening = Stream::of(client.listen().await);
    listening.until("acknowledged").await;
    assert_eq!(house.revoke_all().await["disconnectedCount"], 1);
    let reached = upstream.sent().len();
    assert!(listening.end().await);
    let last = messages(&listening.text).pop().unwrap();
    assert_eq!((&last["id"], &last["error"]["data"]["reason"]), (&json!("l"), &json!("revoked")));
    for method in ["server/discover", "tools/list", "subscriptions/listen"] {
        let answer = client.request(&client.body(json!(1), method, json!({}))).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method}");
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().contains("revoked"));
    }
    assert_eq!(upstream.sent().len(), reached);
    let fresh = Modern { token: house.token().await, ..client };
    assert_eq!(fresh.call("echo").await.0, StatusCode::OK);
    assert_eq!(house.connected().await, 2);
}

#[tokio::test]
async fn a_stop_of_sessiond_leaves_a_subscription_without_its_result_so_that_the_client_comes_back() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    let mut listening = Stream::of(client.listen().await);
    listening.until("acknowledged").await;
    house.restart().await;
    assert!(listening.end().await);
    assert_eq!(messages(&listening.text).len(), 1, "{}", listening.text);
}

#[tokio::test]
async fn a_suspended_session_answers_with_an_error_and_opens_no_other() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    client.call("echo").await;
    let id = house.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/applications/{}/sessions/{id}/suspend", house.application);
    assert_eq!(house.operator.post(&path, json!({})).await.0, StatusCode::OK);
    let (status, answer) = client.call("echo").await;
    assert_eq!((status, &answer["error"]["data"]["reason"]), (StatusCode::OK, &json!("session_suspended")));
    assert_eq!(house.connected().await, 1);
}

#[tokio::test]
async fn an_upstream_without_the_revision_is_said_to_be_so_and_initialize_goes_on_as_ever() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.is_old.lock() = true;
    let client = house.modern().await;
    for method in ["server/discover", "tools/list"] {
        let (status, body) = client.ask(method).await;
        let data = json!({
            "supported": ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"],
            "requested": "2026-07-28",
        });
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(
            (&body["id"], &body["error"]["code"], &body["error"]["data"]),
            (&json!("q"), &json!(-32022), &data)
        );
    }
    let legacy = house.connect().await;
    assert_eq!(legacy.call("echo").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_probes_and_then_initializes_is_one_session() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.is_old.lock() = true;
    house.modern().await.ask("server/discover").await;
    house.connect().await;
    assert_eq!(house.connected().await, 1);
}

#[tokio::test]
async fn only_post_is_of_this_revision() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    for method in [Method::GET, Method::DELETE] {
        let request = client.http.request(method.clone(), &client.url).bearer_auth(&client.token);
        let request =
            request.header("mcp-protocol-version", "2026-07-28").header("accept", "text/event-stream");
        let answer = request.header("mcp-session-id", client.session.clone().unwrap()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.headers()["allow"], "POST, OPTIONS");
    }
    let answer = client.post(&json!([call(json!(1), "echo")])).await;
    assert_eq!(answer.status(), StatusCode::OK, "the session was not touched");
}

#[tokio::test]
async fn what_the_upstream_says_of_a_request_passes_with_its_status() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    let (status, body) = client.ask("no/such").await;
    assert_eq!(
        (status, &body["id"], &body["error"]["code"]),
        (StatusCode::NOT_FOUND, &json!("q"), &json!(-32601))
    );
    for trouble in ["401", "302", "500"] {
        let (status, body) = client.call(trouble).await;
        assert_eq!(
            (status, &body["error"]["data"]["reason"]),
            (StatusCode::OK, &json!("upstream_refused")),
            "{trouble}"
        );
    }
    for trouble in ["end", "end with id", "break", "break at once"] {
        let (_, last) = client.call(trouble).await;
        assert_eq!(last["error"]["data"]["reason"], "upstream_lost", "{trouble}");
    }
    let (status, body) = client.call("large").await;
    assert_eq!((status, body["result"]["text"].as_str().unwrap().len()), (StatusCode::OK, 3 << 20));
}

#[tokio::test]
async fn of_a_revision_not_known_here_the_upstream_says_what_there_is_and_nothing_is_served() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.modern().await;
    // The one is not known there either, the other is.
    for (revision, supported) in [("2098-01-01", 1), ("2099-01-01", 5)] {
        let mut body = client.body(json!(1), "tools/call", json!({ "name": "echo" }));
        body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(revision);
        let request = client.http.post(&client.url).bearer_auth(&client.token).json(&body);
        let request = request.header("mcp-protocol-version", revision).header("accept", "*/*");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let body: Value = answer.json().await.unwrap();
        let data = &body["error"]["data"];
        assert_eq!((&body["error"]["code"], &data["requested"]), (&json!(-32022), &json!(revision)));
        assert_eq!(data["supported"].as_array().unwrap().len(), supported, "{body}");
    }
    assert_eq!(house.connected().await, 0);
}
