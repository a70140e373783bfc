//! Moves events from an upstream's stream to a resumable stream. It goes on without a reader: that a client has gone
//! away is no reason to cancel its calls (MCP 2025-11-25, basic/transports, "Sending Messages to the Server").

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use sessiond_core::ending::{Ending, LAPSED};
use tokio::time::{Instant, sleep_until, timeout};

use super::forward::data;
use super::in_flight::{InFlight, StopReason};
use super::reply::RpcError;
use super::resumable_stream::{End, ResumableStream};
use super::sse_events::{Splitter, renamed_part};
use crate::gate::{Lease, Pass};
use crate::meter;

/// An event up to this size is handed on whole, so that it can still be replaced by an error.
pub const HOLD: usize = 1 << 20;
/// A stream that was quiet for so long gets a comment, as from the SDKs' servers, so that proxies on the way do not
/// close it.
pub const QUIET: Duration = Duration::from_secs(15);
/// How long a standalone stream that nobody reads is kept for its client to come back.
const STANDALONE_KEPT: Duration = Duration::from_secs(60);
/// How long a reader whose credential has ended waits for the stream's own last words.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(50);

/// A task that moves events from an upstream's body to a resumable stream.
pub struct Pump {
    in_flight: InFlight,
    stream: Arc<ResumableStream>,
    /// How long a call may take after its client has gone.
    patience: Duration,
    splitter: Splitter,
    /// The rest of the upstream's body; none if it was read whole before.
    rest: Option<Body>,
    /// Set while an event too large to hold is only partly handed on; says whether that part ended with a line.
    open_event: Option<bool>,
    /// How many bytes of events have come.
    bytes_out: u64,
}

impl Pump {
    pub fn new(
        in_flight: InFlight,
        stream: Arc<ResumableStream>,
        patience: Duration,
        read: &[u8],
        rest: Option<Body>,
    ) -> Self {
        let mut splitter = Splitter::default();
        splitter.push(read);
        Self { in_flight, stream, patience, splitter, rest, open_event: None, bytes_out: 0 }
    }

    /// Moves events until the upstream is done, the session is over, or nobody wants them any more.
    pub async fn run(mut self) {
        let stream = self.stream.clone();
        let patience = if stream.calls.is_empty() { STANDALONE_KEPT } else { self.patience };
        let stop = tokio::select! {
            biased;
            stop = self.in_flight.watch() => Some(stop),
            () = stream.given_up().cancelled() => Some(StopReason::OverBudget),
            () = stream.deserted(patience) => {
                self.in_flight.give_up(&RpcError::upstream_slow_to_begin());
                None
            }
            () = stream.ended() => None,
            () = self.move_events() => self.close().await,
        };
        // A client that can ask the upstream for the rest loses nothing by a restart of ours.
        let resumable = self.open_event.is_none() && stream.upstream_id().is_some();
        match stop {
            Some(StopReason::Stopping) if resumable || self.in_flight.ids.is_empty() => {
                stream.end(End::Paused)
            }
            Some(stop) => {
                self.in_flight.give_up(&self.in_flight.rpc_error(stop));
                if !stream.unread().is_empty() {
                    // An answer may be among the events that are not handed on any more.
                    self.in_flight.ids = stream.calls.clone();
                }
                let rpc_error = self.in_flight.rpc_error(stop);
                stream.cut_off(&self.in_flight.farewells(&rpc_error));
            }
            None => stream.end(End::Paused),
        }
        self.in_flight.record_bytes(self.bytes_out);
        self.in_flight.share.set(0);
    }

    /// Moves events until the upstream's body ends or breaks off.
    async fn move_events(&mut self) {
        loop {
            self.hand_on().await;
            let Some(body) = &mut self.rest else { return };
            let Some(Ok(data)) = data(body).await else { return };
            self.splitter.push(&data);
            self.in_flight.share.set(self.splitter.memory());
        }
    }

    /// Counts bytes of events, here and at the Gate.
    fn count(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
        self.in_flight.count_bytes(bytes as u64);
    }

    /// Hands on whole events, or a part of one that is too large to hold.
    async fn hand_on(&mut self) {
        while let Some(event) = self.splitter.next() {
            self.count(event.raw.len());
            if self.open_event.take().is_some() {
                self.stream.push_part(event.raw, None).await;
                // The large event may have been an answer; nobody has looked into it.
                self.in_flight.ids.clear();
                continue;
            }
            let answers = if event.is_message { self.in_flight.answers_in(&event.data) } else { vec![] };
            self.stream.push(event.id.clone(), answers.clone(), |id| event.renamed(id)).await;
            self.in_flight.mark_answered(&answers);
        }
        if self.splitter.waiting() > HOLD {
            let at_line_start = self.splitter.at_line_start();
            let part = self.splitter.take();
            self.count(part.len());
            if self.open_event.replace(at_line_start).is_some() {
                self.stream.push_part(part, Some(at_line_start)).await;
                return;
            }
            self.stream.push_begun(at_line_start, |id| renamed_part(&part, id)).await;
        }
    }

