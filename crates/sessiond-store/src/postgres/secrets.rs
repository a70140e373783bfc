//! Secrets: hashes and what is sealed.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use uuid::Uuid;

use super::store::PgStore;
use crate::row::{ClientSecret, McpSession, SessionToken, WebhookSecret};
use crate::seam::{Sealed, SealedFor, Secrets, Witnesses};
use crate::values::{Stored, bytes32, session_token};
use crate::{StoreError, answers};

/// How many of each kind are sampled.
const SAMPLES: i64 = 8;

#[async_trait]
impl Secrets for PgStore {
    async fn client_secret(&self, client_id: &str) -> Result<Option<ClientSecret>, StoreError> {
        // Anybody may ask for anything, and no text in the database can hold that.
        if client_id.contains('\0') {
            return Ok(None);
        }
        let query = sqlx::query("select * from client_secret where client_id = $1").bind(client_id);
        query.fetch_optional(&self.pool).await?.as_ref().map(answers::client_secret).transpose()
    }

    async fn session_token(&self, session: SessionNumber) -> Result<Option<SessionToken>, StoreError> {
        let query = sqlx::query("select * from session_token where session = $1").bind(session.0);
        query.fetch_optional(&self.pool).await?.as_ref().map(session_token).transpose()
    }

    async fn mcp_session(&self, session: SessionNumber) -> Result<Option<McpSession>, StoreError> {
        let query = sqlx::query("select * from mcp_session where session = $1").bind(session.0);
        query.fetch_optional(&self.pool).await?.as_ref().map(answers::mcp_session).transpose()
    }

    async fn untold_mcp(
        &self,
        after: SessionNumber,
        limit: usize,
    ) -> Result<Vec<(SessionNumber, Uuid, ApplicationNumber)>, StoreError> {
        let sql = "select s.number, s.id, s.application from mcp_session m join session s on s.number = m.session \
                   where m.sealed <> ''::bytea and m.session > $1 and s.number > $1 and s.state = 0 \
                   order by m.session limit $2";
        let query = sqlx::query(sql).bind(after.0).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        query.fetch_all(&self.pool).await?.iter().map(answers::untold).collect()
    }

    async fn upstream_secret(&self, application: ApplicationNumber) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "select sealed from upstream_secret where application = $1";
        Ok(sqlx::query_scalar(sql).bind(application.0).fetch_optional(&self.pool).await?)
    }

    async fn machine_secret(&self, id: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "select sealed from machine_secret where id = $1";
        Ok(sqlx::query_scalar(sql).bind(id).fetch_optional(&self.pool).await?)
    }

    async fn webhook_secret(&self, id: Uuid) -> Result<Option<WebhookSecret>, StoreError> {
        let sql = "select sealed, before, before_until from webhook_secret where id = $1";
        let row = sqlx::query(sql).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(answers::webhook_secret).transpose()
    }

    async fn witnesses(&self) -> Result<Witnesses, StoreError> {
        let mut witnesses = Witnesses::default();
        let people = "select issuer, subject, subject_digest from principal where subject is not null \
                      order by number desc limit $1";
        for row in sqlx::query(people).bind(SAMPLES).fetch_all(&self.pool).await? {
            let digest = bytes32(&row, "subject_digest")?;
            witnesses.people.push((row.string("issuer")?, row.string("subject")?, digest));
        }
        for (kind, sql) in [
            (SealedFor::Webhook, "select id, sealed from webhook_secret order by id desc limit $1"),
            (SealedFor::Machine, "select id, sealed from machine_secret order by id desc limit $1"),
            (
                SealedFor::McpSession,
                "select s.id, m.sealed from mcp_session m join session s on s.number = m.session \
                 order by m.session desc limit $1",
            ),
        ] {
            for row in sqlx::query(sql).bind(SAMPLES).fetch_all(&self.pool).await? {
                witnesses.sealed.push(answers::sealed(kind, &row)?);
            }
        }
        Ok(witnesses)
    }

    fn all_sealed(&self) -> BoxStream<'_, Result<Sealed, StoreError>> {
        self.each_sealed()
    }
}
