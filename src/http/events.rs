//! Live feeds as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): `id` is the log
//! position, so that a listener that was away goes on where it was with `Last-Event-ID`.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::Deserialize;
use serde_json::json;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ending::{CredentialEnd, Ending};
use sessiond_core::ids::{Position, SessionNumber};
use sessiond_core::relation::Acquaintance;
use sessiond_core::session::Session;
use sessiond_core::session::event::ACTIVITY;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::App;
use super::extract::{AgentOrEnded, CanRead, Query};
use super::ids::{self, Id};
use super::problem::Problem;
use super::words::{ActorWord, Ender, EnderWord, KindWord, OpenStageWord, OutcomeWord, SourceWord, named};
use crate::gate::Side;
use crate::live::{ActorData, EventData, Frame, Topic};
use crate::meter;
use crate::sessions::Registration;
use crate::telling::PersonNamed;

/// After so much silence on a stream a comment is sent, so that no proxy takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long clients are to wait before they reconnect.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedParameters {
    types: Option<String>,
    last_event_id: Option<String>,
}

impl FeedParameters {
    /// Whether the listener wants activity too.
    fn activity(&self) -> Result<bool, Problem> {
        match self.types.as_deref() {
            None => Ok(false),
            Some(ACTIVITY) => Ok(true),
            Some(_) => {
                let message = format!("types may name {ACTIVITY} only: everything else comes anyway");
                Err(Problem::invalid("types", message))
            }
        }
    }

    /// The position after which to go on, from the header or (for clients that cannot set headers) from the parameter.
    fn after(&self, headers: &HeaderMap) -> Result<Option<Position>, Problem> {
        let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
        let Some(text) = header.or(self.last_event_id.as_deref()) else { return Ok(None) };
        match text.parse() {
            Ok(position @ 0..) => Ok(Some(Position(position))),
            _ => Err(Problem::invalid(
                "Last-Event-ID",
                "Last-Event-ID must be the id of an event of this feed",
            )),
        }
    }
}

/// The schema of an event's data: as [`EventData`], with the members that are words of the rules by reference.
pub struct FeedEvent;
/// Who did something.
pub struct FeedActor;

impl PartialSchema for FeedEvent {
    fn schema() -> RefOr<Schema> {
        let members = [
            ("actor", FeedActor::name()),
            ("endedBy", Ender::name()),
            ("kind", KindWord::name()),
            ("phase", OpenStageWord::name()),
            ("outcome", OutcomeWord::name()),
            ("source", SourceWord::name()),
        ];
        members.into_iter().fold(EventData::schema(), |schema, (member, name)| named(schema, member, &name))
    }
}

impl ToSchema for FeedEvent {
    fn name() -> Cow<'static, str> {
        "FeedEvent".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        let own = [
            (FeedActor::name(), FeedActor::schema()),
            (PersonNamed::name(), PersonNamed::schema()),
            (Ender::name(), Ender::schema()),
            (EnderWord::name(), EnderWord::schema()),
            (ActorWord::name(), ActorWord::schema()),
            (KindWord::name(), KindWord::schema()),
            (OpenStageWord::name(), OpenStageWord::schema()),
            (OutcomeWord::name(), OutcomeWord::schema()),
            (SourceWord::name(), SourceWord::schema()),
        ];
        schemas.extend(own.map(|(name, schema)| (name.into_owned(), schema)));
    }
}

impl PartialSchema for FeedActor {
    fn schema() -> RefOr<Schema> {
        named(ActorData::schema(), "kind", &ActorWord::name())
    }
}

impl ToSchema for FeedActor {
    fn name() -> Cow<'static, str> {
        "FeedActor".into()
    }
}

/// Follow an application
///
/// Server-sent events: one per lifecycle event of the application and its sessions, named after its type
/// (`connected`, `token_renewed`, `expired`, `disconnected`, `revocation_began`, …), `id` its log position, `data` JSON.
/// Go on with `Last-Event-ID` where you were; nothing is missed. An id from which nothing can be followed any more is answered with
/// `reset`: look at the lists, what follows is what happens from now on. Ends with `expired` when the credential expires, and with
/// `credential_ended` when it ends otherwise.
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions/events", operation_id = "agentSessions.events",
    tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        ("types" = Option<String>, Query, description = "`activity_recorded` adds activity."),
        ("lastEventId" = Option<i64>, Query, description = "As the header, for clients that cannot set one."),
        ("Last-Event-ID" = Option<i64>, Header, description = "Go on after this log position."),
    ),
    responses(
        (status = 200, description = "The feed.", body = FeedEvent, content_type = "text/event-stream"),
    ))]
