//! The WebSocket of a terminal.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use super::open::origin_allowed;
use super::read_id;
use crate::core::reason::Reason;
use crate::http::App;
use crate::http::problem::Problem;
use crate::secret::{self, TokenKind};
use crate::terminal::frame::{self, Fault, LARGEST, Mode, Said, Told};
use crate::terminal::text::Text;
use crate::terminal::{NotAttached, Over, Role, Seat, Step};

/// A connection has this long to say who it is.
const AUTH_WITHIN: Duration = Duration::from_secs(10);
/// Output in one frame, at most.
const PIECE: usize = 16 << 10;
/// After so much output the other side is asked what has arrived.
const ASK_AFTER: u64 = 64 << 10;
/// And at least so often, so that whoever is gone is noticed.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// Somebody who does not answer that for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// The last frames have so long to be taken.
const FAREWELL: Duration = Duration::from_millis(100);
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
    let upgrade = upgrade.max_message_size(LARGEST + 1024).max_frame_size(LARGEST + 1024);
    Ok(upgrade.on_upgrade(move |socket| serve(app, session, socket)))
}

async fn serve(app: App, session: String, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let (seat, mode, lost) = match introduced(&app, &session, &mut stream).await {
        Ok(seated) => seated,
        Err(refusal) => {
            let code = if refusal.code == "TOO_SLOW" { close_code::POLICY } else { 4401 };
            tell(&mut sink, &refusal.told()).await.ok();
            close(&mut sink, code, "not authenticated").await;
            return;
        }
    };
    let size = seat.shell().size();
    let ready = Told::Ready {
        position: seat.place,
        cols: size.cols,
        rows: size.rows,
        mode,
        read_only: seat.role == Role::Watcher,
        lost,
    };
    if tell(&mut sink, &ready).await.is_err() {
        return;
    }
    let (answers, waiting) = mpsc::channel(REPLIES);
    let shell = seat.shell().clone();
    let listening = Listener { shell, role: seat.role, mode, answers };
    let over = Speaker { seat, mode, text: Text::default(), waiting, asked: 0 }
        .run(&mut sink, listening, stream)
        .await;
    if let Some(over) = over {
        farewell(&mut sink, &over).await;
    }
}

