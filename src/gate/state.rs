//! What the Gate knows, how commits and the clock change it, and what hot paths do with it.

mod apply;
mod bars;
mod behind;
mod clock;
mod compare;
mod credentials;
mod media_streams;
mod questions;
mod sightings;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::bar::{Barred, BarredClient};
use sessiond_core::caller::Caller;
use sessiond_core::filter::Facts;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, SessionNumber,
    StreamId,
};
use sessiond_core::natural_key::KeyDigest;
use sessiond_core::retention::ResourceTotals;
use sessiond_core::session::event::Counts;
use sessiond_core::session::{Refusal, Session};
use sessiond_core::status::DerivedStatus;
use sessiond_core::streams::AnyStream;
use sessiond_core::token::{AccessToken, SessionToken};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use super::flight::{Flight, Pass};
use super::holdings::{Holdings, Side};
use super::index::{Index, SharedTerms};
use super::key_secrets::KeySecrets;
use super::ordered::Ordered;
use super::{Client, Departed};

pub use behind::{Behind, ToKeepOut};
pub use media_streams::{MediaLookup, Sum};
pub use questions::{Order, Slice};

/// What an unfinished revocation covered when it began.
#[derive(Debug)]
struct Coverage {
    sessions: Arc<[SessionNumber]>,
    /// How many requests and streams of theirs it cut off.
    cut_off: u64,
}

/// What the Gate knows.
#[derive(Default)]
pub struct GateState {
    /// Of revocations only the unfinished ones.
    streams: BTreeMap<StreamId, AnyStream>,
    streams_by_id: HashMap<Uuid, StreamId>,
    clients: HashMap<String, Client>,
    /// The revocations that are not finished: few.
    unfinished: BTreeSet<RevocationNumber>,
    /// The sessions that each of them covers, worked out once, when it began. Behind a lock of its own, so that what they
    /// have under way is cut off under a read lock on everything else.
    coverage: Mutex<HashMap<RevocationNumber, Coverage>>,
    /// Each in a box of its own: a table keeps room for twice as many as it holds.
    sessions: HashMap<SessionNumber, Box<Open>>,
    by_id: HashMap<Uuid, SessionNumber>,
    by_key: HashMap<KeyDigest, SessionNumber>,
    index: Index,
    ordered: Ordered,
    /// Sessions that were seen since they were last put in the order of their activity.
    stirred: Mutex<VecDeque<SessionNumber>>,
    /// When the status of a session changes by the clock alone: never later than it does.
    changes: BTreeSet<(Time, SessionNumber)>,
    /// Sessions that were filed as idle and have been seen since.
    woken: Mutex<Vec<SessionNumber>>,
    /// Statuses were looked at up to here.
    looked_at: Time,
    /// Expiries that nobody announced yet.
    expiries: BTreeSet<(Time, SessionNumber)>,
    /// When to look at a session again for going stale or reaching its lifetime: never later than it is due.
    deadlines: BTreeSet<(Time, SessionNumber)>,
    access_tokens: HashMap<Uuid, AccessToken>,
    /// Access tokens that were given up, until they expire: a request that they let in may still be on its way.
    given_up: HashMap<Uuid, Time>,
    /// Of API keys.
    pub key_secrets: KeySecrets,
    /// When the events were that bar older credentials: for credentials that know a time and no position.
    barrings: BTreeMap<Position, Time>,
    /// The bars that were not lifted, by whom they keep out; whether one stands depends on the clock.
    bars: HashMap<Barred, BTreeSet<i64>>,
    /// Clients that are principals by themselves.
    own_clients: HashMap<PrincipalNumber, BarredClient>,
    /// Which organizations trust an issuer.
    trusting: HashMap<String, Vec<OrganizationNumber>>,
    principals: HashMap<(OrganizationNumber, [u8; 32]), PrincipalNumber>,
    /// How many principals each organization knows.
    met: HashMap<OrganizationNumber, usize>,
    principals_by_id: HashMap<(OrganizationNumber, Uuid), PrincipalNumber>,
    principal_ids: HashMap<PrincipalNumber, Uuid>,
    totals: HashMap<ApplicationNumber, u64>,
    resource_totals: HashMap<ApplicationNumber, HashMap<String, ResourceTotals>>,
    media_streams: media_streams::MediaStreams,
    /// What is open, by the credential that opened it.
    holdings: Arc<Holdings>,
    /// What is to be told to other processes.
    sightings: sightings::Sightings,
    /// Whoever tells upstreams that a session has ended, and whether that is up to this process with what is applied now.
    departures: Option<UnboundedSender<Departed>>,
    pub(super) tells_departures: bool,
}

