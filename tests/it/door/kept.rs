//! When a connection is kept: it closes only after an answer that said so, or where there has been nothing for as long as
//! the last answer announced.

use std::time::{Duration, Instant};

use super::{Wire, address_of};
use crate::support::Server;

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_outlives_the_time_for_a_head_and_lasts_as_long_as_was_announced() {
    let server = Server::with(&["--head-timeout", "1s", "--idle-timeout", "3s"]).await;
    let mut wire = Wire::to(address_of(&server)).await;
    for _ in 0..2 {
        let told = wire.ask(LIVEZ).await.unwrap();
        assert!(told.head.contains("\r\nkeep-alive: timeout=3\r\n"), "{told:?}");
        tokio::time::sleep(Duration::from_millis(2_000)).await;
    }
    assert!(wire.ask(LIVEZ).await.is_some());
    let begun = Instant::now();
    assert_eq!(wire.until_closed().await, "");
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    // Proxies keep theirs for 75 seconds or less, Go's and Rust's clients for 90.
    let server = Server::start().await;
    let told = Wire::to(address_of(&server)).await.ask(LIVEZ).await.unwrap();
    assert!(told.head.contains("\r\nkeep-alive: timeout=120\r\n"), "{told:?}");
}

/// Requests that are answered before their body has come, as clients send them that write head and body one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_before_the_body_leaves_the_connection_as_it_says() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(serde_json::json!({})).await;
    operator.delete(&agent.path()).await;
    let (bad, over) = ("sat_nonsense".to_owned(), agent.holder.token.clone().unwrap());
    let heartbeat = format!("/api/v1/agent-sessions/{}/heartbeat", agent.id);
    let cases = [
        ("POST", "/mcp", Some(&bad), 401),
        ("POST", "/mcp", None, 401),
        ("POST", heartbeat.as_str(), Some(&over), 401),
        ("POST", "/api/v1/agent-sessions", Some(&bad), 401),
        ("POST", "/api/v1/applications", None, 401),
        ("POST", "/pro/session-manager/v1/sessions/task", None, 401),
        ("POST", "/v1/sessions", None, 401),
        ("POST", "/v1/vhosts/default/apps/app/streams", None, 401),
        ("POST", "/nothing", None, 404),
        ("PUT", "/api/v1/agent-sessions", None, 405),
        ("GET", "/livez", None, 200),
    ];
    for (method, path, token, status) in cases {
        for (length, closes) in [(100, false), (60_000, false), (2 << 20, true)] {
            let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{token}content-type: application/json\r\n\
                 accept: application/json, text/event-stream\r\ncontent-length: {length}\r\n\r\n"
            );
            let mut wire = Wire::to(address_of(&server)).await;
            let told = wire.ask(&head).await.unwrap_or_else(|| panic!("{method} {path} {length}"));
            assert_eq!((told.status, told.closes()), (status, closes), "{method} {path} {length}: {told:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !closes {
                assert!(wire.say("x".repeat(length)).await);
                let next = wire.ask(LIVEZ).await;
                assert_eq!(next.map(|told| told.status), Some(200), "{method} {path} {length}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_to_be_asked_for_a_body_is_not_asked_for_one_that_nobody_reads() {
    let server = Server::start().await;
    let mut wire = Wire::to(address_of(&server)).await;
    let head = "POST /api/v1/agent-sessions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\
                expect: 100-continue\r\n\r\n";
    let told = wire.ask(head).await.unwrap();
    assert_eq!((told.status, told.closes()), (401, true), "{told:?}");
    assert_eq!(wire.until_closed().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_read_to_its_end_by_whoever_is_still_sending() {
    let server = Server::start().await;
    for _ in 0..20 {
        let mut wire = Wire::to(address_of(&server)).await;
        let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2097152\r\n\r\n";
        wire.say(head).await;
        wire.say(vec![b' '; 2 << 20]).await;
        let told = wire.told().await.expect("an answer, not a broken connection");
        assert_eq!((told.status, told.closes()), (401, true));
    }
    for _ in 0..20 {
        let mut wire = Wire::to(address_of(&server)).await;
        wire.say(format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(200_000))).await;
        assert_eq!(wire.told().await.expect("an answer, not a broken connection").status, 431);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_answered_while_the_service_stops_is_told_that_it_was_the_last_answer() {
    let mut server = Server::start().await;
    let token = server.token("management:all mcp:invoke").await;
    let mut wire = Wire::to(address_of(&server)).await;
    assert!(!wire.ask(LIVEZ).await.unwrap().closes());
    let head =
        "POST /api/v1/agent-sessions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    wire.say(format!("{head}authorization: Bearer {token}\r\ncontent-length: 2\r\n\r\n{{")).await;
    // So that it is under way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let rest = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        wire.ask("}").await
    };
    let (told, ()) = tokio::join!(rest, server.stop());
    let told = told.expect("what was under way is answered");
    assert_eq!((told.status, told.closes()), (201, true), "{told:?}");
    assert_eq!(wire.until_closed().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nearly_all_places_are_taken_connections_are_not_kept() {
    let server = Server::with(&["--max-connections", "16"]).await;
    let address = address_of(&server);
    assert!(!Wire::to(address).await.ask(LIVEZ).await.unwrap().closes());
    let held = futures_util::future::join_all((0..15).map(|_| Wire::to(address))).await;
    server
        .until("an answer that says so", || async {
            Wire::to(address).await.ask(LIVEZ).await.unwrap().closes()
        })
        .await;
    drop(held);
}
