//! A PostgreSQL with a synchronous standby, of a test's own: so that the one can be killed and the other promoted. Both end with
//! the process, however that ends.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

use super::postgres::run;
use super::proxy::{Proxy, Way};

/// How long starting and promoting may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs both servers until standard input ends. What a terminal sends to all of its processes is not for this one.
const UNTIL_WE_END: &str = r#"
trap '' HUP INT TERM
directory=$1 binaries=$2 first=$3 second=$4
cd "$directory"
end() { { kill -QUIT $one $two; wait; } 2>/dev/null; cd / && rm -rf "$directory"; }
failed() { touch failed; cat >/dev/null; end; exit 1; }
run() {
    "$binaries/postgres" -D "$1" -k "$directory" -h 127.0.0.1 -p "$2" -c max_connections=100 -c shared_buffers=32MB \
        -c fsync=on -c max_wal_size=1GB -c wal_receiver_status_interval=1s >>log 2>&1 </dev/null &
}
"$binaries/initdb" --no-sync --auth trust --username postgres --encoding UTF8 --locale C primary >log 2>&1 || failed
run primary "$first"
one=$!
until "$binaries/pg_isready" -q -h 127.0.0.1 -p "$first"; do kill -0 $one || failed; sleep 0.05; done
"$binaries/pg_basebackup" --no-sync -h 127.0.0.1 -p "$first" -U postgres -D standby -R -X stream -c fast >>log 2>&1 || failed
run standby "$second"
two=$!
cat >/dev/null
end
"#;

/// A primary and its standby, with one database.
pub struct Pair {
    /// The URL of that database, which names both.
    pub url: String,
    primary: u16,
    standby: u16,
    directory: PathBuf,
    /// Its standard input is what the servers end with.
    _process: Child,
}

impl Pair {
    /// Starts both. Nothing is committed before the standby has it.
    pub async fn start() -> Self {
        let directory = TempDir::with_prefix("postgres").unwrap().keep();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = [free(), free()].map(|listener| listener.local_addr().unwrap().port());
        let process = run(UNTIL_WE_END, &directory, &ports);
        let [primary, standby] = ports;
        let url = format!("postgres://tests@127.0.0.1:{primary},127.0.0.1:{standby}/tests?sslmode=disable");
        let pair = Self { url, primary, standby, directory, _process: process };
        pair.set_up().await;
        pair
    }

    async fn set_up(&self) {
        let mut standby = self.connect(self.standby).await;
        let mut primary = self.connect(self.primary).await;
        for sql in [
            "create role tests login",
            "create database tests owner tests template template0",
            "alter system set synchronous_standby_names = '*'",
        ] {
            sqlx::query(sql).execute(&mut primary).await.unwrap();
        }
        sqlx::query("select pg_reload_conf()").execute(&mut primary).await.unwrap();
        let synchronous =
            "select exists (select from pg_stat_replication where sync_state in ('sync', 'quorum'))";
        self.until(&mut primary, synchronous).await;
        // The database is there too.
        self.until(&mut standby, "select exists (select from pg_database where datname = 'tests')").await;
    }

    /// What the servers have said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The URL of the database at the primary alone.
    pub fn primary_url(&self) -> String {
        format!("postgres://tests@127.0.0.1:{}/tests?sslmode=disable", self.primary)
    }

    /// The URL of the database at the standby alone.
    pub fn standby_url(&self) -> String {
        format!("postgres://tests@127.0.0.1:{}/tests?sslmode=disable", self.standby)
    }

    /// The URL of the database that names both, the primary through a proxy before it.
    pub fn url_through(&self, proxy: &Proxy) -> String {
        let (_, place) = proxy.url.split_once('@').unwrap();
        let (place, _) = place.split_once('/').unwrap();
        self.standby_url().replacen('@', &format!("@{place},"), 1)
    }

    /// Runs one statement as somebody who may do everything at the primary.
    pub async fn administer(&self, sql: &str) {
        let mut primary = self.connect(self.primary).await;
        sqlx::query(AssertSqlSafe(sql)).execute(&mut primary).await.unwrap();
        primary.close().await.unwrap();
    }

    /// Nothing is heard of the primary any more on its way, as if its machine were gone: nobody says that a connection has ended.
    pub fn silence_primary(&self, way: &Proxy) {
        way.becomes(Way::Swallowing);
        self.kill_primary();
    }

    /// Kills the primary as when its machine dies.
    pub fn kill_primary(&self) {
        self.kill("primary");
    }

    /// Kills the standby likewise.
    pub fn kill_standby(&self) {
        self.kill("standby");
    }

    /// Kills all processes of a server, first of all whom the others watch: one that outlived it by a moment would give up
    /// waiting for the standby, and show to the rest what nobody but them will ever have.
    fn kill(&self, server: &str) {
        let first = self.process_of(server);
        kill_process(first, Signal::STOP).unwrap();
        for process in children(first) {
            kill_process(process, Signal::KILL).ok();
        }
        kill_process(first, Signal::KILL).unwrap();
    }

    fn process_of(&self, server: &str) -> Pid {
        let file = std::fs::read_to_string(self.directory.join(server).join("postmaster.pid")).unwrap();
        Pid::from_raw(file.lines().next().unwrap().parse().unwrap()).unwrap()
    }

    /// Makes the standby the primary, and returns when it is.
    pub async fn promote(&self) {
        let mut standby = self.connect(self.standby).await;
        let promoted: bool =
            sqlx::query_scalar("select pg_promote(true, 60)").fetch_one(&mut standby).await.unwrap();
        assert!(promoted, "{}", self.log());
    }

    async fn connect(&self, port: u16) -> PgConnection {
        let give_up = Instant::now() + PATIENCE;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        loop {
            match PgConnection::connect(&url).await {
                Ok(connection) => return connection,
                Err(error) => {
                    let failed = self.directory.join("failed").exists() || Instant::now() > give_up;
                    assert!(!failed, "PostgreSQL did not start: {error}: {}", self.log());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until(&self, connection: &mut PgConnection, sql: &'static str) {
        let give_up = Instant::now() + PATIENCE;
        while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut *connection).await.unwrap() {
            assert!(Instant::now() < give_up, "{sql}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The processes that a process has started.
fn children(of: Pid) -> Vec<Pid> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let child = |entry: std::fs::DirEntry| {
        let process: i32 = entry.file_name().to_str()?.parse().ok()?;
        let about = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // After its name, in which there may be anything, come its state and who has started it.
        let (_, rest) = about.rsplit_once(')')?;
        let parent: i32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        if parent == of.as_raw_nonzero().get() { Pid::from_raw(process) } else { None }
    };
    all.filter_map(child).collect()
}
