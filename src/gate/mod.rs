//! The truth in memory: who may pass right now. The committer changes it after a commit and before anyone is
//! answered; hot paths ask it and nothing else. It holds every open session, every live token, the directory and the
//! unfinished revocations; ended sessions are in the store alone.

mod flight;
mod holdings;
mod index;
mod keys;
mod known;
mod ordered;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

pub use flight::{Flight, Pass, Signal};
use holdings::Concerned;
pub use holdings::Side;
pub use index::Terms;
pub use known::{Behind, Known, Order, Placed, Slice, Sum};

use sessiond_core::Time;
use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use sessiond_core::command::NaturalKey;
use sessiond_core::ids::{
    ApplicationNumber, Position, RevocationNumber, ServiceAccountNumber, SessionNumber,
};
use sessiond_core::kind::Kind;
use sessiond_core::organization::Organization;
use sessiond_core::revocation::Revocation;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::event::Counts;
use sessiond_core::session::{Refusal, Session};
use sessiond_core::streams::AnyStream;
use sessiond_core::token::{AccessToken, Principal, SessionToken};

/// The Gate. Cheap to share: everything behind one lock that is held for microseconds.
#[derive(Default)]
pub struct Gate {
    known: RwLock<Known>,
}

/// An OAuth client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Application(ApplicationNumber),
    ServiceAccount(ServiceAccountNumber),
}

/// Sessions filed anew at a time: little enough that nobody waits for it.
const AT_ONCE: usize = 2_048;

/// The first half of SHA-256 over an application and a natural key.
pub type KeyDigest = [u8; 16];

/// The digest under which the Gate keeps a natural key.
pub fn key_digest(application: ApplicationNumber, key: NaturalKey<'_>) -> KeyDigest {
    let (tag, principal, text) = match key {
        NaturalKey::Anchor(text) => (b'a', None, text),
        NaturalKey::Named { name, .. } => (b'n', None, name),
        NaturalKey::ClientSessionId(principal, text) => (b'c', Some(principal), text),
        NaturalKey::TokenIdentifier(principal, text) => (b't', Some(principal), text),
    };
    let mut hasher = Sha256::new();
    hasher.update(application.0.to_be_bytes());
    hasher.update([tag]);
    if let Some(principal) = principal {
        hasher.update(principal.0.to_be_bytes());
    }
    if let NaturalKey::Named { resource, .. } = key {
        hasher.update((resource.len() as u64).to_be_bytes());
        hasher.update(resource.as_bytes());
    }
    hasher.update(text.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

/// The name that lists give of a session, where they give names alone.
pub fn shown_name(kind: Kind, client_session_id: Option<&str>) -> Option<Arc<str>> {
    client_session_id.filter(|_| kind == Kind::Media).map(Into::into)
}

/// One thing that a commit changed.
#[derive(Debug, Clone)]
pub enum Change {
    Organization(Organization),
    Application(Application),
    ServiceAccount(ServiceAccount),
    Revocation(Revocation),
    /// Credentials issued before this position, which was this time, were barred somewhere.
    Bar(Position, Time),
    /// One that was in force in memory only is over: it was recorded.
    LiftRevocation(RevocationNumber),
    /// A session as it stands now, with what came along if it has just connected.
    Session(Session, Option<Fresh>),
    SessionToken(SessionNumber, SessionToken),
    McpSession(SessionNumber, [u8; 32]),
    AccessToken(AccessToken),
    BarAccessToken(Uuid),
    Principal(Principal),
    Stream(AnyStream),
    /// The secret of an API key, with when it was last used.
    ApiKeySecret(Uuid, [u8; 32], Option<Time>),
    ForgetTokens(Time),
    /// What sessions are found by beyond their fold is personal, and was erased.
    ErasePersonal(Vec<SessionNumber>),
    /// An access token that its client gave up.
    RevokeAccessToken(Uuid),
    /// So much of a session's traffic is on record now.
    Counted(SessionNumber, Counts),
}

/// A change, with the operations of its batch that it is because of, by their places there.
pub type Caused = (Change, Vec<usize>);

/// What comes along with a session that has just connected, or was just loaded.
#[derive(Debug, Clone, Default)]
pub struct Fresh {
    pub key: Option<KeyDigest>,
    pub terms: Terms,
    /// When it was loaded, which may be long after it was last active; none: it has just connected.
    pub loaded_at: Option<Time>,
}

/// What sessions of a resource that have ended came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    pub sessions: u64,
    pub bytes_out: u64,
}

/// What the clock demands of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Expire,
    Lifetime,
    /// With the sign of life that is not in the log yet.
    Stale(Option<Time>),
}

/// How many sessions are what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub active: u64,
    pub idle: u64,
    pub expired: u64,
    /// All there ever were.
    pub total: u64,
}

/// A session of the MCP gateway that has ended, and whose upstream may not know it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departed {
    pub number: SessionNumber,
    pub id: Uuid,
    pub application: ApplicationNumber,
}

/// An open session as the Gate sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub session: Session,
    pub seen_at: Option<Time>,
    pub token: Option<SessionToken>,
}

