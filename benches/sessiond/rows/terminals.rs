//! A terminal in a WebSocket beside `ssh` at the same server: from a key to its echo, output in bulk, and the memory of
//! those that idle.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::Bench;
use crate::connection::{Connection, ask, block_on, request};
use crate::server::Server;
use crate::sshd::{Sshd, user};
use crate::table::{Line, median, milliseconds, runs};

/// Runs instead of a shell: says back each byte.
const ECHO: &str = "stty raw -echo; printf '!'; exec cat";
/// Runs instead of a shell: after a byte, lines of figures; then it waits.
const MUCH: &str = "stty raw -echo; printf '!'; head -c 1 >/dev/null; seq 1000000 99999999 | head -c";
const KIBIBYTES: f64 = 200.0;

pub fn terminals(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut lines = echoes(bench)?;
    lines.extend(bulk(bench)?);
    lines.extend(memory(bench)?);
    Ok(lines)
}

// ---- rows ----

fn echoes(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let sshd = Sshd::with(&["host_ed25519"], &format!("exec sh -c \"{ECHO}\""), "");
    let house = House::start(bench, "terminal-echo", &sshd)?;
    let keys = if bench.quick { 100 } else { 2_000 };
    let (mut ours, mut alone) = (vec![], vec![]);
    for _ in 0..bench.runs {
        alone.push(echoes_of_ssh(&sshd, keys)?);
        ours.push(block_on(echoes_of(&house, keys))?);
    }
    let of = |runs: &[Vec<Duration>], share: usize| {
        median(runs.iter().map(|run| run[(run.len() * share / 100).min(run.len() - 1)]))
    };
    let (p50, alone_p50) = (of(&ours, 50), of(&alone, 50));
    Ok(vec![
        Line::times("a key until its echo, p50", p50, alone_p50, f64::INFINITY),
        Line::time("  added", p50.saturating_sub(alone_p50), None, Duration::from_millis(1)),
        Line::times("a key until its echo, p99", of(&ours, 99), of(&alone, 99), f64::INFINITY),
        Line::note(format!("{keys} keys a run, one after another; yardstick: ssh alone, at the same sshd")),
    ])
}

fn bulk(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let bytes = if bench.quick { 4 << 20 } else { 128 << 20 };
    let sshd = Sshd::with(&["host_ed25519"], &format!("exec sh -c \"{MUCH} {bytes}; sleep 60\""), "");
    let house = House::start(bench, "terminal-bulk", &sshd)?;
    let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
    let (mut binary, mut text, mut alone) = (vec![], vec![], vec![]);
    for _ in 0..bench.runs {
        alone.push(rate(bulk_of_ssh(&sshd, bytes)?));
        binary.push(rate(block_on(bulk_of(&house, "binary", bytes))?));
        text.push(rate(block_on(bulk_of(&house, "text", bytes))?));
    }
    let middle = |rates: &[f64]| median(rates.iter().copied());
    Ok(vec![
        Line::rate("output, MB a second, binary", middle(&binary), middle(&alone), 0.5),
        Line::rate("output, MB a second, text", middle(&text), middle(&alone), 0.3),
        Line::note(format!(
            "runs: binary {}; text {}; ssh alone {}; {} MiB each, recorded; server {}",
            runs(binary.iter().copied()),
            runs(text.iter().copied()),
            runs(alone.iter().copied()),
            bytes >> 20,
            house.server.process.memory()
        )),
    ])
}

