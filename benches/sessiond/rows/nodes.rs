//! Several nodes on one PostgreSQL, beside what that server does alone, and beside one node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::Bench;
use crate::cluster::{Nodes, Postgres};
use crate::connection::{Connection, block_on, request};
use crate::load::{Figures, Load, Requests};
use crate::mcp::{Endpoint, Era, Tool};
use crate::rows::reports::session_id;
use crate::table::{Line, median, milliseconds, runs, thousands};
use crate::upstream::Upstream;

/// As many as the rows of one server have.
const CONNECTIONS: usize = 256;
const OF_GATEWAY: usize = 32;
const MOST_NODES: usize = 3;

pub fn activity(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let directory = bench.directory("nodes");
    let postgres = Postgres::start(&directory)?;
    postgres.prepare_pgbench()?;
    let mut nodes = Nodes::start(&directory, &postgres, "nodes")?;
    let token = nodes.first().token()?;
    let application = nodes.first().first_application(&token)?;
    let heartbeats = nodes.first().open(&token, &application, bench.sessions)?;
    let heartbeats = Arc::new(Requests::AnyOf(heartbeats));
    while nodes.servers.len() < MOST_NODES {
        nodes.add()?;
    }
    let addresses = nodes.addresses();
    let (mut yardstick, mut through, mut bytes) = (vec![], [const { vec![] }; MOST_NODES], vec![]);
    for _ in 0..bench.runs {
        yardstick.push(postgres.transactions(bench.window)?);
        eprintln!("  pgbench -N: {} transactions a second", thousands(*yardstick.last().context("none")?));
        for (count, figures) in through.iter_mut().enumerate() {
            let before = postgres.bytes_logged()?;
            let (window, calls) = loaded(bench, &addresses[..=count], CONNECTIONS, &heartbeats)?;
            figures.push(window);
            if count == 0 {
                bytes.push((postgres.bytes_logged()? - before) / calls as f64);
            }
        }
    }
    let rate = |count: usize| median(through[count].iter().map(|run| run.rate));
    let p99 = |count: usize| median(through[count].iter().map(|run| run.p99));
    let alone = median(yardstick.iter().copied());
    let mut lines = vec![
        Line::rate("one node: calls a second", rate(0), alone, 2.0),
        Line::rate("two nodes, beside one", rate(1), rate(0), 0.0),
        Line::rate("three nodes, beside one", rate(2), rate(0), 0.8),
    ];
    for (count, name) in ["one node", "two nodes", "three nodes"].into_iter().enumerate() {
        lines.push(Line::plain(format!("{name}: p99"), milliseconds(p99(count)), milliseconds(p99(0))));
    }
    let logged = median(bytes);
    lines.push(Line::note(format!("{logged:.0} bytes of PostgreSQL's log a call through one node")));
    let rates = |figures: &[Figures]| runs(figures.iter().map(|run| run.rate));
    lines.push(Line::note(format!(
        "runs: one {}; two {}; three {}; pgbench -N with 32 clients {}",
        rates(&through[0]),
        rates(&through[1]),
        rates(&through[2]),
        runs(yardstick.iter().copied()),
    )));
    lines.push(Line::note(
        "nodes, PostgreSQL and load share the two cores; all of it is on disk before it is answered",
    ));
    Ok(lines)
}

