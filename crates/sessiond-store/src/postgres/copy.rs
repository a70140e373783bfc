//! The tables of a database, for copying.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use sessiond_core::ids::Position;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgArguments, PgConnection, Postgres};
use sqlx::query::Query;

use super::link::{Durability, Link};
use super::servers::Servers;
use super::{MIGRATIONS, company, migrated};
use crate::StoreError;
use crate::copy::{
    COPYING, Cell, Chunk, Column, Holds, Source, Tables, Target, cells, must_be_empty, not_empty,
};
use crate::doomed::BESIDE_PAYLOAD;
use crate::migrate::of_another_release;
use crate::tables::ROWS;

/// What is this kind's own: where its log stands is made again, and no commit is remembered of what was there before.
const OWN: [&str; 3] = ["mark", "log_commit", "journal_bytes"];

struct Database {
    /// By what nobody else writes meanwhile.
    link: Link,
    /// What is read, as it was at one moment; none where it is written to.
    reading: Option<PgConnection>,
}

/// Opens a store to copy it: as it is now, for as long as that takes.
pub(crate) async fn source(url: &str) -> Result<Box<dyn Source>, StoreError> {
    let servers = Servers::of(url)?;
    let (_, mut reading) = servers.primary().await?;
    let sql = "select version from _sqlx_migrations order by version";
    let there: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut reading).await?;
    if let Some(what) = of_another_release(&MIGRATIONS, &there) {
        return Err(StoreError::Failed(format!(
            "{what}. Start this one on it first, which brings it to its form, or copy it with the other"
        )));
    }
    let link = locked(&servers).await?;
    // Whoever waits for the turn in vain gives up. It is held as long as the copy takes.
    let patient = "select set_config('statement_timeout', '0', false), \
                   set_config('idle_in_transaction_session_timeout', '0', false)";
    sqlx::query(patient).execute(&mut reading).await?;
    let begin = format!(
        "begin isolation level repeatable read read only; select pg_advisory_xact_lock({})",
        link.turn_key
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut reading).await?;
    Ok(Box::new(Database { link, reading: Some(reading) }))
}

/// Brings a database to this release's form to copy to it, or empties one into which an earlier copy came to no end.
pub(crate) async fn target(url: &str) -> Result<Box<dyn Target>, StoreError> {
    let servers = Servers::of(url)?;
    migrated(&servers).await?;
    let mut database = Database { link: locked(&servers).await?, reading: None };
    let unfinished = database.count("mark", &format!("name = '{COPYING}'")).await? > 0;
    if !unfinished {
        for table in must_be_empty() {
            if database.count(table, "true").await? > 0 {
                return Err(not_empty(table));
            }
        }
    }
    // Now it is a copy that is not finished, whatever happens; until it is, nothing of it has to survive.
    let all: Vec<_> = must_be_empty().chain(ROWS).chain(OWN).collect();
    let sql = format!(
        "begin; truncate {}; insert into mark (name, position) values ('{COPYING}', 1); commit; \
         set synchronous_commit = off",
        all.join(", ")
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(database.connection()).await?;
    Ok(Box::new(database))
}

/// Takes the mark of a copy that is not finished away. With this commit all of it survives.
pub(crate) async fn release(url: &str) -> Result<(), StoreError> {
    let mut link = Link::make(&Servers::of(url)?, Durability::Everywhere).await?;
    let sql = "delete from mark where name = $1";
    sqlx::query(sql).bind(COPYING).execute(&mut link.connection).await?;
    link.close().await;
    Ok(())
}

/// Makes sure that nobody else works on the database for as long as this connection lasts.
async fn locked(servers: &Servers) -> Result<Link, StoreError> {
    let mut link = Link::make(servers, Durability::Everywhere).await?;
    company::take(&mut link, None).await?;
    Ok(link)
}

impl Database {
    fn connection(&mut self) -> &mut PgConnection {
        self.reading.as_mut().unwrap_or(&mut self.link.connection)
    }
}

#[async_trait]
impl Tables for Database {
    async fn columns(&mut self, table: &'static str) -> Result<Vec<Column>, StoreError> {
        let sql = "select column_name::text, data_type::text from information_schema.columns \
                   where table_schema = current_schema() and table_name = $1 order by column_name::text collate \"C\"";
        let query = sqlx::query_as(sql).bind(table);
        let columns: Vec<(String, String)> = query.fetch_all(self.connection()).await?;
        let column = |(name, holds): (String, String)| {
            let holds = match holds.as_str() {
                "bigint" => Holds::Integer,
                "boolean" => Holds::Flag,
                "text" => Holds::Text,
                "bytea" => Holds::Bytes,
                "uuid" => Holds::Id,
                other => return Err(StoreError::Failed(format!("{table}.{name} is of the type {other}"))),
            };
            Ok(Column { name, holds })
        };
        columns.into_iter().map(column).collect()
    }

    async fn count(&mut self, table: &'static str, condition: &str) -> Result<u64, StoreError> {
        let sql = format!("select count(*) from {table} where {condition}");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(self.connection()).await?;
        Ok(count.unsigned_abs())
    }

    async fn head(&mut self) -> Result<(Position, Option<Vec<u8>>), StoreError> {
        let sql = "select position, commit_hash from event order by position desc limit 1";
        let head: Option<(i64, Option<Vec<u8>>)> =
            sqlx::query_as(sql).fetch_optional(self.connection()).await?;
        let (position, hash) = head.unwrap_or_default();
        Ok((Position(position), hash))
    }

    async fn sessions(&mut self) -> Result<Vec<(String, i64)>, StoreError> {
        let sql = "select kind, count(*) from session group by kind order by kind collate \"C\"";
        Ok(sqlx::query_as(sql).fetch_all(self.connection()).await?)
    }
}

impl Source for Database {
    fn rows<'rows>(
        &'rows mut self,
        table: &'static str,
        columns: &'rows [Column],
        condition: &'rows str,
    ) -> BoxStream<'rows, Result<Vec<Cell>, StoreError>> {
        let names: Vec<_> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let sql = format!("select {} from {table} where {condition}", names.join(", "));
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch(self.connection()).map_err(StoreError::from);
        rows.and_then(move |row| std::future::ready(cells(&row, columns))).boxed()
    }
}

