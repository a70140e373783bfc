//! What is known of a connection: in which state it is, until when it may stay there, and who still works for its request.
//! The listener's stream asks it at every read; the requests that come in by it tell it when they begin and when they are
//! over.

mod body;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Incoming;
use metrics::{Counter, Gauge, counter, gauge};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::meter;
pub use body::{Answer, Asked};
use body::{Leftover, discard};

/// How much later than it was announced an idle connection is closed: a request that was sent in time still arrives.
const LATER: Duration = Duration::from_secs(5);
/// Of a body that nobody reads so much is thrown away, so that the connection can be used again.
const THROWN_AWAY: u64 = 64 << 10;
/// Where the connection closes after the answer, so much is thrown away, for so long at most, so that the client gets to read
/// the answer: closing on what it still sends would take that from it.
const LINGERED: u64 = 8 << 20;
const LINGER: Duration = Duration::from_secs(5);

/// What the connections of one listener have in common.
pub struct Listening {
    /// How long a client may take for a handshake, and for the head of a request.
    head: Duration,
    /// How long a connection is kept between two requests.
    idle: Duration,
    /// What is told about that.
    announced: HeaderValue,
    states: [Gauge; 4],
    overdue: [Counter; 2],
    taken: Counter,
    full: Counter,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was asked yet.
    New,
    /// A request is worked on, or its answer given.
    Busy,
    /// Between two requests.
    Idle,
    /// It is HTTP no more.
    Upgraded,
}

impl Listening {
    /// A listener by this name in what is measured.
    pub fn new(name: &'static str, head: Duration, idle: Duration) -> Self {
        let announced = HeaderValue::try_from(format!("timeout={}", idle.as_secs()));
        let state = |state| gauge!(meter::CONNECTIONS, "door" => name, "state" => state);
        let closed = |state| counter!(meter::CONNECTIONS_OVERDUE, "door" => name, "state" => state);
        let counters = [closed("head"), closed("idle")];
        counters.iter().for_each(|counter| counter.increment(0));
        let (taken, full) = (
            counter!(meter::CONNECTIONS_TAKEN, "door" => name),
            counter!(meter::CONNECTIONS_FULL, "door" => name),
        );
        taken.increment(0);
        full.increment(0);
        Self {
            head,
            idle,
            // Digits are always a value.
            announced: announced.unwrap_or(HeaderValue::from_static("timeout=1")),
            states: [state("new"), state("busy"), state("idle"), state("upgraded")],
            overdue: counters,
            taken,
            full,
        }
    }

    /// How long a client may take for a handshake.
    pub fn head(&self) -> Duration {
        self.head
    }

    /// All places are taken: whoever comes next waits.
    pub fn is_full(&self) {
        self.full.increment(1);
    }

    fn gauge(&self, phase: Phase) -> &Gauge {
        &self.states[phase as usize]
    }
}

/// One connection; an extension of the requests that come in by it.
pub struct Connection {
    pub peer: SocketAddr,
    shared: Arc<Listening>,
    state: Mutex<State>,
    /// Somebody who is not known yet would say more than may be listened to.
    exhausted: Notify,
}

struct State {
    phase: Phase,
    /// When that phase has lasted too long.
    until: Option<Instant>,
    /// Whether a part of a head has come.
    begun: bool,
    /// The last that has come.
    tail: [u8; 3],
    /// Who works for the request: its answer, and what reads the rest of its body.
    turns: usize,
    body: Read,
    answered: bool,
    /// Bytes that may still come, while nobody knows yet from whom.
    allowance: Option<usize>,
    /// Who waits until it is known.
    waits: Option<Waker>,
}

/// How far the body of the request was read.
enum Read {
    /// To its end, or there is none.
    Whole,
    /// Somebody reads it, or may yet.
    Open,
    /// Nobody will.
    Left(Leftover),
    Failed,
}

impl Connection {
    pub fn new(peer: SocketAddr, shared: Arc<Listening>) -> Arc<Self> {
        shared.taken.increment(1);
        shared.gauge(Phase::New).increment(1);
        let state = State {
            phase: Phase::New,
            until: Some(Instant::now() + shared.head),
            begun: false,
            tail: [0; 3],
            turns: 0,
            body: Read::Whole,
            answered: false,
            allowance: None,
            waits: None,
        };
        Arc::new(Self { peer, shared, state: Mutex::new(state), exhausted: Notify::new() })
    }

    /// The handshake is over: the first head has as long again.
    pub fn shaken(&self) {
        let mut state = self.state.lock();
        (state.until, state.begun) = (Some(Instant::now() + self.shared.head), false);
    }

    /// When the connection has to be given up unless something happens.
    pub fn until(&self) -> Option<Instant> {
        self.state.lock().until
    }

    /// No connection is silent for longer without being given up, whatever it waits for.
    pub fn longest(&self) -> Duration {
        self.shared.idle + LATER
    }

    /// Whether it is HTTP no more.
    pub fn is_upgraded(&self) -> bool {
        self.state.lock().phase == Phase::Upgraded
    }

