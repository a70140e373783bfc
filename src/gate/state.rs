//! What the Gate knows, how commits and the clock change it, and what hot paths do with it.

mod behind;
mod compare;
mod credentials;
mod media_streams;
mod questions;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::change::{Change, IndexEntry, ResourceTotals};
use sessiond_core::ending::Ending;
use sessiond_core::filter::Facts;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, SessionNumber,
    StreamId,
};
use sessiond_core::natural_key::KeyDigest;
use sessiond_core::organization::Organization;
use sessiond_core::revocation::Revocation;
use sessiond_core::session::event::Counts;
use sessiond_core::session::{Refusal, Session};
use sessiond_core::status::{DerivedStatus, derived_status};
use sessiond_core::streams::AnyStream;
use sessiond_core::token::{AccessToken, Principal, SessionToken};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use super::flight::{Flight, Pass};
use super::holdings::{Holdings, Side};
use super::index::{self, Index, SharedTerms};
use super::key_secrets::KeySecrets;
use super::ordered::{By, Ordered};
use super::{Client, Departed, Due};

pub use behind::Behind;
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
    bars: BTreeMap<Position, Time>,
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
    /// Whoever tells upstreams that a session has ended.
    departures: Option<UnboundedSender<Departed>>,
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
        let last = self.seen_at().map_or(not_before, |seen| seen.max(not_before));
        self.session.lifetime_ends_at.min(self.session.stale_at(last))
    }
}

/// Two that ask at the same time may bring their times in the wrong order; beyond this the clock was set back.
const SET_BACK: chrono::TimeDelta = chrono::TimeDelta::seconds(10);

impl GateState {
    pub(super) fn apply(&mut self, change: Change, cancelled: &mut Vec<Arc<Flight>>) {
        match change {
            Change::Stream(stream) => self.put_stream(stream),
            Change::Bar(position, at) => {
                self.bars.insert(position, at);
            }
            Change::Session(session, _) if session.ended.is_some() => self.end(&session, cancelled),
            Change::Session(session, entry) => self.open(session, entry.unwrap_or_default()),
            Change::SessionToken(number, token) => {
                if let Some(open) = self.sessions.get_mut(&number) {
                    open.token = Some(token);
                }
            }
            Change::McpSession(number, hash) => {
                if let Some(open) = self.sessions.get_mut(&number) {
                    open.mcp_hash = Some(hash);
                }
            }
            Change::AccessToken(token) => {
                self.access_tokens.insert(token.id, token);
            }
            Change::BarAccessToken(id) => {
                if let Some(token) = self.access_tokens.get_mut(&id) {
                    token.barred = true;
                }
            }
            Change::Principal(principal) => self.meet(&principal),
            Change::ApiKeySecret(id, hash, used_at) => self.key_secrets.learn(id, hash, used_at),
            Change::ApiKeysUsed(used) => self.key_secrets.recorded(&used),
            Change::ForgetTokens(before) => {
                self.access_tokens.retain(|_, token| token.expires_at >= before);
                self.given_up.retain(|_, expires_at| *expires_at >= before);
            }
            Change::ErasePersonal(sessions) => {
                for number in sessions {
                    let Some(open) = self.sessions.get_mut(&number) else { continue };
                    self.index.remove(&open.session, &open.terms, open.status);
                    open.terms = SharedTerms { name: open.terms.name.take(), ..SharedTerms::default() };
                    self.index.insert(&open.session, &open.terms, open.status);
                }
            }
            Change::RevokeAccessToken(id) => {
                if let Some(token) = self.access_tokens.remove(&id) {
                    self.given_up.insert(id, token.expires_at);
                }
            }
            Change::SessionTotal(application, total) => {
                self.totals.insert(application, total);
            }
            Change::ResourceTotals(application, resource, totals) => {
                self.resource_totals.entry(application).or_default().insert(resource, totals);
            }
        }
    }

