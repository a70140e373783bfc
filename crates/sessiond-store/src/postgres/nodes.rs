//! Processes that work on the same database: who they are, until when each may let somebody in, and what they commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sessiond_core::ids::RevocationNumber;
use sqlx::postgres::{PgArguments, PgConnection, PgListener, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, Postgres, Row};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::head;
use super::link::{Durability, Link, SHORTLY, within};
use super::servers::Servers;
use crate::StoreError;
use crate::row::Commit;
use crate::seam::{Node, Nodes, Renewed, Standing};
use crate::values::{optional_time, time};

/// The database's time, in milliseconds, read once in a statement.
const CLOCK: &str =
    "with clock as materialized (select floor(extract(epoch from clock_timestamp()) * 1000)::bigint as now)";
/// The pause before listening is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a word takes at the most to come round, where the connection hears any.
const ROUND: Duration = Duration::from_secs(2);

/// The processes of one database.
pub(super) struct PgNodes {
    /// A connection each for what must not wait for the other: leases, the commits of others, and whoever waits for them.
    renewing: Line,
    following: Line,
    asking: Line,
    /// Where commits and acknowledgements are announced.
    channel: String,
    news: Arc<News>,
    listening: JoinHandle<()>,
}

/// What wakes those who wait for something to be committed or acknowledged.
#[derive(Default)]
struct News {
    told: Notify,
    hears: AtomicBool,
}

/// A connection that is made anew when it is lost, and used by one at a time.
struct Line {
    servers: Servers,
    link: Mutex<Option<Link>>,
}

impl Line {
    fn new(servers: &Servers) -> Self {
        Self { servers: servers.clone(), link: Mutex::default() }
    }

