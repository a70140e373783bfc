//! A connection of HTTP+SSE, the transport of 2024-11-05: one stream for everything that the server says, and an endpoint
//! for what the client says, whose answers come on the stream.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use super::event_id::EventId;
use super::line::{End, Line};
use super::message;
use super::reply::Fault;
use crate::core::caller::{Actor, Caller};
use crate::core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use crate::core::reason::Reason;
use crate::core::session::Session;
use crate::secret::{self, TokenKind};

/// Where a wire has no session yet.
const NO_SESSION: SessionNumber = SessionNumber(0);

/// The stream and its endpoint.
pub struct Wire {
    /// Names it in the URL of its endpoint: 256 random bits. It opens nothing without a credential.
    pub id: String,
    pub application: ApplicationNumber,
    owner: Owner,
    pub line: Arc<Line>,
    session: Mutex<Option<Session>>,
    /// Calls that have not been answered.
    owed: Mutex<Vec<Value>>,
    /// Why its session ended.
    ended: OnceLock<Reason>,
}

/// Who opened it.
#[derive(PartialEq, Eq)]
struct Owner {
    actor: Actor,
    person: Option<PrincipalNumber>,
    client: Option<String>,
}

impl Owner {
    fn of(caller: &Caller) -> Self {
        Self { actor: caller.actor, person: caller.person(), client: caller.client().map(str::to_owned) }
    }
}

impl Wire {
    /// A wire whose events go on after `after`; `mcp_session_id` is that of a session that had one before.
    pub fn new(
        caller: &Caller,
        application: ApplicationNumber,
        after: u64,
        mcp_session_id: Option<Bytes>,
    ) -> Arc<Self> {
        let begin =
            EventId { key: secret::request_id(), calls: vec![], number: after, upstream: mcp_session_id };
        Arc::new(Self {
            id: secret::mint(TokenKind::Mcp, secret::new_id()).text,
            application,
            owner: Owner::of(caller),
            line: Arc::new(Line::new(NO_SESSION, begin)),
            session: Mutex::default(),
            owed: Mutex::default(),
            ended: OnceLock::new(),
        })
    }

    /// Why its session ended, if it has.
    pub fn ended(&self) -> Option<Reason> {
        self.ended.get().copied()
    }

    pub fn is_of(&self, caller: &Caller) -> bool {
        self.owner == Owner::of(caller)
    }

    pub fn session(&self) -> Option<Session> {
        self.session.lock().clone()
    }

    /// Gives it a session; false where it has one.
    pub fn give(&self, session: Session, mcp_session_id: Option<&str>) -> bool {
        let mut held = self.session.lock();
        if held.is_some() {
            return false;
        }
        *held = Some(session);
        if let Some(id) = mcp_session_id {
            self.line.mark(Bytes::copy_from_slice(id.as_bytes()));
        }
        true
    }

    pub fn owe(&self, ids: &[Value]) {
        self.owed.lock().extend_from_slice(ids);
    }

    /// Whether one of these is still owed an answer.
    pub fn owes(&self, ids: &[Value]) -> bool {
        self.owed.lock().iter().any(|id| ids.contains(id))
    }

    /// Says a message of the upstream's.
    pub async fn say(&self, message: &[u8]) {
        let answered = message::answered(message);
        self.owed.lock().retain(|id| !answered.contains(id));
        let message = event(message);
        self.line.push(None, |id| [format!("id: {id}\n").as_bytes(), &message].concat().into()).await;
    }

    /// Answers those of these calls that have not been answered with an error.
    pub async fn refuse(&self, ids: &[Value], fault: &Fault) {
        let owed: Vec<_> = self.owed.lock().iter().filter(|id| ids.contains(id)).cloned().collect();
        for id in &owed {
            self.say(fault.answer(id).as_bytes()).await;
        }
    }

    /// Takes the place of another wire of the same session: what that one could not say any more is said here.
    pub async fn succeed(&self, former: &Wire) {
        let owed = std::mem::take(&mut *former.owed.lock());
        self.owe(&owed);
        for event in former.line.unread() {
            self.line.push_part(event, None).await;
        }
        former.line.end(End::Done);
    }

    /// Ends it, with an error for each call that is owed an answer.
    pub fn cut_off(&self, fault: &Fault) {
        let owed = std::mem::take(&mut *self.owed.lock());
        let farewells: Vec<_> = owed.iter().map(|id| fault.answer(id)).collect();
        self.line.cut_off(&farewells);
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
const BURIED: usize = 4_096;

/// The wires there are.
#[derive(Default)]
pub struct Wires {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<String, Arc<Wire>>,
    by_session: HashMap<SessionNumber, Arc<Wire>>,
    buried: VecDeque<String>,
}

impl Wires {
    pub fn insert(&self, wire: &Arc<Wire>) {
        let mut known = self.known.lock();
        if let Some(session) = wire.session() {
            known.by_session.insert(session.number, wire.clone());
        }
        known.by_id.insert(wire.id.clone(), wire.clone());
    }

    pub fn find(&self, id: &str) -> Option<Arc<Wire>> {
        self.known.lock().by_id.get(id).cloned()
    }

    pub fn of_session(&self, session: SessionNumber) -> Option<Arc<Wire>> {
        self.known.lock().by_session.get(&session).cloned()
    }

    /// Forgets a wire. Whether it was its session's: another may have taken its place.
    pub fn remove(&self, wire: &Arc<Wire>) -> bool {
        let mut known = self.known.lock();
        known.by_id.remove(&wire.id);
        known.part(wire)
    }

    /// Forgets a wire save for why its session ended.
    pub fn bury(&self, wire: &Arc<Wire>, reason: Reason) {
        wire.ended.set(reason).ok();
        let mut known = self.known.lock();
        known.part(wire);
        known.buried.push_back(wire.id.clone());
        if known.buried.len() > BURIED
            && let Some(oldest) = known.buried.pop_front()
        {
            known.by_id.remove(&oldest);
        }
    }
}

impl Known {
    /// Parts a wire from its session.
    fn part(&mut self, wire: &Arc<Wire>) -> bool {
        let Some(session) = wire.session() else { return false };
        let own = self.by_session.get(&session.number).is_some_and(|one| Arc::ptr_eq(one, wire));
        if own {
            self.by_session.remove(&session.number);
        }
        own
    }
}
