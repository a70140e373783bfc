//! One shell and its connections: at most one writer, who types, and any number of viewers.
//!
//! What the shell prints goes into a ring of bounded size. Each connection reads from the ring at its own position,
//! which is the number of bytes printed since the beginning. The shell is read only while the ring holds everything
//! that the writer has not confirmed: so a slow writer slows the shell, and a writer that comes back has lost nothing.
//! Nobody waits for viewers: one that falls behind the ring is told how much it missed.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep_until, timeout};

use super::frame::Size;
use super::ssh::{self, Shell, ShellEvent};

/// How many bytes may be printed that the writer has not confirmed, and so how many can be replayed.
pub const REPLAY: usize = 256 << 10;
/// The most bytes that a reader gets at once.
const PIECE: usize = 32 << 10;
/// How many bytes of earlier output a new viewer is shown.
const RECENT: u64 = 64 << 10;
/// If the machine does not take input for so long, the writer counts as held up.
const HELD_UP: Duration = Duration::from_millis(50);
/// How long a program keeps the other size that makes it draw its screen again.
const REDRAWN: Duration = Duration::from_millis(150);
/// A shell that printed less than its rate allows can catch up with this much time's output.
const BURST: Duration = Duration::from_secs(1);

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

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Output, and the position behind it.
    Output {
        bytes: Bytes,
        position: u64,
    },
    /// So many bytes were missed; reading goes on from this position.
    Lost {
        bytes: u64,
        position: u64,
    },
    /// Another connection has become the writer.
    Replaced,
    End(TerminalEnd),
}

/// The error for a position that was never reached: it is of another terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("only {printed} bytes have been printed: after is of another session")]
pub struct NeverPrinted {
    pub printed: u64,
}

/// Why input was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A viewer may not type.
    ReadOnly,
    Replaced,
    Ended,
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

struct Shared {
    shell: Shell,
    rate: Option<NonZeroU64>,
    /// The recorder waits for the end of this channel, and the session's end is recorded only after the recorder is
    /// done. So the channel is closed when the shell is no longer read, and not when the last holder drops the hub.
    recorder: Mutex<Option<mpsc::Sender<TerminalEvent>>>,
    begun: Instant,
    state: Mutex<State>,
    /// Wakes readers.
    changed: Notify,
    /// Wakes those who wait for readers.
    room: Notify,
    typed: AtomicU64,
    /// Whether the writer waits for the machine to take its input, and so cannot confirm output.
    held_up: AtomicBool,
}

struct State {
    ring: VecDeque<u8>,
    /// The position of the first byte in the ring.
    first: u64,
    /// The position up to which the writer has confirmed output, or had when it left.
    confirmed: u64,
    /// The number of the connection that may write.
    writer: u64,
    /// When the last writer left.
    left_at: Option<Instant>,
    size: Size,
    end: Option<TerminalEnd>,
}

impl State {
    fn printed(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    fn push(&mut self, bytes: &[u8]) {
        self.ring.extend(bytes);
        // Unconfirmed output never exceeds this, because the shell is not read beyond it.
        let spare = self.ring.len().saturating_sub(REPLAY + PIECE);
        self.ring.drain(..spare);
        self.first += spare as u64;
    }

    fn read(&self, position: u64) -> Bytes {
        let begin = usize::try_from(position - self.first).unwrap_or(usize::MAX);
        let count = self.ring.len().saturating_sub(begin).min(PIECE);
        let (front, back) = self.ring.as_slices();
        let mut piece = Vec::with_capacity(count);
        if let Some(front) = front.get(begin..) {
            piece.extend_from_slice(&front[..count.min(front.len())]);
        }
        let begin = begin.saturating_sub(front.len());
        piece.extend_from_slice(&back[begin..begin + count - piece.len()]);
        piece.into()
    }
}

impl Hub {
    /// Begins to read a shell.
    pub fn start(shell: Shell, size: Size, options: Options) -> Self {
        let state = State {
            ring: VecDeque::new(),
            first: 0,
            confirmed: 0,
            writer: 0,
            left_at: Some(Instant::now()),
            size,
            end: None,
        };
        let (state, begun) = (Mutex::new(state), Instant::now());
        let Options { recorder, rate } = options;
        let recorder = Mutex::new(recorder);
        let (changed, room, typed, held_up) = Default::default();
        let shared = Arc::new(Shared { shell, rate, recorder, begun, state, changed, room, typed, held_up });
        tokio::spawn(Pumping(shared.clone()).run());
        Self { shared }
    }

    /// Makes the caller the writer, in place of any other. Output follows from `after` on, as far as it is still held;
    /// without `after`, from what the former writer has not confirmed.
    pub fn write(&self, after: Option<u64>) -> Result<Attached, NeverPrinted> {
        let mut state = self.shared.state.lock();
        let after = after.unwrap_or(state.confirmed.max(state.first));
        let position = begin(&state, after)?;
        state.writer += 1;
        state.left_at = None;
        // A client that comes back may have had less than was confirmed before.
        state.confirmed = position;
        let writer = Some(state.writer);
        drop(state);
        self.shared.tell();
        Ok(Attached { hub: self.clone(), writer, position, lost: position - after })
    }

