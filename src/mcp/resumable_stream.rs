//! A stream of events to a client that may come back for what it missed (MCP 2025-11-25, basic/transports,
//! "Resumability and Redelivery"). It holds a bounded number of events, whether somebody reads them or not: a slow
//! reader slows the writer, and without a reader the oldest events give way to new ones.

mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use sessiond_core::ids::SessionNumber;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::budget::Share;
use super::event_id::EventId;
use super::reply::RpcError;
use crate::gate::Lease;
use state::{MOST_BYTES, Piece, State};

/// A stream of events, with at most one reader at a time.
pub struct ResumableStream {
    pub session: SessionNumber,
    /// The key that begins each of the stream's event ids.
    pub key: String,
    /// The calls that are answered on the stream; none for a session's standalone stream.
    pub calls: Vec<Value>,
    /// The number of the event after which the stream begins; zero for a new stream.
    pub after: u64,
    /// The key that signs the stream's event ids.
    seal: [u8; 32],
    /// The stream's share of the budget.
    share: Share,
    state: Mutex<State>,
    /// Wakes readers: something can be read, or the stream has ended.
    readable: Notify,
    /// Wakes everybody else: something was read, the reader has left, or the stream has ended.
    progressed: Notify,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything has been said.
    Done,
    /// The upstream has closed its side, as it may: the rest can be had from it.
    Paused,
    /// The stream was cut off.
    Cut,
}

/// What a reader asks for is no longer held, or never was.
#[derive(Debug, PartialEq, Eq)]
pub struct NotHeld;

impl ResumableStream {
    /// Makes a stream that begins at the place that an event id names.
    pub fn new(session: SessionNumber, begin: EventId, seal: [u8; 32], share: Share) -> Self {
        let EventId { key, calls, number: after, upstream, session_digest } = begin;
        let state = State {
            held: VecDeque::new(),
            first: after + 1,
            bytes: 0,
            next: after + 1,
            reader: 0,
            left_at: Some(Instant::now()),
            open_event: None,
            upstream_id: upstream,
            session_digest,
            dropped_answers: VecDeque::new(),
            end: None,
            upstream_released: false,
        };
        let (readable, progressed) = Default::default();
        Self { session, key, calls, after, seal, share, state: Mutex::new(state), readable, progressed }
    }

    /// Adds an event, unless the stream has ended; returns whether it did. `make` makes the event's bytes from its new
    /// id, `upstream` is the id that the upstream gave it, and `answers` are the calls that it answers.
    pub async fn push(
        &self,
        upstream: Option<Bytes>,
        answers: Vec<Value>,
        make: impl FnOnce(&str) -> Bytes,
    ) -> bool {
        self.wait_for_room().await;
        let mut state = self.state.lock();
        if upstream.is_some() {
            state.upstream_id = upstream;
        }
        let bytes = make(&self.next_id(&state));
        self.hold(state, Piece { answers, ..Piece::of(bytes) })
    }

    /// Adds the beginning of an event that is too large to hold.
    pub async fn push_begun(&self, at_line_start: bool, make: impl FnOnce(&str) -> Bytes) -> bool {
        self.wait_for_room().await;
        let state = self.state.lock();
        let bytes = make(&self.next_id(&state));
        self.hold(state, Piece { part: Some(at_line_start), ..Piece::of(bytes) })
    }

    /// Adds a further part of an event that is too large to hold; `part` is set where more follows.
    pub async fn push_part(&self, bytes: Bytes, part: Option<bool>) -> bool {
        self.wait_for_room().await;
        self.hold(self.state.lock(), Piece { part, goes_on: true, ..Piece::of(bytes) })
    }

    /// Adds a piece, unless the stream has ended; returns whether it did.
    fn hold(&self, mut state: MutexGuard<'_, State>, held: Piece) -> bool {
        if state.end.is_some() {
            return false;
        }
        state.hold(held);
        let bytes = state.bytes;
        // Setting the share may give up other streams, and looks at their states: this one's must not be locked then.
        drop(state);
        self.share.set(bytes);
        self.readable.notify_waiters();
        true
    }

