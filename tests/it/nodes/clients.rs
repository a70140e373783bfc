//! Clients of the official SDKs, who come to another node with each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Cluster;
use crate::mcp::external::{Driver, ExternalProcess, Sdk};
use crate::support::{Inside, rounds};

/// What is of a connection and not of a request.
const OF_CONNECTIONS: [HeaderName; 4] =
    [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

const SDKS: [Sdk; 5] = [Sdk::Python1, Sdk::Python2, Sdk::TypeScript1, Sdk::TypeScript2, Sdk::Rust];

/// A balancer that sends each request to the next node, and passes over those who do not listen.
struct Balancer {
    url: String,
    nodes: Arc<Nodes>,
}

struct Nodes {
    bases: Mutex<Vec<String>>,
    next: AtomicUsize,
    /// Where calls go that say so of themselves: to the node that is to be killed.
    doomed: AtomicUsize,
    /// How many requests each has got.
    got: [AtomicUsize; 3],
    http: reqwest::Client,
}

impl Balancer {
    async fn before(cluster: &Cluster) -> Self {
        let bases = Mutex::new(cluster.nodes.iter().map(|node| node.base.clone()).collect());
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let nodes = Arc::new(Nodes {
            bases,
            next: AtomicUsize::new(0),
            doomed: AtomicUsize::new(0),
            got: Default::default(),
            http,
        });
        let router = axum::Router::new().fallback(hand_on).with_state(nodes.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, nodes }
    }
}

async fn hand_on(State(nodes): State<Arc<Nodes>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_doomed = message["params"]["arguments"]["label"] == "doomed";
    let mut headers = head.headers;
    OF_CONNECTIONS.iter().for_each(|name| drop(headers.remove(name)));
    for _ in 0..3 {
        let node = match is_doomed {
            true => nodes.doomed.load(Ordering::SeqCst),
            false => nodes.next.fetch_add(1, Ordering::SeqCst) % 3,
        };
        let url = format!("{}{}", nodes.bases.lock()[node], head.uri);
        let request = nodes.http.request(head.method.clone(), url).headers(headers.clone());
        match request.body(body.clone()).send().await {
            Ok(answer) => {
                nodes.got[node].fetch_add(1, Ordering::SeqCst);
                return back(answer);
            }
            Err(error) if error.is_connect() => {}
            Err(_) => return StatusCode::BAD_GATEWAY.into_response(),
        }
    }
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

fn back(answer: reqwest::Response) -> Response {
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    OF_CONNECTIONS.iter().for_each(|name| drop(headers.remove(name)));
    (status, headers, Body::from_stream(answer.bytes_stream())).into_response()
}

fn wait(seconds: f64, steps: u64, label: &str) -> Value {
    let arguments = json!({ "seconds": seconds, "steps": steps, "label": label });
    json!({ "op": "call", "name": "wait", "arguments": arguments })
}

async fn echoes(driver: &mut Driver, text: &str) {
    let call = json!({ "op": "call", "name": "echo", "arguments": { "message": text } });
    let answer = driver.does(call).await;
    assert!(answer["content"][0]["text"].as_str().unwrap().contains(text), "{answer}");
}

/// Begins a call, and waits until its stream has brought something.
async fn begin_and_hear(driver: &mut Driver, call: Value) -> u64 {
    let id = driver.begin(call);
    driver.line(|line| line["event"] == "progress" && line["for"] == id).await;
    id
}

/// All that a client does, each request at another node.
async fn works(driver: &mut Driver, sdk: Sdk, url: &str, token: &str) {
    let name = format!("{sdk:?}");
    let connect = json!({ "op": "connect", "url": url, "token": token, "client_info": { "name": name } });
    let connected = driver.does(connect).await;
    let session = connected["session_id"].clone();
    assert!(session.as_str().unwrap().starts_with("smc_"), "{connected}");
    let tools = driver.does(json!({ "op": "list_tools" })).await;
    assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "echo"), "{tools}");
    for turn in 0..6 {
        echoes(driver, &format!("turn {turn}")).await;
    }
    driver.does(json!({ "op": "ping" })).await;
    let id = begin_and_hear(driver, wait(1.0, 4, "whole")).await;
    let line = driver.result_of(id).await;
    assert_eq!(line["ok"], true, "{sdk:?}: {line}");
    assert_eq!(driver.does(json!({ "op": "session_id" })).await["session_id"], session);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_each_sdk_come_to_another_node_with_each_request_and_go_on_when_one_dies_in_a_call() {
    let (mut cluster, upstream) = (Cluster::of(3).await, ExternalProcess::python(0).await);
    let application = cluster.application().await;
    let path = format!("/api/v1/applications/{application}/upstream");
    let (status, body) = cluster.at(0).put(&path, json!({ "url": upstream.url })).await;
    assert!(status.is_success(), "{status} {body}");
    let front = Balancer::before(&cluster).await;
    let url = format!("{}/mcp/{application}", front.url);
    let token = cluster.nodes[1].operator().await.token.unwrap();
    let mut drivers: Vec<_> = SDKS.into_iter().map(|sdk| (sdk, Driver::start(sdk))).collect();
    join_all(drivers.iter_mut().map(|(sdk, driver)| works(driver, *sdk, &url, &token))).await;
    for got in &front.nodes.got {
        assert!(got.load(Ordering::SeqCst) >= 10, "{:?}", front.nodes.got);
    }
    for round in 0..rounds(1, 10) {
        let doomed = (round + 1) % 3;
        front.nodes.doomed.store(doomed, Ordering::SeqCst);
        let calls = drivers.iter_mut().map(|(_, driver)| begin_and_hear(driver, wait(6.0, 12, "doomed")));
        let calls = join_all(calls).await;
        cluster.nodes[doomed].child.kill().unwrap();
        let going_on = drivers.iter_mut().zip(calls).map(|((sdk, driver), id)| async move {
            let line = driver.result_of(id).await;
            // Whatever it is, it is not the client's patience that ended it.
            assert!(!line["error"].to_string().to_lowercase().contains("time"), "{sdk:?}: {line}");
            echoes(driver, "after it").await;
            driver.does(json!({ "op": "list_tools" })).await;
            println!("{sdk:?} was told {line}");
        });
        join_all(going_on).await;
        let database = cluster.database.url.clone();
        cluster.replace(doomed, &database).await;
        cluster.nodes[doomed].base.clone_into(&mut front.nodes.bases.lock()[doomed]);
        join_all(drivers.iter_mut().map(|(_, driver)| echoes(driver, "and again"))).await;
    }
    let mut inside = Inside::of(&cluster.database.url).await;
    let connected = inside.number("select count(*) from event where type = 'connected'", &[]).await;
    assert_eq!(connected, SDKS.len() as i64, "nobody had to begin anew");
    for (_, driver) in &mut drivers {
        driver.does(json!({ "op": "close" })).await;
    }
    cluster.is_sound().await;
}
