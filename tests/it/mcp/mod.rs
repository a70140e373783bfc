//! The MCP gateway: its parts by themselves, the whole against an upstream that does as it is told, and the whole between
//! real clients and servers.

mod addresses;
mod anchors;
mod breakable_proxy;
mod budget;
mod conformance;
mod counts;
mod cut_off;
pub mod external;
mod failing_upstream;
mod forwarder;
mod goodbyes;
mod headers;
mod isolation;
mod leaks;
mod lost_session;
mod matrix;
mod messages;
mod modern;
mod order_of_checks;
mod protocol_details;
mod real_clients;
mod resource_metadata;
mod resumable_streams;
mod resuming;
mod revoked_in_flight;
mod rust_client;
mod scripted_upstream;
mod servers;
mod session_life;
mod sign_in;
pub mod sse;
mod tls;
mod unanswered_calls;
mod unreadable_answers;
pub mod upstream;
mod upstream_credentials;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{Holder, Server};
use upstream::Upstream;

/// A service with an application whose gateway leads to an upstream.
pub struct House {
    pub server: Server,
    pub application: String,
    pub operator: Holder,
}

impl House {
    pub async fn before(url: &str, flags: &[&str]) -> Self {
        let server = Server::with(flags).await;
        let application = server.application().await;
        let operator = server.operator().await;
        let house = Self { server, application, operator };
        house.set_upstream(url).await;
        house
    }

    pub async fn with_fake(flags: &[&str]) -> (Self, Upstream) {
        let upstream = Upstream::start().await;
        (Self::before(&upstream.url, flags).await, upstream)
    }

    pub async fn set_upstream(&self, url: &str) {
        self.set_upstream_with(url, Value::Null).await;
    }

    pub async fn set_upstream_with(&self, url: &str, credential: Value) -> Value {
        let path = format!("/api/v1/applications/{}/upstream", self.application);
        let (status, body) = self.operator.put(&path, json!({ "url": url, "credential": credential })).await;
        assert!(status.is_success(), "{status} {body}");
        body
    }

    pub async fn restart(self) -> Self {
        let server = self.server.restart().await;
        let operator = server.operator().await;
        Self { server, operator, ..self }
    }

    pub fn path(&self) -> String {
        format!("/mcp/{}", self.application)
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.server.running.as_ref().unwrap().address
    }

    pub async fn token(&self) -> String {
        self.server.token("mcp:invoke").await
    }

    /// A token of a service account that did not exist before.
    pub async fn token_of_another(&self) -> String {
        let body = json!({ "name": "another", "scopes": ["mcp:invoke"] });
        let (status, body) = self.operator.post("/api/v1/service-accounts", body).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap().to_owned();
        let (id, secret) = (text("/serviceAccount/clientId"), text("/clientSecret"));
        self.server.token_for(&id, &secret, "mcp:invoke").await
    }

    /// A client that has not said anything yet.
    pub fn client(&self, token: &str) -> Client {
        Client {
            url: self.server.url(&self.path()),
            token: token.to_owned(),
            session: None,
            http: self.server.http.clone(),
        }
    }

    /// A client with an open session.
    pub async fn connect(&self) -> Client {
        let mut client = self.client(&self.token().await);
        client.initialize().await;
        client
    }

    /// A client of the revision without sessions.
    pub async fn modern(&self) -> Modern {
        let (url, http) = (self.server.url(&self.path()), self.server.http.clone());
        Modern { url, token: self.token().await, meta: json!({}), http }
    }

    /// Ends a session by its public id, and leaves every credential alone.
    pub async fn terminate(&self, id: &str) {
        let path = format!("/api/v1/applications/{}/sessions/{id}/terminate", self.application);
        let (status, body) = self.operator.post(&path, json!({})).await;
        assert!(status.is_success(), "{status} {body}");
    }

    pub async fn sessions(&self) -> Vec<Value> {
        let path = format!("/api/v1/applications/{}/sessions?status=all", self.application);
        let (status, body) = self.operator.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["items"].as_array().unwrap().clone()
    }

    pub async fn revoke_all(&self) -> Value {
        let (status, body) =
            self.operator.delete(&format!("/api/v1/applications/{}/sessions", self.application)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// The `connected` events of the log.
    pub async fn connected(&self) -> usize {
        self.server.log().await.iter().filter(|(name, _)| name == "connected").count()
    }
}

/// A client in the manner of 2025-11-25 that does nothing by itself.
#[derive(Clone)]
pub struct Client {
    pub url: String,
    pub token: String,
    pub session: Option<String>,
    pub http: reqwest::Client,
}

impl Client {
    /// A request with everything a well-behaved client sends.
    pub fn request(&self, method: Method) -> RequestBuilder {
        let mut request = self
            .http
            .request(method.clone(), &self.url)
            .bearer_auth(&self.token)
            .header("mcp-protocol-version", "2025-11-25");
        request = match method {
            Method::POST => request.header("accept", "application/json, text/event-stream"),
            _ => request.header("accept", "text/event-stream"),
        };
        match &self.session {
            Some(session) => request.header("mcp-session-id", session),
            None => request,
        }
    }

    pub async fn post(&self, body: &Value) -> Response {
        self.request(Method::POST).json(body).send().await.unwrap()
    }

    pub async fn try_initialize(&self) -> Response {
        let client_info = json!({ "name": "test", "version": "1", "hostname": "laptop" });
        self.try_initialize_as(client_info).await
    }

    pub async fn try_initialize_as(&self, client_info: Value) -> Response {
        let params =
            json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client_info });
        self.post(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })).await
    }

    pub async fn initialize(&mut self) {
        let answer = self.try_initialize().await;
        assert_eq!(answer.status(), StatusCode::OK);
        self.session = Some(answer.headers()["mcp-session-id"].to_str().unwrap().to_owned());
        answer.bytes().await.unwrap();
        let answer = self.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }

    /// Sends a call and returns as soon as the head of the answer is there.
    pub async fn begin(&self, id: Value, name: &str) -> Response {
        self.post(&call(id, name)).await
    }

    /// A call from beginning to end: status and JSON-RPC answer.
    pub async fn call(&self, name: &str) -> (StatusCode, Value) {
        told(self.begin(json!(7), name).await).await
    }

    pub async fn listen(&self) -> Response {
        self.request(Method::GET).send().await.unwrap()
    }
}

