//! `sessiond serve`: puts the house together, listens, and stops in order.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::credentials;
use super::descriptors;
use super::house::{House, Purpose};
use super::listener::{Behind, Listener};
use super::place::{Lock, Place};
use super::tls::Tls;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::names::Names;
use crate::config::{Config, doubts};
use crate::directory::{Chosen, CreatedOrganization, Organizations, Plan};
use crate::http::connection::Listening;
use crate::http::health::Progress;
use crate::http::{self, App};
use crate::limits::Limits;
use crate::tasks::vital;
use crate::terminal::Terminals;
use crate::webhooks::{Outbox, Sender};
use crate::{logs, meter, scheduler};

/// How many connections may ask for /metrics at the same time.
const METRICS_READERS: usize = 64;

/// A running service.
pub struct Running {
    pub address: SocketAddr,
    /// The address at which Prometheus may ask for metrics, if there is one.
    pub metrics_address: Option<SocketAddr>,
    pub public_url: Arc<str>,
    pub house: House,
    /// What handlers work with.
    pub app: App,
    tls: Option<Arc<Tls>>,
    limits: Arc<Limits>,
    stopping: CancellationToken,
    /// Cancelled when all listeners have closed. Until then requests may still wait for the background tasks.
    closed: CancellationToken,
    listeners: Vec<JoinHandle<()>>,
    background_tasks: Vec<JoinHandle<()>>,
    terminals: Arc<Terminals>,
    scheduler: scheduler::Jobs,
    _lock: Lock,
}

/// Starts the service. At a first start nobody is shown the credentials.
pub async fn start(config: Config, clock: Clock) -> anyhow::Result<(Running, Option<CreatedOrganization>)> {
    start_with(config, clock, async |organizations, plan| Ok(organizations.create_planned(plan).await?)).await
}

/// Starts the service. At a first start `create` shows the credentials of the planned organization, and creates it.
pub async fn start_with(
    mut config: Config,
    clock: Clock,
    create: impl AsyncFnOnce(&Organizations, Plan) -> anyhow::Result<CreatedOrganization>,
) -> anyhow::Result<(Running, Option<CreatedOrganization>)> {
    check(&config)?;
    let tls = Tls::new(&config, clock.wall())?.map(Arc::new);
    let place = Place::of(&config)?;
    config.database = place.url().to_owned();
    if config.require_synchronous {
        place.must_have_standby().await?;
    }
    let lock = place.lock()?;
    let socket = listen(config.listen).await?;
    let address = socket.local_addr()?;
    let (stopping, closed) = (CancellationToken::new(), CancellationToken::new());
    // Whatever fails from here on closes the listeners, also where the caller stops waiting for the start.
    let starting = stopping.clone().drop_guard();
    // The metrics are there before the first listener, which counts its connections.
    let metrics = match config.metrics_listen {
        Some(address) => Some((listen(address).await?, meter::install()?)),
        None => None,
    };
    tls.iter().for_each(|tls| tls.measure());
    tracing::info!(%address, "starting: /livez and /readyz answer");
    let (head, idle) = (config.head_timeout, config.idle_timeout);
    let listener = |name, socket, behind, tls, limit| {
        let shared = Arc::new(Listening::new(name, head, idle));
        let listener = Listener { socket, behind, tls, limit, shared, stopping: stopping.clone() };
        vital("door", listener.run())
    };
    // The listeners open now: loading a million sessions takes seconds, and whoever watches over the service is to see
    // meanwhile that it lives.
    let progress = Arc::new(Progress::default());
    let behind = Behind::new(http::health::starting(progress.clone()));
    let places = descriptors::connections(config.max_connections);
    let mut listeners = vec![listener("main", socket, behind.clone(), tls.clone(), places)];
    let node_url = config.node_url(address);
    let house = House::open(&config, &place, clock.clone(), Purpose::Serve { node_url }, &progress).await?;
    let sender = Sender::new(&config).context("cannot set up webhooks")?;
    // This is the last step that can fail, because credentials are shown only once, and a start that fails must show none.
    let first = match house.directory.organizations.is_empty() {
        true => Some(house.first().await?),
        false => None,
    };
    let created = match plan(&config, &house.directory.organizations)? {
        Some(plan) => Some(create(&house.directory.organizations, plan).await?),
        None => {
            unused_bootstrap(&config, &house.auth).await;
            None
        }
    };
    drop(first);
    let public_url: Arc<str> = config.public_url(address).into();
    let names = Arc::new(Names::new(&config, address));
    let limits = Arc::new(Limits::new(config.rate_limit, usize::from(config.body_memory_mib) << 20));
    let config = Arc::new(config);
    let (webhooks, public_ids) = (house.directory.webhooks.clone(), house.directory.public_ids.clone());
    let outbox = Outbox::new(
        webhooks,
        public_ids,
        house.live.clone(),
        house.claims.clone(),
        clock.clone(),
        sender,
        public_url.clone(),
    );
    let outbox = Arc::new(outbox);
    // The shells of these sessions died with the former process; those of other nodes are theirs.
    house.sessions.terminals.end_orphans(None).await?;
    let terminals = Arc::new(Terminals::new(
        house.sessions.clone(),
        house.directory.clone(),
        house.lines.clone(),
        clock.clone(),
        config.clone(),
        house.peers.clone(),
    ));
    let app = house.app(&config, &limits, names, &outbox, &terminals, &stopping);
    let background_tasks = house.background_tasks(outbox, app.gateway.clone(), &terminals, &closed);
    let (sessions, directory) = (house.sessions.clone(), house.directory.clone());
    let (retention, status) = (house.retention.clone(), house.job_status.clone());
    let clock = (clock, house.claims.clone());
    let scheduler = scheduler::start(sessions, directory, limits.clone(), retention, clock, status, &config);
    let scheduler = scheduler.await?;
    let metrics_address = metrics.as_ref().map(|(socket, _)| socket.local_addr()).transpose()?;
    behind.set_service(http::router(app.clone(), http::column()));
    if let Some((socket, handle)) = metrics {
        let behind = Behind::new(http::metrics::router(app.clone(), handle));
        listeners.push(listener("metrics", socket, behind, None, METRICS_READERS));
    }
    starting.disarm();
    let running = Running {
        address,
        metrics_address,
        public_url,
        house,
        app,
        tls,
        limits,
        stopping,
        closed,
        listeners,
        background_tasks,
        terminals,
        scheduler,
        _lock: lock,
    };
    Ok((running, created))
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; is another service there?"))
}

