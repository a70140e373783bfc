//! What the service says of itself, and that it never waits for whoever should be reading it.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::daemon::command;
use crate::support::{CLIENT_ID, CLIENT_SECRET, Daemon, Holder};

/// A port that was free just now: where the log cannot be read, nobody says which it became.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server whose log goes to a place that is no good.
struct Unheard {
    child: Child,
    base: String,
}

impl Unheard {
    fn start(directory: &TempDir, to: Stdio) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = command(directory.path(), &["--listen", &address]);
        // Much to say.
        command.env("RUST_LOG", "trace").stdin(Stdio::null()).stdout(Stdio::null()).stderr(to);
        Self { child: command.spawn().unwrap(), base: format!("http://{address}") }
    }

    /// Does what says much in the log, for a while.
    async fn works(&self) {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        let begun = Instant::now();
        let ready = async || {
            let answer = http.get(format!("{}/readyz", self.base)).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        while !ready().await {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let form = [("grant_type", "client_credentials"), ("scope", "management:all mcp:invoke")];
        let request =
            http.post(format!("{}/oauth2/token", self.base)).basic_auth(CLIENT_ID, Some(CLIENT_SECRET));
        let body: Value = request.form(&form).send().await.unwrap().json().await.unwrap();
        let token = body["access_token"].as_str().map(str::to_owned);
        let operator = Holder { base: self.base.clone(), token, http };
        let agent = operator.connect(json!({})).await;
        for _ in 0..300 {
            assert_eq!(agent.call("heartbeat").await.0, 200);
        }
    }

    fn stops(mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status:?}");
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let directory = TempDir::new().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let server = Unheard::start(&directory, writer.into());
    server.works().await;
    server.stops();
    drop(reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_harms_nothing() {
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for to in [Stdio::from(closed), full.into()] {
        let directory = TempDir::new().unwrap();
        let server = Unheard::start(&directory, to);
        server.works().await;
        server.stops();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_fills_no_log_and_what_was_left_out_is_counted() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &["--metrics-listen", "127.0.0.1:0"]);
    let operator = daemon.operator().await;
    let (_, applications) = operator.get("/api/v1/applications").await;
    let application = applications["items"][0]["id"].as_str().unwrap();
    let upstream = json!({ "url": "http://127.0.0.1:9/mcp" });
    let path = format!("/api/v1/applications/{application}/upstream");
    assert!(operator.send(reqwest::Method::PUT, &path, Some(&upstream)).await.status().is_success());
    let path = format!("/mcp/{application}");
    let begun = Instant::now();
    for number in 0..400 {
        let id = format!("smc_{number:032x}_{}", "A".repeat(43));
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        let request = operator.http.post(format!("{}{path}", daemon.base));
        let request = request.bearer_auth(operator.token.as_ref().unwrap()).header("Mcp-Session-Id", id);
        let request = request.header("Accept", "application/json, text/event-stream");
        assert_eq!(request.json(&call).send().await.unwrap().status(), 404);
    }
    let took = begun.elapsed().as_secs() as usize + 1;
    let lines = daemon.log().lines().filter(|line| line.contains("sessiond::security")).count();
    assert!((1..=20 + 5 * took).contains(&lines), "{lines} lines in {took} s");
    let waited = Instant::now();
    while !daemon.log().contains("log lines were left out") {
        assert!(waited.elapsed() < Duration::from_secs(60), "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = daemon.log();
    let address = log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["metrics"].as_str().map(str::to_owned)
    });
    let metrics = format!("http://{}/metrics", address.unwrap());
    let metrics = operator.http.get(metrics).send().await.unwrap().text().await.unwrap();
    let counted = metrics.lines().find_map(|line| {
        line.strip_prefix("sessiond_log_lines_left_out_total{reason=\"repeated\"} ")?.parse::<usize>().ok()
    });
    assert!(counted.is_some_and(|counted| counted > 0), "{metrics}");
    assert!(
        metrics.contains("sessiond_log_lines_left_out_total{reason=\"slow\"} 0"),
        "there from the start: {metrics}"
    );
    assert!(daemon.terminate().success());
}

/// Lines about who changed what.
fn audit(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "sessiond::audit").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changed_what_is_said_in_a_line_and_what_sessions_do_all_day_in_none() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &["--log-format", "json"]);
    let operator = daemon.operator().await;
    let agents = operator.connect_many(3).await;
    agents[0].call("heartbeat").await;
    agents[0].call("disconnect").await;
    let quiet = audit(&daemon.log()).len();
    let (status, account) = operator.get("/api/v1/service-accounts").await;
    assert_eq!(status, 200);
    let account = account["items"][0]["id"].as_str().unwrap().to_owned();
    let (_, key) = operator.post("/api/v1/api-keys", json!({ "name": "ci", "scopes": ["mcp:invoke"] })).await;
    let key = key["apiKey"]["id"].as_str().unwrap().to_owned();
    operator.post(&format!("/api/v1/api-keys/{key}/rotate-secret"), json!({})).await;
    operator.delete(&format!("/api/v1/api-keys/{key}")).await;
    let (_, begun) =
        operator.post("/api/v1/revocations", json!({ "filter": { "status": ["active"] } })).await;
    let (_, who) = operator.get("/api/v1/principals").await;
    let person = who["items"][0]["id"].as_str().unwrap().to_owned();
    operator.post(&format!("/api/v1/principals/{person}/disable"), json!({})).await;
    operator.post(&format!("/api/v1/principals/{person}/enable"), json!({})).await;
    let (status, erased) = operator.delete(&format!("/api/v1/principals/{person}/personal")).await;
    assert!(status.is_success(), "{erased}");
    let user = json!({ "name": "ada", "scopes": ["mcp:invoke"], "user": { "id": "ada" } });
    assert_eq!(operator.post("/api/v1/api-keys", user).await.0, 201);
    let (status, placed) = operator.post("/api/v1/bars", json!({ "principal": "ada" })).await;
    assert_eq!(status, 201, "{placed}");
    let bar = placed["bar"]["id"].as_str().unwrap().to_owned();
    assert_eq!(operator.delete(&format!("/api/v1/bars/{bar}")).await.0, 200);
    assert!(daemon.child.id() > 0);
    let said = |lines: &[Value]| {
        lines.iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected = [
        "api key created",
        "api key secret rotated",
        "api key revoked",
        "revocation began",
        "revocation ended",
        "principal disabled",
        "principal enabled",
        "principal erased",
        "bar placed",
        "bar lifted",
    ];
    let begun_waiting = Instant::now();
    let lines = loop {
        let lines = audit(&daemon.log()).split_off(quiet);
        let all = said(&lines);
        if expected.iter().all(|one| all.iter().any(|line| line == one)) {
            break lines;
        }
        assert!(begun_waiting.elapsed() < Duration::from_secs(30), "{all:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let of = |message: &str| lines.iter().find(|line| line["message"] == message).unwrap();
    for message in ["api key created", "api key revoked", "revocation began", "principal disabled"] {
        assert_eq!(of(message)["actor"], format!("service_account {account}"), "{message}");
        assert_eq!(of(message)["level"], "INFO");
    }
    assert_eq!(of("api key revoked")["id"], key.as_str());
    assert_eq!((&of("bar placed")["id"], &of("bar lifted")["id"]), (&json!(bar), &json!(bar)));
    assert_eq!(of("revocation ended")["disconnected"], begun["revocation"]["disconnectedCount"]);
    let routine = ["connected", "disconnected", "activity recorded", "expired", "token renewed"];
    assert!(!said(&audit(&daemon.log())).iter().any(|line| routine.contains(&line.as_str())));
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn lines_are_written_as_text_where_that_is_asked_for() {
    let directory = TempDir::new().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = command(directory.path(), &["--log-format", "text", "--listen", &address]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let http = reqwest::Client::new();
    let begun = Instant::now();
    let ready = async || {
        http.get(format!("http://{address}/readyz")).send().await.is_ok_and(|one| one.status() == 200)
    };
    while !ready().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("sessiond is listening") && !log.contains('{') && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn what_rust_log_says_is_refused_where_it_cannot_be_read() {
    for wrong in ["info,=debug", "sessiond=loud", "[unclosed"] {
        let directory = TempDir::new().unwrap();
        let output = command(directory.path(), &[]).env("RUST_LOG", wrong).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{wrong}");
        assert!(
            said.contains("RUST_LOG is") && said.contains(wrong) && said.contains("write a level"),
            "{wrong}: {said}"
        );
    }
}
