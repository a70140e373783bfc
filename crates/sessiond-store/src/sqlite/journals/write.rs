//! The one connection that writes to the second file, and forgets what is old.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::Serialize;
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::Journal;
use sqlx::sqlite::SqliteAutoVacuum;
use sqlx::{Connection, Row, SqliteConnection};

use super::super::files::Files;
use super::super::insert::{Bound, Insert, put};
use super::super::wal;
use super::{MIGRATIONS, options, used_bytes};
use crate::StoreError;
use crate::block::Block;
use crate::doomed::{AT_ONCE, Doomed, come_to, doomed, keep_bytes, keep_older};
use crate::migrate::migrate;
use crate::seam::{Forget, Forgotten, JournalWriter, Tail};
use crate::values::time;

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

const BLOCKS: &str = "select b.number, journal, session, first_position + count - 1 as last, count, high_time, recorded_at, \
     length(payload) as bytes from json_each(?) wanted cross join block b on b.number = wanted.value \
     order by b.number limit ?";

const OF_SESSIONS: &str = "select b.number, b.journal, b.session, first_position + count - 1 as last, count, high_time, \
     recorded_at, length(payload) as bytes from json_each(?) wanted cross join (values (1), (2)) journals \
     cross join block b indexed by block_by_position \
     on b.journal = journals.column1 and b.session = wanted.value limit ?";

/// The one connection that writes to the second file.
pub(in crate::sqlite) struct SqliteJournalWriter {
    pub(in crate::sqlite) connection: SqliteConnection,
    path: PathBuf,
    files: Files,
    /// Something was forgotten, and may still stand in the write-ahead log.
    forgotten: bool,
}

impl SqliteJournalWriter {
    /// Opens the file for writing, making and migrating it as needed, and checks what the live connection runs on.
    pub(in crate::sqlite) async fn open(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?
            .create_if_missing(true)
            // Fixed when the file is made: it can shrink again after a flood.
            .auto_vacuum(SqliteAutoVacuum::Incremental);
        let path = options.get_filename().to_owned();
        let mut connection = SqliteConnection::connect_with(&options).await?;
        migrate(&MIGRATIONS, &mut connection).await?;
        let mode: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&mut connection).await?;
        if mode != "wal" {
            return Err(StoreError::Failed(format!("journal_mode is {mode}, not wal")));
        }
        let files = Files::of(&path);
        Ok(Self { connection, path, files, forgotten: false })
    }

    async fn forget_some(&mut self, forget: Forget) -> Result<Forgotten, StoreError> {
        let mut doomed = match &forget {
            Forget::Session(session) => self.of_session(*session).await?,
            Forget::Before(_) | Forget::ShrinkTo(_) => self.oldest().await?,
            Forget::Blocks(numbers) => self.listed(BLOCKS, numbers).await?,
            Forget::LetGo(sessions) => self.listed(OF_SESSIONS, sessions).await?,
        };
        match forget {
            Forget::Session(_) | Forget::Blocks(_) => {}
            Forget::LetGo(sessions) if doomed.is_empty() => self.forget_tails(&sessions).await?,
            Forget::LetGo(_) => {}
            Forget::Before(before) => keep_older(&mut doomed, before),
            Forget::ShrinkTo(bytes) => {
                let used = used_bytes(&mut self.connection).await?;
                keep_bytes(&mut doomed, used.saturating_sub(bytes));
            }
        }
        self.delete(doomed).await
    }

    async fn oldest(&mut self) -> Result<Vec<Doomed>, StoreError> {
        let sql = "select number, journal, session, first_position + count - 1 as last, count, high_time, \
                   recorded_at, length(payload) as bytes from block where number > ? order by number limit ?";
        let query = sqlx::query(sql).bind(i64::MIN).bind(AT_ONCE);
        query.fetch_all(&mut self.connection).await?.iter().map(doomed).collect()
    }

    async fn of_session(&mut self, session: SessionNumber) -> Result<Vec<Doomed>, StoreError> {
        let sql = "select number, journal, session, first_position + count - 1 as last, count, high_time, \
                   recorded_at, length(payload) as bytes from block indexed by block_by_position \
                   where journal = ? and session = ? order by first_position limit ?";
        let mut found = Vec::new();
        for journal in Journal::ALL {
            let query = sqlx::query(sql).bind(journal as i64).bind(session.0).bind(AT_ONCE);
            for row in query.fetch_all(&mut self.connection).await? {
                found.push(doomed(&row)?);
            }
        }
        Ok(found)
    }

    async fn listed<Number: Serialize>(
        &mut self,
        sql: &'static str,
        numbers: &[Number],
    ) -> Result<Vec<Doomed>, StoreError> {
        let numbers = serde_json::to_string(numbers).unwrap_or_default();
        let query = sqlx::query(sql).bind(numbers).bind(AT_ONCE);
        query.fetch_all(&mut self.connection).await?.iter().map(doomed).collect()
    }

    async fn forget_tails(&mut self, sessions: &[SessionNumber]) -> Result<(), StoreError> {
        let sessions = serde_json::to_string(sessions).unwrap_or_default();
        let sql = "delete from tail where (journal, session) in (select journals.column1, wanted.value \
                   from json_each(?) wanted cross join (values (1), (2)) journals)";
        sqlx::query(sql).bind(sessions).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Deletes blocks, each the oldest of its journal that is left, and keeps how far they went.
    async fn delete(&mut self, doomed: Vec<Doomed>) -> Result<Forgotten, StoreError> {
        let (forgotten, tails) = come_to(&doomed);
        if doomed.is_empty() {
            return Ok(forgotten);
        }
        // First what makes room: on a full disk the rest needs it.
        let numbers: Vec<i64> = doomed.iter().map(|block| block.number).collect();
        let numbers = serde_json::to_string(&numbers).unwrap_or_default();
        let sql = "delete from block where number in (select value from json_each(?))";
        sqlx::query(sql).bind(numbers).execute(&mut self.connection).await?;
        let tails: Vec<_> = tails.into_iter().collect();
        put(&mut self.connection, &TAIL, &tails, |bound, ((journal, session), tail)| {
            bound.add(*journal).add(*session).add(tail.last).add(tail.at);
        })
        .await?;
        Ok(forgotten)
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
        outcome.and_then(|value| lost(&self.files).map(|()| value))
    }
}

