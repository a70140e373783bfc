//! Logs in to a machine, in as many steps as it wants, as long as they need nothing from a person.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use russh::{MethodKind, MethodSet};
use tokio::time::{sleep, timeout};

use super::error::SshError;
use super::inbox::{ClientHandler, Inbox};
use super::keys::private_key;
use super::throttled_socket::ThrottledSocket;
use super::{Connection, SshCredential, SshTarget, Timeouts};

/// The stage of opening a shell, in words.
const STAGE: &str = "logging in";
/// How long a message may go unanswered that the library may not have understood: one that it understands, it answers
/// as soon as it has all bytes.
const UNDERSTOOD: Duration = Duration::from_secs(1);
/// How often the received bytes are looked at.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How many steps a machine may want: the credential, and one more of each of the two kinds that need no more.
const STEPS: usize = 3;

/// Logs in with the machine's credential.
pub(super) async fn log_in(
    mut connection: Connection,
    machine: &SshTarget,
    timeouts: Timeouts,
) -> Result<Connection, SshError> {
    let key = match &machine.credential {
        SshCredential::Key { pem, passphrase } => {
            let (pem, passphrase) = (pem.clone(), passphrase.clone());
            // A passphrase is made expensive to try, and so expensive to use.
            let reading = tokio::task::spawn_blocking(move || private_key(&pem, passphrase.as_deref()));
            Some(reading.await.map_err(|error| SshError::Key { why: error.to_string() })??)
        }
        SshCredential::Password(_) => None,
    };
    let (socket, inbox) = (connection.socket.0.clone(), connection.inbox.clone());
    let mut steps = Steps { handle: &mut connection.handle, machine, key, answered: false, socket, inbox };
    let outcome = timeout(timeouts.answer, steps.run()).await;
    let user = machine.user.clone();
    match outcome.map_err(|_| SshError::TimedOut { stage: STAGE, after: timeouts.answer })? {
        Ok(LoggedIn::Yes) => Ok(connection),
        Ok(LoggedIn::MoreAsked) => Err(SshError::MoreAsked { user }),
        Ok(LoggedIn::ChangeAsked) => Err(SshError::PasswordExpired { user }),
        Ok(LoggedIn::No(_) | LoggedIn::Further(_)) | Err(_) if connection.handle.is_closed() => {
            Err(SshError::Closed { stage: STAGE })
        }
        Ok(LoggedIn::No(methods) | LoggedIn::Further(methods)) => {
            let names: Vec<&str> = methods.iter().map(<&'static str>::from).collect();
            let accepted =
                if names.is_empty() { String::new() } else { format!("; it accepts {}", names.join(", ")) };
            Err(SshError::Refused { user, method: machine.credential.name(), accepted })
        }
        Err(_) => Err(SshError::Closed { stage: STAGE }),
    }
}

enum LoggedIn {
    Yes,
    No(MethodSet),
    /// That step was right, and one of these is wanted too.
    Further(MethodSet),
    MoreAsked,
    /// The password was right, but has to be changed.
    ChangeAsked,
}

impl From<AuthResult> for LoggedIn {
    fn from(result: AuthResult) -> Self {
        match result {
            AuthResult::Success => Self::Yes,
            AuthResult::Failure { partial_success: true, remaining_methods } => {
                Self::Further(remaining_methods)
            }
            AuthResult::Failure { remaining_methods, .. } => Self::No(remaining_methods),
        }
    }
}

struct Steps<'a> {
    handle: &'a mut Handle<ClientHandler>,
    machine: &'a SshTarget,
    key: Option<Arc<PrivateKey>>,
    /// Whether a question was answered with the password.
    answered: bool,
    socket: Arc<ThrottledSocket>,
    inbox: Arc<Inbox>,
}

