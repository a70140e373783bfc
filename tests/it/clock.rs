//! The machine's clock, set while the service runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::json;
use sessiond::clock::Clock;
use tempfile::TempDir;

use crate::support::daemon::command;
use crate::support::{Daemon, Server};

/// A library that a process loads before all others: its time of day is off by as many seconds as a file says.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(id, now);
    const char *path = getenv("CLOCK_OFF_BY");
    if (outcome == 0 && id == CLOCK_REALTIME && path) {
        FILE *file = fopen(path, "r");
        long by = 0;
        if (file) {
            if (fscanf(file, "%ld", &by) != 1) by = 0;
            fclose(file);
        }
        now->tv_sec += by;
    }
    return outcome;
}
"#;

fn shim(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
    std::fs::write(&source, SHIM).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_on_after_the_clock_was_set_back_by_three_hours() {
    let directory = TempDir::new().unwrap();
    let off_by = directory.path().join("off by");
    std::fs::write(&off_by, "0").unwrap();
    let mut clocked = command(directory.path(), &["--stale-after", "4s", "--idle-after", "1s"]);
    clocked.env("LD_PRELOAD", shim(directory.path())).env("CLOCK_OFF_BY", &off_by);
    let daemon = Daemon::spawn(clocked);
    let operator = daemon.operator().await;
    let agent = operator.connect(json!({})).await;
    let (_, before) = operator.get(&agent.path()).await;
    std::fs::write(&off_by, "-10800").unwrap();
    let later = operator.connect(json!({})).await;
    // A job ends both for their silence, neither three hours late.
    let begun = Instant::now();
    for one in [&agent, &later] {
        loop {
            let (_, found) = operator.get(&one.path()).await;
            if found["session"]["status"] == "disconnected" {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{found}\n{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let (_, after) = operator.get(&later.path()).await;
    assert!(
        after["session"]["connectedAt"].as_str() > before["session"]["connectedAt"].as_str(),
        "time did not go back: {before} {after}"
    );
    assert!(daemon.log().contains("the clock was set back"), "{}", daemon.log());
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_gives_no_token_more_time() {
    let server = Server::with(&["--stale-after", "10h", "--token-lifetime", "1h"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    assert_eq!(agent.call("heartbeat").await.0, 200);
    server.clock.set(TimeDelta::hours(-3));
    assert_eq!(agent.call("heartbeat").await.0, 200);
    server.turn(3_601);
    assert_eq!(agent.call("heartbeat").await.0, 401, "an hour has passed, whatever the clock says");
}

#[test]
fn time_does_not_go_back_and_follows_a_step_forward_at_once() {
    let clock = Clock::system();
    let begun = clock.now();
    clock.set(TimeDelta::hours(-3));
    assert!(clock.now() >= begun && clock.wall() < begun - TimeDelta::hours(2));
    assert_eq!(clock.check(), None, "nobody's silence is forgiven for that");
    assert!(clock.set_back().is_some_and(|by| by > TimeDelta::minutes(179)));
    assert_eq!(clock.set_back(), None, "once");
    clock.set(TimeDelta::hours(4));
    assert!(clock.now() >= begun + TimeDelta::minutes(59), "the time of day has overtaken it");
    assert!(clock.check().is_some() && clock.set_back().is_none());
}

#[test]
fn anothers_time_is_turned_as_this_clock_was_and_not_set_as_the_machine_was() {
    let theirs = chrono::DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
    let clock = Clock::system();
    clock.set(TimeDelta::hours(3));
    assert_eq!(clock.shifted(theirs), theirs);
    clock.turn(TimeDelta::hours(1));
    assert_eq!(clock.shifted(theirs), theirs + TimeDelta::hours(1));
}
