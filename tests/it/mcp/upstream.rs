//! An MCP server that does as it is told, and remembers what it was sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// What was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Sent {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or("")
    }
}

#[derive(Default)]
pub struct Told {
    pub sent: Mutex<Vec<Sent>>,
    sessions: Mutex<BTreeSet<String>>,
    opened: Mutex<u64>,
    /// Answers to `initialize` with a stream of events.
    pub greets_with_events: Mutex<bool>,
    /// Says that it does not know a session in the words of the TypeScript examples.
    pub says_400: Mutex<bool>,
    /// Refuses every `initialize`.
    pub closed: Mutex<bool>,
    /// The value of `authorization` without which everything is 401.
    pub wants: Mutex<Option<String>>,
    /// Lets go of what `silent` waits for.
    pub release: Notify,
    /// Knows no revision without sessions, and says so in the words of its age.
    pub is_old: Mutex<bool>,
    /// Serves one standalone stream at a time, as the TypeScript SDK's server does.
    pub serves_one_stream: Mutex<bool>,
    pub streams: Arc<AtomicUsize>,
    /// Takes its time over `initialize`.
    pub hesitates: Mutex<bool>,
    /// Says that it does not know a session by this status and body.
    pub says_lost: Mutex<Option<(u16, String)>>,
    /// What it answers to GET instead of a stream, and to one that resumes.
    pub answers_streams: Mutex<Option<StatusCode>>,
    pub answers_resumption: Mutex<Option<StatusCode>>,
    /// Sends nothing of a stream, not even its head, until it is released.
    pub keeps_streams_waiting: Mutex<bool>,
    /// Takes its time over a DELETE.
    pub hesitates_to_part: Mutex<bool>,
    /// What it answers to a DELETE instead.
    pub parts_with: Mutex<Option<StatusCode>>,
    /// How many DELETEs were under way at a time, at most.
    pub most_partings: AtomicUsize,
    partings: AtomicUsize,
    /// How many answers were given up by whoever asked.
    pub given_up: Arc<AtomicUsize>,
}

/// Notes that an answer was given up before its end.
struct Noting(Arc<AtomicUsize>);

impl Drop for Noting {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub struct Upstream {
    pub url: String,
    pub told: Arc<Told>,
}

impl Upstream {
    pub async fn start() -> Self {
        let told = Arc::new(Told::default());
        let router = Router::new()
            .route("/mcp", routing::any(serve))
            .layer(DefaultBodyLimit::disable())
            .with_state(told.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, told }
    }

    /// As if it had been started anew.
    pub fn forget(&self) {
        self.told.sessions.lock().clear();
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.told.sent.lock().clone()
    }

    pub fn sent_rpc(&self, method: &str) -> Vec<Sent> {
        self.sent().into_iter().filter(|sent| sent.rpc() == method).collect()
    }

    /// Waits until it has been sent a request of this kind.
    pub async fn until(&self, what: impl Fn(&Sent) -> bool) {
        for _ in 0..1_000 {
            if self.sent().iter().any(&what) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited ten seconds in vain; it was sent {:?}", self.sent());
    }
}

async fn serve(State(told): State<Arc<Told>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let sent = Sent { method: method.clone(), headers: headers.clone(), body: body.clone() };
    // There are very many of these.
    if body["params"]["name"] != "nonce" {
        told.sent.lock().push(sent.clone());
    }
    if told.wants.lock().as_deref().is_some_and(|wanted| sent.header("authorization") != Some(wanted)) {
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer realm=\"upstream\"")])
            .into_response();
    }
    if sent.rpc() == "initialize" {
        if *told.hesitates.lock() {
            told.release.notified().await;
        }
        return initialize(&told, &body);
    }
    let modern = &body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"];
    if modern.is_string() || sent.header("mcp-protocol-version") == Some("2026-07-28") {
        return without_session(told, &body).await;
    }
    let known = sent.header("mcp-session-id").is_some_and(|id| told.sessions.lock().contains(id));
    if !known && let Some((status, body)) = told.says_lost.lock().clone() {
        return (StatusCode::from_u16(status).unwrap(), body).into_response();
    }
    if !known {
        let (status, message) = match *told.says_400.lock() {
            true => (StatusCode::BAD_REQUEST, "Bad Request: No valid session ID provided"),
            false => (StatusCode::NOT_FOUND, "Session not found"),
        };
        let error = json!({ "jsonrpc": "2.0", "error": { "code": -32000, "message": message }, "id": null });
        return (status, axum::Json(error)).into_response();
    }
    match method {
        Method::GET if *told.serves_one_stream.lock() => one_stream(&told),
        Method::GET => stand(&told, sent.header("last-event-id")).await,
        Method::DELETE => part(&told, sent.header("mcp-session-id").unwrap()).await,
        _ if body[0]["params"]["name"] == "batch story" => {
            let [first, last] = [result(&body[0]["id"]), result(&body[1]["id"])];
            let mut pieces = vec![format!("data: {first}\n\n")];
            pieces.extend((0..1_500).map(|_| "data: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n".to_owned()));
            pieces.push(format!("data: {last}\n\n"));
            events(pieces, false)
        }
        _ if body[0]["params"]["name"] == "half a batch" => {
            axum::Json(json!([result(&body[0]["id"])])).into_response()
        }
        _ if body.is_array() => {
            let requests = body.as_array().unwrap().iter().filter(|one| one.get("id").is_some());
            let answers: Vec<_> = requests.map(|one| result(&one["id"])).collect();
            axum::Json(json!(answers)).into_response()
        }
        _ if sent.rpc() == "notifications/stuck" => {
            told.release.notified().await;
            StatusCode::ACCEPTED.into_response()
        }
        _ if body.get("id").is_none() || body.get("method").is_none() => StatusCode::ACCEPTED.into_response(),
        _ => call(told, &body).await,
    }
}

