//! Recognises which command lines were entered at a terminal, and which input may be recorded.
//!
//! A command is read off the screen, from behind the prompt, when a line is entered: only the screen shows what
//! completion, history and editing made of the keys. It is then compared with the keys.
//! `docs/decisions/0016-reading-commands-off-the-screen.md` says what can be recognised so, and what cannot.

mod bulk;
mod keys;
mod matching;
mod prompt;
mod prompt_marks;
mod reader;
mod typed;

use vte::Parser;

use super::frame::Size;
use super::text::Text;
use keys::Keys;
use reader::CommandReader;

pub use typed::HOLD;

/// The longest text that a shell may hand to the terminal in one sequence.
const LONGEST_SEQUENCE: usize = 4_096;

/// Something that was recognised. Times are those of the calls, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognised {
    /// A command line was entered.
    Command { at: u64, text: String },
    /// Input was shown on the screen and may be recorded. It may be older than what came before it, by [`HOLD`] at
    /// most.
    Input { at: u64, bytes: Vec<u8> },
}

impl Recognised {
    fn size(&self) -> usize {
        match self {
            Self::Command { text, .. } => text.len(),
            Self::Input { bytes, .. } => bytes.len(),
        }
    }
}

/// Recognises the commands of one terminal. Its memory is bounded whatever it is fed, and it does not matter in which
/// pieces output comes.
pub struct Recogniser {
    output: Parser<LONGEST_SEQUENCE>,
    text: Text,
    keys: Keys,
    reader: CommandReader,
}

impl Recogniser {
    pub fn new(size: Size) -> Self {
        let (output, text, keys) = Default::default();
        Self { output, text, keys, reader: CommandReader::new(size) }
    }

    /// Takes what was typed. It must be called before the machine gets the input, so that the echo never comes first.
    pub fn typed(&mut self, at: u64, bytes: &[u8]) {
        self.reader.advance_to(at);
        for byte in bytes {
            let brackets = self.reader.screen.is_bracketed();
            if let Some((key, bytes)) = self.keys.push(*byte, brackets) {
                self.reader.on_key(at, key, bytes);
            }
        }
    }

    /// Takes what the machine printed.
    pub fn printed(&mut self, at: u64, bytes: &[u8]) {
        self.reader.advance_to(at);
        self.reader.printed_at = at;
        // The parser gets whole characters only: it may lose a character that comes in two pieces.
        let text = self.text.push(bytes);
        let mut rest = text.as_bytes();
        if self.reader.is_idle()
            && let Some((first, last)) = bulk::skippable(rest, self.reader.screen.depth())
        {
            self.reader.drawn = false;
            self.output.advance(&mut self.reader, &rest[..first]);
            // If a character was drawn, the output was text, and so is all that follows.
            rest = &rest[if self.reader.drawn { last } else { first }..];
        }
        self.output.advance(&mut self.reader, rest);
    }

    /// Whether a full-screen program has the screen.
    pub fn is_full_screen(&self) -> bool {
        self.reader.screen.is_alternate()
    }

    /// Takes the terminal's new size.
    pub fn resized(&mut self, size: Size) {
        self.reader.screen.resize(size);
    }

    /// Takes the time when nothing else happens: input that was held too long is dropped.
    pub fn advance_to(&mut self, at: u64) {
        self.reader.advance_to(at);
    }

    /// Whether input is held, so that [`Self::advance_to`] is worth a call.
    pub fn holds(&self) -> bool {
        self.reader.typed.holds()
    }

    /// About how many bytes of memory are in use.
    pub fn memory(&self) -> usize {
        let CommandReader { screen, typed, recognised, known_prompt, last_command, candidate, .. } =
            &self.reader;
        let texts = known_prompt.len() + last_command.len() + candidate.as_ref().map_or(0, String::len);
        let waiting: usize = recognised.iter().map(Recognised::size).sum();
        screen.memory() + typed.memory() + texts + waiting + 2 * LONGEST_SEQUENCE
    }

    /// Takes everything that was recognised since the last call.
    pub fn take(&mut self) -> Vec<Recognised> {
        std::mem::take(&mut self.reader.recognised)
    }
}
