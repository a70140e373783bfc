//! A block: entries of one journal in a row, packed into bytes.
//!
//! The bytes are a format's number and what that format makes of the entries. There is one format, 1: a zstd frame with
//! a checksum, of what is said of each entry (the time since the entry before it, its mark, its length), then of what
//! they hold, end to end.

use sessiond_core::Time;
use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::{Code, Content, Entry, Journal, LARGEST_ENTRY, Level, Marks};
use zstd::bulk::{Compressor, Decompressor};

use super::StoreError;

const FORMAT: u8 = 1;
/// Fast: lines are written far more often than they are read, and a higher level gains little on text like this.
const COMPRESSION: i32 = 1;
/// The most bytes that are said of an entry: time, mark and length.
const HEAD: usize = 10 + 1 + 3;
/// The most bytes of a block before it is compressed.
const LARGEST: usize = LARGEST_ENTRY + HEAD;

/// Entries of one journal in a row, and what is said of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub journal: Journal,
    pub session: SessionNumber,
    /// Position of its first entry.
    pub first: i64,
    /// Of its entries.
    pub count: i64,
    /// Times of its first and last entry.
    pub low: i64,
    pub high: i64,
    pub recorded_at: Time,
    pub marks: Marks,
    pub payload: Vec<u8>,
}

/// Entries with consecutive positions, in the order of their times.
#[derive(Debug)]
pub struct Run {
    pub journal: Journal,
    pub session: SessionNumber,
    pub first: i64,
    pub entries: Vec<Entry>,
}

/// Makes blocks of entries.
pub struct Packer {
    compressor: Compressor<'static>,
    /// What is about to be compressed.
    plain: Vec<u8>,
}

impl Packer {
    pub fn new() -> Result<Self, StoreError> {
        let mut compressor = Compressor::new(COMPRESSION).map_err(failed)?;
        compressor.include_checksum(true).map_err(failed)?;
        Ok(Self { compressor, plain: Vec::new() })
    }

    /// Cuts a run into blocks: as few as hold it.
    pub fn pack(&mut self, run: &Run, recorded_at: Time, blocks: &mut Vec<Block>) -> Result<(), StoreError> {
        let (mut rest, mut first) = (run.entries.as_slice(), run.first);
        while !rest.is_empty() {
            let mut room = LARGEST;
            let fits = rest.iter().take_while(|entry| {
                let size = entry.bytes().len() + HEAD;
                let fits = size <= room;
                room = room.saturating_sub(size);
                fits
            });
            let (now, later) = rest.split_at(fits.count());
            let [Some(low), Some(high)] = [now.first(), now.last()].map(|entry| entry.map(|entry| entry.at))
            else {
                return Err(StoreError::Failed("an entry is larger than a block".to_owned()));
            };
            let payload = self.compress(now, low)?;
            let marks = now.iter().fold(Marks::NONE, |marks, entry| marks.with(entry.mark()));
            let count = now.len() as i64;
            let (journal, session) = (run.journal, run.session);
            blocks.push(Block { journal, session, first, count, low, high, recorded_at, marks, payload });
            (rest, first) = (later, first.saturating_add(count));
        }
        Ok(())
    }

    fn compress(&mut self, entries: &[Entry], low: i64) -> Result<Vec<u8>, StoreError> {
        self.plain.clear();
        let mut before = low;
        for entry in entries {
            write_number(&mut self.plain, entry.at.wrapping_sub(before) as u64);
            self.plain.push(entry.mark());
            write_number(&mut self.plain, entry.bytes().len() as u64);
            before = entry.at;
        }
        for entry in entries {
            self.plain.extend_from_slice(entry.bytes());
        }
        let mut payload = Vec::with_capacity(1 + zstd::zstd_safe::compress_bound(self.plain.len()));
        payload.push(FORMAT);
        let frame = self.compressor.compress(&self.plain).map_err(failed)?;
        payload.extend_from_slice(&frame);
        payload.shrink_to_fit();
        Ok(payload)
    }
}

impl Block {
    /// Position of its last entry.
    pub fn last(&self) -> i64 {
        self.first.saturating_add(self.count - 1)
    }

    /// Its entries, in order. What is not as it was written is an error, however it came about.
    pub fn unpack(&self) -> Result<Vec<Entry>, StoreError> {
        let frame = match self.payload.split_first() {
            Some((&FORMAT, frame)) => frame,
            Some((format, _)) => return Err(self.damaged(format!("unknown format {format}"))),
            None => return Err(self.damaged("it is empty")),
        };
        let mut decompressor = Decompressor::new().map_err(failed)?;
        let plain = decompressor.decompress(frame, LARGEST).map_err(|error| self.damaged(error))?;
        let count = usize::try_from(self.count).ok().filter(|count| *count <= LARGEST / 3);
        let count = count.ok_or_else(|| self.damaged(format!("it cannot hold {} entries", self.count)))?;
        self.read(&plain, count)
    }

    fn read(&self, plain: &[u8], count: usize) -> Result<Vec<Entry>, StoreError> {
        let (mut rest, mut at) = (plain, self.low);
        let mut heads = Vec::with_capacity(count);
        for _ in 0..count {
            let head = read_head(&mut rest).ok_or_else(|| self.damaged("it ends among its heads"))?;
            at = at.wrapping_add(head.since as i64);
            heads.push((at, head));
        }
        let mut entries = Vec::with_capacity(count);
        for (at, head) in heads {
            let content = usize::try_from(head.length).ok().and_then(|length| rest.split_at_checked(length));
            let (content, later) = content.ok_or_else(|| self.damaged("it ends within an entry"))?;
            entries.push(Entry { at, content: self.content(head.mark, content)? });
            rest = later;
        }
        match entries.last() {
            Some(last) if rest.is_empty() && last.at == self.high => Ok(entries),
            _ => Err(self.damaged("it does not end with its last entry")),
        }
    }

    fn content(&self, mark: u8, bytes: &[u8]) -> Result<Content, StoreError> {
        let unknown = || self.damaged(format!("unknown mark {mark}"));
        Ok(match self.journal {
            Journal::Lines => {
                let level = Level::ALL.into_iter().find(|level| *level as u8 == mark).ok_or_else(unknown)?;
                let text = str::from_utf8(bytes).map_err(|error| self.damaged(error))?.to_owned();
                Content::Line { level, text }
            }
            Journal::Recording => {
                let code = Code::ALL.into_iter().find(|code| *code as u8 == mark).ok_or_else(unknown)?;
                Content::Chunk { code, bytes: bytes.to_vec() }
            }
        })
    }

    fn damaged(&self, what: impl std::fmt::Display) -> StoreError {
        let (journal, session) = (self.journal.word(), self.session);
        StoreError::Damaged {
            position: self.first,
            what: format!("in the {journal} of session {session}: {what}"),
        }
    }
}

/// What is said of an entry.
struct Head {
    /// Microseconds since the entry before it.
    since: u64,
    mark: u8,
    length: u64,
}

fn read_head(rest: &mut &[u8]) -> Option<Head> {
    let since = read_number(rest)?;
    let (&mark, later) = rest.split_first()?;
    *rest = later;
    Some(Head { since, mark, length: read_number(rest)? })
}

/// Seven bits a byte, the lowest first; the eighth says that there is more.
fn write_number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn read_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, later) = rest.split_first()?;
        *rest = later;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn failed(error: std::io::Error) -> StoreError {
    StoreError::Failed(format!("compression: {error}"))
}
