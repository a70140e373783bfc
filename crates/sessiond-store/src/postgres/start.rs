//! Start-up: what lives in memory, as of one state of the database, because others may write meanwhile: whatever they commit
//! from then on is followed. What there may be millions of is handed over in pages, so that nobody holds all of it twice.

use async_trait::async_trait;
use futures_util::future::join;
use futures_util::stream::{BoxStream, try_unfold};
use futures_util::{StreamExt, TryFutureExt};
use sessiond_core::Time;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::retention::ResourceTotals;
use sessiond_core::streams::{AnyStream, Registered};
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::{AssertSqlSafe, Row, Transaction};

use super::head;
use super::log::places;
use super::session::{OPEN_SESSION, WHOLE_SESSION, open_session};
use super::store::{PgStore, Starting, pages};
use crate::row::{AccessToken, Loaded, LogHead, OpenSession, Principal};
use crate::seam::Start;
use crate::values::{
    Stored, access_token, application, count, item, organization, principal, revocation, service_account,
    time,
};
use crate::{StoreError, answers};

/// Open sessions read at a time.
const AT_ONCE: usize = 1_024;

#[async_trait]
impl Start for PgStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        self.starting.lock().await.take();
        let mut snapshot = self.snapshot().await?;
        // What is counted may be large: whoever can helps.
        let sql = "set local max_parallel_workers_per_gather to default";
        sqlx::raw_sql(sql).execute(&mut *snapshot).await?;
        let loaded = load(&mut snapshot).await?;
        let name: String =
            sqlx::query_scalar("select pg_export_snapshot()").fetch_one(&mut *snapshot).await?;
        // Until the last of the start has been read.
        self.starting.lock().await.replace((snapshot, name));
        Ok(loaded)
    }

    fn all_principals(&self) -> BoxStream<'_, Result<Principal, StoreError>> {
        let sql = "select * from principal where number > $1 order by number limit $2";
        pages(self, sql, i64::MIN, |row| Ok((row.integer("number")?, principal(row)?)))
    }

    fn all_access_tokens(&self) -> BoxStream<'_, Result<AccessToken, StoreError>> {
        let sql = "select * from access_token where id > $1 order by id limit $2";
        pages(self, sql, uuid::Uuid::nil(), |row| Ok((row.id("id")?, access_token(row)?)))
    }

    fn open_sessions(&self) -> BoxStream<'_, Result<Vec<OpenSession>, StoreError>> {
        let begin = async {
            let mut snapshot = self.snapshot().await?;
            let rows = page_of_open(&mut snapshot, SessionNumber(0)).await?;
            let starting = self.starting.clone();
            Ok(try_unfold(Reading { snapshot, rows, starting }, go_on))
        };
        begin.try_flatten_stream().boxed()
    }
}

async fn load(connection: &mut PgConnection) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded {
        streams: streams(connection).await?,
        key_secrets: all(connection, "select * from api_key_secret", answers::key_secret).await?,
        ..Loaded::default()
    };
    loaded.bars = bars(connection, &loaded.streams).await?;
    (loaded.head, loaded.commit) = log_head(connection).await?;
    let open = sqlx::query_scalar("select count(*) from session where state <> 0");
    loaded.open_sessions = i64::unsigned_abs(open.fetch_one(&mut *connection).await?);
    let sql = "select application, count(*) as total from session group by application";
    loaded.session_totals = all(connection, sql, |row| {
        Ok((ApplicationNumber(row.integer("application")?), count(row, "total")?))
    })
    .await?;
    loaded.resource_totals = resource_totals(connection).await?;
    Ok(loaded)
}

/// Where the log stands, and how many commits there were: whoever writes keeps that in a row.
async fn log_head(connection: &mut PgConnection) -> Result<(LogHead, i64), StoreError> {
    let row = sqlx::query("select * from log_head").fetch_one(connection).await?;
    Ok((head::log_head(&row)?, row.integer("commit_number")?))
}

