//! Questions to journals: a few blocks at a time, so that no answer holds a snapshot for long.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::Journal;
use sqlx::AssertSqlSafe;

use super::super::store::PgStore;
use super::used_bytes;
use crate::StoreError;
use crate::block::Block;
use crate::doomed::block;
use crate::seam::{Bounds, JournalReader, Store, Stretch};
use crate::values::{Stored, count, time};

/// A few connections that read journals.
pub(in crate::postgres) struct PgJournals(pub(in crate::postgres) PgStore);

#[async_trait]
impl JournalReader for PgJournals {
    async fn bounds(&self, journal: Journal, session: SessionNumber) -> Result<Bounds, StoreError> {
        let sql = "select (select min(first_position) from block where journal = $1 and session = $2) as first, \
                   (select first_position + count - 1 from block where journal = $1 and session = $2 \
                   order by first_position desc limit 1) as last, \
                   (select last_position from tail where journal = $1 and session = $2) as forgotten";
        let row = sqlx::query(sql).bind(journal as i64).bind(session.0).fetch_one(&self.0.pool).await?;
        let last = match row.optional_integer("last")? {
            Some(last) => last,
            None => row.optional_integer("forgotten")?.unwrap_or(0),
        };
        Ok(Bounds { first: row.optional_integer("first")?.unwrap_or(last.saturating_add(1)), last })
    }

    async fn block_at(
        &self,
        journal: Journal,
        session: SessionNumber,
        at: i64,
    ) -> Result<Option<(i64, i64)>, StoreError> {
        let sql = "select first_position, first_position + count - 1 from block \
                   where journal = $1 and session = $2 and high_time >= $3 order by high_time, number limit 1";
        let query = sqlx::query_as(sql).bind(journal as i64).bind(session.0).bind(at);
        Ok(query.fetch_optional(&self.0.pool).await?)
    }

    async fn blocks(&self, stretch: &Stretch) -> Result<Vec<Block>, StoreError> {
        let direction = if stretch.descending { "desc" } else { "asc" };
        // The block that holds the first position of a stretch begins there or before.
        let sql = format!(
            "select * from block where journal = $1 and session = $2 \
             and first_position >= coalesce((select max(first_position) from block where journal = $1 \
             and session = $2 and first_position <= $3), $3) and first_position <= $4 \
             and (first_position + count > $3 or count < 1) and (marks & $5) <> 0 \
             order by first_position {direction} limit $6"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(stretch.journal as i64)
            .bind(stretch.session.0)
            .bind(stretch.from)
            .bind(stretch.to)
            .bind(i64::from(stretch.marks.bits()))
            .bind(i64::try_from(stretch.blocks).unwrap_or(i64::MAX))
            .fetch_all(&self.0.pool)
            .await?;
        rows.iter().map(|row| block(stretch, row)).collect()
    }

    async fn old_blocks(
        &self,
        after: i64,
        before: Time,
        limit: u32,
    ) -> Result<Vec<(i64, SessionNumber)>, StoreError> {
        // They were recorded in the order of their numbers: the first that is younger ends it.
        let sql = "select number, session, recorded_at from block where number > $1 order by number limit $2";
        let rows = sqlx::query(sql).bind(after).bind(i64::from(limit)).fetch_all(&self.0.pool).await?;
        let mut blocks = Vec::with_capacity(rows.len());
        for row in rows {
            if time(row.integer("recorded_at")?) >= before {
                break;
            }
            blocks.push((row.integer("number")?, SessionNumber(row.integer("session")?)));
        }
        Ok(blocks)
    }

    async fn used_bytes(&self) -> Result<u64, StoreError> {
        used_bytes(&self.0.pool).await
    }

    async fn sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let sql = "select pg_total_relation_size('block') + pg_total_relation_size('tail') as journals";
        let row = sqlx::query(sql).fetch_one(&self.0.pool).await?;
        Ok(vec![("journals", count(&row, "journals")?)])
    }

    async fn maintain(&self) -> Result<String, StoreError> {
        self.0.follow_the_primary().await
    }

    async fn close(&self) {
        Store::close(&self.0).await;
    }
}
