//! All resumable streams: those that still get events and, for a while, those that have ended, for clients that come
//! back for what they missed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sessiond_core::ids::SessionNumber;
use tokio::time::Instant;

use super::resumable_stream::ResumableStream;

/// How long a stream that has ended is kept.
const KEPT: Duration = Duration::from_secs(60);
/// How many ended streams are kept.
const MOST: usize = 4_096;
/// How many bytes the ended streams may hold together.
const MOST_BYTES: usize = 64 << 20;

/// All streams, by their session and the key that begins their event ids.
#[derive(Default)]
pub struct ResumableStreams {
    known: Mutex<Registered>,
}

#[derive(Default)]
struct Registered {
    by_key: HashMap<(SessionNumber, String), Arc<ResumableStream>>,
    /// The standalone stream of each session that was opened last.
    standalone: HashMap<SessionNumber, Arc<ResumableStream>>,
    /// The streams that have ended, with the bytes that they hold, the oldest first.
    ended: VecDeque<(Instant, (SessionNumber, String), usize)>,
    ended_bytes: usize,
}

impl ResumableStreams {
    /// Adds a stream. One that was resumed under its key replaces the former one.
    pub fn insert(&self, stream: &Arc<ResumableStream>) {
        let mut known = self.known.lock();
        if stream.calls.is_empty() {
            known.standalone.insert(stream.session, stream.clone());
        }
        known.by_key.insert((stream.session, stream.key.clone()), stream.clone());
    }

    /// The stream with this key, if it is the session's.
    pub fn find(&self, key: &str, session: SessionNumber) -> Option<Arc<ResumableStream>> {
        self.known.lock().by_key.get(&(session, key.to_owned())).cloned()
    }

    /// The standalone stream of a session.
    pub fn standalone(&self, session: SessionNumber) -> Option<Arc<ResumableStream>> {
        self.known.lock().standalone.get(&session).cloned()
    }

    /// Notes that a stream gets no more events.
    pub fn mark_ended(&self, stream: &Arc<ResumableStream>) {
        stream.release_upstream();
        stream.mark_ended();
        let (now, bytes) = (Instant::now(), stream.bytes());
        let mut known = self.known.lock();
        if known.standalone.get(&stream.session).is_some_and(|standalone| Arc::ptr_eq(standalone, stream)) {
            known.standalone.remove(&stream.session);
        }
        known.ended.push_back((now, (stream.session, stream.key.clone()), bytes));
        known.ended_bytes += bytes;
        while let Some((at, key, bytes)) = known.ended.front().cloned() {
            if now - at < KEPT && known.ended.len() <= MOST && known.ended_bytes <= MOST_BYTES {
                break;
            }
            known.ended.pop_front();
            known.ended_bytes -= bytes;
            // The key may belong to a resumed stream by now, which has not ended.
            if known.by_key.get(&key).is_some_and(|stream| stream.ending().is_some()) {
                known.by_key.remove(&key);
            }
        }
    }
}
