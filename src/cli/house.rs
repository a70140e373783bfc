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
use crate::nodes::{Applied, Barrier, CatchUp, Claimed, Claims, Follower, Peers};
use crate::retention::Retention;
use crate::sessions::{JobStatus, Sessions};
use crate::statistics::Statistics;
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
    pub statistics: Arc<Statistics>,
    pub job_status: Arc<JobStatus>,
    /// Where there may be others.
    pub node: Option<Arc<Follower>>,
    pub peers: Arc<Peers>,
    pub catch_up: Arc<CatchUp>,
    pub claims: Claims,
    clock: Clock,
}

/// What the house is opened for.
pub enum Purpose {
    /// To serve, beside other nodes where the database takes several.
    Serve {
        /// Where the others reach this one, if that is known.
        node_url: Option<String>,
    },
    /// For a command, which has the database for itself.
    Command,
}

impl Purpose {
    fn node_url(&self) -> Option<&str> {
        match self {
            Self::Serve { node_url } => node_url.as_deref(),
            Self::Command => None,
        }
    }
}

impl House {
    /// Opens the database and fills memory from it.
    pub async fn open(
        config: &Config,
        place: &Place,
        clock: Clock,
        purpose: Purpose,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let contents = place.look().await?;
        let policy = policy(config);
        let open = match &purpose {
            Purpose::Serve { .. } => sessiond_store::open_to_serve(place.url()).await,
            Purpose::Command => sessiond_store::open(place.url()).await,
        };
        let mut open = open.context("cannot open the database")?;
        let key = place::key(place, &contents, &mut open).await?;
        let Open { writer, store, nodes } = open;
        let lines = open_lines(place, clock.clone()).await?;
        // Where there are other nodes nobody is let in before they know of this one.
        let lease = if nodes.is_some() { Lease::none() } else { Lease::default() };
        let gate = Arc::new(Gate::with_lease(lease));
        let loaded = fill(&gate, &store, clock.now(), progress).await.context("cannot load the database")?;
        let applied = Arc::new(Applied::new(gate.clone(), &loaded));
        let node = match nodes {
            Some(nodes) => Some(Arc::new(join(nodes, purpose.node_url(), &applied, &clock).await?)),
            None => None,
        };
        let peers = Arc::new(match &node {
            Some(node) => {
                let authorities = config.node_ca.as_deref();
                Peers::of(node.nodes(), node.own(), key.clone(), clock.clone(), authorities)?
            }
            None => Peers::none(clock.clone()),
        });
        let catch_up = Arc::new(CatchUp::new(node.clone(), &applied));
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
        let statistics = Arc::new(Statistics::new(context.clone()));
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
            statistics,
            job_status,
            node,
            peers,
            catch_up,
            claims,
            clock,
        })
    }

    /// Waits until no other node is at its own first start, and knows what that has made. The others wait until what this
    /// returns is dropped.
    pub async fn first(&self) -> anyhow::Result<Claimed> {
        let hold = self.claims.claimed("first start".to_owned()).await;
        if let Some(node) = &self.node {
            node.catch_up().await?;
        }
        Ok(hold)
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
            (self.peers.clone(), self.claims.clone()),
        );
        App::from(Shared {
            gate: self.gate.clone(),
            sessions: self.sessions.clone(),
            directory: self.directory.clone(),
            issuers: self.issuers.clone(),
            auth: self.auth.clone(),
            live: self.live.clone(),
            gateway: Arc::new(gateway),
            outbox: outbox.clone(),
            lines: self.lines.clone(),
            statistics: self.statistics.clone(),
            terminals: terminals.clone(),
            peers: self.peers.clone(),
            catch_up: self.catch_up.clone(),
            exports: http::export::Exports::at_most(config.max_exports as usize),
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
        terminals: &Arc<Terminals>,
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
        let statistics = self.statistics.clone();
        let mut tasks = vec![
            supervise("statistics", closed.clone(), move |stopping| statistics.clone().run(stopping)),
            supervise("revocation worker", closed.clone(), revocations),
            supervise("live feed", closed.clone(), follow),
            supervise("webhooks", closed.clone(), move |stopping| outbox.clone().run(stopping)),
            supervise("goodbyes to upstreams", closed.clone(), move |stopping| {
                gateway.clone().say_goodbyes(stopping)
            }),
        ];
        if let Some(node) = self.node.clone() {
            let closed = closed.clone();
            let (terminals, claims) = (terminals.clone(), self.claims.clone());
            let orphans = move |stopping| {
                let (terminals, claims) = (terminals.clone(), claims.clone());
                async move { terminals.end_those_of_gone_nodes(claims, stopping).await }
            };
            tasks.push(supervise("orphaned terminals", closed.clone(), orphans));
            tasks.push(vital("node", async move { node.run(closed).await }));
        }
        tasks
    }
}

/// Makes this process a node.
async fn join(
    nodes: Arc<dyn Nodes>,
    url: Option<&str>,
    applied: &Arc<Applied>,
    clock: &Clock,
) -> anyhow::Result<Follower> {
    let joined = Follower::join(nodes, url, (applied.clone(), clock.clone())).await;
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
