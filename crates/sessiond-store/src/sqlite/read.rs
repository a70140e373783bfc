//! Questions, answered in pages: no reader holds a snapshot longer than a page takes.

use std::time::Duration;

use sessiond_core::Time;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, SessionNumber,
};
use sessiond_core::kind::Kind;
use sessiond_core::once::Outcome;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, QueryBuilder, Row, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::look::looking;
use super::session::{WHOLE_SESSION, whole_session};
use super::{bytes32, detail, options, outcome, revocation, time, wal_bytes};
use crate::StoreError;
use crate::row::{
    Confirmation, Detail, McpSession, Principal, PrincipalRow, Revocation, SessionRow, SessionToken,
};

/// Size of the WAL from which it is moved into the database: late, because pages written often are then moved once.
const CHECKPOINT_FROM: u64 = 16 << 20;

/// A few connections that cannot write.
#[derive(Clone)]
pub struct Reader {
    pub(super) pool: SqlitePool,
    /// Of a connection that may checkpoint.
    options: SqliteConnectOptions,
}

/// What statistics want of a terminal session that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTerminal {
    pub connected_at: Time,
    pub ended_at: Time,
    pub principal: PrincipalNumber,
    /// Its machine, as the session's resource names it.
    pub machine: Option<String>,
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
        let options = options(url)?;
        Ok(Self { pool: pool(&options).await?, options })
    }

    /// Opens readers that change nothing, not even beside the file: for a copy of another journal mode, and for a medium
    /// that cannot be written to.
    pub async fn looking(url: &str) -> Result<Self, StoreError> {
        let options = looking(url)?;
        Ok(Self { pool: pool(&options).await?, options })
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Moves the WAL into the database as far as readers allow, from a connection of its own, so that the writer need
    /// not wait; does nothing while the WAL is small. Returns the WAL's size in bytes.
    pub async fn checkpoint_if_large(&self) -> Result<u64, StoreError> {
        checkpoint_if_large(&self.options).await
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

    /// What sessions connected with, by number, in no order.
    pub async fn details(
        &self,
        numbers: &[SessionNumber],
    ) -> Result<Vec<(SessionNumber, Detail)>, StoreError> {
        if numbers.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select d.* from (select value from json_each(?)) wanted \
                   cross join session_detail d on d.number = wanted.value";
        let numbers = serde_json::to_string(numbers).unwrap_or_default();
        let rows = sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((SessionNumber(row.try_get("number")?), detail(row)?))).collect()
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

    /// Sessions after this one that have ended and of which something is still kept to speak to their upstream.
    pub async fn untold_mcp(
        &self,
        after: SessionNumber,
        limit: usize,
    ) -> Result<Vec<(SessionNumber, Uuid, ApplicationNumber)>, StoreError> {
        let sql = "select s.number, s.id, s.application from mcp_session m indexed by mcp_session_kept \
                   cross join session s on s.number = m.session \
                   where m.sealed <> x'' and m.session > ? and s.state = 0 order by m.session limit ?";
        let read = |row: &SqliteRow| {
            let application = ApplicationNumber(row.try_get("application")?);
            Ok((SessionNumber(row.try_get("number")?), row.try_get("id")?, application))
        };
        let query = sqlx::query(sql).bind(after.0).bind(limit as i64);
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// The sealed secret of an upstream's credential.
    pub async fn upstream_secret(
        &self,
        application: ApplicationNumber,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = sqlx::query_scalar("select sealed from upstream_secret where application = ?")
            .bind(application.0)
            .fetch_optional(&self.pool)
            .await?;
        Ok(sealed)
    }

    /// What a machine is logged into with, sealed.
    pub async fn machine_secret(&self, id: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = sqlx::query_scalar("select sealed from machine_secret where id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(sealed)
    }

    /// An organization's terminal sessions that ended at an instant or later.
    pub async fn ended_terminals(
        &self,
        organization: OrganizationNumber,
        since: Time,
    ) -> Result<Vec<EndedTerminal>, StoreError> {
        let sql = "select ended_at, connected_at, principal, resource from session \
                   indexed by session_ended_terminals \
                   where organization = ? and ended_at >= ? and state = 0 and kind = 'terminal'";
        let read = |row: &SqliteRow| {
            Ok(EndedTerminal {
                connected_at: time(row.try_get("connected_at")?),
                ended_at: time(row.try_get("ended_at")?),
                principal: PrincipalNumber(row.try_get("principal")?),
                machine: row.try_get("resource")?,
            })
        };
        let query = sqlx::query(sql).bind(organization.0).bind(since.timestamp_millis());
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    /// Which of these ends are known where the work ran.
    pub async fn confirmations(&self, sessions: &[SessionNumber]) -> Result<Vec<Confirmation>, StoreError> {
        if sessions.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select c.* from (select value from json_each(?)) wanted \
                   cross join confirmation c on c.session = wanted.value";
        let numbers = serde_json::to_string(sessions).unwrap_or_default();
        let read = |row: &SqliteRow| {
            Ok(Confirmation {
                session: SessionNumber(row.try_get("session")?),
                at: time(row.try_get("at")?),
                message: row.try_get("message")?,
            })
        };
        sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?.iter().map(read).collect()
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

    /// Principals by number, with what they are called, in no order.
    pub async fn principals_numbered(
        &self,
        numbers: &[PrincipalNumber],
    ) -> Result<Vec<PrincipalRow>, StoreError> {
        if numbers.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select p.* from (select value from json_each(?)) wanted \
                   cross join principal p on p.number = wanted.value";
        let numbers = serde_json::to_string(numbers).unwrap_or_default();
        sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?.iter().map(principal_row).collect()
    }

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

    /// The notes of the revocations that events at these positions were done by, by position.
    pub async fn notes(&self, positions: &[Position]) -> Result<Vec<(Position, String)>, StoreError> {
        if positions.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select e.position, r.note from (select value from json_each(?)) wanted \
                   cross join event e on e.position = wanted.value \
                   cross join revocation r on r.number = e.revocation where r.note is not null";
        let positions = serde_json::to_string(positions).unwrap_or_default();
        let rows = sqlx::query(sql).bind(positions).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((Position(row.try_get("position")?), row.try_get("note")?))).collect()
    }

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
}

/// A few connections that cannot write, to a database that exists.
pub(super) async fn pool(options: &SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new()
        .max_connections(4)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options.clone().read_only(true).pragma("cache_size", "-8192"))
        .await?;
    Ok(pool)
}

pub(super) async fn checkpoint_if_large(options: &SqliteConnectOptions) -> Result<u64, StoreError> {
    let bytes = wal_bytes(options.get_filename());
    if bytes > CHECKPOINT_FROM {
        let mut connection = SqliteConnection::connect_with(options).await?;
        sqlx::query("pragma wal_checkpoint(passive)").execute(&mut connection).await?;
        connection.close().await?;
    }
    Ok(bytes)
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
            "from session s indexed by {index} left join session_detail d on d.number = s.number \
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
        (Filter { resource: Some(_), .. }, _) => (by_session("session_ended_by_resource"), "s"),
        (Filter { principal: Some(_), .. }, _) => (by_session("session_ended_by_principal"), "s"),
        (Filter { kind: Some(Kind::Webui | Kind::Task), .. }, Some("last_active_at")) => {
            (by_session("session_ended_work_by_activity"), "s")
        }
        (Filter { kind: Some(Kind::Webui | Kind::Task), .. }, None) => {
            (by_session("session_ended_work"), "s")
        }
        (_, Some("last_active_at")) => (by_session("session_ended_by_activity"), "s"),
        (_, Some(_)) => (by_session("session_ended_by_expiry"), "s"),
        (_, None) => (by_session("session_ended"), "s"),
    };
    query.push(from).push_bind(application.0).push(" and s.state = 0");
    if matches!(filter.kind, Some(Kind::Webui | Kind::Task)) {
        // As the indexes of work say it.
        query.push(" and s.kind in ('webui', 'task')");
    }
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
        ("s.resource", filter.resource.as_deref()),
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
    if !filter.stage.is_empty() {
        let words: Vec<_> = filter.stage.iter().map(|stage| stage.word()).collect();
        query.push(" and coalesce(s.ended_outcome, 'terminated') in (select value from json_each(");
        query.push_bind(serde_json::to_string(&words).unwrap_or_default()).push("))");
    }
    if let Some(settled_by) = filter.settled_by {
        query.push(" and (s.ended_outcome is not null or s.ended_at <= ");
        query.push_bind(settled_by.timestamp_millis());
        query.push(" or exists (select 1 from confirmation c where c.session = s.number))");
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

pub(super) fn principal(row: &SqliteRow) -> Result<Principal, StoreError> {
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
