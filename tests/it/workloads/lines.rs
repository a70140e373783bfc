//! Logs over HTTP: anywhere at once, downloaded in little memory, out of the way of heartbeats, there after a kill.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use super::{Key, app, made};
use crate::support::{Daemon, Server};

async fn key_of(daemon: &Daemon) -> Key {
    let operator = daemon.operator().await;
    let (text, _) = made(&operator, json!({ "name": "cluster", "scopes": ["session"] })).await;
    Key { base: daemon.base.clone(), text: Some(text), http: operator.http }
}

/// Lines of about two hundred bytes that do not compress to nothing.
fn texts(from: usize, count: usize) -> Vec<String> {
    let noise = |number: usize| {
        let mut mixed = number as u64;
        (0..10)
            .map(|_| {
                mixed = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31) ^ 0xbf58_476d_1ce4_e5b9;
                format!("{mixed:016x}")
            })
            .collect::<String>()
    };
    (from..from + count).map(|number| format!("{number} {}", noise(number))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_page_by_page_without_a_gap_and_from_any_time() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let path = key.begin("task", app("Planner")).await;
    let at = |number: i64| {
        let begin = chrono::DateTime::parse_from_rfc3339("2026-03-01T00:00:00Z").unwrap();
        (begin + chrono::TimeDelta::seconds(number)).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    };
    for batch in 0..6_i64 {
        let lines: Vec<_> = (0..2_000)
            .map(|number| json!({ "time": at(batch * 2_000 + number), "text": format!("{}", batch * 2_000 + number) }))
            .collect();
        let (status, filed) = key.post(&format!("{path}/logs"), json!({ "lines": lines })).await;
        assert_eq!((status.as_u16(), &filed["first"]), (201, &json!(batch * 2_000 + 1)));
    }
    let (mut after, mut read) = (0, 0);
    loop {
        let page = key.see(&format!("{path}/logs?limit=1000&after={after}")).await;
        for line in page["lines"].as_array().unwrap() {
            assert_eq!((&line["position"], &line["text"]), (&json!(read + 1), &json!(read.to_string())));
            read += 1;
        }
        after = page["next_after"].as_i64().unwrap();
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!((read, after), (12_000, 12_000));
    for number in [0, 1, 4_999, 8_000, 11_999] {
        let page = key.see(&format!("{path}/logs?limit=2&from={}", at(number))).await;
        assert_eq!(page["lines"][0]["text"], number.to_string());
        let page = key.see(&format!("{path}/logs?limit=1&sort=-position&to={}", at(number + 1))).await;
        assert_eq!(page["lines"][0]["text"], number.to_string());
    }
    // What is logged later is found from where the last page ended; older times do not turn the log back.
    let late = json!({ "lines": [{ "time": at(5), "text": "late" }, { "level": "warning", "text": "now" }] });
    assert_eq!(key.post(&format!("{path}/logs"), late).await.1["moved"], 1);
    let page = key.see(&format!("{path}/logs?after={after}")).await;
    assert_eq!((&page["lines"][0]["time"], &page["lines"][0]["text"]), (&json!(at(11_999)), &json!("late")));
    assert_eq!(page["lines"][1]["level"], "warning");
    for (body, named) in [
        (json!({ "lines": [] }), "lines"),
        (json!({ "lines": [{ "text": "x", "level": "loud" }] }), "level"),
        (json!({ "lines": [{ "text": "x", "time": "noon" }] }), "time"),
        (json!({ "lines": vec![json!({ "text": "" }); 10_001] }), "lines"),
        (json!({ "lines": [{ "txet": "x" }] }), "txet"),
    ] {
        let (status, answer) = key.post(&format!("{path}/logs"), body).await;
        assert_eq!(status, 400, "{named}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(named), "{answer}");
    }
    let large = json!({ "lines": vec![json!({ "text": "x".repeat(1_000) }); 3_000] });
    let (status, body) = key.post(&format!("{path}/logs"), large).await;
    assert_eq!((status.as_u16(), &body["errorCode"]), (413, &json!(413)));
    assert_eq!(
        key.see(&format!("{path}/logs")).await["total_lines"],
        12_002,
        "a batch is filed whole or not at all"
    );
}

/// The most memory that a process has needed so far, in bytes.
fn peak_memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Downloads, with a pause for each megabyte: how many lines there were, and the end of the last.
async fn taken_slowly(key: &Key, path: &str) -> (usize, String) {
    let response = key.send(Method::GET, path, None).await;
    assert_eq!(response.status(), 200);
    let mut bytes = response.bytes_stream();
    let (mut taken, mut lines, mut last) = (0, 0, Vec::new());
    while let Some(piece) = bytes.next().await {
        let piece = piece.unwrap();
        if (taken + piece.len()) >> 20 > taken >> 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        taken += piece.len();
        lines += piece.iter().filter(|byte| **byte == b'\n').count();
        last.extend_from_slice(&piece);
        last.drain(..last.len().saturating_sub(400));
    }
    (lines, String::from_utf8_lossy(&last).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_log_is_downloaded_in_bounded_memory_however_slowly_it_is_taken() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let key = key_of(&daemon).await;
    let path = key.begin("task", app("Planner")).await;
    let mut size = 0;
    for batch in 0..25 {
        let texts = texts(batch * 8_000, 8_000);
        size += texts.iter().map(String::len).sum::<usize>();
        assert_eq!(key.log(&path, &texts).await.0, 201);
    }
    assert!(size > 30 << 20, "{size}");
    let download = format!("{path}/logs/download");
    // What any download needs is needed once: caches are full then.
    let (lines, last) = taken_slowly(&key, &download).await;
    assert_eq!(lines, 200_000);
    assert!(last.contains(" - 199999 "), "{last}");
    let before = peak_memory(&daemon);
    // If each were gathered before it is sent, this would take six times its size.
    let all = join_all((0..6).map(|_| taken_slowly(&key, &download))).await;
    assert!(all.iter().all(|(lines, _)| *lines == 200_000));
    let more = peak_memory(&daemon).saturating_sub(before);
    assert!(more < (size / 2) as u64, "{more} bytes more than before, for six times {size}");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_breaks_off_when_its_key_is_deleted() {
    let server = Server::start().await;
    let (own, about) = made(&server.operator().await, json!({ "name": "k", "scopes": ["session"] })).await;
    let key = server.holds(Some(own));
    let path = key.begin("task", app("Planner")).await;
    let others = server.key(&["session"]).await;
    // More than the sockets in between hold.
    for batch in 0..20 {
        assert_eq!(key.log(&path, &texts(batch * 8_000, 8_000)).await.0, 201);
    }
    let mut bytes = key.send(Method::GET, &format!("{path}/logs/download"), None).await.bytes_stream();
    bytes.next().await.unwrap().unwrap();
    let id = about["apiKey"]["id"].as_str().unwrap();
    assert_eq!(server.operator().await.delete(&format!("/api/v1/api-keys/{id}")).await.0, 204);
    let broken = async {
        while let Some(piece) = bytes.next().await {
            if piece.is_err() {
                return true;
            }
        }
        false
    };
    let broken = tokio::time::timeout(Duration::from_secs(60), broken).await;
    assert_eq!(broken, Ok(true), "a part was given for the whole");
    assert_eq!(others.see(&format!("{path}/logs?limit=1")).await["total_lines"], 160_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_does_not_hold_up_heartbeats() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let path = key.begin("task", app("Planner")).await;
    let lively = key.begin("webui", app("Planner")).await;
    let batch = texts(0, 5_000);
    // The flood goes on until the heartbeats are through: one that waited for its end would wait for ever.
    let through = AtomicBool::new(false);
    let flood = join_all((0..4).map(|_| async {
        let mut filed = 0;
        while !through.load(Ordering::SeqCst) {
            let (status, body) = key.log(&path, &batch).await;
            assert!([201, 503].contains(&status.as_u16()), "{body}");
            filed += u64::from(status == 201) * 5_000;
        }
        filed
    }));
    let beats = async {
        for _ in 0..10 {
            assert_eq!(key.beat(&lively).await, 200);
        }
        through.store(true, Ordering::SeqCst);
    };
    let both = async { tokio::join!(flood, beats) };
    let (filed, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("heartbeats wait");
    assert_eq!(key.see(&format!("{path}/logs")).await["total_lines"], filed.iter().sum::<u64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_were_acknowledged_are_there_after_a_kill() {
    let directory = TempDir::new().unwrap();
    let mut daemon = Daemon::start(directory.path(), &[]);
    let mut key = key_of(&daemon).await;
    let path = key.begin("task", app("Planner")).await;
    let mut acknowledged = 0;
    for round in 0..6_u64 {
        let logging = {
            let (key, path) = (key.clone(), path.clone());
            tokio::spawn(async move {
                let mut last = 0;
                loop {
                    let lines: Vec<_> =
                        (0..50).map(|number| json!({ "text": format!("line {number}") })).collect();
                    let url = format!("{}{}{path}/logs", key.base, super::ROOT);
                    let request = key.http.post(url).header("apiKey", key.text.as_ref().unwrap());
                    let Ok(response) = request.json(&json!({ "lines": lines })).send().await else {
                        return last;
                    };
                    assert_eq!(response.status(), 201);
                    let Ok(filed) = response.json::<serde_json::Value>().await else { return last };
                    last = filed["last"].as_u64().unwrap();
                }
            })
        };
        tokio::time::sleep(Duration::from_millis(60 + round * 7_919 % 200)).await;
        daemon.kill();
        acknowledged = logging.await.unwrap().max(acknowledged);
        daemon = Daemon::start(directory.path(), &[]);
        key.base.clone_from(&daemon.base);
        let page = key.see(&format!("{path}/logs?sort=-position&limit=1")).await;
        let there = page["total_lines"].as_u64().unwrap();
        assert!(there >= acknowledged, "{there} of {acknowledged}");
        assert_eq!(there % 50, 0, "batches are whole");
        // It may have been killed before it filed the first.
        assert_eq!(page["lines"][0]["position"].as_u64().unwrap_or(0), there);
    }
    assert!(acknowledged > 0);
    assert_eq!(key.state(&path).await, "queued");
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn logs_are_forgotten_when_they_are_old() {
    let server =
        Server::with(&["--keep-lines", "2d", "--absolute-lifetime", "30d", "--stale-after", "30d"]).await;
    let key = server.key(&["session"]).await;
    let path = key.begin("task", app("Planner")).await;
    key.log(&path, &["old".to_owned()]).await;
    server.turn(3 * 86_400);
    key.log(&path, &["new".to_owned()]).await;
    let before = server.clock.now() - chrono::TimeDelta::days(2);
    server.running.as_ref().unwrap().house.lines.forget(before).await.unwrap();
    let page = key.see(&format!("{path}/logs")).await;
    assert_eq!((&page["total_lines"], &page["lines"][0]["text"]), (&json!(1), &json!("new")));
    assert_eq!(page["lines"][0]["position"], 2, "positions go on");
}
