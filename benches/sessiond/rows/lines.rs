//! Log lines: appended by several tasks, read in pages anywhere in a long log, and downloaded.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt;
use sessiond::clock::Clock;
use sessiond::journals::{Entry, Journal, Journals, Level, Marks, Query, Start};
use sessiond_core::ids::SessionNumber;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tokio::task::{JoinHandle, JoinSet};

use super::committer::{memory_of_this_process, runtime};
use crate::Bench;
use crate::base::TASKS;
use crate::load::{Calls, Dice, Figures, Sample};
use crate::table::{Line, median, milliseconds, runs, thousands};

/// Lines of one append.
const BATCH: usize = 100;
/// Lines of one statement of the yardstick, and statements of one of its transactions.
const RAW_ROWS: usize = 250;
const RAW_STATEMENTS: usize = 16;
/// Different texts.
const TEXTS: usize = 1 << 16;
/// Pages of each sort.
const SAMPLES: usize = 1_000;
/// One line in so many is an error.
const ERRORS: usize = 1_000;
const AT_LEAST: f64 = 100_000.0;
const LINES: Journal = Journal::Lines;

pub fn lines(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    runtime().block_on(async {
        let texts = Arc::new(texts());
        let mut lines = appends(bench, &texts).await?;
        lines.extend(reads(bench, &texts).await?);
        Ok(lines)
    })
}

/// Lines as servers write them, of about a hundred bytes.
pub fn texts() -> Vec<String> {
    let mut dice = Dice::new(1);
    let verbs = ["GET", "POST", "PUT", "DELETE"];
    (0..TEXTS)
        .map(|_| {
            format!(
                "{} /api/v1/orders/{}/items {} in {} us, request {:016x}, build-{:02}.example.com, worker {}",
                verbs[dice.below(4)],
                dice.below(1_000_000),
                [200, 200, 201, 404][dice.below(4)],
                dice.below(90_000),
                dice.below(usize::MAX),
                dice.below(100),
                dice.below(16),
            )
        })
        .collect()
}

fn entry(texts: &[String], dice: &mut Dice, time: DateTime<Utc>) -> Entry {
    let level = if dice.below(ERRORS) == 0 { Level::Error } else { Level::Info };
    Entry::line(time, level, texts[dice.below(TEXTS)].as_str())
}

/// What the scheduler does every two seconds, whoever writes.
fn checkpoints(lines: Journals) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            lines.maintain().await.expect("a checkpoint failed");
        }
    })
}

async fn open(directory: &Path) -> anyhow::Result<Journals> {
    let url = format!("sqlite:{}", directory.join("sessiond.db.lines").display());
    Ok(Journals::open(&url, Clock::system()).await?)
}

// ---- appending ----

async fn appends(bench: &Bench, texts: &Arc<Vec<String>>) -> anyhow::Result<Vec<Line>> {
    let lines = open(&bench.directory("lines")).await?;
    let checkpoints = checkpoints(lines.clone());
    let mut raw = Raw::new(&bench.directory("raw-lines"), texts.clone()).await?;
    let (mut ours, mut yardstick, mut written) = (vec![], vec![], 0);
    for _ in 0..bench.runs {
        let calls = append(bench, &lines, texts).await?;
        eprintln!("  appended: {} lines a second", thousands(calls.0.rate * BATCH as f64));
        ours.push(calls.0);
        written += calls.1 * BATCH;
        yardstick.push(raw.write(bench.sessions, bench.window).await?);
        eprintln!("  SQLite alone: {} lines a second", thousands(yardstick[yardstick.len() - 1]));
    }
    let rates = || ours.iter().map(|run| run.rate * BATCH as f64);
    let per_line = lines.used_bytes().await? as f64 / written as f64;
    checkpoints.abort();
    lines.stop().await;
    let text: usize = texts.iter().map(String::len).sum();
    let (rate, raw_rate) = (median(rates()), median(yardstick.iter().copied()));
    Ok(vec![
        Line::Figure {
            what: "lines appended a second".into(),
            ours: thousands(rate),
            yardstick: thousands(raw_rate),
            ratio: format!("{:.2}", rate / raw_rate),
            aim: format!(">= {}", thousands(AT_LEAST)),
            met: Some(rate >= AT_LEAST),
        },
        Line::plain("bytes on disk per line", thousands(per_line), thousands(raw.stop().await?)),
        Line::note(format!("runs: {}; yardstick {}", runs(rates()), runs(yardstick.iter().copied()))),
        Line::note(format!(
            "{BATCH} lines of {} bytes an append, {TASKS} tasks, {} sessions; p50 {}, p99 {}",
            text / TEXTS,
            thousands(bench.sessions as f64),
            milliseconds(median(ours.iter().map(|run| run.p50))),
            milliseconds(median(ours.iter().map(|run| run.p99))),
        )),
        Line::note("yardstick: a row a line, with one index, by session and position"),
        Line::note(format!("this process, with load and yardstick: {}", memory_of_this_process())),
    ])
}

