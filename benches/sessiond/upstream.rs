//! The MCP server behind the gateways: as fast as one can be. It answers in both eras, remembers nothing, and runs in a
//! process of its own, over HTTP or, for gateways that start their server themselves, over standard input and output.

use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::Process;

/// What the small tool answers.
pub const SMALL: &str = "pong";
/// How much the large tool answers.
pub const LARGE: usize = 1 << 20;
/// What the streaming tool sends at once, before it is done.
pub const FIRST: &str = "the first of it";
/// What its callers ask to be told of progress by.
pub const TOKEN: &str = "bench";
/// When the streaming tool is done.
const DONE: Duration = Duration::from_millis(5);

const SESSION: &str = "mcp-session-id";

/// The server, as a process of its own.
pub struct Upstream {
    pub process: Process,
    pub address: SocketAddr,
}

impl Upstream {
    pub fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let (process, address) = Process::that_says_where(command.arg("--serve-mcp"))?;
        Ok(Self { process, address })
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }
}

// ---- what it says ----

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<&'a str>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    name: Option<&'a str>,
    #[serde(rename = "protocolVersion")]
    protocol_version: Option<&'a str>,
}

/// An answer without its id.
enum Said {
    Nothing,
    /// `"result":…` or `"error":…`
    Whole(Bytes),
    /// Something at once, and this later.
    Streamed(Bytes),
}

static RESULTS: LazyLock<[Bytes; 3]> = LazyLock::new(|| {
    let result = |text: &str| {
        let content = json!([{ "type": "text", "text": text }]);
        // What the revision with sessions does not know, its clients pass over.
        Bytes::from(format!("\"result\":{}", json!({ "content": content, "resultType": "complete" })))
    };
    [result(SMALL), result(&"x".repeat(LARGE)), result("the rest of it")]
});

fn say(message: &Message<'_>) -> Said {
    if message.id.is_none() {
        return Said::Nothing;
    }
    let whole = |name: &str, value: Value| Said::Whole(Bytes::from(format!("\"{name}\":{value}")));
    let [small, large, rest] = &*RESULTS;
    match (message.method.unwrap_or_default(), message.params.name) {
        ("tools/call", Some("small")) => Said::Whole(small.clone()),
        ("tools/call", Some("large")) => Said::Whole(large.clone()),
        ("tools/call", Some("stream")) => Said::Streamed(rest.clone()),
        ("tools/call", _) => whole("error", json!({ "code": -32602, "message": "Unknown tool" })),
        ("initialize", _) => {
            let version = message.params.protocol_version.filter(|version| *version < "2026");
            whole("result", introduction("protocolVersion", version.unwrap_or("2025-11-25").into()))
        }
        ("server/discover", _) => whole("result", introduction("supportedVersions", json!(["2026-07-28"]))),
        ("tools/list", _) => {
            let schema = json!({ "type": "object", "properties": {} });
            let tool = |name| json!({ "name": name, "description": name, "inputSchema": schema });
            let tools: Vec<Value> = ["small", "large", "stream"].map(tool).into();
            let about =
                json!({ "tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private" });
            whole("result", about)
        }
        ("ping", _) => whole("result", json!({})),
        _ => whole("error", json!({ "code": -32601, "message": "Method not found" })),
    }
}

fn introduction(field: &str, versions: Value) -> Value {
    let mut about = json!({
        "capabilities": { "tools": {} },
        "serverInfo": { "name": "bench", "version": "1.0.0" },
        "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
    });
    about[field] = versions;
    about
}

fn before(id: &RawValue) -> Bytes {
    Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":{},", id.get()))
}

// ---- over HTTP ----

/// What [`Upstream`] runs: says where it listens, and serves until its standard input ends.
pub fn serve() {
    std::thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        std::process::exit(0);
    });
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
    });
}

async fn answer(method: Method, body: Bytes) -> Response {
    match method {
        Method::POST => post(&body),
        // A stream on which nothing happens.
        Method::GET => events(stream::iter([Bytes::from_static(b": \n\n")]).chain(stream::pending())),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

fn post(body: &[u8]) -> Response {
    let Ok(message) = serde_json::from_slice::<Message<'_>>(body) else {
        return (StatusCode::BAD_REQUEST, "not a message").into_response();
    };
    let Some((id, said)) = message.id.map(|id| (before(id), say(&message))) else {
        return StatusCode::ACCEPTED.into_response();
    };
    let mut response = match said {
        Said::Nothing => return StatusCode::ACCEPTED.into_response(),
        Said::Whole(rest) => {
            // In pieces, so that a large answer is not copied.
            let pieces = [id, rest, Bytes::from_static(b"}")];
            let length = pieces.iter().map(Bytes::len).sum::<usize>();
            let about = [
                (header::CONTENT_TYPE, "application/json".to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
            ];
            (about, Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)))).into_response()
        }
        Said::Streamed(rest) => {
            let params = json!({ "progressToken": TOKEN, "progress": 1, "message": FIRST });
            let first = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
            let first = Bytes::from(format!("event: message\ndata: {first}\n\n"));
            let last =
                [Bytes::from_static(b"event: message\ndata: "), id, rest, Bytes::from_static(b"}\n\n")]
                    .concat();
            let later = stream::once(async move {
                tokio::time::sleep(DONE).await;
                Bytes::from(last)
            });
            events(stream::iter([first]).chain(later))
        }
    };
    if message.method == Some("initialize") {
        let session = Uuid::new_v4().simple().to_string();
        response.headers_mut().insert(SESSION, session.parse().expect("digits"));
    }
    response
}

fn events(events: impl stream::Stream<Item = Bytes> + Send + 'static) -> Response {
    let about = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (about, Body::from_stream(events.map(Ok::<_, std::io::Error>))).into_response()
}

// ---- over standard input and output ----

/// One message a line, in and out.
pub fn serve_lines() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Message<'_>>(&line) else { continue };
        if let (Some(id), Said::Whole(rest) | Said::Streamed(rest)) = (message.id, say(&message)) {
            let written = out.write_all(&[before(id), rest, Bytes::from_static(b"}\n")].concat());
            if written.and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    }
}
