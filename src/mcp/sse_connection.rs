//! A connection of HTTP+SSE, the transport of 2024-11-05: one stream for everything that the server sends, and an
//! endpoint for what the client sends, whose answers come on the stream.

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
use super::event_id::{self, EventId};
use super::message;
use super::reply::RpcError;
use super::resumable_stream::{End, ResumableStream};
use super::sse_events::renamed_part;
use crate::secret::{self, TokenKind};

/// How many calls may be under way on one connection.
const MOST_PENDING: usize = 256;
/// The number of no session, for connections that have none yet.
pub const NO_SESSION: SessionNumber = SessionNumber(0);

/// A stream and its endpoint.
pub struct SseConnection {
    /// Names the connection in the URL of its endpoint: 256 random bits, and where there may be several nodes the one that it
    /// is at. It opens nothing without a credential.
    pub id: String,
    pub application: ApplicationNumber,
    /// The caller who opened the connection, with the credential of that moment.
    pub opener: Caller,
    pub stream: Arc<ResumableStream>,
    session: Mutex<Option<Session>>,
    /// Held while the connection is being given a session.
    pub session_lock: Arc<tokio::sync::Mutex<()>>,
    /// The connection that took this one's place, and gets whatever was still to be sent here.
    successor: OnceLock<Arc<SseConnection>>,
    /// The calls that have not been answered yet.
    pending: Mutex<Vec<Value>>,
    /// Why the session of the connection ended.
    end_reason: OnceLock<Reason>,
}

impl SseConnection {
    /// Makes a connection whose events go on after number `after`. `mcp_session_id` names the session, where it had a
    /// connection before.
    pub fn new(
        caller: &Caller,
        application: ApplicationNumber,
        after: u64,
        mcp_session_id: Option<Bytes>,
        budget: &Arc<Budget>,
        node: Option<i64>,
        seal: impl FnOnce(&str) -> [u8; 32],
    ) -> Arc<Self> {
        let key = event_id::new_key(node);
        let seal = seal(&key);
        let begin =
            EventId { key, calls: vec![], number: after, upstream: mcp_session_id, session_digest: None };
        // A connection without a session holds nothing. Later its bytes count for its application.
        let share = budget.share(Rank::Standalone, (NO_SESSION, application), CancellationToken::new());
        Arc::new(Self {
            id: new_id(node),
            application,
            opener: caller.clone(),
            stream: Arc::new(ResumableStream::new(NO_SESSION, begin, seal, share)),
            session: Mutex::default(),
            session_lock: Arc::default(),
            successor: OnceLock::new(),
            pending: Mutex::default(),
            end_reason: OnceLock::new(),
        })
    }

    /// Why the connection's session ended, if it has.
    pub fn end_reason(&self) -> Option<Reason> {
        self.end_reason.get().copied()
    }

    /// Whether the connection was opened by the same principal and client.
    pub fn is_of(&self, caller: &Caller) -> bool {
        self.opener.actor == caller.actor
            && self.opener.person() == caller.person()
            && self.opener.client() == caller.client()
    }

    /// Makes what is remembered of a connection that has ended: whose it was and why it ended, but nothing of what was
    /// sent on it.
    fn tombstone(&self, reason: Reason) -> Arc<Self> {
        let begin =
            EventId { key: String::new(), calls: vec![], number: 0, upstream: None, session_digest: None };
        Arc::new(Self {
            id: self.id.clone(),
            application: self.application,
            opener: self.opener.clone(),
            stream: Arc::new(ResumableStream::new(NO_SESSION, begin, [0; 32], self.stream.empty_share())),
            session: Mutex::new(self.session()),
            session_lock: Arc::default(),
            successor: OnceLock::new(),
            pending: Mutex::default(),
            end_reason: OnceLock::from(reason),
        })
    }

    /// The connection's session, once it has one.
    pub fn session(&self) -> Option<Session> {
        self.session.lock().clone()
    }

    /// Gives the connection a session. The caller must hold `session_lock`.
    pub fn set_session(&self, session: Session, mcp_session_id: Option<&str>) {
        *self.session.lock() = Some(session);
        if let Some(id) = mcp_session_id {
            self.stream.set_upstream_id(Bytes::copy_from_slice(id.as_bytes()));
        }
    }

    /// Notes that calls wait for an answer, unless too many do already; returns whether it did.
    pub fn add_pending(&self, ids: &[Value]) -> bool {
        let mut pending = self.pending.lock();
        if pending.len() + ids.len() > MOST_PENDING {
            return false;
        }
        pending.extend_from_slice(ids);
        true
    }

