//! Reads server-sent events that come in pieces (WHATWG HTML, section 9.2.6).

use bytes::{Bytes, BytesMut};

/// The byte order mark that some servers write before their text, to say that it is UTF-8.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// What the gateway reads of one event.
#[derive(Debug, PartialEq)]
pub struct SseEvent {
    /// The event's exact bytes, with the blank line that ends it.
    pub raw: Bytes,
    /// The event's `data` lines, joined by line feeds.
    pub data: Vec<u8>,
    /// The event's id, from which the stream could be resumed; empty where the event takes the last id back.
    pub id: Option<Bytes>,
    /// Whether clients take the event for a message: they ignore every other type.
    pub is_message: bool,
}

impl SseEvent {
    /// The event under another id.
    pub fn renamed(&self, id: &str) -> Bytes {
        let mut renamed = BytesMut::with_capacity(self.raw.len() + id.len() + 8);
        // Only an event with a field of its own is an event to a client. A comment gets no id, and so stays a comment.
        if !id.is_empty() && (self.id.is_some() || !self.data.is_empty()) {
            renamed.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        without_id(&self.raw, &mut renamed);
        renamed.freeze()
    }
}

/// Copies lines except those that name an id.
fn without_id(raw: &[u8], into: &mut BytesMut) {
    let mut dropped_cr = false;
    for line in raw.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        // This line feed ends the line that was left out.
        if std::mem::take(&mut dropped_cr) && line == b"\n" {
            continue;
        }
        if field(line).0 == b"id" {
            dropped_cr = line.ends_with(b"\r");
        } else {
            into.extend_from_slice(line);
        }
    }
}

/// The beginning of an event that is too large to hold, under another id.
pub fn renamed_part(part: &[u8], id: &str) -> Bytes {
    let mut renamed = BytesMut::with_capacity(part.len() + id.len() + 8);
    renamed.extend_from_slice(format!("id: {id}\n").as_bytes());
    without_id(part, &mut renamed);
    renamed.freeze()
}

/// The name of a line's field, and its value.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    (name, value.strip_prefix(b" ").unwrap_or(value))
}

/// Cuts a stream into events, however the stream comes in pieces. A line ends with LF, CR or both.
#[derive(Debug)]
pub struct Splitter {
    held: BytesMut,
    /// How much of `held` has been looked at.
    seen: usize,
    line_is_empty: bool,
    after_cr: bool,
    /// Set until the first bytes have been looked at: a byte order mark may stand there.
    begins: bool,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { held: BytesMut::new(), seen: 0, line_is_empty: true, after_cr: false, begins: true }
    }
}

impl Splitter {
    pub fn push(&mut self, chunk: &[u8]) {
        if self.held.is_empty() {
            // Memory that a large event needed is given back.
            self.held = BytesMut::new();
        }
        self.held.extend_from_slice(chunk);
    }

    /// How many bytes of an unfinished event have come.
    pub fn waiting(&self) -> usize {
        self.held.len()
    }

    /// How many bytes of memory the splitter takes.
    pub fn memory(&self) -> usize {
        self.held.capacity()
    }

    /// Takes the unfinished event out, as it is.
    pub fn take(&mut self) -> Bytes {
        self.seen = 0;
        self.held.split().freeze()
    }

    /// Whether the last byte that passed ended a line.
    pub fn at_line_start(&self) -> bool {
        self.line_is_empty
    }

    /// Drops the byte order mark that a stream may begin with (WHATWG HTML, 9.2.5). Returns whether enough has come to
    /// tell.
    fn begin(&mut self) -> bool {
        if self.held.len() < BOM.len() && BOM.starts_with(&self.held) {
            return false;
        }
        if self.held.starts_with(BOM) {
            let _ = self.held.split_to(BOM.len());
        }
        self.begins = false;
        true
    }

    /// The next whole event.
    #[allow(clippy::should_implement_trait)] // more may come after there was none
    pub fn next(&mut self) -> Option<SseEvent> {
        if self.begins && !self.begin() {
            return None;
        }
        while let Some(byte) = self.held.get(self.seen).copied() {
            self.seen += 1;
            let second_half = std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n';
            if byte != b'\n' && byte != b'\r' {
                self.line_is_empty = false;
            } else if !second_half && !std::mem::replace(&mut self.line_is_empty, true) {
                // This byte ends a line that is not empty.
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

fn read(raw: Bytes) -> SseEvent {
    let (mut data, mut id, mut first) = (Vec::new(), None, true);
    let mut is_message = true;
    for line in raw.split(|byte| matches!(byte, b'\n' | b'\r')) {
        match field(line) {
            (b"data", value) => {
                if !std::mem::take(&mut first) {
                    data.push(b'\n');
                }
                data.extend_from_slice(value);
            }
            (b"event", value) => is_message = matches!(value, b"" | b"message"),
            (b"id", value) => id = Some(Bytes::copy_from_slice(value)),
            _ => {}
        }
    }
    SseEvent { raw, data, id, is_message }
}
