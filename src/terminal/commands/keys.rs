//! Cuts what a keyboard sends into keys.

use vte::{Params, Parser, Perform};

use crate::terminal::text::Text;

/// The most bytes of one key that are kept. Longer sequences are a terminal's answers to questions, and nobody's
/// typing.
const LONGEST: usize = 1_024;

/// What a key does to the line that is being typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Char(char),
    /// Adds a line break within a paste, which is part of the line.
    Break,
    Enter,
    /// Takes the last character away.
    Erase,
    /// Takes everything away that was typed.
    Kill,
    /// Takes the character under the cursor away; on an empty line it ends the input.
    Delete,
    /// Gives the line up.
    Cancel,
    /// Edits in a way that only the screen shows: arrows, completion, history, search.
    Edit,
    /// Does nothing to the line: it is a terminal's report, or has the screen drawn again.
    Nothing,
}

/// Cuts what is typed into keys, however the bytes come in pieces.
#[derive(Default)]
pub struct Keys {
    parser: Parser<LONGEST>,
    text: Text,
    decoder: KeyDecoder,
    bytes: Vec<u8>,
}

/// What the parser calls for each part of the input.
#[derive(Default)]
struct KeyDecoder {
    /// The key that the last byte has ended.
    key: Option<Key>,
    /// Whether pastes are bracketed.
    brackets: bool,
    /// Whether a paste is under way.
    pasting: bool,
    /// Set when the next character belongs to a sequence, as with arrows in application mode.
    within: bool,
    last_cr: bool,
}

impl Keys {
    /// Takes the next byte; returns a key and its bytes if the byte ends one. `brackets` says whether pastes are
    /// bracketed.
    pub fn push(&mut self, byte: u8, brackets: bool) -> Option<(Key, Vec<u8>)> {
        self.decoder.brackets = brackets;
        self.parser.advance(&mut self.decoder, self.text.push(&[byte]).as_bytes());
        if self.bytes.len() < LONGEST {
            self.bytes.push(byte);
        }
        self.decoder.key.take().map(|key| (key, std::mem::take(&mut self.bytes)))
    }
}

impl Perform for KeyDecoder {
    fn print(&mut self, c: char) {
        self.last_cr = false;
        self.key = Some(match c {
            _ if std::mem::take(&mut self.within) => Key::Edit,
            '\x7f' => Key::Erase,
            c => Key::Char(c),
        });
    }

    fn execute(&mut self, byte: u8) {
        let after_cr = std::mem::replace(&mut self.last_cr, byte == b'\r');
        self.key = Some(match byte {
            b'\n' if self.pasting && after_cr => Key::Nothing,
            b'\r' | b'\n' if self.pasting => Key::Break,
            _ if self.pasting => Key::Edit,
            b'\r' | b'\n' => Key::Enter,
            b'\x08' | b'\x7f' => Key::Erase,
            b'\x04' => Key::Delete,
            b'\x15' => Key::Kill,
            b'\x03' | b'\x1c' => Key::Cancel,
            b'\0' | b'\x0c' | b'\x1a' => Key::Nothing,
            _ => Key::Edit,
        });
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _: bool, action: char) {
        let first = params.iter().next().and_then(|param| param.first().copied()).unwrap_or_default();
        self.key = Some(match (intermediates, action, first) {
            ([], '~', 200) if self.brackets => {
                self.pasting = true;
                Key::Nothing
            }
            ([], '~', 201) if self.pasting => {
                self.pasting = false;
                Key::Nothing
            }
            // These report focus, a mouse, the cursor's place, or the terminal's type.
            ([], 'I' | 'O' | 'R' | 'n', _) | ([b'<' | b'?' | b'>', ..], ..) => Key::Nothing,
            _ => Key::Edit,
        });
    }

    fn esc_dispatch(&mut self, _: &[u8], _: bool, byte: u8) {
        // This ends a string of the terminal's, or is the first half of a key.
        match byte {
            b'\\' => self.key = Some(Key::Nothing),
            b'O' | b'N' => self.within = true,
            _ => self.key = Some(Key::Edit),
        }
    }

    fn osc_dispatch(&mut self, _: &[&[u8]], bell: bool) {
        if bell {
            self.key = Some(Key::Nothing);
        }
    }
}
