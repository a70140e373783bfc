//! `sessiond serve`: puts the house together, opens the door, and closes it in order.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_cron_scheduler::JobScheduler;
use tokio_util::sync::CancellationToken;

use super::door::Door;
use super::tls::Tls;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::committer::Committer;
use crate::config::{Config, database_file};
use crate::core::maxima::Maxima;
use crate::core::policy::Policy;
use crate::directory::{Chosen, Directory};
use crate::gate::{Change, Fresh, Gate, Past, Terms, key_digest, shown_name};
use crate::http::{self, App, Shared};
use crate::issuers::Issuers;
use crate::limits::Limits;
use crate::lines::Lines;
use crate::live::Live;
use crate::mcp::{Gateway, Upstreams};
use crate::meter;
use crate::scheduler;
use crate::secret::SecretKey;
use crate::sessions::{Board, Sessions};
use crate::store::{Loaded, Reader, StoreError, Writer};
use crate::terminal::Terminals;
use crate::webhooks::{Outbox, Sender};

/// Connections that may ask for /metrics at the same time.
const METRICS_READERS: usize = 64;

/// Everything behind the door.
pub struct House {
    pub gate: Arc<Gate>,
    pub sessions: Arc<Sessions>,
    pub directory: Arc<Directory>,
    pub auth: Arc<Auth>,
    pub issuers: Arc<Issuers>,
    upstreams: Arc<Upstreams>,
    pub live: Arc<Live>,
    pub lines: Lines,
    pub board: Arc<Board>,
    clock: Clock,
}

impl House {
    /// Opens the database and fills memory from it.
    pub async fn open(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let key = SecretKey::load_or_make(&config.secret_key_file())?;
        let policy = policy(config);
        let writer = Writer::open(&config.database).await.context("cannot open the database")?;
        let reader = Reader::open(&config.database).await.context("cannot open the database")?;
        let mut loaded = reader.load().await.context("cannot load the database")?;
        let lines = open_lines(&config.lines_database(), clock.clone()).await?;
        let gate = Arc::new(Gate::default());
        fill(&gate, &mut loaded);
        let committer =
            Committer::start(writer, &loaded, gate.clone(), clock.clone(), (policy, maxima(config)));
        let live = Arc::new(Live::new(reader.clone(), committer.tip()));
        let directory = Arc::new(Directory::new(
            committer.clone(),
            gate.clone(),
            reader.clone(),
            clock.clone(),
            key.clone(),
            policy,
        ));
        let issuers = Issuers::new(config, clock.clone()).context("cannot set up external issuers")?;
        let issuers = Arc::new(issuers);
        let upstreams = Arc::new(Upstreams::new(config, directory.clone(), clock.clone())?);
        let auth = Arc::new(Auth::new(
            gate.clone(),
            reader.clone(),
            clock.clone(),
            issuers.clone(),
            directory.clone(),
        ));
        let sessions = Arc::new(Sessions::new(committer, gate.clone(), reader, clock.clone(), key, policy));
        let board = Arc::default();
        Ok(Self { gate, sessions, directory, auth, issuers, upstreams, live, lines, board, clock })
    }

    /// Writes down what waits, and closes both files.
    pub async fn close(&self) {
        self.lines.stop().await;
        self.sessions.stop().await;
    }

    /// What handlers work with.
    fn app(
        &self,
        config: &Arc<Config>,
        limits: &Arc<Limits>,
        public_url: &Arc<str>,
        outbox: &Arc<Outbox>,
        terminals: &Arc<Terminals>,
        stopping: &CancellationToken,
    ) -> App {
        let gateway = Gateway::new(
            self.sessions.clone(),
            self.directory.clone(),
            self.auth.clone(),
            config.clone(),
            public_url.clone(),
            stopping.clone(),
            self.upstreams.clone(),
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
            board: self.board.clone(),
            limits: limits.clone(),
            health: http::health::Cache::default(),
            clock: self.clock.clone(),
            config: config.clone(),
            public_url: public_url.clone(),
            stopping: stopping.clone(),
        })
    }

    /// The tasks in the background, until they are told to stop.
    fn errands(&self, outbox: Arc<Outbox>, closed: &CancellationToken) -> Vec<JoinHandle<()>> {
        let (sessions, live) = (self.sessions.clone(), self.live.clone());
        let revocations = move |stopping| {
            let sessions = sessions.clone();
            async move { sessions.run_revocations(stopping).await }
        };
        let follow = move |stopping| {
            let live = live.clone();
            async move { live.run(stopping).await }
        };
        vec![
            supervise("revocation worker", closed.clone(), revocations),
            supervise("live feed", closed.clone(), follow),
            supervise("webhooks", closed.clone(), move |stopping| outbox.clone().run(stopping)),
        ]
    }
}

