//! Tools called through the gateway, beside the same calls made directly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Bench;
use crate::load::{Figures, Requests};
use crate::mcp::{Endpoint, Era, NotSpoken, Stand, Tool};
use crate::rows::calls::window;
use crate::server::Process;
use crate::table::{Line, median, runs};

/// With as many connections as this the ratio has an aim.
const BUSY: usize = 32;
const AT_LEAST: f64 = 0.4;
/// What one call at a time may take longer.
const ADDED: Duration = Duration::from_micros(300);

pub fn sessions(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    calls(bench, Era::Sessions, "gateway")
}

pub fn stateless(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    calls(bench, Era::Stateless, "gateway-stateless")
}

fn calls(bench: &Bench, era: Era, name: &str) -> anyhow::Result<Vec<Line>> {
    let stand = Stand::new(bench, name)?;
    let mut lines = vec![];
    for (tool, size) in [(Tool::Small, "small"), (Tool::Large, "1 MiB")] {
        for connections in [1, BUSY, 256] {
            let Some((through, direct)) = both(&bench.halved(), &stand, era, tool, connections)? else {
                return Ok(vec![not_spoken()]);
            };
            let what = |figure: &str| format!("{size}, {connections}: {figure}");
            let aim = if connections == BUSY { AT_LEAST } else { 0.0 };
            lines.push(Line::rate(what("calls a second"), through.rate(), direct.rate(), aim));
            lines.push(Line::times(what("p50"), through.p50(), direct.p50(), f64::INFINITY));
            lines.push(Line::times(what("p99"), through.p99(), direct.p99(), f64::INFINITY));
            if connections == 1 {
                let added = through.p50().saturating_sub(direct.p50());
                lines.push(Line::time(what("added p50"), added, None, ADDED));
            }
            lines.push(through.note(&direct));
        }
    }
    lines.push(Line::note(
        "client, gateway and upstream share the two cores; one session and one token a connection",
    ));
    lines.push(Line::note(format!("server {}", stand.server.process.memory())));
    Ok(lines)
}

pub fn first_byte(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let stand = Stand::new(bench, "first-byte")?;
    let mut lines = vec![];
    for (era, name) in [(Era::Sessions, "2025-11-25"), (Era::Stateless, "2026-07-28")] {
        for connections in [1, BUSY] {
            let Some((through, direct)) = both(&bench.halved(), &stand, era, Tool::Stream, connections)?
            else {
                lines.push(Line::note(format!("{name}: not spoken yet, the gateway answers 400")));
                break;
            };
            let what = |figure: &str| format!("{name}, {connections}: {figure}");
            lines.push(Line::times(what("p50"), through.p50(), direct.p50(), f64::INFINITY));
            lines.push(Line::times(what("p99"), through.p99(), direct.p99(), f64::INFINITY));
        }
    }
    lines.push(Line::note("the upstream sends its first event at once, and the rest 5 ms later"));
    Ok(lines)
}

fn not_spoken() -> Line {
    Line::note("not spoken yet: the gateway answers 400")
}

/// The same calls through the gateway and directly; `None` where the gateway does not speak like that.
fn both(
    bench: &Bench,
    stand: &Stand,
    era: Era,
    tool: Tool,
    connections: usize,
) -> anyhow::Result<Option<(Outcome, Outcome)>> {
    let runner = |endpoint: &Endpoint, process| {
        let requests = endpoint.calls(era, tool, connections)?;
        anyhow::Ok(Runner { address: endpoint.address, process, requests })
    };
    let direct = runner(&stand.direct, &stand.upstream.process)?;
    let through = match runner(&stand.through, &stand.server.process) {
        Err(error) if error.is::<NotSpoken>() => return Ok(None),
        through => through?,
    };
    eprintln!("  {} over {connections} connections, direct and through", tool.name());
    let [direct, through] = race(bench, connections, &[direct, through])?.try_into().ok().expect("two");
    Ok(Some((through, direct)))
}

/// Somebody to be called.
pub struct Runner<'a> {
    pub address: SocketAddr,
    pub process: &'a Process,
    pub requests: Arc<Requests>,
}

/// What came of one's calls.
#[derive(Default)]
pub struct Outcome {
    runs: Vec<Figures>,
    /// Of the process per call, microseconds.
    processor: Vec<f64>,
}

/// Calls each in turn, as often as there are runs.
pub fn race(bench: &Bench, connections: usize, runners: &[Runner<'_>]) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = runners.iter().map(|_| Outcome::default()).collect();
    for _ in 0..bench.runs {
        for (runner, outcome) in runners.iter().zip(&mut outcomes) {
            let (figures, _, time) =
                window(bench, runner.address, runner.process, connections, &runner.requests)?;
            outcome.runs.push(figures);
            outcome.processor.push(time);
        }
    }
    Ok(outcomes)
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        median(self.runs.iter().map(|run| run.rate))
    }

    pub fn p50(&self) -> Duration {
        median(self.runs.iter().map(|run| run.p50))
    }

    pub fn p99(&self) -> Duration {
        median(self.runs.iter().map(|run| run.p99))
    }

    pub fn processor(&self) -> f64 {
        median(self.processor.iter().copied())
    }

    fn note(&self, yardstick: &Self) -> Line {
        let rates = |outcome: &Self| runs(outcome.runs.iter().map(|run| run.rate));
        Line::note(format!(
            "runs: {}; direct {}; processor time per call {:.0} us, upstream {:.0} us",
            rates(self),
            rates(yardstick),
            self.processor(),
            yardstick.processor()
        ))
    }
}
