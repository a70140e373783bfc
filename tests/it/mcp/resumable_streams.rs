//! Streams of the revisions that have sessions: what a client may come back for, and what nobody else may.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{Client, House, Stream, messages};

/// The ids of the events in a text.
fn ids(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
}

async fn resume(client: &Client, id: &str) -> Response {
    let answer = client.request(Method::GET).header("last-event-id", id).send().await.unwrap();
    if answer.status() == StatusCode::OK {
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
    }
    answer
}

#[tokio::test]
async fn a_call_whose_client_went_away_goes_on_and_is_answered_to_whoever_comes_back_for_it() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut stream = Stream::of(client.begin(json!(1), "story").await);
    stream.until("notifications/progress").await;
    let (head, text) = (ids(&stream.text)[0].to_owned(), stream.text.clone());
    assert!(
        text.starts_with(&format!("id: {head}\nretry: 1000\ndata: \n\n")),
        "an id to resume from at once: {text}"
    );
    drop(stream);
    upstream.told.release.notify_one();

    // From the beginning, and from the last event that came.
    for (from, count) in [(head.as_str(), 2), (ids(&text)[1], 1)] {
        let mut resumed = Stream::of(resume(&client, from).await);
        resumed.until("\"result\"").await;
        assert!(resumed.end().await);
        let all = messages(&resumed.text);
        assert_eq!(all.len(), count, "{}", resumed.text);
        assert_eq!(
            (&all[count - 1]["id"], &all[count - 1]["result"]["content"][0]["text"]),
            (&json!(1), &json!("done"))
        );
    }
    assert_eq!(upstream.sent_rpc("tools/call").len(), 1);
    assert_eq!(
        upstream.sent().iter().filter(|sent| sent.method == Method::GET).count(),
        0,
        "all of it was held here"
    );
}

#[tokio::test]
async fn a_stream_that_is_read_by_a_dead_connection_is_taken_over() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut first = Stream::of(client.begin(json!(1), "story").await);
    first.until("notifications/progress").await;
    let last = ids(&first.text)[1].to_owned();
    let mut second = Stream::of(resume(&client, &last).await);
    assert!(first.end().await, "one reader at a time");
    assert!(messages(&first.text).iter().all(|message| message["result"].is_null()));
    upstream.told.release.notify_one();
    second.until("\"result\"").await;
    assert!(second.end().await);
}

#[tokio::test]
async fn an_event_id_opens_its_own_stream_to_its_own_session_and_nothing_else() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut stream = Stream::of(client.begin(json!(1), "story").await);
    stream.until("notifications/progress").await;
    let id = ids(&stream.text)[0].to_owned();
    let mut standalone = Stream::of(client.listen().await);
    standalone.until("notifications/hello").await;
    drop(stream);

    // Another session of the same client, and a made-up id.
    let other = house.connect().await;
    let before = upstream.sent().len();
    let parts: Vec<_> = id.split('.').collect();
    let beyond = format!("{}.{}.99.", parts[0], parts[1]);
    // The mark is of the whole: no part of an id can be put into another.
    let changed = id.replacen(parts[2], "1000000", 1);
    let mut elsewhere = parts.clone();
    elsewhere[3] = "b2YtYW5vdGhlcnMtc3RyZWFt";
    let elsewhere = elsewhere.join(".");
    for (who, id) in [
        (&client, "g-1"),
        (&client, &beyond),
        (&client, &changed),
        (&client, &elsewhere),
        (&other, &id),
        (&other, "x"),
    ] {
        // A standalone stream of its own, as if it had named no event.
        let mut anew = Stream::of(resume(who, id).await);
        anew.until("notifications/hello").await;
        assert!(!anew.text.contains("progress"), "{}", anew.text);
    }
    let asked: Vec<_> = upstream.sent().split_off(before);
    assert!(
        asked.iter().all(|sent| sent.header("last-event-id").is_none()),
        "none of it went to the upstream"
    );
    // What came on the standalone stream is not on the call's.
    upstream.told.release.notify_one();
    let mut resumed = Stream::of(resume(&client, &id).await);
    resumed.until("\"result\"").await;
    assert!(!resumed.text.contains("hello"));
}

#[tokio::test]
async fn a_stream_that_the_upstream_closed_early_goes_on_there() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let text = client.begin(json!(1), "end with id").await.text().await.unwrap();
    let last = ids(&text).last().unwrap().to_string();
    for _ in 0..2 {
        let rest = resume(&client, &last).await.text().await.unwrap();
        assert_eq!(messages(&rest).last().unwrap()["result"]["content"][0]["text"], "done", "{rest}");
    }
    let resumed: Vec<_> = upstream.sent().into_iter().filter(|sent| sent.method == Method::GET).collect();
    assert_eq!(resumed.len(), 1, "the second time it was held here");
    assert_eq!(resumed[0].header("last-event-id"), Some("e-1"), "the upstream reads its own id");
}

