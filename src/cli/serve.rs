//! `sessiond serve`: puts the house together, opens the door, and closes it in order.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_cron_scheduler::JobScheduler;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::clock::Clock;
use crate::committer::Committer;
use crate::config::{Config, database_file};
use crate::core::policy::Policy;
use crate::directory::{Chosen, Directory};
use crate::gate::{Change, Fresh, Gate, Terms, key_digest};
use crate::http::{self, App, Shared};
use crate::live::Live;
use crate::mcp::Gateway;
use crate::scheduler;
use crate::secret::SecretKey;
use crate::sessions::{Board, Sessions};
use crate::store::{Loaded, Reader, Writer};

/// After being told to stop, connections have this long to finish.
const DRAIN: Duration = Duration::from_secs(8);
/// A client has this long to send a request's head.
const HEAD: Duration = Duration::from_secs(10);

/// A connection whose other end takes nothing of what waits for it is given up after this long.
const TAKES_NOTHING: Duration = Duration::from_secs(30);

/// Everything behind the door.
pub struct House {
    pub gate: Arc<Gate>,
    pub sessions: Arc<Sessions>,
    pub directory: Arc<Directory>,
    pub auth: Arc<Auth>,
    pub live: Arc<Live>,
    pub board: Arc<Board>,
}

impl House {
    /// Opens the database and fills memory from it.
    pub async fn open(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let key = SecretKey::load_or_make(&config.secret_key_file())?;
        let policy = policy(config);
        let writer = Writer::open(&config.database).await.context("cannot open the database")?;
        let reader = Reader::open(&config.database).await.context("cannot open the database")?;
        let mut loaded = reader.load().await.context("cannot load the database")?;
        let gate = Arc::new(Gate::default());
        fill(&gate, &mut loaded);
        let committer = Committer::start(writer, &loaded, gate.clone(), clock.clone(), policy);
        let live = Arc::new(Live::new(reader.clone(), committer.tip()));
        let auth = Arc::new(Auth::new(gate.clone(), reader.clone(), clock.clone()));
        let directory = Arc::new(Directory::new(committer.clone(), gate.clone(), clock.clone(), policy));
        let sessions = Arc::new(Sessions::new(committer, gate.clone(), reader, clock, key, policy));
        Ok(Self { gate, sessions, directory, auth, live, board: Arc::default() })
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
    changes.extend(loaded.principals.iter().cloned().map(Change::Principal));
    changes.extend(loaded.sessions.iter().map(|row| {
        let (detail, application) = (&row.detail, row.session.application);
        let key = crate::core::command::natural_key(
            detail.client_session_id.as_deref(),
            detail.token_identifier.as_deref(),
        );
        let fresh = Fresh {
            key: key.map(|key| key_digest(application, key)),
            terms: Terms {
                hostname: detail.hostname.as_deref().map(Into::into),
                client: detail.client.as_deref().map(Into::into),
            },
        };
        Change::Session(row.session.clone(), Some(fresh))
    }));
    changes
        .extend(loaded.session_tokens.drain(..).map(|(number, token)| Change::SessionToken(number, token)));
    changes.extend(loaded.mcp_hashes.drain(..).map(|(number, hash)| Change::McpSession(number, hash)));
    changes.extend(loaded.access_tokens.drain(..).map(Change::AccessToken));
    gate.apply(changes);
    gate.set_totals(loaded.session_totals.drain(..));
}

fn policy(config: &Config) -> Policy {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    Policy {
        idle_after: seconds(config.idle_after),
        stale_after: seconds(config.stale_after),
        mcp_stale_after: seconds(config.mcp_stale_after),
        token_lifetime: seconds(config.token_lifetime),
        absolute_lifetime: seconds(config.absolute_lifetime),
    }
}

/// A running service.
pub struct Running {
    pub address: SocketAddr,
    pub public_url: Arc<str>,
    pub house: House,
    stopping: CancellationToken,
    /// Cancelled when the door is closed: until then, whoever is inside may wait for the background tasks.
    closed: CancellationToken,
    door: JoinHandle<()>,
    errands: Vec<JoinHandle<()>>,
    scheduler: JobScheduler,
    _lock: File,
}

/// Starts the service; `founded` is told the credentials of a first start.
pub async fn start(
    config: Config,
    clock: Clock,
) -> anyhow::Result<(Running, Option<crate::directory::Founded>)> {
    check(&config)?;
    let lock = lock(&config.database)?;
    let house = House::open(&config, clock.clone()).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}; is another service there?", config.listen))?;
    // Last of what can fail: credentials are shown once, and a start that fails shows none.
    let founded = bootstrap(&config, &house.directory).await?;
    let address = listener.local_addr()?;
    let public_url: Arc<str> = config.public_url(address).into();
    let config = Arc::new(config);
    let stopping = CancellationToken::new();
    let gateway = Gateway::new(
        house.sessions.clone(),
        house.directory.clone(),
        house.auth.clone(),
        config.clone(),
        public_url.clone(),
        stopping.clone(),
    );
    let app = App::from(Shared {
        sessions: house.sessions.clone(),
        directory: house.directory.clone(),
        auth: house.auth.clone(),
        live: house.live.clone(),
        gateway: Arc::new(gateway),
        board: house.board.clone(),
        clock,
        config: config.clone(),
        public_url: public_url.clone(),
        stopping: stopping.clone(),
    });
    let closed = CancellationToken::new();
    let errands = vec![
        supervise("revocation worker", closed.clone(), {
            let sessions = house.sessions.clone();
            move |stopping| {
                let sessions = sessions.clone();
                async move { sessions.run_revocations(stopping).await }
            }
        }),
        supervise("live feed", closed.clone(), {
            let live = house.live.clone();
            move |stopping| {
                let live = live.clone();
                async move { live.run(stopping).await }
            }
        }),
    ];
    let scheduler = scheduler::start(house.sessions.clone(), house.board.clone(), &config).await?;
    let door = tokio::spawn(open_door(listener, app, stopping.clone()));
    let running =
        Running { address, public_url, house, stopping, closed, door, errands, scheduler, _lock: lock };
    Ok((running, founded))
}

