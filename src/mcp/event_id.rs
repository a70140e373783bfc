//! Ids of the events that the gateway hands on. An id says all that is needed to resume its stream, even after a
//! restart of ours: the stream, the calls that are answered there, and the id that the upstream gave the event. It is
//! signed for its session and stream, so that nobody can have us ask an upstream, in our name, for somebody else's
//! stream.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::Value;

use crate::secret;

/// The longest list of calls, as JSON, that an id carries. Without the list nobody could be told that the answers are
/// lost.
const LONGEST_CALLS: usize = 768;
/// The longest id that is read.
const LONGEST: usize = 2_048;

/// An event id, taken apart: `<key>.<calls>.<number>.<the upstream's id>.<session digest>.<signature>`. Ids of earlier
/// releases have no session digest. The key names the stream's node, where there may be several.
#[derive(Debug, Clone, PartialEq)]
pub struct EventId {
    pub key: String,
    pub calls: Vec<Value>,
    pub number: u64,
    pub upstream: Option<Bytes>,
    /// Names the session at the upstream that gave the event its id.
    pub session_digest: Option<String>,
}

impl EventId {
    /// Reads an id; `None` for a text that the gateway has not given out. `seal` makes the signing key from the
    /// stream's key.
    pub fn parse(text: &str, seal: impl FnOnce(&str) -> [u8; 32]) -> Option<Self> {
        let (sealed, signature) = text.rsplit_once('.')?;
        let mut parts = sealed.split('.');
        let (Some(key), Some(calls), Some(number), Some(upstream), session_digest, None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let session_digest = session_digest.map(str::to_owned);
        let (random, node) = key.split_once('-').unwrap_or((key, "0"));
        let hex = random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.len() > LONGEST || !hex || node.parse::<i64>().is_err() {
            return None;
        }
        if signature != signature_of(&seal(key), sealed) {
            return None;
        }
        let calls = match calls {
            "" => vec![],
            calls => serde_json::from_slice(&URL_SAFE_NO_PAD.decode(calls).ok()?).ok()?,
        };
        let upstream = match upstream {
            "" => None,
            upstream => Some(URL_SAFE_NO_PAD.decode(upstream).ok()?.into()),
        };
        // Numbers stop at half of what they can hold, so that counting on from one never overflows.
        let number = number.parse().ok().filter(|number| *number < u64::MAX / 2)?;
        Some(Self { key: key.to_owned(), calls, number, upstream, session_digest })
    }
}

/// A new stream's key. It names the node that holds the stream, where there may be several.
pub fn new_key(node: Option<i64>) -> String {
    let random = secret::request_id();
    node.map_or(random.clone(), |node| format!("{random}-{node}"))
}

/// The node that a stream's key names.
pub fn node_of(key: &str) -> Option<i64> {
    key.split_once('-').and_then(|(_, node)| node.parse().ok())
}

impl EventId {
    /// The id as text, signed with the key of its stream.
    pub fn sealed(&self, key: &[u8; 32]) -> String {
        let calls = match self.calls.is_empty() {
            true => String::new(),
            false => serde_json::to_string(&self.calls).unwrap_or_default(),
        };
        let calls = if calls.len() > LONGEST_CALLS { String::new() } else { URL_SAFE_NO_PAD.encode(calls) };
        let upstream = self.upstream.as_ref().map(|id| URL_SAFE_NO_PAD.encode(id)).unwrap_or_default();
        let session_digest = self
            .session_digest
            .as_ref()
            .map(|session_digest| format!(".{session_digest}"))
            .unwrap_or_default();
        let text = format!("{}.{calls}.{}.{upstream}{session_digest}", self.key, self.number);
        let signature = signature_of(key, &text);
        format!("{text}.{signature}")
    }
}

/// The first 72 bits of an HMAC: more than anybody can guess in the few tries that a stream allows.
fn signature_of(key: &[u8; 32], text: &str) -> String {
    let mut signature = secret::sign(key, &[text.as_bytes()]);
    signature.truncate(12);
    signature
}
