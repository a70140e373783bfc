//! The space in the database file that is not used any more, and giving it back to the file system: a little at a time, so that
//! nobody waits. `docs/decisions/0051-a-file-that-shrinks.md` says why.

use sqlx::{AssertSqlSafe, SqliteConnection};

use crate::StoreError;

/// Free pages that are kept for what is written next; and beyond them, this part of the file.
const KEPT_FREE: i64 = 1_024;
const KEPT_PART: i64 = 4;
/// Pages given back at a time.
const AT_ONCE: i64 = 512;
/// `pragma auto_vacuum` of a file that can give space back bit by bit.
const INCREMENTAL: i64 = 2;

/// Gives some space back where there is far more than will soon be needed again. Whether it did.
pub(super) async fn give_some_back(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    let sql = "select page_count, freelist_count, auto_vacuum \
               from pragma_page_count, pragma_freelist_count, pragma_auto_vacuum";
    let (pages, free, mode): (i64, i64, i64) = sqlx::query_as(sql).fetch_one(&mut *connection).await?;
    let surplus = free - KEPT_FREE.max(pages / KEPT_PART);
    if mode != INCREMENTAL || surplus <= 0 {
        return Ok(false);
    }
    let sql = format!("pragma incremental_vacuum({})", surplus.min(AT_ONCE));
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(true)
}

/// Gives all free space back. A file from before it could do so bit by bit is written anew for that, once.
pub(super) async fn give_all_back(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let mode: i64 = sqlx::query_scalar("pragma auto_vacuum").fetch_one(&mut *connection).await?;
    let statements: &[&str] = match mode {
        INCREMENTAL => &["pragma incremental_vacuum"],
        _ => &["pragma auto_vacuum = incremental", "vacuum"],
    };
    for sql in statements {
        sqlx::query(*sql).execute(&mut *connection).await?;
    }
    Ok(())
}
