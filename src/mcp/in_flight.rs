//! A request of a session while it is under way, and the Gate's pass that allows it to go on.

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
use crate::clock::Clock;
use crate::gate::Pass;
use crate::sessions::Sessions;

/// The longest time between two looks at when the token expires: somebody may set the wall clock.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// One request of a session, from its admission to the last byte of its answer.
pub struct InFlight {
    pub sessions: Arc<Sessions>,
    pub clock: Clock,
    pub caller: Caller,
    pub number: SessionNumber,
    /// The Gate's pass; given back once nothing more will be handed on.
    pub pass: Option<Pass>,
    /// The ids of the calls that have not been answered yet.
    pub ids: Vec<Value>,
    pub batch: bool,
    /// Whether the request is `subscriptions/listen`, whose answer is the end of the stream.
    pub listens: bool,
    /// How long the upstream may be silent in the middle of an answer that is not a stream.
    pub patience: Duration,
    pub stopping: CancellationToken,
    /// How many bytes of the answer were counted as they were handed on.
    pub counted: AtomicU64,
    /// The bytes that are held for the request.
    pub share: Share,
    /// Set while an upstream has the request that must be told when nobody waits for the answer any more. An upstream
    /// of 2026-07-28 learns it from the closed connection instead.
    pub upstream_work: Option<UpstreamWork>,
}

/// The reasons why nothing more may be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The session has ended, or the credential that the request came with. The pass says which, and why.
    Ended,
    /// The service stops.
    Stopping,
    /// The credentials have expired, or the session's lifetime is over and the scheduler has not yet said so.
    Expired,
    /// The gateway holds too much, and this request has held its share for longest.
    OverBudget,
}

impl InFlight {
    /// Resolves when nothing more may be handed on, with the error for the calls that are in flight.
    pub async fn cut(&self) -> RpcError {
        self.rpc_error(self.watch().await)
    }

