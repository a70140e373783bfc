//! One line of a screen.

/// How many combining characters one line keeps.
const MOST_COMBINING: usize = 256;
/// Stands for the second half of a wide character.
pub const HALF: char = '\0';

#[derive(Debug, Default, Clone)]
pub struct Line {
    cells: Vec<char>,
    /// The combining characters, by the column of the character that they combine with.
    combining: Vec<(usize, char)>,
    /// Whether the text goes on in the next line, because it was too long for this one.
    pub wrapped: bool,
}

impl Line {
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    pub fn holds(&self, col: usize, c: char) -> bool {
        self.cells.get(col) == Some(&c)
    }

    /// Whether a character stands in the last of so many columns.
    pub fn fills(&self, cols: usize) -> bool {
        self.cells.len() >= cols && self.cells.last().is_some_and(|c| *c != ' ')
    }

    /// About how many bytes of memory the line takes.
    pub fn memory(&self) -> usize {
        64 + 4 * self.cells.capacity() + 16 * self.combining.capacity()
    }

    pub fn set(&mut self, col: usize, c: char) {
        if self.cells.len() <= col {
            self.cells.resize(col + 1, ' ');
        }
        // If one half of a wide character is overwritten, the other half goes too.
        if self.cells[col] == HALF && col > 0 {
            self.cells[col - 1] = ' ';
        }
        if self.cells.get(col + 1) == Some(&HALF) && c != HALF {
            self.cells[col + 1] = ' ';
        }
        self.cells[col] = c;
        if !self.combining.is_empty() {
            self.combining.retain(|(at, _)| *at != col);
        }
    }

    pub fn combine(&mut self, col: usize, c: char) {
        if self.combining.len() < MOST_COMBINING {
            self.combining.push((col, c));
        }
    }

    pub fn truncate(&mut self, col: usize) {
        self.cells.truncate(col);
        self.combining.retain(|(at, _)| *at < col);
        self.wrapped = false;
    }

    pub fn clear(&mut self) {
        self.truncate(0);
    }

    pub fn blank(&mut self, from: usize, to: usize) {
        for col in from..to.min(self.cells.len()) {
            self.set(col, ' ');
        }
    }

    pub fn insert(&mut self, col: usize, count: usize, cols: usize) {
        if col < self.cells.len() {
            self.cells.splice(col..col, std::iter::repeat_n(' ', count));
            self.cells.truncate(cols);
            self.move_combining(col, |at| Some(at + count));
        }
    }

    pub fn delete(&mut self, col: usize, count: usize) {
        if col < self.cells.len() {
            self.cells.drain(col..(col + count).min(self.cells.len()));
            self.move_combining(col, |at| at.checked_sub(count).filter(|at| *at >= col));
        }
    }

    fn move_combining(&mut self, col: usize, to: impl Fn(usize) -> Option<usize>) {
        let combining = std::mem::take(&mut self.combining);
        self.combining = combining
            .into_iter()
            .filter_map(|(at, c)| if at < col { Some((at, c)) } else { Some((to(at)?, c)) })
            .collect();
    }

    pub fn read(&self, from: usize, to: usize, into: &mut String) {
        for col in from..to.min(self.cells.len()) {
            if self.cells[col] != HALF {
                into.push(self.cells[col]);
            }
            if !self.combining.is_empty() {
                into.extend(self.combining.iter().filter(|(at, _)| *at == col).map(|(_, c)| *c));
            }
        }
    }
}
