//! Lists as files: all of what a list has, in one answer of any size, from which whoever reads it can tell that it is whole. It is
//! read in pages and never held whole. `docs/decisions/0064-export.md` says why it looks as it does.

mod file;
mod source;

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use metrics::gauge;
use serde::Deserialize;
use sessiond_core::caller::Caller;
use sessiond_core::ids::Position;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use super::App;
use super::download::while_good;
use super::extract::{CanRead, Query};
use super::filter::{FilterParameters, read_id};
use super::history::{EventParameters, HistoryParameters};
use super::ids::{self, Id};
use super::list_parameters::{AsOfParameter, ListParameters, StatusParameters};
use super::page::{read_flag, read_position};
use super::problem::Problem;
use super::words::{PlainText, read_word};
use crate::error::Error;
use crate::gate::Side;
use crate::meter;
use file::File;
use source::Source;

/// The exports that may be under way: each holds a page of what it exports.
#[derive(Clone)]
pub struct Exports {
    room: Arc<Semaphore>,
    most: usize,
}

/// An export that is under way, as long as this is held.
struct UnderWay {
    _room: OwnedSemaphorePermit,
}

impl Exports {
    pub fn at_most(most: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), most }
    }

    fn begin(&self) -> Result<UnderWay, Problem> {
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            let message =
                format!("{} exports are under way, which is as many as may be; try again later", self.most);
            let busy = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message);
            return Err(Problem { retry_after: Some(5), ..busy });
        };
        gauge!(meter::EXPORTS).increment(1.0);
        Ok(UnderWay { _room: room })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        gauge!(meter::EXPORTS).decrement(1.0);
    }
}

/// What the file is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A JSON object a line.
    #[default]
    Ndjson,
    /// RFC 4180; texts that look like formulas have an apostrophe before them.
    Csv,
}

/// How a list becomes a file.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ExportParameters {
    /// What the file is.
    #[param(value_type = ExportFormat, required = false)]
    pub format: Option<String>,
    /// To go on after this: the last session's `id`, or the last event's `position`.
    pub after: Option<String>,
}

impl ExportParameters {
    fn format(&self) -> Result<ExportFormat, Problem> {
        let Some(word) = self.format.as_deref() else { return Ok(ExportFormat::default()) };
        read_word(word).ok_or_else(|| Problem::invalid("format", "format must be ndjson or csv"))
    }
}

/// Export sessions
///
/// All of the list, by connecting, as of when it began or `asOf`. The last line is a manifest with count, log position and the SHA-256
/// of all before it.
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions/export", operation_id = "agentSessions.export",
    tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application."), StatusParameters, FilterParameters, AsOfParameter, ExportParameters),
    responses((status = 200, description = "The file.", content(
        (PlainText = "application/x-ndjson"), (PlainText = "text/csv"), (PlainText = "text/plain"),
    ))))]
pub async fn sessions(
    CanRead(caller): CanRead,
    Id(application, ..): Id<ids::Application>,
    Query(parameters): Query<ListParameters>,
    headers: HeaderMap,
    State(app): State<App>,
) -> Result<Response, Problem> {
    export_sessions(app, caller, Some(application), &parameters, &headers).await
}

/// Export the organization's sessions
///
/// Over all applications.
#[utoipa::path(get, path = "/api/v1/sessions/export", operation_id = "sessions.export", tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Option<Uuid>, Query, description = "Only this application's."), StatusParameters, FilterParameters, AsOfParameter, ExportParameters),
    responses((status = 200, description = "The file.", content(
        (PlainText = "application/x-ndjson"), (PlainText = "text/csv"), (PlainText = "text/plain"),
    ))))]
pub async fn all_sessions(
    CanRead(caller): CanRead,
    Query(parameters): Query<ListParameters>,
    headers: HeaderMap,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let application = parameters.application()?;
    export_sessions(app, caller, application, &parameters, &headers).await
}

async fn export_sessions(
    app: App,
    caller: Caller,
    application: Option<Uuid>,
    parameters: &ListParameters,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let asked = ExportParameters { format: parameters.text("format"), after: parameters.text("after") };
    let after = read_id("after", asked.after.as_deref())?;
    let query = parameters.read_to_export(application, after)?;
    let source = Source::sessions(app.sessions.queries.clone(), caller.clone(), query);
    respond(&app, &caller, ("sessions", asked.format()?), headers, source).await
}

