//! What Prometheus reads.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::support::daemon::command;
use crate::support::{Daemon, Feed};

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

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_there_under_its_name_and_no_id_is_in_any() {
    let directory = TempDir::new().unwrap();
    let flags = ["--metrics-listen", "127.0.0.1:0", "--token-lifetime", "2s", "--webhook-allow-loopback"];
    let daemon = Daemon::start(directory.path(), &flags);
    let operator = daemon.operator().await;
    // Nobody listens there.
    let webhook = json!({ "url": "http://127.0.0.1:1/in", "types": ["connected"] });
    assert_eq!(operator.post("/api/v1/webhooks", webhook).await.0, 201);
    let agents = operator.connect_many(4).await;
    agents[0].call("heartbeat").await;
    let _feed =
        Feed::open(&agents[1].holder, &format!("/api/v1/agent-sessions/{}/events", agents[1].id), None).await;
    let url = address(&daemon);
    let first = reqwest::get(&url).await.unwrap().text().await.unwrap();
    assert!(first.contains("sessiond_stream_clients{kind=\"feed\"} 1\n"), "{first}");
    operator.delete(&agents[2].path()).await;
    assert_eq!(agents[2].call("heartbeat").await.0, 401);
    operator.post("/mcp/nonsense", json!({})).await;
    let mut text = String::new();
    for _ in 0..100 {
        let answer = reqwest::get(&url).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        text = answer.text().await.unwrap();
        let late =
            ["sessiond_expiry_delay_seconds_count", "_deliveries_total{", "_log_lines_left_out_total{"];
        if late.iter().all(|name| text.contains(name)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let expected = [
        ("sessiond_append_duration_seconds", "histogram"),
        ("sessiond_bodies_refused_total", "counter"),
        ("sessiond_body_bytes", "gauge"),
        ("sessiond_build_info", "gauge"),
        ("sessiond_commit_batch_size", "histogram"),
        ("sessiond_connections", "gauge"),
        ("sessiond_connections_full_total", "counter"),
        ("sessiond_connections_overdue_total", "counter"),
        ("sessiond_connections_taken_total", "counter"),
        ("sessiond_events_appended_total", "counter"),
        ("sessiond_events_let_go_total", "counter"),
        ("sessiond_expiry_delay_seconds", "histogram"),
        ("sessiond_http_request_duration_seconds", "histogram"),
        ("sessiond_log_lines_left_out_total", "counter"),
        ("sessiond_revocations_total", "counter"),
        ("sessiond_sessions", "gauge"),
        ("sessiond_sessions_let_go_total", "counter"),
        ("sessiond_sessions_revoked_total", "counter"),
        ("sessiond_stream_clients", "gauge"),
        ("sessiond_upstream_goodbyes_waiting", "gauge"),
        ("sessiond_use_after_end_total", "counter"),
        ("sessiond_webhook_deliveries_total", "counter"),
    ];
    // Store errors appear with the first.
    assert_eq!(types(&text).into_iter().collect::<Vec<_>>(), expected, "{text}");
    for line in [
        "sessiond_sessions{status=\"disconnected\"} 1",
        "sessiond_events_appended_total{type=\"connected\"} 4",
        "sessiond_revocations_total{scope=\"session\"} 1",
        "sessiond_sessions_revoked_total 1",
        "sessiond_use_after_end_total 1",
        "sessiond_build_info{version=\"0.1.0\"} 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}:\n{text}");
    }
    let route = "route=\"/api/v1/agent-sessions/{sessionId}/heartbeat\",method=\"POST\",status=\"401\"";
    assert!(text.contains(route), "{text}");
    assert!(text.contains("sessiond_webhook_deliveries_total{outcome=\"failed\"} "), "{text}");
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