pub fn gateway(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let directory = bench.directory("nodes-gateway");
    let postgres = Postgres::start(&directory)?;
    let mut nodes = Nodes::start(&directory, &postgres, "gateway")?;
    let upstream = Upstream::start()?;
    let token = nodes.first().token()?;
    let application = nodes.first().first_application(&token)?;
    nodes.first().set_upstream(&token, &application, &upstream.url())?;
    while nodes.servers.len() < MOST_NODES {
        nodes.add()?;
    }
    let endpoint = Endpoint {
        address: nodes.first().address,
        path: format!("/mcp/{application}"),
        authorization: format!("Bearer {token}"),
        prefix: String::new(),
    };
    let calls = endpoint.calls(Era::Sessions, Tool::Small, OF_GATEWAY)?;
    let addresses = nodes.addresses();
    let (mut one, mut three) = (vec![], vec![]);
    for _ in 0..bench.runs {
        one.push(loaded(&bench.halved(), &addresses[..1], OF_GATEWAY, &calls)?.0);
        three.push(loaded(&bench.halved(), &addresses, OF_GATEWAY, &calls)?.0);
    }
    let rate = |figures: &[Figures]| median(figures.iter().map(|run| run.rate));
    let p50 = |figures: &[Figures]| median(figures.iter().map(|run| run.p50));
    Ok(vec![
        Line::rate("three nodes, beside one", rate(&three), rate(&one), 0.0),
        Line::times("p50, beside one", p50(&three), p50(&one), f64::INFINITY),
        Line::note("on machines of their own, three nodes have three times the cores; here they share two"),
    ])
}

pub fn barrier(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let directory = bench.directory("barrier");
    let postgres = Postgres::start(&directory)?;
    let mut times = [const { vec![] }; 2];
    for (which, count) in [1, MOST_NODES].into_iter().enumerate() {
        let mut nodes = Nodes::start(&directory, &postgres, ["alone", "three"][which])?;
        while nodes.servers.len() < count {
            nodes.add()?;
        }
        let ends = if bench.quick { 50 } else { 1_000 };
        let token = nodes.first().token()?;
        let application = nodes.first().first_application(&token)?;
        let sessions = nodes.first().open(&token, &application, ends)?;
        // Whatever the connects have left to do is done before.
        sleep(bench.warm_up);
        times[which] = block_on(terminated(nodes.first().address, &application, &token, &sessions))?;
        times[which].sort_unstable();
    }
    let quantile = |which: usize, part: f64| {
        let times: &Vec<Duration> = &times[which];
        times[((times.len() as f64 * part) as usize).min(times.len() - 1)]
    };
    Ok(vec![
        Line::time(
            "p50, beside one node",
            quantile(1, 0.5),
            Some(quantile(0, 0.5)),
            Duration::from_millis(50),
        ),
        Line::time("p99", quantile(1, 0.99), Some(quantile(0, 0.99)), Duration::from_millis(250)),
        Line::note(format!(
            "longest {}; one at a time, nothing else under way",
            milliseconds(quantile(1, 1.0))
        )),
    ])
}

/// Terminates sessions one after another: how long each took.
async fn terminated(
    address: SocketAddr,
    application: &str,
    token: &str,
    heartbeats: &[Vec<u8>],
) -> anyhow::Result<Vec<Duration>> {
    let mut connection = Connection::open(address).await?;
    let mut times = Vec::with_capacity(heartbeats.len());
    for heartbeat in heartbeats {
        let id = session_id(heartbeat)?;
        let line = format!("POST /api/v1/applications/{application}/sessions/{id}/terminate");
        let terminate = request(&line, &format!("Bearer {token}"), Some(("application/json", "{}")));
        let begun = Instant::now();
        connection.call(&terminate).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// Loads servers, warm-up first: figures of the window, and the calls in all.
fn loaded(
    bench: &Bench,
    addresses: &[SocketAddr],
    connections: usize,
    requests: &Arc<Requests>,
) -> anyhow::Result<(Figures, usize)> {
    let load = Load::over(addresses, connections, requests);
    sleep(bench.warm_up);
    let from = Instant::now();
    sleep(bench.window);
    let to = Instant::now();
    let calls = load.finish()?;
    let figures = calls.during(from, to);
    eprintln!(
        "  {} nodes: {} calls a second, p99 {}",
        addresses.len(),
        thousands(figures.rate),
        milliseconds(figures.p99)
    );
    Ok((figures, calls.samples.len()))
}
