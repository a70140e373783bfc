//! Checks the database: what is stored, byte for byte, against what it should be.

use std::collections::{BTreeMap, VecDeque};

use futures_util::TryStreamExt;
use sessiond_core::chain::Header;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Column, Row, Sqlite, SqliteConnection, Transaction, TypeInfo, ValueRef};

use super::{log, past, search};
use crate::check::{
    Difference, Fault, Gap, LogCheck, PAGE, Page, Progress, Report, Rows, StoredCut, StoredEvent, Table,
    Value,
};
use crate::{Detail, StoreError};

/// Rows compared at a time.
const ROWS: i64 = 2_000;

/// Walks the log and the rows, a snapshot a page, and lastly has SQLite check the file, in one. Each page of rows is compared
/// with the log as it stood when that page was read. One thing cannot be compared: the totals in a lifecycle row that is
/// older than a hot row, once the activity they came from was pruned.
pub(super) async fn verify(pool: &SqlitePool, progress: Progress<'_>) -> Result<Report, Fault> {
    let head = log::head(pool).await?;
    let mut log = LogCheck::new(log::mark(pool, "settled").await?, head);
    let total = head.0;
    while snapshot(pool).await?.follow(&mut log).await? == PAGE {
        progress(log.position().unsigned_abs(), total.max(log.position()).unsigned_abs());
    }
    for table in Table::ALL {
        let mut after = Some(i64::MIN);
        while let Some(from) = after {
            let mut snapshot = snapshot(pool).await?;
            while snapshot.follow(&mut log).await? == PAGE {}
            log.complete()?;
            let page = snapshot.rows(table, from).await?;
            log.compare(table, from, &page)?;
            after = page.last;
        }
    }
    let mut snapshot = snapshot(pool).await?;
    while snapshot.follow(&mut log).await? == PAGE {}
    log.complete()?;
    log.compare_resources(&snapshot.resources().await?)?;
    log.compare_blocks(&past::all_blocks(&mut snapshot.transaction).await?)?;
    drop(snapshot);
    progress(log.position().unsigned_abs(), log.position().unsigned_abs());
    whole(&mut *pool.acquire().await?).await?;
    Ok(log.report())
}

/// That SQLite finds nothing wrong with tables and indexes: the log can be right while a look-up by a damaged index is not.
pub(super) async fn whole(connection: &mut SqliteConnection) -> Result<(), Fault> {
    let found: String = sqlx::query_scalar("pragma integrity_check(1)").fetch_one(connection).await?;
    if found == "ok" {
        return Ok(());
    }
    Err(Fault::Difference(Difference {
        place: "the database file".to_owned(),
        what: "SQLite's integrity_check".to_owned(),
        expected: "ok".to_owned(),
        found,
    }))
}

/// The database as it stands at one moment. Short-lived: while it is held, the WAL cannot be emptied.
struct Snapshot {
    transaction: Transaction<'static, Sqlite>,
}

async fn snapshot(pool: &SqlitePool) -> Result<Snapshot, StoreError> {
    Ok(Snapshot { transaction: pool.begin().await? })
}

impl Snapshot {
    /// Reads the log on from where `log` stands, at most a page; returns how many events that were.
    async fn follow(&mut self, log: &mut LogCheck) -> Result<u32, Fault> {
        follow(&mut self.transaction, log, |_| ()).await
    }

    /// A page of a table after a number.
    async fn rows(&mut self, table: Table, after: i64) -> Result<Page, StoreError> {
        let mut page = Page {
            rows: self.select(&table.source(), after, i64::MAX, ROWS).await?,
            settled: log::mark(&mut *self.transaction, "settled").await?.0,
            ..Page::default()
        };
        if page.rows.by_number.len() as i64 == ROWS {
            page.last = page.rows.by_number.keys().next_back().copied();
        }
        if table == Table::Session {
            let upto = page.last.unwrap_or(i64::MAX);
            // Without a limit: rows of sessions that there are not would be found by it, too.
            page.hot = self.select("session_activity", after, upto, i64::MAX).await?;
            page.details = self.select("session_detail", after, upto, i64::MAX).await?;
            page.earlier = past::earlier_of(&mut self.transaction, after, upto).await?;
            page.words = search::words_of(&mut self.transaction, after, upto).await?;
            let sql = "select s.number, e.body, e.personal from session s join event e \
                       on e.position = s.connected_head where s.number > ? and s.number <= ?";
            let mut rows = sqlx::query(sql).bind(after).bind(upto).fetch(&mut *self.transaction);
            while let Some(row) = rows.try_next().await? {
                page.connected.insert(row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?));
            }
        }
        Ok(page)
    }

    /// What the sessions that were let go came to, by application and resource.
    async fn resources(&mut self) -> Result<BTreeMap<(i64, String), (i64, i64)>, StoreError> {
        let sql = "select application, resource, sessions, bytes_out from let_go_resource";
        let rows = sqlx::query(sql).fetch_all(&mut *self.transaction).await?;
        let read =
            |row: &SqliteRow| Ok(((row.try_get(0)?, row.try_get(1)?), (row.try_get(2)?, row.try_get(3)?)));
        rows.iter().map(read).collect()
    }

    async fn select(&mut self, table: &str, after: i64, upto: i64, limit: i64) -> Result<Rows, StoreError> {
        let sql =
            format!("select * from {table} where number > ? and number <= ? order by number limit {limit}");
        let mut page = Rows::default();
        let query = sqlx::query(AssertSqlSafe(sql)).bind(after).bind(upto);
        let mut rows = query.fetch(&mut *self.transaction);
        while let Some(row) = rows.try_next().await? {
            if page.columns.is_empty() {
                page.columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
            }
            let values = (0..row.len()).map(|index| value(&row, index)).collect::<Result<Vec<_>, _>>()?;
            page.by_number.insert(row.try_get("number")?, values);
        }
        Ok(page)
    }
}