    /// Ends the stream when the upstream is done. An event without the blank line at its end does not count (WHATWG
    /// HTML, 9.2.6). The upstream may close whenever it wants (MCP 2025-11-25, basic/transports), as long as the client
    /// can come back for the rest. The session's end must still reach events that are held, so this waits until they
    /// have been handed on.
    async fn close(&mut self) -> Option<StopReason> {
        let standalone = self.stream.calls.is_empty();
        if !standalone && self.in_flight.ids.is_empty() {
            self.stream.end(End::Done);
        } else if !standalone && self.stream.upstream_id().is_none() {
            self.stream.finish(&self.in_flight.farewells(&RpcError::upstream_lost()));
        } else {
            self.stream.end(End::Paused);
        }
        tokio::select! {
            biased;
            stop = self.in_flight.watch() => Some(stop),
            () = self.stream.drained() => None,
        }
    }
}

/// What entitles a reader to read a stream.
pub enum ReadRight {
    /// The reader asked for the answers on the stream: whoever writes the stream ends it for the reader too.
    Own(Arc<Lease>),
    /// The reader resumes the stream. Once its session or credential has ended it gets nothing of what is held.
    InFlight(Box<InFlight>),
    /// The reader's own credential, where another request may have opened the stream.
    Credential(Pass),
}

impl ReadRight {
    /// The pass of the reader's own, if it has one.
    fn pass(&self) -> Option<&Pass> {
        match self {
            Self::Own(_) => None,
            Self::InFlight(in_flight) => in_flight.pass.as_ref(),
            Self::Credential(pass) => Some(pass),
        }
    }
}

impl ReadRight {
    /// The lease without which nothing is read.
    fn lease(&self) -> Arc<Lease> {
        match self {
            Self::Own(lease) => lease.clone(),
            _ => self.pass().map(Pass::lease).unwrap_or_default(),
        }
    }
}

/// The body that a reader is sent: an optional first piece, then events as they come, and comments while there are
/// none.
pub fn body(first: Option<Bytes>, stream: Arc<ResumableStream>, reader: u64, right: ReadRight) -> Body {
    let (quiet_at, measured) = (Instant::now() + QUIET, meter::Stream::begin("mcp"));
    let lease = right.lease();
    let reader_body =
        ReaderBody { first, stream, reader, right, lease, finished: false, quiet_at, _measured: measured };
    Body::from_stream(stream::unfold(reader_body, |mut reader_body| async move {
        let next = match reader_body.first.take() {
            Some(first) => first,
            None => reader_body.next().await?,
        };
        reader_body.quiet_at = Instant::now() + QUIET;
        Some((Ok::<_, std::convert::Infallible>(next), reader_body))
    }))
}

/// The state of a body that a reader is sent.
struct ReaderBody {
    first: Option<Bytes>,
    stream: Arc<ResumableStream>,
    reader: u64,
    right: ReadRight,
    lease: Arc<Lease>,
    /// Whether the last words have been sent.
    finished: bool,
    quiet_at: Instant,
    _measured: meter::Stream,
}

impl ReaderBody {
    /// What the reader is sent next; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let ended = self.stream.ending().is_some_and(|end| end != End::Cut);
        if self.finished
            || (ended && matches!(&self.right, ReadRight::InFlight(in_flight) if in_flight.is_cut()))
        {
            return None;
        }
        let credential = async {
            match self.right.pass() {
                Some(pass) => match pass.ended().await {
                    Ending::Credential(end) => format!(": {end}: authenticate again\n\n"),
                    Ending::Lapsed => format!(": {LAPSED}\n\n"),
                    // The stream ends with the session, and has the last words.
                    Ending::Session(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            words = credential => self.end_before_session(words).await,
            piece = self.stream.read(self.reader, &self.lease) => piece,
            () = sleep_until(self.quiet_at) => Some(Bytes::from_static(b":\n\n")),
        }
    }

    /// Ends the body before the session has ended, with these words. Where what has ended is the credential, and the stream was
    /// opened with the same one, it
    /// ends too, with an error for each call, and those errors are the last words; otherwise a comment is.
    async fn end_before_session(&mut self, words: String) -> Option<Bytes> {
        timeout(LAST_WORDS_PATIENCE, self.stream.ended()).await.ok();
        if self.stream.ending() == Some(End::Cut) {
            return self.stream.read(self.reader, &self.lease).await;
        }
        self.finished = true;
        Some(words.into())
    }
}

impl Drop for ReaderBody {
    fn drop(&mut self) {
        self.stream.leave(self.reader);
    }
}
