//! Reads the screen together with what was typed, and notices when a line may have become a command.

use vte::{Params, Perform};

use super::Recognised;
use super::keys::Key;
use super::prompt::looks_like_prompt;
use super::typed::{LineStart, TypedLines};
use crate::terminal::frame::Size;
use crate::terminal::screen::{Place, Screen};

/// If nothing is printed for so long, the terminal waits for its user; microseconds.
const QUIET: u64 = 1_000_000;

/// The last mark of a shell that marks its prompts (OSC 133).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromptMark {
    None,
    /// A prompt begins.
    Prompt,
    /// A prompt has ended at this place, and input follows.
    Input(Place),
    /// A command runs.
    Running,
}

/// The state of one terminal's recognition: its screen, the typed lines, and what is known of its shell.
pub(super) struct CommandReader {
    pub(super) screen: Screen,
    pub(super) typed: TypedLines,
    /// The time of the last call, and of the last call that printed something; microseconds.
    pub(super) now: u64,
    pub(super) printed_at: u64,
    /// The last prompt behind which a command was entered.
    pub(super) known_prompt: String,
    /// Whether `known_prompt` is the prompt of a line editor.
    pub(super) known_from_editor: bool,
    /// When the last command was recognised.
    pub(super) recognised_at: u64,
    /// The shell's last mark.
    pub(super) mark: PromptMark,
    /// Whether the mark that comes next belongs to a prompt within a command.
    pub(super) secondary: bool,
    /// The places where prompts within a command end.
    pub(super) prompt_ends: Vec<Place>,
    /// The text that would be the command if its shell does not mark where it begins to run.
    pub(super) candidate: Option<String>,
    /// How many lines the candidate has.
    pub(super) lines: usize,
    /// Whether the shell marks where commands begin to run.
    pub(super) marks_running: bool,
    /// Whether the shell itself names the command that it runs.
    pub(super) names_commands: bool,
    /// The command that was recognised last.
    pub(super) last_command: String,
    /// Set when a character is printed.
    pub(super) drawn: bool,
    /// Whether a line editor has begun since the last key.
    pub(super) prompted: bool,
    /// What was recognised and not yet taken.
    pub(super) recognised: Vec<Recognised>,
}

impl CommandReader {
    pub(super) fn new(size: Size) -> Self {
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
    pub(super) fn is_idle(&self) -> bool {
        self.typed.is_empty() && self.screen.scrolls_freely() && !matches!(self.mark, PromptMark::Input(_))
    }

    /// Takes the time of a call, and drops input that was held too long by then.
    pub(super) fn advance_to(&mut self, at: u64) {
        self.now = at;
        self.typed.drop_stale(at);
    }

    /// Takes a key, with the bytes that it was sent as.
    pub(super) fn on_key(&mut self, at: u64, key: Key, bytes: Vec<u8>) {
        if !self.typed.continues(self.screen.is_alternate()) {
            self.begin_line(at);
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
        let is_known =
            before == self.known_prompt || (typed.is_some() && self.ends_with_known_prompt(&before));
        !is_shown && (is_known || (self.prompted && looks_like_prompt(&before)))
    }

    /// Whether this text ends with the known prompt, before which a program has left something.
    pub(super) fn ends_with_known_prompt(&self, before: &str) -> bool {
        !self.known_prompt.trim().is_empty() && before.ends_with(&self.known_prompt)
    }

    /// Begins a new line.
    fn begin_line(&mut self, at: u64) {
        let full_screen = self.screen.is_alternate();
        let place = self.screen.cursor();
        let prompt = self.screen.before(place);
        let waits = at.saturating_sub(self.printed_at) >= QUIET;
        if waits && !full_screen && (prompt == self.known_prompt || looks_like_prompt(&prompt)) {
            // A prompt waits here, so something else than a shell has read the lines that were typed ahead.
            self.typed.drop_entered();
        }
        let start = (!full_screen && self.typed.is_settled()).then_some(LineStart { place, prompt });
        self.typed.begin(start, full_screen);
    }

    /// Handles a line feed on the main screen.
    fn on_line_feed(&mut self) {
        self.typed.on_line_end();
        if !self.screen.is_bracketed() && self.typed.has_entered() {
            self.on_line_end(self.screen.end(self.screen.cursor().line), false);
        }
    }

    /// Handles the end of a line editor's work on a line, or on several lines that were entered one by one and belong
    /// together.
    fn on_editor_done(&mut self) {
        if self.typed.has_entered() {
            let end = self.last_written();
            let by_itself = matches!(self.mark, PromptMark::None | PromptMark::Running);
            match self.find_block(end).filter(|_| by_itself) {
                Some((last, text, prompt)) => self.take_block(last, text, prompt),
                None => self.on_line_end(end, true),
            }
        }
    }

    /// The line of the screen that the cursor is on, or the one above if nothing is on it yet.
    pub(super) fn last_written(&self) -> u64 {
        let Place { line, col } = self.screen.cursor();
        let blank = col == 0 && self.screen.text(Place { line, col: 0 }, line).is_empty();
        if blank && line > self.screen.oldest() { line - 1 } else { self.screen.end(line) }
    }

    /// Decides whether a finished line of the screen is a command, after at least one line was entered.
    fn on_line_end(&mut self, end: u64, edited: bool) {
        match self.mark {
            PromptMark::Input(_) if self.marks_running => {}
            PromptMark::Input(from) => self.add_marked_line(from, end),
            PromptMark::Prompt if self.names_commands => {}
            _ => self.match_line(end, edited),
        }
    }

    /// Notes that a command line was entered.
    pub(super) fn push_command(&mut self, entered: u64, text: String) {
        let at = entered.max(self.recognised_at);
        self.recognised_at = self.now;
        self.last_command.clone_from(&text);
        self.recognised.push(Recognised::Command { at, text });
    }
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
            self.on_line_feed();
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
            self.on_editor_done();
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        self.screen.escape(intermediates, byte);
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
        if let [b"133", rest @ ..] = params
            && !self.screen.is_alternate()
        {
            self.on_mark(rest);
        }
    }
}
