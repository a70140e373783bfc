//! The task that sends goodbyes to upstreams: few at a time, none for long, and a second time where the first was not
//! received.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::forward::{IncomingResponse, OutgoingRequest, read_whole, set_session_header};
use super::goodbye::{AbandonedSession, Cancellation, Notice, Receivers};
use super::upstream::PROTOCOL_VERSION;
use super::upstream_sessions::UpstreamState;
use crate::gate::Departed;
use crate::meter;

/// How long an upstream may take over a goodbye.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before a goodbye that was not received is sent once more.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How many sessions' goodbyes are under way at a time.
const AT_ONCE: usize = 32;
/// How many of them may be for one application: a revocation of many sessions must not flood the server behind them, and a
/// server that does not answer must not hold up the others.
const AT_ONCE_FOR_ONE: usize = 8;
/// How many calls of one session are cancelled at a time.
const CALLS_AT_ONCE: usize = 8;
/// How many calls of one session are cancelled at most: the others end with the session.
const MOST_CALLS: usize = 256;
/// How long goodbyes that are under way may still take after a stop. What is left is in the store.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How many sessions are read from the store at a time, and how many are forgotten there at a time.
const PAGE: usize = 500;

/// A goodbye that waits for its turn.
enum Job {
    Session(SessionNumber),
    AbandonedSession(AbandonedSession),
}

/// What a job has come to.
struct Finished {
    application: ApplicationNumber,
    /// The session that the job was about.
    session: Option<SessionNumber>,
    /// Whether the upstream knows all that it has to know of that session.
    complete: bool,
}

/// Sessions of which an upstream is to be told something, each with its end if it has ended.
type Pending = HashMap<SessionNumber, Option<Departed>>;

/// The task behind [`Goodbyes`].
struct GoodbyeSender {
    gateway: Arc<Gateway>,
    /// The sessions that wait or are under way, and which of them have ended. A notice about one that is under way
    /// makes it wait once more.
    pending: Arc<Mutex<Pending>>,
    waiting: HashMap<ApplicationNumber, VecDeque<Job>>,
    /// The applications with waiting jobs, the next one first.
    turns: VecDeque<ApplicationNumber>,
    running: HashMap<ApplicationNumber, usize>,
    under_way: JoinSet<Finished>,
    /// The sessions whose upstreams know all, but whose state is still in the store.
    to_forget: Vec<SessionNumber>,
}

impl Gateway {
    /// Sends goodbyes until it is told to stop.
    pub async fn say_goodbyes(self: Arc<Self>, stopping: CancellationToken) {
        let goodbyes = self.goodbyes.clone();
        let mut receivers = goodbyes.receivers.lock().await;
        let Receivers { notices, departures } = &mut *receivers;
        let mut sender = GoodbyeSender {
            gateway: self,
            pending: Arc::default(),
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            running: HashMap::new(),
            under_way: JoinSet::new(),
            to_forget: vec![],
        };
        sender.load_untold().await;
        loop {
            sender.start();
            sender.forget(PAGE).await;
            gauge!(meter::GOODBYES_WAITING).set(sender.pending.lock().len() as f64);
            let idle = sender.under_way.is_empty();
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(notice) = notices.recv() => sender.take(notice),
                Some(departed) = departures.recv() => sender.take(Notice::Departed(departed)),
                Some(Ok(done)) = sender.under_way.join_next(), if !idle => sender.finish(done),
            }
            // All departures that have come meanwhile are taken together: each pass of this loop looks at everything.
            while let Ok(departed) = departures.try_recv() {
                sender.take(Notice::Departed(departed));
            }
            if sender.under_way.is_empty() && sender.waiting.is_empty() {
                sender.forget(1).await;
            }
        }
        while let Ok(notice) = notices.try_recv() {
            sender.take(notice);
        }
        sender.start();
        let remaining = async {
            while let Some(done) = sender.under_way.join_next().await {
                done.into_iter().for_each(|done| sender.finish(done));
            }
        };
        tokio::time::timeout(STOP_PATIENCE, remaining).await.ok();
        sender.forget(1).await;
    }
}

