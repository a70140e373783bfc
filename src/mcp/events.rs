//! Server-sent events, as they come in pieces (WHATWG HTML, section 9.2.6).

use bytes::{Buf, Bytes, BytesMut};

/// What the gateway reads of one event.
#[derive(Debug, Default, PartialEq)]
pub struct Event {
    /// Its exact bytes, with the blank line that ends it.
    pub raw: Bytes,
    /// Its `data` lines, joined by line feeds.
    pub data: Vec<u8>,
    /// Whether it has an id, from which a stream could be resumed.
    pub has_id: bool,
}

/// Cuts a stream into events, however it is cut into pieces before. A line ends with LF, CR or both.
#[derive(Debug)]
pub struct Splitter {
    held: BytesMut,
    /// How much of `held` has been looked at.
    seen: usize,
    line_is_empty: bool,
    after_cr: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { held: BytesMut::new(), seen: 0, line_is_empty: true, after_cr: false }
    }
}

impl Splitter {
    pub fn push(&mut self, chunk: &[u8]) {
        self.held.extend_from_slice(chunk);
    }

    /// How much of an event has come that is not whole yet.
    pub fn waiting(&self) -> usize {
        self.held.len()
    }

    /// Gives up what waits, as it is.
    pub fn take(&mut self) -> Bytes {
        self.seen = 0;
        self.held.split().freeze()
    }

    /// Whether the last byte that passed ended a line.
    pub fn at_line_start(&self) -> bool {
        self.line_is_empty
    }

    /// The next whole event.
    #[allow(clippy::should_implement_trait)] // more may come after there was none
    pub fn next(&mut self) -> Option<Event> {
        while let Some(byte) = self.held.get(self.seen).copied() {
            self.seen += 1;
            let second_half = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            if byte != b'\n' && byte != b'\r' {
                self.line_is_empty = false;
            } else if !second_half && !std::mem::replace(&mut self.line_is_empty, true) {
                // The end of a line with something in it.
            } else if !second_half {
                if self.held.get(self.seen) == Some(&b'\n') && byte == b'\r' {
                    self.seen += 1;
                    self.after_cr = false;
                }
                let raw = self.held.split_to(self.seen).freeze();
                self.seen = 0;
                return Some(read(raw));
            }
        }
        None
    }
}

fn read(raw: Bytes) -> Event {
    let (mut data, mut has_id, mut first) = (Vec::new(), false, true);
    let mut rest = raw.as_ref();
    while rest.has_remaining() {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if !std::mem::take(&mut first) {
                    data.push(b'\n');
                }
                data.extend_from_slice(value);
            }
            b"id" => has_id = true,
            _ => {}
        }
    }
    Event { raw, data, has_id }
}
