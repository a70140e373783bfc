//! Start-up: what lives in memory, as of one position of the log. What there may be millions of is handed over row by
//! row, so that nobody holds all of it twice.

use async_trait::async_trait;
use futures_util::future::join;
use futures_util::stream::{BoxStream, try_unfold};
use futures_util::{StreamExt, TryFutureExt};
use sessiond_core::Time;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::retention::ResourceTotals;
use sessiond_core::streams::{AnyStream, Registered};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection};

use super::session::{open_session, open_sessions};
use super::settling::{LogTail, Unsettled};
use super::store::SqliteStore;
use crate::row::{AccessToken, Loaded, LogHead, OpenSession, Principal};
use crate::seam::{Log, Start};
use crate::values::{access_token, application, item, organization, principal, revocation, service_account};
use crate::{StoreError, answers};

/// Open sessions read at a time.
const AT_ONCE: usize = 1_024;

#[async_trait]
impl Start for SqliteStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded {
            streams: self.streams().await?,
            key_secrets: self.all("select * from api_key_secret", answers::key_secret).await?,
            ..Loaded::default()
        };
        loaded.bars = self.bars(&loaded).await?;
        loaded.head = self.log_head(&loaded.streams).await?;
        let open =
            sqlx::query_scalar("select count(*) from session indexed by session_open where state <> 0");
        loaded.open_sessions = i64::unsigned_abs(open.fetch_one(&self.pool).await?);
        for row in sqlx::query("select application, count(*) as total from session group by application")
            .fetch_all(&self.pool)
            .await?
        {
            let total: i64 = row.try_get("total")?;
            let application = ApplicationNumber(row.try_get("application")?);
            loaded.session_totals.push((application, total.unsigned_abs()));
        }
        loaded.resource_totals = self.resource_totals().await?;
        Ok(loaded)
    }

    fn all_principals(&self) -> BoxStream<'_, Result<Principal, StoreError>> {
        self.each("select * from principal", principal)
    }

    fn all_access_tokens(&self) -> BoxStream<'_, Result<AccessToken, StoreError>> {
        self.each("select * from access_token", access_token)
    }

    fn open_sessions(&self) -> BoxStream<'_, Result<Vec<OpenSession>, StoreError>> {
        let begin = async {
            let mut connection = self.pool.acquire().await?;
            let LogTail { unsettled, .. } = self.tail(&mut connection).await?;
            let slice = slice_of_open(&mut connection, SessionNumber(0)).await?;
            Ok(try_unfold(Reading { connection, unsettled, slice }, go_on))
        };
        begin.try_flatten_stream().boxed()
    }
}

