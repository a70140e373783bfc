//! A batch while it is being decided: the Gate as it was, with what the units before decided laid over it.

mod authority;
mod bar;
mod directory;
mod limits;
mod made;
mod principals;
mod retention;
mod revocations;
mod sessions;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sessiond_core::Time;
use sessiond_core::actor::ActorKind;
use sessiond_core::application::Application;
use sessiond_core::bar::{Bar, Barred};
use sessiond_core::chain::commit_hash;
use sessiond_core::change::{Change, IndexEntry, KeyHashes, ends};
use sessiond_core::event::{Event, Recorded};
use sessiond_core::filter::Facts;
use sessiond_core::idempotency::RecordedOutcome;
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, RevocationNumber,
    ServiceAccountNumber, SessionNumber, StreamId,
};
use sessiond_core::maxima::Maxima;
use sessiond_core::natural_key::KeyDigest;
use sessiond_core::organization::Organization;
use sessiond_core::policy::Policy;
use sessiond_core::presented::Presented;
use sessiond_core::principal::Standing;
use sessiond_core::revocation::Revocation;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::earlier::EarlierState;
use sessiond_core::session::event::{Counts, SessionEvent};
use sessiond_core::session::{Context, Refusal, Session};
use sessiond_core::streams::AnyStream;
use sessiond_core::token::AccessToken;
use sessiond_store::{Batch, Detail, Entry, LogHead, SessionActivity, SideWrite};
use uuid::Uuid;

use super::{Operation, Origin};
use crate::error::Error;
use crate::gate::{Begun, Committed, GateState};

pub use bar::not_too_many;
pub use revocations::provisional;

/// A batch, decided.
pub struct Decided {
    pub batch: Batch,
    /// For each change of the batch the operations that caused it, by their places.
    causes: Vec<Vec<usize>>,
    /// Traffic that is on record with this batch, by session: it was counted in memory before.
    traffic: Vec<(SessionNumber, Counts)>,
    begun: Vec<Begun>,
    /// Where the log stands after it.
    pub(super) log: LogHead,
}

impl Decided {
    /// The operations that end anything.
    pub(super) fn ends(&self) -> BTreeSet<usize> {
        let changes = &self.batch.changes;
        let ending = changes.iter().zip(&self.causes).filter(|(change, _)| ends(change, changes));
        ending.flat_map(|(_, causes)| causes.iter().copied()).collect()
    }

    /// What the Gate is to make visible, once the batch of so many operations is on disk.
    pub(super) fn committed(&mut self, operations: usize, now: Time) -> Committed {
        Committed {
            now,
            changes: std::mem::take(&mut self.batch.changes),
            causes: std::mem::take(&mut self.causes),
            operations,
            traffic: std::mem::take(&mut self.traffic),
            begun: std::mem::take(&mut self.begun),
            own: true,
        }
    }
}

/// A session in a draft.
struct Drafted {
    session: Session,
    /// Set where this batch opened it.
    entry: Option<IndexEntry>,
    /// Its lifecycle row changes.
    lifecycle: bool,
    /// Index of its last event in this batch, if that is an activity: the next call of the same actor joins it.
    joinable: Option<usize>,
}

pub struct Draft<'a> {
    known: &'a GateState,
    policy: Policy,
    maxima: Maxima,
    now: Time,
    log: LogHead,
    events: Vec<Recorded>,
    /// Hash of each touched stream before this batch.
    before: HashMap<StreamId, [u8; 32]>,
    sessions: HashMap<SessionNumber, Drafted>,
    keys: HashMap<KeyDigest, SessionNumber>,
    /// Where in the log the tokens of sessions were issued that got another in this batch.
    tokens: HashMap<SessionNumber, Position>,
    principals: HashMap<(OrganizationNumber, [u8; 32]), PrincipalNumber>,
    streams: BTreeMap<StreamId, AnyStream>,
    /// Traffic that this batch records, by session: it was counted in memory before.
    counted: HashMap<SessionNumber, Counts>,
    /// By how much this batch changes what limits count.
    counts: HashMap<limits::Counted, i64>,
    details: Vec<(SessionNumber, ApplicationNumber, Detail)>,
    /// How sessions stood before some of the events.
    earlier: Vec<EarlierState>,
    side: Vec<SideWrite>,
    /// Changes that operations make by themselves, each with the place of its operation.
    changes: Vec<(Change, usize)>,
    begun: Vec<Begun>,
    /// How many operations have been decided, or are being so.
    current: usize,
    /// Operations by the streams that they are about.
    concerned: HashMap<StreamId, Vec<usize>>,
}

