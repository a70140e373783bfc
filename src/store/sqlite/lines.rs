//! The second file: blocks of entries of journals, with a writer and readers of its own, so that nothing that is written
//! to the first waits for it.

use std::path::PathBuf;

use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqlitePool, SqliteRow, SqliteSynchronous};
use sqlx::{Connection, Row, SqliteConnection};

use super::insert::{Bound, Insert};
use super::read::{checkpoint_if_large, pool};
use super::write::{limit_pages, put, truncate_wal};
use super::{migrate, time, wal_bytes};
use crate::core::Time;
use crate::core::ids::SessionNumber;
use crate::core::journal::{Journal, Marks};
use crate::store::StoreError;
use crate::store::block::Block;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/lines");

/// A block is larger than an event: with small pages it would hang in a long chain of them.
const PAGE_SIZE: u32 = 4096;
/// Blocks forgotten in one transaction: little enough that nobody waits long for it.
const FORGOTTEN_AT_ONCE: i64 = 256;
/// What a block takes in the file beside its payload, about.
const BESIDE_PAYLOAD: u64 = 128;
/// Free pages that are kept for what is written next; and beyond them, this part of the file.
const KEPT_FREE: i64 = 4096;
const KEPT_PART: i64 = 4;
/// Pages given back in one transaction.
const GIVEN_BACK_AT_ONCE: &str = "pragma incremental_vacuum(1024)";

static BLOCK: Insert = Insert::new(
    "block (journal, session, first_position, count, low_time, high_time, recorded_at, marks, payload)",
    9,
    "",
);

static TAIL: Insert = Insert::new(
    "tail (journal, session, last_position, high_time)",
    4,
    "on conflict (journal, session) do update set last_position = excluded.last_position, \
     high_time = excluded.high_time",
);

/// The last block of each journal that is asked for.
const LAST_BLOCKS: &str = "select wanted.key as asked, b.first_position + b.count - 1 as last, b.high_time \
     from json_each(?) wanted cross join block b on b.number = (\
     select number from block indexed by block_by_position \
     where journal = wanted.value ->> 0 and session = wanted.value ->> 1 order by first_position desc limit 1)";

/// How far each of them had come by what is forgotten.
const TAILS: &str = "select wanted.key as asked, t.last_position as last, t.high_time \
     from json_each(?) wanted cross join tail t \
     on t.journal = wanted.value ->> 0 and t.session = wanted.value ->> 1";

fn options(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    Ok(super::options(url)?
        .page_size(PAGE_SIZE)
        // The file can shrink again after a flood.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", "-16384"))
}

/// How far a journal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Position of its last entry; 0 where there never was one.
    pub last: i64,
    /// That entry's time.
    pub at: i64,
}

impl Tail {
    pub const EMPTY: Self = Self { last: 0, at: i64::MIN };
}

/// What is to be forgotten, oldest first.
#[derive(Debug, Clone, Copy)]
pub enum Forget {
    /// What was recorded before.
    Before(Time),
    /// All that a session said. Its positions go on from where they were.
    Session(SessionNumber),
    /// As much as it takes for the file to need no more bytes than these.
    ShrinkTo(u64),
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub blocks: u64,
    pub entries: u64,
}

/// A block that is to be forgotten.
struct Doomed {
    number: i64,
    journal: i64,
    session: i64,
    tail: Tail,
    entries: u64,
    recorded_at: Time,
    bytes: u64,
}

/// The one connection that writes to the second file.
pub struct LinesWriter {
    connection: SqliteConnection,
    path: PathBuf,
}

