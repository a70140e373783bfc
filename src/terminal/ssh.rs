//! The way to a machine: an SSH connection with one shell on it.
//!
//! What the shell prints is read from the network only as fast as it is wanted: [`Pace`] holds the reading end of the
//! connection, and the machine's own buffers do the rest. What is typed goes out all the while.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use russh::client::{self, Handle};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, decode_secret_key};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, Preferred};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frame::Size;
use crate::directory::MachineSecret;

/// To connect, and again for what the two sides agree on, and to log in.
const PATIENCE: Duration = Duration::from_secs(10);
/// A machine that answers nothing for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// What terminals here understand.
const TERM: &str = "xterm-256color";

/// The public key that a machine shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey(PublicKey);

impl HostKey {
    /// Reads a key as OpenSSH writes it: type, base64, and perhaps a comment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut key = PublicKey::from_openssh(text.trim()).map_err(|error| error.to_string())?;
        key.set_comment("");
        Ok(Self(key))
    }

    /// As `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }
}

impl std::fmt::Display for HostKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0.to_openssh().map_err(|_| std::fmt::Error)?.trim())
    }
}

/// Why there is no shell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    #[error("the machine cannot be reached: {0}")]
    Unreachable(String),
    #[error("the machine's key is {found}, and none is pinned; if it is the right one, pin it")]
    HostKeyUnknown { found: String },
    #[error(
        "the machine shows another key ({found}) than the one that is pinned ({pinned}): it was set up anew, or somebody \
         is in between; if the new one is right, pin it"
    )]
    HostKeyChanged { pinned: String, found: String },
    #[error("the machine refuses the credential of user {user}")]
    WrongCredential { user: String },
    #[error("the private key cannot be used: {0}")]
    BadKey(String),
    #[error("the machine gives no shell: {0}")]
    NoShell(String),
}

impl SshError {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "machine_unreachable",
            Self::HostKeyUnknown { .. } => "host_key_unknown",
            Self::HostKeyChanged { .. } => "host_key_changed",
            Self::WrongCredential { .. } => "machine_credential_refused",
            Self::BadKey(_) => "machine_credential_unusable",
            Self::NoShell(_) => "machine_shell_refused",
        }
    }
}

/// Where to log in, and how.
pub struct Login<'a> {
    /// Of the machine's host, as far as they are allowed.
    pub addresses: &'a [SocketAddr],
    pub user: &'a str,
    pub secret: &'a MachineSecret,
    /// None: any key will do, and is told. Nothing secret is sent then.
    pub pinned: Option<&'a HostKey>,
}

/// Holds the reading end of a connection while nobody wants more.
#[derive(Default)]
pub struct Pace {
    held: AtomicBool,
    waker: AtomicWaker,
}

impl Pace {
    pub fn hold(&self, held: bool) {
        if self.held.swap(held, Ordering::SeqCst) && !held {
            self.waker.wake();
        }
    }
}

/// A connection whose reading end can be held.
struct Paced {
    stream: TcpStream,
    pace: Arc<Pace>,
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        // First the waker, then the look: who lets go in between finds it.
        self.pace.waker.register(context.waker());
        if self.pace.held.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Looks at the key that the machine shows.
struct Door {
    pinned: Option<HostKey>,
    shown: Arc<OnceLock<HostKey>>,
}

impl client::Handler for Door {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let mut key = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            PublicKeyOrCertificate::Certificate(certificate) => certificate.public_key().clone().into(),
        };
        key.set_comment("");
        let key = HostKey(key);
        let right = self.pinned.as_ref().is_none_or(|pinned| *pinned == key);
        self.shown.set(key).ok();
        Ok(right)
    }
}

/// Somebody who is logged in on a machine.
pub struct Machine {
    handle: Handle<Door>,
    pace: Arc<Pace>,
    /// The key that it showed.
    pub host_key: HostKey,
}

/// What a shell says.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Output(Bytes),
    /// It has ended: with this status, or in these words.
    Ended(Result<u32, String>),
}

/// A shell: the end that is read. Its fate is told once, last.
pub struct Reading {
    half: ChannelReadHalf,
    ended: Option<Result<u32, String>>,
}

/// A shell: the end that is written to.
pub struct Writing {
    half: ChannelWriteHalf<client::Msg>,
}

/// Connects, and finds out which key the machine shows; refuses another than the pinned one.
pub async fn connect(login: &Login<'_>) -> Result<Machine, SshError> {
    let stream = reach(login.addresses).await?;
    let pace = Arc::new(Pace::default());
    let shown = Arc::new(OnceLock::new());
    let door = Door { pinned: login.pinned.cloned(), shown: shown.clone() };
    let mut preferred = Preferred::default();
    if let Some(HostKey(pinned)) = login.pinned {
        // A machine may have keys of several types: it is to show the one that is pinned.
        let others = preferred.key.iter().filter(|one| **one != pinned.algorithm()).cloned();
        preferred.key = std::iter::once(pinned.algorithm()).chain(others).collect::<Vec<_>>().into();
    }
    let config = client::Config {
        preferred,
        // Reading is held at the connection, so that no message has to wait here, and nothing that goes out behind it.
        window_size: 512 << 10,
        ..client::Config::default()
    };
    let paced = Paced { stream, pace: pace.clone() };
    let handle = timeout(PATIENCE, client::connect_stream(Arc::new(config), paced, door)).await;
    match (handle, shown.get(), login.pinned) {
        (Ok(Ok(handle)), Some(key), _) => Ok(Machine { handle, pace, host_key: key.clone() }),
        (_, Some(found), Some(pinned)) if found != pinned => {
            let (pinned, found) = (pinned.fingerprint(), found.fingerprint());
            Err(SshError::HostKeyChanged { pinned, found })
        }
        (Ok(Ok(_)), None, _) => Err(SshError::Unreachable("it shows no key".to_owned())),
        (Ok(Err(error)), ..) => Err(SshError::Unreachable(format!("it speaks no SSH that we do: {error}"))),
        (Err(_), ..) => Err(SshError::Unreachable("it does not answer in time".to_owned())),
    }
}

