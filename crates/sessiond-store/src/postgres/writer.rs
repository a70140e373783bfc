//! The connection that writes: it takes the turn, says what was missed, commits, and finds out what a commit has come to whose
//! answer was lost.

use std::time::Duration;

use async_trait::async_trait;
use sessiond_core::Time;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::head::{self, log_head};
use super::link::{Durability, Link, SHORTLY, within};
use super::servers::Servers;
use super::{company, health, past, people, rows, search};
use crate::StoreError;
use crate::row::{At, Batch, Commit, LogHead};
use crate::seam::{Check, Turn, Writer};
use crate::values::time;

/// How long the turn may be waited for; the server gives up before (`lock_timeout`).
const TURN: Duration = Duration::from_secs(8);
/// How long writing a batch may take. Nothing of it is there unless it is committed, so giving up is safe.
const WRITING: Duration = Duration::from_secs(30);
/// How long a COMMIT may take, unless another server is the primary by then. Whoever gives up has to find out what came of it.
const COMMITTING: Duration = Duration::from_secs(10);
/// How long that is tried, and the pause between.
const FINDING_OUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// How long commits are kept for whoever follows, in milliseconds; how many are forgotten at a time, and how often.
const KEPT: i64 = 10 * 60 * 1_000;
const FORGOTTEN_AT_ONCE: i64 = 1_000;
const FORGETTING: Duration = Duration::from_secs(5);

/// Who else may work on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody, while this process has it open.
    Alone,
    /// Other processes, each following what the others commit.
    Nodes,
}

/// The one writer of a process.
pub(super) struct PgWriter {
    servers: Servers,
    /// None once it was lost, or while it is at work: what is dropped halfway is closed, and with it whatever it had begun.
    link: Option<Link>,
    /// The server's process behind the connection before.
    before: Option<i32>,
    /// A transaction was begun and not ended: somebody has let go of the turn.
    in_turn: bool,
    company: Company,
    forgotten_at: Instant,
}

impl PgWriter {
    /// Opens a store that is migrated, for writing, and checks what the server promises.
    pub(super) async fn open(servers: Servers, company: Company) -> Result<Self, StoreError> {
        let mut writer = Self::connect(servers, company).await?;
        let mut link = writer.take().await?;
        people::file(&mut link.connection, link.turn_key).await?;
        past::file_earlier(&mut link.connection, link.turn_key).await?;
        search::file(&mut link.connection, link.turn_key).await?;
        writer.link = Some(link);
        Ok(writer)
    }

    /// As [`Self::open`], but of what is in it nothing is read or filed.
    pub(super) async fn connect(servers: Servers, company: Company) -> Result<Self, StoreError> {
        let mut link = Link::make(&servers, Durability::Everywhere).await?;
        match company {
            Company::Alone => company::take(&mut link, None).await?,
            Company::Nodes => company::share(&mut link).await?,
        }
        if let Some(fault) = health::checks(&mut link).await?.into_iter().find_map(|check| check.fault) {
            return Err(StoreError::Failed(fault));
        }
        let before = Some(link.process);
        Ok(Self { servers, link: Some(link), before, in_turn: false, company, forgotten_at: Instant::now() })
    }

