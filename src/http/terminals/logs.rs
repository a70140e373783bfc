//! The recordings of terminals: commands and output as a log, the recording as a file, and the search in commands.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use sessiond_core::shown::{self, Indented};
use utoipa::{IntoParams, ToSchema};

use super::read::{read_moment, visible};
use super::{Id, SESSION, Success, User, UserName, id, machine_name, read_id, seconds, user_name};
use crate::gate::Side;
use crate::http::App;
use crate::http::download::while_good;
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::http::words::{PlainText, read_word};
use crate::journals::{Code, Content, Entry, Filed, Journal, Marks, Query as LinesQuery, Start};
use crate::sessions::{ListQuery, Registration, SessionQuery, View};
use crate::terminal::asciicast::{About, Asciicast, MEDIA_TYPE, Version};
use crate::terminal::frame::Size;
use crate::terminal::plain::Plain;
use crate::terminal::text::Text;

/// How many entries a page of a log has if the client does not say.
const PAGE: usize = 1_000;
/// How many entries a page may have.
const MOST: usize = 10_000;
/// How many sessions one search looks through.
const SEARCHED: u32 = 200;
/// How many commands one search returns.
const FOUND: usize = 100;
/// The longest text to search for; bytes.
const LONGEST: usize = 200;

/// A command, or output.
#[derive(Serialize, ToSchema)]
#[schema(as = TerminalLogEntry)]
pub struct LogEntry {
    timestamp: String,
    /// `command` or `output`.
    r#type: &'static str,
    content: String,
}

/// A part of a session's log, in the order of time.
#[derive(Serialize, ToSchema)]
#[schema(as = TerminalLog)]
pub struct Log {
    session_id: String,
    logs: Vec<LogEntry>,
    /// `after` of the next part, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_after: Option<i64>,
}

/// Which part, and how.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogParameters {
    /// `json`, or `text`: all of it, a line `[time] $ command` before what each command printed, which is indented and without
    /// what a terminal obeys: sequences are left out, single control characters written out (`\u{7}`).
    #[param(value_type = LogFormat, required = false)]
    format: Option<String>,
    /// Only what comes after this; for `json`.
    #[param(value_type = Option<i64>, minimum = 0)]
    after: Option<String>,
    /// Most entries; for `json`.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<String>,
}

/// How a log is told.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TerminalLogFormat)]
pub enum LogFormat {
    Json,
    Text,
}

/// Commands and output
///
/// They stay after the session has ended, until retention takes them.
#[utoipa::path(get, path = "/v1/sessions/{sessionId}/logs", operation_id = "terminals.getLogs", tag = "terminals",
    security(("terminalKey" = [])), params(("sessionId" = String, Path, description = "`sess_…`"), LogParameters),
    responses(
        (status = 200, description = "The log.", content(
            (Success<Log> = "application/json"),
            (PlainText = "text/plain"),
        )),
    ))]
pub async fn session_logs(
    User(caller): User,
    Id(session): Id<SESSION>,
    Query(parameters): Query<LogParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let text = match parameters.format.as_deref().map(read_word) {
        None | Some(Some(LogFormat::Json)) => false,
        Some(Some(LogFormat::Text)) => true,
        Some(None) => return Err(Problem::invalid("format", "format must be json or text")),
    };
    let number = |field: &'static str, text: Option<&str>, least: i64, most: i64, usual: i64| match text
        .map(str::parse)
    {
        None => Ok(usual),
        Some(Ok(number)) if (least..=most).contains(&number) => Ok(number),
        Some(_) => {
            Err(Problem::invalid(field, format!("{field} must be a whole number from {least} to {most}")))
        }
    };
    let after = number("after", parameters.after.as_deref(), 0, i64::MAX, 0)?;
    let limit = number("limit", parameters.limit.as_deref(), 1, MOST as i64, PAGE as i64)?;
    let view = visible(&app, &caller, session).await?;
    if text {
        let registration = app.sessions.admission.register(&caller, Side::Management)?;
        return Ok(as_text(&app, &view, registration));
    }
    let query = LinesQuery {
        start: Some(Start::Beyond(after)),
        only: Marks::codes(&[Code::Output, Code::Marker]),
        limit: usize::try_from(limit).unwrap_or(PAGE),
        ..LinesQuery::default()
    };
    let page = app.lines.page(Journal::Recording, view.session.number, &query).await?;
    let next_after = page.entries.last().map(|last| last.position).filter(|_| page.more);
    let mut output = Text::default();
    let logs = page.entries.into_iter().filter_map(|filed| log_entry(&filed.entry, &mut output)).collect();
    let log = Log { session_id: id("sess", session), logs, next_after };
    Ok(Json(Success::of(log)).into_response())
}