impl LinesWriter {
    /// Opens the file for writing, making and migrating it as needed, and checks what the live connection runs on.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?.create_if_missing(true);
        let path = options.get_filename().to_owned();
        let mut connection = SqliteConnection::connect_with(&options).await?;
        migrate(&MIGRATIONS, &mut connection).await?;
        let mode: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&mut connection).await?;
        if mode != "wal" {
            return Err(StoreError::Failed(format!("journal_mode is {mode}, not wal")));
        }
        Ok(Self { connection, path })
    }

    /// When the newest block was recorded.
    pub async fn last_recorded_at(&mut self) -> Result<Option<Time>, StoreError> {
        let sql = "select recorded_at from block where number = (select max(number) from block)";
        let recorded_at: Option<i64> = sqlx::query_scalar(sql).fetch_optional(&mut self.connection).await?;
        Ok(recorded_at.map(time))
    }

    /// How far journals go, in the order they are asked for.
    pub async fn tails(&mut self, journals: &[(Journal, SessionNumber)]) -> Result<Vec<Tail>, StoreError> {
        let wanted: Vec<_> = journals.iter().map(|(journal, session)| [*journal as i64, session.0]).collect();
        let wanted = serde_json::to_string(&wanted).unwrap_or_default();
        let mut tails = vec![Tail::EMPTY; journals.len()];
        // Blocks last: where there are any, they are newer.
        for sql in [TAILS, LAST_BLOCKS] {
            let rows = sqlx::query(sql).bind(&wanted).fetch_all(&mut self.connection).await?;
            for row in rows {
                let asked: i64 = row.try_get("asked")?;
                let tail = usize::try_from(asked).ok().and_then(|asked| tails.get_mut(asked));
                if let Some(tail) = tail {
                    *tail = Tail { last: row.try_get("last")?, at: row.try_get("high_time")? };
                }
            }
        }
        Ok(tails)
    }

    /// Writes blocks in one transaction. On an error nothing of them was written. What was written survives the
    /// process; a power cut may take the last of it, whole blocks from the end.
    pub async fn commit(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        self.begin().await?;
        let written = put(&mut self.connection, &BLOCK, blocks, bind_block).await;
        self.end(written).await
    }

    /// Forgets some of what is to be forgotten, in one transaction. Nothing: there is no more.
    pub async fn forget(&mut self, forget: Forget) -> Result<Forgotten, StoreError> {
        self.begin().await?;
        let forgotten = self.forget_some(forget).await;
        self.end(forgotten).await
    }

    async fn forget_some(&mut self, forget: Forget) -> Result<Forgotten, StoreError> {
        let mut doomed = match forget {
            Forget::Session(session) => self.of_session(session).await?,
            Forget::Before(_) | Forget::ShrinkTo(_) => self.oldest().await?,
        };
        match forget {
            Forget::Session(_) => {}
            Forget::Before(before) => {
                let kept = doomed.iter().position(|block| block.recorded_at >= before);
                doomed.truncate(kept.unwrap_or(doomed.len()));
            }
            Forget::ShrinkTo(bytes) => {
                let mut excess = used_bytes(&mut self.connection).await?.saturating_sub(bytes);
                let kept = doomed.iter().position(|block| {
                    let enough = excess == 0;
                    excess = excess.saturating_sub(block.bytes);
                    enough
                });
                doomed.truncate(kept.unwrap_or(doomed.len()));
            }
        }
        self.delete(doomed).await
    }

    async fn oldest(&mut self) -> Result<Vec<Doomed>, StoreError> {
        let sql = "select number, journal, session, first_position + count - 1 as last, count, high_time, \
                   recorded_at, length(payload) as bytes from block where number > ? order by number limit ?";
        let query = sqlx::query(sql).bind(i64::MIN).bind(FORGOTTEN_AT_ONCE);
        query.fetch_all(&mut self.connection).await?.iter().map(doomed).collect()
    }

    async fn of_session(&mut self, session: SessionNumber) -> Result<Vec<Doomed>, StoreError> {
        let sql = "select number, journal, session, first_position + count - 1 as last, count, high_time, \
                   recorded_at, length(payload) as bytes from block indexed by block_by_position \
                   where journal = ? and session = ? order by first_position limit ?";
        let mut found = Vec::new();
        for journal in Journal::ALL {
            let query = sqlx::query(sql).bind(journal as i64).bind(session.0).bind(FORGOTTEN_AT_ONCE);
            for row in query.fetch_all(&mut self.connection).await? {
                found.push(doomed(&row)?);
            }
        }
        Ok(found)
    }

    /// Deletes blocks, each the oldest of its journal that is left, and keeps how far they went.
    async fn delete(&mut self, doomed: Vec<Doomed>) -> Result<Forgotten, StoreError> {
        let mut forgotten = Forgotten::default();
        if doomed.is_empty() {
            return Ok(forgotten);
        }
        let mut tails = std::collections::BTreeMap::new();
        for block in &doomed {
            forgotten.blocks += 1;
            forgotten.entries += block.entries;
            tails.insert((block.journal, block.session), block.tail);
        }
        let tails: Vec<_> = tails.into_iter().collect();
        put(&mut self.connection, &TAIL, &tails, |bound, ((journal, session), tail)| {
            bound.add(*journal).add(*session).add(tail.last).add(tail.at);
        })
        .await?;
        let numbers: Vec<i64> = doomed.iter().map(|block| block.number).collect();
        let numbers = serde_json::to_string(&numbers).unwrap_or_default();
        let sql = "delete from block where number in (select value from json_each(?))";
        sqlx::query(sql).bind(numbers).execute(&mut self.connection).await?;
        Ok(forgotten)
    }

    /// Gives some free pages at the end of the file back to the file system, where there are far more than will soon be
    /// needed again. Whether there are still more.
    pub async fn give_back(&mut self) -> Result<bool, StoreError> {
        let sql = "select page_count, freelist_count from pragma_page_count, pragma_freelist_count";
        let (pages, free): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut self.connection).await?;
        if free <= KEPT_FREE || free <= pages / KEPT_PART {
            return Ok(false);
        }
        sqlx::query(GIVEN_BACK_AT_ONCE).execute(&mut self.connection).await?;
        Ok(true)
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        sqlx::query("begin immediate").execute(&mut self.connection).await?;
        Ok(())
    }

    /// Ends a transaction as what was done in it came out.
    async fn end<Value>(&mut self, outcome: Result<Value, StoreError>) -> Result<Value, StoreError> {
        let outcome = match outcome {
            Ok(value) => {
                let committed = sqlx::query("commit").execute(&mut self.connection).await;
                committed.map(|_| value).map_err(StoreError::from)
            }
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // SQLite may have rolled back by itself (a full disk does that); then this one says so, harmlessly.
            sqlx::query("rollback").execute(&mut self.connection).await.ok();
        }
        outcome
    }

    /// As [`Writer::truncate_wal`](super::Writer::truncate_wal).
    pub async fn truncate_wal(&mut self) -> Result<(), StoreError> {
        truncate_wal(&mut self.connection).await
    }

    /// As [`Writer::limit_pages`](super::Writer::limit_pages).
    pub async fn limit_pages(&mut self, pages: u32) -> Result<(), StoreError> {
        limit_pages(&mut self.connection, pages).await
    }

    /// Bytes in the write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        wal_bytes(&self.path)
    }

    /// Closes the connection in order.
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }
}

