//! All shells there are: opened, found, ended. Each has a task that minds it to its end.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::frame::Size;
use super::recorder::{Happened, Recorder};
use super::shell::{Over, Shell, ToMachine};
use super::ssh::{self, Heard, HostKey, Login, Reading, SshError, Writing};
use crate::clock::Clock;
use crate::config::Config;
use crate::core::Time;
use crate::core::caller::Caller;
use crate::core::kind::Kind;
use crate::core::machine::Machine;
use crate::core::phase::Outcome;
use crate::core::reason::Reason;
use crate::directory::Directory;
use crate::error::Error;
use crate::lines::Lines;
use crate::outbound::is_never;
use crate::secret::{self, TokenKind};
use crate::sessions::{NewSession, Sessions};

/// The application that terminal sessions are of; its policy holds for them.
pub const APPLICATION: &str = "terminals";
/// Those who may come to watch one session.
const WATCHERS: usize = 32;
/// After the shell has ended, whoever types has so long to take the rest of its output.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often the minder looks at clocks that it is not woken for.
const LOOK: Duration = Duration::from_millis(500);

/// Why a shell was not opened.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error(transparent)]
    Refused(#[from] Error),
}

/// A terminal session that was opened.
pub struct Opened {
    pub id: Uuid,
    /// Opens its WebSocket, and nothing else; shown this once.
    pub token: String,
    pub expires_at: Time,
}

/// What a look at a machine found.
#[derive(Debug)]
pub struct Tested {
    pub host_key: HostKey,
    /// It is the one that was pinned already.
    pub pinned: bool,
    /// Milliseconds until it had let us in; none where nobody logged in.
    pub took: Option<u64>,
}

/// Where a session comes from.
#[derive(Debug, Default)]
pub struct From {
    pub ip: Option<String>,
    pub user_agent: Option<String>,
}

/// All shells.
pub struct Terminals {
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    lines: Lines,
    clock: Clock,
    config: Arc<Config>,
    shells: Mutex<HashMap<Uuid, Arc<Shell>>>,
    minders: Mutex<JoinSet<()>>,
}

impl Terminals {
    pub fn new(
        sessions: Arc<Sessions>,
        directory: Arc<Directory>,
        lines: Lines,
        clock: Clock,
        config: Arc<Config>,
    ) -> Self {
        let (shells, minders) = Default::default();
        Self { sessions, directory, lines, clock, config, shells, minders }
    }

    // ---- machines ----