/// In the manner of 2026-07-28.
async fn without_session(told: Arc<Told>, body: &Value) -> Response {
    let id = &body["id"];
    if *told.is_old.lock() {
        let message = "Bad Request: Server not initialized";
        let error = json!({ "jsonrpc": "2.0", "error": { "code": -32000, "message": message }, "id": null });
        return (StatusCode::BAD_REQUEST, axum::Json(error)).into_response();
    }
    if body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2098-01-01" {
        let data = json!({ "supported": ["2026-07-28"], "requested": "2098-01-01" });
        let error = json!({ "code": -32022, "message": "Unsupported protocol version", "data": data });
        let answer = json!({ "jsonrpc": "2.0", "error": error, "id": id });
        return (StatusCode::BAD_REQUEST, axum::Json(answer)).into_response();
    }
    match body["method"].as_str().unwrap_or("") {
        "server/discover" => {
            let result = json!({
                "resultType": "complete",
                "supportedVersions": ["2026-07-28"],
                "capabilities": { "tools": {} },
                "ttlMs": 0,
                "cacheScope": "private",
            });
            axum::Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response()
        }
        "subscriptions/listen" => {
            let method = "notifications/subscriptions/acknowledged";
            let acknowledged = json!({ "jsonrpc": "2.0", "method": method, "params": {} });
            events(vec![format!("data: {acknowledged}\n\n")], true)
        }
        "tools/call" => call(told, body).await,
        _ if id.is_null() => StatusCode::ACCEPTED.into_response(),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            let answer = json!({ "jsonrpc": "2.0", "error": error, "id": id });
            (StatusCode::NOT_FOUND, axum::Json(answer)).into_response()
        }
    }
}

fn initialize(told: &Told, body: &Value) -> Response {
    if *told.closed.lock() {
        let error = json!({ "jsonrpc": "2.0", "error": { "code": -32602, "message": "Not today" }, "id": body["id"] });
        return (StatusCode::BAD_REQUEST, axum::Json(error)).into_response();
    }
    let number = {
        let mut opened = told.opened.lock();
        *opened += 1;
        *opened
    };
    let id = format!("upstream-{number}");
    told.sessions.lock().insert(id.clone());
    let result = json!({
        "protocolVersion": body["params"]["protocolVersion"],
        "capabilities": { "tools": {} },
        "serverInfo": { "name": "fake", "version": "0" },
    });
    let answer = json!({ "jsonrpc": "2.0", "id": body["id"], "result": result });
    let headers =
        [("mcp-session-id", id.as_str()), ("set-cookie", "upstream=1"), ("access-control-allow-origin", "*")];
    if *told.greets_with_events.lock() {
        let text = format!("id: p\ndata: \n\nevent: message\ndata: {answer}\n\n");
        return (headers, events(vec![text], false)).into_response();
    }
    (headers, axum::Json(answer)).into_response()
}

async fn part(told: &Told, session: &str) -> Response {
    let now = told.partings.fetch_add(1, Ordering::SeqCst) + 1;
    told.most_partings.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(5)).await;
    if *told.hesitates_to_part.lock() {
        told.release.notified().await;
    }
    told.partings.fetch_sub(1, Ordering::SeqCst);
    let instead = *told.parts_with.lock();
    if instead.is_none() {
        told.sessions.lock().remove(session);
    }
    instead.unwrap_or(StatusCode::OK).into_response()
}

