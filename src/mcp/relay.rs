//! Handing an upstream's answer on as it comes: JSON of every revision, and the streams of 2026-07-28, which end with their
//! connection. What is cut off ends with an error for each call in flight: without it clients wait until their own time-out.

use std::collections::VecDeque;
use std::io;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, stream};
use http_body::Body as _;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::errand::Errand;
use super::events::{BOM, Splitter};
use super::forward::data;
use super::message;
use super::pump::{HOLD, QUIET};
use super::reply::{Fault, last_words};
use crate::meter;

impl Errand {
    /// The answer's body, handed on. What `must_answer` and does not has an error in its place.
    pub fn relay(self, read: Bytes, rest: Option<Body>, events: bool, must_answer: bool) -> Body {
        let shape = if events {
            let mut splitter = Splitter::default();
            splitter.push(&read);
            Shape::Events { splitter, broken: None }
        } else if says_too_large(rest.as_ref()) {
            Shape::Raw
        } else {
            let length = read.len();
            Shape::Whole(Held {
                length,
                pieces: Some(read).filter(|read| !read.is_empty()).into_iter().collect(),
            })
        };
        let quiet_at = Instant::now() + if events { QUIET } else { self.patience };
        let measured = events.then(|| meter::Stream::begin("mcp"));
        let pieces = VecDeque::new();
        let mut relay = Relay {
            errand: self,
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
        // Most answers are here by now.
        match relay.next().now_or_never() {
            Some(Some(Ok(all))) if relay.finished && relay.pieces.is_empty() => {
                relay.sent = all.len() as u64;
                relay.errand.hands_on(relay.sent);
                Body::from(all)
            }
            Some(None) => Body::empty(),
            first => relay.stream(first.flatten()),
        }
    }
}

/// What is said to be larger than can be held is not held at all.
fn says_too_large(body: Option<&Body>) -> bool {
    body.and_then(|body| body.size_hint().exact()).is_some_and(|length| length > HOLD as u64)
}

struct Relay {
    errand: Errand,
    _measured: Option<meter::Stream>,
    /// What still comes from the upstream; none once it ended.
    rest: Option<Body>,
    shape: Shape,
    /// What of an answer may go on.
    pieces: VecDeque<Bytes>,
    /// Bytes handed on.
    sent: u64,
    quiet_at: Instant,
    finished: bool,
    /// It is the answer to calls, and not a refusal.
    must_answer: bool,
}

enum Shape {
    Events {
        splitter: Splitter,
        /// A part of an event too large to hold was handed on; whether that part ended with a line.
        broken: Option<bool>,
    },
    /// One JSON value, until it is whole.
    Whole(Held),
    /// An answer too large to hold, on its way.
    Raw,
}

/// What came of an answer, as it came: putting it together would copy it.
struct Held {
    pieces: VecDeque<Bytes>,
    length: usize,
}

enum Turn {
    Cut(Fault),
    Quiet,
    Piece(Bytes),
    End,
    Broken,
}

impl Relay {
    fn stream(self, first: Option<io::Result<Bytes>>) -> Body {
        Body::from_stream(stream::unfold((first, self), |(mut first, mut relay)| async move {
            let next = match first.take() {
                Some(first) => first,
                None => relay.next().await?,
            };
            let bytes = next.as_ref().map_or(0, |bytes| bytes.len() as u64);
            relay.sent += bytes;
            relay.errand.hands_on(bytes);
            Some((next, (None, relay)))
        }))
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.finished {
                return self.pieces.pop_front().map(Ok);
            }
            if self.is_marked() {
                return self.cut_off(&Fault::marked());
            }
            // Before anything is handed on, and in the same poll: is it still allowed?
            if !self.errand.is_cut()
                && let Some(ready) = self.ready()
            {
                self.quiet_at = Instant::now() + QUIET;
                return Some(Ok(ready));
            }
            match self.turn().await {
                Turn::Cut(fault) => {
                    self.errand.give_up(&fault);
                    return self.cut_off(&fault);
                }
                Turn::Broken => return self.cut_off(&Fault::upstream_lost()),
                Turn::End => return self.end(),
                Turn::Quiet if matches!(self.shape, Shape::Whole(_) | Shape::Raw) => {
                    return self.cut_off(&Fault::upstream_slow());
                }
                Turn::Quiet => {
                    self.quiet_at = Instant::now() + QUIET;
                    return Some(Ok(Bytes::from_static(b":\n\n")));
                }
                Turn::Piece(piece) => {
                    if !matches!(self.shape, Shape::Events { .. }) {
                        self.quiet_at = Instant::now() + self.errand.patience;
                    }
                    match &mut self.shape {
                        Shape::Events { splitter, .. } => {
                            splitter.push(&piece);
                            self.errand.share.set(splitter.memory());
                        }
                        Shape::Whole(held) => {
                            held.length += piece.len();
                            held.pieces.push_back(piece);
                            self.errand.share.set(held.length);
                        }
                        Shape::Raw => return Some(Ok(piece)),
                    }
                }
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        if let Some(stop) = self.errand.stopped() {
            return Turn::Cut(self.errand.fault(stop));
        }
        let Some(body) = &mut self.rest else { return Turn::End };
        // What is here already is had without setting a clock.
        if let Some(turn) = piece(body).now_or_never() {
            return turn;
        }
        let may_speak = !matches!(self.shape, Shape::Events { broken: Some(_), .. });
        tokio::select! {
            biased;
            fault = self.errand.cut() => Turn::Cut(fault),
            turn = piece(body) => turn,
            () = sleep_until(self.quiet_at), if may_speak => Turn::Quiet,
        }
    }

    /// What of that which came can go on: whole events, or more than can be held.
    fn ready(&mut self) -> Option<Bytes> {
        match &mut self.shape {
            Shape::Events { splitter, broken } => {
                let mut ready = BytesMut::new();
                while let Some(event) = splitter.next() {
                    if broken.take().is_some() {
                        // It may have been an answer: nobody has looked.
                        self.errand.ids.clear();
                    }
                    if event.is_message {
                        let answers = self.errand.answers_in(&event.data);
                        self.errand.settle(&answers);
                    }
                    ready.extend_from_slice(&event.raw);
                }
                if splitter.waiting() > HOLD {
                    *broken = Some(splitter.at_line_start());
                    ready.extend_from_slice(&splitter.take());
                }
                (!ready.is_empty()).then(|| ready.freeze())
            }
            Shape::Whole(held) if held.length > HOLD => {
                self.pieces = std::mem::take(&mut held.pieces);
                self.shape = Shape::Raw;
                self.pieces.pop_front()
            }
            Shape::Raw => self.pieces.pop_front(),
            Shape::Whole(_) => None,
        }
    }

    /// Whether what has come of a JSON answer begins with a byte order mark. What is too large to hold has gone on by then,
    /// and a client's parser says so itself.
    fn is_marked(&self) -> bool {
        let Shape::Whole(held) = &self.shape else { return false };
        let first = held.pieces.iter().flatten().take(BOM.len());
        held.length >= BOM.len() && first.eq(BOM)
    }

    /// The upstream is done.
    fn end(&mut self) -> Option<io::Result<Bytes>> {
        match &mut self.shape {
            Shape::Events { splitter, .. } => {
                // An event without the blank line at its end counts for nothing (WHATWG HTML, 9.2.6).
                if !self.errand.ids.is_empty() {
                    return self.cut_off(&Fault::upstream_lost());
                }
                let last = splitter.take();
                self.finish();
                (!last.is_empty()).then_some(Ok(last))
            }
            Shape::Whole(held) => {
                self.pieces = std::mem::take(&mut held.pieces);
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

    /// Puts an error in the place of each answer that is not in what came.
    fn complete(&mut self) {
        if self.errand.ids.is_empty() {
            return;
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        let whole = match pieces.len() {
            1 => pieces.pop_front().unwrap_or_default(),
            _ => pieces.iter().map(Bytes::as_ref).collect::<Vec<_>>().concat().into(),
        };
        let answered = self.errand.answers_in(&whole);
        self.errand.settle(&answered);
        let owed = std::mem::take(&mut self.errand.ids);
        self.pieces.push_back(match owed.is_empty() {
            true => whole,
            false => {
                let fault = Fault::unanswered_but(StatusCode::OK, &whole);
                let said = if answered.is_empty() { vec![] } else { message::apart(&whole) };
                fault.answers_beside(&said, &owed, self.errand.batch).into()
            }
        });
    }

    /// Nothing more of the upstream's: a farewell, and the end.
    fn cut_off(&mut self, fault: &Fault) -> Option<io::Result<Bytes>> {
        self.pieces.clear();
        let farewell = match &self.shape {
            Shape::Events { broken, .. } => {
                let open = *broken;
                let farewell = last_words(open, &self.errand.farewells(fault));
                (!farewell.is_empty()).then(|| Ok(Bytes::from(farewell)))
            }
            Shape::Whole(_) if self.errand.ids.is_empty() => {
                Some(Ok(Bytes::from(fault.answer(&Value::Null))))
            }
            Shape::Whole(_) => Some(Ok(Bytes::from(fault.answers(&self.errand.ids, self.errand.batch)))),
            // Half of a JSON value is out: only breaking the connection tells that it will not be whole.
            Shape::Raw => {
                Some(Err(io::Error::new(io::ErrorKind::ConnectionAborted, fault.message.to_string())))
            }
        };
        self.finish();
        farewell
    }

    fn finish(&mut self) {
        self.finished = true;
        self.rest = None;
        self.errand.let_go();
    }
}

async fn piece(body: &mut Body) -> Turn {
    loop {
        match data(body).await {
            None => return Turn::End,
            Some(Err(_)) => return Turn::Broken,
            Some(Ok(data)) if !data.is_empty() => return Turn::Piece(data),
            Some(Ok(_)) => {}
        }
    }
}

impl Drop for Relay {
    /// Writes down what was handed on, also where the client went away in the middle.
    fn drop(&mut self) {
        self.errand.handed_on(self.sent);
    }
}
