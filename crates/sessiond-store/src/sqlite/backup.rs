//! A copy of a database, taken while others write to it.
//!
//! The log is copied in pages: what is in it does not move, so each page needs a snapshot of its own and no longer. One
//! snapshot at the end takes the log's last few events together with what is small beside them; what there may be millions of
//! follows in pages, up to the numbers that there were. The rows are left out, because they are made from the log.

use std::fs::File;
use std::path::Path;

use sessiond_core::ids::{Position, SessionNumber};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::{MIGRATIONS, journals, location, options};
use crate::StoreError;
use crate::check::{PAGE, Progress};
use crate::migrate::{migrate, of_another_release};
use crate::seam::BackedUp;
use crate::tables::ROWS;

/// Tables beside the log that may have millions of rows, each with the number by which it is read.
const LARGE: [(&str, &str); 4] = [
    ("principal", "number"),
    ("session_token", "session"),
    ("mcp_session", "session"),
    ("confirmation", "session"),
];
/// Blocks of journals copied at a time: of some KiB each.
const BLOCKS: i64 = 128;

/// Copies the database behind a URL into a new file.
pub(crate) async fn backup(url: &str, to: &Path, progress: Progress<'_>) -> Result<BackedUp, StoreError> {
    let options = options(url)?;
    let mut copy = DatabaseCopy::begin(options, url, to, &MIGRATIONS).await?;
    let before = copy.marks().await?;
    copy.follow_log(progress).await?;
    let taken = copy.take_the_rest(&before).await?;
    copy.follow_large(&taken).await?;
    if copy.erasures().await? != before.erased {
        copy.take_over_erasures().await?;
    }
    copy.unchanged(&taken).await?;
    copy.finish(to).await?;
    Ok(taken.backed_up)
}

/// Copies the journals behind a URL into a new file, those of sessions up to one.
pub(crate) async fn backup_journals(
    url: &str,
    to: &Path,
    last_session: SessionNumber,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let mut copy = DatabaseCopy::begin(journals::options(url)?, url, to, &journals::MIGRATIONS).await?;
    copy.follow_journals(last_session, progress).await?;
    copy.finish(to).await
}

/// Puts a copy where a URL points. The file is there whole, or its name is not.
pub(crate) async fn restore(from: &Path, url: &str) -> Result<(), StoreError> {
    let options = location(url)?;
    let to = options.get_filename().to_owned();
    let copied = std::fs::File::create_new(&to).and_then(|mut file| {
        std::io::copy(&mut File::open(from)?, &mut file)?;
        file.sync_all()
    });
    copied.map_err(failed)
}

fn failed(error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Failed(error.to_string()),
    }
}

/// How far two kinds of housekeeping had come.
struct Marks {
    /// What organizations had let go, as they account for it.
    let_go: String,
    erased: i64,
}

/// What was there in the one snapshot that everything else goes by.
struct Taken {
    backed_up: BackedUp,
    last_principal: i64,
}

/// A file that is being made from another, which is attached to it as `live` and never written to.
struct DatabaseCopy {
    connection: SqliteConnection,
    migrations: &'static Migrator,
}

