//! Secrets: hashes and what is sealed.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use sqlx::Row;
use uuid::Uuid;

use super::store::SqliteStore;
use crate::row::{ClientSecret, McpSession, SessionToken, WebhookSecret};
use crate::seam::{Sealed, SealedFor, Secrets, Witnesses};
use crate::values::{bytes32, session_token};
use crate::{StoreError, answers};

/// How many of each kind are sampled.
const SAMPLES: i64 = 8;

#[async_trait]
impl Secrets for SqliteStore {
    async fn client_secret(&self, client_id: &str) -> Result<Option<ClientSecret>, StoreError> {
        let row = sqlx::query("select * from client_secret where client_id = ?")
            .bind(client_id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(answers::client_secret).transpose()
    }

    async fn session_token(&self, session: SessionNumber) -> Result<Option<SessionToken>, StoreError> {
        let row = sqlx::query("select * from session_token where session = ?")
            .bind(session.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(session_token).transpose()
    }

    async fn mcp_session(&self, session: SessionNumber) -> Result<Option<McpSession>, StoreError> {
        let row = sqlx::query("select * from mcp_session where session = ?")
            .bind(session.0)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(answers::mcp_session).transpose()
    }

    async fn untold_mcp(
        &self,
        after: SessionNumber,
        limit: usize,
    ) -> Result<Vec<(SessionNumber, Uuid, ApplicationNumber)>, StoreError> {
        let sql = "select s.number, s.id, s.application from mcp_session m indexed by mcp_session_kept \
                   cross join session s on s.number = m.session \
                   where m.sealed <> x'' and m.session > ? and s.state = 0 order by m.session limit ?";
        let query = sqlx::query(sql).bind(after.0).bind(limit as i64);
        query.fetch_all(&self.pool).await?.iter().map(answers::untold).collect()
    }

    async fn upstream_secret(&self, application: ApplicationNumber) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = sqlx::query_scalar("select sealed from upstream_secret where application = ?")
            .bind(application.0)
            .fetch_optional(&self.pool)
            .await?;
        Ok(sealed)
    }

    async fn machine_secret(&self, id: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = sqlx::query_scalar("select sealed from machine_secret where id = ?")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(sealed)
    }

    async fn webhook_secret(&self, id: Uuid) -> Result<Option<WebhookSecret>, StoreError> {
        let sql = "select sealed, before, before_until from webhook_secret where id = ?";
        let row = sqlx::query(sql).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(answers::webhook_secret).transpose()
    }

    async fn witnesses(&self) -> Result<Witnesses, StoreError> {
        let mut witnesses = Witnesses::default();
        let people = "select issuer, subject, subject_digest from principal where subject is not null \
                      order by number desc limit ?";
        for row in sqlx::query(people).bind(SAMPLES).fetch_all(&self.pool).await? {
            witnesses.people.push((row.try_get(0)?, row.try_get(1)?, bytes32(&row, "subject_digest")?));
        }
        for (kind, sql) in [
            (SealedFor::Webhook, "select id, sealed from webhook_secret order by id desc limit ?"),
            (SealedFor::Machine, "select id, sealed from machine_secret order by id desc limit ?"),
            (
                SealedFor::McpSession,
                "select s.id, m.sealed from mcp_session m join session s on s.number = m.session \
                 order by m.session desc limit ?",
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
