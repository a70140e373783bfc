//! The way to a machine: SSH, with the host's key checked, and one shell on a terminal.

mod error;
mod inbox;
mod keys;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse, Msg};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg};
use russh::{ChannelWriteHalf, Disconnect, MethodKind, MethodSet, Preferred};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::frame::Size;
use inbox::{Callee, Inbox};
use wire::{Link, Wire};

pub use error::SshError;
pub use inbox::{End, Heard};
pub use keys::{HostKey, Pin, private_key};

/// What the terminal is called on the machine.
pub const TERM: &str = "xterm-256color";
/// How much a machine may send before it is asked to go on. What is under way when somebody presses ctrl-C is not more.
const WINDOW: u32 = 256 << 10;
/// How long it may take a machine to take our goodbye.
const GOODBYE: Duration = Duration::from_millis(200);
const OPENING: &str = "opening a shell";
/// A machine that has left so many questions unanswered is gone.
const UNANSWERED: u32 = 3;

/// Where to and as whom.
#[derive(Clone)]
pub struct Machine {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub credential: Credential,
    /// Without one, whatever key the host shows is taken, and told.
    pub host_key: Option<Pin>,
}

/// Never shown: it has no `Debug`.
#[derive(Clone)]
pub enum Credential {
    Password(String),
    Key { pem: String, passphrase: Option<String> },
}

impl Credential {
    fn name(&self) -> &'static str {
        match self {
            Self::Password(_) => "password",
            Self::Key { .. } => "key",
        }
    }
}

/// How long a machine may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For being reached, and again for each of the steps after it.
    pub answer: Duration,
    /// How often a silent machine is asked whether it is there.
    pub ask: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), ask: Duration::from_secs(15) }
    }
}

/// Decides which addresses may be gone to.
pub type Allows<'a> = &'a (dyn Fn(IpAddr) -> bool + Send + Sync);

/// A shell on a machine. Dropping it ends it.
pub struct Shell {
    way: Way,
    channel: ChannelWriteHalf<Msg>,
}

/// Opens a shell.
pub async fn connect(
    machine: &Machine,
    allows: Allows<'_>,
    size: Size,
    patience: Patience,
) -> Result<Shell, SshError> {
    let way = reach(machine, allows, patience).await?;
    let way = log_in(way, machine, patience).await?;
    way.shell(size, patience).await
}

/// Tries whether a machine can be reached, is the one it should be, and accepts the credential.
pub async fn test(machine: &Machine, allows: Allows<'_>, patience: Patience) -> Result<HostKey, SshError> {
    let way = reach(machine, allows, patience).await?;
    let way = log_in(way, machine, patience).await?;
    way.part().await;
    Ok(way.host_key.clone())
}

/// Asks a host for its key. Nothing is told to it, not even who asks.
pub async fn ask_host_key(
    machine: &Machine,
    allows: Allows<'_>,
    patience: Patience,
) -> Result<HostKey, SshError> {
    reach(&Machine { host_key: None, ..machine.clone() }, allows, patience)
        .await
        .map(|way| way.host_key.clone())
}

/// A connection whose host is the one it should be. Dropping it ends it.
struct Way {
    handle: Handle<Callee>,
    inbox: Arc<Inbox>,
    host_key: HostKey,
    link: Cutting,
}

/// Cuts the connection when nobody holds it any more: russh's own task would go on.
struct Cutting(Arc<Link>);