fn one_stream(told: &Told) -> Response {
    if told.streams.load(Ordering::SeqCst) > told.given_up.load(Ordering::SeqCst) {
        return (StatusCode::CONFLICT, "Conflict: Only one SSE stream is allowed per session")
            .into_response();
    }
    told.streams.fetch_add(1, Ordering::SeqCst);
    noted(told, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/hello\"}\n\n")
}

/// A stream that says this and then nothing, and notes when it is given up.
fn noted(told: &Told, first: &'static str) -> Response {
    let noting = Noting(told.given_up.clone());
    let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(first))]);
    let never = stream::once(async move {
        let _noting = noting;
        std::future::pending::<Result<Bytes, std::io::Error>>().await
    });
    let body = Body::from_stream(stream::StreamExt::chain(first, never));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

async fn stand(told: &Told, last_event_id: Option<&str>) -> Response {
    let keeps_waiting = *told.keeps_streams_waiting.lock();
    if keeps_waiting {
        let noting = Noting(told.given_up.clone());
        told.release.notified().await;
        std::mem::forget(noting);
    }
    let instead = match last_event_id {
        Some(_) => *told.answers_resumption.lock(),
        None => *told.answers_streams.lock(),
    };
    match instead {
        Some(status) => (status, "<h1>Sorry</h1>").into_response(),
        None => listen(last_event_id),
    }
}

fn listen(last_event_id: Option<&str>) -> Response {
    let first = match last_event_id {
        // The rest of what `end with id` did not say.
        Some("e-1") => {
            let answer = result(&json!(1));
            return events(vec![format!("id: e-2\ndata: {answer}\n\n")], false);
        }
        Some(id) => {
            format!("id: after-{id}\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resumed\"}}\n\n")
        }
        None => "id: g-1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/hello\"}\n\n".to_owned(),
    };
    events(vec![first], true)
}

async fn call(told: Arc<Told>, body: &Value) -> Response {
    let id = &body["id"];
    let progress = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
    match body["params"]["name"].as_str().unwrap_or("") {
        // Events, and then nothing for ever.
        "hang" => events(vec![progress.into()], true),
        // The same, but with an id to resume from.
        "hang with id" => events(vec!["id: e-1\ndata: \n\n".into(), progress.into()], true),
        // Nearly sixteen MiB of one event, and then nothing for ever.
        "fifteen MiB and silent" => {
            let mut pieces = vec!["data: {\"filler\":\"".to_owned()];
            pieces.extend((0..156).map(|_| "x".repeat(104_857)));
            events(pieces, true)
        }
        // 480 KB of events, and then nothing for ever.
        "half a MiB and silent" => {
            let event = |number: i64| {
                let params = json!({ "number": number, "filler": "x".repeat(4_000) });
                let message =
                    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params });
                format!("data: {message}\n\n")
            };
            events((0..120).map(event).collect(), true)
        }
        // The beginning of an event that is held until it is whole.
        "hang in a held event" => {
            let half = format!("{progress}data: {{\"half\":\"{}", "x".repeat(900_000));
            events(vec![half], true)
        }
        // The beginning of a large event, and then nothing for ever.
        "hang in an event" => {
            let half = format!("{progress}data: {{\"half\":\"{}", "x".repeat(1_200_000));
            events(vec![half], true)
        }
        // The time, again and again.
        "tick" => {
            let ticks = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_micros(500)).await;
                let at = clock();
                let tick =
                    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "at": at } });
                Some((Ok::<_, std::io::Error>(Bytes::from(format!("data: {tick}\n\n"))), ()))
            });
            ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(ticks)).into_response()
        }
        // Events, and notes when they are given up.
        "noted" => noted(&told, progress),
        // A head only after a while, and notes when it is given up.
        "noted and silent" => {
            let _noting = Noting(told.given_up.clone());
            std::future::pending::<Response>().await
        }
        // One event, and the answer when it is let go of.
        name @ ("story" | "story with a large end") => {
            let filler = if name == "story" { 0 } else { 300_000 };
            let mut answer = result(id);
            answer["result"]["filler"] = json!("x".repeat(filler));
            let last = format!("event: message\ndata: {answer}\n\n");
            let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(progress))]);
            let last = stream::once(async move {
                told.release.notified().await;
                Ok(Bytes::from(last))
            });
            let body = Body::from_stream(stream::StreamExt::chain(first, last));
            ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
        }
        // A thousand events of a kilobyte, and the answer.
        "long story" => {
            let mut pieces: Vec<_> = (0..1_000)
                .map(|number| {
                    let params = json!({ "number": number, "filler": "x".repeat(1_000) });
                    let message =
                        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params });
                    format!("data: {message}\n\n")
                })
                .collect();
            pieces.push(format!("data: {}\n\n", result(id)));
            events(pieces, false)
        }
        // A refusal that never comes to its end.
        "400 and silent" => {
            let never = stream::pending::<Result<Bytes, std::io::Error>>();
            (StatusCode::BAD_REQUEST, Body::from_stream(never)).into_response()
        }
        // More than any buffer on the way takes, and the answer.
        "flood" => {
            let mut pieces: Vec<_> = (0..2_000)
                .map(|number| {
                    let params = json!({ "number": number, "filler": "x".repeat(16_000) });
                    let message =
                        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params });
                    format!("data: {message}\n\n")
                })
                .collect();
            pieces.push(format!("data: {}\n\n", result(id)));
            events(pieces, false)
        }
        "404 unknown method" => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
            (StatusCode::NOT_FOUND, axum::Json(answer)).into_response()
        }
        odd if odd.starts_with("200 ") || odd.starts_with("400 id") || odd.starts_with("events with") => {
            odd_answer(id, odd)
        }
        "202" => StatusCode::ACCEPTED.into_response(),
        "204" => StatusCode::NO_CONTENT.into_response(),
        // Not even a head.
        "silent" => {
            told.release.notified().await;
            axum::Json(result(id)).into_response()
        }
        // Half of a JSON answer.
        "half" => {
            let half = [Ok::<_, std::io::Error>(Bytes::from("{\"jsonrpc\":"))];
            let body = stream::StreamExt::chain(stream::iter(half), stream::pending());
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
        }
        // Ends without an answer.
        "end" => events(vec![progress.into()], false),
        "end with id" => events(vec!["id: e-1\ndata: \n\n".into()], false),
        "break" => {
            let first = stream::iter([Ok(Bytes::from(progress))]);
            let last = stream::once(async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::other("broken"))
            });
            let body = Body::from_stream(stream::StreamExt::chain(first, last));
            ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
        }
        "break at once" => {
            let body = stream::iter([Err::<Bytes, _>(std::io::Error::other("broken"))]);
            Body::from_stream(body).into_response()
        }
        // What it was asked with, in the answer and, every other time, in an event before it.
        "nonce" => {
            let nonce = &body["params"]["arguments"]["nonce"];
            let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "nonce": nonce } });
            if id.as_u64().is_some_and(|id| id % 2 == 0) {
                return axum::Json(answer).into_response();
            }
            let note =
                json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "nonce": nonce } });
            events(vec![format!("data: {note}\n\n"), format!("data: {answer}\n\n")], false)
        }
        "large" => {
            let text = "x".repeat(3 << 20);
            axum::Json(json!({ "jsonrpc": "2.0", "id": id, "result": { "text": text } })).into_response()
        }
        "401" => {
            (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer realm=\"upstream\"")]).into_response()
        }
        "302" => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
        "500" => (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(result(id))).into_response(),
        _ => axum::Json(result(id)).into_response(),
    }
}

