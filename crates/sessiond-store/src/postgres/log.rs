//! The log, read in pages: as it is, and for feeds and histories with the public ids of what its events are about.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, RevocationNumber, SessionNumber};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgExecutor;

use super::store::PgStore;
use crate::row::{Addressed, Entry};
use crate::seam::Log;
use crate::values::entry;
use crate::{StoreError, answers};

/// As the partial indexes say it.
const LIFECYCLE: &str = " and e.type <> 'activity_recorded'";

/// Positions that are read over at a time.
const STRETCH: i64 = 16_384;

/// An event with the public ids of what it is about. Each is looked up by itself, after the page was cut: a join would be
/// planned for as many events as there may be, and read whole tables for that.
const ADDRESSED: &str = "e.*, \
     (select s.id from session s where e.stream_kind = 4 and s.number = e.stream_number) as session_id, \
     (select s.resource from session s where e.stream_kind = 4 and s.number = e.stream_number) as resource, \
     (select d.client_session_id from session s join session_detail d on d.number = s.number \
     where e.stream_kind = 4 and s.number = e.stream_number and s.resource is not null) as client_session_id, \
     (select a.id from application a where a.number = e.application) as application_id, \
     (select r.id from revocation r where r.number = e.revocation) as revocation_id";

#[async_trait]
impl Log for PgStore {
    async fn head(&self) -> Result<Position, StoreError> {
        head(&self.pool).await
    }

    async fn event(&self, position: Position) -> Result<Option<Entry>, StoreError> {
        let query = sqlx::query("select * from event where position = $1").bind(position.0);
        query.fetch_optional(&self.pool).await?.as_ref().map(entry).transpose()
    }

    async fn events(&self, positions: &[Position]) -> Result<Vec<Entry>, StoreError> {
        if positions.is_empty() {
            return Ok(vec![]);
        }
        let query = sqlx::query("select * from event where position = any($1)").bind(places(positions));
        query.fetch_all(&self.pool).await?.iter().map(entry).collect()
    }

    async fn beginnings(&self, revocations: &[RevocationNumber]) -> Result<Vec<Entry>, StoreError> {
        if revocations.is_empty() {
            return Ok(vec![]);
        }
        let sql =
            "select e.* from revocation r join event e on e.position = r.fence where r.number = any($1)";
        let numbers: Vec<i64> = revocations.iter().map(|number| number.0).collect();
        sqlx::query(sql).bind(numbers).fetch_all(&self.pool).await?.iter().map(entry).collect()
    }

    async fn log(&self, after: Position, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let sql = "select * from event where position > $1 order by position limit $2";
        let query = sqlx::query(sql).bind(after.0).bind(i64::from(limit));
        query.fetch_all(&self.pool).await?.iter().map(entry).collect()
    }

