//! What stands beside the log for webhooks.

use async_trait::async_trait;
use sessiond_core::ids::Position;
use uuid::Uuid;

use crate::StoreError;
use crate::row::{Delivery, DeliveryStatus};

/// How deliveries to webhooks stand. They are written by [`SideWrite::Deliveries`](crate::SideWrite::Deliveries), by the same
/// writer as all else, so that what is told outside never says more than what is durable. Of a webhook that was deleted
/// nothing more is written, whatever the batch says.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// How far each webhook has been served: what follows of the log is still to be looked at for it.
    async fn webhook_progress(&self) -> Result<Vec<(Uuid, Position)>, StoreError>;

    /// A webhook's deliveries that are not over, oldest first, all of them.
    async fn pending_deliveries(&self, webhook: Uuid) -> Result<Vec<Delivery>, StoreError>;

    /// A webhook's delivery of the event at a position.
    async fn delivery(&self, webhook: Uuid, position: Position) -> Result<Option<Delivery>, StoreError>;

    /// A page of a webhook's deliveries before a position, newest first; of one status alone where that is asked for.
    async fn deliveries(
        &self,
        webhook: Uuid,
        status: Option<DeliveryStatus>,
        before: Position,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError>;
}
