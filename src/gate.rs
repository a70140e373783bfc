//! The truth in memory: who may pass right now. The committer changes it after a commit and before anyone is
//! answered; hot paths ask it and nothing else. It holds every open session, every live token, the directory and the
//! unfinished revocations; ended sessions are in the store alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{RwLock, RwLockReadGuard};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::core::Time;
use crate::core::application::{Application, Organization, ServiceAccount};
use crate::core::command::NaturalKey;
use crate::core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, ServiceAccountNumber,
    SessionNumber,
};
use crate::core::reason::Reason;
use crate::core::revocation::{Filter, Revocation};
use crate::core::session::{Refusal, Session};
use crate::core::status::{DerivedStatus, derived_status};
use crate::core::token::{AccessToken, Principal, SessionToken};

/// The Gate. Cheap to share: everything behind one lock that is held for microseconds.
#[derive(Default)]
pub struct Gate {
    known: RwLock<Known>,
}

/// What the Gate knows.
#[derive(Default)]
pub struct Known {
    pub organizations: BTreeMap<OrganizationNumber, Organization>,
    pub applications: BTreeMap<ApplicationNumber, Application>,
    applications_by_id: HashMap<Uuid, ApplicationNumber>,
    pub service_accounts: BTreeMap<ServiceAccountNumber, ServiceAccount>,
    clients: HashMap<String, Client>,
    /// The unfinished ones: few.
    pub revocations: BTreeMap<RevocationNumber, Revocation>,
    sessions: HashMap<SessionNumber, Open>,
    by_id: HashMap<Uuid, SessionNumber>,
    by_key: HashMap<KeyDigest, SessionNumber>,
    by_application: HashMap<ApplicationNumber, BTreeSet<SessionNumber>>,
    /// Expiries that nobody announced yet.
    expiries: BTreeSet<(Time, SessionNumber)>,
    /// When to look at a session again for going stale or reaching its lifetime: never later than it is due.
    deadlines: BTreeSet<(Time, SessionNumber)>,
    access_tokens: HashMap<Uuid, AccessToken>,
    principals: HashMap<(OrganizationNumber, [u8; 32]), PrincipalNumber>,
    totals: HashMap<ApplicationNumber, u64>,
}

/// An OAuth client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Application(ApplicationNumber),
    ServiceAccount(ServiceAccountNumber),
}

/// The first half of SHA-256 over an application and a natural key.
pub type KeyDigest = [u8; 16];

/// The digest under which the Gate keeps a natural key.
pub fn key_digest(application: ApplicationNumber, key: NaturalKey<'_>) -> KeyDigest {
    let (tag, text) = match key {
        NaturalKey::ClientSessionId(text) => (b'c', text),
        NaturalKey::TokenIdentifier(text) => (b't', text),
    };
    let mut hasher = Sha256::new();
    hasher.update(application.0.to_be_bytes());
    hasher.update([tag]);
    hasher.update(text.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

/// An open session, with what is not in its stream.
struct Open {
    session: Session,
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

    fn busy(&self) -> bool {
        self.flight.get().is_some_and(|flight| flight.count.load(Ordering::SeqCst) > 0)
    }

    /// The earliest moment at which it could go stale or reach its lifetime.
    fn next_deadline(&self, not_before: Time) -> Time {
        let last = self.seen_at().map_or(not_before, |seen| seen.max(not_before));
        self.session.lifetime_ends_at.min(self.session.stale_at(last))
    }
}

/// The requests and streams of one session that are under way.
pub struct Flight {
    count: AtomicUsize,
    cancelled: CancellationToken,
    reason: OnceLock<Reason>,
    landed: Notify,
}

impl Flight {
    /// Waits until nothing is under way any more.
    pub async fn landed(&self) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            landed.await;
        }
    }
}

/// Leave to go on, as long as it is held and not cancelled.
pub struct Pass {
    flight: Arc<Flight>,
}

impl Pass {
    /// Resolves when the session ends, with the reason.
    pub async fn ended(&self) -> Reason {
        self.flight.cancelled.cancelled().await;
        self.reason().unwrap_or(Reason::Terminated)
    }

    /// The reason, if the session has ended.
    pub fn reason(&self) -> Option<Reason> {
        if self.flight.cancelled.is_cancelled() { self.flight.reason.get().copied() } else { None }
    }

    /// A token that is cancelled when the session ends.
    pub fn cancelled(&self) -> CancellationToken {
        self.flight.cancelled.clone()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.flight.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.flight.landed.notify_waiters();
        }
    }
}

