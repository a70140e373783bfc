//! Calls over HTTP beside the same bytes sent to a server that does nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::load::{Connects, Figures, Load, Requests};
use crate::server::{Noop, Process, Server, Written};
use crate::table::{Line, median, milliseconds, runs, thousands};

const CONNECTIONS: usize = 256;

pub fn activity(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(&bench.directory("activity"))?;
    let token = server.token()?;
    let application = server.first_application(&token)?;
    let heartbeats = server.open(&token, &application, bench.sessions)?;
    let measured = measure(bench, &server, Requests::AnyOf(heartbeats))?;
    let mut lines = vec![
        Line::rate("calls a second", measured.ours(|run| run.rate), measured.yardstick(|run| run.rate), 0.3),
        Line::time(
            "p99",
            measured.ours(|run| run.p99),
            Some(measured.yardstick(|run| run.p99)),
            Duration::from_millis(50),
        ),
    ];
    lines.extend(measured.notes(&server));
    Ok(lines)
}

pub fn connect(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(&bench.directory("connect"))?;
    let token = server.token()?;
    let application = server.first_application(&token)?;
    let measured = measure(bench, &server, Requests::Connects(Connects::new(&token, &application)))?;
    let p99 = [measured.ours(|run| run.p99), measured.yardstick(|run| run.p99)].map(milliseconds);
    let [ours, yardstick] = p99;
    let mut lines = vec![
        Line::rate("calls a second", measured.ours(|run| run.rate), measured.yardstick(|run| run.rate), 0.2),
        Line::plain("p99", ours, yardstick),
    ];
    lines.extend(measured.notes(&server));
    Ok(lines)
}

/// What came of a row and its yardstick.
struct Measured {
    ours: Vec<Figures>,
    yardstick: Vec<Figures>,
    calls: usize,
    written: Written,
    /// Processor time of the two servers per call, microseconds.
    processor: Vec<(f64, f64)>,
}

impl Measured {
    fn ours<T: Copy + PartialOrd>(&self, figure: fn(&Figures) -> T) -> T {
        median(self.ours.iter().map(figure))
    }

    fn yardstick<T: Copy + PartialOrd>(&self, figure: fn(&Figures) -> T) -> T {
        median(self.yardstick.iter().map(figure))
    }

    fn notes(&self, server: &Server) -> Vec<Line> {
        let Written { events, commits } = self.written;
        let rates = |figures: &[Figures]| runs(figures.iter().map(|run| run.rate));
        vec![
            Line::note(format!("runs: {}; yardstick {}", rates(&self.ours), rates(&self.yardstick))),
            Line::note(format!(
                "p50 {}, longest {}; {:.3} events committed per call, {:.0} per commit",
                milliseconds(self.ours(|run| run.p50)),
                milliseconds(self.ours(|run| run.longest)),
                events as f64 / self.calls as f64,
                events as f64 / commits as f64,
            )),
            Line::note(format!(
                "processor time per call {:.0} us, yardstick {:.0} us; server {}",
                median(self.processor.iter().map(|times| times.0)),
                median(self.processor.iter().map(|times| times.1)),
                server.process.memory()
            )),
        ]
    }
}

fn measure(bench: &Bench, server: &Server, requests: Requests) -> anyhow::Result<Measured> {
    let (noop, requests) = (Noop::start()?, Arc::new(requests));
    let mut measured = Measured {
        ours: vec![],
        yardstick: vec![],
        calls: 0,
        written: Written::default(),
        processor: vec![],
    };
    for _ in 0..bench.runs {
        let (figures, _, nothing) = window(bench, noop.address, &noop.process, CONNECTIONS, &requests)?;
        measured.yardstick.push(figures);
        let before = server.position()?;
        let (figures, calls, time) = window(bench, server.address, &server.process, CONNECTIONS, &requests)?;
        measured.ours.push(figures);
        measured.processor.push((time, nothing));
        measured.calls += calls;
        let written = server.written_since(before)?;
        measured.written.events += written.events;
        measured.written.commits += written.commits;
    }
    Ok(measured)
}

/// Loads a server, warm-up first: figures of the window, the number of calls in all, and the server's processor time
/// for each, in microseconds.
pub fn window(
    bench: &Bench,
    address: SocketAddr,
    process: &Process,
    connections: usize,
    requests: &Arc<Requests>,
) -> anyhow::Result<(Figures, usize, f64)> {
    let before = process.processor_time()?;
    let load = Load::start(address, connections, requests);
    sleep(bench.warm_up);
    let from = Instant::now();
    sleep(bench.window);
    let to = Instant::now();
    let calls = load.finish()?;
    let time = (process.processor_time()? - before) as f64 * 10_000.0 / calls.samples.len() as f64;
    let figures = calls.during(from, to);
    eprintln!("  {} calls a second, p99 {}", thousands(figures.rate), milliseconds(figures.p99));
    Ok((figures, calls.samples.len(), time))
}