    /// Judges a host that is an address; a name is judged by its addresses, whenever somebody goes there.
    pub fn check_host(&self, host: &str) -> Result<(), Error> {
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if !is_allowed(address, &self.config.allow_machine) => Err(not_allowed()),
            _ => Ok(()),
        }
    }

    async fn addresses(&self, machine: &Machine) -> Result<Vec<SocketAddr>, NotOpened> {
        let host = machine.host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((host, machine.port)).await;
        let found = found.map_err(|error| SshError::Unreachable(error.to_string()))?;
        let allowed: Vec<_> = found.filter(|one| is_allowed(one.ip(), &self.config.allow_machine)).collect();
        if allowed.is_empty() { Err(not_allowed().into()) } else { Ok(allowed) }
    }

    /// Looks at a machine: whether it can be reached, shows its key, and takes the credential. Without a pinned key nothing
    /// secret is sent: only the key is told.
    pub async fn test(&self, machine: &Machine) -> Result<Tested, NotOpened> {
        let addresses = self.addresses(machine).await?;
        let secret = self.directory.machine_secret(machine).await?;
        let pinned = pinned(machine)?;
        let login =
            Login { addresses: &addresses, user: &machine.user, secret: &secret, pinned: pinned.as_ref() };
        let begun = tokio::time::Instant::now();
        let mut there = ssh::connect(&login).await?;
        let host_key = there.host_key.clone();
        if pinned.is_none() {
            return Ok(Tested { host_key, pinned: false, took: None });
        }
        there.log_in(&login).await?;
        there.leave().await;
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Tested { host_key, pinned: true, took: Some(took) })
    }

    // ---- shells ----

    /// Opens a shell on a machine, and a session for it: first the shell, so that no session is there that has none.
    pub async fn open(
        self: &Arc<Self>,
        caller: &Caller,
        machine: &Machine,
        size: Size,
        from: From,
    ) -> Result<Opened, NotOpened> {
        let application = self.directory.application_named(caller, APPLICATION).await?;
        let addresses = self.addresses(machine).await?;
        let secret = self.directory.machine_secret(machine).await?;
        let pinned = pinned(machine)?;
        let login =
            Login { addresses: &addresses, user: &machine.user, secret: &secret, pinned: pinned.as_ref() };
        let mut there = ssh::connect(&login).await?;
        there.log_in(&login).await?;
        let (reading, writing) = there.shell(size).await?;
        let lifetime = TimeDelta::from_std(self.config.terminal_lifetime).unwrap_or(TimeDelta::MAX);
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
        let session = match self.sessions.connect(caller, new).await {
            Ok(opened) => opened.session,
            Err(error) => {
                there.leave().await;
                return Err(error.into());
            }
        };
        let token = secret::mint_for(caller.once.as_deref(), TokenKind::Terminal, session.id);
        let opened_us = self.clock.now().timestamp_micros();
        let by = Caller { once: None, ..caller.clone() };
        let (shell, to_machine) = Shell::new(session.clone(), by, token.hash, size, there.pace(), opened_us);
        let shell = Arc::new(shell);
        self.shells.lock().insert(session.id, shell.clone());
        let opened = Opened { id: session.id, token: token.text, expires_at: session.lifetime_ends_at };
        let minder = Minder { terminals: self.clone(), shell, there };
        let mut minders = self.minders.lock();
        while minders.try_join_next().is_some() {}
        minders.spawn(minder.run(reading, writing, to_machine, size));
        Ok(opened)
    }

    /// The shell of a session.
    pub fn shell(&self, id: Uuid) -> Option<Arc<Shell>> {
        self.shells.lock().get(&id).cloned()
    }

    /// A token by which somebody may watch.
    pub fn admit(&self, caller: &Caller, shell: &Shell) -> String {
        let token = secret::mint_for(caller.once.as_deref(), TokenKind::Terminal, shell.id());
        shell.admit(token.hash, WATCHERS);
        token.text
    }

    /// How many shells there are.
    pub fn count(&self) -> usize {
        self.shells.lock().len()
    }

    /// Ends all shells, with the reason on record, and waits until that is done.
    pub async fn stop(&self) {
        let all: Vec<_> = self.shells.lock().values().cloned().collect();
        for shell in all {
            let message = "sessiond stops, and the shell with it".to_owned();
            shell.finish(Over { reason: Reason::Failed, message, cut: false });
        }
        let mut minders = std::mem::take(&mut *self.minders.lock());
        let all = async { while minders.join_next().await.is_some() {} };
        timeout(2 * LAST_WORDS, all).await.ok();
    }
}

/// The key that a machine has to show.
fn pinned(machine: &Machine) -> Result<Option<HostKey>, Error> {
    let read = |text: &String| HostKey::parse(text).map_err(Error::Internal);
    machine.host_key.as_ref().map(read).transpose()
}

fn is_allowed(address: IpAddr, allow: &[IpNet]) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || (!is_never(address) && allow.iter().any(|network| network.contains(&address)))
}

fn not_allowed() -> Error {
    Error::field(
        "host",
        "host has no address that is allowed: only loopback is, and what --allow-machine adds",
    )
}

/// Minds one shell.
struct Minder {
    terminals: Arc<Terminals>,
    shell: Arc<Shell>,
    there: ssh::Machine,
}

impl Minder {
    async fn run(
        self,
        reading: Reading,
        writing: Writing,
        to_machine: mpsc::Receiver<ToMachine>,
        size: Size,
    ) {
        let Self { terminals, shell, there } = &self;
        let (recorder, recording) =
            Recorder::start(shell.clone(), terminals.lines.clone(), terminals.sessions.clone(), size);
        let rate = terminals.config.terminal_output_rate;
        let listening = tokio::spawn(listen(shell.clone(), reading, recorder.clone(), rate));
        let typing = tokio::spawn(pass_on(shell.clone(), writing, to_machine, recorder.clone()));
        let over = self.wait().await;
        shell.finish(over.clone());
        if !over.cut {
            // The rest of what it printed goes to whoever is there.
            timeout(LAST_WORDS, shell.changes().deserted()).await.ok();
        }
        there.leave().await;
        listening.abort();
        typing.abort();
        terminals.shells.lock().remove(&shell.id());
        recorder.note(Happened::Ended(shell.now_us(), None)).await;
        drop(recorder);
        timeout(LAST_WORDS, recording).await.ok();
        self.record_end(&over).await;
    }

