//! What a shell has printed, as far as somebody may still want it, with the place of each byte. It is bounded, and loses
//! nothing that whoever types has not had: while that is more than [`WINDOW`], the shell is not read.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes that may be on their way to whoever types, sent or not; beyond that the shell waits.
pub const WINDOW: u64 = 1 << 20;
/// What is kept of what has arrived, so that whoever comes to watch sees a screen.
pub const KEPT: u64 = 64 << 10;

/// Output with the places of its bytes: how many came before each.
#[derive(Debug, Default)]
pub struct Tail {
    pieces: VecDeque<Bytes>,
    /// The place of the first byte that is held, and of the next that comes.
    from: u64,
    end: u64,
    /// Up to here it is known to have arrived at whoever types.
    arrived: u64,
}

/// What there is after a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Bytes(Bytes),
    Nothing,
    /// It is no longer held; what is begins here.
    Lost(u64),
}

impl Tail {
    pub fn push(&mut self, bytes: Bytes) {
        self.end += bytes.len() as u64;
        self.pieces.push_back(bytes);
        self.trim();
    }

    /// Everything up to this place has arrived at whoever types.
    pub fn arrived(&mut self, place: u64) {
        self.arrived = self.arrived.max(place.min(self.end));
        self.trim();
    }

    /// Where whoever types goes on who says nothing of it.
    pub fn unread(&self) -> u64 {
        self.arrived.max(self.from)
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where somebody begins who comes to watch.
    pub fn recent(&self) -> u64 {
        self.end.saturating_sub(KEPT).max(self.from)
    }

    /// Whether so much is on its way that the shell has to wait.
    pub fn is_full(&self) -> bool {
        self.end - self.arrived >= WINDOW
    }

    /// Whether enough has arrived for it to go on.
    pub fn has_room(&self) -> bool {
        self.end - self.arrived < WINDOW / 2
    }

    /// At most so many bytes after a place.
    pub fn after(&self, place: u64, most: usize) -> Next {
        if place < self.from {
            return Next::Lost(self.from);
        }
        if place >= self.end {
            return Next::Nothing;
        }
        let mut before = self.from;
        for piece in &self.pieces {
            let length = piece.len() as u64;
            if place < before + length {
                let begin = usize::try_from(place - before).unwrap_or(piece.len());
                let end = piece.len().min(begin + most);
                return Next::Bytes(piece.slice(begin..end));
            }
            before += length;
        }
        Next::Nothing
    }

    fn trim(&mut self) {
        while let Some(first) = self.pieces.front() {
            let after = self.from + first.len() as u64;
            if after + KEPT > self.arrived {
                break;
            }
            self.from = after;
            self.pieces.pop_front();
        }
    }
}
