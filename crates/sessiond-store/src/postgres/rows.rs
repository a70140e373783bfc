//! A batch, written table by table: each in one statement, whatever it holds.

use sessiond_core::ids::{Position, SessionNumber};
use sessiond_core::session::Session;
use sessiond_core::token::{Principal, SessionToken};
use sqlx::postgres::PgConnection;

use super::insert::{self, each};
use super::{beside, past, search, streams, upkeep};
use crate::StoreError;
use crate::row::{Batch, LogHead, SideWrite};
use crate::tables::newest;

const SESSION_TOKEN: &str = "insert into session_token (session, secret_hash, issued_at, expires_at) \
     select * from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[]) \
     on conflict (session) do update set secret_hash = excluded.secret_hash, issued_at = excluded.issued_at, \
     expires_at = excluded.expires_at";

const PRINCIPAL: &str = "insert into principal (number, organization, issuer, subject_digest, subject, kept_id) \
     select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::text[], $6::uuid[])";

/// That a batch goes on where the log ends.
pub(super) fn fits(head: &LogHead, batch: &Batch) -> Result<(), StoreError> {
    let next = Position(head.position.0 + 1);
    match batch.events.first().map(|entry| entry.recorded.position) {
        Some(first) if first != next => {
            Err(StoreError::Raced(format!("position {first} was to be written, and the next one is {next}")))
        }
        _ => Ok(()),
    }
}

/// Writes a batch.
pub(super) async fn write(connection: &mut PgConnection, batch: &Batch) -> Result<(), StoreError> {
    if !batch.events.is_empty() {
        insert::events(connection, &batch.events).await?;
    }
    if !batch.sessions.is_empty() {
        insert::sessions(connection, &batch.sessions).await?;
    }
    if !batch.details.is_empty() {
        insert::details(connection, &batch.details).await?;
        search::write(connection, &batch.details).await?;
    }
    forget_hot_rows(connection, &batch.sessions).await?;
    if !batch.activity.is_empty() {
        insert::activity(connection, &batch.activity).await?;
    }
    past::write(connection, batch).await?;
    if !batch.streams.is_empty() {
        streams::write(connection, &batch.streams).await?;
    }
    write_tokens(connection, batch).await?;
    write_principals(connection, batch).await?;
    beside::write(connection, &batch.side).await?;
    upkeep::note(connection, batch).await
}

/// A lifecycle row has the figures too, and newer ones: a hot row from before it would only be wrong. One that
/// has just connected has no hot row yet.
async fn forget_hot_rows(connection: &mut PgConnection, sessions: &[Session]) -> Result<(), StoreError> {
    let older = sessions.iter().filter(|session| session.head.version > 1);
    let numbers: Vec<i64> = older.map(|session| session.number.0).collect();
    if !numbers.is_empty() {
        let sql = "delete from session_activity where number = any($1)";
        sqlx::query(sql).bind(numbers).execute(connection).await?;
    }
    Ok(())
}

async fn write_tokens(connection: &mut PgConnection, batch: &Batch) -> Result<(), StoreError> {
    let tokens: Vec<(SessionNumber, SessionToken)> = batch
        .side
        .iter()
        .filter_map(|side| match side {
            SideWrite::SessionToken(session, token) => Some((*session, *token)),
            _ => None,
        })
        .collect();
    let rows = newest(tokens.iter(), |(session, _)| *session);
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(SESSION_TOKEN)
        .bind(each(&rows, |(session, _)| session.0))
        .bind(each(&rows, |(_, token)| token.secret_hash.as_slice()))
        .bind(each(&rows, |(_, token)| token.issued_at.0))
        .bind(each(&rows, |(_, token)| token.expires_at.timestamp_millis()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_principals(connection: &mut PgConnection, batch: &Batch) -> Result<(), StoreError> {
    let rows: Vec<&Principal> = batch
        .side
        .iter()
        .filter_map(|side| match side {
            SideWrite::Principal(principal) => Some(principal),
            _ => None,
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(PRINCIPAL)
        .bind(each(&rows, |row| row.number.0))
        .bind(each(&rows, |row| row.organization.0))
        .bind(each(&rows, |row| row.issuer.as_str()))
        .bind(each(&rows, |row| row.subject_digest.as_slice()))
        .bind(each(&rows, |row| row.subject.as_deref()))
        .bind(each(&rows, |row| row.kept_id))
        .execute(connection)
        .await?;
    Ok(())
}
