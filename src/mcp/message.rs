//! Reads the body of a POST: one JSON-RPC message or a batch. It is read once, without building a tree of the parts
//! that only the upstream needs.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use sessiond_core::object::Object;

use super::meta::{self, Members, Meta};
use super::reply::RpcError;

/// The revisions that have sessions.
pub const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The revision without sessions.
pub const MODERN: &str = "2026-07-28";
/// All revisions that the gateway speaks, the newest first.
pub const SUPPORTED: [&str; 5] = [MODERN, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// A POST's content, as far as the gateway cares.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Posted {
    /// The ids of the requests in the body; each request is owed an answer.
    pub ids: Vec<Value>,
    /// Whether the body is an array, as revision 2025-03-26 allows.
    pub batch: bool,
    pub initialize: Option<Initialize>,
    /// The method of the only message, or of the message in a batch that claims a revision; none for an answer.
    pub method: Option<String>,
    /// What `Mcp-Name` has to mirror: `params.name`, `params.uri` of `resources/read`, or `params.taskId` of a task's methods.
    pub name: Option<String>,
    pub meta: Meta,
    /// Where in the body our own `_meta` member can be put.
    pub insertion_point: Option<meta::InsertionPoint>,
}

/// The request that opens a session.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Initialize {
    pub client_info: Option<Value>,
}

/// Tells `null` from absent for a member that is kept unread.
fn raw<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "raw")]
    params: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "given")]
    result: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "given")]
    error: Option<IgnoredAny>,
}

/// Tells `null` from absent for a member that is read.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Tells `null` from absent for a member that only has to be there: `null` is a result like any other.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IgnoredAny>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(Some)
}

/// Reads the body of a POST.
pub fn read(body: &[u8]) -> Result<Posted, RpcError> {
    let batch = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let parsed: Result<Vec<Object<RawMessage<'_>>>, _> =
        if batch { serde_json::from_slice(body) } else { serde_json::from_slice(body).map(|one| vec![one]) };
    let messages = parsed.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => RpcError::invalid_request(format!("Invalid Request: {error}")),
        _ => RpcError::parse(format!("Parse error: {error}")),
    })?;
    if messages.is_empty() {
        return Err(RpcError::invalid_request("Invalid Request: the batch is empty"));
    }
    let mut posted = Posted { batch, ..Posted::default() };
    for Object(message) in messages {
        posted.take(message, body)?;
    }
    Ok(posted)
}

impl Posted {
    fn take(&mut self, message: RawMessage<'_>, body: &[u8]) -> Result<(), RpcError> {
        if message.jsonrpc.as_deref() != Some("2.0") {
            return Err(RpcError::invalid_request("Invalid Request: jsonrpc must be \"2.0\""));
        }
        let Some(method) = message.method.as_deref() else {
            let answer = message.error.is_some() || (message.result.is_some() && message.id.is_some());
            let rpc_error = || {
                RpcError::invalid_request(
                    "Invalid Request: neither a request, nor a notification, nor an answer",
                )
            };
            return answer.then_some(()).ok_or_else(rpc_error);
        };
        let twice = |error: serde_json::Error| RpcError::invalid_request(format!("Invalid Request: {error}"));
        // Parameters of another shape than MCP's are the upstream's to judge.
        let object = message.params.filter(|params| params.get().starts_with('{'));
        let params: Members<'_> = match object {
            Some(params) => serde_json::from_str(params.get()).map_err(twice)?,
            None => Members::default(),
        };
        let raw_meta = params.get("_meta").filter(|meta| meta.get() != "null");
        let meta: Option<Members<'_>> = match raw_meta.filter(|meta| meta.get().starts_with('{')) {
            Some(meta) => Some(serde_json::from_str(meta.get()).map_err(twice)?),
            None => None,
        };
        if self.batch && meta.as_ref().is_some_and(|meta| meta.get(meta::SESSION_ID).is_some()) {
            let text = "Invalid Request: _meta[\"sessiond/sessionId\"] is for the gateway to say";
            return Err(RpcError::invalid_request(text));
        }
        if !self.meta.claims() {
            self.meta = raw_meta.map(|meta| Meta::read(meta.get())).unwrap_or_default();
            let name = match method {
                "resources/read" => params.get("uri"),
                "tasks/get" | "tasks/update" | "tasks/cancel" => params.get("taskId"),
                _ => params.get("name"),
            };
            self.name = name.and_then(|name| serde_json::from_str(name.get()).ok());
            self.method = Some(method.to_owned());
        }
        if !self.batch {
            let meta = raw_meta.zip(meta.as_ref());
            let free = params.get("_meta").is_none() || meta.is_some();
            let insertion_point = meta::InsertionPoint::find(body, message.params, meta).filter(|_| free);
            // A notification needs no session id of ours, and must not carry one that somebody else wrote.
            let forged = matches!(insertion_point, Some(meta::InsertionPoint::Forged { .. }));
            self.insertion_point = insertion_point.filter(|_| message.id.is_some() || forged);
        }
        let Some(id) = message.id else { return Ok(()) };
        if !(id.is_string() || id.is_number()) {
            return Err(RpcError::invalid_request("Invalid Request: id must be a string or a number"));
        }
        if method == "initialize" {
            if self.batch {
                // MCP 2025-03-26, basic/lifecycle: "must not be part of a JSON-RPC batch".
                return Err(RpcError::invalid_request(
                    "Invalid Request: initialize must not be part of a batch",
                ));
            }
            let info = params.get("clientInfo");
            let client_info = info.and_then(|info| serde_json::from_str(info.get()).ok());
            self.initialize = Some(Initialize { client_info });
        }
        self.ids.push(id);
        Ok(())
    }
}

