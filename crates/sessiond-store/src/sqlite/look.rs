//! A look at a database before anything is done to it.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use super::files::beside;
use super::{location, wal};
use crate::StoreError;
use crate::copy::COPYING;
use crate::seam::Contents;
use crate::values::bytes32;

/// Options of a connection that only looks: it makes no file and changes none. A database that nobody has open, and whose
/// write-ahead log is empty, is read as if it could not change, so that none is made for it.
pub(super) fn looking(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    let options = location(url)?.read_only(true).busy_timeout(Duration::from_secs(10));
    let idle = wal::bytes(options.get_filename()) == 0 && !has_shm(options.get_filename());
    Ok(options.immutable(idle))
}

fn has_shm(database: &Path) -> bool {
    beside(database, "-shm").exists()
}

/// Looks at a database without changing anything, not even making it.
pub(crate) async fn look(url: &str) -> Result<Contents, StoreError> {
    let options = looking(url)?;
    if std::fs::metadata(options.get_filename()).map_or(0, |metadata| metadata.len()) == 0 {
        return Ok(Contents::default());
    }
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let has = async |connection: &mut SqliteConnection, table: &str| {
        sqlx::query_scalar::<_, bool>("select exists (select 1 from sqlite_schema where name = ?)")
            .bind(table)
            .fetch_one(connection)
            .await
    };
    let mut contents = Contents { exists: true, ..Contents::default() };
    if has(&mut connection, "event").await? {
        contents.events =
            sqlx::query_scalar("select exists (select 1 from event)").fetch_one(&mut connection).await?;
    }
    if has(&mut connection, "mark").await? {
        let sql = "select exists (select 1 from mark where name = ?)";
        contents.unfinished = sqlx::query_scalar(sql).bind(COPYING).fetch_one(&mut connection).await?;
    }
    if has(&mut connection, "key_check").await? {
        let row = sqlx::query("select digest from key_check").fetch_optional(&mut connection).await?;
        contents.key_check = row.map(|row| bytes32(&row, "digest")).transpose()?;
    }
    connection.close().await?;
    Ok(contents)
}