/// An open session, with what is not in its stream.
struct Open {
    session: Session,
    terms: SharedTerms,
    /// What it is filed under.
    status: DerivedStatus,
    /// When that changes by the clock alone.
    changes_at: Option<Time>,
    /// Noted in [`GateState::woken`] already.
    woken: AtomicBool,
    /// Where it stands in the order of activity.
    stands_at: Time,
    /// Noted in [`GateState::stirred`] already.
    stirred: AtomicBool,
    key: Option<KeyDigest>,
    token: Option<SessionToken>,
    /// SHA-256 of the secret in its `Mcp-Session-Id`, for sessions of the gateway.
    mcp_hash: Option<[u8; 32]>,
    /// The access token last presented with it, if another than its stream says.
    presented: Option<Uuid>,
    /// A sign of life that is not in the log yet; milliseconds.
    seen_at: AtomicI64,
    /// When some process said that it was alive, although nothing of that is in the log: it only keeps it from going stale.
    alive_at: Option<Time>,
    deadline: Time,
    flight: OnceLock<Arc<Flight>>,
}

impl Open {
    fn seen_at(&self) -> Option<Time> {
        match self.seen_at.load(Ordering::Relaxed) {
            0 => None,
            milliseconds => Time::from_timestamp_millis(milliseconds),
        }
    }

    /// The last sign of life, whether it is in the log or not.
    fn last_active_at(&self) -> Time {
        self.seen_at().map_or(self.session.last_active_at, |at| at.max(self.session.last_active_at))
    }

    /// The last sign of life that is not in the log, here or elsewhere.
    fn last_sign(&self) -> Option<Time> {
        self.seen_at().max(self.alive_at)
    }

    fn busy(&self) -> bool {
        self.flight.get().is_some_and(|flight| flight.count() > 0)
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            hostname: self.terms.hostname.as_deref(),
            client: self.terms.client.as_deref(),
            seen_at: self.seen_at(),
        }
    }

    /// The earliest moment at which it could go stale or reach its lifetime. A suspended one does not go stale.
    fn next_deadline(&self, not_before: Time) -> Time {
        if self.session.suspended_at.is_some() {
            return self.session.lifetime_ends_at;
        }
        let last = self.last_sign().map_or(not_before, |last| last.max(not_before));
        self.session.lifetime_ends_at.min(self.session.stale_at(last))
    }
}

impl GateState {
    pub(super) fn enter(&self, caller: &Caller, number: SessionNumber, now: Time) -> Result<Pass, Refusal> {
        let open = self.sessions.get(&number).ok_or(Refusal::Unknown)?;
        if let Some(revocation) = self.covering(&open.session) {
            return Err(Refusal::Revoked(revocation.reason));
        }
        if open.session.suspended_at.is_some() {
            return Err(Refusal::Suspended);
        }
        if self.disabled(open.session.principal) {
            return Err(Refusal::PrincipalDisabled);
        }
        if self.bar_on(Barred::Principal(open.session.principal), now).is_some() {
            return Err(Refusal::Barred);
        }
        let held = self.hold(caller, Side::Agent(open.session.application, Some(number)), now)?;
        self.see(open, now);
        let flight = open.flight.get_or_init(Arc::default);
        Ok(Pass::enter(Some(flight), Some(held)))
    }

    pub(super) fn register(&self, caller: &Caller, side: Side, now: Time) -> Result<Pass, Refusal> {
        Ok(Pass::enter(None, Some(self.hold(caller, side, now)?)))
    }

    pub(super) fn escort(&self, number: SessionNumber) -> Option<Pass> {
        let open = self.sessions.get(&number)?;
        Some(Pass::enter(Some(open.flight.get_or_init(Arc::default)), None))
    }

    pub(super) fn passed(&self, number: SessionNumber, counts: Counts) {
        if let Some(open) = self.sessions.get(&number) {
            open.flight.get_or_init(Arc::default).tally.add(counts);
        }
    }

    pub(super) fn saw(&self, number: SessionNumber, now: Time) {
        // A sign of life of one that a revocation covers comes too late.
        let open = self.sessions.get(&number).filter(|open| self.covering(&open.session).is_none());
        if let Some(open) = open {
            self.see(open, now);
        }
    }

    fn see(&self, open: &Open, now: Time) {
        open.seen_at.fetch_max(now.timestamp_millis(), Ordering::Relaxed);
        self.sightings.note(open.session.number);
        if !open.stirred.swap(true, Ordering::Relaxed) {
            self.stirred.lock().push_back(open.session.number);
        }
        if open.status == DerivedStatus::Idle && !open.woken.swap(true, Ordering::Relaxed) {
            self.woken.lock().push(open.session.number);
        }
    }

    pub(super) fn would_note(&self, number: SessionNumber, token: Uuid) -> bool {
        let presented = |open: &Open| open.presented.or(open.session.credential);
        self.sessions.get(&number).is_some_and(|open| presented(open) != Some(token))
    }

    pub(super) fn note(&mut self, number: SessionNumber, token: Uuid) {
        if let Some(open) = self.sessions.get_mut(&number) {
            open.presented = Some(token);
        }
    }

    pub(super) fn tell_departures(&mut self, sender: UnboundedSender<Departed>) {
        self.departures = Some(sender);
    }

    pub(super) fn expect(&mut self, sessions: usize) {
        self.sessions.reserve(sessions);
        self.by_id.reserve(sessions);
        self.by_key.reserve(sessions);
    }
}