    /// Makes the caller a viewer, from `after` on; without `after`, with the output that was printed last.
    pub fn watch(&self, after: Option<u64>) -> Result<Attached, NeverPrinted> {
        let state = self.shared.state.lock();
        let after = after.unwrap_or(state.printed().saturating_sub(RECENT).max(state.first));
        let position = begin(&state, after)?;
        drop(state);
        Ok(Attached { hub: self.clone(), writer: None, position, lost: position - after })
    }

    /// Cuts the terminal off: nothing more is handed to anybody, and the shell is closed.
    pub fn cut(&self) {
        let mut state = self.shared.state.lock();
        if state.end.replace(TerminalEnd::Cut) == Some(TerminalEnd::Cut) {
            return;
        }
        state.first = state.printed();
        state.ring = VecDeque::new();
        drop(state);
        self.shared.tell();
        let shared = self.shared.clone();
        tokio::spawn(async move { shared.shell.close().await });
    }

    /// Resolves once the terminal has been cut off.
    pub async fn was_cut(&self) {
        let cut = |state: &mut State| (state.end == Some(TerminalEnd::Cut)).then_some(());
        self.shared.until(&self.shared.room, cut).await;
    }

    /// Resolves once the terminal has ended.
    pub async fn over(&self) -> TerminalEnd {
        self.shared.until(&self.shared.room, |state| state.end.clone()).await
    }

    /// Resolves once there has been no writer for this long.
    pub async fn deserted(&self, patience: Duration) {
        loop {
            let left_at = self.shared.until(&self.shared.room, |state| state.left_at).await;
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
        (self.shared.typed.load(Ordering::Relaxed), self.shared.state.lock().printed())
    }

    /// The key that the host has shown.
    pub fn host_key(&self) -> &ssh::HostKey {
        self.shared.shell.host_key()
    }
}

/// The position where a reader begins that has had this many bytes.
fn begin(state: &State, after: u64) -> Result<u64, NeverPrinted> {
    let printed = state.printed();
    if after > printed {
        return Err(NeverPrinted { printed });
    }
    Ok(after.max(state.first))
}

/// The task that reads the shell. However it ends, nothing more is recorded after it.
struct Pumping(Arc<Shared>);

impl Pumping {
    async fn run(self) {
        self.0.pump().await;
    }
}

impl Drop for Pumping {
    fn drop(&mut self) {
        self.0.recorder.lock().take();
        self.0.state.lock().end.get_or_insert(TerminalEnd::Cut);
        self.0.tell();
    }
}

impl Shared {
    /// Reads the shell as fast as the writer confirms its output.
    async fn pump(&self) {
        let mut free_at = Instant::now();
        loop {
            let may_read = |state: &State| match state.end {
                Some(_) => Some(false),
                None => (state.printed() - state.confirmed < REPLAY as u64).then_some(true),
            };
            if !self.until(&self.room, |state| may_read(state)).await {
                break;
            }
            let heard = tokio::select! {
                biased;
                () = self.ended() => break,
                heard = self.shell.next() => heard,
            };
            match heard {
                ShellEvent::Output(bytes) => {
                    self.record(TerminalEvent::Output { at: self.now(), bytes: bytes.clone() }).await;
                    self.print(&bytes);
                    free_at = self.pause(free_at, bytes.len()).await;
                }
                ShellEvent::End(end) => {
                    self.state.lock().end.get_or_insert(TerminalEnd::Shell(end));
                    self.tell();
                    break;
                }
            }
        }
        let end = self.state.lock().end.clone().unwrap_or(TerminalEnd::Cut);
        self.record(TerminalEvent::Ended { at: self.now(), end }).await;
        self.recorder.lock().take();
        self.shell.close().await;
    }

