//! The second file: log lines and recordings, through the handle that surfaces use, on a real file.

mod appending;
mod damage;
mod in_service;
mod killed;
mod plans;
mod reading;
mod retention;

use chrono::{TimeDelta, TimeZone, Utc};
use sessiond::clock::Clock;
use sessiond::journals::{Entry, Filed, Journal, Journals, Level, Page, Query, Start};
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_store::sqlite;
use sqlx::Connection;
use tempfile::TempDir;

const FIRST: SessionNumber = SessionNumber(1);
const SECOND: SessionNumber = SessionNumber(2);

/// A file of lines in a directory of its own.
struct Shelf {
    directory: TempDir,
    clock: Clock,
}

impl Shelf {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clock: Clock::system() }
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("sessiond.db.lines")
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }

    /// Bytes in the write-ahead log.
    fn wal_bytes(&self) -> u64 {
        let wal = self.directory.path().join("sessiond.db.lines-wal");
        std::fs::metadata(wal).map_or(0, |metadata| metadata.len())
    }

    async fn open(&self) -> Journals {
        Journals::open(&self.url(), self.clock.clone()).await.unwrap()
    }

    /// On a disk that is full beyond so many pages.
    async fn open_with_pages(&self, pages: u32) -> Journals {
        let open = sqlite::open_journals_limited(&self.url(), pages).await.unwrap();
        Journals::start(open, self.clock.clone()).await.unwrap()
    }

    /// A connection of one's own, for looking and for damage.
    async fn raw(&self) -> sqlx::SqliteConnection {
        sqlx::SqliteConnection::connect(&self.url()).await.unwrap()
    }

    /// Runs one statement on a connection of its own.
    async fn execute(&self, sql: &str) -> u64 {
        let mut raw = self.raw().await;
        let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut raw).await.unwrap();
        raw.close().await.unwrap();
        done.rows_affected()
    }
}

/// Some moment, and so many milliseconds later.
fn moment(milliseconds: i64) -> Time {
    Utc.with_ymd_and_hms(2026, 11, 26, 9, 30, 0).unwrap() + TimeDelta::milliseconds(milliseconds)
}

fn line(milliseconds: i64, text: impl Into<String>) -> Entry {
    Entry::line(moment(milliseconds), Level::Info, text)
}

/// Lines of the same moment.
pub fn lines(texts: &[&str]) -> Vec<Entry> {
    texts.iter().map(|text| line(0, *text)).collect()
}

fn texts(page: &Page) -> Vec<String> {
    page.entries.iter().map(|filed| String::from_utf8(filed.entry.bytes().to_vec()).unwrap()).collect()
}

fn positions(page: &Page) -> Vec<i64> {
    page.entries.iter().map(|filed| filed.position).collect()
}

/// All of a journal, page by page.
async fn whole(lines: &Journals, journal: Journal, session: SessionNumber) -> Vec<Filed> {
    let (mut all, mut query) = (Vec::new(), Query { limit: 1_000, ..Query::default() });
    loop {
        let page = lines.page(journal, session, &query).await.unwrap();
        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
        all.extend(page.entries);
        if !page.more {
            return all;
        }
        query.start = Some(Start::At(page.next));
    }
}

/// Numbers that look like chance, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// What no compression makes smaller.
    fn noise(&mut self, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|_| self.roll() as u8).collect()
    }
}
