//! The logs of sessions, read in pages from anywhere in them, or downloaded whole.

use axum::Json;
use axum::body::{Body as Bytes, Bytes as Piece};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sessiond_core::caller::Caller;
use sessiond_core::ids::SessionNumber;
use sessiond_core::kind::Kind;
use sessiond_core::{Time, shown};
use uuid::Uuid;

use super::key::{Key, WorkId};
use super::list::read_number;
use super::surface::WorkloadError;
use super::{Standing, way_to};
use crate::gate::Side;
use crate::http::download::while_good;
use crate::http::extract::Query;
use crate::http::filter::read_time;
use crate::http::problem::Problem;
use crate::http::words::{PlainText, read_word};
use crate::http::{App, time};
use crate::journals::{self, Content, Filed, Journal, Level, Marks, Page, Start};

/// Which lines of a log are shown.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogParameters {
    /// Lines of this instant or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub from: Option<String>,
    /// Lines before this instant (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<String>,
    /// Any of these levels, separated by commas: `none`, `debug`, `info`, `warning`, `error`, in upper or lower case.
    pub level_in: Option<String>,
    /// Only lines that come after the one at this position, in the order asked for: `next_after` of the page before.
    #[param(value_type = Option<u64>, minimum = 0)]
    pub after: Option<String>,
    /// Most lines to return. A page has at most 4 MiB of text and may therefore be shorter.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1_000, default = 100)]
    pub limit: Option<String>,
    /// `position` (the default), or `-position` for the last lines first.
    #[param(value_type = LogSort, required = false)]
    pub sort: Option<String>,
}

/// What of a log is downloaded.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DownloadParameters {
    /// Lines of this instant or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub from: Option<String>,
    /// Lines before this instant (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<String>,
    /// Any of these levels, separated by commas: `none`, `debug`, `info`, `warning`, `error`, in upper or lower case.
    pub level_in: Option<String>,
}

/// In what order lines are shown.
#[derive(Deserialize, utoipa::ToSchema)]
pub enum LogSort {
    #[serde(rename = "position")]
    First,
    #[serde(rename = "-position")]
    Last,
}

/// A page of a log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LogPage {
    /// How many lines the session has logged that are still kept, whatever is asked for.
    pub total_lines: u64,
    pub lines: Vec<LogLine>,
    /// Whether there are more such lines now.
    pub has_more: bool,
    /// Asked for as `after`: the next page; where there is no more, what is logged from now on.
    pub next_after: i64,
    /// Lines that cannot be read any more, because the disk has changed what it was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub damaged: Vec<DamagedLines>,
}

/// A stretch of a log, by positions.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct DamagedLines {
    pub first: i64,
    pub last: i64,
}

/// One line.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LogLine {
    /// Counts from 1 in each session's log, without gaps.
    pub position: i64,
    /// Never falls along a log.
    #[schema(format = DateTime)]
    pub time: String,
    /// `debug`, `info`, `warning` or `error`; `none` where nothing was said.
    pub level: &'static str,
    pub text: String,
}

const LIMIT: u32 = 100;
const LARGEST_LIMIT: u32 = 1_000;

/// Read a WebUI session's log
///
/// In the order in which lines were logged. Costs the same anywhere in a log, however long it is. Lines stay after the end of
/// the session, until they are older than `--keep-lines`.
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/logs/webui/{session_id}", operation_id = "workloads.getWebuiLogs",
    tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645"),
        LogParameters),
    responses((status = 200, description = "A page of it.", body = LogPage)))]
pub async fn get_webui_logs(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Query(parameters): Query<LogParameters>,
) -> Result<Json<LogPage>, Problem> {
    page(&app, &caller, (Kind::Webui, id), &parameters).await
}

/// Read a task session's log
///
/// In the order in which lines were logged. Costs the same anywhere in a log, however long it is. Lines stay after the end of
/// the session, until they are older than `--keep-lines`.
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/logs/task/{session_id}", operation_id = "workloads.getTaskLogs",
    tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645"),
        LogParameters),
    responses(
        (status = 200, description = "A page of it.", body = LogPage),
        (status = 409, description = "It is being terminated; its log can be read when it is over.", body = WorkloadError),
    ))]
