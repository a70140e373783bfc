//! What may be let go, and letting it go: from the log, which keeps what its chains need, and from every table that knows of
//! a session.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::ids::{OrganizationNumber, Position, SessionNumber};
use sessiond_core::retention::{Departing, OfResource};
use sqlx::{AssertSqlSafe, Row};

use super::insert::Insert;
use super::log::mark;
use super::store::SqliteStore;
use super::writer::SqliteWriter;
use crate::seam::{Cut, EndedBefore, Foldable, FoldableEvent, Log, Retention};
use crate::tables::{OF_SESSIONS, stretches};
use crate::values::{bytes32, count};
use crate::{StoreError, answers};

/// An ended session's events, the newest first, over what was let go.
const EVENTS: &str = "with recursive chain(position, hash, previous) as (\
     select e.position, e.hash, coalesce(c.previous, e.previous_position) \
     from event e left join cut c on c.position = e.position where e.position = ? \
     union all select e.position, e.hash, coalesce(c.previous, e.previous_position) from chain \
     cross join event e on e.position = chain.previous left join cut c on c.position = e.position limit ?) \
     select position, hash from chain";

/// Of these, activity that is followed by activity.
const FOLDABLE_OF: &str = "with recursive chain(position, hash, previous, type, next, next_type) as (\
     select e.position, e.hash, coalesce(c.previous, e.previous_position), e.type, 0, '' from session s \
     join event e on e.position = s.head left join cut c on c.position = e.position where s.number = ? and s.state = 0 \
     union all select e.position, e.hash, coalesce(c.previous, e.previous_position), e.type, chain.position, chain.type \
     from chain cross join event e on e.position = chain.previous \
     left join cut c on c.position = e.position limit ?) \
     select position, hash, previous, next from chain where type = 'activity_recorded' and next_type = type";

const ENDED: &str = "select s.number, s.id, s.application, s.ended_at, s.resource, s.bytes_out, s.head, e.revocation \
     from session s indexed by session_ended_at join event e on e.position = s.head \
     where s.organization = ? and s.ended_at < ? and s.state = 0 and not exists (\
     select 1 from revocation r where r.number = e.revocation and r.ended_at is null) \
     order by s.ended_at, s.number limit ?";

const FOLDABLE: &str = "select e.position, e.organization, e.type, e.occurred_at, p.position as before, \
     p.type as before_type, p.occurred_at as before_at, p.hash as before_hash, \
     coalesce(c.previous, p.previous_position) as previous, \
     exists (select 1 from session s where s.number = p.stream_number and s.head = p.position) as row_stands \
     from event e left join event p on p.position = e.previous_position left join cut c on c.position = p.position \
     where e.position > ? and e.position <= ? order by e.position limit ?";

