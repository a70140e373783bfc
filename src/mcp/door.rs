//! Who may knock: `Host` and `Origin`, against pages that rebind a name to this machine, and what CORS tells browsers.

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use url::Url;

use super::reply::Refusal;
use crate::config::Config;

/// Names under which a machine is its own.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// What a browser's script may send. The last two are of revision 2026-07-28.
const ALLOW_HEADERS: &str = "Authorization, Content-Type, Accept, Mcp-Session-Id, Mcp-Protocol-Version, Last-Event-ID, \
                             X-Request-Id, Traceparent, Mcp-Method, Mcp-Name";
/// What a browser's script may read: as in the TypeScript SDK's `examples/legacy-routing/server.ts`.
const EXPOSE_HEADERS: &str =
    "Mcp-Session-Id, WWW-Authenticate, Last-Event-Id, Mcp-Protocol-Version, X-Request-Id";
/// The methods of an endpoint.
pub const METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// The names and origins that are ours.
pub struct Door {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Door {
    pub fn new(config: &Config, public_url: &str) -> Self {
        let mut hosts: Vec<_> = LOOPBACK.map(str::to_owned).into();
        let mut origins: Vec<_> = config
            .allow_origin
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
            .collect();
        if let Ok(url) = Url::parse(public_url) {
            hosts.extend(url.host_str().map(str::to_owned));
            origins.push(url.origin().ascii_serialization());
        }
        let listen = config.listen.ip();
        if !listen.is_unspecified() {
            hosts.push(if listen.is_ipv6() { format!("[{listen}]") } else { listen.to_string() });
        }
        Self { hosts, origins }
    }

    /// Lets a request in, or not; with the origin it comes from, if it says so.
    pub fn check(&self, parts: &Parts) -> Result<Option<HeaderValue>, Refusal> {
        let host = host(parts).filter(|host| self.hosts.contains(&name(host)));
        let Some(host) = host else {
            return Err(Refusal::forbidden("Forbidden: the Host is not one of this server's names"));
        };
        let mut origins = parts.headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(None),
            (Some(origin), None) if self.is_ours(origin, &host) => Ok(Some(origin.clone())),
            _ => Err(Refusal::forbidden("Forbidden: this Origin is not allowed; see --allow-origin")),
        }
    }

    /// A named origin, or the very address on this machine that the request came in by.
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

/// The one host a request names.
fn host(parts: &Parts) -> Option<Authority> {
    if let Some(authority) = parts.uri.authority() {
        return Some(authority.clone());
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    }
}

/// Without the port.
fn name(authority: &Authority) -> String {
    authority.host().trim_end_matches('.').to_ascii_lowercase()
}

/// The answer to a browser that asks before it sends.
pub fn preflight() -> Response {
    let headers = [
        (header::ALLOW, METHODS),
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// What every answer tells a browser.
pub fn share(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSE_HEADERS));
}

/// Whether an `Accept` header takes a media type.
pub fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let family = media.split('/').next().unwrap_or(media);
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|range| {
            let range = range.split(';').next().unwrap_or(range).trim();
            range.eq_ignore_ascii_case(media)
                || range == "*/*"
                || range.strip_suffix("/*").is_some_and(|one| one.eq_ignore_ascii_case(family))
        })
    })
}

/// A header as text, if it is readable; the first where there are several.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
