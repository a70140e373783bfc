//! One open terminal: its shell, its session, the tokens for it, and the reason for its end.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::reason::Reason;
use sessiond_core::session::Session;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::hub::Hub;
use super::registry::LAST_WORDS;
use crate::secret;

/// How many viewers' tokens one terminal may have.
const MOST_VIEWERS: usize = 32;

/// The reason for a terminal's end, as its connections are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndReason {
    pub reason: Reason,
    pub message: String,
}

/// What a terminal's token entitles to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The token lets its holder type.
    Writer,
    /// The token lets its holder watch.
    Viewer,
}

/// A shell with its session.
pub struct Terminal {
    pub session: Session,
    /// The caller who opened the terminal: typing counts as that caller's activity.
    pub caller: Caller,
    /// The shell with its connections.
    pub hub: Hub,
    /// When the hub began; microseconds since 1970.
    pub begun_us: i64,
    begun: Instant,
    /// The SHA-256 hashes of the tokens' secrets: the writer's, and each viewer's with the caller who asked for it.
    writer: [u8; 32],
    viewers: Mutex<Vec<([u8; 32], Caller)>>,
    /// The reason for the end; the first one stays.
    end_reason: OnceLock<EndReason>,
    /// Set once connections may be told of the end: then it is on record, or whoever ended the session has seen to
    /// that.
    announced: watch::Sender<bool>,
    /// How many command lines were entered so far. The log counts them a little later.
    commands: AtomicU64,
    /// Whether a full-screen program has the screen.
    full_screen: AtomicBool,
}

impl Terminal {
    /// Makes the terminal of a session whose hub begins now, at this time of the wall clock. `writer` is the hash of the
    /// writer's token.
    pub(super) fn new(session: Session, caller: &Caller, hub: Hub, begun: Time, writer: [u8; 32]) -> Self {
        Self {
            session,
            caller: Caller { once: None, ..caller.clone() },
            hub,
            begun_us: begun.timestamp_micros(),
            begun: Instant::now(),
            writer,
            viewers: Mutex::default(),
            end_reason: OnceLock::new(),
            announced: watch::Sender::new(false),
            commands: AtomicU64::new(0),
            full_screen: AtomicBool::new(false),
        }
    }

    /// How many command lines were entered so far.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Counts one more command line.
    pub(super) fn count_command(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a full-screen program has the screen.
    pub fn is_full_screen(&self) -> bool {
        self.full_screen.load(Ordering::Relaxed)
    }

    /// Notes whether a full-screen program has the screen.
    pub(super) fn set_full_screen(&self, full_screen: bool) {
        self.full_screen.store(full_screen, Ordering::Relaxed);
    }

    /// The role of a token, by the hash of its secret, and the caller who asked for the token: the connection ends with
    /// that caller's credential.
    pub fn role(&self, hash: &[u8; 32]) -> Option<(Role, Caller)> {
        if secret::same(&self.writer, hash) {
            return Some((Role::Writer, self.caller.clone()));
        }
        let viewers = self.viewers.lock();
        let viewer = viewers.iter().find(|(one, _)| secret::same(one, hash));
        viewer.map(|(_, caller)| (Role::Viewer, caller.clone()))
    }

    /// Lets the holder of this secret watch. If there are too many viewers' tokens, the oldest one goes.
    pub(super) fn add_viewer(&self, hash: [u8; 32], caller: &Caller) {
        let mut viewers = self.viewers.lock();
        if viewers.len() >= MOST_VIEWERS {
            viewers.remove(0);
        }
        viewers.push((hash, Caller { once: None, ..caller.clone() }));
    }

    /// A time of the hub in microseconds since 1970.
    pub fn time_of(&self, at: u64) -> i64 {
        self.begun_us.saturating_add_unsigned(at)
    }

    /// The current time on the same scale.
    pub fn now_us(&self) -> i64 {
        self.time_of(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The reason for the end, as soon as it may be told: what a client is told has happened already.
    pub async fn announced_end(&self) -> EndReason {
        let mut announced = self.announced.subscribe();
        timeout(2 * LAST_WORDS, announced.wait_for(|announced| *announced)).await.ok();
        self.end_reason()
    }

    /// The reason for the end, whether or not it may be told yet.
    pub(super) fn end_reason(&self) -> EndReason {
        let unknown = || EndReason { reason: Reason::Failed, message: "the terminal was closed".to_owned() };
        self.end_reason.get().cloned().unwrap_or_else(unknown)
    }

    /// Settles the reason for the end, unless it is settled already.
    pub(super) fn set_end_reason(&self, reason: EndReason) {
        self.end_reason.set(reason).ok();
    }

    /// Lets connections be told of the end.
    pub(super) fn announce_end(&self) {
        self.announced.send_replace(true);
    }
}
