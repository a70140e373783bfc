//! Streams that stay open: what each costs, and how soon all have ended once they are revoked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Bench;
use crate::connection::{Connection, block_on};
use crate::mcp::Stand;
use crate::table::{Line, median, milliseconds, thousands};

const END: Duration = Duration::from_millis(100);
const KIBIBYTES: f64 = 30.0;
/// Files a process has open besides.
const OTHERS: usize = 200;
/// How long a stream may take to open, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn streams(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let [few, many] = bench.streams;
    // A stream is two of sessiond's: the client's and the upstream's.
    let (limit, fit) = (limit()?, (limit()?.saturating_sub(OTHERS)) / 2);
    let mut lines = vec![];
    for (wanted, aim) in [(few, END), (many, Duration::MAX)] {
        let count = wanted.min(fit);
        let runs = (0..bench.runs).map(|_| run(bench, count)).collect::<Result<Vec<_>, _>>()?;
        lines.extend(told(count, &runs, aim));
        if count < wanted {
            lines.push(Line::note(format!(
                "{} wanted, but {} open files are allowed: raise that (`ulimit -n {}`, or nofile of the container)",
                thousands(wanted as f64),
                thousands(limit as f64),
                2 * wanted + OTHERS
            )));
        }
    }
    lines.push(Line::note(
        "yardstick of the memory: the upstream, which holds the same streams and nothing else",
    ));
    lines.push(Line::note("ends are timed from sending the revoke to the stream's last byte at the client"));
    Ok(lines)
}

/// One run.
struct Run {
    /// Of each stream; KiB.
    memory: f64,
    upstream: f64,
    /// Of each stream with its session.
    whole: f64,
    /// When streams had ended, sorted.
    ends: Vec<Duration>,
    answered: Duration,
}

impl Run {
    fn quantile(&self, part: f64) -> Duration {
        self.ends[((self.ends.len() as f64 * part) as usize).min(self.ends.len() - 1)]
    }
}

fn told(count: usize, runs: &[Run], aim: Duration) -> Vec<Line> {
    let what = |figure: &str| format!("{}: {figure}", thousands(count as f64));
    let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure));
    let ended = |part: f64| median(runs.iter().map(|run| run.quantile(part)));
    let memory = of(|run| run.memory);
    let figure = |name: &str, time| Line::plain(what(name), milliseconds(time), String::new());
    let p99 = match aim {
        Duration::MAX => figure("ended, p99", ended(0.99)),
        aim => Line::time(what("ended, p99"), ended(0.99), None, aim),
    };
    vec![
        Line::Figure {
            what: what("memory each"),
            ours: format!("{memory:.1} KiB"),
            yardstick: format!("{:.1} KiB", of(|run| run.upstream)),
            ratio: String::new(),
            aim: format!("<= {KIBIBYTES} KiB"),
            met: Some(memory <= KIBIBYTES),
        },
        figure("ended, p50", ended(0.50)),
        p99,
        figure("ended, the last", ended(1.0)),
        figure("revoke answered", median(runs.iter().map(|run| run.answered))),
        Line::note(format!("memory of each with its session {:.1} KiB", of(|run| run.whole))),
    ]
}

/// A server of its own for each run: what was freed before would be used again, and not be seen.
fn run(bench: &Bench, count: usize) -> anyhow::Result<Run> {
    let stand = Stand::new(bench, "streams")?;
    let (server, upstream) = (&stand.server.process, &stand.upstream.process);
    let empty = server.resident()?;
    let sessions = block_on(stand.through.open_many(count))?;
    let (before, before_upstream) = (server.resident()?, upstream.resident()?);
    let requests = sessions.iter().map(|session| stand.through.listen(session)).collect();
    let held = Held::open(stand.through.address, requests)?;
    let (after, after_upstream) = (server.resident()?, upstream.resident()?);
    let token = stand.server.token()?;
    let began = Instant::now();
    let revoked = stand.server.revoke_all(&token, &stand.application)?;
    let answered = began.elapsed();
    ensure!(revoked == count as u64, "it says it ended {revoked} sessions, of {count}");
    let mut ends: Vec<Duration> = held.ended()?.into_iter().map(|end| end - began).collect();
    ends.sort_unstable();
    let each = |after: u64, before: u64| (after as f64 - before as f64) / count as f64;
    let run = Run {
        memory: each(after, before),
        upstream: each(after_upstream, before_upstream),
        whole: each(after, empty),
        ends,
        answered,
    };
    let last = milliseconds(run.quantile(1.0));
    eprintln!("  {count} streams, {:.1} KiB each, the last ended after {last}", run.memory);
    Ok(run)
}

/// Streams held open, by two threads.
struct Held(Vec<JoinHandle<anyhow::Result<Vec<Instant>>>>);

impl Held {
    /// Opens them all, and lets the dust settle.
    fn open(address: SocketAddr, requests: Vec<Vec<u8>>) -> anyhow::Result<Self> {
        let (count, opened) = (requests.len(), Arc::new(AtomicUsize::new(0)));
        let half = count.div_ceil(2).max(1);
        let threads = requests
            .chunks(half)
            .map(|requests| {
                let (requests, opened) = (requests.to_vec(), opened.clone());
                std::thread::spawn(move || block_on(hold(address, requests, opened)))
            })
            .collect();
        let (held, began) = (Self(threads), Instant::now());
        while opened.load(Ordering::Relaxed) < count {
            if held.0.iter().any(JoinHandle::is_finished) || began.elapsed() > PATIENCE {
                let open = opened.load(Ordering::Relaxed);
                let error = held.failed();
                return Err(error.context(format!("only {open} of {count} streams opened")));
            }
            sleep(Duration::from_millis(10));
        }
        sleep(Duration::from_millis(500));
        Ok(held)
    }

    /// Why one of those that ended did so.
    fn failed(self) -> anyhow::Error {
        let ended = self.0.into_iter().filter(JoinHandle::is_finished);
        let error = ended.filter_map(|thread| thread.join().ok()?.err()).next();
        error.unwrap_or_else(|| anyhow::anyhow!("they took longer than a minute"))
    }

    /// Waits until all have ended: when each did.
    fn ended(self) -> anyhow::Result<Vec<Instant>> {
        let mut ends = vec![];
        for thread in self.0 {
            ends.extend(thread.join().expect("a holder panicked")?);
        }
        Ok(ends)
    }
}

async fn hold(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    opened: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<Instant>> {
    let side_by_side = Arc::new(Semaphore::new(32));
    let mut tasks = JoinSet::new();
    for request in requests {
        let (side_by_side, opened) = (side_by_side.clone(), opened.clone());
        tasks.spawn(async move {
            let opening = side_by_side.acquire().await?;
            let mut connection = Connection::open(address).await?;
            let status = connection.send(&request).await?;
            ensure!(status == 200, "a stream was answered with {status}");
            drop(opening);
            opened.fetch_add(1, Ordering::Relaxed);
            let ended = tokio::time::timeout(PATIENCE, connection.rest()).await;
            ended.context("a stream did not end")??;
            Ok(Instant::now())
        });
    }
    let mut ends = vec![];
    while let Some(end) = tasks.join_next().await {
        ends.push(end??);
    }
    Ok(ends)
}

/// How many files a process may have open.
fn limit() -> anyhow::Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(soft.context("no limit of open files in /proc/self/limits")?.parse().unwrap_or(usize::MAX))
}
