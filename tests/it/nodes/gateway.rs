//! The MCP gateway on several nodes.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Cluster, is_true_on, until};
use crate::mcp::upstream::{Upstream, clock};
use crate::mcp::{Client, Stream};
use crate::support::Holder;

/// Nodes with an application before an upstream.
pub struct House {
    pub cluster: Cluster,
    pub application: String,
    pub upstream: Upstream,
}

impl House {
    pub async fn with(count: usize, flags: &[&str]) -> Self {
        let (cluster, upstream) = (Cluster::with(count, flags).await, Upstream::start().await);
        let application = cluster.application().await;
        let path = format!("/api/v1/applications/{application}/upstream");
        let (status, body) = cluster.at(0).put(&path, json!({ "url": upstream.url })).await;
        assert!(status.is_success(), "{status} {body}");
        Self { cluster, application, upstream }
    }

    /// A client that has come to a node and has an open session.
    pub async fn connect(&self, node: usize) -> Client {
        let token = self.cluster.nodes[node].operator().await.token.unwrap();
        let mut client = Client { url: self.url(node), token, session: None, http: reqwest::Client::new() };
        client.initialize().await;
        client
    }

    fn url(&self, node: usize) -> String {
        format!("{}/mcp/{}", self.cluster.nodes[node].base, self.application)
    }

    /// A client that goes on elsewhere.
    pub fn moved(&self, client: &Client, node: usize) -> Client {
        Client { url: self.url(node), ..client.clone() }
    }

