//! The one connection that writes. Many rows go in a statement: its hops to SQLite's thread cost more than its rows.

use std::path::PathBuf;

use sessiond_core::chain::body_digest;
use sessiond_core::ids::{Position, SessionNumber};
use sessiond_core::once::{KEPT, Outcome};
use sessiond_core::session::Session;
use sessiond_core::session::event::Connected;
use sqlx::{Arguments, AssertSqlSafe, Connection, Row, SqliteConnection};

use super::files::Files;
use super::insert::{
    ACTIVITY_ROW, APPLICATION, Bound, DETAIL, EVENT, ITEM, Insert, LARGEST, ORGANIZATION, PRINCIPAL,
    REVOCATION, SERVICE_ACCOUNT, SESSION, SESSION_TOKEN, bind_activity, bind_detail, bind_event,
    bind_session,
};
use super::{MIGRATIONS, OLDEST_SQLITE, PATIENCE, migrate, options, wal_bytes};
use crate::StoreError;
use crate::row::{Batch, SideWrite};

/// The writer of one database.
pub struct Writer {
    pub(super) connection: SqliteConnection,
    path: PathBuf,
    files: Files,
}

/// What the live writing connection says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub sqlite_version: String,
    pub journal_mode: String,
    /// SQLite's number: 2 is FULL.
    pub synchronous: i64,
    pub page_size: i64,
    pub migrations: usize,
}

impl Health {
    /// What is wrong with it, in words.
    pub fn fault(&self) -> Option<String> {
        let mut parts = self.sqlite_version.split('.').map(|part| part.parse().unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0);
        let version = (part(), part(), part());
        if version < OLDEST_SQLITE {
            Some(format!(
                "SQLite {} can corrupt a database in WAL mode; 3.51.3 or newer is needed",
                self.sqlite_version
            ))
        } else if self.journal_mode != "wal" {
            Some(format!("journal_mode is {}, not wal", self.journal_mode))
        } else if self.synchronous != 2 {
            Some(format!("synchronous is {}, not 2 (FULL)", self.synchronous))
        } else {
            None
        }
    }
}

