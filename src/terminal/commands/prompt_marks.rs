//! Reads commands of shells that mark their prompts (OSC 133): A before a prompt, B behind it, C where a command begins
//! to run, D when it is done. Such a shell says exactly what a command is. Between C and D other programs may ask for
//! lines, and those are read as without marks.

use super::Recognised;
use super::matching::COMPARED;
use super::prompt::ScreenLine;
use super::reader::{CommandReader, PromptMark};
use super::typed::TypedLines;
use crate::terminal::screen::Place;

impl CommandReader {
    /// Handles a mark with its options.
    pub(super) fn on_mark(&mut self, params: &[&[u8]]) {
        let secondary = params.iter().any(|param| matches!(*param, b"k=s" | b"k=c"));
        match params.first().and_then(|param| param.first()) {
            Some(b'A' | b'P') if secondary => self.secondary = true,
            Some(b'P') if params.contains(&b"k=r".as_slice()) => {}
            Some(b'A' | b'P') => {
                self.enter_candidate();
                self.mark = PromptMark::Prompt;
            }
            Some(b'B') if std::mem::take(&mut self.secondary) => self.prompt_ends.push(self.screen.cursor()),
            Some(b'B') => {
                self.mark = PromptMark::Input(self.screen.cursor());
                self.prompt_ends.clear();
                (self.candidate, self.lines) = (None, 0);
            }
            Some(b'C') => self.on_running(params),
            Some(b'D') => {
                self.enter_candidate();
                self.mark = PromptMark::None;
            }
            _ => {}
        }
        self.prompt_ends.truncate(COMPARED);
    }

    /// Enters the candidate, because a shell that marks only its prompts has gone on to the next one.
    fn enter_candidate(&mut self) {
        if let (PromptMark::Input(from), Some(text)) = (self.mark, self.candidate.take()) {
            self.enter_marked(text.split('\n').map(str::to_owned).collect(), Some(from));
        }
    }

    /// Handles the end of a line behind a prompt. It may be the command, or a further line of it.
    pub(super) fn add_marked_line(&mut self, from: Place, end: u64) {
        let shown = ScreenLine::new(&self.screen, end).line;
        let typed = self.typed.lines().nth(self.lines).and_then(|(_, line)| line.expected());
        if self.lines == 0 || typed.is_some_and(|text| !text.is_empty() && shown.ends_with(&text)) {
            self.lines += 1;
            self.candidate = Some(self.marked_lines(from, end).join("\n"));
        }
    }

    /// Handles the mark where a command begins to run.
    fn on_running(&mut self, params: &[&[u8]]) {
        let mark = std::mem::replace(&mut self.mark, PromptMark::Running);
        let name = params.iter().find_map(|param| param.strip_prefix(b"cmdline_url="));
        if let Some(name) = name {
            let text = percent_decoded(name);
            // Before its first such mark the shell was read like any other, so its command may be known already.
            if std::mem::replace(&mut self.names_commands, true)
                || mark != PromptMark::Prompt
                || text.trim() != self.last_command
            {
                self.enter_marked(vec![text], None);
            }
        } else if let PromptMark::Input(from) = mark {
            self.marks_running = true;
            self.enter_marked(self.marked_lines(from, self.last_written()), Some(from));
        }
    }

    /// The lines of a command that begins here, without the prompts within it.
    pub(super) fn marked_lines(&self, from: Place, end: u64) -> Vec<String> {
        let (mut lines, mut place) = (Vec::new(), from);
        let mut typed = self.typed.lines().filter_map(|(_, line)| line.expected());
        while place.line <= end && lines.len() < COMPARED {
            let last = self.screen.end(place.line).min(end);
            let text = self.screen.text(place, last);
            let ends = |line: &String| !line.is_empty() && text.ends_with(line.as_str());
            let line = if place == from || place.col > 0 { None } else { typed.by_ref().find(ends) };
            lines.push(line.unwrap_or(text));
            let cut = self.prompt_ends.iter().find(|cut| cut.line == last + 1);
            place = Place { line: last + 1, col: cut.map_or(0, |cut| cut.col) };
        }
        lines
    }

    /// Enters a command of these lines; `from` is where the input began, if a mark said so.
    fn enter_marked(&mut self, lines: Vec<String>, from: Option<Place>) {
        let entered = self.typed.lines().next().and_then(|(_, line)| line.entered);
        let text = lines.join("\n").trim().to_owned();
        for line in &lines {
            show(&mut self.typed, line.trim(), &text, from, &mut self.recognised);
        }
        if !text.is_empty() {
            self.push_command(entered.unwrap_or(self.now), text);
        }
    }
}

/// Finds the typed line that became this line of a command, and drops it and those before it. `whole` is the command, and
/// `from` where its input began, if a mark said so.
fn show(
    typed: &mut TypedLines,
    shown: &str,
    whole: &str,
    from: Option<Place>,
    recognised: &mut Vec<Recognised>,
) {
    let found = typed.lines().find_map(|(index, line)| {
        let is_it = match line.expected() {
            Some(text) => text.trim() == shown || text.split('\n').any(|part| part.trim() == shown),
            None => line.start.as_ref().is_some_and(|start| match from {
                Some(from) => start.place >= from,
                None => !line.missed,
            }),
        };
        is_it.then_some(index)
    });
    if let Some(index) = found {
        typed.show(index, whole, recognised);
        typed.drop_until(index + 1);
    }
}

/// Decodes `%41` and the like.
fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let decoded = digits.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
