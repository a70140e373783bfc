//! Readings of how many bytes sessions were sent, reported by media servers.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, TimeDelta};
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::media_stream::MediaStream;
use sessiond_core::throughput::{Reading, Sample};

use super::super::App;
use super::super::problem::Problem;
use super::super::words::ReadingWord;
use super::names::{Names, check_app, find_stream, missing};
use super::schema::OneOrMore;
use super::several::{Each, MediaItem, Outcome, Several, at_most, many, one};
use super::surface::MediaError;
use super::{Media, MediaAnswer, Refused, nothing_there};
use crate::error::Error;
use crate::gate::MediaLookup;

/// How many readings one call may have.
const MOST: usize = 10_000;
/// The action behind a session's name in the path of its reports.
const ACTION: &str = ":report";
/// How far ahead of ours the clock of a media server may be.
const AHEAD: TimeDelta = TimeDelta::seconds(60);

/// A reading of a session's counter. Unknown members are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaReading {
    /// Bytes that were sent since the counter began.
    #[schema(format = "uint64")]
    pub total_bytes_out: u64,
    /// When it was read; now, if it is not said. RFC 3339, not more than a minute ahead.
    pub time: Option<String>,
}

/// A reading of one session of a stream.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaSessionReading {
    /// The session's name.
    pub session: String,
    /// Bytes that were sent since the counter began.
    #[schema(format = "uint64")]
    pub total_bytes_out: u64,
    /// When it was read; now, if it is not said. RFC 3339, not more than a minute ahead.
    pub time: Option<String>,
}

/// A reading of one session of an app.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaAppReading {
    /// The stream's name.
    pub stream: String,
    /// The session's name.
    pub session: String,
    /// Bytes that were sent since the counter began.
    #[schema(format = "uint64")]
    pub total_bytes_out: u64,
    /// When it was read; now, if it is not said. RFC 3339, not more than a minute ahead.
    pub time: Option<String>,
}

/// What became of a reading.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MediaRead)]
pub struct Read {
    pub session: String,
    #[schema(value_type = ReadingWord)]
    pub reading: &'static str,
}

/// A reading that has still to be checked.
struct Item<'a> {
    stream: Result<&'a MediaStream, Problem>,
    session: String,
    total_bytes_out: u64,
    time: Option<String>,
}

type ReadAnswer = MediaAnswer<Read>;
type StreamReadings = OneOrMore<MediaSessionReading, MediaSessionReading>;
type AppReadings = OneOrMore<MediaAppReading, MediaAppReading>;
type ReadItems = Each<MediaItem<Read>>;
type ReadAnswers = OneOrMore<ReadAnswer, MediaItem<Read>>;
type NotRead = OneOrMore<MediaError, MediaItem<Read>>;

/// Report what a session was sent
///
/// Counters may be read at any time and reported in any order: a reading is taken in at its place among the newest four,
/// which is why one that comes late, or twice, changes no figure. Throughput is measured over intervals of a second at
/// least. Any report is a sign of life.
#[utoipa::path(post, path = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions/{session}",
    operation_id = "media.reportSession", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
        ("session" = String, Path, description = "The session."),
    ),
    request_body(content = MediaReading, description = "The reading."),
    responses(
        (status = 200, description = "What became of it; durable.", body = ReadAnswer),
    ))]
pub async fn report_session(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<4>,
    body: Several<MediaReading>,
) -> Result<Response, Refused> {
    let [vhost, media_app, stream, last] = names;
    let session =
        last.strip_suffix(ACTION).filter(|session| !session.is_empty()).ok_or_else(nothing_there)?;
    let Several::One(MediaReading { total_bytes_out, time }) = body else {
        let message = "In the body: invalid type: sequence, expected an object";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message).into());
    };
    let names = [vhost.as_str(), &media_app, &stream];
    let stream = stream_to_read(&app, &caller, names)?;
    let stream = stream.as_ref().ok_or_else(|| missing(&MediaLookup::NoStream, names));
    let item = Item { stream, session: session.to_owned(), total_bytes_out, time };
    Ok(take_one(&app, &caller, item).await)
}

/// The stream, if there is one. A request that repeats an earlier one gets that one's outcome even if the stream is no
/// longer there.
fn stream_to_read(app: &App, caller: &Caller, names: [&str; 3]) -> Result<Option<MediaStream>, Problem> {
    match find_stream(app, caller, names) {
        Ok(stream) => Ok(Some(stream)),
        Err(_) if caller.repeats() => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Report what sessions of a stream were sent
///
/// One object, or an array of up to 10,000, each answered for itself: under the status that they share, or 207. What is
/// said to be taken in is durable when this answers.
#[utoipa::path(post, path = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions:report",
    operation_id = "media.reportStream", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
    ),
    request_body(content = StreamReadings, description = "The readings."),
    responses(
        (status = 200, description = "What became of each.", body = ReadAnswers),
        (status = 207, description = "Not all were taken in, or for different reasons none.", body = ReadItems),
        (status = 400, description = "A field is wrong, or there are too many.", body = NotRead),
        (status = 404, description = "No such virtual host, app or stream, or no such sessions.", body = NotRead),
        (status = 507, description = "The disk is full; nothing was written.", body = NotRead),
    ))]
