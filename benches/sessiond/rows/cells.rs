//! How many logs a very large installation needs, and how evenly organizations lie on them: a simulation by what one node and
//! one log carry here and now, measured first.

use std::time::Duration;

use anyhow::Context;

use super::reports::{CONNECTIONS, ITEMS, calls_of};
use crate::Bench;
use crate::cluster::{Nodes, Postgres};
use crate::load::{Dice, Load, Requests};
use crate::table::{Line, milliseconds, thousands};

/// What is wanted in all.
const SESSIONS: f64 = 100_000_000.0;
const SIGNS_A_SECOND: f64 = 1_000_000.0;
/// How much of what a log carries is used at the most: beyond it, waiting grows faster than the load.
const USED: f64 = 0.5;
/// How much memory a node has for sessions; KiB.
const MEMORY: f64 = 16.0 * 1_048_576.0;
/// Organizations, whose sizes fall as one divided by their rank, as sizes of towns do; the first ranks are left out, because no
/// organization is larger than a cell.
const ORGANIZATIONS: usize = 200_000;
const RANKS_LEFT_OUT: usize = 12;
/// How many organizations are twice as large a while later.
const GROWING: usize = ORGANIZATIONS / 20;

/// What was measured.
struct Carried {
    /// KiB of a node's memory for a session.
    memory: f64,
    /// Signs of life a second that one log takes in, reported a thousand at a time.
    signs: f64,
    /// How long a commit takes by itself, and how much longer with each report in it; seconds.
    commit: f64,
    report: f64,
}

pub fn cells(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let carried = measured(bench)?;
    let by_signs = SIGNS_A_SECOND / (carried.signs * USED);
    let by_memory = SESSIONS * carried.memory / MEMORY;
    let count = by_signs.max(by_memory).ceil() as usize;
    let mut lines = vec![
        Line::note(format!(
            "measured: {:.2} KiB of memory a session; {} signs of life a second on one log, {} with {ITEMS} a report",
            carried.memory,
            thousands(carried.signs),
            milliseconds(Duration::from_secs_f64(carried.commit)),
        )),
        Line::note(format!(
            "{} sessions and {} signs of life a second, each log half used: {count} cells ({:.1} by signs, {:.1} by memory)",
            thousands(SESSIONS),
            thousands(SIGNS_A_SECOND),
            by_signs,
            by_memory
        )),
    ];
    lines.extend(placed(count));
    lines.extend([0.3, 0.5, 0.7, 0.9].map(|used| {
        let (p50, p99) = waiting(&carried, used);
        let [p50, p99] = [p50, p99].map(|seconds| milliseconds(Duration::from_secs_f64(seconds)));
        Line::note(format!(
            "a log that is used to {:.0} %: a report is answered after {p50}, p99 {p99}",
            used * 100.0
        ))
    }));
    Ok(lines)
}

fn measured(bench: &Bench) -> anyhow::Result<Carried> {
    let directory = bench.directory("cells");
    let postgres = Postgres::start(&directory)?;
    let nodes = Nodes::start(&directory, &postgres, "cells")?;
    let node = nodes.first();
    let token = node.token()?;
    let application = node.first_application(&token)?;
    let before = node.process.resident()?;
    let sessions = bench.sessions * 5;
    let heartbeats = node.open(&token, &application, sessions)?;
    let memory = node.process.resident()?.saturating_sub(before) as f64 / sessions as f64;
    let requests = std::sync::Arc::new(Requests::AnyOf(calls_of(&token, &heartbeats)?));
    let mut figures = vec![];
    for connections in [1, CONNECTIONS] {
        let load = Load::start(node.address, connections, &requests);
        std::thread::sleep(bench.warm_up);
        let from = std::time::Instant::now();
        std::thread::sleep(bench.window);
        let to = std::time::Instant::now();
        figures.push(load.finish()?.during(from, to));
    }
    let [one, many] = figures[..] else { unreachable!() };
    let (signs, alone) = (many.rate * ITEMS as f64, one.p50.as_secs_f64());
    // With several at once, commits are shared: what is left of the time of one call is what each call adds.
    let report = (1.0 / many.rate).min(alone * 0.9);
    let commit = alone - report;
    let carried = Carried { memory, signs, commit, report };
    (carried.signs > 0.0).then_some(carried).context("no report was answered")
}

