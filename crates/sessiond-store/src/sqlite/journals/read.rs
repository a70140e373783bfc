//! Questions to the second file: a few blocks at a time, so that no answer holds a snapshot for long.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::Journal;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::super::files::{self, Files};
use super::super::store::pool;
use super::super::wal::checkpoint_if_large;
use super::write::lost;
use super::{options, used_bytes};
use crate::StoreError;
use crate::block::Block;
use crate::doomed::block;
use crate::seam::{Bounds, JournalReader, Stretch};
use crate::values::time;

/// A few connections that read the second file.
pub(in crate::sqlite) struct SqliteJournals {
    pool: SqlitePool,
    /// Of a connection that may checkpoint.
    options: SqliteConnectOptions,
    files: Files,
}

impl SqliteJournals {
    /// Opens a pool of readers on a file that exists.
    pub(in crate::sqlite) async fn open(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?;
        let pool = pool(&options).await?;
        let files = Files::of(options.get_filename());
        Ok(Self { pool, options, files })
    }
}

#[async_trait]
impl JournalReader for SqliteJournals {
    async fn bounds(&self, journal: Journal, session: SessionNumber) -> Result<Bounds, StoreError> {
        let sql = "select (select min(first_position) from block where journal = ?1 and session = ?2) as first, \
                   (select first_position + count - 1 from block where journal = ?1 and session = ?2 \
                    order by first_position desc limit 1) as last, \
                   (select last_position from tail where journal = ?1 and session = ?2) as forgotten";
        let row = sqlx::query(sql).bind(journal as i64).bind(session.0).fetch_one(&self.pool).await?;
        let (first, last): (Option<i64>, Option<i64>) = (row.try_get("first")?, row.try_get("last")?);
        let last = match last {
            Some(last) => last,
            None => row.try_get::<Option<i64>, _>("forgotten")?.unwrap_or(0),
        };
        Ok(Bounds { first: first.unwrap_or(last.saturating_add(1)), last })
    }

    async fn block_at(
        &self,
        journal: Journal,
        session: SessionNumber,
        at: i64,
    ) -> Result<Option<(i64, i64)>, StoreError> {
        let sql = "select first_position, first_position + count - 1 from block indexed by block_by_time \
                   where journal = ? and session = ? and high_time >= ? order by high_time, number limit 1";
        let query = sqlx::query_as(sql).bind(journal as i64).bind(session.0).bind(at);
        Ok(query.fetch_optional(&self.pool).await?)
    }

    async fn blocks(&self, stretch: &Stretch) -> Result<Vec<Block>, StoreError> {
        // The block that holds the first position of a stretch begins there or before.
        let sql = if stretch.descending {
            "select * from block indexed by block_by_position where journal = ?1 and session = ?2 \
             and first_position >= coalesce((select max(first_position) from block where journal = ?1 \
             and session = ?2 and first_position <= ?3), ?3) and first_position <= ?4 \
             and (first_position + count > ?3 or count < 1) and marks & ?5 order by first_position desc limit ?6"
        } else {
            "select * from block indexed by block_by_position where journal = ?1 and session = ?2 \
             and first_position >= coalesce((select max(first_position) from block where journal = ?1 \
             and session = ?2 and first_position <= ?3), ?3) and first_position <= ?4 \
             and (first_position + count > ?3 or count < 1) and marks & ?5 order by first_position limit ?6"
        };
        let rows = sqlx::query(sql)
            .bind(stretch.journal as i64)
            .bind(stretch.session.0)
            .bind(stretch.from)
            .bind(stretch.to)
            .bind(i64::from(stretch.marks.bits()))
            .bind(i64::try_from(stretch.blocks).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
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
        let sql = "select number, session, recorded_at from block where number > ? order by number limit ?";
        let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(&self.pool).await?;
        let mut blocks = Vec::with_capacity(rows.len());
        for row in rows {
            if time(row.try_get("recorded_at")?) >= before {
                break;
            }
            blocks.push((row.try_get("number")?, SessionNumber(row.try_get("session")?)));
        }
        Ok(blocks)
    }

    async fn used_bytes(&self) -> Result<u64, StoreError> {
        used_bytes(&mut *self.pool.acquire().await?).await
    }

    async fn sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        Ok(files::sizes(self.options.get_filename(), ["journals", "journals_write_ahead_log"]))
    }

    async fn maintain(&self) -> Result<String, StoreError> {
        lost(&self.files)?;
        checkpoint_if_large(&self.options).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
