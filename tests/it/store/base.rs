//! A database in a directory of its own, a committer that writes to it, and short words for what one does with both.

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, LocalBoxFuture};
use sessiond::cli::fill::fill;
use sessiond::clock::Clock;
use sessiond::committer::{
    Activity, BeginRevocation, ChangePhase, Committer, CreateOrganization, EndRevocation, EndSessions,
    MeetDeadlines, OpenSession, Operation, Origin, RecordActivity, RenewToken, SessionEnd, SetSuspended,
};
use sessiond::error::Error;
use sessiond::gate::{Due, Gate, Lease};
use sessiond::http::health::Progress;
use sessiond::nodes::{Applied, Barrier, Follower};
use sessiond_core::Time;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::application::{ApplicationCreated, OauthClient};
use sessiond_core::barring::BarOptions;
use sessiond_core::command::{Command, Connect};
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::maxima::Maxima;
use sessiond_core::organization::OrganizationCreated;
use sessiond_core::personal::Personal;
use sessiond_core::phase::Phase;
use sessiond_core::policy::Policy;
use sessiond_core::presented::Presented;
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Revocation;
use sessiond_core::service_account::ServiceAccountCreated;
use sessiond_core::session::Session;
use sessiond_core::session::event::{ActivitySource, Counts};
use sessiond_store::check::{Fault, Report};
use sessiond_store::{Contents, Open, OpenJournals, Store, sqlite};
use sqlx::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::conformance::Place;
use crate::support;

pub const ORGANIZATION: OrganizationNumber = OrganizationNumber(1);
pub const APPLICATION: ApplicationNumber = ApplicationNumber(1);

/// A database: a file, or, where the environment says so, one of a PostgreSQL server.
pub struct Base {
    directory: Arc<TempDir>,
}

impl Base {
    pub fn new() -> Self {
        Self { directory: support::directory() }
    }

    pub fn url(&self) -> String {
        support::store::url(self.directory.path())
    }

    /// A connection of one's own, for looking into the file and for damage.
    pub async fn raw(&self) -> sqlx::SqliteConnection {
        sqlx::SqliteConnection::connect(&self.url()).await.unwrap()
    }

    pub async fn open(&self) -> Open {
        sessiond_store::open(&self.url()).await.unwrap()
    }

    /// What can be read, of a database that exists.
    pub async fn store(&self) -> Arc<dyn Store> {
        sessiond_store::open_to_look(&self.url()).await.unwrap()
    }

