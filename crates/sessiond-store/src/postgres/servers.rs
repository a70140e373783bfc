//! The servers that a URL names, and which of them can be used: several stand for one database, of which one at a time can
//! be written to. A connection is used only after it has said what is at its other end.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use super::{close, pooler};
use crate::StoreError;
use crate::values::Stored;

/// How long making a connection may take, and asking it what it is.
pub(super) const CONNECTING: Duration = Duration::from_secs(3);

/// How long something is waited for before it is looked whether whoever does it is still there.
const LOOKING_AGAIN: Duration = Duration::from_secs(2);

/// The oldest server with all that is asked of one.
const OLDEST: i64 = 150_000;

/// What a connection that reads is told. Nothing takes longer than it should, nobody waits for a lock for ever, and no
/// snapshot stays open because somebody forgot it. To compile a statement, or to start others to help with it, takes longer
/// than ours do.
const SETTINGS: &str = "select set_config('statement_timeout', '30s', false), set_config('lock_timeout', '10s', false), \
     set_config('idle_in_transaction_session_timeout', '2s', false), set_config('jit', 'off', false), \
     set_config('max_parallel_workers_per_gather', '0', false), \
     set_config('default_transaction_isolation', 'read committed', false)";

const ABOUT: &str = "select current_setting('server_version_num')::bigint as version_number, \
     current_setting('server_version') as version, \
     current_setting('server_encoding') as encoding, \
     pg_is_in_recovery() as standby, \
     current_setting('transaction_read_only') = 'on' as read_only";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The primary, of which nothing is ever late.
    Primary,
    /// Reading what is there, wherever it is.
    Look,
}

/// The servers of a URL.
#[derive(Clone)]
pub(super) struct Servers {
    each: Arc<[Server]>,
    /// The place in that list of the one that could be used last: it is asked first, because waiting for one that is gone takes
    /// seconds.
    last: Arc<AtomicUsize>,
}

struct Server {
    options: PgConnectOptions,
    /// Whether it was found out that no pooler is before it.
    direct: AtomicBool,
}

/// Why none of them can be used.
pub(super) struct Unusable {
    /// A server says that there is no such database.
    pub(super) absent: bool,
    words: String,
}

impl From<Unusable> for StoreError {
    fn from(unusable: Unusable) -> Self {
        Self::Away(unusable.words)
    }
}

impl Servers {
    /// Reads a URL, in which several servers are separated by commas, as PostgreSQL's own programs have it.
    pub(super) fn of(url: &str) -> Result<Self, StoreError> {
        let server = |one: &String| Ok(Server { options: options(one)?, direct: AtomicBool::default() });
        let each: Result<Vec<_>, StoreError> = one_url_each(url)?.iter().map(server).collect();
        Ok(Self { each: each?.into(), last: Arc::default() })
    }

    /// Connects to the one that can be written to.
    pub(super) async fn primary(&self) -> Result<(PgConnectOptions, PgConnection), Unusable> {
        self.first(Use::Primary).await
    }

    /// Connects to the one that can be written to, or else to one that can be read.
    pub(super) async fn any(&self) -> Result<(PgConnectOptions, PgConnection), Unusable> {
        match self.first(Use::Primary).await {
            Err(unusable) if !unusable.absent => self.first(Use::Look).await,
            found => found,
        }
    }

    /// Waits for something that a process of a server does, but not for one that is gone without a word: for that nobody waits as
    /// long as for one that is slow, or waits for its standby.
    pub(super) async fn unless_gone<Value, Error: From<sqlx::Error>>(
        &self,
        place: &str,
        process: i32,
        work: impl Future<Output = Result<Value, Error>>,
    ) -> Result<Value, Error> {
        tokio::select! {
            outcome = work => outcome,
            why = self.gone(place, process) => Err(sqlx::Error::from(io::Error::other(why)).into()),
        }
    }

    /// Resolves when another server is found to be the primary, or the process to have ended there.
    async fn gone(&self, place: &str, process: i32) -> &'static str {
        loop {
            sleep(LOOKING_AGAIN).await;
            let Ok((_, mut connection)) = self.primary().await else { continue };
            let sql = "select exists (select from pg_stat_activity where pid = $1)";
            let there = sqlx::query_scalar(sql).bind(process).fetch_one(&mut connection);
            let there = timeout(CONNECTING, there).await;
            close(connection).await;
            if !self.primary_was_at(place) {
                return "another server is the primary by now";
            }
            if let Ok(Ok(false)) = there {
                return "the server has ended the connection";
            }
        }
    }

    /// Whether a server is the one that could be used last.
    pub(super) fn primary_was_at(&self, known: &str) -> bool {
        let last = self.each.get(self.last.load(Ordering::Relaxed));
        last.is_some_and(|server| place(&server.options) == known)
    }

    async fn first(&self, purpose: Use) -> Result<(PgConnectOptions, PgConnection), Unusable> {
        let mut unusable = Unusable { absent: false, words: String::new() };
        let (count, first) = (self.each.len(), self.last.load(Ordering::Relaxed));
        for place_in_list in (first..first + count).map(|one| one % count) {
            let server = &self.each[place_in_list];
            let options = &server.options;
            let why = match connect(server, purpose).await {
                Ok(connection) => {
                    self.last.store(place_in_list, Ordering::Relaxed);
                    return Ok((options.clone(), connection));
                }
                Err(why) => why,
            };
            unusable.absent |= is_absent(&why);
            let separator = if unusable.words.is_empty() { "" } else { "; " };
            unusable.words += &format!("{separator}{}: {}", place(options), words(options, &why));
        }
        Err(unusable)
    }
}

