//! The body of a request as it comes in by a connection, which learns how far it was read; and the answer's, which keeps the
//! connection from counting as idle.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Connection, Read, Turn};

/// What a client sends.
pub struct Asked {
    /// None when all of it was read.
    incoming: Option<Incoming>,
    connection: Arc<Connection>,
    /// Whether the client sends it by itself, and not only when it is asked to.
    promised: bool,
    /// Whether somebody has begun to read it.
    begun: bool,
}

impl Asked {
    /// None where there is no body. `waits` says that the client waits to be asked (`Expect: 100-continue`).
    pub(super) fn new(incoming: Incoming, connection: &Arc<Connection>, waits: bool) -> Option<Self> {
        let connection = || connection.clone();
        (!incoming.is_end_stream()).then(|| Self {
            incoming: Some(incoming),
            connection: connection(),
            promised: !waits,
            begun: false,
        })
    }
}

impl http_body::Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Now it is asked for.
        (self.promised, self.begun) = (true, true);
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(context);
        let read = match &polled {
            Poll::Ready(Some(Ok(_))) if incoming.is_end_stream() => Read::Whole,
            Poll::Ready(None) => Read::Whole,
            Poll::Ready(Some(Err(_))) => Read::Failed,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => return polled,
        };
        self.incoming = None;
        self.connection.state.lock().body = read;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Asked {
    /// What nobody reads is not let go of before the answer is there: hyper would close the connection without a word.
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        let mut state = self.connection.state.lock();
        if !state.answered {
            state.body = Read::Left(Leftover { incoming, promised: self.promised, begun: self.begun });
        }
    }
}

/// What is left of a body that nobody will read.
pub(super) struct Leftover {
    incoming: Incoming,
    promised: bool,
    begun: bool,
}

impl Leftover {
    /// Whether it comes by itself, and is no more than this. Of one that somebody has given up reading, because it was too
    /// slow or too much, that cannot be hoped.
    pub(super) fn comes(&self, most: u64) -> bool {
        self.promised && !self.begun && self.incoming.size_hint().upper().is_some_and(|upper| upper <= most)
    }

    pub(super) fn was_promised(&self) -> bool {
        self.promised
    }
}

/// Reads what is left, and keeps nothing of it.
pub(super) async fn discard(mut left: Leftover, most: u64, within: Duration, turn: Turn) {
    let read = async {
        let mut count = 0;
        while let Some(Ok(frame)) = left.incoming.frame().await {
            count += frame.data_ref().map_or(0, |data| data.len() as u64);
            if count > most {
                return;
            }
        }
    };
    timeout(within, read).await.ok();
    drop(turn);
}

/// What is answered.
pub struct Answer {
    body: Body,
    _turn: Turn,
}

impl Answer {
    pub(super) fn new(body: Body, turn: Turn) -> Self {
        Self { body, _turn: turn }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
