//! The WebSocket of a terminal: a client says by its first frame who it is, and then two halves work at the same time, one
//! that reads what the client sends (`listener`) and one that sends it what the terminal prints (`sender`).

mod listener;
mod sender;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::open::origin_allowed;
use super::read_id;
use crate::gate::Side;
use crate::http::App;
use crate::http::connection::Connection;
use crate::http::elsewhere::of_owner;
use crate::http::problem::Problem;
use crate::nodes::HandedOn;
use crate::secret::{self, TokenKind};
use crate::sessions::Registration;
use crate::terminal::frame::{self, ClientFrame, FrameError, LARGEST, Mode, ServerFrame};
use crate::terminal::hub::Attachment;
use crate::terminal::{EndReason, Role, Terminal};
use listener::Listener;
use sender::{Sender, disconnect_reason, send_frame};

/// How many bytes of a message are read at once; larger messages take more than one read.
const READ: usize = 16 << 10;
/// How many bytes are read of a client that has not yet said who it is.
const STRANGERS: usize = 8 << 10;
/// How long a client may take to receive the last frame.
const FAREWELL: Duration = Duration::from_millis(100);
/// How long a client may take to close its side too.
const PARTING: Duration = Duration::from_secs(2);
/// How many notices may wait for the half that sends.
const NOTICES: usize = 16;

type Sink = SplitSink<WebSocket, Message>;

/// The WebSocket of a terminal
///
/// The first frame is `{"type":"auth","token":"…"}`; see the documentation of the surface for the others. No credential is
/// needed for the upgrade itself: browsers cannot send one.
pub async fn websocket(
    State(app): State<App>,
    Path(session): Path<String>,
    connection: Option<Extension<Arc<Connection>>>,
    mut parts: Parts,
) -> Result<Response, Problem> {
    let find = || read_id("sess", &session).and_then(|id| app.sessions.queries.open_by_id(id));
    let mut open = find();
    if open.is_none()
        && let Some(before) = app.catch_up.at()
    {
        // It may have been opened on another node a moment ago.
        app.catch_up.further(before).await;
        open = find();
    }
    if let Some(open) = open.filter(|_| origin_allowed(&app, &parts.headers))
        && let Some(response) = of_owner(&app, &open, &mut parts).await?
    {
        return Ok(response);
    }
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app).await.map_err(|rejection| {
        let message = format!("This is a WebSocket: {}", rejection.body_text());
        Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
    })?;
    if !origin_allowed(&app, &parts.headers) {
        let message = "Pages of this origin may not open terminals; see --allow-origin";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    // What is typed is little, and each open terminal keeps its buffer: the default would be 128 KiB.
    let upgrade =
        upgrade.read_buffer_size(READ).max_message_size(LARGEST + 1024).max_frame_size(LARGEST + 1024);
    let connection = connection.map(|Extension(connection)| connection);
    if let Some(connection) = &connection {
        connection.confine(STRANGERS);
    }
    let handed_on = parts.extensions.get().copied();
    Ok(upgrade.on_upgrade(move |socket| serve(app, session, socket, connection, handed_on)))
}

/// Serves a client from its first frame to the close of the connection.
async fn serve(
    app: App,
    session: String,
    socket: WebSocket,
    connection: Option<Arc<Connection>>,
    handed_on: Option<HandedOn>,
) {
    let (mut sink, mut stream) = socket.split();
    match authenticate(&app, &session, &mut stream, connection.as_deref()).await {
        Ok((client, registration)) => {
            if let Some(connection) = connection {
                connection.release();
            }
            let (code, why) = exchange(client, &registration, &mut sink, &mut stream).await;
            // What was handed on by way of another node has arrived when the client's own close has come back.
            let kept = handed_on.map(|_| registration);
            close(sink, stream, code, why).await;
            drop(kept);
        }
        Err(refusal) => {
            timeout(FAREWELL, send_frame(&mut sink, &refusal.to_frame())).await.ok();
            close(sink, stream, close_code::POLICY, "not authenticated").await;
        }
    }
}

/// Runs both halves for a client that has said who it is. Returns the code and the reason with which the connection is to
/// be closed.
async fn exchange(
    client: Authenticated,
    registration: &Registration,
    sink: &mut Sink,
    stream: &mut SplitStream<WebSocket>,
) -> (u16, &'static str) {
    let Authenticated { terminal, attachment, mode, role, redraw } = client;
    let (notices, receiver) = mpsc::channel(NOTICES);
    let listening = Listener { input: attachment.input_handle(), mode, notices, redraw }.run(stream);
    let lost = attachment.lost;
    let sender = Sender::new(terminal, attachment, (mode, role), receiver);
    if sender.ready(sink, lost).await.is_none() {
        return (close_code::AWAY, "");
    }
    match sender.run(sink, listening, registration).await {
        Farewell::None => (close_code::NORMAL, ""),
        Farewell::TooLarge => (close_code::SIZE, "a message may have 1 MiB"),
        Farewell::Replaced => {
            let message = "another connection has taken this place".into();
            let frame = ServerFrame::Disconnect { reason: "replaced", message: Some(message) };
            timeout(FAREWELL, send_frame(sink, &frame)).await.ok();
            (close_code::NORMAL, "replaced")
        }
        Farewell::Ended(end) => {
            let message = Some(end.message.as_str().into());
            let frame = ServerFrame::Disconnect { reason: disconnect_reason(end.reason), message };
            timeout(FAREWELL, send_frame(sink, &frame)).await.ok();
            (close_code::NORMAL, end.reason.word())
        }
    }
}

