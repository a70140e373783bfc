//! What stands beside the log for webhooks: their secrets, how far each has been served, and deliveries. Many rows go
//! in one statement as JSON: an upsert of rows of bound values needs as many arguments as SQLite allows at once.

use async_trait::async_trait;
use serde_json::{Value, json};
use sessiond_core::Time;
use sessiond_core::delivery::{Delivery, DeliveryStatus};
use sessiond_core::ids::Position;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::store::SqliteStore;
use super::writer::SqliteWriter;
use crate::StoreError;
use crate::answers::delivery;
use crate::row::SideWrite;
use crate::seam::Outbox;

// A webhook that has no secret any more is deleted: what comes of its last attempts is not kept.

const DELIVERIES: &str = "insert into webhook_delivery (webhook, position, stream, attempts, next_at, delivered_at, \
     failed_at, status, error, created_at, updated_at) \
     select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
     value ->> 7, value ->> 8, value ->> 9, value ->> 10 from json_each(?) \
     where exists (select 1 from webhook_secret where id = unhex(value ->> 0)) \
     on conflict (webhook, position) do update set attempts = excluded.attempts, next_at = excluded.next_at, \
     delivered_at = excluded.delivered_at, failed_at = excluded.failed_at, status = excluded.status, \
     error = excluded.error, updated_at = excluded.updated_at";

const PROGRESS: &str = "insert into webhook_progress (id, position) \
     select unhex(value ->> 0), value ->> 1 from json_each(?) \
     where exists (select 1 from webhook_secret where id = unhex(value ->> 0)) \
     on conflict (id) do update set position = excluded.position";

const FORGET_DELIVERIES: &str = "delete from webhook_delivery where (webhook, position) in (\
     select webhook, position from webhook_delivery indexed by webhook_delivery_over \
     where next_at is null and updated_at < ? and (failed_at is null or updated_at < ?) limit 5000)";

const FORGET_DELIVERIES_OF: &str = "delete from webhook_delivery where (webhook, position) in (\
     select webhook, position from webhook_delivery where webhook = ? limit 5000)";

impl SqliteWriter {
    pub(super) async fn write_webhook(&mut self, side: &SideWrite) -> Result<(), StoreError> {
        let query = match side {
            SideWrite::WebhookSecret { id, sealed } => {
                sqlx::query("insert into webhook_secret (id, sealed) values (?, ?)").bind(id).bind(sealed)
            }
            SideWrite::RotateWebhookSecret { id, sealed, before_until } => {
                let sql = "update webhook_secret set before = iif(?1 is null, null, sealed), before_until = ?1, \
                           sealed = ?2 where id = ?3";
                sqlx::query(sql)
                    .bind(before_until.map(|until| until.timestamp_millis()))
                    .bind(sealed)
                    .bind(id)
            }
            SideWrite::ForgetWebhook(id) => {
                sqlx::query("delete from webhook_progress where id = ?")
                    .bind(id)
                    .execute(&mut self.connection)
                    .await?;
                sqlx::query("delete from webhook_secret where id = ?").bind(id)
            }
            SideWrite::ForgetDeliveriesOf(id) => sqlx::query(FORGET_DELIVERIES_OF).bind(id),
            SideWrite::Deliveries { rows, progress } => {
                return self.write_deliveries(rows, progress).await;
            }
            SideWrite::ForgetDeliveries { before, failed_before } => sqlx::query(FORGET_DELIVERIES)
                .bind(before.timestamp_millis())
                .bind(failed_before.timestamp_millis()),
            _ => return Ok(()),
        };
        query.execute(&mut self.connection).await?;
        Ok(())
    }

    async fn write_deliveries(
        &mut self,
        rows: &[Delivery],
        progress: &[(Uuid, Position)],
    ) -> Result<(), StoreError> {
        let rows: Vec<Value> = rows.iter().map(delivery_values).collect();
        let progress: Vec<Value> =
            progress.iter().map(|(id, position)| json!([id.simple().to_string(), position.0])).collect();
        for (sql, values) in [(DELIVERIES, rows), (PROGRESS, progress)] {
            if !values.is_empty() {
                let values = Value::from(values).to_string();
                sqlx::query(sql).bind(values).execute(&mut self.connection).await?;
            }
        }
        Ok(())
    }
}

fn delivery_values(row: &Delivery) -> Value {
    let milliseconds = |time: Option<Time>| time.map(|time| time.timestamp_millis());
    json!([
        row.webhook.simple().to_string(),
        row.position.0,
        row.stream,
        row.attempts,
        milliseconds(row.next_at),
        milliseconds(row.delivered_at),
        milliseconds(row.failed_at),
        row.status,
        row.error,
        row.created_at.timestamp_millis(),
        row.updated_at.timestamp_millis(),
    ])
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn webhook_progress(&self) -> Result<Vec<(Uuid, Position)>, StoreError> {
        let rows = sqlx::query("select id, position from webhook_progress").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, Position(row.try_get("position")?)))).collect()
    }

    async fn pending_deliveries(&self, webhook: Uuid) -> Result<Vec<Delivery>, StoreError> {
        let sql = "select * from webhook_delivery indexed by webhook_delivery_pending \
                   where webhook = ? and next_at is not null order by position";
        sqlx::query(sql).bind(webhook).fetch_all(&self.pool).await?.iter().map(delivery).collect()
    }

    async fn delivery(&self, webhook: Uuid, position: Position) -> Result<Option<Delivery>, StoreError> {
        let sql = "select * from webhook_delivery where webhook = ? and position = ?";
        let row = sqlx::query(sql).bind(webhook).bind(position.0).fetch_optional(&self.pool).await?;
        row.as_ref().map(delivery).transpose()
    }

    async fn deliveries(
        &self,
        webhook: Uuid,
        status: Option<DeliveryStatus>,
        before: Position,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        // Few are pending or failed: these two have indexes of their own, which SQLite would pass over for the key.
        let (index, of_status) = match status {
            None => ("", ""),
            Some(DeliveryStatus::Pending) => {
                ("indexed by webhook_delivery_pending", "and next_at is not null")
            }
            Some(DeliveryStatus::Delivered) => ("", "and delivered_at is not null and next_at is null"),
            Some(DeliveryStatus::Failed) => {
                ("indexed by webhook_delivery_failed", "and failed_at is not null")
            }
        };
        let sql = format!(
            "select * from webhook_delivery {index} where webhook = ? and position < ? {of_status} \
             order by position desc limit ?"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(webhook).bind(before.0).bind(limit);
        query.fetch_all(&self.pool).await?.iter().map(delivery).collect()
    }
}
