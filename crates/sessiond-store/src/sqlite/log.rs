//! The log, read in pages: as it is, and for feeds and histories with the public ids of what its events are about.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, RevocationNumber, SessionNumber};
use sqlx::{AssertSqlSafe, SqliteExecutor};

use super::store::SqliteStore;
use crate::row::{Addressed, Entry};
use crate::seam::Log;
use crate::values::entry;
use crate::{StoreError, answers};

#[async_trait]
impl Log for SqliteStore {
    async fn head(&self) -> Result<Position, StoreError> {
        head(&self.pool).await
    }

    async fn events(&self, positions: &[Position]) -> Result<Vec<Entry>, StoreError> {
        if positions.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select e.* from (select value from json_each(?)) wanted \
                   cross join event e on e.position = wanted.value";
        let positions = serde_json::to_string(positions).unwrap_or_default();
        sqlx::query(sql).bind(positions).fetch_all(&self.pool).await?.iter().map(entry).collect()
    }

    async fn beginnings(&self, revocations: &[RevocationNumber]) -> Result<Vec<Entry>, StoreError> {
        if revocations.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select e.* from (select value from json_each(?)) wanted \
                   cross join revocation r on r.number = wanted.value \
                   cross join event e on e.position = r.fence";
        let revocations = serde_json::to_string(revocations).unwrap_or_default();
        sqlx::query(sql).bind(revocations).fetch_all(&self.pool).await?.iter().map(entry).collect()
    }

    async fn log(&self, after: Position, limit: u32) -> Result<Vec<Entry>, StoreError> {
        page(&self.pool, after, limit).await
    }

    async fn addressed_log(
        &self,
        after: Position,
        up_to: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        let sql = addressed(
            "e.position > ? and e.position <= ? and (? or +e.type <> 'activity_recorded') order by e.position",
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(after.0).bind(up_to.0).bind(activity).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(answers::addressed).collect()
    }

    async fn addressed_application_log(
        &self,
        application: ApplicationNumber,
        after: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        let sql = addressed(if activity {
            "+e.application = ? and e.position > ? order by e.position"
        } else {
            "e.application = ? and e.position > ? and e.type <> 'activity_recorded' order by e.position"
        });
        let query = sqlx::query(AssertSqlSafe(sql)).bind(application.0).bind(after.0).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(answers::addressed).collect()
    }

    async fn addressed_session_log(
        &self,
        session: SessionNumber,
        after: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        let sql = addressed(if activity {
            "+e.stream_kind = 4 and +e.stream_number = ? and e.position > ? order by e.position"
        } else {
            "e.stream_kind = 4 and e.stream_number = ? and e.position > ? and e.type <> 'activity_recorded' \
             order by e.version"
        });
        let query = sqlx::query(AssertSqlSafe(sql)).bind(session.0).bind(after.0).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(answers::addressed).collect()
    }

    async fn session_history(
        &self,
        session: SessionNumber,
        newest: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        let rows = if activity {
            let sql = "with recursive chain(position, previous, nth) as (\
                 select e.position, coalesce(c.previous, e.previous_position), 1 from event e \
                 left join cut c on c.position = e.position where e.position = ?1 \
                 union all select e.position, coalesce(c.previous, e.previous_position), nth + 1 from chain \
                 cross join event e on e.position = chain.previous \
                 left join cut c on c.position = e.position where nth < ?3) \
                 select e.*, s.id as session_id, s.resource, d.client_session_id, a.id as application_id, \
                 r.id as revocation_id from chain cross join event e on e.position = chain.position \
                 left join session s on s.number = ?2 left join session_detail d on s.resource is not null \
                 and d.number = s.number left join application a on a.number = e.application \
                 left join revocation r on r.number = e.revocation order by e.position desc";
            let query = sqlx::query(sql).bind(newest.0).bind(session.0).bind(limit);
            query.fetch_all(&self.pool).await?
        } else {
            let sql = addressed(
                "e.stream_kind = 4 and e.stream_number = ? and e.position <= ? \
                 and e.type <> 'activity_recorded' order by e.version desc",
            );
            let query = sqlx::query(AssertSqlSafe(sql)).bind(session.0).bind(newest.0).bind(limit);
            query.fetch_all(&self.pool).await?
        };
        rows.iter().map(answers::addressed).collect()
    }

    async fn organization_log(
        &self,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        after: Position,
        up_to: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        let own = "and (? is null or +e.application = ?)";
        let condition = if activity {
            format!("+e.organization = ? and e.position > ? and e.position <= ? {own} order by e.position")
        } else {
            format!(
                "e.organization = ? and e.position > ? and e.position <= ? {own} \
                 and e.type <> 'activity_recorded' order by e.position"
            )
        };
        let application = application.map(|number| number.0);
        let query = sqlx::query(AssertSqlSafe(addressed(&condition)))
            .bind(organization.0)
            .bind(after.0)
            .bind(up_to.0)
            .bind(application)
            .bind(application)
            .bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(answers::addressed).collect()
    }

    async fn last_recorded_before(&self, instant: Time) -> Result<Position, StoreError> {
        let (mut before, mut beyond) = (0, self.head().await?.0 + 1);
        while beyond - before > 1 {
            let middle = before + (beyond - before) / 2;
            let recorded_at: Option<i64> =
                // The next one that is kept stands for those that were let go.
                sqlx::query_scalar("select recorded_at from event where position >= ? order by position limit 1")
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

    async fn event(&self, position: Position) -> Result<Option<Entry>, StoreError> {
        let row = sqlx::query("select * from event where position = ?")
            .bind(position.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(entry).transpose()
    }
}

/// The last position of the log.
pub(super) async fn head(executor: impl SqliteExecutor<'_>) -> Result<Position, StoreError> {
    let sql = "select coalesce(max(position), 0) from event";
    Ok(Position(sqlx::query_scalar(sql).fetch_one(executor).await?))
}

/// The log after a position, oldest first.
pub(super) async fn page(
    executor: impl SqliteExecutor<'_>,
    after: Position,
    limit: u32,
) -> Result<Vec<Entry>, StoreError> {
    let sql = "select * from event where position > ? order by position limit ?";
    let rows = sqlx::query(sql).bind(after.0).bind(limit).fetch_all(executor).await?;
    rows.iter().map(entry).collect()
}

/// How far something has come along the log: what is settled in the rows, and what was pruned. What is `erased` is no
/// position but how often something was.
pub(super) async fn mark(
    executor: impl SqliteExecutor<'_>,
    name: &'static str,
) -> Result<Position, StoreError> {
    let sql = "select position from mark where name = ?";
    let position: Option<i64> = sqlx::query_scalar(sql).bind(name).fetch_optional(executor).await?;
    Ok(Position(position.unwrap_or(0)))
}

/// Parameters of a condition are not numbered: the last one, which has no number either, would be bound as the first.
fn addressed(condition: &str) -> String {
    format!(
        "select e.*, s.id as session_id, s.resource, d.client_session_id, a.id as application_id, \
         r.id as revocation_id from event e \
         left join session s on e.stream_kind = 4 and s.number = e.stream_number \
         left join session_detail d on s.resource is not null and d.number = s.number \
         left join application a on a.number = e.application left join revocation r on r.number = e.revocation \
         where {condition} limit ?"
    )
}
