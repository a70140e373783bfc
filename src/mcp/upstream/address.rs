//! The URLs that upstreams may have.

use std::net::IpAddr;

use url::{Host, Url};

use crate::config::Config;
use crate::error::Error;
use crate::outbound::{Allowances, Purpose};

const LONGEST_URL: usize = 2_048;

/// Checks the URL of an upstream and brings it into its normal form. A host that is an address is judged now; a name is
/// judged by its addresses at each connection. `here` says whether the upstream may be on this machine without being
/// allowed by a setting: what only this machine can reach is its operator's.
pub fn check_upstream(url: &str, config: &Config, here: bool) -> Result<String, Error> {
    check("url", url, config, here)
}

/// Checks any URL that requests on behalf of upstreams go to.
pub(super) fn check(field: &'static str, url: &str, config: &Config, here: bool) -> Result<String, Error> {
    let wrong = |message: &str| Error::field(field, format!("{field} {message}"));
    if url.len() > LONGEST_URL {
        return Err(wrong("must be at most 2048 bytes"));
    }
    let url = Url::parse(url).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
    let (purpose, which) = match (url.scheme(), here) {
        ("http", true) => (
            Purpose::PlainUpstream,
            "only loopback is, what --allow-upstream adds, and public ones with https://",
        ),
        ("https", true) => {
            (Purpose::Upstream, "only public ones are, loopback, and what --allow-upstream adds")
        }
        ("http", false) => {
            (Purpose::PlainUpstream, "only what --allow-upstream adds is, and public ones with https://")
        }
        ("https", false) => (Purpose::Upstream, "only public ones are, and what --allow-upstream adds"),
        _ => return Err(wrong("must begin with http:// or https://")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not contain a user name or password"));
    }
    if url.fragment().is_some() {
        return Err(wrong("must not contain a fragment"));
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err(wrong("must name a host")),
    };
    let allowances = Allowances::of(purpose, config, here);
    if address.is_some_and(|address| !allowances.allows(address)) {
        return Err(wrong(&format!("names an address that is not allowed: {which}")));
    }
    Ok(url.into())
}
