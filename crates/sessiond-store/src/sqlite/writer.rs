//! The one connection that writes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sessiond_core::Time;
use sqlx::sqlite::SqliteAutoVacuum;
use sqlx::{Connection, SqliteConnection};

use super::files::Files;
use super::settling::{LogTail, Settling, Slice};
use super::{MIGRATIONS, options, space, wal};
use crate::StoreError;
use crate::migrate::migrate;
use crate::row::{At, Batch, Commit, SideWrite};
use crate::seam::{Check, Turn, Writer};

/// The first SQLite without the WAL-reset corruption: https://sqlite.org/releaselog/3_51_3.html
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);
/// How often the size of the write-ahead log is looked at, in commits.
const LOOKS: u64 = 64;

/// How long what was let go may stand in the write-ahead log.
const LET_GO_WITHIN: Duration = Duration::from_secs(5);

/// The pause after a try to empty the write-ahead log while somebody still read it.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The writer of one database.
pub(super) struct SqliteWriter {
    pub(super) connection: SqliteConnection,
    path: PathBuf,
    files: Files,
    settling: Settling,
    commits: u64,
    /// When the write-ahead log is to be emptied: what was erased may still stand there until then, and space that was given back
    /// is taken from the file then.
    empties: Option<Instant>,
}

impl SqliteWriter {
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let mut writer = Self::connect(url).await?;
        writer.file_people().await?;
        writer.file_earlier().await?;
        writer.file_sessions().await?;
        writer.settling = Settling::begin(&mut writer.connection).await?;
        Ok(writer)
    }

    /// Opens the database for writing, making and migrating it as needed, and checks what the live connection runs on. Of
    /// what is in it nothing is read.
    pub(super) async fn connect(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?
            .create_if_missing(true)
            // Fixed when the file is made: it can shrink once something was let go.
            .auto_vacuum(SqliteAutoVacuum::Incremental);
        let path = options.get_filename().to_owned();
        let mut connection = SqliteConnection::connect_with(&options).await?;
        migrate(&MIGRATIONS, &mut connection).await?;
        let files = Files::of(&path);
        for check in checks(&mut connection).await? {
            if let Some(fault) = check.fault {
                return Err(StoreError::Failed(fault));
            }
        }
        Ok(Self { connection, path, files, settling: Settling::nothing(), commits: 0, empties: None })
    }

    /// What lies beyond the rows, before anything was committed.
    pub(super) fn tail(&self) -> LogTail {
        self.settling.tail()
    }

    /// Writes a batch and a slice of hot rows in one transaction.
    async fn commit_with(&mut self, batch: &Batch, slice: &Slice) -> Result<(), StoreError> {
        sqlx::query("begin immediate").execute(&mut self.connection).await?;
        let written = self.write_with(batch, slice).await;
        self.end(written).await?;
        // Only now, so that nothing is acknowledged that went into a file which nobody will find.
        self.files.check()
    }

    async fn write_with(&mut self, batch: &Batch, slice: &Slice) -> Result<(), StoreError> {
        self.write(batch, &slice.rows).await?;
        let erasure =
            |side: &SideWrite| matches!(side, SideWrite::ErasePrincipal(_) | SideWrite::ErasePersonal(_));
        if batch.side.iter().any(erasure) {
            // Whoever copies the log meanwhile has to look again at what it has copied.
            let sql = "insert into mark (name, position) values ('erased', 1) \
                       on conflict (name) do update set position = position + 1";
            sqlx::query(sql).execute(&mut self.connection).await?;
        }
        match slice.settled {
            Some(position) => self.mark("settled", position).await,
            None => Ok(()),
        }
    }

    /// Ends a transaction as what was done in it came out.
    pub(super) async fn end<Value, Error: From<sqlx::Error>>(
        &mut self,
        outcome: Result<Value, Error>,
    ) -> Result<Value, Error> {
        let outcome = match outcome {
            Ok(value) => {
                let committed = sqlx::query("commit").execute(&mut self.connection).await;
                committed.map(|_| value).map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // SQLite may have rolled back by itself (a full disk does that); then this one says so, harmlessly.
            sqlx::query("rollback").execute(&mut self.connection).await.ok();
        }
        outcome
    }

    /// Commits a slice of hot rows by itself, where it is due. Whether it was.
    async fn settle(&mut self) -> Result<bool, StoreError> {
        let nothing = Batch::default();
        let slice = self.settling.slice(&nothing);
        if !slice.is_empty() {
            self.commit_with(&nothing, &slice).await?;
        }
        // Also where nothing had to be written: the slice is done.
        self.settling.committed(&nothing, &slice);
        Ok(!slice.is_empty())
    }

    /// Gives some unused space back; whether it did. That it cannot is no reason to do anything else: it is tried again.
    async fn give_back(&mut self) -> bool {
        let gave = space::give_some_back(&mut self.connection).await.unwrap_or(false);
        if gave {
            self.empty_wal_within(LET_GO_WITHIN);
        }
        gave
    }

    fn empty_wal_within(&mut self, within: Duration) {
        let due = Instant::now() + within;
        self.empties = Some(self.empties.map_or(due, |before| before.min(due)));
    }

    /// What was erased is gone once the write-ahead log was emptied, which has to wait until nobody reads the old one.
    async fn empty_wal_when_due(&mut self) {
        if self.empties.is_none_or(|due| due > Instant::now()) {
            return;
        }
        let emptied = wal::truncate(&mut self.connection).await.is_ok() && wal::bytes(&self.path) == 0;
        // Each try writes pages to the file, so while somebody reads the old log there are few.
        self.empties = (!emptied).then(|| Instant::now() + TRY_AGAIN);
    }
}