impl Running {
    /// Closes the door, lets what is inside finish, writes everything down.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        self.door.await.ok();
        self.closed.cancel();
        self.scheduler.shutdown().await.ok();
        for errand in self.errands {
            errand.await.ok();
        }
        self.house.sessions.stop().await;
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
        config.listen.ip().is_loopback() || config.insecure_http,
        "{} can be reached from other machines, and connections here are not encrypted. Listen on 127.0.0.1 behind a \
         TLS proxy, or say --insecure-http if the network is yours alone",
        config.listen
    );
    Ok(())
}

/// One writer per database, whoever starts it.
pub fn lock(database: &str) -> anyhow::Result<File> {
    let mut path = database_file(database).into_os_string();
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
    Ok(Some(directory.found("default", chosen).await?))
}

/// Accepts connections until it is told to stop, then lets those that are open finish, up to a limit.
async fn open_door(listener: TcpListener, app: App, stopping: CancellationToken) {
    let router = http::router(app);
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: waiting lets some close.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        // The kernel counts from when something was there to be taken, also while the other end says that it is full.
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(TAKES_NOTHING)).ok();
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not finish in time and are cut off");
    }
}

/// The command: serves until SIGTERM or SIGINT.
pub async fn run(config: Config) -> anyhow::Result<()> {
    log();
    let automated = config.bootstrap_client_id.is_some();
    let (running, founded) = start(config, Clock::system()).await?;
    if let Some(founded) = founded
        && !automated
    {
        super::print_credentials(&founded);
    }
    tracing::info!(address = %running.address, url = %running.public_url, "sessiond is listening");
    signal().await?;
    tracing::info!("stopping");
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

async fn signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        outcome = tokio::signal::ctrl_c() => outcome?,
    }
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
