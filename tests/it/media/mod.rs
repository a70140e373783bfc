//! Viewers of media streams, as media servers and their operators see the surface.

mod checklist;
mod hooks;
mod keyed;
mod life;
mod readings;
mod rules;
mod series;
mod telling;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::{Holder, Server};

/// Sessions that do not end by themselves when a test turns the clock.
pub const PATIENT: [&str; 4] = ["--stale-after", "200d", "--absolute-lifetime", "300d"];

/// An answer, to the byte.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Told {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn said(&self) -> (u16, &str) {
        (self.status, &self.text)
    }
}

/// Whoever asks, with what stands in `Authorization`.
#[derive(Clone)]
pub struct Caller {
    pub base: String,
    pub http: reqwest::Client,
    pub authorization: Option<String>,
}

impl Caller {
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Told {
        self.keyed(method, path, body, None).await
    }

    pub async fn keyed(&self, method: Method, path: &str, body: Option<&Value>, key: Option<&str>) -> Told {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = if let Some(body) = body { request.json(body) } else { request };
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Told { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Told {
        self.send(Method::GET, path, None).await
    }

    pub async fn put(&self, path: &str) -> Told {
        self.send(Method::PUT, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Told {
        self.send(Method::POST, path, Some(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Told {
        self.send(Method::DELETE, path, None).await
    }

    /// What an answer of 200 holds.
    pub async fn response(&self, path: &str) -> Value {
        let told = self.get(path).await;
        assert_eq!(told.status, 200, "{path}: {told:?}");
        told.json()["response"].clone()
    }
}

/// Basic credentials that are one text.
pub fn basic(token: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(token))
}

/// A key with the scope `media`, as the whole of Basic credentials.
pub async fn key(server: &Server) -> Caller {
    let operator = server.operator().await;
    let (status, body) = operator.post("/api/v1/api-keys", json!({ "name": "m", "scopes": ["media"] })).await;
    assert_eq!(status, 201, "{body}");
    caller(server, basic(body["key"].as_str().unwrap()))
}

pub fn caller(server: &Server, authorization: impl Into<Option<String>>) -> Caller {
    Caller { base: server.url(""), http: server.http.clone(), authorization: authorization.into() }
}

/// The same key, at a server that has begun again somewhere else.
pub fn again(server: &Server, caller: &Caller) -> Caller {
    Caller { base: server.url(""), ..caller.clone() }
}

/// What a media server signs a body with.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, body))
}

pub const STREAM: &str = "/v1/vhosts/default/apps/app/streams/stream";
pub const SESSIONS: &str = "/v1/vhosts/default/apps/app/streams/stream/sessions";
pub const STATISTICS: &str = "/v1/stats/current/vhosts/default/apps/app/streams/stream/sessions";

/// A server with one session of this name on `default/app/stream`.
pub async fn with_session(name: &str, flags: &[&str]) -> (Server, Caller) {
    let server = Server::with(flags).await;
    let key = key(&server).await;
    let told = key.post(SESSIONS, json!({ "name": name })).await;
    assert_eq!(told.status, 201, "{told:?}");
    (server, key)
}

/// The application that stands for an app, by its name.
pub async fn application(operator: &Holder, name: &str) -> String {
    let (_, body) = operator.get("/api/v1/applications?limit=200").await;
    let all = body["items"].as_array().unwrap();
    let found = all.iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {body}"))["id"].as_str().unwrap().to_owned()
}