    /// Takes the connection, and makes another one where it was lost.
    pub(super) async fn take(&mut self) -> Result<Link, StoreError> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        self.in_turn = false;
        let mut link = Link::make(&self.servers, Durability::Everywhere).await?;
        match self.company {
            Company::Alone => company::take(&mut link, self.before).await?,
            Company::Nodes => company::share(&mut link).await?,
        }
        self.before = Some(link.process);
        Ok(link)
    }

    /// Takes back what was begun, and keeps the connection if it is still good for anything.
    async fn put_back(&mut self, mut link: Link) {
        self.in_turn = false;
        if self.servers.primary_was_at(&link.place) && link.rolled_back().await {
            self.link = Some(link);
        }
    }

    /// Ends the turn of whoever has let go of it.
    async fn let_go(&mut self) {
        if self.in_turn
            && let Some(link) = self.link.take()
        {
            self.put_back(link).await;
        }
    }

    /// Waits for the turn, and reads what was committed beyond what this process has applied: all of it in one round trip.
    async fn begin(&mut self, applied: Option<&At>) -> Result<Begun, StoreError> {
        let idle = self.link.is_some();
        let mut link = self.take().await?;
        let sql = beginning(self.in_turn, link.turn_key, applied.map_or(i64::MAX, |at| at.commit));
        let (place, process) = (link.place.clone(), link.process);
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut link.connection);
        let rows = self.servers.unless_gone(&place, process, within(TURN, rows)).await;
        match rows.map_err(StoreError::from).and_then(|rows| begun(&rows, applied)) {
            Ok(begun) => {
                self.link = Some(link);
                self.in_turn = true;
                Ok(begun)
            }
            Err(error) if error.ends_all() => Err(error),
            Err(error) => {
                self.put_back(link).await;
                match idle && self.link.is_none() {
                    // It was lost while nobody used it: nothing was decided yet, and another one may do.
                    true => Box::pin(self.begin(applied)).await,
                    false => Err(error),
                }
            }
        }
    }

    /// Writes a batch and commits it. Returns the number of the commit.
    async fn write(&mut self, begun: &Begun, batch: &Batch) -> Result<i64, StoreError> {
        let Some(mut link) = self.link.take() else {
            return Err(StoreError::Away("the connection was lost before anything was written".to_owned()));
        };
        let head = batch.head.unwrap_or_else(|| begun.head.after(batch));
        let (number, id) = (begun.number + 1, Uuid::new_v4());
        let written = async {
            rows::fits(&begun.head, batch)?;
            rows::write(&mut link.connection, batch).await?;
            head::finish(&mut link.connection, number, id, &head, batch, &link.channel).await
        };
        let (place, process) = (link.place.clone(), link.process);
        let written = async {
            let written = tokio::time::timeout(WRITING, written).await;
            written.unwrap_or_else(|_| Err(StoreError::Away("writing took too long".to_owned())))
        };
        if let Err(error) = self.servers.unless_gone(&place, process, written).await {
            self.put_back(link).await;
            return Err(error);
        }
        self.in_turn = false;
        let commit = within(COMMITTING, sqlx::raw_sql("commit").execute(&mut link.connection));
        match self.servers.unless_gone(&place, process, commit).await {
            Ok(_) => self.link = Some(link),
            Err(error) => {
                drop(link);
                self.find_out(id, &error).await?;
            }
        }
        Ok(number)
    }

    /// Finds out whether a commit has taken place whose answer was lost; an error where it has not, or nobody knows.
    async fn find_out(&mut self, id: Uuid, lost: &sqlx::Error) -> Result<(), StoreError> {
        let until = Instant::now() + FINDING_OUT;
        loop {
            let found = match Link::make(&self.servers, Durability::Everywhere).await {
                Ok(link) => look_for(link, id).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    return Err(StoreError::Away(format!("nothing was written: {lost}")));
                }
                Err(error) if Instant::now() >= until => {
                    return Err(StoreError::Unknown(format!("{lost}; and then: {error}")));
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Forgets some of the commits that are older than anybody may be behind. How many.
    async fn forget_commits(&mut self) -> Result<u64, StoreError> {
        self.forgotten_at = Instant::now();
        let mut link = self.take().await?;
        let sql = "delete from log_commit where number in (select number from log_commit \
                   where committed_at < floor(extract(epoch from clock_timestamp()) * 1000)::bigint - $1 \
                   order by number limit $2)";
        let query = sqlx::query(sql).bind(KEPT).bind(FORGOTTEN_AT_ONCE);
        match within(SHORTLY, query.execute(&mut link.connection)).await {
            Ok(done) => {
                self.link = Some(link);
                Ok(done.rows_affected())
            }
            Err(error) => {
                self.put_back(link).await;
                Err(error.into())
            }
        }
    }
}

/// Reads what whoever has the turn knows.
fn begun(rows: &[PgRow], applied: Option<&At>) -> Result<Begun, StoreError> {
    let [_, row, commits @ ..] = rows else {
        return Err(StoreError::Failed("the head of the log is not there".to_owned()));
    };
    let head = log_head(row)?;
    let (number, now): (i64, i64) = (row.try_get("commit_number")?, row.try_get("now")?);
    let missed = commits.iter().map(head::commit).collect::<Result<Vec<_>, _>>()?;
    if let Some(At { commit: known, log }) = applied {
        if number < *known || (number == *known && head.commit_hash != log.commit_hash) {
            return Err(StoreError::Broken(format!(
                "it does not have commit {known} any more, which this process knows: it is another one, or it was restored"
            )));
        }
        if missed.iter().map(|commit| commit.number).ne(known + 1..=number) {
            return Err(head::forgotten(*known, number));
        }
    }
    Ok(Begun { head, number, missed, now: time(now) })
}

/// Begins a transaction, waits for the turn, and reads the head of the log, the time, and the commits that are not known.
fn beginning(in_turn: bool, key: i64, known: i64) -> String {
    let rollback = if in_turn { "rollback; " } else { "" };
    format!(
        "{rollback}begin; \
         set local statement_timeout = '{limit}s'; \
         select pg_advisory_xact_lock({key}); \
         select *, floor(extract(epoch from clock_timestamp()) * 1000)::bigint as now from log_head; \
         select * from log_commit where number > {known} order by number",
        limit = WRITING.as_secs(),
    )
}

/// Looks for a commit by its own id. Whoever has the turn knows that the connection which wrote it is done with it, one way or
/// the other; and what is found is made sure of by a commit after it, for which the same standby is waited for.
async fn look_for(mut link: Link, id: Uuid) -> Result<bool, StoreError> {
    let sql = format!(
        "begin; \
         select pg_advisory_xact_lock({}); \
         update log_head set commit_number = commit_number \
         where exists (select from log_commit where id = '{id}') returning commit_number; \
         commit",
        link.turn_key
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut link.connection);
    let found = within(COMMITTING, rows).await?.len() > 1;
    link.close().await;
    Ok(found)
}

/// What whoever has the turn knows.
struct Begun {
    head: LogHead,
    number: i64,
    missed: Vec<Commit>,
    now: Time,
}

#[async_trait]
impl Writer for PgWriter {
    async fn turn<'writer>(
        &'writer mut self,
        applied: Option<&At>,
    ) -> Result<Box<dyn Turn + 'writer>, StoreError> {
        let begun = self.begin(applied).await?;
        Ok(Box::new(PgTurn { writer: self, begun }))
    }

    async fn maintain(&mut self) -> Result<(), StoreError> {
        // What fails here fails again where there is something to write, and is told then: the database may come back.
        self.let_go().await;
        Ok(())
    }

    async fn idle(&mut self) -> Result<bool, StoreError> {
        self.let_go().await;
        // Where there are nodes they know who may be behind.
        let forgets = self.company == Company::Alone && self.forgotten_at.elapsed() >= FORGETTING;
        let due = self.link.is_none() || forgets;
        Ok(due && self.forget_commits().await? > 0)
    }

    async fn health(&mut self) -> Result<Vec<Check>, StoreError> {
        self.let_go().await;
        let mut link = self.take().await?;
        let checks = health::checks(&mut link).await;
        match &checks {
            Ok(_) => self.link = Some(link),
            Err(_) => self.put_back(link).await,
        }
        checks
    }

    async fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        self.let_go().await;
        if let Some(link) = self.link.take() {
            link.close().await;
        }
        Ok(())
    }
}

/// The turn: a transaction that holds the lock.
struct PgTurn<'writer> {
    writer: &'writer mut PgWriter,
    begun: Begun,
}

#[async_trait]
impl Turn for PgTurn<'_> {
    fn missed(&mut self, after: i64) -> Vec<Commit> {
        let mut missed = std::mem::take(&mut self.begun.missed);
        missed.retain(|commit| commit.number > after);
        missed
    }

    fn now(&self) -> Option<Time> {
        Some(self.begun.now)
    }

    async fn commit(self: Box<Self>, batch: &Batch) -> Result<i64, StoreError> {
        let Self { writer, begun } = *self;
        writer.write(&begun, batch).await
    }
}