    /// Notes that these calls are answered in another way.
    pub fn remove_pending(&self, ids: &[Value]) {
        self.pending.lock().retain(|id| !ids.contains(id));
    }

    /// Whether one of these calls still waits for its answer.
    pub fn has_pending(&self, ids: &[Value]) -> bool {
        if let Some(successor) = self.successor.get() {
            return successor.has_pending(ids);
        }
        self.pending.lock().iter().any(|id| ids.contains(id))
    }

    /// Puts a message of the upstream onto this connection, or onto the one that took its place.
    pub async fn send(&self, message: &[u8]) {
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
        connection.pending.lock().retain(|id| !answered.contains(id));
    }

    /// Answers with an error those of these calls that still wait for an answer.
    pub async fn refuse(&self, ids: &[Value], rpc_error: &RpcError) {
        for id in ids.iter().filter(|id| self.has_pending(std::slice::from_ref(*id))) {
            self.send(rpc_error.answer(id).as_bytes()).await;
        }
    }

    /// Takes the place of another connection of the same session: what the former one had not handed on yet is handed
    /// on here.
    pub async fn take_over(self: &Arc<Self>, former: &SseConnection) {
        former.successor.set(self.clone()).ok();
        former.stream.end(End::Done);
        let pending = std::mem::take(&mut *former.pending.lock());
        self.pending.lock().extend(pending);
        if let Some(mcp_session_id) = former.stream.upstream_id() {
            self.stream.set_upstream_id(mcp_session_id);
        }
        for event in former.stream.unread() {
            self.stream.push(None, vec![], |id| renamed_part(&event, id)).await;
        }
    }

    /// Ends the connection at once, with an error for each call that waits for an answer.
    pub fn cut_off(&self, rpc_error: &RpcError) {
        let pending = std::mem::take(&mut *self.pending.lock());
        let farewells: Vec<_> = pending.iter().map(|id| rpc_error.answer(id)).collect();
        self.stream.cut_off(&farewells);
    }
}

fn new_id(node: Option<i64>) -> String {
    let random = secret::mint(TokenKind::Mcp, secret::new_id()).text;
    node.map_or(random.clone(), |node| format!("{node}.{random}"))
}

/// The node that a connection with this id is at, if the id names one.
pub fn node_of(id: &str) -> Option<i64> {
    id.split_once('.').and_then(|(node, _)| node.parse().ok())
}

/// A message as an event. JSON may be spread over several `data` lines, which the client joins again.
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

/// How many ended connections are remembered, so that their clients learn why they ended.
const MOST_ENDED: usize = 4_096;

/// All connections of HTTP+SSE.
#[derive(Default)]
pub struct SseConnections {
    known: Mutex<Registered>,
}

#[derive(Default)]
struct Registered {
    by_id: HashMap<String, Arc<SseConnection>>,
    by_session: HashMap<SessionNumber, Arc<SseConnection>>,
    /// The ids of connections that have ended, the oldest first.
    ended_ids: VecDeque<String>,
}

impl SseConnections {
    /// Adds a connection, also as that of its session if it has one.
    pub fn insert(&self, connection: &Arc<SseConnection>) {
        let mut known = self.known.lock();
        if let Some(session) = connection.session() {
            known.by_session.insert(session.number, connection.clone());
        }
        known.by_id.insert(connection.id.clone(), connection.clone());
    }

    /// The connection behind the id in an endpoint's URL.
    pub fn find(&self, id: &str) -> Option<Arc<SseConnection>> {
        self.known.lock().by_id.get(id).cloned()
    }

    /// The connection that a session has now.
    pub fn of_session(&self, session: SessionNumber) -> Option<Arc<SseConnection>> {
        self.known.lock().by_session.get(&session).cloned()
    }

    /// Forgets a connection. Returns whether it was its session's connection: another may have taken its place.
    pub fn remove(&self, connection: &Arc<SseConnection>) -> bool {
        let mut known = self.known.lock();
        known.by_id.remove(&connection.id);
        known.unlink_session(connection)
    }

    /// Forgets a connection except for the reason why its session ended.
    pub fn remember_ended(&self, connection: &Arc<SseConnection>, reason: Reason) {
        connection.end_reason.set(reason).ok();
        let mut known = self.known.lock();
        known.unlink_session(connection);
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
    /// Separates a connection from its session; returns whether it was its session's connection.
    fn unlink_session(&mut self, connection: &Arc<SseConnection>) -> bool {
        let Some(session) = connection.session() else { return false };
        let own = self.by_session.get(&session.number).is_some_and(|one| Arc::ptr_eq(one, connection));
        if own {
            self.by_session.remove(&session.number);
        }
        own
    }
}
