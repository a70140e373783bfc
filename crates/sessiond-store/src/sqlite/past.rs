//! Sessions as they were at a position of the log.

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::session::earlier::EarlierState;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::insert::Insert;
use super::log::mark;
use super::sessions::numbered;
use super::store::SqliteStore;
use super::verify::follow;
use super::writer::SqliteWriter;
use crate::StoreError;
use crate::answers::earlier_state;
use crate::blocks::{self, LEVELS, Looked};
use crate::check::{Fault, LogCheck, PAGE};
use crate::row::{Batch, Entry, SessionRow};
use crate::seam::{EndedSince, Past};
use crate::tables::{EARLIER_FILED, next_chunk};
use crate::values::entry;

static EARLIER: Insert =
    Insert::new("session_earlier (position, session, last_active_at, token_expires_at, phase)", 5, "");

static BLOCK: Insert = Insert::new(
    "session_block (application, level, block, sessions, last_ended)",
    5,
    "on conflict (application, level, block) do update set sessions = sessions + excluded.sessions, \
     last_ended = max(last_ended, excluded.last_ended)",
);

#[async_trait]
impl Past for SqliteStore {
    async fn last_connected(&self, at: Position) -> Result<Option<SessionNumber>, StoreError> {
        blocks::last_connected(self, at).await
    }

    async fn ended_since(&self, page: &EndedSince) -> Result<Vec<SessionRow>, StoreError> {
        numbered(&self.pool, &blocks::ended_since(self, page).await?).await
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
        if sessions.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select e.* from (select value from json_each(?)) wanted cross join session_earlier e \
                   on e.position = (select position from session_earlier indexed by session_earlier_of_session \
                   where session = wanted.value and position > ? order by position limit 1)";
        let numbers = serde_json::to_string(sessions).unwrap_or_default();
        let rows = sqlx::query(sql).bind(numbers).bind(at.0).fetch_all(&self.pool).await?;
        rows.iter().map(earlier_state).collect()
    }

    async fn making(
        &self,
        sessions: &[(SessionNumber, Position)],
        at: Position,
    ) -> Result<Vec<Entry>, StoreError> {
        if sessions.is_empty() {
            return Ok(vec![]);
        }
        let numbers: Vec<_> = sessions.iter().map(|(number, _)| number).collect();
        let numbers = serde_json::to_string(&numbers).unwrap_or_default();
        let lifecycle = "select e.* from (select value from json_each(?)) wanted \
                         cross join event e indexed by event_stream on e.stream_kind = 4 \
                         and e.stream_number = wanted.value and e.type <> 'activity_recorded' where e.position <= ?";
        let mut rows = sqlx::query(lifecycle).bind(numbers).bind(at.0).fetch_all(&self.pool).await?;
        // From the first milestone after the position, or from the last event, back to the activity before it.
        let activity = "with recursive chain (position, previous, activity) as (\
             select e.position, coalesce(c.previous, e.previous_position), e.type = 'activity_recorded' \
             from (select coalesce((select m.position from event m indexed by event_milestone \
             where m.stream_number = wanted.value ->> 0 and m.type = 'activity_recorded' and m.version % 16 = 0 \
             and m.position > ?2 order by m.position limit 1), wanted.value ->> 1) as position \
             from json_each(?1) wanted) start \
             cross join event e on e.position = start.position left join cut c on c.position = e.position \
             union all \
             select e.position, coalesce(c.previous, e.previous_position), e.type = 'activity_recorded' \
             from chain cross join event e on e.position = chain.previous \
             left join cut c on c.position = e.position where chain.position > ?2 or not chain.activity) \
             select e.* from chain cross join event e on e.position = chain.position \
             where chain.position <= ?2 and chain.activity";
        let wanted = serde_json::to_string(sessions).unwrap_or_default();
        rows.extend(sqlx::query(activity).bind(wanted).bind(at.0).fetch_all(&self.pool).await?);
        let mut entries: Vec<Entry> = rows.iter().map(entry).collect::<Result<_, _>>()?;
        entries.sort_unstable_by_key(|entry| entry.recorded.position);
        Ok(entries)
    }
}

#[async_trait]
impl Looked for SqliteStore {
    async fn blocks(
        &self,
        page: &EndedSince,
        level: i64,
        (first, last): (i64, i64),
    ) -> Result<Vec<i64>, StoreError> {
        let direction = if page.descending { "desc" } else { "asc" };
        let sql = format!(
            "select block from session_block where application = ? and level = ? and block >= ? and block <= ? \
             and last_ended > ? order by block {direction}"
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
            "select s.number from session_block b cross join session s indexed by session_ended \
             on s.application = b.application and s.number >= max(b.block << 6, ?3) \
             and s.number <= min((b.block << 6) + 63, ?4) and s.state = 0 and s.head > ?2 \
             where b.application = ?1 and b.level = 1 and b.block >= ?3 >> 6 and b.block <= ?4 >> 6 \
             and b.last_ended > ?2 order by b.block {direction}, s.number {direction} limit ?5"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(page.application.0).bind(page.at.0);
        Ok(query.bind(first).bind(last).bind(limit as i64).fetch_all(&self.pool).await?)
    }

    async fn last_up_to(&self, number: i64) -> Result<Option<(i64, i64)>, StoreError> {
        let sql = "select number, connected_head from session where number <= ? order by number desc limit 1";
        Ok(sqlx::query_as(sql).bind(number).fetch_optional(&self.pool).await?)
    }

    async fn counted(
        &self,
        application: ApplicationNumber,
        level: i64,
        (first, last): (i64, i64),
    ) -> Result<i64, StoreError> {
        if level == 0 {
            let sql = "select count(*) from session where number >= ? and number <= ? and +application = ?";
            let query = sqlx::query_scalar(sql).bind(first).bind(last).bind(application.0);
            return Ok(query.fetch_one(&self.pool).await?);
        }
        let sql = "select coalesce(sum(sessions), 0) from session_block \
                   where application = ? and level = ? and block >= ? and block <= ?";
        let query = sqlx::query_scalar(sql).bind(application.0).bind(level).bind(first).bind(last);
        Ok(query.fetch_one(&self.pool).await?)
    }
}

impl SqliteWriter {
    /// How sessions stood before, and the blocks that they are in.
    pub(super) async fn write_past(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.write_earlier(batch).await?;
        self.put(&BLOCK, &blocks::changed_by(batch), |bound, ((application, level, block), own)| {
            bound.add(*application).add(*level).add(*block).add(own.sessions).add(own.last_ended);
        })
        .await
    }

