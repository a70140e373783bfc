//! What nobody may use up: requests, failures, time, connections.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{CLIENT_ID, Holder, Server};

fn header<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn get(holder: &Holder, path: &str) -> reqwest::Response {
    holder.send(reqwest::Method::GET, path, None).await
}

const POLICY: &str = "/api/v1/policy";

// ---- how often ----

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_has_its_own_allowance_is_told_what_is_left_and_when_to_come_back() {
    let server = Server::with(&["--rate-limit", "20"]).await;
    let (one, other) = (server.operator().await, server.operator().await);
    let answer = get(&one, POLICY).await;
    assert_eq!(header(&answer, "ratelimit-policy"), "\"default\";q=20;w=1");
    assert!(header(&answer, "ratelimit").starts_with("\"default\";r=19;t="), "{:?}", answer.headers());
    let refused = loop {
        let answers = futures_util::future::join_all((0..40).map(|_| get(&one, POLICY))).await;
        if let Some(refused) = answers.into_iter().find(|answer| answer.status() == 429) {
            break refused;
        }
    };
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_eq!(header(&refused, "ratelimit-policy"), "\"default\";q=20;w=1");
    assert_eq!(header(&refused, "ratelimit"), "\"default\";r=0;t=1");
    let body: Value = refused.json().await.unwrap();
    assert_eq!((&body["code"], &body["status"]), (&json!("rate_limited"), &json!(429)));
    assert_eq!(get(&other, POLICY).await.status(), 200, "another credential is another matter");
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(&one, path).await.status(), 200);
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(get(&one, POLICY).await.status(), 200, "it was told when to come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_knows_only_the_id_of_a_token_uses_up_nothing_of_its_holder() {
    let server = Server::with(&["--rate-limit", "20"]).await;
    let operator = server.operator().await;
    let token = operator.token.clone().unwrap();
    let id = token.split('_').nth(1).unwrap();
    let forger = server.holder(format!("sat_{id}_{}", "x".repeat(43)));
    for path in [POLICY, "/openapi.json"] {
        futures_util::future::join_all((0..60).map(|_| get(&forger, path))).await;
    }
    assert_eq!(get(&operator, POLICY).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_bad_tokens_end_in_429_while_a_good_one_from_the_same_address_is_served() {
    let server = Server::with(&["--rate-limit", "600"]).await;
    let operator = server.operator().await;
    let began = Instant::now();
    let (mut refused, mut told) = (0, 0);
    let numbers: Vec<u32> = (0..1_000).collect();
    for some in numbers.chunks(50) {
        let ask = |number: &u32| {
            let bad = server.holder(format!("sat_{number:032x}_{}", "x".repeat(43)));
            let path = if number.is_multiple_of(2) { POLICY } else { "/mcp" };
            async move { get(&bad, path).await }
        };
        for answer in join_all(some.iter().map(ask)).await {
            match answer.status() {
                StatusCode::UNAUTHORIZED => told += 1,
                StatusCode::TOO_MANY_REQUESTS => {
                    assert!(header(&answer, "retry-after").parse::<u32>().unwrap() >= 1);
                    refused += 1;
                }
                other => panic!("{other}"),
            }
        }
    }
    // Ten more are told in each second that it takes.
    let most = 200 + 10 * began.elapsed().as_secs();
    assert!(
        told >= 100 && told <= most && refused > 0,
        "{told} of at most {most} were told, {refused} refused"
    );
    let guesses = (0..100).map(|_| {
        let guess = server.http.post(server.url("/oauth2/token")).basic_auth(CLIENT_ID, Some("guess"));
        guess.form(&[("grant_type", "client_credentials")]).send()
    });
    let guesses = join_all(guesses).await;
    assert!(
        guesses.into_iter().any(|guess| guess.unwrap().status() == 429),
        "guessing secrets counts as well"
    );
    assert_eq!(get(&operator, POLICY).await.status(), 200);
    server.operator().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_were_cut_off_at_once_all_learn_why() {
    let server = Server::with(&["--rate-limit", "600"]).await;
    let operator = server.operator().await;
    let agents = operator.connect_many(300).await;
    operator.delete(&format!("/api/v1/applications/{}/sessions", agents[0].application)).await;
    for agent in &agents {
        let (status, body) = agent.call("heartbeat").await;
        assert_eq!((status.as_u16(), &body["code"]), (401, &json!("session_revoked")), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_for_tokens_without_end_is_slowed_down() {
    let server = Server::with(&["--rate-limit", "5"]).await;
    let ask = || async {
        let request = server.http.post(server.url("/oauth2/token"));
        let request = request.basic_auth(CLIENT_ID, Some(crate::support::CLIENT_SECRET));
        request.form(&[("grant_type", "client_credentials")]).send().await.unwrap().status().as_u16()
    };
    let answers = futures_util::future::join_all((0..30).map(|_| ask())).await;
    assert!(answers.contains(&200) && answers.contains(&429), "{answers:?}");
}

// ---- from where ----

/// The address that was recorded with a new session.
async fn recorded_ip(server: &Server, forwarded: &[&str]) -> String {
    let operator = server.operator().await;
    let mut request = operator.http.post(server.url("/api/v1/agent-sessions"));
    for one in forwarded {
        request = request.header("x-forwarded-for", *one);
    }
    let request = request.bearer_auth(operator.token.as_ref().unwrap()).json(&json!({}));
    assert_eq!(request.send().await.unwrap().status(), 201);
    let mut inside = server.look_inside().await;
    let query = "select personal from event where type = 'connected' order by position desc limit 1";
    let personal: Vec<(String,)> = inside.rows(query, &[]).await;
    let personal: Value = serde_json::from_str(&personal[0].0).unwrap();
    personal["ip"].as_str().unwrap_or_else(|| panic!("{personal}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_address_is_the_peers_whatever_an_untrusted_one_says() {
    let server = Server::with(&["--trusted-proxy", "10.0.0.0/8"]).await;
    assert_eq!(recorded_ip(&server, &[]).await, "127.0.0.1");
    assert_eq!(recorded_ip(&server, &["203.0.113.9"]).await, "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_trusted_proxies_the_recorded_address_is_the_last_one_that_none_of_them_has() {
    let server = Server::with(&["--trusted-proxy", "127.0.0.0/8,10.0.0.0/8"]).await;
    for (forwarded, expected) in [
        (&[][..], "127.0.0.1"),
        (&["203.0.113.9"][..], "203.0.113.9"),
        (&["198.51.100.1, 203.0.113.9, 10.1.2.3"][..], "203.0.113.9"),
        (&["198.51.100.1", "203.0.113.9:4711", "10.1.2.3"][..], "203.0.113.9"),
        (&["[2001:db8::1]:443"][..], "2001:db8::1"),
        (&["10.9.9.9, 10.1.2.3"][..], "10.9.9.9"),
        (&["203.0.113.9, nonsense, 10.1.2.3"][..], "10.1.2.3"),
    ] {
        assert_eq!(recorded_ip(&server, forwarded).await, expected, "{forwarded:?}");
    }
}

// ---- how long ----

/// Sends something, and returns what comes back until the other end closes.
async fn talk(server: &Server, text: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(server.running.as_ref().unwrap().address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![];
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(9), read).await.expect("it is closed").ok();
    (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_in_is_cut_off_with_408_and_a_head_that_does_with_nothing() {
    let server = Server::with(&["--body-timeout", "1s", "--head-timeout", "1s"]).await;
    let token = server.operator().await.token.unwrap();
    let head = format!(
        "POST /api/v1/agent-sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 60000\r\n\r\n"
    );
    let mut stream = TcpStream::connect(server.running.as_ref().unwrap().address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let trickle = tokio::spawn(async move {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let (begun, mut answer) = (Instant::now(), vec![]);
    tokio::time::timeout(Duration::from_secs(9), read.read_to_end(&mut answer)).await.unwrap().ok();
    trickle.abort();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_too_slow"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(900));

    let (answer, took) = talk(&server, "GET /livez HTTP/1.1\r\nhost: ").await;
    assert!(took >= Duration::from_millis(900) && !answer.contains("200"), "{took:?} {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_gets_503() {
    let server = Server::with(&["--body-timeout", "9s", "--request-timeout", "1s"]).await;
    let token = server.operator().await.token.unwrap();
    let request = |method: &str, path: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: 9\r\n\r\n{{"
        )
    };
    // What takes long here is the rest of the body, for which it waits.
    let (answer, _) = talk(&server, &request("POST", "/api/v1/agent-sessions")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"code\":\"timeout\""), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_may_take_longer_than_other_requests() {
    use sqlx::Connection;
    if crate::support::store::has_no_file("somebody else locks the file") {
        return;
    }
    let server = Server::with(&["--request-timeout", "1s"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let list = format!("/api/v1/applications/{}/sessions", agent.application);
    // Somebody else writes to the database, and the writer waits.
    let mut other = sqlx::SqliteConnection::connect(&server.database()).await.unwrap();
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    let until_later = async {
        tokio::time::sleep(Duration::from_millis(1_800)).await;
        sqlx::query("rollback").execute(&mut other).await.unwrap();
    };
    let (created, (status, body), ()) =
        tokio::join!(operator.post("/api/v1/agent-sessions", json!({})), operator.delete(&list), until_later);
    assert_eq!((created.0.as_u16(), &created.1["code"]), (503, &json!("timeout")), "{}", created.1);
    assert_eq!((status.as_u16(), &body["success"]), (200, &json!(true)), "{body}");
    assert_eq!(agent.call("heartbeat").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_an_allowed_origin_may_read_that_they_ask_too_often() {
    let server = Server::with(&["--rate-limit", "3", "--allow-origin", "https://page.example"]).await;
    let ask = |token: String| {
        let server = &server;
        async move {
            let request = server.http.get(server.url("/mcp")).bearer_auth(token);
            let answers = (0..130)
                .map(|_| request.try_clone().unwrap().header("origin", "https://page.example").send());
            let answers = futures_util::future::join_all(answers).await;
            answers.into_iter().map(Result::unwrap).find(|answer| answer.status() == 429).unwrap()
        }
    };
    let good = server.operator().await.token.unwrap();
    for token in [good, "nonsense".to_owned()] {
        let refused = ask(token).await;
        assert_eq!(header(&refused, "access-control-allow-origin"), "https://page.example");
        assert_eq!(header(&refused, "vary"), "Origin");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_outlive_the_time_a_request_may_take() {
    let server = Server::with(&["--request-timeout", "1s"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let path = format!("/api/v1/agent-sessions/{}/events", agent.id);
    let mut feed = crate::support::Feed::open(&agent.holder, &path, None).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    operator.delete(&agent.path()).await;
    feed.next_named("disconnected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_more_than_16_kib_is_refused_with_431() {
    let server = Server::start().await;
    let (answer, _) =
        talk(&server, &format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(17_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let long =
        format!("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(14_000));
    assert!(talk(&server, &long).await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_until_others_close() {
    let server = Server::with(&["--max-connections", "2"]).await;
    let address = server.running.as_ref().unwrap().address;
    let hold = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    tokio::time::sleep(Duration::from_millis(100)).await;
    let third = server.http.get(server.url("/livez")).timeout(Duration::from_millis(500)).send().await;
    assert!(third.is_err_and(|error| error.is_timeout()));
    drop(hold);
    assert_eq!(server.stranger().get("/livez").await.0, 200);
}

// ---- what every answer carries ----

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_that_it_is_no_page() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for path in ["/livez", POLICY, "/nothing", "/mcp", "/mcp/%ff", "/openapi.yaml"] {
        for holder in [&operator, &server.stranger()] {
            let answer = get(holder, path).await;
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
                ("referrer-policy", "no-referrer"),
                ("x-frame-options", "DENY"),
                ("cache-control", "no-store"),
                ("strict-transport-security", ""),
            ] {
                assert_eq!(header(&answer, name), value, "{path}: {name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_text_is_refused_in_the_words_of_its_surface() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for (path, status) in [
        ("/mcp/%ff", 404),
        ("/.well-known/oauth-protected-resource/mcp/%ff", 404),
        ("/.well-known/oauth-authorization-server/mcp/%ff", 404),
    ] {
        let answer = get(&operator, path).await;
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "content-type")),
            (status, "application/json"),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_nothing_is_asked_whether_it_is_still_there() {
    let server = Server::with(&["--head-timeout", "60s"]).await;
    let address = server.running.as_ref().unwrap().address;
    let quiet = TcpStream::connect(address).await.unwrap();
    // Our end of the connection, as the kernel lists it: local and remote port in hex, state 01 is established. Then two
    // queues, and what timer runs: 02 is keepalive, with what is left of it in hundredths of a second.
    let client = quiet.local_addr().unwrap().port();
    let ends = format!(":{:04X} 0100007F:{client:04X} 01 ", address.port());
    let left = || {
        let list = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let timer = list.lines().find_map(|line| line.split_once(&ends))?.1.split(' ').nth(1)?;
        u32::from_str_radix(timer.strip_prefix("02:")?, 16).ok()
    };
    server.until("a timer runs", async || left().is_some_and(|left| left <= 1_500)).await;
}