    /// Bytes in the write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        let wal = self.directory.path().join("sessiond.db-wal");
        std::fs::metadata(wal).map_or(0, |metadata| metadata.len())
    }

    /// How far something has come along the log.
    pub async fn mark(&self, name: &str) -> Position {
        let mut raw = self.raw().await;
        let sql = "select position from mark where name = ?";
        let position: Option<i64> =
            sqlx::query_scalar(sql).bind(name).fetch_optional(&mut raw).await.unwrap();
        raw.close().await.unwrap();
        Position(position.unwrap_or(0))
    }

    /// Runs one statement on a connection of its own.
    pub async fn execute(&self, sql: &str) -> u64 {
        let sql = sqlx::AssertSqlSafe(sql);
        if support::store::is_postgres() {
            let mut raw = sqlx::PgConnection::connect(&self.url()).await.unwrap();
            return sqlx::query(sql).execute(&mut raw).await.unwrap().rows_affected();
        }
        let mut raw = self.raw().await;
        let done = sqlx::query(sql).execute(&mut raw).await.unwrap();
        raw.close().await.unwrap();
        done.rows_affected()
    }

    pub async fn verify(&self) -> Result<Report, Fault> {
        let store = self.store().await;
        let outcome = store.verify(&mut |_, _| ()).await;
        store.close().await;
        outcome
    }

    pub async fn rebuild(&self) -> Result<Report, Fault> {
        sessiond_store::rebuild(&self.url(), &mut |_, _| ()).await
    }

    /// Starts a committer, on the system's clock.
    pub async fn start(&self) -> Running {
        self.start_with(Clock::system()).await
    }

    pub async fn start_with(&self, clock: Clock) -> Running {
        self.start_on(self.open().await, clock).await
    }

    /// Starts a committer on a disk that is full beyond so many pages.
    pub async fn start_with_pages(&self, pages: u32) -> Running {
        let open = sqlite::open_limited(&self.url(), pages).await.unwrap();
        self.start_on(open, Clock::system()).await
    }

    pub async fn start_on(&self, open: Open, clock: Clock) -> Running {
        let Open { writer, store: reader, nodes } = open;
        let lease = if nodes.is_some() { Lease::none() } else { Lease::default() };
        let gate = Arc::new(Gate::with_lease(lease));
        let loaded = fill(&gate, &reader, clock.now(), &Progress::default()).await.unwrap();
        // A runtime of its own, so that it can be killed in the middle of whatever it does.
        let process =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let applied = Arc::new(Applied::new(gate.clone(), &loaded));
        let node = match nodes {
            Some(nodes) => Some(Follower::join(nodes, None, (applied.clone(), clock.clone())).await.unwrap()),
            None => None,
        };
        let node = node.map(Arc::new);
        let entered = process.enter();
        support::keep_while_at_work(self.directory.clone());
        let barrier = node.as_ref().map(|node| Arc::new(Barrier::new(node.nodes(), node.own())));
        let rules = (Policy::default(), Maxima::default());
        let committer = Committer::start(writer, applied.clone(), barrier, clock.clone(), rules);
        let living = |node: Arc<Follower>| async move { node.run(CancellationToken::new()).await };
        let node = node.map(|node| Member { living: tokio::spawn(living(node)) });
        drop(entered);
        Running { committer, gate, applied, reader, clock, node, process: Some(process) }
    }

    /// Starts a committer and founds an organization with one application.
    pub async fn founded(&self) -> Running {
        let running = self.start().await;
        running.found().await;
        running
    }
}

impl Place for Base {
    fn look(&self) -> LocalBoxFuture<'_, Contents> {
        async { sessiond_store::look(&self.url()).await.unwrap() }.boxed_local()
    }

    fn open(&self) -> LocalBoxFuture<'_, Open> {
        async { sessiond_store::open(&self.url()).await.unwrap() }.boxed_local()
    }

    fn open_journals(&self) -> LocalBoxFuture<'_, OpenJournals> {
        let url = if support::store::is_postgres() { self.url() } else { format!("{}.lines", self.url()) };
        async move { sessiond_store::open_journals(&url).await.unwrap() }.boxed_local()
    }

    fn rebuild(&self) -> LocalBoxFuture<'_, Result<Report, Fault>> {
        self.rebuild().boxed_local()
    }
}

/// A revocation that is to begin.
pub fn beginning(filter: Filter, reason: Reason) -> BeginRevocation {
    BeginRevocation {
        id: Uuid::now_v7(),
        organization: ORGANIZATION,
        filter,
        reason,
        note: None,
        bar: BarOptions::default(),
        keep_out: None,
        disable: None,
        schedule: None,
    }
}

/// A committer at work.
pub struct Running {
    pub committer: Committer,
    pub gate: Arc<Gate>,
    pub applied: Arc<Applied>,
    pub reader: Arc<dyn Store>,
    pub clock: Clock,
    /// Where there are others.
    pub node: Option<Member>,
    process: Option<tokio::runtime::Runtime>,
}

/// A node at work.
pub struct Member {
    pub living: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.shutdown_background();
        }
    }
}

/// What a connect differs in.
#[derive(Debug, Clone, Default)]
pub struct Opens {
    pub application: Option<ApplicationNumber>,
    /// An agent's, or an MCP client's where there is an anchor, if none is named.
    pub kind: Option<Kind>,
    pub resource: Option<String>,
    pub phase: Option<Phase>,
    pub subject: &'static str,
    pub anchor: Option<String>,
    pub client_session_id: Option<String>,
    pub token_identifier: Option<String>,
    /// Life of the access token that is presented; an hour if none is named.
    pub expires_in: Option<TimeDelta>,
}

