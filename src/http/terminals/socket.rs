//! The WebSocket of a terminal.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use sessiond_core::ending::Ending;
use sessiond_core::reason::Reason;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};

use super::open::origin_allowed;
use super::read_id;
use crate::gate::Side;
use crate::http::App;
use crate::http::connection::Connection;
use crate::http::problem::Problem;
use crate::secret::{self, TokenKind};
use crate::sessions::Registration;
use crate::terminal::frame::{self, ClientFrame, FrameError, LARGEST, Mode, ServerFrame};
use crate::terminal::hub::{Attached, InputHandle, Piece, Refused};
use crate::terminal::text::Text;
use crate::terminal::{EndReason, Role, Terminal, end_reason};

/// What is read at once; larger messages take more than one read.
const READ: usize = 16 << 10;
/// Of whoever has not said yet who it is no more than this is listened to.
const STRANGERS: usize = 8 << 10;
/// After so much output the other side is asked what has arrived.
const ASK_AFTER: u64 = 64 << 10;
/// And at least so often, so that whoever is gone is noticed.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// Somebody who does not answer that for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// The last frames have so long to be taken.
const FAREWELL: Duration = Duration::from_millis(100);
/// And the other side has so long to close too.
const PARTING: Duration = Duration::from_secs(2);
/// Replies that may wait to be sent.
const REPLIES: usize = 16;

type Sink = SplitSink<WebSocket, Message>;

/// The WebSocket of a terminal
///
/// The first frame is `{"type":"auth","token":"…"}`; see the documentation of the surface for the others. No credential is
/// needed for the upgrade itself: browsers cannot send one.
pub async fn websocket(
    State(app): State<App>,
    Path(session): Path<String>,
    connection: Option<Extension<Arc<Connection>>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| {
        let message = format!("This is a WebSocket: {}", rejection.body_text());
        Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
    })?;
    if !origin_allowed(&app, &headers) {
        let message = "Pages of this origin may not open terminals; see --allow-origin";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    // Keys are few. The buffer is memory that each terminal has for as long as it is open: of itself it would be 128 KiB.
    let upgrade =
        upgrade.read_buffer_size(READ).max_message_size(LARGEST + 1024).max_frame_size(LARGEST + 1024);
    let connection = connection.map(|Extension(connection)| connection);
    if let Some(connection) = &connection {
        connection.confine(STRANGERS);
    }
    Ok(upgrade.on_upgrade(move |socket| serve(app, session, socket, connection)))
}

async fn serve(app: App, session: String, socket: WebSocket, connection: Option<Arc<Connection>>) {
    let (mut sink, mut stream) = socket.split();
    let (code, why) = match introduced(&app, &session, &mut stream, connection.as_deref()).await {
        Ok(introduced) => {
            if let Some(connection) = connection {
                connection.release();
            }
            attend(introduced, &mut sink, &mut stream).await
        }
        Err(refusal) => {
            timeout(FAREWELL, tell(&mut sink, &refusal.told())).await.ok();
            (close_code::POLICY, "not authenticated")
        }
    };
    part(sink, stream, code, why).await;
}

/// Serves one who has said who it is. Returns with which code, and word, the connection is closed.
async fn attend(
    introduced: Introduced,
    sink: &mut Sink,
    stream: &mut SplitStream<WebSocket>,
) -> (u16, &'static str) {
    let Introduced { terminal, attached, mode, role, redraw, registration } = introduced;
    let (answers, waiting) = mpsc::channel(REPLIES);
    let listening = Listener { hand: attached.input_handle(), mode, answers, redraw }.run(stream);
    let (lost, asked) = (attached.lost, attached.position());
    let (text, answered) = (Text::default(), Instant::now());
    let speaker = Speaker { terminal, attached, mode, role, text, waiting, asked, answered };
    if speaker.ready(sink, lost).await.is_none() {
        return (close_code::AWAY, "");
    }
    match speaker.run(sink, listening, registration.ended()).await {
        Farewell::None => (close_code::NORMAL, ""),
        Farewell::TooLarge => (close_code::SIZE, "a message may have 1 MiB"),
        Farewell::Replaced => {
            let message = "another connection has taken this place".into();
            let told = ServerFrame::Disconnect { reason: "replaced", message: Some(message) };
            timeout(FAREWELL, tell(sink, &told)).await.ok();
            (close_code::NORMAL, "replaced")
        }
        Farewell::Over(over) => {
            let message = Some(over.message.as_str().into());
            let told = ServerFrame::Disconnect { reason: word(over.reason), message };
            timeout(FAREWELL, tell(sink, &told)).await.ok();
            (close_code::NORMAL, over.reason.word())
        }
    }
}

/// Closes as RFC 6455, 7.1.1 has it: says so, and waits for the other side to have said so too. Whoever hangs up before that
/// resets the connection where something was still on its way, and takes the farewell back with it.
async fn part(mut sink: Sink, mut stream: SplitStream<WebSocket>, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    let closing = async {
        sink.send(Message::Close(Some(frame))).await.ok();
        sink.flush().await.ok();
        loop {
            match stream.next().await {
                None if code == close_code::SIZE => return sleep(PARTING).await,
                None => return,
                Some(Ok(_)) => {}
                // What is too large is not read on, whatever is made of the rest; the other side has a moment to read why.
                Some(Err(_)) if code == close_code::SIZE => return sleep(PARTING).await,
                Some(Err(_)) => return,
            }
        }
    };
    timeout(PARTING, closing).await.ok();
}

