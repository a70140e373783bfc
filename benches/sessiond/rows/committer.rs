//! The committer without HTTP: beside SQLite alone, and on a grown log beside a fresh one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crate::Bench;
use crate::base::Base;
use crate::load::Figures;
use crate::raw::Raw;
use crate::server::{Written, memory, written_since};
use crate::table::{Line, median, milliseconds, runs, thousands};

/// A runtime like the server's.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// One run of the committer: figures of the window, and what it wrote in all.
pub async fn run(bench: &Bench, base: &Base) -> anyhow::Result<(Figures, usize, Written)> {
    let (before, budget) = (base.position(), Arc::new(AtomicI64::new(i64::MAX)));
    let times = async {
        tokio::time::sleep(bench.warm_up).await;
        let from = Instant::now();
        tokio::time::sleep(bench.window).await;
        let to = Instant::now();
        budget.store(0, Ordering::Relaxed);
        (from, to)
    };
    let (calls, (from, to)) = tokio::join!(base.record(budget.clone(), true), times);
    let calls = calls?;
    let figures = calls.during(from, to);
    eprintln!("  committer: {} events a second", thousands(figures.rate));
    let database = base.database.clone();
    let written = tokio::task::spawn_blocking(move || written_since(&database, before)).await??;
    Ok((figures, calls.samples.len(), written))
}

pub fn memory_of_this_process() -> String {
    memory(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

pub fn alone(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    runtime().block_on(async {
        let base = Base::new(&bench.directory("committer"), bench.sessions).await?;
        let mut raw = Raw::new(&bench.directory("raw"), bench.sessions).await?;
        let (mut ours, mut yardstick, mut bare) = (vec![], vec![], vec![]);
        let (mut calls, mut written) = (0, Written::default());
        for _ in 0..bench.runs {
            let (figures, number, wrote) = run(bench, &base).await?;
            ours.push(figures);
            calls += number;
            written.events += wrote.events;
            written.commits += wrote.commits;
            // As many in a batch as the committer found waiting.
            let batch = (written.events / written.commits.max(1)).clamp(1, 512) as usize;
            yardstick.push(raw.write(batch, true, bench.window).await?);
            eprintln!(
                "  SQLite alone: {} events a second, {batch} a batch",
                thousands(yardstick[yardstick.len() - 1])
            );
            bare.push(raw.write(batch, false, bench.window / 2).await?);
        }
        let lines = vec![
            Line::rate(
                "events a second",
                median(ours.iter().map(|run| run.rate)),
                median(yardstick.iter().copied()),
                0.5,
            ),
            Line::note(format!(
                "runs: {}; yardstick {}",
                runs(ours.iter().map(|run| run.rate)),
                runs(yardstick.iter().copied())
            )),
            Line::note(format!("yardstick without the rows, events alone: {}", thousands(median(bare)))),
            Line::note(format!(
                "p50 {}, p99 {}; {:.3} events committed per call, {:.0} per commit",
                milliseconds(median(ours.iter().map(|run| run.p50))),
                milliseconds(median(ours.iter().map(|run| run.p99))),
                written.events as f64 / calls as f64,
                written.events as f64 / written.commits as f64
            )),
            Line::note(format!("this process, committer and load: {}", memory_of_this_process())),
        ];
        raw.stop().await?;
        base.stop().await;
        Ok(lines)
    })
}

pub fn grown(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    runtime().block_on(async {
        let began = Instant::now();
        eprintln!("  connecting {} sessions", bench.grown_sessions);
        let base = Base::new(&bench.directory("grown"), bench.grown_sessions).await?;
        while base.position() < bench.grown_events {
            let some = (bench.grown_events - base.position()).min(1_000_000);
            base.record(Arc::new(AtomicI64::new(some)), false).await?;
            eprintln!(
                "  {} events in the log after {:.0?}",
                thousands(base.position() as f64),
                began.elapsed()
            );
        }
        let (mut ours, mut yardstick) = (vec![], vec![]);
        for _ in 0..bench.runs {
            let fresh = Base::new(&bench.directory("fresh"), bench.sessions).await?;
            yardstick.push(run(bench, &fresh).await?);
            fresh.stop().await;
            ours.push(run(bench, &base).await?);
        }
        let rate = |runs: &[(Figures, usize, Written)]| median(runs.iter().map(|run| run.0.rate));
        let p99 = |runs: &[(Figures, usize, Written)]| milliseconds(median(runs.iter().map(|run| run.0.p99)));
        let bytes = std::fs::metadata(&base.database)?.len();
        let lines = vec![
            Line::rate("events a second", rate(&ours), rate(&yardstick), 0.6),
            Line::plain("p99", p99(&ours), p99(&yardstick)),
            Line::note(format!(
                "runs: {}; yardstick, a fresh log of {} sessions: {}",
                runs(ours.iter().map(|run| run.0.rate)),
                thousands(bench.sessions as f64),
                runs(yardstick.iter().map(|run| run.0.rate))
            )),
            Line::note(format!(
                "{} sessions, {} events at the end, {} MiB; this process {}",
                thousands(bench.grown_sessions as f64),
                thousands(base.position() as f64),
                bytes >> 20,
                memory_of_this_process()
            )),
        ];
        base.stop().await;
        Ok(lines)
    })
}