/// One event to be recorded, before it has a place in the log.
struct Fact<'a> {
    origin: &'a Origin,
    stream: StreamId,
    head: Head,
    organization: OrganizationNumber,
    application: Option<ApplicationNumber>,
    revocation: Option<RevocationNumber>,
    occurred_at: Time,
    event: Event,
    personal: Option<String>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        known: &'a GateState,
        log: LogHead,
        (policy, maxima): (Policy, Maxima),
        now: Time,
    ) -> Self {
        Self {
            known,
            policy,
            maxima,
            now,
            log,
            events: vec![],
            before: HashMap::new(),
            sessions: HashMap::new(),
            keys: HashMap::new(),
            tokens: HashMap::new(),
            principals: HashMap::new(),
            streams: BTreeMap::new(),
            counted: HashMap::new(),
            counts: HashMap::new(),
            details: vec![],
            earlier: vec![],
            side: vec![],
            changes: vec![],
            begun: vec![],
            current: 0,
            concerned: HashMap::new(),
        }
    }

    /// Decides an operation, and records its outcome where it is not to happen again. A refusal leaves nothing behind.
    pub fn decide<O: Operation>(&mut self, origin: &Origin, operation: &O) -> Result<O::Outcome, Error> {
        self.current += 1;
        self.still_stands(origin)?;
        let outcome = operation.decide(origin, self)?;
        if let Some(once) = &origin.once {
            let unwritable = |error| Error::Internal(format!("an outcome cannot be recorded: {error}"));
            self.side.push(SideWrite::Outcome(RecordedOutcome {
                key: once.key,
                fingerprint: once.fingerprint,
                salt: once.salt,
                done: serde_json::to_string(&outcome).map_err(unwritable)?,
                session: O::session(&outcome),
                recorded_at: self.now,
            }));
        }
        Ok(outcome)
    }

    /// Notes that the operation being decided is about a stream: what is cut off because of it is told to that operation.
    fn concern(&mut self, stream: StreamId) {
        let operations = self.concerned.entry(stream).or_default();
        let current = self.current - 1;
        if operations.last() != Some(&current) {
            operations.push(current);
        }
    }

    /// A change that the operation being decided makes by itself.
    pub(in crate::committer) fn change(&mut self, change: Change) {
        self.changes.push((change, self.current - 1));
    }

    pub(in crate::committer) fn issue_token(
        &mut self,
        token: &AccessToken,
        as_of: Position,
    ) -> Result<(), Error> {
        self.unchanged_since(token, as_of)?;
        let archived = match token.client_kind {
            ActorKind::Application => self
                .application(ApplicationNumber(token.client))
                .is_none_or(|application| application.archived_at.is_some()),
            _ => self
                .stream::<ServiceAccount>(token.client)
                .is_none_or(|account| account.archived_at.is_some()),
        };
        if archived {
            return Err(Error::Unauthorized { reason: None });
        }
        let token = AccessToken { issued_at: self.log.position, ..token.clone() };
        self.write_beside(SideWrite::AccessToken(token));
        Ok(())
    }

    /// Gives up all access tokens of a service account.
    pub(in crate::committer) fn give_up_tokens_of(&mut self, account: ServiceAccountNumber) {
        let tokens: Vec<_> = self.known.access_tokens_of(account).map(|token| token.id).collect();
        tokens.into_iter().for_each(|token| self.write_beside(SideWrite::RevokeAccessToken(token)));
    }

    /// A write that is no event, and what memory learns by it.
    pub(in crate::committer) fn write_beside(&mut self, side: SideWrite) {
        match &side {
            SideWrite::ForgetTokens(before) => self.change(Change::ForgetTokens(*before)),
            SideWrite::McpSession(number, mcp) => self.change(Change::McpSession(*number, mcp.id_hash)),
            SideWrite::ApiKeySecret { id, secret_hash } => {
                let hashes = KeyHashes { hash: *secret_hash, before: None };
                self.change(Change::ApiKeySecret(*id, hashes, None));
            }
            SideWrite::RotateApiKeySecret { id, secret_hash } => {
                let hashes = KeyHashes { hash: *secret_hash, before: self.key_hash(*id) };
                self.change(Change::ApiKeySecret(*id, hashes, self.known.key_secrets.used_at(*id)));
            }
            SideWrite::ErasePersonal(sessions) => self.change(Change::ErasePersonal(sessions.clone())),
            SideWrite::RevokeAccessToken(id) => self.change(Change::RevokeAccessToken(*id)),
            SideWrite::ApiKeysUsed(used) => self.change(Change::ApiKeysUsed(used.clone())),
            SideWrite::AccessToken(token) => self.change(Change::AccessToken(token.clone())),
            SideWrite::BarAccessToken(id) => self.change(Change::BarAccessToken(*id)),
            SideWrite::SessionToken(number, token) => self.change(Change::SessionToken(*number, *token)),
            SideWrite::Principal(principal) => self.change(Change::Principal(principal.clone())),
            // Nothing of these is in memory.
            SideWrite::Count(_)
            | SideWrite::Recount(_)
            | SideWrite::ClientSecret { .. }
            | SideWrite::ForgetMcp(_)
            | SideWrite::UpstreamSecret { .. }
            | SideWrite::DescribePrincipal { .. }
            | SideWrite::ErasePrincipal(_)
            | SideWrite::WebhookSecret { .. }
            | SideWrite::RotateWebhookSecret { .. }
            | SideWrite::ForgetWebhook(_)
            | SideWrite::ForgetDeliveriesOf(_)
            | SideWrite::Deliveries { .. }
            | SideWrite::ForgetDeliveries { .. }
            | SideWrite::MachineSecret { .. }
            | SideWrite::ForgetMachine(_)
            | SideWrite::Confirmation(_)
            | SideWrite::Outcome(_)
            | SideWrite::ForgetOutcomes(_)
            | SideWrite::KeyCheck(_)
            // The service is stopped while the key is replaced.
            | SideWrite::Reseal(_)
            | SideWrite::Redigest { .. }
            | SideWrite::LetSessionsGo { .. }
            | SideWrite::Fold { .. }
            | SideWrite::FoldedTo(..) => {}
        }
        self.side.push(side);
    }

    // ---- what is known, with this batch laid over it ----

    /// SHA-256 of an API key's secret.
    fn key_hash(&self, id: Uuid) -> Option<[u8; 32]> {
        let drafted = self.changes.iter().rev().find_map(|change| match change {
            (Change::ApiKeySecret(key, hashes, _), _) if *key == id => Some(hashes.hash),
            _ => None,
        });
        drafted.or_else(|| self.known.key_secrets.hash(id).copied())
    }

    fn session(&self, number: SessionNumber) -> Option<&Session> {
        match self.sessions.get(&number) {
            Some(drafted) => Some(&drafted.session),
            None => self.known.session(number),
        }
    }

    fn application(&self, number: ApplicationNumber) -> Option<&Application> {
        self.stream(number)
    }

    fn covering(&self, session: &Session) -> Option<Revocation> {
        let mut drafted = self.drafted::<Revocation>().peekable();
        if drafted.peek().is_none() && !self.known.is_revoking() {
            return None;
        }
        let facts = self.facts(session.number);
        let drafted = drafted.find(|revocation| revocation.covers(session, &facts));
        let known = || {
            let mut known = self.known.streams::<Revocation>();
            known.find(|revocation| {
                revocation.covers(session, &facts) && !self.streams.contains_key(&revocation.number.into())
            })
        };
        drafted.or_else(known).cloned()
    }

    /// What a filter asks of a session beyond its fold.
    fn facts(&self, number: SessionNumber) -> Facts<'_> {
        let entry = self.sessions.get(&number).and_then(|drafted| drafted.entry.as_ref());
        entry.map_or_else(
            || self.known.facts(number),
            |entry| Facts {
                hostname: entry.terms.hostname.as_deref(),
                client: entry.terms.client.as_deref(),
                seen_at: None,
            },
        )
    }

    /// The bar that keeps somebody out, as this batch leaves it.
    fn bar_on(&self, barred: Barred) -> Option<&Bar> {
        let known = self.known.bars_on(barred).filter_map(|number| self.stream::<Bar>(number));
        let drafted = self.drafted::<Bar>().filter(|bar| bar.barred().any(|one| one == barred));
        let standing = known.chain(drafted).filter(|bar| bar.stands(self.now));
        standing.reduce(|one, other| if other.outlasts(one) { other } else { one })
    }

    /// The error for a refusal that concerns a principal: of a bar it says what whoever is barred is told.
    fn refused(&self, refusal: Refusal, principal: PrincipalNumber) -> Error {
        match refusal {
            Refusal::Barred => self
                .bar_on(Barred::Principal(principal))
                .map_or(refusal.into(), |bar| Error::Barred(bar.told())),
            refusal => refusal.into(),
        }
    }

    fn standing(&self, principal: PrincipalNumber) -> Option<&Standing> {
        self.stream(principal)
    }

    fn context<'c>(
        &'c self,
        number: ApplicationNumber,
        principal: PrincipalNumber,
        revocation: Option<&'c Revocation>,
        presented: Option<&Presented>,
    ) -> Context<'c> {
        let application = self.application(number);
        let organization = application.and_then(|one| self.stream::<Organization>(one.organization));
        let standing = self.standing(principal);
        let policy = application.and_then(|application| application.policy.as_ref());
        let token = presented.and_then(|presented| presented.access_token);
        let drafted = [
            application.map(|application| application.valid_from),
            organization.map(|organization| organization.valid_from),
            standing.map(|standing| standing.valid_from),
        ];
        let known = self.known.valid_from(number, Some(principal));
        Context {
            credential_barred: token.is_some_and(|token| self.token_barred(token)),
            application_archived: application.is_none_or(|application| application.archived_at.is_some()),
            principal_disabled: standing.is_some_and(|standing| standing.disabled_at.is_some()),
            principal_barred: self.bar_on(Barred::Principal(principal)).is_some(),
            full: None,
            valid_from: drafted.into_iter().flatten().fold(known, Position::max),
            revocation: revocation.map(Revocation::covered),
            policy: policy.map_or(self.policy, |policy| policy.over(self.policy)),
            preset: policy.and_then(|policy| policy.preset),
            personal: None,
        }
    }

    fn token_barred(&self, token: Uuid) -> bool {
        let bars = |change: &Change| matches!(change, Change::BarAccessToken(id) | Change::RevokeAccessToken(id) if *id == token);
        // A token that is not known any more has expired; the rules see that by its time.
        self.known.token_barred(token) || self.changes.iter().any(|(change, _)| bars(change))
    }

    // ---- the log ----

    /// Never falls along the log. Only this: whoever decided by the latest time on record would refuse everybody as
    /// expired for as long as a clock once ran ahead.
    fn recorded_at(&self) -> Time {
        self.now.max(self.log.recorded_at)
    }

    /// Where a stream will stand after the next event that is recorded, if that is its own.
    fn next_head(&self, head: Head) -> Head {
        Head { version: head.version + 1, position: Position(self.log.position.0 + 1), hash: head.hash }
    }

    /// Gives an event its place in the log. Its hash comes last, when the batch is whole.
    fn record(&mut self, fact: Fact<'_>) -> Head {
        self.before.entry(fact.stream).or_insert(fact.head.hash);
        // Of a session, only its end cuts anything off.
        if !matches!(&fact.event, Event::Session(event) if !matches!(event, SessionEvent::Disconnected(_))) {
            self.concern(fact.stream);
        }
        let head = self.next_head(fact.head);
        self.log.position = head.position;
        if fact.event.bars() {
            self.change(Change::CredentialsBarred(head.position, self.recorded_at()));
        }
        self.events.push(Recorded {
            position: self.log.position,
            stream: fact.stream,
            version: head.version,
            previous_position: fact.head.position,
            occurred_at: fact.occurred_at,
            recorded_at: self.recorded_at(),
            organization: fact.organization,
            application: fact.application,
            actor: fact.origin.actor,
            revocation: fact.revocation,
            request_id: fact.origin.request_id.clone(),
            traceparent: fact.origin.traceparent.clone(),
            event: fact.event,
            personal: fact.personal,
        });
        head
    }

    /// Seals the events into their chains and makes the rows from what the batch came to.
    pub fn finish(mut self) -> Decided {
        let recorded_at = self.recorded_at();
        let mut hashes = std::mem::take(&mut self.before);
        let mut entries: Vec<Entry> = Vec::with_capacity(self.events.len());
        let mut lifecycle = None;
        for recorded in self.events {
            let hash = hashes.entry(recorded.stream).or_default();
            if !matches!(recorded.event, Event::Session(SessionEvent::ActivityRecorded(_))) {
                lifecycle = Some(recorded.position);
            }
            let entry = Entry::seal(recorded, hash);
            *hash = entry.hash;
            entries.push(entry);
        }
        if let Some(last) = entries.len().checked_sub(1) {
            let hash = commit_hash(&self.log.commit_hash, entries.iter().map(|entry| &entry.hash));
            entries[last].commit_hash = Some(hash);
            self.log.commit_hash = hash;
            self.log.recorded_at = recorded_at;
        }
        let sealed = |head: &mut Head, stream: StreamId| {
            if let Some(hash) = hashes.get(&stream) {
                head.hash = *hash;
            }
        };
        let mut decided = Decided {
            batch: Batch { head: Some(self.log), lifecycle, ..Batch::default() },
            causes: vec![],
            traffic: vec![],
            begun: vec![],
            log: self.log,
        };
        let batch = &mut decided.batch;
        let (changes, causes) = (&mut batch.changes, &mut decided.causes);
        let mut concerned = self.concerned;
        let mut change = |change, stream| {
            changes.push(change);
            causes.push(concerned.remove(&stream).unwrap_or_default());
        };
        for (id, mut stream) in self.streams {
            sealed(stream.head_mut(), id);
            change(Change::Stream(stream.clone()), id);
            batch.streams.push(stream);
        }
        for (number, mut drafted) in self.sessions {
            sealed(&mut drafted.session.head, number.into());
            if drafted.lifecycle {
                batch.sessions.push(drafted.session.clone());
            } else {
                batch.activity.push(SessionActivity::of(&drafted.session));
            }
            change(Change::Session(drafted.session, drafted.entry), number.into());
        }
        batch.sessions.sort_unstable_by_key(|session| session.number);
        batch.details = self.details;
        batch.earlier = self.earlier;
        batch.events = entries;
        batch.side = self.side;
        for (change, operation) in self.changes {
            batch.changes.push(change);
            decided.causes.push(vec![operation]);
        }
        decided.traffic = self.counted.into_iter().collect();
        decided.begun = self.begun;
        decided
    }
}
