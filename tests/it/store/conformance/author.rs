//! Writes a log of one's own: gives out positions, versions and hashes, and folds the rows, as the committer does.

use std::collections::{BTreeMap, HashMap};

use sessiond_core::Time;
use sessiond_core::actor::Actor;
use sessiond_core::application::{Application, ApplicationEvent};
use sessiond_core::chain::commit_hash;
use sessiond_core::event::{Event, Recorded};
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, SessionNumber, StreamId,
};
use sessiond_core::kind::Kind;
use sessiond_core::organization::{Organization, OrganizationCreated, OrganizationEvent};
use sessiond_core::personal::{Personal, personal_digest};
use sessiond_core::policy::SessionPolicy;
use sessiond_core::reason::Reason;
use sessiond_core::session::event::{
    ACTIVITY, ActivityRecorded, ActivitySource, Connected, Counts, Disconnected, SessionEvent,
};
use sessiond_core::session::{Session, evolve};
use sessiond_core::stream::{Envelope, Stream};
use sessiond_core::streams::Registered;
use sessiond_core::token::Principal;
use sessiond_store::{Batch, Detail, Entry, LogHead, SessionActivity, SideWrite, Store};
use uuid::Uuid;

use super::super::base::{APPLICATION, ORGANIZATION, application};

pub const BEGINNING: i64 = 1_700_000_000_000;

pub fn moment(milliseconds: i64) -> Time {
    Time::from_timestamp_millis(BEGINNING + milliseconds).unwrap()
}

/// How a session connects.
#[derive(Clone, Default)]
pub struct Connects {
    pub hostname: Option<&'static str>,
    pub resource: Option<&'static str>,
    pub kind: Option<Kind>,
    /// When its token expires.
    pub expires: i64,
}

#[derive(Default)]
pub struct Author {
    /// Where the log stands.
    pub log: LogHead,
    /// The time of the next event; a millisecond passes with each.
    pub now: i64,
    heads: HashMap<StreamId, Head>,
    pub sessions: BTreeMap<SessionNumber, Session>,
    /// All that was written, in order.
    pub entries: Vec<Entry>,
    batch: Batch,
}

pub fn principal(number: i64) -> Principal {
    Principal {
        number: PrincipalNumber(number),
        organization: ORGANIZATION,
        issuer: "https://issuer.example".into(),
        subject_digest: [number as u8; 32],
        subject: Some(format!("subject {number}")),
        kept_id: None,
    }
}

impl Author {
    pub fn head(&self) -> Position {
        self.log.position
    }

    /// An organization, an application and a principal, all of number 1.
    pub fn found() -> (Self, Batch) {
        let mut author = Self::default();
        let organization = OrganizationEvent::Created(OrganizationCreated {
            id: Uuid::from_u128(0x0a),
            name: "Acme".into(),
        });
        author.begin::<Organization>(ORGANIZATION.into(), None, &organization);
        let created = ApplicationEvent::Created(Box::new(application("Desk")));
        author.begin::<Application>(APPLICATION.into(), Some(APPLICATION), &created);
        author.beside(SideWrite::Principal(principal(1)));
        author.log.last_principal = 1;
        let batch = author.done();
        (author, batch)
    }

    fn begin<S: Registered>(
        &mut self,
        stream: StreamId,
        application: Option<ApplicationNumber>,
        event: &S::Event,
    ) {
        let head = self.event(stream, application, Event::Stream(S::event(event.clone())), None);
        let occurred_at = moment(self.now - 1);
        let envelope = Envelope { number: stream.number, organization: ORGANIZATION, occurred_at, head };
        self.batch.streams.extend(S::evolve(None, event, &envelope).map(S::any));
    }

    /// The organization's account of what is let go.
    pub async fn account(&mut self, store: &dyn Store, event: OrganizationEvent) {
        let before = store.load().await.unwrap().streams.iter().find_map(Organization::of).cloned();
        let stream = ORGANIZATION.into();
        let head = self.event(stream, None, Event::Stream(Organization::event(event.clone())), None);
        let occurred_at = moment(self.now - 1);
        let envelope = Envelope { number: stream.number, organization: ORGANIZATION, occurred_at, head };
        self.batch.streams.extend(Organization::evolve(before, &event, &envelope).map(Organization::any));
    }