    /// How much may come now; nothing while all that may has come of somebody who is not known yet. `waker` is woken once
    /// that has changed.
    pub fn may_say(&self, waker: &Waker) -> Option<usize> {
        let mut state = self.state.lock();
        match (&state.phase, state.allowance) {
            (Phase::Upgraded, Some(0)) => {
                state.waits = Some(waker.clone());
                self.exhausted.notify_one();
                None
            }
            (Phase::Upgraded, Some(little)) => Some(little),
            _ => Some(usize::MAX),
        }
    }

    /// Resolves when somebody who is not known yet would say more than may be listened to.
    pub async fn exhausted(&self) {
        self.exhausted.notified().await;
    }

    /// This has come.
    pub fn heard(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        for byte in &bytes[bytes.len().saturating_sub(3)..] {
            state.tail.rotate_left(1);
            state.tail[2] = *byte;
        }
        match state.phase {
            Phase::Idle if !state.begun => state.until = Some(Instant::now() + self.shared.head),
            // A request that follows before the answer to the one before it is complete.
            Phase::Busy if !matches!(state.body, Read::Whole) => return,
            Phase::Upgraded => {
                state.allowance = state.allowance.map(|allowance| allowance.saturating_sub(bytes.len()));
                return;
            }
            Phase::New | Phase::Busy | Phase::Idle => {}
        }
        state.begun = true;
    }

    /// It was given up because it took too long.
    pub fn is_overdue(&self) {
        let state = self.state.lock();
        let which = usize::from(state.phase != Phase::New && !state.begun);
        self.shared.overdue[which].increment(1);
    }

    /// Whether the other end may be in the middle of saying something.
    pub fn is_in_the_middle(&self) -> bool {
        let state = self.state.lock();
        match state.phase {
            Phase::New | Phase::Idle => state.begun,
            Phase::Busy => !matches!(state.body, Read::Whole),
            Phase::Upgraded => false,
        }
    }

    /// Until whoever is at the other end is known, only so much is listened to.
    pub fn confine(&self, bytes: usize) {
        self.state.lock().allowance = Some(bytes);
    }

    /// It is known.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.allowance = None;
        if let Some(waker) = state.waits.take() {
            waker.wake();
        }
    }

    fn turn_to(&self, state: &mut State, phase: Phase) {
        if state.phase != phase {
            self.shared.gauge(state.phase).decrement(1);
            self.shared.gauge(phase).increment(1);
            state.phase = phase;
        }
    }

    /// A request begins: its body, and what is held until its answer is complete.
    pub fn begin(self: &Arc<Self>, body: Incoming, headers: &HeaderMap) -> (Turn, Option<Asked>) {
        let asked = Asked::new(body, self, headers.get(header::EXPECT).is_some());
        let mut state = self.state.lock();
        self.turn_to(&mut state, Phase::Busy);
        // What follows an empty line came with this head and belongs to the next.
        let followed = asked.is_none() && state.tail != *b"\n\r\n" && state.tail[1..] != *b"\n\n";
        (state.until, state.begun, state.answered) = (None, followed, false);
        // Whoever threw away what was left of the body before may not have let go yet.
        state.turns += 1;
        state.body = if asked.is_some() { Read::Open } else { Read::Whole };
        (Turn(self.clone()), asked)
    }

    /// The answer's head is there: says in it whether the connection stays, and sees to what is left of the body. A
    /// connection that closes although the last answer did not say so loses the request that is already on its way.
    pub fn answered(self: &Arc<Self>, mut response: Response, turn: Turn, closes: bool) -> Response<Answer> {
        let mut state = self.state.lock();
        state.answered = true;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.turn_to(&mut state, Phase::Upgraded);
            drop(state);
            return response.map(|body| Answer::new(body, turn));
        }
        let left = match &state.body {
            Read::Left(_) => std::mem::replace(&mut state.body, Read::Open),
            _ => Read::Whole,
        };
        let whole = matches!(state.body, Read::Whole);
        drop(state);
        let left = if let Read::Left(left) = left { Some(left) } else { None };
        let stays = !closes && (whole || left.as_ref().is_some_and(|one| one.comes(THROWN_AWAY)));
        let headers = response.headers_mut();
        if stays {
            headers.insert(KEEP_ALIVE, self.shared.announced.clone());
        } else {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(left) = left.filter(|left| stays || left.was_promised()) {
            let head = self.shared.head;
            let (most, within) = if stays { (THROWN_AWAY, head) } else { (LINGERED, head.min(LINGER)) };
            tokio::spawn(discard(left, most, within, turn.clone()));
        }
        response.map(|body| Answer::new(body, turn))
    }
}

const KEEP_ALIVE: header::HeaderName = header::HeaderName::from_static("keep-alive");

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.gauge(self.state.get_mut().phase).decrement(1);
    }
}

/// Held by whoever works for a request; when all have let go, the connection waits for the next.
pub struct Turn(Arc<Connection>);

impl Clone for Turn {
    fn clone(&self) -> Self {
        self.0.state.lock().turns += 1;
        Self(self.0.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.turns -= 1;
        if state.turns > 0 || state.phase != Phase::Busy {
            return;
        }
        self.0.turn_to(&mut state, Phase::Idle);
        let longest = if state.begun { self.0.shared.head } else { self.0.longest() };
        state.until = Some(Instant::now() + longest);
    }
}