fn log_entry(entry: &Entry, output: &mut Text) -> Option<LogEntry> {
    let Content::Chunk { code, bytes } = &entry.content else { return None };
    let timestamp = seconds(entry.time());
    match code {
        Code::Marker => {
            let content = String::from_utf8_lossy(bytes).into_owned();
            Some(LogEntry { timestamp, r#type: "command", content })
        }
        Code::Output => {
            let content = output.push(bytes).into_owned();
            (!content.is_empty()).then_some(LogEntry { timestamp, r#type: "output", content })
        }
        _ => None,
    }
}

/// The whole log as text, piece by piece. Output is indented, without the sequences that a terminal obeys: a program cannot
/// print what looks like a command of the record, nor control the terminal of whoever reads it.
fn as_text(app: &App, view: &View, registration: Registration) -> Response {
    let query = LinesQuery { only: Marks::codes(&[Code::Output, Code::Marker]), ..LinesQuery::default() };
    let pages = app.lines.download(Journal::Recording, view.session.number, query);
    let begun = (pages, Plain::default(), Indented::default());
    let pieces = stream::unfold(begun, |(mut pages, mut output, mut indented)| async move {
        let piece = match pages.next().await? {
            Ok(page) => {
                let mut text = String::new();
                for Filed { entry, .. } in &page.entries {
                    write_entry(entry, &mut output, &mut indented, &mut text);
                }
                Ok(Bytes::from(text))
            }
            Err(error) => Err(std::io::Error::other(error)),
        };
        Some((piece, (pages, output, indented)))
    });
    let pieces = while_good(registration, pieces);
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(pieces)).into_response()
}

fn write_entry(entry: &Entry, output: &mut Plain, indented: &mut Indented, into: &mut String) {
    match &entry.content {
        Content::Chunk { code: Code::Marker, bytes } => {
            indented.end(into);
            let command = String::from_utf8_lossy(bytes);
            let lines: Vec<_> = command.split('\n').map(shown::line).collect();
            // Further lines of a command begin with `> `. Output is indented, so that nothing of it looks like one of them.
            into.push_str(&format!("[{}] $ {}\n", seconds(entry.time()), lines.join("\n> ")));
        }
        _ => indented.push(&output.push(entry.bytes()), into),
    }
}

/// Which version of the format.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecordingParameters {
    /// Of asciicast: players from before 2025 know version 2 alone, which says nothing of how the shell ended.
    #[param(value_type = u8, required = false, minimum = 2, maximum = 3, default = 3)]
    version: Option<String>,
}

/// The recording
///
/// As asciicast, for asciinema's player: output, input as far as it was shown, sizes, and commands as markers.
#[utoipa::path(get, path = "/v1/sessions/{sessionId}/recording", operation_id = "terminals.getRecording", tag = "terminals",
    security(("terminalKey" = [])),
    params(("sessionId" = String, Path, description = "`sess_…`"), RecordingParameters),
    responses(
        (status = 200, description = "The recording; as `text/plain` for those who accept that and no asciicast.", content(
            (AsciicastText = "application/x-asciicast"),
            (PlainText = "text/plain"),
        )),
    ))]