impl Running {
    /// Reads the certificate again, and puts the limits of the configuration that was read again in force. What is wrong is
    /// logged, and stays as it was.
    pub fn reload(&self, config: anyhow::Result<Config>) {
        match self.tls.as_ref().map(|tls| tls.reload(self.app.clock.wall())) {
            Some(Ok(())) => tracing::info!("the certificate was read again"),
            Some(Err(error)) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the new certificate is no good; the old one stays in force");
            }
            None => {}
        }
        match config {
            Ok(config) => {
                self.limits.set_rate(config.rate_limit);
                tracing::info!(
                    rate_limit = config.rate_limit,
                    "the configuration was read again: the rate limit is in force, other options at the next start"
                );
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the new configuration is no good; the old one stays in force");
            }
        }
    }

    /// Stops listening, lets requests finish, and writes everything that still waits.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.terminals.stop().await;
        for listener in self.listeners {
            listener.await.ok();
        }
        self.closed.cancel();
        self.scheduler.stop().await;
        for task in self.background_tasks {
            task.await.ok();
        }
        if let Err(error) = self.house.directory.api_keys.write_uses().await {
            tracing::warn!(%error, "when API keys were last used could not be written");
        }
        self.house.close().await;
    }
}

fn check(config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.listen.ip().is_loopback() || config.insecure_http || config.tls_certificate.is_some(),
        "{} can be reached from other machines, and connections here are not encrypted. Name a certificate with \
         --tls-certificate and --tls-key, listen on 127.0.0.1 behind a TLS proxy, or say --insecure-http if the network \
         is yours alone",
        config.listen
    );
    if let Some(address) = config.metrics_listen {
        anyhow::ensure!(
            address.ip().is_loopback() || config.insecure_http,
            "{address} can be reached from other machines, and /metrics is neither encrypted nor asks for credentials. \
             Listen on 127.0.0.1, or say --insecure-http if the network is yours alone"
        );
    }
    anyhow::ensure!(
        config.bootstrap_client_id.is_some() == config.bootstrap_client_secret.is_some(),
        "--bootstrap-client-id and --bootstrap-client-secret go together: set both, or neither"
    );
    Ok(())
}

/// What is to be created at a first start; none at a later one.
fn plan(config: &Config, organizations: &Organizations) -> anyhow::Result<Option<Plan>> {
    if !organizations.is_empty() {
        return Ok(None);
    }
    let chosen = match (&config.bootstrap_client_id, &config.bootstrap_client_secret) {
        (Some(client_id), Some(client_secret)) => {
            Some(Chosen { client_id: client_id.clone(), client_secret: client_secret.clone() })
        }
        _ => None,
    };
    Ok(Some(organizations.plan("default", chosen, true)?))
}

/// Warns of configured credentials for a first start that belong to nobody, because the first start was long ago.
async fn unused_bootstrap(config: &Config, auth: &Auth) {
    let (Some(id), Some(secret)) = (&config.bootstrap_client_id, &config.bootstrap_client_secret) else {
        return;
    };
    if auth.client(id, secret).await.is_err() {
        tracing::warn!(
            client_id = id,
            "--bootstrap-client-id and its secret are not used and open nothing: the database has organizations already"
        );
    }
}

/// Runs the command: serves until SIGTERM or SIGINT. On SIGHUP it reads again what can change meanwhile.
pub async fn run(config: Config, again: impl Fn() -> anyhow::Result<Config>) -> anyhow::Result<()> {
    logs::start(config.log_format)?;
    for doubt in doubts(&config) {
        tracing::warn!("{doubt}");
    }
    let automated = config.bootstrap_client_id.is_some();
    let file = config.credentials_file.clone();
    // The handler is installed first, because this signal ends a process that has none.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let create = async |organizations: &Organizations, plan: Plan| match automated {
        // Credentials that were configured are not shown, because whoever configured them knows them.
        true => Ok(organizations.create_planned(plan).await?),
        false => credentials::show_and_create(organizations, plan, file.as_deref()).await,
    };
    let (running, _) = tokio::select! {
        started = start_with(config, Clock::system(), create) => started?,
        _ = terminate.recv() => {
            tracing::info!("told to stop while starting: stopped");
            return Ok(());
        }
        outcome = tokio::signal::ctrl_c() => return Ok(outcome?),
    };
    if let Some(address) = running.metrics_address {
        tracing::info!(metrics = %address, "/metrics is here");
    }
    tracing::info!(address = %running.address, url = %running.public_url, "sessiond is listening");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            outcome = tokio::signal::ctrl_c() => break outcome?,
            _ = hangup.recv() => running.reload(again()),
        }
    }
    tracing::info!("stopping");
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}
