//! What the gateway holds for others has bounds: of a call, a session, an application and in all. Each is filled here.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::sse::Old;
use super::upstream::Upstream;
use super::{Client, House, Stream, call, messages};
use crate::support::{Daemon, Holder};

const MIB: u64 = 1 << 20;

/// The most memory that a process has needed so far, in bytes.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A process of its own, whose memory can be measured, before an upstream.
struct Apart {
    daemon: Daemon,
    operator: Holder,
    path: String,
    upstream: Upstream,
    _directory: TempDir,
}

impl Apart {
    async fn start(flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let upstream = Upstream::start().await;
        let daemon = Daemon::start(directory.path(), flags);
        let operator = daemon.operator().await;
        let (_, body) = operator.get("/api/v1/applications").await;
        let application = body["items"][0]["id"].as_str().unwrap().to_owned();
        let named = format!("/api/v1/applications/{application}/upstream");
        let (status, body) = operator.put(&named, json!({ "url": upstream.url })).await;
        assert!(status.is_success(), "{body}");
        Self { daemon, operator, path: format!("/mcp/{application}"), upstream, _directory: directory }
    }

    async fn connect(&self) -> Client {
        let url = format!("{}{}", self.daemon.base, self.path);
        let (token, http) = (self.operator.token.clone().unwrap(), self.operator.http.clone());
        let mut client = Client { url, token, session: None, http };
        client.initialize().await;
        client
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_on_the_oldest_transport_fill_the_budget_of_their_session_and_no_more() {
    const CALLS: usize = 40;
    let apart = Apart::start(&[]).await;
    let token = apart.operator.token.clone().unwrap();
    let mut client =
        Old::connect_at(&apart.daemon.base, &apart.path, &token, apart.operator.http.clone()).await;
    let before = peak(&apart.daemon);
    for id in 0..CALLS {
        client.say(&call(json!(id), "fifteen MiB and silent")).await;
    }
    // The oldest are given up, with words; each upstream call that was is cancelled.
    for _ in 0..600 {
        let refused = apart.upstream.sent_rpc("notifications/cancelled").len();
        if refused >= CALLS - 8 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let cancelled = apart.upstream.sent_rpc("notifications/cancelled").len();
    assert!((CALLS - 8..CALLS).contains(&cancelled), "{cancelled} given up");
    client.stream.until("too_much_held").await;
    let told =
        messages(&client.stream.text).into_iter().find(|message| message["error"].is_object()).unwrap();
    assert!(told["error"]["message"].as_str().unwrap().contains("held too much"), "{told}");
    // The budget of a session is 64 MiB.
    let grown = peak(&apart.daemon).saturating_sub(before);
    assert!(grown < (64 + 128) * MIB, "grown by {} MiB", grown / MIB);
    // The session goes on.
    assert_eq!(client.call(json!("after"), "echo").await["result"]["content"][0]["text"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_whose_clients_have_left_fill_the_budget_of_their_session_and_no_more() {
    const CALLS: usize = 300;
    let apart = Apart::start(&["--mcp-session-mib", "16"]).await;
    let client = apart.connect().await;
    let before = peak(&apart.daemon);
    for begun in 0..CALLS / 20 {
        join_all((0..20).map(async |number| {
            let mut stream =
                Stream::of(client.begin(json!(begun * 20 + number), "half a MiB and silent").await);
            stream.until("\"number\":0").await;
        }))
        .await;
    }
    for _ in 0..300 {
        if apart.upstream.sent_rpc("notifications/cancelled").len() > CALLS / 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let cancelled = apart.upstream.sent_rpc("notifications/cancelled").len();
    assert!((CALLS / 2..CALLS).contains(&cancelled), "{cancelled} given up");
    let grown = peak(&apart.daemon).saturating_sub(before);
    assert!(grown < (16 + 80) * MIB, "grown by {} MiB", grown / MIB);
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_each_bound_the_oldest_call_is_answered_with_words() {
    for (flag, sessions) in [("--mcp-session-mib", 1), ("--mcp-application-mib", 3), ("--mcp-total-mib", 3)] {
        let (house, upstream) = House::with_fake(&[flag, "6"]).await;
        let clients = join_all((0..sessions).map(async |_| house.connect().await)).await;
        let mut streams = vec![];
        for number in 0..12 {
            let answer = clients[number % sessions].begin(json!(number), "hang in a held event").await;
            let mut stream = Stream::of(answer);
            stream.until("progress").await;
            streams.push(stream);
        }
        let mut oldest = streams.remove(0);
        assert!(oldest.end().await, "{flag}");
        let last = messages(&oldest.text).pop().unwrap();
        assert_eq!(
            (&last["id"], &last["error"]["data"]["reason"]),
            (&json!(0), &json!("too_much_held")),
            "{flag}"
        );
        upstream.until(|sent| sent.body["params"]["requestId"] == 0).await;
        // The newest is held, and whoever asks for little is not concerned.
        let mut newest = streams.pop().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(200), newest.until("too_much_held")).await;
        assert!(quiet.is_err(), "{flag}");
        assert_eq!(clients[0].call("echo").await.0, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_larger_than_one_call_may_hold_is_an_error_of_that_call() {
    let (house, _upstream) = House::with_fake(&["--mcp-stream-mib", "2"]).await;
    let mut client = Old::connect(&house).await;
    for name in ["large", "fifteen MiB and silent"] {
        let answer = client.call(json!(name), name).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("more than") || message.contains("held too much"), "{name}: {message}");
    }
    assert_eq!(client.call(json!(3), "echo").await["result"]["content"][0]["text"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_for_who_comes_back_goes_first_and_its_call_is_told() {
    let (house, upstream) = House::with_fake(&["--mcp-session-mib", "6"]).await;
    let client = house.connect().await;
    let text = client.begin(json!("kept"), "long story").await.text().await.unwrap();
    let first = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let mut streams = vec![];
    for number in 0..8 {
        let mut stream = Stream::of(client.begin(json!(number), "hang in a held event").await);
        stream.until("progress").await;
        streams.push(stream);
    }
    // Eight are too many by one, so one call in flight has to go: what was held for nobody has gone before.
    upstream.until(|sent| sent.rpc() == "notifications/cancelled").await;
    let answer = client.request(reqwest::Method::GET).header("last-event-id", &first).send().await.unwrap();
    let rest = answer.text().await.unwrap();
    let told: Vec<Value> = messages(&rest).into_iter().filter(|message| message["id"] == "kept").collect();
    assert_eq!(told.len(), 1, "{rest}");
    assert_eq!(told[0]["error"]["data"]["reason"], "stream_lost");
}