    /// The id of the event that is added next.
    fn next_id(&self, state: &State) -> String {
        let (key, calls) = (self.key.clone(), self.calls.clone());
        let number = state.first + state.held.len() as u64;
        let (upstream, session_digest) = (state.upstream_id.clone(), state.session_digest.clone());
        EventId { key, calls, number, upstream, session_digest }.sealed(&self.seal)
    }

    /// Waits while a reader has too much still to read.
    async fn wait_for_room(&self) {
        let may_go_on =
            |state: &State| state.left_at.is_some() || state.end.is_some() || state.waiting() < MOST_BYTES;
        self.until(&self.progressed, |state| may_go_on(state).then_some(())).await;
    }

    /// Ends the stream. What is held can still be read.
    pub fn end(&self, end: End) {
        self.state.lock().end.get_or_insert(end);
        self.readable.notify_waiters();
        self.progressed.notify_waiters();
    }

    /// Ends the stream with these messages as last words, behind everything that is held.
    pub fn finish(&self, farewells: &[String]) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            let text = state.last_words(farewells);
            state.hold(Piece::of(text.into()));
            state.end = Some(End::Done);
        }
        drop(state);
        self.readable.notify_waiters();
        self.progressed.notify_waiters();
    }

    /// Ends the stream before it has begun, with this error for each of its calls. Returns the reader that is to get
    /// them.
    pub fn refuse(&self, rpc_error: &RpcError) -> Result<u64, NotHeld> {
        let reader = self.attach(self.after)?;
        let farewells: Vec<_> = self.calls.iter().map(|id| rpc_error.answer(id)).collect();
        self.cut_off(&farewells);
        Ok(reader)
    }

    /// Ends the stream at once: nothing that is held is handed on any more, only these messages as last words.
    pub fn cut_off(&self, farewells: &[String]) {
        let mut state = self.state.lock();
        let read = state.read();
        state.held.truncate(read);
        let text = state.last_words(farewells);
        if !text.is_empty() {
            state.held.push_back(Piece::of(text.into()));
        }
        state.bytes = state.held.iter().map(|held| held.bytes.len()).sum();
        state.end = Some(End::Cut);
        drop(state);
        self.readable.notify_waiters();
        self.progressed.notify_waiters();
    }

    /// Lets a new reader read what follows event number `after`; the former reader reads no more.
    pub fn attach(&self, after: u64) -> Result<u64, NotHeld> {
        let mut state = self.state.lock();
        let known = state.first..=state.first + state.held.len() as u64;
        if !known.contains(&(after + 1)) || state.end == Some(End::Cut) {
            return Err(NotHeld);
        }
        state.next = after + 1;
        // A reader that knows the id of an event has had all of its parts.
        while state.held.get(state.read()).is_some_and(|held| held.goes_on) {
            state.next += 1;
        }
        state.reader += 1;
        state.left_at = None;
        let reader = state.reader;
        drop(state);
        self.readable.notify_waiters();
        Ok(reader)
    }

    /// Lets a new reader read what is still held, although some of what follows event number `after` is no longer held.
    /// Returns the calls whose answers were dropped.
    pub fn attach_to_rest(&self, after: u64) -> Result<(u64, Vec<Value>), NotHeld> {
        let (from, gone) = {
            let state = self.state.lock();
            let end = state.first + state.held.len() as u64 - 1;
            let gone = state.dropped_answers.iter().filter(|(number, _)| *number > after);
            let gone = gone.flat_map(|(_, calls)| calls.clone()).collect();
            ((after + 1).max(state.first).min(end + 1) - 1, gone)
        };
        self.attach(from).map(|reader| (reader, gone))
    }

    /// Notes that a reader has left.
    pub fn leave(&self, reader: u64) {
        let mut state = self.state.lock();
        if state.reader == reader && state.left_at.is_none() {
            state.left_at = Some(Instant::now());
            state.make_room();
            let bytes = state.bytes;
            drop(state);
            self.share.set(bytes);
            self.progressed.notify_waiters();
        }
    }

    /// The next piece for a reader; `None` at the end of the stream, or once another reader has taken over.
    pub async fn read(&self, reader: u64, lease: &Lease) -> Option<Bytes> {
        self.until(&self.readable, |state| {
            if state.reader != reader {
                return Some(None);
            }
            // A process that was paused goes on here, perhaps before whoever writes the stream can cut it off.
            if !lease.holds() && state.end != Some(End::Cut) {
                return None;
            }
            match state.take() {
                Some(piece) => Some(Some(piece)),
                None if state.end.is_some() => Some(None),
                None => None,
            }
        })
        .await
        .inspect(|_| {
            self.share.set(self.bytes());
            self.progressed.notify_waiters();
        })
    }

    /// Resolves once everything that is held was read, or nobody reads.
    pub async fn drained(&self) {
        self.until(&self.progressed, |state| {
            (state.left_at.is_some() || state.read() >= state.held.len()).then_some(())
        })
        .await;
    }

    /// Resolves once nobody has read for this long.
    pub async fn deserted(&self, patience: Duration) {
        loop {
            let left_at = self.until(&self.progressed, |state| state.left_at).await;
            sleep_until(left_at + patience).await;
            if self.state.lock().left_at == Some(left_at) {
                return;
            }
        }
    }

    /// Resolves once the stream has ended.
    pub async fn ended(&self) {
        self.until(&self.progressed, |state| state.end.map(|_| ())).await;
    }

    /// Notes that the connection to the upstream is given up.
    pub fn release_upstream(&self) {
        self.state.lock().upstream_released = true;
        self.progressed.notify_waiters();
    }

    /// Resolves once the connection to the upstream is given up.
    pub async fn upstream_released(&self) {
        self.until(&self.progressed, |state| state.upstream_released.then_some(())).await;
    }

    /// Makes an empty share of the budget, for what is remembered of the stream.
    pub fn empty_share(&self) -> Share {
        self.share.empty()
    }

    /// The token that is cancelled when the budget gives the stream up.
    pub fn given_up(&self) -> &CancellationToken {
        self.share.given_up()
    }

    /// Tells the budget that the stream has ended: what it holds is then given up before what is under way.
    pub fn mark_ended(self: &Arc<Self>) {
        self.share.mark_ended(self);
    }

    /// Drops everything that is held.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        while let Some(held) = state.held.pop_front() {
            state.drop_first(held.answers);
        }
        state.bytes = 0;
        state.next = state.next.max(state.first);
    }

    /// Makes all further events carry this in place of an upstream's event id.
    pub fn set_upstream_id(&self, upstream: Bytes) {
        self.state.lock().upstream_id = Some(upstream);
    }

    /// The pieces that no reader has got yet.
    pub fn unread(&self) -> Vec<Bytes> {
        let state = self.state.lock();
        state.held.iter().skip(state.read()).map(|held| held.bytes.clone()).collect()
    }

    /// Whether somebody reads.
    pub fn is_read(&self) -> bool {
        self.state.lock().left_at.is_none()
    }

    /// How the stream ended, if it has.
    pub fn ending(&self) -> Option<End> {
        self.state.lock().end
    }

    /// The id that the upstream gave its last event with an id.
    pub fn upstream_id(&self) -> Option<Bytes> {
        self.state.lock().upstream_id.clone()
    }

    /// The number of the last piece.
    pub fn last_number(&self) -> u64 {
        let state = self.state.lock();
        state.first + state.held.len() as u64 - 1
    }

    /// Whether the stream's events are of this session at the upstream, as far as that is known.
    pub fn is_of_session(&self, session_digest: &str) -> bool {
        self.state.lock().session_digest.as_deref().is_none_or(|own| own == session_digest)
    }

    /// Notes that all further events are of this session at the upstream. The event ids of another session mean nothing
    /// there.
    pub fn bind_to_session(&self, session_digest: String) {
        let mut state = self.state.lock();
        if state.session_digest.as_ref() != Some(&session_digest) {
            state.session_digest = Some(session_digest);
            state.upstream_id = None;
        }
    }

    /// How many bytes are held.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Waits until a look at the state finds what it looks for; `notify` says when to look again.
    async fn until<T>(&self, notify: &Notify, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let notified = notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some(found) = look(&mut self.state.lock()) {
                return found;
            }
            notified.await;
        }
    }
}