impl Drop for Cutting {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Connects, once for each kind of host key that has to be asked for.
async fn reach(machine: &Machine, allows: Allows<'_>, patience: Patience) -> Result<Way, SshError> {
    let mut failed = None;
    for kinds in keys::kinds(machine.host_key.as_ref()) {
        match shake_hands(machine, allows, kinds, patience).await {
            Err(error @ SshError::HostKeyChanged { .. }) => failed = Some(error),
            // The host has no key of this kind.
            Err(error @ SshError::HostKeyKind { .. }) => failed = failed.or(Some(error)),
            result => return result,
        }
    }
    let why = "no kind of host key was tried".to_owned();
    Err(failed.unwrap_or(SshError::HostKey { why }))
}

async fn shake_hands(
    machine: &Machine,
    allows: Allows<'_>,
    kinds: Vec<Algorithm>,
    patience: Patience,
) -> Result<Way, SshError> {
    let (address, link) = dial(machine, allows, patience).await?;
    let cutting = Cutting(link.clone());
    let inbox = Inbox::new(link.clone());
    let config = client::Config {
        window_size: WINDOW,
        preferred: Preferred { key: kinds.into(), ..Preferred::DEFAULT },
        // It asks, and the watch judges: what is not read behind the gate is no silence.
        keepalive_interval: Some(patience.ask),
        keepalive_max: 0,
        ..client::Config::default()
    };
    let callee = Callee { inbox: inbox.clone(), pin: machine.host_key.clone() };
    let connecting = client::connect_stream(Arc::new(config), Wire(link), callee);
    let stage = "greeting";
    let result = timeout(patience.answer, connecting)
        .await
        .map_err(|_| SshError::TimedOut { stage, after: patience.answer })?;
    let shown = inbox.host_key().map(|key| HostKey::new(&key));
    match (result, shown, &machine.host_key) {
        (Ok(handle), Some(host_key), _) => Ok(Way { handle, inbox, host_key, link: cutting }),
        (Err(russh::Error::UnknownKey), Some(offered), Some(pin)) => {
            Err(SshError::HostKeyChanged { expected: pin.fingerprint(), offered: offered.fingerprint })
        }
        (Ok(_), None, _) => Err(SshError::Closed { stage }),
        (Err(error), ..) => Err(SshError::handshake(&address, &error)),
    }
}

/// Looks the host up and connects to the first of its addresses that may be gone to and answers.
async fn dial(
    machine: &Machine,
    allows: Allows<'_>,
    patience: Patience,
) -> Result<(String, Arc<Link>), SshError> {
    let Machine { host, port, .. } = machine;
    let give_up = Instant::now() + patience.answer;
    let late = |_| SshError::TimedOut { stage: "connecting", after: patience.answer };
    let unresolved = || SshError::Unresolved { host: host.clone() };
    let found = timeout_at(give_up, tokio::net::lookup_host((host.as_str(), *port))).await.map_err(late)?;
    let mut found = found.map_err(|_| unresolved())?.peekable();
    found.peek().ok_or_else(unresolved)?;
    let mut failed = SshError::NotAllowed { host: host.clone() };
    for address in found.filter(|address| allows(address.ip())) {
        match timeout_at(give_up, dial_address(address)).await.map_err(late)? {
            Ok(link) => return Ok((address.to_string(), link)),
            Err(error) => {
                failed = SshError::Unreachable { address: address.to_string(), why: error.to_string() };
            }
        }
    }
    Err(failed)
}

async fn dial_address(address: SocketAddr) -> std::io::Result<Arc<Link>> {
    Link::new(TcpStream::connect(address).await?)
}

/// Shows the credential.
async fn log_in(mut way: Way, machine: &Machine, patience: Patience) -> Result<Way, SshError> {
    let stage = "logging in";
    let accepted = match &machine.credential {
        Credential::Key { pem, passphrase } => {
            let (pem, passphrase) = (pem.clone(), passphrase.clone());
            // A passphrase is made expensive to try, and so to use.
            let reading = tokio::task::spawn_blocking(move || private_key(&pem, passphrase.as_deref()));
            let key = reading.await.map_err(|error| SshError::Key { why: error.to_string() })??;
            timeout(patience.answer, with_key(&mut way.handle, &machine.user, key)).await
        }
        Credential::Password(password) => {
            timeout(patience.answer, with_password(&mut way.handle, &machine.user, password)).await
        }
    };
    let user = machine.user.clone();
    match accepted.map_err(|_| SshError::TimedOut { stage, after: patience.answer })? {
        Ok(LoggedIn::Yes) => Ok(way),
        Ok(LoggedIn::MoreAsked) => Err(SshError::MoreAsked { user }),
        Ok(LoggedIn::No(_)) | Err(_) if way.handle.is_closed() => Err(SshError::Closed { stage }),
        Ok(LoggedIn::No(methods)) => {
            let names: Vec<&str> = methods.iter().map(<&'static str>::from).collect();
            let accepted =
                if names.is_empty() { String::new() } else { format!("; it accepts {}", names.join(", ")) };
            Err(SshError::Refused { user, method: machine.credential.name(), accepted })
        }
        Err(_) => Err(SshError::Closed { stage }),
    }
}

enum LoggedIn {
    Yes,
    No(MethodSet),
    MoreAsked,
}

impl From<AuthResult> for LoggedIn {
    fn from(result: AuthResult) -> Self {
        match result {
            AuthResult::Success => Self::Yes,
            AuthResult::Failure { partial_success: true, .. } => Self::MoreAsked,
            AuthResult::Failure { remaining_methods, .. } => Self::No(remaining_methods),
        }
    }
}

async fn with_key(
    handle: &mut Handle<Callee>,
    user: &str,
    key: Arc<PrivateKey>,
) -> Result<LoggedIn, russh::Error> {
    let key = PrivateKeyWithHashAlg::new(key, None);
    Ok(handle.authenticate_publickey(user, key).await?.into())
}

/// A password, or the same as the answer to the one question of a host that takes it only so. Never both: each refusal
/// counts. Which of them a host takes is asked first, as ssh does.
async fn with_password(
    handle: &mut Handle<Callee>,
    user: &str,
    password: &str,
) -> Result<LoggedIn, russh::Error> {
    let methods = match handle.authenticate_none(user).await?.into() {
        LoggedIn::No(methods) => methods,
        other => return Ok(other),
    };
    if methods.contains(&MethodKind::Password) {
        return Ok(handle.authenticate_password(user, password).await?.into());
    }
    if !methods.contains(&MethodKind::KeyboardInteractive) {
        return Ok(LoggedIn::No(methods));
    }
    let mut answered = false;
    let mut asked = handle.authenticate_keyboard_interactive_start(user, None).await?;
    loop {
        let answers = match asked {
            KeyboardInteractiveAuthResponse::Success => return Ok(LoggedIn::Yes),
            KeyboardInteractiveAuthResponse::Failure { partial_success: true, .. } => {
                return Ok(LoggedIn::MoreAsked);
            }
            KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(LoggedIn::No(methods)),
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => match prompts.as_slice() {
                [] => Vec::new(),
                [prompt] if !prompt.echo && !answered => {
                    answered = true;
                    vec![password.to_owned()]
                }
                _ => return Ok(LoggedIn::MoreAsked),
            },
        };
        asked = handle.authenticate_keyboard_interactive_respond(answers).await?;
    }
}

impl Way {
    /// Asks for a terminal and a shell on it.
    async fn shell(self, size: Size, patience: Patience) -> Result<Shell, SshError> {
        let channel = timeout(patience.answer, self.open(size))
            .await
            .map_err(|_| SshError::TimedOut { stage: OPENING, after: patience.answer })??;
        tokio::spawn(watch(self.link.0.clone(), self.inbox.clone(), patience.ask));
        Ok(Shell { way: self, channel })
    }

    /// Says goodbye, if the machine takes a word soon.
    async fn part(&self) {
        let goodbye = async {
            self.handle.disconnect(Disconnect::ByApplication, "", "").await.ok();
            self.inbox.over().await;
        };
        timeout(GOODBYE, goodbye).await.ok();
        self.link.0.cut();
    }

    async fn open(&self, size: Size) -> Result<ChannelWriteHalf<Msg>, SshError> {
        let refused = |why: &str| SshError::NoTerminal { why: why.to_owned() };
        let closed = |_| SshError::Closed { stage: OPENING };
        let channel = self.handle.channel_open_session().await.map_err(|error| match error {
            russh::Error::ChannelOpenFailure(reason) => refused(&format!("it opens no session ({reason:?})")),
            _ => SshError::Closed { stage: OPENING },
        })?;
        // What comes goes to the inbox; nobody reads here.
        let (_, channel) = channel.split();
        let (cols, rows) = (size.cols.into(), size.rows.into());
        channel.request_pty(true, TERM, cols, rows, 0, 0, &[]).await.map_err(closed)?;
        let answered = |answer: Option<bool>, why: &str| match answer {
            Some(true) => Ok(()),
            Some(false) => Err(refused(why)),
            None => Err(SshError::Closed { stage: OPENING }),
        };
        answered(self.inbox.answer().await, "it refuses one to this user")?;
        channel.request_shell(true).await.map_err(closed)?;
        answered(self.inbox.answer().await, "it refuses a shell to this user")?;
        Ok(channel)
    }
}

/// Ends a connection to a machine that does not answer any more.
async fn watch(link: Arc<Link>, inbox: Arc<Inbox>, ask: Duration) {
    while !link.is_cut() && !inbox.has_ended() {
        sleep(ask / 3).await;
        if link.has_failed() {
            inbox.lose("the connection to the machine has failed");
        } else if link.silence() > ask * (UNANSWERED + 1) {
            inbox.lose(&format!("the machine has not answered for {} s", link.silence().as_secs()));
        }
    }
}

impl Shell {
    /// The key the host has shown.
    pub fn host_key(&self) -> &HostKey {
        &self.way.host_key
    }

    /// What the shell prints next, or how it ended. Nothing more is taken from the machine than is read here.
    pub async fn next(&self) -> Heard {
        self.way.inbox.next().await
    }

    /// Types. Waits while the machine takes no more. False if it is gone.
    pub async fn input(&self, bytes: Bytes) -> bool {
        // Whoever waits for a window of one that is gone waits for ever.
        tokio::select! {
            biased;
            () = self.way.inbox.over() => false,
            sent = self.channel.data_bytes(bytes) => sent.is_ok(),
        }
    }

    /// Tells the machine the terminal's size. False if it is gone.
    pub async fn resize(&self, size: Size) -> bool {
        self.channel.window_change(size.cols.into(), size.rows.into(), 0, 0).await.is_ok()
    }

    /// Ends it. The machine hangs up on whatever runs there.
    pub async fn close(&self) {
        self.way.part().await;
    }
}
