//! Handing an upstream's answer on, for as long as the session may have it. What is cut off ends with an error for each
//! call in flight: without it clients wait until their own time-out.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::events::Splitter;
use super::message;
use super::reply::Fault;
use crate::core::caller::Caller;
use crate::core::event::Counts;
use crate::core::ids::SessionNumber;
use crate::core::reason::Reason;
use crate::gate::Pass;
use crate::meter;
use crate::sessions::Sessions;

/// An answer up to this size, or an event, is handed on whole, so that it can still be replaced by an error.
const HOLD: usize = 1 << 20;
/// A stream that was quiet for so long gets a comment, for the proxies on the way: what the SDKs' servers do.
const QUIET: Duration = Duration::from_secs(15);
/// Longest time between two looks at when the token expires: the wall clock may be set.
const LOOK: Duration = Duration::from_secs(60);
/// Ends an event of which a part was handed on, in a way that no SDK takes for a message.
const ABANDON: &str = "event: abandoned\n\n";

/// One request of a session, from when it was let in to the last byte of its answer.
pub struct Errand {
    pub sessions: Arc<Sessions>,
    pub caller: Caller,
    pub number: SessionNumber,
    /// Given back once nothing more will be handed on.
    pub pass: Option<Pass>,
    /// What the request asked and has not been answered yet.
    pub ids: Vec<Value>,
    pub batch: bool,
    pub stopping: CancellationToken,
}

impl Errand {
    /// Resolves when nothing of the session may be handed on any more, and with which error for its calls.
    pub async fn cut(&self) -> Fault {
        let cancelled = self.pass.as_ref().map(Pass::cancelled).unwrap_or_default();
        loop {
            let look_at = self.look_at();
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return self.ended(),
                () = self.stopping.cancelled() => return Fault::stopping(),
                () = sleep_until(look_at) => {}
            }
            if self.remaining().is_zero() {
                return self.run_out();
            }
        }
    }

    fn ended(&self) -> Fault {
        let reason = self.pass.as_ref().and_then(Pass::reason);
        Fault::ended(reason.unwrap_or(Reason::Terminated))
    }

    /// Its time is over before the scheduler has said so.
    fn run_out(&self) -> Fault {
        let session = self.sessions.open_session(self.number);
        match session.filter(|session| self.sessions.now() >= session.lifetime_ends_at) {
            Some(_) => Fault::ended(Reason::Lifetime),
            None => Fault::expired(),
        }
    }

    /// How long the session has credentials for: its token's, which a later request may have renewed, or those that
    /// this request came with and that are about to renew it.
    fn remaining(&self) -> Duration {
        let presented = self.caller.credential.expires_at;
        let until = match self.sessions.open_session(self.number) {
            Some(session) => presented.max(session.token_expires_at).min(session.lifetime_ends_at),
            // It has ended: the pass tells.
            None => return LOOK,
        };
        (until - self.sessions.now()).to_std().unwrap_or_default()
    }

    fn look_at(&self) -> Instant {
        Instant::now() + self.remaining().min(LOOK)
    }

    /// Waits for something of the upstream's, unless the session is cut off before.
    pub async fn wait<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        tokio::select! {
            biased;
            fault = self.cut() => Err(fault),
            done = work => done,
        }
    }

    /// Gives the pass back. While it was held the session could not go stale; from now on its silence counts.
    fn let_go(&mut self) {
        if self.pass.is_some() {
            self.sessions.saw(self.number);
        }
        self.pass = None;
    }

    /// The answer's body, handed on.
    pub fn relay(self, read: Bytes, rest: Option<Body>, events: bool) -> Body {
        let mut splitter = Splitter::default();
        splitter.push(&read);
        let shape = if events {
            Shape::Events { splitter, broken: None, may_resume: false }
        } else {
            Shape::Whole(BytesMut::from(read))
        };
        let quiet_at = Instant::now() + QUIET;
        let measured = events.then(|| meter::Stream::begin("mcp"));
        let relay =
            Relay { errand: self, rest, shape, sent: 0, quiet_at, finished: false, _measured: measured };
        Body::from_stream(stream::unfold(relay, |mut relay| async move {
            let next = relay.next().await?;
            relay.sent += next.as_ref().map_or(0, |bytes| bytes.len() as u64);
            Some((next, relay))
        }))
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.let_go();
    }
}

struct Relay {
    errand: Errand,
    _measured: Option<meter::Stream>,
    /// What still comes from the upstream; none once it ended.
    rest: Option<Body>,
    shape: Shape,
    /// Bytes handed on.
    sent: u64,
    quiet_at: Instant,
    finished: bool,
}

enum Shape {
    Events {
        splitter: Splitter,
        /// A part of an event too large to hold was handed on; whether that part ended with a line.
        broken: Option<bool>,
        /// The client can ask for the rest, or may have had its answer in an event too large to look into.
        may_resume: bool,
    },
    /// One JSON value, until it is whole.
    Whole(BytesMut),
    /// An answer too large to hold, on its way.
    Raw,
}

enum Turn {
    Cut(Fault),
    Quiet,
    Piece(Bytes),
    End,
    Broken,
}

