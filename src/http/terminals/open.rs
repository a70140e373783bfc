//! Opens, shares and ends terminals, and tests machines.

use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use sessiond_core::reason::Reason;
use sessiond_core::relation::Way;
use utoipa::ToSchema;

use super::read::visible;
use super::surface::TerminalError;
use super::{Admin, Body, Id, MACHINE, MachineView, SESSION, Said, Success, User, id, read_id, seconds};
use crate::auth::ClientAddress;
use crate::http::App;
use crate::http::elsewhere::of_owner;
use crate::http::extract::given;
use crate::http::problem::Problem;
use crate::terminal::frame::{MOST, Size};
use crate::terminal::{ClientDetails, NotOpened};

/// The problem of a terminal that could not be opened.
fn not_opened(error: NotOpened) -> Problem {
    match error {
        NotOpened::Refused(error) => error.into(),
        NotOpened::NothingPinned => {
            Problem::new(StatusCode::CONFLICT, "HOST_KEY_NOT_PINNED", error.to_string())
        }
        NotOpened::Ssh(error) => Problem::new(StatusCode::BAD_GATEWAY, error.code(), error.to_string()),
    }
}

/// A new terminal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateTerminalSession)]
pub struct CreateSession {
    /// `mch_…`
    machine_id: String,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    terminal_size: Option<TerminalSize>,
}

/// 80 columns and 24 rows if nothing is said.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    #[schema(minimum = 1, maximum = 1000)]
    cols: i64,
    #[schema(minimum = 1, maximum = 1000)]
    rows: i64,
}

/// A terminal that waits for its WebSocket.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedTerminalSession)]
pub struct CreatedSession {
    session_id: String,
    websocket_url: String,
    /// To be sent in the first frame. It opens this WebSocket and nothing else, one connection at a time.
    token: String,
    /// When the session ends, whatever happens.
    expires_at: String,
}

/// Open a terminal
///
/// Connects to the machine, checks its key, logs in and starts a shell; the WebSocket has to come within the grace period.
#[utoipa::path(post, path = "/v1/sessions", operation_id = "terminals.createSession", tag = "terminals",
    security(("terminalKey" = [])), request_body = CreateSession,
    responses(
        (status = 201, description = "It waits for its WebSocket.", body = Success<CreatedSession>),
        (status = 409, description = "There are as many sessions as there may be.", body = TerminalError),
        (status = 502, description = "The machine cannot be reached, shows another key, or refuses.", body = TerminalError),
    ))]
pub async fn create_session(
    User(caller): User,
    Extension(address): Extension<ClientAddress>,
    parts: Parts,
    State(app): State<App>,
    Body(body): Body<CreateSession>,
) -> Result<(StatusCode, Json<Success<CreatedSession>>), Problem> {
    let machine = read_id("mch", &body.machine_id).ok_or_else(|| super::not_found("Machine"))?;
    let size = match body.terminal_size {
        None => Size::USUAL,
        Some(size) => Size::new(size.cols, size.rows).map_err(|_| {
            let message = format!("terminal_size must have 1 to {MOST} cols and rows");
            Problem::invalid("terminal_size", message)
        })?,
    };
    let machine = app.directory.machines.find(&caller, machine)?;
    let user_agent = parts
        .headers
        .get(header::USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let origin = ClientDetails {
        ip: Some(address.0.to_string()),
        user_agent: user_agent.map(|text| text.chars().take(512).collect()),
    };
    let opened = app.terminals.open(&caller, &machine, size, origin).await.map_err(not_opened)?;
    let session_id = id("sess", opened.id);
    let created = CreatedSession {
        websocket_url: websocket_url(&app, &parts, &session_id),
        session_id,
        token: opened.token,
        expires_at: seconds(opened.expires_at),
    };
    Ok((StatusCode::CREATED, Json(Success::of(created))))
}

/// The URL of a terminal's WebSocket, at the base that the client came by.
fn websocket_url(app: &App, parts: &Parts, session: &str) -> String {
    let base = app.names.asked(&parts.uri, &parts.headers);
    let rest = base.strip_prefix("http").map(|rest| format!("ws{rest}"));
    format!("{}/v1/sessions/{session}/ws", rest.unwrap_or(base))
}

/// The right to watch.
#[derive(Serialize, ToSchema)]
pub struct Viewer {
    session_id: String,
    websocket_url: String,
    /// To be sent in the first frame: shows what is printed, and takes no input.
    token: String,
    expires_at: String,
}

/// Let somebody watch
///
/// Gives a token of its own by which a terminal can be watched, read-only, as long as it lasts.
#[utoipa::path(post, path = "/v1/sessions/{sessionId}/viewers", operation_id = "terminals.createViewer", tag = "terminals",
    security(("terminalKey" = [])), params(("sessionId" = String, Path, description = "`sess_…`")),
    responses(
        (status = 201, description = "The token.", body = Success<Viewer>),
        (status = 409, description = "It has ended.", body = TerminalError),
    ))]
