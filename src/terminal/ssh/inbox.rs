//! What a machine has sent and nobody has read yet: a bounded amount of bytes, and how the shell ended.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, Error, Sig};
use tokio::sync::Notify;

use super::keys::Pin;
use super::throttled_socket::ThrottledSocket;

/// Once so many bytes are held, nothing more is read from the socket.
const FULL: usize = 128 << 10;
/// Once so few bytes are left, the socket is read again.
const ROOM: usize = 32 << 10;
/// The most bytes that are read at once.
const PIECE: usize = 32 << 10;

/// How a shell ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellEnd {
    /// The shell exited with this status.
    Exited(u32),
    /// A signal ended the shell.
    Killed(String),
    /// The machine closed the shell without saying why.
    Closed,
    /// The machine is no longer there.
    Lost(String),
}

/// What is read from a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellEvent {
    Output(Bytes),
    End(ShellEnd),
}

pub struct Inbox {
    socket: Arc<ThrottledSocket>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    output: BytesMut,
    /// How the shell ended, as the machine says.
    status: Option<ShellEnd>,
    end: Option<ShellEnd>,
    /// The answers to our requests, in their order.
    answers: std::collections::VecDeque<bool>,
    /// How many banners the machine has sent before the login.
    banners: u64,
    host_key: Option<PublicKey>,
}

impl Inbox {
    pub fn new(socket: Arc<ThrottledSocket>) -> Arc<Self> {
        let (state, changed) = Default::default();
        Arc::new(Self { socket, state, changed })
    }

    /// The next output, everything that is there up to a bound; or the end.
    pub async fn next(&self) -> ShellEvent {
        self.until(|state| {
            if !state.output.is_empty() {
                let count = state.output.len().min(PIECE);
                let piece = state.output.split_to(count).freeze();
                if state.output.len() <= ROOM {
                    self.socket.set_paused(false);
                }
                return Some(ShellEvent::Output(piece));
            }
            state.end.clone().map(ShellEvent::End)
        })
        .await
    }

    /// The answer to the oldest request; none if the connection ended before.
    pub async fn answer(&self) -> Option<bool> {
        self.until(|state| match state.answers.pop_front() {
            Some(answer) => Some(Some(answer)),
            None => state.end.is_some().then_some(None),
        })
        .await
    }

    /// The key that the host has shown.
    pub fn host_key(&self) -> Option<PublicKey> {
        self.state.lock().host_key.clone()
    }

    /// How many banners the machine has sent before the login.
    pub fn banners(&self) -> u64 {
        self.state.lock().banners
    }

    /// Ends the connection for a reason of ours.
    pub fn lose(&self, why: &str) {
        self.end(ShellEnd::Lost(why.to_owned()));
        self.socket.cut();
    }

    /// Resolves once the shell or the connection has ended.
    pub async fn ended(&self) {
        self.until(|state| state.end.is_some().then_some(())).await;
    }

    async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.state.lock()) {
                return found;
            }
            changed.await;
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.output.extend_from_slice(bytes);
        if state.output.len() >= FULL {
            self.socket.set_paused(true);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn end(&self, end: ShellEnd) {
        let mut state = self.state.lock();
        let end = state.status.take().unwrap_or(end);
        state.end.get_or_insert(end);
        drop(state);
        self.changed.notify_waiters();
    }

    fn note(&self, note: impl FnOnce(&mut State)) {
        note(&mut self.state.lock());
        self.changed.notify_waiters();
    }
}

/// The handler that russh calls.
pub struct ClientHandler {
    pub inbox: Arc<Inbox>,
    pub pin: Option<Pin>,
}

impl Handler for ClientHandler {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let key = key.public_key();
        let accepted = self.pin.as_ref().is_none_or(|pin| pin.accepts(&key));
        self.inbox.note(|state| state.host_key = Some(key));
        Ok(accepted)
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Error> {
        self.inbox.note(|state| state.banners += 1);
        // A banner is shown before anything else, as ssh does.
        self.inbox.push(banner.replace("\r\n", "\n").replace('\n', "\r\n").as_bytes());
        Ok(())
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Error> {
        self.inbox.push(data);
        Ok(())
    }

    async fn extended_data(
        &mut self,
        _: ChannelId,
        _: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Error> {
        self.inbox.push(data);
        Ok(())
    }

    async fn channel_success(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.inbox.note(|state| state.answers.push_back(true));
        Ok(())
    }

    async fn channel_failure(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.inbox.note(|state| state.answers.push_back(false));
        Ok(())
    }

    async fn exit_status(&mut self, _: ChannelId, status: u32, _: &mut Session) -> Result<(), Error> {
        self.inbox.note(|state| state.status = Some(ShellEnd::Exited(status)));
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        _: ChannelId,
        signal: Sig,
        _: bool,
        _: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), Error> {
        let signal = match signal {
            Sig::Custom(name) => name.chars().filter(char::is_ascii_graphic).take(20).collect(),
            signal => format!("{signal:?}"),
        };
        self.inbox.note(|state| state.status = Some(ShellEnd::Killed(signal)));
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.inbox.end(ShellEnd::Closed);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        let why = match &reason {
            DisconnectReason::ReceivedDisconnect(info) if !info.message.is_empty() => info.message.clone(),
            DisconnectReason::ReceivedDisconnect(_)
            | DisconnectReason::Error(Error::Disconnect | Error::HUP) => {
                "the machine closed the connection".to_owned()
            }
            DisconnectReason::Error(Error::IO(error)) => error.to_string(),
            DisconnectReason::Error(error) => error.to_string(),
        };
        self.inbox.end(ShellEnd::Lost(why));
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }

    // A machine may open no channel here. A channel that is not accepted must be rejected explicitly, because russh
    // accepts where its handler says nothing.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }
}
