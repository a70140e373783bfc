//! Sessions as they were at a position of the log.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::phase::Phase;
use sessiond_core::session::earlier::EarlierState;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use super::insert::each;
use super::people::{mark, set_mark};
use super::store::PgStore;
use super::verify::follow;
use crate::StoreError;
use crate::answers::earlier_state;
use crate::blocks::{self, Block, Key, LEVELS, Looked};
use crate::check::{Fault, LogCheck, PAGE};
use crate::row::{Batch, Entry, SessionRow};
use crate::seam::{EndedSince, Past, SessionRows};
use crate::tables::{EARLIER_FILED, next_chunk};
use crate::values::entry;

const EARLIER: &str = "insert into session_earlier (position, session, last_active_at, token_expires_at, phase) \
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[])";

/// The blocks go in one order: whoever writes the same ones takes them in the same order.
const BLOCK: &str = "insert into session_block (application, level, block, sessions, last_ended) \
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) \
     on conflict (application, level, block) do update set \
     sessions = session_block.sessions + excluded.sessions, \
     last_ended = greatest(session_block.last_ended, excluded.last_ended)";

#[async_trait]
impl Past for PgStore {
    async fn last_connected(&self, at: Position) -> Result<Option<SessionNumber>, StoreError> {
        blocks::last_connected(self, at).await
    }

    async fn ended_since(&self, page: &EndedSince) -> Result<Vec<SessionRow>, StoreError> {
        SessionRows::sessions(self, &blocks::ended_since(self, page).await?).await
    }

    async fn sessions_up_to(
        &self,
        application: ApplicationNumber,
        last: SessionNumber,
    ) -> Result<u64, StoreError> {
        blocks::sessions_up_to(self, application, last).await
    }

    async fn earlier_states(
        &self,
        sessions: &[SessionNumber],
        at: Position,
    ) -> Result<Vec<EarlierState>, StoreError> {
        let sql = "select e.* from unnest($1::bigint[]) as wanted (number) cross join lateral \
                   (select * from session_earlier where session = wanted.number and position > $2 \
                   order by position limit 1) e";
        let query = sqlx::query(sql).bind(each(sessions, |number| number.0)).bind(at.0);
        query.fetch_all(&self.pool).await?.iter().map(earlier_state).collect()
    }

    async fn making(
        &self,
        sessions: &[(SessionNumber, Position)],
        at: Position,
    ) -> Result<Vec<Entry>, StoreError> {
        let numbers = each(sessions, |(number, _)| number.0);
        let lifecycle = "select e.* from unnest($1::bigint[]) as wanted (number) cross join lateral \
                         (select * from event where stream_kind = 4 and stream_number = wanted.number \
                         and type <> 'activity_recorded' and position <= $2 order by version) e";
        let mut rows = sqlx::query(lifecycle).bind(&numbers).bind(at.0).fetch_all(&self.pool).await?;
        // From the first milestone after the position, or from the last event, back to the activity before it.
        let activity = "with recursive chain (position, previous, activity) as (\
             select e.position, coalesce(c.previous, e.previous_position), e.type = 'activity_recorded' \
             from (select coalesce((select m.position from event m where m.stream_number = wanted.number \
             and m.type = 'activity_recorded' and m.version % 16 = 0 and m.position > $3 \
             order by m.position limit 1), wanted.newest) as position \
             from unnest($1::bigint[], $2::bigint[]) as wanted (number, newest)) start \
             join event e on e.position = start.position left join cut c on c.position = e.position \
             union all \
             select e.position, coalesce(c.previous, e.previous_position), e.type = 'activity_recorded' \
             from chain join event e on e.position = chain.previous \
             left join cut c on c.position = e.position where chain.position > $3 or not chain.activity) \
             select e.* from chain join event e on e.position = chain.position \
             where chain.position <= $3 and chain.activity";
        let query = sqlx::query(activity).bind(&numbers).bind(each(sessions, |(_, newest)| newest.0));
        rows.extend(query.bind(at.0).fetch_all(&self.pool).await?);
        let mut entries: Vec<Entry> = rows.iter().map(entry).collect::<Result<_, _>>()?;
        entries.sort_unstable_by_key(|entry| entry.recorded.position);
        Ok(entries)
    }
}