impl Running {
    pub async fn submit<O: Operation>(&self, operation: O) -> Result<O::Outcome, Error> {
        self.submit_by(by_account(), operation).await
    }

    pub async fn submit_by<O: Operation>(&self, origin: Origin, operation: O) -> Result<O::Outcome, Error> {
        self.committer.submit(origin, operation).await.map(|answer| answer.outcome)
    }

    /// The same, for a list of operations of several types.
    pub fn boxed<O: Operation>(&self, operation: O) -> BoxFuture<'_, Result<(), Error>> {
        self.submit(operation).map(|outcome| outcome.map(|_| ())).boxed()
    }

    /// Wants something of a session, by whichever operation takes the command.
    pub fn command(&self, number: SessionNumber, command: Command) -> BoxFuture<'_, Result<(), Error>> {
        let end = |end| EndSessions { ends: vec![(number, end)], revocation: None };
        let deadline = |due, not_before| MeetDeadlines { due: vec![(number, due)], not_before };
        match command {
            Command::RecordActivity { source, counts, presented } => {
                let activity = Activity { source, counts, presented };
                self.boxed(RecordActivity { session: number, activity })
            }
            Command::ChangePhase { phase, presented } => {
                self.boxed(ChangePhase { session: number, phase, presented })
            }
            Command::RenewToken { presented } => {
                self.boxed(RenewToken { session: number, presented, token_hash: [4; 32] })
            }
            Command::Suspend => self.boxed(SetSuspended { session: number, suspended: true }),
            Command::Resume => self.boxed(SetSuspended { session: number, suspended: false }),
            Command::Finish { outcome, message } => self.boxed(end(SessionEnd::Finish { outcome, message })),
            Command::Disconnect { reason } => self.boxed(end(SessionEnd::Disconnect(reason))),
            Command::EndLifetime => self.boxed(end(SessionEnd::Lifetime)),
            Command::Expire => self.boxed(deadline(Due::Expire, self.now())),
            Command::EndStale { not_before, seen_at } => {
                self.boxed(deadline(Due::Stale(seen_at), not_before))
            }
            Command::Connect(_) => panic!("a connect has an operation of its own"),
        }
    }

    pub async fn stop(self) {
        self.committer.stop().await;
        self.reader.close().await;
    }

    /// Kills it: nothing is settled, nothing is closed, what it knew is gone.
    pub async fn crash(mut self) {
        let process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.shutdown_timeout(std::time::Duration::from_secs(10)))
            .await
            .unwrap();
    }

    pub fn head(&self) -> Position {
        self.committer.tip().borrow().position
    }

    pub async fn found(&self) {
        let founding = CreateOrganization {
            organization: OrganizationCreated { id: Uuid::now_v7(), name: "Acme".into() },
            application: Some(application("Desk")),
            application_secret_hash: Some([7; 32]),
            account: ServiceAccountCreated {
                id: Uuid::now_v7(),
                name: "operations".into(),
                client_id: "operations".into(),
                scopes: "management:all mcp:invoke".into(),
                application: None,
            },
            secret_hash: [8; 32],
        };
        self.submit_by(Origin::operator(), founding).await.unwrap();
    }

    pub fn opening(&self, opens: &Opens) -> OpenSession {
        let kind = if opens.anchor.is_some() { Kind::Mcp } else { Kind::Agent };
        let kind = opens.kind.unwrap_or(kind);
        let connect = Connect {
            id: Uuid::now_v7(),
            kind,
            organization: ORGANIZATION,
            application: opens.application.unwrap_or(APPLICATION),
            principal: PrincipalNumber(0),
            anchor: opens.anchor.clone(),
            client_session_id: opens.client_session_id.clone(),
            token_identifier: opens.token_identifier.clone(),
            protocol_version: Some("2025-11-25".into()),
            resource: opens.resource.clone(),
            phase: opens.phase,
            node: None,
            lifetime: None,
            silent: false,
            exclusive: false,
            personal: Personal {
                salt: Uuid::new_v4().to_string(),
                name: "amber otter".into(),
                hostname: Some("desk-17.example".into()),
                user_agent: None,
                client_info: Some(serde_json::json!({"name": "inspector", "version": "1.2"})),
                ip: Some("192.0.2.7".into()),
                ..Personal::default()
            },
            presented: Presented {
                expires_at: self.clock.now() + opens.expires_in.unwrap_or(TimeDelta::hours(1)),
                ..self.owner()
            },
        };
        let subject = opens.subject.to_owned();
        let mut subject_digest = [0; 32];
        subject_digest[..subject.len()].copy_from_slice(subject.as_bytes());
        OpenSession {
            connect,
            token_hash: kind.has_token().then_some([1; 32]),
            issuer: "https://issuer.example".into(),
            subject,
            subject_digest,
        }
    }

    pub async fn connect(&self, opens: &Opens) -> Result<Session, Error> {
        Ok(*self.submit(self.opening(opens)).await?.session)
    }

    /// A session like any other.
    pub async fn open(&self) -> Session {
        self.connect(&Opens::default()).await.unwrap()
    }

    /// What the owner presents: an access token good for an hour.
    pub fn owner(&self) -> Presented {
        Presented {
            issued_at: self.head(),
            expires_at: self.clock.now() + TimeDelta::hours(1),
            access_token: Some(Uuid::now_v7()),
            renews: true,
            by_owner: true,
        }
    }

    /// A call with the session's own token, which never renews anything.
    pub fn activity(&self, session: SessionNumber, requests: u64) -> RecordActivity {
        let presented = Presented { access_token: None, renews: false, ..self.owner() };
        let counts = Counts { requests, bytes_in: 10 * requests, bytes_out: 100 * requests };
        let activity = Activity { source: ActivitySource::Heartbeat, counts, presented };
        RecordActivity { session, activity }
    }

    pub async fn record(&self, number: SessionNumber, requests: u64) {
        self.submit(self.activity(number, requests)).await.unwrap();
    }

    pub async fn renew(&self, number: SessionNumber) {
        let presented = self.owner();
        self.command(number, Command::RenewToken { presented }).await.unwrap();
    }

    pub async fn disconnect(&self, number: SessionNumber, reason: Reason) {
        self.command(number, Command::Disconnect { reason }).await.unwrap();
    }

    pub async fn begin(&self, filter: Filter, reason: Reason) -> Result<Revocation, Error> {
        let note = Some("spring cleaning".into());
        self.submit(BeginRevocation { note, ..beginning(filter, reason) }).await
    }

    /// Ends what a revocation covers, a few at a time, and the revocation; returns how many sessions it ended.
    pub async fn carry_out(&self, revocation: &Revocation) -> u64 {
        let covered = self.gate.known().covered(revocation);
        for chunk in covered.chunks(3) {
            self.chunk(revocation, chunk).await;
        }
        let end = EndRevocation { number: revocation.number, streams_closed: 0, nodes: None };
        self.submit_by(Origin::system(), end).await.unwrap().disconnected_count
    }

    pub async fn chunk(&self, revocation: &Revocation, numbers: &[SessionNumber]) {
        let ends = numbers.iter().map(|number| (*number, SessionEnd::Disconnect(revocation.reason)));
        let ending = EndSessions { ends: ends.collect(), revocation: Some(revocation.number) };
        self.submit_by(Origin::system(), ending).await.unwrap();
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }
}

pub fn by_account() -> Origin {
    Origin {
        actor: Actor { kind: ActorKind::ServiceAccount, id: Uuid::from_u128(0xac) },
        request_id: Some("request-1".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        once: None,
        authority: None,
    }
}

pub fn application(name: &str) -> ApplicationCreated {
    ApplicationCreated {
        id: Uuid::now_v7(),
        name: name.into(),
        oauth: OauthClient {
            client_id: format!("client-{name}"),
            r#type: "confidential".into(),
            redirect_uris: vec![],
            pkce_required: true,
            scopes: vec!["mcp:invoke".into()],
            allowed_resources: vec![],
        },
        on_the_way: false,
    }
}
