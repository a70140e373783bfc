//! Readings reported of a thousand media sessions a call, beside as many signs of life of agents in the same way; and the
//! list of one stream with very many sessions, beside that of one with few.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::committer::{run, runtime};
use super::reports::{self, CONNECTIONS, ITEMS};
use crate::Bench;
use crate::base::Base;
use crate::connection::{Connection, ask, block_on, request};
use crate::load::{Dice, Figures, Load, Requests};
use crate::server::Server;
use crate::table::{Line, median, milliseconds, runs, thousands};

/// Sessions opened in one call.
const OPENED: usize = 1_000;
/// Sessions of the streams whose lists are asked for.
const FEW: usize = 100;
const MANY: usize = 100_000;
/// Lists of each.
const SAMPLES: usize = 100;

pub fn media(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let mut lines = readings(bench)?;
    lines.extend(lists(bench)?);
    Ok(lines)
}

fn readings(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(&bench.directory("media"))?;
    let token = server.token()?;
    let basic = key(&server, &token)?;
    block_on(open(&server, &basic, "played", bench.sessions))?;
    let readings = Arc::new(Requests::AnyOf(calls(&basic, bench.sessions)));
    let application = server.first_application(&token)?;
    let agents = server.open(&token, &application, bench.sessions)?;
    let activity = Arc::new(Requests::AnyOf(reports::calls_of(&token, &agents)?));
    let runtime = runtime();
    let base = runtime.block_on(Base::new(&bench.directory("alone"), bench.sessions))?;
    let (mut ours, mut yardstick, mut alone) = (vec![], vec![], vec![]);
    for _ in 0..bench.runs {
        alone.push(runtime.block_on(run(bench, &base))?.0.rate);
        yardstick.push(measured(bench, &server, &activity)?);
        ours.push(measured(bench, &server, &readings)?);
    }
    runtime.block_on(base.stop());
    let rates = |runs: &[Figures]| runs.iter().map(|run| run.rate * ITEMS as f64).collect::<Vec<_>>();
    let (ours_rates, activity_rates) = (rates(&ours), rates(&yardstick));
    let aim = 0.7;
    Ok(vec![
        Line::rate(
            "readings a second",
            median(ours_rates.iter().copied()),
            median(activity_rates.iter().copied()),
            aim,
        ),
        Line::note(format!(
            "runs: {}; signs of life {}; committer alone {}",
            runs(ours_rates),
            runs(activity_rates),
            runs(alone.iter().copied())
        )),
        Line::note(format!(
            "a call of {ITEMS}: p50 {}, p99 {}; server {}",
            milliseconds(median(ours.iter().map(|run| run.p50))),
            milliseconds(median(ours.iter().map(|run| run.p99))),
            server.process.memory()
        )),
    ])
}

/// One run of calls.
fn measured(bench: &Bench, server: &Server, requests: &Arc<Requests>) -> anyhow::Result<Figures> {
    let load = Load::start(server.address, CONNECTIONS, requests);
    sleep(bench.warm_up);
    let from = Instant::now();
    sleep(bench.window);
    let figures = load.finish()?.during(from, Instant::now());
    eprintln!("  {} items a second", thousands(figures.rate * ITEMS as f64));
    Ok(figures)
}

/// A key for the media surface, as its header.
fn key(server: &Server, token: &str) -> anyhow::Result<String> {
    let body = json!({ "name": "bench", "scopes": ["media"] }).to_string();
    let content = Some(("application/json", body.as_str()));
    let made = ask(server.address, &request("POST /api/v1/api-keys", &format!("Bearer {token}"), content))?;
    let key = made["key"].as_str().context("no key")?;
    Ok(format!("Basic {}", BASE64_STANDARD.encode(key)))
}

fn name(number: usize) -> String {
    format!("3925d357-59b3-4b4e-b217-{number:012}")
}

/// Opens sessions of a stream.
async fn open(server: &Server, basic: &str, stream: &str, count: usize) -> anyhow::Result<()> {
    eprintln!("  opening {count} sessions of {stream}");
    let mut connection = Connection::open(server.address).await?;
    let line = format!("POST /v1/vhosts/default/apps/app/streams/{stream}/sessions");
    for from in (0..count).step_by(OPENED) {
        let some = (from..count.min(from + OPENED)).map(|number| json!({ "name": name(number) }));
        let body = Value::from_iter(some).to_string();
        connection.call(&request(&line, basic, Some(("application/json", &body)))).await?;
    }
    Ok(())
}

/// Calls, each about sessions of its own choice. Counters go on and, now and then, begin anew.
fn calls(basic: &str, sessions: usize) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(1);
    let line = "POST /v1/vhosts/default/apps/app/streams/played/sessions:report";
    let call = |number: usize| {
        let from = dice.below(sessions);
        let chosen = (0..ITEMS.min(sessions)).map(|step| name((from + step) % sessions));
        let total = (number + 1) * 1_000_000;
        let body = Value::from_iter(chosen.map(|name| json!({ "session": name, "totalBytesOut": total })));
        request(line, basic, Some(("application/json", &body.to_string())))
    };
    (0..64).map(call).collect()
}

fn lists(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(&bench.directory("lists"))?;
    let basic = key(&server, &server.token()?)?;
    let many = if bench.quick { MANY / 10 } else { MANY };
    let (few_took, many_took) = block_on(async {
        let few = listed(&server, &basic, "few", FEW).await?;
        anyhow::Ok((few, listed(&server, &basic, "many", many).await?))
    })?;
    let each = |took: Duration, sessions: usize| took / u32::try_from(sessions).unwrap_or(u32::MAX);
    Ok(vec![
        Line::times("list of one stream, for each name", each(many_took, many), each(few_took, FEW), 1.5),
        Line::note(format!(
            "the whole list: {} with {} names, {} with {FEW}; one connection, {SAMPLES} calls; server {}",
            milliseconds(many_took),
            thousands(many as f64),
            milliseconds(few_took),
            server.process.memory()
        )),
    ])
}

/// How long the list of a stream with so many sessions takes: the median.
async fn listed(server: &Server, basic: &str, stream: &str, sessions: usize) -> anyhow::Result<Duration> {
    open(server, basic, stream, sessions).await?;
    let line = format!("GET /v1/vhosts/default/apps/app/streams/{stream}/sessions");
    let request = request(&line, basic, None);
    let mut connection = Connection::open(server.address).await?;
    let mut took = vec![];
    for _ in 0..SAMPLES {
        let began = Instant::now();
        let answer = connection.call(&request).await?;
        took.push(began.elapsed());
        if took.len() == 1 {
            let answer: Value = serde_json::from_slice(answer)?;
            let names = answer["response"].as_array().map_or(0, Vec::len);
            ensure!(names == sessions, "{names} names of {sessions}");
        }
    }
    Ok(median(took))
}
