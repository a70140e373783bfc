//! Text of other people, as it is shown where a line or a terminal will show it: in plain text, on a command line, in a
//! log. There a control character is not shown but obeyed, so that one entry can look like two, hide another, or drive the
//! terminal of whoever looks. So it is written out: what is the character U+001B becomes the six characters `\u{1b}`. JSON
//! and recordings hold text as it is.

use std::borrow::Cow;

/// Whether a character is obeyed and not shown: C0 and C1 with DEL, the separators of lines and paragraphs, and what turns
/// the direction of writing for all that follows.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line. Tabs stay.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && c != '\t')
}

/// One or more lines: line feeds stay as well.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && !matches!(c, '\t' | '\n'))
}

/// One line of a log for people, whose colours are its own: sequences that only set colours stay.
pub fn coloured(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        let (before, sequence) = rest.split_at(at);
        shown += &line(before);
        let length = colour(sequence).unwrap_or(1);
        let (sequence, after) = sequence.split_at(length);
        shown += &if length > 1 { Cow::Borrowed(sequence) } else { line(sequence) };
        rest = after;
    }
    shown += &line(rest);
    shown.into()
}

/// The length of the sequence that a text begins with, if it only sets colours.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    parameters[end..].starts_with('m').then_some("\x1b[".len() + end + "m".len())
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(&is_escaped) else { return text.into() };
    let (before, rest) = text.split_at(first);
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(before);
    for c in rest.chars() {
        if is_escaped(c) { write_out(c, &mut shown) } else { shown.push(c) }
    }
    shown.into()
}

/// Short where there is a short form that everybody knows.
fn write_out(c: char, into: &mut String) {
    match c {
        '\r' => into.push_str("\\r"),
        '\n' => into.push_str("\\n"),
        c => into.extend(c.escape_unicode()),
    }
}

/// What stands at the end of a text that was cut.
const CUT: &str = " … (cut)";

/// At most so many characters: what is only said of a thing never keeps the thing itself from happening.
pub fn cut(mut text: String, most: usize) -> String {
    let kept = most.saturating_sub(CUT.chars().count());
    if let Some((end, _)) = text.char_indices().nth(kept)
        && text.chars().count() > most
    {
        text.truncate(end);
        text.push_str(CUT);
    }
    text
}

/// At most so many bytes.
pub fn cut_bytes(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(CUT.len())));
        text.push_str(CUT);
    }
    text
}

/// The output of programs as lines of text, piece by piece: each line indented, so that none of them looks like something
/// that was said of it, and its controls written out. How it is cut into pieces does not matter.
#[derive(Debug, Default)]
pub struct Indented {
    /// A line is begun.
    within: bool,
    /// A carriage return that ends its line if a line feed follows.
    returned: bool,
}

impl Indented {
    pub fn push(&mut self, text: &str, into: &mut String) {
        for c in text.chars() {
            // On an empty line there is nothing to go back over.
            if std::mem::take(&mut self.returned) && c != '\n' && self.within {
                self.show('\r', into);
            }
            match c {
                '\r' => self.returned = true,
                '\n' => {
                    self.within = true;
                    self.end(into);
                }
                c => self.show(c, into),
            }
        }
    }

    /// Ends a line that is begun, so that something else can stand on the next one.
    pub fn end(&mut self, into: &mut String) {
        self.returned = false;
        if std::mem::take(&mut self.within) {
            into.push('\n');
        }
    }

    fn show(&mut self, c: char, into: &mut String) {
        if !std::mem::replace(&mut self.within, true) {
            into.push('\t');
        }
        if is_obeyed(c) && c != '\t' { write_out(c, into) } else { into.push(c) }
    }
}
