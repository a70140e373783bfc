//! A restart with very many open sessions: how long until it is ready, what it needs for that, and whether it answers
//! meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::Bench;
use crate::connection::{Connection, block_on, request};
use crate::server::Server;
use crate::table::{Line, thousands};

/// What a service with no work for so long has settled and given back.
const QUIET: Duration = Duration::from_secs(5);

pub fn restart(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let directory = bench.directory("restart");
    let server = Server::start(&directory)?;
    let token = server.token()?;
    let application = server.first_application(&token)?;
    drop(server.open(&token, &application, bench.listed)?);
    std::thread::sleep(QUIET);
    let steady = server.process.resident()?;
    server.stop()?;

    let mut runs = (0..bench.runs).map(|_| again(bench)).collect::<anyhow::Result<Vec<_>>>()?;
    runs.sort_by_key(|run| run.ready);
    let run = &runs[runs.len() / 2];
    Ok(vec![
        Line::time("until ready", run.ready, None, Duration::from_secs(10)),
        Line::time("longest /livez meanwhile", run.longest, None, Duration::from_secs(1)),
        Line::memory("memory at its peak", run.peak, steady, 1.2),
        Line::memory("memory a while later", run.resident, steady, 1.2),
        Line::note(format!(
            "{} open sessions; the yardstick is the memory of the process that they connected to; {} answers of /livez",
            thousands(bench.listed as f64),
            thousands(run.answers as f64)
        )),
    ])
}

/// One start.
struct Run {
    ready: Duration,
    /// The longest that anybody waited for `/livez` before it was ready.
    longest: Duration,
    answers: usize,
    /// KiB.
    peak: u64,
    resident: u64,
}

fn again(bench: &Bench) -> anyhow::Result<Run> {
    let began = Instant::now();
    let server = Server::begin(&bench.root.join("restart"))?;
    let over = Arc::new(AtomicBool::new(false));
    let watching = watch(server.address, over.clone());
    server.until_ready()?;
    let ready = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let (longest, answers) = watching.join().ok().context("nobody watched")??;
    std::thread::sleep(QUIET);
    let run =
        Run { ready, longest, answers, peak: server.process.peak()?, resident: server.process.resident()? };
    eprintln!("  ready after {:.1} s, {}", ready.as_secs_f64(), server.process.memory());
    server.stop()?;
    Ok(run)
}

/// Asks `/livez` a hundred times a second, as no supervisor would, until it is over.
fn watch(address: SocketAddr, over: Arc<AtomicBool>) -> JoinHandle<anyhow::Result<(Duration, usize)>> {
    std::thread::spawn(move || {
        block_on(async {
            let mut connection = Connection::open(address).await?;
            let question = request("GET /livez", "", None);
            let (mut longest, mut answers) = (Duration::ZERO, 0);
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let status = connection.exchange(&question).await?.status;
                ensure!(status == 200, "/livez answered {status}");
                longest = longest.max(began.elapsed());
                answers += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok((longest, answers))
        })
    })
}