#[async_trait]
impl JournalWriter for SqliteJournalWriter {
    async fn last_recorded_at(&mut self) -> Result<Option<Time>, StoreError> {
        let sql = "select recorded_at from block where number = (select max(number) from block)";
        let recorded_at: Option<i64> = sqlx::query_scalar(sql).fetch_optional(&mut self.connection).await?;
        Ok(recorded_at.map(time))
    }

    async fn tails(&mut self, journals: &[(Journal, SessionNumber)]) -> Result<Vec<Tail>, StoreError> {
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

    async fn commit(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        self.begin().await?;
        let written = put(&mut self.connection, &BLOCK, blocks, bind_block).await;
        self.end(written).await
    }

    async fn forget(&mut self, forget: Forget) -> Result<Forgotten, StoreError> {
        self.begin().await?;
        let forgotten = self.forget_some(forget).await;
        let forgotten = self.end(forgotten).await?;
        self.forgotten |= forgotten.blocks > 0;
        Ok(forgotten)
    }

    async fn give_back(&mut self) -> Result<bool, StoreError> {
        let sql = "select page_count, freelist_count from pragma_page_count, pragma_freelist_count";
        let (pages, free): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut self.connection).await?;
        if free <= KEPT_FREE || free <= pages / KEPT_PART {
            return Ok(false);
        }
        sqlx::query(GIVEN_BACK_AT_ONCE).execute(&mut self.connection).await?;
        Ok(true)
    }

    async fn maintain(&mut self) -> Result<(), StoreError> {
        if wal::bytes(&self.path) > wal::LARGE {
            return wal::truncate(&mut self.connection).await;
        }
        // It may stand there until nobody reads it any more.
        if self.forgotten && wal::truncate(&mut self.connection).await.is_ok() {
            self.forgotten = wal::bytes(&self.path) > 0;
        }
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        wal::close(self.connection).await
    }
}

/// Without its file this room is closed, and nothing else.
pub(super) fn lost(files: &Files) -> Result<(), StoreError> {
    files.check().map_err(|error| match error {
        StoreError::Broken(what) => StoreError::Corrupt(what),
        error => error,
    })
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