    /// Waits for the end, whoever brings it about.
    async fn wait(&self) -> Over {
        let Self { terminals, shell, .. } = self;
        let config = &terminals.config;
        // Registered as under way, so that whoever cuts it off finds it; judged after that.
        let pass = match terminals.sessions.enter(&shell.caller, &shell.session) {
            Ok(pass) => pass,
            Err(error) => {
                return Over { reason: Reason::Revoked, message: error.to_string(), cut: true };
            }
        };
        let mut changes = shell.changes();
        loop {
            tokio::select! {
                biased;
                reason = pass.ended() => {
                    return Over { reason, message: format!("session disconnected: {reason}"), cut: true };
                }
                over = changes.over() => return over,
                () = sleep(LOOK) => {}
            }
            if shell.deserted_for().is_some_and(|time| time >= config.terminal_grace) {
                let message = "nobody came back in time".to_owned();
                return Over { reason: Reason::Client, message, cut: true };
            }
            if shell.quiet_for() >= config.terminal_idle {
                let message = "nothing was typed for too long".to_owned();
                return Over { reason: Reason::Idle, message, cut: true };
            }
        }
    }

    /// The end goes on record, unless whoever ended it has done that.
    async fn record_end(&self, over: &Over) {
        let (sessions, shell) = (&self.terminals.sessions, &self.shell);
        let number = shell.session.number;
        sessions.flush(number).await;
        let ended = match over.reason {
            Reason::Exited => {
                sessions.finish(&shell.caller, number, Outcome::Finished, Some(over.message.clone())).await
            }
            reason => sessions.end(&shell.caller, number, reason).await,
        };
        if let Err(error) = ended {
            tracing::error!(%error, session = %shell.id(), "the end of a terminal session is not on record yet");
        }
    }
}

/// Hands on what the shell prints, and how it ends.
async fn listen(shell: Arc<Shell>, mut reading: Reading, recorder: Recorder, rate: u64) {
    let mut allowance = Allowance::new(rate);
    loop {
        match reading.next().await {
            Heard::Output(bytes) => {
                allowance.spend(bytes.len()).await;
                recorder.note(Happened::Printed(shell.now_us(), bytes.clone())).await;
                shell.print(bytes);
            }
            Heard::Ended(Ok(status)) => {
                recorder.note(Happened::Ended(shell.now_us(), Some(status))).await;
                let message = format!("the shell ended with status {status}");
                return shell.finish(Over { reason: Reason::Exited, message, cut: false });
            }
            Heard::Ended(Err(what)) if what.starts_with("signal") => {
                let message = format!("the shell was ended by {what}");
                return shell.finish(Over { reason: Reason::Exited, message, cut: false });
            }
            Heard::Ended(Err(message)) => {
                return shell.finish(Over { reason: Reason::MachineLost, message, cut: false });
            }
        }
    }
}

/// Hands on what is typed.
async fn pass_on(
    shell: Arc<Shell>,
    writing: Writing,
    mut to_machine: mpsc::Receiver<ToMachine>,
    recorder: Recorder,
) {
    while let Some(message) = to_machine.recv().await {
        let done = match message {
            ToMachine::Input(bytes) => {
                // First the recorder: the echo must not come before what it echoes.
                recorder.note(Happened::Typed(shell.now_us(), bytes.clone())).await;
                writing.input(bytes).await
            }
            ToMachine::Resize(size) => {
                recorder.note(Happened::Resized(shell.now_us(), size)).await;
                writing.resize(size).await
            }
        };
        if done.is_err() {
            // The end that reads says what happened.
            return;
        }
    }
}

/// How much may be printed, if there is a limit: so much a second, and at once after quiet.
struct Allowance {
    rate: u64,
    left: f64,
    at: tokio::time::Instant,
}

impl Allowance {
    fn new(rate: u64) -> Self {
        Self { rate, left: rate as f64, at: tokio::time::Instant::now() }
    }

    async fn spend(&mut self, bytes: usize) {
        if self.rate == 0 {
            return;
        }
        let rate = self.rate as f64;
        let now = tokio::time::Instant::now();
        self.left = (self.left + (now - self.at).as_secs_f64() * rate).min(rate) - bytes as f64;
        self.at = now;
        if self.left < 0.0 {
            sleep(Duration::from_secs_f64(-self.left / rate)).await;
        }
    }
}