    /// A stream as it stands now, with what it is found by.
    fn put_stream(&mut self, stream: AnyStream) {
        match &stream {
            AnyStream::Organization(organization) => self.trust_issuers_of(organization),
            AnyStream::Application(application) => {
                let client = Client::Application(application.number);
                self.clients.insert(application.oauth.client_id.clone(), client);
            }
            AnyStream::ServiceAccount(account) => {
                self.clients.insert(account.client_id.clone(), Client::ServiceAccount(account.number));
            }
            AnyStream::Revocation(revocation) if revocation.ended_at.is_some() => {
                return self.forget_revocation(revocation.number);
            }
            AnyStream::Revocation(revocation) => {
                self.unfinished.insert(revocation.number);
            }
            AnyStream::MediaStream(stream) => self.media_streams.put(stream),
            AnyStream::Principal(_)
            | AnyStream::ApiKey(_)
            | AnyStream::Schedule(_)
            | AnyStream::Webhook(_)
            | AnyStream::Hook(_)
            | AnyStream::Machine(_) => {}
        }
        if !matches!(stream, AnyStream::Revocation(_)) {
            self.streams_by_id.insert(stream.id(), stream.stream());
        }
        self.streams.insert(stream.stream(), stream);
    }

    fn trust_issuers_of(&mut self, organization: &Organization) {
        let number = organization.number;
        let before = self.stream::<Organization>(number);
        if before.is_some_and(|before| before.issuers != organization.issuers) {
            self.trusting.retain(|_, trusting| {
                trusting.retain(|one| *one != number);
                !trusting.is_empty()
            });
        }
        for issuer in &organization.issuers {
            let trusting = self.trusting.entry(issuer.issuer.clone()).or_default();
            if !trusting.contains(&number) {
                trusting.push(number);
            }
        }
    }

    fn meet(&mut self, principal: &Principal) {
        let Principal { number, organization, .. } = *principal;
        if self.principals.insert((organization, principal.subject_digest), number).is_none() {
            *self.met.entry(organization).or_default() += 1;
        }
        self.principals_by_id.insert((organization, principal.id()), number);
        self.principal_ids.insert(number, principal.id());
    }

    fn open(&mut self, session: Session, entry: IndexEntry) {
        let number = session.number;
        if self.sessions.contains_key(&number) {
            return self.update(session);
        }
        let unannounced = session.expiry().filter(|_| !session.announced());
        self.expiries.extend(unannounced.map(|at| (at, number)));
        self.by_id.insert(session.id, number);
        if let Some(key) = entry.key {
            self.by_key.insert(key, number);
        }
        let terms = self.index.shared(session.application, entry.terms);
        let loaded = entry.loaded_at.map(|at| derived_status(&session, None, at));
        let status = loaded.unwrap_or(DerivedStatus::Active);
        self.index.insert(&session, &terms, status);
        self.ordered.insert(session.application, By::Activity, (session.last_active_at, number));
        self.ordered.insert(session.application, By::Expiry, (session.token_expires_at, number));
        *self.totals.entry(session.application).or_default() += 1;
        let mut open = Open {
            terms,
            status,
            changes_at: index::changes_at(&session, None, status),
            woken: AtomicBool::new(false),
            stands_at: session.last_active_at,
            stirred: AtomicBool::new(false),
            key: entry.key,
            token: None,
            mcp_hash: None,
            presented: None,
            seen_at: AtomicI64::new(0),
            deadline: session.lifetime_ends_at,
            flight: OnceLock::new(),
            session,
        };
        open.deadline = open.next_deadline(open.session.last_active_at);
        self.deadlines.insert((open.deadline, number));
        self.changes.extend(open.changes_at.map(|at| (at, number)));
        self.sessions.insert(number, Box::new(open));
    }

