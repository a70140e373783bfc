//! A PostgreSQL of one's own, and several nodes that serve a database of it.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::connection::block_on;
use crate::server::{Process, Server};

/// Whom PostgreSQL runs as where we are root, as whom it does not.
const USER: &str = "postgres";

/// A server with its defaults, save that it has room for what is measured: what it commits is on disk.
pub struct Postgres {
    _process: Process,
    programs: PathBuf,
    port: u16,
}

impl Postgres {
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let programs = programs()?;
        let owner = owner()?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(directory, Some(user), Some(group))?;
        }
        let run = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if let Some((user, group)) = owner {
                command.uid(user).gid(group);
            }
            command
        };
        let options =
            ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--pgdata=data"];
        ensure!(run("initdb").args(options).status()?.success(), "initdb failed");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = run("postgres");
        server.args(["-D", "data", "-h", "127.0.0.1", "-p", &port.to_string(), "-k", "."]);
        for setting in ["shared_buffers=256MB", "max_wal_size=4GB", "max_connections=200"] {
            server.args(["-c", setting]);
        }
        let postgres = Self { _process: Process::start(&mut server)?, programs, port };
        let begun = Instant::now();
        while postgres.execute("select").is_err() {
            ensure!(begun.elapsed() < Duration::from_secs(60), "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(postgres)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    fn execute(&self, sql: &str) -> anyhow::Result<()> {
        block_on(async {
            let mut connection = PgConnection::connect(&self.url("postgres")).await?;
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
            connection.close().await?;
            Ok(())
        })
    }

    /// A database with nothing in it.
    pub fn create(&self, name: &str) -> anyhow::Result<String> {
        self.execute(&format!("create database {name}"))?;
        Ok(self.url(name))
    }

    /// How many bytes of its log it has written so far.
    pub fn bytes_logged(&self) -> anyhow::Result<f64> {
        block_on(async {
            let mut connection = PgConnection::connect(&self.url("postgres")).await?;
            let sql = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
            Ok(sqlx::query_scalar(sql).fetch_one(&mut connection).await?)
        })
    }

    /// Makes what `pgbench` works on.
    pub fn prepare_pgbench(&self) -> anyhow::Result<()> {
        self.create("yardstick")?;
        self.pgbench(&["-i", "-q", "-s", "10"]).map(drop)
    }

    /// What `pgbench -N` comes to with 32 clients: transactions a second.
    pub fn transactions(&self, window: Duration) -> anyhow::Result<f64> {
        let seconds = window.as_secs().max(1).to_string();
        let said = self.pgbench(&["-N", "-n", "-c", "32", "-j", "2", "-T", &seconds])?;
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.with_context(|| format!("no rate in what pgbench says: {said}"))
    }

    fn pgbench(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(self.programs.join("pgbench"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()])
            .args(arguments)
            .arg("yardstick")
            .output()?;
        ensure!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Nodes on one database.
pub struct Nodes {
    pub servers: Vec<Server>,
    url: String,
    key: PathBuf,
}

impl Nodes {
    /// A node on a new database; more can be added.
    pub fn start(directory: &Path, postgres: &Postgres, name: &str) -> anyhow::Result<Self> {
        let key = directory.join(format!("{name}.key"));
        std::fs::write(&key, "5e55".repeat(16))?;
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let mut nodes = Self { servers: vec![], url: postgres.create(name)?, key };
        nodes.add()?;
        Ok(nodes)
    }

    /// Starts one more.
    pub fn add(&mut self) -> anyhow::Result<()> {
        let key = self.key.to_str().context("a path that is no text")?;
        let server = Server::begin_on(&self.url, PathBuf::new(), &["--secret-key-file", key])?;
        server.until_ready()?;
        self.servers.push(server);
        Ok(())
    }

    pub fn first(&self) -> &Server {
        &self.servers[0]
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }
}

fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|one| one.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
    newest.context("PostgreSQL is not there (Debian: postgresql-15; make bench installs it)")
}

/// The numbers of the user and of its group who run it, where that is not us.
fn owner() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let all = std::fs::read_to_string("/etc/passwd")?;
    let line = all.lines().find_map(|line| line.strip_prefix(&format!("{USER}:")));
    let mut numbers =
        line.into_iter().flat_map(|line| line.split(':').skip(1)).map_while(|one| one.parse().ok());
    let both = numbers.next().zip(numbers.next());
    both.map(Some).with_context(|| format!("there is no user {USER}, whom Debian's package makes"))
}
