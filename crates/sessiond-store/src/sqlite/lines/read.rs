//! Questions to the second file: a few blocks at a time, so that no answer holds a snapshot for long.

use std::sync::Arc;

use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::{Journal, Marks};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqliteRow};

use super::super::files::Files;
use super::super::read::{checkpoint_if_large, pool};
use super::super::time;
use super::write::lost;
use super::{options, used_bytes};
use crate::StoreError;
use crate::block::Block;

/// Where a journal begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first position that is not forgotten; one beyond the last if there is none.
    pub first: i64,
    /// The last position that was given out; 0 if none ever was.
    pub last: i64,
}

impl Bounds {
    /// Entries that are there.
    pub fn count(self) -> u64 {
        u64::try_from(self.last - self.first + 1).unwrap_or(0)
    }
}

/// Blocks of a journal to read.
#[derive(Debug, Clone)]
pub struct Stretch {
    pub journal: Journal,
    pub session: SessionNumber,
    /// First and last position.
    pub from: i64,
    pub to: i64,
    /// Only blocks that have one of these.
    pub marks: Marks,
    /// From its end.
    pub descending: bool,
    /// At most so many.
    pub blocks: usize,
}

/// A few connections that read the second file.
#[derive(Clone)]
pub struct LinesReader {
    pool: SqlitePool,
    /// Of a connection that may checkpoint.
    options: SqliteConnectOptions,
    files: Arc<Files>,
}

impl LinesReader {
    /// Opens a pool of readers on a file that exists.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?;
        let pool = pool(&options).await?;
        let files = Arc::new(Files::of(options.get_filename()));
        Ok(Self { pool, options, files })
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// As [`Reader::checkpoint_if_large`](crate::Reader::checkpoint_if_large); fails if the file was deleted or
    /// replaced.
    pub async fn checkpoint_if_large(&self) -> Result<u64, StoreError> {
        lost(&self.files)?;
        checkpoint_if_large(&self.options).await
    }

    /// Bytes that the file needs for what is in it.
    pub async fn used_bytes(&self) -> Result<u64, StoreError> {
        let mut connection = self.pool.acquire().await?;
        used_bytes(&mut connection).await
    }

    /// Where a journal begins and ends.
    pub async fn bounds(&self, journal: Journal, session: SessionNumber) -> Result<Bounds, StoreError> {
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

    /// First and last position of the first block that has an entry of this time or later.
    pub async fn block_at(
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

    /// The first, or last, blocks of a stretch, in its direction.
    pub async fn blocks(&self, stretch: &Stretch) -> Result<Vec<Block>, StoreError> {
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
        rows.into_iter().map(|row| block(stretch, &row)).collect()
    }
}

fn block(stretch: &Stretch, row: &SqliteRow) -> Result<Block, StoreError> {
    let first = row.try_get("first_position")?;
    let marks: i64 = row.try_get("marks")?;
    let block = Block {
        journal: stretch.journal,
        session: stretch.session,
        first,
        count: row.try_get("count")?,
        low: row.try_get("low_time")?,
        high: row.try_get("high_time")?,
        recorded_at: time(row.try_get("recorded_at")?),
        marks: Marks::from_bits(marks),
        payload: row.try_get("payload")?,
    };
    if first < 1 || block.count < 1 || first.checked_add(block.count).is_none() {
        let what = format!("{} entries cannot begin at {first}", block.count);
        return Err(StoreError::Damaged { position: first, what });
    }
    Ok(block)
}