    pub async fn revoke_all(&self, node: usize) -> Value {
        let path = format!("/api/v1/applications/{}/sessions", self.application);
        let (status, body) = self.cluster.at(node).delete(&path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    fn operator(&self, node: usize) -> Holder {
        self.cluster.at(node)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_gateway_goes_from_node_to_node_with_each_request() {
    let house = House::with(3, &[]).await;
    let client = house.connect(0).await;
    for round in 0..12 {
        let here = house.moved(&client, round % 3);
        let (status, answer) = here.call("echo").await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["id"], 7, "{answer}");
    }
    assert_eq!(house.upstream.sent_rpc("initialize").len(), 1, "it is one session at the upstream");
    // The upstream loses the session: whichever nodes find that out, it is opened anew once.
    house.upstream.forget();
    let calls = (0..9).map(|one| {
        let here = house.moved(&client, one % 3);
        async move { here.call("echo").await }
    });
    for (status, answer) in futures_util::future::join_all(calls).await {
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["id"], 7, "{answer}");
    }
    assert_eq!(house.upstream.sent_rpc("initialize").len(), 2, "once more, and not once a node");
    let here = house.moved(&client, 2);
    assert_eq!(here.request(Method::DELETE).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    house.upstream.until(|sent| sent.method == Method::DELETE).await;
    house.cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_is_resumed_at_another_node() {
    let house = House::with(2, &[]).await;
    let client = house.connect(0).await;
    let mut stream = Stream::of(client.begin(json!(9), "hang").await);
    stream.until("notifications/progress").await;
    let id = stream.text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(stream);
    let elsewhere = house.moved(&client, 1);
    let answer = elsewhere.request(Method::GET).header("last-event-id", &id).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = Stream::of(answer);
    stream.until("notifications/progress").await;
    // The upstream was not asked: the events are where the stream was opened.
    assert_eq!(house.upstream.sent().iter().filter(|sent| sent.method == Method::GET).count(), 0);
    let body = house.revoke_all(1).await;
    is_true_on(&body, 2);
    stream.until("\"id\":9").await;
    assert!(stream.text.contains("error"), "{}", stream.text);
    // Its streams are counted once, although one of them passes two nodes.
    let path = format!("/api/v1/revocations/{}", body["revocationId"].as_str().unwrap());
    let (_, kept) = house.operator(0).get(&path).await;
    let kept = kept.get("revocation").unwrap_or(&kept).clone();
    assert!(kept["streamsClosed"].as_u64().unwrap() >= 1, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_stream_that_is_open_at_one_node_can_be_opened_anew_at_another() {
    let house = House::with(2, &[]).await;
    *house.upstream.told.serves_one_stream.lock() = true;
    let client = house.connect(0).await;
    let mut stream = Stream::of(client.listen().await);
    stream.until("notifications/hello").await;
    let elsewhere = house.moved(&client, 1);
    let answer = elsewhere.listen().await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut another = Stream::of(answer);
    another.until("notifications/hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_with_sse_may_send_its_messages_to_any_node() {
    let house = House::with(3, &[]).await;
    let holder = house.cluster.nodes[0].operator().await;
    let http = reqwest::Client::new();
    let token = holder.token.unwrap();
    let open = http
        .get(format!("{}/sse", house.url(0)))
        .bearer_auth(&token)
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    let mut stream = Stream::of(open);
    stream.until("event: endpoint").await;
    stream.until("\n\n").await;
    let endpoint = stream.text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
    let send = async |node: usize, body: Value| {
        let url = format!("{}{endpoint}", house.cluster.nodes[node].base);
        let answer = http.post(url).bearer_auth(&token).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    };
    let params = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "old", "version": "1" } });
    send(1, json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })).await;
    stream.until("\"id\":0").await;
    send(2, json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    for (id, node) in [(41, 0), (42, 1), (43, 2)] {
        send(node, crate::mcp::call(json!(id), "echo")).await;
        stream.until(&format!("\"id\":{id}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_upstream_is_handed_on_anywhere_after_a_revoke_was_answered_elsewhere() {
    let house = House::with(3, &[]).await;
    for round in 0..8 {
        let clients = [house.connect(0).await, house.connect(1).await, house.connect(2).await];
        let mut reading = vec![];
        for (at, client) in clients.iter().enumerate() {
            let mut stream = Stream::of(client.begin(json!(1), "tick").await);
            stream.until("\"at\"").await;
            if round % 2 == 1 {
                // It goes on by way of a node that it does not live on.
                stream.until("id: ").await;
                let id =
                    stream.text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
                drop(stream);
                let elsewhere = house.moved(client, (at + 1) % 3);
                let resumed =
                    elsewhere.request(Method::GET).header("last-event-id", &id).send().await.unwrap();
                assert_eq!(resumed.status(), StatusCode::OK);
                stream = Stream::of(resumed);
                stream.until("\"at\"").await;
            }
            reading.push(tokio::spawn(async move {
                while stream.goes_on(Duration::from_secs(20)).await {}
                (at, stream.text)
            }));
        }
        let body = house.revoke_all(round % 3).await;
        let answered = clock();
        is_true_on(&body, 3);
        for read in reading {
            let (at, text) = read.await.unwrap();
            let ticks = text.lines().filter_map(|line| line.strip_prefix("data: "));
            let sent =
                ticks.filter_map(|tick| serde_json::from_str::<Value>(tick).ok()?["params"]["at"].as_u64());
            let last = sent.max().unwrap();
            assert!(last <= answered, "stream {at}: {last} after {answered}");
        }
    }
    house.cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_at_one_node_keeps_its_session_alive_for_all_of_them() {
    let house = House::with(3, &["--mcp-stale-after", "6s", "--mcp-unused-after", "6s"]).await;
    let (client, silent) = (house.connect(1).await, house.connect(1).await);
    let mut stream = Stream::of(client.listen().await);
    stream.until("notifications/hello").await;
    let ended = async || {
        let path = format!("/api/v1/applications/{}/sessions?status=disconnected", house.application);
        house.cluster.at(2).get(&path).await.1["items"].as_array().unwrap().clone()
    };
    until("the one without a stream goes stale", async || !ended().await.is_empty()).await;
    assert!(stream.goes_on(Duration::from_secs(8)).await, "{}", stream.text);
    let ended = ended().await;
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(ended[0]["disconnectReason"], "stale");
    assert_eq!(house.moved(&silent, 0).begin(json!(1), "echo").await.status(), StatusCode::NOT_FOUND);
    let (status, _) = house.moved(&client, 2).call("echo").await;
    assert_eq!(status, StatusCode::OK, "its session is alive");
}