#[tokio::test]
async fn after_a_restart_streams_go_on_at_the_upstream_or_their_calls_are_told_that_they_are_lost() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let text = client.begin(json!(1), "end with id").await.text().await.unwrap();
    let kept = ids(&text).last().unwrap().to_string();
    let mut lost = Stream::of(client.begin(json!("x"), "hang").await);
    lost.until("progress").await;
    let lost = ids(&lost.text).last().unwrap().to_string();
    let mut standalone = Stream::of(client.listen().await);
    standalone.until("notifications/hello").await;
    let standalone = ids(&standalone.text).last().unwrap().to_string();

    let house = house.restart().await;
    let client = Client { session: client.session, ..house.client(&client.token) };
    let rest = resume(&client, &kept).await.text().await.unwrap();
    assert_eq!(messages(&rest).last().unwrap()["result"]["content"][0]["text"], "done", "{rest}");
    let rest = resume(&client, &lost).await.text().await.unwrap();
    let last = messages(&rest).pop().unwrap();
    assert_eq!((&last["id"], &last["error"]["data"]["reason"]), (&json!("x"), &json!("stream_lost")));
    let mut rest = Stream::of(resume(&client, &standalone).await);
    rest.until("notifications/resumed").await;
    assert_eq!(upstream.sent().last().unwrap().header("last-event-id"), Some("g-1"));
}

#[tokio::test]
async fn a_standalone_stream_that_nobody_reads_makes_way_for_a_new_one() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut first = Stream::of(client.listen().await);
    first.until("notifications/hello").await;
    let id = ids(&first.text).last().unwrap().to_string();
    drop(first);
    // For a while it is kept for who comes back for it.
    let mut back = Stream::of(resume(&client, ids(&format!("id: {id}"))[0]).await);
    let quiet = tokio::time::timeout(Duration::from_millis(300), back.until("hello")).await;
    assert!(quiet.is_err(), "nothing has come since: {}", back.text);
    drop(back);
    let listens = || upstream.sent().iter().filter(|sent| sent.method == Method::GET).count();
    assert_eq!(listens(), 1);
    let mut second = Stream::of(client.listen().await);
    second.until("notifications/hello").await;
    assert_eq!(listens(), 2);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing_before_2026_07_28() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut stream = Stream::of(client.begin(json!(1), "noted").await);
    stream.until("progress").await;
    drop(stream);
    let silent = {
        let client = client.clone();
        tokio::spawn(async move { client.begin(json!(2), "noted and silent").await })
    };
    upstream.until(|sent| sent.body["params"]["name"] == "noted and silent").await;
    silent.abort();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(upstream.told.given_up.load(Ordering::SeqCst), 0);
    // A revocation does.
    house.revoke_all().await;
    house
        .server
        .until("both are given up", async || upstream.told.given_up.load(Ordering::SeqCst) == 2)
        .await;
}

#[tokio::test]
async fn a_slow_reader_slows_the_upstream_and_loses_nothing() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut stream = Stream::of(client.begin(json!(1), "long story").await);
    stream.until("\"number\":0").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(stream.end().await);
    let numbers: Vec<Value> =
        messages(&stream.text).iter().map(|message| message["params"]["number"].clone()).collect();
    let expected: Vec<Value> = (0..1_000).map(|number| json!(number)).chain([Value::Null]).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn an_upstream_that_serves_one_stream_gets_the_newest() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.serves_one_stream.lock() = true;
    let client = house.connect().await;
    let mut first = Stream::of(client.listen().await);
    first.until("notifications/hello").await;
    // Its connection looks alive still.
    let mut second = Stream::of(client.listen().await);
    second.until("notifications/hello").await;
    assert!(first.end().await);
    // And one that was closed, to which nobody comes back.
    drop(second);
    for _ in 0..3 {
        let mut next = Stream::of(client.listen().await);
        next.until("notifications/hello").await;
    }
}

#[tokio::test]
async fn a_large_answer_is_held_for_who_comes_back_for_it() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut stream = Stream::of(client.begin(json!(1), "story with a large end").await);
    stream.until("progress").await;
    let last = ids(&stream.text).pop().unwrap().to_owned();
    drop(stream);
    upstream.told.release.notify_one();
    let mut back = Stream::of(resume(&client, &last).await);
    back.until("\"result\"").await;
    assert!(back.end().await);
    assert_eq!(messages(&back.text).last().unwrap()["result"]["filler"].as_str().unwrap().len(), 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_read_before_a_revoke_is_not_read_after_it_and_every_call_gets_one_end() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    // It reads nothing until it is over.
    let answer = client.begin(json!(1), "flood").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    house.revoke_all().await;
    let mut stream = Stream::of(answer);
    stream.end().await;
    let all = messages(&stream.text);
    assert!(all.len() < 2_000, "it was never held up: {}", all.len());
    assert!(all.iter().all(|message| message["result"].is_null()), "an answer after the revoke");
    if let Some(last) = all.last().filter(|last| last["id"] == 1) {
        assert_eq!(last["error"]["data"]["reason"], "revoked");
    }
}
