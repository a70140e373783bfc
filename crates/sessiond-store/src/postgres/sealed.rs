//! All that is sealed with the secret key, wherever it stands. A column that comes to hold such a thing gets its lines here.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::store::{PgStore, pages};
use crate::StoreError;
use crate::answers::sealed;
use crate::seam::{Sealed, SealedFor};
use crate::values::Stored;

impl PgStore {
    /// Every kind, each in pages: by the id of what it belongs to where that is the key, by number where it is not. Where two
    /// tables are joined, both say where the page begins: else one of them may be read from its beginning for each page.
    pub(super) fn each_sealed(&self) -> BoxStream<'_, Result<Sealed, StoreError>> {
        let webhooks = "select id, sealed from webhook_secret where id > $1 order by id limit $2";
        let before = "select id, before as sealed from webhook_secret where before is not null and id > $1 \
                      order by id limit $2";
        let machines = "select id, sealed from machine_secret where id > $1 order by id limit $2";
        let sessions = "select m.session as number, s.id, m.sealed from mcp_session m \
                        join session s on s.number = m.session \
                        where m.sealed <> ''::bytea and m.session > $1 and s.number > $1 \
                        order by m.session limit $2";
        let upstreams = "select a.number, a.id, u.sealed from upstream_secret u \
                         join application a on a.number = u.application \
                         where u.application > $1 and a.number > $1 order by u.application limit $2";
        let first = Uuid::nil();
        let kinds = [
            pages(self, webhooks, first, |row| by_id(SealedFor::Webhook, row)),
            pages(self, before, first, |row| by_id(SealedFor::WebhookBefore, row)),
            pages(self, machines, first, |row| by_id(SealedFor::Machine, row)),
            pages(self, sessions, 0_i64, |row| by_number(SealedFor::McpSession, row)),
            pages(self, upstreams, 0_i64, |row| by_number(SealedFor::Upstream, row)),
        ];
        stream::iter(kinds).flatten().boxed()
    }
}

fn by_id(kind: SealedFor, row: &PgRow) -> Result<(Uuid, Sealed), StoreError> {
    Ok((row.id("id")?, sealed(kind, row)?))
}

fn by_number(kind: SealedFor, row: &PgRow) -> Result<(i64, Sealed), StoreError> {
    Ok((row.integer("number")?, sealed(kind, row)?))
}

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
