//! The tables of a file, and of its journals', for copying.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use sessiond_core::ids::Position;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::journals::{self, SqliteJournalWriter};
use super::look::looking;
use super::writer::SqliteWriter;
use super::{MIGRATIONS, wal};
use crate::StoreError;
use crate::copy::{
    COPYING, Cell, Chunk, Column, Holds, Source, Tables, Target, cells, must_be_empty, not_empty,
};
use crate::migrate::of_another_release;
use crate::tables::{JOURNALS, ROWS};

/// The two files, of which the one of journals may not be there.
struct Files {
    store: SqliteConnection,
    journals: Option<SqliteConnection>,
    /// Chunks that were written since the write-ahead logs were looked at.
    chunks: u64,
}

/// How often they are looked at, in chunks: a log that grows as the copy does would need its space once more.
const LOOKS: u64 = 16;

/// Opens a store to copy it: as it is now, for as long as that takes.
pub(crate) async fn source(url: &str, journals_url: &str) -> Result<Box<dyn Source>, StoreError> {
    let store = look_at(url, &MIGRATIONS).await?;
    let store = store.ok_or_else(|| StoreError::Failed("there is no database to copy".to_owned()))?;
    let journals = look_at(journals_url, &journals::MIGRATIONS).await?;
    Ok(Box::new(Files { store, journals, chunks: 0 }))
}

/// Opens a file as it is now; none where there is none.
async fn look_at(url: &str, migrations: &Migrator) -> Result<Option<SqliteConnection>, StoreError> {
    let options = looking(url)?;
    if !options.get_filename().exists() {
        return Ok(None);
    }
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::query("begin").execute(&mut connection).await?;
    let sql = "select version from _sqlx_migrations order by version";
    let there: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut connection).await?;
    match of_another_release(migrations, &there) {
        None => Ok(Some(connection)),
        Some(what) => Err(StoreError::Failed(format!(
            "{what}. Start this one on it first, which brings it to its form, or copy it with the other"
        ))),
    }
}

/// Makes files to copy to, or empties those into which an earlier copy came to no end.
pub(crate) async fn target(url: &str, journals_url: &str) -> Result<Box<dyn Target>, StoreError> {
    let store = SqliteWriter::connect(url).await?.connection;
    let journals = SqliteJournalWriter::open(journals_url).await?.connection;
    let mut files = Files { store, journals: Some(journals), chunks: 0 };
    let sql = "select exists (select 1 from mark where name = ?)";
    let unfinished: bool = sqlx::query_scalar(sql).bind(COPYING).fetch_one(&mut files.store).await?;
    for table in must_be_empty() {
        if unfinished {
            files.execute(table, format!("delete from {table}")).await?;
        } else if files.count(table, "true").await? > 0 {
            return Err(not_empty(table));
        }
    }
    for table in ROWS.into_iter().chain(["mark"]) {
        files.execute(table, format!("delete from {table}")).await?;
    }
    // Now it is a copy that is not finished, whatever happens; until it is, nothing of it has to survive.
    files.execute("mark", format!("insert into mark (name, position) values ('{COPYING}', 1)")).await?;
    for table in ["event", "block"] {
        files.execute(table, "pragma synchronous = off".to_owned()).await?;
    }
    Ok(Box::new(files))
}

/// Takes the mark of a copy that is not finished away.
pub(crate) async fn release(url: &str) -> Result<(), StoreError> {
    let mut connection = SqliteWriter::connect(url).await?.connection;
    sqlx::query("delete from mark where name = ?").bind(COPYING).execute(&mut connection).await?;
    wal::close(connection).await
}

impl Files {
    /// The file in which a table is.
    fn of(&mut self, table: &str) -> Option<&mut SqliteConnection> {
        if JOURNALS.contains(&table) { self.journals.as_mut() } else { Some(&mut self.store) }
    }

    async fn execute(&mut self, table: &str, sql: String) -> Result<(), StoreError> {
        if let Some(connection) = self.of(table) {
            sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Tables for Files {
    async fn columns(&mut self, table: &'static str) -> Result<Vec<Column>, StoreError> {
        let Some(connection) = self.of(table) else { return Ok(vec![]) };
        let sql = "select name, type from pragma_table_info(?) order by name";
        let columns: Vec<(String, String)> = sqlx::query_as(sql).bind(table).fetch_all(connection).await?;
        let column = |(name, holds): (String, String)| {
            let holds = match holds.to_ascii_lowercase().as_str() {
                "integer" => Holds::Integer,
                "text" => Holds::Text,
                "blob" => Holds::Bytes,
                other => return Err(StoreError::Failed(format!("{table}.{name} is of the type {other}"))),
            };
            Ok(Column { name, holds })
        };
        columns.into_iter().map(column).collect()
    }

    async fn count(&mut self, table: &'static str, condition: &str) -> Result<u64, StoreError> {
        let Some(connection) = self.of(table) else { return Ok(0) };
        let sql = format!("select count(*) from {table} where {condition}");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await?;
        Ok(count.unsigned_abs())
    }

    async fn head(&mut self) -> Result<(Position, Option<Vec<u8>>), StoreError> {
        let sql = "select position, commit_hash from event order by position desc limit 1";
        let head: Option<(i64, Option<Vec<u8>>)> =
            sqlx::query_as(sql).fetch_optional(&mut self.store).await?;
        let (position, hash) = head.unwrap_or_default();
        Ok((Position(position), hash))
    }

    async fn sessions(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "select kind, count(*) from session group by kind order by kind";
        Ok(sqlx::query_as(sql).fetch_all(&mut self.store).await?)
    }
}

impl Source for Files {
    fn rows<'rows>(
        &'rows mut self,
        table: &'static str,
        columns: &'rows [Column],
        condition: &'rows str,
    ) -> BoxStream<'rows, Result<Vec<Cell>, StoreError>> {
        let Some(connection) = self.of(table) else { return futures_util::stream::empty().boxed() };
        let names: Vec<_> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let sql = format!("select {} from {table} where {condition}", names.join(", "));
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch(connection).map_err(StoreError::from);
        rows.and_then(move |row| std::future::ready(cells(&row, columns))).boxed()
    }
}

#[async_trait]
impl Target for Files {
    async fn insert(&mut self, chunk: Chunk<'_>) -> Result<(), StoreError> {
        let Chunk { table, columns, rows } = chunk;
        self.chunks += 1;
        let looks = self.chunks.is_multiple_of(LOOKS);
        let Some(connection) = self.of(table) else { return Ok(()) };
        let names: Vec<_> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let places = vec!["?"; columns.len()].join(", ");
        let sql = format!("insert into {table} ({}) values ({places})", names.join(", "));
        let mut transaction = connection.begin().await?;
        for row in rows {
            let mut query = sqlx::query(AssertSqlSafe(sql.clone()));
            for cell in row {
                query = match cell {
                    Cell::Null => query.bind(None::<i64>),
                    Cell::Integer(number) => query.bind(number),
                    Cell::Flag(flag) => query.bind(flag),
                    Cell::Text(text) => query.bind(text),
                    Cell::Bytes(bytes) => query.bind(bytes),
                    Cell::Id(id) => query.bind(id),
                };
            }
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        if looks {
            wal::truncate(connection).await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        for table in ["event", "block"] {
            self.execute(table, "pragma synchronous = full".to_owned()).await?;
        }
        // What is moved out of the write-ahead log is on disk before that goes.
        wal::close(self.store).await?;
        match self.journals {
            Some(journals) => wal::close(journals).await,
            None => Ok(()),
        }
    }
}