fn bind_block(bound: &mut Bound, block: &Block) {
    bound
        .add(block.journal as i64)
        .add(block.session.0)
        .add(block.first)
        .add(block.count)
        .add(block.low)
        .add(block.high)
        .time(block.recorded_at)
        .add(i64::from(block.marks.bits()))
        .add(block.payload.as_slice());
}

fn doomed(row: &SqliteRow) -> Result<Doomed, StoreError> {
    let unsigned = |column| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)?.try_into().unwrap_or(0));
    Ok(Doomed {
        number: row.try_get("number")?,
        journal: row.try_get("journal")?,
        session: row.try_get("session")?,
        tail: Tail { last: row.try_get("last")?, at: row.try_get("high_time")? },
        entries: unsigned("count")?,
        recorded_at: time(row.try_get("recorded_at")?),
        bytes: unsigned("bytes")?.saturating_add(BESIDE_PAYLOAD),
    })
}

/// Bytes that the file needs for what is in it, free pages not counted.
async fn used_bytes(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let sql = "select (page_count - freelist_count) * page_size \
               from pragma_page_count, pragma_freelist_count, pragma_page_size";
    let bytes: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(bytes.try_into().unwrap_or(0))
}

// ---- reading -------------------------------------------------------------------------------------------------------

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

/// A few connections that read the second file. No answer holds a snapshot longer than it takes to read some blocks.
#[derive(Clone)]
pub struct LinesReader {
    pool: SqlitePool,
    /// Of a connection that may checkpoint.
    options: SqliteConnectOptions,
}

impl LinesReader {
    /// Opens a pool of readers on a file that exists.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?;
        Ok(Self { pool: pool(&options).await?, options })
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// As [`Reader::checkpoint_if_large`](super::Reader::checkpoint_if_large).
    pub async fn checkpoint_if_large(&self) -> Result<u64, StoreError> {
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
             and first_position + count > ?3 and marks & ?5 order by first_position desc limit ?6"
        } else {
            "select * from block indexed by block_by_position where journal = ?1 and session = ?2 \
             and first_position >= coalesce((select max(first_position) from block where journal = ?1 \
             and session = ?2 and first_position <= ?3), ?3) and first_position <= ?4 \
             and first_position + count > ?3 and marks & ?5 order by first_position limit ?6"
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
