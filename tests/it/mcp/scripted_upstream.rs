//! An upstream that does everything as it should, save what a test has it do otherwise.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// What was sent.
#[derive(Debug, Clone)]
pub struct Heard {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Heard {
    pub fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or("")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The answer to it, as JSON.
    pub fn answer(&self) -> Value {
        let result = match self.rpc() {
            "initialize" => {
                let info = json!({ "name": "scripted", "version": "1" });
                json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": info })
            }
            _ => json!({ "content": [{ "type": "text", "text": "said" }] }),
        };
        json!({ "jsonrpc": "2.0", "id": self.body["id"], "result": result })
    }
}

type Script = Box<dyn Fn(&Heard) -> Option<Response> + Send + Sync>;

struct Told {
    script: Script,
    heard: Mutex<Vec<Heard>>,
}

pub struct Scripted {
    pub url: String,
    told: Arc<Told>,
}

impl Scripted {
    /// `script` says what is otherwise.
    pub async fn start(script: impl Fn(&Heard) -> Option<Response> + Send + Sync + 'static) -> Self {
        let told = Arc::new(Told { script: Box::new(script), heard: Mutex::default() });
        let router = Router::new().fallback(routing::any(serve)).with_state(told.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, told }
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.told.heard.lock().clone()
    }

    /// The last message of this method.
    pub fn last(&self, rpc: &str) -> Heard {
        self.heard().into_iter().rfind(|heard| heard.rpc() == rpc).unwrap_or_else(|| panic!("no {rpc}"))
    }
}

async fn serve(State(told): State<Arc<Told>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let heard = Heard { method, headers, body };
    told.heard.lock().push(heard.clone());
    (told.script)(&heard).unwrap_or_else(|| usual(&heard))
}

/// What a server does that does as it should.
pub fn usual(heard: &Heard) -> Response {
    match (heard.method.as_str(), heard.rpc()) {
        ("POST", "initialize") => ([("mcp-session-id", "far-1")], axum::Json(heard.answer())).into_response(),
        ("POST", _) if heard.body["id"].is_null() || heard.rpc().is_empty() => {
            StatusCode::ACCEPTED.into_response()
        }
        ("POST", _) => axum::Json(heard.answer()).into_response(),
        ("DELETE", _) => StatusCode::NO_CONTENT.into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// An answer of these bytes.
pub fn bytes(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}
