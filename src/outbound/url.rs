//! Checks the URLs of webhooks and issuers.

use std::net::IpAddr;

use url::{Host, Url};

use super::Allowances;
use crate::error::Error;

const LONGEST_URL: usize = 2_048;

impl Allowances {
    /// Checks a URL and brings it into its normal form. A host that is an address is judged now, a name
    /// when something is sent.
    pub fn check(&self, field: &'static str, text: &str) -> Result<Url, Error> {
        let wrong = |message: &str| Error::field(field, format!("{field} {message}"));
        if text.len() > LONGEST_URL {
            return Err(wrong("must be at most 2048 bytes"));
        }
        // A parser accepts these, but the next parser might read them in another way.
        if text.chars().any(|one| one.is_control() || one.is_whitespace() || one == '\\') {
            return Err(wrong("must not contain spaces, control characters or backslashes"));
        }
        let url = Url::parse(text).map_err(|error| wrong(&format!("is not a URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not contain a user name or password"));
        }
        if url.fragment().is_some() {
            return Err(wrong("must not contain a fragment"));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) if !spelled(text, &address.to_string()) => {
                return Err(wrong("must write an IPv4 address as four decimal numbers"));
            }
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(wrong("must name a host")),
        };
        if address.is_some_and(|address| !self.allows(address)) {
            let setting = self.setting;
            return Err(wrong(&format!(
                "names an address that is not allowed: only public ones are, see {setting}"
            )));
        }
        let here = address.is_some_and(|one| one.is_loopback()) || url.host_str() == Some("localhost");
        match url.scheme() {
            "https" => Ok(url),
            "http" if here && self.loopback => Ok(url),
            _ => Err(wrong("must begin with https://")),
        }
    }
}

/// Whether the host of a URL is written exactly like this.
fn spelled(url: &str, host: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.split(':').next() == Some(host)
}
