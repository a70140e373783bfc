//! What passes everything on as it is: a way in for clients that cannot be told a token, which adds one to every request; and
//! a witness of what the gateway says to the server behind.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, ORIGIN, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub struct Forwarder {
    /// The address to give to the client; its path is the target's.
    pub url: String,
    passed: Arc<Mutex<Vec<Passed>>>,
}

/// A request that passed.
#[derive(Debug, Clone)]
pub struct Passed {
    pub method: Method,
    pub headers: HeaderMap,
    /// The message that it carried.
    pub body: Value,
    /// None until its answer has begun.
    pub status: Option<StatusCode>,
}

impl Passed {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

struct Way {
    own: String,
    target: String,
    token: Option<HeaderValue>,
    passed: Arc<Mutex<Vec<Passed>>>,
    http: Client<HttpConnector, Full<bytes::Bytes>>,
}

impl Forwarder {
    pub async fn to(url: &str, token: &str) -> Self {
        Self::with(url, Some(format!("Bearer {token}").parse().unwrap())).await
    }

    /// Adds nothing.
    pub async fn plain(url: &str) -> Self {
        Self::with(url, None).await
    }

    pub fn passed(&self) -> Vec<Passed> {
        self.passed.lock().clone()
    }

    async fn with(url: &str, token: Option<HeaderValue>) -> Self {
        let target: Uri = url.parse().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let url = format!("http://{own}{}", target.path());
        let passed: Arc<Mutex<Vec<Passed>>> = Arc::default();
        let way = Way {
            own,
            target: target.authority().unwrap().to_string(),
            token,
            passed: passed.clone(),
            // A connection for each request: none is ever found closed by the other side.
            http: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http(),
        };
        let router = Router::new().fallback(forward).with_state(Arc::new(way));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, passed }
    }
}

/// When the client goes away, this future or the answer's body is dropped, and with it the connection to the target.
async fn forward(State(way): State<Arc<Way>>, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    parts.uri = format!("http://{}{}", way.target, parts.uri).parse().unwrap();
    parts.version = axum::http::Version::HTTP_11;
    way.address(&mut parts.headers);
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (method, headers) = (parts.method.clone(), parts.headers.clone());
    let said = serde_json::from_slice(&body).unwrap_or_default();
    let at = {
        let mut passed = way.passed.lock();
        passed.push(Passed { method, headers, body: said, status: None });
        passed.len() - 1
    };
    match way.http.request(Request::from_parts(parts, Full::new(body))).await {
        Ok(answer) => {
            way.passed.lock()[at].status = Some(answer.status());
            let (mut parts, body) = answer.into_parts();
            hop_by_hop(&mut parts.headers);
            Response::from_parts(parts, Body::new(body))
        }
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:?}")).into_response(),
    }
}

impl Way {
    /// What names this server names the target from here on. A client that names somebody else means it.
    fn address(&self, headers: &mut HeaderMap) {
        hop_by_hop(headers);
        for name in [HOST, ORIGIN] {
            let value = headers.get(&name).and_then(|value| value.to_str().ok());
            if let Some(value) = value.filter(|value| value.ends_with(&self.own)) {
                let value = value.replace(&self.own, &self.target).parse().unwrap();
                headers.insert(name, value);
            }
        }
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
    }
}

fn hop_by_hop(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
}
