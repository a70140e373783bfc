//! kill -9 under load: nothing acknowledged is lost, and what was begun is finished.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::support::daemon::{command, sessiond};
use crate::support::{Daemon, Holder, Inside, store};

/// What the server has acknowledged: sessions, and how many requests each reported.
#[derive(Default)]
pub struct Acknowledged {
    /// By id: acknowledged requests, and those sent without an answer.
    pub sessions: HashMap<String, (u64, u64)>,
    pub ended: Vec<String>,
}

/// Opens sessions, reports on them and ends some, until the server is gone.
pub async fn load(holder: Holder, acknowledged: Arc<Mutex<Acknowledged>>, worker: usize) {
    for turn in 0.. {
        let Ok(answer) =
            post(&holder, "/api/v1/agent-sessions", json!({ "name": format!("{worker}/{turn}") })).await
        else {
            return;
        };
        let id = answer["sessionId"].as_str().unwrap().to_owned();
        acknowledged.lock().await.sessions.insert(id.clone(), (0, 0));
        for _ in 0..5 {
            acknowledged.lock().await.sessions.get_mut(&id).unwrap().1 += 1;
            let report = json!({ "requests": 1 });
            if post(&holder, &format!("/api/v1/agent-sessions/{id}/activity"), report).await.is_err() {
                return;
            }
            let mut acknowledged = acknowledged.lock().await;
            let counts = acknowledged.sessions.get_mut(&id).unwrap();
            *counts = (counts.0 + 1, counts.1 - 1);
        }
        if turn % 3 == 0 {
            if post(&holder, &format!("/api/v1/agent-sessions/{id}/disconnect"), json!({})).await.is_err() {
                return;
            }
            acknowledged.lock().await.ended.push(id);
        }
    }
}

async fn post(holder: &Holder, path: &str, body: Value) -> reqwest::Result<Value> {
    let url = format!("{}{path}", holder.base);
    let answer = holder.http.post(url).bearer_auth(holder.token.as_ref().unwrap()).json(&body).send().await?;
    answer.error_for_status()?.json().await
}

