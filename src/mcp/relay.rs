//! Hands an upstream's answer on as it comes: JSON of every revision, and the streams of 2026-07-28, which end with
//! their connection. An answer that is cut off ends with an error for each call in flight: without it clients wait
//! until their own time-out.

use std::collections::VecDeque;
use std::io;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, stream};
use http_body::Body as _;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::forward::data;
use super::in_flight::InFlight;
use super::message;
use super::pump::{HOLD, QUIET};
use super::reply::{RpcError, last_words};
use super::sse_events::{BOM, Splitter};
use crate::meter;

impl InFlight {
    /// The body that hands on an upstream's answer. Where `must_answer` is set, a call that the answer does not answer
    /// gets an error in its place.
    pub fn relay(self, read: Bytes, rest: Option<Body>, events: bool, must_answer: bool) -> Body {
        let shape = if events {
            let mut splitter = Splitter::default();
            splitter.push(&read);
            Shape::Events { splitter, open_event: None }
        } else if says_too_large(rest.as_ref()) {
            Shape::Raw
        } else {
            let length = read.len();
            Shape::Whole(Buffered {
                length,
                pieces: Some(read).filter(|read| !read.is_empty()).into_iter().collect(),
            })
        };
        let quiet_at = Instant::now() + if events { QUIET } else { self.patience };
        let measured = events.then(|| meter::Stream::begin("mcp"));
        let pieces = VecDeque::new();
        let mut relay = Relay {
            in_flight: self,
            rest,
            shape,
            pieces,
            sent: 0,
            quiet_at,
            finished: false,
            must_answer,
            _measured: measured,
        };
        if events {
            return relay.stream(None);
        }
        // Most answers have come whole by now.
        match relay.next().now_or_never() {
            Some(Some(Ok(all))) if relay.finished && relay.pieces.is_empty() => {
                relay.sent = all.len() as u64;
                relay.in_flight.count_bytes(relay.sent);
                Body::from(all)
            }
            Some(None) => Body::empty(),
            first => relay.stream(first.flatten()),
        }
    }
}

/// Whether an answer announces that it is larger than what is held. It is then not held at all.
fn says_too_large(body: Option<&Body>) -> bool {
    body.and_then(|body| body.size_hint().exact()).is_some_and(|length| length > HOLD as u64)
}

/// The state of an answer that is being handed on.
struct Relay {
    in_flight: InFlight,
    _measured: Option<meter::Stream>,
    /// The rest of the upstream's body; none once it ended.
    rest: Option<Body>,
    shape: Shape,
    /// Pieces that may be handed on.
    pieces: VecDeque<Bytes>,
    /// How many bytes were handed on.
    sent: u64,
    quiet_at: Instant,
    finished: bool,
    /// Whether the answer is one to calls, and not a refusal.
    must_answer: bool,
}

/// What sort of body the answer has.
enum Shape {
    /// Server-sent events, which are handed on one by one.
    Events {
        splitter: Splitter,
        /// Set while an event too large to hold is only partly handed on; says whether that part ended with a line.
        open_event: Option<bool>,
    },
    /// One JSON value, which is held until it is whole.
    Whole(Buffered),
    /// An answer too large to hold, which is handed on as it comes.
    Raw,
}

/// The pieces of an answer as they came. They stay apart, because joining them would copy them.
struct Buffered {
    pieces: VecDeque<Bytes>,
    length: usize,
}

/// What happens next while an answer is handed on.
enum UpstreamEvent {
    /// The answer is cut off from our side, with this error.
    Cut(RpcError),
    /// Nothing has come for a while.
    Quiet,
    Piece(Bytes),
    End,
    /// The upstream's body broke off.
    Broken,
}

impl Relay {
    /// The body of an answer that has not come whole yet, or may be large; `first` was taken from it already.
    fn stream(self, first: Option<io::Result<Bytes>>) -> Body {
        Body::from_stream(stream::unfold((first, self), |(mut first, mut relay)| async move {
            let next = match first.take() {
                Some(first) => first,
                None => relay.next().await?,
            };
            let bytes = next.as_ref().map_or(0, |bytes| bytes.len() as u64);
            relay.sent += bytes;
            relay.in_flight.count_bytes(bytes);
            Some((next, (None, relay)))
        }))
    }

