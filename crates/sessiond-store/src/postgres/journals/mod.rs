//! Journals, in the same database as the log: with connections of their own, and never under the lock of whoever has the turn,
//! so that nothing that is written to the log waits for them.

mod read;
mod write;

use sqlx::{PgExecutor, Row};

use crate::StoreError;

pub(super) use read::PgJournals;
pub(super) use write::PgJournalWriter;

/// Bytes of all blocks, as whoever wrote and forgot them has counted.
async fn used_bytes(executor: impl PgExecutor<'_>) -> Result<u64, StoreError> {
    let sql = "select coalesce(sum(bytes), 0)::bigint as bytes from journal_bytes";
    let bytes: i64 = sqlx::query(sql).fetch_one(executor).await?.try_get("bytes")?;
    Ok(bytes.try_into().unwrap_or(0))
}
