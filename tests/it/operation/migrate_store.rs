//! `sessiond migrate-store`: an installation that moves goes on, and one that was interrupted on its way is not started.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::on_postgres::{said, serve};
use super::{done, killed, refused};
use crate::support::daemon::database;
use crate::support::postgres::Database;
use crate::support::rounds;
use crate::support::store::make_key;
use crate::support::{Daemon, Holder};
use crate::workloads::{Key, app};

/// The same caller, where the service is now.
fn at(daemon: &Daemon, holder: &Holder) -> Holder {
    Holder { base: daemon.base.clone(), ..holder.clone() }
}

/// What somebody knows of a service: their credentials, a session, and work that has said something.
struct Acquaintance {
    operator: Holder,
    agent: Holder,
    session: String,
    worker: Key,
    work: String,
    lines: usize,
}

impl Acquaintance {
    async fn make(daemon: &Daemon) -> Self {
        let operator = daemon.operator().await;
        let agent = operator.connect(json!({ "name": "here", "hostname": "laptop" })).await;
        let hook = operator.post("/api/v1/webhooks", json!({ "url": "https://receiver.example/in" })).await;
        assert!(hook.0.is_success(), "{}", hook.1);
        let key =
            operator.post("/api/v1/api-keys", json!({ "name": "cluster", "scopes": ["session"] })).await.1;
        let text = key["key"].as_str().map(str::to_owned);
        let worker = Key { base: daemon.base.clone(), text, http: operator.http.clone() };
        let work = worker.begin("task", app("Planner")).await;
        Self { operator, session: agent.path(), agent: agent.holder, worker, work, lines: 0 }
    }

    /// All that they had opens what it did, and work goes on.
    async fn goes_on(&mut self, daemon: &Daemon) {
        let id = self.session.rsplit('/').next().unwrap().to_owned();
        let (status, session) = at(daemon, &self.operator).get(&self.session).await;
        assert_eq!((status.as_u16(), &session["session"]["hostname"]), (200, &json!("laptop")), "{session}");
        let beat = at(daemon, &self.agent);
        let (status, told) = beat.post(&format!("/api/v1/agent-sessions/{id}/heartbeat"), json!({})).await;
        assert!(status.is_success(), "{status} {told}");
        let (status, hooks) = at(daemon, &self.operator).get("/api/v1/webhooks").await;
        assert_eq!((status.as_u16(), hooks["items"].as_array().map(Vec::len)), (200, Some(1)), "{hooks}");
        let worker = Key { base: daemon.base.clone(), ..self.worker.clone() };
        let text = format!("line {}", self.lines);
        let (status, filed) =
            worker.post(&format!("{}/logs", self.work), json!({ "lines": [{ "text": text }] })).await;
        self.lines += 1;
        assert_eq!((status.as_u16(), &filed["first"]), (201, &json!(self.lines)), "{filed}");
        let page = worker.see(&format!("{}/logs", self.work)).await;
        let texts: Vec<&Value> = page["lines"].as_array().unwrap().iter().map(|line| &line["text"]).collect();
        let expected: Vec<_> = (0..self.lines).map(|line| json!(format!("line {line}"))).collect();
        assert_eq!(texts, expected.iter().collect::<Vec<_>>());
    }
}

fn url(directory: &Path) -> String {
    format!("sqlite:{}", database(directory).display())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_moves_to_a_server_and_back_and_goes_on() {
    let (directory, other, server) = (TempDir::new().unwrap(), TempDir::new().unwrap(), Database::new());
    let key = directory.path().join("sessiond.db.key");
    make_key(&key);
    let daemon = Daemon::spawn(serve(directory.path(), &url(directory.path()), Some(&key)));
    let mut known = Acquaintance::make(&daemon).await;
    known.goes_on(&daemon).await;
    let moving = ["migrate-store", "--from", &url(directory.path()), "--to", &server.url];
    let told = refused(&moving);
    assert!(told.contains("stop it first"), "{told}");
    assert!(daemon.terminate().success());

    let told = done(&moving);
    assert!(told.contains("2 sessions (agent 1, task 1), 1 blocks of log lines and recordings"), "{told}");
    assert!(told.contains("sessiond.db.key") && told.contains("--secret-key-file"), "{told}");
    let daemon = Daemon::spawn(serve(directory.path(), &server.url, Some(&key)));
    known.goes_on(&daemon).await;
    assert!(daemon.terminate().success());

    let back = url(other.path());
    let told = done(&["migrate-store", "--from", &server.url, "--to", &back]);
    assert!(told.contains("which is looked for at"), "{told}");
    let daemon = Daemon::spawn(serve(other.path(), &back, Some(&key)));
    known.goes_on(&daemon).await;
    assert!(daemon.terminate().success());
    done(&["verify", "--database", &back]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_killed_is_not_started_and_the_next_one_is_whole() {
    let (directory, server) = (TempDir::new().unwrap(), Database::new());
    let key = directory.path().join("sessiond.db.key");
    make_key(&key);
    let from = url(directory.path());
    let daemon = Daemon::spawn(serve(directory.path(), &from, Some(&key)));
    let operator = daemon.operator().await;
    operator.connect_many(300).await;
    assert!(daemon.terminate().success());
    let files = TempDir::new().unwrap();
    let to_file = format!("sqlite:{}", files.path().join("copy").display());
    let mut unfinished = 0;
    for to in [&server.url, &to_file] {
        let moving = ["migrate-store", "--from", &from, "--to", to];
        let mut milliseconds = 20;
        for _ in 0..rounds(8, 80) {
            killed(&moving, Duration::from_millis(milliseconds));
            let Ok(contents) = sessiond_store::look(to).await else { continue };
            if contents.unfinished {
                unfinished += 1;
                for told in [
                    refused(&["verify", "--database", to]),
                    said(&serve(files.path(), to, Some(&key)).output().unwrap()),
                ] {
                    assert!(told.contains("a copy that was never finished"), "{told}");
                }
            } else if contents.events {
                break;
            }
            milliseconds += 40;
        }
        if !sessiond_store::look(to).await.unwrap().events
            || sessiond_store::look(to).await.unwrap().unfinished
        {
            done(&moving);
        }
        let told = done(&["verify", "--database", to]);
        assert!(told.contains("300 sessions"), "{told}");
    }
    println!("{unfinished} copies were left unfinished");
}
