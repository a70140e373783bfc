//! The connection to a machine: SSH, with the host's key checked, and one shell on a terminal.

mod error;
mod inbox;
mod keys;
mod login;
mod throttled_socket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::{self, Handle, Msg};
use russh::keys::Algorithm;
use russh::{ChannelWriteHalf, Disconnect, Preferred, Pty, cipher, kex};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::frame::Size;
use inbox::{ClientHandler, Inbox};
use login::log_in;
use throttled_socket::{SocketStream, ThrottledSocket};

use crate::outbound::{Allowances, LookUpError};

pub use error::SshError;
pub use inbox::{ShellEnd, ShellEvent};
pub use keys::{HostKey, Pin, private_key};

/// The terminal's type on the machine.
pub const TERM: &str = "xterm-256color";
/// How many bytes a machine may send before it is asked to go on. When somebody presses ctrl-C, no more than this is
/// under way.
const WINDOW: u32 = 256 << 10;
/// How long a machine may take over our goodbye.
const GOODBYE: Duration = Duration::from_millis(200);
const OPENING: &str = "opening a shell";
/// How many questions a machine may leave unanswered before it counts as gone.
const UNANSWERED: u32 = 3;

/// The key exchanges, the preferred first: what the library prefers, and what RFC 9142 allows beside it. Some machines
/// know nothing else.
const EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G18_SHA512,
    kex::DH_G17_SHA512,
    kex::DH_G16_SHA512,
    kex::DH_G15_SHA512,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];
/// The ciphers, the preferred first: what the library prefers, and some that it leaves out.
const CIPHERS: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// The modes of the terminal on the machine (RFC 4254, section 8; RFC 8160): those of a present-day terminal that shows
/// UTF-8. A machine that is not told takes characters for bytes, so that Backspace leaves halves of them behind.
const MODES: &[(Pty, u32)] = &[
    (Pty::VINTR, 3),
    (Pty::VQUIT, 28),
    (Pty::VERASE, 127),
    (Pty::VKILL, 21),
    (Pty::VEOF, 4),
    (Pty::VSTART, 17),
    (Pty::VSTOP, 19),
    (Pty::VSUSP, 26),
    (Pty::VREPRINT, 18),
    (Pty::VWERASE, 23),
    (Pty::VLNEXT, 22),
    (Pty::VDISCARD, 15),
    (Pty::ICRNL, 1),
    (Pty::IXON, 1),
    (Pty::IXANY, 0),
    (Pty::IMAXBEL, 1),
    (Pty::IUTF8, 1),
    (Pty::ISIG, 1),
    (Pty::ICANON, 1),
    (Pty::ECHO, 1),
    (Pty::ECHOE, 1),
    (Pty::ECHOK, 1),
    (Pty::ECHONL, 0),
    (Pty::NOFLSH, 0),
    (Pty::TOSTOP, 0),
    (Pty::IEXTEN, 1),
    (Pty::ECHOCTL, 1),
    (Pty::ECHOKE, 1),
    (Pty::OPOST, 1),
    (Pty::ONLCR, 1),
    (Pty::CS8, 1),
    (Pty::TTY_OP_ISPEED, 38_400),
    (Pty::TTY_OP_OSPEED, 38_400),
];

/// The machine to connect to, and how to log in there.
#[derive(Clone)]
pub struct SshTarget {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub credential: SshCredential,
    /// The pin for the host's key; without one any key is accepted, and reported.
    pub host_key: Option<Pin>,
}

/// The credential for a machine. It is secret, and so has no `Debug`.
#[derive(Clone)]
pub enum SshCredential {
    Password(String),
    Key { pem: String, passphrase: Option<String> },
}

impl SshCredential {
    fn name(&self) -> &'static str {
        match self {
            Self::Password(_) => "password",
            Self::Key { .. } => "key",
        }
    }
}

/// How long a machine may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// The time for connecting, and again for each of the steps after it.
    pub answer: Duration,
    /// How often a silent machine is asked whether it is there.
    pub ask: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), ask: Duration::from_secs(15) }
    }
}

/// A shell on a machine. Dropping it ends the shell.
pub struct Shell {
    connection: Connection,
    channel: ChannelWriteHalf<Msg>,
}

