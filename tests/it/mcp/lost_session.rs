//! Whether an upstream has lost a session: everything that came decides, and nothing is thrown away for less.

use axum::http::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sessiond::mcp::lost_session::{Verdict, judge};

use super::sse::Old;
use super::upstream::Upstream;
use super::{House, Stream};

/// What servers say to the id of a session that they have lost: status and body.
fn losses() -> Vec<(u16, String)> {
    let coded = |code: i64, message: &str| {
        json!({ "jsonrpc": "2.0", "error": { "code": code, "message": message }, "id": null }).to_string()
    };
    let named = |message: &str| {
        let error = json!({ "code": -32600, "message": message });
        json!({ "jsonrpc": "2.0", "id": "server-error", "error": error }).to_string()
    };
    vec![
        (404, String::new()),
        (404, coded(-32001, "Session not found")),
        (404, named("Session not found")),
        (401, coded(-32000, "Unauthorized: No valid session ID provided")),
        (401, "Unauthorized: No valid session ID provided".to_owned()),
        (400, coded(-32000, "Bad Request: No valid session ID provided")),
        (400, "Invalid or missing session ID".to_owned()),
        (400, named("Bad Request: session does not exist")),
        (400, json!({ "error": "Mcp-Session-Id is invalid or expired" }).to_string()),
        (400, json!({ "error": "No transport found for sessionId" }).to_string()),
        (403, "unknown session".to_owned()),
        (409, coded(-32001, "Conflict")),
        (410, coded(-32001, "Gone")),
        (422, coded(-32001, "Unprocessable")),
        (503, coded(-32001, "Service Unavailable")),
    ]
}

