//! Compares a finished line of the screen with the lines that were typed, and so tells whether it is a command.

use super::prompt::{ScreenLine, is_mask, looks_like_prompt, times, width};
use super::reader::CommandReader;
use super::typed::{LineStart, TypedLine};
use crate::terminal::screen::Place;

/// How many of the lines that were typed ahead are compared with the screen, from either end.
pub(super) const COMPARED: usize = 128;

/// What a finished line turned out to be.
enum FinishedLine {
    Command {
        text: String,
        prompt: String,
    },
    /// The line was shown without a prompt.
    Echo,
}

impl CommandReader {
    /// Finds a block: lines that were typed and entered one after the other, and that stand below each other behind one
    /// prompt when the line editor is done, indented as it likes (fish). Returns the index of the last line, the text
    /// and the prompt.
    pub(super) fn find_block(&self, end: u64) -> Option<(usize, String, String)> {
        let (_, first) = self.typed.lines().next().filter(|(_, line)| !line.missed && !line.echoed)?;
        let LineStart { place, prompt } =
            first.start.as_ref().filter(|start| !start.prompt.trim().is_empty())?;
        if place.line < self.screen.oldest() || place.line >= end || self.screen.before(*place) != *prompt {
            return None;
        }
        let shown = self.screen.text(*place, end);
        let shown: Vec<&str> = shown.trim_end().split('\n').collect();
        let typed: Vec<_> = self.typed.lines().take(shown.len()).collect();
        let lines: Vec<String> = typed.iter().filter_map(|(_, line)| line.expected()).collect();
        let same =
            lines.len() == shown.len() && lines.iter().zip(&shown).all(|(one, row)| one.trim() == row.trim());
        let (last, _) = typed.last().filter(|_| same && shown.len() > 1)?;
        Some((*last, lines.join("\n").trim().to_owned(), prompt.clone()))
    }

    /// Enters a block as one command.
    pub(super) fn take_block(&mut self, last: usize, text: String, prompt: String) {
        let indexes: Vec<_> =
            self.typed.lines().map(|(index, _)| index).take_while(|index| *index <= last).collect();
        let entered = self.typed.entered_at(last).unwrap_or(self.now);
        for index in indexes {
            let line = self.typed.expected_at(index).unwrap_or_default();
            self.typed.show(index, &line, &mut self.recognised);
        }
        self.typed.drop_until(last + 1);
        (self.known_prompt, self.known_from_editor) = (prompt, true);
        self.push_command(entered, text);
    }

    /// Looks for the typed line that a finished line of the screen shows.
    pub(super) fn match_line(&mut self, end: u64, edited: bool) {
        let shown = ScreenLine::new(&self.screen, end);
        let count = self.typed.lines().count();
        let near = |nth: usize| nth < COMPARED || nth + COMPARED >= count;
        let found =
            self.typed.lines().enumerate().filter(|(nth, _)| near(*nth)).find_map(|(nth, (index, line))| {
                let read = self.match_typed(line, &shown).or_else(|| self.read_shown(line, nth == 0, end));
                Some((index, read?))
            });
        let found = found.or_else(|| self.match_tail(&shown));
        let line = shown.line;
        match found {
            Some((index, FinishedLine::Command { text, prompt })) => {
                self.known_from_editor = edited;
                self.take_command(index, text, prompt);
            }
            Some((index, FinishedLine::Echo)) => self.typed.echoed(index, &mut self.recognised),
            None => self.on_unmatched(&line, edited),
        }
    }

    /// Whether the text behind the known prompt is the end of a typed line. Then the shell got that end, and a program
    /// has read what was typed before it, all of it before the prompt came.
    fn match_tail(&self, shown: &ScreenLine<'_>) -> Option<(usize, FinishedLine)> {
        let text = shown
            .line
            .strip_prefix(&self.known_prompt)
            .filter(|_| !self.known_prompt.trim().is_empty())?
            .trim_end();
        if text.trim().is_empty() {
            return None;
        }
        let left = |line: &TypedLine| {
            let typed = line.expected().filter(|_| !line.missed && !line.echoed);
            typed.is_some_and(|typed| typed.len() > text.len() && typed.ends_with(text))
        };
        let (index, _) = self.typed.lines().find(|(_, line)| left(line))?;
        Some((
            index,
            FinishedLine::Command { text: text.trim().to_owned(), prompt: self.known_prompt.clone() },
        ))
    }

