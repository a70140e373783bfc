//! What goes into the store and what comes out of it.

use serde::{Deserialize, Serialize};
use sessiond_core::Time;
pub use sessiond_core::application::Application;
use sessiond_core::chain::body_digest;
use sessiond_core::change::{Change, KeyHashes};
pub use sessiond_core::delivery::{Delivery, DeliveryStatus};
use sessiond_core::event::Recorded;
use sessiond_core::filter::Facts;
use sessiond_core::idempotency::RecordedOutcome;
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, SessionNumber, StreamKind,
};
pub use sessiond_core::organization::Organization;
use sessiond_core::personal::Personal;
use sessiond_core::retention::{OfResource, ResourceTotals};
pub use sessiond_core::revocation::Revocation;
pub use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::earlier::EarlierState;
use sessiond_core::session::event::{Connected, Counts};
use sessiond_core::session::{Envelope, Session};
pub use sessiond_core::streams::AnyStream;
use sessiond_core::streams::Registered;
use sessiond_core::throughput::Throughput;
pub use sessiond_core::token::{AccessToken, Principal, SessionToken};
use uuid::Uuid;

use crate::seam::{Count, Cut, Recount, Sealed};

/// One event ready to be written.
#[derive(Debug, Clone)]
pub struct Entry {
    pub recorded: Recorded,
    /// The body's exact bytes; empty where an earlier release pruned it.
    pub body: String,
    /// SHA-256 of the body, also where it was pruned.
    pub digest: [u8; 32],
    pub hash: [u8; 32],
    /// Set on the last event of a commit.
    pub commit_hash: Option<[u8; 32]>,
}

impl Entry {
    /// Seals an event into its stream: `before` is the hash of the stream's event before it.
    pub fn seal(recorded: Recorded, before: &[u8; 32]) -> Self {
        let body = recorded.event.body();
        let digest = body_digest(&body);
        let hash = recorded.header().hash(before, &digest);
        Self { recorded, body, digest, hash, commit_hash: None }
    }

    /// What the fold of a session needs from the envelope.
    pub fn envelope(&self) -> Envelope {
        Envelope {
            number: SessionNumber(self.recorded.stream.number),
            organization: self.recorded.organization,
            application: self.recorded.application.unwrap_or_default(),
            actor: self.recorded.actor,
            occurred_at: self.recorded.occurred_at,
            head: self.head(),
        }
    }

    /// Where the stream stands after this event.
    pub fn head(&self) -> Head {
        Head { version: self.recorded.version, position: self.recorded.position, hash: self.hash }
    }
}

/// Where the log and the numbers stand that go on from commit to commit: all that whoever writes next has to know beyond what
/// the changes of commits say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogHead {
    /// The last event, when it was recorded, and the hash of its commit.
    pub position: Position,
    pub recorded_at: Time,
    pub commit_hash: [u8; 32],
    pub last_session: SessionNumber,
    /// And its id: later ones are greater.
    pub last_session_id: Uuid,
    pub last_revocation: i64,
    pub last_principal: i64,
}

impl LogHead {
    /// Where the log stands after a batch that does not say it.
    pub(crate) fn after(mut self, batch: &Batch) -> Self {
        if let Some(last) = batch.events.last() {
            self.position = last.recorded.position;
            self.recorded_at = last.recorded.recorded_at;
            self.commit_hash = last.commit_hash.unwrap_or_default();
        }
        if let Some(session) = batch.sessions.last().filter(|session| session.number > self.last_session) {
            (self.last_session, self.last_session_id) = (session.number, session.id);
        }
        for revocation in batch.streams.iter().filter_map(Revocation::of) {
            self.last_revocation = self.last_revocation.max(revocation.number.0);
        }
        for side in &batch.side {
            if let SideWrite::Principal(principal) = side {
                self.last_principal = self.last_principal.max(principal.number.0);
            }
        }
        self
    }

