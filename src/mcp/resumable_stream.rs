//! A stream of events toward a client that may come back for what it missed (MCP 2025-11-25, basic/transports,
//! "Resumability and Redelivery"). It holds a bounded number of events, whether somebody reads or not: a slow reader slows
//! the writer, and what nobody reads pushes out what is oldest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use sessiond_core::ids::SessionNumber;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::budget::Share;
use super::event_id::EventId;
use super::reply::{RpcError, last_words};

/// Bytes that wait for a reader before the writer does, and that are held for one who comes back.
const HELD: usize = 256 << 10;
/// Events that are held.
const MOST: usize = 1_024;
/// Handed on in one piece.
const PIECE: usize = 32 << 10;

/// A stream of events, which has one reader at a time, or none.
pub struct ResumableStream {
    pub session: SessionNumber,
    /// Begins each of its event ids.
    pub key: String,
    /// The calls that are answered on it; none for the standing stream of a session.
    pub calls: Vec<Value>,
    /// The number of the event that it goes on after; zero for a new one.
    pub after: u64,
    /// Its event ids are sealed with this.
    seal: [u8; 32],
    /// What it holds of what may be held.
    share: Share,
    state: Mutex<State>,
    /// Something can be read, or it has ended.
    changed: Notify,
    /// Something was read, or the reader has left.
    room: Notify,
}

struct State {
    held: VecDeque<Piece>,
    /// The number of what is held first. They count from 1, without a gap.
    first: u64,
    /// Of what is held.
    bytes: usize,
    /// The number of what the reader gets next.
    next: u64,
    /// Who may read: a later one takes over.
    reader: u64,
    /// Since when there is none.
    left_at: Option<Instant>,
    /// Set while a part of an event is out; whether that part ended with a line.
    open_event: Option<bool>,
    /// The id the upstream gave its last event that has one.
    upstream_id: Option<Bytes>,
    /// Names the upstream's session that did.
    session_digest: Option<String>,
    /// Answers that were let go of before anybody came for them, with their numbers.
    dropped_answers: VecDeque<(u64, Vec<Value>)>,
    end: Option<End>,
    /// Nothing of the upstream's comes to it any more.
    upstream_released: bool,
}

struct Piece {
    bytes: Bytes,
    /// Set for a part of an event of which more follows; whether it ends with a line.
    part: Option<bool>,
    /// It goes on with the event before it.
    goes_on: bool,
    /// The calls that it answers.
    answers: Vec<Value>,
}

impl Piece {
    /// A whole event.
    fn of(bytes: Bytes) -> Self {
        Self { bytes, part: None, goes_on: false, answers: vec![] }
    }
}

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All has been said.
    Done,
    /// The upstream has closed, as it may: the rest can be had from it.
    Paused,
    /// It was cut off.
    Cut,
}

