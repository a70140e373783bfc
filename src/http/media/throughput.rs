//! The bytes that sessions were sent over time, for a plot, from their readings in the log.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::session::Session;

use super::super::App;
use super::super::extract::Query;
use super::super::filter::read_time;
use super::super::problem::Problem;
use super::names::{Names, check_app, find_session_or_ended, find_stream};
use super::{Media, MediaAnswer, Refused, answer, local};
use crate::error::Error;
use crate::sessions::Point;

/// How many seconds a step has if the client does not say.
const STEP: i64 = 60;
/// How many seconds a step may have.
const LONGEST_STEP: i64 = 86_400;
/// How many steps there may be.
const MOST_STEPS: i64 = 2_000;
/// How long the window is if the client does not say.
const WINDOW: TimeDelta = TimeDelta::hours(1);

/// From when to when, and in what steps.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ThroughputQuery {
    /// Where it begins (RFC 3339); an hour before `to`, if it is not said.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<String>,
    /// Where it ends; now, if it is not said.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<String>,
    /// Seconds from point to point. There may be at most 2,000 points.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 86_400, example = 60)]
    step: Option<String>,
}

/// What was sent, step by step.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MediaThroughput)]
pub struct Throughput {
    pub from: String,
    pub to: String,
    /// Seconds; the last step ends with `to`.
    pub step: i64,
    pub points: Vec<ThroughputPoint>,
}

/// One step. Between two readings bytes are taken to have gone out evenly. Of steps that lie before a session began, or reach
/// beyond its last reading, nothing is known, and both figures are null. Of several sessions what is known is added up.
#[derive(Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MediaThroughputPoint)]
pub struct ThroughputPoint {
    /// Where the step begins.
    pub time: String,
    /// Bytes in the step.
    #[schema(required = true, format = "uint64")]
    pub bytes_out: Option<u64>,
    /// Bits per second over the step.
    #[schema(required = true, format = "uint64")]
    pub throughput_out: Option<u64>,
}

impl ThroughputPoint {
    /// Adds what another session was sent in the same step.
    fn add(&mut self, other: &Self) {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (known, None) | (None, known) => known,
        };
        self.bytes_out = sum(self.bytes_out, other.bytes_out);
        self.throughput_out = sum(self.throughput_out, other.throughput_out);
    }
}

/// A window that is cut into steps; milliseconds since the epoch.
struct Window {
    from: i64,
    to: i64,
    step: i64,
}

impl Window {
    fn read(query: &ThroughputQuery, now: Time) -> Result<Self, Problem> {
        let to = read_time("to", query.to.as_deref())?.unwrap_or(now);
        let from = read_time("from", query.from.as_deref())?;
        let from = from.or_else(|| to.checked_sub_signed(WINDOW)).unwrap_or(to);
        let step = query.step.as_deref().map_or(Ok(STEP), str::parse::<i64>);
        let step = step.ok().filter(|step| (1..=LONGEST_STEP).contains(step)).ok_or_else(|| {
            Problem::invalid("step", format!("step must be a number of seconds from 1 to {LONGEST_STEP}"))
        })?;
        let window = Self { from: from.timestamp_millis(), to: to.timestamp_millis(), step: step * 1_000 };
        if window.from >= window.to {
            return Err(Problem::invalid("from", "from must be before to"));
        }
        if window.steps() > MOST_STEPS {
            let message = format!("step is too short: there would be more than {MOST_STEPS} points");
            return Err(Problem::invalid("step", message));
        }
        Ok(window)
    }

    fn begins(&self) -> Time {
        Time::from_timestamp_millis(self.from).unwrap_or_default()
    }

    fn ends(&self) -> Time {
        Time::from_timestamp_millis(self.to).unwrap_or_default()
    }

    fn steps(&self) -> i64 {
        (self.to - self.from + self.step - 1) / self.step
    }

