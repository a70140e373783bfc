//! What a revocation, a termination and an expiry cut off, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::upstream::{Sent, clock};
use super::{Client, House, Modern, Stream, call, messages, not_found, refused, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_session_answers_every_call_with_an_error_and_goes_on_when_it_is_resumed() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let id = house.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let turn = async |verb: &str| {
        let path = format!("/api/v1/applications/{}/sessions/{id}/{verb}", house.application);
        let (status, body) = house.operator.post(&path, json!({})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    };
    turn("suspend").await;
    let sent = upstream.sent().len();
    let (status, refused) = client.call("echo").await;
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::OK, &json!(-32000)), "{refused}");
    assert_eq!(refused["error"]["data"]["reason"], "session_suspended");
    assert_eq!(client.listen().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(upstream.sent().len(), sent, "nothing reaches the server behind");
    turn("resume").await;
    let (status, answer) = client.call("echo").await;
    assert!(status == StatusCode::OK && answer["error"].is_null(), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_ends_every_call_with_its_reason_and_bars_the_old_token() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut hanging = Stream::of(client.begin(json!("h"), "hang").await);
    hanging.until("progress").await;
    let mut resumable = Stream::of(client.begin(json!("r"), "hang with id").await);
    resumable.until("progress").await;
    let mut listening = Stream::of(client.listen().await);
    listening.until("notifications/hello").await;
    let stuck = {
        let client = client.clone();
        let notification = json!({ "jsonrpc": "2.0", "method": "notifications/stuck" });
        tokio::spawn(async move { refused(client.post(&notification).await).await })
    };
    let silent = {
        let client = client.clone();
        tokio::spawn(async move { client.call("silent").await })
    };
    let mut half = Stream::of(client.begin(json!(5), "half").await);
    let two = json!([call(json!(1), "echo"), call(json!("b"), "echo")]);
    upstream.until(|sent| sent.body["params"]["name"] == "silent").await;
    upstream.until(|sent| sent.rpc() == "notifications/stuck").await;

    let began = Instant::now();
    assert_eq!(house.revoke_all().await["disconnectedCount"], 1);
    let took = began.elapsed();
    // It is told that all of it is over, and nothing else.
    let asked = || {
        let told = |sent: &Sent| sent.method == Method::DELETE || sent.rpc() == "notifications/cancelled";
        upstream.sent().iter().filter(|sent| !told(sent)).count()
    };
    let sent = asked();
    assert!(took < Duration::from_secs(1), "{took:?}");

    let fault = |id: Value| {
        json!({
            "jsonrpc": "2.0",
            "error": { "code": -32001, "message": "Session disconnected: revoked", "data": { "reason": "revoked" } },
            "id": id,
        })
    };
    assert!(hanging.end().await && resumable.end().await && listening.end().await && half.end().await);
    assert_eq!(messages(&hanging.text).last(), Some(&fault(json!("h"))));
    assert_eq!(messages(&resumable.text).last(), Some(&fault(json!("r"))));
    assert_eq!(messages(&listening.text).len(), 1);
    assert_eq!(stuck.await.unwrap(), (StatusCode::NOT_FOUND, not_found("revoked")));
    assert_eq!(silent.await.unwrap(), (StatusCode::OK, fault(json!(7))));
    assert_eq!(serde_json::from_str::<Value>(&half.text).unwrap(), fault(json!(5)));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    // The old token opens nothing any more, a handshake included.
    for answer in [
        client.begin(json!(1), "echo").await,
        client.listen().await,
        client.post(&two).await,
        client.try_initialize().await,
    ] {
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(
            challenge.contains("error=\"invalid_token\"") && challenge.contains("revoked"),
            "{challenge}"
        );
    }
    // A fresh one finds the old session gone, and may open another.
    let mut fresh = Client { token: house.token().await, ..client.clone() };
    assert_eq!(refused(fresh.listen().await).await, (StatusCode::NOT_FOUND, not_found("revoked")));
    assert_eq!(asked(), sent);
    fresh.session = None;
    fresh.initialize().await;
    assert_eq!(fresh.call("echo").await.0, StatusCode::OK);
}

#[tokio::test]
async fn terminating_is_404_for_the_id_and_leaves_the_token_alone() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let mut client = house.connect().await;
    let id = house.sessions().await[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/applications/{}/sessions/{id}/terminate", house.application);
    let (status, body) = house.operator.post(&path, json!({})).await;
    assert!(status.is_success(), "{status} {body}");
    assert_eq!(
        refused(client.begin(json!(1), "echo").await).await,
        (StatusCode::NOT_FOUND, not_found("terminated"))
    );
    client.initialize().await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_event_that_was_half_out_is_abandoned_before_the_farewell() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut stream = Stream::of(client.begin(json!(1), "hang in an event").await);
    stream.until(&"x".repeat(1_000_000)).await;
    house.revoke_all().await;
    assert!(stream.end().await);
    let tail = &stream.text[stream.text.len() - 400..];
    assert!(tail.contains("xxx\nevent: abandoned\n\nevent: message\ndata: {"), "{tail}");
    assert_eq!(messages(&stream.text).last().unwrap()["error"]["data"]["reason"], "revoked");
}

#[tokio::test]
async fn streams_end_when_the_token_expires_unless_it_was_renewed() {
    let (house, _upstream) = House::with_fake(&["--token-lifetime", "2s"]).await;
    let client = house.connect().await;
    let mut kept = Stream::of(client.listen().await);
    kept.until("hello").await;
    let mut lost = Stream::of(client.begin(json!(9), "hang").await);
    lost.until("progress").await;
    // Both streams belong to one session: a later token keeps both.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let fresh = Client { token: house.token().await, ..client.clone() };
    assert_eq!(fresh.call("echo").await.0, StatusCode::OK);
    let early = tokio::time::timeout(Duration::from_millis(1_300), lost.end()).await;
    assert!(early.is_err(), "ended although the session was renewed: {}", lost.text);
    // Nobody renews it any more.
    assert!(lost.end().await && kept.end().await);
    assert_eq!(messages(&lost.text).last().unwrap()["error"]["data"]["reason"], "expired");
    let house = House { operator: house.server.operator().await, ..house };
    let session = &house.sessions().await[0];
    assert_eq!((&session["status"], &session["derivedStatus"]), (&json!("active"), &json!("expired")));
}

#[tokio::test]
async fn a_stream_that_outlives_its_session_says_so() {
    let (house, _upstream) = House::with_fake(&["--absolute-lifetime", "1s"]).await;
    let client = house.connect().await;
    let mut stream = Stream::of(client.begin(json!(1), "hang").await);
    stream.until("progress").await;
    assert!(stream.end().await);
    assert_eq!(messages(&stream.text).last().unwrap()["error"]["data"]["reason"], "lifetime");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_after_a_revoke_was_answered() {
    const CLIENTS: usize = 20;
    let (house, upstream) = House::with_fake(&[]).await;
    let token = house.token().await;
    let clients = join_all((0..CLIENTS).map(|_| async {
        let mut client = house.client(&token);
        client.initialize().await;
        client
    }));
    let clients = clients.await;
    let over = Arc::new(AtomicBool::new(false));
    let at_work = Arc::new(AtomicUsize::new(0));
    // Half of them read a stream that never rests, the others call and call.
    let readers: Vec<_> = clients[..CLIENTS / 2]
        .iter()
        .cloned()
        .map(|client| {
            let at_work = at_work.clone();
            tokio::spawn(async move {
                let mut stream = Stream::of(client.begin(json!("t"), "tick").await);
                stream.until("notifications/message").await;
                at_work.fetch_add(1, Ordering::SeqCst);
                stream.end().await;
                stream.text
            })
        })
        .collect();
    let callers: Vec<_> = clients[CLIENTS / 2..]
        .iter()
        .cloned()
        .map(|client| {
            let (over, at_work) = (over.clone(), at_work.clone());
            tokio::spawn(async move {
                let mut seen = vec![];
                while !over.load(Ordering::Relaxed) {
                    let asked = clock();
                    let (status, answer) = client.call("echo").await;
                    let served = answer.get("result").is_some();
                    at_work.fetch_add(usize::from(seen.is_empty() && served), Ordering::SeqCst);
                    seen.push((asked, status, served));
                }
                seen
            })
        })
        .collect();
    house.server.until("all are at work", async || at_work.load(Ordering::SeqCst) == CLIENTS).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(house.revoke_all().await["disconnectedCount"], CLIENTS);
    let (answered, reached) = (clock(), upstream.sent_rpc("tools/call").len());
    tokio::time::sleep(Duration::from_millis(300)).await;
    over.store(true, Ordering::Relaxed);

    assert_eq!(upstream.sent_rpc("tools/call").len(), reached, "a request was forwarded afterwards");
    for text in join_all(readers).await {
        let all = messages(&text.unwrap());
        let ticks: Vec<_> = all.iter().filter_map(|message| message["params"]["at"].as_u64()).collect();
        assert!(!ticks.is_empty() && ticks.iter().all(|at| *at <= answered), "{answered} {:?}", ticks.last());
        assert_eq!(all.last().unwrap()["error"]["data"]["reason"], "revoked");
    }
    for seen in join_all(callers).await {
        let seen = seen.unwrap();
        assert!(seen.iter().any(|(_, _, served)| *served));
        let late: Vec<_> = seen.iter().filter(|(asked, _, _)| *asked > answered).collect();
        assert!(
            !late.is_empty() && late.iter().all(|(_, status, _)| *status == StatusCode::UNAUTHORIZED),
            "{late:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_barred_reads_why_and_until_when_in_every_answer() {
    const MESSAGE: &str = "Back at ten: the audit needs your laptop";
    let (house, upstream) = House::with_fake(&[]).await;
    let person = json!({ "id": "ada", "email": "ada@example.com" });
    let key = json!({ "name": "ada's", "scopes": ["mcp:invoke"], "user": person });
    let (_, made) = house.operator.post("/api/v1/api-keys", key).await;
    let text = made["key"].as_str().unwrap().to_owned();
    let mut client = house.client(&text);
    client.initialize().await;
    let modern = Modern { token: text.clone(), ..house.modern().await };
    assert_eq!((client.call("echo").await.0, modern.call("echo").await.0), (StatusCode::OK, StatusCode::OK));
    let until = house.server.clock.now() + chrono::TimeDelta::hours(10);
    let bar =
        json!({ "principal": made["apiKey"]["user"]["principalId"], "until": until, "message": MESSAGE });
    let (status, placed) = house.operator.post("/api/v1/bars", bar).await;
    assert_eq!(status, StatusCode::CREATED, "{placed}");
    let sent = upstream.sent().len();
    for (status, said) in [
        client.call("echo").await,
        modern.call("echo").await,
        told(house.client(&text).try_initialize().await).await,
    ] {
        assert_eq!(
            status,
            StatusCode::FORBIDDEN,
            "a 401 would have clients authenticate again and again: {said}"
        );
        assert_eq!(
            (&said["error"]["data"]["reason"], &said["error"]["data"]["message"]),
            (&json!("barred"), &json!(MESSAGE))
        );
        assert!(said["error"]["message"].as_str().unwrap().contains(MESSAGE), "{said}");
    }
    assert_eq!(upstream.sent().iter().skip(sent).filter(|sent| sent.rpc() == "tools/call").count(), 0);
    let id = placed["bar"]["id"].as_str().unwrap();
    assert_eq!(house.operator.delete(&format!("/api/v1/bars/{id}")).await.0, StatusCode::OK);
    assert_eq!(modern.call("echo").await.0, StatusCode::OK, "it may come again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_open_streams_all_end_with_the_reason() {
    const CLIENTS: usize = 50;
    const STREAMS: usize = 20;
    let (house, _upstream) = House::with_fake(&["--rate-limit", "0"]).await;
    let (token, modern) = (house.token().await, house.modern().await);
    let legacy = join_all((0..CLIENTS / 2).map(|_| async {
        let mut client = house.client(&token);
        client.initialize().await;
        client
    }));
    let legacy = legacy.await;
    // A hundred at a time: how many may come at the same moment is not what this is about.
    let opening = futures_util::stream::iter((0..CLIENTS * STREAMS).map(|number| {
        let (client, modern) = (legacy[number % legacy.len()].clone(), modern.clone());
        async move {
            let answer = match number % 2 {
                0 => client.begin(json!(number), "hang").await,
                _ => modern.begin(json!(number), "hang").await,
            };
            let mut stream = Stream::of(answer);
            stream.until("progress").await;
            (number, stream)
        }
    }));
    let streams: Vec<_> = opening.buffer_unordered(100).collect().await;
    let ending = tokio::spawn(join_all(streams.into_iter().map(|(number, mut stream)| async move {
        assert!(stream.end().await, "a clean end");
        (number, messages(&stream.text).pop().unwrap())
    })));
    assert_eq!(house.revoke_all().await["disconnectedCount"], legacy.len() + 1);
    for (number, last) in ending.await.unwrap() {
        assert_eq!((&last["id"], &last["error"]["data"]["reason"]), (&json!(number), &json!("revoked")));
    }
}