/// A client in the manner of 2026-07-28.
#[derive(Clone)]
pub struct Modern {
    pub url: String,
    pub token: String,
    /// What it says of itself in `_meta`, beside what it must.
    pub meta: Value,
    pub http: reqwest::Client,
}

impl Modern {
    pub fn body(&self, id: Value, method: &str, params: Value) -> Value {
        let mut meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": { "name": "modern", "version": "1" },
        });
        meta.as_object_mut().unwrap().extend(self.meta.as_object().unwrap().clone());
        let mut params = params;
        params["_meta"] = meta;
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
    }

    /// With everything that is required of it.
    pub fn request(&self, body: &Value) -> RequestBuilder {
        let request = self
            .http
            .post(&self.url)
            .bearer_auth(&self.token)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", body["method"].as_str().unwrap())
            .json(body);
        match body["params"]["name"].as_str() {
            Some(name) => request.header("mcp-name", name),
            None => request,
        }
    }

    pub async fn ask(&self, method: &str) -> (StatusCode, Value) {
        let answer = self.request(&self.body(json!("q"), method, json!({}))).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub async fn begin(&self, id: Value, name: &str) -> Response {
        let body = self.body(id, "tools/call", json!({ "name": name, "arguments": {} }));
        self.request(&body).send().await.unwrap()
    }

    pub async fn call(&self, name: &str) -> (StatusCode, Value) {
        told(self.begin(json!(7), name).await).await
    }

    pub async fn listen(&self) -> Response {
        self.request(&self.body(json!("l"), "subscriptions/listen", json!({}))).send().await.unwrap()
    }
}

pub fn call(id: Value, name: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": name, "arguments": {} } })
}

/// Status and last message of an answer.
async fn told(answer: Response) -> (StatusCode, Value) {
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    let value = serde_json::from_str(&text).unwrap_or_else(|_| messages(&text).pop().unwrap_or_default());
    (status, value)
}

/// The messages of a stream of events.
pub fn messages(text: &str) -> Vec<Value> {
    text.split("\n\n")
        .filter(|event| !event.contains("event: abandoned"))
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect()
}

/// A stream that is read as it comes.
pub struct Stream {
    bytes: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    pub text: String,
}

impl Stream {
    pub fn of(answer: Response) -> Self {
        Self { bytes: answer.bytes_stream().boxed(), text: String::new() }
    }

    /// Reads until the text holds this; fails after ten seconds.
    pub async fn until(&mut self, needle: &str) {
        while !self.text.contains(needle) {
            let more = tokio::time::timeout(Duration::from_secs(10), self.bytes.next()).await;
            let more = more.unwrap_or_else(|_| panic!("no {needle:?} in {:?}", self.text));
            let bytes = more.unwrap_or_else(|| panic!("ended without {needle:?}: {:?}", self.text)).unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// Whether it goes on for so long.
    pub async fn goes_on(&mut self, long: Duration) -> bool {
        let end = async {
            while let Some(Ok(bytes)) = self.bytes.next().await {
                self.text.push_str(&String::from_utf8_lossy(&bytes));
            }
        };
        tokio::time::timeout(long, end).await.is_err()
    }

    /// Reads to the end; whether it was a clean one.
    pub async fn end(&mut self) -> bool {
        loop {
            let more = tokio::time::timeout(Duration::from_secs(10), self.bytes.next()).await;
            match more.unwrap_or_else(|_| panic!("no end after {:?}", self.text)) {
                Some(Ok(bytes)) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Err(_)) => return false,
                None => return true,
            }
        }
    }
}

/// The answer to an unknown id, and to another's.
pub const NOT_FOUND: &str =
    r#"{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}"#;

/// The answer to the id of one's own session that has ended.
pub fn not_found(reason: &str) -> String {
    let error = format!(r#"{{"code":-32001,"message":"Session not found","data":{{"reason":"{reason}"}}}}"#);
    format!(r#"{{"jsonrpc":"2.0","error":{error},"id":null}}"#)
}

pub async fn refused(answer: Response) -> (StatusCode, String) {
    (answer.status(), answer.text().await.unwrap())
}