#[async_trait]
impl Target for Database {
    async fn insert(&mut self, chunk: Chunk<'_>) -> Result<(), StoreError> {
        let Chunk { table, columns, rows } = chunk;
        let names: Vec<_> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let lists = (1..).zip(columns).map(|(place, column)| format!("${place}::{}[]", array(column.holds)));
        let sql = format!(
            "insert into {table} ({}) select * from unnest({})",
            names.join(", "),
            lists.collect::<Vec<_>>().join(", ")
        );
        let mut lists: Vec<Vec<Cell>> = columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
        for row in rows {
            lists.iter_mut().zip(row).for_each(|(list, cell)| list.push(cell));
        }
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (column, list) in columns.iter().zip(lists) {
            query = bind(query, table, column, list)?;
        }
        query.execute(self.connection()).await?;
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        // The next block has a number beyond those that were copied, and the bytes of all are counted.
        let sql = format!(
            "select setval(pg_get_serial_sequence('block', 'number'), max(number)) from block having count(*) > 0; \
             insert into journal_bytes (writer, bytes) \
             select gen_random_uuid(), sum(length(payload) + {BESIDE_PAYLOAD}) from block having count(*) > 0"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(self.connection()).await?;
        self.link.close().await;
        Ok(())
    }
}

fn array(holds: Holds) -> &'static str {
    match holds {
        Holds::Integer => "bigint",
        Holds::Flag => "boolean",
        Holds::Text => "text",
        Holds::Bytes => "bytea",
        Holds::Id => "uuid",
    }
}

type Insert<'query> = Query<'query, Postgres, PgArguments>;

/// Binds the values of one column, a list of them.
fn bind<'query>(
    query: Insert<'query>,
    table: &str,
    column: &Column,
    list: Vec<Cell>,
) -> Result<Insert<'query>, StoreError> {
    let no_text = |cell: &Cell| matches!(cell, Cell::Text(text) if text.contains('\0'));
    if list.iter().any(no_text) {
        return Err(StoreError::Failed(format!(
            "a text in {table}.{} has the character U+0000, which PostgreSQL keeps in no text",
            column.name
        )));
    }
    let bound = match column.holds {
        Holds::Integer => values(list, |cell| if let Cell::Integer(one) = cell { Some(one) } else { None })
            .map(|list| query.bind(list)),
        Holds::Flag => values(list, |cell| if let Cell::Flag(one) = cell { Some(one) } else { None })
            .map(|list| query.bind(list)),
        Holds::Text => values(list, |cell| if let Cell::Text(one) = cell { Some(one) } else { None })
            .map(|list| query.bind(list)),
        Holds::Bytes => values(list, |cell| if let Cell::Bytes(one) = cell { Some(one) } else { None })
            .map(|list| query.bind(list)),
        Holds::Id => values(list, |cell| if let Cell::Id(one) = cell { Some(one) } else { None })
            .map(|list| query.bind(list)),
    };
    bound
        .ok_or_else(|| StoreError::Failed(format!("{table}.{} holds something of another type", column.name)))
}

/// The values of one type, or null; none if one of them is of another type.
fn values<Value>(list: Vec<Cell>, of_type: fn(Cell) -> Option<Value>) -> Option<Vec<Option<Value>>> {
    let value = |cell| match cell {
        Cell::Null => Some(None),
        cell => of_type(cell).map(Some),
    };
    list.into_iter().map(value).collect()
}