    /// Takes what organizations remember of the last session that they let go, whose row is not there any more.
    pub(crate) fn after_letting_go(&mut self, streams: &[AnyStream]) {
        for let_go in streams.iter().filter_map(Organization::of).map(|one| &one.let_go) {
            if let Some(id) = let_go.last_id.filter(|_| let_go.last_session > self.last_session) {
                (self.last_session, self.last_session_id) = (let_go.last_session, id);
            }
        }
    }
}

/// How far a process has applied the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub log: LogHead,
    /// The last commit, where commits are counted.
    pub commit: i64,
}

/// A commit, as far as a process needs it that follows the log of others.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Commits count from 1, also those without events.
    pub number: i64,
    /// Where the log stands after it.
    pub head: LogHead,
    /// Its last event that is no activity.
    pub lifecycle: Option<Position>,
    pub changes: Vec<Change>,
}

/// One durable transaction.
#[derive(Debug, Default)]
pub struct Batch {
    pub events: Vec<Entry>,
    /// Streams that have an event in the batch, whole.
    pub streams: Vec<AnyStream>,
    /// Sessions with an event other than activity, whole; ordered by number.
    pub sessions: Vec<Session>,
    pub details: Vec<(SessionNumber, ApplicationNumber, Detail)>,
    /// Sessions with activity and nothing else: what changed of their rows. A store may write these later than their events,
    /// as long as a session's row is at one of its own events, goes forward only, and is whole once the session has another
    /// event; and as long as [`Start::open_sessions`](crate::Start::open_sessions) gives the newest, also after a crash.
    pub activity: Vec<SessionActivity>,
    /// How sessions stood just before some of the events.
    pub earlier: Vec<EarlierState>,
    pub side: Vec<SideWrite>,
    /// What those need who follow this process: what the batch changes in memory, where the log stands after it (none: where
    /// it stood), and its last event that is no activity. A store that only one process can write to has no use for it.
    pub changes: Vec<Change>,
    pub head: Option<LogHead>,
    pub lifecycle: Option<Position>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.side.is_empty() && self.changes.is_empty()
    }
}

/// What activity changes of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionActivity {
    pub session: SessionNumber,
    pub last_active_at: Time,
    pub total: Counts,
    pub throughput: Option<Box<Throughput>>,
    pub head: Head,
}

impl SessionActivity {
    /// As a session has it.
    pub fn of(session: &Session) -> Self {
        Self {
            session: session.number,
            last_active_at: session.last_active_at,
            total: session.total,
            throughput: session.throughput.clone(),
            head: session.head,
        }
    }

    /// Gives it to a session whose row is older; a newer one has it already.
    pub fn onto(self, session: &mut Session) {
        if self.head.version > session.head.version {
            session.last_active_at = self.last_active_at;
            session.total = self.total;
            session.throughput = self.throughput;
            session.head = self.head;
        }
    }
}

/// What a session connected with, as its row shows it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Detail {
    pub name: Option<String>,
    pub hostname: Option<String>,
    pub user_agent: Option<String>,
    /// JSON text.
    pub client_info: Option<String>,
    pub ip: Option<String>,
    /// Shown to nobody.
    pub anchor: Option<String>,
    pub client_session_id: Option<String>,
    pub token_identifier: Option<String>,
    pub protocol_version: Option<String>,
    /// The client's own name, from its metadata.
    pub client: Option<String>,
}

impl Detail {
    /// The row that a `Connected` makes; without its personal facts where they were erased.
    pub fn of(connected: &Connected, personal: Option<&Personal>) -> Self {
        Self {
            name: personal.map(|personal| personal.name.clone()),
            hostname: personal.and_then(|personal| personal.hostname.clone()),
            user_agent: personal.and_then(|personal| personal.user_agent.clone()),
            client_info: personal
                .and_then(|personal| personal.client_info.as_ref())
                .map(std::string::ToString::to_string),
            ip: personal.and_then(|personal| personal.ip.clone()),
            anchor: connected.anchor.clone(),
            client_session_id: connected
                .client_session_id
                .clone()
                .or_else(|| personal.and_then(|personal| personal.client_session_id.clone())),
            token_identifier: connected
                .token_identifier
                .clone()
                .or_else(|| personal.and_then(|personal| personal.token_identifier.clone())),
            protocol_version: connected.protocol_version.clone(),
            client: personal.and_then(Personal::client).map(str::to_owned),
        }
    }
}

