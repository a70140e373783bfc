//! Puts everything together that is behind the listeners.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sessiond_core::maxima::Maxima;
use sessiond_core::policy::Policy;
use sessiond_core::retention::Figures;
use sessiond_store::{Nodes, Open, StoreError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fill::fill;
use super::place::{self, Place};
use crate::auth::Auth;
use crate::clock::Clock;
use crate::committer::Committer;
use crate::config::Config;
use crate::config::names::Names;
use crate::context::AppContext;
use crate::directory::Directory;
use crate::gate::{Gate, Lease};
use crate::http::health::Progress;
use crate::http::{self, App, Shared};
use crate::issuers::Issuers;
use crate::journals::Journals;
use crate::limits::Limits;
use crate::live::Live;
use crate::mcp::{Gateway, Upstreams};
use crate::nodes::{Applied, Barrier, Claims, Follower};
use crate::retention::Retention;
use crate::sessions::{JobStatus, Sessions};
use crate::tasks::{supervise, vital};
use crate::telling::Telling;
use crate::terminal::Terminals;
use crate::webhooks::Outbox;

/// Everything behind the listeners.
pub struct House {
    pub gate: Arc<Gate>,
    pub sessions: Arc<Sessions>,
    pub directory: Arc<Directory>,
    pub auth: Arc<Auth>,
    pub issuers: Arc<Issuers>,
    upstreams: Arc<Upstreams>,
    pub live: Arc<Live>,
    pub lines: Journals,
    pub retention: Retention,
    pub job_status: Arc<JobStatus>,
    /// Where there may be others.
    pub node: Option<Arc<Follower>>,
    pub claims: Claims,
    clock: Clock,
}

impl House {
    /// Opens the database and fills memory from it.
    pub async fn open(
        config: &Config,
        place: &Place,
        clock: Clock,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let contents = place.look().await?;
        let policy = policy(config);
        let mut open = sessiond_store::open(place.url()).await.context("cannot open the database")?;
        let key = place::key(place, &contents, &mut open).await?;
        let Open { writer, store, nodes } = open;
        let lines = open_lines(place, clock.clone()).await?;
        // Where there are other nodes nobody is let in before they know of this one.
        let lease = if nodes.is_some() { Lease::none() } else { Lease::default() };
        let gate = Arc::new(Gate::with_lease(lease));
        let loaded = fill(&gate, &store, clock.now(), progress).await.context("cannot load the database")?;
        let applied = Arc::new(Applied::new(gate.clone(), &loaded));
        let node = match nodes {
            Some(nodes) => Some(Arc::new(join(nodes, &applied, &clock).await?)),
            None => None,
        };
        let barrier = node.as_ref().map(|node| Arc::new(Barrier::new(node.nodes(), node.own())));
        let claims =
            node.as_ref().map_or_else(Claims::default, |node| Claims::among(node.nodes(), node.own()));
        let rules = (policy, maxima(config));
        let committer = Committer::start(writer, applied, barrier, clock.clone(), rules);
        let telling = Telling::new(store.clone(), gate.clone());
        let live = Arc::new(Live::new(store.clone(), telling.clone(), committer.tip()));
        let context = AppContext {
            committer,
            gate: gate.clone(),
            store: store.clone(),
            clock: clock.clone(),
            telling,
            key,
            policy,
            claims: claims.clone(),
            retention: retention(config),
        };
        let context = Arc::new(context);
        let retention = Retention::new(context.clone(), lines.clone());
        let (sessions, directory) = (Arc::new(Sessions::new(&context)), Arc::new(Directory::new(&context)));
        let issuers = Issuers::new(config, clock.clone()).context("cannot set up external issuers")?;
        let issuers = Arc::new(issuers);
        let upstreams = Arc::new(Upstreams::new(config, directory.upstream_settings.clone(), clock.clone())?);
        let auth = Arc::new(Auth::new(
            gate.clone(),
            store,
            clock.clone(),
            issuers.clone(),
            directory.principals.clone(),
        ));
        let job_status = Arc::default();
        Ok(Self {
            gate,
            sessions,
            directory,
            auth,
            issuers,
            upstreams,
            live,
            lines,
            retention,
            job_status,
            node,
            claims,
            clock,
        })
    }

    /// Writes what still waits, and closes journals and database.
    pub async fn close(&self) {
        self.lines.stop().await;
        self.sessions.maintenance.stop().await;
    }

    /// Makes what handlers work with.
    pub(super) fn app(
        &self,
        config: &Arc<Config>,
        limits: &Arc<Limits>,
        names: Arc<Names>,
        outbox: &Arc<Outbox>,
        terminals: &Arc<Terminals>,
        stopping: &CancellationToken,
    ) -> App {
        let gateway = Gateway::new(
            self.sessions.clone(),
            self.directory.clone(),
            self.auth.clone(),
            self.clock.clone(),
            config.clone(),
            names.clone(),
            stopping.clone(),
            self.upstreams.clone(),
            limits.bodies.clone(),
        );
        App::from(Shared {
            sessions: self.sessions.clone(),
            directory: self.directory.clone(),
            issuers: self.issuers.clone(),
            auth: self.auth.clone(),
            live: self.live.clone(),
            gateway: Arc::new(gateway),
            outbox: outbox.clone(),
            lines: self.lines.clone(),
            terminals: terminals.clone(),
            job_status: self.job_status.clone(),
            limits: limits.clone(),
            health: http::health::Cache::default(),
            clock: self.clock.clone(),
            config: config.clone(),
            public_url: outbox.public_url.clone(),
            names,
            stopping: stopping.clone(),
        })
    }

    /// Starts the tasks in the background, which run until they are told to stop.
    pub(super) fn background_tasks(
        &self,
        outbox: Arc<Outbox>,
        gateway: Arc<Gateway>,
        closed: &CancellationToken,
    ) -> Vec<JoinHandle<()>> {
        let (revocations, live) = (self.sessions.revocations.clone(), self.live.clone());
        let revocations = move |stopping| {
            let revocations = revocations.clone();
            async move { revocations.run(stopping).await }
        };
        let follow = move |stopping| {
            let live = live.clone();
            async move { live.run(stopping).await }
        };
        let mut tasks = vec![
            supervise("revocation worker", closed.clone(), revocations),
            supervise("live feed", closed.clone(), follow),
            supervise("webhooks", closed.clone(), move |stopping| outbox.clone().run(stopping)),
            supervise("goodbyes to upstreams", closed.clone(), move |stopping| {
                gateway.clone().say_goodbyes(stopping)
            }),
        ];
        if let Some(node) = self.node.clone() {
            let closed = closed.clone();
            tasks.push(vital("node", async move { node.run(closed).await }));
        }
        tasks
    }
}

/// Makes this process a node.
async fn join(nodes: Arc<dyn Nodes>, applied: &Arc<Applied>, clock: &Clock) -> anyhow::Result<Follower> {
    let joined = Follower::join(nodes, None, (applied.clone(), clock.clone())).await;
    joined.context("cannot put this process on record beside the others")
}

/// Opens the journals. Damaged ones are no reason not to serve, because they hold nothing that decides anything.
async fn open_lines(place: &Place, clock: Clock) -> anyhow::Result<Journals> {
    match Journals::open(&place.journals_url(), clock).await {
        Err(StoreError::Corrupt(what)) => Ok(Journals::closed(place.journals_damaged(&what))),
        outcome => outcome.context("cannot open log lines and recordings"),
    }
}

fn maxima(config: &Config) -> Maxima {
    Maxima {
        applications: config.max_made_applications,
        streams: config.max_made_streams,
        principals: config.max_principals,
    }
}

fn retention(config: &Config) -> Figures {
    Figures {
        activity_after: Some(seconds(config.keep_activity)),
        ended_after: config.keep_ended.map(seconds),
        journals_after: Some(seconds(config.keep_lines)),
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn policy(config: &Config) -> Policy {
    Policy {
        idle_after: seconds(config.idle_after),
        stale_after: seconds(config.stale_after),
        mcp_stale_after: seconds(config.mcp_stale_after),
        mcp_unused_after: seconds(config.mcp_unused_after.min(config.mcp_stale_after)),
        token_lifetime: seconds(config.token_lifetime),
        absolute_lifetime: seconds(config.absolute_lifetime),
    }
}
