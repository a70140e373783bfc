//! One request of a session under way, and the leave it holds to go on.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ending::{CredentialEnd, Ending};
use sessiond_core::ids::SessionNumber;
use sessiond_core::reason::Reason;
use sessiond_core::session::event::Counts;
use tokio_util::sync::CancellationToken;

use super::budget::Share;
use super::goodbye::UpstreamWork;
use super::message;
use super::reply::{ErrorResponse, RpcError};
use crate::gate::Pass;
use crate::sessions::Sessions;

/// Longest time between two looks at when the token expires: the wall clock may be set.
const LOOK: Duration = Duration::from_secs(60);

/// One request of a session, from when it was let in to the last byte of its answer.
pub struct InFlight {
    pub sessions: Arc<Sessions>,
    pub caller: Caller,
    pub number: SessionNumber,
    /// Given back once nothing more will be handed on.
    pub pass: Option<Pass>,
    /// What the request asked and has not been answered yet.
    pub ids: Vec<Value>,
    pub batch: bool,
    /// It is `subscriptions/listen`, whose answer is the end of the stream.
    pub listens: bool,
    /// How long the upstream may be silent in the middle of an answer that is not a stream.
    pub patience: Duration,
    pub stopping: CancellationToken,
    /// Bytes of the answer that were counted as they were handed on.
    pub counted: AtomicU64,
    /// What is held for it.
    pub share: Share,
    /// It is with an upstream that has to be told when nobody waits for the answer any more; the closed connection tells
    /// those of 2026-07-28.
    pub upstream_work: Option<UpstreamWork>,
}

/// Why nothing more may be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The session has ended, or the credential that the request came with: the pass says which, and why.
    Ended,
    /// The service is.
    Stopping,
    /// The credentials have expired, or the session's lifetime is over before the scheduler has said so.
    Expired,
    /// Too much is held, and it is the oldest.
    OverBudget,
}

impl InFlight {
    /// Resolves when nothing of the session may be handed on any more, and with which error for its calls.
    pub async fn cut(&self) -> RpcError {
        self.rpc_error(self.watch().await)
    }

