//! A real PostgreSQL for the tests: one server a process, started when the first test asks for a database, and ended with the
//! process, however that ends. Each test has a database of its own.

use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

/// Who runs it where we are root, as whom it refuses to run: the user that Debian's package makes.
const USER: &str = "postgres";
/// Who owns the databases: sessiond needs no more rights than that.
const OWNER: &str = "tests";

/// What texts compare like in a database must not matter to who uses it: there are some of each kind.
const KINDS: [&str; 2] = ["", "locale_provider icu icu_locale 'en-US'"];

/// Runs the server until standard input ends, which it does with the process that holds the other end, also where that is
/// killed. What a terminal sends to all of its processes (ctrl-C) is not for this one: it has yet to clear up.
const UNTIL_WE_END: &str = r#"
trap '' HUP INT TERM
directory=$1 binaries=$2 port=$3
cd "$directory"
end() { cd / && rm -rf "$directory"; }
"$binaries/initdb" --no-sync --auth trust --username postgres --encoding UTF8 --locale C data >log 2>&1 || { touch failed; cat >/dev/null; end; exit 1; }
"$binaries/postgres" -D data -k "$directory" -h 127.0.0.1 -p "$port" -c max_connections=300 -c shared_buffers=64MB \
    -c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=2GB -c checkpoint_timeout=30min >>log 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -QUIT "$server"
wait "$server"
end
"#;

/// A database of one's own. What is in it is gone with this.
pub struct Database {
    pub url: String,
    name: String,
    /// Of which kind it is, if it was made in this release's form: then it is emptied and given to another test, because
    /// dropping a database makes the server write all that it holds to disk.
    formed: Option<usize>,
}

impl Database {
    /// A new one, with nothing in it.
    pub fn new() -> Self {
        Server::ours().create(false)
    }

    /// One that is in this release's form already.
    fn formed() -> Self {
        Server::ours().create(true)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(kind) = self.formed {
            let returned = Request::Return { name: self.name.clone(), kind };
            // Who keeps the databases may have ended with its process.
            Server::ours().requests.lock().unwrap().send(returned).ok();
        }
    }
}

/// Where somebody finds the server who may do everything there, as variables for PostgreSQL's own programs, and where those are.
pub fn administration() -> (Vec<(&'static str, String)>, PathBuf) {
    let port = Server::ours().port.to_string();
    let variables = [("PGHOST", "127.0.0.1".to_owned()), ("PGPORT", port), ("PGUSER", "postgres".to_owned())];
    (variables.into(), binaries())
}

/// The URL of the database that belongs to a directory: for as long as there is the directory.
pub fn url_of(directory: &Path) -> String {
    static ALL: Mutex<Option<HashMap<PathBuf, Database>>> = Mutex::new(None);
    let mut all = ALL.lock().unwrap();
    let all = all.get_or_insert_default();
    all.retain(|directory, _| directory.exists());
    all.entry(directory.to_owned()).or_insert_with(Database::formed).url.clone()
}

/// Runs a script with a directory of its own, PostgreSQL's programs and ports, as the user who may; until its standard input ends.
pub fn run(script: &str, directory: &Path, ports: &[u16]) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args([directory, &binaries()]);
    command.args(ports.iter().map(u16::to_string));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").stdin(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        let (user, group) = user();
        std::os::unix::fs::chown(directory, Some(user), Some(group)).unwrap();
        command.uid(user).gid(group);
    }
    command.spawn().unwrap()
}

struct Server {
    port: u16,
    requests: Mutex<mpsc::Sender<Request>>,
    /// Its standard input is what the server ends with.
    _process: Child,
}

enum Request {
    Create { formed: bool, reply: mpsc::Sender<Database> },
    Return { name: String, kind: usize },
}

impl Server {
    fn ours() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    fn start() -> Self {
        let directory = TempDir::with_prefix("postgres").unwrap().keep();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = run(UNTIL_WE_END, &directory, &[port]);
        let (requests, waiting) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let keeper = Keeper::start(port, &directory).await;
                ready.send(()).unwrap();
                keeper.run(&waiting).await;
            });
        });
        is_ready.recv().expect("PostgreSQL did not start; what it said is above");
        Self { port, requests: Mutex::new(requests), _process: process }
    }

    fn create(&self, formed: bool) -> Database {
        let (reply, database) = mpsc::channel();
        self.requests.lock().unwrap().send(Request::Create { formed, reply }).unwrap();
        database.recv().expect("PostgreSQL made no database; what it said is above")
    }
}

/// Where PostgreSQL's programs are: the newest that Debian has put there, else where a shell finds them.
fn binaries() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = debian
        .filter_map(|one| Some((one.file_name().to_str()?.parse().ok()?, one.path().join("bin"))))
        .filter(|(version, path)| *version >= 15 && path.join("initdb").exists())
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = std::env::split_paths(&path).find(|path| path.join("initdb").exists());
    found.pop().map(|(_, path)| path).or(elsewhere).unwrap_or_else(|| {
        panic!(
            "PostgreSQL 15 or newer is needed for these tests (Debian: postgresql-15; make test installs it)"
        )
    })
}