#[async_trait]
impl Looked for PgStore {
    async fn blocks(
        &self,
        page: &EndedSince,
        level: i64,
        (first, last): (i64, i64),
    ) -> Result<Vec<i64>, StoreError> {
        let direction = if page.descending { "desc" } else { "asc" };
        let sql = format!(
            "select block from session_block where application = $1 and level = $2 and block >= $3 \
             and block <= $4 and last_ended > $5 order by block {direction}"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(page.application.0).bind(level);
        let query = query.bind(first).bind(last).bind(page.at.0);
        Ok(query.fetch_all(&self.pool).await?)
    }

    async fn sessions(
        &self,
        page: &EndedSince,
        (first, last): (i64, i64),
        limit: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let direction = if page.descending { "desc" } else { "asc" };
        let sql = format!(
            "select s.number from session_block b cross join lateral (\
             select number from session where application = $1 and number >= greatest(b.block << 6, $3) \
             and number <= least((b.block << 6) + 63, $4) and state = 0 and head > $2 \
             order by number {direction}) s \
             where b.application = $1 and b.level = 1 and b.block >= $3 >> 6 and b.block <= $4 >> 6 \
             and b.last_ended > $2 order by b.block {direction}, s.number {direction} limit $5"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(page.application.0).bind(page.at.0);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(query.bind(first).bind(last).bind(limit).fetch_all(&self.pool).await?)
    }

    async fn last_up_to(&self, number: i64) -> Result<Option<(i64, i64)>, StoreError> {
        let sql =
            "select number, connected_head from session where number <= $1 order by number desc limit 1";
        Ok(sqlx::query_as(sql).bind(number).fetch_optional(&self.pool).await?)
    }

    async fn counted(
        &self,
        application: ApplicationNumber,
        level: i64,
        (first, last): (i64, i64),
    ) -> Result<i64, StoreError> {
        if level == 0 {
            let sql = "select count(*) from session where number >= $1 and number <= $2 and application = $3";
            let query = sqlx::query_scalar(sql).bind(first).bind(last).bind(application.0);
            return Ok(query.fetch_one(&self.pool).await?);
        }
        let sql = "select coalesce(sum(sessions), 0)::bigint from session_block \
                   where application = $1 and level = $2 and block >= $3 and block <= $4";
        let query = sqlx::query_scalar(sql).bind(application.0).bind(level).bind(first).bind(last);
        Ok(query.fetch_one(&self.pool).await?)
    }
}

/// How sessions stood before, and the blocks that they are in.
pub(super) async fn write(connection: &mut PgConnection, batch: &Batch) -> Result<(), StoreError> {
    write_earlier(connection, batch).await?;
    let changed = blocks::changed_by(batch);
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query(BLOCK)
        .bind(each(&changed, |((application, ..), _)| *application))
        .bind(each(&changed, |((_, level, _), _)| *level))
        .bind(each(&changed, |((.., block), _)| *block))
        .bind(each(&changed, |(_, own)| own.sessions))
        .bind(each(&changed, |(_, own)| own.last_ended))
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_earlier(connection: &mut PgConnection, batch: &Batch) -> Result<(), StoreError> {
    let earlier = &batch.earlier;
    if earlier.is_empty() {
        return Ok(());
    }
    sqlx::query(EARLIER)
        .bind(each(earlier, |one| one.position.0))
        .bind(each(earlier, |one| one.session.0))
        .bind(each(earlier, |one| one.last_active_at.timestamp_millis()))
        .bind(each(earlier, |one| one.token_expires_at.timestamp_millis()))
        .bind(each(earlier, |one| one.phase.map(Phase::word)))
        .execute(connection)
        .await?;
    Ok(())
}

/// Tells how sessions stood before that a release recorded which did not keep it. Once: from then on it is kept. Where the log is
/// not as it should be there is no telling; `verify` says what is wrong with it.
pub(super) async fn file_earlier(connection: &mut PgConnection, turn_key: i64) -> Result<(), StoreError> {
    if mark(connection, EARLIER_FILED).await? > Position(0) {
        return Ok(());
    }
    // It takes as long as it takes; and a transaction that is not committed is gone with its connection.
    let begin = format!(
        "begin; set local idle_in_transaction_session_timeout = 0; set local statement_timeout = 0; \
         set local lock_timeout = 0; select pg_advisory_xact_lock({turn_key})"
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    let done = match earlier_again(connection).await {
        Ok(()) => "commit",
        Err(Fault::Difference(_)) => "rollback",
        Err(Fault::Store(error)) => return Err(error),
    };
    sqlx::raw_sql(done).execute(connection).await?;
    Ok(())
}

async fn earlier_again(connection: &mut PgConnection) -> Result<(), Fault> {
    sqlx::raw_sql("delete from session_earlier").execute(&mut *connection).await?;
    let mut log = LogCheck::new(Position(i64::MAX), Position(i64::MAX));
    while follow(connection, &mut log, |_| ()).await? == PAGE {}
    let mut rest = log.into_rows();
    while let Some(batch) = next_chunk(&mut rest) {
        write_earlier(connection, &batch).await?;
    }
    Ok(set_mark(connection, EARLIER_FILED, Position(1)).await?)
}

/// Makes the blocks anew from which sessions were let go.
pub(super) async fn blocks_again(
    connection: &mut PgConnection,
    sessions: &[(ApplicationNumber, SessionNumber)],
) -> Result<(), StoreError> {
    for level in 1..=LEVELS {
        let touched = blocks::touched(sessions, level);
        let from = match level {
            1 => {
                "select s.application, $1, s.number >> 6, count(*), max(case when s.state = 0 then s.head else 0 end) \
                  from wanted join session s on s.number >= wanted.first and s.number <= wanted.last \
                  where s.application = wanted.application"
            }
            _ => {
                "select b.application, $1, b.block >> 6, sum(b.sessions)::bigint, max(b.last_ended) \
                  from wanted join session_block b on b.application = wanted.application and b.level = $1 - 1 \
                  and b.block >= wanted.first and b.block <= wanted.last"
            }
        };
        let delete = "delete from session_block where level = $1 and (application, block) in \
                      (select * from unnest($2::bigint[], $3::bigint[]))";
        let (applications, numbers) =
            (each(&touched, |(application, _)| *application), each(&touched, |(_, block)| *block));
        sqlx::query(delete).bind(level).bind(&applications).bind(&numbers).execute(&mut *connection).await?;
        let insert = format!(
            "with wanted (application, first, last) as (select * from unnest($2::bigint[], $3::bigint[], $4::bigint[])) \
             insert into session_block (application, level, block, sessions, last_ended) {from} group by 1, 3"
        );
        sqlx::query(AssertSqlSafe(insert))
            .bind(level)
            .bind(applications)
            .bind(each(&touched, |(_, block)| blocks::members(*block).0))
            .bind(each(&touched, |(_, block)| blocks::members(*block).1))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The applications of sessions.
pub(super) async fn applications_of(
    connection: &mut PgConnection,
    sessions: &[SessionNumber],
) -> Result<Vec<(ApplicationNumber, SessionNumber)>, StoreError> {
    let sql = "select application, number from session where number = any($1)";
    let query = sqlx::query_as(sql).bind(each(sessions, |number| number.0));
    let rows: Vec<(i64, i64)> = query.fetch_all(connection).await?;
    let typed = |(application, number)| (ApplicationNumber(application), SessionNumber(number));
    Ok(rows.into_iter().map(typed).collect())
}

/// How sessions stood before, from after a number up to another, in the order of the log.
pub(super) async fn earlier_of(
    connection: &mut PgConnection,
    after: i64,
    upto: i64,
) -> Result<Vec<EarlierState>, StoreError> {
    let sql = "select * from session_earlier where session > $1 and session <= $2 order by session, position";
    let rows: Vec<PgRow> = sqlx::query(sql).bind(after).bind(upto).fetch_all(connection).await?;
    rows.iter().map(earlier_state).collect()
}

/// All blocks.
pub(super) async fn all_blocks(connection: &mut PgConnection) -> Result<BTreeMap<Key, Block>, StoreError> {
    let sql = "select application, level, block, sessions, last_ended from session_block";
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    let read = |row: &PgRow| {
        Ok(blocks::row((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?)))
    };
    rows.iter().map(read).collect()
}