    /// The same, without holding on to the errand.
    pub fn watch(&self) -> impl Future<Output = StopReason> + Send + use<> {
        let cancelled = self.pass.as_ref().map(Pass::cancelled).unwrap_or_default();
        let (stopping, sessions, number) = (self.stopping.clone(), self.sessions.clone(), self.number);
        let presented = self.caller.credential.expires_at;
        let given_up = self.share.given_up().clone();
        async move {
            loop {
                let remaining = remaining(&sessions, number, presented).min(LOOK);
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return StopReason::Ended,
                    () = stopping.cancelled() => return StopReason::Stopping,
                    () = given_up.cancelled() => return StopReason::OverBudget,
                    () = sessions.passes(remaining) => {}
                }
                if self::remaining(&sessions, number, presented).is_zero() {
                    return StopReason::Expired;
                }
            }
        }
    }

    /// Whether nothing may be handed on any more, asked without waiting.
    pub fn stopped(&self) -> Option<StopReason> {
        if self.is_cut() {
            Some(StopReason::Ended)
        } else if self.stopping.is_cancelled() {
            Some(StopReason::Stopping)
        } else if self.share.given_up().is_cancelled() {
            Some(StopReason::OverBudget)
        } else {
            let presented = self.caller.credential.expires_at;
            remaining(&self.sessions, self.number, presented).is_zero().then_some(StopReason::Expired)
        }
    }

    /// What to say to calls that are in flight then.
    pub fn rpc_error(&self, stop: StopReason) -> RpcError {
        match stop {
            StopReason::Ended => {
                let ending = self.pass.as_ref().and_then(Pass::ending);
                RpcError::over(ending.unwrap_or(Ending::Session(Reason::Terminated)))
            }
            StopReason::Stopping => RpcError::stopping(),
            StopReason::OverBudget => RpcError::over_budget(),
            StopReason::Expired => {
                let session = self.sessions.open_session(self.number);
                match session.filter(|session| self.sessions.now() >= session.lifetime_ends_at) {
                    Some(_) => RpcError::ended(Reason::Lifetime),
                    None => RpcError::expired(),
                }
            }
        }
    }

    /// Whether its session or its credential has ended, to be asked in the moment in which something is handed on.
    pub fn is_cut(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| pass.cancelled().is_cancelled())
    }

    /// Waits for something of the upstream's, unless the session is cut off before.
    pub async fn wait<T>(&self, work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
        let done = tokio::select! {
            biased;
            rpc_error = self.cut() => Err((rpc_error, true)),
            done = work => done.map_err(|rpc_error| (rpc_error, false)),
        };
        done.map_err(|(rpc_error, cut)| {
            if cut || rpc_error.leaves_it_at_work() {
                self.give_up(&rpc_error);
            }
            rpc_error
        })
    }

    /// Tells the upstream that nobody waits any more for what it has not answered yet.
    pub fn give_up(&self, why: &RpcError) {
        if let Some(work) = &self.upstream_work {
            work.cancel(&self.ids, &why.message);
        }
    }

    /// The last words on a stream of events, one for each call that is still owed an answer.
    pub fn farewells(&mut self, rpc_error: &RpcError) -> Vec<String> {
        let ids = std::mem::take(&mut self.ids);
        if !self.listens {
            return ids.iter().map(|id| rpc_error.answer(id)).collect();
        }
        // MCP 2026-07-28, basic/patterns/subscriptions: a client that reads no result comes back by itself, which is right
        // after a restart; a result says that all is well, which it is not when the way back is barred.
        let bars = [RpcError::ended(Reason::Revoked), RpcError::ended(Reason::Archived), RpcError::expired()];
        let bars = bars.into_iter().chain(CredentialEnd::ALL.map(RpcError::credential_ended));
        match *rpc_error == RpcError::stopping() {
            true => vec![],
            false if bars.into_iter().any(|bar| bar == *rpc_error) => {
                ids.iter().map(|id| rpc_error.answer(id)).collect()
            }
            false => ids.iter().map(graceful).collect(),
        }
    }

    /// The calls that an upstream's message answers.
    pub fn answers_in(&self, message: &[u8]) -> Vec<Value> {
        if self.ids.is_empty() || message.is_empty() {
            return vec![];
        }
        message::answered(message).into_iter().filter(|id| self.ids.contains(id)).collect()
    }

    /// These calls are owed nothing more.
    pub fn settle(&mut self, answered: &[Value]) {
        if !answered.is_empty() {
            self.ids.retain(|id| !answered.contains(id));
        }
    }

    /// What its client is told when nothing came back that could be handed on.
    pub fn failed(mut self, rpc_error: RpcError) -> ErrorResponse {
        let ids = std::mem::take(&mut self.ids);
        match self.pass.as_ref().and_then(Pass::ending) {
            // There is no call to answer with the reason.
            Some(Ending::Session(reason)) if ids.is_empty() => ErrorResponse::session_not_found(Some(reason)),
            Some(Ending::Credential(end)) if ids.is_empty() => ErrorResponse::credential_ended(end),
            _ => ErrorResponse::in_place_of_answer(rpc_error, ids, self.batch),
        }
    }

    /// Gives the pass back. While it was held the session could not go stale; from now on its silence counts.
    pub fn release_pass(&mut self) {
        if self.pass.is_some() {
            self.sessions.saw(self.number);
        }
        self.pass = None;
    }

    /// Counts what of the upstream's answer is handed on, as it is.
    pub fn count_bytes(&self, bytes_out: u64) {
        if let Some(pass) = &self.pass {
            self.counted.fetch_add(bytes_out, Ordering::Relaxed);
            pass.count(Counts { bytes_out, ..Counts::default() });
        }
    }

    /// Writes down how much of the upstream's answer was handed on.
    pub fn record_bytes(&self, bytes_out: u64) {
        // Without a runtime this is the end of the process.
        if bytes_out == 0 || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if let Some(session) = self.sessions.open_session(self.number) {
            let rest = bytes_out.saturating_sub(self.counted.load(Ordering::Relaxed));
            let counts = Counts { bytes_out: rest, ..Counts::default() };
            self.sessions.observe(&self.caller, &session, counts);
        }
    }
}

/// How long the session has credentials for: its token's, which a later request may have renewed, or those that a request
/// came with and that are about to renew it.
fn remaining(sessions: &Sessions, number: SessionNumber, presented: Time) -> Duration {
    let until = match sessions.open_session(number) {
        Some(session) => presented.max(session.token_expires_at).min(session.lifetime_ends_at),
        // It has ended: the pass tells.
        None => return LOOK,
    };
    (until - sessions.now()).to_std().unwrap_or_default()
}

/// The answer to `subscriptions/listen` with which a server ends it.
fn graceful(id: &Value) -> String {
    let meta = json!({ "io.modelcontextprotocol/subscriptionId": id });
    let result = json!({ "resultType": "complete", "_meta": meta });
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.release_pass();
    }
}
