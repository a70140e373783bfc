//! `_meta` of a request: what it says of its sender (MCP 2026-07-28, basic/index), and where the gateway inserts the id
//! of the session that the request belongs to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use sessiond_core::object::Object;
use uuid::Uuid;

use super::message::MODERN;

/// The member that tells the upstream our session id. Keys of ours have the prefix `sessiond/` (MCP, basic/index,
/// "General fields").
pub const SESSION_ID: &str = "sessiond/sessionId";

/// The members that the gateway reads; the others are for the upstream.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
pub struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion", default)]
    pub protocol_version: Option<Value>,
    #[serde(rename = "io.modelcontextprotocol/clientInfo", default)]
    pub client_info: Option<Value>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities", default)]
    pub client_capabilities: Option<Value>,
    #[serde(default)]
    traceparent: Option<Value>,
    #[serde(default)]
    baggage: Option<Value>,
    /// Text of the client's choice that makes two of its conversations two sessions.
    #[serde(rename = "sessiond/correlation", default)]
    correlation: Option<Value>,
    #[serde(rename = "sessiond/hostname", default)]
    hostname: Option<Value>,
}

/// Members of W3C baggage that name a conversation, in the order in which they are believed. The first is OpenTelemetry's
/// for generative AI, the second its general one.
const CONVERSATION: [&str; 2] = ["gen_ai.conversation.id", "session.id"];
/// The longest correlation key that is used; a longer one counts as none.
const LONGEST: usize = 1_024;

impl Meta {
    /// Reads `_meta`. One that cannot be read says nothing: the upstream may be able to read it.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).map(|Object(meta)| meta).unwrap_or_default()
    }

    /// Whether `_meta` claims a revision, whichever it is.
    pub fn claims(&self) -> bool {
        self.protocol_version.is_some()
    }

    /// The revision that is claimed. A notification claims none, and is of the only revision without sessions.
    pub fn revision(&self) -> &str {
        self.protocol_version.as_ref().and_then(Value::as_str).unwrap_or(MODERN)
    }

    /// The client's name for itself; empty if it gives none.
    pub fn client_name(&self) -> &str {
        self.client_info.as_ref().and_then(|info| info.get("name")).and_then(Value::as_str).unwrap_or("")
    }

    /// The machine that the client says it runs on.
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_ref()?.as_str()
    }

    /// What tells the conversations of one client apart: its own key for us, else the conversation in its baggage, else
    /// the trace it belongs to (SEP-414); empty where it sends none.
    pub fn correlation(&self) -> String {
        let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
        let own = text(&self.correlation).map(|key| format!("own {key}"));
        let conversation = || {
            text(&self.baggage).and_then(|baggage| conversation(&baggage)).map(|id| format!("baggage {id}"))
        };
        let trace = || {
            let parent = text(&self.traceparent)?;
            let trace = parent.split('-').nth(1).filter(|trace| trace.len() == 32)?;
            Some(format!("trace {trace}"))
        };
        own.or_else(conversation).or_else(trace).filter(|key| key.len() <= LONGEST).unwrap_or_default()
    }
}

/// The conversation that a W3C baggage names.
fn conversation(baggage: &str) -> Option<String> {
    CONVERSATION.iter().find_map(|wanted| {
        baggage.split(',').find_map(|member| {
            let (key, value) = member.split(';').next()?.split_once('=')?;
            (key.trim() == *wanted && !value.trim().is_empty()).then(|| value.trim().to_owned())
        })
    })
}

/// Where in a body the gateway inserts its own member of `_meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertionPoint {
    /// Insertion after the brace that opens `_meta`, which has other members or none.
    InMeta { at: usize, empty: bool },
    /// Insertion after the brace that opens `params`, which has no `_meta`.
    InParams { at: usize, empty: bool },
    /// Insertion before the brace that ends the message, which has no `params`.
    InMessage { at: usize },
    /// The client has written that member itself, in a `_meta` of this length, which is replaced.
    Forged { at: usize, length: usize },
}

impl InsertionPoint {
    /// Finds the place. `params` and `meta` must be slices of the body; there is no place where they are no objects.
    pub fn find(
        body: &[u8],
        params: Option<&RawValue>,
        meta: Option<(&RawValue, &Members<'_>)>,
    ) -> Option<Self> {
        let inside = |raw: &RawValue| {
            let rest = raw.get().strip_prefix('{')?;
            let at = (raw.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)? + 1;
            (at <= body.len()).then(|| (at, rest.trim_start().starts_with('}')))
        };
        match (params, meta) {
            (_, Some((raw, members))) => {
                let (at, empty) = inside(raw)?;
                match members.get(SESSION_ID) {
                    None => Some(Self::InMeta { at, empty }),
                    Some(_) => Some(Self::Forged { at: at - 1, length: raw.get().len() }),
                }
            }
            (Some(params), None) => inside(params).map(|(at, empty)| Self::InParams { at, empty }),
            (None, None) => body.iter().rposition(|byte| *byte == b'}').map(|at| Self::InMessage { at }),
        }
    }

    /// The body with our member in it.
    pub fn insert(self, body: &[u8], session: Uuid) -> Vec<u8> {
        let member = format!("\"{SESSION_ID}\":\"{session}\"");
        let comma = |empty: bool| if empty { "" } else { "," };
        let (at, text) = match self {
            Self::InMeta { at, empty } => (at, format!("{member}{}", comma(empty))),
            Self::InParams { at, empty } => (at, format!("\"_meta\":{{{member}}}{}", comma(empty))),
            Self::InMessage { at } => (at, format!(",\"params\":{{\"_meta\":{{{member}}}}}")),
            Self::Forged { at, length } => return replaced(body, at, length, &member),
        };
        let (before, after) = body.split_at(at);
        [before, text.as_bytes(), after].concat()
    }
}

/// Writes `_meta` anew without the client's own session id. Only another gateway before us, or somebody with a purpose,
/// sends such a member, so this may be slow.
fn replaced(body: &[u8], at: usize, length: usize, member: &str) -> Vec<u8> {
    let (before, rest) = body.split_at(at);
    let (meta, after) = rest.split_at(length);
    let mut members = vec![member.to_owned()];
    if let Ok(Members(all)) = serde_json::from_slice(meta) {
        let others = all.iter().filter(|(name, _)| *name != SESSION_ID);
        members.extend(others.map(|(name, value)| format!("{}:{}", Value::from(&**name), value.get())));
    }
    [before, format!("{{{}}}", members.join(",")).as_bytes(), after].concat()
}

/// The members of an object in their raw text. Each may be there once: of two, one reader takes the first and another
/// the last.
#[derive(Debug, Default)]
pub struct Members<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Members<'a> {
    /// The member with this name.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied()
    }
}

/// A member's name, which is borrowed from the body unless it is written with escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members::default();
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            if let Some(twice) = members.0.insert(name, value) {
                let text = twice.get().chars().take(40).collect::<String>();
                return Err(A::Error::custom(format_args!("a member is there twice, first as {text}")));
            }
        }
        Ok(members)
    }
}
