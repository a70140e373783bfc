//! One shell and those who are at it: whoever types, one connection at a time, and those who watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::frame::Size;
use super::ssh::Pace;
use super::tail::{Next, Tail};
use crate::core::caller::Caller;
use crate::core::reason::Reason;
use crate::core::session::Session;

/// Messages to the machine that may wait. Each is at most one frame.
const WAITING: usize = 64;

/// What goes to the machine.
#[derive(Debug)]
pub enum ToMachine {
    Input(Bytes),
    Resize(Size),
}

/// How it ended, as those who are at it are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    pub reason: Reason,
    pub message: String,
    /// Nothing more of it may be shown: it was cut off.
    pub cut: bool,
}

/// Who is there, and what happens next.
#[derive(Debug, Clone)]
struct State {
    /// The connection that types, by its number.
    typist: Option<u64>,
    /// Since when nobody does.
    left_at: Instant,
    size: Size,
    over: Option<Over>,
    /// How far output goes: changes whenever there is more.
    end: u64,
}

/// A shell with its session.
pub struct Shell {
    pub session: Session,
    /// Whoever opened it: input is recorded in that name.
    pub caller: Caller,
    pub opened_at: Instant,
    /// What `opened_at` was by the clock; microseconds since 1970.
    pub opened_us: i64,
    /// SHA-256 of the secrets of its tokens: whoever types, and those who watch.
    typist: [u8; 32],
    watchers: Mutex<Vec<[u8; 32]>>,
    tail: Mutex<Tail>,
    state: watch::Sender<State>,
    machine: mpsc::Sender<ToMachine>,
    pace: Arc<Pace>,
    connections: AtomicU64,
    /// When something was last typed; microseconds since `opened_at`.
    typed: AtomicI64,
    congested: AtomicBool,
}

/// What a token of a shell is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Typist,
    Watcher,
}

/// Why somebody cannot be at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAttached {
    /// Another connection types.
    Taken,
    Over(Over),
}

/// What to do next for somebody who is at it.
#[derive(Debug)]
pub enum Step {
    Output(Bytes),
    /// Output goes on here; what lies between is no longer held.
    Skip(u64),
    Over(Over),
}

impl Shell {
    /// A shell, and what goes to its machine.
    pub fn new(
        session: Session,
        caller: Caller,
        typist: [u8; 32],
        size: Size,
        pace: Arc<Pace>,
        opened_us: i64,
    ) -> (Self, mpsc::Receiver<ToMachine>) {
        let (machine, waiting) = mpsc::channel(WAITING);
        let now = Instant::now();
        let state = State { typist: None, left_at: now, size, over: None, end: 0 };
        let shell = Self {
            session,
            caller,
            opened_at: now,
            opened_us,
            typist,
            watchers: Mutex::default(),
            tail: Mutex::default(),
            state: watch::Sender::new(state),
            machine,
            pace,
            connections: AtomicU64::new(0),
            typed: AtomicI64::new(0),
            congested: AtomicBool::new(false),
        };
        (shell, waiting)
    }

    pub fn id(&self) -> Uuid {
        self.session.id
    }

    /// Now, in microseconds since 1970: the clock's at the beginning, and what has passed since.
    pub fn now_us(&self) -> i64 {
        self.opened_us + self.age_us()
    }

