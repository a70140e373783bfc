//! The half of a terminal's connection that sends: output as the terminal prints it, pings, and errors.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Message;
use bytes::Bytes;
use futures_util::SinkExt;
use sessiond_core::reason::Reason;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};

use super::listener::Notice;
use super::{Farewell, Sink};
use crate::sessions::Registration;
use crate::terminal::frame::{Mode, ServerFrame};
use crate::terminal::hub::{Attachment, Piece};
use crate::terminal::text::Text;
use crate::terminal::{EndReason, Role, Terminal, end_reason};

/// After so many bytes of output the client is asked what has arrived.
const PING_AFTER: u64 = 64 << 10;
/// How often the client is asked at least, so that one that has gone is noticed.
const PING_EVERY: Duration = Duration::from_secs(15);
/// A client that answers no ping for so long counts as gone.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// The half that sends the client what the terminal prints, and how it ends.
pub(super) struct Sender {
    terminal: Arc<Terminal>,
    attachment: Attachment,
    mode: Mode,
    role: Role,
    /// Holds the beginning of a character whose rest the terminal has not printed yet.
    text: Text,
    notices: mpsc::Receiver<Notice>,
    /// The position of the output behind which the last ping was sent.
    pinged_at: u64,
    /// When the client last answered a ping.
    answered: Instant,
}

/// What is to be sent, or seen to, next.
enum Next {
    Notice(Notice),
    /// It is time to ask whether the client is still there.
    Ping,
    Piece(Piece),
}

impl Sender {
    pub fn new(
        terminal: Arc<Terminal>,
        attachment: Attachment,
        (mode, role): (Mode, Role),
        notices: mpsc::Receiver<Notice>,
    ) -> Self {
        let (text, pinged_at, answered) = (Text::default(), attachment.position(), Instant::now());
        Self { terminal, attachment, mode, role, text, notices, pinged_at, answered }
    }

    /// Sends the frame that says where output goes on.
    pub async fn ready(&self, sink: &mut Sink, lost: u64) -> Option<()> {
        let size = self.terminal.hub.size();
        let ready = ServerFrame::Ready {
            position: self.attachment.position(),
            cols: size.cols,
            rows: size.rows,
            mode: self.mode,
            read_only: self.role == Role::Viewer,
            lost,
        };
        send_frame(sink, &ready).await.ok()
    }

    /// Sends until the terminal or the connection ends. `listening` is the other half, and the registration says when the
    /// client's credential has ended.
    pub async fn run(
        mut self,
        sink: &mut Sink,
        listening: impl Future<Output = Farewell>,
        registration: &Registration,
    ) -> Farewell {
        let ended = registration.ended();
        tokio::pin!(listening, ended);
        let terminal = self.terminal.clone();
        let mut ping = interval(PING_EVERY);
        loop {
            let next = tokio::select! {
                biased;
                ending = &mut ended => return Farewell::Ended(end_reason(ending)),
                end = &mut listening => return end,
                Some(notice) = self.notices.recv() => Next::Notice(notice),
                _ = ping.tick() => Next::Ping,
                piece = self.attachment.next() => Next::Piece(piece),
            };
            match next {
                Next::Piece(Piece::Replaced) => return Farewell::Replaced,
                Next::Piece(Piece::End(_)) => return Farewell::Ended(self.ended().await),
                _ => {}
            }
            // Whoever was stopped with the whole process goes on here before anybody could say that the lease has run out.
            if let Some(ending) = registration.pass.ending() {
                return Farewell::Ended(end_reason(ending));
            }
            // A client that receives nothing must not keep the terminal from ending, nor its own messages from being read.
            let sent = tokio::select! {
                biased;
                ending = &mut ended => return Farewell::Ended(end_reason(ending)),
                () = terminal.hub.was_cut() => return Farewell::Ended(self.ended().await),
                end = &mut listening => return end,
                sent = timeout(GONE_AFTER, self.send(sink, next)) => sent,
            };
            if !matches!(sent, Ok(Some(()))) {
                return Farewell::None;
            }
        }
    }

    /// Sends or sees to one thing; none if the client has gone.
    async fn send(&mut self, sink: &mut Sink, next: Next) -> Option<()> {
        match next {
            Next::Notice(Notice::Arrived(position)) => {
                self.answered = Instant::now();
                self.attachment.confirm(position);
                Some(())
            }
            Next::Notice(Notice::HeldUp) => {
                self.attachment.confirm(self.attachment.position());
                Some(())
            }
            Next::Notice(Notice::FrameError(error)) => send_frame(sink, &error.to_frame()).await.ok(),
            Next::Ping if self.answered.elapsed() > GONE_AFTER => None,
            Next::Ping => self.ping(sink).await,
            Next::Piece(Piece::Output { bytes, .. }) => self.output(sink, bytes).await,
            Next::Piece(Piece::Lost { bytes, .. }) => self.ready(sink, bytes).await,
            Next::Piece(Piece::Replaced | Piece::End(_)) => Some(()),
        }
    }

    /// The reason for the terminal's end, which its supervisor announces once the end is on record.
    async fn ended(&self) -> EndReason {
        self.terminal.announced_end().await
    }

    /// Sends output. After a while the client is asked what has arrived.
    async fn output(&mut self, sink: &mut Sink, bytes: Bytes) -> Option<()> {
        let message = match self.mode {
            Mode::Binary => Some(Message::Binary(bytes)),
            Mode::Text => {
                let data = self.text.push(&bytes);
                (!data.is_empty()).then(|| Message::Text(ServerFrame::Output { data }.to_json().into()))
            }
        };
        if let Some(message) = message {
            sink.send(message).await.ok()?;
        }
        let position = self.attachment.position();
        if self.attachment.is_held_up() {
            self.attachment.confirm(position);
        }
        if position - self.pinged_at >= PING_AFTER {
            self.ping(sink).await?;
        }
        Some(())
    }

    /// Asks what has arrived: a client that answers a ping has everything that was sent before it.
    async fn ping(&mut self, sink: &mut Sink) -> Option<()> {
        self.pinged_at = self.attachment.position();
        let position = self.pinged_at.to_be_bytes();
        sink.send(Message::Ping(Bytes::copy_from_slice(&position))).await.ok()
    }
}

/// Sends one frame as JSON.
pub(super) async fn send_frame(sink: &mut Sink, frame: &ServerFrame<'_>) -> Result<(), axum::Error> {
    sink.send(Message::Text(frame.to_json().into())).await
}

/// The word that the surface has for the reason of an end.
pub(super) fn disconnect_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Lifetime => "expired",
        Reason::Idle => "idle",
        Reason::Client | Reason::Exited | Reason::MachineLost | Reason::UpstreamLost | Reason::Failed => {
            "closed"
        }
        Reason::Terminated
        | Reason::Revoked
        | Reason::Archived
        | Reason::Stale
        | Reason::Evicted
        | Reason::Superseded => "terminated",
    }
}