    /// Like [`Self::cut`], but the future does not borrow the request and yields the reason.
    pub fn watch(&self) -> impl Future<Output = StopReason> + Send + use<> {
        let cancelled = self.pass.as_ref().map(Pass::cancelled).unwrap_or_default();
        let (stopping, sessions, number) = (self.stopping.clone(), self.sessions.clone(), self.number);
        let (presented, clock) = (self.caller.credential.expires_at, self.clock.clone());
        let given_up = self.share.given_up().clone();
        async move {
            loop {
                let remaining = remaining(&sessions, &clock, number, presented).min(CHECK_EVERY);
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return StopReason::Ended,
                    () = stopping.cancelled() => return StopReason::Stopping,
                    () = given_up.cancelled() => return StopReason::OverBudget,
                    () = clock.sleep(remaining) => {}
                }
                if self::remaining(&sessions, &clock, number, presented).is_zero() {
                    return StopReason::Expired;
                }
            }
        }
    }

    /// Whether nothing more may be handed on, asked without waiting.
    pub fn stopped(&self) -> Option<StopReason> {
        if self.is_cut() {
            Some(StopReason::Ended)
        } else if self.stopping.is_cancelled() {
            Some(StopReason::Stopping)
        } else if self.share.given_up().is_cancelled() {
            Some(StopReason::OverBudget)
        } else {
            let presented = self.caller.credential.expires_at;
            remaining(&self.sessions, &self.clock, self.number, presented)
                .is_zero()
                .then_some(StopReason::Expired)
        }
    }

    /// The error for calls that are in flight when the request stops for this reason.
    pub fn rpc_error(&self, stop: StopReason) -> RpcError {
        match stop {
            StopReason::Ended => {
                let ending = self.pass.as_ref().and_then(Pass::ending);
                // Of what can end it only a lease begins again.
                RpcError::cut_off_by(ending.unwrap_or(Ending::Lapsed))
            }
            StopReason::Stopping => RpcError::stopping(),
            StopReason::OverBudget => RpcError::over_budget(),
            StopReason::Expired => {
                let session = self.sessions.queries.open_session(self.number);
                match session.filter(|session| self.clock.now() >= session.lifetime_ends_at) {
                    Some(_) => RpcError::ended(Reason::Lifetime),
                    None => RpcError::expired(),
                }
            }
        }
    }

    /// Whether the session or the credential has ended. It must be asked in the very moment in which something is
    /// handed on.
    pub fn is_cut(&self) -> bool {
        self.pass.as_ref().is_some_and(|pass| pass.cancelled().is_cancelled())
    }

    /// Waits for work at the upstream, unless the session is cut off before it is done.
    pub async fn wait<T>(&self, work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
        let done = tokio::select! {
            biased;
            rpc_error = self.cut() => Err((rpc_error, true)),
            done = work => done.map_err(|rpc_error| (rpc_error, false)),
        };
        done.map_err(|(rpc_error, cut)| {
            if cut || rpc_error.may_leave_work() {
                self.give_up(&rpc_error);
            }
            rpc_error
        })
    }

    /// Tells the upstream that nobody waits any more for the calls that it has not answered yet.
    pub fn give_up(&self, why: &RpcError) {
        if let Some(work) = &self.upstream_work {
            work.cancel(&self.ids, &why.message);
        }
    }

    /// The last messages on a stream of events, one for each call that is still owed an answer.
    pub fn farewells(&mut self, rpc_error: &RpcError) -> Vec<String> {
        let ids = std::mem::take(&mut self.ids);
        if !self.listens {
            return ids.iter().map(|id| rpc_error.answer(id)).collect();
        }
        // A client that reads no result of `subscriptions/listen` subscribes again by itself (MCP 2026-07-28,
        // basic/patterns/subscriptions), which is right after a restart. A result tells it that all is well, which
        // would be wrong where the way back is barred.
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

    /// The ids of this request's calls that a message of the upstream answers.
    pub fn answers_in(&self, message: &[u8]) -> Vec<Value> {
        if self.ids.is_empty() || message.is_empty() {
            return vec![];
        }
        message::answered(message).into_iter().filter(|id| self.ids.contains(id)).collect()
    }

    /// Notes that these calls have been answered.
    pub fn mark_answered(&mut self, answered: &[Value]) {
        if !answered.is_empty() {
            self.ids.retain(|id| !answered.contains(id));
        }
    }

    /// The response to the client when nothing came back that could be handed on.
    pub fn failed(mut self, rpc_error: RpcError) -> ErrorResponse {
        let ids = std::mem::take(&mut self.ids);
        match self.pass.as_ref().and_then(Pass::ending) {
            // No call is left to answer with the reason, so the status says it.
            Some(Ending::Session(reason)) if ids.is_empty() => ErrorResponse::session_not_found(Some(reason)),
            Some(Ending::Credential(end)) if ids.is_empty() => ErrorResponse::credential_ended(end),
            _ => ErrorResponse::in_place_of_answer(rpc_error, ids, self.batch),
        }
    }

    /// Gives the pass back. While the request held it the session could not go stale; from now on its silence counts.
    pub fn release_pass(&mut self) {
        if self.pass.is_some() {
            self.sessions.gateway.saw(self.number);
        }
        self.pass = None;
    }

    /// Counts bytes of the upstream's answer at the Gate, at the moment in which they are handed on.
    pub fn count_bytes(&self, bytes_out: u64) {
        if let Some(pass) = &self.pass {
            self.counted.fetch_add(bytes_out, Ordering::Relaxed);
            pass.count(Counts { bytes_out, ..Counts::default() });
        }
    }

    /// Records how much of the upstream's answer was handed on, without the bytes that were counted before.
    pub fn record_bytes(&self, bytes_out: u64) {
        // There is no runtime at the end of the process, and nothing can be recorded then.
        if bytes_out == 0 || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if let Some(session) = self.sessions.queries.open_session(self.number) {
            let rest = bytes_out.saturating_sub(self.counted.load(Ordering::Relaxed));
            let counts = Counts { bytes_out: rest, ..Counts::default() };
            self.sessions.traffic.observe(&self.caller, &session, counts);
        }
    }
}

/// How long the request has valid credentials. A later request may have renewed the session's token; the credential
/// that this request came with may be about to renew it.
fn remaining(sessions: &Sessions, clock: &Clock, number: SessionNumber, presented: Time) -> Duration {
    let until = match sessions.queries.open_session(number) {
        Some(session) => presented.max(session.token_expires_at).min(session.lifetime_ends_at),
        // The session has ended, which the pass tells.
        None => return CHECK_EVERY,
    };
    (until - clock.now()).to_std().unwrap_or_default()
}

/// The answer to `subscriptions/listen` by which a server ends it in order.
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
