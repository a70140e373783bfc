//! Where the log stands, as a row; and each commit's changes, as they are kept for processes that follow.

use sessiond_core::change::Change;
use sessiond_core::ids::{Position, SessionNumber};
use sessiond_core::streams::Registered;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use crate::StoreError;
use crate::row::{Batch, Commit, LogHead};
use crate::values::{organization, time};

/// Fast: changes are read once or never.
const COMPRESSION: i32 = 1;
/// The most that the changes of a commit can come to. What says to be more is damaged.
const LARGEST: usize = 1 << 30;

/// What the commit of a batch leaves behind: the head of the log, the commit itself, and one word to whoever listens.
/// From here on the wait is for the commit alone, and whatever it waits for must not be cut off by a limit.
const FINISH: &str = "with head as (\
     update log_head set commit_number = $1, position = $3, recorded_at = $4, commit_hash = $5, last_session = $6, \
     last_session_id = $7, last_revocation = $8, last_principal = $9) \
     insert into log_commit (number, id, position, recorded_at, commit_hash, last_session, last_session_id, \
     last_revocation, last_principal, lifecycle, committed_at, changes) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, floor(extract(epoch from clock_timestamp()) * 1000)::bigint, $11) \
     returning pg_notify($12, '')::text, set_config('statement_timeout', '0', true)";

/// Reads where the log stands, from a row of either table, also from one that came as text.
pub(super) fn log_head(row: &PgRow) -> Result<LogHead, StoreError> {
    let hash: Vec<u8> = row.try_get("commit_hash")?;
    let wrong = |_| StoreError::Damaged { position: 0, what: "commit_hash is not 32 bytes".to_owned() };
    Ok(LogHead {
        position: Position(row.try_get("position")?),
        recorded_at: time(row.try_get("recorded_at")?),
        commit_hash: hash.try_into().map_err(wrong)?,
        last_session: SessionNumber(row.try_get("last_session")?),
        last_session_id: row.try_get("last_session_id")?,
        last_revocation: row.try_get("last_revocation")?,
        last_principal: row.try_get("last_principal")?,
    })
}

/// What the rows say of where the log stands: what has to be in `log_head`, whatever is.
pub(super) async fn made(connection: &mut PgConnection) -> Result<LogHead, StoreError> {
    let sql = "select coalesce(e.position, 0) as position, coalesce(e.recorded_at, 0) as recorded_at, \
               coalesce(e.commit_hash, decode(repeat('00', 32), 'hex')) as commit_hash, \
               coalesce(s.number, 0) as last_session, \
               coalesce(s.id, '00000000-0000-0000-0000-000000000000') as last_session_id, \
               coalesce((select max(number) from revocation), 0) as last_revocation, \
               coalesce((select max(number) from principal), 0) as last_principal \
               from (select 1) as one \
               left join (select * from event order by position desc limit 1) e on true \
               left join (select number, id from session order by number desc limit 1) s on true";
    let row = sqlx::query(sql).fetch_one(&mut *connection).await?;
    let mut head = log_head(&row)?;
    let rows = sqlx::query("select * from organization").fetch_all(connection).await?;
    let organizations = rows.iter().map(|row| organization(row).map(Registered::any));
    head.after_letting_go(&organizations.collect::<Result<Vec<_>, _>>()?);
    Ok(head)
}

pub(super) fn commit(row: &PgRow) -> Result<Commit, StoreError> {
    let lifecycle: Option<i64> = row.try_get("lifecycle")?;
    let changes: Vec<u8> = row.try_get("changes")?;
    Ok(Commit {
        number: row.try_get("number")?,
        head: log_head(row)?,
        lifecycle: lifecycle.map(Position),
        changes: unpack(&changes)?,
    })
}

/// Writes the last of a batch.
pub(super) async fn finish(
    connection: &mut PgConnection,
    number: i64,
    id: Uuid,
    head: &LogHead,
    batch: &Batch,
    channel: &str,
) -> Result<(), StoreError> {
    sqlx::query(FINISH)
        .bind(number)
        .bind(id)
        .bind(head.position.0)
        .bind(head.recorded_at.timestamp_millis())
        .bind(head.commit_hash.as_slice())
        .bind(head.last_session.0)
        .bind(head.last_session_id)
        .bind(head.last_revocation)
        .bind(head.last_principal)
        .bind(batch.lifecycle.map(|position| position.0))
        .bind(pack(&batch.changes)?)
        .bind(channel)
        .execute(connection)
        .await?;
    Ok(())
}

/// Changes say the same of each session, so that they are a tenth of their size when packed: as JSON they would be most of
/// what a commit of activity writes.
pub(super) fn pack(changes: &[Change]) -> Result<Vec<u8>, StoreError> {
    let failed = |error: std::io::Error| StoreError::Failed(format!("compression: {error}"));
    let text = serde_json::to_vec(changes).map_err(|error| StoreError::Failed(error.to_string()))?;
    zstd::bulk::compress(&text, COMPRESSION).map_err(failed)
}

pub(super) fn unpack(packed: &[u8]) -> Result<Vec<Change>, StoreError> {
    let damaged =
        |what: String| StoreError::Damaged { position: 0, what: format!("a commit's changes: {what}") };
    let length = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    let length = length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= LARGEST);
    let length = length.ok_or_else(|| damaged("no length that could be".to_owned()))?;
    let text = zstd::bulk::decompress(packed, length).map_err(|error| damaged(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))
}
