//! Server-sent events, as they come in pieces (WHATWG HTML, section 9.2.6).

use bytes::{Bytes, BytesMut};

/// What some write before their text, to say that it is UTF-8.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// What the gateway reads of one event.
#[derive(Debug, PartialEq)]
pub struct SseEvent {
    /// Its exact bytes, with the blank line that ends it.
    pub raw: Bytes,
    /// Its `data` lines, joined by line feeds.
    pub data: Vec<u8>,
    /// Its id, from which a stream could be resumed; empty where it takes the id back.
    pub id: Option<Bytes>,
    /// Whether clients hear of it as a message: events of every other type are none.
    pub is_message: bool,
}

impl SseEvent {
    /// The event under another id.
    pub fn renamed(&self, id: &str) -> Bytes {
        let mut renamed = BytesMut::with_capacity(self.raw.len() + id.len() + 8);
        // Only events with a field of their own are events to a client: a comment stays one.
        if !id.is_empty() && (self.id.is_some() || !self.data.is_empty()) {
            renamed.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        without_id(&self.raw, &mut renamed);
        renamed.freeze()
    }
}

/// Copies lines, save those that name an id.
fn without_id(raw: &[u8], into: &mut BytesMut) {
    let mut dropped_cr = false;
    for line in raw.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        // The second half of the end of a line that is left out.
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

/// Cuts a stream into events, however it is cut into pieces before. A line ends with LF, CR or both.
#[derive(Debug)]
pub struct Splitter {
    held: BytesMut,
    /// How much of `held` has been looked at.
    seen: usize,
    line_is_empty: bool,
    after_cr: bool,
    /// Nothing has been looked at yet: a byte order mark may stand here.
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
            // Room for what was large once is not kept.
            self.held = BytesMut::new();
        }
        self.held.extend_from_slice(chunk);
    }

    /// How much of an event has come that is not whole yet.
    pub fn waiting(&self) -> usize {
        self.held.len()
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.held.capacity()
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

    /// Drops the byte order mark that a stream may begin with (WHATWG HTML, 9.2.5); whether enough has come to tell.
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
