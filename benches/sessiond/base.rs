//! A committer in this process, on a database of its own, and the load for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sessiond::cli::fill::fill;
use sessiond::clock::Clock;
use sessiond::committer::{Activity, Committer, CreateOrganization, OpenSession, Origin, RecordActivity};
use sessiond::gate::Gate;
use sessiond::http::health::Progress;
use sessiond::nodes::Applied;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::application::{ApplicationCreated, OauthClient};
use sessiond_core::command::Connect;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, PrincipalNumber};
use sessiond_core::kind::Kind;
use sessiond_core::maxima::Maxima;
use sessiond_core::organization::OrganizationCreated;
use sessiond_core::personal::Personal;
use sessiond_core::policy::Policy;
use sessiond_core::presented::Presented;
use sessiond_core::service_account::ServiceAccountCreated;
use sessiond_core::session::Session;
use sessiond_core::session::event::{ActivitySource, Counts};
use sessiond_store::{Open, Store};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use crate::load::{Calls, Dice, Sample};

/// Those who wait for the committer at the same time.
pub const TASKS: usize = 256;

/// A committer at work.
pub struct Base {
    pub database: PathBuf,
    committer: Committer,
    reader: Arc<dyn Store>,
    sessions: Arc<Vec<Session>>,
    checkpoints: JoinHandle<()>,
}

/// The URL of the database in a directory, and its file.
pub fn database(directory: &Path) -> (String, PathBuf) {
    let file = directory.join("sessiond.db");
    (format!("sqlite:{}", file.display()), file)
}

/// What the scheduler does every two seconds, whoever writes.
pub fn checkpoints(store: Arc<dyn Store>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            store.maintain().await.expect("a checkpoint failed");
        }
    })
}

impl Base {
    /// A new database with this many open sessions.
    pub async fn new(directory: &Path, sessions: usize) -> anyhow::Result<Self> {
        let (url, database) = database(directory);
        let Open { writer, store: reader, .. } = sessiond_store::open(&url).await?;
        let gate = Arc::new(Gate::default());
        let loaded = fill(&gate, &reader, Clock::system().now(), &Progress::default()).await?;
        let policy = Policy { token_lifetime: 86_400, ..Policy::default() };
        let committer = Committer::start(
            writer,
            Arc::new(Applied::new(gate, &loaded)),
            None,
            Clock::system(),
            (policy, Maxima::default()),
        );
        found(&committer).await?;
        let sessions = Arc::new(connect(&committer, sessions).await?);
        let checkpoints = checkpoints(reader.clone());
        Ok(Self { database, committer, reader, sessions, checkpoints })
    }

    /// The log's last position.
    pub fn position(&self) -> i64 {
        self.committer.tip().borrow().position.0
    }

    /// Records activity until the budget is used up. Each task has sessions of its own, so that no two calls of a
    /// batch meet, and chooses among them uniformly.
    pub async fn record(&self, budget: Arc<AtomicI64>, sampled: bool) -> anyhow::Result<Calls> {
        let epoch = Instant::now();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (committer, sessions, budget) =
                (self.committer.clone(), self.sessions.clone(), budget.clone());
            tasks.spawn(async move {
                let (mut dice, mut samples) = (Dice::new(task), Vec::new());
                let own = sessions.len() / TASKS;
                while budget.fetch_sub(1, Ordering::Relaxed) > 0 {
                    let session = &sessions[task * own + dice.below(own)];
                    let began = Instant::now();
                    committer.submit(by(session.id), activity(session)).await?;
                    if sampled {
                        samples.push(Sample::new(epoch, began));
                    }
                }
                anyhow::Ok(samples)
            });
        }
        let mut samples = Vec::new();
        while let Some(task) = tasks.join_next().await {
            samples.extend(task??);
        }
        Ok(Calls { epoch, samples })
    }

    pub async fn stop(self) {
        self.checkpoints.abort();
        self.committer.stop().await;
        self.reader.close().await;
    }
}

