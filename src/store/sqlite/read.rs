//! Questions, answered in pages: no reader holds a snapshot longer than a page takes.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, QueryBuilder, Row, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::{
    WHOLE_SESSION, access_token, application, bytes32, entry, item, options, organization, outcome,
    revocation, service_account, time, wal_bytes, whole_session,
};
use crate::core::Time;
use crate::core::event::{ACTIVITY, Event};
use crate::core::filter::Filter;
use crate::core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, SessionNumber,
    StreamKind,
};
use crate::core::item::Item;
use crate::core::kind::Kind;
use crate::core::once::Outcome;
use crate::core::session::{Envelope, evolve};
use crate::store::StoreError;
use crate::store::row::{
    Addressed, Entry, KeySecret, Loaded, McpSession, Principal, PrincipalRow, Revocation, SessionRow,
    SessionToken,
};

/// Events read at a time when walking the log.
const PAGE: i64 = 2_000;
/// Size of the WAL from which it is moved into the database: late, because pages written often are then moved once.
const CHECKPOINT_FROM: u64 = 16 << 20;

/// A few connections that cannot write.
#[derive(Clone)]
pub struct Reader {
    pub(super) pool: SqlitePool,
    /// Of a connection that may checkpoint.
    options: SqliteConnectOptions,
}

/// Ended sessions of an application to read, in order.
#[derive(Debug)]
pub struct EndedPage<'a> {
    pub application: ApplicationNumber,
    pub filter: &'a Filter,
    /// The column they are ordered by before their number; by their number alone, as they connected, if none.
    pub order: Option<&'static str>,
    pub descending: bool,
    /// Only what comes after this one.
    pub after: Option<(Time, SessionNumber)>,
    pub limit: usize,
}

