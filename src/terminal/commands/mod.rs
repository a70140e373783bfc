//! Which command lines were entered at a terminal, and which input may be recorded.
//!
//! A command is read off the screen: what stands behind the prompt when a line is entered, because only the screen shows
//! what completion, history and editing made of the keys. What the keys say is compared with it. What this sees and what it
//! cannot see is in `docs/decisions/0016-reading-commands-off-the-screen.md`.

mod bulk;
mod keys;
mod marks;
mod prompt;
mod typed;

use vte::{Params, Parser, Perform};

use super::frame::Size;
use super::screen::{Place, Screen};
use super::text::Text;
use keys::{Key, Keys};
use prompt::{Shown, is_mask, looks_like_prompt, times, width};
use typed::{Line, Start, Typed};

pub use typed::HOLD;

/// The longest text that a shell may hand to the terminal in one sequence.
const LONGEST_SEQUENCE: usize = 4_096;
/// A terminal on which nothing is printed for so long waits for whoever types; microseconds.
const QUIET: u64 = 1_000_000;
/// How many of the lines that were typed ahead are compared with the screen, from either end.
const COMPARED: usize = 128;

/// What was recognised. Times are those of the calls, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A command line was entered.
    Command { at: u64, text: String },
    /// Input that was shown and may be recorded. It may be older than what came before it, by [`HOLD`] at most.
    Input { at: u64, bytes: Vec<u8> },
}

impl Seen {
    fn size(&self) -> usize {
        match self {
            Self::Command { text, .. } => text.len(),
            Self::Input { bytes, .. } => bytes.len(),
        }
    }
}

/// Follows one terminal. Its memory is bounded whatever it is fed, and it does not matter how output is cut into pieces.
pub struct Recogniser {
    output: Parser<LONGEST_SEQUENCE>,
    text: Text,
    keys: Keys,
    follower: Follower,
}

impl Recogniser {
    pub fn new(size: Size) -> Self {
        let (output, text, keys) = Default::default();
        Self { output, text, keys, follower: Follower::new(size) }
    }

    /// Somebody typed. To be told before the machine is: its echo must not be known first.
    pub fn typed(&mut self, at: u64, bytes: &[u8]) {
        self.follower.passes(at);
        for byte in bytes {
            let brackets = self.follower.screen.is_bracketed();
            if let Some((key, bytes)) = self.keys.push(*byte, brackets) {
                self.follower.key(at, key, bytes);
            }
        }
    }

    /// The machine printed.
    pub fn printed(&mut self, at: u64, bytes: &[u8]) {
        self.follower.passes(at);
        self.follower.printed_at = at;
        // Whole characters only: the parser may lose one that it gets in two pieces.
        let text = self.text.push(bytes);
        let mut rest = text.as_bytes();
        if self.follower.is_idle()
            && let Some((first, last)) = bulk::passes_by(rest, self.follower.screen.depth())
        {
            self.follower.drawn = false;
            self.output.advance(&mut self.follower, &rest[..first]);
            // If it was drawn, it was text, and so is all that follows it.
            rest = &rest[if self.follower.drawn { last } else { first }..];
        }
        self.output.advance(&mut self.follower, rest);
    }

    /// Whether a full-screen program has the screen.
    pub fn is_full_screen(&self) -> bool {
        self.follower.screen.is_alternate()
    }

    /// The terminal has a new size.
    pub fn resized(&mut self, size: Size) {
        self.follower.screen.resize(size);
    }

    /// Time passes without anything else: input that was held too long is let go of.
    pub fn passes(&mut self, at: u64) {
        self.follower.passes(at);
    }

    /// Whether input is held, so that [`Self::passes`] is worth a call.
    pub fn holds(&self) -> bool {
        self.follower.typed.holds()
    }

    /// About how many bytes it keeps.
    pub fn memory(&self) -> usize {
        let Follower { screen, typed, seen, known, last, candidate, .. } = &self.follower;
        let texts = known.len() + last.len() + candidate.as_ref().map_or(0, String::len);
        let waiting: usize = seen.iter().map(Seen::size).sum();
        screen.memory() + typed.memory() + texts + waiting + 2 * LONGEST_SEQUENCE
    }

    /// What was recognised since the last call.
    pub fn take(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.follower.seen)
    }
}

/// What a shell says of where it is (OSC 133).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    /// A prompt begins.
    Prompt,
    /// A prompt has ended here: what follows is typed.
    Input(Place),
    /// A command runs.
    Running,
}

