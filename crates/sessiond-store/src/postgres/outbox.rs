//! What stands beside the log for webhooks: how far each has been served, and deliveries.

use async_trait::async_trait;
use sessiond_core::delivery::{Delivery, DeliveryStatus};
use sessiond_core::ids::Position;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::store::PgStore;
use crate::StoreError;
use crate::answers::delivery;
use crate::seam::Outbox;
use crate::values::Stored;

#[async_trait]
impl Outbox for PgStore {
    async fn webhook_progress(&self) -> Result<Vec<(Uuid, Position)>, StoreError> {
        let rows = sqlx::query("select id, position from webhook_progress").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.id("id")?, Position(row.integer("position")?)))).collect()
    }

    async fn pending_deliveries(&self, webhook: Uuid) -> Result<Vec<Delivery>, StoreError> {
        let sql =
            "select * from webhook_delivery where webhook = $1 and next_at is not null order by position";
        sqlx::query(sql).bind(webhook).fetch_all(&self.pool).await?.iter().map(delivery).collect()
    }

    async fn delivery(&self, webhook: Uuid, position: Position) -> Result<Option<Delivery>, StoreError> {
        let sql = "select * from webhook_delivery where webhook = $1 and position = $2";
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
        // Few are pending or failed: these two have indexes of their own.
        let of_status = match status {
            None => "",
            Some(DeliveryStatus::Pending) => "and next_at is not null",
            Some(DeliveryStatus::Delivered) => "and delivered_at is not null and next_at is null",
            Some(DeliveryStatus::Failed) => "and failed_at is not null",
        };
        let sql = format!(
            "select * from webhook_delivery where webhook = $1 and position < $2 {of_status} \
             order by position desc limit $3"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(webhook).bind(before.0).bind(i64::from(limit));
        query.fetch_all(&self.pool).await?.iter().map(delivery).collect()
    }
}
