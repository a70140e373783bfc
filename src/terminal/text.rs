//! Makes text out of bytes that come in pieces: no character is ever split, and bytes that are no UTF-8 stay visible.

use std::borrow::Cow;
use std::str::from_utf8;

/// Turns pieces of bytes into pieces of text. A character that is cut off at the end of a piece waits for the rest of it;
/// bytes that cannot be UTF-8 become U+FFFD, one for each maximal part of a character, as the Unicode standard (chapter 3,
/// "U+FFFD substitution of maximal subparts") and browsers have it. All pieces together are the text of all bytes together,
/// wherever they were cut.
#[derive(Debug, Default)]
pub struct Text {
    /// The beginning of an unfinished character: at most three bytes.
    waiting: Vec<u8>,
}

impl Text {
    /// The text of these bytes, as far as its characters are whole.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, str> {
        if self.waiting.is_empty()
            && let Ok(text) = from_utf8(bytes)
        {
            return text.into();
        }
        let mut whole = std::mem::take(&mut self.waiting);
        whole.extend_from_slice(bytes);
        self.decode(&whole).into()
    }

    fn decode(&mut self, mut rest: &[u8]) -> String {
        let mut text = String::with_capacity(rest.len());
        loop {
            match from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(from_utf8(valid).unwrap_or_default());
                    let Some(wrong) = error.error_len() else {
                        self.waiting = after.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[wrong..];
                }
            }
        }
    }

    /// The replacement for an unfinished character that will never be whole.
    pub fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.waiting).is_empty() { "" } else { "\u{FFFD}" }
    }

    /// Whether a character is unfinished.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}
