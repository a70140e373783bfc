//! What the gateway itself answers: JSON-RPC errors, their HTTP statuses, and challenges.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::SecondsFormat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sessiond_core::bar::BarTold;
use sessiond_core::ending::{CredentialEnd, Ending, LAPSED};
use sessiond_core::reason::Reason;
use sessiond_core::session::Refusal;

use super::message::{self, LEGACY, SUPPORTED};
use crate::auth::NothingGenuine;
use crate::error::{Error, Thing};
use crate::meter;

/// The `error` member of a JSON-RPC answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RpcError {
    pub code: i64,
    pub message: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// A JSON-RPC answer that holds an error. Its members are in the order in which SDK servers write them.
#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    error: &'a RpcError,
    id: &'a Value,
}

impl RpcError {
    /// Makes an error with this code.
    pub fn new(code: i64, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    fn because(self, reason: &str) -> Self {
        Self { data: Some(json!({ "reason": reason })), ..self }
    }

    /// The body is no JSON (JSON-RPC 2.0, section 5.1).
    pub fn parse(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(-32700, message)
    }

    /// The body is JSON, but no JSON-RPC request (JSON-RPC 2.0, section 5.1).
    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(-32600, message)
    }

    /// The parameters are not those of the method (JSON-RPC 2.0, section 5.1).
    pub fn invalid_params(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(-32602, message)
    }

    /// The request names a revision that is not spoken here (MCP 2026-07-28, basic/versioning).
    pub fn unsupported_version(requested: &str) -> Self {
        let data = json!({ "supported": SUPPORTED, "requested": requested });
        Self { data: Some(data), ..Self::new(-32022, "Unsupported protocol version") }
    }

    /// The server behind the gateway speaks only revisions with sessions: clients then fall back to `initialize`.
    pub fn legacy_only(requested: &str) -> Self {
        let data = json!({ "supported": LEGACY, "requested": requested });
        Self { data: Some(data), ..Self::new(-32022, "Unsupported protocol version") }
    }

    /// The request names an older or unknown revision; the words are those of the SDKs' servers of that age.
    pub fn unsupported_legacy_version(requested: &str) -> Self {
        let supported = LEGACY.join(", ");
        let text = format!(
            "Bad Request: Unsupported protocol version {requested:?} (supported versions: {supported})"
        );
        Self::new(-32000, text)
    }

    /// A header does not repeat what the body says (MCP 2026-07-28, basic/transports/streamable-http).
    pub fn header_mismatch(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(-32020, message)
    }

    /// The session has ended while the call was in flight. The code is that of "Session not found", which is what the
    /// client's next request will get.
    pub fn ended(reason: Reason) -> Self {
        Self::new(-32001, format!("Session disconnected: {reason}")).because(reason.word())
    }

    /// The session or the credential has ended while the call was in flight.
    pub fn cut_off_by(ending: Ending) -> Self {
        match ending {
            Ending::Session(reason) => Self::ended(reason),
            Ending::Credential(end) => Self::credential_ended(end),
            Ending::Lapsed => Self::lapsed(),
        }
    }

    /// Neither has ended, but this process may not know any more what has: the session goes on elsewhere, or here a little
    /// later.
    fn lapsed() -> Self {
        Self::new(-32000, LAPSED).because("lapsed")
    }

    /// The credential that the call came with has ended; the session has not.
    pub fn credential_ended(end: CredentialEnd) -> Self {
        let message = match end {
            // Whoever is barred would only come back in vain.
            CredentialEnd::Barred => end.to_string(),
            end => format!("{end}: authenticate again"),
        };
        Self {
            data: Some(json!({ "reason": "credential_ended", "credential": end.word() })),
            ..Self::new(-32000, message)
        }
    }

    /// Whoever asks, or whom it is for, is barred.
    fn barred(told: &BarTold) -> Self {
        let until = told.until.map(|until| until.to_rfc3339_opts(SecondsFormat::Millis, true));
        Self {
            data: Some(json!({ "reason": "barred", "until": until, "message": told.message })),
            ..Self::new(-32000, told.sentence())
        }
    }

    /// The credential expired while a stream was open; the session did not.
    pub fn expired() -> Self {
        Self::new(-32000, "The token has expired: authenticate again").because("expired")
    }