struct Follower {
    screen: Screen,
    typed: Typed,
    now: u64,
    printed_at: u64,
    /// The last prompt behind which a command was entered.
    known: String,
    /// It is the prompt of a line editor.
    known_edited: bool,
    /// When the last command was seen.
    seen_at: u64,
    mark: Mark,
    /// The mark that comes next belongs to a prompt within a command.
    secondary: bool,
    /// Where prompts within a command end.
    cuts: Vec<Place>,
    /// What would be the command if its shell does not mark where it begins to run.
    candidate: Option<String>,
    /// How many lines it has.
    lines: usize,
    /// The shell marks where commands begin to run.
    marks_running: bool,
    /// The shell says itself which command it runs.
    names: bool,
    last: String,
    /// Set when a character is printed.
    drawn: bool,
    /// A line editor has begun since the last key.
    prompted: bool,
    seen: Vec<Seen>,
}

impl Follower {
    fn new(size: Size) -> Self {
        Self {
            screen: Screen::new(size),
            typed: Typed::default(),
            now: 0,
            printed_at: 0,
            known: String::new(),
            known_edited: false,
            seen_at: 0,
            mark: Mark::None,
            secondary: false,
            cuts: Vec::new(),
            candidate: None,
            lines: 0,
            marks_running: false,
            names: false,
            last: String::new(),
            drawn: false,
            prompted: false,
            seen: Vec::new(),
        }
    }

    /// Whether nothing that was typed is awaited on the screen.
    fn is_idle(&self) -> bool {
        self.typed.is_empty() && self.screen.scrolls_freely() && !matches!(self.mark, Mark::Input(_))
    }

    fn passes(&mut self, at: u64) {
        self.now = at;
        self.typed.passes(at);
    }

    fn key(&mut self, at: u64, key: Key, bytes: Vec<u8>) {
        if !self.typed.goes_on(self.screen.is_alternate()) {
            self.begin(at);
        } else if key != Key::Nothing && self.is_prompted_anew() {
            let place = self.screen.cursor();
            self.typed.restart(Start { place, prompt: self.screen.before(place) });
        }
        self.prompted &= key == Key::Nothing;
        self.typed.key(at, key, bytes, &mut self.seen);
    }

    /// Whether a prompt has come since the line that is being typed began, and nothing of that line stands behind it: then a
    /// program has eaten what was typed, key by key, without Enter, and often without an echo.
    fn is_prompted_anew(&self) -> bool {
        let Some(line) = self.typed.open().filter(|_| !self.screen.is_alternate()) else { return false };
        let place = self.screen.cursor();
        let before = self.screen.before(place);
        // A line that began while another was awaited may not have been shown yet: the end of it tells.
        let begun_here = line.start.as_ref().is_none_or(|start| start.place == place);
        if begun_here || before.trim().is_empty() || !self.screen.text(place, place.line).is_empty() {
            return false;
        }
        let typed = line.text.as_deref().filter(|text| !text.is_empty());
        // As far as it stands on this line of the screen.
        let is_shown = typed.is_some_and(|text| before.ends_with(text) || text.ends_with(&before));
        let is_known = before == self.known || (typed.is_some() && self.ends_known(&before));
        !is_shown && (is_known || (self.prompted && looks_like_prompt(&before)))
    }

    /// Whether what stands there ends with the prompt that is known: a program has left something before it.
    fn ends_known(&self, before: &str) -> bool {
        !self.known.trim().is_empty() && before.ends_with(&self.known)
    }

    /// A new line is begun.
    fn begin(&mut self, at: u64) {
        let aside = self.screen.is_alternate();
        let place = self.screen.cursor();
        let prompt = self.screen.before(place);
        let waits = at.saturating_sub(self.printed_at) >= QUIET;
        if waits && !aside && (prompt == self.known || looks_like_prompt(&prompt)) {
            // Whoever waits here has taken all that was typed ahead, as something else than commands.
            self.typed.drop_entered();
        }
        let start = (!aside && self.typed.is_settled()).then_some(Start { place, prompt });
        self.typed.begin(start, aside);
    }

    /// A line feed on the main screen.
    fn line_feed(&mut self) {
        self.typed.broken();
        if !self.screen.is_bracketed() && self.typed.entered() {
            self.line_ends(self.screen.end(self.screen.cursor().line), false);
        }
    }

