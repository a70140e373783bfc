//! The headers that pass the gateway. These are lists of what may pass: what nobody has thought of does not. An
//! application may name further headers.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use sessiond_core::application::UpstreamHeaders;

use crate::error::Error;
use crate::outbound::HOP;
use crate::secret;

pub static SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells the upstream which of our sessions a request belongs to.
pub static CORRELATION: HeaderName = HeaderName::from_static("sessiond-session-id");

/// The prefix of all headers of MCP: the revision, what 2026-07-28 mirrors of a message (`Mcp-Method`, `Mcp-Name`,
/// `Mcp-Param-…`), and what comes later. The session's id does not pass with them: each side has its own.
const MCP: &str = "mcp-";
/// The headers of a request that pass to the upstream beside those of MCP: who asks for whom, in which trace, in which
/// language, from where in a stream, and through whom. The gateway itself sets `Accept`, `Content-Type` and their like.
pub const TO_UPSTREAM: [&str; 7] =
    ["accept-language", "baggage", "last-event-id", "traceparent", "tracestate", "user-agent", "via"];
/// The headers of an answer that pass to the client beside those of MCP. The gateway itself says that the answer may
/// not be stored.
pub const TO_CLIENT: [&str; 4] = ["allow", "content-language", "content-type", "retry-after"];
/// The headers of an answer that the gateway reads itself and hands on to nobody.
static READ: [HeaderName; 3] = [header::SET_COOKIE, header::LOCATION, header::CONTENT_ENCODING];

/// The headers that no application can have passed, in either direction: credentials, ours and others'; what the
/// gateway says itself; what an upstream would believe about who is behind the connection; and orders to browsers and
/// proxies about more than one answer.
const NEVER: [&str; 38] = [
    "alt-svc",
    "apikey",
    "authorization",
    "cache-control",
    "cf-connecting-ip",
    "clear-site-data",
    "cookie",
    "cookie2",
    "date",
    "expect",
    "fastly-client-ip",
    "forwarded",
    "host",
    "idempotency-key",
    "last-event-id",
    "location",
    "nel",
    "origin",
    "pragma",
    "proxy",
    "range",
    "referer",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "server",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "true-client-ip",
    "vary",
    "via",
    "www-authenticate",
    "x-client-ip",
    "x-real-ip",
    "x-reproxy-url",
    "x-request-id",
];
const NEVER_KINDS: [&str; 17] = [
    "accept",
    "access-control-",
    "content-",
    "if-",
    "mcp-",
    "origin-",
    "sec-",
    "sessiond-",
    "x-accel-",
    "x-auth-request-",
    "x-forwarded-",
    "x-http-method",
    "x-lighttpd-",
    "x-original-",
    "x-remote-",
    "x-rewrite-",
    "x-sendfile",
];
const MOST: usize = 32;
const LONGEST_NAME: usize = 100;

/// The name by which this process recognises itself in `Via`, where each gateway adds its name (RFC 9110, section
/// 7.6.3).
static VIA: LazyLock<HeaderValue> = LazyLock::new(|| {
    let said = format!("1.1 sessiond-{}", secret::request_id());
    HeaderValue::try_from(said).unwrap_or(HeaderValue::from_static("1.1 sessiond"))
});
/// How many gateways a request may have passed.
const MOST_HOPS: usize = 16;

/// Whether a request has passed this gateway before, or too many others.
pub fn is_loop(headers: &HeaderMap) -> bool {
    let said = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
    let mut hops: Vec<_> = said.flat_map(|value| value.split(',')).map(str::trim).collect();
    hops.retain(|hop| !hop.is_empty());
    hops.len() >= MOST_HOPS || hops.iter().any(|hop| Some(*hop) == VIA.to_str().ok())
}

/// The headers of a request that the upstream may see: those that pass for everybody, and those that the application
/// names.
pub fn to_upstream(headers: &HeaderMap, more: Option<&UpstreamHeaders>) -> HeaderMap {
    let more = more.map_or(&[][..], |more| &more.to_upstream);
    let listed = |name: &HeaderName| TO_UPSTREAM.contains(&name.as_str());
    passing_headers(headers, |name| {
        listed(name) || is_mcp_header(name) || more.iter().any(|one| one == name.as_str())
    })
}

