//! The write-ahead log of a file, kept from growing: readers' side moves it into the file while others write, the writer
//! empties it between batches.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::PATIENCE;
use super::files::beside;
use crate::StoreError;

/// Size of the WAL from which it is moved into the database: late, because pages written often are then moved once.
const CHECKPOINT_FROM: u64 = 16 << 20;
/// Size above which a writer empties it between batches.
pub(super) const LARGE: u64 = 64 << 20;

/// Bytes in the write-ahead log of a database file.
pub(super) fn bytes(database: &Path) -> u64 {
    std::fs::metadata(beside(database, "-wal")).map_or(0, |metadata| metadata.len())
}

/// Moves the WAL into the database as far as readers allow, from a connection of its own, so that the writer need not wait;
/// does nothing while the WAL is small. Says how large it was.
pub(super) async fn checkpoint_if_large(options: &SqliteConnectOptions) -> Result<String, StoreError> {
    let bytes = bytes(options.get_filename());
    if bytes > CHECKPOINT_FROM {
        let mut connection = SqliteConnection::connect_with(options).await?;
        sqlx::query("pragma wal_checkpoint(passive)").execute(&mut connection).await?;
        connection.close().await?;
    }
    Ok(format!("the write-ahead log had {} KiB", bytes >> 10))
}

/// Copies what it can of the WAL into the database and, where nobody still reads the old WAL, empties the file. Waits for
/// nobody: while somebody reads the old WAL, all writes would wait along.
pub(super) async fn truncate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("pragma busy_timeout = 0").execute(&mut *connection).await?;
    let outcome = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut *connection).await;
    let patience = format!("pragma busy_timeout = {}", PATIENCE.as_millis());
    sqlx::query(AssertSqlSafe(patience)).execute(connection).await?;
    outcome.map(|_| ()).map_err(StoreError::from)
}

/// Moves the write-ahead log into the file and closes the connection. The last one to close deletes the log.
pub(super) async fn close(mut connection: SqliteConnection) -> Result<(), StoreError> {
    let moved = truncate(&mut connection).await;
    connection.close().await?;
    moved
}

/// Lets the database grow to so many pages and no further: beyond, the disk counts as full.
pub(super) async fn limit_pages(connection: &mut SqliteConnection, pages: u32) -> Result<(), StoreError> {
    let sql = format!("pragma max_page_count = {pages}");
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