/// One thing that a commit changed.
#[derive(Debug, Clone)]
pub enum Change {
    Organization(Organization),
    Application(Application),
    ServiceAccount(ServiceAccount),
    Revocation(Revocation),
    /// One that was in force in memory only is over: it was recorded.
    LiftRevocation(RevocationNumber),
    /// A session as it stands now, with its natural key if it has just connected.
    Session(Session, Option<KeyDigest>),
    SessionToken(SessionNumber, SessionToken),
    McpSession(SessionNumber, [u8; 32]),
    AccessToken(AccessToken),
    BarAccessToken(Uuid),
    Principal(Principal),
    ForgetTokens(Time),
}

/// What the clock demands of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Expire,
    Lifetime,
    /// With the sign of life that is not in the log yet.
    Stale(Option<Time>),
}

/// How many sessions of an application are what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub active: u64,
    pub idle: u64,
    pub total: u64,
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

    /// Makes changes visible, all at once. Returns the flights of sessions that ended and still have something under
    /// way: cancelled already, to be waited for by whoever wants to answer "it is over".
    pub fn apply(&self, changes: Vec<Change>) -> Vec<Arc<Flight>> {
        let mut known = self.known.write();
        let mut cancelled = Vec::new();
        for change in changes {
            known.apply(change, &mut cancelled);
        }
        cancelled
    }

    /// Counts sessions that ever connected, at start-up.
    pub fn set_totals(&self, totals: impl IntoIterator<Item = (ApplicationNumber, u64)>) {
        self.known.write().totals.extend(totals);
    }

    /// Registers a request or stream as under way and lets it pass, in one step: after a revocation was answered,
    /// nothing passes, and all that passed before it was cancelled.
    pub fn enter(&self, number: SessionNumber, now: Time) -> Result<Pass, Refusal> {
        let known = self.known.read();
        let open = known.sessions.get(&number).ok_or(Refusal::Unknown)?;
        if let Some(revocation) = known.covering(&open.session) {
            return Err(Refusal::Revoked(revocation.reason));
        }
        open.seen_at.fetch_max(now.timestamp_millis(), Ordering::Relaxed);
        let flight = open.flight.get_or_init(|| {
            Arc::new(Flight {
                count: AtomicUsize::new(0),
                cancelled: CancellationToken::new(),
                reason: OnceLock::new(),
                landed: Notify::new(),
            })
        });
        flight.count.fetch_add(1, Ordering::SeqCst);
        Ok(Pass { flight: flight.clone() })
    }

    /// Notes a sign of life that is not in the log yet.
    pub fn saw(&self, number: SessionNumber, now: Time) {
        if let Some(open) = self.known.read().sessions.get(&number) {
            open.seen_at.fetch_max(now.timestamp_millis(), Ordering::Relaxed);
        }
    }

    /// Notes which access token was presented with a session.
    pub fn presented(&self, number: SessionNumber, token: Uuid) {
        let same = |open: &Open| open.presented.or(open.session.credential) == Some(token);
        if self.known.read().sessions.get(&number).is_none_or(same) {
            return;
        }
        if let Some(open) = self.known.write().sessions.get_mut(&number) {
            open.presented = Some(token);
        }
    }

    /// Sessions of which the clock demands something, at most `limit`. `not_before` is the later of process start and
    /// last clock jump.
    pub fn due(&self, now: Time, not_before: Time, limit: usize) -> Vec<(SessionNumber, Due)> {
        let mut known = self.known.write();
        let mut due: Vec<_> = known
            .expiries
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(limit)
            .map(|(_, number)| (*number, Due::Expire))
            .collect();
        while due.len() < limit {
            let Some((at, number)) = known.deadlines.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            known.deadlines.remove(&(at, number));
            let Some(open) = known.sessions.get_mut(&number) else { continue };
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
            known.deadlines.insert((again, number));
        }
        due
    }
}