impl Relay {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.finished {
                return None;
            }
            // Before anything is handed on, and in the same poll: is it still allowed?
            let pass_ended = self.errand.pass.as_ref().is_some_and(|pass| pass.cancelled().is_cancelled());
            if !pass_ended && let Some(ready) = self.ready() {
                self.quiet_at = Instant::now() + QUIET;
                return Some(Ok(ready));
            }
            match self.turn().await {
                Turn::Cut(fault) => return self.cut_off(&fault),
                Turn::Broken => return self.cut_off(&Fault::upstream_lost()),
                Turn::End => return self.end(),
                Turn::Quiet => {
                    self.quiet_at = Instant::now() + QUIET;
                    return Some(Ok(Bytes::from_static(b":\n\n")));
                }
                Turn::Piece(piece) => match &mut self.shape {
                    Shape::Events { splitter, .. } => splitter.push(&piece),
                    Shape::Whole(held) => held.extend_from_slice(&piece),
                    Shape::Raw => return Some(Ok(piece)),
                },
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        let may_comment = matches!(self.shape, Shape::Events { broken: None, .. });
        let rest = &mut self.rest;
        let piece = async move {
            let Some(body) = rest else { return Turn::End };
            loop {
                match body.frame().await {
                    None => return Turn::End,
                    Some(Err(_)) => return Turn::Broken,
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Turn::Piece(data),
                        _ => {}
                    },
                }
            }
        };
        tokio::select! {
            biased;
            fault = self.errand.cut() => Turn::Cut(fault),
            turn = piece => turn,
            () = sleep_until(self.quiet_at), if may_comment => Turn::Quiet,
        }
    }

    /// What of that which came can go on: whole events, or more than can be held.
    fn ready(&mut self) -> Option<Bytes> {
        match &mut self.shape {
            Shape::Events { splitter, broken, may_resume } => {
                let mut ready = BytesMut::new();
                while let Some(event) = splitter.next() {
                    *broken = None;
                    *may_resume |= event.has_id;
                    if !self.errand.ids.is_empty() && !event.data.is_empty() {
                        let answered = message::answered(&event.data);
                        self.errand.ids.retain(|id| !answered.contains(id));
                    }
                    ready.extend_from_slice(&event.raw);
                }
                if splitter.waiting() > HOLD {
                    *broken = Some(splitter.at_line_start());
                    *may_resume = true;
                    ready.extend_from_slice(&splitter.take());
                }
                (!ready.is_empty()).then(|| ready.freeze())
            }
            Shape::Whole(held) if held.len() > HOLD => {
                let ready = held.split().freeze();
                self.shape = Shape::Raw;
                Some(ready)
            }
            Shape::Whole(_) | Shape::Raw => None,
        }
    }

    /// The upstream is done.
    fn end(&mut self) -> Option<io::Result<Bytes>> {
        match &mut self.shape {
            Shape::Events { splitter, may_resume, .. } => {
                // An event without the blank line at its end counts for nothing (WHATWG HTML, 9.2.6), and closing is the
                // upstream's right (MCP 2025-11-25, basic/transports) as long as the client can come back for the rest.
                if !*may_resume && !self.errand.ids.is_empty() {
                    return self.cut_off(&Fault::upstream_lost());
                }
                let last = splitter.take();
                self.finish();
                (!last.is_empty()).then_some(Ok(last))
            }
            Shape::Whole(held) => {
                let whole = held.split().freeze();
                self.finish();
                (!whole.is_empty()).then_some(Ok(whole))
            }
            Shape::Raw => {
                self.finish();
                None
            }
        }
    }

    /// Nothing more of the upstream's: a farewell, and the end.
    fn cut_off(&mut self, fault: &Fault) -> Option<io::Result<Bytes>> {
        let (ids, batch) = (std::mem::take(&mut self.errand.ids), self.errand.batch);
        let farewell = match &self.shape {
            // A restart of ours is no loss to a client that can ask for the rest.
            Shape::Events { broken: None, may_resume: true, .. } if *fault == Fault::stopping() => None,
            Shape::Events { broken, .. } => {
                let mut farewell = String::new();
                if let Some(at_line_start) = broken {
                    farewell.push_str(if *at_line_start { "" } else { "\n" });
                    farewell.push_str(ABANDON);
                }
                for id in &ids {
                    farewell.push_str(&format!("event: message\ndata: {}\n\n", fault.answer(id)));
                }
                (!farewell.is_empty()).then(|| Ok(Bytes::from(farewell)))
            }
            Shape::Whole(_) if ids.is_empty() => Some(Ok(Bytes::from(fault.answer(&Value::Null)))),
            Shape::Whole(_) => Some(Ok(Bytes::from(fault.answers(&ids, batch)))),
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

impl Drop for Relay {
    /// Writes down what was handed on, also where the client went away in the middle.
    fn drop(&mut self) {
        // Without a runtime this is the end of the process.
        if self.sent == 0 || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if let Some(session) = self.errand.sessions.open_session(self.errand.number) {
            let counts = Counts { bytes_out: self.sent, ..Counts::default() };
            self.errand.sessions.observe(&self.errand.caller, &session, counts);
        }
    }
}
