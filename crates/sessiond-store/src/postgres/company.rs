//! Who may write at the same time: any number of nodes, which follow one another's commits, or one process that follows
//! nobody's. Whoever has the store open holds a lock of the database's, nodes a shared one, which goes with the connection.

use std::time::Duration;

use sqlx::Row;

use super::link::{Link, SHORTLY, within};
use crate::StoreError;

/// How often the lock is asked for, and the pause between: the connection of a process that crashed takes a moment to go.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Takes a node's share of the lock, or refuses.
pub(super) async fn share(link: &mut Link) -> Result<(), StoreError> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let asked = sqlx::query_scalar("select pg_try_advisory_lock_shared($1)").bind(link.writer_key);
        if within(SHORTLY, asked.fetch_one(&mut link.connection)).await? {
            return Ok(());
        }
    }
    Err(StoreError::Failed(
        "another process has this store for itself: a command of sessiond's is at work on it".to_owned(),
    ))
}

/// Takes the lock, ends whoever of one's own connections before has it and does nothing, or refuses.
pub(super) async fn take(link: &mut Link, before: Option<i32>) -> Result<(), StoreError> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let asked = sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(link.writer_key);
        if within(SHORTLY, asked.fetch_one(&mut link.connection)).await? {
            return Ok(());
        }
        if let Some(before) = before {
            end(link, before).await?;
        }
    }
    Err(match (before, holder(link).await?) {
        (Some(before), Some(holder)) if before == holder => {
            StoreError::Failed("the server has not done with the connection before".to_owned())
        }
        (Some(_), Some(_)) => {
            StoreError::Raced("it has taken the lock while the connection was lost".to_owned())
        }
        (_, None) => StoreError::Failed("the lock of the store's writer was not to be had".to_owned()),
        (None, Some(_)) => StoreError::Failed(
            "another process has this store open for writing, and this wants it for itself: stop the others first".to_owned(),
        ),
    })
}

/// Ends a connection of one's own that was lost here and is still there at the server, unless it is at work: what it is about
/// to commit must not be cut off from its standby.
async fn end(link: &mut Link, process: i32) -> Result<(), StoreError> {
    let sql = "select pg_terminate_backend(a.pid) from pg_stat_activity a \
               join pg_locks l on l.pid = a.pid and l.locktype = 'advisory' and l.granted \
               where a.pid = $1 and a.state <> 'active' \
               and (l.classid::bigint << 32) | l.objid::bigint = $2";
    let query = sqlx::query(sql).bind(process).bind(link.writer_key);
    within(SHORTLY, query.execute(&mut link.connection)).await?;
    Ok(())
}

async fn holder(link: &mut Link) -> Result<Option<i32>, StoreError> {
    let sql = "select l.pid from pg_locks l where l.locktype = 'advisory' and l.granted and l.objsubid = 1 \
               and l.database = (select oid from pg_database where datname = current_database()) \
               and (l.classid::bigint << 32) | l.objid::bigint = $1";
    let query = sqlx::query(sql).bind(link.writer_key);
    let row = within(SHORTLY, query.fetch_optional(&mut link.connection)).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
