//! The way to upstream servers: which addresses are allowed, and the client that goes there.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, Request, Response, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::IpNet;
use tower::Service;
use url::{Host, Url};

use crate::config::Config;
use crate::error::Error;
use crate::outbound::is_never;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// Idle connections are left before Node's and uvicorn's servers, which wait 5 s, close them under a request.
const IDLE: Duration = Duration::from_secs(4);
const LONGEST_URL: usize = 2_048;

/// Checks the URL of an upstream and brings it into its normal form. A host that is an address is judged now, a name by
/// the addresses it has at the moment of each connection.
pub fn check_upstream(url: &str, config: &Config) -> Result<String, Error> {
    let wrong = |message: &str| Error::field("url", format!("url {message}"));
    if url.len() > LONGEST_URL {
        return Err(wrong("must be at most 2048 bytes"));
    }
    let url = Url::parse(url).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    match url.scheme() {
        "http" => {}
        "https" => {
            let way = "must be http: https is not supported yet; put a proxy that encrypts on this machine in between";
            return Err(wrong(way));
        }
        _ => return Err(wrong("must begin with http://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not contain a user name or password"));
    }
    if url.fragment().is_some() {
        return Err(wrong("must not contain a fragment"));
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        Some(Host::Domain(_)) => None,
        None => return Err(wrong("must name a host")),
    };
    if address.is_some_and(|address| !is_allowed(address, &config.allow_upstream)) {
        return Err(wrong(
            "names an address that is not allowed: only loopback is, and what --allow-upstream adds",
        ));
    }
    Ok(url.into())
}

/// Whether an upstream may have this address: loopback, and what was allowed; some never.
pub fn is_allowed(address: IpAddr, allow: &[IpNet]) -> bool {
    let address = address.to_canonical();
    let inner = match address {
        IpAddr::V6(address) => inner_v4(address).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    if is_never(address) || inner.is_some_and(is_never) {
        return false;
    }
    address.is_loopback() || allow.iter().any(|network| network.contains(&address))
}

/// The IPv4 address that a translator would reach for an IPv6 one: NAT64 (RFC 6052), 6to4 (RFC 3056), and the form
/// `::a.b.c.d` that RFC 4291 gave up.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let from = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b) {
        (0x64, 0xff9b) => Some(from(g, h)),
        (0x2002, _) => Some(from(b, c)),
        (0, 0) if [c, d, e, f] == [0; 4] && !address.is_loopback() => Some(from(g, h)),
        _ => None,
    }
}

/// Looks names up and leaves out what is not allowed: a name cannot be moved to a forbidden address behind our back.
#[derive(Clone)]
struct Resolver {
    allow: Arc<[IpNet]>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow = self.allow.clone();
        Box::pin(async move {
            // The connector's own time-out begins when the address is known.
            let found = tokio::time::timeout(CONNECT, tokio::net::lookup_host((name.as_str(), 0))).await??;
            let allowed: Vec<_> = found.filter(|one| is_allowed(one.ip(), &allow)).collect();
            if allowed.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the name has no address that is allowed",
                ));
            }
            Ok(allowed.into_iter())
        })
    }
}

/// The client for all upstreams. Follows no redirects, uses no proxy, keeps connections.
pub struct Upstreams {
    client: Client<HttpConnector<Resolver>, Full<Bytes>>,
    allow: Arc<[IpNet]>,
}

impl Upstreams {
    pub fn new(config: &Config) -> Self {
        let allow: Arc<[IpNet]> = config.allow_upstream.as_slice().into();
        let mut connector = HttpConnector::new_with_resolver(Resolver { allow: allow.clone() });
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector);
        Self { client, allow }
    }

    /// Sends a request and waits for the answer's head, for as long as it takes: a call may well be long. The error's kind
    /// tells whether the request never left (`NotConnected`) or may have been read.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, io::Error> {
        // The connector does not ask the resolver about addresses.
        if literal(request.uri()).is_some_and(|address| !is_allowed(address, &self.allow)) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the upstream's address is not allowed",
            ));
        }
        self.client.request(request).await.map_err(|error| {
            let left = !error.is_connect();
            io::Error::new(
                if left { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::NotConnected },
                error,
            )
        })
    }
}

fn literal(uri: &Uri) -> Option<IpAddr> {
    uri.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

pub static SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub static PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells the upstream which of our sessions a request belongs to.
pub static CORRELATION: HeaderName = HeaderName::from_static("sessiond-session-id");

/// Headers that concern one connection only (RFC 9110, section 7.6.1).
const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Of a request: what is the client's and ours alone, what we set ourselves, and what would have the answer compressed,
/// because we read it.
const NOT_INWARD: [&str; 9] = [
    "authorization",
    "cookie",
    "host",
    "origin",
    "referer",
    "content-length",
    "accept-encoding",
    "expect",
    "sessiond-session-id",
];
/// Of an answer: what is between the upstream and us, and what we set ourselves.
const NOT_OUTWARD: [&str; 8] = [
    "set-cookie",
    "www-authenticate",
    "content-length",
    "date",
    "server",
    "alt-svc",
    "strict-transport-security",
    "x-request-id",
];

/// The headers of a request that the upstream may see. Never the client's token: it is for us.
pub fn inward(headers: &HeaderMap) -> HeaderMap {
    without(headers, &NOT_INWARD)
}

/// The headers of an answer that the client may see.
pub fn outward(headers: &HeaderMap) -> HeaderMap {
    let mut kept = without(headers, &NOT_OUTWARD);
    let cors: Vec<_> =
        kept.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in cors {
        kept.remove(name);
    }
    kept
}

fn without(headers: &HeaderMap, unwanted: &[&str]) -> HeaderMap {
    let mut kept = headers.clone();
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        kept.remove(name);
    }
    for name in HOP.iter().chain(unwanted) {
        kept.remove(*name);
    }
    kept.remove(&SESSION);
    kept
}
