//! The lines that were typed, and whether they have been shown on the screen.

use std::collections::VecDeque;

use super::Recognised;
use super::keys::Key;
use crate::terminal::screen::Place;

/// How long input waits for being shown; microseconds.
pub const HOLD: u64 = 5_000_000;
/// How many bytes of typed lines are remembered.
const MOST: usize = 1 << 20;
/// The longest line that is compared with the screen.
const LONGEST: usize = 16 << 10;

/// A line that is or was typed.
#[derive(Debug, Default)]
pub struct TypedLine {
    /// The line's text, as far as the keyboard alone can tell.
    pub text: Option<String>,
    /// When the line was entered.
    pub entered: Option<u64>,
    /// Where the line began, if a program waited for it there.
    pub start: Option<LineStart>,
    /// Whether the line was expected on the screen and was not shown.
    pub missed: bool,
    /// Whether the line was shown without a prompt: to a program, or to a shell that had not started yet.
    pub echoed: bool,
    /// Whether the line went to a full-screen program.
    pub full_screen: bool,
    /// The text that was typed before a new prompt came: a program has read it, or a shell is yet to show it.
    pub earlier: Option<String>,
    /// Whether a new prompt came while the line was being typed.
    restarted: bool,
    /// Whether somebody typed, and the terminal did not just report something.
    touched: bool,
    /// The input that waits for being shown, with the times at which it was typed.
    held: Vec<(u64, Vec<u8>)>,
    /// The typed characters that are still awaited on the screen.
    awaited: VecDeque<char>,
    /// Whether something else was printed in between, so that only the whole line can tell.
    scrambled: bool,
    /// Whether the line's input is never recorded, because it was not shown.
    hidden: bool,
}

/// The place where a line began, and the text before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineStart {
    pub place: Place,
    pub prompt: String,
}

impl TypedLine {
    fn size(&self) -> usize {
        let held: usize = self.held.iter().map(|(_, bytes)| bytes.len() + 32).sum();
        let texts = [&self.text, &self.earlier].into_iter().flatten().map(String::len).sum::<usize>();
        texts + held + 4 * self.awaited.len() + 128
    }

    /// Whether the next printed character may be one of the line's.
    fn awaits(&self) -> bool {
        !self.awaited.is_empty() && !self.scrambled && !self.hidden
    }

    /// Releases the input that may be recorded, now that the line has been shown.
    fn release(&mut self, recognised: &mut Vec<Recognised>) {
        self.awaited.clear();
        recognised.extend(self.held.drain(..).map(|(at, bytes)| Recognised::Input { at, bytes }));
    }

    /// Drops the input that is held, and records none of the line.
    fn hide(&mut self) {
        self.hidden = true;
        self.held.clear();
        self.awaited.clear();
    }

    /// Whether each key of the line was echoed right after it.
    pub fn was_echoed(&self) -> bool {
        self.awaited.is_empty() && !self.scrambled && !self.hidden
    }

    /// The line as a screen shows it, without spaces at the ends of lines; for comparing.
    pub fn expected(&self) -> Option<String> {
        self.text.as_ref().filter(|_| self.entered.is_some()).map(|text| without_trailing_spaces(text))
    }

    /// The line as a screen shows it together with what was typed before its prompt came, for a shell that takes that
    /// up.
    pub fn expected_with_earlier(&self) -> Option<String> {
        let (earlier, text) = self.earlier.as_ref().zip(self.text.as_ref())?;
        self.entered.map(|_| without_trailing_spaces(&format!("{earlier}{text}")))
    }
}

/// A text as a screen shows it: spaces at the ends of lines are not to be seen.
fn without_trailing_spaces(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(|line| line.trim_end_matches(' ')).collect();
    lines.join("\n").trim_end().to_owned()
}

/// All lines that may still turn up on the screen, the oldest first.
#[derive(Debug, Default)]
pub struct TypedLines {
    lines: VecDeque<TypedLine>,
    /// No line before this index awaits a character.
    first: usize,
    /// About how many bytes the lines take.
    size: usize,
    /// Whether any line holds input.
    held: bool,
}