pub fn verify(directory: &Path) {
    let output = sessiond(&["verify", "--database", &store::url(directory)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_four_kills_at_random_under_load_lose_nothing_that_was_acknowledged() {
    let directory = TempDir::new().unwrap();
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..24_u64 {
        let daemon = Daemon::start(directory.path(), &[]);
        let holder = daemon.operator().await;
        let workers: Vec<_> =
            (0..8).map(|worker| tokio::spawn(load(holder.clone(), acknowledged.clone(), worker))).collect();
        // Anywhere from at once to a third of a second.
        tokio::time::sleep(Duration::from_millis(20 + round * 9_973 % 300)).await;
        daemon.kill();
        join_all(workers).await;
    }
    verify(directory.path());
    let daemon = Daemon::start(directory.path(), &[]);
    let holder = daemon.operator().await;
    let acknowledged = acknowledged.lock().await;
    assert!(acknowledged.sessions.len() > 24, "the load was a load");
    for (id, (counted, unanswered)) in &acknowledged.sessions {
        let (status, body) = holder.get(&format!("/api/v1/agent-instances/{id}")).await;
        assert_eq!(status, 200, "an acknowledged session is gone: {id}");
        let requests = body["agentInstance"]["activity"]["requests"].as_u64().unwrap();
        assert!(
            (*counted..=counted + unanswered).contains(&requests),
            "{id}: {requests}, acknowledged {counted}"
        );
    }
    for id in &acknowledged.ended {
        let (_, body) = holder.get(&format!("/api/v1/agent-instances/{id}")).await;
        assert_eq!(body["agentInstance"]["disconnectReason"], "client", "{id}");
    }
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_of_ten_thousand_that_was_killed_midway_is_finished_after_the_restart() {
    let directory = TempDir::new().unwrap();
    let mut daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let mut application = String::new();
    for _ in 0..40 {
        application = operator.connect_many(250).await[0].application.clone();
    }
    let path = format!("/api/v1/applications/{application}/sessions");
    let url = store::url(directory.path());
    // Killed as soon as the log shows that a part of it is done.
    let asked = tokio::spawn({
        let (operator, path) = (operator.clone(), path.clone());
        async move {
            operator
                .http
                .delete(format!("{}{path}", operator.base))
                .bearer_auth(operator.token.unwrap())
                .send()
                .await
        }
    });
    let mut inside = Inside::of(&url).await;
    let done = async |inside: &mut Inside| -> i64 {
        let sql = "select count(*) from event where type = 'disconnected' and revocation is not null";
        inside.number(sql, &[]).await
    };
    while done(&mut inside).await == 0 {
        tokio::task::yield_now().await;
    }
    daemon.kill();
    assert!(asked.await.unwrap().is_err(), "it was killed before it answered");
    let before = done(&mut inside).await;
    drop(inside);
    assert!((1..10_000).contains(&before), "killed in the middle: {before} of 10,000 were done");

    daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let mut inside = Inside::of(&url).await;
    let ended = async |inside: &mut Inside| -> Option<i64> {
        let sql = "select body from event where type = 'revocation_ended'";
        let bodies: Vec<(String,)> = inside.rows(sql, &[]).await;
        let body: Value = serde_json::from_str(&bodies.first()?.0).unwrap();
        body["disconnectedCount"].as_i64()
    };
    let mut count = None;
    for _ in 0..1_000 {
        count = ended(&mut inside).await;
        if count.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count, Some(10_000), "finished, with the count of both halves");
    assert_eq!(done(&mut inside).await, 10_000);
    assert_eq!(operator.get(&path).await.1["items"], json!([]));
    assert!(daemon.terminate().success());
    verify(directory.path());
}

/// The daemon under strace, with these arguments before `-o`.
fn traced(directory: &Path, arguments: &[&str]) -> Command {
    let plain = command(directory, &[]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "--seccomp-bpf"]).args(arguments).arg("-o").arg(directory.join("trace"));
    traced.arg(plain.get_program()).args(plain.get_args());
    traced.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_is_under_way_at_sigterm_is_carried_out_and_answered() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let mut application = String::new();
    for _ in 0..20 {
        application = operator.connect_many(250).await[0].application.clone();
    }
    let path = format!("/api/v1/applications/{application}/sessions");
    let asked = tokio::spawn(async move { operator.delete(&path).await });
    let mut inside = Inside::of(&store::url(directory.path())).await;
    let sql = "select count(*) from event where type = 'revocation_began'";
    while inside.number(sql, &[]).await == 0 {
        tokio::task::yield_now().await;
    }
    drop(inside);
    let stopping = tokio::task::spawn_blocking(move || daemon.terminate());
    let (status, body) = asked.await.unwrap();
    assert_eq!((status.as_u16(), &body["disconnectedCount"]), (200, &json!(5_000)));
    assert!(stopping.await.unwrap().success());
    verify(directory.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_call_was_flushed_to_disk_before_its_answer() {
    if store::has_no_file("it counts the flushes of the process") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let mut daemon = Daemon::spawn(traced(directory.path(), &["-e", "trace=fdatasync"]));
    let agent = daemon.operator().await.connect(json!({})).await;
    let flushes =
        || std::fs::read_to_string(directory.path().join("trace")).unwrap().matches("fdatasync(").count();
    for _ in 0..20 {
        // One caller, one call at a time: each is a commit of its own, and each commit a flush before the answer.
        let before = flushes();
        assert_eq!(agent.call("heartbeat").await.0, 200);
        assert!(flushes() > before, "answered without a flush");
    }
    let children = Command::new("pgrep").args(["-P", &daemon.child.id().to_string()]).output().unwrap();
    for pid in String::from_utf8(children.stdout).unwrap().split_whitespace() {
        Command::new("kill").args(["-TERM", pid]).status().unwrap();
    }
    assert!(daemon.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_flush_ends_the_process_and_what_was_acknowledged_before_is_there_after() {
    if store::has_no_file("it fails the flushes of the process") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let mut daemon = Daemon::spawn(traced(
        directory.path(),
        &["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=90+"],
    ));
    let holder = daemon.operator().await;
    let mut acknowledged = vec![];
    for number in 0..100 {
        match post(&holder, "/api/v1/agent-sessions", json!({ "name": format!("{number}") })).await {
            Ok(answer) => acknowledged.push(answer["sessionId"].as_str().unwrap().to_owned()),
            Err(_) => break,
        }
    }
    assert!((1..100).contains(&acknowledged.len()), "the flush failed in the middle: {}", acknowledged.len());
    assert_eq!(daemon.child.wait().unwrap().code(), Some(74), "fail-stop");
    verify(directory.path());
    let daemon = Daemon::start(directory.path(), &[]);
    let holder = daemon.operator().await;
    for id in &acknowledged {
        assert_eq!(holder.get(&format!("/api/v1/agent-instances/{id}")).await.0, 200);
    }
    assert!(daemon.terminate().success());
}