    /// Asks for rows. Whoever gives up meanwhile takes the connection with it.
    async fn rows(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, StoreError> {
        let mut kept = self.link.lock().await;
        let mut link = match kept.take() {
            Some(link) => link,
            None => Link::make(&self.servers, Durability::Everywhere).await?,
        };
        let rows = within(SHORTLY, query.fetch_all(&mut link.connection)).await?;
        *kept = Some(link);
        Ok(rows)
    }

    async fn done(&self, query: Query<'_, Postgres, PgArguments>) -> Result<(), StoreError> {
        self.rows(query).await.map(|_| ())
    }

    /// Asks for the one row that there must be.
    async fn one(&self, query: Query<'_, Postgres, PgArguments>) -> Result<PgRow, StoreError> {
        let row = self.rows(query).await?.into_iter().next();
        row.ok_or_else(|| StoreError::Failed("a row that must be there is not".to_owned()))
    }
}

impl PgNodes {
    /// Opens what nodes know of one another, and begins to listen.
    pub(super) async fn open(servers: &Servers) -> Result<Self, StoreError> {
        let link = Link::make(servers, Durability::Everywhere).await?;
        let channel = link.channel.clone();
        let asking = Line { servers: servers.clone(), link: Mutex::new(Some(link)) };
        let news = Arc::<News>::default();
        let listening = tokio::spawn(listen(servers.clone(), channel.clone(), news.clone()));
        let (renewing, following) = (Line::new(servers), Line::new(servers));
        Ok(Self { renewing, following, asking, channel, news, listening })
    }
}

impl Drop for PgNodes {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Listens for as long as the process lives; while it cannot, looking again and again has to do.
async fn listen(servers: Servers, channel: String, news: Arc<News>) {
    loop {
        let outcome = hear(&servers, &channel, &news).await;
        news.hears.store(false, Ordering::Relaxed);
        drop(outcome);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Listens until the connection is lost. A pooler that hands out another connection for each transaction lets nothing be
/// heard: a word of one's own that does not come round shows it.
async fn hear(servers: &Servers, channel: &str, news: &News) -> Result<(), StoreError> {
    let (options, mut other) = servers.primary().await?;
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(channel).await?;
    say(&mut other, channel).await?;
    let heard = tokio::time::timeout(ROUND, listener.recv()).await;
    other.close().await.ok();
    heard.map_err(|_| StoreError::Failed("nothing is heard on this connection".to_owned()))??;
    news.hears.store(true, Ordering::Relaxed);
    loop {
        // What was said while the connection was lost is not heard: then there may be news too.
        let told = listener.try_recv().await?;
        news.told.notify_waiters();
        if told.is_none() {
            return Ok(());
        }
    }
}

async fn say(connection: &mut PgConnection, channel: &str) -> Result<(), StoreError> {
    sqlx::query("select pg_notify($1, '')").bind(channel).execute(connection).await?;
    Ok(())
}

#[async_trait]
impl Nodes for PgNodes {
    async fn join(&self, id: Uuid, url: Option<&str>, version: &str) -> Result<i64, StoreError> {
        let sql = format!(
            "{CLOCK} insert into node (id, url, version, started_at, applied) \
             select $1, $2, $3, now, 0 from clock returning number"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(id).bind(url).bind(version);
        Ok(self.renewing.one(query).await?.try_get("number")?)
    }

    async fn renew(&self, node: i64, applied: i64, lease: Duration) -> Result<Renewed, StoreError> {
        let sql = format!(
            "{CLOCK}, before as (select number, lease_expires_at from node where number = $1 for update) \
             update node set applied = greatest(node.applied, $2), lease_expires_at = clock.now + $3 \
             from before, clock where node.number = before.number \
             returning coalesce(before.lease_expires_at > clock.now, false) as held"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(node).bind(applied).bind(milliseconds(lease));
        let rows = self.renewing.rows(query).await?;
        let row = rows.first().ok_or_else(|| {
            StoreError::Raced("this process is not on record as a node any more".to_owned())
        })?;
        let held = row.try_get("held")?;
        // Only now: whoever commits after this sees the lease, and asks this node.
        let row = self.renewing.one(sqlx::query("select commit_number from log_head")).await?;
        Ok(Renewed { held, head: row.try_get("commit_number")? })
    }

    async fn acknowledge(&self, node: i64, applied: i64) -> Result<(), StoreError> {
        let sql = "with done as (update node set applied = greatest(applied, $2) where number = $1) \
                   select pg_notify($3, '')";
        self.renewing.done(sqlx::query(sql).bind(node).bind(applied).bind(&self.channel)).await
    }

    async fn cut_off(&self, node: i64, streams: &[(RevocationNumber, u64)]) -> Result<(), StoreError> {
        let revocations: Vec<i64> = streams.iter().map(|(revocation, _)| revocation.0).collect();
        let counts: Vec<i64> =
            streams.iter().map(|(_, count)| i64::try_from(*count).unwrap_or(i64::MAX)).collect();
        let sql = format!(
            "{CLOCK} insert into cut_off (revocation, node, streams, noted_at) \
             select said.revocation, $1, said.streams, now from unnest($2, $3) as said (revocation, streams), clock \
             on conflict (revocation, node) do update set streams = excluded.streams"
        );
        self.renewing.done(sqlx::query(AssertSqlSafe(sql)).bind(node).bind(revocations).bind(counts)).await
    }

    async fn cut_off_elsewhere(&self, node: i64, revocation: RevocationNumber) -> Result<u64, StoreError> {
        let sql = "select coalesce(sum(streams), 0)::bigint as streams from cut_off where revocation = $1 and node <> $2";
        let row = self.asking.one(sqlx::query(sql).bind(revocation.0).bind(node)).await?;
        Ok(u64::try_from(row.try_get::<i64, _>("streams")?).unwrap_or_default())
    }

    async fn leave(&self, node: i64) -> Result<(), StoreError> {
        let sql = "with done as (update node set lease_expires_at = null where number = $1) \
                   select pg_notify($2, '')";
        self.renewing.done(sqlx::query(sql).bind(node).bind(&self.channel)).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let sql = format!(
            "{CLOCK} select node.*, coalesce(lease_expires_at > now, false) as leased from node, clock order by number"
        );
        let rows = self.asking.rows(sqlx::query(AssertSqlSafe(sql))).await?;
        rows.iter().map(node).collect()
    }

    async fn standing(&self, commit: i64, nodes: &[i64]) -> Result<Standing, StoreError> {
        // A row is removed only once its lease has run out.
        let sql = format!(
            "{CLOCK}, standing as (select coalesce(applied >= $1, false) as applied, \
             coalesce(lease_expires_at > now, false) as leased \
             from unnest($2) as wanted (number) left join node using (number), clock) \
             select count(*) filter (where applied) as acknowledged, \
             count(*) filter (where not applied and not leased) as expired, \
             count(*) filter (where not applied and leased) as missing from standing"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(commit).bind(nodes);
        let row = self.asking.one(query).await?;
        let count =
            |column| Ok::<_, StoreError>(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX));
        Ok(Standing {
            acknowledged: count("acknowledged")?,
            expired: count("expired")?,
            missing: count("missing")?,
        })
    }

    async fn commits_after(&self, commit: i64, limit: u32) -> Result<Vec<Commit>, StoreError> {
        // The head is there in any case, so that commits which are forgotten are not taken for none.
        let sql = "select h.commit_number as head_number, c.* from log_head h left join lateral (\
                   select * from log_commit where number > $1 order by number limit $2) c on true order by c.number";
        let rows = self.following.rows(sqlx::query(sql).bind(commit).bind(i64::from(limit))).await?;
        let row =
            rows.first().ok_or_else(|| StoreError::Failed("the head of the log is not there".to_owned()))?;
        let (head, first) = (row.try_get::<i64, _>("head_number")?, row.try_get::<Option<i64>, _>("number")?);
        match first {
            Some(first) if first == commit + 1 => rows.iter().map(head::commit).collect(),
            None if head <= commit => Ok(vec![]),
            _ => Err(head::forgotten(commit, head)),
        }
    }

    async fn news(&self, at_most: Duration) {
        tokio::time::timeout(at_most, self.news.told.notified()).await.ok();
    }

    fn hears(&self) -> bool {
        self.news.hears.load(Ordering::Relaxed)
    }

    async fn claim(&self, job: &str, node: i64, lease: Duration) -> Result<bool, StoreError> {
        let sql = format!(
            "{CLOCK} insert into job (name, node, expires_at) select $1, $2, now + $3 from clock \
             on conflict (name) do update set node = excluded.node, expires_at = excluded.expires_at \
             where job.node = excluded.node or job.expires_at <= (select now from clock) returning name"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(job).bind(node).bind(milliseconds(lease));
        Ok(!self.asking.rows(query).await?.is_empty())
    }

    async fn holder(&self, job: &str) -> Result<Option<i64>, StoreError> {
        let sql = format!("{CLOCK} select node from job, clock where name = $1 and expires_at > now");
        let rows = self.asking.rows(sqlx::query(AssertSqlSafe(sql)).bind(job)).await?;
        Ok(rows.first().map(|row| row.try_get("node")).transpose()?)
    }

    async fn forget(&self, older_than: Duration) -> Result<(), StoreError> {
        let older_than = milliseconds(older_than);
        let sql = format!(
            "{CLOCK} delete from log_commit using clock where committed_at < now - $1 \
             and number <= (select min(applied) from node where lease_expires_at > now)"
        );
        self.asking.done(sqlx::query(AssertSqlSafe(sql)).bind(older_than)).await?;
        let sql = format!("{CLOCK} delete from cut_off using clock where noted_at < now - $1");
        self.asking.done(sqlx::query(AssertSqlSafe(sql)).bind(older_than)).await?;
        let sql = format!("{CLOCK} delete from node using clock where lease_expires_at < now - $1");
        self.asking.done(sqlx::query(AssertSqlSafe(sql)).bind(older_than)).await
    }
}

fn node(row: &PgRow) -> Result<Node, StoreError> {
    Ok(Node {
        number: row.try_get("number")?,
        id: row.try_get("id")?,
        url: row.try_get("url")?,
        version: row.try_get("version")?,
        started_at: time(row.try_get("started_at")?),
        applied: row.try_get("applied")?,
        lease_expires_at: optional_time(row, "lease_expires_at")?,
        leased: row.try_get("leased")?,
    })
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
