//! The addresses that upstreams may have.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower::Service;
use url::{Host, Url};

use super::CONNECT;
use crate::config::Config;
use crate::error::Error;
use crate::outbound::{is_never, is_public};

const LONGEST_URL: usize = 2_048;

/// Checks the URL of an upstream and brings it into its normal form. A host that is an address is judged now; a name is
/// judged by its addresses at each connection. `here` says whether the upstream may be on this machine without being
/// allowed by a setting: what only this machine can reach is its operator's.
pub fn check_upstream(url: &str, config: &Config, here: bool) -> Result<String, Error> {
    check("url", url, config, here)
}

/// Judges an address, given the networks that a setting allows and whether this machine is the organization's own.
type May = fn(IpAddr, &[IpNet], bool) -> bool;

/// Checks any URL that requests on behalf of upstreams go to.
pub(super) fn check(field: &'static str, url: &str, config: &Config, here: bool) -> Result<String, Error> {
    let wrong = |message: &str| Error::field(field, format!("{field} {message}"));
    if url.len() > LONGEST_URL {
        return Err(wrong("must be at most 2048 bytes"));
    }
    let url = Url::parse(url).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    let (may, which): (May, _) = match (url.scheme(), here) {
        ("http", true) => {
            (is_allowed, "only loopback is, what --allow-upstream adds, and public ones with https://")
        }
        ("https", true) => {
            (is_allowed_encrypted, "only public ones are, loopback, and what --allow-upstream adds")
        }
        ("http", false) => (is_allowed, "only what --allow-upstream adds is, and public ones with https://"),
        ("https", false) => (is_allowed_encrypted, "only public ones are, and what --allow-upstream adds"),
        _ => return Err(wrong("must begin with http:// or https://")),
    };
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
    if address.is_some_and(|address| !may(address, &config.allow_upstream, here)) {
        return Err(wrong(&format!("names an address that is not allowed: {which}")));
    }
    Ok(url.into())
}

/// Whether an unencrypted upstream may have this address: loopback where it may be on this machine, and what a setting
/// allows. Some addresses are never allowed.
pub fn is_allowed(address: IpAddr, allow: &[IpNet], here: bool) -> bool {
    let address = address.to_canonical();
    !is_forbidden(address)
        && ((here && address.is_loopback()) || allow.iter().any(|network| network.contains(&address)))
}

/// Whether an encrypted upstream may have this address: public addresses too, because what is sent reaches nobody but
/// who can show the name's certificate.
pub fn is_allowed_encrypted(address: IpAddr, allow: &[IpNet], here: bool) -> bool {
    let canonical = address.to_canonical();
    is_allowed(address, allow, here) || (!is_forbidden(canonical) && is_public(canonical))
}

/// Whether no setting can allow an address, written plainly or inside another address.
fn is_forbidden(address: IpAddr) -> bool {
    let inner = match address {
        IpAddr::V6(address) => inner_v4(address).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    is_never(address) || inner.is_some_and(is_never)
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

/// Looks names up and leaves out addresses that are not allowed, so that nobody can move a name to a forbidden address
/// behind our back.
#[derive(Clone)]
pub(super) struct Resolver {
    pub allow: Arc<[IpNet]>,
    /// Whether the connections are encrypted.
    pub encrypted: bool,
    /// Whether the addresses may be this machine's.
    pub here: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { allow, encrypted, here } = self.clone();
        let may = if encrypted { is_allowed_encrypted } else { is_allowed };
        Box::pin(async move {
            // The connector's own time-out begins only when the address is known.
            let found = tokio::time::timeout(CONNECT, tokio::net::lookup_host((name.as_str(), 0))).await??;
            let allowed: Vec<_> = found.filter(|one| may(one.ip(), &allow, here)).collect();
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