    /// An open session as it stands now.
    fn update(&mut self, session: Session) {
        let number = session.number;
        let Some(open) = self.sessions.get_mut(&number) else { return };
        let announcement = |session: &Session| session.expiry().filter(|_| !session.announced());
        let (before, after) = (announcement(&open.session), announcement(&session));
        if before != after {
            before.map(|at| self.expiries.remove(&(at, number)));
            self.expiries.extend(after.map(|at| (at, number)));
        }
        if open.session.credential != session.credential {
            open.presented = None;
        }
        let expiry = |session: &Session| (session.token_expires_at, number);
        self.ordered.shift(session.application, By::Expiry, expiry(&open.session), expiry(&session));
        if session.last_active_at > open.stands_at && !open.stirred.swap(true, Ordering::Relaxed) {
            self.stirred.lock().push_back(number);
        }
        let resumed = open.session.suspended_at.is_some() && session.suspended_at.is_none();
        open.session = session;
        if resumed {
            self.deadlines.remove(&(open.deadline, number));
            open.deadline = open.next_deadline(open.session.last_active_at);
            self.deadlines.insert((open.deadline, number));
        }
        // What is filed as active stays so at least until the moment noted, unless its token expires sooner now. Anything
        // else may have changed with this very event.
        let next = index::changes_at(&open.session, None, open.status);
        let sooner = next.is_some_and(|next| open.changes_at.is_none_or(|at| next < at));
        if sooner && open.status == DerivedStatus::Active {
            open.changes_at.map(|at| self.changes.remove(&(at, number)));
            open.changes_at = next;
            self.changes.extend(next.map(|at| (at, number)));
        } else if open.status != DerivedStatus::Active && !open.woken.swap(true, Ordering::Relaxed) {
            self.woken.lock().push(number);
        }
    }

    fn end(&mut self, session: &Session, cancelled: &mut Vec<Arc<Flight>>) {
        let Some(open) = self.sessions.remove(&session.number) else { return };
        self.by_id.remove(&session.id);
        self.expiries.remove(&(open.session.token_expires_at, session.number));
        self.deadlines.remove(&(open.deadline, session.number));
        open.changes_at.map(|at| self.changes.remove(&(at, session.number)));
        self.index.remove(&open.session, &open.terms, open.status);
        let (application, expiry) = (session.application, open.session.token_expires_at);
        self.ordered.remove(application, By::Activity, (open.stands_at, session.number));
        self.ordered.remove(application, By::Expiry, (expiry, session.number));
        self.add_to_resource(session);
        if open.mcp_hash.is_some()
            && let Some(departures) = &self.departures
        {
            let Session { number, id, application, .. } = *session;
            departures.send(Departed { number, id, application }).ok();
        }
        if let Some(key) = open.key
            && self.by_key.get(&key) == Some(&session.number)
        {
            self.by_key.remove(&key);
        }
        if let (Some(flight), Some(ended)) = (open.flight.into_inner(), session.ended) {
            flight.cancel(Ending::Session(ended.reason));
            if flight.count() > 0 {
                cancelled.push(flight);
            }
        }
    }

    /// Cancels what is under way of the sessions that a revocation covers, and keeps which they are and how much that was.
    pub(super) fn cut_off(
        &self,
        number: RevocationNumber,
        sessions: Arc<[SessionNumber]>,
    ) -> Vec<Arc<Flight>> {
        let Some(revocation) = self.stream::<Revocation>(number) else { return vec![] };
        let mut cancelled = Vec::new();
        for open in sessions.iter().filter_map(|number| self.sessions.get(number)) {
            let under_way = open.flight.get().filter(|flight| flight.count() > 0);
            // One that gave a sign of life before this was in force may not be covered any more.
            if let Some(flight) = under_way.filter(|_| revocation.covers(&open.session, &open.facts())) {
                flight.cancel(Ending::Session(revocation.reason));
                cancelled.push(flight.clone());
            }
        }
        let cut_off = cancelled.iter().map(|flight| flight.count() as u64).sum();
        self.coverage.lock().insert(number, Coverage { sessions, cut_off });
        cancelled
    }

    // ---- the clock ----

    /// Whether the status of some session has changed since it was looked at.
    pub(super) fn is_behind(&self, now: Time) -> bool {
        now + SET_BACK < self.looked_at
            || self.changes.first().is_some_and(|(at, _)| *at <= now)
            || !self.woken.lock().is_empty()
    }

