//! `make bench`: what sessiond does on this machine, each row beside a yardstick from the same run, in one table.
//! `docs/benchmarks.md` says what the rows mean.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout)]

mod base;
mod cluster;
mod connection;
mod load;
mod machine;
mod mcp;
mod peers;
mod raw;
mod rows;
mod server;
/// An OpenSSH server, as the tests have it; they use more of it.
#[allow(dead_code)]
#[path = "../../tests/it/terminal/sshd.rs"]
mod sshd;
mod table;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use table::Line;

/// A row: its name on the command line, what it measures, and how.
struct Row {
    name: &'static str,
    title: &'static str,
    run: fn(&Bench) -> anyhow::Result<Vec<Line>>,
}

const ROWS: &[Row] = &[
    Row {
        name: "activity",
        title: "durable heartbeats over HTTP, 256 connections",
        run: rows::calls::activity,
    },
    Row { name: "connect", title: "durable connects over HTTP, 256 connections", run: rows::calls::connect },
    Row { name: "committer", title: "the committer alone, 256 tasks", run: rows::committer::alone },
    Row { name: "grown", title: "the committer on a grown log", run: rows::committer::grown },
    Row {
        name: "revoke",
        title: "revoke all, while 64 connections of another application send heartbeats",
        run: rows::revoke::revoke,
    },
    Row {
        name: "reports",
        title: "activity reported of a thousand sessions a call, 8 connections",
        run: rows::reports::reports,
    },
    Row {
        name: "media",
        title: "readings reported of a thousand media sessions a call, 8 connections; lists of one stream",
        run: rows::media::media,
    },
    Row { name: "lists", title: "lists and counts among very many sessions", run: rows::lists::lists },
    Row { name: "restart", title: "a restart with very many open sessions", run: rows::restart::restart },
    Row {
        name: "retention",
        title: "the size of a database in which 200 sessions a second come and go",
        run: rows::retention::retention,
    },
    Row { name: "lines", title: "log lines appended, read anywhere and downloaded", run: rows::lines::lines },
    Row {
        name: "workload-logs",
        title: "log lines reported over HTTP, while 64 connections send heartbeats",
        run: rows::workloads::logs,
    },
    Row {
        name: "webhooks",
        title: "a backlog of events delivered to one webhook",
        run: rows::webhooks::deliveries,
    },
    Row {
        name: "gateway",
        title: "tools called through the gateway, with sessions (2025-11-25)",
        run: rows::gateway::sessions,
    },
    Row {
        name: "gateway-stateless",
        title: "tools called through the gateway, without sessions (2026-07-28)",
        run: rows::gateway::stateless,
    },
    Row {
        name: "first-byte",
        title: "a streamed answer through the gateway, until the first of it is there",
        run: rows::gateway::first_byte,
    },
    Row {
        name: "streams",
        title: "open streams through the gateway, and one revoke that ends them",
        run: rows::streams::streams,
    },
    Row {
        name: "terminals",
        title: "a terminal in a WebSocket, beside ssh alone",
        run: rows::terminals::terminals,
    },
    Row { name: "peers", title: "a small tool called through other gateways", run: rows::peers::peers },
    Row {
        name: "nodes",
        title: "durable heartbeats over HTTP through nodes on one PostgreSQL, 256 connections",
        run: rows::nodes::activity,
    },
    Row {
        name: "nodes-gateway",
        title: "a small tool called through the gateway of one node and of three, 32 connections",
        run: rows::nodes::gateway,
    },
    Row {
        name: "barrier",
        title: "sessions terminated one after another, each true on three nodes when it is answered",
        run: rows::nodes::barrier,
    },
    Row {
        name: "cells",
        title: "a hundred million sessions on many logs: a simulation by what one carries here",
        run: rows::cells::cells,
    },
    Row { name: "disk", title: "bytes written to disk, 64 connections", run: rows::disk::disk },
];

