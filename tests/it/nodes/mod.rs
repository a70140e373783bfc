//! Several sessiond on one PostgreSQL, each a process of its own, as clients meet them: whichever they come to.

mod agents;
mod clients;
mod command;
mod cut_off;
mod gateway;
mod kills;
mod outages;
mod races;
mod terminals;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::postgres::Database;
use crate::support::store::make_key;
use crate::support::{CLIENT_ID, CLIENT_SECRET, Daemon, Holder};

/// What nothing that is waited for takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes, their database and their key.
pub struct Cluster {
    directory: TempDir,
    key: PathBuf,
    pub database: Database,
    pub nodes: Vec<Daemon>,
    flags: Vec<String>,
    operator: Option<Holder>,
}

impl Cluster {
    pub async fn of(count: usize) -> Self {
        Self::with(count, &[]).await
    }

    /// So many nodes, with flags of their own.
    pub async fn with(count: usize, flags: &[&str]) -> Self {
        let (directory, database) = (TempDir::new().unwrap(), Database::new());
        let key = directory.path().join("its.key");
        make_key(&key);
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut cluster = Self { directory, key, database, nodes: vec![], flags, operator: None };
        for _ in 0..count {
            cluster.start().await;
        }
        if let Some(first) = cluster.nodes.first() {
            cluster.operator = Some(first.operator().await);
        }
        cluster
    }

    /// Starts one more.
    pub async fn start(&mut self) {
        let daemon = self.started(&self.database.url).await;
        self.nodes.push(daemon);
    }

    /// Kills a node as `kill -9` does, and starts another in its place, which has its own way to the database.
    pub async fn replace(&mut self, node: usize, database: &str) {
        self.nodes[node].child.kill().unwrap();
        self.nodes[node] = self.started(database).await;
    }

    async fn started(&self, database: &str) -> Daemon {
        let command = self.command_with(database);
        let daemon = tokio::task::spawn_blocking(move || Daemon::spawn(command)).await.unwrap();
        ready(&daemon.base).await;
        daemon
    }

    pub fn command(&self) -> Command {
        self.command_with(&self.database.url)
    }

    fn command_with(&self, database: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--rate-limit", "0"])
            .args(["--database", database, "--secret-key-file", self.key.to_str().unwrap()])
            .args(&self.flags)
            .current_dir(self.directory.path())
            .env("SESSIOND_BOOTSTRAP_CLIENT_ID", CLIENT_ID)
            .env("SESSIOND_BOOTSTRAP_CLIENT_SECRET", CLIENT_SECRET);
        command
    }

    /// Sends a signal to a node's process.
    pub fn signal(&self, node: usize, signal: &str) {
        let process = self.nodes[node].child.id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// The operator, who has come to a node.
    pub fn at(&self, node: usize) -> Holder {
        self.moved(self.operator.as_ref().unwrap(), node)
    }

    /// Somebody who was elsewhere.
    pub fn moved(&self, holder: &Holder, node: usize) -> Holder {
        Holder { base: self.nodes[node].base.clone(), ..holder.clone() }
    }

    /// An application.
    pub async fn application(&self) -> String {
        make_application(&self.at(0), "tools").await
    }

    /// Whether the log proves itself.
    pub async fn is_sound(&self) {
        let store = sessiond_store::open_to_look(&self.database.url).await.unwrap();
        store.verify(&mut |_, _| ()).await.unwrap();
        store.close().await;
    }
}

/// Makes an application; its id.
pub async fn make_application(operator: &Holder, name: &str) -> String {
    let (status, body) = operator.post("/api/v1/applications", json!({ "name": name })).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["application"]["id"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

/// Waits until a node lets people in.
pub async fn ready(base: &str) {
    until("the node is ready", async || {
        reqwest::get(format!("{base}/readyz")).await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// That a revocation is true on so many nodes.
pub fn is_true_on(body: &Value, count: u32) {
    assert_eq!(body["nodes"], json!({ "asked": count, "acknowledged": count, "expired": 0 }), "{body}");
}