impl GoodbyeSender {
    /// Reads from the store which sessions ended while no process could tell their upstreams, or was interrupted while
    /// it told them.
    async fn load_untold(&mut self) {
        let mut after = SessionNumber(0);
        loop {
            let untold = match self.gateway.sessions.gateway.untold(after, PAGE).await {
                Ok(untold) => untold,
                Err(error) => {
                    tracing::warn!(?error, "which upstreams have not been told of ended sessions is unknown");
                    return;
                }
            };
            let Some(last) = untold.last() else { return };
            after = last.number;
            for departed in untold {
                self.take(Notice::Departed(departed));
            }
        }
    }

    /// Queues what a notice calls for. A session that waits already, or is under way, is not queued twice.
    fn take(&mut self, notice: Notice) {
        let (session, application) = match &notice {
            Notice::AbandonedSession(abandoned) => {
                let application = abandoned.application;
                if let Notice::AbandonedSession(abandoned) = notice {
                    self.queue(application, Job::AbandonedSession(abandoned));
                }
                return;
            }
            Notice::Cancellation(session, application) => (*session, *application),
            Notice::Departed(departed) => (departed.number, departed.application),
        };
        let pending = self.pending.clone();
        let mut pending = pending.lock();
        let known = pending.contains_key(&session);
        let one = pending.entry(session).or_default();
        if let Notice::Departed(departed) = notice {
            *one = Some(departed);
        }
        if !known {
            self.queue(application, Job::Session(session));
        }
    }

    /// Adds a job to those that wait for its application's turn.
    fn queue(&mut self, application: ApplicationNumber, job: Job) {
        let waiting = self.waiting.entry(application).or_default();
        if waiting.is_empty() {
            self.turns.push_back(application);
        }
        waiting.push_back(job);
    }

    /// Begins as many jobs as may be under way, one application after the other.
    fn start(&mut self) {
        let mut passed = 0;
        while self.under_way.len() < AT_ONCE && passed < self.turns.len() {
            let Some(application) = self.turns.pop_front() else { return };
            let running = self.running.entry(application).or_default();
            if *running >= AT_ONCE_FOR_ONE {
                self.turns.push_back(application);
                passed += 1;
                continue;
            }
            passed = 0;
            let Some(job) = self.waiting.get_mut(&application).and_then(VecDeque::pop_front) else {
                continue;
            };
            *running += 1;
            if self.waiting.get(&application).is_some_and(VecDeque::is_empty) {
                self.waiting.remove(&application);
            } else {
                self.turns.push_back(application);
            }
            let (gateway, pending) = (self.gateway.clone(), self.pending.clone());
            self.under_way.spawn(async move {
                let session = match &job {
                    Job::Session(session) => Some(*session),
                    Job::AbandonedSession(_) => None,
                };
                let telling = async move {
                    match job {
                        Job::Session(session) => gateway.say_goodbye_of(session, &pending).await,
                        Job::AbandonedSession(abandoned) => {
                            gateway.delete_abandoned(abandoned).await;
                            false
                        }
                    }
                };
                // A job that panics frees its place too; its session is still in the store.
                let complete = AssertUnwindSafe(telling).catch_unwind().await.unwrap_or(false);
                Finished { application, session, complete }
            });
        }
    }

    fn finish(&mut self, Finished { application, session, complete }: Finished) {
        self.to_forget.extend(session.filter(|_| complete));
        if let Some(session) = session {
            let pending = self.pending.clone();
            let mut pending = pending.lock();
            let ended = pending.get(&session).is_some_and(Option::is_some);
            if ended || self.gateway.goodbyes.has_cancellations(session) {
                self.queue(application, Job::Session(session));
            } else {
                pending.remove(&session);
            }
        }
        if let Some(running) = self.running.get_mut(&application) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&application);
            }
        }
    }

    /// Deletes the state of sessions whose upstreams know all, once there are this many.
    async fn forget(&mut self, enough: usize) {
        if self.to_forget.len() < enough {
            return;
        }
        if let Err(error) =
            self.gateway.sessions.gateway.forget_states(std::mem::take(&mut self.to_forget)).await
        {
            // Those upstreams are told once more after a restart, which does no harm.
            tracing::warn!(?error, "that upstreams were told of ended sessions could not be kept");
        }
    }
}