/// What is asked for is no longer held, or never was.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl ResumableStream {
    /// A line with the place at which it begins.
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
        let (changed, room) = Default::default();
        Self { session, key, calls, after, seal, share, state: Mutex::new(state), changed, room }
    }

    /// Adds an event, unless the line has ended; says whether it did. `make` gets the id that is to be its; `upstream` is the
    /// one it came with; `answers` are the calls that it answers.
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

    fn hold(&self, mut state: MutexGuard<'_, State>, held: Piece) -> bool {
        if state.end.is_some() {
            return false;
        }
        state.hold(held);
        let bytes = state.bytes;
        // Others may have to go for it, whose states are then looked at.
        drop(state);
        self.share.set(bytes);
        self.changed.notify_waiters();
        true
    }

    fn next_id(&self, state: &State) -> String {
        let (key, calls) = (self.key.clone(), self.calls.clone());
        let number = state.first + state.held.len() as u64;
        let (upstream, session_digest) = (state.upstream_id.clone(), state.session_digest.clone());
        EventId { key, calls, number, upstream, session_digest }.sealed(&self.seal)
    }

    async fn wait_for_room(&self) {
        let may_go_on =
            |state: &State| state.left_at.is_some() || state.end.is_some() || state.waiting() < HELD;
        self.until(&self.room, |state| may_go_on(state).then_some(())).await;
    }

    /// Ends it: what is held can still be read.
    pub fn end(&self, end: End) {
        self.state.lock().end.get_or_insert(end);
        self.changed.notify_waiters();
        self.room.notify_waiters();
    }

    /// Ends it with these last words, as messages, after all that waits.
    pub fn finish(&self, farewells: &[String]) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            let text = state.last_words(farewells);
            state.hold(Piece::of(text.into()));
            state.end = Some(End::Done);
        }
        drop(state);
        self.changed.notify_waiters();
        self.room.notify_waiters();
    }

    /// Ends it before it has begun, with this answer to each of its calls, for the reader that is returned.
    pub fn refuse(&self, rpc_error: &RpcError) -> Result<u64, Gone> {
        let reader = self.attach(self.after)?;
        let farewells: Vec<_> = self.calls.iter().map(|id| rpc_error.answer(id)).collect();
        self.cut_off(&farewells);
        Ok(reader)
    }

    /// Ends it at once: nothing that waits is handed on any more, only these last words, as messages.
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
        self.changed.notify_waiters();
        self.room.notify_waiters();
    }

    /// Lets somebody read what follows event number `after`; whoever read before reads no more.
    pub fn attach(&self, after: u64) -> Result<u64, Gone> {
        let mut state = self.state.lock();
        let known = state.first..=state.first + state.held.len() as u64;
        if !known.contains(&(after + 1)) || state.end == Some(End::Cut) {
            return Err(Gone);
        }
        state.next = after + 1;
        // Whoever knows the id of an event has had all of its parts.
        while state.held.get(state.read()).is_some_and(|held| held.goes_on) {
            state.next += 1;
        }
        state.reader += 1;
        state.left_at = None;
        let reader = state.reader;
        drop(state);
        self.changed.notify_waiters();
        Ok(reader)
    }

    /// Lets somebody read what is held, although what follows event number `after` is not, or not all of it: the answers
    /// above all. Returns which calls have been answered in what is gone.
    pub fn attach_to_rest(&self, after: u64) -> Result<(u64, Vec<Value>), Gone> {
        let (from, gone) = {
            let state = self.state.lock();
            let end = state.first + state.held.len() as u64 - 1;
            let gone = state.dropped_answers.iter().filter(|(number, _)| *number > after);
            let gone = gone.flat_map(|(_, calls)| calls.clone()).collect();
            ((after + 1).max(state.first).min(end + 1) - 1, gone)
        };
        self.attach(from).map(|reader| (reader, gone))
    }

    /// A reader goes.
    pub fn leave(&self, reader: u64) {
        let mut state = self.state.lock();
        if state.reader == reader && state.left_at.is_none() {
            state.left_at = Some(Instant::now());
            state.make_room();
            let bytes = state.bytes;
            drop(state);
            self.share.set(bytes);
            self.room.notify_waiters();
        }
    }

    /// The next piece for a reader; nothing once there is none or another has taken over.
    pub async fn read(&self, reader: u64) -> Option<Bytes> {
        self.until(&self.changed, |state| {
            if state.reader != reader {
                return Some(None);
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
            self.room.notify_waiters();
        })
    }

    /// Resolves once all that is held was read, or nobody reads.
    pub async fn drained(&self) {
        self.until(&self.room, |state| {
            (state.left_at.is_some() || state.read() >= state.held.len()).then_some(())
        })
        .await;
    }

    /// Resolves once nobody has read for this long.
    pub async fn deserted(&self, patience: Duration) {
        loop {
            let left_at = self.until(&self.room, |state| state.left_at).await;
            sleep_until(left_at + patience).await;
            if self.state.lock().left_at == Some(left_at) {
                return;
            }
        }
    }

    /// Resolves once it has ended.
    pub async fn over(&self) {
        self.until(&self.room, |state| state.end.map(|_| ())).await;
    }

    /// Says that the connection to the upstream is given up.
    pub fn release_upstream(&self) {
        self.state.lock().upstream_released = true;
        self.room.notify_waiters();
    }

    /// Resolves once it is.
    pub async fn upstream_released(&self) {
        self.until(&self.room, |state| state.upstream_released.then_some(())).await;
    }

    /// A share of what may be held that holds nothing, for what is left of it.
    pub fn share_of_nothing(&self) -> Share {
        self.share.of_nothing()
    }

    /// Is cancelled when it has to go because too much is held.
    pub fn given_up(&self) -> &CancellationToken {
        self.share.given_up()
    }

    /// It has ended: what it holds goes before what is under way.
    pub fn keep(self: &Arc<Self>) {
        self.share.keep(self);
    }

    /// Lets go of all that it holds.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        while let Some(held) = state.held.pop_front() {
            state.note_gone(held.answers);
        }
        state.bytes = 0;
        state.next = state.next.max(state.first);
    }

    /// From here on events carry this in place of an upstream's id.
    pub fn set_upstream_id(&self, upstream: Bytes) {
        self.state.lock().upstream_id = Some(upstream);
    }

    /// What no reader has got yet.
    pub fn unread(&self) -> Vec<Bytes> {
        let state = self.state.lock();
        state.held.iter().skip(state.read()).map(|held| held.bytes.clone()).collect()
    }

    /// Whether somebody reads.
    pub fn is_read(&self) -> bool {
        self.state.lock().left_at.is_none()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<End> {
        self.state.lock().end
    }

    /// The id the upstream gave its last event that has one.
    pub fn upstream_id(&self) -> Option<Bytes> {
        self.state.lock().upstream_id.clone()
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        let state = self.state.lock();
        state.first + state.held.len() as u64 - 1
    }

    /// Whether what comes on it is of this session at the upstream, as far as it is known.
    pub fn is_of_session(&self, session_digest: &str) -> bool {
        self.state.lock().session_digest.as_deref().is_none_or(|own| own == session_digest)
    }

    /// What comes from here on is of this session at the upstream: ids of another one's events are good for nothing there.
    pub fn bind_to_session(&self, session_digest: String) {
        let mut state = self.state.lock();
        if state.session_digest.as_ref() != Some(&session_digest) {
            state.session_digest = Some(session_digest);
            state.upstream_id = None;
        }
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

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

impl State {
    fn last_words(&self, farewells: &[String]) -> String {
        last_words(self.held.back().map_or(self.open_event, |held| held.part), farewells)
    }

    fn hold(&mut self, held: Piece) {
        self.bytes += held.bytes.len();
        self.held.push_back(held);
        self.make_room();
    }

    /// Lets go of what is oldest, but not of what a reader is yet to get.
    fn make_room(&mut self) {
        // The last one stays, whatever its size: it may be the answer.
        while (self.bytes > HELD || self.held.len() > MOST) && self.held.len() > 1 {
            if self.left_at.is_none() && self.first >= self.next {
                return;
            }
            let Some(held) = self.held.pop_front() else { return };
            self.bytes -= held.bytes.len();
            self.note_gone(held.answers);
        }
    }

    /// The oldest is not held any more.
    fn note_gone(&mut self, answers: Vec<Value>) {
        if !answers.is_empty() {
            self.dropped_answers.push_back((self.first, answers));
            if self.dropped_answers.len() > MOST {
                self.dropped_answers.pop_front();
            }
        }
        self.first += 1;
    }

    /// How many of what is held the reader has got.
    fn read(&self) -> usize {
        self.next.saturating_sub(self.first) as usize
    }

    /// Bytes that the reader is yet to get.
    fn waiting(&self) -> usize {
        self.held.iter().skip(self.read()).map(|held| held.bytes.len()).sum()
    }

    fn take(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        loop {
            let index = self.next.checked_sub(self.first)? as usize;
            let Some(held) = self.held.get(index) else { break };
            if !piece.is_empty() && piece.len() + held.bytes.len() > PIECE {
                break;
            }
            self.next += 1;
            self.open_event = held.part;
            if piece.is_empty() && held.bytes.len() >= PIECE {
                let bytes = held.bytes.clone();
                self.make_room();
                return Some(bytes);
            }
            piece.extend_from_slice(&held.bytes);
        }
        self.make_room();
        (!piece.is_empty()).then(|| piece.freeze())
    }
}
