//! A look at a database before anything is done to it, and at what a secret key is to fit.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Row, SqliteConnection};
use uuid::Uuid;

use super::{Writer, bytes32, location};
use crate::StoreError;

/// What was found where a database should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Whether there is a file with something in it.
    pub file: bool,
    /// Whether anything was ever recorded there.
    pub events: bool,
    /// What the secret key of this database is known by.
    pub key_check: Option<[u8; 32]>,
}

/// What only the right secret key fits.
#[derive(Debug, Default)]
pub struct Witnesses {
    /// Issuer, subject and the keyed digest of both.
    pub people: Vec<(String, String, [u8; 32])>,
    /// What may be sealed under which word, whose it is, and the sealed bytes.
    pub sealed: Vec<(&'static [&'static str], Uuid, Vec<u8>)>,
}

/// How many of each kind are asked for: one would do, if it is not damaged.
const SAMPLES: i64 = 8;

/// Options of a connection that only looks: it makes no file and changes none. A database that nobody has open, and whose
/// write-ahead log is empty, is read as if it could not change, so that none is made for it.
pub fn looking(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    let options = location(url)?.read_only(true).busy_timeout(Duration::from_secs(10));
    let idle = super::wal_bytes(options.get_filename()) == 0 && !has_shm(options.get_filename());
    Ok(options.immutable(idle))
}

fn has_shm(database: &Path) -> bool {
    let mut path = database.as_os_str().to_owned();
    path.push("-shm");
    Path::new(&path).exists()
}

/// Looks at a database without changing anything, not even making it.
pub async fn look(url: &str) -> Result<Found, StoreError> {
    let options = looking(url)?;
    if std::fs::metadata(options.get_filename()).map_or(0, |metadata| metadata.len()) == 0 {
        return Ok(Found::default());
    }
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let has = async |connection: &mut SqliteConnection, table: &str| {
        sqlx::query_scalar::<_, bool>("select exists (select 1 from sqlite_schema where name = ?)")
            .bind(table)
            .fetch_one(connection)
            .await
    };
    let mut found = Found { file: true, ..Found::default() };
    if has(&mut connection, "event").await? {
        found.events =
            sqlx::query_scalar("select exists (select 1 from event)").fetch_one(&mut connection).await?;
    }
    if has(&mut connection, "key_check").await? {
        let row = sqlx::query("select digest from key_check").fetch_optional(&mut connection).await?;
        found.key_check = row.map(|row| bytes32(&row, "digest")).transpose()?;
    }
    connection.close().await?;
    Ok(found)
}

impl Writer {
    /// Writes down what the secret key of this database is known by.
    pub async fn set_key_check(&mut self, digest: &[u8; 32]) -> Result<(), StoreError> {
        sqlx::query("insert or replace into key_check (only_one, digest) values (1, ?)")
            .bind(digest.as_slice())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Samples of what only the right secret key fits, for a database from before there was a check.
    pub async fn witnesses(&mut self) -> Result<Witnesses, StoreError> {
        let mut witnesses = Witnesses::default();
        let people = "select issuer, subject, subject_digest from principal where subject is not null \
                      order by number desc limit ?";
        for row in sqlx::query(people).bind(SAMPLES).fetch_all(&mut self.connection).await? {
            witnesses.people.push((row.try_get(0)?, row.try_get(1)?, bytes32(&row, "subject_digest")?));
        }
        let sealed: [(&'static [&'static str], &'static str); 3] = [
            (&["webhook", "hook"], "select id, sealed from webhook_secret order by id desc limit ?"),
            (&["machine"], "select id, sealed from machine_secret order by id desc limit ?"),
            (
                &["mcp_session"],
                "select s.id, m.sealed from mcp_session m join session s on s.number = m.session \
                 order by m.session desc limit ?",
            ),
        ];
        for (words, sql) in sealed {
            for row in sqlx::query(sql).bind(SAMPLES).fetch_all(&mut self.connection).await? {
                witnesses.sealed.push((words, row.try_get(0)?, row.try_get(1)?));
            }
        }
        Ok(witnesses)
    }
}
