//! What is sealed with the secret key, put back sealed with another.

use sqlx::postgres::PgConnection;

use crate::StoreError;
use crate::seam::{Sealed, SealedFor};

/// Puts bytes in the place of one, by the public id.
fn update(kind: SealedFor) -> &'static str {
    match kind {
        SealedFor::Webhook => "update webhook_secret set sealed = $1 where id = $2",
        SealedFor::WebhookBefore => "update webhook_secret set before = $1 where id = $2",
        SealedFor::Machine => "update machine_secret set sealed = $1 where id = $2",
        SealedFor::McpSession => {
            "update mcp_session set sealed = $1 where session = (select number from session where id = $2)"
        }
        SealedFor::Upstream => {
            "update upstream_secret set sealed = $1 \
             where application = (select number from application where id = $2)"
        }
    }
}

pub(super) async fn reseal(connection: &mut PgConnection, sealed: &Sealed) -> Result<(), StoreError> {
    sqlx::query(update(sealed.kind)).bind(&sealed.bytes).bind(sealed.id).execute(connection).await?;
    Ok(())
}
