//! One attempt to deliver an event, from memory or the log, to one receiver.

use std::sync::Arc;

use sessiond_core::delivery::Attempted;
use sessiond_core::ids::Position;

use super::Outbox;
use super::cloud_event::{PostedEvent, posted_event};
use super::delivery_queue::QueuedDelivery;
use super::sender::DeliveryRequest;
use crate::directory::SigningKeys;
use crate::error::Error;

/// An attempt that has ended.
pub struct FinishedAttempt {
    pub waiting: QueuedDelivery,
    /// None where the event was let go: there is nothing more to tell.
    pub attempted: Option<Attempted>,
}

/// Sends a delivery once.
pub async fn attempt(
    outbox: Arc<Outbox>,
    url: String,
    keys: Arc<SigningKeys>,
    waiting: QueuedDelivery,
) -> FinishedAttempt {
    let position = waiting.delivery.position;
    let posted = match waiting.posted.clone() {
        Some(posted) => Ok(Some(posted)),
        None => read(&outbox, position).await,
    };
    let attempted = match posted {
        Ok(Some(PostedEvent { id, body })) => {
            let request = DeliveryRequest { url, id, body };
            Some(outbox.sender.send(request, &keys, outbox.clock.wall()).await)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::error!(%error, "an event could not be read for a webhook");
            let error = Some("the event could not be read".to_owned());
            Some(Attempted { status: None, error, retry_after: None })
        }
    };
    FinishedAttempt { waiting, attempted }
}

/// Reads the event of a delivery from the log: one that waits for long is no longer in memory.
async fn read(outbox: &Outbox, position: Position) -> Result<Option<PostedEvent>, Error> {
    let event = outbox.live.outgoing_at(position).await?;
    Ok(event.map(|event| posted_event(&event, &outbox.public_ids, &outbox.public_url)))
}
