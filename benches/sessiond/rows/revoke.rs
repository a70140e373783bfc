//! Revoking many sessions at once, and what others notice of it.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::Bench;
use crate::load::{Load, Requests};
use crate::server::Server;
use crate::table::{Line, median, milliseconds, thousands};

const CONNECTIONS: usize = 64;

pub fn revoke(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(&bench.directory("revoke"))?;
    let token = server.token()?;
    let revoked = server.first_application(&token)?;
    let other = server.new_application(&token, "another")?;
    let heartbeats = Arc::new(Requests::AnyOf(server.open(&token, &other, bench.sessions)?));
    let (mut times, mut during, mut before) = (vec![], vec![], vec![]);
    for _ in 0..bench.runs {
        // The revocation before this one barred every token from before it.
        let token = server.token()?;
        server.open(&token, &revoked, bench.revoked)?;
        let load = Load::start(server.address, CONNECTIONS, &heartbeats);
        sleep(bench.warm_up);
        let warm = Instant::now();
        sleep(bench.warm_up);
        let position = server.position()?;
        let began = Instant::now();
        let count = server.revoke_all(&token, &revoked)?;
        let ended = Instant::now();
        sleep(bench.warm_up / 4);
        let calls = load.finish()?;
        let events = server.disconnected_since(position)?;
        ensure!(count == bench.revoked as u64, "it says it ended {count}, of {}", bench.revoked);
        ensure!(events as u64 == count, "it says it ended {count}; {events} events say so");
        times.push(ended - began);
        before.push(calls.during(warm, began));
        during.push(calls.during(began, ended));
        let last = during[during.len() - 1];
        eprintln!("  {} in {}, others' p99 {}", count, milliseconds(ended - began), milliseconds(last.p99));
    }
    let words = |times: &[Duration]| times.iter().copied().map(milliseconds).collect::<Vec<_>>().join(" / ");
    let p99s: Vec<Duration> = during.iter().map(|run| run.p99).collect();
    Ok(vec![
        Line::time("time to the answer", median(times.clone()), None, Duration::from_secs(2)),
        Line::time(
            "p99 of the others meanwhile",
            median(p99s.clone()),
            Some(median(before.iter().map(|run| run.p99))),
            Duration::from_millis(100),
        ),
        Line::note("yardstick of the p99: the same connections right before"),
        Line::note(format!("runs: {}; p99 {}", words(&times), words(&p99s))),
        Line::note(format!(
            "{} sessions each time, exactly as many events; others' calls a second {}, before {}; longest {}",
            thousands(bench.revoked as f64),
            thousands(median(during.iter().map(|run| run.rate))),
            thousands(median(before.iter().map(|run| run.rate))),
            milliseconds(median(during.iter().map(|run| run.longest)))
        )),
        Line::note(format!("server {}", server.process.memory())),
    ])
}
