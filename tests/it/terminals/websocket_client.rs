//! A client at the WebSocket of a terminal.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Opened;

/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct TerminalClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The answer to `auth`.
    pub ready: Value,
    /// All output so far.
    pub bytes: Vec<u8>,
    /// How much of it has been looked at by `until`.
    seen: usize,
    /// How the other side closed.
    pub closed: Option<CloseFrame>,
}

/// What comes over a WebSocket.
#[derive(Debug, PartialEq)]
pub enum Received {
    Frame(Value),
    Bytes(Vec<u8>),
}

impl TerminalClient {
    /// Connects, and says nothing.
    pub async fn connect(url: &str) -> Self {
        let (socket, _) = connect_async(url).await.unwrap();
        Self { socket, ready: Value::Null, bytes: vec![], seen: 0, closed: None }
    }

    /// Connects, and says these things of itself.
    pub async fn introduce(url: &str, auth: Value) -> Self {
        let mut client = Self::connect(url).await;
        client.say(auth).await;
        let Some(Received::Frame(ready)) = client.next().await else { panic!("no answer to auth") };
        assert_eq!(ready["type"], "ready", "{ready}");
        Self { ready, ..client }
    }

    /// Takes the place of the one who types.
    pub async fn take(opened: &Opened) -> Self {
        Self::introduce(&opened.url, json!({ "type": "auth", "token": opened.token })).await
    }

    /// The same, for bytes as they are.
    pub async fn take_binary(opened: &Opened) -> Self {
        let auth = json!({ "type": "auth", "token": opened.token, "mode": "binary" });
        Self::introduce(&opened.url, auth).await
    }

    /// Comes back, having had so many bytes.
    pub async fn return_after(opened: &Opened, after: u64) -> Self {
        let auth = json!({ "type": "auth", "token": opened.token, "after": after });
        Self::introduce(&opened.url, auth).await
    }

    pub async fn say(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.unwrap();
    }

    pub async fn input(&mut self, data: &str) {
        self.say(json!({ "type": "input", "data": data })).await;
    }

    pub async fn resize(&mut self, cols: i64, rows: i64) {
        self.say(json!({ "type": "resize", "cols": cols, "rows": rows })).await;
    }

    /// What comes next; `None` when the other side has closed. Fails when nothing comes.
    pub async fn next(&mut self) -> Option<Received> {
        timeout(PATIENCE, self.take_next())
            .await
            .unwrap_or_else(|_| panic!("nothing came; so far: {:?}", String::from_utf8_lossy(self.tail())))
    }

    async fn take_next(&mut self) -> Option<Received> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Text(text)) => {
                    return Some(Received::Frame(serde_json::from_str(&text).unwrap()));
                }
                Ok(Message::Binary(bytes)) => return Some(Received::Bytes(bytes.to_vec())),
                Ok(Message::Close(frame)) => self.closed = frame,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The next frame that is not output, passing over that.
    pub async fn frame(&mut self) -> Option<Value> {
        loop {
            match self.next().await? {
                Received::Bytes(bytes) => self.bytes.extend(bytes),
                Received::Frame(frame) if frame["type"] == "output" => self.keep(&frame),
                Received::Frame(frame) => return Some(frame),
            }
        }
    }

    fn keep(&mut self, frame: &Value) {
        assert_eq!(frame.as_object().unwrap().len(), 2, "{frame}");
        self.bytes.extend_from_slice(frame["data"].as_str().unwrap().as_bytes());
    }

    /// Reads until this was printed, behind what was found before.
    pub async fn until(&mut self, wanted: &str) {
        self.until_within(PATIENCE, wanted).await;
    }

    /// The same for what takes longer.
    pub async fn until_within(&mut self, patience: Duration, wanted: &str) {
        let give_up = tokio::time::Instant::now() + patience;
        loop {
            // Only what is new is looked through, and what it may have begun in.
            if let Some(at) = find(&self.bytes[self.seen..], wanted.as_bytes()) {
                self.seen += at + wanted.len();
                return;
            }
            self.seen = self.seen.max(self.bytes.len().saturating_sub(wanted.len()));
            let in_time = tokio::time::Instant::now() < give_up;
            assert!(in_time, "no {wanted:?}; so far: {:?}", String::from_utf8_lossy(self.tail()));
            self.more().await;
        }
    }

    /// Takes the next piece of output.
    pub async fn more(&mut self) {
        match self.next().await {
            Some(Received::Bytes(bytes)) => self.bytes.extend(bytes),
            Some(Received::Frame(frame)) if frame["type"] == "output" => self.keep(&frame),
            other => panic!("{other:?}; so far: {:?}", String::from_utf8_lossy(self.tail())),
        }
    }

    /// Forgets what was printed so far.
    pub fn forget(&mut self) {
        self.bytes.clear();
        self.seen = 0;
    }

    /// Runs a command once the shell waits for one, and reads until it has printed this.
    pub async fn run(&mut self, command: &str, wanted: &str) {
        self.input(&format!("{command}\r")).await;
        self.until(wanted).await;
    }

    /// All that comes until the other side closes: what is not output.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut frames = vec![];
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }

    /// The farewell, and that the other side closes after it.
    pub async fn farewell(&mut self) -> Value {
        let mut rest = self.rest().await;
        assert_eq!(rest.len(), 1, "{rest:?}");
        let farewell = rest.remove(0);
        assert_eq!(farewell["type"], "disconnect", "{farewell}");
        farewell
    }

    /// What was printed so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn tail(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(2_000)..]
    }
}

pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