/// Opens a shell.
pub async fn connect(
    machine: &SshTarget,
    allowances: &Allowances,
    size: Size,
    timeouts: Timeouts,
) -> Result<Shell, SshError> {
    let connection = reach(machine, allowances, timeouts).await?;
    let connection = log_in(connection, machine, timeouts).await?;
    connection.shell(size, timeouts).await
}

/// Tests whether a machine can be reached, has the pinned key, and accepts the credential.
pub async fn test(
    machine: &SshTarget,
    allowances: &Allowances,
    timeouts: Timeouts,
) -> Result<HostKey, SshError> {
    let connection = reach(machine, allowances, timeouts).await?;
    let connection = log_in(connection, machine, timeouts).await?;
    connection.part().await;
    Ok(connection.host_key.clone())
}

/// Asks a host for its key. The host learns nothing, not even who asks.
pub async fn ask_host_key(
    machine: &SshTarget,
    allowances: &Allowances,
    timeouts: Timeouts,
) -> Result<HostKey, SshError> {
    reach(&SshTarget { host_key: None, ..machine.clone() }, allowances, timeouts)
        .await
        .map(|connection| connection.host_key.clone())
}

/// A connection to the host with the pinned key. Dropping it ends the connection.
struct Connection {
    handle: Handle<ClientHandler>,
    inbox: Arc<Inbox>,
    host_key: HostKey,
    socket: CutOnDrop,
}

