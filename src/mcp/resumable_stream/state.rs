//! What a resumable stream holds, and how far its reader has come.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::time::Instant;

use super::End;
use crate::mcp::reply::last_words;

/// How many bytes may wait for a reader before the writer has to wait, and how many are held for a reader that comes
/// back.
pub(super) const MOST_BYTES: usize = 256 << 10;
/// How many pieces are held.
const MOST_PIECES: usize = 1_024;
/// Small pieces are handed on together, up to this many bytes.
const PIECE_BYTES: usize = 32 << 10;

/// What the stream holds, and how far its reader has come.
pub(super) struct State {
    pub held: VecDeque<Piece>,
    /// The number of the first piece that is held. Pieces count from 1, without a gap.
    pub first: u64,
    /// How many bytes are held.
    pub bytes: usize,
    /// The number of the piece that the reader gets next.
    pub next: u64,
    /// The number of the reader that may read; a later reader takes over.
    pub reader: u64,
    /// When the last reader left; none while there is a reader.
    pub left_at: Option<Instant>,
    /// Set while only a part of an event has been read; says whether that part ended with a line.
    pub open_event: Option<bool>,
    /// The id that the upstream gave its last event with an id.
    pub upstream_id: Option<Bytes>,
    /// Names the session at the upstream to which `upstream_id` belongs.
    pub session_digest: Option<String>,
    /// Answers that were dropped before anybody read them, with the numbers of their pieces.
    pub dropped_answers: VecDeque<(u64, Vec<Value>)>,
    pub end: Option<End>,
    /// Whether the connection to the upstream is given up.
    pub upstream_released: bool,
}

/// An event, or a part of one.
pub(super) struct Piece {
    pub bytes: Bytes,
    /// Set for a part of an event of which more follows; says whether the part ends with a line.
    pub part: Option<bool>,
    /// Whether the piece continues the event of the piece before it.
    pub goes_on: bool,
    /// The calls that the piece answers.
    pub answers: Vec<Value>,
}

impl Piece {
    /// Makes the piece of a whole event.
    pub fn of(bytes: Bytes) -> Self {
        Self { bytes, part: None, goes_on: false, answers: vec![] }
    }
}

impl State {
    /// The text of the last events, which first ends an event of which only a part was added or read.
    pub fn last_words(&self, farewells: &[String]) -> String {
        last_words(self.held.back().map_or(self.open_event, |held| held.part), farewells)
    }

    pub fn hold(&mut self, held: Piece) {
        self.bytes += held.bytes.len();
        self.held.push_back(held);
        self.make_room();
    }

    /// Drops the oldest pieces that are too many, but no piece that the reader is yet to get.
    pub fn make_room(&mut self) {
        // The last piece stays, whatever its size: it may be the answer.
        while (self.bytes > MOST_BYTES || self.held.len() > MOST_PIECES) && self.held.len() > 1 {
            if self.left_at.is_none() && self.first >= self.next {
                return;
            }
            let Some(held) = self.held.pop_front() else { return };
            self.bytes -= held.bytes.len();
            self.drop_first(held.answers);
        }
    }

    /// Notes that the oldest piece is no longer held, and which calls it answered.
    pub fn drop_first(&mut self, answers: Vec<Value>) {
        if !answers.is_empty() {
            self.dropped_answers.push_back((self.first, answers));
            if self.dropped_answers.len() > MOST_PIECES {
                self.dropped_answers.pop_front();
            }
        }
        self.first += 1;
    }

    /// How many of the pieces that are held the reader has got.
    pub fn read(&self) -> usize {
        self.next.saturating_sub(self.first) as usize
    }

    /// How many bytes the reader is yet to get.
    pub fn waiting(&self) -> usize {
        self.held.iter().skip(self.read()).map(|held| held.bytes.len()).sum()
    }

    /// What the reader gets next: small pieces together, a large one by itself.
    pub fn take(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        loop {
            let index = self.next.checked_sub(self.first)? as usize;
            let Some(held) = self.held.get(index) else { break };
            if !piece.is_empty() && piece.len() + held.bytes.len() > PIECE_BYTES {
                break;
            }
            self.next += 1;
            self.open_event = held.part;
            if piece.is_empty() && held.bytes.len() >= PIECE_BYTES {
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