    /// The service is being stopped: the same request succeeds after the restart.
    pub fn stopping() -> Self {
        Self::new(-32000, "The gateway is restarting: call again").because("shutdown")
    }

    /// The gateway had to give up the call, because it held too much.
    pub fn over_budget() -> Self {
        let text = "The gateway held too much for this client or for all, and gave up its oldest calls: ask for less at a \
                    time, read what comes, or call again later";
        Self::new(-32000, text).because("too_much_held")
    }

    /// An operator has suspended the session.
    pub fn suspended() -> Self {
        Self::new(-32000, "The session is suspended; an operator can resume it").because("session_suspended")
    }

    /// The client resumes a stream that the gateway no longer has: the calls on it will not be answered any more.
    pub fn stream_lost() -> Self {
        Self::new(-32000, "The gateway has lost the answer to this call: call again").because("stream_lost")
    }

    /// The upstream takes longer to begin an answer than the operator allows.
    pub fn upstream_slow_to_begin() -> Self {
        Self::upstream_refused("has not begun to answer in time")
    }

    /// The upstream began an answer that is no stream, and does not come to its end.
    pub fn upstream_slow_to_finish() -> Self {
        let text = "The MCP server behind this gateway is too slow: it began to answer, and was silent for longer than \
                    --upstream-timeout";
        Self::new(-32603, text).because("upstream_slow")
    }

    /// The upstream died, or ended a stream that nobody can resume, before it had answered.
    pub fn upstream_lost() -> Self {
        Self::new(-32603, "The MCP server behind this gateway broke off before it answered")
            .because("upstream_lost")
    }

    /// The upstream cannot be connected to: nothing was sent.
    pub fn upstream_unreachable() -> Self {
        Self::new(-32603, "The MCP server behind this gateway cannot be reached")
            .because("upstream_unreachable")
    }

    /// The upstream's answer has ended, and holds no answer to this call.
    pub fn unanswered(status: StatusCode) -> Self {
        let number = status.as_u16();
        Self::upstream_refused(format_args!(
            "has sent something else than an answer to this call (HTTP {number})"
        ))
    }

    /// Like [`Self::unanswered`], but with the upstream's own error where it sent one about no call, or about a call
    /// that nobody made.
    pub fn unanswered_but(status: StatusCode, body: &[u8]) -> Self {
        message::error_in(body).unwrap_or_else(|| Self::unanswered(status))
    }

    /// Whether the upstream may still be at work on the call: whoever gives the call up has to say so there.
    pub fn may_leave_work(&self) -> bool {
        *self == Self::upstream_slow_to_begin() || *self == Self::upstream_slow_to_finish()
    }

    /// The upstream answered, but not so that a client could do anything with it.
    pub fn upstream_refused(how: impl std::fmt::Display) -> Self {
        Self::new(-32603, format!("The MCP server behind this gateway {how}")).because("upstream_refused")
    }

    /// A byte order mark stands before the upstream's JSON, where none may be (RFC 8259, section 8.1): clients' parsers
    /// fail at it.
    pub fn byte_order_mark() -> Self {
        Self::upstream_refused("answers with a byte order mark before the JSON")
    }

    /// The error as the answer to one request.
    pub fn answer(&self, id: &Value) -> String {
        // Plain data with string keys: serializing it cannot fail.
        serde_json::to_string(&Answer { jsonrpc: "2.0", error: self, id }).unwrap_or_default()
    }

    /// The error as the answer to these requests, in one array with answers that have come already.
    pub fn answers_beside(&self, said: &[&str], ids: &[Value], batch: bool) -> String {
        if said.is_empty() {
            return self.answers(ids, batch);
        }
        let answers = ids.iter().map(|id| self.answer(id));
        let all: Vec<_> = said.iter().map(|one| (*one).to_owned()).chain(answers).collect();
        format!("[{}]", all.join(","))
    }

    /// The error as the body that answers all requests of one POST.
    pub fn answers(&self, ids: &[Value], batch: bool) -> String {
        match ids {
            [id] if !batch => self.answer(id),
            _ => {
                let answers: Vec<_> = ids.iter().map(|id| self.answer(id)).collect();
                format!("[{}]", answers.join(","))
            }
        }
    }
}

/// Ends an event of which only a part was handed on, so that no SDK takes it for a message.
const ABANDON: &str = "event: abandoned\n\n";

