//! One attempt of the outbox: the event's body, from memory or the log, on its way to one receiver.

use std::sync::Arc;

use bytes::Bytes;

use super::line::Waiting;
use super::sender::Letter;
use super::{Outbox, envelope};
use crate::core::delivery::Attempted;
use crate::core::ids::Position;
use crate::directory::SigningKeys;

/// An attempt that came back.
pub struct Came {
    pub waiting: Waiting,
    pub attempted: Attempted,
}

/// Sends a delivery once.
pub async fn attempt(outbox: Arc<Outbox>, url: String, keys: Arc<SigningKeys>, waiting: Waiting) -> Came {
    let position = waiting.delivery.position;
    let body = match waiting.body.clone() {
        Some(body) => Some(body),
        None => read_body(&outbox, position).await,
    };
    let attempted = match body {
        Some(body) => {
            let letter = Letter { url, id: envelope::id(position), body };
            outbox.sender.send(letter, &keys, outbox.clock.wall()).await
        }
        None => {
            let error = Some("the event could not be read".to_owned());
            Attempted { status: None, error, retry_after: None }
        }
    };
    Came { waiting, attempted }
}

/// The body of a delivery that waited for long.
async fn read_body(outbox: &Outbox, position: Position) -> Option<Bytes> {
    match outbox.live.outgoing_at(position).await {
        Ok(event) => event.map(|event| envelope::body(&event, &outbox.directory, &outbox.public_url)),
        Err(error) => {
            tracing::error!(%error, "an event could not be read for a webhook");
            None
        }
    }
}
