//! The one connection that writes. Many rows go in a statement: its hops to SQLite's thread cost more than its rows.

use std::path::PathBuf;
use std::sync::OnceLock;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Connection, Encode, Sqlite, SqliteConnection, Type};

use super::{MIGRATIONS, OLDEST_SQLITE, PATIENCE, migrate, options, wal_bytes};
use crate::core::Time;
use crate::core::event::TYPE_VERSION;
use crate::core::ids::{ApplicationNumber, Head, Position, SessionNumber};
use crate::core::once::{KEPT, Outcome};
use crate::core::policy::Preset;
use crate::core::session::Session;
use crate::store::StoreError;
use crate::store::row::{Batch, Detail, Entry, SideWrite};

/// The writer of one database.
pub struct Writer {
    pub(super) connection: SqliteConnection,
    path: PathBuf,
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

/// Rows of one statement come in these numbers, so that few statements are ever prepared.
const LARGEST: usize = 256;

/// `insert into … (columns) values (…), (…) …`, for any power of two of rows.
struct Insert {
    into: &'static str,
    columns: usize,
    then: &'static str,
    prepared: [OnceLock<&'static str>; 9],
}

impl Insert {
    const fn new(into: &'static str, columns: usize, then: &'static str) -> Self {
        Self { into, columns, then, prepared: [const { OnceLock::new() }; 9] }
    }

    /// The statement for 2^`exponent` rows. Leaked once per size: they live as long as the process.
    fn sql(&'static self, exponent: usize) -> &'static str {
        self.prepared[exponent].get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            let rows = vec![row; 1 << exponent].join(",");
            format!("insert into {} values {rows} {}", self.into, self.then).leak()
        })
    }
}

/// Arguments of a statement, in order.
#[derive(Default)]
struct Bound {
    arguments: SqliteArguments,
    failed: Option<String>,
}

impl Bound {
    fn add<'value, T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'value, Sqlite> + Type<Sqlite>,
    {
        if let Err(error) = self.arguments.add(value) {
            self.failed = Some(error.to_string());
        }
        self
    }

    fn time(&mut self, time: Time) -> &mut Self {
        self.add(time.timestamp_millis())
    }

    fn optional_time(&mut self, time: Option<Time>) -> &mut Self {
        self.add(time.map(|time| time.timestamp_millis()))
    }

    /// Counts are held at `i64::MAX` where they are made.
    fn count(&mut self, count: u64) -> &mut Self {
        self.add(i64::try_from(count).unwrap_or(i64::MAX))
    }

