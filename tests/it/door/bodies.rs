//! First who, then what: what is read before it is known who asks, and how much of all together.

use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::{Wire, address_at, address_of, document, is_open, metric, operations};
use crate::support::{Daemon, Server, resident};

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_waits_for_a_body_before_it_knows_who_asks() {
    let server = Server::with(&["--body-timeout", "90s", "--request-timeout", "90s"]).await;
    let document = document(&server).await;
    let mut asked = 0;
    for (method, path, operation) in operations(&document) {
        if method == "GET" || is_open(&operation) {
            continue;
        }
        for key in ["", "idempotency-key: k\r\n"] {
            for credential in [
                "",
                "authorization: Bearer sat_nonsense\r\n",
                "authorization: Basic eDp5\r\n",
                "apikey: sak_nonsense\r\n",
            ] {
                let text = format!(
                    "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{credential}{key}content-length: 60000\r\n\
                     content-type: {}\r\n\r\n",
                    if path.starts_with("/oauth2/") {
                        "application/x-www-form-urlencoded"
                    } else {
                        "application/json"
                    }
                );
                let mut wire = Wire::to(address_of(&server)).await;
                // Not a byte of the body is ever sent.
                let told = wire.ask(&text).await.unwrap_or_else(|| panic!("{method} {path} {credential}"));
                // Where a form may say who asks, it is a small one.
                let form = path.starts_with("/oauth2/") && told.status == 413;
                // Whoever fails too often is told so instead.
                assert!(
                    [401, 429].contains(&told.status) || form,
                    "{method} {path} {credential}{key}: {told:?}"
                );
                asked += 1;
            }
        }
    }
    assert!(asked > 250, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_send_is_not_kept() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &["--metrics-listen", "127.0.0.1:0"]);
    let operator = daemon.operator().await;
    operator.connect_many(20).await;
    let before = resident(daemon.child.id()).unwrap();
    let (address, spaces) = (address_at(&daemon), vec![b' '; (2 << 20) - 1]);
    for path in ["/v1/sessions", "/mcp", "/pro/session-manager/v1/sessions/heartbeats"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\ncontent-type: application/json\r\n\
             content-length: 2097152\r\n\r\n"
        );
        let wires = join_all((0..300).map(|_| async {
            let mut wire = Wire::to(address).await;
            wire.say(&head).await;
            let told = wire.told().await.expect("an answer before the body");
            assert!([401, 429].contains(&told.status) && told.closes(), "{told:?}");
            wire.say(&spaces).await;
            wire
        }))
        .await;
        assert_eq!(metric(&daemon, "sessiond_body_bytes").await, 0.0);
        drop(wires);
        let after = resident(daemon.child.id()).unwrap();
        // 600 MB came.
        assert!(after < before + (64 << 20), "{path}: {before} before, {after} after");
    }
}

