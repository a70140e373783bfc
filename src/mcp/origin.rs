//! Checks `Host` and `Origin`, against pages that rebind a name to this machine, and tells browsers what CORS asks for.

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::reply::ErrorResponse;
use crate::config::Config;
use crate::config::names::{LOOPBACK, Names, host, name};

/// The headers that a browser's script may send. The last two are of revision 2026-07-28.
const ALLOW_HEADERS: &str = "Authorization, Content-Type, Accept, Mcp-Session-Id, Mcp-Protocol-Version, Last-Event-ID, \
                             X-Request-Id, Traceparent, Tracestate, Baggage, Mcp-Method, Mcp-Name";
/// The prefix of headers that mirror a tool's arguments (SEP-2243). Only the tool says which of them there are.
const MIRRORS: &str = "mcp-param-";
/// The headers that a browser's script may read, as in the TypeScript SDK's `examples/legacy-routing/server.ts`.
const EXPOSE_HEADERS: &str =
    "Mcp-Session-Id, WWW-Authenticate, Last-Event-Id, Mcp-Protocol-Version, X-Request-Id";
/// The methods of an endpoint.
pub const METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// The hosts and origins that are allowed.
pub struct AllowedOrigins {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl AllowedOrigins {
    pub fn new(config: &Config, names: &Names) -> Self {
        let allowed = config.allow_origin.iter();
        let mut origins: Vec<_> =
            allowed.map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect();
        origins.extend(names.origins());
        Self { hosts: names.hosts(), origins }
    }

    /// Checks a request's host and origin. Returns the origin, if the request names one.
    pub fn check(&self, parts: &Parts) -> Result<Option<HeaderValue>, ErrorResponse> {
        let host = host(&parts.uri, &parts.headers).filter(|host| self.hosts.contains(&name(host)));
        let Some(host) = host else {
            return Err(ErrorResponse::forbidden("Forbidden: the Host is not one of this server's names"));
        };
        let mut origins = parts.headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(None),
            (Some(origin), None) if self.is_ours(origin, &host) => Ok(Some(origin.clone())),
            _ => Err(ErrorResponse::forbidden("Forbidden: this Origin is not allowed; see --allow-origin")),
        }
    }

    /// Whether an origin is a configured one, or the very address on this machine that the request came in by.
    fn is_ours(&self, origin: &HeaderValue, host: &Authority) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        if self.origins.contains(&origin) {
            return true;
        }
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        LOOPBACK.contains(&name(host).as_str()) && rest == Some(host.as_str().to_ascii_lowercase().as_str())
    }
}

/// The response to a browser's preflight request.
pub fn preflight(asked: &HeaderMap) -> Response {
    let requested = asked.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let requested =
        requested.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    let mirrors = requested.filter(|name| {
        name.get(..MIRRORS.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(MIRRORS))
            && HeaderName::try_from(*name).is_ok()
    });
    // These headers have no wildcard (Fetch, "CORS-preflight fetch"): a browser that asks for them by name is allowed
    // them by name.
    let allowed = mirrors.fold(ALLOW_HEADERS.to_owned(), |allowed, name| format!("{allowed}, {name}"));
    let headers = [
        (header::ALLOW, METHODS),
        (header::VARY, "Access-Control-Request-Headers"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.as_str()),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Sets the headers by which every response tells a browser whether the page behind it may read it.
pub fn set_cors_headers(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSE_HEADERS));
}
