//! Letting go: from the log, which keeps what its chains need, and from every table that knows of a session.

use std::collections::BTreeMap;

use sessiond_core::ids::{OrganizationNumber, Position, SessionNumber};
use sessiond_core::retention::OfResource;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::insert::{count, each};
use super::{past, statistics};
use crate::StoreError;
use crate::seam::Cut;
use crate::tables::{OF_SESSIONS, newest, stretches};

const GONE: &str = "insert into gone (first, last, hash, commit_hash) \
     select position, position, hash, commit_hash \
     from unnest($1::bigint[], $2::bytea[], $3::bytea[]) as new (position, hash, commit_hash)";

const CUT: &str = "insert into cut (position, previous, hash) \
     select * from unnest($1::bigint[], $2::bigint[], $3::bytea[]) \
     on conflict (position) do update set previous = excluded.previous, hash = excluded.hash";

const RESOURCE: &str = "insert into let_go_resource as old (application, resource, sessions, bytes_out) \
     select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[]) \
     on conflict (application, resource) do update set sessions = old.sessions + excluded.sessions, \
     bytes_out = least(old.bytes_out, 9223372036854775807 - excluded.bytes_out) + excluded.bytes_out";

const FOLDED_TO: &str = "insert into folding (organization, position) select organization, $2 \
     from unnest($1::bigint[]) as new (organization) \
     on conflict (organization) do update set position = excluded.position";

/// The commits at some positions of which nothing is kept any more: their first and last positions. A commit ends at an event,
/// kept or let go, that has its hash; either is looked for only as far as the other lies.
const WHOLE_COMMITS: &str = "with wanted (p) as (select unnest($1::bigint[])), \
     ends (p, before, after) as (select p, \
     coalesce((select last from gone where last < p and commit_hash is not null order by last desc limit 1), 0), \
     coalesce((select last from gone where last >= p and commit_hash is not null order by last limit 1), \
     9223372036854775807) from wanted), \
     bounds (first, last) as (select distinct \
     1 + coalesce((select position from event where position < p and position > before \
     and commit_hash is not null order by position desc limit 1), before), \
     coalesce((select position from event where position > p and position < after \
     and commit_hash is not null order by position limit 1), after) from ends) \
     select first, last from bounds \
     where not exists (select from event where position >= first and position <= last) order by first";

/// Lets sessions go that have ended, with these events, which are all that they have.
pub(super) async fn sessions(
    connection: &mut PgConnection,
    sessions: &[SessionNumber],
    positions: &[Position],
    resources: &[OfResource],
) -> Result<(), StoreError> {
    let_events_go(connection, positions).await?;
    let numbers = each(sessions, |session| session.0);
    let departed = past::applications_of(connection, sessions).await?;
    statistics::unsay_labels(connection, sessions).await?;
    for (table, column) in OF_SESSIONS {
        let sql = format!("delete from {table} where {column} = any($1)");
        sqlx::query(AssertSqlSafe(sql)).bind(&numbers).execute(&mut *connection).await?;
    }
    past::blocks_again(connection, &departed).await?;
    add_to_resources(connection, resources).await
}

pub(super) async fn add_to_resources(
    connection: &mut PgConnection,
    resources: &[OfResource],
) -> Result<(), StoreError> {
    let mut sums: BTreeMap<(i64, &str), (i64, i64)> = BTreeMap::new();
    for one in resources {
        let sum = sums.entry((one.application.0, one.resource.as_str())).or_default();
        sum.0 = sum.0.saturating_add(count(one.sessions));
        sum.1 = sum.1.saturating_add(count(one.bytes_out));
    }
    if sums.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = sums.into_iter().collect();
    sqlx::query(RESOURCE)
        .bind(each(&rows, |((application, _), _)| *application))
        .bind(each(&rows, |((_, resource), _)| *resource))
        .bind(each(&rows, |(_, (sessions, _))| *sessions))
        .bind(each(&rows, |(_, (_, bytes_out))| *bytes_out))
        .execute(connection)
        .await?;
    Ok(())
}

