//! What an activity call costs the disk, later checkpoints included.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Instant;

use crate::Bench;
use crate::load::{Load, Requests};
use crate::server::Server;
use crate::table::{Line, median, runs, thousands};

const CONNECTIONS: usize = 64;
/// PostgreSQL updating one row a call, bytes: measured beforehand, with as many connections.
const POSTGRES: f64 = 1_135.0;
const AT_MOST: f64 = 600.0;

/// One run.
struct Cost {
    bytes: f64,
    events: f64,
    per_commit: f64,
    rate: f64,
    memory: String,
}

pub fn disk(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let costs: Vec<Cost> = (0..bench.runs).map(|_| run(bench)).collect::<Result<_, _>>()?;
    let of = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure));
    let bytes = of(|cost| cost.bytes);
    Ok(vec![
        Line::Figure {
            what: "bytes per call".into(),
            ours: thousands(bytes),
            yardstick: thousands(POSTGRES),
            ratio: format!("{:.2}", bytes / POSTGRES),
            aim: format!("<= {AT_MOST}"),
            met: Some(bytes <= AT_MOST),
        },
        Line::note("yardstick: PostgreSQL updating one row a call, a figure taken once elsewhere"),
        Line::note(format!("runs: {}", runs(costs.iter().map(|cost| cost.bytes)))),
        Line::note(format!(
            "{} calls a second; {:.3} events committed per call, {:.0} per commit; server {}",
            thousands(of(|cost| cost.rate)),
            of(|cost| cost.events),
            of(|cost| cost.per_commit),
            costs[0].memory
        )),
    ])
}

fn run(bench: &Bench) -> anyhow::Result<Cost> {
    let directory = bench.directory("disk");
    let server = Server::start(&directory)?;
    let token = server.token()?;
    let application = server.first_application(&token)?;
    let heartbeats = Arc::new(Requests::AnyOf(server.open(&token, &application, bench.sessions)?));
    // What opening them left in the write-ahead log is not to be counted: a process of its own for what is.
    server.stop()?;
    let server = Server::start(&directory)?;
    let (position, before) = (server.position()?, server.process.bytes_written()?);
    let load = Load::start(server.address, CONNECTIONS, &heartbeats);
    let began = Instant::now();
    sleep(bench.disk_window);
    let calls = load.finish()?;
    let seconds = began.elapsed().as_secs_f64();
    let (written, memory) = (server.written_since(position)?, server.process.memory());
    // Stopping moves the last of the write-ahead log into the database: nothing is left to be written later.
    let after = server.stop()?;
    let number = calls.samples.len() as f64;
    let cost = Cost {
        bytes: (after - before) as f64 / number,
        events: written.events as f64 / number,
        per_commit: written.events as f64 / written.commits as f64,
        rate: number / seconds,
        memory,
    };
    eprintln!("  {} bytes a call over {} calls", thousands(cost.bytes), thousands(number));
    Ok(cost)
}
