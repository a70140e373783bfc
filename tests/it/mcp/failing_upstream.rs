//! An upstream that forgets, breaks, moves or is not there.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Client, House, Stream};

#[tokio::test]
async fn a_session_the_upstream_lost_is_opened_there_again_once_and_the_request_answered() {
    for says_400 in [false, true] {
        let (house, upstream) = House::with_fake(&[]).await;
        *upstream.told.says_400.lock() = says_400;
        let client = house.connect().await;
        upstream.forget();
        let calls: Vec<_> = (0..8).map(|_| client.call("echo")).collect();
        for (status, answer) in join_all(calls).await {
            assert_eq!((status, &answer["result"]["content"][0]["text"]), (StatusCode::OK, &json!("done")));
        }
        let greetings = upstream.sent_rpc("initialize");
        assert_eq!(greetings.len(), 2);
        assert_eq!(greetings[0].body, greetings[1].body);
        assert_eq!(upstream.sent_rpc("notifications/initialized").len(), 2);
        assert_eq!(house.connected().await, 1);
        // The new one is kept too.
        let house = house.restart().await;
        let client = Client { session: client.session, ..house.client(&client.token) };
        assert_eq!(client.call("echo").await.0, StatusCode::OK);
        assert_eq!(upstream.sent_rpc("initialize").len(), 2);
        // A listener finds its way as well.
        upstream.forget();
        Stream::of(client.listen().await).until("hello").await;
    }
}

#[tokio::test]
async fn what_cannot_be_healed_is_an_error_of_the_call_and_the_session_stays() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    upstream.forget();
    *upstream.told.closed.lock() = true;
    let (status, answer) = client.call("echo").await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::OK, &json!(-32603)));
    *upstream.told.closed.lock() = false;
    assert_eq!(client.call("echo").await.1["result"]["content"][0]["text"], "done");
}

#[tokio::test]
async fn what_an_upstream_says_about_itself_does_not_reach_the_client_as_if_it_were_about_us() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    for trouble in ["401", "302"] {
        let answer = client.begin(json!(3), trouble).await;
        assert_eq!(answer.status(), StatusCode::OK, "{trouble}");
        assert!(
            !answer.headers().contains_key("www-authenticate") && !answer.headers().contains_key("location")
        );
        let body: Value = answer.json().await.unwrap();
        assert_eq!((&body["id"], &body["error"]["data"]["reason"]), (&json!(3), &json!("upstream_refused")));
    }
    assert_eq!(client.call("500").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    for trouble in ["end", "break", "break at once"] {
        let (_, last) = client.call(trouble).await;
        assert_eq!(last["error"]["data"]["reason"], "upstream_lost", "{trouble}");
    }
    // Whoever got an id of the upstream's may come back for the rest.
    let text = client.begin(json!(1), "end with id").await.text().await.unwrap();
    assert!(text.ends_with("data: \n\n") && !text.contains("error"), "{text}");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_an_error_and_never_a_hang() {
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/mcp", listener.local_addr().unwrap())
    };
    let house = House::before(&gone, &[]).await;
    let client = house.client(&house.token().await);
    let answer = client.try_initialize().await;
    assert_eq!(answer.status(), StatusCode::OK);
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["id"], &body["error"]["data"]["reason"]), (&json!(0), &json!("upstream_unreachable")));
    assert_eq!(house.connected().await, 0);
}

#[tokio::test]
async fn an_upstream_may_be_named_by_a_name() {
    let (house, upstream) = House::with_fake(&[]).await;
    house.set_upstream(&upstream.url.replace("127.0.0.1", "localhost")).await;
    let client = house.connect().await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_new_upstream_takes_over_without_seeing_the_former_ones_session_id() {
    let (house, first) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let second = super::upstream::Upstream::start().await;
    // A session of its own, so that ids differ.
    house
        .client(&house.token().await)
        .http
        .post(&second.url)
        .json(&json!({ "id": 0, "method": "initialize", "params": {} }))
        .send()
        .await
        .unwrap();
    house.set_upstream(&second.url).await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    assert!(second.sent().iter().all(|sent| sent.header("mcp-session-id") != Some("upstream-1")));
    assert_eq!(first.sent_rpc("tools/call").len(), 0);
}

#[tokio::test]
async fn upstreams_outside_loopback_are_refused_when_they_are_named() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let path = format!("/api/v1/applications/{}/upstream", house.application);
    for url in ["http://169.254.169.254/", "http://10.0.0.1/mcp", "https://10.0.0.1/mcp", "nonsense"] {
        let (status, body) = house.operator.put(&path, json!({ "url": url })).await;
        assert_eq!((status, &body["field"]), (StatusCode::BAD_REQUEST, &json!("url")), "{url} {body}");
    }
}

#[tokio::test]
async fn an_upstream_that_keeps_silent_is_an_error_after_its_time_in_every_era() {
    let (house, upstream) = House::with_fake(&["--upstream-timeout", "1s"]).await;
    let (client, modern) = (house.connect().await, house.modern().await);
    for (status, answer) in [client.call("silent").await, modern.call("silent").await] {
        assert_eq!(
            (status, &answer["error"]["data"]["reason"]),
            (StatusCode::OK, &json!("upstream_refused"))
        );
        assert!(answer["error"]["message"].as_str().unwrap().contains("in time"), "{answer}");
    }
    // In the middle of an answer too.
    for (_, answer) in [client.call("400 and silent").await, modern.call("400 and silent").await] {
        assert_eq!(answer["error"]["data"]["reason"], "upstream_slow", "{answer}");
    }
    for (_, answer) in [client.call("half").await, modern.call("half").await] {
        assert_eq!(answer["error"]["data"]["reason"], "upstream_slow", "{answer}");
    }
    let mut notified = client.post(&json!({ "jsonrpc": "2.0", "method": "notifications/stuck" })).await;
    assert_eq!(notified.status(), StatusCode::BAD_GATEWAY);
    assert!(notified.chunk().await.unwrap().is_some());
    // A stream may be silent for as long as it likes, while somebody reads it.
    let mut stream = Stream::of(client.begin(json!(1), "story").await);
    stream.until("progress").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    upstream.told.release.notify_waiters();
    stream.until("result").await;
}
