//! What a database comes to in which sessions come and go, with everything kept and with what has ended let go.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::connection::{Connection, block_on, replaced};
use crate::load::{Connects, open_sessions};
use crate::server::Server;
use crate::table::{Line, thousands};

/// Sessions that come and go a second: each connects, is alive once, and says goodbye.
const A_SECOND: usize = 200;
/// Connections by which they are alive and say goodbye.
const CONNECTIONS: usize = 64;
/// How long what has ended, and activity, is kept where it is let go.
const KEPT: &str = "10s";
/// Of a run's time, the last part in which the size has to be flat; and how much it may still grow in it.
const LAST_PART: usize = 3;
const FLAT: f64 = 1.1;

/// One run: the sizes of the database and of its write-ahead log, about every second; and how many sessions there were.
struct Run {
    sizes: Vec<u64>,
    logs: Vec<u64>,
    sessions: usize,
}

pub fn retention(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let window = if bench.quick { Duration::from_secs(30) } else { Duration::from_secs(90) };
    let kept = run(bench, "kept", &[], window)?;
    let let_go = run(bench, "let-go", &["--keep-ended", KEPT, "--keep-activity", KEPT], window)?;
    let growth = let_go.growth();
    Ok(vec![
        Line::Figure {
            what: "bytes in the end".into(),
            ours: thousands(let_go.last() as f64),
            yardstick: thousands(kept.last() as f64),
            ratio: format!("{:.2}", let_go.last() as f64 / kept.last() as f64),
            aim: String::new(),
            met: None,
        },
        Line::Figure {
            what: "growth in the last third".into(),
            ours: format!("{growth:.2}"),
            yardstick: format!("{:.2}", kept.growth()),
            ratio: String::new(),
            aim: format!("<= {FLAT}"),
            met: Some(growth <= FLAT),
        },
        Line::note(format!("yardstick: the same with everything kept; {KEPT} are kept otherwise")),
        Line::note(format!("MiB over time, let go: {}", over_time(&let_go.sizes))),
        Line::note(format!("MiB over time, kept: {}", over_time(&kept.sizes))),
        Line::note(format!("MiB of the write-ahead log beside it, let go: {}", over_time(&let_go.logs))),
        Line::note(format!(
            "{} and {} sessions in {} s",
            thousands(let_go.sessions as f64),
            thousands(kept.sessions as f64),
            window.as_secs()
        )),
    ])
}

impl Run {
    fn last(&self) -> u64 {
        self.sizes.last().copied().unwrap_or_default()
    }

    /// The size in the last of three parts by what it was in the second, at the most in each. The write-ahead log is no part of
    /// it: that goes up and down by itself.
    fn growth(&self) -> f64 {
        let part = (self.sizes.len() / LAST_PART).max(1);
        let most = |sizes: &[u64]| sizes.iter().copied().max().unwrap_or(1) as f64;
        let last = &self.sizes[self.sizes.len().saturating_sub(part)..];
        let before =
            &self.sizes[self.sizes.len().saturating_sub(2 * part)..self.sizes.len().saturating_sub(part)];
        most(last) / most(before)
    }
}

fn over_time(sizes: &[u64]) -> String {
    let step = (sizes.len() / 9).max(1);
    let some = sizes.iter().step_by(step);
    some.map(|bytes| format!("{:.1}", *bytes as f64 / f64::from(1 << 20))).collect::<Vec<_>>().join(", ")
}

fn run(bench: &Bench, name: &str, flags: &[&str], window: Duration) -> anyhow::Result<Run> {
    let directory = bench.directory(name);
    let server = Server::begin_with(&directory, flags)?;
    server.until_ready()?;
    let token = server.token()?;
    let application = server.first_application(&token)?;
    let (began, mut run) = (Instant::now(), Run { sizes: vec![], logs: vec![], sessions: 0 });
    while began.elapsed() < window {
        let next = Instant::now() + Duration::from_secs(1);
        let heartbeats = open_sessions(server.address, Connects::new(&token, &application), A_SECOND)?;
        run.sessions += heartbeats.len();
        block_on(come_and_go(&server, &heartbeats))?;
        run.sizes.push(bytes(&directory, "sessiond.db"));
        run.logs.push(bytes(&directory, "sessiond.db-wal"));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    eprintln!("  {name}: {} MiB", over_time(&run.sizes));
    server.stop()?;
    Ok(run)
}

/// Each is alive once, and says goodbye.
async fn come_and_go(server: &Server, heartbeats: &[Vec<u8>]) -> anyhow::Result<()> {
    let parts = heartbeats.chunks(heartbeats.len().div_ceil(CONNECTIONS).max(1)).map(async |part| {
        let mut connection = Connection::open(server.address).await?;
        for heartbeat in part {
            connection.call(heartbeat).await?;
            connection.call(&replaced(heartbeat, b"/heartbeat ", b"/disconnect ")).await?;
        }
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(parts).await.map(drop)
}

fn bytes(directory: &Path, name: &str) -> u64 {
    std::fs::metadata(directory.join(name)).map_or(0, |metadata| metadata.len())
}