    /// Whether a finished line of the screen is what the keyboard says of a typed line.
    fn match_typed(&self, line: &TypedLine, shown: &ScreenLine<'_>) -> Option<FinishedLine> {
        // Something else may have been printed into the line even though every key was echoed.
        let echoed = line.start.as_ref().filter(|_| line.was_echoed() && !line.missed);
        let whole = line.expected_with_earlier().and_then(|text| self.match_text(line, text, None, shown));
        whole.or_else(|| self.match_text(line, line.expected()?, echoed, shown))
    }

    /// Whether a finished line of the screen is this text of a typed line, behind a prompt or without one. `echoed` is where
    /// the line began, if each of its keys was echoed.
    fn match_text(
        &self,
        line: &TypedLine,
        text: String,
        echoed: Option<&LineStart>,
        shown: &ScreenLine<'_>,
    ) -> Option<FinishedLine> {
        if text.is_empty() {
            return None;
        }
        let prompt = shown.before(&text).or_else(|| echoed.map(|start| start.prompt.clone()))?;
        if prompt.is_empty() {
            return (!line.echoed).then_some(FinishedLine::Echo);
        }
        let waited = line.start.as_ref().is_some_and(|start| start.prompt == prompt);
        let is_prompt = waited || prompt == self.known_prompt || looks_like_prompt(&prompt);
        let text = text.trim().to_owned();
        (is_prompt && !prompt.trim().is_empty()).then_some(FinishedLine::Command { text, prompt })
    }

    /// Reads a command off the screen whose keys do not tell its text, or whose text the screen may show in another
    /// form.
    fn read_shown(&self, line: &TypedLine, first: bool, end: u64) -> Option<FinishedLine> {
        if line.missed || line.text.as_ref().is_some_and(|text| text.is_ascii()) {
            return None;
        }
        let (prompt, col, oldest) = match &line.start {
            Some(LineStart { place, prompt }) => (prompt, place.col, self.screen.oldest()),
            None if first => (&self.known_prompt, width(&self.known_prompt), self.screen.beginning(end)),
            None => return None,
        };
        if prompt.trim().is_empty() {
            return None;
        }
        // A line editor may have drawn the line again further down, below a list of completions for instance.
        let begin = (oldest..=end).rev().find(|&line| self.screen.before(Place { line, col }) == *prompt)?;
        let text = self.screen.text(Place { line: begin, col }, end).trim().to_owned();
        let is_command = !text.is_empty() && !is_mask(&text);
        is_command.then(|| FinishedLine::Command { text, prompt: prompt.clone() })
    }

    /// Enters the command that a typed line has become, and before it those that were typed ahead.
    fn take_command(&mut self, index: usize, text: String, prompt: String) {
        let entered = self.typed.entered_at(index).unwrap_or(self.now);
        let restarted = self.typed.was_restarted(index);
        self.typed.show(index, &text, &mut self.recognised);
        // Each prompt before the last one was for a line that was typed ahead.
        let times = times(&prompt, &self.known_prompt);
        let ahead = self.typed.echoes(index).take(times.saturating_sub(1)).collect::<Vec<_>>();
        self.typed.drop_until(index + 1);
        ahead.into_iter().for_each(|line| self.push_command(self.now, line));
        // Text that a program has left before a prompt is no part of the prompt.
        if times == 0 && !(restarted && self.ends_with_known_prompt(&prompt)) {
            self.known_prompt = prompt;
        }
        self.push_command(entered, text);
    }

    /// Handles a finished line that no typed line explains.
    fn on_unmatched(&mut self, shown: &str, edited: bool) {
        if self.typed.drop_empty() {
            return;
        }
        // A shell without a line editor does not show again what was typed ahead: what the command prints follows right
        // behind the prompt.
        let times = if edited || self.known_from_editor { 0 } else { times(shown, &self.known_prompt) };
        let ahead = self.typed.take_echoes(times);
        if ahead.is_empty() {
            self.typed.mark_missed();
        }
        ahead.into_iter().for_each(|line| self.push_command(self.now, line));
    }
}