/// How much of everything, and where.
#[derive(Clone)]
pub struct Bench {
    pub root: PathBuf,
    /// Where `make peers` puts other gateways.
    pub peers: PathBuf,
    pub quick: bool,
    pub runs: usize,
    /// Sessions among which each call chooses one.
    pub sessions: usize,
    pub warm_up: Duration,
    pub window: Duration,
    pub grown_sessions: usize,
    pub grown_events: i64,
    pub revoked: usize,
    pub listed: usize,
    /// Lines of the log that is read.
    pub log_lines: usize,
    pub disk_window: Duration,
    /// Open streams, few and many.
    pub streams: [usize; 2],
}

impl Bench {
    fn new(root: PathBuf, peers: PathBuf, quick: bool) -> Self {
        let seconds = Duration::from_secs;
        if quick {
            Self {
                root,
                peers,
                quick,
                runs: 1,
                sessions: 1_000,
                warm_up: Duration::from_millis(300),
                window: seconds(1),
                grown_sessions: 5_000,
                grown_events: 60_000,
                revoked: 2_000,
                listed: 10_000,
                log_lines: 200_000,
                disk_window: seconds(3),
                streams: [100, 500],
            }
        } else {
            Self {
                root,
                peers,
                quick,
                runs: 3,
                sessions: 10_000,
                warm_up: seconds(2),
                window: seconds(10),
                grown_sessions: 200_000,
                grown_events: 10_000_000,
                revoked: 100_000,
                listed: 1_000_000,
                log_lines: 10_000_000,
                disk_window: seconds(60),
                streams: [1_000, 10_000],
            }
        }
    }

    /// Half as long, for rows of many parts.
    pub fn halved(&self) -> Self {
        Self { warm_up: self.warm_up / 2, window: self.window / 2, ..self.clone() }
    }

    /// An empty directory of this name, on the disk that is measured.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir_all(&path).expect("cannot make a directory");
        path
    }
}

/// Removes what was measured, whatever happened.
struct Cleanup<'a>(&'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.0).ok();
    }
}

fn main() -> ExitCode {
    // Cargo says `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("--serve-noop") => server::serve_noop(),
        Some("--serve-mcp") => upstream::serve(),
        Some("--serve-mcp-lines") => upstream::serve_lines(),
        _ => return run(&arguments),
    }
    ExitCode::SUCCESS
}

fn run(arguments: &[String]) -> ExitCode {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|name| *name != "--quick").collect();
    if let Some(unknown) = named.iter().find(|name| !ROWS.iter().any(|row| row.name == **name)) {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        eprintln!("There is no row {unknown:?}. Rows: {}. --quick is a smoke run.", names.join(", "));
        return ExitCode::from(2);
    }
    // Beside the build, so on a real disk wherever the build is.
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    let (root, peers) = (beside.join("run"), beside.join("peers"));
    let bench = Bench::new(root.clone(), peers, quick);
    std::fs::remove_dir_all(&root).ok();
    std::fs::create_dir_all(&root).expect("cannot make the directory to measure in");
    let _cleanup = Cleanup(&root);
    for fact in machine::facts(&bench) {
        println!("{fact}");
    }
    let rows: Vec<&Row> = ROWS.iter().filter(|row| named.is_empty() || named.contains(&row.name)).collect();
    if measure(&bench, &rows) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the rows and prints the table; whether all of them could be measured.
fn measure(bench: &Bench, rows: &[&Row]) -> bool {
    let mut lines = Vec::new();
    let mut measured = true;
    for row in rows {
        eprintln!("\n{}: {}", row.name, row.title);
        let began = Instant::now();
        match (row.run)(bench) {
            Ok(figures) => {
                lines.push(Line::title(row.name, row.title));
                lines.extend(figures);
            }
            Err(error) => {
                eprintln!("{} FAILED: {error:#}", row.name);
                lines.push(Line::title(row.name, row.title));
                lines.push(Line::note(format!("FAILED: {error:#}")));
                measured = false;
            }
        }
        eprintln!("{} took {:.0} s", row.name, began.elapsed().as_secs_f64());
    }
    println!("\n{}", table::print(&lines));
    if bench.quick {
        println!("A smoke run: sizes are too small for the figures to mean anything.");
    }
    measured
}
