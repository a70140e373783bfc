//! Which command lines were entered at a terminal, and which input may be recorded.
//!
//! A command is read off the screen: what stands behind the prompt when a line is entered, because only the screen shows
//! what completion, history and editing made of the keys. What the keys say is compared with it. What this sees and what it
//! cannot see is in `docs/decisions/0016-reading-commands-off-the-screen.md`.

mod bulk;
mod keys;
mod prompt;
mod prompt_marks;
mod typed;

use vte::{Params, Parser, Perform};

use super::frame::Size;
use super::screen::{Place, Screen};
use super::text::Text;
use keys::{Key, Keys};
use prompt::{Shown, is_mask, looks_like_prompt, times, width};
use typed::{LineStart, Typed, TypedLine};

pub use typed::HOLD;

/// The longest text that a shell may hand to the terminal in one sequence.
const LONGEST_SEQUENCE: usize = 4_096;
/// A terminal on which nothing is printed for so long waits for whoever types; microseconds.
const QUIET: u64 = 1_000_000;
/// How many of the lines that were typed ahead are compared with the screen, from either end.
const COMPARED: usize = 128;

/// What was recognised. Times are those of the calls, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognised {
    /// A command line was entered.
    Command { at: u64, text: String },
    /// Input that was shown and may be recorded. It may be older than what came before it, by [`HOLD`] at most.
    Input { at: u64, bytes: Vec<u8> },
}

impl Recognised {
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
    reader: CommandReader,
}

impl Recogniser {
    pub fn new(size: Size) -> Self {
        let (output, text, keys) = Default::default();
        Self { output, text, keys, reader: CommandReader::new(size) }
    }

    /// Somebody typed. To be told before the machine is: its echo must not be known first.
    pub fn typed(&mut self, at: u64, bytes: &[u8]) {
        self.reader.passes(at);
        for byte in bytes {
            let brackets = self.reader.screen.is_bracketed();
            if let Some((key, bytes)) = self.keys.push(*byte, brackets) {
                self.reader.key(at, key, bytes);
            }
        }
    }

    /// The machine printed.
    pub fn printed(&mut self, at: u64, bytes: &[u8]) {
        self.reader.passes(at);
        self.reader.printed_at = at;
        // Whole characters only: the parser may lose one that it gets in two pieces.
        let text = self.text.push(bytes);
        let mut rest = text.as_bytes();
        if self.reader.is_idle()
            && let Some((first, last)) = bulk::skippable(rest, self.reader.screen.depth())
        {
            self.reader.drawn = false;
            self.output.advance(&mut self.reader, &rest[..first]);
            // If it was drawn, it was text, and so is all that follows it.
            rest = &rest[if self.reader.drawn { last } else { first }..];
        }
        self.output.advance(&mut self.reader, rest);
    }

    /// Whether a full-screen program has the screen.
    pub fn is_full_screen(&self) -> bool {
        self.reader.screen.is_alternate()
    }

    /// The terminal has a new size.
    pub fn resized(&mut self, size: Size) {
        self.reader.screen.resize(size);
    }

    /// Time passes without anything else: input that was held too long is let go of.
    pub fn passes(&mut self, at: u64) {
        self.reader.passes(at);
    }

    /// Whether input is held, so that [`Self::passes`] is worth a call.
    pub fn holds(&self) -> bool {
        self.reader.typed.holds()
    }

    /// About how many bytes it keeps.
    pub fn memory(&self) -> usize {
        let CommandReader { screen, typed, recognised, known_prompt, last_command, candidate, .. } =
            &self.reader;
        let texts = known_prompt.len() + last_command.len() + candidate.as_ref().map_or(0, String::len);
        let waiting: usize = recognised.iter().map(Recognised::size).sum();
        screen.memory() + typed.memory() + texts + waiting + 2 * LONGEST_SEQUENCE
    }

    /// What was recognised since the last call.
    pub fn take(&mut self) -> Vec<Recognised> {
        std::mem::take(&mut self.reader.recognised)
    }
}

