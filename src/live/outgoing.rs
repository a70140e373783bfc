//! The log for those who carry events out of the service: read in pages, each event with what an envelope needs.

use sessiond_core::Time;
use sessiond_core::ids::{OrganizationNumber, Position, StreamId, Tip};
use sessiond_store::{Addressed, StoreError};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Frame, Live};

/// An event as listeners get it, with its envelope.
#[derive(Debug)]
pub struct Outgoing {
    pub frame: Frame,
    /// Chains the event to all that happened before in its stream.
    pub hash: [u8; 32],
    pub stream: StreamId,
    pub organization: OrganizationNumber,
    pub session_id: Option<Uuid>,
    pub application_id: Option<Uuid>,
    pub revocation_id: Option<Uuid>,
    pub occurred_at: Time,
    pub recorded_at: Time,
    pub traceparent: Option<String>,
}

impl Live {
    /// The end of the log, which changes with each commit.
    pub fn tip(&self) -> watch::Receiver<Tip> {
        self.tip.clone()
    }

    /// The events after a position and up to another, oldest first; activity is left out unless it is asked for.
    pub async fn outgoing(
        &self,
        after: Position,
        up_to: Position,
        activity: bool,
        limit: u32,
    ) -> Result<Vec<Outgoing>, StoreError> {
        let page = self.reader.addressed_log(after, up_to, activity, limit).await?;
        let frames = self.frames(&page.iter().collect::<Vec<_>>()).await?;
        Ok(page.iter().zip(frames).map(|(event, frame)| Outgoing::new(event, frame)).collect())
    }

    /// The event at a position.
    pub async fn outgoing_at(&self, position: Position) -> Result<Option<Outgoing>, StoreError> {
        Ok(self.outgoing(Position(position.0 - 1), position, true, 1).await?.pop())
    }
}

impl Outgoing {
    fn new(event: &Addressed, frame: Frame) -> Self {
        let recorded = &event.entry.recorded;
        Self {
            frame,
            hash: event.entry.hash,
            stream: recorded.stream,
            organization: recorded.organization,
            session_id: event.session_id,
            application_id: event.application_id,
            revocation_id: event.revocation_id,
            occurred_at: recorded.occurred_at,
            recorded_at: recorded.recorded_at,
            traceparent: recorded.traceparent.clone(),
        }
    }
}