    fn age_us(&self) -> i64 {
        i64::try_from(self.opened_at.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// What a token is good for, by the hash of its secret.
    pub fn role(&self, hash: &[u8; 32]) -> Option<Role> {
        if crate::secret::same(&self.typist, hash) {
            return Some(Role::Typist);
        }
        let watches = self.watchers.lock().iter().any(|one| crate::secret::same(one, hash));
        watches.then_some(Role::Watcher)
    }

    /// Lets whoever brings this secret watch; the oldest such right goes if there are many.
    pub fn admit(&self, hash: [u8; 32], most: usize) {
        let mut watchers = self.watchers.lock();
        if watchers.len() >= most {
            watchers.remove(0);
        }
        watchers.push(hash);
    }

    pub fn size(&self) -> Size {
        self.state.borrow().size
    }

    pub fn over(&self) -> Option<Over> {
        self.state.borrow().over.clone()
    }

    /// Whether somebody types, and for how long nobody has.
    pub fn deserted_for(&self) -> Option<Duration> {
        let state = self.state.borrow();
        state.typist.is_none().then(|| state.left_at.elapsed())
    }

    /// For how long nothing was typed.
    pub fn quiet_for(&self) -> Duration {
        let quiet = self.age_us() - self.typed.load(Ordering::Relaxed);
        Duration::from_micros(quiet.max(0).unsigned_abs())
    }

    /// Changes when somebody comes or goes, when there is output, and at the end.
    pub fn changes(self: &Arc<Self>) -> Changes {
        Changes(self.state.subscribe())
    }

    // ---- from the machine ----

    /// The shell has printed.
    pub fn print(&self, bytes: Bytes) {
        let (end, full) = {
            let mut tail = self.tail.lock();
            tail.push(bytes);
            (tail.end(), tail.is_full())
        };
        if full {
            self.pace.hold(true);
        }
        self.state.send_modify(|state| state.end = end);
    }

    /// It is over; the first word about it stays.
    pub fn finish(&self, over: Over) {
        self.state.send_if_modified(|state| {
            let first = state.over.is_none();
            if first {
                state.over = Some(over);
            }
            first
        });
        // Who waits for the machine waits no more.
        self.pace.hold(false);
    }

    // ---- from those who are at it ----

    /// Begins to type: from where on output is wanted, by default from what has not arrived yet.
    pub fn attach(self: &Arc<Self>, after: Option<u64>) -> Result<Seat, NotAttached> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let mut outcome = Ok(());
        self.state.send_if_modified(|state| {
            if let Some(over) = state.over.clone().filter(|over| over.cut) {
                outcome = Err(NotAttached::Over(over));
            } else if state.typist.is_some() {
                outcome = Err(NotAttached::Taken);
            } else {
                state.typist = Some(number);
            }
            outcome.is_ok()
        });
        outcome?;
        let mut tail = self.tail.lock();
        let place = match after {
            Some(after) => {
                tail.arrived(after);
                after.min(tail.end())
            }
            None => tail.unread(),
        };
        let room = tail.has_room();
        drop(tail);
        if room {
            self.pace.hold(false);
        }
        Ok(Seat { shell: self.clone(), role: Role::Typist, number, place, state: self.state.subscribe() })
    }

    /// Begins to watch, with the last of what was printed.
    pub fn watch(self: &Arc<Self>) -> Result<Seat, NotAttached> {
        if let Some(over) = self.over() {
            return Err(NotAttached::Over(over));
        }
        let place = self.tail.lock().recent();
        let state = self.state.subscribe();
        Ok(Seat { shell: self.clone(), role: Role::Watcher, number: 0, place, state })
    }

    /// Types, if the machine takes it at once; else it is given back.
    pub fn try_input(&self, bytes: Bytes) -> Option<Bytes> {
        self.typed.store(self.age_us(), Ordering::Relaxed);
        match self.machine.try_send(ToMachine::Input(bytes)) {
            Err(mpsc::error::TrySendError::Full(ToMachine::Input(bytes))) => Some(bytes),
            _ => None,
        }
    }

    /// Types. Waits while the machine takes nothing. Meanwhile whoever types is not heard, and cannot say what has arrived:
    /// what was sent counts as arrived then, or a program that prints before it reads on would wait for ever.
    pub async fn input(&self, bytes: Bytes) {
        self.congested.store(true, Ordering::Relaxed);
        self.machine.send(ToMachine::Input(bytes)).await.ok();
        self.congested.store(false, Ordering::Relaxed);
    }

    /// Whether input waits for the machine.
    pub fn is_congested(&self) -> bool {
        self.congested.load(Ordering::Relaxed)
    }

    pub async fn resize(&self, size: Size) -> bool {
        self.state.send_modify(|state| state.size = size);
        self.machine.send(ToMachine::Resize(size)).await.is_ok()
    }
}

/// Waits for something to change at a shell.
pub struct Changes(watch::Receiver<State>);

impl Changes {
    /// Waits until it is over.
    pub async fn over(&mut self) -> Over {
        let waited = self.0.wait_for(|state| state.over.is_some()).await;
        let over = waited.ok().and_then(|state| state.over.clone());
        over.unwrap_or_else(|| Over {
            reason: Reason::Failed,
            message: "sessiond stops".to_owned(),
            cut: true,
        })
    }

    /// Waits until nobody types.
    pub async fn deserted(&mut self) {
        self.0.wait_for(|state| state.typist.is_none()).await.ok();
    }

    /// Waits until somebody does.
    pub async fn attended(&mut self) {
        self.0.wait_for(|state| state.typist.is_some()).await.ok();
    }
}

/// Somebody at a shell. Dropped, the place is free.
pub struct Seat {
    shell: Arc<Shell>,
    pub role: Role,
    number: u64,
    /// What was handed over lies before this.
    pub place: u64,
    state: watch::Receiver<State>,
}

impl Seat {
    pub fn shell(&self) -> &Arc<Shell> {
        &self.shell
    }

    /// What comes next: output, of which at most so many bytes, or the end. Nothing is lost if this is dropped.
    pub async fn next(&mut self, most: usize) -> Step {
        loop {
            let over = self.state.borrow_and_update().over.clone();
            if let Some(over) = over.as_ref().filter(|over| over.cut) {
                return Step::Over(over.clone());
            }
            let next = self.shell.tail.lock().after(self.place, most);
            match (next, over) {
                (Next::Bytes(bytes), _) => {
                    self.place += bytes.len() as u64;
                    return Step::Output(bytes);
                }
                (Next::Lost(from), _) => {
                    self.place = from;
                    return Step::Skip(from);
                }
                (Next::Nothing, Some(over)) => return Step::Over(over),
                (Next::Nothing, None) => {
                    if self.state.changed().await.is_err() {
                        let message = "sessiond stops".to_owned();
                        return Step::Over(Over { reason: Reason::Failed, message, cut: true });
                    }
                }
            }
        }
    }

    /// Passes over what is no longer held; where output goes on.
    pub fn skip_lost(&mut self) -> u64 {
        if let Next::Lost(from) = self.shell.tail.lock().after(self.place, 1) {
            self.place = from;
        }
        self.place
    }

    /// Everything up to this place has arrived.
    pub fn arrived(&self, place: u64) {
        if self.role == Role::Watcher {
            return;
        }
        let room = {
            let mut tail = self.shell.tail.lock();
            tail.arrived(place);
            tail.has_room()
        };
        if room {
            self.shell.pace.hold(false);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let number = self.number;
        self.shell.state.send_if_modified(|state| {
            let mine = state.typist == Some(number) && number > 0;
            if mine {
                (state.typist, state.left_at) = (None, Instant::now());
            }
            mine
        });
    }
}
