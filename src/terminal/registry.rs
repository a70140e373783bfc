//! The registry of all terminals: it opens them, finds them and ends them. A supervisor watches over each until its
//! end.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use sessiond_core::machine::Machine;
use sessiond_core::reason::Reason;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::frame::Size;
use super::hub::{Hub, Options};
use super::open_terminal::{EndReason, Terminal};
use super::recorder;
use super::ssh::{self, SshError, Timeouts};
use super::supervisor::Supervisor;
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::error::Error;
use crate::journals::Journals;
use crate::nodes::Peers;
use crate::secret::{self, TokenKind};
use crate::sessions::{NewSession, Sessions};

/// The application of all terminal sessions, whose policy holds for them.
pub const APPLICATION: &str = "terminals";
/// How long, after the shell has ended, the writer may take to read the rest of its output, and the recorder to file
/// it.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);

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

/// What is known of the client that opens a session.
#[derive(Debug, Default)]
pub struct ClientDetails {
    pub ip: Option<String>,
    pub user_agent: Option<String>,
}

/// The registry of all terminals.
pub struct Terminals {
    pub(super) sessions: Arc<Sessions>,
    pub(super) directory: Arc<Directory>,
    journals: Journals,
    clock: Clock,
    pub(super) config: Arc<Config>,
    open: Mutex<HashMap<Uuid, Arc<Terminal>>>,
    supervisors: TaskTracker,
    pub(super) peers: Arc<Peers>,
}

impl Terminals {
    pub fn new(
        sessions: Arc<Sessions>,
        directory: Arc<Directory>,
        journals: Journals,
        clock: Clock,
        config: Arc<Config>,
        peers: Arc<Peers>,
    ) -> Self {
        let (open, supervisors) = Default::default();
        Self { sessions, directory, journals, clock, config, open, supervisors, peers }
    }

    /// Opens a shell on a machine, and then a session for it: no session ever exists without its shell.
    pub async fn open(
        self: &Arc<Self>,
        caller: &Caller,
        machine: &Machine,
        size: Size,
        client: ClientDetails,
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
            user_agent: client.user_agent,
            ip: client.ip,
            resource: Some(machine.id.to_string()),
            lifetime: Some(lifetime),
            node: self.peers.own(),
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
        let begun = self.clock.now();
        let hub = Hub::start(shell, size, Options { recorder: Some(recorder), rate });
        let terminal = Arc::new(Terminal::new(session, caller, hub, begun, token.hash));
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
    pub fn mint_viewer_token(&self, caller: &Caller, terminal: &Terminal) -> String {
        let token = secret::mint_for(caller.once.as_deref(), TokenKind::Terminal, terminal.session.id);
        terminal.add_viewer(token.hash, caller);
        token.text
    }

    /// Forgets a terminal that has ended.
    pub(super) fn remove(&self, id: Uuid) {
        self.open.lock().remove(&id);
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
            terminal.set_end_reason(EndReason { reason: Reason::Failed, message });
            terminal.hub.cut();
        }
        self.supervisors.close();
        timeout(3 * LAST_WORDS, self.supervisors.wait()).await.ok();
    }
}
