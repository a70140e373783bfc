//! What is known of a connection: which state it is in, until when it may stay there, and who still works for its request.
//! The listener's stream asks for that at every read; requests say when they begin and when they are answered.

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
use body::{Leftover, discard};
pub use body::{RequestBody, ResponseBody};

/// How much later than announced an idle connection is closed, so that a request that was sent in time still arrives.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// How many bytes of a body that no handler reads are discarded, so that the connection can be used again.
const DISCARDED: u64 = 64 << 10;
/// How many bytes are discarded where the connection closes after the response, so that the client gets to read the
/// response: closing on bytes that were not read would reset the connection.
const LINGERED: u64 = 8 << 20;
/// How long that may take.
const LINGER: Duration = Duration::from_secs(5);

/// What the connections of one listener have in common.
pub struct Listening {
    /// How long a client may take for a handshake, and for the head of a request.
    head: Duration,
    /// How long a connection is kept between two requests.
    idle: Duration,
    /// The value of `Keep-Alive` that announces how long.
    announced: HeaderValue,
    /// How many connections are in each phase.
    states: [Gauge; 4],
    /// How many connections were given up: while a head was awaited, and while they were idle.
    overdue: [Counter; 2],
    /// How many connections were accepted.
    taken: Counter,
    /// How often all places were taken.
    full: Counter,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No request has come yet.
    New,
    /// A request is being served, or its response sent.
    Busy,
    /// The connection is between two requests.
    Idle,
    /// The connection has changed to another protocol than HTTP.
    Upgraded,
}

impl Listening {
    /// Makes the state of a listener that has this name in the metrics.
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

    /// Counts that all places were taken, so that the next connection waits.
    pub fn count_full(&self) {
        self.full.increment(1);
    }

    fn gauge(&self, phase: Phase) -> &Gauge {
        &self.states[phase as usize]
    }
}

/// One connection; an extension of the requests that come by it.
pub struct Connection {
    pub peer: SocketAddr,
    shared: Arc<Listening>,
    state: Mutex<State>,
    /// Wakes whoever waits in [`Self::exhausted`].
    exhausted: Notify,
}

/// What changes while the connection is open.
struct State {
    phase: Phase,
    /// When the phase will have lasted too long; none where it may last.
    until: Option<Instant>,
    /// Whether a part of a request's head has come.
    begun: bool,
    /// The last bytes that have come.
    tail: [u8; 3],
    /// How many work for the request: the response's body, and the task that discards the rest of the request's body.
    guards: usize,
    body: BodyState,
    /// Whether the response to the request has begun.
    answered: bool,
    /// How many bytes may still come while it is not known who the client is; none where there is no such limit.
    allowance: Option<usize>,
    /// Wakes the reader that waits until the client is known.
    waiting: Option<Waker>,
}