/// Cuts the connection when it is dropped: russh's own task would go on otherwise.
struct CutOnDrop(Arc<ThrottledSocket>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Connects, once for each kind of host key that has to be asked for.
async fn reach(
    machine: &SshTarget,
    allowances: &Allowances,
    timeouts: Timeouts,
) -> Result<Connection, SshError> {
    let mut failed = None;
    for kinds in keys::kinds(machine.host_key.as_ref()) {
        match shake_hands(machine, allowances, kinds, timeouts).await {
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
    machine: &SshTarget,
    allowances: &Allowances,
    kinds: Vec<Algorithm>,
    timeouts: Timeouts,
) -> Result<Connection, SshError> {
    let (address, socket) = dial(machine, allowances, timeouts).await?;
    let cut_on_drop = CutOnDrop(socket.clone());
    let inbox = Inbox::new(socket.clone());
    let config = client::Config {
        window_size: WINDOW,
        preferred: Preferred {
            key: kinds.into(),
            kex: EXCHANGES.into(),
            cipher: CIPHERS.into(),
            ..Preferred::DEFAULT
        },
        // The library asks, and our own task judges the silence: while reading is paused, silence means nothing.
        keepalive_interval: Some(timeouts.ask),
        keepalive_max: 0,
        ..client::Config::default()
    };
    let handler = ClientHandler { inbox: inbox.clone(), pin: machine.host_key.clone() };
    let connecting = client::connect_stream(Arc::new(config), SocketStream(socket), handler);
    let stage = "greeting";
    let result = timeout(timeouts.answer, connecting)
        .await
        .map_err(|_| SshError::TimedOut { stage, after: timeouts.answer })?;
    let shown = inbox.host_key().map(|key| HostKey::new(&key));
    match (result, shown, &machine.host_key) {
        (Ok(handle), Some(host_key), _) => Ok(Connection { handle, inbox, host_key, socket: cut_on_drop }),
        (Err(russh::Error::UnknownKey), Some(offered), Some(pin)) => {
            Err(SshError::HostKeyChanged { expected: pin.fingerprint(), offered: offered.fingerprint })
        }
        (Ok(_), None, _) => Err(SshError::Closed { stage }),
        (Err(error), ..) => Err(SshError::handshake(&address, &error)),
    }
}

/// Looks the host up, and connects to the first of its addresses that is allowed and answers.
async fn dial(
    machine: &SshTarget,
    allowances: &Allowances,
    timeouts: Timeouts,
) -> Result<(String, Arc<ThrottledSocket>), SshError> {
    let SshTarget { host, port, .. } = machine;
    let give_up = Instant::now() + timeouts.answer;
    let late = |_| SshError::TimedOut { stage: "connecting", after: timeouts.answer };
    let found = timeout_at(give_up, allowances.look_up(host, *port)).await.map_err(late)?;
    let found = found.map_err(|error| match error {
        LookUpError::Unresolved(_) => SshError::Unresolved { host: host.clone() },
        LookUpError::NotAllowed => SshError::NotAllowed { host: host.clone() },
    })?;
    let mut failed = SshError::Unresolved { host: host.clone() };
    for address in found {
        match timeout_at(give_up, dial_address(address)).await.map_err(late)? {
            Ok(socket) => return Ok((address.to_string(), socket)),
            Err(error) => {
                failed = SshError::Unreachable { address: address.to_string(), why: error.to_string() };
            }
        }
    }
    Err(failed)
}

async fn dial_address(address: SocketAddr) -> std::io::Result<Arc<ThrottledSocket>> {
    ThrottledSocket::new(TcpStream::connect(address).await?)
}

impl Connection {
    /// Asks for a terminal and a shell on it.
    async fn shell(self, size: Size, timeouts: Timeouts) -> Result<Shell, SshError> {
        let channel = timeout(timeouts.answer, self.open(size))
            .await
            .map_err(|_| SshError::TimedOut { stage: OPENING, after: timeouts.answer })??;
        tokio::spawn(watch(self.socket.0.clone(), self.inbox.clone(), timeouts.ask));
        Ok(Shell { connection: self, channel })
    }

    /// Says goodbye, if the machine takes the message soon.
    async fn part(&self) {
        let goodbye = async {
            self.handle.disconnect(Disconnect::ByApplication, "", "").await.ok();
            self.inbox.ended().await;
        };
        timeout(GOODBYE, goodbye).await.ok();
        self.socket.0.cut();
    }

    async fn open(&self, size: Size) -> Result<ChannelWriteHalf<Msg>, SshError> {
        let refused = |why: &str| SshError::NoTerminal { why: why.to_owned() };
        let closed = |_| SshError::Closed { stage: OPENING };
        let channel = self.handle.channel_open_session().await.map_err(|error| match error {
            russh::Error::ChannelOpenFailure(reason) => refused(&format!("it opens no session ({reason:?})")),
            _ => SshError::Closed { stage: OPENING },
        })?;
        // The handler gets what comes; nobody reads from this half.
        let (_, channel) = channel.split();
        let (cols, rows) = (size.cols.into(), size.rows.into());
        channel.request_pty(true, TERM, cols, rows, 0, 0, MODES).await.map_err(closed)?;
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

/// Ends the connection to a machine that does not answer any more.
async fn watch(socket: Arc<ThrottledSocket>, inbox: Arc<Inbox>, ask: Duration) {
    while !socket.is_cut() {
        // The task holds the socket, and so must end as soon as the connection has.
        tokio::select! {
            biased;
            () = inbox.ended() => return,
            () = sleep(ask / 3) => {}
        }
        if socket.has_failed() {
            inbox.lose("the connection to the machine has failed");
        } else if socket.silence() > ask * (UNANSWERED + 1) {
            inbox.lose(&format!("the machine has not answered for {} s", socket.silence().as_secs()));
        }
    }
}

impl Shell {
    /// The key that the host has shown.
    pub fn host_key(&self) -> &HostKey {
        &self.connection.host_key
    }

    /// What the shell prints next, or how it ended. Nothing more is taken from the machine than is read here.
    pub async fn next(&self) -> ShellEvent {
        self.connection.inbox.next().await
    }

    /// Types these bytes, and waits while the machine takes no more. Returns false if the machine is gone.
    pub async fn input(&self, bytes: Bytes) -> bool {
        // A machine that is gone never gives more window, so waiting for it alone would never end.
        tokio::select! {
            biased;
            () = self.connection.inbox.ended() => false,
            sent = self.channel.data_bytes(bytes) => sent.is_ok(),
        }
    }

    /// Tells the machine the terminal's size. Returns false if the machine is gone.
    pub async fn resize(&self, size: Size) -> bool {
        self.channel.window_change(size.cols.into(), size.rows.into(), 0, 0).await.is_ok()
    }

    /// Ends the shell. The machine hangs up on whatever runs there.
    pub async fn close(&self) {
        self.connection.part().await;
    }
}