/// Waits for the first frame, and finds what its token is good for.
async fn introduced(
    app: &App,
    session: &str,
    stream: &mut SplitStream<WebSocket>,
) -> Result<(Seat, Mode, u64), Fault> {
    let refused = |code, message: &'static str| Fault { code, message: message.into() };
    let first = timeout(AUTH_WITHIN, async {
        loop {
            match stream.next().await {
                Some(Ok(Message::Text(text))) => return Some(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    });
    let first = first.await.map_err(|_| refused("TOO_SLOW", "no auth frame came in time"))?;
    let first = first.ok_or_else(|| refused("UNAUTHORIZED", "the first frame must be auth"))?;
    let Ok(Said::Auth { token, mode, after }) = frame::read(&first) else {
        return Err(refused("UNAUTHORIZED", "the first frame must be auth"));
    };
    let unknown = || refused("UNAUTHORIZED", "Invalid or expired token");
    let presented =
        secret::parse(&token).filter(|one| one.kind == TokenKind::Terminal).ok_or_else(unknown)?;
    let named = read_id("sess", session).ok_or_else(unknown)?;
    let shell = app.terminals.shell(named).filter(|_| presented.id == named).ok_or_else(unknown)?;
    let role = shell.role(&presented.hash).ok_or_else(unknown)?;
    if app.clock.now() >= shell.session.lifetime_ends_at {
        return Err(unknown());
    }
    let seat = match role {
        Role::Typist => shell.attach(after),
        Role::Watcher => shell.watch(),
    };
    match seat {
        Ok(mut seat) => {
            let wanted = seat.place;
            let lost = seat.skip_lost();
            Ok((seat, mode, lost.saturating_sub(wanted)))
        }
        Err(NotAttached::Taken) => Err(refused(
            "CONFLICT",
            "another connection is at this terminal: close it, or watch with a token of its own",
        )),
        Err(NotAttached::Over(_)) => Err(unknown()),
    }
}

/// What a connection says.
struct Listener {
    shell: std::sync::Arc<crate::terminal::Shell>,
    role: Role,
    mode: Mode,
    answers: mpsc::Sender<Answer>,
}

/// What comes of it for whoever speaks.
enum Answer {
    Fault(Fault),
    /// Everything up to here has arrived.
    Arrived(u64),
    /// Nothing more is heard until the machine takes what was typed.
    Congested,
}

impl Listener {
    /// Listens until the connection ends.
    async fn run(self, mut stream: SplitStream<WebSocket>) {
        while let Some(Ok(message)) = stream.next().await {
            let outcome = match message {
                Message::Text(text) => self.frame(&text).await,
                Message::Binary(bytes) => match frame::read_binary(self.mode, &bytes) {
                    Ok(()) => self.input(bytes).await,
                    Err(fault) => Err(fault),
                },
                Message::Pong(payload) => {
                    if let Ok(place) = <[u8; 8]>::try_from(payload.as_ref()) {
                        self.answers.send(Answer::Arrived(u64::from_be_bytes(place))).await.ok();
                    }
                    Ok(())
                }
                Message::Ping(_) => Ok(()),
                Message::Close(_) => return,
            };
            if let Err(fault) = outcome
                && self.answers.send(Answer::Fault(fault)).await.is_err()
            {
                return;
            }
        }
    }

    async fn frame(&self, text: &str) -> Result<(), Fault> {
        match frame::read(text)? {
            Said::Input(data) => self.input(Bytes::from(data)).await,
            Said::Resize(size) if self.role == Role::Typist => {
                self.shell.resize(size).await;
                Ok(())
            }
            Said::Resize(_) => Err(Fault::read_only()),
            Said::Auth { .. } => {
                Err(Fault { code: "CONFLICT", message: "this connection is authenticated".into() })
            }
        }
    }

    async fn input(&self, bytes: Bytes) -> Result<(), Fault> {
        if self.role != Role::Typist {
            return Err(Fault::read_only());
        }
        if !bytes.is_empty() {
            let Some(bytes) = self.shell.try_input(bytes) else { return Ok(()) };
            self.answers.send(Answer::Congested).await.ok();
            self.shell.input(bytes).await;
        }
        Ok(())
    }
}

/// What a connection is told.
struct Speaker {
    seat: Seat,
    mode: Mode,
    text: Text,
    waiting: mpsc::Receiver<Answer>,
    /// The place that the other side was last asked about.
    asked: u64,
}

impl Speaker {
    /// Speaks until the shell is over, which is returned, or the connection.
    async fn run(
        mut self,
        sink: &mut Sink,
        listener: Listener,
        stream: SplitStream<WebSocket>,
    ) -> Option<Over> {
        let mut changes = self.seat.shell().changes();
        let listening = listener.run(stream);
        tokio::pin!(listening);
        let mut ask = interval(ASK_EVERY);
        let mut answered = tokio::time::Instant::now();
        loop {
            // Only what is drawn next is waited for here: what was handed over has left the tail's care.
            let step = tokio::select! {
                biased;
                () = &mut listening => return None,
                answer = self.waiting.recv() => {
                    match answer? {
                        Answer::Arrived(place) => {
                            answered = tokio::time::Instant::now();
                            self.seat.arrived(place);
                        }
                        Answer::Congested => self.seat.arrived(self.seat.place),
                        Answer::Fault(fault) => tell(sink, &fault.told()).await.ok()?,
                    }
                    continue;
                }
                _ = ask.tick() => {
                    if answered.elapsed() > GONE_AFTER {
                        return None;
                    }
                    self.ask(sink).await?;
                    continue;
                }
                step = self.seat.next(PIECE) => step,
            };
            let over = match step {
                Step::Output(bytes) => {
                    // A client that takes nothing must not keep what was cut off from ending, nor its own words unheard.
                    tokio::select! {
                        biased;
                        over = cut(&mut changes) => Some(over),
                        () = &mut listening => return None,
                        sent = self.output(sink, bytes) => { sent?; None }
                    }
                }
                Step::Skip(from) => {
                    let size = self.seat.shell().size();
                    let told = Told::Ready {
                        position: from,
                        cols: size.cols,
                        rows: size.rows,
                        mode: self.mode,
                        read_only: self.seat.role == Role::Watcher,
                        lost: 0,
                    };
                    tell(sink, &told).await.ok()?;
                    None
                }
                Step::Over(over) => Some(over),
            };
            if over.is_some() {
                return over;
            }
        }
    }

    async fn output(&mut self, sink: &mut Sink, bytes: Bytes) -> Option<()> {
        let message = match self.mode {
            Mode::Binary => Message::Binary(bytes),
            Mode::Text => {
                let data = self.text.push(&bytes);
                if data.is_empty() {
                    return Some(());
                }
                Message::Text(Told::Output { data }.to_json().into())
            }
        };
        sink.send(message).await.ok()?;
        if self.seat.shell().is_congested() {
            self.seat.arrived(self.seat.place);
        }
        if self.seat.place - self.asked >= ASK_AFTER {
            self.ask(sink).await?;
        }
        Some(())
    }

    /// Asks what has arrived: whoever answers a ping has had all that came before it.
    async fn ask(&mut self, sink: &mut Sink) -> Option<()> {
        self.asked = self.seat.place;
        let place = self.asked.to_be_bytes();
        sink.send(Message::Ping(Bytes::copy_from_slice(&place))).await.ok()
    }
}

/// Waits until the shell is cut off.
async fn cut(changes: &mut crate::terminal::Changes) -> Over {
    let over = changes.over().await;
    if !over.cut {
        std::future::pending::<()>().await;
    }
    over
}

async fn tell(sink: &mut Sink, told: &Told<'_>) -> Result<(), axum::Error> {
    sink.send(Message::Text(told.to_json().into())).await
}

/// Says why it is over, and closes.
async fn farewell(sink: &mut Sink, over: &Over) {
    let told = Told::Disconnect { reason: word(over.reason), message: Some(over.message.as_str().into()) };
    let said = async {
        tell(sink, &told).await.ok();
        close(sink, close_code::NORMAL, over.reason.word()).await;
    };
    timeout(FAREWELL, said).await.ok();
}

async fn close(sink: &mut Sink, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    timeout(FAREWELL, sink.send(Message::Close(Some(frame)))).await.ok();
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