impl Gateway {
    /// Tells the upstream of a session which of its calls are cancelled and then, if the session has ended, that it is
    /// over. Returns whether the upstream knows all.
    async fn say_goodbye_of(&self, session: SessionNumber, pending: &Mutex<Pending>) -> bool {
        let departed = pending.lock().get_mut(&session).and_then(Option::take);
        if departed.is_some() {
            self.goodbyes.wait_for_work(session).await;
        }
        self.cancel(self.goodbyes.take_cancellations(session)).await;
        let Some(departed) = departed else { return false };
        self.upstream_sessions.remove(session);
        let state = match self.sessions.gateway.state_of_departed(departed).await {
            Ok(state) => state.and_then(|state| serde_json::from_slice::<UpstreamState>(&state).ok()),
            Err(error) => {
                tracing::warn!(?error, session = %departed.id, "what was kept to tell an upstream cannot be read");
                return false;
            }
        };
        if let Some(abandoned) = state.and_then(|state| AbandonedSession::of(departed.application, &state)) {
            self.delete_abandoned(abandoned).await;
        }
        true
    }

    /// Tells the upstreams which calls are cancelled, a few at a time.
    async fn cancel(&self, cancellations: Vec<Cancellation>) {
        let each: Vec<_> =
            cancellations.into_iter().flat_map(Cancellation::notifications).take(MOST_CALLS).collect();
        let telling =
            stream::iter(each).for_each_concurrent(CALLS_AT_ONCE, move |(state, outgoing)| async move {
                let outcome = self.send_goodbye(&state.url, state.session.as_deref(), outgoing).await;
                counter!(meter::GOODBYES, "what" => "cancelled", "outcome" => outcome).increment(1);
            });
        telling.await;
    }

    /// Tells an upstream by DELETE that one of its sessions is over.
    async fn delete_abandoned(&self, abandoned: AbandonedSession) {
        let AbandonedSession { application, url, session, protocol_version } = abandoned;
        let headers = version_header(protocol_version.as_deref());
        let outgoing = OutgoingRequest { application, method: Method::DELETE, headers, body: Bytes::new() };
        let outcome = self.send_goodbye(&url, Some(&session), outgoing).await;
        counter!(meter::GOODBYES, "what" => "delete", "outcome" => outcome).increment(1);
    }

    /// Sends a goodbye, and a second time where the first was not received. Returns the outcome as the metric names it.
    async fn send_goodbye(
        &self,
        url: &str,
        session: Option<&str>,
        outgoing: OutgoingRequest,
    ) -> &'static str {
        for last in [false, true] {
            let sending = async {
                let IncomingResponse { head, body } = self.send(url, session, outgoing.clone()).await.ok()?;
                // A connection is used again only once its answer was read.
                read_whole(body, PAGE, PATIENCE).await.ok();
                Some(head.status)
            };
            match tokio::time::timeout(PATIENCE, sending).await.ok().flatten() {
                Some(status) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {}
                Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return "refused",
                // An upstream that does not know the session, or takes no goodbyes, needs no other.
                Some(_) => return "told",
                None => {}
            }
            if !last {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        "failed"
    }
}

impl Cancellation {
    /// The notifications that cancel the calls, one each, with the session at the upstream that each goes to.
    fn notifications(self) -> Vec<(Arc<UpstreamState>, OutgoingRequest)> {
        let Self { id, application, upstream_session, calls, reason, .. } = self;
        let state = upstream_session.state();
        let mut headers = version_header(Some(&state.protocol_version));
        set_session_header(&mut headers, id);
        let notification = |call: Value| {
            let params = json!({ "requestId": call, "reason": reason });
            let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
            let (headers, body) = (headers.clone(), Bytes::from(body.to_string()));
            (state.clone(), OutgoingRequest { application, method: Method::POST, headers, body })
        };
        calls.into_iter().map(notification).collect()
    }
}

/// The header that says which revision a request is of.
fn version_header(version: Option<&str>) -> HeaderMap {
    let version = version.and_then(|version| HeaderValue::try_from(version).ok());
    version.map(|version| (PROTOCOL_VERSION.clone(), version)).into_iter().collect()
}