pub async fn recording(
    User(caller): User,
    Id(session): Id<SESSION>,
    Query(parameters): Query<RecordingParameters>,
    State(app): State<App>,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let version = match parameters.version.as_deref() {
        None | Some("3") => Version::Three,
        Some("2") => Version::Two,
        Some(_) => return Err(Problem::invalid("version", "version must be 2 or 3")),
    };
    let view = visible(&app, &caller, session).await?;
    let registration = app.sessions.admission.register(&caller, Side::Management)?;
    let first = LinesQuery { limit: 1, ..LinesQuery::default() };
    let first = app.lines.page(Journal::Recording, view.session.number, &first).await?;
    let first = first.entries.into_iter().next();
    let begin = first.as_ref().map_or(view.session.connected_at.timestamp_micros(), |filed| filed.entry.at);
    let about = About {
        timestamp: begin.div_euclid(1_000_000),
        title: view.detail.name.clone(),
        kind: Some("xterm-256color".to_owned()),
    };
    let cast = Asciicast::new(version);
    let head = cast.header(first.as_ref().and_then(size_of).unwrap_or(Size::USUAL), &about);
    // The size at the beginning is in the header.
    let start = first.map(|filed| Start::At(filed.position + i64::from(size_of(&filed).is_some())));
    let query = LinesQuery { start, ..LinesQuery::default() };
    let pages = app.lines.download(Journal::Recording, view.session.number, query);
    let body = stream::unfold((pages, cast, false), move |(mut pages, mut cast, over)| async move {
        if over {
            return None;
        }
        let piece = match pages.next().await {
            Some(Ok(page)) => {
                let lines = page.entries.iter().map(|filed| line(&mut cast, begin, &filed.entry));
                Ok(Bytes::from(lines.collect::<String>()))
            }
            Some(Err(error)) => Err(std::io::Error::other(error)),
            None => return Some((Ok(Bytes::from(cast.finish())), (pages, cast, true))),
        };
        let failed = piece.is_err();
        Some((piece, (pages, cast, failed)))
    });
    let head = stream::once(async { Ok(Bytes::from(head)) });
    let mut response = Body::from_stream(while_good(registration, head.chain(body))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(&asked)));
    let name = format!("attachment; filename=\"{}.cast\"", id("sess", session));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Lines of JSON, for asciinema's player.
#[derive(Serialize, ToSchema)]
#[schema(as = Asciicast)]
pub struct AsciicastText(String);

/// The media type of the recording. Clients generated from the document may accept text only.
fn media_type(asked: &HeaderMap) -> &'static str {
    let accepts = |media_type: &str| {
        let mut values = asked.get_all(header::ACCEPT).iter();
        values.any(|value| value.to_str().is_ok_and(|value| value.contains(media_type)))
    };
    if accepts("text/plain") && !accepts(MEDIA_TYPE) { "text/plain; charset=utf-8" } else { MEDIA_TYPE }
}

fn line(cast: &mut Asciicast, begin: i64, entry: &Entry) -> String {
    let Content::Chunk { code, bytes } = &entry.content else { return String::new() };
    cast.entry((entry.at - begin).max(0).unsigned_abs(), *code, bytes)
}

/// The size in an entry, if it is one of a size.
fn size_of(filed: &Filed) -> Option<Size> {
    let Content::Chunk { code: Code::Resize, bytes } = &filed.entry.content else { return None };
    let (cols, rows) = std::str::from_utf8(bytes).ok()?.split_once('x')?;
    Size::new(cols.parse().ok()?, rows.parse().ok()?).ok()
}

/// A command that was found.
#[derive(Serialize, ToSchema)]
#[schema(as = FoundTerminalCommand)]
pub struct FoundCommand {
    session_id: String,
    user: UserName,
    machine: super::MachineName,
    timestamp: String,
    command: String,
}

/// Commands that were found, those of the newest sessions first.
#[derive(Serialize, ToSchema)]
#[schema(as = FoundTerminalCommands)]
pub struct FoundCommands {
    commands: Vec<FoundCommand>,
    /// `to` of the next search, where there are older sessions that were not looked through.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    older_than: Option<String>,
}

/// What to look for, and where.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SearchParameters {
    /// A part of the command line.
    q: Option<String>,
    /// `mch_…`
    machine_id: Option<String>,
    /// `usr_…`
    user_id: Option<String>,
    /// Only sessions that started at this instant or later.
    #[param(value_type = Option<String>)]
    from: Option<String>,
    /// Or at this instant or before.
    #[param(value_type = Option<String>)]
    to: Option<String>,
}

