//! The output that is held: what the writer has not confirmed, and some of what came before it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{PIECE, REPLAY};

/// The last bytes that the shell has printed. A position is the number of bytes printed since the beginning.
#[derive(Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    /// The position of the first byte that is held.
    pub first: u64,
}

impl Ring {
    /// How many bytes have been printed since the beginning.
    pub fn printed(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }

    /// Adds what was printed, and drops the oldest bytes that are too many.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        // Unconfirmed output never exceeds this, because the shell is not read beyond it.
        let spare = self.bytes.len().saturating_sub(REPLAY + PIECE);
        self.bytes.drain(..spare);
        self.first += spare as u64;
    }

    /// A piece of the output from a position on that is held.
    pub fn read(&self, position: u64) -> Bytes {
        let begin = usize::try_from(position - self.first).unwrap_or(usize::MAX);
        let count = self.bytes.len().saturating_sub(begin).min(PIECE);
        let (front, back) = self.bytes.as_slices();
        let mut piece = Vec::with_capacity(count);
        if let Some(front) = front.get(begin..) {
            piece.extend_from_slice(&front[..count.min(front.len())]);
        }
        let begin = begin.saturating_sub(front.len());
        piece.extend_from_slice(&back[begin..begin + count - piece.len()]);
        piece.into()
    }

    /// Drops everything that is held.
    pub fn clear(&mut self) {
        self.first = self.printed();
        self.bytes = VecDeque::new();
    }
}