/// What a shell says of where it is (OSC 133).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PromptMark {
    None,
    /// A prompt begins.
    Prompt,
    /// A prompt has ended here: what follows is typed.
    Input(Place),
    /// A command runs.
    Running,
}

struct CommandReader {
    screen: Screen,
    typed: Typed,
    now: u64,
    printed_at: u64,
    /// The last prompt behind which a command was entered.
    known_prompt: String,
    /// It is the prompt of a line editor.
    known_from_editor: bool,
    /// When the last command was seen.
    recognised_at: u64,
    mark: PromptMark,
    /// The mark that comes next belongs to a prompt within a command.
    secondary: bool,
    /// Where prompts within a command end.
    prompt_ends: Vec<Place>,
    /// What would be the command if its shell does not mark where it begins to run.
    candidate: Option<String>,
    /// How many lines it has.
    lines: usize,
    /// The shell marks where commands begin to run.
    marks_running: bool,
    /// The shell says itself which command it runs.
    names_commands: bool,
    last_command: String,
    /// Set when a character is printed.
    drawn: bool,
    /// A line editor has begun since the last key.
    prompted: bool,
    recognised: Vec<Recognised>,
}

impl CommandReader {
    fn new(size: Size) -> Self {
        Self {
            screen: Screen::new(size),
            typed: Typed::default(),
            now: 0,
            printed_at: 0,
            known_prompt: String::new(),
            known_from_editor: false,
            recognised_at: 0,
            mark: PromptMark::None,
            secondary: false,
            prompt_ends: Vec::new(),
            candidate: None,
            lines: 0,
            marks_running: false,
            names_commands: false,
            last_command: String::new(),
            drawn: false,
            prompted: false,
            recognised: Vec::new(),
        }
    }

