//! The log lines of sessions, reported in batches.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use sessiond_core::{Time, shown};
use uuid::Uuid;

use super::key::{Key, WorkId};
use super::logs::read_level;
use super::surface::WorkloadError;
use super::way_to;
use crate::error::Error;
use crate::http::App;
use crate::http::extract::{Body, given};
use crate::http::filter::read_time;
use crate::http::problem::Problem;
use crate::journals::{Entry, Journal, LARGEST_ENTRY, Level};

/// How many lines one call may have.
const MOST: usize = 10_000;

/// Lines that a session has logged.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportedLines {
    #[schema(min_items = 1, max_items = 10_000)]
    pub lines: Vec<ReportedLine>,
}

/// One of them.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportedLine {
    /// When it was logged (RFC 3339); now, if nothing is said.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = DateTime)]
    pub time: Option<String>,
    /// `none`, `debug`, `info`, `warning` or `error`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    pub level: Option<String>,
    /// What is above 64 KiB is cut, and says so at its end.
    pub text: String,
}

/// Lines are in the log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FiledLines {
    /// Positions of the first and the last of them.
    pub first: i64,
    pub last: i64,
    /// How many got another time, because times never fall along a log.
    pub moved: usize,
}

/// Log a WebUI session's lines
///
/// Up to 10,000 at once; they are in the log when this answers, and survive the service, but for a power cut in the next
/// seconds. Lines are no signs of life. An `Idempotency-Key` has no effect: whoever is unsure looks at the log's end first.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/webui/{session_id}/logs",
    operation_id = "workloads.logWebuiSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    request_body(content = ReportedLines, description = "The lines, in any order."),
    responses(
        (status = 201, description = "They are in the log.", body = FiledLines),
        (status = 410, description = "It has ended, or was ended.", body = WorkloadError),
    ))]
pub async fn log_webui_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Body(body): Body<ReportedLines>,
) -> Result<(StatusCode, Json<FiledLines>), Problem> {
    log(&app, &caller, (Kind::Webui, id), body).await
}

/// Log a task session's lines
///
/// Up to 10,000 at once; they are in the log when this answers, and survive the service, but for a power cut in the next
/// seconds. Lines are no signs of life. An `Idempotency-Key` has no effect: whoever is unsure looks at the log's end first.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/task/{session_id}/logs",
    operation_id = "workloads.logTaskSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    request_body(content = ReportedLines, description = "The lines, in any order."),
    responses(
        (status = 201, description = "They are in the log.", body = FiledLines),
        (status = 410, description = "It has ended, or was ended.", body = WorkloadError),
    ))]
pub async fn log_task_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Body(body): Body<ReportedLines>,
) -> Result<(StatusCode, Json<FiledLines>), Problem> {
    log(&app, &caller, (Kind::Task, id), body).await
}

async fn log(
    app: &App,
    caller: &Caller,
    (kind, id): (Kind, Uuid),
    body: ReportedLines,
) -> Result<(StatusCode, Json<FiledLines>), Problem> {
    if body.lines.is_empty() || body.lines.len() > MOST {
        return Err(Problem::invalid("lines", format!("lines must be 1 to {MOST}")));
    }
    let now = app.clock.now();
    let entries: Result<Vec<_>, _> = body.lines.into_iter().map(|line| line.read(now)).collect();
    let entries = entries?;
    let session = app.sessions.queries.find_to_act_on(caller, way_to(kind), id).await?;
    if let Some(ended) = app.sessions.workloads.ended(&session) {
        return Err(Error::Gone(ended).into());
    }
    let filed = app.lines.append(Journal::Lines, session.number, entries).await?;
    let answer = FiledLines { first: filed.first, last: filed.last, moved: filed.moved };
    Ok((StatusCode::CREATED, Json(answer)))
}

impl ReportedLine {
    fn read(self, now: Time) -> Result<Entry, Problem> {
        let time = read_time("time", self.time.as_deref())?.unwrap_or(now);
        let level = self.level.map_or(Ok(Level::None), |word| read_level("level", &word))?;
        let mut text = self.text;
        // Programs that pass on lines as they read them include the line break.
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        // A line that is too long is cut, so that those beside it are not lost.
        Ok(Entry::line(time, level, shown::cut_bytes(text, LARGEST_ENTRY)))
    }
}
