//! Processes: sessiond as it is shipped, and the yardstick, an HTTP server that does nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::connection::{Connection, ask, block_on, request};
use crate::load::{Connects, open_sessions};

const CLIENT_ID: &str = "bench";
const CLIENT_SECRET: &str = "a secret that guards nothing at all, nowhere";

/// A process that ends with its handle.
pub struct Process {
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Process {
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Self { child: command.spawn().with_context(|| format!("cannot start {name}"))? })
    }

    /// Starts what says in its first line where it listens, and ends with its standard input.
    pub fn that_says_where(command: &mut Command) -> anyhow::Result<(Self, SocketAddr)> {
        let mut process = Self::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let stdout = process.child.stdout.take().unwrap();
        let line = BufReader::new(stdout).lines().next().context("it did not start")??;
        Ok((process, line.parse()?))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn file(&self, name: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id()))?)
    }

    /// Bytes it caused to be sent to the disk. Can be read until the process was waited for.
    pub fn bytes_written(&self) -> anyhow::Result<u64> {
        let io = self.file("io")?;
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        Ok(line.context("no write_bytes in /proc/…/io")?.parse()?)
    }

    /// Processor time it has used, in its own code and in the kernel; hundredths of a second.
    pub fn processor_time(&self) -> anyhow::Result<u64> {
        let stat = self.file("stat")?;
        let (_, after_name) = stat.rsplit_once(')').context("no name in /proc/…/stat")?;
        let mut times = after_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
        let mut time = || times.next().context("no times in /proc/…/stat");
        Ok(time()?? + time()??)
    }

    /// Memory, now; KiB.
    pub fn resident(&self) -> anyhow::Result<u64> {
        self.kibibytes("VmRSS:")
    }

    /// The most memory it ever had; KiB.
    pub fn peak(&self) -> anyhow::Result<u64> {
        self.kibibytes("VmHWM:")
    }

    fn kibibytes(&self, name: &str) -> anyhow::Result<u64> {
        let status = self.file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name} in /proc/…/status"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Memory, now and at its peak, in words.
    pub fn memory(&self) -> String {
        memory(&self.file("status").unwrap_or_default())
    }
}

/// Memory from the text of `/proc/…/status`.
pub fn memory(status: &str) -> String {
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let number = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>();
        number.unwrap_or(0) >> 10
    };
    format!("RSS {} MiB, peak {} MiB", mebibytes("VmRSS"), mebibytes("VmHWM"))
}

// ---- sessiond ----

/// sessiond, as a process of its own.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
    database: PathBuf,
}

/// Events and commits in a part of the log.
#[derive(Clone, Copy, Default)]
pub struct Written {
    pub events: i64,
    pub commits: i64,
}

