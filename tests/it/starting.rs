//! A start with many open sessions: whoever watches over the service sees that it lives and how far it has come, and it can
//! be stopped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::command;
use crate::support::{Daemon, Holder};

const SESSIONS: usize = 3_000;

/// A database with many open sessions, of a service that has stopped.
async fn filled() -> TempDir {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    for _ in 0..SESSIONS / 500 {
        assert_eq!(operator.connect_many(500).await.len(), 500);
    }
    assert!(daemon.terminate().success());
    directory
}

/// A service that has opened its door and goes on starting, and where that door is.
fn begin(directory: &Path) -> (Child, String) {
    let mut child = command(directory, &[]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap_or_default();
        if let Some(address) = line["address"].as_str() {
            break address.to_owned();
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    (child, format!("http://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_many_sessions_are_loaded_livez_answers_readyz_says_how_far_and_all_else_is_to_come_back() {
    let directory = filled().await;
    let (mut child, base) = begin(directory.path());
    let http = reqwest::Client::new();
    let get = async |path: &str| {
        let answer = http.get(format!("{base}{path}")).send().await.unwrap();
        let (status, later) = (answer.status(), answer.headers().contains_key("retry-after"));
        (status, later, answer.text().await.unwrap())
    };
    let (begun, mut seen) = (Instant::now(), 0);
    loop {
        assert_eq!(get("/livez").await.0, StatusCode::OK, "it lives");
        let (status, _, body) = get("/readyz").await;
        if status == StatusCode::OK {
            break;
        }
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        seen += usize::from(body.contains("starting: ") && body.contains("open sessions loaded"));
        let (status, later, body) = get("/api/v1/applications").await;
        let comes = status == StatusCode::SERVICE_UNAVAILABLE && later && body.contains("starting");
        assert!(comes || status == StatusCode::UNAUTHORIZED, "{status} {body}");
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not get ready");
    }
    assert!(seen > 0, "it was ready before anybody could look");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_told_to_stop_stops_and_the_next_one_has_everything() {
    let directory = filled().await;
    let (mut child, _) = begin(directory.path());
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let begun = Instant::now();
    assert!(child.wait().unwrap().success(), "a stop is no failure");
    assert!(begun.elapsed() < Duration::from_secs(60), "it was heard");
    let daemon = Daemon::start(directory.path(), &[]);
    let operator: Holder = daemon.operator().await;
    let (_, applications) = operator.get("/api/v1/applications").await;
    let application = applications["items"][0]["id"].as_str().unwrap();
    let (_, counts) = operator.get(&format!("/api/v1/applications/{application}/sessions/count")).await;
    assert_eq!(counts["counts"]["active"], SESSIONS, "{counts}");
}