impl Known {
    fn apply(&mut self, change: Change, cancelled: &mut Vec<Arc<Flight>>) {
        match change {
            Change::Organization(organization) => {
                self.organizations.insert(organization.number, organization);
            }
            Change::Application(application) => {
                self.applications_by_id.insert(application.id, application.number);
                self.clients
                    .insert(application.oauth.client_id.clone(), Client::Application(application.number));
                self.applications.insert(application.number, application);
            }
            Change::ServiceAccount(account) => {
                self.clients.insert(account.client_id.clone(), Client::ServiceAccount(account.number));
                self.service_accounts.insert(account.number, account);
            }
            Change::Revocation(revocation) if revocation.ended_at.is_some() => {
                self.revocations.remove(&revocation.number);
            }
            Change::Revocation(revocation) => {
                if !self.revocations.contains_key(&revocation.number) {
                    self.cut_off(&revocation, cancelled);
                }
                self.revocations.insert(revocation.number, revocation);
            }
            Change::LiftRevocation(number) => {
                self.revocations.remove(&number);
            }
            Change::Session(session, _) if session.ended.is_some() => self.end(&session, cancelled),
            Change::Session(session, key) => self.open(session, key),
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
            Change::Principal(principal) => {
                self.principals.insert((principal.organization, principal.subject_digest), principal.number);
            }
            Change::ForgetTokens(before) => self.access_tokens.retain(|_, token| token.expires_at >= before),
        }
    }

    fn open(&mut self, session: Session, key: Option<KeyDigest>) {
        let number = session.number;
        let expiry = (!session.announced()).then_some((session.token_expires_at, number));
        if let Some(open) = self.sessions.get_mut(&number) {
            let before = (!open.session.announced()).then_some((open.session.token_expires_at, number));
            if open.session.credential != session.credential {
                open.presented = None;
            }
            open.session = session;
            if before != expiry {
                before.map(|before| self.expiries.remove(&before));
                self.expiries.extend(expiry);
            }
            return;
        }
        self.expiries.extend(expiry);
        self.by_id.insert(session.id, number);
        self.by_application.entry(session.application).or_default().insert(number);
        if let Some(key) = key {
            self.by_key.insert(key, number);
        }
        let deadline = session.lifetime_ends_at.min(session.stale_at(session.last_active_at));
        self.deadlines.insert((deadline, number));
        *self.totals.entry(session.application).or_default() += 1;
        let seen_at = AtomicI64::new(0);
        let open = Open {
            session,
            key,
            token: None,
            mcp_hash: None,
            presented: None,
            seen_at,
            deadline,
            flight: OnceLock::new(),
        };
        self.sessions.insert(number, open);
    }

    fn end(&mut self, session: &Session, cancelled: &mut Vec<Arc<Flight>>) {
        let Some(open) = self.sessions.remove(&session.number) else { return };
        self.by_id.remove(&session.id);
        self.expiries.remove(&(open.session.token_expires_at, session.number));
        self.deadlines.remove(&(open.deadline, session.number));
        if let Some(numbers) = self.by_application.get_mut(&session.application) {
            numbers.remove(&session.number);
        }
        if let Some(key) = open.key
            && self.by_key.get(&key) == Some(&session.number)
        {
            self.by_key.remove(&key);
        }
        if let (Some(flight), Some(ended)) = (open.flight.into_inner(), session.ended) {
            flight.reason.set(ended.reason).ok();
            flight.cancelled.cancel();
            if flight.count.load(Ordering::SeqCst) > 0 {
                cancelled.push(flight);
            }
        }
    }

    /// Cancels what is under way of sessions that a revocation covers, as soon as it begins: that they are ended on record
    /// may take its time, or a disk with space.
    fn cut_off(&self, revocation: &Revocation, cancelled: &mut Vec<Arc<Flight>>) {
        for number in self.covered(revocation) {
            let flight = self.sessions.get(&number).and_then(|open| open.flight.get());
            if let Some(flight) = flight.filter(|flight| flight.count.load(Ordering::SeqCst) > 0) {
                flight.reason.set(revocation.reason).ok();
                flight.cancelled.cancel();
                cancelled.push(flight.clone());
            }
        }
    }

    // ---- questions ----

    pub fn organization_id(&self, number: OrganizationNumber) -> Uuid {
        self.organizations.get(&number).map_or(Uuid::nil(), |organization| organization.id)
    }

    pub fn application_id(&self, number: ApplicationNumber) -> Uuid {
        self.applications.get(&number).map_or(Uuid::nil(), |application| application.id)
    }

    pub fn application(&self, id: Uuid) -> Option<&Application> {
        self.applications_by_id.get(&id).and_then(|number| self.applications.get(number))
    }

    pub fn client(&self, client_id: &str) -> Option<Client> {
        self.clients.get(client_id).copied()
    }

