//! Who asks is said once.

use super::{Wire, address_of, document, metrics_at, operations};
use crate::support::{Daemon, Server};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn two_credentials_or_two_hosts_are_refused_with_words_on_every_operation() {
    let server = Server::start().await;
    let token = server.operator().await.token.unwrap();
    let good = format!("authorization: Bearer {token}\r\n");
    let bad = "authorization: Bearer sat_nonsense\r\n".to_owned();
    let key = "apiKey: sak_nonsense\r\n".to_owned();
    let cases = [
        (format!("{good}{good}"), "authorization"),
        (format!("{good}{bad}"), "authorization"),
        (format!("{bad}Authorization: Basic eA==\r\n"), "authorization"),
        (format!("{key}{key}"), "apikey"),
        (format!("{good}{key}"), "two credentials"),
        (format!("{key}authorization: Basic eA==\r\n"), "two credentials"),
        (format!("{good}host: elsewhere\r\n"), "host"),
    ];
    let document = document(&server).await;
    let named = operations(&document).into_iter().map(|(method, path, _)| (method, path));
    let others = [
        ("POST", "/mcp"),
        ("GET", "/mcp"),
        ("DELETE", "/mcp/x"),
        ("GET", "/nothing"),
        ("POST", "/oauth2/token"),
    ];
    let others = others.map(|(method, path)| (method.to_owned(), path.to_owned()));
    let mut wire = Wire::to(address_of(&server)).await;
    for (method, path) in named.chain(others).filter(|(_, path)| path != "/livez" && path != "/readyz") {
        for (headers, word) in &cases {
            let text =
                format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: 0\r\n\r\n");
            let told = wire.ask(&text).await.unwrap();
            assert_eq!(told.status, 400, "{method} {path} {headers}: {told:?}");
            let said = told.body.to_ascii_lowercase();
            assert!(said.contains(word), "{method} {path} {headers}: {told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_told_under_an_address_or_a_name_of_ours_and_under_no_other() {
    let directory = TempDir::new().unwrap();
    let flags = [
        "--metrics-listen",
        "127.0.0.1:0",
        "--metrics-host",
        "Metrics.example",
        "--public-url",
        "http://s.example",
    ];
    let daemon = Daemon::start(directory.path(), &flags);
    let address = metrics_at(&daemon);
    for (host, status) in [
        ("host: localhost\r\n", 200),
        ("host: localhost:9000\r\n", 200),
        ("host: 127.0.0.1:9000\r\n", 200),
        ("host: [::1]:9000\r\n", 200),
        ("host: 10.1.2.3\r\n", 200),
        ("host: metrics.example.:9464\r\n", 200),
        ("host: S.example\r\n", 200),
        ("host: rebound.example\r\n", 403),
        ("host: localhost.rebound.example\r\n", 403),
        ("host: 127.0.0.1.rebound.example\r\n", 403),
        ("host: localhost\r\nhost: rebound.example\r\n", 403),
        ("host: \r\n", 403),
        ("", 403),
    ] {
        let told =
            Wire::to(address).await.ask(&format!("GET /metrics HTTP/1.1\r\n{host}\r\n")).await.unwrap();
        assert_eq!(told.status, status, "{host}: {told:?}");
        assert!(status == 200 || told.body.contains("--metrics-host"), "{told:?}");
    }
}