fn is_too_large(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<tungstenite::Error>());
    matches!(source, Some(tungstenite::Error::Capacity(_)))
}

/// A connection that has said who it is.
struct Introduced {
    terminal: Arc<Terminal>,
    attached: Attached,
    mode: Mode,
    role: Role,
    /// What a full-screen program has drawn before is to be drawn anew.
    redraw: bool,
    /// Says when the credential ends by which its token was asked for.
    registration: Registration,
}

/// Waits for the first frame, as long as for the head of a request, and finds what its token is good for.
async fn introduced(
    app: &App,
    session: &str,
    stream: &mut SplitStream<WebSocket>,
    connection: Option<&Connection>,
) -> Result<Introduced, FrameError> {
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
    // Registered before it is attached: a token is good as long as the credential that it was asked for with.
    let registration = app.sessions.admission.register(&caller, side).map_err(|error| FrameError {
        code: "UNAUTHORIZED",
        message: format!("The credential behind this token opens nothing any more: {error}").into(),
    })?;
    if app.clock.now() >= terminal.session.lifetime_ends_at {
        return Err(unknown());
    }
    let attached = match role {
        Role::Writer => terminal.hub.write(after),
        Role::Watcher => terminal.hub.watch(after),
    };
    let attached =
        attached.map_err(|error| FrameError { code: "INVALID_FRAME", message: error.to_string().into() })?;
    // Of what a full-screen program has drawn before, nothing is printed again.
    let blank = role == Role::Writer && (after.is_none() || attached.lost > 0);
    let redraw = blank && terminal.is_full_screen();
    Ok(Introduced { terminal, attached, mode, role, redraw, registration })
}

/// What a connection says.
struct Listener {
    hand: InputHandle,
    mode: Mode,
    answers: mpsc::Sender<Answer>,
    /// The program at the terminal is to draw its screen again.
    redraw: bool,
}

/// What comes of it for whoever speaks.
enum Answer {
    FrameError(FrameError),
    /// Everything up to here has arrived.
    Arrived(u64),
    /// Nothing more is heard until the machine takes what was typed.
    HeldUp,
}

/// How listening ended.
enum Heard {
    End,
    /// A message that is too large to be read.
    TooLarge,
}

impl From<Heard> for Farewell {
    fn from(heard: Heard) -> Self {
        match heard {
            Heard::End => Self::None,
            Heard::TooLarge => Self::TooLarge,
        }
    }
}

impl Listener {
    /// Listens until the connection ends.
    async fn run(self, stream: &mut SplitStream<WebSocket>) -> Heard {
        if self.redraw {
            self.hand.redraw().await;
        }
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) if is_too_large(&error) => return Heard::TooLarge,
                Some(Err(_)) | None => return Heard::End,
            };
            let outcome = match message {
                Message::Text(text) => self.frame(&text).await,
                Message::Binary(bytes) => match frame::read_binary(self.mode, &bytes) {
                    Ok(()) => self.input(bytes).await,
                    Err(fault) => Err(fault),
                },
                Message::Pong(payload) => {
                    if let Ok(position) = <[u8; 8]>::try_from(payload.as_ref()) {
                        self.answers.send(Answer::Arrived(u64::from_be_bytes(position))).await.ok();
                    }
                    Ok(())
                }
                Message::Ping(_) => Ok(()),
                Message::Close(_) => return Heard::End,
            };
            if let Err(fault) = outcome
                && self.answers.send(Answer::FrameError(fault)).await.is_err()
            {
                return Heard::End;
            }
        }
    }

    async fn frame(&self, text: &str) -> Result<(), FrameError> {
        match frame::read(text)? {
            ClientFrame::Input(data) => self.input(Bytes::from(data)).await,
            ClientFrame::Resize(size) => or_fault(self.hand.resize(size).await),
            ClientFrame::Auth { .. } => Err(FrameError {
                code: "CONFLICT",
                message: "this connection is authenticated already".into(),
            }),
        }
    }

    async fn input(&self, bytes: Bytes) -> Result<(), FrameError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let held_up = async || {
            self.answers.send(Answer::HeldUp).await.ok();
        };
        or_fault(self.hand.input(bytes, held_up).await)
    }
}

/// Of one that has been replaced or has ended, the end is told anyway.
fn or_fault(outcome: Result<(), Refused>) -> Result<(), FrameError> {
    match outcome {
        Err(Refused::ReadOnly) => Err(FrameError::read_only()),
        Ok(()) | Err(Refused::Replaced | Refused::Ended) => Ok(()),
    }
}

/// How a connection parts.
enum Farewell {
    /// The other side has gone.
    None,
    TooLarge,
    Replaced,
    Over(EndReason),
}