/// The headers of an answer that the client may see, and those that the gateway reads.
pub fn from_upstream(headers: &HeaderMap, more: &[String]) -> HeaderMap {
    let listed =
        |name: &HeaderName| TO_CLIENT.contains(&name.as_str()) || READ.contains(name) || *name == SESSION;
    passing_headers(headers, |name| {
        listed(name) || is_mcp_header(name) || more.iter().any(|one| one == name.as_str())
    })
}

/// The headers that the client may see, out of those that [`from_upstream`] has let pass.
pub fn visible_to_client(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in &READ {
        headers.remove(name);
    }
    headers.remove(&SESSION);
    headers
}

/// Whether a header is one of MCP. A name with an underscore is not: some servers read it as another name with a
/// hyphen.
fn is_mcp_header(name: &HeaderName) -> bool {
    name.as_str().starts_with(MCP) && *name != SESSION && !name.as_str().contains('_')
}

/// The headers that pass, without those that the sender names in `Connection` as meant for its neighbour alone (RFC
/// 9110, section 7.6.1).
fn passing_headers(headers: &HeaderMap, passes: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let alone: Vec<&str> = connection.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut passing = HeaderMap::new();
    for (name, value) in headers {
        if passes(name) && !alone.iter().any(|one| one.eq_ignore_ascii_case(name.as_str())) {
            passing.append(name.clone(), value.clone());
        }
    }
    passing
}

/// Sets the headers that the specification asks of a client (MCP 2025-11-25 and 2026-07-28, basic/transports) in our
/// own form. The client's values were checked, but may be in a form that not every server understands.
pub fn set_own_headers(method: &Method, headers: &mut HeaderMap) {
    let (accept, content) = match *method {
        Method::POST => (Some("application/json, text/event-stream"), Some("application/json")),
        Method::GET => (Some("text/event-stream"), None),
        _ => (None, None),
    };
    for (name, says) in [(header::ACCEPT, accept), (header::CONTENT_TYPE, content)] {
        match says {
            Some(says) => headers.insert(name, HeaderValue::from_static(says)),
            None => headers.remove(name),
        };
    }
    // The gateway reads the answer, and some servers compress it where nothing is said (RFC 9110, section 12.5.3).
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.append(header::VIA, VIA.clone());
}

/// The content coding of a message that was asked to have none.
pub fn coding(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let said = codings.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase());
    let said: Vec<_> = said.filter(|coding| !coding.is_empty() && coding != "identity").collect();
    let plain = |text: &str| text.chars().filter(|one| one.is_ascii_graphic()).take(40).collect::<String>();
    said.first().map(|coding| plain(coding))
}

/// Checks the headers that an application wants to have passed, and brings them into their normal form; `None` if there
/// are none.
pub fn check_headers(wanted: UpstreamHeaders) -> Result<Option<UpstreamHeaders>, Error> {
    let to_upstream = check_names("headers.toUpstream", wanted.to_upstream)?;
    let to_client = check_names("headers.toClient", wanted.to_client)?;
    let none = to_upstream.is_empty() && to_client.is_empty();
    Ok((!none).then_some(UpstreamHeaders { to_upstream, to_client }))
}

fn check_names(field: &'static str, names: Vec<String>) -> Result<Vec<String>, Error> {
    let wrong = |message: String| Err(Error::field(field, format!("{field} {message}")));
    if names.len() > MOST {
        return wrong(format!("must be at most {MOST} names"));
    }
    let mut checked = Vec::with_capacity(names.len());
    for name in names {
        let read = HeaderName::try_from(&name).ok().filter(|name| name.as_str().len() <= LONGEST_NAME);
        let Some(read) = read else {
            return wrong(format!("must be names of headers, such as X-Tenant, and not {name:?}"));
        };
        if is_forbidden(read.as_str()) {
            return wrong(format!("must not have {:?}: that header never passes", read.as_str()));
        }
        checked.push(read.as_str().to_owned());
    }
    checked.sort_unstable();
    checked.dedup();
    Ok(checked)
}

/// Whether a header may pass for nobody. Some servers read an underscore as a hyphen.
fn is_forbidden(name: &str) -> bool {
    let name = name.replace('_', "-");
    let name = name.as_str();
    HOP.contains(&name) || NEVER.contains(&name) || NEVER_KINDS.iter().any(|kind| name.starts_with(kind))
}
