//! People: what they are called, the words by which they are found, and the erasure of both.

use sessiond_core::ids::{Position, PrincipalNumber, SessionNumber};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::insert::each;
use super::statistics;
use crate::StoreError;
use crate::called;
use crate::erased::without_names;

/// What a store knows of itself, by name; 0 where it knows nothing.
pub(super) async fn mark(connection: &mut PgConnection, name: &str) -> Result<Position, StoreError> {
    let sql = "select position from mark where name = $1";
    let position: Option<i64> = sqlx::query_scalar(sql).bind(name).fetch_optional(connection).await?;
    Ok(Position(position.unwrap_or(0)))
}

pub(super) async fn set_mark(
    connection: &mut PgConnection,
    name: &str,
    position: Position,
) -> Result<(), StoreError> {
    let sql = "insert into mark (name, position) values ($1, $2) \
               on conflict (name) do update set position = excluded.position";
    sqlx::query(sql).bind(name).bind(position.0).execute(connection).await?;
    Ok(())
}

/// Files whoever was described by a release that filed nobody. Once: what is described later is filed with it.
pub(super) async fn file(connection: &mut PgConnection, turn_key: i64) -> Result<(), StoreError> {
    if mark(connection, "people").await? > Position(0) {
        return Ok(());
    }
    sqlx::raw_sql("begin").execute(&mut *connection).await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(turn_key).execute(&mut *connection).await?;
    let sql = "select number from principal where name is not null or email is not null";
    let numbers: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await?;
    for number in numbers {
        file_words(connection, PrincipalNumber(number)).await?;
    }
    set_mark(connection, "people", Position(1)).await?;
    sqlx::raw_sql("commit").execute(connection).await?;
    Ok(())
}

pub(super) async fn describe(
    connection: &mut PgConnection,
    number: PrincipalNumber,
    name: Option<&str>,
    email: Option<&str>,
) -> Result<(), StoreError> {
    let sql = "update principal set name = coalesce($1, name), email = coalesce($2, email) where number = $3";
    sqlx::query(sql).bind(name).bind(email).bind(number.0).execute(&mut *connection).await?;
    file_words(connection, number).await
}

pub(super) async fn erase(connection: &mut PgConnection, number: PrincipalNumber) -> Result<(), StoreError> {
    let sql = "update principal set subject = null, name = null, email = null where number = $1";
    sqlx::query(sql).bind(number.0).execute(&mut *connection).await?;
    file_words(connection, number).await
}

/// Files a principal under the words that it is found by now, and under no others.
async fn file_words(connection: &mut PgConnection, number: PrincipalNumber) -> Result<(), StoreError> {
    let sql = "delete from principal_word where principal = $1";
    sqlx::query(sql).bind(number.0).execute(&mut *connection).await?;
    let sql = "select organization, name, email from principal where number = $1";
    let row = sqlx::query(sql).bind(number.0).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(()) };
    let organization: i64 = row.try_get("organization")?;
    let (name, email): (Option<String>, Option<String>) = (row.try_get("name")?, row.try_get("email")?);
    let words: Vec<String> = called::found_by(name.as_deref(), email.as_deref()).into_iter().collect();
    if words.is_empty() {
        return Ok(());
    }
    let sql = "insert into principal_word (organization, word, principal) \
               select $1, word, $3 from unnest($2::text[]) as words (word)";
    sqlx::query(sql).bind(organization).bind(words).bind(number.0).execute(connection).await?;
    Ok(())
}

/// Erases the personal facts of sessions: their digests in the hashed bodies tell nothing, as the salt goes too.
pub(super) async fn erase_personal(
    connection: &mut PgConnection,
    sessions: &[SessionNumber],
) -> Result<(), StoreError> {
    let numbers = each(sessions, |session| session.0);
    erase_from_bodies(connection, &numbers).await?;
    for sql in [
        "update event set personal = null from session s where s.number = any($1) \
         and event.position = s.connected_head",
        "update session_detail d set name = null, hostname = null, user_agent = null, client_info = null, ip = null, \
         client = null, token_identifier = null, client_session_id = case \
         when (select resource from session s where s.number = d.number) is not null then client_session_id end \
         where number = any($1)",
        "delete from session_word where session = any($1)",
    ] {
        sqlx::query(sql).bind(&numbers).execute(&mut *connection).await?;
    }
    statistics::unsay_labels(connection, sessions).await
}

/// What names are in bodies goes, and the digest of what was hashed stays.
async fn erase_from_bodies(connection: &mut PgConnection, numbers: &[i64]) -> Result<(), StoreError> {
    let sql = "select e.position, e.body from session s join event e on e.position = s.connected_head \
               where s.number = any($1) and e.type = 'connected' and e.body_digest is null and e.body is not null";
    for row in sqlx::query(sql).bind(numbers).fetch_all(&mut *connection).await? {
        let (position, body): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let Some((erased, digest)) = without_names(&body) else { continue };
        sqlx::query("update event set body = $1, body_digest = $2 where position = $3")
            .bind(erased)
            .bind(digest.as_slice())
            .bind(position)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
