//! Which of MCP's two eras a POST is of, and what its headers must repeat. The body decides, never the user agent: the
//! ladder of `inboundClassification.ts` in the TypeScript SDK's server 2.4.0, and MCP 2026-07-28,
//! basic/transports/streamable-http and basic/versioning.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::message::{LEGACY, MODERN, Posted};
use super::reply::{ErrorResponse, RpcError};
use super::upstream::PROTOCOL_VERSION;

static METHOD: HeaderName = HeaderName::from_static("mcp-method");
static NAME: HeaderName = HeaderName::from_static("mcp-name");
/// Methods whose `Mcp-Name` header repeats a parameter; the last three are of the extension for tasks (SEP-2663).
const NAMED: [&str; 6] =
    ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/update", "tasks/cancel"];

/// How a POST is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// The POST belongs to a session that `initialize` opened: revisions up to 2025-11-25.
    Legacy,
    /// The POST belongs to no session of the client's: revision 2026-07-28.
    Modern,
    /// The POST names a revision that is not known here. Only the upstream can say whether it knows it.
    Unknown,
}

/// Tells the era of a POST, or refuses a POST that is of no era.
pub fn of(posted: &Posted, headers: &HeaderMap) -> Result<Era, ErrorResponse> {
    let refused = |rpc_error| Err(ErrorResponse::bad_request(rpc_error).answering(&posted.ids));
    let header = match revision(headers) {
        Ok(header) => header,
        Err(rpc_error) => return refused(rpc_error),
    };
    match posted.meta.protocol_version.as_ref() {
        Some(Value::String(claim)) if LEGACY.contains(&claim.as_str()) => {}
        Some(_) if posted.batch => {
            return refused(RpcError::invalid_request("Invalid Request: this revision has no batches"));
        }
        Some(claim) => {
            return match check_modern(posted, claim, header, headers) {
                Ok(era) => Ok(era),
                Err(rpc_error) => refused(rpc_error),
            };
        }
        None if posted.initialize.is_some() => return Ok(Era::Legacy),
        None if !header.is_some_and(is_modern) => {}
        // A notification claims no revision in its body, so the header decides.
        None if posted.ids.is_empty() && posted.method.is_some() && !posted.batch => {
            return match header {
                Some(MODERN) => Ok(Era::Modern),
                other => refused(RpcError::unsupported_version(other.unwrap_or(MODERN))),
            };
        }
        None if posted.method.is_none() || posted.batch => {
            let rpc_error =
                "Invalid Request: this revision takes one request or notification, and no answers";
            return refused(RpcError::invalid_request(rpc_error));
        }
        None => {
            let missing = "Invalid params: params._meta lacks io.modelcontextprotocol/protocolVersion and \
                           io.modelcontextprotocol/clientCapabilities, which this revision requires";
            return refused(RpcError::invalid_params(missing));
        }
    }
    match header.filter(|header| posted.initialize.is_none() && !LEGACY.contains(header)) {
        Some(header) if is_modern(header) => {
            let text = "Header mismatch: MCP-Protocol-Version and the body name revisions of two eras";
            refused(RpcError::header_mismatch(text))
        }
        Some(header) => refused(RpcError::unsupported_legacy_version(header)),
        None => Ok(Era::Legacy),
    }
}

/// The revision that the headers name. They must name it once: of two, the upstream might read the other one.
fn revision(headers: &HeaderMap) -> Result<Option<&str>, RpcError> {
    let mut values = headers.get_all(&PROTOCOL_VERSION).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(version)), None) => Ok(Some(version)),
        _ => Err(RpcError::header_mismatch(
            "Header mismatch: MCP-Protocol-Version must be there once, in ASCII",
        )),
    }
}

/// Whether a revision is of the modern era, known here or not. Revisions are dates.
pub fn is_modern(version: &str) -> bool {
    version >= MODERN
}

/// Checks the revision of a GET or DELETE: only revisions with sessions have these methods.
pub fn of_session(headers: &HeaderMap) -> Result<(), ErrorResponse> {
    match revision(headers).map_err(ErrorResponse::bad_request)? {
        Some(header) if is_modern(header) => Err(ErrorResponse::method_not_allowed("POST, OPTIONS")),
        Some(header) if !LEGACY.contains(&header) => {
            Err(ErrorResponse::bad_request(RpcError::unsupported_legacy_version(header)))
        }
        _ => Ok(()),
    }
}

/// Makes the checks of 2026-07-28 that an intermediary has to make.
fn check_modern(
    posted: &Posted,
    claim: &Value,
    header: Option<&str>,
    headers: &HeaderMap,
) -> Result<Era, RpcError> {
    let Value::String(claim) = claim else {
        let text = "Invalid params: _meta[\"io.modelcontextprotocol/protocolVersion\"] must be a string";
        return Err(RpcError::invalid_params(text));
    };
    match header {
        Some(header) if header == claim => {}
        Some(header) => {
            let text =
                format!("Header mismatch: MCP-Protocol-Version is {header:?}, but the body says {claim:?}");
            return Err(RpcError::header_mismatch(text));
        }
        None if posted.ids.is_empty() => {}
        None => return Err(RpcError::header_mismatch("Header mismatch: MCP-Protocol-Version is missing")),
    }
    if claim != MODERN {
        return Ok(Era::Unknown);
    }
    if posted.ids.is_empty() {
        check_mirror(headers, &METHOD, posted.method.as_deref(), false)?;
        return Ok(Era::Modern);
    }
    if !posted.meta.client_capabilities.as_ref().is_some_and(Value::is_object) {
        let text = "Invalid params: _meta[\"io.modelcontextprotocol/clientCapabilities\"] must be an object";
        return Err(RpcError::invalid_params(text));
    }
    check_mirror(headers, &METHOD, posted.method.as_deref(), true)?;
    if posted.method.as_deref().is_some_and(|method| NAMED.contains(&method)) {
        check_mirror(headers, &NAME, posted.name.as_deref(), posted.name.is_some())?;
    }
    Ok(Era::Modern)
}

/// Checks that a header repeats what the body says.
fn check_mirror(
    headers: &HeaderMap,
    name: &HeaderName,
    said: Option<&str>,
    required: bool,
) -> Result<(), RpcError> {
    let mut values = headers.get_all(name).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else {
        if !required {
            return Ok(());
        }
        return Err(RpcError::header_mismatch(format!("Header mismatch: {} is missing", title(name))));
    };
    let decoded = value.to_str().ok().and_then(decoded);
    if more.is_some() || decoded.is_none() {
        let text = format!("Header mismatch: {} cannot be read", title(name));
        return Err(RpcError::header_mismatch(text));
    }
    if decoded.as_deref() == said {
        return Ok(());
    }
    let text = format!("Header mismatch: {} is not what the body says", title(name));
    Err(RpcError::header_mismatch(text))
}

/// The header's name as the specification writes it.
fn title(name: &HeaderName) -> &'static str {
    if *name == METHOD { "Mcp-Method" } else { "Mcp-Name" }
}

/// Decodes a header's value, which may be `=?base64?…?=` where the text is not plain ASCII.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => {
            let bytes = STANDARD.decode(encoded).ok()?;
            String::from_utf8(bytes).ok().map(Cow::Owned)
        }
        None => Some(Cow::Borrowed(value.trim())),
    }
}