#[async_trait]
impl Writer for SqliteWriter {
    async fn turn<'writer>(&'writer mut self, _: Option<&At>) -> Result<Box<dyn Turn + 'writer>, StoreError> {
        Ok(Box::new(Always(self)))
    }

    async fn maintain(&mut self) -> Result<(), StoreError> {
        self.files.check()?;
        self.empty_wal_when_due().await;
        if self.commits >= LOOKS {
            self.commits = 0;
            if wal::bytes(&self.path) > wal::LARGE {
                wal::truncate(&mut self.connection).await.ok();
            }
            self.give_back().await;
        }
        Ok(())
    }

    async fn idle(&mut self) -> Result<bool, StoreError> {
        if self.settle().await? {
            return Ok(true);
        }
        Ok(self.give_back().await)
    }

    async fn health(&mut self) -> Result<Vec<Check>, StoreError> {
        checks(&mut self.connection).await
    }

    async fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        while self.settling.hurry() {
            match self.settle().await {
                Ok(_) => {}
                Err(error) if error.ends_all() => return Err(error),
                // What is not in the rows is folded over them at the next start.
                Err(_) => break,
            }
        }
        wal::close(self.connection).await
    }
}

/// The turn of the only writer: it is always its own.
struct Always<'writer>(&'writer mut SqliteWriter);

#[async_trait]
impl Turn for Always<'_> {
    fn missed(&mut self, _: i64) -> Vec<Commit> {
        vec![]
    }

    fn now(&self) -> Option<Time> {
        None
    }

    async fn commit(self: Box<Self>, batch: &Batch) -> Result<i64, StoreError> {
        let writer = self.0;
        let slice = writer.settling.slice(batch);
        writer.commit_with(batch, &slice).await?;
        writer.settling.committed(batch, &slice);
        if let Some(within) = batch.side.iter().filter_map(erases).min() {
            writer.empty_wal_within(within);
        }
        writer.commits += 1;
        Ok(0)
    }
}

/// How soon what a write erases has to be gone from the write-ahead log, if it erases anything. Somebody waits for an erasure;
/// what is let go goes in many small steps, and emptying the log after each would cost more than they do.
fn erases(side: &SideWrite) -> Option<Duration> {
    match side {
        SideWrite::ErasePrincipal(_) | SideWrite::ErasePersonal(_) => Some(Duration::ZERO),
        SideWrite::LetSessionsGo { .. } | SideWrite::Fold { .. } => Some(LET_GO_WITHIN),
        _ => None,
    }
}

/// Asks the live connection what it runs on.
async fn checks(connection: &mut SqliteConnection) -> Result<Vec<Check>, StoreError> {
    let version: String = sqlx::query_scalar("select sqlite_version()").fetch_one(&mut *connection).await?;
    let mode: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&mut *connection).await?;
    let synchronous: i64 = sqlx::query_scalar("pragma synchronous").fetch_one(&mut *connection).await?;
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    let old = (part(), part(), part()) < OLDEST_SQLITE;
    let old = old
        .then(|| format!("SQLite {version} can corrupt a database in WAL mode; 3.51.3 or newer is needed"));
    let word = match synchronous {
        0 => "OFF",
        1 => "NORMAL",
        2 => "FULL",
        _ => "EXTRA",
    };
    let not_wal = (mode != "wal").then(|| format!("journal_mode is {mode}, not wal"));
    let not_full = (synchronous != 2).then(|| format!("synchronous is {synchronous}, not 2 (FULL)"));
    Ok(vec![
        Check { name: "sqlite", value: format!("{version} ok"), fault: old },
        Check { name: "journal_mode", value: mode, fault: not_wal },
        Check { name: "synchronous", value: word.to_owned(), fault: not_full },
    ])
}
