//! What a session says beside its events: the lines of its log, and the recording of its terminal. They are not events:
//! they decide nothing, come in floods, and are forgotten when they are old.

use crate::Time;

/// The most bytes that one entry may hold.
pub const LARGEST_ENTRY: usize = 64 << 10;

/// One of the two journals that a session may keep. The codes are stored; never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i64)]
pub enum Journal {
    /// Text, line by line.
    Lines = 1,
    /// What went to and from a terminal, byte by byte.
    Recording = 2,
}

impl Journal {
    pub const ALL: [Self; 2] = [Self::Lines, Self::Recording];

    /// The journal behind a stored code.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|journal| *journal as i64 == code)
    }

    /// The word used in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Recording => "recording",
        }
    }
}

/// How grave a line is; many programs do not say. The codes are stored; never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    None = 0,
    Debug = 1,
    Info = 2,
    Warning = 3,
    Error = 4,
}

impl Level {
    pub const ALL: [Self; 5] = [Self::None, Self::Debug, Self::Info, Self::Warning, Self::Error];

    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }
}

/// What a chunk of a recording is, with the letters of asciicast. The codes are stored; never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    Output = 0,
    Input = 1,
    /// The terminal has another size.
    Resize = 2,
    /// The program ended.
    Exit = 3,
    Marker = 4,
}

impl Code {
    pub const ALL: [Self; 5] = [Self::Output, Self::Input, Self::Resize, Self::Exit, Self::Marker];

    pub fn letter(self) -> char {
        match self {
            Self::Output => 'o',
            Self::Input => 'i',
            Self::Resize => 'r',
            Self::Exit => 'x',
            Self::Marker => 'm',
        }
    }

    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.letter() == letter)
    }
}

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When; microseconds since 1970, UTC.
    pub at: i64,
    pub content: Content,
}

/// What an entry holds: a line in the one journal, a chunk in the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Line { level: Level, text: String },
    Chunk { code: Code, bytes: Vec<u8> },
}

impl Entry {
    pub fn line(time: Time, level: Level, text: impl Into<String>) -> Self {
        Self { at: time.timestamp_micros(), content: Content::Line { level, text: text.into() } }
    }

    pub fn chunk(at: i64, code: Code, bytes: impl Into<Vec<u8>>) -> Self {
        Self { at, content: Content::Chunk { code, bytes: bytes.into() } }
    }

    /// When, as far as such times go.
    pub fn time(&self) -> Time {
        Time::from_timestamp_micros(self.at).unwrap_or(if self.at < 0 {
            Time::MIN_UTC
        } else {
            Time::MAX_UTC
        })
    }

    /// The journal it belongs in.
    pub fn journal(&self) -> Journal {
        match self.content {
            Content::Line { .. } => Journal::Lines,
            Content::Chunk { .. } => Journal::Recording,
        }
    }

    /// What it holds, without what is said of it.
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Line { text, .. } => text.as_bytes(),
            Content::Chunk { bytes, .. } => bytes,
        }
    }

    /// The stored code of its level, or of what it is.
    pub fn mark(&self) -> u8 {
        match self.content {
            Content::Line { level, .. } => level as u8,
            Content::Chunk { code, .. } => code as u8,
        }
    }
}

/// A set of levels, or of codes of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks(u8);

impl Marks {
    pub const ALL: Self = Self(u8::MAX);
    pub const NONE: Self = Self(0);

    pub fn levels(levels: &[Level]) -> Self {
        levels.iter().fold(Self::NONE, |marks, level| marks.with(*level as u8))
    }

    /// This level and graver ones.
    pub fn at_least(least: Level) -> Self {
        let graver = Level::ALL.into_iter().filter(|level| *level >= least);
        graver.fold(Self::NONE, |marks, level| marks.with(level as u8))
    }

    pub fn codes(codes: &[Code]) -> Self {
        codes.iter().fold(Self::NONE, |marks, code| marks.with(*code as u8))
    }

    /// With one more, by its stored code.
    pub fn with(self, mark: u8) -> Self {
        Self(self.0 | 1_u8.checked_shl(mark.into()).unwrap_or(0))
    }

    pub fn has(self, mark: u8) -> bool {
        self.0 & Self::NONE.with(mark).0 != 0
    }

    /// Of what is stored; bits that mean nothing here are let go.
    pub fn from_bits(bits: i64) -> Self {
        Self((bits & 0xff) as u8)
    }

    /// As it is stored.
    pub fn bits(self) -> u8 {
        self.0
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::ALL
    }
}