#[test]
fn one_function_decides_from_status_body_headers_and_method() {
    let plain = HeaderMap::new();
    let (post, get) = (Method::POST, Method::GET);
    for (status, body) in losses() {
        let status = StatusCode::from_u16(status).unwrap();
        for (method, ids) in [(&post, vec![json!(2)]), (&post, vec![]), (&get, vec![])] {
            let expected =
                if body.is_empty() && method == Method::GET { Verdict::NoStream } else { Verdict::Lost };
            assert_eq!(
                judge(method, &ids, status, &plain, body.as_bytes()),
                expected,
                "{method} {status} {body}"
            );
        }
    }
    let answer = |id: Value, code: i64, message: &str| {
        json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
    };
    let coded =
        HeaderMap::from_iter([(axum::http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
    for (method, ids, status, headers, body, expected) in [
        // What answers the request's id is its answer.
        (&post, vec![json!(2)], 404, &plain, answer(json!(2), -32601, "Method not found"), Verdict::Answer),
        (
            &post,
            vec![json!(2)],
            400,
            &plain,
            answer(json!(2), -32602, "Invalid session name"),
            Verdict::Answer,
        ),
        (&post, vec![json!(2)], 200, &plain, answer(json!(2), -32001, "Request timed out"), Verdict::Answer),
        // Unless it says in both ways that nobody knows the session.
        (&post, vec![json!(2)], 404, &plain, answer(json!(2), -32001, "Session not found"), Verdict::Lost),
        // Another's id answers nothing.
        (&post, vec![json!(2)], 404, &plain, answer(json!(3), -32601, "Method not found"), Verdict::Lost),
        // Statuses and words about something else.
        (&get, vec![], 404, &plain, "<h1>Not Found</h1>".to_owned(), Verdict::NoStream),
        (&get, vec![], 405, &plain, String::new(), Verdict::Other),
        (
            &get,
            vec![],
            409,
            &plain,
            "Conflict: Only one SSE stream is allowed per session".to_owned(),
            Verdict::Other,
        ),
        (
            &post,
            vec![json!(2)],
            400,
            &plain,
            "Invalid params: session must be a string".to_owned(),
            Verdict::Other,
        ),
        (&post, vec![json!(2)], 400, &plain, "Unsupported protocol version".to_owned(), Verdict::Other),
        (&post, vec![json!(2)], 500, &plain, "Session not found".to_owned(), Verdict::Other),
        (&post, vec![json!(2)], 503, &plain, "try again later".to_owned(), Verdict::Other),
        (&post, vec![json!(2)], 429, &plain, "slow down".to_owned(), Verdict::Other),
        (&post, vec![json!(2)], 401, &plain, "invalid_token".to_owned(), Verdict::Other),
        // What is coded nobody has read.
        (&post, vec![json!(2)], 400, &coded, "Session not found".to_owned(), Verdict::Other),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(
            judge(method, &ids, status, headers, body.as_bytes()),
            expected,
            "{method} {status} {body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_a_server_says_that_it_has_lost_a_session_it_is_opened_there_again() {
    for (status, body) in losses() {
        let (house, upstream) = House::with_fake(&[]).await;
        *upstream.told.says_lost.lock() = Some((status, body.clone()));
        let client = house.connect().await;
        upstream.forget();
        let (answered, answer) = client.call("echo").await;
        let got = (answered, &answer["result"]["content"][0]["text"]);
        assert_eq!(got, (StatusCode::OK, &json!("done")), "{status} {body}: {answer}");
        // A stream finds out by itself, save where the same may mean that there is none.
        if !body.is_empty() {
            upstream.forget();
            Stream::of(client.listen().await).until("hello").await;
        }
        assert_eq!(house.connected().await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_to_a_stream_throws_no_session_away() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.answers_streams.lock() = Some(StatusCode::NOT_FOUND);
    let client = house.connect().await;
    for _ in 0..3 {
        assert_eq!(client.listen().await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(client.call("echo").await.0, StatusCode::OK);
    }
    assert_eq!(upstream.sent_rpc("initialize").len(), 1);
    assert!(
        upstream
            .sent_rpc("tools/call")
            .iter()
            .all(|sent| sent.header("mcp-session-id") == Some("upstream-1"))
    );
    // Until a POST says so.
    upstream.forget();
    assert_eq!(client.call("echo").await.1["result"]["content"][0]["text"], "done");
    assert_eq!(upstream.sent_rpc("initialize").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_a_call_is_its_answer_whatever_the_status() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let (status, answer) = client.call("404 unknown method").await;
    assert_eq!(
        (status, &answer["error"]["code"], &answer["id"]),
        (StatusCode::OK, &json!(-32601), &json!(7))
    );
    assert_eq!(upstream.sent_rpc("initialize").len(), 1);
    let mut old = Old::connect(&house).await;
    let answer = old.call(json!(2), "404 unknown method").await;
    assert_eq!(answer["error"]["code"], -32601);
    assert_eq!(upstream.sent_rpc("initialize").len(), 2);
}

fn ids(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
}

/// The GETs an upstream was sent: with which session, and after which event.
fn streams(upstream: &Upstream) -> Vec<(Option<String>, Option<String>)> {
    let gets = upstream.sent().into_iter().filter(|sent| sent.method == Method::GET);
    let header = |name| move |sent: &super::upstream::Sent| sent.header(name).map(str::to_owned);
    gets.map(|sent| (header("mcp-session-id")(&sent), header("last-event-id")(&sent))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_id_of_the_lost_session_says_nothing_to_the_new_one() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut standalone = Stream::of(client.listen().await);
    standalone.until("hello").await;
    let last = ids(&standalone.text).pop().unwrap();
    upstream.forget();
    // A POST finds out, and heals. The stream of the session that is gone ends, so that its client opens another.
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    assert!(standalone.end().await);
    let answer = client.request(Method::GET).header("last-event-id", &last).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    Stream::of(answer).until("notifications/hello").await;
    let (first, second) = (Some("upstream-1".to_owned()), Some("upstream-2".to_owned()));
    assert_eq!(streams(&upstream), [(first, None), (second, None)]);

    // A call whose answer only the lost session could have given is an error, at once.
    let text = client.begin(json!(1), "end with id").await.text().await.unwrap();
    let last = ids(&text).pop().unwrap();
    upstream.forget();
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    let answer = client.request(Method::GET).header("last-event-id", &last).send().await.unwrap();
    let rest = answer.text().await.unwrap();
    assert_eq!(super::messages(&rest).pop().unwrap()["error"]["data"]["reason"], "stream_lost", "{rest}");
    // So is one whose upstream is another by now.
    let text = client.begin(json!(1), "end with id").await.text().await.unwrap();
    let last = ids(&text).pop().unwrap();
    let other = Upstream::start().await;
    house.set_upstream(&other.url).await;
    let answer = client.request(Method::GET).header("last-event-id", &last).send().await.unwrap();
    let rest = answer.text().await.unwrap();
    assert!(super::messages(&rest).pop().unwrap()["error"].is_object(), "{rest}");
    assert!(other.sent().iter().all(|sent| sent.header("last-event-id").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_asked_for_once_is_asked_for_again_in_the_new_session() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let ask = async |id: i64, method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        assert_eq!(client.post(&body).await.status(), StatusCode::OK);
    };
    ask(1, "logging/setLevel", json!({ "level": "debug" })).await;
    ask(2, "logging/setLevel", json!({ "level": "warning" })).await;
    for uri in ["file:///a", "file:///b", "file:///c"] {
        ask(3, "resources/subscribe", json!({ "uri": uri })).await;
    }
    ask(4, "resources/unsubscribe", json!({ "uri": "file:///b" })).await;
    // Also when we were started anew in between.
    let house = house.restart().await;
    let client = super::Client { session: client.session.clone(), ..house.client(&client.token) };
    upstream.forget();
    let before = upstream.sent().len();
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    let again: Vec<_> = upstream.sent().split_off(before);
    let said: Vec<_> = again
        .iter()
        .filter(|sent| sent.header("mcp-session-id") == Some("upstream-2"))
        .map(|sent| (sent.rpc().to_owned(), sent.body["params"].clone()))
        .filter(|(method, _)| method != "tools/call")
        .collect();
    let expected = [
        ("notifications/initialized".to_owned(), Value::Null),
        ("logging/setLevel".to_owned(), json!({ "level": "warning" })),
        ("resources/subscribe".to_owned(), json!({ "uri": "file:///a" })),
        ("resources/subscribe".to_owned(), json!({ "uri": "file:///c" })),
    ];
    assert_eq!(said, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_oldest_transport_notifications_come_again_after_the_session_was_opened_anew() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    client.stream.until("notifications/hello").await;
    client.stream.text.clear();
    upstream.forget();
    assert_eq!(client.call(json!(1), "echo").await["result"]["content"][0]["text"], "done");
    client.stream.until("notifications/hello").await;
    let last = streams(&upstream).pop().unwrap();
    assert_eq!(last, (Some("upstream-2".to_owned()), None));
}