    /// The beginning and the end of each step.
    fn cut(&self) -> impl Iterator<Item = (i64, i64)> {
        let begins = |step: i64| self.from + step * self.step;
        (0..self.steps()).map(move |step| (begins(step), begins(step + 1).min(self.to)))
    }
}

/// Readings in the order of their times, and how far one has gone through them.
struct Readings {
    points: Vec<(i64, u64)>,
    next: usize,
}

impl Readings {
    fn new(points: &[Point]) -> Self {
        // An older reading may say a little more than a newer one, which no longer knew of it.
        let rising = points.iter().scan(0, |most: &mut u64, point| {
            *most = point.total.max(*most);
            Some((point.at.timestamp_millis(), *most))
        });
        Self { points: rising.collect(), next: 0 }
    }

    /// The total at an instant, which must not be earlier than in the call before. Before the first point, which is the
    /// beginning of the session, it is zero; after the last it is unknown.
    fn total(&mut self, at: i64) -> Option<u64> {
        while self.points.get(self.next).is_some_and(|(point, _)| *point < at) {
            self.next += 1;
        }
        let (after, total) = *self.points.get(self.next)?;
        let Some((before, less)) = self.next.checked_sub(1).and_then(|index| self.points.get(index)) else {
            return Some(total);
        };
        let (gained, part) = (u128::from(total - less), u128::from(at.abs_diff(*before)));
        let gained = gained * part / u128::from(after.abs_diff(*before).max(1));
        Some(less + u64::try_from(gained).unwrap_or(u64::MAX))
    }
}

/// The bytes that were sent in each step of a window.
fn series(app: &App, began: Time, window: &Window, points: &[Point]) -> Vec<ThroughputPoint> {
    let mut readings = Readings::new(points);
    let began = began.timestamp_millis();
    let point = |(begins, ends): (i64, i64)| {
        let sent = |readings: &mut Readings| {
            let before = readings.total(begins)?;
            Some(readings.total(ends)? - before)
        };
        let bytes = if ends <= began { None } else { sent(&mut readings) };
        let rate = |bytes: u64| u128::from(bytes) * 8_000 / u128::from((ends - begins).unsigned_abs());
        ThroughputPoint {
            time: Time::from_timestamp_millis(begins).map_or_else(String::new, |time| local(app, time)),
            bytes_out: bytes,
            throughput_out: bytes.map(|bytes| u64::try_from(rate(bytes)).unwrap_or(u64::MAX)),
        }
    };
    window.cut().map(point).collect()
}

/// What a session was sent, live or ended.
async fn of_session(
    app: &App,
    caller: &Caller,
    names: &[String; 4],
    query: &ThroughputQuery,
) -> Result<Response, Refused> {
    let window = Window::read(query, app.clock.now())?;
    let session = find_session_or_ended(app, caller, names).await?;
    let points = of_one(app, &window, &session).await?;
    Ok(told(app, &window, points))
}

/// What the sessions of some streams were sent together: those whose names begin with these.
async fn of_streams(
    app: &App,
    caller: &Caller,
    begin: &[&str],
    query: &ThroughputQuery,
) -> Result<Response, Refused> {
    let window = Window::read(query, app.clock.now())?;
    match begin {
        [vhost] => check_app(app, caller, vhost, None)?,
        [vhost, media_app] => check_app(app, caller, vhost, Some(media_app))?,
        [vhost, media_app, stream] => drop(find_stream(app, caller, [vhost, media_app, stream])?),
        _ => return Err(Refused::NoSession),
    }
    let streams = app.sessions.media.streams(caller, begin);
    let mut sum: Option<Vec<ThroughputPoint>> = None;
    for session in app.sessions.media.there_since(caller, &streams, window.begins()).await? {
        let points = of_one(app, &window, &session).await?;
        match &mut sum {
            None => sum = Some(points),
            Some(sum) => sum.iter_mut().zip(points).for_each(|(sum, point)| sum.add(&point)),
        }
    }
    let points = sum.unwrap_or_else(|| series(app, window.ends(), &window, &[]));
    Ok(told(app, &window, points))
}