impl Gate {
    /// A look inside. Held only for synchronous work.
    pub fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read()
    }

    /// Makes changes visible, all at once.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        self.apply_caused(changes.into_iter().map(|change| (change, vec![])), 0);
    }

    /// The same for changes that so many operations caused. Returns for each of them the flights of what ended with a
    /// session or a credential and is still under way: cancelled already, to be waited for by whoever wants to answer "it
    /// is over".
    pub fn apply_caused(
        &self,
        changes: impl IntoIterator<Item = Caused>,
        operations: usize,
    ) -> Vec<Vec<Arc<Flight>>> {
        let mut known = self.known.write();
        let mut cut_off = vec![vec![]; operations];
        let mut tell = |cancelled: &[Arc<Flight>], causes: &[usize]| {
            causes.iter().for_each(|cause| cut_off[*cause].extend_from_slice(cancelled));
        };
        let mut concerned: HashMap<Concerned, Vec<usize>> = HashMap::new();
        for (change, causes) in changes {
            if let Some(one) = known.concerned(&change) {
                concerned.entry(one).or_default().extend_from_slice(&causes);
            }
            let mut cancelled = vec![];
            known.apply(change, &mut cancelled);
            tell(&cancelled, &causes);
        }
        for (one, causes) in concerned {
            tell(&known.end_opened(one), &causes);
        }
        cut_off
    }

    /// Cancels what is under way of the sessions that a revocation covers, once the revocation is in force: nothing of
    /// theirs is let in from then on, so this finds all there is. It may be a hundred thousand of them, so it takes a read
    /// lock: whoever asks the Gate meanwhile does not wait. Returns the flights, to be waited for.
    pub fn cut_off(&self, revocation: RevocationNumber, covered: Arc<[SessionNumber]>) -> Vec<Arc<Flight>> {
        self.known.read().cut_off(revocation, covered)
    }

    /// Every session of the MCP gateway with an id of its own that ends from now on, in whichever way. There is one who
    /// listens: a later one takes over.
    pub fn departures(&self) -> UnboundedReceiver<Departed> {
        let (sender, receiver) = unbounded_channel();
        self.known.write().tell_departures(sender);
        receiver
    }

    /// What ended sessions of resources came to, at start-up.
    pub fn set_past(&self, past: impl IntoIterator<Item = (ApplicationNumber, String, Past)>) {
        self.known.write().set_past(past);
    }

    /// So many sessions are about to come: what they are kept in need not grow again and again.
    pub fn expect(&self, sessions: u64) {
        self.known.write().expect(usize::try_from(sessions).unwrap_or_default());
    }

    /// Counts sessions that ever connected, at start-up.
    pub fn set_totals(&self, totals: impl IntoIterator<Item = (ApplicationNumber, u64)>) {
        self.known.write().set_totals(totals);
    }

    /// A look inside, after every session whose status has changed with the clock was filed anew.
    pub fn known_at(&self, now: Time) -> RwLockReadGuard<'_, Known> {
        loop {
            let known = self.known.read();
            if !known.is_behind(now) {
                return known;
            }
            drop(known);
            self.known.write().advance(now, AT_ONCE);
        }
    }

    /// The same, and in the order of their last activity stand those that were seen up to now: as many as have been seen
    /// since somebody last asked have to be moved.
    pub fn known_in_order(&self, order: Order, now: Time) -> RwLockReadGuard<'_, Known> {
        if order == Order::LastActive {
            let mut left = self.known.read().stirred();
            while left > 0 {
                self.known.write().move_stirred(AT_ONCE);
                left = left.saturating_sub(AT_ONCE);
            }
        }
        self.known_at(now)
    }

    /// Registers a request or stream of a session as under way, with the session and with the credential, and lets it pass,
    /// in one step: after the end of either was answered nothing passes, and all that passed before it was cancelled.
    pub fn enter(&self, caller: &Caller, number: SessionNumber, now: Time) -> Result<Pass, Refusal> {
        self.known.read().enter(caller, number, now)
    }

    /// The same for what is open with a credential alone.
    pub fn stay(&self, caller: &Caller, side: Side) -> Result<Pass, Refusal> {
        self.known.read().stay(caller, side)
    }

    /// Counts traffic of a session that is not in the log yet, if the session is open.
    pub fn count(&self, number: SessionNumber, counts: Counts) {
        self.known.read().passed(number, counts);
    }

    /// Notes a sign of life that is not in the log yet.
    pub fn saw(&self, number: SessionNumber, now: Time) {
        self.known.read().saw(number, now);
    }

    /// Notes which access token was presented with a session.
    pub fn presented(&self, number: SessionNumber, token: Uuid) {
        if self.known.read().would_note(number, token) {
            self.known.write().note(number, token);
        }
    }

    /// Sessions of which the clock demands something, at most `limit`. `not_before` is the later of process start and
    /// last clock jump.
    pub fn due(&self, now: Time, not_before: Time, limit: usize) -> Vec<(SessionNumber, Due)> {
        self.known.write().due(now, not_before, limit)
    }
}
