//! Two bodies that a connection has to know of: a request's, which tells the connection how far it was read, and a
//! response's, which keeps the connection from counting as idle.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{BodyState, Connection, WorkGuard};

/// The body of a request.
pub struct RequestBody {
    /// The body as hyper has it; none once all of it was read.
    incoming: Option<Incoming>,
    connection: Arc<Connection>,
    /// Whether the client sends the body by itself, and not only when it is asked to.
    unasked: bool,
    /// Whether a handler has begun to read the body.
    begun: bool,
}

impl RequestBody {
    /// Wraps a request's body; none where there is no body. `waits` says that the client waits until it is asked for the
    /// body (`Expect: 100-continue`).
    pub(super) fn new(incoming: Incoming, connection: &Arc<Connection>, waits: bool) -> Option<Self> {
        let connection = || connection.clone();
        (!incoming.is_end_stream()).then(|| Self {
            incoming: Some(incoming),
            connection: connection(),
            unasked: !waits,
            begun: false,
        })
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Polling hyper's body asks the client for it.
        (self.unasked, self.begun) = (true, true);
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(context);
        let read = match &polled {
            Poll::Ready(Some(Ok(_))) if incoming.is_end_stream() => BodyState::Whole,
            Poll::Ready(None) => BodyState::Whole,
            Poll::Ready(Some(Err(_))) => BodyState::Failed,
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

impl Drop for RequestBody {
    /// Keeps a body that nobody reads until the response is there: hyper would close the connection without a word if the
    /// body were dropped before.
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        let mut state = self.connection.state.lock();
        if !state.answered {
            state.body = BodyState::Left(Leftover { incoming, unasked: self.unasked, begun: self.begun });
        }
    }
}

/// The rest of a body that no handler will read.
pub(super) struct Leftover {
    incoming: Incoming,
    unasked: bool,
    begun: bool,
}

impl Leftover {
    /// Whether the client sends the rest by itself, and no more than this many bytes. The rest of a body that a handler has
    /// given up reading may be anything, because it was too slow or too large.
    pub(super) fn is_sent_within(&self, most: u64) -> bool {
        self.unasked && !self.begun && self.incoming.size_hint().upper().is_some_and(|upper| upper <= most)
    }

    /// Whether the client sends the rest by itself.
    pub(super) fn is_unasked(&self) -> bool {
        self.unasked
    }
}

/// Reads the rest of a body, and keeps nothing of it.
pub(super) async fn discard(mut left: Leftover, most: u64, within: Duration, guard: WorkGuard) {
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
    drop(guard);
}

/// The body of a response.
pub struct ResponseBody {
    body: Body,
    _guard: WorkGuard,
}

impl ResponseBody {
    pub(super) fn new(body: Body, guard: WorkGuard) -> Self {
        Self { body, _guard: guard }
    }
}

impl http_body::Body for ResponseBody {
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