/// Search in commands
///
/// Through the commands of up to 200 sessions, the newest first; at most 100 are returned. Go on with `older_than` as `to`.
#[utoipa::path(get, path = "/v1/sessions/commands", operation_id = "terminals.searchCommands", tag = "terminals",
    security(("terminalKey" = [])), params(SearchParameters),
    responses(
        (status = 200, description = "What was found.", body = Success<FoundCommands>),
    ))]
pub async fn search_commands(
    User(caller): User,
    Query(parameters): Query<SearchParameters>,
    State(app): State<App>,
) -> Result<Json<Success<FoundCommands>>, Problem> {
    let phrase = parameters.q.as_deref().unwrap_or_default();
    if phrase.trim().is_empty() || phrase.len() > LONGEST {
        return Err(Problem::invalid("q", format!("q must be 1 to {LONGEST} bytes of a command line")));
    }
    let nothing = || Json(Success::of(FoundCommands { commands: vec![], older_than: None }));
    let Some(filter) = searched(&app, &caller, &parameters)? else { return Ok(nothing()) };
    let query = ListQuery { filter, limit: SEARCHED, ..ListQuery::default() };
    let found = app.sessions.queries.list(&caller, &query).await?;
    let mut older_than = found.next.map(|(at, _)| seconds(at));
    let mut commands = Vec::new();
    for view in &found.items {
        let left = FOUND - commands.len();
        commands.extend(commands_of(&app, &caller, view, phrase, left).await?);
        if commands.len() >= FOUND {
            older_than = Some(seconds(view.session.connected_at));
            break;
        }
    }
    Ok(Json(Success::of(FoundCommands { commands, older_than })))
}

fn searched(
    app: &App,
    caller: &Caller,
    parameters: &SearchParameters,
) -> Result<Option<SessionQuery>, Problem> {
    let from = parameters.from.as_deref().map(|text| read_moment("from", text, false)).transpose()?;
    let to = parameters.to.as_deref().map(|text| read_moment("to", text, true)).transpose()?;
    let machine = parameters.machine_id.as_deref().map(|text| read_id("mch", text));
    let user = parameters.user_id.as_deref().map(|text| read_id("usr", text));
    let own = app.directory.principals.person(caller).filter(|_| !caller.looks_at_all());
    let foreign = matches!((own, user.flatten()), (Some(own), Some(user)) if own != user);
    if machine == Some(None) || user == Some(None) || foreign {
        return Ok(None);
    }
    Ok(Some(SessionQuery {
        kind: Some(Kind::Terminal),
        principal: user.flatten().or(own),
        resource: machine.flatten().map(|machine| machine.to_string()),
        connected_after: from,
        connected_before: to.map(|to| to + chrono::TimeDelta::milliseconds(1)),
        ..SessionQuery::default()
    }))
}

async fn commands_of(
    app: &App,
    caller: &Caller,
    view: &View,
    text: &str,
    most: usize,
) -> Result<Vec<FoundCommand>, Problem> {
    let query = LinesQuery { only: Marks::codes(&[Code::Marker]), limit: MOST, ..LinesQuery::default() };
    let mut pages = app.lines.download(Journal::Recording, view.session.number, query);
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        for Filed { entry, .. } in page?.entries {
            let command = String::from_utf8_lossy(entry.bytes());
            if command.contains(text) {
                found.push((entry.time(), command.into_owned()));
            }
            if found.len() >= most {
                break;
            }
        }
        if found.len() >= most {
            break;
        }
    }
    if found.is_empty() {
        return Ok(vec![]);
    }
    let user = user_name(app, view.session.principal, view.principal.id).await?.user;
    let machine = machine_name(app, caller, view.session.resource.as_deref());
    let session_id = id("sess", view.session.id);
    let commands = found.into_iter().map(|(at, command)| FoundCommand {
        session_id: session_id.clone(),
        user: user.clone(),
        machine: machine.clone(),
        timestamp: seconds(at),
        command,
    });
    Ok(commands.collect())
}
