//! kill -9 of a process that appends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use sessiond::clock::Clock;
use sessiond::journals::{Code, Entry, Journal, Journals};
use sessiond_core::ids::SessionNumber;
use tempfile::TempDir;

use super::{Dice, line, whole};

/// Names the child, and the file that it appends to.
const CHILD: &str = "SESSIOND_TEST_LINES_KILLED";
const SESSIONS: i64 = 5;

/// What stands at a position: whoever reads it can tell that it is the right thing.
fn text(session: i64, position: i64) -> String {
    let mut dice = Dice((session * 1_000_003 + position) as u64);
    let length = dice.below(300) as usize;
    format!("{session}:{position}:{}", hex::encode(dice.noise(length)))
}

/// Appends to a session for ever, and says what was acknowledged.
async fn append_for_ever(lines: Journals, session: i64) {
    let journal = Journal::Lines;
    let (mut dice, number) = (Dice(session as u64), SessionNumber(session));
    let mut next = lines.bounds(journal, number).await.unwrap().last + 1;
    loop {
        let count = 1 + dice.below(200) as i64;
        let entries = (next..next + count).map(|at| line(0, text(session, at))).collect();
        let appended = lines.append(journal, number, entries).await.unwrap();
        assert_eq!((appended.first, appended.last), (next, next + count - 1));
        next += count;
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {session} {}", appended.last).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_and_positions_go_on() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(url) = std::env::var_os(CHILD) {
        return runtime.block_on(async {
            let lines = Journals::open(url.to_str().unwrap(), Clock::system()).await.unwrap();
            let tasks = (1..=SESSIONS).map(|session| append_for_ever(lines.clone(), session));
            futures_util::future::join_all(tasks).await;
        });
    }
    let directory = TempDir::new().unwrap();
    let url = format!("sqlite:{}", directory.path().join("sessiond.db.lines").display());
    let mut acknowledged = [0; SESSIONS as usize + 1];
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "journals::killed::nothing_acknowledged_is_lost_when_the_process_is_killed_and_positions_go_on",
            ])
            .args(["--nocapture"])
            .env(CHILD, &url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut hear = |line: String| {
            let mut words = line.split(' ').skip_while(|word| !word.ends_with("acknowledged")).skip(1);
            if let (Some(session), Some(last)) = (words.next(), words.next()) {
                acknowledged[session.parse::<usize>().unwrap()] = last.parse().unwrap();
                return true;
            }
            false
        };
        let mut heard = 0;
        while heard < 10 + 37 * round {
            heard += usize::from(hear(said.next().expect("it ended by itself")));
        }
        child.kill().unwrap();
        // What it said before it died counts too.
        for line in said {
            hear(line);
        }
        child.wait().unwrap();
        runtime.block_on(async {
            let lines = Journals::open(&url, Clock::system()).await.unwrap();
            for session in 1..=SESSIONS {
                let number = SessionNumber(session);
                let filed = whole(&lines, Journal::Lines, number).await;
                assert!(filed.len() as i64 >= acknowledged[session as usize], "session {session} lost some");
                for (filed, position) in filed.iter().zip(1..) {
                    assert_eq!(filed.position, position);
                    assert_eq!(filed.entry.bytes(), text(session, position).as_bytes());
                }
                let next = filed.len() as i64 + 1;
                let appended = lines.append(Journal::Lines, number, vec![line(0, text(session, next))]).await;
                assert_eq!(appended.unwrap().first, next);
            }
            lines.stop().await;
        });
    }
}

#[test]
fn a_failed_flush_ends_the_process() {
    const NAME: &str = "journals::killed::a_failed_flush_ends_the_process";
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(url) = std::env::var_os(CHILD) {
        return runtime.block_on(async {
            let lines = Journals::open(url.to_str().unwrap(), Clock::system()).await.unwrap();
            let mut dice = Dice(1);
            for _ in 0..60 {
                let entries = (0..50).map(|at| Entry::chunk(at, Code::Output, dice.noise(60_000))).collect();
                lines.append(Journal::Recording, SessionNumber(1), entries).await.unwrap();
                lines.maintain().await.unwrap();
            }
            panic!("it goes on");
        });
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("sessiond.db.lines");
    let url = format!("sqlite:{}", file.display());
    runtime.block_on(async { Journals::open(&url, Clock::system()).await.unwrap().stop().await });
    let output = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-e", "trace=fdatasync"])
        // Those before are of the opening.
        .args(["-e", "inject=fdatasync:error=EIO:when=5+", "-o"])
        .arg(directory.path().join("trace"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, &url)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(74), "{}", String::from_utf8_lossy(&output.stderr));
}
