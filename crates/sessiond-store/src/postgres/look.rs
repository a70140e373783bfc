//! A look at a database before anything is done to it.

use super::close;
use super::servers::Servers;
use crate::StoreError;
use crate::copy::COPYING;
use crate::seam::Contents;
use crate::values::bytes32;

/// Looks at a database without changing anything. One that is not there, or has no table of ours, is nothing.
pub(crate) async fn look(url: &str) -> Result<Contents, StoreError> {
    let (_, mut connection) = match Servers::of(url)?.any().await {
        Err(unusable) if unusable.absent => return Ok(Contents::default()),
        found => found?,
    };
    let sql = "select to_regclass('event') is not null, to_regclass('mark') is not null, \
               to_regclass('key_check') is not null";
    let (event, mark, key_check): (bool, bool, bool) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
    let mut contents = Contents { exists: event, ..Contents::default() };
    if event {
        let sql = "select max(position) is not null from event";
        contents.events = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
    }
    if mark {
        let sql = "select exists (select from mark where name = $1)";
        contents.unfinished = sqlx::query_scalar(sql).bind(COPYING).fetch_one(&mut connection).await?;
    }
    if key_check {
        let row = sqlx::query("select digest from key_check").fetch_optional(&mut connection).await?;
        contents.key_check = row.map(|row| bytes32(&row, "digest")).transpose()?;
    }
    close(connection).await;
    Ok(contents)
}