/// A request of so many bytes, of which the last is missing, and that byte.
fn incomplete(path: &str, headers: &str, content: &str, length: usize) -> (String, String) {
    let (first, last) = content.split_at(content.len() - 1);
    let spaces = " ".repeat(length - content.len());
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{spaces}{first}"
    );
    (text, last.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_bodies_together_take_so_much_memory_and_whoever_comes_then_is_told_to_come_again() {
    let directory = TempDir::new().unwrap();
    let flags = [
        "--body-memory-mib",
        "1",
        "--body-timeout",
        "90s",
        "--request-timeout",
        "90s",
        "--metrics-listen",
        "127.0.0.1:0",
    ];
    let daemon = Daemon::start(directory.path(), &flags);
    let address = address_at(&daemon);
    let operator = daemon.operator().await;
    let headers = format!(
        "authorization: Bearer {}\r\ncontent-type: application/json\r\n",
        operator.token.as_ref().unwrap()
    );
    let (text, last) = incomplete("/api/v1/agent-sessions", &headers, "{}", 60_000);
    let fits = (1 << 20) / 60_000;
    let mut held = vec![];
    for number in 0..fits {
        let mut wire = Wire::to(address).await;
        wire.say(&text).await;
        held.push(wire);
        let expected = 59_999.0 * (number as f64 + 1.0);
        until("the body is held", async || metric(&daemon, "sessiond_body_bytes").await == expected).await;
    }
    let refused = Wire::to(address).await.ask(&text).await.unwrap();
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("busy")), "{refused:?}");
    assert!(refused.head.contains("\r\nretry-after: 1\r\n") && refused.closes(), "{refused:?}");
    assert!(metric(&daemon, "sessiond_bodies_refused_total").await >= 1.0);
    assert!(metric(&daemon, "sessiond_body_bytes").await <= f64::from(1 << 20));
    assert_eq!(operator.get("/api/v1/policy").await.0, 200, "what has no body goes on");
    for wire in &mut held {
        let told = wire.ask(&last).await.unwrap();
        assert_eq!(told.status, 201, "{told:?}");
    }
    until("nothing is held", async || metric(&daemon, "sessiond_body_bytes").await == 0.0).await;
    let mut again = Wire::to(address).await;
    again.say(&text).await;
    assert_eq!(again.ask(&last).await.unwrap().status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_fill_a_part_of_the_memory_for_bodies_and_lock_nobody_out() {
    let directory = TempDir::new().unwrap();
    let flags = [
        "--body-memory-mib",
        "1",
        "--body-timeout",
        "90s",
        "--request-timeout",
        "90s",
        "--metrics-listen",
        "127.0.0.1:0",
    ];
    let daemon = Daemon::start(directory.path(), &flags);
    let address = address_at(&daemon);
    let operator = daemon.operator().await;
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let (text, _) = incomplete("/oauth2/token", form, "client_id=x", 16 << 10);
    let fits = (1 << 20) / 4 / (16 << 10);
    let mut held = vec![];
    for _ in 0..fits + 4 {
        let mut wire = Wire::to(address).await;
        wire.say(&text).await;
        held.push(wire);
    }
    until("strangers are refused", async || metric(&daemon, "sessiond_bodies_refused_total").await >= 3.0)
        .await;
    let (status, body) =
        operator.post("/api/v1/agent-sessions", serde_json::json!({ "name": "x".repeat(200) })).await;
    assert_eq!(status, 201, "{body}");
    let (large, _) = incomplete("/oauth2/token", form, "client_id=x", (16 << 10) + 1);
    assert_eq!(Wire::to(address).await.ask(&large).await.unwrap().status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_surface_takes_bodies_of_its_own_size_with_a_key_or_without() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let key = |scopes: &str| serde_json::json!({ "name": scopes, "scopes": [scopes] });
    let mut tokens = std::collections::BTreeMap::new();
    for scope in ["session", "terminal", "media"] {
        let (status, body) = operator.post("/api/v1/api-keys", key(scope)).await;
        assert_eq!(status, 201, "{body}");
        tokens.insert(scope, body["key"].as_str().unwrap().to_owned());
    }
    use base64::Engine;
    let basic = base64::prelude::BASE64_STANDARD.encode(&tokens["media"]);
    let bearer = format!("authorization: Bearer {}", operator.token.as_ref().unwrap());
    for (path, credential, most) in [
        ("/v1/sessions", format!("authorization: Bearer {}", tokens["terminal"]), 64 << 10),
        ("/api/v1/agent-sessions", bearer.clone(), 64 << 10),
        ("/api/v1/agent-sessions/activity", bearer, 2 << 20),
        ("/pro/session-manager/v1/sessions/task", format!("apikey: {}", tokens["session"]), 64 << 10),
        ("/pro/session-manager/v1/sessions/heartbeats", format!("apikey: {}", tokens["session"]), 2 << 20),
        ("/v1/vhosts/default/apps/app/streams/s/sessions", format!("authorization: Basic {basic}"), 2 << 20),
    ] {
        for keyed in ["", "idempotency-key: k\r\n"] {
            for (length, large) in [(most, false), (most + 1, true)] {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nhost: localhost\r\n{credential}\r\n{keyed}content-type: application/json\r\n\
                     content-length: {length}\r\n\r\n"
                );
                let mut wire = Wire::to(address_of(&server)).await;
                wire.say(&head).await;
                if !large {
                    wire.say(vec![b' '; length]).await;
                }
                let told = wire.told().await.unwrap_or_else(|| panic!("{path} {keyed} {length}"));
                assert_eq!(told.status == 413, large, "{path} {keyed} {length}: {told:?}");
                assert!(
                    ![401, 404, 405].contains(&told.status) || path.starts_with("/v1/vhosts"),
                    "{path} {keyed} {length}: {told:?}"
                );
            }
        }
    }
}

async fn until(what: &str, look: impl AsyncFn() -> bool) {
    for _ in 0..3_000 {
        if look().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain until {what}");
}
