//! The outermost layer: it gives a request its id and span, finds out where the request comes from, measures how long it
//! takes, and sets the headers that every response has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;
use metrics::histogram;
use tracing::Instrument;

use super::connection::Connection;
use super::problem::{self, IsProblem};
use super::surface::Layered;
use crate::auth::{ClientAddress, RequestId};
use crate::limits::Left;
use crate::meter;
use crate::nodes::HandedOn;
use crate::secret;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header by which a client that came encrypted comes so again, for a year.
static STRICT_TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The outermost layer of a surface.
pub async fn request_layer(State(at): State<Layered>, mut request: Request, next: Next) -> Response {
    let Layered { app, surface, routed } = at;
    let begun = Instant::now();
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| is_request_id(id))
        .map_or_else(secret::request_id, str::to_owned);
    let wants_problem = request
        .headers()
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains(problem::MEDIA_TYPE)));
    let handed_on = app.peers.handed_on(&request);
    let address = handed_on.unwrap_or_else(|| client_address(&app.config.trusted_proxy, &request));
    if handed_on.is_some() {
        request.extensions_mut().insert(HandedOn);
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(ClientAddress(address));
    request.extensions_mut().insert(surface);
    let route = app.config.metrics_listen.map(|_| if routed { route(&request) } else { NO_ROUTE.to_owned() });
    // The span has only the id, because the fields of a span are formatted for every request, and most requests log nothing.
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let span = tracing::info_span!("request", %id, session = tracing::field::Empty);
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = surface.shaped(response, &id);
    if let (Some(own), Some(left)) = (surface.limit_headers, response.extensions().get::<Left>().copied()) {
        (own.set)(response.headers_mut(), left, app.clock.now());
    }
    let _entered = span.enter();
    let status = response.status();
    if status.is_server_error() {
        tracing::warn!(%method, path = uri.path(), status = status.as_u16(), "answered");
    } else {
        tracing::debug!(%method, path = uri.path(), status = status.as_u16(), "answered");
    }
    if let Some(route) = route {
        measure(route, &method, status, begun);
    }
    let is_problem = response.extensions().get::<IsProblem>().is_some();
    let headers = response.headers_mut();
    if is_problem && wants_problem {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(&REQUEST_ID, id);
    }
    secure(headers, surface.security_headers, app.config.tls_certificate.is_some());
    response
}

/// Sets the headers that every response has, whatever the handler set.
pub fn secure(headers: &mut HeaderMap, own: &[(HeaderName, HeaderValue)], encrypted: bool) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in own {
        headers.insert(name, value.clone());
    }
    if encrypted {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT.clone());
    }
}

/// The name in the metrics for requests that lead to no route.
const NO_ROUTE: &str = "none";

/// The template of the route for the metrics, and never a path: paths hold ids.
fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned()
}

fn measure(route: String, method: &Method, status: StatusCode, begun: Instant) {
    // Unknown methods are not named, because anybody can make them up.
    let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD];
    let method = if known.contains(method) { method.to_string() } else { "other".to_owned() };
    let status = status.as_str().to_owned();
    histogram!(meter::REQUESTS, "route" => route, "method" => method, "status" => status)
        .record(begun.elapsed());
}

/// The address of the client: the other end of the connection, or the one that a trusted proxy names there. Of the addresses
/// that proxies have added only those of trusted ones are true, so the client's is the right-most that is not trusted.
fn client_address(trusted: &[IpNet], request: &Request) -> IpAddr {
    let connection = request.extensions().get::<Arc<Connection>>();
    let mut address = connection.map_or(Ipv4Addr::UNSPECIFIED.into(), |one| one.peer.ip().to_canonical());
    if trusted.is_empty() {
        return address;
    }
    let noted = request.headers().get_all("x-forwarded-for").iter().rev();
    let mut noted = noted.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
    while trusted.iter().any(|network| network.contains(&address)) {
        let Some(next) = noted.next().and_then(|text| one_address(text.trim())) else { break };
        address = next;
    }
    address
}

/// Reads an address with or without a port.
fn one_address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let parsed = bare.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    parsed.ok().map(|address: IpAddr| address.to_canonical())
}

/// Whether a request id from outside is kept: it must be short and plain.
fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
