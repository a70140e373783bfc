//! Sessions, live and ended: looked up, listed and counted.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{AssertSqlSafe, QueryBuilder};
use uuid::Uuid;

use super::session::{WHOLE_SESSION, whole_session};
use super::store::{LONGEST_INDEXED, PgStore, numbers};
use crate::StoreError;
use crate::answers::{confirmation, ended_terminal};
use crate::row::{Confirmation, Detail, SessionRow};
use crate::seam::{EndedOrder, EndedPage, EndedTerminal, SessionRows};
use crate::values::{Stored, detail};

#[async_trait]
impl SessionRows for PgStore {
    async fn session(&self, id: Uuid) -> Result<Option<SessionRow>, StoreError> {
        let sql = whole_sessions("s.id = $1");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(whole_session).transpose()
    }

    async fn session_by_number(&self, number: SessionNumber) -> Result<Option<SessionRow>, StoreError> {
        let sql = whole_sessions("s.number = $1");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(number.0).fetch_optional(&self.pool).await?;
        row.as_ref().map(whole_session).transpose()
    }

    async fn sessions(&self, wanted: &[SessionNumber]) -> Result<Vec<SessionRow>, StoreError> {
        if wanted.is_empty() {
            return Ok(vec![]);
        }
        let sql = whole_sessions("s.number = any($1)");
        let query = sqlx::query(AssertSqlSafe(sql)).bind(numbers(wanted));
        query.fetch_all(&self.pool).await?.iter().map(whole_session).collect()
    }

    async fn details(&self, wanted: &[SessionNumber]) -> Result<Vec<(SessionNumber, Detail)>, StoreError> {
        if wanted.is_empty() {
            return Ok(vec![]);
        }
        let query = sqlx::query("select * from session_detail where number = any($1)").bind(numbers(wanted));
        let read = |row: &PgRow| Ok((SessionNumber(row.integer("number")?), detail(row)?));
        query.fetch_all(&self.pool).await?.iter().map(read).collect()
    }

    async fn ended(&self, page: &EndedPage<'_>) -> Result<Vec<SessionRow>, StoreError> {
        let (direction, beyond) = if page.descending { ("desc", "<") } else { ("asc", ">") };
        let mut query = QueryBuilder::new(format!("select {WHOLE_SESSION} "));
        let narrow = ended_from(&mut query, page.application, page.filter);
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
        match column(page.order) {
            Some(column) => query.push(format!("s.{column} {direction}, s.number {direction}")),
            None => query.push(format!("{narrow}.number {direction}")),
        };
        query.push(" limit ").push_bind(i64::try_from(page.limit).unwrap_or(i64::MAX));
        query.build().fetch_all(&self.pool).await?.iter().map(whole_session).collect()
    }

    async fn count_ended(&self, application: ApplicationNumber, filter: &Filter) -> Result<u64, StoreError> {
        let mut query = QueryBuilder::new("select count(*) ");
        ended_from(&mut query, application, filter);
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
        let sql = "select number from session \
                   where application = $1 and principal = $2 and number > $3 and state = 0 order by number limit $4";
        let query = sqlx::query_scalar(sql).bind(application.0).bind(principal.0).bind(after.0);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(query.bind(limit).fetch_all(&self.pool).await?.into_iter().map(SessionNumber).collect())
    }

    async fn ended_terminals(
        &self,
        organization: OrganizationNumber,
        since: Time,
    ) -> Result<Vec<EndedTerminal>, StoreError> {
        let sql = "select ended_at, connected_at, principal, resource from session \
                   where organization = $1 and ended_at >= $2 and state = 0 and kind = 'terminal'";
        let query = sqlx::query(sql).bind(organization.0).bind(since.timestamp_millis());
        query.fetch_all(&self.pool).await?.iter().map(ended_terminal).collect()
    }

    async fn confirmations(&self, sessions: &[SessionNumber]) -> Result<Vec<Confirmation>, StoreError> {
        if sessions.is_empty() {
            return Ok(vec![]);
        }
        let query = sqlx::query("select * from confirmation where session = any($1)").bind(numbers(sessions));
        query.fetch_all(&self.pool).await?.iter().map(confirmation).collect()
    }
}

fn whole_sessions(condition: &str) -> String {
    format!(
        "select {WHOLE_SESSION} from session s left join session_detail d on d.number = s.number \
         left join session_activity a on a.number = s.number where {condition}"
    )
}

/// What ended sessions are ordered by before their number.
fn column(order: EndedOrder) -> Option<&'static str> {
    match order {
        EndedOrder::Connected => None,
        EndedOrder::LastActive => Some("last_active_at"),
        EndedOrder::Expires => Some("token_expires_at"),
    }
}

/// Adds from where, and which: ended sessions of an application that fit a filter. Each condition is one that an index has,
/// or is asked of what an index finds. Returns the table whose number the rows come ordered by.
fn ended_from(
    query: &mut QueryBuilder<Postgres>,
    application: ApplicationNumber,
    filter: &Filter,
) -> &'static str {
    // What details are searched for by is in an index with the application.
    let by_detail = filter.session.is_none() && (filter.hostname.is_some() || filter.client.is_some());
    let narrow = if by_detail { "d" } else { "s" };
    query.push(match by_detail {
        true => "from session_detail d join session s on s.number = d.number ",
        false => "from session s left join session_detail d on d.number = s.number ",
    });
    query.push(format!(
        "left join session_activity a on a.number = s.number where s.state = 0 and {narrow}.application = "
    ));
    query.push_bind(application.0);
    if matches!(filter.kind, Some(Kind::Webui | Kind::Task)) {
        // As the indexes of work say it.
        query.push(" and s.kind in ('webui', 'task')");
    }
    for (column, number) in [
        ("s.number", filter.session.map(|session| session.0)),
        ("s.principal", filter.principal.map(|principal| principal.0)),
    ] {
        if let Some(number) = number {
            query.push(format!(" and {column} = ")).push_bind(number);
        }
    }
    for (column, text) in [
        ("d.hostname", filter.hostname.as_deref()),
        ("d.client", filter.client.as_deref()),
        ("s.kind", filter.kind.map(Kind::word)),
        ("s.resource", filter.resource.as_deref()),
    ] {
        match text {
            Some(text) if text.contains('\0') => {
                // No text in the database can hold it, not even one that is asked for.
                query.push(" and false");
            }
            Some(text) => {
                if column == "d.client" && text.len() <= LONGEST_INDEXED {
                    // As the index says it.
                    query.push(format!(" and octet_length(d.client) <= {LONGEST_INDEXED}"));
                }
                query.push(format!(" and {column} = ")).push_bind(text.to_owned());
            }
            None => {}
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
    push_lists(query, filter);
    narrow
}

fn push_lists(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if !filter.principals.is_empty() {
        let principals: Vec<i64> = filter.principals.iter().map(|principal| principal.0).collect();
        query.push(" and s.principal = any(").push_bind(principals).push(")");
    }
    if !filter.stage.is_empty() {
        let words: Vec<&str> = filter.stage.iter().map(|stage| stage.word()).collect();
        query.push(" and coalesce(s.ended_outcome, 'terminated') = any(").push_bind(words).push(")");
    }
    if let Some(settled_by) = filter.settled_by {
        query.push(" and (s.ended_outcome is not null or s.ended_at <= ");
        query.push_bind(settled_by.timestamp_millis());
        query.push(" or exists (select 1 from confirmation c where c.session = s.number))");
    }
    if !filter.except.is_empty() {
        query.push(" and s.number <> all(").push_bind(numbers(&filter.except)).push(")");
    }
}
