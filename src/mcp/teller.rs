//! The task that tells upstreams what they are to be told: a few at a time, none for long, once more where it was not heard.

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
use super::forward::{Incoming, Outgoing, collect, correlate};
use super::goodbye::{Cancel, Left, Outbox, Word};
use super::kept::Kept;
use super::upstream::PROTOCOL_VERSION;
use crate::gate::Departed;
use crate::meter;

/// How long an upstream may take over what it is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before it is told once more, where it could not be told.
const AGAIN: Duration = Duration::from_millis(500);
/// Sessions of which upstreams are told at a time, and of one application among them: a revocation of many must not flood
/// the server behind, and one that does not answer must not hold up the others.
const AT_ONCE: usize = 32;
const OF_ONE: usize = 8;
/// Calls of one session that are cancelled at a time, and at most: the rest end with the session.
const CALLS_AT_ONCE: usize = 8;
const MOST_CALLS: usize = 256;
/// After being told to stop, what is under way has this long. What is left is in the store.
const FAREWELL: Duration = Duration::from_secs(2);
/// Sessions read from the store at a time, and forgotten there at a time.
const PAGE: usize = 500;

/// Something to be done for an application.
enum Item {
    Session(SessionNumber),
    Left(Left),
}

/// What was under way.
struct Done {
    application: ApplicationNumber,
    /// The session that it was about.
    session: Option<SessionNumber>,
    /// Whether all is said of that.
    told: bool,
}

/// Sessions of which something is to be told; whether they have ended.
type Ended = HashMap<SessionNumber, Option<Departed>>;

/// The task behind [`Goodbyes`].
struct Teller {
    gateway: Arc<Gateway>,
    /// Sessions that wait or are under way, and which of them have ended. What comes about one that is under way is told after
    /// that.
    todo: Arc<Mutex<Ended>>,
    waiting: HashMap<ApplicationNumber, VecDeque<Item>>,
    /// Whose turn it is.
    turns: VecDeque<ApplicationNumber>,
    running: HashMap<ApplicationNumber, usize>,
    under_way: JoinSet<Done>,
    /// Sessions of which all is said, but which the store does not know of yet.
    told: Vec<SessionNumber>,
}

impl Gateway {
    /// Tells upstreams what they are to be told, until it is told to stop itself.
    pub async fn say_goodbyes(self: Arc<Self>, stopping: CancellationToken) {
        let goodbyes = self.goodbyes.clone();
        let mut outbox = goodbyes.outbox.lock().await;
        let Outbox { words, departures } = &mut *outbox;
        let mut teller = Teller {
            gateway: self,
            todo: Arc::default(),
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            running: HashMap::new(),
            under_way: JoinSet::new(),
            told: vec![],
        };
        teller.recall().await;
        loop {
            teller.start();
            teller.forget(PAGE).await;
            gauge!(meter::GOODBYES_WAITING).set(teller.todo.lock().len() as f64);
            let idle = teller.under_way.is_empty();
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(word) = words.recv() => teller.take(word),
                Some(departed) = departures.recv() => teller.take(Word::Departed(departed)),
                Some(Ok(done)) = teller.under_way.join_next(), if !idle => teller.done(done),
            }
            // As many as have come meanwhile: each alone would be a look at everything.
            while let Ok(departed) = departures.try_recv() {
                teller.take(Word::Departed(departed));
            }
            if teller.under_way.is_empty() && teller.waiting.is_empty() {
                teller.forget(1).await;
            }
        }
        while let Ok(word) = words.try_recv() {
            teller.take(word);
        }
        teller.start();
        let rest = async {
            while let Some(done) = teller.under_way.join_next().await {
                done.into_iter().for_each(|done| teller.done(done));
            }
        };
        tokio::time::timeout(FAREWELL, rest).await.ok();
        teller.forget(1).await;
    }
}

impl Teller {
    /// Reads which sessions ended while nobody could tell of it, or whose telling was interrupted.
    async fn recall(&mut self) {
        let mut after = SessionNumber(0);
        loop {
            let untold = match self.gateway.sessions.untold(after, PAGE).await {
                Ok(untold) => untold,
                Err(error) => {
                    tracing::warn!(?error, "which upstreams have not been told of ended sessions is unknown");
                    return;
                }
            };
            let Some(last) = untold.last() else { return };
            after = last.number;
            for departed in untold {
                self.take(Word::Departed(departed));
            }
        }
    }

    fn take(&mut self, word: Word) {
        let (session, application) = match &word {
            Word::Left(left) => {
                let application = left.application;
                if let Word::Left(left) = word {
                    self.queue(application, Item::Left(left));
                }
                return;
            }
            Word::Cancel(session, application) => (*session, *application),
            Word::Departed(departed) => (departed.number, departed.application),
        };
        let todo = self.todo.clone();
        let mut todo = todo.lock();
        let known = todo.contains_key(&session);
        let one = todo.entry(session).or_default();
        if let Word::Departed(departed) = word {
            *one = Some(departed);
        }
        if !known {
            self.queue(application, Item::Session(session));
        }
    }

    fn queue(&mut self, application: ApplicationNumber, item: Item) {
        let waiting = self.waiting.entry(application).or_default();
        if waiting.is_empty() {
            self.turns.push_back(application);
        }
        waiting.push_back(item);
    }

