//! What tests share: a real server on a free port, callers by role, a clock that a test sets, the binary as a process, and the
//! store that all of them use.

pub mod daemon;
mod feed;
pub mod inside;
pub mod pooler;
pub mod postgres;
pub mod proxy;
pub mod standby;
pub mod store;
pub mod tree;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use clap::{Args, FromArgMatches};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sessiond::cli::serve::{Running, start};
use sessiond::clock::Clock;
use sessiond::config::Config;
use tempfile::TempDir;

pub use daemon::Daemon;
pub use feed::Feed;
pub use inside::Inside;

pub const CLIENT_ID: &str = "operator";
pub const CLIENT_SECRET: &str = "a secret of thirty-two characters or more";

/// How often a test does what it does: so often with `make test`, and so often with `make proof`.
pub fn rounds(quick: usize, thorough: usize) -> usize {
    if std::env::var_os("PROOF").is_some_and(|proof| proof == "1") { thorough } else { quick }
}

/// The service in this process, on a port and in a directory of its own.
pub struct Server {
    pub running: Option<Running>,
    pub clock: Clock,
    pub directory: Arc<TempDir>,
    pub flags: Vec<String>,
    pub http: reqwest::Client,
}

/// A directory for a database of a service in this process. A service whose database is deleted under it ends its process,
/// and here that is all tests: so the directory stays for as long as its service can be at work, and then until many others
/// have been made.
pub fn directory() -> Arc<TempDir> {
    let directory = Arc::new(TempDir::new().unwrap());
    keep(directory.clone());
    directory
}

fn keep(directory: Arc<TempDir>) {
    static KEPT: Mutex<VecDeque<Arc<TempDir>>> = Mutex::new(VecDeque::new());
    let mut kept = KEPT.lock().unwrap();
    kept.push_back(directory);
    if kept.len() > 128 {
        kept.pop_front();
    }
}

/// Keeps a directory for as long as the runtime of whoever calls this has tasks at work, also where the test let go of its
/// server or failed.
pub fn keep_while_at_work(directory: Arc<TempDir>) {
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(directory);
    });
}

impl Drop for Server {
    /// While the runtime ends, a task of the service may still be at work.
    fn drop(&mut self) {
        keep(self.directory.clone());
    }
}