impl Server {
    /// Starts it in a directory, and waits until it is ready.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let server = Self::begin(directory)?;
        server.until_ready()?;
        Ok(server)
    }

    /// Starts it and waits until its door is open, behind which it may still be loading. Nothing goes stale and no token
    /// expires while we measure.
    pub fn begin(directory: &Path) -> anyhow::Result<Self> {
        Self::begin_with(directory, &[])
    }

    /// The same with options of its own.
    pub fn begin_with(directory: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let database = directory.join("sessiond.db");
        let url = format!("sqlite:{}", database.display());
        Self::begin_on(&url, database, flags)
    }

    /// The same with the database at a URL; `file` is where one in a file is looked into.
    pub fn begin_on(url: &str, file: PathBuf, flags: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("SESSIOND_") || name == "RUST_LOG")
        {
            command.env_remove(name);
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--stale-after", "24h", "--token-lifetime", "24h"])
            .args(["--rate-limit", "0", "--webhook-allow-loopback"])
            .args(["--database", url])
            .args(flags)
            .env("SESSIOND_BOOTSTRAP_CLIENT_ID", CLIENT_ID)
            .env("SESSIOND_BOOTSTRAP_CLIENT_SECRET", CLIENT_SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let mut lines = BufReader::new(process.child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = String::new();
        let address = loop {
            let Some(line) = lines.next() else { bail!("sessiond did not start: {said}") };
            let log: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = log["address"].as_str() {
                break address.parse()?;
            }
            said.push_str(&line);
        };
        // What it has to say while we measure is a warning or worse, and belongs to the report.
        std::thread::spawn(move || {
            lines.filter(|line| !line.contains("\"INFO\"")).for_each(|line| eprintln!("sessiond: {line}"));
        });
        Ok(Self { process, address, database: file })
    }

    /// Waits until it serves.
    pub fn until_ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        block_on(async {
            let mut connection = Connection::open(self.address).await?;
            let question = request("GET /readyz", "", None);
            while connection.exchange(&question).await?.status != 200 {
                ensure!(began.elapsed() < Duration::from_secs(300), "it does not get ready");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        })
    }

    /// A fresh access token that may do everything.
    pub fn token(&self) -> anyhow::Result<String> {
        let basic = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
        let form = "grant_type=client_credentials&scope=management%3Aall+mcp%3Ainvoke";
        let content = Some(("application/x-www-form-urlencoded", form));
        let answer = ask(self.address, &request("POST /oauth2/token", &format!("Basic {basic}"), content))?;
        Ok(answer["access_token"].as_str().context("no access_token")?.to_owned())
    }

    /// The id of the application that the first start made.
    pub fn first_application(&self, token: &str) -> anyhow::Result<String> {
        let answer =
            ask(self.address, &request("GET /api/v1/applications", &format!("Bearer {token}"), None))?;
        Ok(answer["items"][0]["id"].as_str().context("no application")?.to_owned())
    }

    /// The id of a new application.
    pub fn new_application(&self, token: &str, name: &str) -> anyhow::Result<String> {
        let body = serde_json::json!({ "name": name }).to_string();
        let content = Some(("application/json", body.as_str()));
        let answer =
            ask(self.address, &request("POST /api/v1/applications", &format!("Bearer {token}"), content))?;
        Ok(answer["application"]["id"].as_str().context("no application")?.to_owned())
    }

    /// Names the MCP server behind an application's gateway.
    pub fn set_upstream(&self, token: &str, application: &str, url: &str) -> anyhow::Result<()> {
        let line = format!("PUT /api/v1/applications/{application}/upstream");
        let body = serde_json::json!({ "url": url }).to_string();
        let content = Some(("application/json", body.as_str()));
        ask(self.address, &request(&line, &format!("Bearer {token}"), content)).map(drop)
    }

    /// Opens sessions in an application; the bytes of a heartbeat of each.
    pub fn open(&self, token: &str, application: &str, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        eprintln!("  opening {count} sessions");
        open_sessions(self.address, Connects::new(token, application), count)
    }

    /// Ends every session of an application: how many it says it ended.
    pub fn revoke_all(&self, token: &str, application: &str) -> anyhow::Result<u64> {
        let line = format!("DELETE /api/v1/applications/{application}/sessions");
        let answer = ask(self.address, &request(&line, &format!("Bearer {token}"), None))?;
        answer["disconnectedCount"].as_u64().context("no disconnectedCount")
    }

    /// The log's last position.
    pub fn position(&self) -> anyhow::Result<i64> {
        position(&self.database)
    }

    /// What was written after a position.
    pub fn written_since(&self, position: i64) -> anyhow::Result<Written> {
        written_since(&self.database, position)
    }

    /// `disconnected` events of revocations after a position.
    pub fn disconnected_since(&self, position: i64) -> anyhow::Result<i64> {
        let sql = "select count(*), 0 from event where position > ? and type = 'disconnected' and revocation is not null";
        Ok(look(&self.database, sql, position)?.0)
    }

    /// Stops it as an operator would: it settles what is in memory, and SQLite moves the write-ahead log into the
    /// database. Returns the bytes written in all its life, that last move included.
    pub fn stop(mut self) -> anyhow::Result<u64> {
        let pid = self.process.child.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success(), "cannot stop sessiond");
        let began = Instant::now();
        // A process that has ended and was not waited for still has its accounts.
        while !self.process.file("stat")?.contains(") Z ") {
            ensure!(began.elapsed() < Duration::from_secs(60), "sessiond does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
        let bytes = self.process.bytes_written()?;
        let status = self.process.child.wait()?;
        ensure!(status.success(), "sessiond ended with {status}");
        Ok(bytes)
    }
}

/// The last position of a database's log.
pub fn position(database: &Path) -> anyhow::Result<i64> {
    Ok(look(database, "select coalesce(max(position), 0), 0 from event where position > ?", 0)?.0)
}

/// Events and commits after a position.
pub fn written_since(database: &Path, position: i64) -> anyhow::Result<Written> {
    let sql = "select count(*), count(commit_hash) from event where position > ?";
    let (events, commits) = look(database, sql, position)?;
    Ok(Written { events, commits })
}

/// Asks a database two numbers, from beside whoever writes it.
fn look(database: &Path, sql: &'static str, position: i64) -> anyhow::Result<(i64, i64)> {
    block_on(async {
        let options = SqliteConnectOptions::new().filename(database).read_only(true);
        let mut connection = options.connect().await?;
        let numbers = sqlx::query_as(sql).bind(position).fetch_one(&mut connection).await?;
        sqlx::Connection::close(connection).await?;
        Ok(numbers)
    })
}

// ---- nothing ----

/// The yardstick for calls: an axum server whose handlers do nothing.
pub struct Noop {
    pub process: Process,
    pub address: SocketAddr,
}

impl Noop {
    pub fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let (process, address) = Process::that_says_where(command.arg("--serve-noop"))?;
        Ok(Self { process, address })
    }
}

/// What [`Noop`] runs: says where it listens, and serves until its standard input ends.
pub fn serve_noop() {
    std::thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        std::process::exit(0);
    });
    let router = Router::new()
        .route("/api/v1/agent-sessions", post(|_body: Bytes| async { StatusCode::CREATED }))
        .route("/api/v1/agent-sessions/{session}/heartbeat", post(|| async {}));
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, router).await.unwrap();
    });
}
