//! What was counted of the log. Many rows go in one statement as JSON.

use async_trait::async_trait;
use sessiond_core::ids::{OrganizationNumber, Position, SessionNumber};
use sessiond_core::statistics::cell::{Dimension, Group};
use sqlx::Row;

use super::store::SqliteStore;
use super::writer::SqliteWriter;
use crate::StoreError;
use crate::answers::{group_cell, label, labelled};
use crate::seam::{CellPage, Count, CountedTo, GroupCell, Label, Labelled, Recount, Statistics};

const MARK: &str = "insert into statistic_mark (only_one, position, exact_after) select 1, ?2, ?3 \
     where ?1 = 0 or exists (select 1 from statistic_mark) \
     on conflict (only_one) do update set position = excluded.position, exact_after = excluded.exact_after \
     where statistic_mark.position = ?1";

const CELL: &str = "insert into statistic_cell (organization, application, dimension, hour, value, open, body) \
     select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 from json_each(?) where true \
     on conflict (organization, application, dimension, hour, value) do update set open = excluded.open, body = excluded.body";

const LABEL: &str = "insert into statistic_label (number, organization, dimension, text) \
     select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each(?)";

const SESSION: &str = "insert into statistic_session (session, client, host, erased) \
     select value ->> 0, value ->> 1, value ->> 2, 0 from json_each(?) where true \
     on conflict (session) do update set client = excluded.client, host = excluded.host, erased = 0";

const LAST_CELLS: &str = "select c.* from (select value from json_each(?1)) wanted \
     cross join statistic_cell c on c.organization = wanted.value ->> 0 and c.application = wanted.value ->> 1 \
     and c.dimension = wanted.value ->> 2 and c.value = wanted.value ->> 3 \
     and c.hour = (select hour from statistic_cell indexed by statistic_cell_of_group \
     where organization = wanted.value ->> 0 and application = wanted.value ->> 1 and dimension = wanted.value ->> 2 \
     and value = wanted.value ->> 3 and hour <= ?2 order by hour desc limit 1)";

/// Labels of these sessions that no other session has that is kept and not erased.
const UNSAID: [&str; 2] = [
    "update statistic_label set text = null where number in (select client from statistic_session \
     where session in (select value from json_each(?1)) and client > 0) and not exists (select 1 from statistic_session s \
     where s.client = statistic_label.number and s.client > 0 and s.erased = 0)",
    "update statistic_label set text = null where number in (select host from statistic_session \
     where session in (select value from json_each(?1)) and host > 0) and not exists (select 1 from statistic_session s \
     where s.host = statistic_label.number and s.host > 0 and s.erased = 0)",
];

impl SqliteWriter {
    pub(super) async fn write_count(&mut self, count: &Count) -> Result<(), StoreError> {
        let marked = sqlx::query(MARK)
            .bind(count.from.0)
            .bind(count.to.position.0)
            .bind(count.to.exact_after.0)
            .execute(&mut self.connection)
            .await?;
        if marked.rows_affected() == 0 {
            return Ok(());
        }
        let cell = |one: &GroupCell| {
            let group = (one.group.organization, one.group.application, one.group.dimension as i64);
            (group.0, group.1, group.2, one.hour, one.group.value, one.cell.open, one.cell.body())
        };
        let cells: Vec<_> = count.cells.iter().map(cell).collect();
        let label = |one: &Label| (one.number, one.organization, one.dimension as i64, one.text.clone());
        let labels: Vec<_> = count.labels.iter().map(label).collect();
        let sessions: Vec<_> = count.sessions.iter().map(|one| (one.session, one.client, one.host)).collect();
        for (sql, values, some) in [
            (CELL, serde_json::to_string(&cells), !cells.is_empty()),
            (LABEL, serde_json::to_string(&labels), !labels.is_empty()),
            (SESSION, serde_json::to_string(&sessions), !sessions.is_empty()),
        ] {
            if some {
                let values = values.unwrap_or_default();
                sqlx::query(sql).bind(values).execute(&mut self.connection).await?;
            }
        }
        self.unsay_erased(&count.sessions).await
    }

    /// Takes back what was counted of some of the log.
    pub(super) async fn uncount(&mut self, again: &Recount) -> Result<(), StoreError> {
        for (sql, from) in [
            ("delete from statistic_cell where hour >= ?", again.hour),
            ("delete from statistic_session where session > ?", again.session.0),
            ("delete from statistic_mark where ? >= 0", 0),
        ] {
            sqlx::query(sql).bind(from).execute(&mut self.connection).await?;
        }
        if let Some(to) = again.to {
            let query = sqlx::query(MARK).bind(0).bind(to.position.0).bind(to.exact_after.0);
            query.execute(&mut self.connection).await?;
        }
        Ok(())
    }