    /// What the client is sent next; none at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.finished {
                return self.pieces.pop_front().map(Ok);
            }
            if self.begins_with_bom() {
                return self.cut_off(&RpcError::byte_order_mark());
            }
            // Whether the session still allows it is asked in the very poll that hands something on.
            if !self.in_flight.is_cut()
                && let Some(ready) = self.ready()
            {
                self.quiet_at = Instant::now() + QUIET;
                return Some(Ok(ready));
            }
            match self.next_event().await {
                UpstreamEvent::Cut(rpc_error) => {
                    self.in_flight.give_up(&rpc_error);
                    return self.cut_off(&rpc_error);
                }
                UpstreamEvent::Broken => return self.cut_off(&RpcError::upstream_lost()),
                UpstreamEvent::End => return self.end(),
                UpstreamEvent::Quiet if matches!(self.shape, Shape::Whole(_) | Shape::Raw) => {
                    return self.cut_off(&RpcError::upstream_slow_to_finish());
                }
                UpstreamEvent::Quiet => {
                    self.quiet_at = Instant::now() + QUIET;
                    return Some(Ok(Bytes::from_static(b":\n\n")));
                }
                UpstreamEvent::Piece(piece) => {
                    if !matches!(self.shape, Shape::Events { .. }) {
                        self.quiet_at = Instant::now() + self.in_flight.patience;
                    }
                    match &mut self.shape {
                        Shape::Events { splitter, .. } => {
                            splitter.push(&piece);
                            self.in_flight.share.set(splitter.memory());
                        }
                        Shape::Whole(buffered) => {
                            buffered.length += piece.len();
                            buffered.pieces.push_back(piece);
                            self.in_flight.share.set(buffered.length);
                        }
                        Shape::Raw => return Some(Ok(piece)),
                    }
                }
            }
        }
    }

    /// Waits for what happens next.
    async fn next_event(&mut self) -> UpstreamEvent {
        if let Some(stop) = self.in_flight.stopped() {
            return UpstreamEvent::Cut(self.in_flight.rpc_error(stop));
        }
        let Some(body) = &mut self.rest else { return UpstreamEvent::End };
        // A piece that has come already is taken without setting a timer.
        if let Some(event) = piece(body).now_or_never() {
            return event;
        }
        let may_speak = !matches!(self.shape, Shape::Events { open_event: Some(_), .. });
        tokio::select! {
            biased;
            rpc_error = self.in_flight.cut() => UpstreamEvent::Cut(rpc_error),
            event = piece(body) => event,
            () = sleep_until(self.quiet_at), if may_speak => UpstreamEvent::Quiet,
        }
    }

    /// The bytes that may be handed on now: whole events, or a part of one that is too large to hold.
    fn ready(&mut self) -> Option<Bytes> {
        match &mut self.shape {
            Shape::Events { splitter, open_event } => {
                let mut ready = BytesMut::new();
                while let Some(event) = splitter.next() {
                    if open_event.take().is_some() {
                        // The large event may have been an answer; nobody has looked into it.
                        self.in_flight.ids.clear();
                    }
                    if event.is_message {
                        let answers = self.in_flight.answers_in(&event.data);
                        self.in_flight.mark_answered(&answers);
                    }
                    ready.extend_from_slice(&event.raw);
                }
                if splitter.waiting() > HOLD {
                    *open_event = Some(splitter.at_line_start());
                    ready.extend_from_slice(&splitter.take());
                }
                (!ready.is_empty()).then(|| ready.freeze())
            }
            Shape::Whole(buffered) if buffered.length > HOLD => {
                self.pieces = std::mem::take(&mut buffered.pieces);
                self.shape = Shape::Raw;
                self.pieces.pop_front()
            }
            Shape::Raw => self.pieces.pop_front(),
            Shape::Whole(_) => None,
        }
    }

    /// Whether a JSON answer begins with a byte order mark. An answer too large to hold has been handed on by then, and
    /// the client's parser reports the mark itself.
    fn begins_with_bom(&self) -> bool {
        let Shape::Whole(buffered) = &self.shape else { return false };
        let first = buffered.pieces.iter().flatten().take(BOM.len());
        buffered.length >= BOM.len() && first.eq(BOM)
    }

    /// Ends the answer when the upstream is done.
    fn end(&mut self) -> Option<io::Result<Bytes>> {
        match &mut self.shape {
            Shape::Events { splitter, .. } => {
                // An event without the blank line at its end does not count (WHATWG HTML, 9.2.6).
                if !self.in_flight.ids.is_empty() {
                    return self.cut_off(&RpcError::upstream_lost());
                }
                let last = splitter.take();
                self.finish();
                (!last.is_empty()).then_some(Ok(last))
            }
            Shape::Whole(buffered) => {
                self.pieces = std::mem::take(&mut buffered.pieces);
                if self.must_answer {
                    self.complete();
                }
                self.finish();
                self.pieces.pop_front().map(Ok)
            }
            Shape::Raw => {
                self.finish();
                None
            }
        }
    }

    /// Puts an error in the place of each answer that is missing.
    fn complete(&mut self) {
        if self.in_flight.ids.is_empty() {
            return;
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        let whole = match pieces.len() {
            1 => pieces.pop_front().unwrap_or_default(),
            _ => pieces.iter().map(Bytes::as_ref).collect::<Vec<_>>().concat().into(),
        };
        let answered = self.in_flight.answers_in(&whole);
        self.in_flight.mark_answered(&answered);
        let owed = std::mem::take(&mut self.in_flight.ids);
        self.pieces.push_back(match owed.is_empty() {
            true => whole,
            false => {
                let rpc_error = RpcError::unanswered_but(StatusCode::OK, &whole);
                let said = if answered.is_empty() { vec![] } else { message::messages_in(&whole) };
                rpc_error.answers_beside(&said, &owed, self.in_flight.batch).into()
            }
        });
    }

    /// Ends the answer before the upstream is done, with last words for the client.
    fn cut_off(&mut self, rpc_error: &RpcError) -> Option<io::Result<Bytes>> {
        self.pieces.clear();
        let farewell = match &self.shape {
            Shape::Events { open_event, .. } => {
                let open = *open_event;
                let farewell = last_words(open, &self.in_flight.farewells(rpc_error));
                (!farewell.is_empty()).then(|| Ok(Bytes::from(farewell)))
            }
            Shape::Whole(_) if self.in_flight.ids.is_empty() => {
                Some(Ok(Bytes::from(rpc_error.answer(&Value::Null))))
            }
            Shape::Whole(_) => {
                Some(Ok(Bytes::from(rpc_error.answers(&self.in_flight.ids, self.in_flight.batch))))
            }
            // Half of a JSON value has been handed on: only a broken connection tells the client that the rest will not
            // come.
            Shape::Raw => {
                Some(Err(io::Error::new(io::ErrorKind::ConnectionAborted, rpc_error.message.to_string())))
            }
        };
        self.finish();
        farewell
    }

    /// Ends the answer: nothing more comes of the upstream, and the request is no longer under way.
    fn finish(&mut self) {
        self.finished = true;
        self.rest = None;
        self.in_flight.release_pass();
    }
}

/// The next data of the upstream's body that is not empty.
async fn piece(body: &mut Body) -> UpstreamEvent {
    loop {
        match data(body).await {
            None => return UpstreamEvent::End,
            Some(Err(_)) => return UpstreamEvent::Broken,
            Some(Ok(data)) if !data.is_empty() => return UpstreamEvent::Piece(data),
            Some(Ok(_)) => {}
        }
    }
}

impl Drop for Relay {
    /// Records how much was handed on, also where the client went away in the middle.
    fn drop(&mut self) {
        self.in_flight.record_bytes(self.sent);
    }
}
