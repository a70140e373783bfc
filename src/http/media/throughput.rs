//! The bytes that a session was sent over time, for a plot, from its readings in the log.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::caller::Caller;

use super::super::App;
use super::super::extract::Query;
use super::super::filter::read_time;
use super::super::problem::Problem;
use super::names::{Names, find_session};
use super::{Media, MediaAnswer, Refused, answer, local};
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

/// What a session was sent, step by step.
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

/// One step. Between two readings bytes are taken to have gone out evenly. Of steps that lie before the session began,
/// or reach beyond its last reading, nothing is known, and both figures are null.
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

async fn shown(
    app: &App,
    caller: &Caller,
    names: &[String; 4],
    query: &ThroughputQuery,
) -> Result<Response, Refused> {
    let window = Window::read(query, app.clock.now())?;
    let session = find_session(app, caller, names)?;
    let time = |at| Time::from_timestamp_millis(at).unwrap_or(session.connected_at);
    let (from, to) = (time(window.from), time(window.to));
    let points = app.sessions.media.bytes_sent(&session, from, to).await?;
    let points = series(app, session.connected_at, &window, &points);
    let step = window.step / 1_000;
    Ok(answer(StatusCode::OK, Throughput { from: local(app, from), to: local(app, to), step, points }))
}

type SeriesAnswer = MediaAnswer<Throughput>;

/// Get a session's throughput over time
///
/// Readings are kept as long as the bodies of activity events are (`--keep-activity`); across what is gone bytes are taken
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
    shown(&app, &caller, &names, &query).await
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
    shown(&app, &caller, &names, &query).await
}