/// Puts organizations on cells, the largest first, each where least is; lets some of them grow; and evens that out by moving
/// the fewest sessions.
fn placed(cells: usize) -> Vec<Line> {
    let ranks = RANKS_LEFT_OUT + 1..=RANKS_LEFT_OUT + ORGANIZATIONS;
    let harmonic: f64 = ranks.clone().map(|rank| 1.0 / rank as f64).sum();
    let mut sizes: Vec<f64> = ranks.map(|rank| SESSIONS / harmonic / rank as f64).collect();
    let fair = SESSIONS / cells as f64;
    let largest = sizes[0] / fair;
    let mut dice = Dice::new(7);
    // By the number that their names come to, as without a table.
    let mut hashed = vec![0.0; cells];
    sizes.iter().for_each(|size| hashed[dice.below(cells)] += size);
    let mut loads = vec![0.0_f64; cells];
    let mut homes = vec![0; sizes.len()];
    for (organization, size) in sizes.iter().enumerate() {
        let least = index_of(&loads, |one, other| one < other);
        loads[least] += size;
        homes[organization] = least;
    }
    let (before, at_first) = (peak(&hashed), peak(&loads));
    for _ in 0..GROWING {
        let organization = dice.below(sizes.len());
        loads[homes[organization]] += sizes[organization];
        sizes[organization] *= 2.0;
    }
    let (grown, fair_now) = (peak(&loads), loads.iter().sum::<f64>() / cells as f64);
    let (mut moved, mut moves) = (0.0, 0);
    // The cell with the most gives the organization that fits best to the one with the least.
    for _ in 0..10_000 {
        let (from, to) =
            (index_of(&loads, |one, other| one > other), index_of(&loads, |one, other| one < other));
        let surplus = (loads[from] - fair_now).min(fair_now - loads[to]);
        let movable = (0..sizes.len()).filter(|one| homes[*one] == from && sizes[*one] <= surplus);
        let Some(one) = movable.max_by(|one, other| sizes[*one].total_cmp(&sizes[*other])) else { break };
        if loads[from] <= 1.05 * fair_now {
            break;
        }
        loads[from] -= sizes[one];
        loads[to] += sizes[one];
        homes[one] = to;
        moved += sizes[one];
        moves += 1;
    }
    vec![
        Line::note(format!(
            "{} organizations, sizes as 1/rank; the largest is {largest:.1} times a cell's fair share",
            thousands(ORGANIZATIONS as f64)
        )),
        Line::note(format!(
            "the fullest cell beside the mean: {before:.2} by hashing names, {at_first:.2} by a table, largest first"
        )),
        Line::note(format!(
            "{} organizations double: {grown:.2}; after {moves} moves of {} sessions ({:.2} %): {:.2}",
            thousands(GROWING as f64),
            thousands(moved),
            100.0 * moved / SESSIONS,
            peak(&loads)
        )),
    ]
}

/// The most that a cell has, beside the mean.
fn peak(loads: &[f64]) -> f64 {
    loads.iter().copied().fold(0.0, f64::max) * loads.len() as f64 / loads.iter().sum::<f64>()
}

fn index_of(loads: &[f64], better: impl Fn(f64, f64) -> bool) -> usize {
    (1..loads.len()).fold(0, |best, one| if better(loads[one], loads[best]) { one } else { best })
}

/// How long a report waits until it is answered where reports come at random and each commit takes what waits: median and p99.
fn waiting(carried: &Carried, used: f64) -> (f64, f64) {
    const REPORTS: usize = 200_000;
    let gap = carried.report / used;
    let mut dice = Dice::new(11);
    let mut random = || (dice.below(1 << 30) as f64 + 1.0) / (1 << 30) as f64;
    let (mut came, mut at) = (Vec::with_capacity(REPORTS), 0.0);
    for _ in 0..REPORTS {
        at -= random().ln() * gap;
        came.push(at);
    }
    let (mut waits, mut next, mut free) = (Vec::with_capacity(REPORTS), 0, 0.0_f64);
    while next < came.len() {
        let begun = free.max(came[next]);
        let taken = came[next..].iter().take_while(|at| **at <= begun).count().max(1);
        free = begun + carried.commit + carried.report * taken as f64;
        waits.extend(came[next..next + taken].iter().map(|at| free - at));
        next += taken;
    }
    waits.sort_by(f64::total_cmp);
    (waits[waits.len() / 2], waits[waits.len() * 99 / 100])
}