/// Lets activity go; those events that go on from it keep its hashes.
pub(super) async fn fold(
    connection: &mut PgConnection,
    positions: &[Position],
    cuts: &[Cut],
) -> Result<(), StoreError> {
    let_events_go(connection, positions).await?;
    let cuts = newest(cuts, |cut| cut.position);
    if cuts.is_empty() {
        return Ok(());
    }
    sqlx::query(CUT)
        .bind(each(&cuts, |cut| cut.position.0))
        .bind(each(&cuts, |cut| cut.previous.0))
        .bind(each(&cuts, |cut| cut.hash.as_slice()))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn folded_to(
    connection: &mut PgConnection,
    organizations: &[OrganizationNumber],
    position: Position,
) -> Result<(), StoreError> {
    let organizations = newest(organizations, |organization| *organization);
    let numbers = each(&organizations, |organization| organization.0);
    sqlx::query(FOLDED_TO).bind(numbers).bind(position.0).execute(connection).await?;
    Ok(())
}

/// Deletes events, with what is told of them outside, and keeps what both chains need to go on.
async fn let_events_go(connection: &mut PgConnection, positions: &[Position]) -> Result<(), StoreError> {
    let list = each(positions, |position| position.0);
    let sql = "delete from event where position = any($1) returning position, hash, commit_hash";
    let rows = sqlx::query(sql).bind(&list).fetch_all(&mut *connection).await?;
    if rows.len() != positions.len() {
        return Err(StoreError::Failed("an event that was to be let go is not there".to_owned()));
    }
    let mut gone: Vec<(i64, Vec<u8>, Option<Vec<u8>>)> = Vec::with_capacity(rows.len());
    for row in rows {
        gone.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    }
    for sql in [
        "delete from cut where position = any($1)",
        "delete from webhook_delivery where (webhook, position) in (\
         select p.id, gone.position from webhook_progress p cross join unnest($1::bigint[]) as gone (position))",
    ] {
        sqlx::query(sql).bind(&list).execute(&mut *connection).await?;
    }
    sqlx::query(GONE)
        .bind(each(&gone, |(position, ..)| *position))
        .bind(each(&gone, |(_, hash, _)| hash.as_slice()))
        .bind(each(&gone, |(.., commit_hash)| commit_hash.as_deref()))
        .execute(&mut *connection)
        .await?;
    let whole = sqlx::query_as(WHOLE_COMMITS).bind(&list).fetch_all(&mut *connection).await?;
    for (first, last) in stretches(whole) {
        join_commits(connection, first, last).await?;
    }
    Ok(())
}

/// Makes whole commits that were let go one row, with those before and after that were let go already.
async fn join_commits(connection: &mut PgConnection, first: i64, last: i64) -> Result<(), StoreError> {
    let own = "select commit_hash from gone where last = $1 and commit_hash is not null";
    let own: Vec<u8> = sqlx::query_scalar(own).bind(last).fetch_one(&mut *connection).await?;
    let before = "select first from gone where last = $1 and commit_hash is not null and hash is null";
    let before: Option<i64> =
        sqlx::query_scalar(before).bind(first - 1).fetch_optional(&mut *connection).await?;
    let after = "select last, commit_hash from gone where first = $1 and hash is null";
    let after: Option<(i64, Vec<u8>)> =
        sqlx::query_as(after).bind(last + 1).fetch_optional(&mut *connection).await?;
    let first = before.unwrap_or(first);
    let (last, commit_hash) = after.unwrap_or((last, own));
    sqlx::query("delete from gone where first >= $1 and first <= $2")
        .bind(first)
        .bind(last)
        .execute(&mut *connection)
        .await?;
    sqlx::query("insert into gone (first, last, hash, commit_hash) values ($1, $2, null, $3)")
        .bind(first)
        .bind(last)
        .bind(commit_hash)
        .execute(connection)
        .await?;
    Ok(())
}
