//! The half of a terminal's connection that reads what the client sends.

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::sync::mpsc;

use super::Farewell;
use crate::terminal::frame::{self, ClientFrame, FrameError, Mode};
use crate::terminal::hub::{InputHandle, InputRefusal};

/// The half that reads what the client sends, and types it at the terminal.
pub(super) struct Listener {
    pub input: InputHandle,
    pub mode: Mode,
    pub notices: mpsc::Sender<Notice>,
    /// Whether the full-screen program at the terminal is to draw its screen again.
    pub redraw: bool,
}

/// What the half that sends has to know of what the client sent.
pub(super) enum Notice {
    /// Something was wrong with a frame, and the client is to be told.
    FrameError(FrameError),
    /// The client has the output up to this position.
    Arrived(u64),
    /// The machine takes no input, and nothing more is read of the client until it does.
    HeldUp,
}

impl Listener {
    /// Reads until the connection ends, and returns how it ended.
    pub async fn run(self, stream: &mut SplitStream<WebSocket>) -> Farewell {
        if self.redraw {
            self.input.redraw().await;
        }
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) if is_too_large(&error) => return Farewell::TooLarge,
                Some(Err(_)) | None => return Farewell::None,
            };
            let outcome = match message {
                Message::Text(text) => self.on_frame(&text).await,
                Message::Binary(bytes) => match frame::read_binary(self.mode, &bytes) {
                    Ok(()) => self.on_input(bytes).await,
                    Err(error) => Err(error),
                },
                Message::Pong(payload) => {
                    if let Ok(position) = <[u8; 8]>::try_from(payload.as_ref()) {
                        self.notices.send(Notice::Arrived(u64::from_be_bytes(position))).await.ok();
                    }
                    Ok(())
                }
                Message::Ping(_) => Ok(()),
                Message::Close(_) => return Farewell::None,
            };
            if let Err(error) = outcome
                && self.notices.send(Notice::FrameError(error)).await.is_err()
            {
                return Farewell::None;
            }
        }
    }

    /// Carries out a frame of the client's.
    async fn on_frame(&self, text: &str) -> Result<(), FrameError> {
        match frame::read(text)? {
            ClientFrame::Input(data) => self.on_input(Bytes::from(data)).await,
            ClientFrame::Resize(size) => or_frame_error(self.input.resize(size).await),
            ClientFrame::Auth { .. } => Err(FrameError {
                code: "CONFLICT",
                message: "this connection is authenticated already".into(),
            }),
        }
    }

    /// Types at the terminal. Where the machine takes no input, the half that sends learns of it.
    async fn on_input(&self, bytes: Bytes) -> Result<(), FrameError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let held_up = async || {
            self.notices.send(Notice::HeldUp).await.ok();
        };
        or_frame_error(self.input.input(bytes, held_up).await)
    }
}

/// The error to tell the client. A client that was replaced, or whose terminal has ended, is told of that anyway.
fn or_frame_error(outcome: Result<(), InputRefusal>) -> Result<(), FrameError> {
    match outcome {
        Err(InputRefusal::ReadOnly) => Err(FrameError::read_only()),
        Ok(()) | Err(InputRefusal::Replaced | InputRefusal::Ended) => Ok(()),
    }
}

/// Whether a message was refused because it is larger than a client may send.
fn is_too_large(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<tungstenite::Error>());
    matches!(source, Some(tungstenite::Error::Capacity(_)))
}
