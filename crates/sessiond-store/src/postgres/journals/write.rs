//! The one connection of a process that writes journals, and forgets what is old.
//!
//! What it commits is on disk before it answers (`synchronous_commit = local`). With `off` a crash of the server alone, without
//! a power cut, would take what was written last, and the seam does not allow for that; the standby, on the other hand, need
//! not have it: a failover may take the last of it, as a power cut may.

use std::time::Duration;

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::Journal;
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::super::insert::{each, raced};
use super::super::link::{Durability, Link, SHORTLY, within};
use super::super::servers::Servers;
use super::used_bytes;
use crate::StoreError;
use crate::block::Block;
use crate::doomed::{AT_ONCE, BESIDE_PAYLOAD, Doomed, come_to, doomed, keep_bytes, keep_older};
use crate::seam::{Forget, Forgotten, JournalWriter, Tail};
use crate::values::{Stored, time};

/// How long writing or forgetting some blocks may take.
const WRITING: Duration = Duration::from_secs(30);
/// How long it is tried to find out what has come of a commit, and the pause between.
const FINDING_OUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

const BLOCK: &str = "insert into block (journal, session, first_position, count, low_time, high_time, recorded_at, marks, payload) \
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
     $7::bigint[], $8::bigint[], $9::bytea[])";

const TAIL: &str = "insert into tail (journal, session, last_position, high_time) \
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) \
     on conflict (journal, session) do update set last_position = excluded.last_position, \
     high_time = excluded.high_time";

const BYTES: &str = "insert into journal_bytes as known (writer, bytes) values ($1, $2) \
     on conflict (writer) do update set bytes = known.bytes + excluded.bytes";

/// The last block of each journal that is asked for.
const LAST_BLOCKS: &str = "select wanted.nth as asked, last.last, last.high_time \
     from unnest($1::bigint[], $2::bigint[]) with ordinality as wanted (journal, session, nth) \
     cross join lateral (select first_position + count - 1 as last, high_time from block b \
     where b.journal = wanted.journal and b.session = wanted.session order by first_position desc limit 1) last";

/// How far each of them had come by what is forgotten.
const TAILS: &str = "select wanted.nth as asked, t.last_position as last, t.high_time \
     from unnest($1::bigint[], $2::bigint[]) with ordinality as wanted (journal, session, nth) \
     join tail t on t.journal = wanted.journal and t.session = wanted.session";

/// Blocks to forget, as [`doomed`] reads them, up to which condition and order.
const DOOMED: &str = "select number, journal, session, first_position + count - 1 as last, count, high_time, recorded_at, \
     length(payload)::bigint as bytes from block";

/// What writes journals for one process.
pub(in crate::postgres) struct PgJournalWriter {
    servers: Servers,
    /// None once it was lost, or while it is at work.
    link: Option<Link>,
    /// Whose count of bytes it goes on with, and by which lock it waits for a connection of its own that was lost.
    id: Uuid,
}

impl PgJournalWriter {
    /// Opens the journals of a database that is migrated.
    pub(in crate::postgres) async fn open(servers: Servers) -> Result<Self, StoreError> {
        let link = Link::make(&servers, Durability::Here).await?;
        Ok(Self { servers, link: Some(link), id: Uuid::new_v4() })
    }

    async fn take(&mut self) -> Result<Link, StoreError> {
        match self.link.take() {
            Some(link) => Ok(link),
            None => Link::make(&self.servers, Durability::Here).await,
        }
    }

    /// Ends what was begun as it came out. A connection that is good for nothing any more is closed.
    async fn put_back<Value>(
        &mut self,
        mut link: Link,
        outcome: Result<Value, StoreError>,
    ) -> Result<Value, StoreError> {
        if outcome.is_ok() || link.rolled_back().await {
            self.link = Some(link);
        }
        outcome
    }

