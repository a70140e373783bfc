//! Live feeds: in order, without gap or double, ending with a reason.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::{Agent, Feed, Server};

fn application_feed(agent: &Agent) -> String {
    format!("/api/v1/applications/{}/sessions/events", agent.application)
}

fn session_feed(agent: &Agent) -> String {
    format!("/api/v1/agent-sessions/{}/events", agent.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_client_is_told_that_it_was_revoked_and_its_stream_ends() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let mut feed = Feed::open(&agent.holder, &session_feed(&agent), None).await;
    operator.delete(&format!("/api/v1/applications/{}/sessions", agent.application)).await;
    let frame = feed.next_named("disconnected").await;
    assert_eq!((&frame.data["sessionId"], &frame.data["reason"]), (&json!(agent.id), &json!("revoked")));
    assert_eq!(frame.id, frame.data["position"].as_i64());
    assert_eq!(feed.next().await, None, "the stream ends after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_learns_why_from_the_stream_of_the_ended_session() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    operator.delete(&agent.path()).await;
    let story = Feed::open(&agent.holder, &session_feed(&agent), None).await.rest().await;
    let names: Vec<_> = story.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["connected", "disconnected"]);
    assert_eq!(story[1].data["reason"], "revoked");
    assert!(story[1].data["revocationId"].is_string());
    // As an EventSource comes back, again and again, until it is told that there is nothing more.
    let request = server.http.get(server.url(&session_feed(&agent)));
    let request = request.bearer_auth(agent.holder.token.as_ref().unwrap());
    let again = request.header("last-event-id", story[1].id.unwrap()).send().await.unwrap();
    assert_eq!(again.status(), 204, "nothing comes after the end");
    let after_the_first = Feed::open(&agent.holder, &session_feed(&agent), story[0].id).await.rest().await;
    assert_eq!(after_the_first, story[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_with_an_id_that_this_log_never_reached_is_told_to_look_again() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let beyond = 1_000_000_000_000;
    for path in [application_feed(&agent), session_feed(&agent)] {
        let mut feed = Feed::open(&operator, &path, Some(beyond)).await;
        let reset = feed.next().await.unwrap();
        assert_eq!(reset.event, "reset");
        assert_eq!(reset.data, json!({ "type": "reset", "position": reset.id.unwrap() }));
        assert!(reset.id.unwrap() < beyond, "where it can go on from");
        operator.post(&format!("{}/suspend", agent.path()), json!({})).await;
        let next = feed.next_named("suspended").await;
        assert!(next.id > reset.id, "what happens from now on follows");
        operator.post(&format!("{}/resume", agent.path()), json!({})).await;
    }
    operator.post(&format!("{}/terminate", agent.path()), json!({})).await;
    let story = Feed::open(&agent.holder, &session_feed(&agent), Some(beyond)).await.rest().await;
    let names: Vec<_> = story.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["reset", "connected", "suspended", "resumed", "suspended", "resumed", "disconnected"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_sessions_token_expires_unless_it_was_renewed() {
    let server = Server::with(&["--token-lifetime", "60s"]).await;
    let agent = server.operator().await.connect(json!({})).await;
    let mut feed = Feed::open(&agent.holder, &session_feed(&agent), None).await;
    server.turn(40);
    assert_eq!(agent.call_as(&server.operator().await, "heartbeat").await.0, 200);
    feed.next_named("token_renewed").await;
    server.turn(40);
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    server.turn(30);
    // Either order: the announcement is of the log and has an id, the farewell has none and is the last.
    let mut frame = feed.next_named("expired").await;
    if frame.id.is_some() {
        frame = feed.next_named("expired").await;
    }
    assert_eq!(frame.id, None);
    assert_eq!(feed.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn activity_comes_only_when_asked_for() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let mut quiet = Feed::open(&operator, &application_feed(&agent), None).await;
    let mut all =
        Feed::open(&operator, &format!("{}?types=activity_recorded", application_feed(&agent)), None).await;
    agent.call("heartbeat").await;
    agent.call("disconnect").await;
    assert_eq!(all.next().await.unwrap().event, "activity_recorded");
    assert_eq!(all.next().await.unwrap().event, "disconnected");
    assert_eq!(quiet.next().await.unwrap().event, "disconnected");
    let (status, body) = operator.get(&format!("{}?types=nonsense", application_feed(&agent))).await;
    assert!(status == 400 && body["field"] == "types");
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_and_then_following_leaves_no_gap() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let path = format!("/api/v1/applications/{}/sessions", agent.application);
    let response = operator.send(reqwest::Method::GET, &path, None).await;
    let position: i64 = response.headers()["log-position"].to_str().unwrap().parse().unwrap();
    let late = operator.connect(json!({})).await;
    let mut feed = Feed::open(&operator, &application_feed(&agent), Some(position)).await;
    let frame = feed.next().await.unwrap();
    assert_eq!((frame.event.as_str(), &frame.data["sessionId"]), ("connected", &json!(late.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_resumed_again_and_again_across_ten_thousand_events_misses_and_doubles_none() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let first = operator.connect(json!({})).await;
    let path = application_feed(&first);
    let writer = tokio::spawn({
        let operator = operator.clone();
        async move {
            // Connects and goodbyes: 10,000 events, while the listener comes and goes.
            for _ in 0..100 {
                let agents = operator.connect_many(50).await;
                futures_util::future::join_all(agents.iter().map(|agent| agent.call("disconnect"))).await;
            }
        }
    });
    let mut seen: Vec<i64> = vec![];
    let mut round = 0;
    while seen.len() < 10_000 {
        round += 1;
        let after = seen.last().copied().or(Some(i64::MAX)).filter(|_| !seen.is_empty());
        let from = after.or_else(|| first_position(&first));
        let mut feed = Feed::open(&operator, &path, from).await;
        for _ in 0..(round * 37) % 900 + 1 {
            if seen.len() == 10_000 {
                break;
            }
            seen.push(feed.next().await.unwrap().id.unwrap());
        }
    }
    writer.await.unwrap();
    let committed: BTreeSet<i64> = server.positions_of(&["connected", "disconnected"]).await;
    let expected: Vec<i64> = committed.into_iter().skip(1).collect();
    assert_eq!(seen, expected);
}

/// The position of a session's `connected`: the log of a fresh server up to its first session is always the same.
fn first_position(_: &Agent) -> Option<i64> {
    Some(4)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_last_event_id_is_refused() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let (status, body) = operator.get(&format!("{}?lastEventId=-3", application_feed(&agent))).await;
    assert!(status == 400 && body["field"] == "Last-Event-ID", "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_on_which_something_always_happens_ends_with_its_token_too() {
    let server = Server::with(&["--token-lifetime", "60s"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let path = application_feed(&agent);
    let mut feed = Feed::open(&operator, &path, None).await;
    server.turn(61);
    let fresh = server.operator().await;
    let busy = tokio::spawn(async move {
        loop {
            fresh.connect(json!({})).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        while let Some(frame) = feed.next().await {
            if frame.event == "expired" && frame.id.is_none() {
                return feed.next().await;
            }
        }
        panic!("it ended without a word");
    });
    let ended = ended.await;
    busy.abort();
    assert_eq!(ended, Ok(None), "its token expired, and events kept coming");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_opened_at_the_moment_of_the_end_tells_of_it_and_ends() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for agent in operator.connect_many(150).await {
        let path = session_feed(&agent);
        let (feed, _) = tokio::join!(Feed::open(&agent.holder, &path, None), agent.call("disconnect"));
        let story = tokio::time::timeout(Duration::from_secs(5), feed.rest()).await;
        let story = story.expect("the feed of an ended session stays open");
        assert_eq!(story.last().map(|frame| frame.event.as_str()), Some("disconnected"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_which_more_happens_than_waits_for_its_listener_is_told_whole() {
    let server = Server::start().await;
    let agent = server.operator().await.connect(json!({})).await;
    let path = format!("{}?types=activity_recorded", session_feed(&agent));
    let mut feed = Feed::open(&agent.holder, &path, None).await;
    let mut quiet = Feed::open(&agent.holder, &session_feed(&agent), None).await;
    for _ in 0..200 {
        assert_eq!(agent.call("heartbeat").await.0, 200);
    }
    agent.call("disconnect").await;
    let mut heard = BTreeSet::new();
    while let Some(frame) = feed.next().await {
        assert!(heard.insert(frame.id.unwrap()), "twice: {frame:?}");
    }
    assert_eq!(heard, server.positions_of(&["activity_recorded", "disconnected"]).await);
    assert_eq!(quiet.next().await.unwrap().event, "disconnected");
    assert_eq!(quiet.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_socket_takes_nothing_for_thirty_seconds_is_let_go() {
    use tokio::io::AsyncWriteExt;
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let address = server.running.as_ref().unwrap().address;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut slow = socket.connect(address).await.unwrap();
    let request = format!(
        "GET {}?types=activity_recorded HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n",
        application_feed(&agent),
        operator.token.as_ref().unwrap(),
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    // More than its window holds; then nothing more is needed: what waits in our buffer is what it does not take.
    for _ in 0..300 {
        assert_eq!(agent.call("heartbeat").await.0, 200);
    }
    let client = slow.local_addr().unwrap().port();
    let held = || {
        // Our end of the connection, as the kernel lists it: local and remote port in hex, state 01 is established.
        let ends = format!(":{:04X} 0100007F:{client:04X} 01", address.port());
        std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&ends)
    };
    assert!(held(), "it was never open");
    for _ in 0..60 {
        if !held() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("a reader that takes nothing is held for ever");
}
