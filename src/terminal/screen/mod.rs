//! A terminal's main screen, as far as reading a command line off it needs: characters and where they stand, no colours.
//! What full-screen programs draw on the alternate screen is not kept.

mod line;

use std::collections::VecDeque;

use unicode_width::UnicodeWidthChar;
use vte::Params;

use super::frame::Size;
use line::{HALF, Line};

/// How many lines that have left the screen are kept, for commands that are longer than the screen.
const KEPT: usize = 100;
/// The most rows that are modelled: no line editor goes up further.
const MOST_ROWS: usize = 200;

/// A place on the screen: the number of a line since the beginning, and a column.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: u64,
    pub col: usize,
}

#[derive(Debug)]
pub struct Screen {
    cols: usize,
    rows: usize,
    /// The lines that are kept; the last `rows` of them are the screen.
    lines: VecDeque<Line>,
    /// How many lines have been dropped.
    gone: u64,
    row: usize,
    col: usize,
    /// Whether the last column is written, so that the next character begins a new line.
    full: bool,
    saved: (usize, usize),
    /// The first and the last row of the part that scrolls.
    margins: (usize, usize),
    wraps: bool,
    inserts: bool,
    alternate: bool,
    bracketed: bool,
    last: char,
}

impl Screen {
    pub fn new(size: Size) -> Self {
        let (cols, rows) = dimensions(size);
        Self {
            cols,
            rows,
            lines: std::iter::repeat_n(Line::default(), rows).collect(),
            gone: 0,
            row: 0,
            col: 0,
            full: false,
            saved: (0, 0),
            margins: (0, rows - 1),
            wraps: true,
            inserts: false,
            alternate: false,
            bracketed: false,
            last: ' ',
        }
    }

    /// Changes the size. Lines stay as they are: a line editor draws its line again.
    pub fn resize(&mut self, size: Size) {
        let (cols, rows) = dimensions(size);
        if rows > self.rows {
            // Lines that had left come back, as in terminals with a history.
            let back = (rows - self.rows).min(self.lines.len() - self.rows);
            self.row += back;
            while self.lines.len() < rows {
                self.lines.push_back(Line::default());
            }
        } else {
            // Empty lines below the cursor go first.
            let below = (self.rows - rows).min(self.rows - 1 - self.row);
            self.lines.truncate(self.lines.len() - below);
            self.row -= self.rows - rows - below;
        }
        (self.cols, self.rows) = (cols, rows);
        self.col = self.col.min(cols - 1);
        self.full = false;
        self.margins = (0, rows - 1);
        self.saved = (self.saved.0.min(rows - 1), self.saved.1.min(cols - 1));
        self.forget();
    }

    /// Whether a full-screen program has the screen.
    pub fn is_alternate(&self) -> bool {
        self.alternate
    }

    /// Whether pastes are to be bracketed, which line editors ask for while a line is edited.
    pub fn is_bracketed(&self) -> bool {
        self.bracketed
    }

    /// After so many lines nothing is left of what was there before, if the screen [scrolls
    /// freely](Self::scrolls_freely).
    pub fn depth(&self) -> usize {
        self.rows + KEPT
    }

    /// Whether nothing stands still while lines pass.
    pub fn scrolls_freely(&self) -> bool {
        !self.alternate && !self.inserts && self.wraps && self.margins == (0, self.rows - 1)
    }

    /// The cursor's place. In a full line the next character stands behind the end.
    pub fn cursor(&self) -> Place {
        let col = if self.full { self.cols } else { self.col };
        Place { line: self.number(self.row), col }
    }

    /// Whether this character stands already where it would be written.
    pub fn holds(&self, c: char) -> bool {
        !self.alternate && !self.full && self.line().holds(self.col, c)
    }

    /// The text of a line up to a column.
    pub fn before(&self, place: Place) -> String {
        let mut text = String::new();
        if let Some(line) = self.index(place.line).and_then(|index| self.lines.get(index)) {
            line.read(0, place.col, &mut text);
            let missing = place.col.saturating_sub(line.len());
            text.extend(std::iter::repeat_n(' ', missing));
        }
        text
    }

    /// The text from a place to the end of a line. Lines that were too long for the screen are joined again.
    pub fn text(&self, from: Place, to: u64) -> String {
        let mut text = String::new();
        for number in from.line..=to {
            let Some(line) = self.index(number).and_then(|index| self.lines.get(index)) else { continue };
            let begin = if number == from.line { from.col } else { 0 };
            line.read(begin, usize::MAX, &mut text);
            if number == to || !self.goes_on(line) {
                text.truncate(text.trim_end_matches(' ').len());
                if number != to {
                    text.push('\n');
                }
            }
        }
        text
    }

