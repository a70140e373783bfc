//! Tells what stands before a command, and what is shown in place of a password.

use unicode_width::UnicodeWidthStr;

use crate::terminal::screen::{Place, Screen};

/// The characters that prompts end with, beside a space.
const ENDS: &str = "$#%>:?❯➜»λ";
/// The characters that are shown in place of a password's.
const MASKS: &str = "*•●";
/// The longest text that is taken for a prompt where nobody is known to have waited.
const LONGEST: usize = 400;

/// Whether a text looks like a prompt, where nobody is known to have waited behind it.
pub fn looks_like_prompt(text: &str) -> bool {
    text.len() <= LONGEST && text.trim_end().ends_with(|last| ENDS.contains(last))
}

/// Whether a text is shown in place of a password.
pub fn is_mask(text: &str) -> bool {
    text.chars().next().is_some_and(|first| MASKS.contains(first) && text.chars().all(|c| c == first))
}

/// How many times a prompt stands at the beginning of a text.
pub fn times(mut text: &str, prompt: &str) -> usize {
    let mut times = 0;
    while !prompt.is_empty()
        && let Some(rest) = text.strip_prefix(prompt)
    {
        (times, text) = (times + 1, rest);
    }
    times
}

/// How many columns a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// A finished line of the screen, to be compared with lines that were typed.
pub struct ScreenLine<'a> {
    screen: &'a Screen,
    end: u64,
    pub line: String,
}

impl<'a> ScreenLine<'a> {
    pub fn new(screen: &'a Screen, end: u64) -> Self {
        let line = screen.text(Place { line: screen.beginning(end), col: 0 }, end);
        Self { screen, end, line }
    }

    /// The text before this one, if the line ends with this one. A text of several lines is compared with as many
    /// lines.
    pub fn before(&self, text: &str) -> Option<String> {
        let breaks = text.matches('\n').count();
        if breaks == 0 {
            return self.line.strip_suffix(text).map(str::to_owned);
        }
        let mut line = self.screen.beginning(self.end);
        for _ in 0..breaks {
            line = self.screen.beginning(line.checked_sub(1)?);
        }
        let shown = self.screen.text(Place { line, col: 0 }, self.end);
        shown.trim_end().strip_suffix(text).map(str::to_owned)
    }
}