    /// Files sessions anew whose status has changed, at most `limit` of them.
    pub(super) fn advance(&mut self, now: Time, limit: usize) {
        if now + SET_BACK < self.looked_at {
            // What had passed may not have passed yet.
            self.woken.lock().extend(self.sessions.keys().copied());
            self.looked_at = now;
        }
        self.looked_at = now.max(self.looked_at);
        let now = self.looked_at;
        let mut look: Vec<_> = {
            let mut woken = self.woken.lock();
            let from = woken.len().saturating_sub(limit);
            woken.drain(from..).collect()
        };
        let due = self.changes.iter().take_while(|(at, _)| *at <= now);
        look.extend(due.take(limit.saturating_sub(look.len())).map(|(_, number)| *number));
        for number in look {
            let Some(open) = self.sessions.get_mut(&number) else { continue };
            open.woken.store(false, Ordering::Relaxed);
            let status = derived_status(&open.session, open.seen_at(), now);
            if status != open.status {
                self.index.refile(&open.session, open.status, status);
                open.status = status;
            }
            open.changes_at.map(|at| self.changes.remove(&(at, number)));
            open.changes_at = index::changes_at(&open.session, open.seen_at(), status);
            self.changes.extend(open.changes_at.map(|at| (at, number)));
        }
    }

    /// How many sessions may have moved in the order of activity.
    pub(super) fn stirred(&self) -> usize {
        self.stirred.lock().len()
    }

    /// Puts sessions where they belong in the order of activity, at most `limit` of them.
    pub(super) fn move_stirred(&mut self, limit: usize) {
        let stirred = self.stirred.get_mut();
        let some = stirred.len().min(limit);
        for number in stirred.drain(..some) {
            let Some(open) = self.sessions.get_mut(&number) else { continue };
            // Before the look: whoever is seen after it is noted again.
            open.stirred.store(false, Ordering::Relaxed);
            let to = open.last_active_at();
            self.ordered.shift(
                open.session.application,
                By::Activity,
                (open.stands_at, number),
                (to, number),
            );
            open.stands_at = to;
        }
    }

    pub(super) fn due(&mut self, now: Time, not_before: Time, limit: usize) -> Vec<(SessionNumber, Due)> {
        let mut due: Vec<_> = self
            .expiries
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(limit)
            .map(|(_, number)| (*number, Due::Expire))
            .collect();
        while due.len() < limit {
            let Some((at, number)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            self.deadlines.remove(&(at, number));
            let Some(open) = self.sessions.get_mut(&number) else { continue };
            if open.deadline != at {
                continue;
            }
            let earliest = open.next_deadline(not_before);
            let mut again = earliest;
            if now >= open.session.lifetime_ends_at {
                due.push((number, Due::Lifetime));
            } else if earliest <= now && !open.busy() {
                due.push((number, Due::Stale(open.seen_at())));
            }
            if again <= now {
                // Asked for, or paused while something is under way: look again soon.
                again = now + chrono::TimeDelta::seconds(1);
            }
            open.deadline = again;
            self.deadlines.insert((again, number));
        }
        due
    }

    // ---- hot paths ----

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
        let held = self.hold(caller, Side::Agent(open.session.application, Some(number)))?;
        self.see(open, now);
        let flight = open.flight.get_or_init(Arc::default);
        Ok(Pass::enter(Some(flight), held))
    }

    pub(super) fn register(&self, caller: &Caller, side: Side) -> Result<Pass, Refusal> {
        Ok(Pass::enter(None, self.hold(caller, side)?))
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

    pub(super) fn forget_revocation(&mut self, number: RevocationNumber) {
        self.unfinished.remove(&number);
        self.streams.remove(&number.into());
        self.coverage.get_mut().remove(&number);
    }

    /// Traffic of a session that was counted here is on record now.
    pub(super) fn traffic_recorded(&mut self, number: SessionNumber, counts: Counts) {
        let flight = self.sessions.get(&number).and_then(|open| open.flight.get());
        flight.iter().for_each(|flight| flight.tally.take(counts));
    }

    /// Adds a session that has ended to what those of its resource came to.
    fn add_to_resource(&mut self, session: &Session) {
        let Some(resource) = &session.resource else { return };
        let resources = self.resource_totals.entry(session.application).or_default();
        let totals = resources.entry(resource.clone()).or_default();
        totals.sessions += 1;
        totals.bytes_out = totals.bytes_out.saturating_add(session.total.bytes_out);
    }

    pub(super) fn expect(&mut self, sessions: usize) {
        self.sessions.reserve(sessions);
        self.by_id.reserve(sessions);
        self.by_key.reserve(sessions);
    }
}
