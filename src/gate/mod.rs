//! The truth in memory: who may pass right now. The committer changes it after a commit and before anyone is
//! answered; hot paths ask it and nothing else. It holds every open session, every live token, the directory and the
//! unfinished revocations; ended sessions are in the store alone.
//!
//! - **What it knows comes in as [`Change`]s** and in no other way ([`Gate::commit`], [`Gate::apply`]); so a second one that is
//!   fed the same is the same. What one process alone sees (requests under way, signs of life, traffic that is not on record)
//!   stands beside that, and decides nothing about who may pass but whose silence is too long.
//! - **To be let in and to be registered is one step** ([`Gate::enter`], [`Gate::register`]): after the end of a session or
//!   credential was answered nothing passes, and whatever passed before was cancelled.
//! - **A look inside** ([`Gate::known`]) is of one moment. It keeps the committer waiting, so it is short and never held while
//!   something else is waited for; two looks may differ.
//! - **Statuses follow the clock**: what sessions are filed under is as of the last look at it, so whoever lists or counts asks
//!   as of a moment ([`Gate::known_at`], [`Gate::known_in_order`]).

mod flight;
mod holdings;
mod index;
mod key_secrets;
mod lease;
mod ordered;
mod state;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

pub use flight::{Flight, Pass, Signal, YIELD, landed};
use holdings::Concerned;
pub use holdings::Side;
pub use lease::{Instant, Lease};
pub use state::{Behind, GateState, MediaLookup, Order, Slice, Sum, ToKeepOut};

use sessiond_core::Time;
use sessiond_core::api_key::ApiKey;
use sessiond_core::caller::Caller;
use sessiond_core::change::Change;
use sessiond_core::ids::{ApplicationNumber, RevocationNumber, ServiceAccountNumber, SessionNumber};
use sessiond_core::revocation::Revocation;
use sessiond_core::session::event::Counts;
use sessiond_core::session::{Refusal, Session};
use sessiond_core::streams::AnyStream;
use sessiond_core::token::SessionToken;

/// The Gate. Cheap to share: everything behind one lock that is held for microseconds.
#[derive(Default)]
pub struct Gate {
    state: RwLock<GateState>,
    /// By whose leave somebody is let in: while it does not hold, nobody is.
    lease: Arc<Lease>,
}

/// An OAuth client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Application(ApplicationNumber),
    ServiceAccount(ServiceAccountNumber),
}

/// Sessions filed anew at a time: little enough that nobody waits for it.
const AT_ONCE: usize = 2_048;

/// What a commit changed.
pub struct Committed {
    pub changes: Vec<Change>,
    /// For each change the operations of the commit that caused it, by their places there.
    pub causes: Vec<Vec<usize>>,
    /// How many operations there were.
    pub operations: usize,
    /// Traffic that was counted here and is on record now. It is no change: other processes counted none of it.
    pub traffic: Vec<(SessionNumber, Counts)>,
    pub begun: Vec<Begun>,
    /// The moment as of which it was decided: bars end by the clock.
    pub now: Time,
    /// Whether this process made the commit, and so tells upstreams of sessions that end with it.
    pub own: bool,
}

/// A revocation that begins with a commit of this process.
pub struct Begun {
    pub revocation: RevocationNumber,
    /// The sessions that it covers.
    pub covered: Arc<[SessionNumber]>,
    /// The operation that begins it, by its place in the commit.
    pub cause: usize,
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
    /// One that lets somebody in only while a lease holds.
    pub fn with_lease(lease: Lease) -> Self {
        let gate = Self { lease: Arc::new(lease), ..Self::default() };
        gate.state.write().keep_sightings();
        gate
    }

    /// By whose leave somebody is let in.
    pub fn lease(&self) -> Arc<Lease> {
        self.lease.clone()
    }

    /// Refuses everybody while the lease does not hold.
    pub fn is_open(&self) -> Result<(), Refusal> {
        if self.lease.holds() { Ok(()) } else { Err(Refusal::Lapsed) }
    }

