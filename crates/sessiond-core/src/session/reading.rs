//! Readings of the counter of what a session was sent.

use crate::Time;
use crate::presented::Presented;
use crate::session::event::{ActivityRecorded, ActivitySource, Counts, SessionEvent};
use crate::session::{Context, Refusal, Session, admit};
use crate::throughput::{Reading, Sample};

/// What becomes of a reading, and what happens by it. It is folded once, for both.
pub fn decide_reading(
    context: &Context<'_>,
    session: &Session,
    (sample, presented): (Sample, &Presented),
    now: Time,
) -> Result<(Reading, Vec<SessionEvent>), Refusal> {
    if let Some(ended) = session.ended {
        return Err(Refusal::Ended(ended));
    }
    let mut events = admit(context, session, presented, now)?;
    let (reading, throughput) = session.read(sample);
    if reading.counts() {
        let before = session.throughput.as_ref().map_or(0, |before| before.gauge().total);
        let after = throughput.gauge().total;
        let counts = Counts { requests: 0, bytes_in: 0, bytes_out: after.saturating_sub(before) };
        // What takes the place of a reading of the same instant can also take bytes away: the total is what readings come
        // to.
        let others = session.total.bytes_out.saturating_sub(before);
        let total = Counts { bytes_out: others.saturating_add(after).min(i64::MAX as u64), ..session.total };
        events.push(SessionEvent::ActivityRecorded(ActivityRecorded {
            source: ActivitySource::Reading,
            counts,
            total,
            throughput: Some(Box::new(throughput)),
        }));
    }
    Ok((reading, events))
}