/// One run: figures of the window in appends, and how many there were in all.
async fn append(
    bench: &Bench,
    lines: &Journals,
    texts: &Arc<Vec<String>>,
) -> anyhow::Result<(Figures, usize)> {
    let (epoch, over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (lines, texts, over) = (lines.clone(), texts.clone(), over.clone());
        let own = bench.sessions / TASKS;
        tasks.spawn(async move {
            let (mut dice, clock, mut samples) = (Dice::new(task), Clock::system(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                let session = SessionNumber((task * own + dice.below(own)) as i64);
                let now = clock.now();
                let entries = (0..BATCH).map(|_| entry(&texts, &mut dice, now)).collect();
                let began = Instant::now();
                lines.append(LINES, session, entries).await?;
                samples.push(Sample::new(epoch, began));
            }
            anyhow::Ok(samples)
        });
    }
    tokio::time::sleep(bench.warm_up).await;
    let from = Instant::now();
    tokio::time::sleep(bench.window).await;
    let to = Instant::now();
    over.store(true, Ordering::Relaxed);
    let mut samples = Vec::new();
    while let Some(task) = tasks.join_next().await {
        samples.extend(task??);
    }
    let calls = Calls { epoch, samples };
    Ok((calls.during(from, to), calls.samples.len()))
}

/// The yardstick: a row a line, written by nothing but SQLite, as durable as ours.
pub struct Raw {
    connection: SqliteConnection,
    texts: Arc<Vec<String>>,
    dice: Dice,
    position: i64,
}

impl Raw {
    pub async fn new(directory: &Path, texts: Arc<Vec<String>>) -> anyhow::Result<Self> {
        let mut connection = SqliteConnectOptions::new()
            .filename(directory.join("raw.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("cache_size", "-65536")
            .connect()
            .await?;
        for sql in [
            "create table line (number integer primary key, session integer not null, \
             position integer not null, time integer not null, level integer not null, text text not null) strict",
            "create unique index line_by_position on line (session, position)",
        ] {
            sqlx::query(sql).execute(&mut connection).await?;
        }
        Ok(Self { connection, texts, dice: Dice::new(2), position: 0 })
    }

    /// Writes for this long, a hundred lines of a session at a time; lines a second.
    pub async fn write(&mut self, sessions: usize, time: Duration) -> anyhow::Result<f64> {
        let rows = vec!["(?,?,?,?,?)"; RAW_ROWS].join(",");
        let insert = format!("insert into line (session, position, time, level, text) values {rows}");
        let (began, from, clock) = (Instant::now(), self.position, Clock::system());
        while began.elapsed() < time {
            sqlx::query("begin immediate").execute(&mut self.connection).await?;
            let now = clock.now().timestamp_millis();
            for _ in 0..RAW_STATEMENTS {
                let mut arguments = SqliteArguments::default();
                arguments.reserve(RAW_ROWS * 5, 0);
                let mut session = 0;
                for row in 0..RAW_ROWS {
                    if row % BATCH == 0 {
                        session = self.dice.below(sessions);
                    }
                    self.position += 1;
                    for value in [session as i64, self.position, now, 2] {
                        arguments.add(value).unwrap();
                    }
                    arguments.add(self.texts[self.dice.below(TEXTS)].clone()).unwrap();
                }
                let query = sqlx::query_with(AssertSqlSafe(insert.clone()), arguments);
                query.execute(&mut self.connection).await?;
            }
            sqlx::query("commit").execute(&mut self.connection).await?;
        }
        Ok((self.position - from) as f64 / began.elapsed().as_secs_f64())
    }

    /// Bytes on disk per line.
    async fn stop(mut self) -> anyhow::Result<f64> {
        let sql = "select page_count * page_size from pragma_page_count, pragma_page_size";
        let bytes: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?;
        self.connection.close().await?;
        Ok(bytes as f64 / self.position as f64)
    }
}

// ---- reading ----

/// When the line of this position was written: one each millisecond.
fn written_at(position: usize) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::milliseconds(position as i64)
}

async fn reads(bench: &Bench, texts: &[String]) -> anyhow::Result<Vec<Line>> {
    let lines = open(&bench.directory("long-log")).await?;
    let checkpoints = checkpoints(lines.clone());
    let (session, mut dice, mut filed) = (SessionNumber(1), Dice::new(3), 0);
    while filed < bench.log_lines {
        let until = (filed + 10_000).min(bench.log_lines);
        let entries = (filed..until).map(|position| entry(texts, &mut dice, written_at(position + 1)));
        lines.append(LINES, session, entries.collect()).await?;
        filed = until;
    }
    let size = lines.used_bytes().await?;
    eprintln!("  {} lines are filed, {} MiB", thousands(filed as f64), size >> 20);
    let few = bench.log_lines / 1_000;
    let mut figures = vec![];
    for (what, question) in [
        ("page of 100 by position, p50", by_position as fn(usize) -> Query),
        ("page of 100 by time, p50", by_time),
        ("page of 100 backwards, p50", backwards),
    ] {
        let mut took = [vec![], vec![]];
        for sample in 0..2 * SAMPLES {
            let within = if sample % 2 == 0 { few } else { bench.log_lines };
            let query = question(1 + dice.below(within));
            let began = Instant::now();
            let page = lines.page(LINES, session, &query).await?;
            took[sample % 2].push(began.elapsed());
            ensure!(!page.entries.is_empty() && page.damaged.is_empty(), "{what}: {query:?}");
        }
        let [beginning, anywhere] = took.map(median);
        eprintln!("  {what}: {}, at the beginning {}", milliseconds(anywhere), milliseconds(beginning));
        figures.push(Line::times(what, anywhere, beginning, 1.5));
    }
    figures.push(errors(&lines, session, &mut dice, bench.log_lines).await?);
    figures.push(Line::note(format!(
        "anywhere in a log of {} lines ({} MiB in the file), beside within its first {}; {SAMPLES} pages of each sort",
        thousands(bench.log_lines as f64),
        size >> 20,
        thousands(few as f64)
    )));
    figures.extend(download(&lines, session, bench.log_lines).await?);
    checkpoints.abort();
    lines.stop().await;
    Ok(figures)
}

fn by_position(position: usize) -> Query {
    Query { start: Some(Start::At(position as i64)), ..Query::default() }
}

fn by_time(position: usize) -> Query {
    Query { since: Some(written_at(position).timestamp_micros()), ..Query::default() }
}

fn backwards(position: usize) -> Query {
    Query { descending: true, ..by_position(position) }
}

/// Ten errors among ten thousand other lines, from anywhere.
async fn errors(
    lines: &Journals,
    session: SessionNumber,
    dice: &mut Dice,
    all: usize,
) -> anyhow::Result<Line> {
    let mut took = vec![];
    for _ in 0..SAMPLES / 10 {
        let only = Marks::at_least(Level::Error);
        let query = Query { only, limit: 10, ..by_position(1 + dice.below(all / 2)) };
        let began = Instant::now();
        let page = lines.page(LINES, session, &query).await?;
        took.push(began.elapsed());
        ensure!(page.entries.len() == 10, "{} errors", page.entries.len());
    }
    let what = format!("10 errors, 1 in {} lines, p50", thousands(ERRORS as f64));
    Ok(Line::plain(what, milliseconds(median(took)), String::new()))
}

async fn download(lines: &Journals, session: SessionNumber, all: usize) -> anyhow::Result<Vec<Line>> {
    let before = memory_of_this_process();
    let (mut pieces, mut count, mut bytes) = (lines.download(LINES, session, Query::default()), 0, 0);
    let began = Instant::now();
    while let Some(piece) = pieces.try_next().await? {
        count += piece.entries.len();
        bytes += piece.entries.iter().map(|filed| filed.entry.bytes().len()).sum::<usize>();
    }
    let took = began.elapsed();
    ensure!(count == all, "{count} of {all} lines came");
    let rate = bytes as f64 / 1e6 / took.as_secs_f64();
    Ok(vec![
        Line::plain("download, MB of text a second", thousands(rate), String::new()),
        Line::note(format!(
            "{} MB in {}; this process before: {before}; after: {}",
            bytes / 1_000_000,
            milliseconds(took),
            memory_of_this_process()
        )),
    ])
}
