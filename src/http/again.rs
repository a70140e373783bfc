//! Asking once more, where a request is about something that is not known here and may be known on another node: a client goes
//! on at any node with what it has just got from one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use super::limits_layer::in_time;
use super::surface::Layered;

/// The largest body that is kept for a second time.
const LARGEST: usize = 64 << 10;

/// Answers a request, and once more where what it is about has come from another node meanwhile. An answer that says that there
/// is no such thing has had no effect.
pub async fn answer(at: &Layered, request: Request, next: Next) -> Response {
    let Some(before) = at.app.catch_up.at() else { return in_time(at, request, next).await };
    let (parts, body) = request.into_parts();
    let kept = Arc::new(Mutex::new(Kept { rest: body, read: vec![], size: 0 }));
    let body = || Body::new(Replay { kept: kept.clone(), next: 0 });
    let first = in_time(at, Request::from_parts(parts.clone(), body()), next.clone()).await;
    let unknown = matches!(first.status(), StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND);
    let again = unknown && kept.lock().size <= LARGEST;
    if !again || !at.app.catch_up.further(before).await {
        return first;
    }
    in_time(at, Request::from_parts(parts, body()), next).await
}

/// A body, and what has been read of it.
struct Kept {
    rest: Body,
    read: Vec<Bytes>,
    /// How many bytes have been read; beyond the largest none are kept.
    size: usize,
}

/// One reading of a body from its beginning.
struct Replay {
    kept: Arc<Mutex<Kept>>,
    next: usize,
}

impl HttpBody for Replay {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let mut kept = this.kept.lock();
        if let Some(bytes) = kept.read.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
        }
        let frame = ready!(Pin::new(&mut kept.rest).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            kept.size += bytes.len();
            if kept.size <= LARGEST {
                kept.read.push(bytes.clone());
                this.next += 1;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.lock();
        self.next >= kept.read.len() && kept.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.lock();
        let ahead: usize = kept.read.iter().skip(self.next).map(Bytes::len).sum();
        let rest = kept.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead as u64);
        }
        hint
    }
}
