//! WebUI and task sessions, as portals, clusters and those who look after them see them.

mod checklist;
mod fleet;
mod lines;
mod lists;
mod others;
mod together;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Holder, Server};

pub const ROOT: &str = "/pro/session-manager/v1";

/// Whoever holds an API key, which goes in a header of its own.
#[derive(Clone)]
pub struct Key {
    pub base: String,
    pub text: Option<String>,
    pub http: reqwest::Client,
}

impl Key {
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Response {
        let mut request = self.http.request(method, format!("{}{ROOT}{path}", self.base));
        if let Some(text) = &self.text {
            request = request.header("apiKey", text);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let response = self.send(method, path, body.as_ref()).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, None).await
    }

    pub async fn delete(&self, path: &str) -> StatusCode {
        self.ask(Method::DELETE, path, None).await.0
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    /// What is there, which must be.
    pub async fn see(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Begins a session and returns its path.
    pub async fn begin(&self, kind: &str, body: Value) -> String {
        let (status, body) = self.post(&format!("/sessions/{kind}"), body).await;
        assert_eq!(status, 201, "{body}");
        format!("/sessions/{kind}/{}", body["id"].as_str().unwrap())
    }

    pub async fn state(&self, path: &str) -> String {
        self.see(path).await["state"].as_str().unwrap().to_owned()
    }

    pub async fn move_on(&self, path: &str, state: &str) -> StatusCode {
        self.patch(path, json!({ "state": state })).await.0
    }

    pub async fn beat(&self, path: &str) -> StatusCode {
        self.ask(Method::POST, &format!("{path}/heartbeat"), None).await.0
    }

    pub async fn end(&self, path: &str, state: &str, message: &str) -> Value {
        let (status, body) =
            self.post(&format!("{path}/end"), json!({ "state": state, "message": message })).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn log(&self, path: &str, texts: &[String]) -> (StatusCode, Value) {
        let lines: Vec<_> = texts.iter().map(|text| json!({ "text": text })).collect();
        self.post(&format!("{path}/logs"), json!({ "lines": lines })).await
    }

    /// Ids of a list, in its order, and how many there are in all.
    pub async fn listed(&self, path: &str) -> (Vec<String>, u64) {
        let body = self.see(path).await;
        let ids = body["current_batch"].as_array().unwrap().iter();
        let ids = ids.map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        (ids, body["total_sessions"].as_u64().unwrap())
    }
}

pub async fn made(operator: &Holder, body: Value) -> (String, Value) {
    let (status, made) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    (made["key"].as_str().unwrap().to_owned(), made)
}

impl Server {
    /// A key with these scopes, of the organization.
    pub async fn key(&self, scopes: &[&str]) -> Key {
        let body = json!({ "name": format!("key for {scopes:?}"), "scopes": scopes });
        self.holds(Some(made(&self.operator().await, body).await.0))
    }

    /// A key that acts for a person.
    pub async fn persons_key(&self, user: &str) -> Key {
        let body = json!({ "name": user, "scopes": ["session"], "user": { "id": user } });
        self.holds(Some(made(&self.operator().await, body).await.0))
    }

    pub fn holds(&self, text: Option<String>) -> Key {
        Key { base: self.url(""), text, http: self.http.clone() }
    }
}

/// The id at the end of a path.
pub fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// The same id as all other surfaces write it.
pub fn hyphenated(path: &str) -> String {
    uuid::Uuid::try_parse(id_of(path)).unwrap().to_string()
}

pub fn app(name: &str) -> Value {
    json!({ "app": { "name": name } })
}
