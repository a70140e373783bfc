//! The supervisor of a terminal: a task that watches over it until its end, records that end, and then has it told.

use std::sync::Arc;
use std::time::Duration;

use sessiond_core::ending::{CredentialEnd, Ending, LAPSED};
use sessiond_core::reason::Reason;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::hub::TerminalEnd;
use super::open_terminal::{EndReason, Terminal};
use super::registry::{LAST_WORDS, Terminals};
use super::ssh;
use crate::error::Error;
use crate::gate::Pass;

/// How often the supervisor looks whether something was typed.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Watches over one terminal until its end.
pub(super) struct Supervisor {
    pub terminals: Arc<Terminals>,
    pub terminal: Arc<Terminal>,
}

impl Supervisor {
    /// Runs until the end, which is first recorded and then told: a client that has read the farewell finds the session
    /// ended, and may open the next one.
    pub async fn run(self, recording: JoinHandle<()>) {
        let Self { terminals, terminal } = &self;
        terminal.set_end_reason(self.wait().await);
        let end = terminal.end_reason();
        let by_itself = end.reason == Reason::Exited || end.reason == Reason::MachineLost;
        if !by_itself {
            terminal.hub.cut();
        }
        timeout(LAST_WORDS, recording).await.ok();
        self.record_end(&end).await;
        terminals.remove(terminal.session.id);
        terminal.announce_end();
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
        let enter = || terminals.sessions.admission.enter(&terminal.caller, &terminal.session);
        let refused = |error: Error| EndReason { reason: Reason::Revoked, message: error.to_string() };
        let mut pass = match enter() {
            Ok(pass) => Some(pass),
            Err(error) => return refused(error),
        };
        let (deserted, ended) = (hub.deserted(config.terminal_grace), hub.ended());
        tokio::pin!(deserted, ended);
        let (mut typed, mut typed_at) = (0, Instant::now());
        loop {
            tokio::select! {
                biased;
                Ending::Lapsed = ended_pass(pass.as_ref()) => {
                    // Its connections end by themselves. The shell goes on, and nobody sees it until there is a lease.
                    pass = None;
                }
                ending = ended_pass(pass.as_ref()) => {
                    let end = end_reason(ending);
                    terminal.set_end_reason(end.clone());
                    if let Ending::Session(_) = ending {
                        // Connections are told before the pass is given back, because a revocation waits for the pass.
                        // The session's end is on record by now.
                        terminal.announce_end();
                    }
                    hub.cut();
                    return end;
                }
                end = &mut ended => return shell_end_reason(&end, &terminal.end_reason()),
                () = &mut deserted => {
                    let message = "nobody came back in time".to_owned();
                    return EndReason { reason: Reason::Client, message };
                }
                () = sleep(CHECK_EVERY) => {}
            }
            if pass.is_none() {
                pass = match enter() {
                    Ok(pass) => Some(pass),
                    Err(Error::Busy) => None,
                    Err(error) => return refused(error),
                };
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
    async fn record_end(&self, end: &EndReason) {
        let (sessions, terminal) = (&self.terminals.sessions, &self.terminal);
        let number = terminal.session.number;
        sessions.traffic.flush(number).await;
        let ended = match end.reason {
            Reason::Exited => {
                sessions.terminals.shell_ended(&terminal.caller, number, end.message.clone()).await
            }
            reason => sessions.lifecycle.end_hosted(&terminal.caller, number, reason).await,
        };
        if let Err(error) = ended {
            tracing::error!(%error, session = %terminal.session.id, "the end of a terminal session is not on record");
        }
    }
}

/// Resolves when a pass is good no more; never without one.
async fn ended_pass(pass: Option<&Pass>) -> Ending {
    match pass {
        Some(pass) => pass.ended().await,
        None => std::future::pending().await,
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
        Ending::Lapsed => EndReason { reason: Reason::Failed, message: LAPSED.to_owned() },
    }
}

/// The reason for the end of a shell that ended by itself; for one that was cut off the reason is known already.
fn shell_end_reason(end: &TerminalEnd, cut: &EndReason) -> EndReason {
    let because = |reason, message: String| EndReason { reason, message };
    match end {
        TerminalEnd::Shell(ssh::ShellEnd::Exited(status)) => {
            because(Reason::Exited, format!("the shell ended with status {status}"))
        }
        TerminalEnd::Shell(ssh::ShellEnd::Killed(signal)) => {
            because(Reason::Exited, format!("the shell was ended by signal {signal}"))
        }
        TerminalEnd::Shell(ssh::ShellEnd::Closed) => because(Reason::Exited, "the shell ended".to_owned()),
        TerminalEnd::Shell(ssh::ShellEnd::Lost(what)) => because(Reason::MachineLost, what.clone()),
        TerminalEnd::Cut => cut.clone(),
    }
}
