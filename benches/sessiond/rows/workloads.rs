//! Log lines reported over HTTP, while others send heartbeats.

use std::sync::Arc;
use std::thread::sleep;
use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};

use super::committer::runtime;
use super::lines::{Raw, texts};
use crate::Bench;
use crate::connection::{ask, request};
use crate::load::{Calls, Dice, Load, Requests};
use crate::server::Server;
use crate::table::{Line, median, milliseconds, runs, thousands};

/// Lines of one report.
const BATCH: usize = 1_000;
/// A cluster has few connections for its lines.
const LOGGING: usize = 4;
const BEATING: usize = 64;
/// Sessions that log; all beat.
const LOGS: usize = 64;
const ROOT: &str = "/pro/session-manager/v1/sessions/task";
const AT_LEAST: f64 = 100_000.0;
/// What a heartbeat may take, in times of what it takes without log lines: both share two cores with the load.
const HELD_UP: f64 = 10.0;

pub fn logs(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(&bench.directory("workload-logs"))?;
    let key = key(&server)?;
    let ids = begin(&server, &key, 4 * LOGS)?;
    let texts = Arc::new(texts());
    let heartbeats = ids.iter().map(|id| call(&key, &format!("{id}/heartbeat"), None)).collect();
    let heartbeats = Arc::new(Requests::AnyOf(heartbeats));
    let reports = Arc::new(Requests::AnyOf(reports(&key, &ids[..LOGS], &texts)));
    let runtime = runtime();
    let mut raw = runtime.block_on(Raw::new(&bench.directory("raw-lines"), texts))?;
    let (mut ours, mut alone, mut beside, mut yardstick) = (vec![], vec![], vec![], vec![]);
    for _ in 0..bench.runs {
        yardstick.push(runtime.block_on(raw.write(LOGS, bench.window))?);
        alone.push(measured(bench, Load::start(server.address, BEATING, &heartbeats))?.1);
        let flood = Load::start(server.address, LOGGING, &reports);
        let (window, beats) = measured(bench, Load::start(server.address, BEATING, &heartbeats))?;
        ours.push(flood.finish()?.during(window.0, window.1));
        beside.push(beats);
        let last = (&ours[ours.len() - 1], &beside[beside.len() - 1]);
        eprintln!(
            "  {} lines a second, heartbeats' p99 {}",
            thousands(last.0.rate * BATCH as f64),
            milliseconds(last.1.p99)
        );
    }
    let rates = || ours.iter().map(|run| run.rate * BATCH as f64);
    let (rate, raw_rate) = (median(rates()), median(yardstick.iter().copied()));
    Ok(vec![
        Line::Figure {
            what: "lines a second".into(),
            ours: thousands(rate),
            yardstick: thousands(raw_rate),
            ratio: format!("{:.2}", rate / raw_rate),
            aim: format!(">= {}", thousands(AT_LEAST)),
            met: Some(rate >= AT_LEAST),
        },
        Line::times(
            "heartbeats' p50 meanwhile",
            median(beside.iter().map(|run| run.p50)),
            median(alone.iter().map(|run| run.p50)),
            f64::INFINITY,
        ),
        Line::times(
            "heartbeats' p99 meanwhile",
            median(beside.iter().map(|run| run.p99)),
            median(alone.iter().map(|run| run.p99)),
            HELD_UP,
        ),
        Line::note("yardstick: a row a line by SQLite alone; for heartbeats, the same without log lines"),
        Line::note(format!("runs: {}; yardstick {}", runs(rates()), runs(yardstick.iter().copied()))),
        Line::note(format!(
            "{BATCH} lines a report over {LOGGING} connections, a report's p50 {}, p99 {}; heartbeats a second over \
             {BEATING} connections {}, without log lines {}; server {}",
            milliseconds(median(ours.iter().map(|run| run.p50))),
            milliseconds(median(ours.iter().map(|run| run.p99))),
            thousands(median(beside.iter().map(|run| run.rate))),
            thousands(median(alone.iter().map(|run| run.rate))),
            server.process.memory()
        )),
    ])
}

/// Lets a load run warm, then measures it: when, and its figures.
fn measured(bench: &Bench, load: Load) -> anyhow::Result<((Instant, Instant), crate::load::Figures)> {
    sleep(bench.warm_up);
    let from = Instant::now();
    sleep(bench.window);
    let to = Instant::now();
    let calls: Calls = load.finish()?;
    Ok(((from, to), calls.during(from, to)))
}

/// An API key for this surface.
fn key(server: &Server) -> anyhow::Result<String> {
    let body = json!({ "name": "bench", "scopes": ["session"] }).to_string();
    let content = Some(("application/json", body.as_str()));
    let bearer = format!("Bearer {}", server.token()?);
    let made: Value = ask(server.address, &request("POST /api/v1/api-keys", &bearer, content))?;
    Ok(made["key"].as_str().context("no key")?.to_owned())
}

/// A call of the surface, with its key in the header that it has for it.
fn call(key: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let length = body.len();
    format!(
        "POST {ROOT}{path} HTTP/1.1\r\nhost: 127.0.0.1\r\napiKey: {key}\r\n{kind}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Begins tasks: the ends of their paths.
fn begin(server: &Server, key: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let body = json!({ "app": { "name": "bench", "version": "1" }, "state": "running" });
    let request = call(key, "", Some(&body));
    let begin = |_| {
        let made: Value = ask(server.address, &request)?;
        Ok(format!("/{}", made["id"].as_str().context("no id")?))
    };
    (0..count).map(begin).collect()
}

/// Reports of lines, no two of them the same.
fn reports(key: &str, ids: &[String], texts: &[String]) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(3);
    let mut report = |number: usize| {
        let line = |_| json!({ "level": "info", "text": texts[dice.below(texts.len())] });
        let lines: Vec<Value> = (0..BATCH).map(line).collect();
        call(key, &format!("{}/logs", ids[number % ids.len()]), Some(&json!({ "lines": lines })))
    };
    (0..2 * ids.len()).map(&mut report).collect()
}