    /// Begins a transaction, under the lock that is this writer's own: whoever looks for what became of it waits for its end.
    async fn begin(&mut self) -> Result<Link, StoreError> {
        let mut unused = self.link.is_some();
        loop {
            let mut link = self.take().await?;
            let sql = begin(self.id);
            let begun =
                within(SHORTLY, sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut link.connection)).await;
            match begun {
                Ok(_) => return Ok(link),
                // It was lost while nobody used it.
                Err(_) if unused => unused = false,
                Err(error) => return self.put_back(link, Err(error.into())).await,
            }
        }
    }

    /// Whether blocks were written whose commit was not answered: they came in one transaction, so the first of them tells.
    async fn was_written(&mut self, first: &Block) -> Result<bool, StoreError> {
        let until = Instant::now() + FINDING_OUT;
        loop {
            match self.look_for(first).await {
                Err(_) if Instant::now() < until => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn look_for(&mut self, first: &Block) -> Result<bool, StoreError> {
        let mut link = Link::make(&self.servers, Durability::Here).await?;
        let sql = begin(self.id);
        within(WRITING, sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut link.connection)).await?;
        let sql = "select exists (select from block where journal = $1 and session = $2 and first_position = $3 \
                   and recorded_at = $4 and payload = $5)";
        let query = sqlx::query_scalar(sql)
            .bind(first.journal as i64)
            .bind(first.session.0)
            .bind(first.first)
            .bind(first.recorded_at.timestamp_millis())
            .bind(first.payload.as_slice());
        let found = within(SHORTLY, query.fetch_one(&mut link.connection)).await?;
        if link.rolled_back().await {
            self.link = Some(link);
        }
        Ok(found)
    }
}

/// Begins a transaction under a lock.
fn begin(id: Uuid) -> String {
    let (key, _) = id.as_u64_pair();
    format!("begin; select pg_advisory_xact_lock({})", key.cast_signed())
}

async fn write(link: &mut Link, id: Uuid, blocks: &[Block]) -> Result<(), StoreError> {
    sqlx::query(BLOCK)
        .bind(each(blocks, |block| block.journal as i64))
        .bind(each(blocks, |block| block.session.0))
        .bind(each(blocks, |block| block.first))
        .bind(each(blocks, |block| block.count))
        .bind(each(blocks, |block| block.low))
        .bind(each(blocks, |block| block.high))
        .bind(each(blocks, |block| block.recorded_at.timestamp_millis()))
        .bind(each(blocks, |block| i64::from(block.marks.bits())))
        .bind(each(blocks, |block| block.payload.as_slice()))
        .execute(&mut link.connection)
        .await
        .map_err(raced)?;
    let bytes = blocks.iter().map(|block| block.payload.len() as u64 + BESIDE_PAYLOAD).sum();
    count_bytes(link, id, bytes, false).await
}

/// Adds to the bytes of all blocks, or takes away.
async fn count_bytes(link: &mut Link, id: Uuid, bytes: u64, away: bool) -> Result<(), StoreError> {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let bytes = if away { -bytes } else { bytes };
    sqlx::query(BYTES).bind(id).bind(bytes).execute(&mut link.connection).await?;
    Ok(())
}

async fn forget_some(link: &mut Link, id: Uuid, forget: Forget) -> Result<Forgotten, StoreError> {
    let mut blocks = match &forget {
        Forget::Session(session) => of_sessions(link, &[*session]).await?,
        Forget::Before(_) | Forget::ShrinkTo(_) => {
            let sql = format!("{DOOMED} order by number limit $1");
            let query = sqlx::query(AssertSqlSafe(sql)).bind(AT_ONCE);
            query.fetch_all(&mut link.connection).await?.iter().map(doomed).collect::<Result<_, _>>()?
        }
        Forget::Blocks(numbers) => {
            let sql = format!("{DOOMED} where number = any($2) order by number limit $1");
            let query = sqlx::query(AssertSqlSafe(sql)).bind(AT_ONCE).bind(&numbers[..]);
            query.fetch_all(&mut link.connection).await?.iter().map(doomed).collect::<Result<_, _>>()?
        }
        Forget::LetGo(sessions) => of_sessions(link, sessions).await?,
    };
    match forget {
        Forget::Session(_) | Forget::Blocks(_) => {}
        Forget::LetGo(sessions) if blocks.is_empty() => {
            let sql = "delete from tail where session = any($1) and journal = any($2)";
            let journals: Vec<i64> = Journal::ALL.iter().map(|journal| *journal as i64).collect();
            let query = sqlx::query(sql).bind(each(&sessions, |session| session.0)).bind(journals);
            query.execute(&mut link.connection).await?;
        }
        Forget::LetGo(_) => {}
        Forget::Before(before) => keep_older(&mut blocks, before),
        Forget::ShrinkTo(bytes) => {
            let used = used_bytes(&mut link.connection).await?;
            keep_bytes(&mut blocks, used.saturating_sub(bytes));
        }
    }
    delete(link, id, &blocks).await
}

/// Blocks of sessions, some of them: of each journal the oldest.
async fn of_sessions(link: &mut Link, sessions: &[SessionNumber]) -> Result<Vec<Doomed>, StoreError> {
    let sql = format!(
        "{DOOMED} where journal = any($2) and session = any($3) order by journal, session, first_position limit $1"
    );
    let journals: Vec<i64> = Journal::ALL.iter().map(|journal| *journal as i64).collect();
    let query = sqlx::query(AssertSqlSafe(sql)).bind(AT_ONCE).bind(journals);
    let query = query.bind(each(sessions, |session| session.0));
    query.fetch_all(&mut link.connection).await?.iter().map(doomed).collect()
}

/// Deletes blocks, each the oldest of its journal that is left, and keeps how far they went.
async fn delete(link: &mut Link, id: Uuid, blocks: &[Doomed]) -> Result<Forgotten, StoreError> {
    let (forgotten, tails) = come_to(blocks);
    if blocks.is_empty() {
        return Ok(forgotten);
    }
    let sql = "delete from block where number = any($1)";
    sqlx::query(sql).bind(each(blocks, |block| block.number)).execute(&mut link.connection).await?;
    let tails: Vec<_> = tails.into_iter().collect();
    sqlx::query(TAIL)
        .bind(each(&tails, |((journal, _), _)| *journal))
        .bind(each(&tails, |((_, session), _)| *session))
        .bind(each(&tails, |(_, tail)| tail.last))
        .bind(each(&tails, |(_, tail)| tail.at))
        .execute(&mut link.connection)
        .await?;
    count_bytes(link, id, blocks.iter().map(|block| block.bytes).sum(), true).await?;
    Ok(forgotten)
}

/// Waits for work on a connection, but not for ever.
async fn in_time<Value>(work: impl Future<Output = Result<Value, StoreError>>) -> Result<Value, StoreError> {
    let late = || StoreError::Failed("the database did not answer in time".to_owned());
    tokio::time::timeout(WRITING, work).await.unwrap_or_else(|_| Err(late()))
}

async fn end(link: &mut Link) -> Result<(), sqlx::Error> {
    within(WRITING, sqlx::raw_sql("commit").execute(&mut link.connection)).await.map(|_| ())
}

#[async_trait]
impl JournalWriter for PgJournalWriter {
    async fn last_recorded_at(&mut self) -> Result<Option<Time>, StoreError> {
        let mut link = self.take().await?;
        let sql = "select recorded_at from block order by number desc limit 1";
        let found = in_time(async { Ok(sqlx::query(sql).fetch_optional(&mut link.connection).await?) }).await;
        let row = self.put_back(link, found).await?;
        Ok(row.map(|row| row.integer("recorded_at")).transpose()?.map(time))
    }

    async fn tails(&mut self, journals: &[(Journal, SessionNumber)]) -> Result<Vec<Tail>, StoreError> {
        let (kinds, sessions): (Vec<i64>, Vec<i64>) =
            journals.iter().map(|(journal, session)| (*journal as i64, session.0)).unzip();
        let mut tails = vec![Tail::EMPTY; journals.len()];
        let mut link = self.take().await?;
        let read = in_time(async {
            // Blocks last: where there are any, they are newer.
            for sql in [TAILS, LAST_BLOCKS] {
                let query = sqlx::query(sql).bind(&kinds).bind(&sessions);
                for row in query.fetch_all(&mut link.connection).await? {
                    let asked = usize::try_from(row.integer("asked")? - 1).ok();
                    if let Some(tail) = asked.and_then(|asked| tails.get_mut(asked)) {
                        *tail = Tail { last: row.integer("last")?, at: row.integer("high_time")? };
                    }
                }
            }
            Ok(())
        })
        .await;
        self.put_back(link, read).await?;
        Ok(tails)
    }

    async fn commit(&mut self, blocks: &[Block]) -> Result<(), StoreError> {
        let Some(first) = blocks.first() else { return Ok(()) };
        let mut link = self.begin().await?;
        if let Err(error) = in_time(write(&mut link, self.id, blocks)).await {
            return self.put_back(link, Err(error)).await;
        }
        let Err(lost) = end(&mut link).await else {
            self.link = Some(link);
            return Ok(());
        };
        drop(link);
        match self.was_written(first).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Failed(format!("nothing was written: {lost}"))),
            Err(error) => Err(StoreError::Unknown(format!("{lost}; and then: {error}"))),
        }
    }

    async fn forget(&mut self, forget: Forget) -> Result<Forgotten, StoreError> {
        let mut link = self.begin().await?;
        let forgotten = in_time(forget_some(&mut link, self.id, forget)).await;
        let ended = match forgotten {
            Ok(forgotten) => end(&mut link).await.map(|()| forgotten).map_err(StoreError::from),
            Err(error) => Err(error),
        };
        // What was forgotten all the same is not found the next time.
        self.put_back(link, ended).await
    }

    async fn give_back(&mut self) -> Result<bool, StoreError> {
        // PostgreSQL uses the space again by itself.
        Ok(false)
    }

    async fn maintain(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        if let Some(link) = self.link.take() {
            link.close().await;
        }
        Ok(())
    }
}
