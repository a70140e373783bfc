//! One shell and its connections: at most one writer, who types, and any number of viewers.
//!
//! What the shell prints goes into a ring of bounded size. Each connection reads from the ring at its own position,
//! which is the number of bytes printed since the beginning. The shell is read only while the ring holds everything
//! that the writer has not confirmed: so a slow writer slows the shell, and a writer that comes back has lost nothing.
//! Nobody waits for viewers: one that falls behind the ring is told how much it missed.

mod connection;
mod ring;
mod shell_reader;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep_until;

use super::frame::Size;
use super::ssh::{self, Shell};
use ring::Ring;
use shell_reader::ShellReader;

pub use connection::{Attachment, InputHandle, InputRefusal, Piece};

/// How many bytes may be printed that the writer has not confirmed, and so how many can be replayed.
pub const REPLAY: usize = 256 << 10;
/// The most bytes that a reader gets at once.
const PIECE: usize = 32 << 10;
/// How many bytes of earlier output a new viewer is shown.
const RECENT: u64 = 64 << 10;

/// What happened at the terminal, for the recorder. Times are microseconds since the hub began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalEvent {
    Output { at: u64, bytes: Bytes },
    Input { at: u64, bytes: Bytes },
    Resized { at: u64, size: Size },
    Ended { at: u64, end: TerminalEnd },
}

/// How a terminal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalEnd {
    /// The shell ended, or its machine.
    Shell(ssh::ShellEnd),
    /// The terminal was cut off here.
    Cut,
}

/// The error for a position that was never reached: it is of another terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("only {printed} bytes have been printed: after is of another session")]
pub struct NeverPrinted {
    pub printed: u64,
}

/// The settings of a hub.
#[derive(Debug, Default)]
pub struct Options {
    /// The recorder's channel, which gets every event in order, and before the connections do. The hub waits for a slow
    /// recorder, so that nothing is shown that is not recorded.
    pub recorder: Option<mpsc::Sender<TerminalEvent>>,
    /// How many bytes the shell may print in a second.
    pub rate: Option<NonZeroU64>,
}

/// A shell with its connections. It lives until the shell ends or is cut off.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

/// What the hub, its connections and the task that reads the shell share.
struct Shared {
    shell: Shell,
    rate: Option<NonZeroU64>,
    /// The recorder waits for the end of this channel, and the session's end is recorded only after the recorder is
    /// done. So the channel is closed when the shell is no longer read, and not when the last holder drops the hub.
    recorder: Mutex<Option<mpsc::Sender<TerminalEvent>>>,
    begun: Instant,
    state: Mutex<State>,
    /// Wakes connections: there is output to read, or the terminal has ended.
    readable: Notify,
    /// Wakes everybody else: output was confirmed, a writer has come or left, or the terminal has ended.
    changed: Notify,
    typed: AtomicU64,
    /// Whether the writer waits for the machine to take its input, and so cannot confirm output.
    held_up: AtomicBool,
}

/// What changes while the shell runs.
struct State {
    ring: Ring,
    /// The position up to which the writer has confirmed output, or had when it left.
    confirmed: u64,
    /// The number of the connection that may write.
    writer: u64,
    /// When the last writer left.
    left_at: Option<Instant>,
    size: Size,
    end: Option<TerminalEnd>,
}

impl Hub {
    /// Begins to read a shell.
    pub fn start(shell: Shell, size: Size, options: Options) -> Self {
        let state = State {
            ring: Ring::default(),
            confirmed: 0,
            writer: 0,
            left_at: Some(Instant::now()),
            size,
            end: None,
        };
        let (state, begun) = (Mutex::new(state), Instant::now());
        let Options { recorder, rate } = options;
        let recorder = Mutex::new(recorder);
        let (readable, changed, typed, held_up) = Default::default();
        let shared =
            Arc::new(Shared { shell, rate, recorder, begun, state, readable, changed, typed, held_up });
        tokio::spawn(ShellReader(shared.clone()).run());
        Self { shared }
    }

