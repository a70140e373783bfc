//! What was counted of the log.

use async_trait::async_trait;
use sessiond_core::ids::{OrganizationNumber, Position, SessionNumber};
use sessiond_core::statistics::cell::{Dimension, Group};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::insert::each;
use super::store::{PgStore, numbers};
use crate::StoreError;
use crate::answers::{group_cell, label, labelled};
use crate::seam::{CellPage, Count, CountedTo, GroupCell, Label, Labelled, Recount, Statistics};

const MARK: &str = "insert into statistic_mark (only_one, position, exact_after) select 1, $2::bigint, $3::bigint \
     where $1::bigint = 0 or exists (select 1 from statistic_mark) \
     on conflict (only_one) do update set position = excluded.position, exact_after = excluded.exact_after \
     where statistic_mark.position = $1";

const CELL: &str = "insert into statistic_cell (organization, application, dimension, hour, value, open, body) \
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[]) \
     on conflict (organization, application, dimension, hour, value) do update set open = excluded.open, body = excluded.body";

const LABEL: &str = "insert into statistic_label (number, organization, dimension, text) \
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])";

const SESSION: &str = "insert into statistic_session (session, client, host, erased) \
     select session, client, host, 0 from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as new (session, client, host) \
     on conflict (session) do update set client = excluded.client, host = excluded.host, erased = 0";

const LAST_CELLS: &str = "select c.* \
     from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) as wanted (organization, application, dimension, value) \
     cross join lateral (select * from statistic_cell s where s.organization = wanted.organization \
     and s.application = wanted.application and s.dimension = wanted.dimension and s.value = wanted.value \
     and s.hour <= $5 order by s.hour desc limit 1) c";

/// Labels of these sessions that no other session has that is kept and not erased.
const UNSAID: [&str; 2] = [
    "update statistic_label l set text = null where number in (select client from statistic_session \
     where session = any($1) and client > 0) and not exists (select from statistic_session s \
     where s.client = l.number and s.client > 0 and s.erased = 0)",
    "update statistic_label l set text = null where number in (select host from statistic_session \
     where session = any($1) and host > 0) and not exists (select from statistic_session s \
     where s.host = l.number and s.host > 0 and s.erased = 0)",
];

pub(super) async fn write(connection: &mut PgConnection, count: &Count) -> Result<(), StoreError> {
    let marked = sqlx::query(MARK)
        .bind(count.from.0)
        .bind(count.to.position.0)
        .bind(count.to.exact_after.0)
        .execute(&mut *connection)
        .await?;
    if marked.rows_affected() == 0 {
        return Ok(());
    }
    let (cells, labels, sessions) = (&count.cells, &count.labels, &count.sessions);
    if !cells.is_empty() {
        sqlx::query(CELL)
            .bind(each(cells, |one| one.group.organization.0))
            .bind(each(cells, |one| one.group.application.0))
            .bind(each(cells, |one| one.group.dimension as i64))
            .bind(each(cells, |one| one.hour))
            .bind(each(cells, |one| one.group.value))
            .bind(each(cells, |one| one.cell.open))
            .bind(each(cells, |one| one.cell.body()))
            .execute(&mut *connection)
            .await?;
    }
    if !labels.is_empty() {
        sqlx::query(LABEL)
            .bind(each(labels, |one| one.number))
            .bind(each(labels, |one| one.organization.0))
            .bind(each(labels, |one| one.dimension as i64))
            .bind(each(labels, |one| one.text.as_str()))
            .execute(&mut *connection)
            .await?;
    }
    if !sessions.is_empty() {
        sqlx::query(SESSION)
            .bind(each(sessions, |one| one.session.0))
            .bind(each(sessions, |one| one.client))
            .bind(each(sessions, |one| one.host))
            .execute(&mut *connection)
            .await?;
    }
    unsay_erased(connection, sessions).await
}

/// Takes back what was counted of some of the log.
pub(super) async fn uncount(connection: &mut PgConnection, again: &Recount) -> Result<(), StoreError> {
    for (sql, from) in [
        ("delete from statistic_cell where hour >= $1", again.hour),
        ("delete from statistic_session where session > $1", again.session.0),
        ("delete from statistic_mark where $1 >= 0", 0),
    ] {
        sqlx::query(sql).bind(from).execute(&mut *connection).await?;
    }
    if let Some(to) = again.to {
        let query = sqlx::query(MARK).bind(0_i64).bind(to.position.0).bind(to.exact_after.0);
        query.execute(connection).await?;
    }
    Ok(())
}

