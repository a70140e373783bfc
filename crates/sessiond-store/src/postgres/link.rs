//! A connection for writing: made, looked at before it is used, and made anew when it is lost.

use std::future::Future;
use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::servers::{CONNECTING, Servers, place};
use crate::StoreError;

/// How long a statement may take that only ends or begins something.
pub(super) const SHORTLY: Duration = Duration::from_secs(2);
/// The longest name that a channel can have, in bytes.
const LONGEST_CHANNEL: usize = 63;

/// What each writing connection is told.
///
/// - Whoever has the turn and does not go on loses the connection after two seconds, and with it the turn.
/// - Nobody waits for a lock for ever: a lock that is not to be had is an error that is answered.
/// - The server's own limits for statements do not hold for these connections: they would end the wait of a COMMIT for its
///   standby, which PostgreSQL then answers as if the standby had it.
/// - A connection whose other end is gone is noticed by the server in seconds, not in hours.
const SETTINGS: &str = "select set_config(wanted.name, wanted.value, false) \
     from (values ('statement_timeout', '0'), ('transaction_timeout', '0'), ('lock_timeout', '5s'), \
     ('idle_in_transaction_session_timeout', '2s'), ('idle_session_timeout', '0'), ('tcp_keepalives_idle', '5'), \
     ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '10s'), \
     ('standard_conforming_strings', 'on'), ('default_transaction_isolation', 'read committed')) as wanted (name, value) \
     where exists (select from pg_settings known where known.name = wanted.name)";

const ABOUT: &str = "select current_schema()::text as schema, \
     hashtextextended('sessiond turn ' || current_schema(), 0) as turn_key, \
     hashtextextended('sessiond writer ' || current_schema(), 0) as writer_key, \
     pg_backend_pid() as process";

/// How durable what a connection commits has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// On disk here, and at the standby where the server has one that must have it. A server that is set to less is
    /// overruled; what it does beyond is left to it.
    Everywhere,
    /// On disk here.
    Here,
}

impl Durability {
    fn set(self) -> &'static str {
        match self {
            Self::Everywhere => {
                "select set_config('synchronous_commit', 'on', false) \
                 where current_setting('synchronous_commit') in ('off', 'local')"
            }
            Self::Here => "select set_config('synchronous_commit', 'local', false)",
        }
    }
}

/// A connection to a database that can be written to.
pub(super) struct Link {
    pub(super) connection: PgConnection,
    /// The lock of whoever has the turn, and that of whoever has the store open. Each schema has its own.
    pub(super) turn_key: i64,
    pub(super) writer_key: i64,
    /// Where commits are announced.
    pub(super) channel: String,
    /// Of the server's process behind the connection.
    pub(super) process: i32,
    /// Where the server is.
    pub(super) place: String,
}

impl Link {
    /// Makes a connection to the server that can be written to now.
    pub(super) async fn make(servers: &Servers, durability: Durability) -> Result<Self, StoreError> {
        let (options, mut connection) = servers.primary().await?;
        let about = async {
            sqlx::query(SETTINGS).execute(&mut connection).await?;
            sqlx::query(durability.set()).execute(&mut connection).await?;
            sqlx::query(ABOUT).fetch_one(&mut connection).await
        };
        let about = within(CONNECTING, about).await?;
        let schema: Option<String> = about.try_get("schema")?;
        let schema = schema
            .ok_or_else(|| StoreError::Failed("none of the schemas in the search path exists".to_owned()))?;
        Ok(Self {
            turn_key: about.try_get("turn_key")?,
            writer_key: about.try_get("writer_key")?,
            process: about.try_get("process")?,
            channel: channel(&schema),
            place: place(&options),
            connection,
        })
    }

    /// Takes back what was begun and not committed. Whether the connection can be used any longer: it answers, and what is
    /// behind it is no standby by now.
    pub(super) async fn rolled_back(&mut self) -> bool {
        let sql = "rollback; select pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as read_only";
        let row = within(SHORTLY, sqlx::raw_sql(sql).fetch_one(&mut self.connection)).await;
        row.and_then(|row| row.try_get::<bool, _>("read_only")).is_ok_and(|read_only| !read_only)
    }

    /// Says goodbye, as far as anybody listens.
    pub(super) async fn close(self) {
        within(SHORTLY, self.connection.close()).await.ok();
    }
}

/// The channel on which commits of a schema are announced.
pub(super) fn channel(schema: &str) -> String {
    let mut channel = format!("sessiond_{schema}");
    channel.truncate(channel.floor_char_boundary(LONGEST_CHANNEL));
    channel
}

/// Waits so long and no longer: who does not answer is as good as gone.
pub(super) async fn within<Value>(
    limit: Duration,
    work: impl Future<Output = Result<Value, sqlx::Error>>,
) -> Result<Value, sqlx::Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time").into()),
    }
}
