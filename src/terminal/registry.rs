//! The registry of all terminals: it opens them, finds them and ends them. A supervisor watches over each until its
//! end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::TimeDelta;
use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ending::{CredentialEnd, Ending};
use sessiond_core::ids::OrganizationNumber;
use sessiond_core::kind::Kind;
use sessiond_core::machine::Machine;
use sessiond_core::reason::Reason;
use sessiond_core::session::Session;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::frame::Size;
use super::hub::{Hub, Options, TerminalEnd};
use super::recorder;
use super::ssh::{self, HostKey, Pin, SshCredential, SshError, Timeouts};
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::{Directory, MachineSecret};
use crate::error::Error;
use crate::journals::Journals;
use crate::outbound::{Allowances, Purpose};
use crate::secret::{self, TokenKind};
use crate::sessions::{NewSession, Sessions};

/// The application of all terminal sessions, whose policy holds for them.
pub const APPLICATION: &str = "terminals";
/// How many viewers' tokens one terminal may have.
const WATCHERS: usize = 32;
/// How long, after the shell has ended, the writer may take to read the rest of its output, and the recorder to file
/// it.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often the supervisor looks whether something was typed.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Why a terminal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error("no host key is pinned for this machine; test it, compare the key that it shows, and pin it")]
    NothingPinned,
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error(transparent)]
    Refused(#[from] Error),
}

/// A terminal session that was opened.
pub struct Opened {
    pub id: Uuid,
    /// Opens the terminal's WebSocket, and nothing else. It is shown this once.
    pub token: String,
    pub expires_at: Time,
}

/// What a test of a machine found.
#[derive(Debug)]
pub struct Tested {
    pub host_key: HostKey,
    /// Whether the host showed the key that was pinned before.
    pub pinned: bool,
    /// How many milliseconds the login took; none if nobody logged in.
    pub took: Option<u64>,
}

/// What is known of the client that opens a session.
#[derive(Debug, Default)]
pub struct ClientDetails {
    pub ip: Option<String>,
    pub user_agent: Option<String>,
}

/// The reason for a terminal's end, as its connections are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndReason {
    pub reason: Reason,
    pub message: String,
}

/// What a terminal's token entitles to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Writer,
    Watcher,
}

/// A shell with its session.
pub struct Terminal {
    pub session: Session,
    /// The caller who opened the terminal: typing counts as that caller's activity.
    pub caller: Caller,
    pub hub: Hub,
    /// When the hub began; microseconds since 1970.
    pub begun_us: i64,
    begun: Instant,
    /// The SHA-256 hashes of the tokens' secrets: the writer's, and each viewer's with the caller who asked for it.
    writer: [u8; 32],
    watchers: Mutex<Vec<([u8; 32], Caller)>>,
    /// The reason for the end; the first one stays.
    why: OnceLock<EndReason>,
    /// Set once connections may be told of the end: then it is on record, or whoever ended the session has seen to
    /// that.
    told: watch::Sender<bool>,
    /// How many command lines were entered so far. The log counts them a little later.
    commands: AtomicU64,
    /// Whether a full-screen program has the screen.
    full_screen: AtomicBool,
}