/// A session as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    pub session: Session,
    pub detail: Detail,
}

impl SessionRow {
    /// What a filter asks of it beyond its fold.
    pub fn facts(&self) -> Facts<'_> {
        let detail = &self.detail;
        Facts { hostname: detail.hostname.as_deref(), client: detail.client.as_deref(), seen_at: None }
    }
}

/// A write that is not an event: secrets, people, deliveries, outcomes. Nothing of it can be made again from the log, so
/// making the rows again leaves all of it alone.
#[derive(Debug, Clone)]
pub enum SideWrite {
    /// What the secret key of this store is known by; there is one.
    KeyCheck([u8; 32]),
    /// What was sealed before, sealed anew: with another secret key.
    Reseal(Sealed),
    /// The digest of a principal under another secret key, and the public id that it keeps.
    Redigest {
        number: PrincipalNumber,
        subject_digest: [u8; 32],
        kept_id: Uuid,
    },
    /// The secret of an OAuth client, its first or another one in its place; the one before is good beside it until then.
    ClientSecret {
        client_id: String,
        secret_hash: [u8; 32],
        before_until: Option<Time>,
    },
    AccessToken(AccessToken),
    BarAccessToken(Uuid),
    SessionToken(SessionNumber, SessionToken),
    Principal(Principal),
    McpSession(SessionNumber, McpSession),
    /// The upstreams of these sessions, which have ended, know that they are over: what was kept to speak to them goes.
    ForgetMcp(Vec<SessionNumber>),
    /// The secret of an upstream's credential, sealed; none: there is none any more.
    UpstreamSecret {
        application: ApplicationNumber,
        sealed: Option<Vec<u8>>,
    },
    ApiKeySecret {
        id: Uuid,
        secret_hash: [u8; 32],
    },
    /// Another secret of an API key; the one before is kept beside it, and the key's fold says until when it is good.
    RotateApiKeySecret {
        id: Uuid,
        secret_hash: [u8; 32],
    },
    /// What a principal is called; what is not said stays. Its row is in this batch or before it.
    DescribePrincipal {
        number: PrincipalNumber,
        name: Option<String>,
        email: Option<String>,
    },
    /// Erase what a principal is called.
    ErasePrincipal(PrincipalNumber),
    /// Erase the personal facts of sessions, beside their events and in their rows.
    ErasePersonal(Vec<SessionNumber>),
    /// When API keys were last used.
    ApiKeysUsed(Vec<(Uuid, Time)>),
    /// Forget one access token: its client gave it up.
    RevokeAccessToken(Uuid),
    /// Forget access tokens that expired before this instant.
    ForgetTokens(Time),
    /// A webhook's first signing secret, sealed.
    WebhookSecret {
        id: Uuid,
        sealed: Vec<u8>,
    },
    /// Another one; the one before is good beside it until then.
    RotateWebhookSecret {
        id: Uuid,
        sealed: Vec<u8>,
        before_until: Option<Time>,
    },
    /// A webhook was deleted: its secrets and progress go.
    ForgetWebhook(Uuid),
    /// And some of its deliveries, as many as nobody notices.
    ForgetDeliveriesOf(Uuid),
    /// How deliveries stand, and how far webhooks have been served. Nothing is written of a webhook that has no secret any
    /// more: it is deleted.
    Deliveries {
        rows: Vec<Delivery>,
        progress: Vec<(Uuid, Position)>,
    },
    /// Forget deliveries that were over before this instant, and failed ones before the other.
    ForgetDeliveries {
        before: Time,
        failed_before: Time,
    },
    /// What a machine is logged into with, sealed.
    MachineSecret {
        id: Uuid,
        sealed: Vec<u8>,
    },
    /// A machine was deleted.
    ForgetMachine(Uuid),
    /// That the end of a session is known where its work ran; the first one stays.
    Confirmation(Confirmation),
    /// What a request came to that is not to take effect again. Where its key has another outcome, of less than
    /// [`KEPT`](sessiond_core::once::KEPT) before, the whole batch fails: the request is about to take effect twice.
    Outcome(RecordedOutcome),
    /// Forget a page of outcomes recorded up to this instant.
    ForgetOutcomes(Time),
    /// Let sessions go that have ended, with all that is known of them, and these events, which are all that are kept of
    /// theirs. What the chains of hashes need to go on stays.
    LetSessionsGo {
        sessions: Vec<SessionNumber>,
        positions: Vec<Position>,
        resources: Vec<OfResource>,
    },
    /// Let these activity events go; other events go on from there.
    Fold {
        positions: Vec<Position>,
        cuts: Vec<Cut>,
    },
    /// Folding has come this far for these organizations.
    FoldedTo(Vec<OrganizationNumber>, Position),
    /// What some events add to what was counted of the log.
    Count(Box<Count>),
    /// Some of the log is to be counted again.
    Recount(Recount),
}

