//! The second file: blocks of entries of journals, with a writer and readers of its own, so that nothing that is written
//! to the first waits for it.

mod read;
mod write;

use sqlx::SqliteConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};

use crate::StoreError;

pub(super) use read::SqliteJournals;
pub(super) use write::SqliteJournalWriter;

pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/journals");

/// A block is larger than an event: with small pages it would hang in a long chain of them.
const PAGE_SIZE: u32 = 4096;

pub(super) fn options(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    Ok(super::options(url)?
        .page_size(PAGE_SIZE)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", "-16384"))
}

/// Bytes that the file needs for what is in it, free pages not counted.
async fn used_bytes(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let sql = "select (page_count - freelist_count) * page_size \
               from pragma_page_count, pragma_freelist_count, pragma_page_size";
    let bytes: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(bytes.try_into().unwrap_or(0))
}
