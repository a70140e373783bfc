//! Answers of upstreams that the gateway cannot read, or that are none: coded although it asked for them as they are, marked,
//! or about something else. No client takes them for success.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::scripted_upstream::{Scripted, bytes};
use super::{House, messages};

/// `{}` in gzip, as some send whatever they are asked.
const GZIP: &[u8] =
    &[0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0x03, 0xab, 0xae, 0x05, 0, 0x43, 0xbf, 0xa6, 0xa3, 0x02, 0, 0, 0];
const JSON: (&str, &str) = ("content-type", "application/json");
const EVENTS: (&str, &str) = ("content-type", "text/event-stream");

fn reason(said: &Value) -> (&str, &str) {
    (said["error"]["data"]["reason"].as_str().unwrap_or(""), said["error"]["message"].as_str().unwrap_or(""))
}

#[tokio::test]
async fn a_coded_answer_is_refused_with_words_in_both_eras_and_as_json_and_as_events() {
    for (coding, kind) in [("gzip", JSON), ("gzip", EVENTS), ("br", JSON), ("x-gzip, identity", EVENTS)] {
        let upstream = Scripted::start(move |heard| {
            (heard.rpc() == "tools/call").then(|| bytes(200, &[kind, ("content-encoding", coding)], GZIP))
        })
        .await;
        let house = House::before(&upstream.url, &[]).await;
        let (status, legacy) = house.connect().await.call("say").await;
        assert_eq!(status, StatusCode::OK);
        let (_, modern) = house.modern().await.call("say").await;
        for said in [legacy, modern] {
            assert_eq!(said["id"], 7, "{said}");
            let (reason, words) = reason(&said);
            assert_eq!(reason, "upstream_refused", "{said}");
            assert!(words.contains("coding") && words.contains(coding.split(',').next().unwrap()), "{words}");
        }
    }
}

#[tokio::test]
async fn identity_is_no_coding_and_what_has_no_body_needs_none() {
    let upstream = Scripted::start(|heard| match (heard.method.as_str(), heard.rpc()) {
        ("POST", "tools/call") => {
            Some(bytes(200, &[JSON, ("content-encoding", "identity")], heard.answer().to_string()))
        }
        ("POST", "notifications/initialized") => Some(bytes(202, &[("content-encoding", "gzip")], "")),
        ("GET", _) => Some(bytes(405, &[("content-encoding", "gzip")], GZIP)),
        _ => None,
    })
    .await;
    let house = House::before(&upstream.url, &[]).await;
    let client = house.connect().await;
    assert!(client.call("say").await.1["result"].is_object());
    let standalone = client.listen().await;
    assert_eq!(standalone.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(standalone.headers().get("content-encoding").is_none());
}

#[tokio::test]
async fn an_initialize_that_could_not_be_read_opens_no_session_and_is_no_success() {
    let marked = |heard: &super::scripted_upstream::Heard| {
        [b"\xef\xbb\xbf".as_slice(), heard.answer().to_string().as_bytes()].concat()
    };
    type Case = (&'static str, fn(&super::scripted_upstream::Heard) -> Value);
    let cases: [Case; 6] = [
        ("an array", |heard| json!([heard.answer()])),
        (
            "a result by place",
            |heard| json!({ "jsonrpc": "2.0", "id": heard.body["id"], "result": ["2025-11-25"] }),
        ),
        ("no revision", |heard| json!({ "jsonrpc": "2.0", "id": heard.body["id"], "result": {} })),
        ("null", |_| Value::Null),
        ("a null result", |heard| json!({ "jsonrpc": "2.0", "id": heard.body["id"], "result": null })),
        ("a text", |_| json!("initialized")),
    ];
    let all = cases.len() + 5;
    let upstream = Scripted::start(move |heard| {
        let number = heard.body["params"]["clientInfo"]["name"].as_str()?.parse::<usize>().ok()?;
        Some(match cases.get(number) {
            Some((_, answer)) => bytes(200, &[JSON], answer(heard).to_string()),
            None => match number - cases.len() {
                0 => bytes(200, &[JSON, ("content-encoding", "gzip")], GZIP),
                1 => bytes(200, &[EVENTS, ("content-encoding", "gzip")], GZIP),
                2 => bytes(200, &[JSON], marked(heard)),
                3 => bytes(202, &[], ""),
                _ => bytes(200, &[("content-type", "text/html")], "<html>Welcome</html>"),
            },
        })
    })
    .await;
    let house = House::before(&upstream.url, &[]).await;
    let client = house.client(&house.token().await);
    for number in 0..all {
        let answer = client.try_initialize_as(json!({ "name": number.to_string(), "version": "1" })).await;
        assert!(answer.headers().get("mcp-session-id").is_none());
        let said: Value = answer.json().await.unwrap();
        assert_eq!(reason(&said).0, "upstream_refused", "case {number}: {said}");
        assert_eq!((&said["id"], said.get("result")), (&json!(0), None), "case {number}: {said}");
    }
    assert_eq!(house.connected().await, 0);
}

#[tokio::test]
async fn a_byte_order_mark_is_dropped_from_events_and_refused_before_json() {
    let events = |heard: &super::scripted_upstream::Heard| format!("\u{feff}data: {}\n\n", heard.answer());
    let upstream = Scripted::start(move |heard| match (heard.rpc(), heard.body["params"]["name"].as_str()) {
        ("initialize", _) => Some(bytes(200, &[EVENTS, ("mcp-session-id", "far")], events(heard))),
        (_, Some("events")) => Some(bytes(200, &[EVENTS], events(heard))),
        (_, Some("json")) => Some(bytes(200, &[JSON], format!("\u{feff}{}", heard.answer()))),
        _ => None,
    })
    .await;
    let house = House::before(&upstream.url, &[]).await;
    let client = house.connect().await;
    let stream = client.begin(json!(7), "events").await.text().await.unwrap();
    assert!(!stream.contains('\u{feff}'), "{stream:?}");
    assert!(messages(&stream).iter().any(|said| said["id"] == 7 && said["result"].is_object()), "{stream}");
    let modern = house.modern().await;
    for said in [client.call("json").await.1, modern.call("json").await.1] {
        assert!(reason(&said).1.contains("byte order mark"), "{said}");
        assert_eq!((said["id"].clone(), said.get("result")), (json!(7), None));
    }
}
