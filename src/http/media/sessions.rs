//! The sessions of a stream: listed by name, reported by media servers, ended by those who run them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::TimeDelta;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use sessiond_core::media_stream::{LONGEST_NAME, MediaStream, checked_segment};
use sessiond_core::reason::Reason;

use super::super::App;
use super::super::problem::Problem;
use super::names::{Names, ensure_stream, find_stream, session_to_end};
use super::schema::OneOrMore;
use super::several::{Each, MediaItem, Outcome, Several, at_most, many, one};
use super::surface::MediaError;
use super::{Made, MadeAnswer, Media, MediaAnswer, MediaDone, Refused, answer, done};
use crate::error::Error;
use crate::secret;
use crate::sessions::NewSession;

/// How many sessions one call may have.
const MOST: usize = 1_000;
/// How many of a call are opened at a time.
const AT_A_TIME: usize = 128;
/// How many characters of a user agent are kept.
const USER_AGENT: usize = 512;

/// Names of sessions.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MediaSessionNames, value_type = Vec<String>)]
pub struct SessionNames(pub Vec<Arc<str>>);

/// A session that has begun at a media server. Unknown members are ignored.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MediaSession)]
pub struct CreateMediaSession {
    /// Its name, unique on its stream while it lives; a UUID is made up if there is none.
    #[schema(max_length = 255)]
    pub name: Option<String>,
    pub client: Option<MediaClient>,
    /// `webrtc`, `llhls`, `srt`, …: what lists of the main API call its client.
    #[schema(max_length = 255)]
    pub protocol: Option<String>,
    /// Milliseconds after which it ends; 0, or none: when its application's policy says.
    #[schema(format = "uint64")]
    pub lifetime: Option<u64>,
}

/// Who plays the stream.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaClient {
    /// IP address.
    pub address: Option<String>,
    pub port: Option<u16>,
    pub user_agent: Option<String>,
}

/// The session of a viewer of a stream.
pub fn viewer(stream: &MediaStream, name: String, protocol: Option<&str>, port: Option<u16>) -> NewSession {
    let mut info = json!({ "name": protocol.unwrap_or("media") });
    if let Some(port) = port {
        info["port"] = port.into();
    }
    NewSession {
        resource: Some(stream.stream.clone()),
        client_session_id: Some(name.clone()),
        name: Some(name),
        client_info: Some(info),
        exclusive: true,
        ..NewSession::of(Kind::Media)
    }
}

/// The part of a user agent that is kept.
pub fn user_agent(text: Option<&str>) -> Option<String> {
    text.map(|text| text.chars().take(USER_AGENT).collect())
}

/// The message for a name that is taken, in the words of the surface.
pub fn name_taken(name: &str) -> String {
    format!("A session of this name is live on the stream: [{name}]")
}

type SessionNamesAnswer = MediaAnswer<SessionNames>;
type NewSessions = OneOrMore<CreateMediaSession, CreateMediaSession>;
type MadeItems = Each<MediaItem<Made>>;
type MadeAnswers = OneOrMore<MadeAnswer, MediaItem<Made>>;
type NotMade = OneOrMore<MediaError, MediaItem<Made>>;

/// List sessions of a stream
///
/// The names of those that are live, in the order in which they began.
#[utoipa::path(get, path = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions", operation_id = "media.listSessions",
    tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
    ),
    responses(
        (status = 200, description = "Their names.", body = SessionNamesAnswer),
    ))]
pub async fn list_sessions(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<3>,
) -> Result<Response, Problem> {
    let stream = find_stream(&app, &caller, names.each_ref().map(String::as_str))?;
    Ok(answer(StatusCode::OK, SessionNames(app.sessions.media.names_at(&caller, &stream))))
}

/// Report sessions that have begun
///
/// One object, or an array of up to 1,000, each answered for itself: under the status that they share, or 207. The stream
/// is declared if there is none. What is said to be created is durable when this answers. A session ends when it is
/// terminated, when nothing was reported of it for the time that the policy says, at its lifetime, or when it is revoked.
#[utoipa::path(post, path = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions",
    operation_id = "media.createSessions", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
    ),
    request_body(content = NewSessions, description = "What is known of each."),
    responses(
        (status = 201, description = "Created.", body = MadeAnswers),
        (status = 207, description = "Some were created, or for different reasons none.", body = MadeItems),
        (status = 200, description = "There was nothing to create.", body = MadeItems),
        (status = 400, description = "A field is wrong, or there are too many.", body = NotMade),
        (status = 409, description = "A session of this name is live on the stream, or no more may be.", body = NotMade),
        (status = 507, description = "The disk is full; nothing was written.", body = NotMade),
    ))]
