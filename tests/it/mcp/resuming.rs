//! Standalone streams that nobody has to wait for, and event ids that cannot be gone on from while the session lives.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::sse::Old;
use super::upstream::Upstream;
use super::{Client, House, Stream, call, messages};

fn ids(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
}

fn gets(upstream: &Upstream) -> usize {
    upstream.sent().iter().filter(|sent| sent.method == Method::GET).count()
}

async fn resume(client: &Client, id: &str) -> Response {
    let answer = client.request(Method::GET).header("last-event-id", id).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_head_comes_with_its_first_event_holds_nobody_up() {
    const CALLS: u32 = 60;
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.keeps_streams_waiting.lock() = true;
    let client = house.connect().await;
    let answer = tokio::time::timeout(Duration::from_secs(8), client.listen()).await.expect("a head at once");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut standalone = Stream::of(answer);
    let began = Instant::now();
    for _ in 0..CALLS {
        assert_eq!(client.call("echo").await.0, StatusCode::OK);
    }
    // If each waited for the stream, this alone would take 250 ms a call.
    let took = began.elapsed();
    assert!(took < Duration::from_millis(200) * CALLS, "{took:?}");
    // What comes at last arrives.
    upstream.told.release.notify_one();
    standalone.until("notifications/hello").await;
    assert_eq!(gets(&upstream), 1);
    assert!(!ids(&standalone.text).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_waited_for_is_given_up_with_its_client() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.keeps_streams_waiting.lock() = true;
    let client = house.connect().await;
    // One that leaves after it got its head, and one that leaves before.
    drop(client.listen().await);
    house.server.until("it is given up", async || upstream.told.given_up.load(Ordering::SeqCst) == 1).await;
    let listening = {
        let client = client.clone();
        tokio::spawn(async move { client.listen().await })
    };
    house.server.until("it is on its way", async || gets(&upstream) == 2).await;
    listening.abort();
    house.server.until("it is given up", async || upstream.told.given_up.load(Ordering::SeqCst) == 2).await;
    let began = Instant::now();
    for _ in 0..20 {
        client.call("echo").await;
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_late_stays_quiet_and_its_end_is_noticed() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.keeps_streams_waiting.lock() = true;
    *upstream.told.answers_streams.lock() = Some(StatusCode::METHOD_NOT_ALLOWED);
    let client = house.connect().await;
    let mut standalone = Stream::of(client.listen().await);
    upstream.told.release.notify_one();
    let quiet = tokio::time::timeout(Duration::from_millis(500), standalone.until("never said")).await;
    assert!(quiet.is_err());
    house.revoke_all().await;
    assert!(standalone.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_no_stream_begins_a_standalone_stream_anew() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let other = house.connect().await;
    let mut stream = Stream::of(other.begin(json!(1), "hang").await);
    stream.until("progress").await;
    let foreign = ids(&stream.text).pop().unwrap();
    for id in ["", " ", "g-1", "made.up", foreign.as_str()] {
        let mut anew = Stream::of(resume(&client, id).await);
        anew.until("notifications/hello").await;
        assert!(!anew.text.contains("progress"));
    }
    assert!(upstream.sent().iter().all(|sent| sent.header("last-event-id").is_none()));
    assert_eq!(upstream.sent_rpc("initialize").len(), 2, "no session was given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_on_with_what_is_held_the_answer_above_all() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let text = client.begin(json!(1), "long story").await.text().await.unwrap();
    let ids = ids(&text);
    let rest = resume(&client, &ids[0]).await.text().await.unwrap();
    let all = messages(&rest);
    assert!(all.len() > 100 && all.len() < 1_001, "{}", all.len());
    assert_eq!(all.last().unwrap()["result"]["content"][0]["text"], "done");
    assert!(all.iter().all(|message| message["error"].is_null()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_held_no_more_is_an_error_of_its_call() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let batch = json!([call(json!("first"), "batch story"), call(json!("last"), "echo")]);
    let text = client.post(&batch).await.text().await.unwrap();
    let ids = ids(&text);
    let rest = resume(&client, &ids[0]).await.text().await.unwrap();
    let of = |id: &str| messages(&rest).into_iter().filter(|message| message["id"] == id).collect::<Vec<_>>();
    let (first, last) = (of("first"), of("last"));
    assert_eq!((first.len(), last.len()), (1, 1), "{first:?} {last:?}");
    assert_eq!(first[0]["error"]["data"]["reason"], "stream_lost");
    assert!(last[0]["result"].is_object());
    // Whoever has had it is told nothing of it.
    let after = &ids[2];
    let rest = resume(&client, after).await.text().await.unwrap();
    assert!(!rest.contains("stream_lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_does_not_go_on_with_ends_its_calls_or_begins_anew() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    for status in [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED] {
        *upstream.told.answers_resumption.lock() = Some(status);
        let text = client.begin(json!("x"), "end with id").await.text().await.unwrap();
        let rest = resume(&client, &ids(&text).pop().unwrap()).await.text().await.unwrap();
        let last = messages(&rest).pop().unwrap();
        assert_eq!((&last["id"], last["error"].is_object()), (&json!("x"), true), "{status}: {rest}");
    }
    let mut standalone = Stream::of(client.listen().await);
    standalone.until("notifications/hello").await;
    let last = ids(&standalone.text).pop().unwrap();
    let house = house.restart().await;
    let client = Client { session: client.session.clone(), ..house.client(&client.token) };
    let mut anew = Stream::of(resume(&client, &last).await);
    anew.until("notifications/hello").await;
    assert_eq!(upstream.sent_rpc("initialize").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_name_their_calls_however_long_those_are() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let id: Value = json!("0123456789".repeat(15));
    let mut stream = Stream::of(client.begin(id.clone(), "hang").await);
    stream.until("progress").await;
    let last = ids(&stream.text).pop().unwrap();
    let house = house.restart().await;
    let client = Client { session: client.session.clone(), ..house.client(&client.token) };
    let rest = resume(&client, &last).await.text().await.unwrap();
    let told = messages(&rest).pop().unwrap();
    assert_eq!((&told["id"], &told["error"]["data"]["reason"]), (&id, &json!("stream_lost")));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_oldest_transport_too_what_is_held_is_gone_on_with() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    client.call(json!(1), "echo").await;
    let last = client.last_event_id();
    client.call(json!(2), "long story").await;
    let Old { token, stream, endpoint, .. } = client;
    drop(stream);
    let mut back = Old::open(&house, &token, Some(&last)).await.unwrap_or_else(|_| unreachable!());
    assert_eq!(back.endpoint, endpoint, "the wire it was");
    back.stream.until("\"id\":2").await;
    assert_eq!(back.call(json!(3), "echo").await["result"]["content"][0]["text"], "done");
}