/// Where a server is, for people.
pub(super) fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => format!("{}, port {}", socket.display(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

fn is_absent(error: &sqlx::Error) -> bool {
    // invalid_catalog_name
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "3D000")
}

fn words(options: &PgConnectOptions, error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(what) => what.to_string(),
        error if is_absent(error) => {
            let database = options.get_database().unwrap_or_else(|| options.get_username());
            format!(
                "there is no database {database}: make it with create database \"{database}\" encoding 'UTF8' template \
                 template0"
            )
        }
        error => error.to_string(),
    }
}

async fn connect(server: &Server, purpose: Use) -> Result<PgConnection, sqlx::Error> {
    let connected = timeout(CONNECTING, async {
        let mut connection = PgConnection::connect_with(&server.options).await?;
        if !server.direct.load(Ordering::Relaxed) {
            if pooler::shares(&mut connection, &server.options).await? {
                return Err(sqlx::Error::Configuration(pooler::WORDS.into()));
            }
            server.direct.store(true, Ordering::Relaxed);
        }
        prepare(&mut connection, purpose).await?;
        Ok(connection)
    });
    connected.await.unwrap_or_else(|_| Err(sqlx::Error::Configuration("it does not answer".into())))
}

/// Asks a new connection what is at its other end, refuses it where that cannot be used, and tells it how to work.
pub(super) async fn prepare(connection: &mut PgConnection, purpose: Use) -> Result<(), sqlx::Error> {
    let about = sqlx::query(ABOUT).fetch_one(&mut *connection).await?;
    if let Some(fault) = fault(&about, purpose)? {
        return Err(sqlx::Error::Configuration(fault.into()));
    }
    sqlx::query(SETTINGS).execute(&mut *connection).await?;
    if purpose == Use::Look {
        let sql = "select set_config('default_transaction_read_only', 'on', false)";
        sqlx::query(sql).execute(connection).await?;
    }
    Ok(())
}

/// Whether a connection is still one to the primary: a server that was one may have come back as a standby.
pub(super) async fn is_primary(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let sql = "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'";
    match timeout(CONNECTING, sqlx::query_scalar(sql).fetch_one(connection)).await {
        Ok(answer) => answer,
        Err(_) => Ok(false),
    }
}

/// What is wrong with a server, and what to do about it.
fn fault(about: &PgRow, purpose: Use) -> Result<Option<String>, sqlx::Error> {
    let (version, encoding) = (about.text("version")?, about.text("encoding")?);
    if about.integer("version_number")? < OLDEST {
        return Ok(Some(format!("it is PostgreSQL {version}, and 15 or newer is needed: upgrade it")));
    }
    if encoding != "UTF8" {
        return Ok(Some(format!(
            "the database's encoding is {encoding}, not UTF8: make one with create database … encoding 'UTF8' template \
             template0"
        )));
    }
    if purpose == Use::Look {
        return Ok(None);
    }
    if about.flag("standby")? {
        let words = "it is a standby, which cannot be written to: name the primary in the URL, or all servers, separated by \
                     commas";
        return Ok(Some(words.to_owned()));
    }
    let read_only = about.flag("read_only")?;
    let words = "nothing can be written to it: default_transaction_read_only is on, for the server, the database or the user";
    Ok(read_only.then(|| words.to_owned()))
}

fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)?;
    if options.get_host().contains(',') {
        return Err(StoreError::Failed(
            "several servers stand before the path of a URL, as in postgres://one:5432,other:5432/sessiond"
                .to_owned(),
        ));
    }
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("sessiond"),
    };
    // Nothing here is a fraction, and a pooler refuses settings that it does not know.
    Ok(options.extra_float_digits(None).statement_cache_capacity(256))
}

/// The URL of each of the servers that one names.
fn one_url_each(url: &str) -> Result<Vec<String>, StoreError> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok(vec![url.to_owned()]) };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let mut parameters = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            // The primary is looked for in any case.
            Some(("target_session_attrs", "any" | "read-write" | "primary")) => {}
            Some(("target_session_attrs", other)) => {
                let what = format!("target_session_attrs is {other}: what is needed is the primary");
                return Err(StoreError::Failed(what));
            }
            _ => parameters.push(parameter),
        }
    }
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    Ok(hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}{query}")).collect())
}
