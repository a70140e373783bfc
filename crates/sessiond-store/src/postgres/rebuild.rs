//! Makes the rows again from the log.

use sessiond_core::ids::Position;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::link::Link;
use super::servers::Servers;
use super::verify::follow;
use super::writer::{Company, PgWriter};
use super::{head, letting_go, migrated, people, rows};
use crate::StoreError;
use crate::check::{Fault, LogCheck, PAGE, Progress, Report};
use crate::row::{Batch, LogHead};
use crate::tables::{EARLIER_FILED, LOG, ROWS, WORDS_FILED, next_chunk};

/// Makes every row and every index again.
pub(crate) async fn rebuild(url: &str, progress: Progress<'_>) -> Result<Report, Fault> {
    let servers = Servers::of(url)?;
    migrated(&servers).await?;
    let mut link = PgWriter::connect(servers, Company::Alone).await?.take().await?;
    let made = in_transaction(&mut link, progress).await;
    if made.is_ok() {
        // Nobody knows yet what is in the tables, whoever plans what to read by.
        sqlx::raw_sql("analyze").execute(&mut link.connection).await.map_err(StoreError::from)?;
    }
    link.close().await;
    made
}

async fn in_transaction(link: &mut Link, progress: Progress<'_>) -> Result<Report, Fault> {
    // It takes as long as it takes; and a transaction that is not committed is gone with its connection.
    let begin = format!(
        "begin; set local idle_in_transaction_session_timeout = 0; select pg_advisory_xact_lock({})",
        link.turn_key
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut link.connection).await?;
    let report = rows_again(&mut link.connection, progress).await?;
    sqlx::raw_sql("commit").execute(&mut link.connection).await?;
    Ok(report)
}

async fn rows_again(connection: &mut PgConnection, progress: Progress<'_>) -> Result<Report, Fault> {
    // What is read from here on is found by the log's indexes.
    for table in LOG {
        let sql = format!("reindex table {table}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    let sql = format!("truncate {}", ROWS.join(", "));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    let sql = "select coalesce(max(position), 0) from event";
    let total: i64 = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
    let mut log = LogCheck::new(Position(i64::MAX), Position(i64::MAX));
    loop {
        let mut batch = Batch::default();
        let count = follow(connection, &mut log, |detail| batch.details.push(detail)).await?;
        rows::write(connection, &batch).await?;
        progress(log.position().unsigned_abs(), total.unsigned_abs());
        if count < PAGE {
            break;
        }
    }
    log.complete()?;
    let report = log.report();
    letting_go::add_to_resources(connection, &log.resources()).await?;
    let mut rest = log.into_rows();
    while let Some(batch) = next_chunk(&mut rest) {
        rows::write(connection, &batch).await?;
    }
    people::set_mark(connection, EARLIER_FILED, Position(1)).await?;
    people::set_mark(connection, WORDS_FILED, Position(1)).await?;
    head_again(connection, &report).await?;
    Ok(report)
}

/// Makes the head of the log again. Commits count on from where they were: whoever knows of some must not take another for one
/// of them.
async fn head_again(connection: &mut PgConnection, report: &Report) -> Result<(), StoreError> {
    let made = head::made(connection).await?;
    let made = LogHead { position: report.position, commit_hash: report.commit_hash, ..made };
    let sql =
        "select greatest((select commit_number from log_head), (select max(number) from log_commit), 0)";
    let number: i64 = sqlx::query(sql).fetch_one(&mut *connection).await?.try_get(0)?;
    sqlx::raw_sql("delete from log_head").execute(&mut *connection).await?;
    sqlx::query("insert into log_head values (1, $1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(number)
        .bind(made.position.0)
        .bind(made.recorded_at.timestamp_millis())
        .bind(made.commit_hash.as_slice())
        .bind(made.last_session.0)
        .bind(made.last_session_id)
        .bind(made.last_revocation)
        .bind(made.last_principal)
        .execute(connection)
        .await?;
    Ok(())
}