pub async fn application(
    CanRead(caller): CanRead,
    Id(application, ..): Id<ids::Application>,
    Query(parameters): Query<FeedParameters>,
    headers: HeaderMap,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let (activity, after) = (parameters.activity()?, parameters.after(&headers)?);
    let (application, _) = app.directory.applications.find(&caller, application)?;
    let registration = app.sessions.admission.register(&caller, Side::Management)?;
    let mut after = After::of(&app, after);
    if matches!(after, After::Known(position) if position < app.directory.retention_settings.let_go_up_to(&caller))
    {
        after = After::Lost { go_on: app.live.tip().borrow().position };
    }
    let frames = frames(&app, Topic::Application(application.number), after, activity);
    let until = Expiry::At(caller.credential.expires_at);
    Ok(feed(app, (frames, caller.acquaintance()), until, Some(registration)))
}

/// Follow a session
///
/// Server-sent events of one session, as for an application. The stream of a session that has ended replays its story and ends after
/// `disconnected`; its own token still opens it. Whoever has seen the end is answered with 204. Ends with `expired` when the session's
/// token expires, and with `credential_ended` when the credential ends otherwise, as by `renew`.
#[utoipa::path(get, path = "/api/v1/agent-sessions/{sessionId}/events", operation_id = "agent.events", tag = "agent",
    security(("bearer" = [])),
    params(
        ("sessionId" = Uuid, Path, description = "The session."),
        ("types" = Option<String>, Query, description = "`activity_recorded` adds activity."),
        ("lastEventId" = Option<i64>, Query, description = "As the header, for clients that cannot set one."),
        ("Last-Event-ID" = Option<i64>, Header, description = "Go on after this log position."),
    ),
    responses(
        (status = 200, description = "The feed.", body = FeedEvent, content_type = "text/event-stream"),
        (status = 204, description = "The session has ended, and you have seen it."),
    ))]
pub async fn session(
    AgentOrEnded(caller): AgentOrEnded,
    Id(session, ..): Id<ids::Session>,
    Query(parameters): Query<FeedParameters>,
    headers: HeaderMap,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let (activity, after) = (parameters.activity()?, parameters.after(&headers)?);
    let mut view = app.sessions.queries.find_to_follow(&caller, session).await?;
    let number = view.session.number;
    let topic = Topic::Session(number);
    if view.session.ended.is_none() {
        let registration =
            app.sessions.admission.register(&caller, Side::Agent(view.session.application, Some(number)))?;
        let frames = frames(&app, topic, After::of(&app, after), activity);
        if app.sessions.queries.open_session(number).is_some() {
            let expiry = expiry(&caller, &view.session);
            return Ok(feed(app, (frames, caller.acquaintance()), expiry, Some(registration)));
        }
        // The session ended before the feed was registered: the feed might begin after the end, and wait for ever.
        view = app.sessions.queries.find_to_follow(&caller, session).await?;
    }
    // The feed of an ended session has its whole history to tell, and nothing new.
    let after = match After::of(&app, after) {
        After::Now => After::Known(Position(0)),
        After::Lost { .. } => After::Lost { go_on: Position(0) },
        known => known,
    };
    if matches!(after, After::Known(position) if position >= view.session.head.position) {
        // A client that reconnects after the end of a stream would do so for ever; 204 tells it to stop (HTML, 9.2.3).
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let frames = frames(&app, topic, after, activity);
    Ok(feed(app, (frames, caller.acquaintance()), Expiry::Never, None))
}

/// When a session's feed expires. By the session's own token it lasts as long as that token; for the session's owner, who
/// renews the token, as long as the token or the credential; for everybody else as long as the credential.
fn expiry(caller: &Caller, session: &Session) -> Expiry {
    let at = caller.credential.expires_at;
    if caller.session().is_some() {
        Expiry::OfSession(session.number, Time::MIN_UTC)
    } else if session.owner == caller.actor && caller.renews() {
        Expiry::OfSession(session.number, at)
    } else {
        Expiry::At(at)
    }
}

/// Where a listener wants to go on.
#[derive(Clone, Copy)]
enum After {
    /// At the log's end.
    Now,
    /// After this position.
    Known(Position),
    /// A place from which it would miss something: this log never reached it, being another or restored, or has let go of what
    /// came after it.
    Lost { go_on: Position },
}

impl After {
    fn of(app: &App, after: Option<Position>) -> Self {
        let tip = app.live.tip().borrow().position;
        match after {
            None => Self::Now,
            Some(position) if position > tip => Self::Lost { go_on: tip },
            Some(position) => Self::Known(position),
        }
    }
}

/// When a stream ends by the clock.
enum Expiry {
    /// At this moment.
    At(Time),
    /// When the session's token expires, however often it is renewed meanwhile, but not before this moment.
    OfSession(SessionNumber, Time),
    Never,
}

impl Expiry {
    /// The moment of expiry, as things are now.
    fn at(&self, app: &App) -> Time {
        match self {
            Self::At(at) => *at,
            Self::OfSession(number, least) => {
                let session = app.sessions.queries.open_session(*number);
                // The feed of an ended session goes on to the end of its history.
                let expires_at = |session: Session| session.expiry().unwrap_or(Time::MAX_UTC).max(*least);
                session.map_or(Time::MAX_UTC, expires_at)
            }
            Self::Never => Time::MAX_UTC,
        }
    }
}

type Frames = BoxStream<'static, Option<FeedItem>>;

/// One thing that a feed sends.
enum FeedItem {
    Event(Arc<Frame>),
    /// From where the listener is it would miss something: it goes on from here.
    Reset(Position),
}

/// The items of a feed; `None` stands for a failure, after which nothing comes.
fn frames(app: &App, topic: Topic, after: After, activity: bool) -> Frames {
    let (from, reset) = match after {
        After::Now => (None, None),
        After::Known(position) => (Some(position), None),
        After::Lost { go_on } => (Some(go_on), Some(go_on)),
    };
    let events = app.live.follow(topic, from, activity).map(|frame| match frame {
        Ok(frame) => Some(FeedItem::Event(frame)),
        Err(error) => {
            tracing::error!(%error, "a feed broke off");
            None
        }
    });
    stream::iter(reset.map(|position| Some(FeedItem::Reset(position)))).chain(events).boxed()
}

impl FeedItem {
    /// The item as a server-sent event.
    fn event(&self, reader: Acquaintance) -> Event {
        match self {
            Self::Event(frame) => {
                let data = frame.data_for(reader);
                Event::default().id(frame.position.0.to_string()).event(&frame.name).data(data)
            }
            Self::Reset(position) => {
                let data = json!({ "type": "reset", "position": position.0 });
                Event::default().id(position.0.to_string()).event("reset").data(data.to_string())
            }
        }
    }
}

/// The response of a feed: events until the topic ends, the credential ends or expires, the service stops, or the log cannot
/// be read.
fn feed(
    app: App,
    (frames, reader): (Frames, Acquaintance),
    expiry: Expiry,
    registration: Option<Registration>,
) -> Response {
    let hello = stream::once(async { Ok(Event::default().comment("sessiond").retry(RETRY)) });
    let _measured = meter::Stream::begin("feed");
    let following = Following { app, frames, reader, expiry, registration, _measured };
    let events = hello.chain(events(following));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Without this header nginx would hold events back.
    let buffering = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(buffering, HeaderValue::from_static("no"));
    response
}

/// A feed on its way to one listener.
struct Following {
    app: App,
    frames: Frames,
    reader: Acquaintance,
    expiry: Expiry,
    /// Says when the credential has ended that the feed was opened with; none for the history of an ended session.
    registration: Option<Registration>,
    _measured: meter::Stream,
}

/// The events of a feed, up to its last.
fn events(following: Following) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        match following.next().await {
            Next::Event(event) => Some((Ok(event), Some(following))),
            Next::Farewell(event) => Some((Ok(event), None)),
            Next::End => None,
        }
    })
}

