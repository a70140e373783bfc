//! Principals, revocations, and what requests have come to.

use async_trait::async_trait;
use sessiond_core::Time;
use sessiond_core::idempotency::RecordedOutcome;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber,
};
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{AssertSqlSafe, QueryBuilder};
use uuid::Uuid;

use super::log::places;
use super::store::{LONGEST_INDEXED, PgStore};
use crate::StoreError;
use crate::row::{PrincipalRow, Revocation};
use crate::seam::DirectoryRows;
use crate::values::{Stored, outcome, principal_row, revocation};

/// The application in a revocation's filter, which is the first of its fields where there is one. PostgreSQL does not read
/// JSON that has a NUL in it anywhere, and a filter may ask for one.
const APPLICATION: &str = r#"substring(filter collate "C" from '^\{"application":([0-9]+)[,}]')"#;

#[async_trait]
impl DirectoryRows for PgStore {
    async fn principal(&self, number: PrincipalNumber) -> Result<Option<PrincipalRow>, StoreError> {
        let query = sqlx::query("select * from principal where number = $1").bind(number.0);
        query.fetch_optional(&self.pool).await?.as_ref().map(principal_row).transpose()
    }

    async fn principals_numbered(
        &self,
        numbers: &[PrincipalNumber],
    ) -> Result<Vec<PrincipalRow>, StoreError> {
        if numbers.is_empty() {
            return Ok(vec![]);
        }
        let numbers: Vec<i64> = numbers.iter().map(|number| number.0).collect();
        let query = sqlx::query("select * from principal where number = any($1)").bind(numbers);
        query.fetch_all(&self.pool).await?.iter().map(principal_row).collect()
    }

    async fn principals(
        &self,
        organization: OrganizationNumber,
        issuer: Option<&str>,
        subject: Option<&str>,
        after: PrincipalNumber,
        limit: u32,
    ) -> Result<Vec<PrincipalRow>, StoreError> {
        let mut query = QueryBuilder::<Postgres>::new("select * from principal where organization = ");
        query.push_bind(organization.0).push(" and number > ").push_bind(after.0);
        for (column, text) in [("issuer", issuer), ("subject", subject)] {
            match text {
                // No text in the database can hold it, not even one that is asked for.
                Some(text) if text.contains('\0') => return Ok(vec![]),
                Some(text) => {
                    query.push(format!(" and {column} = ")).push_bind(text);
                }
                None => {}
            }
        }
        query.push(" order by number limit ").push_bind(i64::from(limit));
        query.build().fetch_all(&self.pool).await?.iter().map(principal_row).collect()
    }

    async fn principals_called(
        &self,
        organization: OrganizationNumber,
        called: &str,
        limit: u32,
    ) -> Result<Vec<PrincipalNumber>, StoreError> {
        if called.contains('\0') {
            return Ok(vec![]);
        }
        // Lower case by the letters of ASCII alone, as this collation has it; and where there can be one, by the index.
        let indexed = match called.len() <= LONGEST_INDEXED {
            true => format!("and octet_length(email) <= {LONGEST_INDEXED}"),
            false => String::new(),
        };
        let sql = format!(
            "select number from principal where organization = $1 and subject = $2 \
             union select number from principal \
             where organization = $1 and lower(email collate \"C\") = lower($2 collate \"C\") {indexed} \
             order by number limit $3"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql));
        let query = query.bind(organization.0).bind(called).bind(i64::from(limit));
        Ok(query.fetch_all(&self.pool).await?.into_iter().map(PrincipalNumber).collect())
    }

    async fn principals_found(
        &self,
        organization: OrganizationNumber,
        prefixes: &[String],
        after: PrincipalNumber,
        limit: u32,
    ) -> Result<Vec<PrincipalRow>, StoreError> {
        if prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains('\0')) {
            return Ok(vec![]);
        }
        let mut query = QueryBuilder::<Postgres>::new("select * from principal where number in (");
        for (place, prefix) in prefixes.iter().enumerate() {
            query.push(if place > 0 { " intersect " } else { "" });
            query
                .push("select principal from principal_word where organization = ")
                .push_bind(organization.0);
            // Nothing that begins so comes after it with the last character there is.
            query
                .push(" and word >= ")
                .push_bind(prefix.as_str())
                .push(" and word < ")
                .push_bind(format!("{prefix}\u{10ffff}"));
            query.push(" and principal > ").push_bind(after.0);
        }
        query.push(") order by number limit ").push_bind(i64::from(limit));
        query.build().fetch_all(&self.pool).await?.iter().map(principal_row).collect()
    }

    async fn revocation(&self, number: RevocationNumber) -> Result<Option<Revocation>, StoreError> {
        let query = sqlx::query("select * from revocation where number = $1").bind(number.0);
        query.fetch_optional(&self.pool).await?.as_ref().map(revocation).transpose()
    }

    async fn revocation_by_id(&self, id: Uuid) -> Result<Option<Revocation>, StoreError> {
        let query = sqlx::query("select * from revocation where id = $1").bind(id);
        query.fetch_optional(&self.pool).await?.as_ref().map(revocation).transpose()
    }

    async fn revocations(
        &self,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        before: Option<RevocationNumber>,
        limit: u32,
    ) -> Result<Vec<Revocation>, StoreError> {
        let mut query = QueryBuilder::<Postgres>::new("select * from revocation where organization = ");
        query.push_bind(organization.0);
        query.push(" and number < ").push_bind(before.map_or(i64::MAX, |number| number.0));
        if let Some(application) = application {
            // As the index says it.
            query.push(format!(" and {APPLICATION} = ")).push_bind(application.0.to_string());
        }
        query.push(" order by number desc limit ").push_bind(i64::from(limit));
        query.build().fetch_all(&self.pool).await?.iter().map(revocation).collect()
    }

    async fn notes(&self, positions: &[Position]) -> Result<Vec<(Position, String)>, StoreError> {
        if positions.is_empty() {
            return Ok(vec![]);
        }
        let sql = "select e.position, r.note from event e join revocation r on r.number = e.revocation \
                   where e.position = any($1) and r.note is not null";
        let rows = sqlx::query(sql).bind(places(positions)).fetch_all(&self.pool).await?;
        let read = |row: &PgRow| Ok((Position(row.integer("position")?), row.string("note")?));
        rows.iter().map(read).collect()
    }

    async fn outcome(&self, key: &[u8; 32]) -> Result<Option<RecordedOutcome>, StoreError> {
        let query = sqlx::query("select * from idempotency where key = $1").bind(key.as_slice());
        query.fetch_optional(&self.pool).await?.as_ref().map(outcome).transpose()
    }

    async fn has_outcomes(&self, up_to: Time) -> Result<bool, StoreError> {
        // The oldest says it. Whether there is any would be looked for in the table itself, and mostly in vain.
        let sql = "select coalesce(min(recorded_at) <= $1, false) from idempotency";
        Ok(sqlx::query_scalar(sql).bind(up_to.timestamp_millis()).fetch_one(&self.pool).await?)
    }
}