/// Something else than an answer.
fn odd_answer(id: &Value, odd: &str) -> Response {
    let json = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_owned()).into_response()
    };
    let error = json!({ "code": -32602, "message": "Invalid request: params must be an object" });
    let error = json!({ "jsonrpc": "2.0", "id": null, "error": error });
    match odd {
        "200 empty" => json(200, ""),
        "200 html" => ([(header::CONTENT_TYPE, "text/html")], "<h1>Hello</h1>").into_response(),
        "200 null" => json(200, "null"),
        "200 result null" => json(200, &json!({ "jsonrpc": "2.0", "id": id, "result": null }).to_string()),
        "200 another's answer" => json(200, &result(&json!("another's")).to_string()),
        "200 a request" => json(200, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}"),
        "200 gzip" => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")];
            (headers, b"\x1f\x8b\x08\x00\x00\x00".to_vec()).into_response()
        }
        "400 id null" => json(400, &error.to_string()),
        "400 id absent" => {
            let mut error = error;
            error.as_object_mut().unwrap().remove("id");
            json(400, &error.to_string())
        }
        "events without answer" => {
            events(vec!["data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n".into()], false)
        }
        "events with id null" => events(vec![format!("data: {error}\n\n")], false),
        _ => panic!("{odd}"),
    }
}

fn result(id: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [{ "type": "text", "text": "done" }] } })
}

/// A stream of these pieces; it ends with them, or hangs.
fn events(pieces: Vec<String>, hang: bool) -> Response {
    let pieces = stream::iter(pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece))));
    let body = match hang {
        false => Body::from_stream(pieces),
        true => Body::from_stream(stream::StreamExt::chain(pieces, stream::pending())),
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// Microseconds since the first time anybody asked.
pub fn clock() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_micros().try_into().unwrap()
}