/// The last events of a stream: one message for each farewell. `open` is set where only a part of the event before them
/// was handed on, and says whether that part ended with a line.
pub fn last_words(open: Option<bool>, farewells: &[String]) -> String {
    let mut text = String::new();
    if let Some(at_line_start) = open {
        text.push_str(if at_line_start { "" } else { "\n" });
        text.push_str(ABANDON);
    }
    for farewell in farewells {
        text.push_str(&format!("event: message\ndata: {farewell}\n\n"));
    }
    text
}

/// The response to a request that is not served.
#[derive(Debug)]
pub struct ErrorResponse {
    pub status: StatusCode,
    pub rpc_error: RpcError,
    /// The requests that the response answers; none where there was no request, or it could not be read.
    pub ids: Vec<Value>,
    /// Whether the requests came as an array.
    pub batch: bool,
    /// The value of `WWW-Authenticate`.
    pub challenge: Option<String>,
    pub retry_after: Option<u32>,
    /// The value of `Allow`.
    pub allow: Option<&'static str>,
    /// Whether the client presented something that is no credential of ours.
    pub nothing_genuine: bool,
}

impl ErrorResponse {
    pub fn new(status: StatusCode, rpc_error: RpcError) -> Self {
        Self {
            status,
            rpc_error,
            ids: vec![],
            batch: false,
            challenge: None,
            retry_after: None,
            allow: None,
            nothing_genuine: false,
        }
    }

    /// An error in place of the upstream's answer. Calls get it with status 200, because every SDK hands such an error
    /// on to its caller, and none does so with every other status. Anything else gets 502, or 503 where trying again
    /// helps.
    pub fn in_place_of_answer(rpc_error: RpcError, ids: Vec<Value>, batch: bool) -> Self {
        let passes = [RpcError::stopping(), RpcError::suspended()].contains(&rpc_error);
        let status = match (ids.is_empty(), passes) {
            (false, _) => StatusCode::OK,
            (true, true) => StatusCode::SERVICE_UNAVAILABLE,
            (true, false) => StatusCode::BAD_GATEWAY,
        };
        let retry_after = (ids.is_empty() && passes).then_some(1);
        Self { ids, batch, retry_after, ..Self::new(status, rpc_error) }
    }

    /// Makes the response answer these requests.
    pub fn answering(self, ids: &[Value]) -> Self {
        Self { ids: ids.to_vec(), ..self }
    }

