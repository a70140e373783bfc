//! Records a terminal: its output, the input that was shown, its sizes, and the command lines, in the session's journal
//! of recordings. It never holds the shell up, unless the file takes less for very long than the shell prints.

use std::sync::Arc;
use std::time::Duration;

use sessiond_core::session::event::Counts;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::commands::{Recognised, Recogniser};
use super::frame::Size;
use super::hub::{TerminalEnd, TerminalEvent};
use super::open_terminal::Terminal;
use super::ssh;
use crate::error::Error;
use crate::journals::{Code, Content, Entry, Journal, Journals, LARGEST_ENTRY};
use crate::sessions::Traffic;

/// A batch is filed when it has so many bytes …
const BATCH: usize = 256 << 10;
/// … or is so old.
const AGE: Duration = Duration::from_millis(250);
/// How often a batch is tried again for which the file has no room at the moment.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Records a terminal of this size until it ends. The recording is complete when the task is.
pub fn start(
    terminal: Arc<Terminal>,
    events: mpsc::Receiver<TerminalEvent>,
    journals: Journals,
    traffic: Traffic,
    size: Size,
) -> tokio::task::JoinHandle<()> {
    let entries = vec![resize_entry(terminal.begun_us, size)];
    let recogniser = Recogniser::new(size);
    let task = Task { terminal, journals, traffic, recogniser, entries, bytes: 0, typed: false };
    tokio::spawn(task.run(events))
}

/// How many events may wait for the recorder.
pub const WAITING: usize = 256;

/// The entry that says the size of the terminal.
fn resize_entry(at: i64, size: Size) -> Entry {
    Entry::chunk(at, Code::Resize, format!("{}x{}", size.cols, size.rows))
}

/// The task that records one terminal.
struct Task {
    terminal: Arc<Terminal>,
    journals: Journals,
    traffic: Traffic,
    recogniser: Recogniser,
    /// The batch that is to be filed next.
    entries: Vec<Entry>,
    /// How many bytes the batch holds.
    bytes: usize,
    /// Whether somebody has typed since the session was last said to be alive.
    typed: bool,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<TerminalEvent>) {
        let mut due = Instant::now() + AGE;
        loop {
            let idle = !self.has_work();
            tokio::select! {
                event = waiting.recv() => match event {
                    Some(event) => {
                        if idle {
                            due = Instant::now() + AGE;
                        }
                        self.take(event);
                    }
                    None => break,
                },
                () = sleep_until(due), if !idle => {
                    if self.recogniser.holds() {
                        self.recogniser.advance_to(self.terminal.now_us().unsigned_abs());
                        self.take_recognised();
                    }
                    self.file().await;
                    due = Instant::now() + AGE;
                }
            }
            if self.bytes >= BATCH {
                self.file().await;
            }
        }
        self.recogniser.advance_to(u64::MAX);
        self.take_recognised();
        self.file().await;
    }

    /// Whether something is to be filed or dropped after a while. A terminal at which nothing happens wakes nobody.
    fn has_work(&self) -> bool {
        !self.entries.is_empty() || self.recogniser.holds() || self.typed
    }

    /// Adds what happened at the terminal to the batch.
    fn take(&mut self, event: TerminalEvent) {
        match event {
            TerminalEvent::Output { at, bytes } => {
                let at = self.terminal.time_of(at);
                self.recogniser.printed(at.unsigned_abs(), &bytes);
                self.terminal.set_full_screen(self.recogniser.is_full_screen());
                self.count(Counts { bytes_out: bytes.len() as u64, ..Counts::default() });
                for piece in bytes.chunks(LARGEST_ENTRY) {
                    self.push(Entry::chunk(at, Code::Output, piece));
                }
            }
            TerminalEvent::Input { at, bytes } => {
                self.recogniser.typed(self.terminal.time_of(at).unsigned_abs(), &bytes);
                self.count(Counts { bytes_in: bytes.len() as u64, ..Counts::default() });
            }
            TerminalEvent::Resized { at, size } => {
                self.recogniser.resized(size);
                self.push(resize_entry(self.terminal.time_of(at), size));
            }
            TerminalEvent::Ended { at, end: TerminalEnd::Shell(ssh::ShellEnd::Exited(status)) } => {
                self.push(Entry::chunk(self.terminal.time_of(at), Code::Exit, status.to_string()));
            }
            TerminalEvent::Ended { .. } => {}
        }
        self.take_recognised();
    }

    /// Takes over what was recognised: input that may be recorded, and command lines as markers.
    fn take_recognised(&mut self) {
        for recognised in self.recogniser.take() {
            match recognised {
                Recognised::Input { at, bytes } => {
                    for piece in bytes.chunks(LARGEST_ENTRY) {
                        self.push(Entry::chunk(micros(at), Code::Input, piece));
                    }
                }
                Recognised::Command { at, text } => {
                    self.count(Counts { requests: 1, ..Counts::default() });
                    self.terminal.count_command();
                    let end = text.floor_char_boundary(LARGEST_ENTRY);
                    self.push(Entry::chunk(micros(at), Code::Marker, &text.as_bytes()[..end]));
                }
            }
        }
    }

    /// Counts at the Gate at once, so that the session's end finds the counts.
    fn count(&mut self, counts: Counts) {
        self.typed |= counts.bytes_in > 0 || counts.requests > 0;
        self.traffic.count(self.terminal.session.number, counts);
    }

    fn push(&mut self, entry: Entry) {
        if let Content::Chunk { bytes, .. } = &entry.content {
            self.bytes += bytes.len();
        }
        self.entries.push(entry);
    }

    /// Files the batch, and says that the session is alive if somebody typed.
    async fn file(&mut self) {
        if std::mem::take(&mut self.typed) {
            self.traffic.observe(&self.terminal.caller, &self.terminal.session, Counts::default());
        }
        self.bytes = 0;
        let mut entries = std::mem::take(&mut self.entries);
        while !entries.is_empty() {
            // An append has a largest size; pieces of output are much smaller.
            let mut size = 0;
            let fits = entries.iter().take_while(|entry| {
                size += entry.bytes().len() + 64;
                size <= 2 * BATCH
            });
            let now = fits.count().max(1);
            let rest = entries.split_off(now);
            self.append(entries).await;
            entries = rest;
        }
    }

    async fn append(&self, entries: Vec<Entry>) {
        loop {
            match self
                .journals
                .append(Journal::Recording, self.terminal.session.number, entries.clone())
                .await
            {
                Ok(_) => return,
                Err(Error::Busy) => tokio::time::sleep(RETRY_PAUSE).await,
                Err(error) => {
                    tracing::error!(%error, session = %self.terminal.session.id, "a part of a recording is lost");
                    return;
                }
            }
        }
    }
}

/// A time of the recogniser as entries have it.
fn micros(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}