pub async fn create_sessions(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<3>,
    body: Several<CreateMediaSession>,
) -> Result<Response, Problem> {
    let names = names.each_ref().map(String::as_str);
    match body {
        Several::One(body) => Ok(one(create(&app, &caller, names, 0, checked(body)).await)),
        Several::Many(items) => {
            at_most(MOST, &items)?;
            // Items that are wrong are not counted: the first item that is carried out has the request's own key.
            let mut parts = 0;
            let created = items.into_iter().map(|item| {
                let (app, caller, part) = (&app, &caller, parts);
                let viewer = item.and_then(checked);
                parts += usize::from(viewer.is_ok());
                create(app, caller, names, part, viewer)
            });
            Ok(many(stream::iter(created).buffered(AT_A_TIME).collect().await))
        }
    }
}

/// A reported session that was checked.
struct Checked {
    name: String,
    protocol: Option<String>,
    ip: Option<String>,
    client: MediaClient,
    lifetime: Option<TimeDelta>,
}

fn checked(body: CreateMediaSession) -> Result<Checked, Problem> {
    let name = body.name.unwrap_or_else(secret::random_name);
    checked_segment("name", &name).map_err(|message| Problem::invalid("name", message))?;
    let client = body.client.unwrap_or_default();
    Ok(Checked {
        name,
        protocol: body.protocol.map(checked_protocol).transpose()?,
        ip: client.address.as_deref().map(checked_address).transpose()?,
        client,
        lifetime: body.lifetime.and_then(milliseconds),
    })
}

/// Opens one session of a call.
async fn create(
    app: &App,
    caller: &Caller,
    names: [&str; 3],
    part: usize,
    body: Result<Checked, Problem>,
) -> Outcome<Made> {
    let Checked { name, protocol, ip, client, lifetime } = body?;
    let stream = ensure_stream(app, caller, names).await?;
    let new = NewSession {
        application: Some(app.directory.public_ids.application(stream.application)),
        ip,
        user_agent: user_agent(client.user_agent.as_deref()),
        lifetime,
        ..viewer(&stream, name.clone(), protocol.as_deref(), client.port)
    };
    let by = app.sessions.idempotency.part(caller, part).await?;
    match app.sessions.lifecycle.connect_by(caller, by, new).await {
        Ok(opened) => Ok((StatusCode::CREATED, Made { name: opened.name, id: opened.session.id })),
        Err(error @ Error::KeyTaken(_)) => {
            Err(Problem { message: name_taken(&name), ..Problem::from(error) }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads a lifetime; 0 is no limit of its own, as in OvenMediaEngine.
fn milliseconds(lifetime: u64) -> Option<TimeDelta> {
    let lifetime = i64::try_from(lifetime).ok().filter(|lifetime| *lifetime > 0)?;
    TimeDelta::try_milliseconds(lifetime)
}

fn checked_protocol(text: String) -> Result<String, Problem> {
    if (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    let message = format!("protocol must be 1 to {LONGEST_NAME} bytes, without control characters");
    Err(Problem::invalid("protocol", message))
}

fn checked_address(text: &str) -> Result<String, Problem> {
    let address = text.parse::<IpAddr>().map(|address| address.to_canonical().to_string());
    address.map_err(|_| {
        Problem::invalid("client.address", "client.address must be an IP address, such as 192.0.2.7")
    })
}

/// Terminate a session
///
/// It is gone from the list when this answers. Its media server learns it by webhook, where one is set up, and on the
/// live feed, as `disconnected` with `resource` and `clientSessionId`.
#[utoipa::path(delete, path = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions/{session}",
    operation_id = "media.terminateSession", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
        ("session" = String, Path, description = "The session."),
    ),
    responses(
        (status = 200, description = "It has ended.", body = MediaDone),
    ))]
pub async fn terminate_session(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<4>,
) -> Result<Response, Refused> {
    if app.sessions.media.ended_before(&caller)? {
        return Ok(done());
    }
    let session = session_to_end(&app, &caller, &names)?;
    match app.sessions.lifecycle.end(&caller, &session, Reason::Terminated).await? {
        0 => Err(Refused::NoSession),
        _ => Ok(done()),
    }
}