/// The ids of the requests that a message of an upstream answers.
pub fn answered(data: &[u8]) -> Vec<Value> {
    let one = |message: RawMessage<'_>| {
        let answer = message.method.is_none() && (message.result.is_some() || message.error.is_some());
        message.id.filter(|_| answer)
    };
    if data.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let messages: Vec<Object<RawMessage<'_>>> = serde_json::from_slice(data).unwrap_or_default();
        messages.into_iter().filter_map(|Object(message)| one(message)).collect()
    } else {
        let message: Option<Object<RawMessage<'_>>> = serde_json::from_slice(data).ok();
        message.and_then(|Object(message)| one(message)).into_iter().collect()
    }
}

/// The messages of a body, which may be a batch.
pub fn messages_in(body: &[u8]) -> Vec<&str> {
    match serde_json::from_slice::<Vec<&RawValue>>(body) {
        Ok(batch) => batch.into_iter().map(RawValue::get).collect(),
        Err(_) => std::str::from_utf8(body).into_iter().collect(),
    }
}

/// The code of the JSON-RPC error in `data`, if it is one.
pub fn error_code(data: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Answer {
        error: Object<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        code: i64,
    }
    serde_json::from_slice::<Object<Answer>>(data).ok().map(|Object(answer)| answer.error.0.code)
}

/// The JSON-RPC error in `data`, or the first in a batch.
pub fn error_in(data: &[u8]) -> Option<RpcError> {
    #[derive(Deserialize)]
    struct Answer {
        error: RpcError,
    }
    messages_in(data)
        .into_iter()
        .find_map(|one| serde_json::from_str::<Answer>(one).ok())
        .map(|one| one.error)
}

/// Whether `data` is a request or a notification.
pub fn asks(data: &[u8]) -> bool {
    read(data).is_ok_and(|posted| !posted.batch && posted.method.is_some())
}

/// The answer to `initialize`.
#[derive(Debug, Deserialize)]
pub struct Initialized {
    pub result: Option<Object<InitializeResult>>,
}

#[derive(Debug, Deserialize)]
pub struct InitializeResult {
    #[serde(rename = "protocolVersion")]
    pub protocol_version: String,
}

/// The answer to `initialize` in `data`, if it is one.
pub fn initialized(data: &[u8]) -> Option<Initialized> {
    if answered(data).is_empty() {
        return None;
    }
    let read: Option<Object<Initialized>> = serde_json::from_slice(data).ok();
    // An answer is an error, or has a result that says what was agreed on.
    read.map(|Object(read)| read).filter(|read| read.result.is_some() || error_code(data).is_some())
}