async fn resource_totals(
    connection: &mut PgConnection,
) -> Result<Vec<(ApplicationNumber, String, ResourceTotals)>, StoreError> {
    // A sum is of a wider type, and no count goes beyond what is kept of one.
    let sql = "select application, resource, sum(sessions)::bigint as sessions, \
               least(sum(bytes_out), 9223372036854775807)::bigint as bytes_out from (\
               select application, resource, count(*) as sessions, sum(bytes_out) as bytes_out from session \
               where state = 0 and resource is not null group by application, resource \
               union all select application, resource, sessions, bytes_out from let_go_resource) as each \
               group by application, resource";
    all(connection, sql, answers::resource_totals).await
}

async fn streams(connection: &mut PgConnection) -> Result<Vec<AnyStream>, StoreError> {
    let any = |row: &PgRow| organization(row).map(Registered::any);
    let mut streams = all(connection, "select * from organization order by number", any).await?;
    let any = |row: &PgRow| application(row).map(Registered::any);
    streams.extend(all(connection, "select * from application order by number", any).await?);
    let any = |row: &PgRow| service_account(row).map(Registered::any);
    streams.extend(all(connection, "select * from service_account order by number", any).await?);
    let any = |row: &PgRow| revocation(row).map(Registered::any);
    let unfinished = "select * from revocation where ended_at is null order by number";
    streams.extend(all(connection, unfinished, any).await?);
    streams.extend(all(connection, "select * from item order by kind, number", item).await?);
    Ok(streams)
}

/// When the bars that are in force were recorded.
async fn bars(
    connection: &mut PgConnection,
    streams: &[AnyStream],
) -> Result<Vec<(Position, Time)>, StoreError> {
    let bars = streams.iter().filter_map(|stream| match stream {
        AnyStream::Organization(organization) => Some(organization.valid_from),
        AnyStream::Application(application) => Some(application.valid_from),
        AnyStream::Principal(standing) => Some(standing.valid_from),
        _ => None,
    });
    let positions: Vec<_> = bars.filter(|position| *position > Position(0)).collect();
    let sql = "select position, recorded_at from event where position = any($1)";
    let rows = sqlx::query(sql).bind(places(&positions)).fetch_all(connection).await?;
    let read = |row: &PgRow| Ok((Position(row.integer("position")?), time(row.integer("recorded_at")?)));
    rows.iter().map(read).collect()
}

async fn all<Value>(
    connection: &mut PgConnection,
    sql: &'static str,
    read: fn(&PgRow) -> Result<Value, StoreError>,
) -> Result<Vec<Value>, StoreError> {
    sqlx::query(sql).fetch_all(connection).await?.iter().map(read).collect()
}

/// Open sessions being read.
struct Reading {
    snapshot: Transaction<'static, Postgres>,
    /// What was read last, and not taken apart yet.
    rows: Vec<PgRow>,
    /// Ends with these, which are read last.
    starting: Starting,
}

/// Takes a page apart, while the server reads the next.
async fn go_on(reading: Reading) -> Result<Option<(Vec<OpenSession>, Reading)>, StoreError> {
    let Reading { mut snapshot, rows, starting } = reading;
    let Some(last) = rows.last() else {
        starting.lock().await.take();
        return Ok(None);
    };
    let last = SessionNumber(last.try_get(0)?);
    let taken_apart = async { rows.iter().map(open_session).collect::<Result<Vec<_>, _>>() };
    let (next, sessions) = join(page_of_open(&mut snapshot, last), taken_apart).await;
    Ok(Some((sessions?, Reading { snapshot, rows: next?, starting })))
}

/// Open sessions after one of them, as many as are read at a time; none: there are no more.
async fn page_of_open(connection: &mut PgConnection, after: SessionNumber) -> Result<Vec<PgRow>, StoreError> {
    let sql = format!(
        "select {WHOLE_SESSION}, {OPEN_SESSION} from (\
         select * from session where state <> 0 and number > $1 order by number limit {AT_ONCE}) s \
         left join session_detail d on d.number = s.number \
         left join session_activity a on a.number = s.number left join session_token t on t.session = s.number \
         left join mcp_session m on m.session = s.number order by s.number"
    );
    Ok(sqlx::query(AssertSqlSafe(sql)).bind(after.0).fetch_all(connection).await?)
}
