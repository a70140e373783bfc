//! Looking into a database beside the service, in SQL that both databases understand.

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, Column, Connection, FromRow, PgConnection, Row, SqliteConnection, TypeInfo, ValueRef,
};
use uuid::Uuid;

/// A connection that reads the database as it is.
pub enum Inside {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// What takes the place of `$1` and so on in a query.
#[derive(Clone)]
pub enum Bound<'text> {
    Number(i64),
    Text(&'text str),
    Id(Uuid),
}

impl From<i64> for Bound<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl<'text> From<&'text str> for Bound<'text> {
    fn from(text: &'text str) -> Self {
        Self::Text(text)
    }
}

impl From<Uuid> for Bound<'_> {
    fn from(id: Uuid) -> Self {
        Self::Id(id)
    }
}

impl Inside {
    pub async fn of(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            let options: sqlx::sqlite::SqliteConnectOptions = url.parse().unwrap();
            Self::Sqlite(SqliteConnection::connect_with(&options.read_only(true)).await.unwrap())
        } else {
            Self::Postgres(PgConnection::connect(url).await.unwrap())
        }
    }

    /// All rows of a query, as tuples.
    pub async fn rows<T>(&mut self, sql: &str, bound: &[Bound<'_>]) -> Vec<T>
    where
        T: for<'row> FromRow<'row, SqliteRow> + for<'row> FromRow<'row, PgRow> + Send + Unpin,
    {
        match self {
            Self::Sqlite(connection) => {
                let query =
                    bound.iter().fold(sqlx::query_as(AssertSqlSafe(sql)), |query, bound| match *bound {
                        Bound::Number(number) => query.bind(number),
                        Bound::Text(text) => query.bind(text.to_owned()),
                        Bound::Id(id) => query.bind(id),
                    });
                query.fetch_all(connection).await.unwrap()
            }
            Self::Postgres(connection) => {
                let query =
                    bound.iter().fold(sqlx::query_as(AssertSqlSafe(sql)), |query, bound| match *bound {
                        Bound::Number(number) => query.bind(number),
                        Bound::Text(text) => query.bind(text.to_owned()),
                        Bound::Id(id) => query.bind(id),
                    });
                query.fetch_all(connection).await.unwrap()
            }
        }
    }

    /// Rows as JSON objects: what anyone could export, the same from both databases.
    pub async fn objects(&mut self, sql: &str) -> Vec<Value> {
        match self {
            Self::Sqlite(connection) => {
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| object(row, of_sqlite)).collect()
            }
            Self::Postgres(connection) => {
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap();
                rows.iter().map(|row| object(row, of_postgres)).collect()
            }
        }
    }

    /// The first column of the only row, a number.
    pub async fn number(&mut self, sql: &str, bound: &[Bound<'_>]) -> i64 {
        self.rows::<(i64,)>(sql, bound).await[0].0
    }
}

fn object<R: Row>(row: &R, value: impl Fn(&R, usize) -> Value) -> Value {
    let columns = row.columns().iter();
    Value::Object(columns.map(|one| (one.name().to_owned(), value(row, one.ordinal()))).collect())
}

fn of_sqlite(row: &SqliteRow, index: usize) -> Value {
    let raw = row.try_get_raw(index).unwrap();
    match raw.type_info().name() {
        _ if raw.is_null() => Value::Null,
        "INTEGER" => row.get::<i64, _>(index).into(),
        "TEXT" => row.get::<String, _>(index).into(),
        _ => hex::encode(row.get::<Vec<u8>, _>(index)).into(),
    }
}

/// What SQLite has no type for comes as SQLite keeps it.
fn of_postgres(row: &PgRow, index: usize) -> Value {
    let raw = row.try_get_raw(index).unwrap();
    match raw.type_info().name() {
        _ if raw.is_null() => Value::Null,
        "INT8" => row.get::<i64, _>(index).into(),
        "BOOL" => i64::from(row.get::<bool, _>(index)).into(),
        "TEXT" => row.get::<String, _>(index).into(),
        "UUID" => row.get::<Uuid, _>(index).simple().to_string().into(),
        "BYTEA" => hex::encode(row.get::<Vec<u8>, _>(index)).into(),
        other => panic!("a column is {other}"),
    }
}
