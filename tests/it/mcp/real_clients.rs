//! The gateway between clients and servers that others wrote: the official Python SDK's, and the reference server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::House;
use super::breakable_proxy::BreakableProxy;
use super::external::{Driver, ExternalProcess, Sdk};

pub fn echo(text: &str) -> Value {
    json!({ "op": "call", "name": "echo", "arguments": { "message": text } })
}

async fn whole_life(mut upstream: ExternalProcess, restart: impl AsyncFnOnce(u16) -> ExternalProcess) {
    let house = House::before(&upstream.url, &["--idle-after", "1s"]).await;
    let token = house.token().await;
    let mut client = Driver::start(Sdk::Python2);
    let connected = client.connect(&house, &token, json!({ "client_info": { "name": "whole life" } })).await;
    assert_eq!(connected["protocol_version"], "2025-11-25");
    assert!(connected["session_id"].as_str().unwrap().starts_with("smc_"), "{connected}");

    let tools = client.does(json!({ "op": "list_tools" })).await;
    assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "echo"), "{tools}");
    let answer = client.does(echo("hello")).await;
    assert!(answer["content"][0]["text"].as_str().unwrap().contains("hello"), "{answer}");
    let session = &house.sessions().await[0];
    assert_eq!(
        (&session["derivedStatus"], &session["clientInfo"]["name"]),
        (&json!("active"), &json!("whole life"))
    );
    assert!(session["userAgent"].as_str().unwrap().contains("python"), "{session}");
    house.server.turn(2);
    assert_eq!(house.sessions().await[0]["derivedStatus"], "idle");

    // The upstream loses everything; the client does not notice.
    let port = upstream.kill();
    upstream = restart(port).await;
    let answer = client.does(echo("again")).await;
    assert!(answer["content"][0]["text"].as_str().unwrap().contains("again"), "{answer}");
    assert_eq!((house.sessions().await.len(), house.connected().await), (1, 1));

    client.does(json!({ "op": "close" })).await;
    assert_eq!(house.sessions().await[0]["derivedStatus"], "disconnected");
    drop(upstream);
}

#[tokio::test]
async fn a_python_client_lives_its_life_before_the_reference_server() {
    whole_life(ExternalProcess::everything(0).await, ExternalProcess::everything).await;
}

#[tokio::test]
async fn a_python_client_lives_its_life_before_a_python_server() {
    whole_life(ExternalProcess::python(0).await, ExternalProcess::python).await;
}

#[tokio::test]
async fn progress_arrives_step_by_step_and_the_token_does_not_arrive_at_all() {
    let upstream = ExternalProcess::python(0).await;
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    let mut client = Driver::start(Sdk::Python2);
    let connected = client.connect(&house, &token, json!({})).await;
    let id = client.begin(json!({ "op": "call", "name": "wait", "arguments": { "seconds": 4, "steps": 4 } }));
    client.line(|line| line["event"] == "progress" && line["progress"] == 1.0).await;
    let first = Instant::now();
    assert_eq!(client.result_of(id).await["ok"], true);
    // Three of four steps are still to come; what was held back until the end comes with the end.
    assert!(first.elapsed() > Duration::from_secs(1), "progress was held back: {:?}", first.elapsed());

    let answer = client.does(json!({ "op": "call", "name": "headers" })).await;
    let text = answer["content"][0]["text"].as_str().unwrap();
    let headers: Value = serde_json::from_str(text).unwrap();
    assert!(!text.contains(&token) && headers.get("authorization").is_none(), "{text}");
    assert_ne!(headers["mcp-session-id"], connected["session_id"]);
    assert_eq!(headers["sessiond-session-id"], house.sessions().await[0]["id"]);
}

#[tokio::test]
async fn a_revoke_in_the_middle_of_a_call_reaches_the_caller_at_once_and_a_fresh_token_begins_anew() {
    let upstream = ExternalProcess::python(0).await;
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    let mut client = Driver::start(Sdk::Python2);
    client.connect(&house, &token, json!({})).await;
    let id =
        client.begin(json!({ "op": "call", "name": "wait", "arguments": { "seconds": 30, "steps": 100 } }));
    client.line(|line| line["event"] == "progress").await;

    let began = Instant::now();
    assert_eq!(house.revoke_all().await["disconnectedCount"], 1);
    let failed = client.result_of(id).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((&failed["ok"], &failed["error"]["code"]), (&json!(false), &json!(-32001)), "{failed}");
    assert_eq!(failed["error"]["data"], json!({ "reason": "revoked" }));

    let error = client.fails(echo("?")).await;
    assert_eq!(error["status"], 401, "{error}");
    assert!(error["www_authenticate"].as_str().unwrap().contains("resource_metadata="), "{error}");
    let url = house.server.url(&house.path());
    let error =
        client.fails(json!({ "op": "connect", "client": "second", "url": url, "token": token })).await;
    assert_eq!(error["status"], 401, "{error}");

    let fresh = house.token().await;
    client.does(json!({ "op": "set_token", "token": fresh })).await;
    let error = client.fails(echo("?")).await;
    assert_eq!(error["status"], 404, "{error}");
    client.connect(&house, &fresh, json!({ "client": "third" })).await;
    let mut call = echo("back");
    call["client"] = json!("third");
    client.does(call).await;
}

#[tokio::test]
async fn a_client_that_asks_for_the_newest_revision_falls_back_by_itself() {
    let upstream = ExternalProcess::everything(0).await;
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    let mut client = Driver::start(Sdk::Python2);
    let connected = client.connect(&house, &token, json!({ "mode": "auto" })).await;
    assert_eq!(connected["protocol_version"], "2025-11-25");
    let asked = client.line(|line| line["event"] == "http" && line["rpc"] == "server/discover").await;
    assert_eq!(asked["status"], 400);
    client.does(echo("hello")).await;
    assert_eq!(house.connected().await, 1);
}

#[tokio::test]
async fn a_restart_of_sessiond_in_the_middle_is_no_end_for_a_python_client() {
    let upstream = ExternalProcess::everything(0).await;
    // The client knows one address only: this one stays in front while sessiond moves behind it.
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    let front = BreakableProxy::before(&house).await;
    let mut client = Driver::start(Sdk::Python2);
    let url = format!("http://{}{}", front.address, house.path());
    let connected = client.does(json!({ "op": "connect", "url": url, "token": token })).await;
    client.does(echo("before")).await;
    let house = house.restart().await;
    front.lead_to(&house);
    client.does(echo("after")).await;
    assert_eq!(client.does(json!({ "op": "session_id" })).await["session_id"], connected["session_id"]);
    assert_eq!(house.connected().await, 1);
}
