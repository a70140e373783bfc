//! Writes a recording as asciicast: a line of JSON for the header, then one line for each event. In version 3
//! (https://docs.asciinema.org/manual/asciicast/v3/) an event has the time since the one before, in version 2
//! (https://docs.asciinema.org/manual/asciicast/v2/) the time since the beginning; that one knows of no exit.

use serde::Serialize;
use sessiond_core::journal::Code;

use super::frame::Size;
use super::text::Text;

/// The media type of a recording.
pub const MEDIA_TYPE: &str = "application/x-asciicast";

/// The facts about a recording as a whole.
#[derive(Debug, Default, Clone)]
pub struct About {
    /// When the recording began; Unix time in seconds.
    pub timestamp: i64,
    pub title: Option<String>,
    /// The terminal's type (`TERM`).
    pub kind: Option<String>,
}

/// Which version of the format: players that are older than version 3 know version 2 alone.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Two,
    #[default]
    Three,
}

/// The header of version 2.
#[derive(Serialize)]
struct Header2<'a> {
    version: u8,
    width: u16,
    height: u16,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Environment<'a>>,
}

#[derive(Serialize)]
struct Environment<'a> {
    #[serde(rename = "TERM")]
    term: &'a str,
}

/// The header of version 3.
#[derive(Serialize)]
struct Header<'a> {
    version: u8,
    term: Term<'a>,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
}

#[derive(Serialize)]
struct Term<'a> {
    cols: u16,
    rows: u16,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
}

/// Writes a recording, entry by entry. Entries hold bytes and the format holds text: a character that is cut off at the end
/// of an entry is written with the next one, and what is no UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub struct Asciicast {
    version: Version,
    /// When the last event was; microseconds since the beginning.
    last: u64,
    output: Text,
    input: Text,
}

impl Asciicast {
    pub fn new(version: Version) -> Self {
        Self { version, ..Self::default() }
    }

    /// The header line.
    pub fn header(&self, size: Size, about: &About) -> String {
        let (title, kind, timestamp) = (about.title.as_deref(), about.kind.as_deref(), about.timestamp);
        let Size { cols, rows } = size;
        let header = match self.version {
            Version::Two => {
                let env = kind.map(|term| Environment { term });
                serde_json::to_string(&Header2 {
                    version: 2,
                    width: cols,
                    height: rows,
                    timestamp,
                    title,
                    env,
                })
            }
            Version::Three => serde_json::to_string(&Header {
                version: 3,
                term: Term { cols, rows, kind },
                timestamp,
                title,
            }),
        };
        header.unwrap_or_default() + "\n"
    }

    /// The lines for an entry; none if it holds no whole character. `at` is in microseconds since the beginning.
    pub fn entry(&mut self, at: u64, code: Code, bytes: &[u8]) -> String {
        let mut lines = String::new();
        let text = match code {
            Code::Output => self.output.push(bytes),
            Code::Input => self.input.push(bytes),
            Code::Exit => {
                self.rest(at, &mut lines);
                String::from_utf8_lossy(bytes)
            }
            Code::Resize | Code::Marker => String::from_utf8_lossy(bytes),
        };
        if !text.is_empty() || matches!(code, Code::Marker | Code::Exit) {
            self.event(at, code, &text, &mut lines);
        }
        lines
    }

    /// The lines for what is left over when there are no more entries.
    pub fn finish(&mut self) -> String {
        let mut lines = String::new();
        self.rest(self.last, &mut lines);
        lines
    }

    fn rest(&mut self, at: u64, lines: &mut String) {
        for (code, text) in [(Code::Output, self.output.finish()), (Code::Input, self.input.finish())] {
            if !text.is_empty() {
                self.event(at, code, text, lines);
            }
        }
    }

    fn event(&mut self, at: u64, code: Code, text: &str, lines: &mut String) {
        // Intervals are differences of whole microseconds, so that they add up to the time of the entry.
        let interval = at.saturating_sub(self.last);
        self.last = self.last.max(at);
        let time = match self.version {
            Version::Two if code == Code::Exit => return,
            Version::Two => self.last,
            Version::Three => interval,
        };
        let (seconds, micros) = (time / 1_000_000, time % 1_000_000);
        let text = serde_json::to_string(text).unwrap_or_default();
        lines.push_str(&format!("[{seconds}.{micros:06}, \"{}\", {text}]\n", code.letter()));
    }
}
