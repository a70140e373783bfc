//! Requests that began before a revoke and come to their end after it.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::House;

/// A POST whose last byte has not come yet.
struct Late(TcpStream);

impl Late {
    async fn begin(house: &House, token: &str, headers: &str, body: &Value) -> Self {
        let (address, path, body) = (house.address(), house.path(), body.to_string());
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\n{headers}\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&body.as_bytes()[..body.len() - 1]).await.unwrap();
        // So that it has been let in.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Self(socket)
    }

    async fn end(mut self) -> String {
        self.0.write_all(b"}").await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(10), self.0.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

const MODERN: &str = "mcp-protocol-version: 2026-07-28\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_was_barred_while_its_message_came_opens_nothing() {
    let (house, upstream) = House::with_fake(&[]).await;
    let old = house.modern().await;
    let info = json!({ "name": "x", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    let call = old.body(json!(1), "tools/call", json!({ "name": "echo" }));
    let discover = old.body(json!(1), "server/discover", json!({}));
    let named = |method: &str| format!("{MODERN}mcp-method: {method}\r\n");
    let late = [
        Late::begin(&house, &old.token, "", &initialize).await,
        Late::begin(&house, &old.token, &named("server/discover"), &discover).await,
        Late::begin(&house, &old.token, &format!("{}mcp-name: echo\r\n", named("tools/call")), &call).await,
    ];
    house.revoke_all().await;
    // Its owner has come back, so that there is a session the old token could reach.
    assert_eq!(house.modern().await.call("echo").await.0, StatusCode::OK);
    let reached = upstream.sent().len();
    for late in late {
        let answer = late.end().await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("revoked"), "{answer}");
    }
    assert_eq!(upstream.sent().len(), reached, "none of it went to the upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_to_a_handshake_after_a_revoke_is_not_handed_on() {
    for closed in [true, false] {
        let (house, upstream) = House::with_fake(&[]).await;
        *upstream.told.hesitates.lock() = true;
        *upstream.told.closed.lock() = closed;
        let client = house.client(&house.token().await);
        let asking = tokio::spawn(async move {
            let answer = client.try_initialize().await;
            (answer.status(), answer.text().await.unwrap())
        });
        upstream.until(|sent| sent.rpc() == "initialize").await;
        house.revoke_all().await;
        upstream.told.release.notify_one();
        let (status, text) = asking.await.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{text}");
        assert!(!text.contains("Not today") && !text.contains("serverInfo"), "{text}");
    }
}
