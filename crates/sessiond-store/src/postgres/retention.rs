//! What may be let go.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::{OrganizationNumber, Position, SessionNumber};
use sessiond_core::retention::Departing;
use sqlx::postgres::PgRow;

use super::store::PgStore;
use crate::seam::{EndedBefore, Foldable, FoldableEvent, Log, Retention};
use crate::values::{Stored, bytes32, count};
use crate::{StoreError, answers};

// Recursions have no limit of their own here: they count.

/// An ended session's events, the newest first, over what was let go.
const EVENTS: &str = "with recursive chain (position, hash, previous, nth) as (\
     select e.position, e.hash, coalesce(c.previous, e.previous_position), 1::bigint \
     from event e left join cut c on c.position = e.position where e.position = $1 \
     union all select e.position, e.hash, coalesce(c.previous, e.previous_position), chain.nth + 1 from chain \
     join event e on e.position = chain.previous left join cut c on c.position = e.position \
     where chain.nth < $2) \
     select position, hash from chain order by nth";

/// Of these, activity that is followed by activity.
const FOLDABLE_OF: &str = "with recursive chain (position, hash, previous, type, next, next_type, nth) as (\
     select e.position, e.hash, coalesce(c.previous, e.previous_position), e.type, 0::bigint, '', 1::bigint \
     from session s join event e on e.position = s.head left join cut c on c.position = e.position \
     where s.number = $1 and s.state = 0 \
     union all select e.position, e.hash, coalesce(c.previous, e.previous_position), e.type, chain.position, chain.type, \
     chain.nth + 1 from chain join event e on e.position = chain.previous \
     left join cut c on c.position = e.position where chain.nth < $2) \
     select position, hash, previous, next from chain where type = 'activity_recorded' and next_type = type order by nth";

const ENDED: &str = "select s.number, s.id, s.application, s.ended_at, s.resource, s.bytes_out, s.head, e.revocation \
     from session s join event e on e.position = s.head \
     where s.organization = $1 and s.ended_at < $2 and s.state = 0 and not exists (\
     select 1 from revocation r where r.number = e.revocation and r.ended_at is null) \
     order by s.ended_at, s.number limit $3";

const FOLDABLE: &str = "select e.position, e.organization, e.type, e.occurred_at, p.position as before, \
     p.type as before_type, p.occurred_at as before_at, p.hash as before_hash, \
     coalesce(c.previous, p.previous_position) as previous, \
     exists (select 1 from session s where s.number = p.stream_number and s.head = p.position) as row_stands \
     from event e left join event p on p.position = e.previous_position left join cut c on c.position = p.position \
     where e.position > $1 and e.position <= $2 order by e.position limit $3";

#[async_trait]
impl Retention for PgStore {
    async fn ended_before(
        &self,
        organization: OrganizationNumber,
        before: Time,
    ) -> Result<EndedBefore, StoreError> {
        let sql = "select count(*) as sessions, coalesce(sum(version), 0)::bigint as events from session \
                   where organization = $1 and ended_at < $2 and state = 0";
        let query = sqlx::query(sql).bind(organization.0).bind(before.timestamp_millis());
        let row = query.fetch_one(&self.pool).await?;
        Ok(EndedBefore { sessions: count(&row, "sessions")?, events: count(&row, "events")? })
    }

    async fn departing(
        &self,
        organization: OrganizationNumber,
        before: Time,
        sessions: u32,
        events: usize,
    ) -> Result<Vec<Departing>, StoreError> {
        let query = sqlx::query(ENDED).bind(organization.0).bind(before.timestamp_millis());
        let mut departing = Vec::new();
        let mut room = events;
        for row in query.bind(i64::from(sessions)).fetch_all(&self.pool).await? {
            let mut one = answers::departing(&row)?;
            let limit = i64::try_from(events.saturating_add(1)).unwrap_or(i64::MAX);
            let query = sqlx::query(EVENTS).bind(row.integer("head")?).bind(limit);
            for event in query.fetch_all(&self.pool).await? {
                one.events.push((Position(event.integer("position")?), bytes32(&event, "hash")?));
            }
            if one.events.len() > room && !departing.is_empty() {
                break;
            }
            room = room.saturating_sub(one.events.len());
            departing.push(one);
        }
        Ok(departing)
    }

    async fn foldable(
        &self,
        organizations: &[OrganizationNumber],
        after: Position,
        before: Time,
        limit: u32,
    ) -> Result<Foldable, StoreError> {
        // Times never fall along the log, so its old part ends at a position: what is younger is not even looked at.
        let last = self.last_recorded_before(before).await?;
        let query = sqlx::query(FOLDABLE).bind(after.0).bind(last.0).bind(i64::from(limit));
        let mut foldable = Foldable::default();
        for row in query.fetch_all(&self.pool).await? {
            foldable.up_to = Some(Position(row.integer("position")?));
            foldable.events.extend(
                answers::foldable_before(&row)?.filter(|one| organizations.contains(&one.organization)),
            );
        }
        Ok(foldable)
    }

    async fn foldable_of(
        &self,
        organization: OrganizationNumber,
        session: SessionNumber,
        limit: usize,
    ) -> Result<Vec<FoldableEvent>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = sqlx::query(FOLDABLE_OF).bind(session.0).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(|row| answers::foldable(row, organization)).collect()
    }

    async fn folded_to(&self) -> Result<Vec<(OrganizationNumber, Position)>, StoreError> {
        let rows = sqlx::query("select organization, position from folding").fetch_all(&self.pool).await?;
        let read = |row: &PgRow| {
            Ok((OrganizationNumber(row.integer("organization")?), Position(row.integer("position")?)))
        };
        rows.iter().map(read).collect()
    }
}