    fn head(&mut self, head: &Head) -> &mut Self {
        self.add(head.version).add(head.position.0).add(head.hash.as_slice())
    }
}

static EVENT: Insert = Insert::new(
    "event (position, stream_kind, stream_number, version, previous_position, occurred_at, recorded_at, type, \
     type_version, organization, application, actor_kind, actor_id, revocation, request_id, traceparent, body, \
     personal, hash, commit_hash)",
    20,
    "",
);

static SESSION: Insert = Insert::new(
    "session (number, id, organization, application, principal, owner_kind, owner_id, kind, state, idle_after, \
     stale_after, absolute_lifetime, connected_at, connected_head, lifetime_ends_at, token_expires_at, \
     expiry_announced, credential, ended_at, ended_reason, last_active_at, requests, bytes_in, bytes_out, version, \
     head, hash, token_lifetime, preset, suspended_at, resumed_at)",
    31,
    "on conflict (number) do update set state = excluded.state, token_expires_at = excluded.token_expires_at, \
     expiry_announced = excluded.expiry_announced, credential = excluded.credential, ended_at = excluded.ended_at, \
     ended_reason = excluded.ended_reason, last_active_at = excluded.last_active_at, requests = excluded.requests, \
     bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, version = excluded.version, head = excluded.head, \
     hash = excluded.hash, suspended_at = excluded.suspended_at, resumed_at = excluded.resumed_at",
);

static ACTIVITY_ROW: Insert = Insert::new(
    "session_activity (number, last_active_at, requests, bytes_in, bytes_out, version, head, hash)",
    8,
    "on conflict (number) do update set last_active_at = excluded.last_active_at, requests = excluded.requests, \
     bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, version = excluded.version, head = excluded.head, \
     hash = excluded.hash",
);

static DETAIL: Insert = Insert::new(
    "session_detail (number, name, hostname, user_agent, client_info, ip, client_session_id, token_identifier, \
     protocol_version, application, client)",
    11,
    "",
);

// The directory's rows replace the row of the same number and no other: a taken id or client id is an error.

static ORGANIZATION: Insert = Insert::new(
    "organization (number, id, name, created_at, version, head, hash, barred_before, issuers)",
    9,
    "on conflict (number) do update set name = excluded.name, version = excluded.version, head = excluded.head, \
     hash = excluded.hash, barred_before = excluded.barred_before, issuers = excluded.issuers",
);

static APPLICATION: Insert = Insert::new(
    "application (number, id, organization, name, description, oauth, upstream, created_at, updated_at, archived_at, \
     barred_before, version, head, hash, policy)",
    15,
    "on conflict (number) do update set name = excluded.name, description = excluded.description, \
     oauth = excluded.oauth, upstream = excluded.upstream, updated_at = excluded.updated_at, \
     archived_at = excluded.archived_at, barred_before = excluded.barred_before, version = excluded.version, \
     head = excluded.head, hash = excluded.hash, policy = excluded.policy",
);

static SERVICE_ACCOUNT: Insert = Insert::new(
    "service_account (number, id, organization, name, client_id, scopes, application, created_at, archived_at, \
     version, head, hash)",
    12,
    "on conflict (number) do update set name = excluded.name, scopes = excluded.scopes, \
     application = excluded.application, archived_at = excluded.archived_at, version = excluded.version, \
     head = excluded.head, hash = excluded.hash",
);

static REVOCATION: Insert = Insert::new(
    "revocation (number, id, organization, filter, reason, note, fence, instant, ended_at, disconnected_count, version, \
     head, hash)",
    13,
    "on conflict (number) do update set ended_at = excluded.ended_at, \
     disconnected_count = excluded.disconnected_count, version = excluded.version, head = excluded.head, \
     hash = excluded.hash",
);

static ITEM: Insert = Insert::new(
    "item (kind, number, id, organization, state, version, head, hash)",
    8,
    "on conflict (kind, number) do update set state = excluded.state, version = excluded.version, \
     head = excluded.head, hash = excluded.hash",
);

static SESSION_TOKEN: Insert = Insert::new(
    "session_token (session, secret_hash, issued_at, expires_at)",
    4,
    "on conflict (session) do update set secret_hash = excluded.secret_hash, issued_at = excluded.issued_at, \
     expires_at = excluded.expires_at",
);

static PRINCIPAL: Insert =
    Insert::new("principal (number, organization, issuer, subject_digest, subject)", 5, "");

impl Writer {
    /// Opens the database for writing, making and migrating it as needed, and checks what the live connection runs on.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let options = options(url)?.create_if_missing(true);
        let path = options.get_filename().to_owned();
        let mut connection = SqliteConnection::connect_with(&options).await?;
        migrate(&mut connection).await?;
        let mut writer = Self { connection, path };
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
        outcome
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

    /// Writes rows in statements of the largest powers of two that fit.
    async fn put<Value>(
        &mut self,
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
            sqlx::query_with(insert.sql(exponent), bound.arguments).execute(&mut self.connection).await?;
            rows = later;
        }
        Ok(())
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
                .add(row.policy.as_ref().map(|policy| serde_json::to_string(policy).unwrap_or_default()));
        })
        .await?;
        self.put(&ITEM, &batch.items, |bound, item| {
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
                sqlx::query("insert into access_token values (?, ?, ?, ?, ?, ?, ?, ?, ?)")
                    .bind(token.id)
                    .bind(token.secret_hash.as_slice())
                    .bind(token.organization.0)
                    .bind(token.client_kind as i64)
                    .bind(token.client)
                    .bind(token.scopes.to_string())
                    .bind(token.issued_at.0)
                    .bind(token.expires_at.timestamp_millis())
                    .bind(token.barred)
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
            for sql in [
                "update event set personal = null where position = (select connected_head from session where number = ?)",
                "update session_detail set name = null, hostname = null, user_agent = null, client_info = null, \
                 ip = null, client = null where number = ?",
            ] {
                sqlx::query(sql).bind(number.0).execute(&mut self.connection).await?;
            }
        }
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
        sqlx::query("pragma busy_timeout = 0").execute(&mut self.connection).await?;
        let outcome = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut self.connection).await;
        let patience = format!("pragma busy_timeout = {}", PATIENCE.as_millis());
        sqlx::query(AssertSqlSafe(patience)).execute(&mut self.connection).await?;
        outcome.map(|_| ()).map_err(StoreError::from)
    }

    /// Lets the database grow to so many pages and no further: beyond, the disk counts as full.
    pub async fn limit_pages(&mut self, pages: u32) -> Result<(), StoreError> {
        let sql = format!("pragma max_page_count = {pages}");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Bytes in the write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        wal_bytes(&self.path)
    }

    /// Closes the connection in order.
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }
}