/// What comes next on a feed.
enum Next {
    Event(Event),
    /// The last event, after which the feed ends.
    Farewell(Event),
    End,
}

impl Following {
    async fn next(&mut self) -> Next {
        // The expiry is looked up before each event, because what renews a session's token is an event of the session.
        let expires_at = self.expiry.at(&self.app);
        let registration = self.registration.as_ref();
        let ended = async {
            match registration {
                // The registration does not watch the clock: `expires_at` does, which may move.
                Some(registration) => registration.pass.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.app.stopping.cancelled() => Next::Farewell(farewell("shutdown", None)),
            ending = ended => Next::after(ending),
            () = self.app.clock.reached(expires_at) => Next::Farewell(farewell("expired", None)),
            frame = self.frames.next() => match registration.and_then(|one| one.pass.ending()) {
                // Whoever was stopped with the whole process goes on here before anybody could say that the lease has run out.
                Some(ending) => Next::after(ending),
                None => frame.flatten().map_or(Next::End, |item| Next::Event(item.event(self.reader))),
            },
        }
    }
}

impl Next {
    /// What a feed says last when what it was opened with has ended.
    fn after(ending: Ending) -> Self {
        match ending {
            Ending::Credential(end) => Self::Farewell(farewell("credential_ended", Some(end))),
            Ending::Session(_) => Self::End,
            Ending::Lapsed => Self::Farewell(farewell("lapsed", None)),
        }
    }
}

/// A last event that is not of the log, and so has no `id`: resuming does not skip it.
fn farewell(name: &'static str, end: Option<CredentialEnd>) -> Event {
    let data = match end {
        Some(end) => json!({ "type": name, "reason": end.word(), "message": end.to_string() }),
        None => json!({ "type": name }),
    };
    Event::default().event(name).data(data.to_string())
}
