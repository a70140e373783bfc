//! Reports about a thousand sessions a call, beside the committer that gets each of them handed in by itself.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;

use super::committer::{run, runtime};
use crate::Bench;
use crate::base::Base;
use crate::connection::request;
use crate::load::{Dice, Load, Requests};
use crate::server::Server;
use crate::table::{Line, median, milliseconds, runs, thousands};

/// Items a call.
pub const ITEMS: usize = 1_000;
/// Whoever fronts many sessions has few connections.
pub const CONNECTIONS: usize = 8;

pub fn reports(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(&bench.directory("reports"))?;
    let token = server.token()?;
    let application = server.first_application(&token)?;
    let heartbeats = server.open(&token, &application, bench.sessions)?;
    let requests = Arc::new(Requests::AnyOf(calls_of(&token, &heartbeats)?));
    let runtime = runtime();
    let base = runtime.block_on(Base::new(&bench.directory("alone"), bench.sessions))?;
    let (mut ours, mut yardstick) = (vec![], vec![]);
    let (mut items, mut events) = (0, 0);
    for _ in 0..bench.runs {
        yardstick.push(runtime.block_on(run(bench, &base))?.0.rate);
        let before = server.position()?;
        let load = Load::start(server.address, CONNECTIONS, &requests);
        sleep(bench.warm_up);
        let from = Instant::now();
        sleep(bench.window);
        let to = Instant::now();
        let calls = load.finish()?;
        items += calls.samples.len() * ITEMS;
        events += server.written_since(before)?.events;
        let figures = calls.during(from, to);
        eprintln!("  {} items a second", thousands(figures.rate * ITEMS as f64));
        ours.push(figures);
    }
    runtime.block_on(base.stop());
    let rates = || ours.iter().map(|run| run.rate * ITEMS as f64);
    Ok(vec![
        Line::rate("items a second", median(rates()), median(yardstick.iter().copied()), 0.7),
        Line::note(format!("runs: {}; yardstick {}", runs(rates()), runs(yardstick.iter().copied()))),
        Line::note(format!(
            "a call of {ITEMS}: p50 {}, p99 {}; {:.3} events committed per item; server {}",
            milliseconds(median(ours.iter().map(|run| run.p50))),
            milliseconds(median(ours.iter().map(|run| run.p99))),
            events as f64 / items as f64,
            server.process.memory()
        )),
    ])
}

/// The session that a heartbeat is of.
pub fn session_id(heartbeat: &[u8]) -> anyhow::Result<&str> {
    let text = std::str::from_utf8(heartbeat)?;
    let (_, rest) = text.split_once("/agent-sessions/").context("no session in a heartbeat")?;
    Ok(rest.split_once('/').context("no session in a heartbeat")?.0)
}

/// Calls about the sessions of these heartbeats.
pub fn calls_of(token: &str, heartbeats: &[Vec<u8>]) -> anyhow::Result<Vec<Vec<u8>>> {
    let ids = heartbeats.iter().map(|bytes| session_id(bytes)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(calls(token, &ids))
}

/// Calls, each about sessions of its own choice, no two of them the same.
fn calls(token: &str, ids: &[&str]) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(1);
    let call = |_| {
        let from = dice.below(ids.len());
        let chosen = (0..ITEMS.min(ids.len())).map(|step| ids[(from + step) % ids.len()]);
        let items: Vec<_> = chosen.map(|id| json!({ "sessionId": id, "requests": 1 })).collect();
        let body = json!({ "items": items }).to_string();
        let content = Some(("application/json", body.as_str()));
        request("POST /api/v1/agent-sessions/activity", &format!("Bearer {token}"), content)
    };
    (0..64).map(call).collect()
}