async fn reach(addresses: &[SocketAddr]) -> Result<TcpStream, SshError> {
    let connecting = timeout(PATIENCE, TcpStream::connect(addresses)).await;
    let stream = match connecting {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(SshError::Unreachable(error.to_string())),
        Err(_) => return Err(SshError::Unreachable("nobody answers there".to_owned())),
    };
    // The system asks whether the other side is alive, also while we do not read.
    let keepalive =
        TcpKeepalive::new().with_time(LOST_AFTER / 3).with_interval(LOST_AFTER / 6).with_retries(4);
    let socket = SockRef::from(&stream);
    let set = stream.set_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    let set = set.and_then(|()| socket.set_tcp_user_timeout(Some(LOST_AFTER)));
    set.map_err(|error| SshError::Unreachable(error.to_string()))?;
    Ok(stream)
}

impl Machine {
    /// Logs in. Not before the machine has shown the pinned key.
    pub async fn log_in(&mut self, login: &Login<'_>) -> Result<(), SshError> {
        let Some(pinned) = login.pinned else {
            return Err(SshError::HostKeyUnknown { found: self.host_key.fingerprint() });
        };
        debug_assert_eq!(*pinned, self.host_key);
        let user = login.user.to_owned();
        let attempt = async {
            match login.secret {
                MachineSecret::Password { password } => {
                    Ok(self.handle.authenticate_password(user, password.clone()).await)
                }
                MachineSecret::PrivateKey { private_key, passphrase } => {
                    let key = decode_secret_key(private_key, passphrase.as_deref())
                        .map_err(|error| SshError::BadKey(error.to_string()))?;
                    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
                    Ok(self.handle.authenticate_publickey(user, key).await)
                }
            }
        };
        let outcome = timeout(PATIENCE, attempt).await;
        match outcome.map_err(|_| SshError::Unreachable("it does not answer in time".to_owned()))?? {
            Ok(result) if result.success() => Ok(()),
            Ok(_) => Err(SshError::WrongCredential { user: login.user.to_owned() }),
            Err(error) => Err(SshError::Unreachable(error.to_string())),
        }
    }

    /// Opens a shell in a terminal of this size.
    pub async fn shell(&self, size: Size) -> Result<(Reading, Writing), SshError> {
        let refused = |error: russh::Error| SshError::NoShell(error.to_string());
        let opening = async {
            let channel = self.handle.channel_open_session().await.map_err(refused)?;
            let (cols, rows) = (size.cols.into(), size.rows.into());
            channel.request_pty(true, TERM, cols, rows, 0, 0, &[]).await.map_err(refused)?;
            let (mut reading, writing) = channel.split();
            granted(&mut reading, "it gives no terminal").await?;
            writing.request_shell(true).await.map_err(refused)?;
            granted(&mut reading, "it starts no shell").await?;
            Ok((Reading { half: reading, ended: None }, Writing { half: writing }))
        };
        let opened = timeout(PATIENCE, opening).await;
        opened.map_err(|_| SshError::NoShell("it does not answer in time".to_owned()))?
    }

    /// Holds or lets go of what the machine sends.
    pub fn pace(&self) -> Arc<Pace> {
        self.pace.clone()
    }

    /// Says goodbye; the connection is closed in any case when this is dropped.
    pub async fn leave(&self) {
        self.pace.hold(false);
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "en");
        timeout(Duration::from_secs(1), goodbye).await.ok();
    }
}

/// Waits for a request to be granted. Shells print nothing before both are.
async fn granted(reading: &mut ChannelReadHalf, otherwise: &str) -> Result<(), SshError> {
    loop {
        match reading.wait().await {
            Some(ChannelMsg::Success) => return Ok(()),
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            _ => return Err(SshError::NoShell(otherwise.to_owned())),
        }
    }
}

impl Reading {
    /// What the shell says next.
    pub async fn next(&mut self) -> Heard {
        loop {
            match self.half.wait().await {
                Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                    return Heard::Output(data);
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.ended = Some(Ok(exit_status)),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    self.ended = Some(Err(format!("signal {signal_name:?}")));
                }
                Some(ChannelMsg::Close) | None => {
                    let lost = || Err("the connection to the machine was lost".to_owned());
                    return Heard::Ended(self.ended.take().unwrap_or_else(lost));
                }
                Some(_) => {}
            }
        }
    }

    /// Whether the shell said itself that it ended.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }
}

impl Writing {
    /// Types. Waits while the machine takes nothing.
    pub async fn input(&self, bytes: Bytes) -> Result<(), String> {
        self.half.data_bytes(bytes).await.map_err(|error| error.to_string())
    }

    pub async fn resize(&self, size: Size) -> Result<(), String> {
        let sized = self.half.window_change(size.cols.into(), size.rows.into(), 0, 0);
        sized.await.map_err(|error| error.to_string())
    }
}