pub async fn create_viewer(
    User(caller): User,
    Id(session): Id<SESSION>,
    mut parts: Parts,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let view = visible(&app, &caller, session).await?;
    if let Some(response) = of_owner(&app, &view.session, &mut parts).await? {
        return Ok(response);
    }
    // A terminal that has ended is still in the registry for a moment, in which its connections are told.
    let terminal = app.terminals.terminal(session).filter(|_| view.session.ended.is_none());
    let terminal = terminal.ok_or_else(ended)?;
    let session_id = id("sess", session);
    let viewer = Viewer {
        websocket_url: websocket_url(&app, &parts, &session_id),
        session_id,
        token: app.terminals.mint_viewer_token(&caller, &terminal),
        expires_at: seconds(view.session.lifetime_ends_at),
    };
    Ok((StatusCode::CREATED, Json(Success::of(viewer))).into_response())
}

fn ended() -> Problem {
    Problem::new(StatusCode::CONFLICT, "conflict", "Session has already ended")
}

/// Terminate a session
///
/// Ends it, closes its shell and tells whoever is at it. When this is answered nothing of it is shown any more.
#[utoipa::path(delete, path = "/v1/sessions/{sessionId}", operation_id = "terminals.terminateSession", tag = "terminals",
    security(("terminalKey" = [])), params(("sessionId" = String, Path, description = "`sess_…`")),
    responses(
        (status = 200, description = "It has ended.", body = Said),
        (status = 409, description = "It had ended already.", body = TerminalError),
    ))]
pub async fn terminate_session(
    User(caller): User,
    Id(session): Id<SESSION>,
    State(app): State<App>,
) -> Result<Json<Said>, Problem> {
    let session = app.sessions.queries.find_to_act_on(&caller, Way::Terminals, session).await?;
    if session.over(app.clock.now()).is_some() && !caller.repeats() {
        return Err(ended());
    }
    if app.sessions.lifecycle.end(&caller, &session, Reason::Terminated).await? == 0 {
        return Err(ended());
    }
    Ok(Json(Said::that("Session terminated successfully")))
}

/// What to look at.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestMachine {
    /// Pin the key that the machine shows. Only where you know that it is the right one.
    #[serde(default)]
    pin_host_key: bool,
}

/// What a look at a machine found.
#[derive(Serialize, ToSchema)]
pub struct TestedMachine {
    machine: MachineView,
    /// The key that it shows, as OpenSSH writes it.
    host_key: String,
    /// The same as `ssh-keygen -l` shows it: compare it with what the machine itself says.
    host_key_fingerprint: String,
    /// Whether that key is pinned.
    pinned: bool,
    /// Milliseconds until we were logged in; null where no key is pinned, because then nobody logs in.
    #[schema(required = true)]
    logged_in_ms: Option<u64>,
}

/// Try a machine
///
/// Whether it can be reached, shows the key that is pinned, and takes the credential. Where no key is pinned yet, only the key
/// is told, and pinned if that is asked for; nothing secret is sent to a machine whose key nobody knows.
#[utoipa::path(post, path = "/v1/machines/{machineId}/test", operation_id = "terminals.testMachine", tag = "terminals",
    security(("terminalKey" = [])), params(("machineId" = String, Path, description = "`mch_…`")),
    request_body = TestMachine,
    responses(
        (status = 200, description = "What was found.", body = Success<TestedMachine>),
        (status = 502, description = "The machine cannot be reached, shows another key, or refuses.", body = TerminalError),
    ))]
pub async fn test_machine(
    Admin(caller): Admin,
    Id(machine): Id<MACHINE>,
    State(app): State<App>,
    Body(body): Body<TestMachine>,
) -> Result<Json<Success<TestedMachine>>, Problem> {
    let mut machine = app.directory.machines.find(&caller, machine)?;
    let mut tested = app.terminals.test(&machine).await.map_err(not_opened)?;
    if body.pin_host_key && !tested.pinned {
        machine = app.directory.machines.pin_host_key(&caller, &machine, tested.host_key.key.clone()).await?;
        tested = app.terminals.test(&machine).await.map_err(not_opened)?;
    }
    Ok(Json(Success::of(TestedMachine {
        machine: machine.into(),
        host_key_fingerprint: tested.host_key.fingerprint,
        host_key: tested.host_key.key,
        pinned: tested.pinned,
        logged_in_ms: tested.took,
    })))
}

/// Whether the page that opens a WebSocket may do so: it must be of our own address, or of an origin that is allowed.
pub fn origin_allowed(app: &App, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    app.names.origins().iter().any(|own| own == origin)
        || app.config.allow_origin.iter().any(|allowed| allowed.trim_end_matches('/') == origin)
}