    /// A line editor is done with a line, or with several that were entered one by one and belong together.
    fn edited(&mut self) {
        if self.typed.entered() {
            let end = self.last_written();
            let by_itself = matches!(self.mark, Mark::None | Mark::Running);
            match self.as_block(end).filter(|_| by_itself) {
                Some((last, text, prompt)) => self.found_block(last, text, prompt),
                None => self.line_ends(end, true),
            }
        }
    }

    /// A block: lines that were typed and entered one after the other, and that stand below each other behind one prompt when
    /// the line editor is done, indented as it likes (fish). Returns the index of the last of them, and what they say.
    fn as_block(&self, end: u64) -> Option<(usize, String, String)> {
        let (_, first) = self.typed.lines().next().filter(|(_, line)| !line.passed && !line.echoed)?;
        let Start { place, prompt } = first.start.as_ref().filter(|start| !start.prompt.trim().is_empty())?;
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

    fn found_block(&mut self, last: usize, text: String, prompt: String) {
        let indexes: Vec<_> =
            self.typed.lines().map(|(index, _)| index).take_while(|index| *index <= last).collect();
        let entered = self.typed.entered_at(last).unwrap_or(self.now);
        for index in indexes {
            let line = self.typed.expected_at(index).unwrap_or_default();
            self.typed.show(index, &line, &mut self.seen);
        }
        self.typed.drop_until(last + 1);
        (self.known, self.known_edited) = (prompt, true);
        self.enter(entered, text);
    }

    /// The line the cursor is on, or the one above if it has nothing yet.
    fn last_written(&self) -> u64 {
        let Place { line, col } = self.screen.cursor();
        let blank = col == 0 && self.screen.text(Place { line, col: 0 }, line).is_empty();
        if blank && line > self.screen.oldest() { line - 1 } else { self.screen.end(line) }
    }

    /// A line on the screen is finished, and at least one was entered: is it a command?
    fn line_ends(&mut self, end: u64, edited: bool) {
        match self.mark {
            Mark::Input(_) if self.marks_running => {}
            Mark::Input(from) => self.goes_on(from, end),
            Mark::Prompt if self.names => {}
            _ => self.look(end, edited),
        }
    }

    fn look(&mut self, end: u64, edited: bool) {
        let shown = Shown::new(&self.screen, end);
        let count = self.typed.lines().count();
        let near = |nth: usize| nth < COMPARED || nth + COMPARED >= count;
        let found =
            self.typed.lines().enumerate().filter(|(nth, _)| near(*nth)).find_map(|(nth, (index, line))| {
                let read = self.as_typed(line, &shown).or_else(|| self.as_shown(line, nth == 0, end));
                Some((index, read?))
            });
        let found = found.or_else(|| self.as_left(&shown));
        let line = shown.line;
        match found {
            Some((index, Read::Command { text, prompt })) => {
                self.known_edited = edited;
                self.found(index, text, prompt);
            }
            Some((index, Read::Echo)) => self.typed.echoed(index, &mut self.seen),
            None => self.unexplained(&line, edited),
        }
    }

    /// What stands behind the known prompt is the end of what was typed: the shell has it, and what was typed before has been
    /// eaten by a program, all of it before the prompt came.
    fn as_left(&self, shown: &Shown<'_>) -> Option<(usize, Read)> {
        let text = shown.line.strip_prefix(&self.known).filter(|_| !self.known.trim().is_empty())?.trim_end();
        if text.trim().is_empty() {
            return None;
        }
        let left = |line: &Line| {
            let typed = line.expected().filter(|_| !line.passed && !line.echoed);
            typed.is_some_and(|typed| typed.len() > text.len() && typed.ends_with(text))
        };
        let (index, _) = self.typed.lines().find(|(_, line)| left(line))?;
        Some((index, Read::Command { text: text.trim().to_owned(), prompt: self.known.clone() }))
    }

    /// Whether a line that the keyboard knows is what the screen shows.
    fn as_typed(&self, line: &Line, shown: &Shown<'_>) -> Option<Read> {
        // Something else may have been printed into it, and every key have been echoed nevertheless.
        let echoed = line.start.as_ref().filter(|_| line.was_echoed() && !line.passed);
        let whole = line.expected_with_eaten().and_then(|text| self.is_typed(line, text, None, shown));
        whole.or_else(|| self.is_typed(line, line.expected()?, echoed, shown))
    }

    fn is_typed(&self, line: &Line, text: String, echoed: Option<&Start>, shown: &Shown<'_>) -> Option<Read> {
        if text.is_empty() {
            return None;
        }
        let prompt = shown.before(&text).or_else(|| echoed.map(|start| start.prompt.clone()))?;
        if prompt.is_empty() {
            return (!line.echoed).then_some(Read::Echo);
        }
        let waited = line.start.as_ref().is_some_and(|start| start.prompt == prompt);
        let is_prompt = waited || prompt == self.known || looks_like_prompt(&prompt);
        let text = text.trim().to_owned();
        (is_prompt && !prompt.trim().is_empty()).then_some(Read::Command { text, prompt })
    }

    /// What the screen shows of a line that was edited with more than the keyboard tells, or that it may show otherwise.
    fn as_shown(&self, line: &Line, first: bool, end: u64) -> Option<Read> {
        if line.passed || line.text.as_ref().is_some_and(|text| text.is_ascii()) {
            return None;
        }
        let (prompt, col, oldest) = match &line.start {
            Some(Start { place, prompt }) => (prompt, place.col, self.screen.oldest()),
            None if first => (&self.known, width(&self.known), self.screen.beginning(end)),
            None => return None,
        };
        if prompt.trim().is_empty() {
            return None;
        }
        // A line editor may have drawn it again further down: below a list of completions, say.
        let begin = (oldest..=end).rev().find(|&line| self.screen.before(Place { line, col }) == *prompt)?;
        let text = self.screen.text(Place { line: begin, col }, end).trim().to_owned();
        let is_command = !text.is_empty() && !is_mask(&text);
        is_command.then(|| Read::Command { text, prompt: prompt.clone() })
    }

    fn found(&mut self, index: usize, text: String, prompt: String) {
        let entered = self.typed.entered_at(index).unwrap_or(self.now);
        let restarted = self.typed.was_restarted(index);
        self.typed.show(index, &text, &mut self.seen);
        // Each prompt before the last one was for a line that was typed ahead.
        let times = times(&prompt, &self.known);
        let ahead = self.typed.echoes(index).take(times.saturating_sub(1)).collect::<Vec<_>>();
        self.typed.drop_until(index + 1);
        ahead.into_iter().for_each(|line| self.enter(self.now, line));
        // What a program has left before a prompt is no part of it.
        if times == 0 && !(restarted && self.ends_known(&prompt)) {
            self.known = prompt;
        }
        self.enter(entered, text);
    }

    /// A line is finished that no typed line explains.
    fn unexplained(&mut self, shown: &str, edited: bool) {
        if self.typed.drop_empty() {
            return;
        }
        // A shell without a line editor takes what was typed ahead without showing it again: its prompt is followed by
        // what the command prints.
        let times = if edited || self.known_edited { 0 } else { times(shown, &self.known) };
        let ahead = self.typed.take_echoes(times);
        if ahead.is_empty() {
            self.typed.pass();
        }
        ahead.into_iter().for_each(|line| self.enter(self.now, line));
    }

    fn enter(&mut self, entered: u64, text: String) {
        let at = entered.max(self.seen_at);
        self.seen_at = self.now;
        self.last.clone_from(&text);
        self.seen.push(Seen::Command { at, text });
    }
}

/// What a finished line turned out to be.
enum Read {
    Command {
        text: String,
        prompt: String,
    },
    /// A line that was shown without a prompt.
    Echo,
}

impl Perform for Follower {
    fn print(&mut self, c: char) {
        if self.typed.awaits() {
            let again = self.screen.holds(c);
            self.typed.printed(c, again, &mut self.seen);
        }
        self.drawn = true;
        self.screen.print(c);
    }

    fn execute(&mut self, byte: u8) {
        if byte == b'\n' && !self.screen.is_alternate() {
            self.line_feed();
        }
        self.screen.execute(byte);
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _: bool, action: char) {
        let was_edited = self.screen.is_bracketed() && !self.screen.is_alternate();
        let was_bracketed = self.screen.is_bracketed();
        self.screen.control(params, intermediates, action);
        // A line editor is there.
        self.prompted |= self.screen.is_bracketed() && !was_bracketed;
        if was_edited && !self.screen.is_bracketed() {
            self.edited();
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        self.screen.escape(intermediates, byte);
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
        if let [b"133", rest @ ..] = params
            && !self.screen.is_alternate()
        {
            self.marked_by(rest);
        }
    }
}