    /// Begins as much as may be under way, one application after the other.
    fn start(&mut self) {
        let mut passed = 0;
        while self.under_way.len() < AT_ONCE && passed < self.turns.len() {
            let Some(application) = self.turns.pop_front() else { return };
            let running = self.running.entry(application).or_default();
            if *running >= OF_ONE {
                self.turns.push_back(application);
                passed += 1;
                continue;
            }
            passed = 0;
            let Some(item) = self.waiting.get_mut(&application).and_then(VecDeque::pop_front) else {
                continue;
            };
            *running += 1;
            if self.waiting.get(&application).is_some_and(VecDeque::is_empty) {
                self.waiting.remove(&application);
            } else {
                self.turns.push_back(application);
            }
            let (gateway, todo) = (self.gateway.clone(), self.todo.clone());
            self.under_way.spawn(async move {
                let session = match &item {
                    Item::Session(session) => Some(*session),
                    Item::Left(_) => None,
                };
                let telling = async move {
                    match item {
                        Item::Session(session) => gateway.tell_of(session, &todo).await,
                        Item::Left(left) => {
                            gateway.tell_left(left).await;
                            false
                        }
                    }
                };
                // One that panics gives its place back too; what it was to tell is in the store still.
                let told = AssertUnwindSafe(telling).catch_unwind().await.unwrap_or(false);
                Done { application, session, told }
            });
        }
    }

    fn done(&mut self, Done { application, session, told }: Done) {
        self.told.extend(session.filter(|_| told));
        if let Some(session) = session {
            let todo = self.todo.clone();
            let mut todo = todo.lock();
            let ended = todo.get(&session).is_some_and(Option::is_some);
            if ended || self.gateway.goodbyes.cancels(session) {
                self.queue(application, Item::Session(session));
            } else {
                todo.remove(&session);
            }
        }
        if let Some(running) = self.running.get_mut(&application) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&application);
            }
        }
    }

    /// Lets go in the store of what upstreams know, once it is as much as this.
    async fn forget(&mut self, enough: usize) {
        if self.told.len() < enough {
            return;
        }
        if let Err(error) = self.gateway.sessions.forget_mcp(std::mem::take(&mut self.told)).await {
            // They are told once more after a restart, which does no harm.
            tracing::warn!(?error, "that upstreams were told of ended sessions could not be kept");
        }
    }
}

impl Gateway {
    /// Tells the upstream of a session which of its calls are cancelled, and then, if it is, that it is over. Returns whether
    /// all is said.
    async fn tell_of(&self, session: SessionNumber, todo: &Mutex<Ended>) -> bool {
        let departed = todo.lock().get_mut(&session).and_then(Option::take);
        if departed.is_some() {
            self.goodbyes.quiet(session).await;
        }
        self.cancel(self.goodbyes.take_cancels(session)).await;
        let Some(departed) = departed else { return false };
        self.far.remove(session);
        let kept = match self.sessions.kept_of_departed(departed).await {
            Ok(kept) => kept.and_then(|kept| serde_json::from_slice::<Kept>(&kept).ok()),
            Err(error) => {
                tracing::warn!(?error, session = %departed.id, "what was kept to tell an upstream cannot be read");
                return false;
            }
        };
        if let Some(left) = kept.and_then(|kept| Left::of(departed.application, &kept)) {
            self.tell_left(left).await;
        }
        true
    }

    async fn cancel(&self, cancels: Vec<Cancel>) {
        let each: Vec<_> = cancels.into_iter().flat_map(Cancel::apart).take(MOST_CALLS).collect();
        let telling =
            stream::iter(each).for_each_concurrent(CALLS_AT_ONCE, move |(kept, outgoing)| async move {
                let outcome = self.tell(&kept.url, kept.session.as_deref(), outgoing).await;
                counter!(meter::GOODBYES, "what" => "cancelled", "outcome" => outcome).increment(1);
            });
        telling.await;
    }

    /// Tells an upstream that a session of its is over.
    async fn tell_left(&self, left: Left) {
        let Left { application, url, session, protocol_version } = left;
        let headers = of_version(protocol_version.as_deref());
        let outgoing = Outgoing { application, method: Method::DELETE, headers, body: Bytes::new() };
        let outcome = self.tell(&url, Some(&session), outgoing).await;
        counter!(meter::GOODBYES, "what" => "delete", "outcome" => outcome).increment(1);
    }

    /// Says something that nobody waits for, and once more where it was not heard.
    async fn tell(&self, url: &str, session: Option<&str>, outgoing: Outgoing) -> &'static str {
        for last in [false, true] {
            let said = async {
                let Incoming { head, body } = self.send(url, session, outgoing.clone()).await.ok()?;
                // A connection is only used again once its answer was read.
                collect(body, PAGE, PATIENCE).await.ok();
                Some(head.status)
            };
            match tokio::time::timeout(PATIENCE, said).await.ok().flatten() {
                Some(status) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {}
                Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return "refused",
                // That it does not know it, or takes no goodbyes, is as good.
                Some(_) => return "told",
                None => {}
            }
            if !last {
                tokio::time::sleep(AGAIN).await;
            }
        }
        "failed"
    }
}

impl Cancel {
    /// A notification for each call, with where it goes.
    fn apart(self) -> Vec<(Arc<Kept>, Outgoing)> {
        let Self { id, application, far, calls, reason, .. } = self;
        let kept = far.now();
        let mut headers = of_version(Some(&kept.protocol_version));
        correlate(&mut headers, id);
        let notification = |call: Value| {
            let params = json!({ "requestId": call, "reason": reason });
            let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
            let (headers, body) = (headers.clone(), Bytes::from(body.to_string()));
            (kept.clone(), Outgoing { application, method: Method::POST, headers, body })
        };
        calls.into_iter().map(notification).collect()
    }
}

fn of_version(version: Option<&str>) -> HeaderMap {
    let version = version.and_then(|version| HeaderValue::try_from(version).ok());
    version.map(|version| (PROTOCOL_VERSION.clone(), version)).into_iter().collect()
}