/// The numbers of the user and of its group who may run it.
pub fn user() -> (u32, u32) {
    let all = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = all.lines().find_map(|line| line.strip_prefix(&format!("{USER}:")));
    let mut numbers =
        line.into_iter().flat_map(|line| line.split(':').skip(1)).map_while(|one| one.parse().ok());
    numbers.next().zip(numbers.next()).unwrap_or_else(|| {
        panic!(
            "PostgreSQL does not run as root: these tests need the user {USER}, whom Debian's package makes"
        )
    })
}

/// Makes databases and drops them as it is asked to, on a connection of its own.
struct Keeper {
    port: u16,
    connection: PgConnection,
    /// How many databases were asked for, and made.
    asked: usize,
    made: usize,
    /// Whether one can be made in which texts compare otherwise than by their bytes.
    icu: bool,
    /// Databases that are in this release's form already, for copying: one of each kind.
    formed: [Option<Formed>; KINDS.len()],
    /// Copies that nobody needs any more.
    returned: [VecDeque<String>; KINDS.len()],
}

/// A database that a service was started on once: bringing one to this form anew would take longer than many a test.
struct Formed {
    name: String,
    /// The SQL that makes a copy what it was, whatever was written to it since.
    emptying: String,
}

impl Keeper {
    async fn start(port: u16, directory: &Path) -> Self {
        let mut connection = connect(port, directory).await;
        let role = format!("create role {OWNER} login");
        sqlx::query(AssertSqlSafe(role)).execute(&mut connection).await.unwrap();
        let icu =
            "select exists (select from pg_collation where collprovider = 'i' and collname = 'en-US-x-icu')";
        let icu = sqlx::query_scalar(icu).fetch_one(&mut connection).await.unwrap();
        let (formed, returned) = Default::default();
        Self { port, connection, asked: 0, made: 0, icu, formed, returned }
    }

    async fn run(mut self, waiting: &mpsc::Receiver<Request>) {
        while let Ok(request) = waiting.recv() {
            match request {
                Request::Return { name, kind } => self.returned[kind].push_back(name),
                Request::Create { formed, reply } => {
                    let kind = self.next_kind();
                    let name = match formed {
                        true => self.formed(kind).await,
                        false => self.make("template0", KINDS[kind]).await,
                    };
                    let formed = formed.then_some(kind);
                    reply.send(Database { url: self.url(&name), name, formed }).ok();
                }
            }
        }
    }

    fn url(&self, name: &str) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }

    /// A copy of the formed one that nobody has, or a new one.
    async fn formed(&mut self, kind: usize) -> String {
        if self.formed[kind].is_none() {
            let name = self.make("template0", KINDS[kind]).await;
            let open = sessiond_store::open(&self.url(&name)).await.unwrap();
            open.store.close().await;
            open.writer.close().await.unwrap();
            let emptying = self.emptying(&name).await;
            self.formed[kind] = Some(Formed { name, emptying });
        }
        let Some(Formed { name: template, emptying }) = &self.formed[kind] else { unreachable!() };
        let (template, emptying) = (template.clone(), emptying.clone());
        for _ in 0..self.returned[kind].len() {
            let Some(name) = self.returned[kind].pop_front() else { break };
            // A service of a test that is over may still be ending.
            let used = "select count(*) from pg_stat_activity where datname = $1";
            let used: i64 =
                sqlx::query_scalar(used).bind(&name).fetch_one(&mut self.connection).await.unwrap();
            if used == 0 {
                let mut inside = PgConnection::connect(&self.url(&name)).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(emptying)).execute(&mut inside).await.unwrap();
                inside.close().await.unwrap();
                return name;
            }
            self.returned[kind].push_back(name);
        }
        self.make(&template, "").await
    }

    /// The SQL that leaves in each table what is there now, and no more.
    async fn emptying(&self, name: &str) -> String {
        let mut inside = PgConnection::connect(&self.url(name)).await.unwrap();
        let sql = "select tablename::text from pg_tables where schemaname = 'public' and tablename not like '\\_sqlx%'";
        let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut inside).await.unwrap();
        let mut emptying = "begin;".to_owned();
        for table in tables {
            // Of a small table the rows are deleted, because truncating makes new files for it and its indexes.
            emptying += &format!(
                "do $do$ begin if pg_relation_size('{table}') > 1000000 then truncate {table}; \
                 else delete from {table}; end if; end $do$;"
            );
            let rows = format!("select coalesce(json_agg(t), '[]')::text from {table} t");
            let rows: String = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut inside).await.unwrap();
            if rows != "[]" {
                emptying += &format!(
                    "insert into {table} select * from json_populate_recordset(null::{table}, $rows${rows}$rows$);"
                );
            }
        }
        inside.close().await.unwrap();
        emptying + "commit;"
    }

    fn next_kind(&mut self) -> usize {
        self.asked += 1;
        if self.icu { self.asked % KINDS.len() } else { 0 }
    }

    async fn make(&mut self, template: &str, kind: &str) -> String {
        self.made += 1;
        let name = format!("test_{}", self.made);
        let sql = format!("create database {name} owner {OWNER} template {template} {kind}");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut self.connection).await.unwrap();
        name
    }
}

async fn connect(port: u16, directory: &Path) -> PgConnection {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        match PgConnection::connect(&url).await {
            Ok(connection) => return connection,
            Err(error) => {
                let failed = directory.join("failed").exists() || Instant::now() > give_up;
                let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
                assert!(!failed, "PostgreSQL did not start: {error}: {log}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