    /// An open session by number.
    pub fn session(&self, number: SessionNumber) -> Option<&Session> {
        self.sessions.get(&number).map(|open| &open.session)
    }

    /// An open session with its token and its latest sign of life.
    pub fn seen(&self, number: SessionNumber) -> Option<Seen> {
        self.sessions.get(&number).map(|open| Seen {
            session: open.session.clone(),
            seen_at: open.seen_at(),
            token: open.token,
        })
    }

    /// The current token of an open session.
    pub fn session_token(&self, number: SessionNumber) -> Option<SessionToken> {
        self.sessions.get(&number).and_then(|open| open.token)
    }

    /// Whether a request or stream of the session is under way.
    pub fn busy(&self, number: SessionNumber) -> bool {
        self.sessions.get(&number).is_some_and(Open::busy)
    }

    /// The number of an open session.
    pub fn session_number(&self, id: Uuid) -> Option<SessionNumber> {
        self.by_id.get(&id).copied()
    }

    /// The hash of the open session's `Mcp-Session-Id`.
    pub fn mcp_hash(&self, number: SessionNumber) -> Option<[u8; 32]> {
        self.sessions.get(&number).and_then(|open| open.mcp_hash)
    }

    /// The open session that holds a natural key.
    pub fn holder(&self, key: &KeyDigest) -> Option<&Session> {
        self.by_key.get(key).and_then(|number| self.session(*number))
    }

    pub fn access_token(&self, id: Uuid) -> Option<&AccessToken> {
        self.access_tokens.get(&id)
    }

    pub fn principal(&self, organization: OrganizationNumber, digest: &[u8; 32]) -> Option<PrincipalNumber> {
        self.principals.get(&(organization, *digest)).copied()
    }

    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The unfinished revocation that covers a session.
    pub fn covering(&self, session: &Session) -> Option<&Revocation> {
        self.revocations.values().find(|revocation| revocation.covers(session))
    }

    /// The open sessions that a revocation covers, by number.
    pub fn covered(&self, revocation: &Revocation) -> Vec<SessionNumber> {
        let covers = |number: &&SessionNumber| {
            self.session(**number).is_some_and(|session| revocation.covers(session))
        };
        let numbers = match revocation.filter {
            Filter { session: Some(number), .. } => {
                return Some(&number).filter(covers).into_iter().copied().collect();
            }
            Filter { application: Some(application), .. } => self.by_application.get(&application),
            Filter { .. } => return self.sessions.keys().filter(covers).copied().collect(),
        };
        numbers.into_iter().flatten().filter(covers).copied().collect()
    }

    /// The access tokens by which an open session was last kept alive.
    pub fn presented(&self, number: SessionNumber) -> Vec<Uuid> {
        let Some(open) = self.sessions.get(&number) else { return vec![] };
        open.presented.into_iter().chain(open.session.credential).collect()
    }

    /// Sessions of an application whose token has expired and nobody announced it yet.
    pub fn overdue(&self, application: ApplicationNumber, now: Time) -> Vec<SessionNumber> {
        let due = self.expiries.iter().take_while(|(at, _)| *at <= now);
        due.filter(|(_, number)| {
            self.session(*number).is_some_and(|session| session.application == application)
        })
        .map(|(_, number)| *number)
        .collect()
    }

    /// How many sessions of an application are active and idle now, and how many there ever were.
    pub fn summary(&self, application: ApplicationNumber, now: Time) -> Summary {
        let mut summary =
            Summary { total: self.totals.get(&application).copied().unwrap_or(0), ..Summary::default() };
        for number in self.by_application.get(&application).into_iter().flatten() {
            let Some(open) = self.sessions.get(number) else { continue };
            match derived_status(&open.session, open.seen_at(), now) {
                DerivedStatus::Active => summary.active += 1,
                DerivedStatus::Idle => summary.idle += 1,
                DerivedStatus::Expired | DerivedStatus::Disconnected => {}
            }
        }
        summary
    }

    /// The position before which agent-side credentials of an application are barred, by what is on record or in memory
    /// only.
    pub fn barred_before(&self, application: ApplicationNumber) -> Position {
        let recorded = self.applications.get(&application).map_or(Position(0), |one| one.barred_before);
        let provisional = self.revocations.values().take_while(|revocation| revocation.is_provisional());
        provisional
            .filter(|revocation| {
                revocation.filter == Filter { application: Some(application), session: None }
            })
            .map(|revocation| revocation.fence)
            .fold(recorded, Position::max)
    }
}
