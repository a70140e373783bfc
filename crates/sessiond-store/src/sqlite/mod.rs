//! SQLite behind the seam: one connection that writes, a few that read, and what only SQLite needs: its pragmas, its
//! write-ahead log, the settling of activity.

mod backup;
mod beside;
mod copy;
mod directory;
mod error;
mod files;
mod insert;
mod journals;
mod log;
mod look;
mod outbox;
mod past;
mod rebuild;
mod retention;
mod rows;
mod sealed;
mod search;
mod secrets;
mod session;
mod sessions;
mod settling;
mod space;
mod start;
mod statistics;
mod store;
mod verify;
mod wal;
mod writer;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::StoreError;
use crate::seam::{Open, OpenJournals, Store};
use journals::{SqliteJournalWriter, SqliteJournals};
use store::SqliteStore;
use writer::SqliteWriter;

pub use crate::tables::OF_SESSIONS;
pub(crate) use backup::{backup, backup_journals, restore};
pub(crate) use copy::{release, source, target};
pub(crate) use error::meaning;
pub(crate) use look::look;
pub(crate) use rebuild::rebuild;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/sqlite");

/// How long a statement waits for another connection's lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a database page, fixed when the file is made. `docs/decisions/0003-small-pages-and-whole-batches.md` has the figures.
const PAGE_SIZE: u32 = 1024;

pub(crate) async fn open(url: &str) -> Result<Open, StoreError> {
    opened(SqliteWriter::open(url).await?, url).await
}

/// Opens a store that may grow to so many pages and no further, beyond which its disk counts as full: for tests.
pub async fn open_limited(url: &str, pages: u32) -> Result<Open, StoreError> {
    let mut writer = SqliteWriter::open(url).await?;
    wal::limit_pages(&mut writer.connection, pages).await?;
    opened(writer, url).await
}

async fn opened(writer: SqliteWriter, url: &str) -> Result<Open, StoreError> {
    let store = Arc::new(SqliteStore::open(url, writer.tail()).await?);
    Ok(Open { writer: Box::new(writer), store, nodes: None })
}

pub(crate) async fn open_to_look(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(SqliteStore::open_to_look(url).await?))
}

pub(crate) async fn open_journals(url: &str) -> Result<OpenJournals, StoreError> {
    opened_journals(SqliteJournalWriter::open(url).await?, url).await
}

/// As [`open_limited`], for journals.
pub async fn open_journals_limited(url: &str, pages: u32) -> Result<OpenJournals, StoreError> {
    let mut writer = SqliteJournalWriter::open(url).await?;
    wal::limit_pages(&mut writer.connection, pages).await?;
    opened_journals(writer, url).await
}

async fn opened_journals(writer: SqliteJournalWriter, url: &str) -> Result<OpenJournals, StoreError> {
    let reader = Arc::new(SqliteJournals::open(url).await?);
    Ok(OpenJournals { writer: Box::new(writer), reader })
}

/// Where a URL points, and what it says beyond that.
fn location(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    Ok(SqliteConnectOptions::from_str(url)?)
}

fn options(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    Ok(location(url)?
        // Small pages: a commit of a few events rewrites the page at the log's end, and that is most of what it writes.
        .page_size(PAGE_SIZE)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENCE)
        .statement_cache_capacity(256)
        .pragma("wal_autocheckpoint", "0")
        // What is erased is overwritten, in the file too.
        .pragma("secure_delete", "on")
        .pragma("cache_size", "-65536"))
}
