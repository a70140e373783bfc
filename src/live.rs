//! Follows the log and feeds everyone who listens. One task reads each commit once and serializes each event once; a
//! listener that is new, or has fallen behind, reads pages from the store until it has caught up. No event is missed
//! and none comes twice: every frame carries its log position, and each listener passes on only what lies beyond its
//! own.

mod outgoing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use futures_util::Stream;
use futures_util::stream::unfold;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use sessiond_core::Time;
use sessiond_core::bar::BarEvent;
use sessiond_core::event::Event;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber, Tip};
use sessiond_core::phase::{Outcome, Phase};
use sessiond_core::reason::Reason;
use sessiond_core::relation::Acquaintance;
use sessiond_core::revocation::RevocationEvent;
use sessiond_core::session::event::{ACTIVITY, Counts, SessionEvent};
use sessiond_core::streams::AnyEvent;
use sessiond_store::{Addressed, Log, StoreError};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::telling::{EndedByBody, EventTold, EventsTold, PersonNamed, Telling};

pub use outgoing::Outgoing;

/// How many frames a listener of an application may be behind before it reads pages instead. The memory for them is
/// taken when the first listener comes.
const BACKLOG: usize = 1_024;
/// How many frames a listener of a session may be behind: fewer, because little happens in a session, and many listen.
const SESSION_BACKLOG: usize = 16;
/// The pause before the log is read again after it could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How many events are read at a time.
const PAGE: u32 = 500;

/// What a listener listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Application(ApplicationNumber),
    Session(SessionNumber),
}

/// An event as listeners get it.
#[derive(Debug)]
pub struct Frame {
    pub position: Position,
    /// The event's type, snake_case.
    pub name: String,
    /// The event's data, as JSON, for readers who know nobody by name.
    pub data: String,
    /// The same with the names of people, where that is another text.
    named: Option<String>,
    pub session: Option<SessionNumber>,
    pub application: Option<ApplicationNumber>,
    /// Whether a session's stream ends after this frame.
    pub last: bool,
    /// The session's new expiry, where the event sets it.
    pub token_expires_at: Option<Time>,
}

/// The task that follows the log, and the channels that it feeds.
pub struct Live {
    reader: Arc<dyn Log>,
    telling: Telling,
    tip: watch::Receiver<Tip>,
    /// The position up to which everything has been handed out. It is kept here so that it survives a task that breaks.
    reached: Mutex<Position>,
    /// The channels by topic, and by whether they carry activity too: a listener that does not want activity is not
    /// kept busy with it.
    channels: Mutex<Channels>,
}

type Channels = HashMap<(Topic, bool), broadcast::Sender<Arc<Frame>>>;

impl Live {
    pub fn new(reader: Arc<dyn Log>, telling: Telling, tip: watch::Receiver<Tip>) -> Self {
        let reached = Mutex::new(tip.borrow().position);
        Self { reader, telling, tip, reached, channels: Mutex::default() }
    }

