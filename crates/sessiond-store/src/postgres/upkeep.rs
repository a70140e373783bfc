//! What was erased is gone from the tables: PostgreSQL keeps what a row was before until it is vacuumed, which would be at some
//! time, and for a large table late.
//!
//! What can be promised is this. Once nobody reads a state from before the erasure, `vacuum` takes the rows of before out of the
//! tables and out of the indexes that have anything personal in them; no query finds them any more. It does not overwrite them:
//! their bytes may stand in the free space of a page until something else is written there. The write-ahead log, standbys,
//! archives and backups are PostgreSQL's, and keep what they keep for as long as they are set to.

use std::sync::Mutex;
use std::time::Instant;

use sessiond_core::ids::Position;
use sqlx::postgres::{PgConnection, PgPool};

use super::close;
use super::people::set_mark;
use super::servers::Servers;
use crate::StoreError;
use crate::row::{Batch, SideWrite};
use crate::values::Stored;

/// A vacuum is followed by so many times of what it took without one: what is let go goes in many small steps.
const REST: u32 = 10;

/// Where something personal stands, in indexes too.
const PERSONAL: &str = "vacuum (index_cleanup on, truncate off) session_detail, principal, principal_word";
/// Where the rest of what was let go stands. Indexes of these have numbers, and are seen to when it is worth it.
const OTHERS: &str = "vacuum (truncate off) event, session, session_activity, session_token, mcp_session, \
     confirmation, idempotency, webhook_delivery";

/// Whether somebody still reads a state of the database in which a transaction was not committed.
const READ_BEFORE: &str = "select exists (select from pg_stat_activity \
     where datname = current_database() and pid <> pg_backend_pid() \
     and age(backend_xmin) >= age((($1::bigint) & 4294967295)::text::xid)) \
     or exists (select from pg_replication_slots where age(xmin) >= age((($1::bigint) & 4294967295)::text::xid))";

/// Takes note, in the transaction of a batch that erases, that there is something to be vacuumed: up to this transaction.
pub(super) async fn note(connection: &mut PgConnection, batch: &Batch) -> Result<(), StoreError> {
    let erases = |side: &SideWrite| {
        matches!(
            side,
            SideWrite::ErasePrincipal(_)
                | SideWrite::ErasePersonal(_)
                | SideWrite::LetSessionsGo { .. }
                | SideWrite::Fold { .. }
        )
    };
    if batch.side.iter().any(erases) {
        let sql = "insert into mark (name, position) values ('erased', pg_current_xact_id()::text::bigint) \
                   on conflict (name) do update set position = excluded.position";
        sqlx::query(sql).execute(connection).await?;
    }
    Ok(())
}

/// When the next vacuum is due, for one process.
pub(super) struct Upkeep(Mutex<Instant>);

impl Upkeep {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Vacuums what has something to be vacuumed, if anything has, and it is due; says in a few words how it stands.
    pub(super) async fn vacuum(&self, pool: &PgPool, servers: &Servers) -> Result<&'static str, StoreError> {
        let sql = "select coalesce((select position from mark where name = 'erased'), 0) as erased, \
                   coalesce((select position from mark where name = 'vacuumed'), 0) as vacuumed";
        let row = sqlx::query(sql).fetch_one(pool).await?;
        let erased = row.integer("erased")?;
        if erased == row.integer("vacuumed")? {
            return Ok("nothing is to be vacuumed");
        }
        let begun = Instant::now();
        if self.0.lock().is_ok_and(|due| *due > begun) {
            return Ok("what was erased is vacuumed later");
        }
        let (_, mut connection) = servers.primary().await?;
        let outcome = vacuum(&mut connection, erased).await;
        close(connection).await;
        if let Ok(mut due) = self.0.lock() {
            *due = Instant::now() + begun.elapsed() * REST;
        }
        outcome
    }
}

async fn vacuum(connection: &mut PgConnection, erased: i64) -> Result<&'static str, StoreError> {
    // One process does it, and takes as long as it takes.
    let alone = "select pg_try_advisory_lock(hashtextextended('sessiond upkeep ' || current_schema(), 0))";
    if !sqlx::query_scalar(alone).fetch_one(&mut *connection).await? {
        return Ok("another process vacuums what was erased");
    }
    if sqlx::query_scalar(READ_BEFORE).bind(erased).fetch_one(&mut *connection).await? {
        return Ok("what was erased is still read by somebody who began before");
    }
    sqlx::raw_sql("set statement_timeout = 0").execute(&mut *connection).await?;
    for sql in [PERSONAL, OTHERS] {
        sqlx::raw_sql(sql).execute(&mut *connection).await?;
    }
    set_mark(connection, "vacuumed", Position(erased)).await?;
    Ok("what was erased was vacuumed")
}