#[async_trait]
impl Retention for SqliteStore {
    async fn ended_before(
        &self,
        organization: OrganizationNumber,
        before: Time,
    ) -> Result<EndedBefore, StoreError> {
        let sql = "select count(*) as sessions, coalesce(sum(version), 0) as events from session \
                   indexed by session_ended_at where organization = ? and ended_at < ? and state = 0";
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
        let query = sqlx::query(ENDED).bind(organization.0).bind(before.timestamp_millis()).bind(sessions);
        let mut departing = Vec::new();
        let mut room = events;
        for row in query.fetch_all(&self.pool).await? {
            let mut one = answers::departing(&row)?;
            let head: i64 = row.try_get("head")?;
            let limit = i64::try_from(events.saturating_add(1)).unwrap_or(i64::MAX);
            for event in sqlx::query(EVENTS).bind(head).bind(limit).fetch_all(&self.pool).await? {
                one.events.push((Position(event.try_get("position")?), bytes32(&event, "hash")?));
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
        let old = self.last_recorded_before(before).await?;
        let last = old.min(mark(&self.pool, "settled").await?);
        let query = sqlx::query(FOLDABLE).bind(after.0).bind(last.0).bind(limit);
        let mut foldable = Foldable::default();
        for row in query.fetch_all(&self.pool).await? {
            foldable.up_to = Some(Position(row.try_get("position")?));
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
        rows.iter().map(|row| Ok((OrganizationNumber(row.try_get(0)?), Position(row.try_get(1)?)))).collect()
    }
}

static GONE: Insert = Insert::new("gone (first, last, hash, commit_hash)", 4, "");

static CUT: Insert = Insert::new(
    "cut (position, previous, hash)",
    3,
    "on conflict (position) do update set previous = excluded.previous, hash = excluded.hash",
);

static RESOURCE: Insert = Insert::new(
    "let_go_resource (application, resource, sessions, bytes_out)",
    4,
    "on conflict (application, resource) do update set sessions = sessions + excluded.sessions, \
     bytes_out = min(bytes_out, 9223372036854775807 - excluded.bytes_out) + excluded.bytes_out",
);

/// The commits at some positions of which nothing is kept any more: their first and last positions. A commit ends at an event,
/// kept or let go, that has its hash; either is looked for only as far as the other lies.
const WHOLE_COMMITS: &str = "with wanted(p) as (select value from json_each(?)), \
     ends(p, before, after) as (select p, coalesce((select last from gone indexed by gone_end \
     where last < p and commit_hash is not null order by last desc limit 1), 0), \
     coalesce((select last from gone indexed by gone_end \
     where last >= p and commit_hash is not null order by last limit 1), 9223372036854775807) from wanted), \
     bounds(first, last) as (select distinct 1 + coalesce((select position from event \
     where position < p and position > before and commit_hash is not null order by position desc limit 1), before), \
     coalesce((select position from event \
     where position > p and position < after and commit_hash is not null order by position limit 1), after) from ends) \
     select first, last from bounds where not exists (\
     select 1 from event where position >= first and position <= last) order by first";

impl SqliteWriter {
    /// Lets sessions go that have ended, with these events, which are all that they have.
    pub(super) async fn let_sessions_go(
        &mut self,
        sessions: &[SessionNumber],
        positions: &[Position],
        resources: &[OfResource],
    ) -> Result<(), StoreError> {
        self.let_events_go(positions).await?;
        let numbers = serde_json::to_string(sessions).unwrap_or_default();
        let departed = self.applications_of(&numbers).await?;
        self.unsay_labels(sessions).await?;
        for (table, column) in OF_SESSIONS {
            let sql = format!("delete from {table} where {column} in (select value from json_each(?))");
            sqlx::query(AssertSqlSafe(sql)).bind(&numbers).execute(&mut self.connection).await?;
        }
        self.blocks_again(&departed).await?;
        self.add_to_resources(resources).await
    }

    pub(super) async fn add_to_resources(&mut self, resources: &[OfResource]) -> Result<(), StoreError> {
        self.put(&RESOURCE, resources, |bound, one| {
            bound.add(one.application.0).add(one.resource.as_str()).count(one.sessions).count(one.bytes_out);
        })
        .await
    }

    /// Lets activity go; those events that go on from it keep its hashes.
    pub(super) async fn fold(&mut self, positions: &[Position], cuts: &[Cut]) -> Result<(), StoreError> {
        self.let_events_go(positions).await?;
        self.put(&CUT, cuts, |bound, cut| {
            bound.add(cut.position.0).add(cut.previous.0).add(cut.hash.as_slice());
        })
        .await
    }

    pub(super) async fn folded_to(
        &mut self,
        organizations: &[OrganizationNumber],
        position: Position,
    ) -> Result<(), StoreError> {
        let numbers = serde_json::to_string(organizations).unwrap_or_default();
        let sql = "insert or replace into folding (organization, position) select value, ? from json_each(?)";
        sqlx::query(sql).bind(position.0).bind(numbers).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Deletes events, with what is told of them outside, and keeps what both chains need to go on.
    async fn let_events_go(&mut self, positions: &[Position]) -> Result<(), StoreError> {
        let list = serde_json::to_string(positions).unwrap_or_default();
        let sql = "select position, hash, commit_hash from event where position in (select value from json_each(?))";
        let rows = sqlx::query(sql).bind(&list).fetch_all(&mut self.connection).await?;
        if rows.len() != positions.len() {
            return Err(StoreError::Failed("an event that was to be let go is not there".to_owned()));
        }
        let mut gone: Vec<(i64, Vec<u8>, Option<Vec<u8>>)> = Vec::with_capacity(rows.len());
        for row in rows {
            gone.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        }
        for sql in [
            "delete from event where position in (select value from json_each(?))",
            "delete from cut where position in (select value from json_each(?))",
            "delete from webhook_delivery where (webhook, position) in (\
             select webhook_progress.id, value from webhook_progress cross join json_each(?))",
        ] {
            sqlx::query(sql).bind(&list).execute(&mut self.connection).await?;
        }
        self.put(&GONE, &gone, |bound, (position, hash, commit_hash)| {
            bound.add(*position).add(*position).add(hash.as_slice()).add(commit_hash.as_deref());
        })
        .await?;
        let whole = sqlx::query_as(WHOLE_COMMITS).bind(&list).fetch_all(&mut self.connection).await?;
        for (first, last) in stretches(whole) {
            self.join_commits(first, last).await?;
        }
        Ok(())
    }

    /// Makes whole commits that were let go one row, with those before and after that were let go already.
    async fn join_commits(&mut self, first: i64, last: i64) -> Result<(), StoreError> {
        let own = "select commit_hash from gone where last = ? and commit_hash is not null";
        let own: Vec<u8> = sqlx::query_scalar(own).bind(last).fetch_one(&mut self.connection).await?;
        let before = "select first from gone where last = ? and commit_hash is not null and hash is null";
        let before: Option<i64> =
            sqlx::query_scalar(before).bind(first - 1).fetch_optional(&mut self.connection).await?;
        let after = "select last, commit_hash from gone where first = ? and hash is null";
        let after: Option<(i64, Vec<u8>)> =
            sqlx::query_as(after).bind(last + 1).fetch_optional(&mut self.connection).await?;
        let first = before.unwrap_or(first);
        let (last, commit_hash) = after.unwrap_or((last, own));
        sqlx::query("delete from gone where first >= ? and first <= ?")
            .bind(first)
            .bind(last)
            .execute(&mut self.connection)
            .await?;
        sqlx::query("insert into gone (first, last, hash, commit_hash) values (?, ?, null, ?)")
            .bind(first)
            .bind(last)
            .bind(commit_hash)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}
