//! A connection to a shell: it reads from the output at its own position, and types if it is the writer.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::timeout;

use super::{Hub, TerminalEnd, TerminalEvent};
use crate::terminal::frame::Size;

/// If the machine does not take input for so long, the writer counts as held up.
const HELD_UP: Duration = Duration::from_millis(50);
/// How long a program keeps the other size that makes it draw its screen again.
const REDRAWN: Duration = Duration::from_millis(150);

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

/// Why input was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputRefusal {
    /// A viewer may not type.
    ReadOnly,
    /// Another connection has become the writer.
    Replaced,
    /// The terminal has ended.
    Ended,
}

/// A connection to the terminal.
pub struct Attachment {
    pub(super) hub: Hub,
    /// The number of the connection among the writers; none for a viewer.
    pub(super) writer: Option<u64>,
    pub(super) position: u64,
    /// How many of the bytes that were asked for are no longer held.
    pub lost: u64,
}

impl Attachment {
    /// The position of the next piece.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next piece. Nothing is lost if the future is dropped before it is done.
    pub async fn next(&mut self) -> Piece {
        let (writer, position) = (self.writer, self.position);
        let shared = &self.hub.shared;
        let piece = shared
            .until(&shared.readable, |state| {
                if state.end == Some(TerminalEnd::Cut) {
                    return Some(Piece::End(TerminalEnd::Cut));
                }
                if writer.is_some_and(|writer| writer != state.writer) {
                    return Some(Piece::Replaced);
                }
                if position < state.ring.first {
                    return Some(Piece::Lost {
                        bytes: state.ring.first - position,
                        position: state.ring.first,
                    });
                }
                if position < state.ring.printed() {
                    let bytes = state.ring.read(position);
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
            shared.changed.notify_waiters();
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

impl Drop for Attachment {
    fn drop(&mut self) {
        let shared = &self.hub.shared;
        let mut state = shared.state.lock();
        if self.writer == Some(state.writer) {
            state.left_at = Some(Instant::now());
            drop(state);
            shared.changed.notify_waiters();
        }
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
    pub async fn input(&self, bytes: Bytes, held_up: impl AsyncFnOnce()) -> Result<(), InputRefusal> {
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
            () = shared.ended() => Err(InputRefusal::Ended),
            taken = typing => if taken { Ok(()) } else { Err(InputRefusal::Ended) },
        }
    }

    /// Gives the terminal another size.
    pub async fn resize(&self, size: Size) -> Result<(), InputRefusal> {
        self.may_write()?;
        let shared = &self.hub.shared;
        shared.record(TerminalEvent::Resized { at: shared.now(), size }).await;
        shared.state.lock().size = size;
        tokio::select! {
            biased;
            () = shared.ended() => Err(InputRefusal::Ended),
            taken = shared.shell.resize(size) => if taken { Ok(()) } else { Err(InputRefusal::Ended) },
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

    fn may_write(&self) -> Result<(), InputRefusal> {
        let state = self.hub.shared.state.lock();
        match self.writer {
            None => Err(InputRefusal::ReadOnly),
            Some(_) if state.end.is_some() => Err(InputRefusal::Ended),
            Some(writer) if writer != state.writer => Err(InputRefusal::Replaced),
            Some(_) => Ok(()),
        }
    }
}
