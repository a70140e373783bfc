//! Lists and counts among very many sessions, beside the same among few.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;

use crate::Bench;
use crate::connection::{Connection, block_on, request};
use crate::server::Server;
use crate::table::{Line, milliseconds, thousands};

/// Calls of each sort.
const SAMPLES: usize = 1_000;

/// What is asked, after the application's sessions.
const QUESTIONS: [(&str, &str); 7] = [
    ("list 100, p50", "?limit=100"),
    ("list 100 by last activity, p50", "?limit=100&sort=lastActive"),
    ("list 100 by expiry, p50", "?limit=100&sort=expires"),
    ("list by hostname, p50", "?limit=100&hostname=build-17.example.com"),
    ("count by status, p50", "/count"),
    ("count by hostname and client, p50", "/count?hostname=build-17.example.com&client=inspector"),
    ("list of the ended by hostname, p50", "?limit=100&status=disconnected&hostname=build-17.example.com"),
];

pub fn lists(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let few = times(bench, "few", bench.sessions)?;
    let many = times(bench, "many", bench.listed)?;
    let mut lines: Vec<Line> = QUESTIONS
        .iter()
        .zip(few.medians.iter().zip(&many.medians))
        .map(|((what, question), (few, many))| {
            // A count that looks at each that fits costs what fits, of which there are a hundred times as many.
            let costs_what_fits = question.contains("/count?");
            let aim = if costs_what_fits { f64::INFINITY } else { 1.5 };
            Line::times(*what, *many, *few, aim)
        })
        .collect();
    lines.push(Line::note(format!(
        "{} sessions beside {}, on a hundred hosts; one connection, {SAMPLES} calls of each sort",
        thousands(bench.listed as f64),
        thousands(bench.sessions as f64)
    )));
    lines.push(Line::note(format!("server with many: {}; with few: {}", many.memory, few.memory)));
    Ok(lines)
}

struct Times {
    medians: Vec<Duration>,
    memory: String,
}

fn times(bench: &Bench, name: &str, sessions: usize) -> anyhow::Result<Times> {
    let server = Server::start(&bench.directory(name))?;
    let token = server.token()?;
    let application = server.first_application(&token)?;
    let opened = server.open(&token, &application, sessions)?;
    // A few have ended.
    let goodbyes: Vec<Vec<u8>> =
        opened.iter().take(sessions / 10).take(1_000).map(|one| goodbye(one)).collect();
    drop(opened);
    block_on(async {
        let mut connection = Connection::open(server.address).await?;
        for goodbye in &goodbyes {
            connection.call(goodbye).await?;
        }
        let mut medians = vec![];
        for (what, question) in QUESTIONS {
            let line = format!("GET /api/v1/applications/{application}/sessions{question}");
            let request = request(&line, &format!("Bearer {token}"), None);
            let mut took = Vec::with_capacity(SAMPLES);
            for _ in 0..SAMPLES {
                let began = Instant::now();
                let answer = connection.call(&request).await?;
                took.push(began.elapsed());
                if took.len() == 1 {
                    check(what, &serde_json::from_slice(answer)?, sessions)?;
                }
            }
            took.sort_unstable();
            eprintln!("  {sessions} sessions, {what}: {}", milliseconds(took[SAMPLES / 2]));
            medians.push(took[SAMPLES / 2]);
        }
        Ok(Times { medians, memory: server.process.memory() })
    })
}

/// The same session's goodbye.
fn goodbye(heartbeat: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(heartbeat).replacen("/heartbeat ", "/disconnect ", 1).into_bytes()
}

/// That what is measured is the right answer.
fn check(what: &str, answer: &Value, sessions: usize) -> anyhow::Result<()> {
    if let Some(items) = answer["items"].as_array() {
        ensure!(!items.is_empty() && items.len() <= 100, "{what}: {} items", items.len());
    } else if what.starts_with("count by status") {
        ensure!(answer["total"] == sessions, "{what}: {answer}");
    } else {
        ensure!(answer["total"] == sessions / 100, "{what}: {answer}");
    }
    Ok(())
}
