//! The connections that read.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use sessiond_core::ids::SessionNumber;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow, Postgres};
use sqlx::{AssertSqlSafe, Encode, Transaction, Type};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::close;
use super::servers::{CONNECTING, Servers, Use, is_primary, place, prepare};
use super::upkeep::Upkeep;
use super::verify::verify;
use crate::StoreError;
use crate::check::{Fault, Progress, Report};
use crate::recounting;
use crate::seam::Store;
use crate::values::count;

/// Connections that read, at most.
const CONNECTIONS: u32 = 8;
/// Whoever gets none for so long is told that the database failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection that nobody has used for so long is asked whether it is still what it was.
const UNUSED: Duration = Duration::from_secs(1);
/// The longest text in bytes of those that others choose at any length and that are found by an index all the same: an entry
/// of an index can have no more than a third of a page.
pub(super) const LONGEST_INDEXED: usize = 1_000;
/// Rows read at a time, of what there may be millions of.
const PAGE: i64 = 4_096;

/// A few connections that only read.
pub(super) struct PgStore {
    pub(super) pool: PgPool,
    /// None where it does not matter which of them is read.
    servers: Option<Servers>,
    upkeep: Upkeep,
    primary_since: PrimarySince,
    /// The state as of which a start reads, for as long as it does.
    pub(super) starting: Starting,
}

/// Since when the server that is connected to is known as the primary. What is connected for longer is connected to another.
type PrimarySince = Arc<RwLock<Instant>>;

/// A state of the database that others may read too, by its name, while the transaction is open.
pub(super) type Starting = Arc<Mutex<Option<(Transaction<'static, Postgres>, String)>>>;

impl PgStore {
    /// Opens readers on a database that is in this release's form, at the server that is its primary now.
    pub(super) fn open(servers: Servers, primary: PgConnectOptions) -> Self {
        let primary_since = since_now();
        let pool = pool(Use::Primary, &primary_since).connect_lazy_with(primary);
        let (servers, starting) = (Some(servers), Starting::default());
        Self { pool, servers, upkeep: Upkeep::new(), primary_since, starting }
    }

    /// Opens readers that change nothing, also on a standby.
    pub(super) async fn open_to_look(servers: Servers) -> Result<Self, StoreError> {
        let (options, connection) = servers.any().await?;
        close(connection).await;
        let primary_since = since_now();
        let pool = pool(Use::Look, &primary_since).connect_lazy_with(options);
        let starting = Starting::default();
        Ok(Self { pool, servers: None, upkeep: Upkeep::new(), primary_since, starting })
    }

    /// One state of the database: that as of which a start reads, while there is one, or else the newest.
    pub(super) async fn snapshot(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        snapshot(&self.pool, &self.starting).await
    }

    /// Connects to another server from here on, where the one that is connected to is the primary no more.
    pub(super) async fn follow_the_primary(&self) -> Result<String, StoreError> {
        let Some(servers) = &self.servers else { return Ok("nothing to do".to_owned()) };
        if let Ok(Ok(mut connection)) = timeout(CONNECTING, self.pool.acquire()).await
            && is_primary(&mut connection).await.unwrap_or_default()
        {
            return Ok("connected to the primary".to_owned());
        }
        let (options, connection) = servers.primary().await?;
        close(connection).await;
        let found = format!("the primary is {}", place(&options));
        self.pool.set_connect_options(options);
        if let Ok(mut since) = self.primary_since.write() {
            *since = Instant::now();
        }
        Ok(found)
    }
}

#[async_trait]
impl Store for PgStore {
    async fn maintain(&self) -> Result<String, StoreError> {
        let primary = self.follow_the_primary().await?;
        let Some(servers) = &self.servers else { return Ok(primary) };
        Ok(format!("{primary}; {}", self.upkeep.vacuum(&self.pool, servers).await?))
    }

    async fn sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        // Journals lie in the same database, and say for themselves what they need.
        let sql = "select pg_database_size(current_database()) \
                   - coalesce(pg_total_relation_size(to_regclass('block')), 0) \
                   - coalesce(pg_total_relation_size(to_regclass('tail')), 0) as database";
        let row = sqlx::query(sql).fetch_one(&self.pool).await?;
        Ok(vec![("database", count(&row, "database")?)])
    }

    async fn verify(&self, progress: Progress<'_>) -> Result<Report, Fault> {
        let report = verify(&self.pool, progress).await?;
        recounting::compare(self).await?;
        Ok(report)
    }

    async fn close(&self) {
        // A start that came to no end still has a connection.
        self.starting.lock().await.take();
        self.pool.close().await;
    }
}

fn since_now() -> PrimarySince {
    Arc::new(RwLock::new(Instant::now()))
}

/// Connections that are asked what they are before they are used, and again when they have not been used for a while. Of those
/// to a server that is the primary no more none is asked: it might be gone without a word.
fn pool(purpose: Use, primary_since: &PrimarySince) -> PgPoolOptions {
    let primary_since = primary_since.clone();
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .after_connect(move |connection, _| Box::pin(prepare(connection, purpose)))
        .before_acquire(move |connection, known| {
            let since = primary_since.read().map_or(known.age, |since| since.elapsed());
            Box::pin(async move {
                match purpose {
                    _ if known.age > since => Ok(false),
                    Use::Primary if known.idle_for > UNUSED => is_primary(connection).await,
                    _ => Ok(true),
                }
            })
        })
}

async fn snapshot(pool: &PgPool, starting: &Starting) -> Result<Transaction<'static, Postgres>, StoreError> {
    let mut snapshot = pool.begin_with("begin isolation level repeatable read read only").await?;
    let name = starting.lock().await.as_ref().map(|(_, name)| name.clone());
    if let Some(name) = name {
        let sql = format!("set transaction snapshot '{name}'");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut *snapshot).await?;
    }
    // What is read may be large, and taking it apart may take a while.
    let patient = "select set_config('statement_timeout', '0', true), \
                   set_config('idle_in_transaction_session_timeout', '0', true)";
    sqlx::query(patient).execute(&mut *snapshot).await?;
    Ok(snapshot)
}

/// A page of a table's rows after a key, for as long as there are any.
pub(super) fn pages<'store, Key, Value>(
    store: &'store PgStore,
    sql: &'static str,
    before_all: Key,
    read: fn(&PgRow) -> Result<(Key, Value), StoreError>,
) -> BoxStream<'store, Result<Value, StoreError>>
where
    Key: for<'query> Encode<'query, Postgres> + Type<Postgres> + Copy + Send + Sync + 'static,
    Value: Send + 'static,
{
    let next = move |after: Option<Key>| async move {
        let Some(after) = after else { return Ok(None) };
        let mut snapshot = store.snapshot().await?;
        let rows = sqlx::query(sql).bind(after).bind(PAGE).fetch_all(&mut *snapshot).await?;
        let values = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let last = values.last().map(|(key, _)| *key).filter(|_| values.len() as i64 == PAGE);
        let values = values.into_iter().map(|(_, value)| Ok(value));
        Ok::<_, StoreError>(Some((stream::iter(values), last)))
    };
    stream::try_unfold(Some(before_all), next).try_flatten().boxed()
}

/// As PostgreSQL takes a list of them.
pub(super) fn numbers(sessions: &[SessionNumber]) -> Vec<i64> {
    sessions.iter().map(|session| session.0).collect()
}