/// Flags, as on the command line, into the configuration.
pub fn config(directory: &TempDir, flags: &[String]) -> Config {
    let mut arguments: Vec<String> = ["sessiond", "--listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
    arguments.extend(store::flags(directory.path()));
    arguments.extend(
        ["--bootstrap-client-id", CLIENT_ID, "--bootstrap-client-secret", CLIENT_SECRET].map(str::to_owned),
    );
    // Tests make many requests at once; those about limits set their own.
    arguments.extend(["--rate-limit", "0"].map(str::to_owned));
    arguments.extend_from_slice(flags);
    let command = Config::augment_args(clap::Command::new("sessiond").args_override_self(true));
    Config::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

impl Server {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a server with flags of its own.
    pub async fn with(flags: &[&str]) -> Self {
        let directory = directory();
        let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self::in_directory(directory, flags, Clock::system()).await
    }

    async fn in_directory(directory: Arc<TempDir>, flags: Vec<String>, clock: Clock) -> Self {
        keep_while_at_work(directory.clone());
        let (running, _) = start(config(&directory, &flags), clock.clone()).await.unwrap();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Self { running: Some(running), clock, directory, flags, http }
    }

    /// Stops the server and starts it again on the same database, on another port.
    pub async fn restart(mut self) -> Self {
        self.stop().await;
        Self::in_directory(self.directory.clone(), self.flags.clone(), Clock::system()).await
    }

    /// Restarts the server after so much time.
    pub async fn restart_after(mut self, seconds: i64) -> Self {
        self.stop().await;
        let clock = Clock::ahead(TimeDelta::seconds(seconds));
        Self::in_directory(self.directory.clone(), self.flags.clone(), clock).await
    }

    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.as_ref().unwrap().address)
    }

    pub fn database(&self) -> String {
        store::url(self.directory.path())
    }

    /// Lets time pass.
    pub fn turn(&self, seconds: i64) {
        self.clock.turn(TimeDelta::seconds(seconds));
    }

    /// Fetches a token of the first service account.
    pub async fn token(&self, scope: &str) -> String {
        self.token_for(CLIENT_ID, CLIENT_SECRET, scope).await
    }

    pub async fn token_for(&self, id: &str, secret: &str, scope: &str) -> String {
        let form = [("grant_type", "client_credentials"), ("scope", scope)];
        let answer = self
            .http
            .post(self.url("/oauth2/token"))
            .basic_auth(id, Some(secret))
            .form(&form)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// A caller who holds this token.
    pub fn holder(&self, token: impl Into<String>) -> Holder {
        let base = self.url("");
        Holder { base, token: Some(token.into()), http: self.http.clone() }
    }

    /// A caller without a credential.
    pub fn stranger(&self) -> Holder {
        Holder { base: self.url(""), token: None, http: self.http.clone() }
    }

    /// A caller with every right, agents' included.
    pub async fn operator(&self) -> Holder {
        let token = self.token("management:all mcp:invoke").await;
        self.holder(token)
    }

    /// A caller with every right in another organization, which is made for that.
    pub async fn another_organization(&self) -> Holder {
        let organizations = &self.running.as_ref().unwrap().house.directory.organizations;
        let made = organizations.create("other", None).await.unwrap();
        self.holder(self.token_for(&made.client_id, &made.client_secret, "").await)
    }

    /// The id of the application that the first start made.
    pub async fn application(&self) -> String {
        let (_, body) = self.operator().await.get("/api/v1/applications").await;
        let applications = body["items"].as_array().unwrap();
        let first = applications.iter().find(|one| one["name"] == "default").unwrap();
        first["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a look finds what it looks for; fails after ten seconds.
    pub async fn until<F: Future<Output = bool>>(&self, what: &str, look: impl Fn() -> F) {
        self.until_within(10, what, look).await;
    }

    /// Waits likewise for something that takes longer.
    pub async fn until_within<F: Future<Output = bool>>(
        &self,
        seconds: u64,
        what: &str,
        look: impl Fn() -> F,
    ) {
        for _ in 0..seconds * 100 {
            if look().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited {seconds} seconds in vain for: {what}");
    }
}

/// SplitMix64: the same history for the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// The same as an index.
    pub fn pick(&mut self, sides: u64) -> usize {
        usize::try_from(self.roll(sides)).unwrap()
    }
}

/// A caller.
#[derive(Clone)]
pub struct Holder {
    pub base: String,
    pub token: Option<String>,
    pub http: reqwest::Client,
}

impl Holder {
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Response {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }

    async fn answer(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let response = self.send(method, path, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.answer(Method::GET, path, None).await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.answer(Method::DELETE, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.answer(Method::POST, path, Some(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.answer(Method::PUT, path, Some(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.answer(Method::PATCH, path, Some(&body)).await
    }

    /// Opens a session.
    pub async fn connect(&self, body: Value) -> Agent {
        let (status, body) = self.post("/api/v1/agent-sessions", body).await;
        assert!(status.is_success(), "{status} {body}");
        let text = |field: &str| body[field].as_str().unwrap().to_owned();
        let holder = Self { token: Some(text("token")), ..self.clone() };
        Agent { id: text("sessionId"), application: text("agentId"), holder, body }
    }

    /// Opens sessions, named by number.
    pub async fn connect_many(&self, count: usize) -> Vec<Agent> {
        let opened = (0..count).map(|number| self.connect(json!({ "name": format!("agent {number}") })));
        futures_util::future::join_all(opened).await
    }
}

/// A session's own client.
#[derive(Clone)]
pub struct Agent {
    pub id: String,
    pub application: String,
    /// A caller with the session's own token.
    pub holder: Holder,
    pub body: Value,
}

impl Agent {
    pub async fn call(&self, verb: &str) -> (StatusCode, Value) {
        self.call_as(&self.holder, verb).await
    }

    pub async fn call_as(&self, holder: &Holder, verb: &str) -> (StatusCode, Value) {
        holder.answer(Method::POST, &format!("/api/v1/agent-sessions/{}/{verb}", self.id), None).await
    }

    pub fn path(&self) -> String {
        format!("/api/v1/applications/{}/sessions/{}", self.application, self.id)
    }
}

// ---- the log, as a test may look at it ----

impl Server {
    /// Every event of the log: its type and body.
    pub async fn log(&self) -> Vec<(String, Value)> {
        let sql = "select type, body from event order by position";
        let rows: Vec<(String, Option<String>)> = self.look_inside().await.rows(sql, &[]).await;
        rows.into_iter()
            .map(|(name, body)| (name, serde_json::from_str(&body.unwrap_or_default()).unwrap_or_default()))
            .collect()
    }

    /// The positions of the events of these types in the log.
    pub async fn positions_of(&self, types: &[&str]) -> std::collections::BTreeSet<i64> {
        let sql = "select position, type from event";
        let rows: Vec<(i64, String)> = self.look_inside().await.rows(sql, &[]).await;
        rows.into_iter()
            .filter(|(_, name)| types.contains(&name.as_str()))
            .map(|(position, _)| position)
            .collect()
    }

    /// A connection that reads the database as it is.
    pub async fn look_inside(&self) -> Inside {
        Inside::of(&self.database()).await
    }
}

/// A connection that reads a database's file as it is.
pub async fn look_inside(database: &str) -> sqlx::SqliteConnection {
    use sqlx::Connection;
    let options: sqlx::sqlite::SqliteConnectOptions = database.parse().unwrap();
    sqlx::SqliteConnection::connect_with(&options.read_only(true)).await.unwrap()
}

/// How many bytes of memory a process takes; none for one that has ended.
pub fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}