/// Those of these that were erased after they had been looked at.
async fn unsay_erased(connection: &mut PgConnection, sessions: &[Labelled]) -> Result<(), StoreError> {
    let sql =
        "select number from session_detail where number = any($1) and hostname is null and client is null";
    let numbers = each(sessions, |one| one.session.0);
    let erased: Vec<i64> = sqlx::query_scalar(sql).bind(numbers).fetch_all(&mut *connection).await?;
    if erased.is_empty() {
        return Ok(());
    }
    unsay_labels(connection, &erased.into_iter().map(SessionNumber).collect::<Vec<_>>()).await
}

/// What these sessions' labels are called is said no more on their account.
pub(super) async fn unsay_labels(
    connection: &mut PgConnection,
    sessions: &[SessionNumber],
) -> Result<(), StoreError> {
    let numbers = numbers(sessions);
    let sql = "update statistic_session set erased = 1 where session = any($1)";
    sqlx::query(sql).bind(&numbers).execute(&mut *connection).await?;
    for sql in UNSAID {
        sqlx::query(sql).bind(&numbers).execute(&mut *connection).await?;
    }
    Ok(())
}

#[async_trait]
impl Statistics for PgStore {
    async fn counted_to(&self) -> Result<Option<CountedTo>, StoreError> {
        let sql = "select position, exact_after from statistic_mark";
        let row: Option<(i64, i64)> = sqlx::query_as(sql).fetch_optional(&self.pool).await?;
        let counted = |(position, exact_after)| CountedTo {
            position: Position(position),
            exact_after: Position(exact_after),
        };
        Ok(row.map(counted))
    }

    async fn cells(&self, page: &CellPage) -> Result<Vec<GroupCell>, StoreError> {
        let sql = "select * from statistic_cell where organization = $1 and application = $2 and dimension = $3 \
                   and (hour, value) > ($4, $5) and hour < $6 order by hour, value limit $7";
        let query = sqlx::query(sql)
            .bind(page.organization.0)
            .bind(page.application.0)
            .bind(page.dimension as i64)
            .bind(page.after.0)
            .bind(page.after.1)
            .bind(page.before)
            .bind(i64::from(page.limit));
        query.fetch_all(&self.pool).await?.iter().map(group_cell).collect()
    }

    async fn last_cells(&self, groups: &[Group], hour: i64) -> Result<Vec<GroupCell>, StoreError> {
        if groups.is_empty() {
            return Ok(vec![]);
        }
        let query = sqlx::query(LAST_CELLS)
            .bind(each(groups, |one| one.organization.0))
            .bind(each(groups, |one| one.application.0))
            .bind(each(groups, |one| one.dimension as i64))
            .bind(each(groups, |one| one.value))
            .bind(hour);
        query.fetch_all(&self.pool).await?.iter().map(group_cell).collect()
    }

    async fn labels(&self, numbers: &[i64]) -> Result<Vec<Label>, StoreError> {
        let sql = "select * from statistic_label where number = any($1) and text is not null";
        sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?.iter().map(label).collect()
    }

    async fn labels_called(
        &self,
        organization: OrganizationNumber,
        dimension: Dimension,
        texts: &[String],
    ) -> Result<Vec<Label>, StoreError> {
        let sql = "select * from statistic_label where organization = $1 and dimension = $2 and text = any($3) \
                   and text is not null";
        let query = sqlx::query(sql).bind(organization.0).bind(dimension as i64).bind(texts);
        query.fetch_all(&self.pool).await?.iter().map(label).collect()
    }

    async fn last_label(&self) -> Result<i64, StoreError> {
        let sql = "select coalesce(max(number), 0) from statistic_label";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    async fn labelled(&self, sessions: &[SessionNumber]) -> Result<Vec<Labelled>, StoreError> {
        let sql = "select * from statistic_session where session = any($1)";
        let rows = sqlx::query(sql).bind(numbers(sessions)).fetch_all(&self.pool).await?;
        rows.iter().map(labelled).collect()
    }

    async fn cuts(&self, after: Position, up_to: Position) -> Result<Vec<Position>, StoreError> {
        let sql = "select position from cut where position > $1 and position <= $2";
        let rows = sqlx::query(sql).bind(after.0).bind(up_to.0).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(Position(row.try_get(0)?))).collect()
    }

    async fn last_let_go(&self) -> Result<Position, StoreError> {
        let sql = "select greatest(coalesce((select last from gone order by first desc limit 1), 0), \
                   coalesce((select max(position) from cut), 0))";
        Ok(Position(sqlx::query_scalar(sql).fetch_one(&self.pool).await?))
    }
}
