//! A connection of HTTP+SSE, the transport of 2024-11-05: one stream for everything that the server says, and an endpoint
//! for what the client says, whose answers come on the stream.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use sessiond_core::reason::Reason;
use sessiond_core::session::Session;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Rank};
use super::event_id::EventId;
use super::message;
use super::reply::RpcError;
use super::resumable_stream::{End, ResumableStream};
use super::sse_events::renamed_part;
use crate::secret::{self, TokenKind};

/// Calls that may be under way on one wire.
const MOST_OWED: usize = 256;
/// Where a wire has no session yet.
pub const NO_SESSION: SessionNumber = SessionNumber(0);

/// The stream and its endpoint.
pub struct SseConnection {
    /// Names it in the URL of its endpoint: 256 random bits. It opens nothing without a credential.
    pub id: String,
    pub application: ApplicationNumber,
    /// Who opened it, and with which credential.
    pub opener: Caller,
    pub stream: Arc<ResumableStream>,
    session: Mutex<Option<Session>>,
    /// Held while it is being given a session.
    pub session_lock: Arc<tokio::sync::Mutex<()>>,
    /// What took its place: whatever was still to be said here is said there.
    successor: OnceLock<Arc<SseConnection>>,
    /// Calls that have not been answered.
    owed: Mutex<Vec<Value>>,
    /// Why its session ended.
    ended: OnceLock<Reason>,
}

impl SseConnection {
    /// A wire whose events go on after `after`; `mcp_session_id` is that of a session that had one before.
    pub fn new(
        caller: &Caller,
        application: ApplicationNumber,
        after: u64,
        mcp_session_id: Option<Bytes>,
        budget: &Arc<Budget>,
        seal: impl FnOnce(&str) -> [u8; 32],
    ) -> Arc<Self> {
        let key = secret::request_id();
        let seal = seal(&key);
        let begin =
            EventId { key, calls: vec![], number: after, upstream: mcp_session_id, session_digest: None };
        // Before it has a session it holds nothing; later what it holds is counted as its application's.
        let share = budget.share(Rank::Standalone, (NO_SESSION, application), CancellationToken::new());
        Arc::new(Self {
            id: secret::mint(TokenKind::Mcp, secret::new_id()).text,
            application,
            opener: caller.clone(),
            stream: Arc::new(ResumableStream::new(NO_SESSION, begin, seal, share)),
            session: Mutex::default(),
            session_lock: Arc::default(),
            successor: OnceLock::new(),
            owed: Mutex::default(),
            ended: OnceLock::new(),
        })
    }

    /// Why its session ended, if it has.
    pub fn ended(&self) -> Option<Reason> {
        self.ended.get().copied()
    }

    /// Whether it was opened by the same principal and client.
    pub fn is_of(&self, caller: &Caller) -> bool {
        self.opener.actor == caller.actor
            && self.opener.person() == caller.person()
            && self.opener.client() == caller.client()
    }

    /// What is remembered of a wire that is over: whose it was and why it ended, and nothing of what was said on it.
    fn tombstone(&self, reason: Reason) -> Arc<Self> {
        let begin =
            EventId { key: String::new(), calls: vec![], number: 0, upstream: None, session_digest: None };
        Arc::new(Self {
            id: self.id.clone(),
            application: self.application,
            opener: self.opener.clone(),
            stream: Arc::new(ResumableStream::new(
                NO_SESSION,
                begin,
                [0; 32],
                self.stream.share_of_nothing(),
            )),
            session: Mutex::new(self.session()),
            session_lock: Arc::default(),
            successor: OnceLock::new(),
            owed: Mutex::default(),
            ended: OnceLock::from(reason),
        })
    }

    /// The session it carries, once it has one.
    pub fn session(&self) -> Option<Session> {
        self.session.lock().clone()
    }

    /// Gives it a session, for whoever holds `giving`.
    pub fn set_session(&self, session: Session, mcp_session_id: Option<&str>) {
        *self.session.lock() = Some(session);
        if let Some(id) = mcp_session_id {
            self.stream.set_upstream_id(Bytes::copy_from_slice(id.as_bytes()));
        }
    }

    /// Notes that calls are owed an answer, unless too many are already.
    pub fn owe(&self, ids: &[Value]) -> bool {
        let mut owed = self.owed.lock();
        if owed.len() + ids.len() > MOST_OWED {
            return false;
        }
        owed.extend_from_slice(ids);
        true
    }

    /// These will be answered otherwise.
    pub fn forgive(&self, ids: &[Value]) {
        self.owed.lock().retain(|id| !ids.contains(id));
    }