fn memory(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let sshd = Sshd::with(&["host_ed25519"], &format!("exec sh -c \"{ECHO}\""), "");
    let house = House::start(bench, "terminal-memory", &sshd)?;
    let count = if bench.quick { 10 } else { 200 };
    let (each, seats) = block_on(async {
        // What is made once is there before it is measured.
        let first = Seat::take(&house, "binary").await?;
        let before = house.server.process.resident()?;
        let mut seats = vec![first];
        for _ in 0..count {
            seats.push(Seat::take(&house, "binary").await?);
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let grown = house.server.process.resident()?.saturating_sub(before);
        anyhow::Ok((grown as f64 / f64::from(count), seats))
    })?;
    Ok(vec![
        Line::Figure {
            what: "memory of an idle terminal".to_owned(),
            ours: format!("{each:.0} KiB"),
            yardstick: String::new(),
            ratio: String::new(),
            aim: format!("<= {KIBIBYTES} KiB"),
            met: Some(each <= KIBIBYTES),
        },
        Line::note(format!(
            "{} terminals, each watched; server {}",
            seats.len(),
            house.server.process.memory()
        )),
    ])
}

// ---- through sessiond ----

/// A server with the machine that is measured.
struct House {
    server: Server,
    key: String,
    machine: String,
}

impl House {
    fn start(bench: &Bench, name: &str, sshd: &Sshd) -> anyhow::Result<Self> {
        let server = Server::start(&bench.directory(name))?;
        let token = format!("Bearer {}", server.token()?);
        let body = json!({ "name": "bench", "scopes": ["terminal"] }).to_string();
        let content = Some(("application/json", body.as_str()));
        let made = ask(server.address, &request("POST /api/v1/api-keys", &token, content))?;
        let key = format!("Bearer {}", made["key"].as_str().context("no key")?);
        let machine = json!({
            "name": "bench", "host": "127.0.0.1", "port": sshd.port, "user": user(),
            "credential": { "type": "private_key", "private_key": sshd.pem("user") },
            "host_key": sshd.public("host_ed25519"),
        })
        .to_string();
        let content = Some(("application/json", machine.as_str()));
        let made = ask(server.address, &request("POST /v1/machines", &key, content))?;
        let machine = made["data"]["id"].as_str().context("no machine")?.to_owned();
        Ok(Self { server, key, machine })
    }
}

struct Seat {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Seat {
    /// Opens a terminal and sits down at it; it has printed its first byte.
    async fn take(house: &House, mode: &str) -> anyhow::Result<Self> {
        let size = json!({ "cols": 120, "rows": 40 });
        let body = json!({ "machine_id": house.machine, "terminal_size": size });
        let mut connection = Connection::open(house.server.address).await?;
        let call = request("POST /v1/sessions", &house.key, Some(("application/json", &body.to_string())));
        let answer: Value = serde_json::from_slice(connection.call(&call).await?)?;
        let opened = &answer["data"];
        let url = opened["websocket_url"].as_str().context("no websocket_url")?;
        let (socket, _) = connect_async_with_config(url, None, true).await?;
        let mut seat = Self { socket };
        let auth = json!({ "type": "auth", "token": opened["token"], "mode": mode });
        seat.socket.send(Message::text(auth.to_string())).await?;
        ensure!(seat.output().await? == 1, "more than the first byte came");
        Ok(seat)
    }

    async fn types(&mut self, byte: u8) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::Binary(Bytes::copy_from_slice(&[byte]))).await?)
    }

    /// How many bytes of output come next.
    async fn output(&mut self) -> anyhow::Result<usize> {
        loop {
            match self.socket.next().await.context("it closed")?? {
                Message::Binary(bytes) => return Ok(bytes.len()),
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text)?;
                    match frame["type"].as_str() {
                        Some("output") => return Ok(frame["data"].as_str().context("no data")?.len()),
                        Some("ready") => {}
                        _ => bail!("{frame}"),
                    }
                }
                _ => {}
            }
        }
    }
}

async fn echoes_of(house: &House, keys: usize) -> anyhow::Result<Vec<Duration>> {
    let mut seat = Seat::take(house, "binary").await?;
    let mut took = vec![];
    for _ in 0..keys {
        let began = Instant::now();
        seat.types(b'x').await?;
        ensure!(seat.output().await? == 1, "not the echo");
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

async fn bulk_of(house: &House, mode: &str, bytes: usize) -> anyhow::Result<Duration> {
    let mut seat = Seat::take(house, mode).await?;
    let began = Instant::now();
    if mode == "binary" {
        seat.types(b'x').await?;
    } else {
        seat.socket.send(Message::text(json!({ "type": "input", "data": "x" }).to_string())).await?;
    }
    let mut came = 0;
    while came < bytes {
        came += seat.output().await?;
    }
    Ok(began.elapsed())
}

// ---- ssh alone ----

/// `ssh` at the same machine; it ends with its handle.
struct Ssh {
    child: Child,
    keys: ChildStdin,
    screen: ChildStdout,
}

impl Ssh {
    /// It has printed its first byte.
    fn start(sshd: &Sshd) -> anyhow::Result<Self> {
        let mut child = Command::new("ssh")
            .args(["-tt", "-q", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes", "-i"])
            .arg(sshd.path("user"))
            .args(["-p", &sshd.port.to_string(), &format!("{}@127.0.0.1", user())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start ssh")?;
        let (keys, screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut ssh = Self { child, keys, screen };
        ssh.screen.read_exact(&mut [0])?;
        Ok(ssh)
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn echoes_of_ssh(sshd: &Sshd, keys: usize) -> anyhow::Result<Vec<Duration>> {
    let mut ssh = Ssh::start(sshd)?;
    let mut took = vec![];
    for _ in 0..keys {
        let began = Instant::now();
        ssh.keys.write_all(b"x")?;
        ssh.screen.read_exact(&mut [0])?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

fn bulk_of_ssh(sshd: &Sshd, bytes: usize) -> anyhow::Result<Duration> {
    let mut ssh = Ssh::start(sshd)?;
    let mut buffer = vec![0; 256 << 10];
    let began = Instant::now();
    ssh.keys.write_all(b"x")?;
    let mut came = 0;
    while came < bytes {
        let read = ssh.screen.read(&mut buffer)?;
        ensure!(read > 0, "ssh ended after {came} bytes");
        came += read;
    }
    let took = began.elapsed();
    eprintln!("  ssh alone: {}", milliseconds(took));
    Ok(took)
}