    /// A look inside. Held only for synchronous work.
    pub fn known(&self) -> RwLockReadGuard<'_, GateState> {
        self.state.read()
    }

    /// Makes changes visible, all at once, and cuts off whatever has ended by them.
    pub fn apply(&self, changes: Vec<Change>, now: Time) {
        let causes = vec![vec![]; changes.len()];
        let (traffic, begun) = Default::default();
        self.commit(Committed { changes, causes, operations: 0, traffic, begun, now, own: true });
    }

    /// Makes what a commit of this process changed visible, all at once. Returns for each of its operations the flights of
    /// what ended with a session or a credential and is still under way: cancelled already, to be waited for by whoever
    /// wants to answer "it is over".
    pub fn commit(&self, committed: Committed) -> Vec<Vec<Arc<Flight>>> {
        let Committed { changes, causes, operations, traffic, begun, now, own } = committed;
        let mut state = self.state.write();
        state.tells_departures = own;
        let mut cut_off = vec![vec![]; operations];
        let mut tell = |cancelled: &[Arc<Flight>], causes: &[usize]| {
            causes.iter().for_each(|cause| cut_off[*cause].extend_from_slice(cancelled));
        };
        let mut concerned: HashMap<Concerned, Vec<usize>> = HashMap::new();
        for (change, causes) in changes.into_iter().zip(causes) {
            if let Some(one) = state.concerned(&change) {
                concerned.entry(one).or_default().extend_from_slice(&causes);
            }
            let mut cancelled = vec![];
            state.apply(change, &mut cancelled);
            tell(&cancelled, &causes);
        }
        for (one, causes) in concerned {
            tell(&state.end_opened(one, now), &causes);
        }
        traffic.into_iter().for_each(|(number, counts)| state.traffic_recorded(number, counts));
        drop(state);
        for Begun { revocation, covered, cause } in begun {
            cut_off[cause].extend(self.cut_off(revocation, covered));
        }
        cut_off
    }

    /// Makes what a commit of another process changed visible, all at once, as [`commit`](Self::commit) does, with what a
    /// revocation cuts off that begins by it. Returns what was under way of what has ended. Who tells upstreams of it is the
    /// process that made the commit.
    pub fn follow(&self, changes: Vec<Change>, now: Time) -> Vec<Arc<Flight>> {
        let begun: Vec<_> = {
            let known = self.state.read();
            let begins = |change: &Change| match change {
                Change::Stream(AnyStream::Revocation(one)) if one.ended_at.is_none() => Some((**one).clone()),
                _ => None,
            };
            let begins = changes.iter().filter_map(begins);
            begins.filter(|one| known.stream::<Revocation>(one.number).is_none()).collect()
        };
        let causes = vec![vec![0]; changes.len()];
        let (traffic, none) = Default::default();
        let committed = Committed { changes, causes, operations: 1, traffic, begun: none, now, own: false };
        let mut cut_off: Vec<_> = self.commit(committed).into_iter().flatten().collect();
        for revocation in begun {
            let covered = self.state.read().covered(&revocation).into();
            cut_off.extend(self.cut_off(revocation.number, covered));
        }
        cut_off
    }

    /// Ends all that is under way, because the lease does not hold any more. No session ends by it.
    pub fn lapse(&self) {
        self.state.read().lapse();
    }

    /// Ends what is open by secrets of API keys that were good beside newer ones, once their time is over.
    pub fn end_replaced(&self, now: Time) {
        let known = self.state.read();
        let over = |key: &&ApiKey| key.old_until.is_some_and(|until| until <= now);
        for key in known.streams::<ApiKey>().filter(over) {
            known.end_replaced(key);
        }
    }

    /// A revocation that was in force in memory only is on record now, under another number.
    pub fn lift_provisional(&self, number: RevocationNumber) {
        self.state.write().forget_revocation(number);
    }

    /// Cancels what is under way of the sessions that a revocation covers, once the revocation is in force: nothing of
    /// theirs is let in from then on, so this finds all there is. It may be a hundred thousand of them, so it takes a read
    /// lock: whoever asks the Gate meanwhile does not wait. Returns the flights, to be waited for.
    pub fn cut_off(&self, revocation: RevocationNumber, covered: Arc<[SessionNumber]>) -> Vec<Arc<Flight>> {
        self.state.read().cut_off(revocation, covered)
    }

    /// Every session of the MCP gateway with an id of its own that ends from now on, in whichever way. There is one who
    /// listens: a later one takes over.
    pub fn departures(&self) -> UnboundedReceiver<Departed> {
        let (sender, receiver) = unbounded_channel();
        self.state.write().tell_departures(sender);
        receiver
    }

    /// So many sessions are about to come: what they are kept in need not grow again and again.
    pub fn expect(&self, sessions: u64) {
        self.state.write().expect(usize::try_from(sessions).unwrap_or_default());
    }

    /// A look inside, after every session whose status has changed with the clock was filed anew.
    pub fn known_at(&self, now: Time) -> RwLockReadGuard<'_, GateState> {
        loop {
            let known = self.state.read();
            if !known.is_behind(now) {
                return known;
            }
            drop(known);
            self.state.write().advance(now, AT_ONCE);
        }
    }

    /// The same, and in the order of their last activity stand those that were seen up to now: as many as have been seen
    /// since somebody last asked have to be moved.
    pub fn known_in_order(&self, order: Order, now: Time) -> RwLockReadGuard<'_, GateState> {
        if order == Order::LastActive {
            let mut left = self.state.read().stirred();
            while left > 0 {
                self.state.write().move_stirred(AT_ONCE);
                left = left.saturating_sub(AT_ONCE);
            }
        }
        self.known_at(now)
    }

    /// Registers a request or stream of a session as under way, with the session and with the credential, and lets it pass,
    /// in one step: after the end of either was answered nothing passes, and all that passed before it was cancelled.
    pub fn enter(&self, caller: &Caller, number: SessionNumber, now: Time) -> Result<Pass, Refusal> {
        let pass = self.state.read().enter(caller, number, now)?;
        self.while_open(pass)
    }

    /// The same for what is open with a credential alone.
    pub fn register(&self, caller: &Caller, side: Side, now: Time) -> Result<Pass, Refusal> {
        let pass = self.state.read().register(caller, side, now)?;
        self.while_open(pass)
    }

    /// Registers what another node has let in, for whoever hands it on: it ends with the session, if that is open.
    pub fn escort(&self, number: SessionNumber) -> Option<Pass> {
        self.state.read().escort(number).and_then(|pass| self.while_open(pass).ok())
    }

    /// Looks at the lease once the pass is registered: what is registered when it runs out is ended, and what comes later is
    /// refused here.
    fn while_open(&self, pass: Pass) -> Result<Pass, Refusal> {
        self.is_open().map(|()| pass.on(self.lease.clone()))
    }

    /// Counts traffic of a session that is not in the log yet, if the session is open.
    pub fn count(&self, number: SessionNumber, counts: Counts) {
        self.state.read().passed(number, counts);
    }

    /// Notes a sign of life that is not in the log yet.
    pub fn saw(&self, number: SessionNumber, now: Time) {
        self.state.read().saw(number, now);
    }

    /// Notes which access token was presented with a session, and says whether it is another than before.
    pub fn presented(&self, number: SessionNumber, token: Uuid) -> bool {
        let another = self.state.read().would_note(number, token);
        if another {
            self.state.write().note(number, token);
        }
        another
    }

    /// The sessions that other processes will take for stale unless they are told of signs of life that are not in the log,
    /// with the last of these.
    pub fn signs_unknown_elsewhere(&self, now: Time) -> Vec<(SessionNumber, Time)> {
        self.state.read().signs_unknown_elsewhere(now)
    }

    /// Sessions of which the clock demands something, at most `limit`. `not_before` is the later of process start and
    /// last clock jump.
    pub fn due(&self, now: Time, not_before: Time, limit: usize) -> Vec<(SessionNumber, Due)> {
        self.state.write().due(now, not_before, limit)
    }
}