    /// The first line of the text that ends with this line, where the text was too long for one line.
    pub fn beginning(&self, mut line: u64) -> u64 {
        while let Some(before) = line.checked_sub(1)
            && self.index(before).is_some_and(|index| self.goes_on(&self.lines[index]))
        {
            line = before;
        }
        line
    }

    /// The last line of the text that begins with this line, where the text was too long for one line.
    pub fn end(&self, mut line: u64) -> u64 {
        while self.index(line).is_some_and(|index| self.goes_on(&self.lines[index]))
            && self.index(line + 1).is_some()
        {
            line += 1;
        }
        line
    }

    /// The number of the oldest line that is kept.
    pub fn oldest(&self) -> u64 {
        self.gone
    }

    /// The lines of the screen, without the spaces at their ends.
    pub fn rows(&self) -> Vec<String> {
        (0..self.rows)
            .map(|row| self.number(row))
            .map(|line| self.text(Place { line, col: 0 }, line))
            .collect()
    }

    /// About how many bytes of memory the screen takes.
    pub fn memory(&self) -> usize {
        self.lines.iter().map(Line::memory).sum()
    }

    fn goes_on(&self, line: &Line) -> bool {
        line.wrapped || line.fills(self.cols)
    }

    fn number(&self, row: usize) -> u64 {
        self.gone + (self.lines.len() - self.rows + row) as u64
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.gone)?).ok()?;
        (index < self.lines.len()).then_some(index)
    }

    fn line(&self) -> &Line {
        &self.lines[self.lines.len() - self.rows + self.row]
    }

    fn at(&mut self, row: usize) -> &mut Line {
        let index = self.lines.len() - self.rows + row;
        &mut self.lines[index]
    }

    fn here(&mut self) -> &mut Line {
        self.at(self.row)
    }

    /// Writes a character where the cursor is.
    pub fn print(&mut self, c: char) {
        if self.alternate {
            return;
        }
        let width = if c.is_ascii() { 1 } else { c.width().unwrap_or(0) };
        if width == 0 {
            let col = if self.full { self.col } else { self.col.saturating_sub(1) };
            self.here().combine(col, c);
            return;
        }
        self.last = c;
        if (self.full || self.col + width > self.cols) && self.wraps {
            self.here().wrapped = true;
            self.col = 0;
            self.down();
        }
        self.full = false;
        let (col, cols) = (self.col.min(self.cols.saturating_sub(width)), self.cols);
        if self.inserts {
            self.here().insert(col, width, cols);
        }
        self.here().set(col, c);
        if width == 2 && col + 1 < cols {
            self.here().set(col + 1, HALF);
        }
        self.col = col + width;
        if self.col >= cols {
            self.col = cols - 1;
            self.full = true;
        }
    }

    /// Handles a control character.
    pub fn execute(&mut self, byte: u8) {
        if self.alternate {
            return;
        }
        match byte {
            b'\x08' => self.go(self.row, self.col.saturating_sub(1)),
            b'\t' => self.go(self.row, (self.col / 8 + 1) * 8),
            b'\n' | b'\x0b' | b'\x0c' => self.down(),
            b'\r' => self.go(self.row, 0),
            _ => {}
        }
    }

    /// Handles an escape sequence without parameters.
    pub fn escape(&mut self, intermediates: &[u8], byte: u8) {
        if byte == b'c' && intermediates.is_empty() {
            let size = Size { cols: self.cols as u16, rows: self.rows as u16 };
            let gone = self.gone + self.lines.len() as u64;
            *self = Self { gone, ..Self::new(size) };
        }
        if self.alternate || !intermediates.is_empty() {
            return;
        }
        match byte {
            b'7' => self.saved = (self.row, self.col),
            b'8' => self.go(self.saved.0, self.saved.1),
            b'D' => self.down(),
            b'E' => {
                self.col = 0;
                self.down();
            }
            b'M' => self.up(),
            _ => {}
        }
    }

    /// Handles a control sequence.
    pub fn control(&mut self, params: &Params, intermediates: &[u8], action: char) {
        let all = || params.iter().filter_map(|param| param.first().copied());
        let set = action == 'h';
        match (intermediates, action) {
            (b"?", 'h' | 'l') => all().for_each(|mode| self.private_mode(mode, set)),
            ([], 'h' | 'l') if all().any(|mode| mode == 4) => self.inserts = set,
            (b"!", 'p') => {
                self.margins = (0, self.rows - 1);
                (self.wraps, self.inserts) = (true, false);
            }
            ([], _) if !self.alternate => {
                let mut numbers = all().map(usize::from);
                let first = numbers.next().unwrap_or_default();
                self.moves(action, first, numbers.next().unwrap_or_default());
            }
            _ => {}
        }
    }

    fn private_mode(&mut self, mode: u16, set: bool) {
        match mode {
            7 if !self.alternate => self.wraps = set,
            2004 => self.bracketed = set,
            47 | 1047 | 1049 => self.alternate = set,
            _ => {}
        }
    }

    fn moves(&mut self, action: char, first: usize, second: usize) {
        let count = first.max(1);
        let (row, col, cols) = (self.row, self.col, self.cols);
        match action {
            '@' => self.here().insert(col, count.min(cols), cols),
            'A' => self.go(row.saturating_sub(count), col),
            'B' | 'e' => self.go(row + count, col),
            'C' | 'a' => self.go(row, col + count),
            'D' => self.go(row, col.saturating_sub(count)),
            'E' => self.go(row + count, 0),
            'F' => self.go(row.saturating_sub(count), 0),
            'G' | '`' => self.go(row, count - 1),
            'H' | 'f' => self.go(count - 1, second.max(1) - 1),
            'J' => self.erase(first),
            'K' => self.erase_line(first),
            'L' if self.scrolls_here() => (0..count.min(self.rows)).for_each(|_| self.scroll_down(row)),
            'M' if self.scrolls_here() => (0..count.min(self.rows)).for_each(|_| self.scroll_up(row)),
            'P' => self.here().delete(col, count),
            'S' => (0..count.min(self.rows)).for_each(|_| self.scroll_up(self.margins.0)),
            'T' => (0..count.min(self.rows)).for_each(|_| self.scroll_down(self.margins.0)),
            'X' => self.here().blank(col, col.saturating_add(count)),
            'b' => (0..count.min(cols)).for_each(|_| self.print(self.last)),
            'd' => self.go(count - 1, col),
            'r' => {
                let bottom = if second == 0 { self.rows } else { second.min(self.rows) };
                if count < bottom {
                    self.margins = (count - 1, bottom - 1);
                    self.go(0, 0);
                }
            }
            's' => self.saved = (row, col),
            'u' => self.go(self.saved.0, self.saved.1),
            _ => {}
        }
    }

    fn go(&mut self, row: usize, col: usize) {
        self.row = row.min(self.rows - 1);
        self.col = col.min(self.cols - 1);
        self.full = false;
    }

    fn down(&mut self) {
        self.full = false;
        if self.row == self.margins.1 {
            self.scroll_up(self.margins.0);
        } else if self.row + 1 < self.rows {
            self.row += 1;
        }
    }

    fn up(&mut self) {
        self.full = false;
        if self.row == self.margins.0 {
            self.scroll_down(self.margins.0);
        } else {
            self.row = self.row.saturating_sub(1);
        }
    }

    fn scrolls_here(&self) -> bool {
        (self.margins.0..=self.margins.1).contains(&self.row)
    }

    fn scroll_up(&mut self, from: usize) {
        if (from, self.margins.1) == (0, self.rows - 1) {
            // The line that leaves at the one end is used again at the other.
            let mut line = Line::default();
            if self.lines.len() >= self.rows + KEPT {
                line = self.lines.pop_front().unwrap_or_default();
                line.clear();
                self.gone += 1;
            }
            self.lines.push_back(line);
            return;
        }
        let top = self.lines.len() - self.rows;
        self.lines.remove(top + from);
        self.lines.insert(top + self.margins.1, Line::default());
    }

    fn scroll_down(&mut self, from: usize) {
        let top = self.lines.len() - self.rows;
        self.lines.remove(top + self.margins.1);
        self.lines.insert(top + from, Line::default());
    }

    /// Drops lines that left the screen long ago.
    fn forget(&mut self) {
        while self.lines.len() > self.rows + KEPT {
            self.lines.pop_front();
            self.gone += 1;
        }
    }

    fn erase(&mut self, what: usize) {
        let (row, rows) = (self.row, self.rows);
        match what {
            0 => {
                self.erase_line(0);
                (row + 1..rows).for_each(|row| self.at(row).clear());
            }
            1 => {
                (0..row).for_each(|row| self.at(row).clear());
                self.erase_line(1);
            }
            2 => (0..rows).for_each(|row| self.at(row).clear()),
            _ => {}
        }
    }

    fn erase_line(&mut self, what: usize) {
        let col = if self.full { self.cols } else { self.col };
        match what {
            0 => self.here().truncate(col),
            1 => self.here().blank(0, col + 1),
            2 => self.here().clear(),
            _ => {}
        }
    }
}

fn dimensions(size: Size) -> (usize, usize) {
    (usize::from(size.cols).max(1), usize::from(size.rows).clamp(1, MOST_ROWS))
}
