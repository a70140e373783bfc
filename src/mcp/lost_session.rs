//! Whether an upstream has lost the session that a request named, and what else its refusal means. The question is
//! answered in this one place, from everything that came: the specification's word for it is 404 (MCP 2025-11-25,
//! basic/transports, "Session Management"), and servers have many others.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, header};
use bytes::Bytes;
use serde_json::Value;

use super::forward::{IncomingResponse, LARGEST_REFUSAL, read_beginning};
use super::message;
use super::reply::RpcError;

/// The code of "Session not found" in the TypeScript SDK's server, which others have taken over.
const SESSION_NOT_FOUND: i64 = -32001;

/// What an answer to a request with a session id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The session is lost, and the request was not carried out.
    Lost,
    /// The upstream has no standalone stream to give, which says nothing about the session.
    NoStream,
    /// The body answers a call that was asked, whatever the status.
    Answer,
    /// The answer says something else.
    Other,
}

/// Judges an answer by the method and the call ids of the request, and by the answer's status, head and beginning.
pub fn judge(
    method: &Method,
    ids: &[Value],
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Verdict {
    let readable = !headers.contains_key(header::CONTENT_ENCODING);
    let body = if readable { body } else { &[] };
    let code = message::error_code(body) == Some(SESSION_NOT_FOUND);
    let words = speaks_of_lost_session(body);
    // Only an id that was asked makes an answer: the Python SDK's server refuses under the id "server-error", and the
    // C# SDK's under none.
    if message::answered(body).iter().any(|id| ids.contains(id)) {
        return if code && words { Verdict::Lost } else { Verdict::Answer };
    }
    match status {
        _ if !may_be_lost(status) => Verdict::Other,
        _ if code || words => Verdict::Lost,
        // Servers without a standalone stream answer so. Whether the session is lost too, the next POST shows.
        StatusCode::NOT_FOUND if method == Method::GET => Verdict::NoStream,
        StatusCode::NOT_FOUND => Verdict::Lost,
        _ => Verdict::Other,
    }
}

/// The statuses under which servers say that a session is lost.
fn may_be_lost(status: StatusCode) -> bool {
    status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE
}

/// Judges a response that has come, of which only the beginning is read. Returns the response as it is to be handed on.
pub(super) async fn judge_response(
    method: &Method,
    ids: &[Value],
    response: IncomingResponse,
    patience: Duration,
) -> Result<(Verdict, IncomingResponse), RpcError> {
    let refuses =
        may_be_lost(response.head.status) || !super::forward::may_be_passed_on(response.head.status);
    if !refuses {
        return Ok((Verdict::Other, response));
    }
    let IncomingResponse { mut head, body } = response;
    let (read, body) = read_beginning(body, LARGEST_REFUSAL, patience).await?;
    let verdict = judge(method, ids, head.status, &head.headers, &read);
    if verdict == Verdict::Answer && !super::forward::may_be_passed_on(head.status) {
        // The status would mean something else coming from us.
        head.status = StatusCode::OK;
    }
    if verdict == Verdict::NoStream {
        head.status = StatusCode::METHOD_NOT_ALLOWED;
        head.headers.remove(header::CONTENT_TYPE);
        return Ok((verdict, IncomingResponse { head, body: Body::empty() }));
    }
    Ok((verdict, IncomingResponse { head, body }))
}

/// Words that tell of a lost session where they stand right before "session".
const BEFORE: [&str; 8] =
    ["no valid", "invalid", "unknown", "missing", "expired", "no such", "lost", "stale"];
/// Words that tell of a lost session where they stand close behind "session".
const AFTER: [&str; 11] = [
    "invalid",
    "not valid",
    "expired",
    "terminated",
    "unknown",
    "no longer",
    "closed",
    "not recognized",
    "not initialized",
    "not active",
    "lost",
];
/// Words that tell of a lost session anywhere behind "session".
const LATER: [&str; 4] = ["not found", "does not exist", "doesn t exist", "not exist"];
/// How many bytes behind "session" are close: enough for words such as "id is" in between.
const CLOSE: usize = 24;
/// How much of a text is looked at.
const LOOKED_AT: usize = 4 << 10;

/// Whether a text speaks of a session that its server does not have. Known in the field: `No valid session ID provided`,
/// `Invalid or missing session ID`, `Session … not found`, `session does not exist`, `Mcp-Session-Id is invalid or expired`,
/// `No transport found for sessionId`, `Server not initialized` (of a transport that was made for an id it does not know).
pub fn speaks_of_lost_session(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&body[..body.len().min(LOOKED_AT)]).to_ascii_lowercase();
    let words: Vec<_> =
        text.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let text = words.join(" ").replace("sessionid", "session id");
    let about = |at: usize| {
        let (before, after) = (text[..at].trim_end(), &text[at + "session".len()..]);
        let close = after.get(..after.len().min(CLOSE)).unwrap_or_default();
        BEFORE.iter().any(|words| before.ends_with(words))
            || AFTER.iter().any(|words| close.contains(words))
            || LATER.iter().any(|words| after.contains(words))
    };
    text.contains("server not initialized")
        || text.contains("no transport found for session")
        || text.match_indices("session").any(|(at, _)| about(at))
}

/// Puts together a body from what was read of it and the rest.
pub(super) fn rejoined_body(read: Bytes, rest: Option<Body>) -> Body {
    match rest {
        None => Body::from(read),
        Some(rest) => {
            let first = futures_util::stream::iter([Ok::<_, axum::Error>(read)]);
            Body::from_stream(futures_util::StreamExt::chain(first, rest.into_data_stream()))
        }
    }
}