impl Steps<'_> {
    async fn run(&mut self) -> Result<LoggedIn, russh::Error> {
        let mut outcome = match (&self.key, &self.machine.credential) {
            (Some(key), _) => {
                let key = PrivateKeyWithHashAlg::new(key.clone(), None);
                self.handle.authenticate_publickey(&self.machine.user, key).await?.into()
            }
            (None, SshCredential::Password(password)) => self.password(password).await?,
            (None, SshCredential::Key { .. }) => LoggedIn::No(MethodSet::empty()),
        };
        for _ in 1..STEPS {
            let LoggedIn::Further(methods) = &outcome else { break };
            // A machine asks somebody else, by telephone for instance, in a round that has no questions.
            outcome = match (&self.machine.credential, methods) {
                (_, methods) if methods.contains(&MethodKind::KeyboardInteractive) => {
                    self.answered = true;
                    self.questions("", methods.clone()).await?
                }
                (SshCredential::Password(password), methods) if methods.contains(&MethodKind::Password) => {
                    self.shown(password).await?
                }
                _ => LoggedIn::MoreAsked,
            };
        }
        Ok(match outcome {
            LoggedIn::Further(_) => LoggedIn::MoreAsked,
            outcome => outcome,
        })
    }

    /// Tries the password, or gives it as the answer to the one question of a host that takes it only so. It never
    /// tries both, because each refusal counts. As ssh does, it first asks the host which of them it takes.
    async fn password(&mut self, password: &str) -> Result<LoggedIn, russh::Error> {
        let methods = match self.handle.authenticate_none(&self.machine.user).await?.into() {
            LoggedIn::No(methods) => methods,
            LoggedIn::Further(_) => return Ok(LoggedIn::MoreAsked),
            other => return Ok(other),
        };
        if methods.contains(&MethodKind::Password) {
            return self.shown(password).await;
        }
        if !methods.contains(&MethodKind::KeyboardInteractive) {
            return Ok(LoggedIn::No(methods));
        }
        self.questions(password, methods).await
    }

    /// Sends the password as it is. A machine that wants another password says so with a message (RFC 4252, section 8)
    /// that the library reads and does not report: then the machine has answered, and no answer comes.
    async fn shown(&mut self, password: &str) -> Result<LoggedIn, russh::Error> {
        let before = (self.socket.received(), self.inbox.banners());
        let (socket, inbox) = (self.socket.clone(), self.inbox.clone());
        let answered = self.handle.authenticate_password(&self.machine.user, password);
        tokio::select! {
            biased;
            answer = answered => Ok(answer?.into()),
            () = not_understood(socket, inbox, before) => Ok(LoggedIn::ChangeAsked),
        }
    }

    async fn questions(&mut self, password: &str, methods: MethodSet) -> Result<LoggedIn, russh::Error> {
        let mut asked = self.handle.authenticate_keyboard_interactive_start(&self.machine.user, None).await?;
        loop {
            let answers = match asked {
                KeyboardInteractiveAuthResponse::Success => return Ok(LoggedIn::Yes),
                KeyboardInteractiveAuthResponse::Failure { partial_success: true, remaining_methods } => {
                    return Ok(LoggedIn::Further(remaining_methods));
                }
                KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(LoggedIn::No(methods)),
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => match prompts.as_slice() {
                    [] => Vec::new(),
                    [prompt] if !prompt.echo && !self.answered => {
                        self.answered = true;
                        vec![password.to_owned()]
                    }
                    _ => return Ok(LoggedIn::MoreAsked),
                },
            };
            asked = self.handle.authenticate_keyboard_interactive_respond(answers).await?;
        }
    }
}

/// Resolves when the machine has sent something that is neither an answer nor a banner.
async fn not_understood(socket: Arc<ThrottledSocket>, inbox: Arc<Inbox>, before: (u64, u64)) {
    while socket.received() == before.0 {
        sleep(CHECK_EVERY).await;
    }
    sleep(UNDERSTOOD).await;
    if inbox.banners() != before.1 {
        // The machine sends banners, and may yet answer.
        std::future::pending::<()>().await;
    }
}