    /// Whether nothing that was typed is awaited on the screen.
    fn is_idle(&self) -> bool {
        self.typed.is_empty() && self.screen.scrolls_freely() && !matches!(self.mark, PromptMark::Input(_))
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
            self.typed.restart(LineStart { place, prompt: self.screen.before(place) });
        }
        self.prompted &= key == Key::Nothing;
        self.typed.key(at, key, bytes, &mut self.recognised);
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
        let is_known = before == self.known_prompt || (typed.is_some() && self.ends_known(&before));
        !is_shown && (is_known || (self.prompted && looks_like_prompt(&before)))
    }

    /// Whether what stands there ends with the prompt that is known: a program has left something before it.
    fn ends_known(&self, before: &str) -> bool {
        !self.known_prompt.trim().is_empty() && before.ends_with(&self.known_prompt)
    }

    /// A new line is begun.
    fn begin(&mut self, at: u64) {
        let aside = self.screen.is_alternate();
        let place = self.screen.cursor();
        let prompt = self.screen.before(place);
        let waits = at.saturating_sub(self.printed_at) >= QUIET;
        if waits && !aside && (prompt == self.known_prompt || looks_like_prompt(&prompt)) {
            // Whoever waits here has taken all that was typed ahead, as something else than commands.
            self.typed.drop_entered();
        }
        let start = (!aside && self.typed.is_settled()).then_some(LineStart { place, prompt });
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
            let by_itself = matches!(self.mark, PromptMark::None | PromptMark::Running);
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

    fn found_block(&mut self, last: usize, text: String, prompt: String) {
        let indexes: Vec<_> =
            self.typed.lines().map(|(index, _)| index).take_while(|index| *index <= last).collect();
        let entered = self.typed.entered_at(last).unwrap_or(self.now);
        for index in indexes {
            let line = self.typed.expected_at(index).unwrap_or_default();
            self.typed.show(index, &line, &mut self.recognised);
        }
        self.typed.drop_until(last + 1);
        (self.known_prompt, self.known_from_editor) = (prompt, true);
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
            PromptMark::Input(_) if self.marks_running => {}
            PromptMark::Input(from) => self.goes_on(from, end),
            PromptMark::Prompt if self.names_commands => {}
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
            Some((index, FinishedLine::Command { text, prompt })) => {
                self.known_from_editor = edited;
                self.found(index, text, prompt);
            }
            Some((index, FinishedLine::Echo)) => self.typed.echoed(index, &mut self.recognised),
            None => self.unexplained(&line, edited),
        }
    }

    /// What stands behind the known prompt is the end of what was typed: the shell has it, and what was typed before has been
    /// eaten by a program, all of it before the prompt came.
    fn as_left(&self, shown: &Shown<'_>) -> Option<(usize, FinishedLine)> {
        let text = shown
            .line
            .strip_prefix(&self.known_prompt)
            .filter(|_| !self.known_prompt.trim().is_empty())?
            .trim_end();
        if text.trim().is_empty() {
            return None;
        }
        let left = |line: &TypedLine| {
            let typed = line.expected().filter(|_| !line.passed && !line.echoed);
            typed.is_some_and(|typed| typed.len() > text.len() && typed.ends_with(text))
        };
        let (index, _) = self.typed.lines().find(|(_, line)| left(line))?;
        Some((
            index,
            FinishedLine::Command { text: text.trim().to_owned(), prompt: self.known_prompt.clone() },
        ))
    }

    /// Whether a line that the keyboard knows is what the screen shows.
    fn as_typed(&self, line: &TypedLine, shown: &Shown<'_>) -> Option<FinishedLine> {
        // Something else may have been printed into it, and every key have been echoed nevertheless.
        let echoed = line.start.as_ref().filter(|_| line.was_echoed() && !line.passed);
        let whole = line.expected_with_eaten().and_then(|text| self.is_typed(line, text, None, shown));
        whole.or_else(|| self.is_typed(line, line.expected()?, echoed, shown))
    }

    fn is_typed(
        &self,
        line: &TypedLine,
        text: String,
        echoed: Option<&LineStart>,
        shown: &Shown<'_>,
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

    /// What the screen shows of a line that was edited with more than the keyboard tells, or that it may show otherwise.
    fn as_shown(&self, line: &TypedLine, first: bool, end: u64) -> Option<FinishedLine> {
        if line.passed || line.text.as_ref().is_some_and(|text| text.is_ascii()) {
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
        // A line editor may have drawn it again further down: below a list of completions, say.
        let begin = (oldest..=end).rev().find(|&line| self.screen.before(Place { line, col }) == *prompt)?;
        let text = self.screen.text(Place { line: begin, col }, end).trim().to_owned();
        let is_command = !text.is_empty() && !is_mask(&text);
        is_command.then(|| FinishedLine::Command { text, prompt: prompt.clone() })
    }

    fn found(&mut self, index: usize, text: String, prompt: String) {
        let entered = self.typed.entered_at(index).unwrap_or(self.now);
        let restarted = self.typed.was_restarted(index);
        self.typed.show(index, &text, &mut self.recognised);
        // Each prompt before the last one was for a line that was typed ahead.
        let times = times(&prompt, &self.known_prompt);
        let ahead = self.typed.echoes(index).take(times.saturating_sub(1)).collect::<Vec<_>>();
        self.typed.drop_until(index + 1);
        ahead.into_iter().for_each(|line| self.enter(self.now, line));
        // What a program has left before a prompt is no part of it.
        if times == 0 && !(restarted && self.ends_known(&prompt)) {
            self.known_prompt = prompt;
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
        let times = if edited || self.known_from_editor { 0 } else { times(shown, &self.known_prompt) };
        let ahead = self.typed.take_echoes(times);
        if ahead.is_empty() {
            self.typed.pass();
        }
        ahead.into_iter().for_each(|line| self.enter(self.now, line));
    }

    fn enter(&mut self, entered: u64, text: String) {
        let at = entered.max(self.recognised_at);
        self.recognised_at = self.now;
        self.last_command.clone_from(&text);
        self.recognised.push(Recognised::Command { at, text });
    }
}

/// What a finished line turned out to be.
enum FinishedLine {
    Command {
        text: String,
        prompt: String,
    },
    /// A line that was shown without a prompt.
    Echo,
}

impl Perform for CommandReader {
    fn print(&mut self, c: char) {
        if self.typed.awaits() {
            let again = self.screen.holds(c);
            self.typed.printed(c, again, &mut self.recognised);
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