/// Export events
///
/// All of the list, oldest first, as of when it began.
#[utoipa::path(get, path = "/api/v1/events/export", operation_id = "events.export", tag = "events", security(("bearer" = [])),
    params(
        ("applicationId" = Option<Uuid>, Query, description = "Only what happened in this application."),
        ("revocation" = Option<Uuid>, Query, description = "Only what carries this revocation."),
        ("types" = Option<String>, Query, description = "Only these types, separated by commas."),
        ("from" = Option<String>, Query, description = "Recorded at this instant or later (RFC 3339).", format = DateTime),
        ("until" = Option<String>, Query, description = "Recorded before this instant.", format = DateTime),
        ExportParameters,
    ),
    responses((status = 200, description = "The file.", content(
        (PlainText = "application/x-ndjson"), (PlainText = "text/csv"), (PlainText = "text/plain"),
    ))))]
pub async fn events(
    CanRead(caller): CanRead,
    Query(parameters): Query<EventParameters>,
    Query(asked): Query<ExportParameters>,
    headers: HeaderMap,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let source = Source::events(app.sessions.queries.clone(), caller.clone(), parameters.read()?);
    respond(&app, &caller, ("events", asked.format()?), &headers, source).await
}

/// Export a session's history
///
/// All of its events, newest first.
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}/history/export",
    operation_id = "agentSessions.exportHistory", tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        ("sessionId" = Uuid, Path, description = "The session."),
        ("activity" = Option<bool>, Query, description = "Whether to show activity too."),
        ExportParameters,
    ),
    responses((status = 200, description = "The file.", content(
        (PlainText = "application/x-ndjson"), (PlainText = "text/csv"), (PlainText = "text/plain"),
    ))))]
pub async fn history(
    CanRead(caller): CanRead,
    Id(application, ..): Id<ids::Application>,
    Id(session, ..): Id<ids::Session>,
    Query(parameters): Query<HistoryParameters>,
    Query(asked): Query<ExportParameters>,
    headers: HeaderMap,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let activity = read_flag("activity", parameters.activity.as_deref())?;
    let before = read_position("after", asked.after.as_deref())?;
    let queries = app.sessions.queries.clone();
    let source = Source::history(queries, caller.clone(), (application, session), activity, before);
    respond(&app, &caller, ("history", asked.format()?), &headers, source).await
}

/// Sends what a source has, page by page, as fast as the client takes it. What is wrong with the question is found with the first
/// page, before anything is sent; an error later breaks the connection off, and then the manifest is missing.
async fn respond(
    app: &App,
    caller: &Caller,
    (what, format): (&str, ExportFormat),
    headers: &HeaderMap,
    mut source: Source,
) -> Result<Response, Problem> {
    let under_way = app.exports.begin()?;
    let registration = app.sessions.admission.register(caller, Side::Management)?;
    let first = source.next().await?;
    let gzip = accepts_gzip(headers);
    let file = File::begin(format, source.columns(), gzip)?;
    let pieces = pieces(source, file, first, under_way);
    let mut response = Body::from_stream(while_good(registration, pieces)).into_response();
    let (media, extension) = match format {
        _ if accepts_text_alone(headers) => ("text/plain; charset=utf-8", "txt"),
        ExportFormat::Ndjson => ("application/x-ndjson", "ndjson"),
        ExportFormat::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{what}.{extension}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// The bytes of the file, a page at a time.
fn pieces(
    source: Source,
    file: File,
    first: Option<source::Page>,
    under_way: UnderWay,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let pages = read_ahead(source, first);
    stream::unfold(Some((pages, file, under_way)), |state| async move {
        let (mut pages, mut file, under_way) = state?;
        match pages.recv().await {
            Some(Ok((page, position))) => {
                let piece = file.page(&page, position);
                Some((piece, Some((pages, file, under_way))))
            }
            Some(Err(error)) => Some((Err(io::Error::other(error)), None)),
            None => Some((file.end(), None)),
        }
    })
}

/// Pages, each with the log position that it was true at. The next one is read while the one before is on its way, and no more
/// than that.
fn read_ahead(
    mut source: Source,
    first: Option<source::Page>,
) -> mpsc::Receiver<Result<(source::Page, Position), Error>> {
    let (sender, pages) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut next = Ok(first);
        while let Some(page) = next.transpose() {
            let failed = page.is_err();
            let page = page.map(|page| (page, source.position()));
            // Whoever does not take it has gone away.
            if sender.send(page).await.is_err() || failed {
                return;
            }
            next = source.next().await;
        }
    });
    pages
}

/// Whether the client takes gzip (RFC 9110, section 12.5.3); to compress for others would only be a surprise.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let said = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>() == Ok(0.0));
        named && !parts.any(refused)
    })
}

/// Whether the client takes plain text and none of what the file is, as generated clients do.
fn accepts_text_alone(headers: &HeaderMap) -> bool {
    let said = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types =
        said.flat_map(|value| value.split(',')).map(|one| one.split(';').next().unwrap_or("").trim());
    let mut text = false;
    let others = types.by_ref().any(|one| {
        text |= one == "text/plain";
        matches!(one, "*/*" | "text/*" | "application/*" | "text/csv" | "application/x-ndjson")
    });
    text && !others
}