impl Reader {
    /// Opens a pool of readers on a database that exists.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .max_lifetime(None)
            .idle_timeout(None)
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options(url)?.read_only(true).pragma("cache_size", "-8192"))
            .await?;
        Ok(Self { pool, options: options(url)? })
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Moves the WAL into the database as far as readers allow, from a connection of its own, so that the writer need
    /// not wait; does nothing while the WAL is small. Returns the WAL's size in bytes.
    pub async fn checkpoint_if_large(&self) -> Result<u64, StoreError> {
        let bytes = wal_bytes(self.options.get_filename());
        if bytes > CHECKPOINT_FROM {
            let mut connection = SqliteConnection::connect_with(&self.options).await?;
            sqlx::query("pragma wal_checkpoint(passive)").execute(&mut connection).await?;
            connection.close().await?;
        }
        Ok(bytes)
    }

    /// The last position of the log.
    pub async fn head(&self) -> Result<Position, StoreError> {
        let head =
            sqlx::query_scalar("select coalesce(max(position), 0) from event").fetch_one(&self.pool).await?;
        Ok(Position(head))
    }

    // ---- sessions ----

    /// One session by id, live or ended.
    pub async fn session(&self, id: Uuid) -> Result<Option<SessionRow>, StoreError> {
        let sql = format!(
            "select {WHOLE_SESSION} from session s left join session_detail d using (number) \
             left join session_activity a using (number) where s.id = ?"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(whole_session).transpose()
    }

    /// One session by number.
    pub async fn session_by_number(&self, number: SessionNumber) -> Result<Option<SessionRow>, StoreError> {
        let sql = format!(
            "select {WHOLE_SESSION} from session s left join session_detail d using (number) \
             left join session_activity a using (number) where s.number = ?"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).bind(number.0).fetch_optional(&self.pool).await?;
        row.as_ref().map(whole_session).transpose()
    }

    /// Sessions by number, in no order.
    pub async fn sessions(&self, numbers: &[SessionNumber]) -> Result<Vec<SessionRow>, StoreError> {
        if numbers.is_empty() {
            return Ok(vec![]);
        }
        let sql = format!(
            "select {WHOLE_SESSION} from (select value from json_each(?)) wanted \
             cross join session s on s.number = wanted.value left join session_detail d on d.number = s.number \
             left join session_activity a on a.number = s.number"
        );
        let numbers = serde_json::to_string(numbers).unwrap_or_default();
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(numbers).fetch_all(&self.pool).await?;
        rows.iter().map(whole_session).collect()
    }

    /// Ended sessions of an application that fit a filter, in order. Costs what fits the narrowest of what is asked for.
    pub async fn ended(&self, page: &EndedPage<'_>) -> Result<Vec<SessionRow>, StoreError> {
        let (direction, beyond) = if page.descending { ("desc", "<") } else { ("asc", ">") };
        let mut query = QueryBuilder::new(format!("select {WHOLE_SESSION} "));
        let narrow = ended_from(&mut query, page.application, page.filter, page.order);
        if let Some((at, number)) = page.after {
            match page.order {
                Some(column) => {
                    query.push(format!(" and (s.{column}, s.number) {beyond} ("));
                    query.push_bind(at.timestamp_millis()).push(", ").push_bind(number.0).push(")");
                }
                None => {
                    query.push(format!(" and {narrow}.number {beyond} ")).push_bind(number.0);
                }
            }
        }
        query.push(" order by ");
        if let Some(column) = page.order {
            query.push(format!("s.{column} {direction}, "));
        }
        query.push(format!("{narrow}.number {direction} limit ")).push_bind(page.limit as i64);
        query.build().fetch_all(&self.pool).await?.iter().map(whole_session).collect()
    }

    /// How many ended sessions of an application fit a filter.
    pub async fn count_ended(
        &self,
        application: ApplicationNumber,
        filter: &Filter,
    ) -> Result<u64, StoreError> {
        let mut query = QueryBuilder::new("select count(*) ");
        ended_from(&mut query, application, filter, None);
        let count: i64 = query.build_query_scalar().fetch_one(&self.pool).await?;
        Ok(count.unsigned_abs())
    }

    /// The current token of a session, live or ended.
    pub async fn session_token(&self, session: SessionNumber) -> Result<Option<SessionToken>, StoreError> {
        let row = sqlx::query("select * from session_token where session = ?")
            .bind(session.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(session_token).transpose()
    }

    /// The gateway's side of a session.
    pub async fn mcp_session(&self, session: SessionNumber) -> Result<Option<McpSession>, StoreError> {
        let row = sqlx::query("select * from mcp_session where session = ?")
            .bind(session.0)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(McpSession { id_hash: bytes32(&row, "id_hash")?, sealed: row.try_get("sealed")? }))
    }

    /// The hash of an OAuth client's secret.
    pub async fn client_secret(&self, client_id: &str) -> Result<Option<[u8; 32]>, StoreError> {
        let row = sqlx::query("select secret_hash from client_secret where client_id = ?")
            .bind(client_id)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| bytes32(&row, "secret_hash")).transpose()
    }

    /// What a request came to, by its key.
    pub async fn outcome(&self, key: &[u8; 32]) -> Result<Option<Outcome>, StoreError> {
        let row = sqlx::query("select * from idempotency where key = ?")
            .bind(key.as_slice())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(outcome).transpose()
    }

    /// Whether there are outcomes recorded up to an instant.
    pub async fn has_outcomes(&self, up_to: Time) -> Result<bool, StoreError> {
        let sql = "select exists (select 1 from idempotency where recorded_at <= ?)";
        Ok(sqlx::query_scalar(sql).bind(up_to.timestamp_millis()).fetch_one(&self.pool).await?)
    }

    // ---- principals ----

    /// One principal with what it is called.
    pub async fn principal(&self, number: PrincipalNumber) -> Result<Option<PrincipalRow>, StoreError> {
        let row = sqlx::query("select * from principal where number = ?")
            .bind(number.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(principal_row).transpose()
    }

    /// An organization's principals after a number, oldest first; of one issuer or with one subject where that is asked
    /// for.
    pub async fn principals(
        &self,
        organization: OrganizationNumber,
        issuer: Option<&str>,
        subject: Option<&str>,
        after: PrincipalNumber,
        limit: u32,
    ) -> Result<Vec<PrincipalRow>, StoreError> {
        let rows = sqlx::query(
            "select * from principal indexed by principal_by_organization where organization = ?1 and number > ?2 \
             and (?3 is null or issuer = ?3) and (?4 is null or subject = ?4) order by number limit ?5",
        )
        .bind(organization.0)
        .bind(after.0)
        .bind(issuer)
        .bind(subject)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(principal_row).collect()
    }

    /// Ended sessions of a principal in an application after a number, oldest first.
    pub async fn ended_of_principal(
        &self,
        application: ApplicationNumber,
        principal: PrincipalNumber,
        after: SessionNumber,
        limit: usize,
    ) -> Result<Vec<SessionNumber>, StoreError> {
        let numbers: Vec<i64> = sqlx::query_scalar(
            "select number from session indexed by session_ended_by_principal \
             where application = ? and principal = ? and number > ? and state = 0 order by number limit ?",
        )
        .bind(application.0)
        .bind(principal.0)
        .bind(after.0)
        .bind(limit as i64)
        .fetch_all(&self.pool)
        .await?;
        Ok(numbers.into_iter().map(SessionNumber).collect())
    }

    // ---- revocations ----

    /// One revocation by number.
    pub async fn revocation(&self, number: RevocationNumber) -> Result<Option<Revocation>, StoreError> {
        let row = sqlx::query("select * from revocation where number = ?")
            .bind(number.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(revocation).transpose()
    }

    /// One revocation by id.
    pub async fn revocation_by_id(&self, id: Uuid) -> Result<Option<Revocation>, StoreError> {
        let row =
            sqlx::query("select * from revocation where id = ?").bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(revocation).transpose()
    }

    /// An organization's revocations before a number, newest first; those of one application alone where that is asked
    /// for.
    pub async fn revocations(
        &self,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        before: Option<RevocationNumber>,
        limit: u32,
    ) -> Result<Vec<Revocation>, StoreError> {
        let rows = sqlx::query(
            "select * from revocation where organization = ?1 and number < ?2 \
             and (?3 is null or json_extract(filter, '$.application') = ?3) order by number desc limit ?4",
        )
        .bind(organization.0)
        .bind(before.map_or(i64::MAX, |number| number.0))
        .bind(application.map(|number| number.0))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(revocation).collect()
    }

    // ---- the log ----

    /// The log after a position, oldest first.
    pub async fn log(&self, after: Position, limit: i64) -> Result<Vec<Entry>, StoreError> {
        let sql = "select * from event where position > ? order by position limit ?";
        let rows = sqlx::query(sql).bind(after.0).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(entry).collect()
    }

    // ---- for feeds: events with the public ids of what they are about ----

    /// The log after a position and up to another, oldest first; without activity unless asked for.
    pub async fn addressed_log(
        &self,
        after: Position,
        up_to: Position,
        activity: bool,
        limit: i64,
    ) -> Result<Vec<Addressed>, StoreError> {
        let sql = addressed(
            "e.position > ? and e.position <= ? and (? or +e.type <> 'activity_recorded') order by e.position",
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(after.0).bind(up_to.0).bind(activity).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(addressed_entry).collect()
    }

    /// An application's events after a position, oldest first; without activity, by an index of their own.
    pub async fn addressed_application_log(
        &self,
        application: ApplicationNumber,
        after: Position,
        activity: bool,
        limit: i64,
    ) -> Result<Vec<Addressed>, StoreError> {
        let sql = addressed(if activity {
            "+e.application = ? and e.position > ? order by e.position"
        } else {
            "e.application = ? and e.position > ? and e.type <> 'activity_recorded' order by e.position"
        });
        let query = sqlx::query(AssertSqlSafe(sql)).bind(application.0).bind(after.0).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(addressed_entry).collect()
    }

    /// A session's events after a position, oldest first; without activity, by an index of their own.
    pub async fn addressed_session_log(
        &self,
        session: SessionNumber,
        after: Position,
        activity: bool,
        limit: i64,
    ) -> Result<Vec<Addressed>, StoreError> {
        let sql = addressed(if activity {
            "+e.stream_kind = 4 and +e.stream_number = ? and e.position > ? order by e.position"
        } else {
            "e.stream_kind = 4 and e.stream_number = ? and e.position > ? and e.type <> 'activity_recorded' \
             order by e.version"
        });
        let query = sqlx::query(AssertSqlSafe(sql)).bind(session.0).bind(after.0).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(addressed_entry).collect()
    }

    /// A session's events, newest first, from a position of its own on. Without activity by an index; with it along the
    /// chain of its events.
    pub async fn session_history(
        &self,
        session: SessionNumber,
        newest: Position,
        activity: bool,
        limit: i64,
    ) -> Result<Vec<Addressed>, StoreError> {
        let rows = if activity {
            let sql = format!(
                "with recursive chain(position, previous, nth) as (\
                 select position, previous_position, 1 from event where position = ?1 \
                 union all select e.position, e.previous_position, nth + 1 from chain \
                 cross join event e on e.position = chain.previous where nth < ?3) \
                 select e.*, s.id as session_id, a.id as application_id, r.id as revocation_id \
                 from chain cross join event e on e.position = chain.position \
                 left join session s on s.number = ?2 left join application a on a.number = e.application \
                 left join revocation r on r.number = e.revocation order by e.position desc"
            );
            let query = sqlx::query(AssertSqlSafe(sql)).bind(newest.0).bind(session.0).bind(limit);
            query.fetch_all(&self.pool).await?
        } else {
            let sql = addressed(
                "e.stream_kind = 4 and e.stream_number = ? and e.position <= ? \
                 and e.type <> 'activity_recorded' order by e.version desc",
            );
            let query = sqlx::query(AssertSqlSafe(sql)).bind(session.0).bind(newest.0).bind(limit);
            query.fetch_all(&self.pool).await?
        };
        rows.iter().map(addressed_entry).collect()
    }

    /// An organization's events after a position and up to another, oldest first, of one application alone where that is
    /// asked for. Without activity by an index.
    pub async fn organization_log(
        &self,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        after: Position,
        up_to: Position,
        activity: bool,
        limit: i64,
    ) -> Result<Vec<Addressed>, StoreError> {
        let own = "and (?4 is null or +e.application = ?4)";
        let condition = if activity {
            format!("+e.organization = ?1 and e.position > ?2 and e.position <= ?3 {own} order by e.position")
        } else {
            format!(
                "e.organization = ?1 and e.position > ?2 and e.position <= ?3 {own} \
                 and e.type <> 'activity_recorded' order by e.position"
            )
        };
        let query = sqlx::query(AssertSqlSafe(addressed(&condition)))
            .bind(organization.0)
            .bind(after.0)
            .bind(up_to.0)
            .bind(application.map(|number| number.0))
            .bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(addressed_entry).collect()
    }

    /// The last position that was recorded before an instant. Times never fall along the log, so halving finds it.
    pub async fn last_recorded_before(&self, instant: Time) -> Result<Position, StoreError> {
        let (mut before, mut beyond) = (0, self.head().await?.0 + 1);
        while beyond - before > 1 {
            let middle = before + (beyond - before) / 2;
            let recorded_at: Option<i64> =
                sqlx::query_scalar("select recorded_at from event where position = ?")
                    .bind(middle)
                    .fetch_optional(&self.pool)
                    .await?;
            if recorded_at.is_some_and(|at| at < instant.timestamp_millis()) {
                before = middle;
            } else {
                beyond = middle;
            }
        }
        Ok(Position(before))
    }

    /// Old activity bodies that may go: for each activity event after `after` recorded before `before`, the activity
    /// event before it in its stream. So a session's last one always stays. Returns what may go and how far it looked.
    pub async fn prunable(
        &self,
        before: Time,
        limit: i64,
    ) -> Result<(Vec<(Position, [u8; 32])>, Option<Position>), StoreError> {
        let after: i64 = self.mark("pruned").await?.0;
        let rows = sqlx::query(
            "select position, previous_position from event where position > ? and recorded_at < ? \
             order by position limit ?",
        )
        .bind(after)
        .bind(before.timestamp_millis())
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let mut prunable = Vec::new();
        let mut up_to = None;
        for row in rows {
            let position: i64 = row.try_get("position")?;
            up_to = Some(Position(position));
            let later = self.event(Position(position)).await?;
            if later.as_ref().is_none_or(|entry| entry.recorded.event.name() != ACTIVITY) {
                continue;
            }
            let mut previous = Position(row.try_get("previous_position")?);
            while let Some(entry) = self.event(previous).await? {
                if entry.recorded.event.name() == ACTIVITY {
                    prunable.push((entry.recorded.position, entry.digest));
                    break;
                }
                previous = entry.recorded.previous_position;
            }
        }
        Ok((prunable, up_to))
    }

    /// The event at a position.
    pub async fn event(&self, position: Position) -> Result<Option<Entry>, StoreError> {
        let row = sqlx::query("select * from event where position = ?")
            .bind(position.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(entry).transpose()
    }

    pub async fn mark(&self, name: &'static str) -> Result<Position, StoreError> {
        let position: Option<i64> = sqlx::query_scalar("select position from mark where name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        Ok(Position(position.unwrap_or(0)))
    }

    // ---- start-up ----

    /// Everything that lives in memory. The log's tail beyond what is settled is folded over the sessions.
    pub async fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded {
            head: self.head().await?,
            settled: self.mark("settled").await?,
            organizations: self.all("select * from organization order by number", organization).await?,
            applications: self.all("select * from application order by number", application).await?,
            service_accounts: self
                .all("select * from service_account order by number", service_account)
                .await?,
            revocations: self
                .all("select * from revocation where ended_at is null order by number", revocation)
                .await?,
            items: self.all("select * from item order by kind, number", item).await?,
            access_tokens: self.all("select * from access_token", access_token).await?,
            principals: self.all("select * from principal", principal).await?,
            key_secrets: self.all("select * from api_key_secret", key_secret).await?,
            ..Loaded::default()
        };
        loaded.bars = self.bars(&loaded).await?;
        let last = self.event(loaded.head).await?;
        loaded.last_recorded_at = last.as_ref().map(|entry| entry.recorded.recorded_at);
        loaded.commit_hash = last.and_then(|entry| entry.commit_hash).unwrap_or_default();
        let number = |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.pool);
        loaded.last_session = SessionNumber(number("select coalesce(max(number), 0) from session").await?);
        let last = sqlx::query_scalar("select id from session where number = ?").bind(loaded.last_session.0);
        loaded.last_session_id = last.fetch_optional(&self.pool).await?.unwrap_or_default();
        loaded.last_revocation = number("select coalesce(max(number), 0) from revocation").await?;
        for row in sqlx::query("select application, count(*) as total from session group by application")
            .fetch_all(&self.pool)
            .await?
        {
            let total: i64 = row.try_get("total")?;
            let application = ApplicationNumber(row.try_get("application")?);
            loaded.session_totals.push((application, total.unsigned_abs()));
        }
        self.load_sessions(&mut loaded).await?;
        self.fold_tail(&mut loaded).await?;
        Ok(loaded)
    }

    async fn load_sessions(&self, loaded: &mut Loaded) -> Result<(), StoreError> {
        let sql = format!(
            "select {WHOLE_SESSION}, t.secret_hash as token_hash, t.issued_at as token_issued_at, \
             t.expires_at as token_ends_at, m.id_hash as mcp_hash from session s indexed by session_open \
             left join session_detail d using (number) left join session_activity a using (number) \
             left join session_token t on t.session = s.number left join mcp_session m on m.session = s.number \
             where s.state <> 0"
        );
        for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.pool).await? {
            let session = whole_session(&row)?;
            if row.try_get::<Option<&[u8]>, _>("token_hash")?.is_some() {
                let token = SessionToken {
                    secret_hash: bytes32(&row, "token_hash")?,
                    issued_at: Position(row.try_get("token_issued_at")?),
                    expires_at: time(row.try_get("token_ends_at")?),
                };
                loaded.session_tokens.push((session.session.number, token));
            }
            if row.try_get::<Option<&[u8]>, _>("mcp_hash")?.is_some() {
                loaded.mcp_hashes.push((session.session.number, bytes32(&row, "mcp_hash")?));
            }
            loaded.sessions.push(session);
        }
        Ok(())
    }

    async fn fold_tail(&self, loaded: &mut Loaded) -> Result<(), StoreError> {
        let mut index: HashMap<i64, usize> = HashMap::new();
        for (at, row) in loaded.sessions.iter().enumerate() {
            index.insert(row.session.number.0, at);
        }
        let mut after = loaded.settled;
        loop {
            let page = self.log(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.recorded.position;
            for entry in page.iter().filter(|entry| entry.recorded.stream.kind == StreamKind::Session) {
                let at = index.get(&entry.recorded.stream.number);
                let Some(row) = at.and_then(|at| loaded.sessions.get_mut(*at)) else { continue };
                if entry.recorded.version <= row.session.head.version {
                    continue;
                }
                loaded.unsettled.insert(row.session.number);
                if let Event::Session(event) = &entry.recorded.event {
                    let envelope = entry.envelope();
                    if let Some(session) = evolve(Some(row.session.clone()), event, &envelope) {
                        row.session = session;
                    }
                } else {
                    // Passed over, but the next event of the stream builds on it all the same.
                    row.session.head = entry.head();
                }
            }
        }
    }

    /// When the bars that are in force were recorded, looked up one by one: there are few.
    async fn bars(&self, loaded: &Loaded) -> Result<Vec<(Position, Time)>, StoreError> {
        let standing = loaded.items.iter().filter_map(|item| match item {
            Item::Principal(standing) => Some(standing.barred_before),
            _ => None,
        });
        let organizations = loaded.organizations.iter().map(|one| one.barred_before);
        let applications = loaded.applications.iter().map(|one| one.barred_before);
        let mut bars = Vec::new();
        for position in standing.chain(organizations).chain(applications).filter(|at| *at > Position(0)) {
            if let Some(entry) = self.event(position).await? {
                bars.push((position, entry.recorded.recorded_at));
            }
        }
        Ok(bars)
    }

    async fn all<Value>(
        &self,
        sql: &'static str,
        read: fn(&SqliteRow) -> Result<Value, StoreError>,
    ) -> Result<Vec<Value>, StoreError> {
        sqlx::query(sql).fetch_all(&self.pool).await?.iter().map(read).collect()
    }
}

impl Entry {
    /// What the fold of a session needs from the envelope.
    pub fn envelope(&self) -> Envelope {
        Envelope {
            number: SessionNumber(self.recorded.stream.number),
            organization: self.recorded.organization,
            application: self.recorded.application.unwrap_or_default(),
            actor: self.recorded.actor,
            occurred_at: self.recorded.occurred_at,
            head: self.head(),
        }
    }

    /// Where the stream stands after this event.
    pub fn head(&self) -> crate::core::ids::Head {
        crate::core::ids::Head {
            version: self.recorded.version,
            position: self.recorded.position,
            hash: self.hash,
        }
    }
}

/// Adds from where, by the narrowest index, and which: ended sessions of an application that fit a filter. Returns the
/// table whose number the rows come ordered by.
fn ended_from(
    query: &mut QueryBuilder<Sqlite>,
    application: ApplicationNumber,
    filter: &Filter,
    order: Option<&'static str>,
) -> &'static str {
    let by_text = |index: &str| {
        format!(
            "from session_detail d indexed by {index} cross join session s on s.number = d.number \
             left join session_activity a on a.number = s.number where d.application = "
        )
    };
    let by_session = |index: &str| {
        format!(
            "from session s indexed by {index} cross join session_detail d on d.number = s.number \
             left join session_activity a on a.number = s.number where s.application = "
        )
    };
    let (from, narrow) = match (filter, order) {
        (Filter { session: Some(_), .. }, _) => (
            "from session s cross join session_detail d on d.number = s.number \
             left join session_activity a on a.number = s.number where s.application = "
                .to_owned(),
            "s",
        ),
        (Filter { hostname: Some(_), .. }, _) => (by_text("session_detail_by_hostname"), "d"),
        (Filter { client: Some(_), .. }, _) => (by_text("session_detail_by_client"), "d"),
        (Filter { principal: Some(_), .. }, _) => (by_session("session_ended_by_principal"), "s"),
        (_, Some("last_active_at")) => (by_session("session_ended_by_activity"), "s"),
        (_, Some(_)) => (by_session("session_ended_by_expiry"), "s"),
        (_, None) => (by_session("session_ended"), "s"),
    };
    query.push(from).push_bind(application.0).push(" and s.state = 0");
    let mut equal = |column: &str, value: i64| {
        query.push(format!(" and {column} = ")).push_bind(value);
    };
    if let Some(session) = filter.session {
        equal("s.number", session.0);
    }
    if let Some(principal) = filter.principal {
        equal("s.principal", principal.0);
    }
    for (column, text) in [
        ("d.hostname", filter.hostname.as_deref()),
        ("d.client", filter.client.as_deref()),
        ("s.kind", filter.kind.map(Kind::word)),
    ] {
        if let Some(text) = text {
            query.push(format!(" and {column} = ")).push_bind(text.to_owned());
        }
    }
    for (condition, time) in [
        ("s.connected_at >= ", filter.connected_after),
        ("s.connected_at < ", filter.connected_before),
        ("s.last_active_at >= ", filter.last_active_after),
        ("s.last_active_at < ", filter.last_active_before),
    ] {
        if let Some(time) = time {
            query.push(" and ").push(condition).push_bind(time.timestamp_millis());
        }
    }
    if !filter.except.is_empty() {
        let except = serde_json::to_string(&filter.except).unwrap_or_default();
        query.push(" and s.number not in (select value from json_each(").push_bind(except).push("))");
    }
    narrow
}

fn session_token(row: &SqliteRow) -> Result<SessionToken, StoreError> {
    Ok(SessionToken {
        secret_hash: bytes32(row, "secret_hash")?,
        issued_at: Position(row.try_get("issued_at")?),
        expires_at: time(row.try_get("expires_at")?),
    })
}

fn principal(row: &SqliteRow) -> Result<Principal, StoreError> {
    Ok(Principal {
        number: PrincipalNumber(row.try_get("number")?),
        organization: OrganizationNumber(row.try_get("organization")?),
        issuer: row.try_get("issuer")?,
        subject_digest: bytes32(row, "subject_digest")?,
        subject: row.try_get("subject")?,
    })
}

fn principal_row(row: &SqliteRow) -> Result<PrincipalRow, StoreError> {
    Ok(PrincipalRow { principal: principal(row)?, name: row.try_get("name")?, email: row.try_get("email")? })
}

fn key_secret(row: &SqliteRow) -> Result<KeySecret, StoreError> {
    Ok(KeySecret {
        id: row.try_get("id")?,
        hash: bytes32(row, "secret_hash")?,
        used_at: row.try_get::<Option<i64>, _>("last_used_at")?.map(time),
    })
}

fn addressed(condition: &str) -> String {
    format!(
        "select e.*, s.id as session_id, a.id as application_id, r.id as revocation_id from event e \
         left join session s on e.stream_kind = 4 and s.number = e.stream_number \
         left join application a on a.number = e.application left join revocation r on r.number = e.revocation \
         where {condition} limit ?"
    )
}

fn addressed_entry(row: &SqliteRow) -> Result<Addressed, StoreError> {
    Ok(Addressed {
        entry: entry(row)?,
        session_id: row.try_get("session_id")?,
        application_id: row.try_get("application_id")?,
        revocation_id: row.try_get("revocation_id")?,
    })
}