pub async fn get_task_logs(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Query(parameters): Query<LogParameters>,
) -> Result<Json<LogPage>, Problem> {
    page(&app, &caller, (Kind::Task, id), &parameters).await
}

/// Read a WebUI session's log, by the newer path
///
/// The same as `/sessions/logs/webui/{session_id}`.
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/webui/{session_id}/logs",
    operation_id = "workloads.listWebuiLogs", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645"),
        LogParameters),
    responses((status = 200, description = "A page of it.", body = LogPage)))]
pub async fn list_webui_logs(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Query(parameters): Query<LogParameters>,
) -> Result<Json<LogPage>, Problem> {
    page(&app, &caller, (Kind::Webui, id), &parameters).await
}

/// Read a task session's log, by the newer path
///
/// The same as `/sessions/logs/task/{session_id}`.
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/task/{session_id}/logs",
    operation_id = "workloads.listTaskLogs", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645"),
        LogParameters),
    responses(
        (status = 200, description = "A page of it.", body = LogPage),
        (status = 409, description = "It is being terminated; its log can be read when it is over.", body = WorkloadError),
    ))]
pub async fn list_task_logs(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Query(parameters): Query<LogParameters>,
) -> Result<Json<LogPage>, Problem> {
    page(&app, &caller, (Kind::Task, id), &parameters).await
}

/// Download a WebUI session's log
///
/// All lines that fit, as text: a line each, with time and level before it; further lines of the same entry are indented, and
/// control characters are written out (`\u{1b}`): as they were logged they are in JSON. What is logged meanwhile comes along.
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/webui/{session_id}/logs/download",
    operation_id = "workloads.downloadWebuiLogs", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645"),
        DownloadParameters),
    responses((status = 200, description = "The log.", body = PlainText, content_type = "text/plain")))]
pub async fn download_webui_logs(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Query(parameters): Query<DownloadParameters>,
) -> Result<Response, Problem> {
    download(&app, &caller, (Kind::Webui, id), &parameters).await
}

/// Download a task session's log
///
/// All lines that fit, as text: a line each, with time and level before it; further lines of the same entry are indented, and
/// control characters are written out (`\u{1b}`): as they were logged they are in JSON. What is logged meanwhile comes along.
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/task/{session_id}/logs/download",
    operation_id = "workloads.downloadTaskLogs", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645"),
        DownloadParameters),
    responses(
        (status = 200, description = "The log.", body = PlainText, content_type = "text/plain"),
        (status = 409, description = "It is being terminated; its log can be read when it is over.", body = WorkloadError),
    ))]
pub async fn download_task_logs(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Query(parameters): Query<DownloadParameters>,
) -> Result<Response, Problem> {
    download(&app, &caller, (Kind::Task, id), &parameters).await
}

async fn page(
    app: &App,
    caller: &Caller,
    (kind, id): (Kind, Uuid),
    parameters: &LogParameters,
) -> Result<Json<LogPage>, Problem> {
    let query = parameters.read()?;
    let session = readable(app, caller, kind, id).await?;
    let page = app.lines.page(Journal::Lines, session, &query).await?;
    let total_lines = app.lines.bounds(Journal::Lines, session).await?.count();
    let next_after = match query.descending {
        true => page.next.saturating_add(1),
        false => page.next.saturating_sub(1),
    };
    let damaged = page.damaged.iter().map(|(first, last)| DamagedLines { first: *first, last: *last });
    Ok(Json(LogPage {
        total_lines,
        has_more: page.more,
        next_after,
        damaged: damaged.collect(),
        lines: page.entries.into_iter().map(LogLine::from).collect(),
    }))
}