    fn print(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        // A terminal that was cut off prints nothing more.
        if state.end.is_none() {
            state.push(bytes);
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// Waits as long as the rate demands after so many bytes. Returns the time from which on the shell may be read
    /// again.
    async fn pause(&self, free_at: Instant, bytes: usize) -> Instant {
        let Some(rate) = self.rate else { return free_at };
        let now = Instant::now();
        let begin = now.checked_sub(BURST).map_or(free_at, |earliest| free_at.max(earliest));
        let free_at = begin + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        if free_at > now {
            tokio::select! {
                () = self.ended() => {}
                () = sleep_until(free_at.into()) => {}
            }
        }
        free_at
    }

    async fn ended(&self) {
        self.until(&self.room, |state| state.end.is_some().then_some(())).await;
    }

    async fn record(&self, event: TerminalEvent) {
        let recorder = self.recorder.lock().clone();
        if let Some(recorder) = recorder {
            recorder.send(event).await.ok();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn tell(&self) {
        self.changed.notify_waiters();
        self.room.notify_waiters();
    }

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

/// A connection to the terminal.
pub struct Attached {
    hub: Hub,
    writer: Option<u64>,
    position: u64,
    /// How many of the bytes that were asked for are no longer held.
    pub lost: u64,
}

impl Attached {
    /// The position of the next piece.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next piece. Nothing is lost if the future is dropped before it is done.
    pub async fn next(&mut self) -> Piece {
        let (writer, position) = (self.writer, self.position);
        let shared = &self.hub.shared;
        let piece = shared
            .until(&shared.changed, |state| {
                if state.end == Some(TerminalEnd::Cut) {
                    return Some(Piece::End(TerminalEnd::Cut));
                }
                if writer.is_some_and(|writer| writer != state.writer) {
                    return Some(Piece::Replaced);
                }
                if position < state.first {
                    return Some(Piece::Lost { bytes: state.first - position, position: state.first });
                }
                if position < state.printed() {
                    let bytes = state.read(position);
                    let position = position + bytes.len() as u64;
                    return Some(Piece::Output { bytes, position });
                }
                state.end.clone().map(Piece::End)
            })
            .await;
        if let Piece::Output { position, .. } | Piece::Lost { position, .. } = &piece {
            self.position = *position;
        }
        piece
    }

    /// Notes that the client has the output up to this position. The shell is read on only if the writer confirms:
    /// unconfirmed output is kept for a writer that comes back. A client confirms by its answer to a ping that was sent
    /// behind the output.
    pub fn confirm(&self, position: u64) {
        let shared = &self.hub.shared;
        let mut state = shared.state.lock();
        if self.writer == Some(state.writer) && position <= self.position && position > state.confirmed {
            state.confirmed = position;
            drop(state);
            shared.room.notify_waiters();
        }
    }

    /// Whether the machine takes no input and so holds the writer up. What was handed to the writer then counts as
    /// confirmed: otherwise a program that prints before it reads would wait for ever for a writer who cannot be heard.
    pub fn is_held_up(&self) -> bool {
        self.hub.shared.held_up.load(Ordering::Relaxed)
    }

    /// A handle for typing, for a task of its own.
    pub fn input_handle(&self) -> InputHandle {
        InputHandle { hub: self.hub.clone(), writer: self.writer }
    }
}

/// Types at a terminal, if its connection is the writer.
#[derive(Clone)]
pub struct InputHandle {
    hub: Hub,
    writer: Option<u64>,
}

impl InputHandle {
    /// Types these bytes. It waits while the machine takes no more, and calls `held_up` when that takes long.
    pub async fn input(&self, bytes: Bytes, held_up: impl AsyncFnOnce()) -> Result<(), Refused> {
        self.may_write()?;
        let shared = &self.hub.shared;
        // Input is recorded before it is typed, so that its echo is not recorded first.
        shared.record(TerminalEvent::Input { at: shared.now(), bytes: bytes.clone() }).await;
        shared.typed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let typing = async {
            let taken = shared.shell.input(bytes);
            tokio::pin!(taken);
            if let Ok(taken) = timeout(HELD_UP, &mut taken).await {
                return taken;
            }
            shared.held_up.store(true, Ordering::Relaxed);
            held_up().await;
            let taken = taken.await;
            shared.held_up.store(false, Ordering::Relaxed);
            taken
        };
        tokio::select! {
            biased;
            () = shared.ended() => Err(Refused::Ended),
            taken = typing => if taken { Ok(()) } else { Err(Refused::Ended) },
        }
    }

    /// Gives the terminal another size.
    pub async fn resize(&self, size: Size) -> Result<(), Refused> {
        self.may_write()?;
        let shared = &self.hub.shared;
        shared.record(TerminalEvent::Resized { at: shared.now(), size }).await;
        shared.state.lock().size = size;
        tokio::select! {
            biased;
            () = shared.ended() => Err(Refused::Ended),
            taken = shared.shell.resize(size) => if taken { Ok(()) } else { Err(Refused::Ended) },
        }
    }

    /// Makes a full-screen program draw its screen again, by giving it another size for a moment. A client with an
    /// empty page would otherwise see nothing of the program.
    pub async fn redraw(&self) {
        let size = self.hub.size();
        let other = Size { rows: if size.rows > 1 { size.rows - 1 } else { 2 }, ..size };
        if self.resize(other).await.is_err() {
            return;
        }
        // Without the pause a program that looks at once would find the size that it knows.
        tokio::time::sleep(REDRAWN).await;
        let unchanged = self.hub.size() == other;
        if unchanged {
            self.resize(size).await.ok();
        }
    }

    fn may_write(&self) -> Result<(), Refused> {
        let state = self.hub.shared.state.lock();
        match self.writer {
            None => Err(Refused::ReadOnly),
            Some(_) if state.end.is_some() => Err(Refused::Ended),
            Some(writer) if writer != state.writer => Err(Refused::Replaced),
            Some(_) => Ok(()),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let shared = &self.hub.shared;
        let mut state = shared.state.lock();
        if self.writer == Some(state.writer) {
            state.left_at = Some(Instant::now());
            drop(state);
            shared.room.notify_waiters();
        }
    }
}