/// Opens the second file. That it is damaged is no reason not to serve: it holds nothing that decides anything.
async fn open_lines(url: &str, clock: Clock) -> anyhow::Result<Lines> {
    match Lines::open(url, clock).await {
        Err(StoreError::Corrupt(what)) => Ok(Lines::closed(format!(
            "{} cannot be read: {what}. Move it away and start again, and a new one is made",
            database_file(url).display()
        ))),
        outcome => outcome.context("cannot open the file of log lines and recordings"),
    }
}

/// Makes the Gate know what was loaded.
pub fn fill(gate: &Gate, loaded: &mut Loaded) {
    let mut changes: Vec<Change> = Vec::new();
    changes.extend(loaded.organizations.drain(..).map(Change::Organization));
    changes.extend(loaded.applications.drain(..).map(Change::Application));
    changes.extend(loaded.service_accounts.drain(..).map(Change::ServiceAccount));
    changes.extend(loaded.revocations.drain(..).map(Change::Revocation));
    changes.extend(loaded.items.drain(..).map(Change::Item));
    changes.extend(loaded.bars.drain(..).map(|(position, at)| Change::Bar(position, at)));
    changes.extend(loaded.principals.iter().cloned().map(Change::Principal));
    changes.extend(loaded.sessions.iter().map(|row| {
        let (detail, application) = (&row.detail, row.session.application);
        let key = crate::core::command::natural_key(
            row.session.principal,
            detail.anchor.as_deref(),
            row.session.resource.as_deref(),
            detail.client_session_id.as_deref(),
            detail.token_identifier.as_deref(),
        );
        let fresh = Fresh {
            key: key.map(|key| key_digest(application, key)),
            terms: Terms {
                hostname: detail.hostname.as_deref().map(Into::into),
                client: detail.client.as_deref().map(Into::into),
                name: shown_name(row.session.kind, detail.client_session_id.as_deref()),
            },
        };
        Change::Session(row.session.clone(), Some(fresh))
    }));
    changes
        .extend(loaded.session_tokens.drain(..).map(|(number, token)| Change::SessionToken(number, token)));
    changes.extend(loaded.mcp_hashes.drain(..).map(|(number, hash)| Change::McpSession(number, hash)));
    changes.extend(loaded.access_tokens.drain(..).map(Change::AccessToken));
    let secrets = loaded.key_secrets.drain(..);
    changes.extend(secrets.map(|secret| Change::ApiKeySecret(secret.id, secret.hash, secret.used_at)));
    gate.apply(changes);
    gate.set_totals(loaded.session_totals.drain(..));
    gate.set_past(loaded.past.drain(..).map(|past| {
        let totals = Past { sessions: past.sessions, bytes_out: past.bytes_out };
        (past.application, past.resource, totals)
    }));
}

fn maxima(config: &Config) -> Maxima {
    Maxima {
        applications: config.max_made_applications,
        streams: config.max_made_streams,
        principals: config.max_principals,
    }
}

fn policy(config: &Config) -> Policy {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    Policy {
        idle_after: seconds(config.idle_after),
        stale_after: seconds(config.stale_after),
        mcp_stale_after: seconds(config.mcp_stale_after),
        mcp_unused_after: seconds(config.mcp_unused_after.min(config.mcp_stale_after)),
        token_lifetime: seconds(config.token_lifetime),
        absolute_lifetime: seconds(config.absolute_lifetime),
    }
}

/// A running service.
pub struct Running {
    pub address: SocketAddr,
    /// Where Prometheus may ask, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    pub public_url: Arc<str>,
    pub house: House,
    tls: Option<Arc<Tls>>,
    limits: Arc<Limits>,
    stopping: CancellationToken,
    /// Cancelled when the door is closed: until then, whoever is inside may wait for the background tasks.
    closed: CancellationToken,
    doors: Vec<JoinHandle<()>>,
    errands: Vec<JoinHandle<()>>,
    terminals: Arc<Terminals>,
    scheduler: JobScheduler,
    _lock: File,
}

