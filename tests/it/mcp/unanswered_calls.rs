//! Calls that an upstream's answer does not answer: each gets an error, because nobody else can tell its client.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::sse::Old;
use super::{House, call, messages};

/// What upstreams send in place of an answer, and a word of what is said about it.
const ODD: [(&str, &str); 12] = [
    ("200 empty", "HTTP 200"),
    ("202", "HTTP 202"),
    ("204", "HTTP 204"),
    ("200 html", "HTTP 200"),
    ("200 null", "HTTP 200"),
    ("200 another's answer", "HTTP 200"),
    ("200 a request", "HTTP 200"),
    ("200 gzip", "HTTP 200"),
    ("400 id null", "params must be an object"),
    ("400 id absent", "params must be an object"),
    ("events without answer", "broke off"),
    ("events with id null", "params must be an object"),
];

#[tokio::test(flavor = "multi_thread")]
async fn on_the_oldest_transport_every_call_is_answered_whatever_the_upstream_sends() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    for (number, (odd, words)) in ODD.into_iter().enumerate() {
        let answer = client.call(json!(number + 10), odd).await;
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{odd}: {answer}"));
        assert!(message.contains(words), "{odd}: {answer}");
    }
    // A result may be null.
    let answer = client.call(json!("n"), "200 result null").await;
    assert!(answer["error"].is_null() && answer.as_object().unwrap().contains_key("result"), "{answer}");
    // What is no answer was not said, and each call was answered once.
    let all = messages(&client.stream.text);
    assert!(all.iter().all(|message| message.is_object() && message["id"] != "another's"), "{all:?}");
    for (number, odd) in ODD.iter().enumerate() {
        let answers = all.iter().filter(|message| message["id"] == json!(number + 10)).count();
        assert_eq!(answers, 1, "{odd:?}");
    }
    // 256 of them are no reason to turn the next away.
    for id in 1_000..1_300 {
        client.say(&call(json!(id), "202")).await;
        if id % 50 == 0 {
            client.stream.until(&format!("\"id\":{id}")).await;
        }
    }
    client.stream.until("\"id\":1299").await;
    assert_eq!(client.call(json!(2_000), "echo").await["result"]["content"][0]["text"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_streamable_http_a_yes_without_an_answer_is_an_error() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let (client, modern) = (house.connect().await, house.modern().await);
    join_all(ODD.into_iter().filter(|(odd, _)| !odd.starts_with("400")).map(async |(odd, words)| {
        for (status, answer) in [client.call(odd).await, modern.call(odd).await] {
            // Of a stream of 2026-07-28 the last message is taken as it came.
            let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{odd}: {answer}"));
            assert_eq!((status, &answer["id"]), (StatusCode::OK, &json!(7)), "{odd}: {answer}");
            assert!(message.contains(words) || odd.starts_with("events"), "{odd}: {answer}");
        }
    }))
    .await;
    let (status, answer) = client.call("200 result null").await;
    assert_eq!((status, &answer), (StatusCode::OK, &json!({ "jsonrpc": "2.0", "id": 7, "result": null })));
    // A refusal is handed on as it is: every SDK makes an error of it.
    assert_eq!(client.call("400 id null").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_those_that_were_not_answered_get_an_error_beside_the_others() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let batch = json!([call(json!("a"), "half a batch"), call(json!("b"), "echo"), call(json!("c"), "echo")]);
    let answers: Value = client.post(&batch).await.json().await.unwrap();
    let told: Vec<_> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["id"].clone(), one["result"].is_object()))
        .collect();
    assert_eq!(told, [(json!("a"), true), (json!("b"), false), (json!("c"), false)]);
}