fn value(row: &SqliteRow, index: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info();
    Ok(match kind.name() {
        "INTEGER" => Value::Integer(row.try_get_unchecked(index)?),
        // Damaged text need not be UTF-8.
        "TEXT" => match row.try_get_unchecked::<String, _>(index) {
            Ok(text) => Value::Text(text),
            Err(_) => Value::Blob(row.try_get_unchecked(index)?),
        },
        _ => Value::Blob(row.try_get_unchecked(index)?),
    })
}

/// Columns of an event in the order in which [`stored`] takes them.
const EVENT: &str = "e.position, stream_kind, stream_number, version, previous_position, occurred_at, recorded_at, \
                     type, type_version, organization, application, actor_kind, actor_id, revocation, request_id, \
                     traceparent, body, body_digest, personal, e.hash, commit_hash, c.previous, c.hash";

async fn gaps(connection: &mut SqliteConnection, after: i64) -> Result<VecDeque<Gap>, StoreError> {
    // Stretches do not overlap: what ends beyond a position begins there or later, but for one at most.
    let sql = format!(
        "select first, last, hash, commit_hash from gone where first >= coalesce((select first from gone \
         where first <= ?1 order by first desc limit 1), ?1) and last > ?1 order by first limit {PAGE}"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(after).fetch_all(connection).await?;
    let gap = |row: &SqliteRow| {
        Ok(Gap {
            first: row.try_get(0)?,
            last: row.try_get(1)?,
            hash: row.try_get(2)?,
            commit_hash: row.try_get(3)?,
        })
    };
    rows.iter().map(gap).collect()
}

/// Reads the log on from where `log` stands, at most a page; returns how many events that were, and hands over the
/// rows of details that they make.
pub(super) async fn follow(
    connection: &mut SqliteConnection,
    log: &mut LogCheck,
    mut each: impl FnMut((SessionNumber, ApplicationNumber, Detail)),
) -> Result<u32, Fault> {
    let mut gaps = gaps(connection, log.position()).await?;
    let more = gaps.len() >= PAGE as usize;
    // Where not all gaps were read, events are read no further than they reach.
    let reach = gaps.back().filter(|_| more).map_or(i64::MAX, |gap| gap.last);
    let sql = format!(
        "select {EVENT} from event e left join cut c on c.position = e.position \
         where e.position > ? and e.position <= ? order by e.position limit {PAGE}"
    );
    let mut rows = sqlx::query(AssertSqlSafe(sql)).bind(log.position()).bind(reach).fetch(connection);
    let mut count = 0;
    while let Some(row) = rows.try_next().await? {
        let stored = stored(&row).map_err(|error| match error {
            sqlx::Error::ColumnDecode { index, source } => unreadable(&row, &index, &source.to_string()),
            error => Fault::from(error),
        })?;
        while let Some(gap) = gaps.pop_front_if(|gap| gap.first < stored.header.position) {
            log.take_gap(&gap.stored())?;
        }
        if let Some(detail) = log.take(&stored)? {
            each(detail);
        }
        count += 1;
    }
    if count < PAGE {
        for gap in gaps {
            log.take_gap(&gap.stored())?;
        }
    }
    Ok(if more { PAGE } else { count })
}

fn stored(row: &SqliteRow) -> Result<StoredEvent<'_>, sqlx::Error> {
    Ok(StoredEvent {
        header: Header {
            position: row.try_get(0)?,
            stream_kind: row.try_get(1)?,
            stream_number: row.try_get(2)?,
            version: row.try_get(3)?,
            previous_position: row.try_get(4)?,
            occurred_at: row.try_get(5)?,
            recorded_at: row.try_get(6)?,
            name: row.try_get(7)?,
            type_version: row.try_get(8)?,
            organization: row.try_get(9)?,
            application: row.try_get(10)?,
            actor_kind: row.try_get(11)?,
            actor_id: row.try_get(12)?,
            revocation: row.try_get(13)?,
            request_id: row.try_get(14)?,
            traceparent: row.try_get(15)?,
        },
        body: row.try_get(16)?,
        body_digest: row.try_get(17)?,
        personal: row.try_get(18)?,
        hash: row.try_get(19)?,
        commit_hash: row.try_get(20)?,
        cut: match row.try_get::<Option<i64>, _>(21)? {
            Some(previous) => Some(StoredCut { previous, hash: row.try_get(22)? }),
            None => None,
        },
    })
}

fn unreadable(row: &SqliteRow, index: &str, why: &str) -> Fault {
    let index: usize = index.trim_matches('"').parse().unwrap_or(usize::MAX);
    let column = EVENT.split(", ").nth(index).unwrap_or("column").trim();
    Fault::Difference(Difference {
        place: format!("position {}", row.try_get::<i64, _>(0).unwrap_or(0)),
        what: column.to_owned(),
        expected: "what can be read".to_owned(),
        found: why.to_owned(),
    })
}