/// Starts the service; `founded` is told the credentials of a first start.
pub async fn start(
    config: Config,
    clock: Clock,
) -> anyhow::Result<(Running, Option<crate::directory::Founded>)> {
    check(&config)?;
    let tls = Tls::new(&config)?.map(Arc::new);
    let lock = lock(&config.database)?;
    let house = House::open(&config, clock.clone()).await?;
    let listener = listen(config.listen).await?;
    let metrics = match config.metrics_listen {
        Some(address) => Some((listen(address).await?, meter::install()?)),
        None => None,
    };
    let sender = Sender::new(&config).context("cannot set up webhooks")?;
    // Last of what can fail: credentials are shown once, and a start that fails shows none.
    let founded = bootstrap(&config, &house.directory).await?;
    let address = listener.local_addr()?;
    let public_url: Arc<str> = config.public_url(address).into();
    let limits = Arc::new(Limits::new(config.rate_limit));
    let config = Arc::new(config);
    let (stopping, closed) = (CancellationToken::new(), CancellationToken::new());
    let (directory, live) = (house.directory.clone(), house.live.clone());
    let outbox = Arc::new(Outbox::new(directory, live, clock.clone(), sender, public_url.clone()));
    // Their shells died with the process before.
    house.sessions.end_orphans().await?;
    let terminals = Arc::new(Terminals::new(
        house.sessions.clone(),
        house.directory.clone(),
        house.lines.clone(),
        clock.clone(),
        config.clone(),
    ));
    let app = house.app(&config, &limits, &public_url, &outbox, &terminals, &stopping);
    let errands = house.errands(outbox, &closed);
    let (sessions, directory) = (house.sessions.clone(), house.directory.clone());
    let (lines, board) = (house.lines.clone(), house.board.clone());
    let scheduler = scheduler::start(sessions, directory, limits.clone(), lines, board, &config).await?;
    let door = |listener, router, tls, limit| {
        let (head, stopping) = (config.head_timeout, stopping.clone());
        tokio::spawn(Door { listener, router, tls, limit, head, stopping }.open())
    };
    let metrics_address = metrics.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?;
    let mut doors = vec![door(listener, http::router(app.clone()), tls.clone(), config.max_connections)];
    if let Some((listener, handle)) = metrics {
        doors.push(door(listener, http::metrics::router(app, handle), None, METRICS_READERS));
    }
    let running = Running {
        address,
        metrics_address,
        public_url,
        house,
        tls,
        limits,
        stopping,
        closed,
        doors,
        errands,
        terminals,
        scheduler,
        _lock: lock,
    };
    Ok((running, founded))
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; is another service there?"))
}

impl Running {
    /// Reads the certificate again and puts the limits of a configuration that was read again in force. What is wrong is
    /// logged, and stays as it was.
    pub fn reload(&self, config: anyhow::Result<Config>) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
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

    /// Closes the door, lets what is inside finish, writes everything down.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        self.terminals.stop().await;
        for door in self.doors {
            door.await.ok();
        }
        self.closed.cancel();
        self.scheduler.shutdown().await.ok();
        for errand in self.errands {
            errand.await.ok();
        }
        if let Err(error) = self.house.directory.write_key_uses().await {
            tracing::warn!(%error, "when API keys were last used could not be written");
        }
        self.house.close().await;
    }
}

/// Runs a background task, and again if it panics: nothing here may stop without being told to.
fn supervise<Task, Run>(name: &'static str, stopping: CancellationToken, task: Run) -> JoinHandle<()>
where
    Task: Future<Output = ()> + Send + 'static,
    Run: Fn(CancellationToken) -> Task + Send + 'static,
{
    tokio::spawn(async move {
        while !stopping.is_cancelled() {
            if let Err(error) = tokio::spawn(task(stopping.clone())).await {
                tracing::error!(%error, task = name, "a background task broke; starting it again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
}

fn check(config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.database.starts_with("sqlite:"),
        "--database must be a sqlite: URL, such as sqlite:sessiond.db"
    );
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

/// One writer per database, whoever starts it.
pub fn lock(database: &str) -> anyhow::Result<File> {
    let file = database_file(database);
    let in_memory =
        file.as_os_str().is_empty() || file.as_os_str() == ":memory:" || database.contains("mode=memory");
    anyhow::ensure!(
        !in_memory,
        "{database} would keep sessions in memory only, and sessiond promises that they are on disk: name a file, such as \
         sqlite:sessiond.db"
    );
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory {
        let there = directory.display();
        anyhow::ensure!(
            directory.is_dir(),
            "there is no directory {there} to keep the database in; make it first"
        );
    }
    let mut path = file.into_os_string();
    path.push(".lock");
    let path = PathBuf::from(path);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.try_lock().map_err(|_| {
        anyhow::anyhow!(
            "another sessiond works on {} (it holds {}); stop it first",
            database_file(database).display(),
            path.display()
        )
    })?;
    Ok(file)
}

async fn bootstrap(
    config: &Config,
    directory: &Directory,
) -> anyhow::Result<Option<crate::directory::Founded>> {
    if !directory.is_empty() {
        return Ok(None);
    }
    let chosen = match (&config.bootstrap_client_id, &config.bootstrap_client_secret) {
        (Some(client_id), Some(client_secret)) => {
            Some(Chosen { client_id: client_id.clone(), client_secret: client_secret.clone() })
        }
        _ => None,
    };
    Ok(Some(directory.found_platform("default", chosen).await?))
}

/// The command: serves until SIGTERM or SIGINT. SIGHUP reads again what can change meanwhile.
pub async fn run(config: Config, again: impl Fn() -> anyhow::Result<Config>) -> anyhow::Result<()> {
    log();
    let automated = config.bootstrap_client_id.is_some();
    // From the first moment on: unheard, this signal ends the process.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (running, founded) = start(config, Clock::system()).await?;
    if let Some(founded) = founded
        && !automated
    {
        super::print_credentials(&founded);
    }
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

/// Logs to standard error: for people on a terminal, JSON lines otherwise. `RUST_LOG` says how much.
fn log() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,tokio_cron_scheduler=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