    /// The task: reads what each commit added and hands it out, until it is told to stop.
    pub async fn run(&self, stopping: CancellationToken) {
        let mut tip = self.tip.clone();
        while !stopping.is_cancelled() {
            let (reached, now) = (*self.reached.lock(), *tip.borrow_and_update());
            let (listeners, activity) = self.listeners();
            let news = listeners && (now.lifecycle > reached || (activity && now.position > reached));
            if news && let Err(error) = self.hand_out(reached, now.position, activity).await {
                // No listener may miss what could not be read, so the same page is read again a little later.
                tracing::error!(%error, "following the log failed; trying again");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            *self.reached.lock() = now.position;
            tokio::select! {
                () = stopping.cancelled() => return,
                changed = tip.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Whether anybody listens at all, and whether anybody listens to activity. Forgets channels without listeners.
    fn listeners(&self) -> (bool, bool) {
        let mut channels = self.channels.lock();
        channels.retain(|_, frames| frames.receiver_count() > 0);
        (!channels.is_empty(), channels.keys().any(|(_, activity)| *activity))
    }

    async fn hand_out(&self, after: Position, up_to: Position, activity: bool) -> Result<(), StoreError> {
        let mut after = after;
        loop {
            let page = self.reader.addressed_log(after, up_to, activity, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.entry.recorded.position;
            let wanted: Vec<_> = {
                let channels = self.channels.lock();
                page.iter().filter(|event| feeds(event).any(|feed| channels.contains_key(&feed))).collect()
            };
            let frames = self.frames(&wanted).await?;
            let channels = self.channels.lock();
            for (event, frame) in wanted.into_iter().zip(frames) {
                let frame = Arc::new(frame);
                for listeners in feeds(event).filter_map(|feed| channels.get(&feed)) {
                    listeners.send(frame.clone()).ok();
                }
            }
        }
    }

    /// Events as listeners get them.
    async fn frames(&self, events: &[&Addressed]) -> Result<Vec<Frame>, StoreError> {
        let told = self.telling.events(events).await?;
        Ok(events.iter().map(|event| Frame::new(event, &self.telling, &told)).collect())
    }

    /// Listens from `after` on, or from now on: every event of the topic beyond that position, in order, once. Activity
    /// comes along only if it is asked for. A session's stream ends with its `disconnected`.
    pub fn follow(
        self: &Arc<Self>,
        topic: Topic,
        after: Option<Position>,
        activity: bool,
    ) -> impl Stream<Item = Result<Arc<Frame>, StoreError>> + Send + use<> {
        // The subscription comes before the look at the log's end: an event in between arrives twice, and its position
        // tells.
        let frames = self.subscribe(topic, activity);
        let tip = self.tip.borrow().position;
        let from = after.unwrap_or(tip).min(tip);
        let catching_up = after.is_some_and(|after| after < tip);
        let listener = Listener {
            live: self.clone(),
            topic,
            activity,
            frames,
            reached: from,
            pages: VecDeque::new(),
            catching_up,
            ended: false,
        };
        unfold(listener, |mut listener| async move { listener.next().await.map(|frame| (frame, listener)) })
    }

    fn subscribe(&self, topic: Topic, activity: bool) -> broadcast::Receiver<Arc<Frame>> {
        let backlog = match topic {
            Topic::Application(_) => BACKLOG,
            Topic::Session(_) => SESSION_BACKLOG,
        };
        let mut channels = self.channels.lock();
        channels.entry((topic, activity)).or_insert_with(|| broadcast::channel(backlog).0).subscribe()
    }
}

/// The feeds that an event goes to: of its application and of its session, with activity, and without unless it is that.
fn feeds(event: &Addressed) -> impl Iterator<Item = (Topic, bool)> {
    let recorded = &event.entry.recorded;
    let by_application = recorded.application.map(Topic::Application);
    let topics = by_application.into_iter().chain(event.session().map(Topic::Session));
    let only_with_activity = recorded.event.name() == ACTIVITY;
    topics.flat_map(move |topic| {
        [true, false]
            .into_iter()
            .filter(move |with| *with || !only_with_activity)
            .map(move |with| (topic, with))
    })
}

struct Listener {
    live: Arc<Live>,
    topic: Topic,
    activity: bool,
    frames: broadcast::Receiver<Arc<Frame>>,
    /// The position up to which every event of the topic has been passed on.
    reached: Position,
    pages: VecDeque<Arc<Frame>>,
    catching_up: bool,
    ended: bool,
}

impl Listener {
    async fn next(&mut self) -> Option<Result<Arc<Frame>, StoreError>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(frame) = self.pages.pop_front() {
                return Some(Ok(self.pass(frame)));
            }
            if self.catching_up {
                if let Err(error) = self.read_page().await {
                    self.ended = true;
                    return Some(Err(error));
                }
                continue;
            }
            match self.frames.recv().await {
                Ok(frame) if frame.position <= self.reached => {}
                Ok(frame) => return Some(Ok(self.pass(frame))),
                Err(broadcast::error::RecvError::Lagged(_)) => self.catching_up = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn pass(&mut self, frame: Arc<Frame>) -> Arc<Frame> {
        self.reached = frame.position;
        self.ended = frame.last && matches!(self.topic, Topic::Session(_));
        frame
    }

    async fn read_page(&mut self) -> Result<(), StoreError> {
        // The page holds everything up to the tip as it was before the page was read, or the page is full.
        let tip = self.live.tip.borrow().position;
        let reader = &self.live.reader;
        let page = match self.topic {
            Topic::Application(number) => {
                reader.addressed_application_log(number, self.reached, self.activity, PAGE).await?
            }
            Topic::Session(number) => {
                reader.addressed_session_log(number, self.reached, self.activity, PAGE).await?
            }
        };
        self.catching_up = page.len() >= PAGE as usize;
        if page.is_empty() {
            self.reached = self.reached.max(tip);
        }
        let frames = self.live.frames(&page.iter().collect::<Vec<_>>()).await?;
        self.pages.extend(frames.into_iter().map(Arc::new));
        Ok(())
    }
}

/// An event as it is told: the `data` of a frame. Fields that do not belong to the type of event are left out.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventData<'a> {
    /// Position in the log; the same as the event's `id`. Absent in `expired`, `credential_ended` and `shutdown` that end a
    /// stream.
    #[schema(required = false)]
    position: i64,
    /// What happened; the same as the event's name.
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    session_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    application_id: Option<Uuid>,
    /// What the session is connected to within its application.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    resource: Option<&'a str>,
    /// The name it has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_session_id: Option<&'a str>,
    /// Whom the session belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    principal: Option<PersonNamed>,
    /// Host name reported by its client.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hostname: Option<String>,
    /// Its client's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client: Option<String>,
    /// When it took effect.
    #[schema(required = false, format = DateTime)]
    occurred_at: String,
    /// When it was written.
    #[schema(required = false, format = DateTime)]
    recorded_at: String,
    /// Who did it.
    #[schema(required = false, value_type = String)]
    actor: ActorData<'a>,
    /// The revocation that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    revocation_id: Option<Uuid>,
    /// Why the session ended, or will; in `credential_ended`, how the credential did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    reason: Option<Reason>,
    /// Who ended the session; not the worker of a revocation, but whoever began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Object>)]
    ended_by: Option<EndedByBody>,
    /// Why the session ended, in a sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    end_reason: Option<String>,
    /// The operator's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    note: Option<&'a str>,
    /// What sort of session connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    kind: Option<&'static str>,
    /// How far the work behind it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    phase: Option<Phase>,
    /// What came of that work, where it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    outcome: Option<Outcome>,
    /// The last words of whoever ran it; of a bar, what is read; in `credential_ended`, what became of the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    token_expires_at: Option<String>,
    /// When a bar ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    until: Option<String>,
    /// How many sessions a revocation disconnected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    disconnected_count: Option<u64>,
    /// Where activity came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    source: Option<Value>,
    /// What an activity added; zeroes are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Object>)]
    counts: Option<Counts>,
    /// What has added up since the session connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Object>)]
    total: Option<Counts>,
}

/// Who did something.
#[derive(Serialize, ToSchema)]
pub struct ActorData<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "Uuid::is_nil")]
    #[schema(required = false)]
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
}

fn iso(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The session's new expiry, where the event sets it.
fn sets_expiry(event: &Event) -> Option<Time> {
    match event {
        Event::Session(SessionEvent::Connected(body)) => {
            body.kind.has_token().then_some(body.token_expires_at)
        }
        Event::Session(SessionEvent::TokenRenewed(body)) => Some(body.token_expires_at),
        _ => None,
    }
}

impl<'a> EventData<'a> {
    pub fn new(event: &'a Addressed, told: EventTold) -> Self {
        let recorded = &event.entry.recorded;
        let EventTold { actor_name, principal, hostname, client, end } = told;
        let (ended_by, end_reason) = end.map(|end| (end.by.into(), end.why)).unzip();
        let mut data = Self {
            position: recorded.position.0,
            r#type: recorded.event.name(),
            session_id: event.session_id,
            application_id: event.application_id,
            resource: event.resource.as_deref(),
            client_session_id: event.client_session_id.as_deref(),
            principal,
            hostname,
            client,
            occurred_at: iso(recorded.occurred_at),
            recorded_at: iso(recorded.recorded_at),
            actor: ActorData { kind: recorded.actor.kind.word(), id: recorded.actor.id, name: actor_name },
            revocation_id: event.revocation_id,
            reason: None,
            ended_by,
            end_reason,
            note: None,
            kind: None,
            phase: None,
            outcome: None,
            message: None,
            token_expires_at: sets_expiry(&recorded.event).map(iso),
            until: None,
            disconnected_count: None,
            source: None,
            counts: None,
            total: None,
        };
        match &recorded.event {
            Event::Session(SessionEvent::Connected(body)) => {
                (data.kind, data.phase) = (Some(body.kind.word()), body.phase);
            }
            Event::Session(SessionEvent::PhaseChanged(body)) => data.phase = Some(body.phase),
            Event::Session(SessionEvent::Expired(body)) => {
                data.token_expires_at = Some(iso(body.token_expires_at))
            }
            Event::Session(SessionEvent::Disconnected(body)) => {
                data.reason = Some(body.reason);
                (data.outcome, data.message) = (body.outcome, body.message.as_deref());
            }
            Event::Session(SessionEvent::ActivityRecorded(body)) => {
                data.source = serde_json::to_value(body.source).ok();
                (data.counts, data.total) = (Some(body.counts), Some(body.total));
            }
            Event::Stream(AnyEvent::Revocation(RevocationEvent::Began(body))) => {
                (data.reason, data.note) = (Some(body.reason), body.note.as_deref());
            }
            Event::Stream(AnyEvent::Revocation(RevocationEvent::Ended(body))) => {
                data.disconnected_count = Some(body.disconnected_count)
            }
            Event::Stream(AnyEvent::Bar(BarEvent::Placed(body))) => {
                (data.note, data.message) = (body.note.as_deref(), body.message.as_deref());
                data.until = body.until.map(iso);
            }
            _ => {}
        }
        data
    }
}

impl Frame {
    fn new(event: &Addressed, telling: &Telling, told: &EventsTold) -> Self {
        let recorded = &event.entry.recorded;
        let [nobody, everybody] =
            [Acquaintance::Nobody, Acquaintance::Everybody].map(|reader| telling.event(event, told, reader));
        let data = |told| serde_json::to_string(&EventData::new(event, told)).unwrap_or_default();
        Self {
            position: recorded.position,
            name: recorded.event.name().to_owned(),
            named: (everybody != nobody).then(|| data(everybody)),
            data: data(nobody),
            session: event.session(),
            application: recorded.application,
            last: matches!(recorded.event, Event::Session(SessionEvent::Disconnected(_))),
            token_expires_at: sets_expiry(&recorded.event),
        }
    }

    /// The data for a reader.
    pub fn data_for(&self, reader: Acquaintance) -> &str {
        match (reader, &self.named) {
            (Acquaintance::Everybody, Some(named)) => named,
            _ => &self.data,
        }
    }
}
