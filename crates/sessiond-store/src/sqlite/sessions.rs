//! Sessions, live and ended: looked up, listed and counted.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sqlx::{AssertSqlSafe, QueryBuilder, Row, Sqlite, SqliteExecutor};
use uuid::Uuid;

use super::session::{WHOLE_SESSION, whole_session};
use super::store::SqliteStore;
use crate::StoreError;
use crate::answers::{confirmation, ended_terminal};
use crate::row::{Confirmation, Detail, SessionRow};
use crate::seam::{EndedOrder, EndedPage, EndedTerminal, SessionRows};
use crate::values::detail;

#[async_trait]
impl SessionRows for SqliteStore {
    async fn session(&self, id: Uuid) -> Result<Option<SessionRow>, StoreError> {
        let sql = format!(
            "select {WHOLE_SESSION} from session s left join session_detail d using (number) \
             left join session_activity a using (number) where s.id = ?"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(whole_session).transpose()
    }

    async fn session_by_number(&self, number: SessionNumber) -> Result<Option<SessionRow>, StoreError> {
        let sql = format!(
            "select {WHOLE_SESSION} from session s left join session_detail d using (number) \
             left join session_activity a using (number) where s.number = ?"
        );
        let row = sqlx::query(AssertSqlSafe(sql)).bind(number.0).fetch_optional(&self.pool).await?;
        row.as_ref().map(whole_session).transpose()
    }

    async fn sessions(&self, numbers: &[SessionNumber]) -> Result<Vec<SessionRow>, StoreError> {
        numbered(&self.pool, numbers).await
    }

    async fn details(&self, numbers: &[SessionNumber]) -> Result<Vec<(SessionNumber, Detail)>, StoreError> {
        if numbers.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select d.* from (select value from json_each(?)) wanted \
                   cross join session_detail d on d.number = wanted.value";
        let numbers = serde_json::to_string(numbers).unwrap_or_default();
        let rows = sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((SessionNumber(row.try_get("number")?), detail(row)?))).collect()
    }

    async fn ended(&self, page: &EndedPage<'_>) -> Result<Vec<SessionRow>, StoreError> {
        let (direction, beyond) = if page.descending { ("desc", "<") } else { ("asc", ">") };
        let mut query = QueryBuilder::new(format!("select {WHOLE_SESSION} "));
        let narrow = ended_from(&mut query, page.application, page.filter, page.order);
        if let Some((at, number)) = page.after {
            match column(page.order) {
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
        if let Some(column) = column(page.order) {
            query.push(format!("s.{column} {direction}, "));
        }
        query.push(format!("{narrow}.number {direction} limit ")).push_bind(page.limit as i64);
        query.build().fetch_all(&self.pool).await?.iter().map(whole_session).collect()
    }

    async fn count_ended(&self, application: ApplicationNumber, filter: &Filter) -> Result<u64, StoreError> {
        let mut query = QueryBuilder::new("select count(*) ");
        ended_from(&mut query, application, filter, EndedOrder::Connected);
        let count: i64 = query.build_query_scalar().fetch_one(&self.pool).await?;
        Ok(count.unsigned_abs())
    }

    async fn ended_of_principal(
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

    async fn ended_terminals(
        &self,
        organization: OrganizationNumber,
        since: Time,
    ) -> Result<Vec<EndedTerminal>, StoreError> {
        let sql = "select ended_at, connected_at, principal, resource from session \
                   indexed by session_ended_terminals \
                   where organization = ? and ended_at >= ? and state = 0 and kind = 'terminal'";
        let query = sqlx::query(sql).bind(organization.0).bind(since.timestamp_millis());
        query.fetch_all(&self.pool).await?.iter().map(ended_terminal).collect()
    }

    async fn confirmations(&self, sessions: &[SessionNumber]) -> Result<Vec<Confirmation>, StoreError> {
        if sessions.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select c.* from (select value from json_each(?)) wanted \
                   cross join confirmation c on c.session = wanted.value";
        let numbers = serde_json::to_string(sessions).unwrap_or_default();
        sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?.iter().map(confirmation).collect()
    }
}

/// Sessions by number.
pub(super) async fn numbered(
    executor: impl SqliteExecutor<'_>,
    numbers: &[SessionNumber],
) -> Result<Vec<SessionRow>, StoreError> {
    if numbers.is_empty() {
        return Ok(vec![]);
    }
    let sql = format!(
        "select {WHOLE_SESSION} from (select value from json_each(?)) wanted \
         cross join session s on s.number = wanted.value left join session_detail d on d.number = s.number \
         left join session_activity a on a.number = s.number"
    );
    let numbers = serde_json::to_string(numbers).unwrap_or_default();
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(numbers).fetch_all(executor).await?;
    rows.iter().map(whole_session).collect()
}

/// What ended sessions are ordered by before their number.
fn column(order: EndedOrder) -> Option<&'static str> {
    match order {
        EndedOrder::Connected => None,
        EndedOrder::LastActive => Some("last_active_at"),
        EndedOrder::Expires => Some("token_expires_at"),
    }
}

/// Adds from where, by the narrowest index, and which: ended sessions of an application that fit a filter. Returns the
/// table whose number the rows come ordered by.
fn ended_from(
    query: &mut QueryBuilder<Sqlite>,
    application: ApplicationNumber,
    filter: &Filter,
    order: EndedOrder,
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
        (filter, _) if !filter.principals.is_empty() => (by_session("session_ended_by_principal"), "s"),
        (Filter { kind: Some(Kind::Webui | Kind::Task), .. }, EndedOrder::LastActive) => {
            (by_session("session_ended_work_by_activity"), "s")
        }
        (Filter { kind: Some(Kind::Webui | Kind::Task), .. }, EndedOrder::Connected) => {
            (by_session("session_ended_work"), "s")
        }
        (_, EndedOrder::LastActive) => (by_session("session_ended_by_activity"), "s"),
        (_, EndedOrder::Expires) => (by_session("session_ended_by_expiry"), "s"),
        (_, EndedOrder::Connected) => (by_session("session_ended"), "s"),
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
    if !filter.principals.is_empty() {
        let principals = serde_json::to_string(&filter.principals).unwrap_or_default();
        query.push(" and s.principal in (select value from json_each(").push_bind(principals).push("))");
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