impl Terminal {
    /// How many command lines were entered so far.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Counts one more command line.
    pub(super) fn entered(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a full-screen program has the screen.
    pub fn is_full_screen(&self) -> bool {
        self.full_screen.load(Ordering::Relaxed)
    }

    pub(super) fn shows(&self, full_screen: bool) {
        self.full_screen.store(full_screen, Ordering::Relaxed);
    }

    /// The role of a token, by the hash of its secret, and the caller who asked for the token: the connection ends with
    /// that caller's credential.
    pub fn role(&self, hash: &[u8; 32]) -> Option<(Role, Caller)> {
        if secret::same(&self.writer, hash) {
            return Some((Role::Writer, self.caller.clone()));
        }
        let watchers = self.watchers.lock();
        let watches = watchers.iter().find(|(one, _)| secret::same(one, hash));
        watches.map(|(_, caller)| (Role::Watcher, caller.clone()))
    }

    /// Lets the holder of this secret watch. If there are too many viewers' tokens, the oldest one goes.
    fn admit(&self, hash: [u8; 32], caller: &Caller) {
        let mut watchers = self.watchers.lock();
        if watchers.len() >= WATCHERS {
            watchers.remove(0);
        }
        watchers.push((hash, Caller { once: None, ..caller.clone() }));
    }

    /// A time of the hub in microseconds since 1970.
    pub fn when(&self, at: u64) -> i64 {
        self.begun_us.saturating_add_unsigned(at)
    }

    /// The current time on the same scale.
    pub fn now_us(&self) -> i64 {
        self.when(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The reason for the end, as soon as it may be told: what a client is told has happened already.
    pub async fn told_over(&self) -> EndReason {
        let mut told = self.told.subscribe();
        timeout(2 * LAST_WORDS, told.wait_for(|told| *told)).await.ok();
        self.over()
    }

    /// The reason for the end, whether or not it may be told yet.
    fn over(&self) -> EndReason {
        let unsaid = || EndReason { reason: Reason::Failed, message: "the terminal was closed".to_owned() };
        self.why.get().cloned().unwrap_or_else(unsaid)
    }

    /// Settles the reason for the end, unless it is settled already.
    fn ends(&self, over: EndReason) {
        self.why.set(over).ok();
    }

    /// Lets connections be told of the end.
    fn tell(&self) {
        self.told.send_replace(true);
    }
}

/// The registry of all terminals.
pub struct Terminals {
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    journals: Journals,
    clock: Clock,
    config: Arc<Config>,
    open: Mutex<HashMap<Uuid, Arc<Terminal>>>,
    supervisors: TaskTracker,
}

impl Terminals {
    pub fn new(
        sessions: Arc<Sessions>,
        directory: Arc<Directory>,
        journals: Journals,
        clock: Clock,
        config: Arc<Config>,
    ) -> Self {
        let (open, supervisors) = Default::default();
        Self { sessions, directory, journals, clock, config, open, supervisors }
    }

    // ---- Machines ----

    /// Judges a host that is an address. A name is judged by its addresses at each connection.
    pub fn check_host(&self, organization: OrganizationNumber, host: &str) -> Result<(), Error> {
        match host.parse::<IpAddr>() {
            Ok(address) if !self.allowances(organization).allows(address) => {
                let message = if organization.is_operators() {
                    "host is an address that is not allowed: only loopback is, and what --allow-machine adds"
                } else {
                    "host is an address that is not allowed: only what --allow-machine adds is"
                };
                Err(Error::field("host", message))
            }
            _ => Ok(()),
        }
    }

    /// Where machines of an organization may be.
    fn allowances(&self, organization: OrganizationNumber) -> Allowances {
        Allowances::of(Purpose::Machine, &self.config, organization.is_operators())
    }

    /// Where a machine is, and how to log in there.
    async fn target(&self, machine: &Machine) -> Result<ssh::SshTarget, NotOpened> {
        let credential = match self.directory.machines.secret(machine).await? {
            MachineSecret::Password { password } => SshCredential::Password(password),
            MachineSecret::PrivateKey { private_key, passphrase } => {
                SshCredential::Key { pem: private_key, passphrase }
            }
        };
        let host_key = machine.host_key.as_deref().map(str::parse::<Pin>).transpose()?;
        let (host, user) = (machine.host.clone(), machine.user.clone());
        Ok(ssh::SshTarget { host, port: machine.port, user, credential, host_key })
    }

    /// Tests a machine: whether it can be reached, shows its key, and takes the credential. Without a pinned key
    /// nothing secret is sent, and the result is only the key.
    pub async fn test(&self, machine: &Machine) -> Result<Tested, NotOpened> {
        let target = self.target(machine).await?;
        let allowances = self.allowances(machine.organization);
        let begun = Instant::now();
        if target.host_key.is_none() {
            let host_key = ssh::ask_host_key(&target, &allowances, Timeouts::default()).await?;
            return Ok(Tested { host_key, pinned: false, took: None });
        }
        let host_key = ssh::test(&target, &allowances, Timeouts::default()).await?;
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Tested { host_key, pinned: true, took: Some(took) })
    }

    // ---- Terminals ----

    /// Opens a shell on a machine, and then a session for it: no session ever exists without its shell.
    pub async fn open(
        self: &Arc<Self>,
        caller: &Caller,
        machine: &Machine,
        size: Size,
        from: ClientDetails,
    ) -> Result<Opened, NotOpened> {
        let application = self.directory.applications.ensure(caller, APPLICATION).await?;
        let target = self.target(machine).await?;
        if target.host_key.is_none() {
            return Err(NotOpened::NothingPinned);
        }
        let allowances = self.allowances(machine.organization);
        let shell = ssh::connect(&target, &allowances, size, Timeouts::default()).await?;
        let lifetime = TimeDelta::from_std(self.config.terminal_lifetime).unwrap_or(TimeDelta::MAX);
        // The session lives no longer than the credential that opens it.
        let lifetime = lifetime.min(caller.credential.expires_at - self.clock.now());
        let new = NewSession {
            application: Some(application.id),
            name: Some(format!("{} on {}", machine.user, machine.name)),
            hostname: Some(machine.host.clone()),
            user_agent: from.user_agent,
            ip: from.ip,
            resource: Some(machine.id.to_string()),
            lifetime: Some(lifetime),
            silent: true,
            ..NewSession::of(Kind::Terminal)
        };
        let session = match self.sessions.lifecycle.connect(caller, new).await {
            Ok(opened) => opened.session,
            Err(error) => {
                shell.close().await;
                return Err(error.into());
            }
        };
        let token = secret::mint_for(caller.once.as_deref(), TokenKind::Terminal, session.id);
        let (recorder, events) = mpsc::channel(recorder::WAITING);
        let rate = NonZeroU64::new(self.config.terminal_output_rate);
        let (begun, begun_us) = (Instant::now(), self.clock.now().timestamp_micros());
        let terminal = Arc::new(Terminal {
            caller: Caller { once: None, ..caller.clone() },
            hub: Hub::start(shell, size, Options { recorder: Some(recorder), rate }),
            begun_us,
            begun,
            writer: token.hash,
            watchers: Mutex::default(),
            why: OnceLock::new(),
            told: watch::Sender::new(false),
            commands: AtomicU64::new(0),
            full_screen: AtomicBool::new(false),
            session,
        });
        let (journals, traffic) = (self.journals.clone(), self.sessions.traffic.clone());
        let recording = recorder::start(terminal.clone(), events, journals, traffic, size);
        let session = &terminal.session;
        let opened = Opened { id: session.id, token: token.text, expires_at: session.lifetime_ends_at };
        self.open.lock().insert(session.id, terminal.clone());
        let supervisor = Supervisor { terminals: self.clone(), terminal };
        self.supervisors.spawn(supervisor.run(recording));
        Ok(opened)
    }

    /// The terminal of a session.
    pub fn terminal(&self, id: Uuid) -> Option<Arc<Terminal>> {
        self.open.lock().get(&id).cloned()
    }

    /// Makes a token by which its holder may watch.
    pub fn admit(&self, caller: &Caller, terminal: &Terminal) -> String {
        let token = secret::mint_for(caller.once.as_deref(), TokenKind::Terminal, terminal.session.id);
        terminal.admit(token.hash, caller);
        token.text
    }

    /// How many terminals there are.
    pub fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// Ends all terminals, with the reason on record, and waits until that is done.
    pub async fn stop(&self) {
        let all: Vec<_> = self.open.lock().values().cloned().collect();
        for terminal in all {
            let message = "sessiond stops, and the shell with it".to_owned();
            terminal.ends(EndReason { reason: Reason::Failed, message });
            terminal.hub.cut();
        }
        self.supervisors.close();
        timeout(3 * LAST_WORDS, self.supervisors.wait()).await.ok();
    }
}

/// Watches over one terminal until its end.
struct Supervisor {
    terminals: Arc<Terminals>,
    terminal: Arc<Terminal>,
}

impl Supervisor {
    /// Runs until the end, which is first recorded and then told: a client that has read the farewell finds the session
    /// ended, and may open the next one.
    async fn run(self, recording: JoinHandle<()>) {
        let Self { terminals, terminal } = &self;
        terminal.ends(self.wait().await);
        let over = terminal.over();
        let by_itself = over.reason == Reason::Exited || over.reason == Reason::MachineLost;
        if !by_itself {
            terminal.hub.cut();
        }
        timeout(LAST_WORDS, recording).await.ok();
        self.record_end(&over).await;
        terminals.open.lock().remove(&terminal.session.id);
        terminal.tell();
        if by_itself {
            // The rest of the shell's output goes to the writer.
            timeout(LAST_WORDS, terminal.hub.deserted(Duration::ZERO)).await.ok();
        }
        terminal.hub.cut();
    }

    /// Waits for the end, whoever brings it about.
    async fn wait(&self) -> EndReason {
        let Self { terminals, terminal } = self;
        let (config, hub) = (&terminals.config, &terminal.hub);
        // The terminal is registered at the Gate before it is judged, so that whoever cuts it off finds it.
        let pass = match terminals.sessions.admission.enter(&terminal.caller, &terminal.session) {
            Ok(pass) => pass,
            Err(error) => return EndReason { reason: Reason::Revoked, message: error.to_string() },
        };
        let (deserted, ended) = (hub.deserted(config.terminal_grace), hub.over());
        tokio::pin!(deserted, ended);
        let (mut typed, mut typed_at) = (0, Instant::now());
        loop {
            tokio::select! {
                biased;
                ending = pass.ended() => {
                    let over = end_reason(ending);
                    terminal.ends(over.clone());
                    if let Ending::Session(_) = ending {
                        // Connections are told before the pass is given back, because a revocation waits for the pass.
                        // The session's end is on record by now.
                        terminal.tell();
                    }
                    hub.cut();
                    return over;
                }
                end = &mut ended => return ended_as(&end, &terminal.over()),
                () = &mut deserted => {
                    let message = "nobody came back in time".to_owned();
                    return EndReason { reason: Reason::Client, message };
                }
                () = sleep(CHECK_EVERY) => {}
            }
            let (now, _) = hub.counts();
            if now != typed {
                (typed, typed_at) = (now, Instant::now());
            } else if typed_at.elapsed() >= config.terminal_idle {
                let message = "nothing was typed for too long".to_owned();
                return EndReason { reason: Reason::Idle, message };
            }
        }
    }

    /// Records the end, unless whoever ended the session has done that.
    async fn record_end(&self, over: &EndReason) {
        let (sessions, terminal) = (&self.terminals.sessions, &self.terminal);
        let number = terminal.session.number;
        sessions.traffic.flush(number).await;
        let ended = match over.reason {
            Reason::Exited => {
                sessions.terminals.shell_ended(&terminal.caller, number, over.message.clone()).await
            }
            reason => sessions.lifecycle.end_hosted(&terminal.caller, number, reason).await,
        };
        if let Err(error) = ended {
            tracing::error!(%error, session = %terminal.session.id, "the end of a terminal session is not on record");
        }
    }
}

/// The reason for the end of a terminal whose session or credential has ended.
pub fn end_reason(ending: Ending) -> EndReason {
    match ending {
        Ending::Session(reason) => EndReason { reason, message: format!("session disconnected: {reason}") },
        Ending::Credential(end) => EndReason {
            reason: if end == CredentialEnd::Expired { Reason::Lifetime } else { Reason::Revoked },
            message: format!("{end}, and what it opened ends with it"),
        },
    }
}

/// The reason for the end of a shell that ended by itself; for one that was cut off the reason is known already.
fn ended_as(end: &TerminalEnd, cut: &EndReason) -> EndReason {
    let over = |reason, message: String| EndReason { reason, message };
    match end {
        TerminalEnd::Shell(ssh::ShellEnd::Exited(status)) => {
            over(Reason::Exited, format!("the shell ended with status {status}"))
        }
        TerminalEnd::Shell(ssh::ShellEnd::Killed(signal)) => {
            over(Reason::Exited, format!("the shell was ended by signal {signal}"))
        }
        TerminalEnd::Shell(ssh::ShellEnd::Closed) => over(Reason::Exited, "the shell ended".to_owned()),
        TerminalEnd::Shell(ssh::ShellEnd::Lost(what)) => over(Reason::MachineLost, what.clone()),
        TerminalEnd::Cut => cut.clone(),
    }
}