impl DatabaseCopy {
    /// Makes the new file, of the form of this release, and opens the other one beside it.
    async fn begin(
        options: SqliteConnectOptions,
        url: &str,
        to: &Path,
        migrations: &'static Migrator,
    ) -> Result<Self, StoreError> {
        // Until it is finished the copy is of no use to anybody, so nothing of it has to survive.
        let options = options
            .filename(to)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Memory)
            .synchronous(SqliteSynchronous::Off);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        migrate(migrations, &mut connection).await?;
        let live = location(url)?;
        let live = live.get_filename().to_string_lossy().into_owned();
        sqlx::query("attach database ? as live").bind(live).execute(&mut connection).await?;
        let mut copy = Self { connection, migrations };
        copy.same_form().await?;
        Ok(copy)
    }

    /// That the other file has the form of this release: what an older one wrote is copied by the older one, and a start of
    /// this one brings it to the newer form.
    async fn same_form(&mut self) -> Result<(), StoreError> {
        let live = "select version from live._sqlx_migrations order by version";
        let live: Vec<i64> = sqlx::query_scalar(live).fetch_all(&mut self.connection).await?;
        match of_another_release(self.migrations, &live) {
            None => Ok(()),
            Some(what) => Err(StoreError::Failed(format!(
                "{what}. Take the backup with that release, or start this one first, which brings the database to its form"
            ))),
        }
    }

    /// Copies rows of a table: all, or those that a condition names. Columns go by their names, because their order is that
    /// in which migrations came.
    async fn copy(&mut self, table: &str, condition: &str) -> Result<u64, StoreError> {
        let columns = "select group_concat(name) from pragma_table_info(?)";
        let columns: String = sqlx::query_scalar(columns).bind(table).fetch_one(&mut self.connection).await?;
        let sql =
            format!("insert into main.{table} ({columns}) select {columns} from live.{table} {condition}");
        self.execute(sql).await
    }

    async fn number(&mut self, sql: &'static str) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?)
    }

    async fn execute(&mut self, sql: String) -> Result<u64, StoreError> {
        Ok(sqlx::query(AssertSqlSafe(sql)).execute(&mut self.connection).await?.rows_affected())
    }

    async fn marks(&mut self) -> Result<Marks, StoreError> {
        Ok(Marks { let_go: self.let_go().await?, erased: self.erasures().await? })
    }

    async fn let_go(&mut self) -> Result<String, StoreError> {
        let sql = "select coalesce(group_concat(number || let_go), '') from live.organization where let_go is not null";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connection).await?)
    }

    async fn erasures(&mut self) -> Result<i64, StoreError> {
        self.number("select coalesce(max(position), 0) from live.mark where name = 'erased'").await
    }

    /// Copies the log on from where the copy ends, page by page, to where it ends at that moment.
    async fn follow_log(&mut self, progress: Progress<'_>) -> Result<(), StoreError> {
        let mut done = 0;
        loop {
            let page = format!("where position > {done} order by position limit {PAGE}");
            let copied = self.copy("event", &page).await?;
            done = self.number("select coalesce(max(position), 0) from main.event").await?;
            let total = self.number("select coalesce(max(position), 0) from live.event").await?;
            progress(done.unsigned_abs(), total.max(done).unsigned_abs());
            if copied < u64::from(PAGE) {
                return Ok(());
            }
        }
    }

    /// Takes the log's last events and all small tables beside it, in one snapshot.
    async fn take_the_rest(&mut self, before: &Marks) -> Result<Taken, StoreError> {
        self.execute("begin".to_owned()).await?;
        self.copy("event", "where position > (select coalesce(max(position), 0) from main.event)").await?;
        let tables = "select name from main.sqlite_schema where type = 'table' and name not like 'sqlite%' \
                      and name not in ('_sqlx_migrations', 'event')";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut self.connection).await?;
        let elsewhere = |table: &str| ROWS.contains(&table) || LARGE.iter().any(|(large, _)| *large == table);
        for table in tables.iter().filter(|table| !elsewhere(table)) {
            self.copy(table, "").await?;
        }
        // All else that is marked is of the rows.
        self.execute("delete from main.mark where name <> 'erased'".to_owned()).await?;
        // What was let go after its page was read is gone from the copy too: the hashes that stand for it are in this snapshot.
        if self.let_go().await? != before.let_go {
            let gone = "delete from main.event where position not in (select position from live.event)";
            self.execute(gone.to_owned()).await?;
        }
        let taken = Taken {
            backed_up: self.backed_up().await?,
            last_principal: self.number("select coalesce(max(number), 0) from live.principal").await?,
        };
        self.execute("commit".to_owned()).await?;
        Ok(taken)
    }

    async fn backed_up(&mut self) -> Result<BackedUp, StoreError> {
        let last = "select position, commit_hash from main.event order by position desc limit 1";
        let last: Option<(i64, Option<Vec<u8>>)> =
            sqlx::query_as(last).fetch_optional(&mut self.connection).await?;
        let (position, hash) = last.unwrap_or_default();
        let last_session = self.number("select coalesce(max(number), 0) from live.session").await?;
        Ok(BackedUp {
            position: Position(position),
            commit_hash: digest(hash, "the last event has no hash of its commit")?.unwrap_or_default(),
            key_check: self.key_check("select digest from main.key_check").await?,
            last_session: SessionNumber(last_session),
        })
    }

    async fn key_check(&mut self, sql: &'static str) -> Result<Option<[u8; 32]>, StoreError> {
        let found: Option<Vec<u8>> = sqlx::query_scalar(sql).fetch_optional(&mut self.connection).await?;
        digest(found, "the check value of the secret key is damaged")
    }

    /// Copies what there may be millions of, page by page, up to the numbers that there were. It may be newer than the log in
    /// the copy; nothing in it may have been issued after that log's end.
    async fn follow_large(&mut self, taken: &Taken) -> Result<(), StoreError> {
        let BackedUp { position, last_session, .. } = taken.backed_up;
        for (table, key) in LARGE {
            let last = if table == "principal" { taken.last_principal } else { last_session.0 };
            let mut copied = u64::from(PAGE);
            while copied == u64::from(PAGE) {
                let after = format!("(select coalesce(max({key}), 0) from main.{table})");
                let page = format!("{key} > {after} and {key} <= {last} order by {key} limit {PAGE}");
                copied = self.copy(table, &format!("where {page}")).await?;
            }
        }
        let position = position.0;
        self.execute(format!(
            "update main.session_token set issued_at = {position} where issued_at > {position}"
        ))
        .await?;
        Ok(())
    }

    /// Looks through all that was copied for what was erased since, page by page.
    async fn take_over_erasures(&mut self) -> Result<(), StoreError> {
        let (mut from, step) = (0, i64::from(PAGE));
        let last = self.number("select coalesce(max(position), 0) from main.event").await?;
        while from < last {
            self.execute(format!(
                "update main.event set body = l.body, body_digest = l.body_digest, personal = l.personal \
                 from live.event l where l.position = event.position \
                 and event.position > {from} and event.position <= {from} + {step} \
                 and l.type = 'connected' and (l.personal is not event.personal or l.body is not event.body)"
            ))
            .await?;
            from += step;
        }
        Ok(())
    }

    /// That nobody replaced the secret key or the form of the database meanwhile: some of it would be of another one.
    async fn unchanged(&mut self, taken: &Taken) -> Result<(), StoreError> {
        self.same_form().await?;
        if self.key_check("select digest from live.key_check").await? == taken.backed_up.key_check {
            return Ok(());
        }
        let what = "the secret key was replaced while the backup was taken: take it again";
        Err(StoreError::Failed(what.to_owned()))
    }

    async fn follow_journals(
        &mut self,
        last: SessionNumber,
        progress: Progress<'_>,
    ) -> Result<(), StoreError> {
        let SessionNumber(last) = last;
        let (mut done, mut copied) = (0, BLOCKS.unsigned_abs());
        while copied == BLOCKS.unsigned_abs() {
            let page = format!("number > {done} and session <= {last} order by number limit {BLOCKS}");
            copied = self.copy("block", &format!("where {page}")).await?;
            done = self.number("select coalesce(max(number), 0) from main.block").await?;
            let total = self.number("select coalesce(max(number), 0) from live.block").await?;
            progress(done.unsigned_abs(), total.max(done).unsigned_abs());
        }
        // What was forgotten meanwhile is gone from the copy too, and how far journals went follows what is in them.
        self.execute("begin".to_owned()).await?;
        self.execute("delete from main.block where number not in (select number from live.block)".to_owned())
            .await?;
        self.copy("tail", &format!("where session <= {last}")).await?;
        self.execute("commit".to_owned()).await?;
        Ok(())
    }

    /// Closes the copy, and has the disk keep it.
    async fn finish(self, to: &Path) -> Result<(), StoreError> {
        self.connection.close().await?;
        File::open(to).and_then(|file| file.sync_all()).map_err(failed)
    }
}

fn digest(bytes: Option<Vec<u8>>, what: &str) -> Result<Option<[u8; 32]>, StoreError> {
    let bytes = bytes.map(<[u8; 32]>::try_from).transpose();
    bytes.map_err(|_| StoreError::Corrupt(what.to_owned()))
}
