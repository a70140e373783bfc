//! Recognises which command lines were entered at a terminal, and which input may be recorded.
//!
//! A command is read off the screen, from behind the prompt, when a line is entered: only the screen shows what
//! completion, history and editing made of the keys. It is then compared with the keys.
//! `docs/decisions/0016-reading-commands-off-the-screen.md` says what can be recognised so, and what cannot.

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
use prompt::{ScreenLine, is_mask, looks_like_prompt, times, width};
use typed::{LineStart, TypedLine, TypedLines};

pub use typed::HOLD;

/// The longest text that a shell may hand to the terminal in one sequence.
const LONGEST_SEQUENCE: usize = 4_096;
/// If nothing is printed for so long, the terminal waits for its user; microseconds.
const QUIET: u64 = 1_000_000;
/// How many of the lines that were typed ahead are compared with the screen, from either end.
const COMPARED: usize = 128;

/// Something that was recognised. Times are those of the calls, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognised {
    /// A command line was entered.
    Command { at: u64, text: String },
    /// Input was shown on the screen and may be recorded. It may be older than what came before it, by [`HOLD`] at
    /// most.
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

/// Recognises the commands of one terminal. Its memory is bounded whatever it is fed, and it does not matter in which
/// pieces output comes.
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

    /// Takes what was typed. It must be called before the machine gets the input, so that the echo never comes first.
    pub fn typed(&mut self, at: u64, bytes: &[u8]) {
        self.reader.passes(at);
        for byte in bytes {
            let brackets = self.reader.screen.is_bracketed();
            if let Some((key, bytes)) = self.keys.push(*byte, brackets) {
                self.reader.key(at, key, bytes);
            }
        }
    }

    /// Takes what the machine printed.
    pub fn printed(&mut self, at: u64, bytes: &[u8]) {
        self.reader.passes(at);
        self.reader.printed_at = at;
        // The parser gets whole characters only: it may lose a character that comes in two pieces.
        let text = self.text.push(bytes);
        let mut rest = text.as_bytes();
        if self.reader.is_idle()
            && let Some((first, last)) = bulk::skippable(rest, self.reader.screen.depth())
        {
            self.reader.drawn = false;
            self.output.advance(&mut self.reader, &rest[..first]);
            // If a character was drawn, the output was text, and so is all that follows.
            rest = &rest[if self.reader.drawn { last } else { first }..];
        }
        self.output.advance(&mut self.reader, rest);
    }

    /// Whether a full-screen program has the screen.
    pub fn is_full_screen(&self) -> bool {
        self.reader.screen.is_alternate()
    }

    /// Takes the terminal's new size.
    pub fn resized(&mut self, size: Size) {
        self.reader.screen.resize(size);
    }

    /// Takes the time when nothing else happens: input that was held too long is dropped.
    pub fn passes(&mut self, at: u64) {
        self.reader.passes(at);
    }

    /// Whether input is held, so that [`Self::passes`] is worth a call.
    pub fn holds(&self) -> bool {
        self.reader.typed.holds()
    }

    /// About how many bytes of memory are in use.
    pub fn memory(&self) -> usize {
        let CommandReader { screen, typed, recognised, known_prompt, last_command, candidate, .. } =
            &self.reader;
        let texts = known_prompt.len() + last_command.len() + candidate.as_ref().map_or(0, String::len);
        let waiting: usize = recognised.iter().map(Recognised::size).sum();
        screen.memory() + typed.memory() + texts + waiting + 2 * LONGEST_SEQUENCE
    }

    /// Takes everything that was recognised since the last call.
    pub fn take(&mut self) -> Vec<Recognised> {
        std::mem::take(&mut self.reader.recognised)
    }
}

/// The last mark of a shell that marks its prompts (OSC 133).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PromptMark {
    None,
    /// A prompt begins.
    Prompt,
    /// A prompt has ended at this place, and input follows.
    Input(Place),
    /// A command runs.
    Running,
}

struct CommandReader {
    screen: Screen,
    typed: TypedLines,
    now: u64,
    printed_at: u64,
    /// The last prompt behind which a command was entered.
    known_prompt: String,
    /// Whether `known_prompt` is the prompt of a line editor.
    known_from_editor: bool,
    /// When the last command was recognised.
    recognised_at: u64,
    mark: PromptMark,
    /// Whether the mark that comes next belongs to a prompt within a command.
    secondary: bool,
    /// The places where prompts within a command end.
    prompt_ends: Vec<Place>,
    /// The text that would be the command if its shell does not mark where it begins to run.
    candidate: Option<String>,
    /// How many lines the candidate has.
    lines: usize,
    /// Whether the shell marks where commands begin to run.
    marks_running: bool,
    /// Whether the shell itself names the command that it runs.
    names_commands: bool,
    last_command: String,
    /// Set when a character is printed.
    drawn: bool,
    /// Whether a line editor has begun since the last key.
    prompted: bool,
    recognised: Vec<Recognised>,
}