async fn of_one(app: &App, window: &Window, session: &Session) -> Result<Vec<ThroughputPoint>, Error> {
    let points = app.sessions.media.bytes_sent(session, window.begins(), window.ends()).await?;
    Ok(series(app, session.connected_at, window, &points))
}

fn told(app: &App, window: &Window, points: Vec<ThroughputPoint>) -> Response {
    let (from, to, step) = (local(app, window.begins()), local(app, window.ends()), window.step / 1_000);
    answer(StatusCode::OK, Throughput { from, to, step, points })
}

type SeriesAnswer = MediaAnswer<Throughput>;

/// Get a session's throughput over time
///
/// Of the live session of this name, or else of the one that had it last. Readings are kept as long as activity events are
/// (`--keep-activity`); across what is gone bytes are taken
/// to have gone out evenly.
#[utoipa::path(get, path = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions/{session}/throughput",
    operation_id = "media.throughput", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
        ("session" = String, Path, description = "The session."),
        ThroughputQuery,
    ),
    responses(
        (status = 200, description = "Step by step.", body = SeriesAnswer),
    ))]
pub async fn throughput(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<4>,
    Query(query): Query<ThroughputQuery>,
) -> Result<Response, Refused> {
    of_session(&app, &caller, &names, &query).await
}

/// Get a session's throughput over time, beside its statistics
#[utoipa::path(get, path = "/v1/stats/current/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions/{session}/throughput",
    operation_id = "media.currentThroughput", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
        ("session" = String, Path, description = "The session."),
        ThroughputQuery,
    ),
    responses(
        (status = 200, description = "Step by step.", body = SeriesAnswer),
    ))]
pub async fn current_throughput(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<4>,
    Query(query): Query<ThroughputQuery>,
) -> Result<Response, Refused> {
    of_session(&app, &caller, &names, &query).await
}

/// Get the throughput of a stream over time
///
/// Of the sessions that were live at some time of the window, ended ones included, added up; at most 1,000.
#[utoipa::path(get, path = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}/throughput",
    operation_id = "media.streamThroughput", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
        ThroughputQuery,
    ),
    responses(
        (status = 200, description = "Step by step.", body = SeriesAnswer),
    ))]
pub async fn stream_throughput(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<3>,
    Query(query): Query<ThroughputQuery>,
) -> Result<Response, Refused> {
    of_streams(&app, &caller, &names.each_ref().map(String::as_str), &query).await
}

/// Get the throughput of an app over time
///
/// Of the sessions that were live at some time of the window, ended ones included, added up; at most 1,000.
#[utoipa::path(get, path = "/v1/vhosts/{vhost}/apps/{app}/throughput",
    operation_id = "media.appThroughput", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ThroughputQuery,
    ),
    responses(
        (status = 200, description = "Step by step.", body = SeriesAnswer),
    ))]
pub async fn app_throughput(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<2>,
    Query(query): Query<ThroughputQuery>,
) -> Result<Response, Refused> {
    of_streams(&app, &caller, &names.each_ref().map(String::as_str), &query).await
}

/// Get the throughput of a virtual host over time
///
/// Of the sessions that were live at some time of the window, ended ones included, added up; at most 1,000.
#[utoipa::path(get, path = "/v1/vhosts/{vhost}/throughput",
    operation_id = "media.vhostThroughput", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ThroughputQuery,
    ),
    responses(
        (status = 200, description = "Step by step.", body = SeriesAnswer),
    ))]
pub async fn vhost_throughput(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<1>,
    Query(query): Query<ThroughputQuery>,
) -> Result<Response, Refused> {
    of_streams(&app, &caller, &names.each_ref().map(String::as_str), &query).await
}
