//! The lines that were typed, and whether they have been seen on the screen.

use std::collections::VecDeque;

use super::Recognised;
use super::keys::Key;
use crate::terminal::screen::Place;

/// How long input waits for being shown; microseconds.
pub const HOLD: u64 = 5_000_000;
/// Bytes of typed lines that are remembered.
const MOST: usize = 1 << 20;
/// The longest line that is compared with the screen.
const LONGEST: usize = 16 << 10;

/// A line that is or was typed.
#[derive(Debug, Default)]
pub struct TypedLine {
    /// What it says, as far as the keyboard alone can tell.
    pub text: Option<String>,
    /// When it was entered.
    pub entered: Option<u64>,
    /// Where it began, if whoever typed it was waited for there.
    pub start: Option<LineStart>,
    /// It is over, and the screen did not show it where it was expected.
    pub passed: bool,
    /// It was shown without a prompt: to a program, or to a shell that was not there yet.
    pub echoed: bool,
    /// It went to a full-screen program.
    pub aside: bool,
    /// What was typed before a new prompt came: a program has eaten it, or a shell is yet to show it.
    pub eaten: Option<String>,
    /// A new prompt came while it was being typed.
    restarted: bool,
    /// Something was typed in it, and not only reported by the terminal.
    touched: bool,
    held: Vec<(u64, Vec<u8>)>,
    awaited: VecDeque<char>,
    /// Something else was printed in between: only the whole line can tell.
    scrambled: bool,
    hidden: bool,
}

/// Where a line began, and what stood before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineStart {
    pub place: Place,
    pub prompt: String,
}

impl TypedLine {
    fn size(&self) -> usize {
        let held: usize = self.held.iter().map(|(_, bytes)| bytes.len() + 32).sum();
        let texts = [&self.text, &self.eaten].into_iter().flatten().map(String::len).sum::<usize>();
        texts + held + 4 * self.awaited.len() + 128
    }

    fn awaits(&self) -> bool {
        !self.awaited.is_empty() && !self.scrambled && !self.hidden
    }

    /// What of it may be recorded now that it has been shown.
    fn release(&mut self, recognised: &mut Vec<Recognised>) {
        self.awaited.clear();
        recognised.extend(self.held.drain(..).map(|(at, bytes)| Recognised::Input { at, bytes }));
    }

    fn hide(&mut self) {
        self.hidden = true;
        self.held.clear();
        self.awaited.clear();
    }

    /// Whether each key of it was echoed right after it.
    pub fn was_echoed(&self) -> bool {
        self.awaited.is_empty() && !self.scrambled && !self.hidden
    }

    /// A line to compare with the screen: without what a screen does not show at the ends of lines.
    pub fn expected(&self) -> Option<String> {
        self.text.as_ref().filter(|_| self.entered.is_some()).map(|text| as_shown(text))
    }

    /// The same with what was typed before its prompt came, for a shell that takes that up.
    pub fn expected_with_eaten(&self) -> Option<String> {
        let (eaten, text) = self.eaten.as_ref().zip(self.text.as_ref())?;
        self.entered.map(|_| as_shown(&format!("{eaten}{text}")))
    }
}

fn as_shown(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(|line| line.trim_end_matches(' ')).collect();
    lines.join("\n").trim_end().to_owned()
}

/// All lines that may still turn up on the screen, oldest first.
#[derive(Debug, Default)]
pub struct Typed {
    lines: VecDeque<TypedLine>,
    /// None before this one awaits a character.
    first: usize,
    size: usize,
    held: bool,
}

impl Typed {
    pub fn lines(&self) -> impl Iterator<Item = (usize, &TypedLine)> {
        self.lines.iter().enumerate().filter(|(_, line)| line.entered.is_some() && !line.aside)
    }

    /// About how many bytes are remembered.
    pub fn memory(&self) -> usize {
        self.size
    }

    /// When a line was entered.
    pub fn entered_at(&self, index: usize) -> Option<u64> {
        self.lines.get(index)?.entered
    }

    /// What a line says, as far as the keyboard alone can tell.
    pub fn expected_at(&self, index: usize) -> Option<String> {
        self.lines.get(index)?.expected()
    }

    /// Whether a new prompt came while a line was being typed.
    pub fn was_restarted(&self, index: usize) -> bool {
        self.lines.get(index).is_some_and(|line| line.restarted)
    }

