//! All that is sealed with the secret key, wherever it stands. A column that comes to hold such a thing gets its lines here.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::store::SqliteStore;
use super::writer::SqliteWriter;
use crate::StoreError;
use crate::answers::sealed;
use crate::seam::{Sealed, SealedFor};

/// Every kind.
const KINDS: [SealedFor; 5] = [
    SealedFor::Webhook,
    SealedFor::WebhookBefore,
    SealedFor::Machine,
    SealedFor::McpSession,
    SealedFor::Upstream,
];

/// Reads all of a kind: the public id of what it belongs to, and the bytes.
fn select(kind: SealedFor) -> &'static str {
    match kind {
        SealedFor::Webhook => "select id, sealed from webhook_secret",
        SealedFor::WebhookBefore => {
            "select id, before as sealed from webhook_secret where before is not null"
        }
        SealedFor::Machine => "select id, sealed from machine_secret",
        SealedFor::McpSession => {
            "select s.id, m.sealed from mcp_session m join session s on s.number = m.session where m.sealed <> x''"
        }
        SealedFor::Upstream => {
            "select a.id, u.sealed from upstream_secret u join application a on a.number = u.application"
        }
    }
}

/// Puts bytes in the place of one, by the public id.
fn update(kind: SealedFor) -> &'static str {
    match kind {
        SealedFor::Webhook => "update webhook_secret set sealed = ? where id = ?",
        SealedFor::WebhookBefore => "update webhook_secret set before = ? where id = ?",
        SealedFor::Machine => "update machine_secret set sealed = ? where id = ?",
        SealedFor::McpSession => {
            "update mcp_session set sealed = ? where session = (select number from session where id = ?)"
        }
        SealedFor::Upstream => {
            "update upstream_secret set sealed = ? where application = (select number from application where id = ?)"
        }
    }
}

impl SqliteStore {
    pub(super) fn each_sealed(&self) -> BoxStream<'_, Result<Sealed, StoreError>> {
        let of = |kind| sqlx::query(select(kind)).fetch(&self.pool).map(move |row| sealed(kind, &row?));
        stream::iter(KINDS).flat_map(of).boxed()
    }
}

impl SqliteWriter {
    pub(super) async fn reseal(&mut self, sealed: &Sealed) -> Result<(), StoreError> {
        sqlx::query(update(sealed.kind))
            .bind(&sealed.bytes)
            .bind(sealed.id)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}