async fn download(
    app: &App,
    caller: &Caller,
    (kind, id): (Kind, Uuid),
    parameters: &DownloadParameters,
) -> Result<Response, Problem> {
    let (from, to) = (parameters.from.as_deref(), parameters.to.as_deref());
    let query = between(from, to, parameters.level_in.as_deref())?;
    let session = readable(app, caller, kind, id).await?;
    let registration = app.sessions.admission.register(caller, Side::Management)?;
    let pages = app.lines.download(Journal::Lines, session, query);
    // The log is sent piece by piece, as fast as the client takes it, and never held whole. An error in the middle breaks
    // the connection off, so that nobody takes a part for the whole.
    let pages = pages.map(|page| page.map(|page| Piece::from(as_text(&page))).map_err(std::io::Error::other));
    let body = Bytes::from_stream(while_good(registration, pages));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let name = format!("attachment; filename=\"{}.log\"", id.simple());
    if let Ok(value) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// The session whose log the caller may read now; a session that is being terminated is out of reach until it is over.
async fn readable(app: &App, caller: &Caller, kind: Kind, id: Uuid) -> Result<SessionNumber, Problem> {
    let session = app.sessions.workloads.find(caller, way_to(kind), id).await?;
    if session.ended.is_some() || session.over(app.clock.now()).is_some() {
        let one = app.sessions.workloads.view(caller, way_to(kind), id).await?;
        let standing = Standing::of(&one, app.clock.now(), app.config.workload_grace);
        if let Standing::Dying(_) = standing {
            let message = "The session is being terminated; its log can be read when it is over";
            return Err(Problem::new(StatusCode::CONFLICT, "session_ending", message));
        }
    }
    Ok(session.number)
}

impl LogParameters {
    fn read(&self) -> Result<journals::Query, Problem> {
        let descending = match self.sort.as_deref().map(read_word) {
            None | Some(Some(LogSort::First)) => false,
            Some(Some(LogSort::Last)) => true,
            Some(None) => return Err(Problem::invalid("sort", "sort must be position or -position")),
        };
        let after = match self.after.as_deref().map(str::parse::<i64>) {
            None => None,
            Some(Ok(position)) if position >= 0 => Some(Start::Beyond(position)),
            Some(_) => return Err(Problem::invalid("after", "after must be a line's position")),
        };
        let limit = read_number("limit", self.limit.as_deref(), LIMIT, (1, LARGEST_LIMIT))?;
        let query = between(self.from.as_deref(), self.to.as_deref(), self.level_in.as_deref())?;
        Ok(journals::Query { start: after, limit: limit as usize, descending, ..query })
    }
}

/// The query for lines of some levels within a time.
fn between(from: Option<&str>, to: Option<&str>, levels: Option<&str>) -> Result<journals::Query, Problem> {
    let micros = |time: Time| time.timestamp_micros();
    let only = match levels {
        None => Marks::ALL,
        Some(words) => {
            let read: Result<Vec<_>, _> =
                words.split(',').map(|word| read_level("level_in", word.trim())).collect();
            Marks::levels(&read?)
        }
    };
    let (since, until) = (read_time("from", from)?.map(micros), read_time("to", to)?.map(micros));
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        return Err(Problem::invalid("from", "from must not be later than to"));
    }
    Ok(journals::Query { since, until, only, ..journals::Query::default() })
}

/// Reads a level, in upper or lower case.
pub fn read_level(field: &'static str, word: &str) -> Result<Level, Problem> {
    Level::from_word(&word.to_ascii_lowercase()).ok_or_else(|| {
        let words = Level::ALL.map(Level::word).join(", ");
        Problem::invalid(field, format!("{field}: {word:?} is no level; there are {words}"))
    })
}

impl From<Filed> for LogLine {
    fn from(filed: Filed) -> Self {
        let time = time(filed.entry.time());
        let (level, text) = match filed.entry.content {
            Content::Line { level, text } => (level, text),
            // Entries of the other journal do not occur here.
            Content::Chunk { .. } => (Level::None, String::new()),
        };
        Self { position: filed.position, time, level: level.word(), text }
    }
}

/// Entries as lines of text. Further lines of an entry are indented and control characters are written out, so that no entry
/// looks like two, and none controls the terminal of whoever reads it.
fn as_text(page: &Page) -> String {
    let mut text = String::new();
    for filed in &page.entries {
        let Content::Line { level, text: said } = &filed.entry.content else { continue };
        let level = if *level == Level::None { "-" } else { level.word() };
        let at = time(filed.entry.time());
        text.extend([&at, " ", level, " ", &as_lines(said), "\n"]);
    }
    for (first, last) in &page.damaged {
        text.push_str(&format!("(lines {first} to {last} cannot be read)\n"));
    }
    text
}

fn as_lines(said: &str) -> String {
    let lines = said.split('\n').map(|line| shown::line(line.strip_suffix('\r').unwrap_or(line)));
    lines.collect::<Vec<_>>().join("\n\t")
}