impl TypedLines {
    /// The lines that were entered at a prompt or to a program, each with its index.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &TypedLine)> {
        self.lines.iter().enumerate().filter(|(_, line)| line.entered.is_some() && !line.full_screen)
    }

    /// About how many bytes are remembered.
    pub fn memory(&self) -> usize {
        self.size
    }

    /// When a line was entered.
    pub fn entered_at(&self, index: usize) -> Option<u64> {
        self.lines.get(index)?.entered
    }

    /// A line's text, as far as the keyboard alone can tell.
    pub fn expected_at(&self, index: usize) -> Option<String> {
        self.lines.get(index)?.expected()
    }

    /// Whether a new prompt came while a line was being typed.
    pub fn was_restarted(&self, index: usize) -> bool {
        self.lines.get(index).is_some_and(|line| line.restarted)
    }

    /// The lines before this one that were shown without a prompt.
    pub fn echoes(&self, before: usize) -> impl Iterator<Item = String> {
        self.lines.iter().take(before).filter(|line| line.echoed).filter_map(TypedLine::expected)
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether a line was entered and has not been seen yet.
    pub fn has_entered(&self) -> bool {
        self.lines().next().is_some()
    }

    /// Whether typing here continues the line that was typed last. A line that is not continued, and was not entered,
    /// is dropped.
    pub fn continues(&mut self, full_screen: bool) -> bool {
        let Some(line) = self.lines.back().filter(|line| line.entered.is_none()) else { return false };
        let continues = line.touched && line.full_screen == full_screen;
        if !continues {
            self.drop_open();
        }
        continues
    }

    /// Whether no earlier line is still expected to be taken.
    pub fn is_settled(&self) -> bool {
        self.lines().all(|(_, line)| line.missed || line.echoed)
    }

    /// Whether input waits for being shown.
    pub fn holds(&self) -> bool {
        self.held
    }

    /// Begins a line that is being typed.
    pub fn begin(&mut self, start: Option<LineStart>, full_screen: bool) {
        let text = Some(String::new());
        self.lines.push_back(TypedLine { text, start, full_screen, ..TypedLine::default() });
        self.size += 128;
    }

    /// The line that is being typed, and was not entered yet.
    pub fn open(&self) -> Option<&TypedLine> {
        self.lines.back().filter(|line| line.entered.is_none())
    }

    /// Begins the open line anew behind a prompt that came since. What was typed before is no part of the line, and
    /// what of it was not shown will never be.
    pub fn restart(&mut self, start: LineStart) {
        let Some(line) = self.lines.back_mut().filter(|line| line.entered.is_none()) else { return };
        self.size -= line.size().min(self.size);
        let earlier = line.text.take().map(|text| line.earlier.take().unwrap_or_default() + &text);
        let (text, start) = (Some(String::new()), Some(start));
        *line = TypedLine { text, start, earlier, restarted: true, ..TypedLine::default() };
        self.size += line.size();
        self.first = self.first.min(self.lines.len() - 1);
    }

    /// Drops the line that is being typed.
    fn drop_open(&mut self) {
        if let Some(line) = self.lines.pop_back() {
            self.size -= line.size().min(self.size);
            self.first = self.first.min(self.lines.len());
        }
    }

    /// Handles a key on the open line.
    pub fn key(&mut self, at: u64, key: Key, bytes: Vec<u8>, recognised: &mut Vec<Recognised>) {
        let Some(line) = self.lines.back_mut() else { return };
        self.size -= line.size().min(self.size);
        match (key, &mut line.text) {
            (Key::Char(char::REPLACEMENT_CHARACTER) | Key::Edit, text) => *text = None,
            (Key::Char(c), Some(text)) if text.len() < LONGEST => text.push(c),
            (Key::Break, Some(text)) if text.len() < LONGEST => text.push('\n'),
            (Key::Char(_) | Key::Break, text) => *text = None,
            (Key::Erase, Some(text)) => drop(text.pop()),
            (Key::Kill, Some(text)) => text.clear(),
            // No character can be taken away there: a program gets what was typed so far, or is told that the input
            // ends.
            (Key::Delete, Some(_)) => {}
            _ => {}
        }
        line.touched |= !matches!(key, Key::Nothing | Key::Delete);
        if let Key::Char(c) = key
            && !line.hidden
        {
            line.awaited.push_back(c);
            if line.awaited.len() > LONGEST {
                line.hide();
            }
        }
        if key == Key::Enter {
            line.entered = Some(at);
        }
        if !line.hidden {
            match line.held.last_mut() {
                Some((when, held)) if *when == at => held.extend_from_slice(&bytes),
                _ => line.held.push((at, bytes)),
            }
            if line.awaited.is_empty() {
                line.release(recognised);
            }
        }
        self.held |= !line.held.is_empty();
        self.size += line.size();
        if key == Key::Cancel {
            self.cancel();
        }
        while self.size > MOST && self.lines.len() > 1 {
            self.drop_until(1);
        }
        if self.size > MOST {
            self.lines.iter_mut().for_each(TypedLine::hide);
            self.size = self.lines.iter().map(TypedLine::size).sum();
        }
    }

    /// Gives up the open line, and the lines that the machine's terminal had not handed on to a program.
    fn cancel(&mut self) {
        self.drop_open();
        self.lines.retain(|line| !line.missed && !line.echoed);
        self.recount();
    }

    /// Whether a typed character is awaited on the screen.
    pub fn awaits(&mut self) -> bool {
        self.held && self.awaiting().is_some()
    }

    /// Handles a printed character; `again` says whether it stood there before.
    pub fn printed(&mut self, c: char, again: bool, recognised: &mut Vec<Recognised>) {
        let Some(line) = self.awaiting() else { return };
        if line.awaited.front() == Some(&c) {
            line.awaited.pop_front();
            if line.awaited.is_empty() {
                line.release(recognised);
            }
        } else if !again && c != ' ' {
            line.scrambled = true;
        }
    }

    /// Handles the end of a line on the screen.
    pub fn on_line_end(&mut self) {
        if let Some(line) = self.awaiting() {
            line.scrambled = true;
        }
    }

    /// The first line that awaits a character.
    fn awaiting(&mut self) -> Option<&mut TypedLine> {
        while self.lines.get(self.first).is_some_and(|line| !line.awaits() && line.entered.is_some()) {
            self.first += 1;
        }
        self.lines.get_mut(self.first).filter(|line| line.awaits())
    }

    /// Notes that a line was shown as this text. Unless that is the text of the keyboard, every typed character has to
    /// be in it.
    pub fn show(&mut self, index: usize, shown: &str, recognised: &mut Vec<Recognised>) {
        if let Some(line) = self.lines.get_mut(index) {
            self.size -= line.size().min(self.size);
            let mut rest = shown.chars();
            let is_it = line.expected().is_some_and(|text| text.trim() == shown.trim());
            if is_it || line.awaited.iter().all(|c| rest.any(|there| there == *c)) {
                line.release(recognised);
            } else {
                line.hide();
            }
            self.size += line.size();
        }
    }

    /// Notes that a line was shown without a prompt.
    pub fn echoed(&mut self, index: usize, recognised: &mut Vec<Recognised>) {
        let text = self.lines.get(index).and_then(TypedLine::expected).unwrap_or_default();
        self.show(index, &text, recognised);
        self.lines.get_mut(index).into_iter().for_each(|line| line.echoed = true);
    }

    /// Drops so many of the lines that were shown without a prompt, and those before them.
    pub fn take_echoes(&mut self, count: usize) -> Vec<String> {
        let echoed = |(index, line): (usize, &TypedLine)| line.echoed.then(|| (index + 1, line.expected()));
        let taken: Vec<_> = self.lines.iter().enumerate().filter_map(echoed).take(count).collect();
        self.drop_until(taken.last().map_or(0, |(count, _)| *count));
        taken.into_iter().filter_map(|(_, line)| line).collect()
    }

    /// Drops the oldest line if nothing was typed in it.
    pub fn drop_empty(&mut self) -> bool {
        let empty = |line: &TypedLine| line.text.as_ref().is_some_and(|text| text.trim().is_empty());
        let found = self.lines().next().filter(|(_, line)| empty(line)).map(|(index, _)| index);
        found.inspect(|index| self.drop_until(index + 1)).is_some()
    }

    /// Notes that a line ended where the oldest line was expected, and did not show it.
    pub fn mark_missed(&mut self) {
        let line = self.lines.iter_mut().find(|line| line.entered.is_some() && !line.missed && !line.echoed);
        if let Some(line) = line
            && line.start.is_some()
        {
            line.missed = true;
        }
    }

    /// Drops so many lines, with the input that was held of them.
    pub fn drop_until(&mut self, count: usize) {
        for line in self.lines.drain(..count.min(self.lines.len())) {
            self.size -= line.size().min(self.size);
        }
        self.first = self.first.saturating_sub(count);
    }

    /// Drops all lines that were entered.
    pub fn drop_entered(&mut self) {
        self.lines.retain(|line| line.entered.is_none());
        self.recount();
    }

    /// Counts anew after lines in the middle were dropped.
    fn recount(&mut self) {
        self.first = 0;
        self.size = self.lines.iter().map(TypedLine::size).sum();
    }

    /// Drops input that has waited too long for being shown.
    pub fn drop_stale(&mut self, now: u64) {
        if std::mem::take(&mut self.held) {
            for line in &mut self.lines {
                if line.held.first().is_some_and(|(at, _)| at.saturating_add(HOLD) <= now) {
                    line.hide();
                }
                self.held |= !line.held.is_empty();
            }
        }
        // Nobody else waits for what went to a full-screen program.
        while self
            .lines
            .front()
            .is_some_and(|line| line.full_screen && line.entered.is_some() && line.held.is_empty())
        {
            self.drop_until(1);
        }
    }
}