    /// Those of these that were erased after they had been looked at.
    async fn unsay_erased(&mut self, sessions: &[Labelled]) -> Result<(), StoreError> {
        let numbers: Vec<_> = sessions.iter().map(|one| one.session).collect();
        let sql = "select d.number from (select value from json_each(?)) wanted cross join session_detail d \
                   on d.number = wanted.value where d.hostname is null and d.client is null";
        let numbers = serde_json::to_string(&numbers).unwrap_or_default();
        let erased: Vec<i64> = sqlx::query_scalar(sql).bind(numbers).fetch_all(&mut self.connection).await?;
        if erased.is_empty() {
            return Ok(());
        }
        self.unsay_labels(&erased.into_iter().map(SessionNumber).collect::<Vec<_>>()).await
    }

    /// What these sessions' labels are called is said no more on their account.
    pub(super) async fn unsay_labels(&mut self, sessions: &[SessionNumber]) -> Result<(), StoreError> {
        let numbers = serde_json::to_string(sessions).unwrap_or_default();
        let sql = "update statistic_session set erased = 1 where session in (select value from json_each(?))";
        sqlx::query(sql).bind(&numbers).execute(&mut self.connection).await?;
        for sql in UNSAID {
            sqlx::query(sql).bind(&numbers).execute(&mut self.connection).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Statistics for SqliteStore {
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
        let sql = "select * from statistic_cell where organization = ? and application = ? and dimension = ? \
                   and (hour, value) > (?, ?) and hour < ? order by hour, value limit ?";
        let query = sqlx::query(sql)
            .bind(page.organization.0)
            .bind(page.application.0)
            .bind(page.dimension as i64)
            .bind(page.after.0)
            .bind(page.after.1)
            .bind(page.before)
            .bind(page.limit);
        query.fetch_all(&self.pool).await?.iter().map(group_cell).collect()
    }

    async fn last_cells(&self, groups: &[Group], hour: i64) -> Result<Vec<GroupCell>, StoreError> {
        if groups.is_empty() {
            return Ok(vec![]);
        }
        let key = |one: &Group| (one.organization, one.application, one.dimension as i64, one.value);
        let groups: Vec<_> = groups.iter().map(key).collect();
        let groups = serde_json::to_string(&groups).unwrap_or_default();
        let rows = sqlx::query(LAST_CELLS).bind(groups).bind(hour).fetch_all(&self.pool).await?;
        rows.iter().map(group_cell).collect()
    }

    async fn labels(&self, numbers: &[i64]) -> Result<Vec<Label>, StoreError> {
        let sql = "select l.* from (select value from json_each(?)) wanted \
                   cross join statistic_label l on l.number = wanted.value where l.text is not null";
        let numbers = serde_json::to_string(numbers).unwrap_or_default();
        sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?.iter().map(label).collect()
    }

    async fn labels_called(
        &self,
        organization: OrganizationNumber,
        dimension: Dimension,
        texts: &[String],
    ) -> Result<Vec<Label>, StoreError> {
        let sql = "select l.* from (select value from json_each(?3)) wanted \
                   cross join statistic_label l indexed by statistic_label_called on l.organization = ?1 \
                   and l.dimension = ?2 and l.text = wanted.value and l.text is not null";
        let texts = serde_json::to_string(texts).unwrap_or_default();
        let query = sqlx::query(sql).bind(organization.0).bind(dimension as i64).bind(texts);
        query.fetch_all(&self.pool).await?.iter().map(label).collect()
    }

    async fn last_label(&self) -> Result<i64, StoreError> {
        let sql = "select coalesce(max(number), 0) from statistic_label";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    async fn labelled(&self, sessions: &[SessionNumber]) -> Result<Vec<Labelled>, StoreError> {
        let sql = "select s.* from (select value from json_each(?)) wanted \
                   cross join statistic_session s on s.session = wanted.value";
        let numbers = serde_json::to_string(sessions).unwrap_or_default();
        sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?.iter().map(labelled).collect()
    }

    async fn cuts(&self, after: Position, up_to: Position) -> Result<Vec<Position>, StoreError> {
        let sql = "select position from cut where position > ? and position <= ?";
        let rows = sqlx::query(sql).bind(after.0).bind(up_to.0).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(Position(row.try_get(0)?))).collect()
    }

    async fn last_let_go(&self) -> Result<Position, StoreError> {
        let sql = "select max(coalesce((select last from gone order by first desc limit 1), 0), \
                   coalesce((select max(position) from cut), 0))";
        Ok(Position(sqlx::query_scalar(sql).fetch_one(&self.pool).await?))
    }
}