/// A session's own call, as it comes in over HTTP.
fn by(session: Uuid) -> Origin {
    let actor = Actor { kind: ActorKind::Session, id: session };
    Origin {
        actor,
        request_id: Some("0123456789abcdef".to_owned()),
        traceparent: None,
        once: None,
        authority: None,
    }
}

fn activity(session: &Session) -> RecordActivity {
    let presented = Presented {
        issued_at: session.connected_at_position,
        expires_at: session.token_expires_at,
        access_token: None,
        renews: false,
        by_owner: false,
    };
    let activity = Activity { source: ActivitySource::Heartbeat, counts: Counts::default(), presented };
    RecordActivity { session: session.number, activity }
}

async fn found(committer: &Committer) -> anyhow::Result<()> {
    let oauth = OauthClient {
        client_id: "bench".into(),
        r#type: "confidential".into(),
        redirect_uris: vec![],
        pkce_required: true,
        scopes: vec!["mcp:invoke".into()],
        allowed_resources: vec![],
    };
    let founding = CreateOrganization {
        organization: OrganizationCreated { id: Uuid::now_v7(), name: "bench".into() },
        application: Some(ApplicationCreated {
            id: Uuid::now_v7(),
            name: "bench".into(),
            oauth,
            on_the_way: false,
        }),
        application_secret_hash: Some([1; 32]),
        account: ServiceAccountCreated {
            id: Uuid::now_v7(),
            name: "bench".into(),
            client_id: "operator".into(),
            scopes: "management:all mcp:invoke".into(),
            application: None,
        },
        secret_hash: [2; 32],
    };
    committer.submit(Origin::operator(), founding).await?;
    Ok(())
}

async fn connect(committer: &Committer, count: usize) -> anyhow::Result<Vec<Session>> {
    let left = Arc::new(AtomicI64::new(i64::try_from(count)?));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (committer, left) = (committer.clone(), left.clone());
        tasks.spawn(async move {
            let mut opened = Vec::new();
            loop {
                let number = left.fetch_sub(1, Ordering::Relaxed);
                if number <= 0 {
                    return anyhow::Ok(opened);
                }
                let actor = Actor { kind: ActorKind::ServiceAccount, id: Uuid::nil() };
                let origin = Origin { actor, ..Origin::system() };
                opened.push(*committer.submit(origin, opening(number)).await?.outcome.session);
            }
        });
    }
    let mut opened = Vec::with_capacity(count);
    while let Some(task) = tasks.join_next().await {
        opened.extend(task??);
    }
    Ok(opened)
}

fn opening(number: i64) -> OpenSession {
    let connect = Connect {
        id: Uuid::now_v7(),
        kind: Kind::Agent,
        organization: OrganizationNumber(1),
        application: ApplicationNumber(1),
        principal: PrincipalNumber(0),
        anchor: None,
        client_session_id: Some(format!("run-{number:016}")),
        token_identifier: None,
        protocol_version: None,
        resource: None,
        phase: None,
        node: None,
        lifetime: None,
        silent: false,
        exclusive: false,
        personal: Personal {
            salt: "0123456789abcdef012345".into(),
            name: "inspector on build-17.example.com".into(),
            hostname: Some("build-17.example.com".into()),
            user_agent: Some("python-httpx/0.28.1".into()),
            client_info: Some(serde_json::json!({ "name": "inspector", "version": "1.4.2" })),
            ip: None,
            ..Personal::default()
        },
        presented: Presented {
            issued_at: sessiond_core::ids::Position(i64::MAX),
            expires_at: Clock::system().now() + TimeDelta::hours(24),
            access_token: None,
            renews: false,
            by_owner: true,
        },
    };
    OpenSession {
        connect,
        token_hash: Some([3; 32]),
        issuer: "sessiond".into(),
        subject: "bench".into(),
        subject_digest: [4; 32],
    }
}
