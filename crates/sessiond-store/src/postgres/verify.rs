//! Checks the database: what is stored, byte for byte, against what it should be.

use std::collections::{BTreeMap, VecDeque};

use futures_util::TryStreamExt;
use sessiond_core::chain::Header;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sqlx::postgres::{PgConnection, PgPool, PgRow, Postgres};
use sqlx::{AssertSqlSafe, Column, Row, Transaction, TypeInfo, ValueRef};
use uuid::Uuid;

use super::head;
use super::log::head as log_end;
use super::{past, search};
use crate::check::{
    Difference, Fault, Gap, LogCheck, PAGE, Page, Progress, Report, Rows, StoredCut, StoredEvent, Table,
    Value,
};
use crate::row::LogHead;
use crate::values::Stored;
use crate::{Detail, StoreError};

/// Rows compared at a time.
const ROWS: i64 = 2_000;

/// Activity comes into its rows with its events: however young it is, it is there.
const SETTLED: Position = Position(i64::MAX);

/// Walks the log and the rows, a snapshot a page, and lastly looks at what PostgreSQL says of its own pages. Each page of rows
/// is compared with the log as it stood when that page was read.
pub(super) async fn verify(pool: &PgPool, progress: Progress<'_>) -> Result<Report, Fault> {
    let head = log_end(pool).await?;
    let mut log = LogCheck::new(SETTLED, head);
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
    snapshot.compare_head(&log).await?;
    progress(log.position().unsigned_abs(), log.position().unsigned_abs());
    snapshot.whole().await?;
    Ok(log.report())
}

/// The database as it stands at one moment. Short-lived: while it is held, nothing that is deleted can be vacuumed.
struct Snapshot {
    transaction: Transaction<'static, Postgres>,
}

async fn snapshot(pool: &PgPool) -> Result<Snapshot, StoreError> {
    let transaction = pool.begin_with("begin isolation level repeatable read read only").await?;
    Ok(Snapshot { transaction })
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
            settled: SETTLED.0,
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
                       on e.position = s.connected_head where s.number > $1 and s.number <= $2";
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
        let read = |row: &PgRow| Ok(((row.try_get(0)?, row.try_get(1)?), (row.try_get(2)?, row.try_get(3)?)));
        rows.iter().map(read).collect()
    }

    async fn select(&mut self, table: &str, after: i64, upto: i64, limit: i64) -> Result<Rows, StoreError> {
        let sql = format!(
            "select * from {table} as one where number > $1 and number <= $2 order by number limit {limit}"
        );
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

    /// That whoever writes next goes on from where the log says that it stands.
    async fn compare_head(&mut self, log: &LogCheck) -> Result<(), Fault> {
        let expected = head::made(&mut self.transaction).await?;
        let row = sqlx::query("select * from log_head").fetch_optional(&mut *self.transaction).await?;
        let found = row.map(|row| head::log_head(&row)).transpose()?;
        let report = log.report();
        let expected = LogHead { position: report.position, commit_hash: report.commit_hash, ..expected };
        if found == Some(expected) {
            return Ok(());
        }
        Err(Fault::Difference(Difference {
            place: "row of log_head".to_owned(),
            what: "where the log stands".to_owned(),
            expected: format!("{expected:?}"),
            found: found.map_or_else(|| "no row".to_owned(), |found| format!("{found:?}")),
        }))
    }

    /// That PostgreSQL has found no page that is not as it was written, where it keeps checksums of them.
    async fn whole(&mut self) -> Result<(), Fault> {
        let sql = "select coalesce(sum(checksum_failures), 0)::bigint from pg_stat_database \
                   where datname = current_database()";
        let failures: i64 = sqlx::query_scalar(sql).fetch_one(&mut *self.transaction).await?;
        if failures == 0 {
            return Ok(());
        }
        Err(Fault::Difference(Difference {
            place: "the database's files".to_owned(),
            what: "PostgreSQL's checksum_failures".to_owned(),
            expected: "0".to_owned(),
            found: failures.to_string(),
        }))
    }
}

fn value(row: &PgRow, index: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info();
    Ok(match kind.name() {
        "INT8" => Value::Integer(row.try_get(index)?),
        "BOOL" => Value::Integer(i64::from(row.try_get::<bool, _>(index)?)),
        "UUID" => Value::from(row.try_get::<Uuid, _>(index)?),
        "TEXT" => Value::Text(row.try_get(index)?),
        _ => Value::Blob(row.try_get_unchecked(index)?),
    })
}

async fn gaps(connection: &mut PgConnection, after: i64) -> Result<VecDeque<Gap>, StoreError> {
    // Stretches do not overlap: what ends beyond a position begins there or later, but for one at most.
    let sql = format!(
        "select first, last, hash, commit_hash from gone where first >= coalesce((select first from gone \
         where first <= $1 order by first desc limit 1), $1) and last > $1 order by first limit {PAGE}"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(after).fetch_all(connection).await?;
    let gap = |row: &PgRow| {
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
    connection: &mut PgConnection,
    log: &mut LogCheck,
    mut each: impl FnMut((SessionNumber, ApplicationNumber, Detail)),
) -> Result<u32, Fault> {
    let mut gaps = gaps(connection, log.position()).await?;
    let more = gaps.len() >= PAGE as usize;
    // Where not all gaps were read, events are read no further than they reach.
    let reach = gaps.back().filter(|_| more).map_or(i64::MAX, |gap| gap.last);
    let sql = format!(
        "select e.*, c.previous as cut_previous, c.hash as cut_hash from event e \
         left join cut c on c.position = e.position \
         where e.position > $1 and e.position <= $2 order by e.position limit {PAGE}"
    );
    let mut rows = sqlx::query(AssertSqlSafe(sql)).bind(log.position()).bind(reach).fetch(connection);
    let mut count = 0;
    while let Some(row) = rows.try_next().await? {
        let actor = row.optional_id("actor_id")?;
        let stored = stored(&row, actor.as_ref())?;
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

fn stored<'row>(row: &'row PgRow, actor: Option<&'row Uuid>) -> Result<StoredEvent<'row>, sqlx::Error> {
    Ok(StoredEvent {
        header: Header {
            position: row.integer("position")?,
            stream_kind: row.integer("stream_kind")?,
            stream_number: row.integer("stream_number")?,
            version: row.integer("version")?,
            previous_position: row.integer("previous_position")?,
            occurred_at: row.integer("occurred_at")?,
            recorded_at: row.integer("recorded_at")?,
            name: row.text("type")?,
            type_version: row.integer("type_version")?,
            organization: row.integer("organization")?,
            application: row.optional_integer("application")?,
            actor_kind: row.integer("actor_kind")?,
            actor_id: actor.map(|id| id.as_bytes().as_slice()),
            revocation: row.optional_integer("revocation")?,
            request_id: row.optional_text("request_id")?,
            traceparent: row.optional_text("traceparent")?,
        },
        body: row.optional_text("body")?,
        body_digest: row.optional_bytes("body_digest")?,
        personal: row.optional_text("personal")?,
        hash: row.bytes("hash")?,
        commit_hash: row.optional_bytes("commit_hash")?,
        cut: match row.optional_integer("cut_previous")? {
            Some(previous) => Some(StoredCut { previous, hash: row.bytes("cut_hash")? }),
            None => None,
        },
    })
}