pub async fn report_stream(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<3>,
    body: Several<MediaSessionReading>,
) -> Result<Response, Problem> {
    let names = names.each_ref().map(String::as_str);
    let stream = stream_to_read(&app, &caller, names)?;
    let item = |one: MediaSessionReading| {
        let MediaSessionReading { session, total_bytes_out, time } = one;
        let stream = stream.as_ref().ok_or_else(|| missing(&MediaLookup::NoStream, names));
        Item { stream, session, total_bytes_out, time }
    };
    answered(&app, &caller, body, item).await
}

/// Report what sessions of an app were sent
///
/// As for one stream; each reading names its own.
#[utoipa::path(post, path = "/v1/vhosts/{vhost}/apps/{app}/sessions:report",
    operation_id = "media.reportApp", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
    ),
    request_body(content = AppReadings, description = "The readings."),
    responses(
        (status = 200, description = "What became of each.", body = ReadAnswers),
        (status = 207, description = "Not all were taken in, or for different reasons none.", body = ReadItems),
        (status = 400, description = "A field is wrong, or there are too many.", body = NotRead),
        (status = 404, description = "No such virtual host or app, or no such streams or sessions.", body = NotRead),
        (status = 507, description = "The disk is full; nothing was written.", body = NotRead),
    ))]
pub async fn report_app(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<2>,
    body: Several<MediaAppReading>,
) -> Result<Response, Problem> {
    let [vhost, media_app] = names;
    if !caller.repeats() {
        check_app(&app, &caller, &vhost, Some(&media_app))?;
    }
    let names: BTreeSet<&str> = body.good().map(|one| one.stream.as_str()).collect();
    let found = names.into_iter().filter_map(|name| {
        let stream = find_stream(&app, &caller, [&vhost, &media_app, name]).ok()?;
        Some((name.to_owned(), stream))
    });
    let found: HashMap<String, MediaStream> = found.collect();
    let item = |one: MediaAppReading| {
        let MediaAppReading { stream: name, session, total_bytes_out, time } = one;
        let stream = found.get(&name);
        let stream = stream.ok_or_else(|| missing(&MediaLookup::NoStream, [&vhost, &media_app, &name]));
        Item { stream, session, total_bytes_out, time }
    };
    answered(&app, &caller, body, item).await
}

/// Takes in the readings of a call, and responds in the form of the call: for one, or for each.
async fn answered<'a, T>(
    app: &App,
    caller: &Caller,
    body: Several<T>,
    item: impl Fn(T) -> Item<'a>,
) -> Result<Response, Problem> {
    match body {
        Several::One(body) => Ok(take_one(app, caller, item(body)).await),
        Several::Many(items) => {
            at_most(MOST, &items)?;
            let items = items.into_iter().map(|one| one.map(&item)).collect();
            Ok(many(take(app, caller, items).await))
        }
    }
}

/// A checked reading: the session's name, and where to look for it, or what is wrong.
type Checked<'a> = (String, Result<(&'a MediaStream, Sample), Problem>);

fn checked(item: Result<Item<'_>, Problem>, now: Time) -> Checked<'_> {
    let Item { stream, session, total_bytes_out, time } = match item {
        Ok(item) => item,
        Err(problem) => return (String::new(), Err(problem)),
    };
    let sample = read_at(time.as_deref(), now)
        .map(|at| Sample { at: at.timestamp_millis(), counter: total_bytes_out });
    (session, stream.and_then(|stream| Ok((stream, sample?))))
}

async fn take_one(app: &App, caller: &Caller, item: Item<'_>) -> Response {
    let outcome = take(app, caller, vec![Ok(item)]).await.pop();
    one(outcome.unwrap_or(Err(Refused::NoSession)))
}

/// Takes in readings. Returns what became of each, in their order.
async fn take(app: &App, caller: &Caller, items: Vec<Result<Item<'_>, Problem>>) -> Vec<Outcome<Read>> {
    let now = app.clock.now();
    let items: Vec<_> = items.into_iter().map(|item| checked(item, now)).collect();
    let good = items.iter().filter_map(|(session, good)| {
        let (stream, _) = good.as_ref().ok()?;
        Some((*stream, session.as_str()))
    });
    let mut found = app.sessions.media.find_to_measure(caller, good).into_iter();
    let nothing = Sample { at: 0, counter: 0 };
    let readings = items.iter().map(|(_, good)| match good {
        Ok((_, sample)) => (found.next().flatten(), *sample),
        Err(_) => (None, nothing),
    });
    let readings = readings.collect();
    let outcomes = app.sessions.media.measure(caller, readings).await;
    let answer = |((session, good), outcome): (Checked<'_>, Result<Reading, Error>)| match (outcome, good) {
        (Ok(reading), _) => Ok((StatusCode::OK, Read { session, reading: reading.word() })),
        (Err(_), Err(problem)) => Err(problem.into()),
        (Err(error), Ok(_)) => Err(error.into()),
    };
    items.into_iter().zip(outcomes).map(answer).collect()
}

/// When a counter was read.
fn read_at(text: Option<&str>, now: Time) -> Result<Time, Problem> {
    let Some(text) = text else { return Ok(now) };
    let wrong =
        || Problem::invalid("time", "time must be in RFC 3339, such as 2026-11-22T09:00:00.000+01:00");
    let at = DateTime::parse_from_rfc3339(text).map_err(|_| wrong())?.to_utc();
    if at > now + AHEAD {
        let message = format!("time is more than {} s in the future", AHEAD.num_seconds());
        return Err(Problem::invalid("time", message));
    }
    Time::from_timestamp_millis(at.timestamp_millis()).ok_or_else(wrong)
}