fn bind_event(bound: &mut Bound, entry: &Entry) {
    let recorded = &entry.recorded;
    bound
        .add(recorded.position.0)
        .add(recorded.stream.kind as i64)
        .add(recorded.stream.number)
        .add(recorded.version)
        .add(recorded.previous_position.0)
        .time(recorded.occurred_at)
        .time(recorded.recorded_at)
        .add(recorded.event.name())
        .add(TYPE_VERSION)
        .add(recorded.organization.0)
        .add(recorded.application.map(|number| number.0))
        .add(recorded.actor.kind as i64)
        .add(recorded.actor.stored_id().copied())
        .add(recorded.revocation.map(|number| number.0))
        .add(recorded.request_id.as_deref())
        .add(recorded.traceparent.as_deref())
        .add(entry.body.as_str())
        .add(recorded.personal.as_deref())
        .add(entry.hash.as_slice())
        .add(entry.commit_hash.as_ref().map(|hash| hash.as_slice()));
}

/// `session.state`: 2 live, 1 live but announced as expired, 0 ended.
pub(super) fn state(session: &Session) -> i64 {
    match (session.ended, session.announced()) {
        (Some(_), _) => 0,
        (None, true) => 1,
        (None, false) => 2,
    }
}

fn bind_session(bound: &mut Bound, session: &Session) {
    bound
        .add(session.number.0)
        .add(session.id)
        .add(session.organization.0)
        .add(session.application.0)
        .add(session.principal.0)
        .add(session.owner.kind as i64)
        .add(session.owner.id)
        .add(session.kind.word())
        .add(state(session))
        .add(i64::from(session.policy.idle_after))
        .add(i64::from(session.policy.stale_after))
        .add(i64::from(session.policy.absolute_lifetime))
        .time(session.connected_at)
        .add(session.connected_at_position.0)
        .time(session.lifetime_ends_at)
        .time(session.token_expires_at)
        .optional_time(session.expiry_announced)
        .add(session.credential)
        .optional_time(session.ended.map(|ended| ended.at))
        .add(session.ended.map(|ended| ended.reason.word()))
        .time(session.last_active_at)
        .count(session.total.requests)
        .count(session.total.bytes_in)
        .count(session.total.bytes_out)
        .head(&session.head)
        .add(session.policy.token_lifetime.map(i64::from))
        .add(session.policy.preset.map(Preset::word))
        .optional_time(session.suspended_at)
        .optional_time(session.resumed_at);
}

fn bind_activity(bound: &mut Bound, session: &Session) {
    bound
        .add(session.number.0)
        .time(session.last_active_at)
        .count(session.total.requests)
        .count(session.total.bytes_in)
        .count(session.total.bytes_out)
        .head(&session.head);
}

fn bind_detail(
    bound: &mut Bound,
    (session, application, detail): &(SessionNumber, ApplicationNumber, Detail),
) {
    bound
        .add(session.0)
        .add(detail.name.as_deref())
        .add(detail.hostname.as_deref())
        .add(detail.user_agent.as_deref())
        .add(detail.client_info.as_deref())
        .add(detail.ip.as_deref())
        .add(detail.client_session_id.as_deref())
        .add(detail.token_identifier.as_deref())
        .add(detail.protocol_version.as_deref())
        .add(application.0)
        .add(detail.client.as_deref());
}