/// What a connection is told.
struct Speaker {
    terminal: Arc<Terminal>,
    attached: Attached,
    mode: Mode,
    role: Role,
    text: Text,
    waiting: mpsc::Receiver<Answer>,
    /// The position that the other side was last asked about.
    asked: u64,
    /// When it last answered.
    answered: Instant,
}

/// What there is to be said.
enum Next {
    Answer(Answer),
    /// It is time to ask whether the other side is there.
    Ask,
    Piece(Piece),
}

impl Speaker {
    /// Says where output goes on.
    async fn ready(&self, sink: &mut Sink, lost: u64) -> Option<()> {
        let size = self.terminal.hub.size();
        let ready = ServerFrame::Ready {
            position: self.attached.position(),
            cols: size.cols,
            rows: size.rows,
            mode: self.mode,
            read_only: self.role == Role::Watcher,
            lost,
        };
        tell(sink, &ready).await.ok()
    }

    /// Speaks until the terminal is over, or the connection.
    async fn run(
        mut self,
        sink: &mut Sink,
        listening: impl Future<Output = Heard>,
        ended: impl Future<Output = Ending>,
    ) -> Farewell {
        tokio::pin!(listening, ended);
        let terminal = self.terminal.clone();
        let mut ask = interval(ASK_EVERY);
        loop {
            let next = tokio::select! {
                biased;
                ending = &mut ended => return Farewell::Over(end_reason(ending)),
                heard = &mut listening => return heard.into(),
                Some(answer) = self.waiting.recv() => Next::Answer(answer),
                _ = ask.tick() => Next::Ask,
                piece = self.attached.next() => Next::Piece(piece),
            };
            match next {
                Next::Piece(Piece::Replaced) => return Farewell::Replaced,
                Next::Piece(Piece::End(_)) => return Farewell::Over(self.ended().await),
                _ => {}
            }
            // Whoever takes nothing must not keep what was cut off from ending, nor what it says itself unheard.
            let said = tokio::select! {
                biased;
                ending = &mut ended => return Farewell::Over(end_reason(ending)),
                () = terminal.hub.was_cut() => return Farewell::Over(self.ended().await),
                heard = &mut listening => return heard.into(),
                said = timeout(GONE_AFTER, self.say(sink, next)) => said,
            };
            if !matches!(said, Ok(Some(()))) {
                return Farewell::None;
            }
        }
    }

    /// Says what is to be said; nothing if the other side has gone.
    async fn say(&mut self, sink: &mut Sink, next: Next) -> Option<()> {
        match next {
            Next::Answer(Answer::Arrived(position)) => {
                self.answered = Instant::now();
                self.attached.confirm(position);
                Some(())
            }
            Next::Answer(Answer::HeldUp) => {
                self.attached.confirm(self.attached.position());
                Some(())
            }
            Next::Answer(Answer::FrameError(fault)) => tell(sink, &fault.told()).await.ok(),
            Next::Ask if self.answered.elapsed() > GONE_AFTER => None,
            Next::Ask => self.ask(sink).await,
            Next::Piece(Piece::Output { bytes, .. }) => self.output(sink, bytes).await,
            Next::Piece(Piece::Lost { bytes, .. }) => self.ready(sink, bytes).await,
            Next::Piece(Piece::Replaced | Piece::End(_)) => Some(()),
        }
    }

    /// How it ended: told by whoever minds it, which may take a moment.
    async fn ended(&self) -> EndReason {
        self.terminal.told_over().await
    }

    async fn output(&mut self, sink: &mut Sink, bytes: Bytes) -> Option<()> {
        let message = match self.mode {
            Mode::Binary => Some(Message::Binary(bytes)),
            Mode::Text => {
                let data = self.text.push(&bytes);
                (!data.is_empty()).then(|| Message::Text(ServerFrame::Output { data }.to_json().into()))
            }
        };
        if let Some(message) = message {
            sink.send(message).await.ok()?;
        }
        let position = self.attached.position();
        if self.attached.is_held_up() {
            self.attached.confirm(position);
        }
        if position - self.asked >= ASK_AFTER {
            self.ask(sink).await?;
        }
        Some(())
    }

    /// Asks what has arrived: whoever answers a ping has had all that came before it.
    async fn ask(&mut self, sink: &mut Sink) -> Option<()> {
        self.asked = self.attached.position();
        let position = self.asked.to_be_bytes();
        sink.send(Message::Ping(Bytes::copy_from_slice(&position))).await.ok()
    }
}

async fn tell(sink: &mut Sink, told: &ServerFrame<'_>) -> Result<(), axum::Error> {
    sink.send(Message::Text(told.to_json().into())).await
}

/// The word that the surface has for a reason.
fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Lifetime => "expired",
        Reason::Idle => "idle",
        Reason::Client | Reason::Exited | Reason::MachineLost | Reason::UpstreamLost | Reason::Failed => {
            "closed"
        }
        Reason::Terminated
        | Reason::Revoked
        | Reason::Archived
        | Reason::Stale
        | Reason::Evicted
        | Reason::Superseded => "terminated",
    }
}