impl SqliteStore {
    /// A long reader: at start-up nobody writes.
    fn each<Value: Send + 'static>(
        &self,
        sql: &'static str,
        read: fn(&SqliteRow) -> Result<Value, StoreError>,
    ) -> BoxStream<'_, Result<Value, StoreError>> {
        sqlx::query(sql).fetch(&self.pool).map(move |row| read(&row?)).boxed()
    }

    async fn log_head(&self, streams: &[AnyStream]) -> Result<LogHead, StoreError> {
        let position = self.head().await?;
        let last = self.event(position).await?;
        let number = |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.pool);
        let mut head = LogHead {
            position,
            recorded_at: last.as_ref().map(|entry| entry.recorded.recorded_at).unwrap_or_default(),
            commit_hash: last.and_then(|entry| entry.commit_hash).unwrap_or_default(),
            last_session: SessionNumber(number("select coalesce(max(number), 0) from session").await?),
            last_revocation: number("select coalesce(max(number), 0) from revocation").await?,
            last_principal: number("select coalesce(max(number), 0) from principal").await?,
            ..LogHead::default()
        };
        let last = sqlx::query_scalar("select id from session where number = ?").bind(head.last_session.0);
        head.last_session_id = last.fetch_optional(&self.pool).await?.unwrap_or_default();
        head.after_letting_go(streams);
        Ok(head)
    }

    async fn resource_totals(&self) -> Result<Vec<(ApplicationNumber, String, ResourceTotals)>, StoreError> {
        let sql = "select application, resource, sum(sessions) as sessions, sum(bytes_out) as bytes_out from (\
                   select application, resource, count(*) as sessions, sum(bytes_out) as bytes_out from session \
                   indexed by session_ended_by_resource where state = 0 and resource is not null \
                   group by application, resource \
                   union all select application, resource, sessions, bytes_out from let_go_resource) \
                   group by application, resource";
        sqlx::query(sql).fetch_all(&self.pool).await?.iter().map(answers::resource_totals).collect()
    }

    async fn streams(&self) -> Result<Vec<AnyStream>, StoreError> {
        let any = |row: &SqliteRow| organization(row).map(Registered::any);
        let mut streams = self.all("select * from organization order by number", any).await?;
        let any = |row: &SqliteRow| application(row).map(Registered::any);
        streams.extend(self.all("select * from application order by number", any).await?);
        let any = |row: &SqliteRow| service_account(row).map(Registered::any);
        streams.extend(self.all("select * from service_account order by number", any).await?);
        let any = |row: &SqliteRow| revocation(row).map(Registered::any);
        let unfinished = "select * from revocation where ended_at is null order by number";
        streams.extend(self.all(unfinished, any).await?);
        streams.extend(self.all("select * from item order by kind, number", item).await?);
        Ok(streams)
    }

    /// When the bars that are in force were recorded, looked up one by one: there are few.
    async fn bars(&self, loaded: &Loaded) -> Result<Vec<(Position, Time)>, StoreError> {
        let bars = loaded.streams.iter().filter_map(|stream| match stream {
            AnyStream::Organization(organization) => Some(organization.valid_from),
            AnyStream::Application(application) => Some(application.valid_from),
            AnyStream::Principal(standing) => Some(standing.valid_from),
            _ => None,
        });
        let positions: Vec<_> = bars.filter(|position| *position > Position(0)).collect();
        let mut bars = Vec::new();
        for position in positions {
            if let Some(entry) = self.event(position).await? {
                bars.push((position, entry.recorded.recorded_at));
            }
        }
        Ok(bars)
    }

    async fn all<Value>(
        &self,
        sql: &'static str,
        read: fn(&SqliteRow) -> Result<Value, StoreError>,
    ) -> Result<Vec<Value>, StoreError> {
        sqlx::query(sql).fetch_all(&self.pool).await?.iter().map(read).collect()
    }
}

/// Open sessions being read.
struct Reading {
    connection: PoolConnection<Sqlite>,
    /// Figures that have not come into the rows yet.
    unsettled: Unsettled,
    /// What was read last.
    slice: Option<Slice>,
}

/// Open sessions, not taken apart yet.
struct Slice {
    /// A JSON array of them.
    sessions: String,
    last: SessionNumber,
}

/// Takes a slice apart, while SQLite reads the next in its own thread.
async fn go_on(reading: Reading) -> Result<Option<(Vec<OpenSession>, Reading)>, StoreError> {
    let Reading { mut connection, mut unsettled, slice } = reading;
    let Some(Slice { sessions, last }) = slice else { return Ok(None) };
    let taken_apart = async { open_sessions(&sessions) };
    let (next, sessions) = join(slice_of_open(&mut connection, last), taken_apart).await;
    let mut sessions = sessions?;
    for open in &mut sessions {
        if let Some(activity) = unsettled.remove(&open.row.session.number) {
            activity.onto(&mut open.row.session);
        }
    }
    Ok(Some((sessions, Reading { connection, unsettled, slice: next? })))
}

/// Open sessions after one of them, as many as are read at a time; none: there are no more.
async fn slice_of_open(
    connection: &mut SqliteConnection,
    after: SessionNumber,
) -> Result<Option<Slice>, StoreError> {
    let sql = format!(
        "select '[' || group_concat(one, ',') || ']', max(number) from (select s.number as number, {} as one \
         from session s indexed by session_open left join session_detail d using (number) \
         left join session_activity a using (number) left join session_token t on t.session = s.number \
         left join mcp_session m on m.session = s.number \
         where s.state <> 0 and s.number > ? order by s.number limit {AT_ONCE})",
        open_session()
    );
    let slice = sqlx::query_as::<_, (Option<String>, Option<i64>)>(AssertSqlSafe(sql)).bind(after.0);
    let (sessions, last) = slice.fetch_one(connection).await?;
    Ok(sessions.zip(last).map(|(sessions, last)| Slice { sessions, last: SessionNumber(last) }))
}