    /// Lines before this one that were shown without a prompt.
    pub fn echoes(&self, before: usize) -> impl Iterator<Item = String> {
        self.lines.iter().take(before).filter(|line| line.echoed).filter_map(TypedLine::expected)
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether a line was entered and has not been seen yet.
    pub fn entered(&self) -> bool {
        self.lines().next().is_some()
    }

    /// Whether the line that was typed last goes on here. One that does not, and was not entered, never will be.
    pub fn goes_on(&mut self, aside: bool) -> bool {
        let Some(line) = self.lines.back().filter(|line| line.entered.is_none()) else { return false };
        let goes_on = line.touched && line.aside == aside;
        if !goes_on {
            self.give_up();
        }
        goes_on
    }

    /// Whether no line is expected to be taken before the next one.
    pub fn is_settled(&self) -> bool {
        self.lines().all(|(_, line)| line.passed || line.echoed)
    }

    /// Whether input waits for being shown.
    pub fn holds(&self) -> bool {
        self.held
    }

    pub fn begin(&mut self, start: Option<LineStart>, aside: bool) {
        let text = Some(String::new());
        self.lines.push_back(TypedLine { text, start, aside, ..TypedLine::default() });
        self.size += 128;
    }

    /// The line that is being typed, and was not entered yet.
    pub fn open(&self) -> Option<&TypedLine> {
        self.lines.back().filter(|line| line.entered.is_none())
    }

    /// Typing begins anew, behind a prompt that came since: what was typed before is no part of the line, and what of it was
    /// not shown will not be.
    pub fn restart(&mut self, start: LineStart) {
        let Some(line) = self.lines.back_mut().filter(|line| line.entered.is_none()) else { return };
        self.size -= line.size().min(self.size);
        let eaten = line.text.take().map(|text| line.eaten.take().unwrap_or_default() + &text);
        let (text, start) = (Some(String::new()), Some(start));
        *line = TypedLine { text, start, eaten, restarted: true, ..TypedLine::default() };
        self.size += line.size();
        self.first = self.first.min(self.lines.len() - 1);
    }

    fn give_up(&mut self) {
        if let Some(line) = self.lines.pop_back() {
            self.size -= line.size().min(self.size);
            self.first = self.first.min(self.lines.len());
        }
    }

    /// A key on the open line.
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
            // Nothing stands there to be taken away: a program gets what was typed so far, or is told that this is the end.
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

    /// The open line is given up, and with it what the machine's terminal had not handed on.
    fn cancel(&mut self) {
        self.give_up();
        self.lines.retain(|line| !line.passed && !line.echoed);
        self.recount();
    }

    /// Whether a character that was typed is awaited on the screen.
    pub fn awaits(&mut self) -> bool {
        self.held && self.awaiting().is_some()
    }

    /// A character was printed; `again` if it stood there before.
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

    /// A line ended on the screen.
    pub fn broken(&mut self) {
        if let Some(line) = self.awaiting() {
            line.scrambled = true;
        }
    }

    fn awaiting(&mut self) -> Option<&mut TypedLine> {
        while self.lines.get(self.first).is_some_and(|line| !line.awaits() && line.entered.is_some()) {
            self.first += 1;
        }
        self.lines.get_mut(self.first).filter(|line| line.awaits())
    }

    /// A line was shown as this. If it is not what the keyboard says, all that was typed has to be in it.
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

    /// A line was shown, but without a prompt.
    pub fn echoed(&mut self, index: usize, recognised: &mut Vec<Recognised>) {
        let text = self.lines.get(index).and_then(TypedLine::expected).unwrap_or_default();
        self.show(index, &text, recognised);
        self.lines.get_mut(index).into_iter().for_each(|line| line.echoed = true);
    }

    /// Lets go of so many of the lines that were shown without a prompt, and of those before them.
    pub fn take_echoes(&mut self, count: usize) -> Vec<String> {
        let echoed = |(index, line): (usize, &TypedLine)| line.echoed.then(|| (index + 1, line.expected()));
        let taken: Vec<_> = self.lines.iter().enumerate().filter_map(echoed).take(count).collect();
        self.drop_until(taken.last().map_or(0, |(count, _)| *count));
        taken.into_iter().filter_map(|(_, line)| line).collect()
    }

    /// Lets go of the oldest line if nothing was typed in it.
    pub fn drop_empty(&mut self) -> bool {
        let empty = |line: &TypedLine| line.text.as_ref().is_some_and(|text| text.trim().is_empty());
        let found = self.lines().next().filter(|(_, line)| empty(line)).map(|(index, _)| index);
        found.inspect(|index| self.drop_until(index + 1)).is_some()
    }

    /// A line ended where one was expected, and it was not shown.
    pub fn pass(&mut self) {
        let line = self.lines.iter_mut().find(|line| line.entered.is_some() && !line.passed && !line.echoed);
        if let Some(line) = line
            && line.start.is_some()
        {
            line.passed = true;
        }
    }

    /// Lets go of so many lines, and of what was held of them.
    pub fn drop_until(&mut self, count: usize) {
        for line in self.lines.drain(..count.min(self.lines.len())) {
            self.size -= line.size().min(self.size);
        }
        self.first = self.first.saturating_sub(count);
    }

    /// Lets go of all that was entered.
    pub fn drop_entered(&mut self) {
        self.lines.retain(|line| line.entered.is_none());
        self.recount();
    }

    fn recount(&mut self) {
        self.first = 0;
        self.size = self.lines.iter().map(TypedLine::size).sum();
    }

    /// Hides what has waited too long.
    pub fn passes(&mut self, now: u64) {
        if std::mem::take(&mut self.held) {
            for line in &mut self.lines {
                if line.held.first().is_some_and(|(at, _)| at.saturating_add(HOLD) <= now) {
                    line.hide();
                }
                self.held |= !line.held.is_empty();
            }
        }
        // What went to a full-screen program is waited for by nobody else.
        while self
            .lines
            .front()
            .is_some_and(|line| line.aside && line.entered.is_some() && line.held.is_empty())
        {
            self.drop_until(1);
        }
    }
}
