//! Says in the log of the service what was changed, by whom: who may come in, who is kept out, what was ended. What sessions
//! do all day is said nowhere but in the log of events.

use sessiond_core::event::{Event, Recorded};
use sessiond_core::media_stream::MediaStreamEvent;
use sessiond_core::schedule::ScheduleEvent;
use sessiond_core::streams::{AnyEvent, AnyStream};
use sessiond_store::Batch;

use crate::logs::AUDIT;

/// Says what a batch that is on disk has changed.
pub(super) fn tell(batch: &Batch) {
    for recorded in batch.events.iter().map(|entry| &entry.recorded) {
        if let Event::Stream(event) = &recorded.event
            && !is_routine(event)
        {
            line(recorded, batch.streams.iter().find(|stream| stream.stream() == recorded.stream));
        }
    }
}

/// What nobody decided, and what another line says: a schedule that runs begins a revocation.
fn is_routine(event: &AnyEvent) -> bool {
    matches!(
        event,
        AnyEvent::MediaStream(MediaStreamEvent::Declared(_))
            | AnyEvent::Schedule(ScheduleEvent::Ran(_) | ScheduleEvent::Skipped(_))
    )
}

/// The revocations have a place in the code of their own: as often as there are any, they do not use up what the other
/// changes may say.
fn line(recorded: &Recorded, stream: Option<&AnyStream>) {
    let actor = match recorded.actor.stored_id() {
        Some(id) => format!("{} {id}", recorded.actor.kind.word()),
        None => recorded.actor.kind.word().to_owned(),
    };
    let (position, event) = (recorded.position.0, recorded.event.name());
    let said = event.replace('_', " ");
    let id = stream.map(AnyStream::id).unwrap_or_default();
    let request_id = recorded.request_id.as_deref();
    if let Some(AnyStream::Revocation(revocation)) = stream {
        let ended = revocation.ended_at.map(|_| revocation.disconnected_count);
        tracing::info!(target: AUDIT, event, %id, actor, position, request_id, disconnected = ended, "{said}");
    } else {
        tracing::info!(target: AUDIT, event, %id, actor, position, request_id, "{said}");
    }
}