    /// The method is not allowed; the response says which methods are (RFC 9110, section 15.5.6).
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let rpc_error = RpcError::new(-32000, format!("Method not allowed: this takes {allow}"));
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, rpc_error) }
    }

    pub fn bad_request(rpc_error: RpcError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rpc_error)
    }

    /// The request is forbidden, as with a bad `Origin` (MCP 2025-11-25, basic/transports, "Security Warning").
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, RpcError::new(-32000, message))
    }

    /// The request has passed this gateway before: the upstream of some application leads back here (RFC 5842, section
    /// 7.2).
    pub fn loop_detected() -> Self {
        let text = "Loop Detected: the request has passed this gateway already, or sixteen others: the upstream of an \
                    application leads back to a gateway before it";
        Self::new(StatusCode::LOOP_DETECTED, RpcError::new(-32000, text).because("gateway_loop"))
    }

    /// The session does not exist. Consumers match this body to the byte; only the session's owner is told the reason.
    pub fn session_not_found(reason: Option<Reason>) -> Self {
        let data = reason.map(|reason| json!({ "reason": reason.word() }));
        Self::new(StatusCode::NOT_FOUND, RpcError { data, ..RpcError::new(-32001, "Session not found") })
    }

    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, RpcError::new(-32000, message))
    }

    /// The credential is missing or not valid. `said` becomes `error_description` where a credential was presented.
    pub fn unauthorized(said: Option<(String, Option<Reason>)>, metadata: &str) -> Self {
        let rpc_error = RpcError::new(-32000, "Unauthorized");
        let (challenge, data) = match said {
            None => (String::new(), None),
            Some((description, reason)) => (
                format!("error=\"invalid_token\", error_description=\"{description}\", "),
                Some(json!({ "reason": reason.map(Reason::word), "description": description })),
            ),
        };
        let challenge = format!("Bearer {challenge}resource_metadata=\"{metadata}\", scope=\"mcp:invoke\"");
        Self {
            challenge: Some(challenge),
            ..Self::new(StatusCode::UNAUTHORIZED, RpcError { data, ..rpc_error })
        }
    }

    /// The credential ended while its request was under way.
    pub fn credential_ended(end: CredentialEnd) -> Self {
        let rpc_error = RpcError::credential_ended(end);
        if end == CredentialEnd::Barred {
            return Self::new(StatusCode::FORBIDDEN, rpc_error);
        }
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{end}\"");
        Self { challenge: Some(challenge), ..Self::new(StatusCode::UNAUTHORIZED, rpc_error) }
    }

    /// The credential is valid, but lacks the scope.
    pub fn insufficient_scope(metadata: &str) -> Self {
        let challenge = format!(
            "Bearer error=\"insufficient_scope\", scope=\"mcp:invoke\", resource_metadata=\"{metadata}\""
        );
        let refusal = Self::forbidden("Insufficient scope: this needs mcp:invoke");
        Self { challenge: Some(challenge), ..refusal }
    }

    /// The response to a refusal of the application underneath. `metadata` goes into the challenge where there is one.
    pub fn from_error(error: Error, metadata: &str) -> Self {
        let message = error.to_string();
        let plain = |status, code| Self::new(status, RpcError::new(code, message));
        match error {
            Error::Invalid { .. } | Error::InvalidTarget(_) => plain(StatusCode::BAD_REQUEST, -32602),
            Error::Unauthorized { reason } => Self {
                nothing_genuine: reason.is_none(),
                ..Self::unauthorized(reason.map(described), metadata)
            },
            Error::Unfit(why) => {
                Self { nothing_genuine: true, ..Self::unauthorized(Some((why.to_owned(), None)), metadata) }
            }
            // A suspension can pass, so it is told with status 200: every SDK would take 403 for final.
            Error::Suspended(_) => plain(StatusCode::OK, -32000),
            Error::Barred(told) => Self::new(StatusCode::FORBIDDEN, RpcError::barred(&told)),
            Error::Denied { .. } | Error::LimitReached { shuts_out: true, .. } => {
                plain(StatusCode::FORBIDDEN, -32000)
            }
            Error::Forbidden { .. } => Self::insufficient_scope(metadata),
            Error::NotFound(Thing::Session) => Self::session_not_found(None),
            Error::NotFound(_) => plain(StatusCode::NOT_FOUND, -32000),
            Error::Conflict { .. }
            | Error::KeyTaken(_)
            | Error::LimitReached { .. }
            | Error::RunOver
            | Error::TooManyToBar(_) => plain(StatusCode::CONFLICT, -32000),
            Error::Unprocessable { .. } => plain(StatusCode::UNPROCESSABLE_ENTITY, -32000),
            Error::Gone(ended) => Self::session_not_found(Some(ended.reason)),
            Error::Busy | Error::OutcomeUnknown => {
                Self { retry_after: Some(1), ..plain(StatusCode::SERVICE_UNAVAILABLE, -32000) }
            }
            Error::DiskFull => plain(StatusCode::INSUFFICIENT_STORAGE, -32000),
            Error::Internal(cause) => {
                tracing::error!(%cause, "internal error");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, RpcError::new(-32603, "Internal error"))
            }
        }
    }
}

/// Says in words why a credential opens nothing, and gives the reason where a session's end or a revocation is behind
/// it.
fn described(refusal: Refusal) -> (String, Option<Reason>) {
    match refusal {
        Refusal::Ended(ended) => (refusal.to_string(), Some(ended.reason)),
        Refusal::Revoked(reason) => (refusal.to_string(), Some(reason)),
        Refusal::CredentialBarred => {
            ("the credential was revoked; authenticate again".to_owned(), Some(Reason::Revoked))
        }
        _ => ("the token has expired".to_owned(), None),
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let over = [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND].contains(&self.status);
        if over && self.rpc_error.data.as_ref().is_some_and(|data| data["reason"].is_string()) {
            metrics::counter!(meter::AFTER_END).increment(1);
        }
        let body = match self.ids.is_empty() {
            true => self.rpc_error.answer(&Value::Null),
            false => self.rpc_error.answers(&self.ids, self.batch),
        };
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if self.nothing_genuine {
            response.extensions_mut().insert(NothingGenuine);
        }
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
