//! What the figures were taken on.

use std::fs::{File, read_to_string};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sessiond::clock::Clock;
use sqlx::Connection;

use crate::Bench;
use crate::connection::block_on;
use crate::table::milliseconds;

pub fn facts(bench: &Bench) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (median, high) = flush_time(&bench.root);
    let (kind, device) = file_system(&bench.root);
    let mut facts = vec![
        format!("{}, commit {}", Clock::system().now().format("%Y-%m-%d %H:%M UTC"), commit()),
        format!("{cores} cores ({}), {} GiB memory, Linux {}", processor(), memory() >> 20, kernel.trim()),
        format!("{kind} on {device}: fdatasync after 4 KiB takes {median}, p99 {high}"),
        format!("SQLite {}, load average {}", sqlite(), load_average()),
    ];
    if kind == "tmpfs" {
        facts.push(
            "WARNING: this file system is memory: nothing here is durable, and no figure means anything"
                .into(),
        );
    }
    facts
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".to_owned() };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    if changed { format!("{hash} with changes") } else { hash }
}

fn processor() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or("unknown processor", |line| line.trim_start_matches([' ', '\t', ':'])).to_owned()
}

/// KiB.
fn memory() -> u64 {
    let info = read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The three averages, and how many run right now: others at work spoil the figures.
fn load_average() -> String {
    read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Type and device of the file system a directory is on.
fn file_system(directory: &Path) -> (String, String) {
    let mounts = read_to_string("/proc/mounts").unwrap_or_default();
    let mut found = ("unknown file system".to_owned(), "unknown device".to_owned(), 0);
    for line in mounts.lines() {
        let mut parts = line.split(' ');
        let (Some(device), Some(point), Some(kind)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if directory.starts_with(point) && point.len() >= found.2 {
            found = (kind.to_owned(), device.to_owned(), point.len());
        }
    }
    (found.0, found.1)
}

/// How long the disk takes to make 4 KiB durable: median and 99th percentile.
fn flush_time(directory: &Path) -> (String, String) {
    let path = directory.join("probe");
    let mut file = File::create(&path).expect("cannot make a file");
    let mut times: Vec<Duration> = (0..500)
        .map(|_| {
            file.write_all(&[7; 4_096]).expect("cannot write");
            let began = Instant::now();
            file.sync_data().expect("cannot flush");
            began.elapsed()
        })
        .collect();
    std::fs::remove_file(&path).ok();
    times.sort_unstable();
    (milliseconds(times[250]), milliseconds(times[495]))
}

fn sqlite() -> String {
    block_on(async {
        let mut connection = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query_scalar("select sqlite_version()").fetch_one(&mut connection).await.unwrap()
    })
}