    /// Whether one of these is still owed an answer.
    pub fn owes(&self, ids: &[Value]) -> bool {
        if let Some(successor) = self.successor.get() {
            return successor.owes(ids);
        }
        self.owed.lock().iter().any(|id| ids.contains(id))
    }

    /// Says a message of the upstream's, here or where its client is now.
    pub async fn say(&self, message: &[u8]) {
        let mut connection = self;
        let (event, answered) = (event(message), message::answered(message));
        loop {
            let named = |id: &str| [format!("id: {id}\n").as_bytes(), &event].concat().into();
            if connection.stream.push(None, answered.clone(), named).await {
                break;
            }
            match connection.successor.get() {
                Some(successor) => connection = successor,
                None => return,
            }
        }
        connection.owed.lock().retain(|id| !answered.contains(id));
    }

    /// Answers those of these calls that have not been answered with an error.
    pub async fn refuse(&self, ids: &[Value], rpc_error: &RpcError) {
        for id in ids.iter().filter(|id| self.owes(std::slice::from_ref(*id))) {
            self.say(rpc_error.answer(id).as_bytes()).await;
        }
    }

    /// Takes the place of another wire of the same session: what that one had not said yet is said here.
    pub async fn succeed(self: &Arc<Self>, former: &SseConnection) {
        former.successor.set(self.clone()).ok();
        former.stream.end(End::Done);
        let owed = std::mem::take(&mut *former.owed.lock());
        self.owed.lock().extend(owed);
        if let Some(mcp_session_id) = former.stream.upstream_id() {
            self.stream.set_upstream_id(mcp_session_id);
        }
        for event in former.stream.unread() {
            self.stream.push(None, vec![], |id| renamed_part(&event, id)).await;
        }
    }

    /// Ends it, with an error for each call that is owed an answer.
    pub fn cut_off(&self, rpc_error: &RpcError) {
        let owed = std::mem::take(&mut *self.owed.lock());
        let farewells: Vec<_> = owed.iter().map(|id| rpc_error.answer(id)).collect();
        self.stream.cut_off(&farewells);
    }
}

/// A message as an event: JSON may be spread over lines, which the client joins again.
fn event(message: &[u8]) -> Vec<u8> {
    let mut event = b"event: message\n".to_vec();
    for line in message.split(|byte| *byte == b'\n' || *byte == b'\r').filter(|line| !line.is_empty()) {
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line);
        event.push(b'\n');
    }
    event.push(b'\n');
    event
}

/// Ended wires that are remembered, so that their clients learn why.
const MOST_ENDED: usize = 4_096;

/// The wires there are.
#[derive(Default)]
pub struct SseConnections {
    known: Mutex<Registered>,
}

#[derive(Default)]
struct Registered {
    by_id: HashMap<String, Arc<SseConnection>>,
    by_session: HashMap<SessionNumber, Arc<SseConnection>>,
    ended_ids: VecDeque<String>,
}

impl SseConnections {
    /// Takes a wire in, also as that of its session if it has one.
    pub fn insert(&self, connection: &Arc<SseConnection>) {
        let mut known = self.known.lock();
        if let Some(session) = connection.session() {
            known.by_session.insert(session.number, connection.clone());
        }
        known.by_id.insert(connection.id.clone(), connection.clone());
    }

    /// The wire behind the id in an endpoint's URL.
    pub fn find(&self, id: &str) -> Option<Arc<SseConnection>> {
        self.known.lock().by_id.get(id).cloned()
    }

    /// The wire that a session has now.
    pub fn of_session(&self, session: SessionNumber) -> Option<Arc<SseConnection>> {
        self.known.lock().by_session.get(&session).cloned()
    }

    /// Forgets a wire. Whether it was its session's: another may have taken its place.
    pub fn remove(&self, connection: &Arc<SseConnection>) -> bool {
        let mut known = self.known.lock();
        known.by_id.remove(&connection.id);
        known.part(connection)
    }

    /// Forgets a wire save for why its session ended.
    pub fn remember_ended(&self, connection: &Arc<SseConnection>, reason: Reason) {
        connection.ended.set(reason).ok();
        let mut known = self.known.lock();
        known.part(connection);
        known.by_id.insert(connection.id.clone(), connection.tombstone(reason));
        known.ended_ids.push_back(connection.id.clone());
        if known.ended_ids.len() > MOST_ENDED
            && let Some(oldest) = known.ended_ids.pop_front()
        {
            known.by_id.remove(&oldest);
        }
    }
}

impl Registered {
    /// Parts a wire from its session.
    fn part(&mut self, connection: &Arc<SseConnection>) -> bool {
        let Some(session) = connection.session() else { return false };
        let own = self.by_session.get(&session.number).is_some_and(|one| Arc::ptr_eq(one, connection));
        if own {
            self.by_session.remove(&session.number);
        }
        own
    }
}