/// Closes the connection as RFC 6455, 7.1.1 wants it: sends a close frame, and waits for the client's own. Without that wait
/// the connection would be reset while the client still sends something, and the client would lose the last frame.
async fn close(mut sink: Sink, mut stream: SplitStream<WebSocket>, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    let closing = async {
        sink.send(Message::Close(Some(frame))).await.ok();
        sink.flush().await.ok();
        loop {
            match stream.next().await {
                None if code == close_code::SIZE => return sleep(PARTING).await,
                None => return,
                Some(Ok(_)) => {}
                // The rest of a message that is too large is not read; the client has a moment to read why.
                Some(Err(_)) if code == close_code::SIZE => return sleep(PARTING).await,
                Some(Err(_)) => return,
            }
        }
    };
    timeout(PARTING, closing).await.ok();
}

/// A client that has said who it is, attached to its terminal.
struct Authenticated {
    terminal: Arc<Terminal>,
    attachment: Attachment,
    mode: Mode,
    role: Role,
    /// Whether the full-screen program at the terminal is to draw its screen again.
    redraw: bool,
}

/// Waits for the first frame, as long as for the head of a request, and attaches the client to the terminal that its token
/// is for. What is returned beside it says when the credential ends by which the token was asked for.
async fn authenticate(
    app: &App,
    session: &str,
    stream: &mut SplitStream<WebSocket>,
    connection: Option<&Connection>,
) -> Result<(Authenticated, Registration), FrameError> {
    let refused = |code, message: &'static str| FrameError { code, message: message.into() };
    let first = timeout(app.config.head_timeout, async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Text(text))) => return Some(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    });
    let exhausted = async {
        match connection {
            Some(connection) => connection.exhausted().await,
            None => std::future::pending().await,
        }
    };
    let first = tokio::select! {
        biased;
        first = first => first.map_err(|_| refused("UNAUTHORIZED", "no auth frame came in time"))?,
        () = exhausted => return Err(refused("UNAUTHORIZED", "the first frame must be auth, which is small")),
    };
    let first = first.ok_or_else(|| refused("UNAUTHORIZED", "the first frame must be auth"))?;
    let Ok(ClientFrame::Auth { token, mode, after }) = frame::read(&first) else {
        return Err(refused("UNAUTHORIZED", "the first frame must be auth"));
    };
    let unknown = || refused("UNAUTHORIZED", "Invalid or expired token");
    let presented =
        secret::parse(&token).filter(|one| one.kind == TokenKind::Terminal).ok_or_else(unknown)?;
    let named = read_id("sess", session).ok_or_else(unknown)?;
    let terminal = app.terminals.terminal(named).filter(|_| presented.id == named).ok_or_else(unknown)?;
    let (role, caller) = terminal.role(&presented.hash).ok_or_else(unknown)?;
    let side = Side::Agent(terminal.session.application, Some(terminal.session.number));
    // The client is registered before it is attached, because its token is good only as long as the credential that the
    // token was asked for with.
    let registration = app.sessions.admission.register(&caller, side).map_err(|error| FrameError {
        code: "UNAUTHORIZED",
        message: format!("The credential behind this token opens nothing any more: {error}").into(),
    })?;
    if app.clock.now() >= terminal.session.lifetime_ends_at {
        return Err(unknown());
    }
    let attachment = match role {
        Role::Writer => terminal.hub.write(after),
        Role::Viewer => terminal.hub.watch(after),
    };
    let attachment = attachment
        .map_err(|error| FrameError { code: "INVALID_FRAME", message: error.to_string().into() })?;
    // A full-screen program prints nothing again of what it has drawn before.
    let blank = role == Role::Writer && (after.is_none() || attachment.lost > 0);
    let redraw = blank && terminal.is_full_screen();
    Ok((Authenticated { terminal, attachment, mode, role, redraw }, registration))
}

/// How the service of a client ended.
enum Farewell {
    /// The client has gone, and cannot be told anything.
    None,
    /// The client sent a message that is too large to be read.
    TooLarge,
    /// Another connection has become the writer.
    Replaced,
    /// The terminal has ended, or the client's credential.
    Ended(EndReason),
}
