//! The same small calls through sessiond and through other gateways, before the same upstream, in turn.

use crate::Bench;
use crate::mcp::{Endpoint, Era, Stand, Tool};
use crate::peers::{PEERS, Peer};
use crate::rows::gateway::{Outcome, Runner, race};
use crate::server::Process;
use crate::table::{Line, thousands};

pub fn peers(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let (stand, bench) = (Stand::new(bench, "peers")?, bench.halved());
    let mut lines = vec![];
    let mut measured = 0;
    for peer in PEERS {
        eprintln!("  sessiond and {}", peer.name);
        match beside(&bench, &stand, peer) {
            Ok(figures) => {
                lines.extend(figures);
                measured += 1;
            }
            Err(error) => lines.push(Line::note(format!("{}: NOT MEASURED: {error:#}", peer.name))),
        }
    }
    lines.push(Line::note(format!(
        "{measured} of {} measured; the yardstick is the peer. It asks nobody who they are; sessiond does, and keeps record",
        PEERS.len()
    )));
    Ok(lines)
}

fn beside(bench: &Bench, stand: &Stand, peer: &Peer) -> anyhow::Result<Vec<Line>> {
    let (process, endpoint) = peer.start(bench, &stand.upstream)?;
    let mut lines = vec![Line::note(format!("{}: {}", peer.name, peer.how))];
    for connections in [1, 32] {
        let runner = |endpoint: &Endpoint, process| {
            let requests = endpoint.calls(Era::Sessions, Tool::Small, connections)?;
            anyhow::Ok(Runner { address: endpoint.address, process, requests })
        };
        let runners = [
            runner(&stand.direct, &stand.upstream.process)?,
            runner(&stand.through, &stand.server.process)?,
            runner(&endpoint, &process)?,
        ];
        let outcomes = race(bench, connections, &runners)?;
        lines.extend(told(connections, &outcomes, &process));
    }
    Ok(lines)
}

fn told(connections: usize, outcomes: &[Outcome], process: &Process) -> Vec<Line> {
    let [direct, ours, theirs] = outcomes else { return vec![] };
    let what = |figure: &str| format!("{connections}: {figure}");
    vec![
        Line::rate(what("calls a second"), ours.rate(), theirs.rate(), 1.0),
        Line::times(what("p50"), ours.p50(), theirs.p50(), f64::INFINITY),
        Line::times(what("p99"), ours.p99(), theirs.p99(), f64::INFINITY),
        Line::note(format!(
            "direct {} calls a second; processor time per call {:.0} us, the peer {:.0} us; the peer {}",
            thousands(direct.rate()),
            ours.processor(),
            theirs.processor(),
            process.memory()
        )),
    ]
}
