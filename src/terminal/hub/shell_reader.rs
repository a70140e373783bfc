//! The task that reads the shell and puts its output into the ring.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::{REPLAY, Shared, State, TerminalEnd, TerminalEvent};
use crate::terminal::ssh::ShellEvent;

/// A shell that printed less than its rate allows can catch up with this much time's output.
const BURST: Duration = Duration::from_secs(1);

/// The task that reads the shell. However it ends, nothing more is recorded after it.
pub(super) struct ShellReader(pub Arc<Shared>);

impl ShellReader {
    pub async fn run(self) {
        self.0.read_shell().await;
    }
}

impl Drop for ShellReader {
    fn drop(&mut self) {
        self.0.recorder.lock().take();
        self.0.state.lock().end.get_or_insert(TerminalEnd::Cut);
        self.0.notify_all();
    }
}

impl Shared {
    /// Reads the shell as fast as the writer confirms its output.
    async fn read_shell(&self) {
        let mut free_at = Instant::now();
        loop {
            let may_read = |state: &State| match state.end {
                Some(_) => Some(false),
                None => (state.ring.printed() - state.confirmed < REPLAY as u64).then_some(true),
            };
            if !self.until(&self.changed, |state| may_read(state)).await {
                break;
            }
            let event = tokio::select! {
                biased;
                () = self.ended() => break,
                event = self.shell.next() => event,
            };
            match event {
                ShellEvent::Output(bytes) => {
                    self.record(TerminalEvent::Output { at: self.now(), bytes: bytes.clone() }).await;
                    self.print(&bytes);
                    free_at = self.pause(free_at, bytes.len()).await;
                }
                ShellEvent::End(end) => {
                    self.state.lock().end.get_or_insert(TerminalEnd::Shell(end));
                    self.notify_all();
                    break;
                }
            }
        }
        let end = self.state.lock().end.clone().unwrap_or(TerminalEnd::Cut);
        self.record(TerminalEvent::Ended { at: self.now(), end }).await;
        self.recorder.lock().take();
        self.shell.close().await;
    }

    /// Puts output into the ring, for all connections.
    fn print(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        // A terminal that was cut off prints nothing more.
        if state.end.is_none() {
            state.ring.push(bytes);
            drop(state);
            self.readable.notify_waiters();
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
}