    async fn last_recorded_before(&self, instant: Time) -> Result<Position, StoreError> {
        let (mut before, mut beyond) = (0, self.head().await?.0 + 1);
        while beyond - before > 1 {
            let middle = before + (beyond - before) / 2;
            let recorded_at: Option<i64> =
                // The next one that is kept stands for those that were let go.
                sqlx::query_scalar("select recorded_at from event where position >= $1 order by position limit 1")
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

    async fn addressed_log(
        &self,
        after: Position,
        up_to: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        let which = if activity { "" } else { LIFECYCLE };
        let sql =
            addressed(&format!("e.position > $1 and e.position <= $2{which} order by e.position limit $3"));
        let query = sqlx::query(AssertSqlSafe(sql)).bind(after.0).bind(up_to.0).bind(i64::from(limit));
        query.fetch_all(&self.pool).await?.iter().map(answers::addressed).collect()
    }

    async fn addressed_application_log(
        &self,
        application: ApplicationNumber,
        after: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        if activity {
            return self
                .along(after, Position(i64::MAX), "e.application = $4", &[application.0], limit)
                .await;
        }
        let sql = addressed(&format!(
            "e.application = $1 and e.position > $2{LIFECYCLE} order by e.position limit $3"
        ));
        let query = sqlx::query(AssertSqlSafe(sql)).bind(application.0).bind(after.0).bind(i64::from(limit));
        query.fetch_all(&self.pool).await?.iter().map(answers::addressed).collect()
    }

    async fn addressed_session_log(
        &self,
        session: SessionNumber,
        after: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        if activity {
            let own = "e.stream_kind = 4 and e.stream_number = $4";
            return self.along(after, Position(i64::MAX), own, &[session.0], limit).await;
        }
        // A stream's versions are in the order of its positions, and in an index.
        let sql = addressed(&format!(
            "e.stream_kind = 4 and e.stream_number = $1 and e.position > $2{LIFECYCLE} order by e.version limit $3"
        ));
        let query = sqlx::query(AssertSqlSafe(sql)).bind(session.0).bind(after.0).bind(i64::from(limit));
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
            // A recursion has no limit of its own here: it counts.
            let sql = format!(
                "with recursive chain (position, previous, nth) as (\
                 select e.position, coalesce(c.previous, e.previous_position), 1::bigint from event e \
                 left join cut c on c.position = e.position where e.position = $1 \
                 union all select e.position, coalesce(c.previous, e.previous_position), chain.nth + 1 from chain \
                 join event e on e.position = chain.previous \
                 left join cut c on c.position = e.position where chain.nth < $2) \
                 select {ADDRESSED} from chain join event e on e.position = chain.position \
                 order by e.position desc"
            );
            let query = sqlx::query(AssertSqlSafe(sql)).bind(newest.0).bind(i64::from(limit));
            query.fetch_all(&self.pool).await?
        } else {
            let sql = addressed(&format!(
                "e.stream_kind = 4 and e.stream_number = $1 and e.position <= $2{LIFECYCLE} \
                 order by e.version desc limit $3"
            ));
            let query = sqlx::query(AssertSqlSafe(sql)).bind(session.0).bind(newest.0).bind(i64::from(limit));
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
        let mut numbers = vec![organization.0];
        numbers.extend(application.map(|application| application.0));
        let own = match application {
            Some(_) => "e.organization = $4 and e.application = $5",
            None => "e.organization = $4",
        };
        if activity {
            return self.along(after, up_to, own, &numbers, limit).await;
        }
        self.between(after, up_to, &format!("{own}{LIFECYCLE}"), &numbers, limit).await
    }
}

impl PgStore {
    /// A page of events between two positions that fit a condition on numbers, which are its parameters from `$4` on.
    async fn between(
        &self,
        after: Position,
        up_to: Position,
        condition: &str,
        numbers: &[i64],
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        let sql = addressed(&format!(
            "e.position > $1 and e.position <= $2 and {condition} order by e.position limit $3"
        ));
        let query = sqlx::query(AssertSqlSafe(sql)).bind(after.0).bind(up_to.0).bind(i64::from(limit));
        let query = numbers.iter().fold(query, |query, number| query.bind(*number));
        query.fetch_all(&self.pool).await?.iter().map(answers::addressed).collect()
    }

    /// The same with activity, of which there is no index: along the log, over events of others, until there are enough. It
    /// goes a stretch at a time, so that no statement takes long, and none is planned as if it had to read all that is left.
    async fn along(
        &self,
        after: Position,
        up_to: Position,
        condition: &str,
        numbers: &[i64],
        limit: u32,
    ) -> Result<Vec<Addressed>, StoreError> {
        let end = up_to.min(self.head().await?);
        let (mut from, mut events) = (after, Vec::new());
        while from < end && events.len() < limit as usize {
            let to = end.min(Position(from.0.saturating_add(STRETCH)));
            let room = limit - events.len() as u32;
            events.extend(self.between(from, to, condition, numbers, room).await?);
            from = to;
        }
        Ok(events)
    }
}

/// The last position of the log.
pub(super) async fn head(executor: impl PgExecutor<'_>) -> Result<Position, StoreError> {
    let sql = "select coalesce(max(position), 0) from event";
    Ok(Position(sqlx::query_scalar(sql).fetch_one(executor).await?))
}

/// As PostgreSQL takes a list of them.
pub(super) fn places(positions: &[Position]) -> Vec<i64> {
    positions.iter().map(|position| position.0).collect()
}

fn addressed(condition: &str) -> String {
    format!("select {ADDRESSED} from event e where {condition}")
}