    pub(super) async fn write_earlier(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.put(&EARLIER, &batch.earlier, |bound, earlier| {
            bound
                .add(earlier.position.0)
                .add(earlier.session.0)
                .time(earlier.last_active_at)
                .time(earlier.token_expires_at)
                .add(earlier.phase.map(sessiond_core::phase::Phase::word));
        })
        .await
    }

    /// Tells how sessions stood before that a release recorded which did not keep it. Once: from then on it is kept. Where the log is
    /// not as it should be there is no telling; `verify` says what is wrong with it.
    pub(super) async fn file_earlier(&mut self) -> Result<(), StoreError> {
        if mark(&mut self.connection, EARLIER_FILED).await? > Position(0) {
            return Ok(());
        }
        sqlx::query("begin immediate").execute(&mut self.connection).await?;
        let filed = self.earlier_again().await;
        match self.end(filed).await {
            Err(Fault::Store(error)) => Err(error),
            Err(Fault::Difference(_)) | Ok(()) => Ok(()),
        }
    }

    async fn earlier_again(&mut self) -> Result<(), Fault> {
        sqlx::query("delete from session_earlier").execute(&mut self.connection).await?;
        let mut log = LogCheck::new(Position(i64::MAX), Position(i64::MAX));
        while follow(&mut self.connection, &mut log, |_| ()).await? == PAGE {}
        let mut rest = log.into_rows();
        while let Some(batch) = next_chunk(&mut rest) {
            self.write_earlier(&batch).await?;
        }
        Ok(self.mark(EARLIER_FILED, Position(1)).await?)
    }

    /// Makes the blocks anew from which sessions were let go.
    pub(super) async fn blocks_again(
        &mut self,
        sessions: &[(ApplicationNumber, SessionNumber)],
    ) -> Result<(), StoreError> {
        for level in 1..=LEVELS {
            let wanted: Vec<_> = blocks::touched(sessions, level)
                .into_iter()
                .map(|(application, block)| (application, block, blocks::members(block)))
                .collect();
            let wanted = serde_json::to_string(&wanted).unwrap_or_default();
            let delete = "delete from session_block where level = ?1 and (application, block) in \
                          (select value ->> 0, value ->> 1 from json_each(?2))";
            let from = match level {
                1 => {
                    "select s.application, ?1, s.number >> 6, count(*), max(iif(s.state = 0, s.head, 0)) \
                      from json_each(?2) wanted cross join session s on s.number >= wanted.value ->> '$[2][0]' \
                      and s.number <= wanted.value ->> '$[2][1]' where s.application = wanted.value ->> 0"
                }
                _ => {
                    "select b.application, ?1, b.block >> 6, sum(b.sessions), max(b.last_ended) \
                      from json_each(?2) wanted cross join session_block b on b.application = wanted.value ->> 0 \
                      and b.level = ?1 - 1 and b.block >= wanted.value ->> '$[2][0]' \
                      and b.block <= wanted.value ->> '$[2][1]'"
                }
            };
            let insert = format!(
                "insert into session_block (application, level, block, sessions, last_ended) {from} group by 1, 3"
            );
            for sql in [delete.to_owned(), insert] {
                let query = sqlx::query(AssertSqlSafe(sql)).bind(level).bind(&wanted);
                query.execute(&mut self.connection).await?;
            }
        }
        Ok(())
    }

    /// The applications of sessions, by number.
    pub(super) async fn applications_of(
        &mut self,
        numbers: &str,
    ) -> Result<Vec<(ApplicationNumber, SessionNumber)>, StoreError> {
        let sql = "select application, number from session where number in (select value from json_each(?))";
        let rows: Vec<(i64, i64)> = sqlx::query_as(sql).bind(numbers).fetch_all(&mut self.connection).await?;
        let typed = |(application, number)| (ApplicationNumber(application), SessionNumber(number));
        Ok(rows.into_iter().map(typed).collect())
    }
}

/// How sessions stood before, from after a number up to another, in the order of the log.
pub(super) async fn earlier_of(
    connection: &mut SqliteConnection,
    after: i64,
    upto: i64,
) -> Result<Vec<EarlierState>, StoreError> {
    let sql = "select * from session_earlier where session > ? and session <= ? order by session, position";
    let rows: Vec<SqliteRow> = sqlx::query(sql).bind(after).bind(upto).fetch_all(connection).await?;
    rows.iter().map(earlier_state).collect()
}

/// All blocks.
pub(super) async fn all_blocks(
    connection: &mut SqliteConnection,
) -> Result<std::collections::BTreeMap<blocks::Key, blocks::Block>, StoreError> {
    let sql = "select application, level, block, sessions, last_ended from session_block";
    let rows = sqlx::query(sql).fetch_all(connection).await?;
    let read = |row: &SqliteRow| {
        Ok(blocks::row((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?)))
    };
    rows.iter().map(read).collect()
}
