//! What Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::support::daemon::command;
use crate::support::{Daemon, Feed, Holder};

/// Where a process says that its metrics are.
fn address(daemon: &Daemon) -> String {
    let lines = daemon.log();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let found = lines.filter_map(|line| line["metrics"].as_str().map(str::to_owned)).next();
    format!("http://{}/metrics", found.expect("it says where"))
}

/// The types by name, as the text says.
fn types(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.filter_map(|line| line.split_once(' ')).collect()
}

fn holds_uuid(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .any(|word| uuid::Uuid::try_parse(word).is_ok() || (word.len() >= 32 && !word.contains('-')))
}

/// Every series that there is: name and labels, without histograms' parts.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let parts = ["_bucket", "_sum", "_count"];
    let of_histogram =
        |name: &str| parts.iter().any(|part| name.split('{').next().is_some_and(|name| name.ends_with(part)));
    lines.map(|(name, _)| name.to_owned()).filter(|name| !of_histogram(name)).collect()
}

async fn read(url: &str) -> String {
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    answer.text().await.unwrap()
}

/// Reads until all of these lines are there.
async fn read_until(url: &str, lines: &[&str]) -> String {
    for _ in 0..200 {
        let text = read(url).await;
        if lines.iter().all(|line| text.lines().any(|one| one.starts_with(line))) {
            return text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{lines:?} in:\n{}", read(url).await)
}

/// What appears with the first that is measured: there is nothing to say of it before.
const LATER: [&str; 8] = [
    "sessiond_append_duration_seconds",
    "sessiond_barrier_duration_seconds",
    "sessiond_certificate_expiry_timestamp_seconds",
    "sessiond_commit_batch_size",
    "sessiond_expiry_delay_seconds",
    "sessiond_http_request_duration_seconds",
    "sessiond_node_lease_seconds",
    "sessiond_nodes",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_counter_is_there_from_the_start_and_says_what_it_is() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &["--metrics-listen", "127.0.0.1:0"]);
    let text = read_until(&address(&daemon), &["sessiond_webhooks{standing=\"ok\"} 0"]).await;
    let types = types(&text);
    for (name, kind) in &types {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} does not say what it is");
        assert!(kind != &"summary", "{name} has no steps");
        assert!(kind != &"counter" || name.ends_with("_total"), "{name}");
    }
    let source = std::fs::read_to_string("src/meter.rs").unwrap();
    let named = source.lines().filter_map(|line| line.split_once("&str = \"sessiond_"));
    for name in named.map(|(_, rest)| format!("sessiond_{}", rest.trim_end_matches("\";"))) {
        let there = types.contains_key(name.as_str());
        assert!(there || LATER.contains(&name.as_str()), "{name} is not there from the start:\n{text}");
    }
    for line in [
        "sessiond_events_appended_total{type=\"disconnected\"} 0",
        "sessiond_revocations_total{scope=\"organization\"} 0",
        "sessiond_sessions_revoked_total 0",
        "sessiond_sessions_let_go_total 0",
        "sessiond_events_let_go_total{kind=\"activity\"} 0",
        "sessiond_sessions_open{kind=\"terminal\"} 0",
        "sessiond_requests_refused_total{reason=\"address\"} 0",
        "sessiond_webhook_deliveries_total{outcome=\"failed\"} 0",
        "sessiond_webhook_deliveries_waiting 0",
        "sessiond_upstream_goodbyes_total{what=\"delete\",outcome=\"refused\"} 0",
        "sessiond_store_errors_total{kind=\"full\"} 0",
        "sessiond_revocations_unfinished 0",
        "sessiond_limits_reached_total{limit=\"session_limit_reached\"} 0",
        "sessiond_limits_reached_total{limit=\"too_many_bars\"} 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}:\n{text}");
    }
    for begun in ["process_open_fds ", "process_resident_memory_bytes ", "process_start_time_seconds "] {
        assert!(
            text.lines().any(|line| line.starts_with(begun) && !line.ends_with(" 0")),
            "{begun}:\n{text}"
        );
    }
    for what in ["database", "write_ahead_log", "journals", "journals_write_ahead_log"] {
        assert!(text.contains(&format!("sessiond_store_bytes{{what=\"{what}\"}} ")), "{what}:\n{text}");
    }
    let problems = std::fs::read_to_string("docs/problems.md").unwrap();
    for limit in problems
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|code| code.ends_with("_limit_reached"))
    {
        let line = format!("sessiond_limits_reached_total{{limit=\"{limit}\"}} 0");
        assert!(text.contains(&line), "{line}:\n{text}");
    }
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_without_an_id_and_brings_no_counter_into_being() {
    let directory = TempDir::new().unwrap();
    let flags = ["--metrics-listen", "127.0.0.1:0", "--token-lifetime", "2s", "--webhook-allow-loopback"];
    let daemon = Daemon::start(directory.path(), &flags);
    let url = address(&daemon);
    let job = "sessiond_job_last_success_timestamp_seconds{job=\"deadlines\"} 1";
    let before = read_until(&url, &["sessiond_webhooks{standing=\"failing\"} 0", job]).await;
    let operator = daemon.operator().await;
    // Nobody listens there.
    let webhook = json!({ "url": "http://127.0.0.1:1/in", "types": ["connected"] });
    assert_eq!(operator.post("/api/v1/webhooks", webhook).await.0, 201);
    let agents = operator.connect_many(4).await;
    agents[0].call("heartbeat").await;
    let _feed =
        Feed::open(&agents[1].holder, &format!("/api/v1/agent-sessions/{}/events", agents[1].id), None).await;
    read_until(
        &url,
        &["sessiond_stream_clients{kind=\"feed\"} 1", "sessiond_sessions_open{kind=\"agent\"} 4"],
    )
    .await;
    operator.delete(&agents[2].path()).await;
    assert_eq!(agents[2].call("heartbeat").await.0, 401);
    operator.post("/mcp/nonsense", json!({})).await;
    let stranger = Holder { token: Some("sat_made_up".to_owned()), ..operator.clone() };
    assert_eq!(stranger.get("/api/v1/organizations").await.0, 401);
    let text = read_until(
        &url,
        &[
            "sessiond_expiry_delay_seconds_count",
            "sessiond_webhooks{standing=\"failing\"} 1",
            "sessiond_webhook_deliveries_waiting 4",
            "sessiond_sessions{status=\"disconnected\"} 1",
            "sessiond_events_appended_total{type=\"connected\"} 4",
            "sessiond_revocations_total{scope=\"session\"} 1",
            "sessiond_sessions_revoked_total 1",
            "sessiond_use_after_end_total 1",
            "sessiond_requests_refused_total{reason=\"unauthenticated\"} 1",
            "sessiond_build_info{version=\"0.1.0\"} 1",
        ],
    )
    .await;
    let route = "route=\"/api/v1/agent-sessions/{sessionId}/heartbeat\",method=\"POST\",status=\"401\"";
    assert!(text.contains(route), "{text}");
    assert!(!text.contains("sessiond_webhook_deliveries_total{outcome=\"failed\"} 0"), "{text}");
    let new: Vec<_> = series(&text).difference(&series(&before)).cloned().collect();
    assert_eq!(new, [""; 0], "what is there from the first on cannot be told from what was always there");
    assert!(!holds_uuid(&text), "{text}");
    let public = operator.get("/metrics").await;
    assert_eq!(public.0, 404, "it is not where everybody comes in");
    assert!(daemon.terminate().success());
}

#[test]
fn metrics_for_other_machines_need_a_word_of_consent() {
    let directory = TempDir::new().unwrap();
    let mut command: Command = command(directory.path(), &["--metrics-listen", "0.0.0.0:0"]);
    let output = command.stdout(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--insecure-http"), "{output:?}");
}