    /// Makes the caller the writer, in place of any other. Output follows from `after` on, as far as it is still held;
    /// without `after`, from what the former writer has not confirmed.
    pub fn write(&self, after: Option<u64>) -> Result<Attachment, NeverPrinted> {
        let mut state = self.shared.state.lock();
        let after = after.unwrap_or(state.confirmed.max(state.ring.first));
        let position = begin(&state, after)?;
        state.writer += 1;
        state.left_at = None;
        // A client that comes back may have had less than was confirmed before.
        state.confirmed = position;
        let writer = Some(state.writer);
        drop(state);
        self.shared.notify_all();
        Ok(Attachment { hub: self.clone(), writer, position, lost: position - after })
    }

    /// Makes the caller a viewer, from `after` on; without `after`, with the output that was printed last.
    pub fn watch(&self, after: Option<u64>) -> Result<Attachment, NeverPrinted> {
        let state = self.shared.state.lock();
        let after = after.unwrap_or(state.ring.printed().saturating_sub(RECENT).max(state.ring.first));
        let position = begin(&state, after)?;
        drop(state);
        Ok(Attachment { hub: self.clone(), writer: None, position, lost: position - after })
    }

    /// Cuts the terminal off: nothing more is handed to anybody, and the shell is closed.
    pub fn cut(&self) {
        let mut state = self.shared.state.lock();
        if state.end.replace(TerminalEnd::Cut) == Some(TerminalEnd::Cut) {
            return;
        }
        state.ring.clear();
        drop(state);
        self.shared.notify_all();
        let shared = self.shared.clone();
        tokio::spawn(async move { shared.shell.close().await });
    }

    /// Resolves once the terminal has been cut off.
    pub async fn was_cut(&self) {
        let cut = |state: &mut State| (state.end == Some(TerminalEnd::Cut)).then_some(());
        self.shared.until(&self.shared.changed, cut).await;
    }

    /// Resolves once the terminal has ended.
    pub async fn ended(&self) -> TerminalEnd {
        self.shared.until(&self.shared.changed, |state| state.end.clone()).await
    }

    /// Resolves once there has been no writer for this long.
    pub async fn deserted(&self, patience: Duration) {
        loop {
            let left_at = self.shared.until(&self.shared.changed, |state| state.left_at).await;
            sleep_until((left_at + patience).into()).await;
            if self.shared.state.lock().left_at == Some(left_at) {
                return;
            }
        }
    }

    /// The size that the writer has given the terminal.
    pub fn size(&self) -> Size {
        self.shared.state.lock().size
    }

    /// How many bytes were typed, and how many printed.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.typed.load(Ordering::Relaxed), self.shared.state.lock().ring.printed())
    }

    /// The key that the host has shown.
    pub fn host_key(&self) -> &ssh::HostKey {
        self.shared.shell.host_key()
    }
}

/// The position where a reader begins that has had this many bytes.
fn begin(state: &State, after: u64) -> Result<u64, NeverPrinted> {
    let printed = state.ring.printed();
    if after > printed {
        return Err(NeverPrinted { printed });
    }
    Ok(after.max(state.ring.first))
}

impl Shared {
    /// Resolves once the terminal has ended.
    async fn ended(&self) {
        self.until(&self.changed, |state| state.end.is_some().then_some(())).await;
    }

    /// Hands an event to the recorder, and waits while that is slow.
    async fn record(&self, event: TerminalEvent) {
        let recorder = self.recorder.lock().clone();
        if let Some(recorder) = recorder {
            recorder.send(event).await.ok();
        }
    }

    /// The time since the hub began, in microseconds.
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Wakes all who wait for anything.
    fn notify_all(&self) {
        self.readable.notify_waiters();
        self.changed.notify_waiters();
    }

    /// Waits until a look at the state finds what it looks for; `notify` says when to look again.
    async fn until<T>(&self, notify: &Notify, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let notified = notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some(found) = look(&mut self.state.lock()) {
                return found;
            }
            notified.await;
        }
    }
}