impl CommandReader {
    fn new(size: Size) -> Self {
        Self {
            screen: Screen::new(size),
            typed: TypedLines::default(),
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

    /// Whether no typed line is awaited on the screen.
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

    /// Whether a prompt has come since the line that is being typed began, while nothing of that line stands behind it.
    /// Then a program has read what was typed, key by key, without Enter, and often without an echo.
    fn is_prompted_anew(&self) -> bool {
        let Some(line) = self.typed.open().filter(|_| !self.screen.is_alternate()) else { return false };
        let place = self.screen.cursor();
        let before = self.screen.before(place);
        // A line that began while another was awaited may not have been shown yet; its end tells.
        let begun_here = line.start.as_ref().is_none_or(|start| start.place == place);
        if begun_here || before.trim().is_empty() || !self.screen.text(place, place.line).is_empty() {
            return false;
        }
        let typed = line.text.as_deref().filter(|text| !text.is_empty());
        // The typed text is compared as far as it stands on this line of the screen.
        let is_shown = typed.is_some_and(|text| before.ends_with(text) || text.ends_with(&before));
        let is_known = before == self.known_prompt || (typed.is_some() && self.ends_known(&before));
        !is_shown && (is_known || (self.prompted && looks_like_prompt(&before)))
    }

    /// Whether this text ends with the known prompt, before which a program has left something.
    fn ends_known(&self, before: &str) -> bool {
        !self.known_prompt.trim().is_empty() && before.ends_with(&self.known_prompt)
    }

    /// Begins a new line.
    fn begin(&mut self, at: u64) {
        let aside = self.screen.is_alternate();
        let place = self.screen.cursor();
        let prompt = self.screen.before(place);
        let waits = at.saturating_sub(self.printed_at) >= QUIET;
        if waits && !aside && (prompt == self.known_prompt || looks_like_prompt(&prompt)) {
            // A prompt waits here, so something else than a shell has read the lines that were typed ahead.
            self.typed.drop_entered();
        }
        let start = (!aside && self.typed.is_settled()).then_some(LineStart { place, prompt });
        self.typed.begin(start, aside);
    }

    /// Handles a line feed on the main screen.
    fn line_feed(&mut self) {
        self.typed.broken();
        if !self.screen.is_bracketed() && self.typed.entered() {
            self.line_ends(self.screen.end(self.screen.cursor().line), false);
        }
    }

    /// Handles the end of a line editor's work on a line, or on several lines that were entered one by one and belong
    /// together.
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

    /// Finds a block: lines that were typed and entered one after the other, and that stand below each other behind one
    /// prompt when the line editor is done, indented as it likes (fish). Returns the index of the last line, the text
    /// and the prompt.
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

    /// The line of the screen that the cursor is on, or the one above if nothing is on it yet.
    fn last_written(&self) -> u64 {
        let Place { line, col } = self.screen.cursor();
        let blank = col == 0 && self.screen.text(Place { line, col: 0 }, line).is_empty();
        if blank && line > self.screen.oldest() { line - 1 } else { self.screen.end(line) }
    }

    /// Decides whether a finished line of the screen is a command, after at least one line was entered.
    fn line_ends(&mut self, end: u64, edited: bool) {
        match self.mark {
            PromptMark::Input(_) if self.marks_running => {}
            PromptMark::Input(from) => self.goes_on(from, end),
            PromptMark::Prompt if self.names_commands => {}
            _ => self.look(end, edited),
        }
    }

    fn look(&mut self, end: u64, edited: bool) {
        let shown = ScreenLine::new(&self.screen, end);
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

    /// Whether the text behind the known prompt is the end of a typed line. Then the shell got that end, and a program
    /// has read what was typed before it, all of it before the prompt came.
    fn as_left(&self, shown: &ScreenLine<'_>) -> Option<(usize, FinishedLine)> {
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

    /// Whether a finished line of the screen is what the keyboard says of a typed line.
    fn as_typed(&self, line: &TypedLine, shown: &ScreenLine<'_>) -> Option<FinishedLine> {
        // Something else may have been printed into the line even though every key was echoed.
        let echoed = line.start.as_ref().filter(|_| line.was_echoed() && !line.passed);
        let whole = line.expected_with_eaten().and_then(|text| self.is_typed(line, text, None, shown));
        whole.or_else(|| self.is_typed(line, line.expected()?, echoed, shown))
    }

    fn is_typed(
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
        // A line editor may have drawn the line again further down, below a list of completions for instance.
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
        // Text that a program has left before a prompt is no part of the prompt.
        if times == 0 && !(restarted && self.ends_known(&prompt)) {
            self.known_prompt = prompt;
        }
        self.enter(entered, text);
    }

    /// Handles a finished line that no typed line explains.
    fn unexplained(&mut self, shown: &str, edited: bool) {
        if self.typed.drop_empty() {
            return;
        }
        // A shell without a line editor does not show again what was typed ahead: what the command prints follows right
        // behind the prompt.
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
    /// The line was shown without a prompt.
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
        // Bracketed pastes mean that a line editor is at work.
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
