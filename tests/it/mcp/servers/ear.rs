//! An ear on the way between the gateway and a server: what passes it passes unchanged.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::Value;

/// One request: its method, its JSON-RPC method, and the status of the answer.
pub type Overheard = (Method, String, u16);

pub struct Ear {
    pub url: String,
    way: Arc<Way>,
}

struct Way {
    target: String,
    heard: Mutex<Vec<Overheard>>,
    http: Client<HttpConnector, Full<bytes::Bytes>>,
}

impl Ear {
    /// Before the server at this address.
    pub async fn before(target: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let way = Arc::new(Way { target: target.to_owned(), heard: Mutex::default(), http });
        let router = Router::new().fallback(pass).with_state(way.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, way }
    }

    pub fn heard(&self) -> Vec<Overheard> {
        self.way.heard.lock().clone()
    }

    /// Forgets what it heard.
    pub fn forget(&self) {
        self.way.heard.lock().clear();
    }
}

/// When the gateway goes away, this future or the answer's body is dropped, and with it the connection to the server.
async fn pass(State(way): State<Arc<Way>>, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    parts.uri = way.target.parse().unwrap();
    parts.version = axum::http::Version::HTTP_11;
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let rpc: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (method, rpc) = (parts.method.clone(), rpc["method"].as_str().unwrap_or("").to_owned());
    match way.http.request(Request::from_parts(parts, Full::new(body))).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            parts.headers.remove(header::CONNECTION);
            parts.headers.remove(header::TRANSFER_ENCODING);
            way.heard.lock().push((method, rpc, parts.status.as_u16()));
            Response::from_parts(parts, Body::new(body))
        }
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:?}")).into_response(),
    }
}
