//! Principals, revocations, and what requests have come to.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::idempotency::RecordedOutcome;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber,
};
use sqlx::{QueryBuilder, Row, Sqlite};
use uuid::Uuid;

use super::store::SqliteStore;
use crate::StoreError;
use crate::row::{PrincipalRow, Revocation};
use crate::seam::DirectoryRows;
use crate::values::{outcome, principal_row, revocation};

#[async_trait]
impl DirectoryRows for SqliteStore {
    async fn principal(&self, number: PrincipalNumber) -> Result<Option<PrincipalRow>, StoreError> {
        let row = sqlx::query("select * from principal where number = ?")
            .bind(number.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(principal_row).transpose()
    }

    async fn principals_numbered(
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

    async fn principals(
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

    async fn principals_called(
        &self,
        organization: OrganizationNumber,
        called: &str,
        limit: u32,
    ) -> Result<Vec<PrincipalNumber>, StoreError> {
        let sql = "select number from principal where organization = ?1 and subject = ?2 \
                   union select number from principal where organization = ?1 and email = ?2 collate nocase \
                   order by number limit ?3";
        let query = sqlx::query_scalar(sql).bind(organization.0).bind(called).bind(limit);
        Ok(query.fetch_all(&self.pool).await?.into_iter().map(PrincipalNumber).collect())
    }

    async fn principals_found(
        &self,
        organization: OrganizationNumber,
        prefixes: &[String],
        after: PrincipalNumber,
        limit: u32,
    ) -> Result<Vec<PrincipalRow>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("select p.* from (");
        for (place, prefix) in prefixes.iter().enumerate() {
            query.push(if place > 0 { " intersect " } else { "" });
            query
                .push("select principal from principal_word where organization = ")
                .push_bind(organization.0);
            // Nothing that begins so comes after it with the last character there is.
            query
                .push(" and word >= ")
                .push_bind(prefix.clone())
                .push(" and word < ")
                .push_bind(prefix.clone() + "\u{10ffff}");
            query.push(" and principal > ").push_bind(after.0);
        }
        query.push(") found cross join principal p on p.number = found.principal group by p.number");
        query.push(" order by p.number limit ").push_bind(limit);
        query.build().fetch_all(&self.pool).await?.iter().map(principal_row).collect()
    }

    async fn revocation(&self, number: RevocationNumber) -> Result<Option<Revocation>, StoreError> {
        let row = sqlx::query("select * from revocation where number = ?")
            .bind(number.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(revocation).transpose()
    }

    async fn revocation_by_id(&self, id: Uuid) -> Result<Option<Revocation>, StoreError> {
        let row =
            sqlx::query("select * from revocation where id = ?").bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(revocation).transpose()
    }

    async fn revocations(
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

    async fn notes(&self, positions: &[Position]) -> Result<Vec<(Position, String)>, StoreError> {
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

    async fn outcome(&self, key: &[u8; 32]) -> Result<Option<RecordedOutcome>, StoreError> {
        let row = sqlx::query("select * from idempotency where key = ?")
            .bind(key.as_slice())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(outcome).transpose()
    }

    async fn has_outcomes(&self, up_to: Time) -> Result<bool, StoreError> {
        let sql = "select exists (select 1 from idempotency where recorded_at <= ?)";
        Ok(sqlx::query_scalar(sql).bind(up_to.timestamp_millis()).fetch_one(&self.pool).await?)
    }
}