/// How far the body of a request was read.
enum BodyState {
    /// The body was read to its end, or there is none.
    Whole,
    /// A handler reads the body, or may yet.
    Open,
    /// No handler will read the rest.
    Left(Leftover),
    /// The body broke off.
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
            guards: 0,
            body: BodyState::Whole,
            answered: false,
            allowance: None,
            waiting: None,
        };
        Arc::new(Self { peer, shared, state: Mutex::new(state), exhausted: Notify::new() })
    }

    /// Notes that the handshake is done: the head of the first request may take as long again.
    pub fn handshake_done(&self) {
        let mut state = self.state.lock();
        (state.until, state.begun) = (Some(Instant::now() + self.shared.head), false);
    }

    /// The moment at which the connection has to be given up unless something happens.
    pub fn until(&self) -> Option<Instant> {
        self.state.lock().until
    }

    /// The longest time for which any connection may be silent.
    pub fn longest(&self) -> Duration {
        self.shared.idle + IDLE_GRACE
    }

    /// Whether the connection has changed to another protocol than HTTP.
    pub fn is_upgraded(&self) -> bool {
        self.state.lock().phase == Phase::Upgraded
    }

    /// How many bytes may be read now; none where a client that is not known yet has sent all that it may. `waker` is woken
    /// once that has changed.
    pub fn receive_allowance(&self, waker: &Waker) -> Option<usize> {
        let mut state = self.state.lock();
        match (&state.phase, state.allowance) {
            (Phase::Upgraded, Some(0)) => {
                state.waiting = Some(waker.clone());
                self.exhausted.notify_one();
                None
            }
            (Phase::Upgraded, Some(little)) => Some(little),
            _ => Some(usize::MAX),
        }
    }

    /// Resolves when a client that is not known yet would send more than it may.
    pub async fn exhausted(&self) {
        self.exhausted.notified().await;
    }

    /// Notes that these bytes have come.
    pub fn received(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        for byte in &bytes[bytes.len().saturating_sub(3)..] {
            state.tail.rotate_left(1);
            state.tail[2] = *byte;
        }
        match state.phase {
            Phase::Idle if !state.begun => state.until = Some(Instant::now() + self.shared.head),
            // What comes now may belong to the body that is being read, and not to the next request's head.
            Phase::Busy if !matches!(state.body, BodyState::Whole) => return,
            Phase::Upgraded => {
                state.allowance = state.allowance.map(|allowance| allowance.saturating_sub(bytes.len()));
                return;
            }
            Phase::New | Phase::Busy | Phase::Idle => {}
        }
        state.begun = true;
    }

    /// Counts that the connection was given up because its state had lasted too long.
    pub fn count_overdue(&self) {
        let state = self.state.lock();
        let which = usize::from(state.phase != Phase::New && !state.begun);
        self.shared.overdue[which].increment(1);
    }

    /// Whether the client may be in the middle of sending something.
    pub fn is_sending(&self) -> bool {
        let state = self.state.lock();
        match state.phase {
            Phase::New | Phase::Idle => state.begun,
            Phase::Busy => !matches!(state.body, BodyState::Whole),
            Phase::Upgraded => false,
        }
    }

    /// Lets only so many bytes come until it is known who the client is.
    pub fn confine(&self, bytes: usize) {
        self.state.lock().allowance = Some(bytes);
    }

    /// Notes that it is known who the client is.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.allowance = None;
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
    }

    /// Changes the phase, also in the metrics.
    fn set_phase(&self, state: &mut State, phase: Phase) {
        if state.phase != phase {
            self.shared.gauge(state.phase).decrement(1);
            self.shared.gauge(phase).increment(1);
            state.phase = phase;
        }
    }

    /// Notes that a request begins. Returns its body, and the guard that is held until its response is complete.
    pub fn begin(self: &Arc<Self>, body: Incoming, headers: &HeaderMap) -> (WorkGuard, Option<RequestBody>) {
        let request_body = RequestBody::new(body, self, headers.get(header::EXPECT).is_some());
        let mut state = self.state.lock();
        self.set_phase(&mut state, Phase::Busy);
        // If a head without a body does not end what has come, the next request's head has begun already.
        let followed = request_body.is_none() && state.tail != *b"\n\r\n" && state.tail[1..] != *b"\n\n";
        (state.until, state.begun, state.answered) = (None, followed, false);
        // The task that discards the rest of the former body may still hold a guard.
        state.guards += 1;
        state.body = if request_body.is_some() { BodyState::Open } else { BodyState::Whole };
        (WorkGuard(self.clone()), request_body)
    }

    /// Says in a response's head whether the connection stays, and sees to the rest of the request's body. A connection that
    /// closes although the last response did not say so loses the request that is already on its way.
    pub fn on_response(
        self: &Arc<Self>,
        mut response: Response,
        guard: WorkGuard,
        closes: bool,
    ) -> Response<ResponseBody> {
        let mut state = self.state.lock();
        state.answered = true;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.set_phase(&mut state, Phase::Upgraded);
            drop(state);
            return response.map(|body| ResponseBody::new(body, guard));
        }
        let left = match &state.body {
            BodyState::Left(_) => std::mem::replace(&mut state.body, BodyState::Open),
            _ => BodyState::Whole,
        };
        let whole = matches!(state.body, BodyState::Whole);
        drop(state);
        let left = if let BodyState::Left(left) = left { Some(left) } else { None };
        let stays = !closes && (whole || left.as_ref().is_some_and(|one| one.is_sent_within(DISCARDED)));
        let headers = response.headers_mut();
        if stays {
            headers.insert(KEEP_ALIVE, self.shared.announced.clone());
        } else {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(left) = left.filter(|left| stays || left.is_unasked()) {
            let head = self.shared.head;
            let (most, within) = if stays { (DISCARDED, head) } else { (LINGERED, head.min(LINGER)) };
            tokio::spawn(discard(left, most, within, guard.clone()));
        }
        response.map(|body| ResponseBody::new(body, guard))
    }
}

const KEEP_ALIVE: header::HeaderName = header::HeaderName::from_static("keep-alive");

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.gauge(self.state.get_mut().phase).decrement(1);
    }
}

/// Held by whatever works for a request. When all guards are dropped, the connection waits for the next request.
pub struct WorkGuard(Arc<Connection>);

impl Clone for WorkGuard {
    fn clone(&self) -> Self {
        self.0.state.lock().guards += 1;
        Self(self.0.clone())
    }
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.guards -= 1;
        if state.guards > 0 || state.phase != Phase::Busy {
            return;
        }
        self.0.set_phase(&mut state, Phase::Idle);
        let longest = if state.begun { self.0.shared.head } else { self.0.longest() };
        state.until = Some(Instant::now() + longest);
    }
}
