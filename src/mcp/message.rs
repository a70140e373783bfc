//! What a POST holds: one JSON-RPC message or a batch. Read once, without building a tree of the parts that only the
//! upstream needs.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::reply::Fault;

/// The revisions that have sessions: all that this gateway speaks so far.
pub const SUPPORTED: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The first revision without sessions, which brought `server/discover`.
const MODERN: &str = "2026-07-28";

/// A POST's content, as far as the gateway cares.
#[derive(Debug, Default, PartialEq)]
pub struct Posted {
    /// Ids of the requests in it: each is owed an answer.
    pub ids: Vec<Value>,
    /// An array, as revision 2025-03-26 allows.
    pub batch: bool,
    pub initialize: Option<Initialize>,
    /// Set where the sender speaks a revision without sessions.
    pub modern: Option<Modern>,
}

/// The handshake that opens a session.
#[derive(Debug, Default, PartialEq)]
pub struct Initialize {
    pub client_info: Option<Value>,
}

/// A message in the manner of 2026-07-28.
#[derive(Debug, PartialEq)]
pub struct Modern {
    /// Null for a notification.
    pub id: Value,
    /// What its `_meta` claims; nothing where `server/discover` alone gives it away.
    pub claim: Option<String>,
}

impl Posted {
    /// The revision that is asked for and not spoken here, with the id of the request. The ladder of
    /// `inboundClassification.ts` in the TypeScript SDK's server 2.4.0: the body first, `initialize` is always the old
    /// handshake, and then the header decides.
    pub fn unsupported(&self, header: Option<&str>) -> Option<(Value, String)> {
        if let Some(modern) = &self.modern {
            let requested = modern.claim.as_deref().or(header).unwrap_or(MODERN);
            return Some((modern.id.clone(), requested.to_owned()));
        }
        let header = header.filter(|version| !SUPPORTED.contains(version) && self.initialize.is_none())?;
        let id = if self.batch { None } else { self.ids.first().cloned() };
        Some((id.unwrap_or_default(), header.to_owned()))
    }
}

/// Why a revision is refused: newer ones by the code that makes new clients fall back, older or unknown ones in the
/// words of the SDKs' servers of that age.
pub fn unsupported_fault(requested: &str) -> Fault {
    if requested >= MODERN {
        return Fault::unsupported_version(requested);
    }
    let supported = SUPPORTED.join(", ");
    Fault::new(-32000, format!("Bad Request: Unsupported protocol version (supported versions: {supported})"))
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    result: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

/// Tells `null` from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
    #[serde(rename = "clientInfo")]
    client_info: Option<Value>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: Option<Value>,
}

/// Reads a body.
pub fn read(body: &[u8]) -> Result<Posted, Fault> {
    let batch = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let parsed: Result<Vec<Envelope<'_>>, _> =
        if batch { serde_json::from_slice(body) } else { serde_json::from_slice(body).map(|one| vec![one]) };
    let messages = parsed.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Fault::invalid_request(format!("Invalid Request: {error}")),
        _ => Fault::parse(format!("Parse error: {error}")),
    })?;
    if messages.is_empty() {
        return Err(Fault::invalid_request("Invalid Request: the batch is empty"));
    }
    let mut posted = Posted { batch, ..Posted::default() };
    for message in messages {
        posted.take(message)?;
    }
    Ok(posted)
}

impl Posted {
    fn take(&mut self, message: Envelope<'_>) -> Result<(), Fault> {
        if message.jsonrpc.as_deref() != Some("2.0") {
            return Err(Fault::invalid_request("Invalid Request: jsonrpc must be \"2.0\""));
        }
        let Some(method) = message.method.as_deref() else {
            let answer = message.error.is_some() || (message.result.is_some() && message.id.is_some());
            let fault = || {
                Fault::invalid_request(
                    "Invalid Request: neither a request, nor a notification, nor an answer",
                )
            };
            return answer.then_some(()).ok_or_else(fault);
        };
        // Parameters of another shape than MCP's are the upstream's to judge.
        let params: Option<Params> =
            message.params.and_then(|params| serde_json::from_str(params.get()).ok());
        let (meta, client_info) = params.map_or((None, None), |params| (params.meta, params.client_info));
        let claim = meta.and_then(|meta| meta.protocol_version).map(|claim| match claim {
            Value::String(text) => text,
            other => other.to_string(),
        });
        let claims_modern = claim.as_deref().is_some_and(|claim| !SUPPORTED.contains(&claim));
        if (claims_modern || method == "server/discover") && self.modern.is_none() {
            self.modern = Some(Modern { id: message.id.clone().unwrap_or_default(), claim });
        }
        let Some(id) = message.id else { return Ok(()) };
        if !(id.is_string() || id.is_number()) {
            return Err(Fault::invalid_request("Invalid Request: id must be a string or a number"));
        }
        if method == "initialize" {
            if self.batch {
                // MCP 2025-03-26, basic/lifecycle: "must not be part of a JSON-RPC batch".
                return Err(Fault::invalid_request(
                    "Invalid Request: initialize must not be part of a batch",
                ));
            }
            self.initialize = Some(Initialize { client_info });
        }
        self.ids.push(id);
        Ok(())
    }
}

/// What an upstream said: ids of the requests it answers, and the result of the one asked about.
pub fn answered(data: &[u8]) -> Vec<Value> {
    let one = |message: Envelope<'_>| {
        let answer = message.method.is_none() && (message.result.is_some() || message.error.is_some());
        message.id.filter(|_| answer)
    };
    if data.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let messages: Vec<Envelope<'_>> = serde_json::from_slice(data).unwrap_or_default();
        messages.into_iter().filter_map(one).collect()
    } else {
        serde_json::from_slice(data).ok().and_then(one).into_iter().collect()
    }
}

/// The answer to `initialize`.
#[derive(Debug, Deserialize)]
pub struct Initialized {
    pub result: Option<InitializeResult>,
}

#[derive(Debug, Deserialize)]
pub struct InitializeResult {
    #[serde(rename = "protocolVersion")]
    pub protocol_version: String,
}

/// The answer to `initialize` in `data`, if it is one.
pub fn initialized(data: &[u8]) -> Option<Initialized> {
    if answered(data).is_empty() { None } else { serde_json::from_slice(data).ok() }
}
