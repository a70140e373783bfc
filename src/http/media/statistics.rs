//! How much sessions are sent right now: of one, and of all of a stream, an app or a virtual host.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sessiond_core::Time;
use sessiond_core::session::Session;
use sessiond_core::throughput::Gauge;

use super::super::App;
use super::super::problem::Problem;
use super::names::{Names, check_app, find_session, find_stream};
use super::{Media, MediaAnswer, Refused, answer, local};
use crate::gate::Sum;

/// What a session is sent. Times have milliseconds and an offset: that of `--media-time-zone`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MediaSessionStatistics)]
pub struct SessionStatistics {
    /// Bits per second over the last measured interval, which is a second or longer.
    pub avg_throughput_out: u64,
    /// When it began.
    pub created_time: String,
    /// Of the newest reading that found more bytes than the one before.
    pub last_sent_time: String,
    /// Bytes in the last measured interval.
    pub last_throughput_out: u64,
    /// Of the newest reading.
    pub last_updated_time: String,
    /// The most that `avgThroughputOut` has been.
    pub max_throughput_out: u64,
    /// Bytes since it began.
    pub total_bytes_out: u64,
}

/// What the sessions of a stream, an app or a virtual host are sent, added up.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MediaStatistics)]
pub struct Statistics {
    /// Of the live ones.
    pub avg_throughput_out: u64,
    /// When the first of its streams was declared.
    pub created_time: String,
    /// The latest of the live ones.
    pub last_sent_time: String,
    /// Of the live ones.
    pub last_throughput_out: u64,
    /// The latest of the live ones.
    pub last_updated_time: String,
    /// The maxima of the live ones, added up: no less than what all of them were ever sent at once.
    pub max_throughput_out: u64,
    /// Of the live ones and of those that have ended.
    pub total_bytes_out: u64,
    /// How many are live.
    pub total_connections: u64,
}

impl SessionStatistics {
    fn of(app: &App, session: &Session) -> Self {
        let gauge = session.throughput.as_ref().map(|throughput| throughput.gauge());
        let figure = |of: fn(&Gauge) -> u64| gauge.as_ref().map_or(0, of);
        let time = |of: fn(&Gauge) -> i64| {
            let read = gauge.as_ref().and_then(|gauge| Time::from_timestamp_millis(of(gauge)));
            local(app, read.unwrap_or(session.connected_at))
        };
        Self {
            avg_throughput_out: figure(|gauge| gauge.avg),
            created_time: local(app, session.connected_at),
            last_sent_time: time(|gauge| gauge.sent_at),
            last_throughput_out: figure(|gauge| gauge.last),
            last_updated_time: time(|gauge| gauge.at),
            max_throughput_out: figure(|gauge| gauge.max),
            total_bytes_out: session.total.bytes_out,
        }
    }
}

impl Statistics {
    fn of(app: &App, sum: Sum) -> Self {
        let created = sum.created_at.unwrap_or_else(|| app.clock.now());
        Self {
            avg_throughput_out: sum.avg,
            created_time: local(app, created),
            last_sent_time: local(app, sum.sent_at.unwrap_or(created)),
            last_throughput_out: sum.last,
            last_updated_time: local(app, sum.updated_at.unwrap_or(created)),
            max_throughput_out: sum.max,
            total_bytes_out: sum.total,
            total_connections: sum.sessions,
        }
    }
}

type SessionAnswer = MediaAnswer<SessionStatistics>;
type SumAnswer = MediaAnswer<Statistics>;

/// Get statistics of a session
#[utoipa::path(get, path = "/v1/stats/current/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions/{session}",
    operation_id = "media.sessionStatistics", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
        ("session" = String, Path, description = "The session."),
    ),
    responses(
        (status = 200, description = "As its readings say.", body = SessionAnswer),
    ))]
pub async fn session_statistics(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<4>,
) -> Result<Response, Refused> {
    let session = find_session(&app, &caller, &names)?;
    Ok(answer(StatusCode::OK, SessionStatistics::of(&app, &session)))
}

/// Get statistics of a stream
#[utoipa::path(get, path = "/v1/stats/current/vhosts/{vhost}/apps/{app}/streams/{stream}",
    operation_id = "media.streamStatistics", tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
        ("stream" = String, Path, description = "The stream."),
    ),
    responses(
        (status = 200, description = "Its sessions, added up.", body = SumAnswer),
    ))]
pub async fn stream_statistics(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<3>,
) -> Result<Response, Problem> {
    let stream = find_stream(&app, &caller, names.each_ref().map(String::as_str))?;
    Ok(answer(StatusCode::OK, Statistics::of(&app, app.sessions.media.sum(&caller, &[stream]))))
}

/// Get statistics of an app
#[utoipa::path(get, path = "/v1/stats/current/vhosts/{vhost}/apps/{app}", operation_id = "media.appStatistics",
    tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
    ),
    responses(
        (status = 200, description = "The sessions of its streams, added up.", body = SumAnswer),
    ))]
pub async fn app_statistics(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<2>,
) -> Result<Response, Problem> {
    let [vhost, media_app] = names;
    check_app(&app, &caller, &vhost, Some(&media_app))?;
    let streams = app.sessions.media.streams(&caller, &[&vhost, &media_app]);
    Ok(answer(StatusCode::OK, Statistics::of(&app, app.sessions.media.sum(&caller, &streams))))
}

/// Get statistics of a virtual host
#[utoipa::path(get, path = "/v1/stats/current/vhosts/{vhost}", operation_id = "media.vhostStatistics", tag = "media",
    security(("accessToken" = [])), params(("vhost" = String, Path, description = "The virtual host.")),
    responses(
        (status = 200, description = "The sessions of its streams, added up.", body = SumAnswer),
    ))]
pub async fn vhost_statistics(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<1>,
) -> Result<Response, Problem> {
    let [vhost] = names;
    check_app(&app, &caller, &vhost, None)?;
    let streams = app.sessions.media.streams(&caller, &[&vhost]);
    Ok(answer(StatusCode::OK, Statistics::of(&app, app.sessions.media.sum(&caller, &streams))))
}