    fn event(
        &mut self,
        stream: StreamId,
        application: Option<ApplicationNumber>,
        event: Event,
        personal: Option<String>,
    ) -> Head {
        let before = self.heads.get(&stream).copied().unwrap_or_default();
        self.log.position.0 += 1;
        let at = moment(self.now);
        self.log.recorded_at = at;
        self.now += 1;
        let recorded = Recorded {
            position: self.log.position,
            stream,
            version: before.version + 1,
            previous_position: before.position,
            occurred_at: at,
            recorded_at: at,
            organization: ORGANIZATION,
            application,
            actor: Actor::OPERATOR,
            revocation: None,
            request_id: Some(format!("request-{}", self.log.position.0)),
            traceparent: None,
            event,
            personal,
        };
        let entry = Entry::seal(recorded, &before.hash);
        let head = entry.head();
        self.heads.insert(stream, head);
        self.batch.events.push(entry);
        head
    }

    pub fn connect(&mut self, number: i64, connects: &Connects) -> SessionNumber {
        let personal = Personal {
            salt: format!("salt {number}"),
            name: "amber otter".into(),
            hostname: connects.hostname.map(str::to_owned),
            client_info: Some(serde_json::json!({"name": "inspector"})),
            ..Personal::default()
        };
        let text = serde_json::to_string(&personal).unwrap();
        let connected = Connected {
            // Ids are in the order of numbers.
            id: Uuid::from_u128(0x5e55_0000 + u128::try_from(number).unwrap()),
            kind: connects.kind.unwrap_or(Kind::Agent),
            principal: PrincipalNumber(1),
            anchor: None,
            client_session_id: None,
            token_identifier: None,
            token_expires_at: moment(connects.expires),
            lifetime_ends_at: moment(1_000_000_000),
            policy: SessionPolicy {
                idle_after: 60,
                stale_after: 600,
                absolute_lifetime: 1_000_000,
                token_lifetime: Some(3_600),
                unused_after: None,
                preset: None,
            },
            credential: None,
            protocol_version: None,
            resource: connects.resource.map(str::to_owned),
            phase: None,
            node: None,
            personal: personal_digest(&text),
        };
        let number = SessionNumber(number);
        (self.log.last_session, self.log.last_session_id) = (number, connected.id);
        let detail = Detail::of(&connected, Some(&personal));
        self.session(number, SessionEvent::Connected(Box::new(connected)), Some(text));
        self.batch.details.push((number, APPLICATION, detail));
        number
    }

    /// So many calls.
    pub fn act(&mut self, number: SessionNumber, requests: u64) {
        let counts = Counts { requests, bytes_in: requests, bytes_out: 10 * requests };
        let total = self.sessions[&number].total.plus(counts);
        let activity =
            ActivityRecorded { source: ActivitySource::Heartbeat, counts, total, throughput: None };
        self.session(number, SessionEvent::ActivityRecorded(activity), None);
    }

    pub fn disconnect(&mut self, number: SessionNumber) {
        self.session(number, SessionEvent::Disconnected(Disconnected::because(Reason::Client)), None);
    }

    fn session(&mut self, number: SessionNumber, event: SessionEvent, personal: Option<String>) {
        let lifecycle = !matches!(event, SessionEvent::ActivityRecorded(_));
        self.event(number.into(), Some(APPLICATION), Event::Session(event.clone()), personal);
        let envelope = self.batch.events.last().unwrap().envelope();
        let session = evolve(self.sessions.remove(&number), &event, &envelope).unwrap();
        self.sessions.insert(number, session.clone());
        let whole = lifecycle || self.batch.sessions.iter().any(|one| one.number == number);
        self.batch.activity.retain(|one| one.session != number);
        self.batch.sessions.retain(|one| one.number != number);
        match whole {
            true => self.batch.sessions.push(session),
            false => self.batch.activity.push(SessionActivity::of(&session)),
        }
    }

    pub fn beside(&mut self, side: SideWrite) {
        self.batch.side.push(side);
    }

    /// What was begun, as one batch.
    pub fn done(&mut self) -> Batch {
        let mut batch = std::mem::take(&mut self.batch);
        batch.sessions.sort_unstable_by_key(|session| session.number);
        let hashes: Vec<_> = batch.events.iter().map(|entry| entry.hash).collect();
        if let Some(last) = batch.events.last_mut() {
            self.log.commit_hash = commit_hash(&self.log.commit_hash, &hashes);
            last.commit_hash = Some(self.log.commit_hash);
        }
        let lifecycle = |entry: &&Entry| entry.recorded.event.name() != ACTIVITY;
        batch.lifecycle = batch.events.iter().rfind(lifecycle).map(|entry| entry.recorded.position);
        batch.head = Some(self.log);
        self.entries.extend(batch.events.iter().cloned());
        batch
    }
}

/// A batch of what stands beside the log alone.
pub fn beside(side: impl IntoIterator<Item = SideWrite>) -> Batch {
    Batch { side: side.into_iter().collect(), ..Batch::default() }
}

/// An organization that nobody has heard of.
pub const NOBODY: OrganizationNumber = OrganizationNumber(404);