impl Writer {
    /// Opens the database for writing, making and migrating it as needed, and checks what the live connection runs on.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?.create_if_missing(true);
        let path = options.get_filename().to_owned();
        let mut connection = SqliteConnection::connect_with(&options).await?;
        migrate(&MIGRATIONS, &mut connection).await?;
        let files = Files::of(&path);
        let mut writer = Self { connection, path, files };
        match writer.health().await?.fault() {
            Some(fault) => Err(StoreError::Failed(fault)),
            None => Ok(writer),
        }
    }

    /// Asks the live connection what it runs on.
    pub async fn health(&mut self) -> Result<Health, StoreError> {
        let connection = &mut self.connection;
        Ok(Health {
            sqlite_version: sqlx::query_scalar("select sqlite_version()").fetch_one(&mut *connection).await?,
            journal_mode: sqlx::query_scalar("pragma journal_mode").fetch_one(&mut *connection).await?,
            synchronous: sqlx::query_scalar("pragma synchronous").fetch_one(&mut *connection).await?,
            page_size: sqlx::query_scalar("pragma page_size").fetch_one(&mut *connection).await?,
            migrations: MIGRATIONS.iter().count(),
        })
    }

    /// Writes the batch in one transaction and returns once it is on disk. On an error nothing of it was written.
    pub async fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        sqlx::query("begin immediate").execute(&mut self.connection).await?;
        let outcome = match self.write(batch).await {
            Ok(()) => sqlx::query("commit")
                .execute(&mut self.connection)
                .await
                .map(|_| ())
                .map_err(StoreError::from),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // SQLite may have rolled back by itself (a full disk does that); then this one says so, harmlessly.
            sqlx::query("rollback").execute(&mut self.connection).await.ok();
        }
        // After it, so that nothing is acknowledged that went into a file which nobody will find.
        outcome.and_then(|()| self.check_files())
    }

    /// Fails if the database's files were deleted or replaced under us.
    pub fn check_files(&self) -> Result<(), StoreError> {
        self.files.check()
    }

    pub(super) async fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.put(&EVENT, &batch.events, bind_event).await?;
        self.put(&SESSION, &batch.sessions, bind_session).await?;
        self.put(&DETAIL, &batch.details, bind_detail).await?;
        self.forget_hot_rows(&batch.sessions).await?;
        self.put(&ACTIVITY_ROW, &batch.settle, bind_activity).await?;
        if let Some(position) = batch.settled {
            self.mark("settled", position).await?;
        }
        self.write_directory(batch).await?;
        let tokens: Vec<_> = batch
            .side
            .iter()
            .filter_map(|side| match side {
                SideWrite::SessionToken(session, token) => Some((*session, *token)),
                _ => None,
            })
            .collect();
        self.put(&SESSION_TOKEN, &tokens, |bound, (session, token)| {
            bound
                .add(session.0)
                .add(token.secret_hash.as_slice())
                .add(token.issued_at.0)
                .time(token.expires_at);
        })
        .await?;
        let principals: Vec<_> = batch
            .side
            .iter()
            .filter_map(|side| match side {
                SideWrite::Principal(principal) => Some(principal),
                _ => None,
            })
            .collect();
        self.put(&PRINCIPAL, &principals, |bound, principal| {
            bound
                .add(principal.number.0)
                .add(principal.organization.0)
                .add(principal.issuer.as_str())
                .add(principal.subject_digest.as_slice())
                .add(principal.subject.as_deref());
        })
        .await?;
        for side in &batch.side {
            self.write_side(side).await?;
        }
        Ok(())
    }

    async fn put<Value>(
        &mut self,
        insert: &'static Insert,
        rows: &[Value],
        bind: impl Fn(&mut Bound, &Value),
    ) -> Result<(), StoreError> {
        put(&mut self.connection, insert, rows, bind).await
    }

    /// A lifecycle row has the figures too, and newer ones: a hot row from before it would only be wrong. One that
    /// has just connected has no hot row yet.
    async fn forget_hot_rows(&mut self, sessions: &[Session]) -> Result<(), StoreError> {
        let older = sessions.iter().filter(|session| session.head.version > 1);
        let numbers: Vec<i64> = older.map(|session| session.number.0).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let numbers = serde_json::to_string(&numbers).unwrap_or_default();
        let sql = "delete from session_activity where number in (select value from json_each(?))";
        sqlx::query(sql).bind(numbers).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn write_directory(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.put(&ORGANIZATION, &batch.organizations, |bound, row| {
            bound
                .add(row.number.0)
                .add(row.id)
                .add(row.name.as_str())
                .time(row.created_at)
                .head(&row.head)
                .add(row.barred_before.0)
                .add(serde_json::to_string(&row.issuers).unwrap_or_default());
        })
        .await?;
        self.put(&APPLICATION, &batch.applications, |bound, row| {
            bound
                .add(row.number.0)
                .add(row.id)
                .add(row.organization.0)
                .add(row.name.as_str())
                .add(row.description.as_deref())
                .add(serde_json::to_string(&row.oauth).unwrap_or_default())
                .add(row.upstream.as_deref())
                .time(row.created_at)
                .time(row.updated_at)
                .optional_time(row.archived_at)
                .add(row.barred_before.0)
                .head(&row.head)
                .add(row.policy.as_ref().map(|policy| serde_json::to_string(policy).unwrap_or_default()))
                .add(
                    row.upstream_credential
                        .as_ref()
                        .map(|one| serde_json::to_string(one).unwrap_or_default()),
                )
                .add(i64::from(row.on_the_way))
                .add(row.upstream_headers.as_ref().map(|one| serde_json::to_string(one).unwrap_or_default()));
        })
        .await?;
        self.put(&ITEM, &batch.streams, |bound, item| {
            bound
                .add(item.stream().kind as i64)
                .add(item.stream().number)
                .add(item.id())
                .add(item.organization().0)
                .add(item.state())
                .head(&item.head());
        })
        .await?;
        self.put(&SERVICE_ACCOUNT, &batch.service_accounts, |bound, row| {
            bound
                .add(row.number.0)
                .add(row.id)
                .add(row.organization.0)
                .add(row.name.as_str())
                .add(row.client_id.as_str())
                .add(row.scopes.to_string())
                .add(row.application.map(|number| number.0))
                .time(row.created_at)
                .optional_time(row.archived_at)
                .head(&row.head);
        })
        .await?;
        self.put(&REVOCATION, &batch.revocations, |bound, row| {
            bound
                .add(row.number.0)
                .add(row.id)
                .add(row.organization.0)
                .add(serde_json::to_string(&row.filter).unwrap_or_default())
                .add(row.reason.word())
                .add(row.note.as_deref())
                .add(row.fence.0)
                .time(row.instant)
                .optional_time(row.ended_at)
                .count(row.disconnected_count)
                .head(&row.head);
        })
        .await
    }

    async fn write_side(&mut self, side: &SideWrite) -> Result<(), StoreError> {
        let query = match side {
            // Many at a time, above.
            SideWrite::SessionToken(..) | SideWrite::Principal(_) => return Ok(()),
            SideWrite::ClientSecret { client_id, secret_hash } => {
                sqlx::query("insert or replace into client_secret (client_id, secret_hash) values (?, ?)")
                    .bind(client_id)
                    .bind(secret_hash.as_slice())
            }
            SideWrite::AccessToken(token) => {
                sqlx::query("insert into access_token values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
                    .bind(token.id)
                    .bind(token.secret_hash.as_slice())
                    .bind(token.organization.0)
                    .bind(token.client_kind as i64)
                    .bind(token.client)
                    .bind(token.scopes.to_string())
                    .bind(token.issued_at.0)
                    .bind(token.expires_at.timestamp_millis())
                    .bind(token.barred)
                    .bind(token.audience)
            }
            SideWrite::BarAccessToken(id) => {
                sqlx::query("update access_token set barred = 1 where id = ?").bind(id)
            }
            SideWrite::McpSession(session, mcp) => {
                sqlx::query("insert or replace into mcp_session (session, id_hash, sealed) values (?, ?, ?)")
                    .bind(session.0)
                    .bind(mcp.id_hash.as_slice())
                    .bind(&mcp.sealed)
            }
            SideWrite::ForgetMcp(sessions) => {
                let numbers = serde_json::to_string(sessions).unwrap_or_default();
                sqlx::query(
                    "update mcp_session set sealed = x'' where session in (select value from json_each(?))",
                )
                .bind(numbers)
            }
            SideWrite::MachineSecret { id, sealed } => {
                sqlx::query("insert or replace into machine_secret (id, sealed) values (?, ?)")
                    .bind(id)
                    .bind(sealed)
            }
            SideWrite::ForgetMachine(id) => sqlx::query("delete from machine_secret where id = ?").bind(id),
            SideWrite::Confirmation(confirmation) => {
                sqlx::query("insert or ignore into confirmation (session, at, message) values (?, ?, ?)")
                    .bind(confirmation.session.0)
                    .bind(confirmation.at.timestamp_millis())
                    .bind(&confirmation.message)
            }
            SideWrite::UpstreamSecret { application, sealed: Some(sealed) } => {
                sqlx::query("insert or replace into upstream_secret (application, sealed) values (?, ?)")
                    .bind(application.0)
                    .bind(sealed)
            }
            SideWrite::UpstreamSecret { application, sealed: None } => {
                sqlx::query("delete from upstream_secret where application = ?").bind(application.0)
            }
            SideWrite::ApiKeySecret { id, secret_hash } => {
                sqlx::query("insert into api_key_secret (id, secret_hash) values (?, ?)")
                    .bind(id)
                    .bind(secret_hash.as_slice())
            }
            SideWrite::ApiKeysUsed(used) => {
                for (id, at) in used {
                    sqlx::query("update api_key_secret set last_used_at = ? where id = ?")
                        .bind(at.timestamp_millis())
                        .bind(id)
                        .execute(&mut self.connection)
                        .await?;
                }
                return Ok(());
            }
            SideWrite::DescribePrincipal { number, name, email } => sqlx::query(
                "update principal set name = coalesce(?, name), email = coalesce(?, email) where number = ?",
            )
            .bind(name)
            .bind(email)
            .bind(number.0),
            SideWrite::ErasePrincipal(number) => {
                sqlx::query("update principal set subject = null, name = null, email = null where number = ?")
                    .bind(number.0)
            }
            SideWrite::ErasePersonal(sessions) => return self.erase_personal(sessions).await,
            SideWrite::RevokeAccessToken(id) => sqlx::query("delete from access_token where id = ?").bind(id),
            SideWrite::ForgetTokens(before) => {
                sqlx::query("delete from access_token where expires_at < ?").bind(before.timestamp_millis())
            }
            SideWrite::WebhookSecret { .. }
            | SideWrite::RotateWebhookSecret { .. }
            | SideWrite::ForgetWebhook(_)
            | SideWrite::ForgetDeliveriesOf(_)
            | SideWrite::Deliveries { .. }
            | SideWrite::ForgetDeliveries { .. } => return self.write_webhook(side).await,
            SideWrite::Outcome(outcome) => return self.write_outcome(outcome).await,
            SideWrite::ForgetOutcomes(up_to) => sqlx::query(
                "delete from idempotency where key in \
                 (select key from idempotency where recorded_at <= ? order by recorded_at limit 500)",
            )
            .bind(up_to.timestamp_millis()),
            SideWrite::Prune { events, up_to } => return self.prune(events, *up_to).await,
        };
        query.execute(&mut self.connection).await?;
        Ok(())
    }

    /// Erases the personal facts of sessions: their digests in the hashed bodies tell nothing, as the salt goes too.
    async fn erase_personal(&mut self, sessions: &[SessionNumber]) -> Result<(), StoreError> {
        for number in sessions {
            self.erase_from_body(*number).await?;
            for sql in [
                "update event set personal = null where position = (select connected_head from session where number = ?)",
                "update session_detail set name = null, hostname = null, user_agent = null, client_info = null, \
                 ip = null, client = null, token_identifier = null, client_session_id = case \
                 when (select resource from session s where s.number = session_detail.number) is not null \
                 then client_session_id end where number = ?",
            ] {
                sqlx::query(sql).bind(number.0).execute(&mut self.connection).await?;
            }
        }
        Ok(())
    }

    /// Older releases had names that the client chose in the hashed body. They go, and the digest of what was hashed stays.
    async fn erase_from_body(&mut self, number: SessionNumber) -> Result<(), StoreError> {
        let sql = "select position, body from event where type = 'connected' and body_digest is null and position = \
                   (select connected_head from session where number = ?)";
        let row = sqlx::query(sql).bind(number.0).fetch_optional(&mut self.connection).await?;
        let Some(row) = row else { return Ok(()) };
        let (position, body): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let connected: Result<Connected, _> = serde_json::from_str(&body);
        let Some(erased) = connected.ok().and_then(|connected| connected.erased()) else { return Ok(()) };
        // Plain data with string keys: serializing it cannot fail.
        let erased = serde_json::to_string(&erased).unwrap_or_default();
        sqlx::query("update event set body = ?, body_digest = ? where position = ?")
            .bind(erased)
            .bind(body_digest(&body).as_slice())
            .bind(position)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Keeps what a request came to. That it is the only one under its key for as long as outcomes are kept is seen to
    /// here, in the transaction of what it did.
    async fn write_outcome(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        let written = sqlx::query(
            "insert into idempotency (key, fingerprint, salt, outcome, recorded_at) values (?, ?, ?, ?, ?) \
             on conflict (key) do update set fingerprint = excluded.fingerprint, salt = excluded.salt, \
             outcome = excluded.outcome, recorded_at = excluded.recorded_at \
             where idempotency.recorded_at <= excluded.recorded_at - ?",
        )
        .bind(outcome.key.as_slice())
        .bind(outcome.fingerprint.as_slice())
        .bind(outcome.salt.as_slice())
        .bind(outcome.done.as_str())
        .bind(outcome.recorded_at.timestamp_millis())
        .bind(KEPT.num_milliseconds())
        .execute(&mut self.connection)
        .await?;
        if written.rows_affected() == 0 {
            return Err(StoreError::Failed("a request was about to take effect twice".to_owned()));
        }
        Ok(())
    }

    /// Drops bodies of activity events, keeping their digests, and remembers how far the pruning came.
    async fn prune(&mut self, events: &[(Position, [u8; 32])], up_to: Position) -> Result<(), StoreError> {
        for (position, digest) in events {
            sqlx::query("update event set body = null, body_digest = ? where position = ?")
                .bind(digest.as_slice())
                .bind(position.0)
                .execute(&mut self.connection)
                .await?;
        }
        self.mark("pruned", up_to).await
    }

    pub(super) async fn mark(&mut self, name: &'static str, position: Position) -> Result<(), StoreError> {
        sqlx::query("insert or replace into mark (name, position) values (?, ?)")
            .bind(name)
            .bind(position.0)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Copies what it can of the WAL into the database and, where nobody still reads the old WAL, empties the file.
    /// For the committer between batches, when the WAL has grown large. Waits for nobody: while somebody reads the old
    /// WAL, all writes would wait along.
    pub async fn truncate_wal(&mut self) -> Result<(), StoreError> {
        truncate_wal(&mut self.connection).await
    }

    /// Lets the database grow to so many pages and no further: beyond, the disk counts as full.
    pub async fn limit_pages(&mut self, pages: u32) -> Result<(), StoreError> {
        limit_pages(&mut self.connection, pages).await
    }

    /// Bytes in the write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        wal_bytes(&self.path)
    }

    /// Closes the connection in order: what is in the WAL goes into the file, and the WAL goes, if nobody else is there.
    pub async fn close(self) -> Result<(), StoreError> {
        close(self.connection).await
    }
}

/// Moves the write-ahead log into the file and closes the connection. The last one to close deletes the log.
pub(super) async fn close(mut connection: SqliteConnection) -> Result<(), StoreError> {
    let moved = truncate_wal(&mut connection).await;
    connection.close().await?;
    moved
}

/// Writes rows in statements of the largest powers of two that fit.
pub(super) async fn put<Value>(
    connection: &mut SqliteConnection,
    insert: &'static Insert,
    mut rows: &[Value],
    bind: impl Fn(&mut Bound, &Value),
) -> Result<(), StoreError> {
    while !rows.is_empty() {
        let exponent = rows.len().min(LARGEST).ilog2() as usize;
        let (now, later) = rows.split_at(1 << exponent);
        let mut bound = Bound::default();
        bound.arguments.reserve(now.len() * insert.columns, 0);
        for row in now {
            bind(&mut bound, row);
        }
        if let Some(failed) = bound.failed {
            return Err(StoreError::Failed(failed));
        }
        let query = sqlx::query_with(insert.sql(exponent), bound.arguments);
        query.execute(&mut *connection).await.map_err(|error| {
            let taken = error.as_database_error().is_some_and(|error| error.is_unique_violation());
            // Positions and versions are given out by one writer, from memory: whoever finds one taken is not alone.
            match std::ptr::eq(insert, &raw const EVENT) && taken {
                true => StoreError::Raced(error.to_string()),
                false => error.into(),
            }
        })?;
        rows = later;
    }
    Ok(())
}

pub(super) async fn truncate_wal(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("pragma busy_timeout = 0").execute(&mut *connection).await?;
    let outcome = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut *connection).await;
    let patience = format!("pragma busy_timeout = {}", PATIENCE.as_millis());
    sqlx::query(AssertSqlSafe(patience)).execute(connection).await?;
    outcome.map(|_| ()).map_err(StoreError::from)
}

pub(super) async fn limit_pages(connection: &mut SqliteConnection, pages: u32) -> Result<(), StoreError> {
    let sql = format!("pragma max_page_count = {pages}");
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