/// A webhook's signing secrets as they are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSecret {
    pub sealed: Vec<u8>,
    /// The one before, and until when it signs too.
    pub before: Option<(Vec<u8>, Time)>,
}

/// The gateway's side of an MCP session.
#[derive(Debug, Clone, PartialEq)]
pub struct McpSession {
    pub id_hash: [u8; 32],
    pub sealed: Vec<u8>,
}

/// A principal with what it is called; erasable.
#[derive(Debug, Clone)]
pub struct PrincipalRow {
    pub principal: Principal,
    pub name: Option<String>,
    pub email: Option<String>,
}

/// The hash of an OAuth client's secret (SHA-256).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSecret {
    pub hash: [u8; 32],
    /// That of the one before, and until when it is good too.
    pub before: Option<([u8; 32], Time)>,
}

/// The secrets of an API key, and when the key was last used.
#[derive(Debug, Clone, Copy)]
pub struct KeySecret {
    pub id: Uuid,
    pub hashes: KeyHashes,
    pub used_at: Option<Time>,
}

/// What lives in memory as of one position of the log, but for what there may be millions of
/// ([`Start`](crate::Start) has the rest).
#[derive(Debug, Default)]
pub struct Loaded {
    /// Where the log stands.
    pub head: LogHead,
    /// The last commit, where commits are counted for those who follow.
    pub commit: i64,
    /// All but the revocations that have ended, organizations first.
    pub streams: Vec<AnyStream>,
    /// When the bars that are in force were recorded.
    pub bars: Vec<(Position, Time)>,
    pub key_secrets: Vec<KeySecret>,
    pub open_sessions: u64,
    /// Sessions that are kept, by application.
    pub session_totals: Vec<(ApplicationNumber, u64)>,
    /// What the ended sessions of each resource of an application came to, those that were let go among them.
    pub resource_totals: Vec<(ApplicationNumber, String, ResourceTotals)>,
}

/// An open session with all that the Gate holds of it, as its rows say.
#[derive(Debug, Clone)]
pub struct OpenSession {
    pub row: SessionRow,
    pub token: Option<SessionToken>,
    /// Hash of its `Mcp-Session-Id`.
    pub mcp_hash: Option<[u8; 32]>,
}

/// That whoever ran the work of a session knows that it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    pub session: SessionNumber,
    pub at: Time,
    pub message: Option<String>,
}

/// An event with the public ids of what it is about.
#[derive(Debug, Clone)]
pub struct Addressed {
    pub entry: Entry,
    pub session_id: Option<Uuid>,
    pub application_id: Option<Uuid>,
    pub revocation_id: Option<Uuid>,
    /// What its session is connected to, and the name it has there.
    pub resource: Option<String>,
    pub client_session_id: Option<String>,
}

impl Addressed {
    /// The session whose stream the event is of.
    pub fn session(&self) -> Option<SessionNumber> {
        let stream = self.entry.recorded.stream;
        (stream.kind == StreamKind::Session).then_some(SessionNumber(stream.number))
    }
}
