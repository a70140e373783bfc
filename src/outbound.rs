//! Where requests of ours to others may go: to what is public, and what was allowed. Judged when a URL is set, and again, by the address
//! that is connected to, each time something is sent: a name can be moved behind our back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::config::Config;
use crate::error::Error;

const LONGEST_URL: usize = 2_048;

/// What the settings allow beside what is public.
#[derive(Debug, Clone)]
pub struct Rules {
    allow: Arc<[IpNet]>,
    loopback: bool,
    /// What to look at when something is not allowed.
    setting: &'static str,
}

/// An address that nothing may be sent to.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint has no address that is allowed")]
pub struct NotAllowed;

impl Rules {
    pub fn webhooks(config: &Config) -> Self {
        let allow = config.webhook_allow.as_slice().into();
        Self { allow, loopback: config.webhook_allow_loopback, setting: "--webhook-allow" }
    }

    /// The rules for issuers and their keys.
    pub fn issuers(config: &Config) -> Self {
        let allow = config.issuer_allow.as_slice().into();
        Self { allow, loopback: config.issuer_allow_loopback, setting: "--issuer-allow" }
    }

    /// Checks a URL and brings it into its normal form. A host that is an address is judged now, a name
    /// when something is sent.
    pub fn check(&self, field: &'static str, text: &str) -> Result<Url, Error> {
        let wrong = |message: &str| Error::field(field, format!("{field} {message}"));
        if text.len() > LONGEST_URL {
            return Err(wrong("must be at most 2048 bytes"));
        }
        // A parser forgives these; what forgives is what differs from the next parser.
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

    /// Whether requests may go to this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        !is_never(address)
            && !is_disguised(address)
            && (is_public(address)
                || (self.loopback && address.is_loopback())
                || self.allow.iter().any(|network| network.contains(&address)))
    }
}

/// Whether the URL's host is written like this.
fn spelled(url: &str, host: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.split(':').next() == Some(host)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 networks that are not public: https://www.iana.org/assignments/iana-ipv4-special-registry
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(168, 63, 129, 16, 32), // where Azure's machines ask about themselves
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// All IPv6 addresses that are routed are of this network …
const PUBLIC_V6: Ipv6Net = v6(0x2000, 0, 3);
/// … save these: assignments for protocols, documentation, and 6to4, which reaches IPv4 addresses.
const SPECIAL_V6: [Ipv6Net; 4] =
    [v6(0x2001, 0, 23), v6(0x2001, 0xdb8, 32), v6(0x2002, 0, 16), v6(0x3fff, 0, 20)];

/// Whether an address is of the public Internet, said plainly: one that hides another (IPv4 in IPv6) is not.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            PUBLIC_V6.contains(&address) && !SPECIAL_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// Addresses that no setting opens: those that mean nobody or everybody, link-local ones, and those at which clouds hand
/// out credentials.
pub fn is_never(address: IpAddr) -> bool {
    const METADATA_V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200), // Alibaba
        Ipv4Addr::new(168, 63, 129, 16),   // Azure
        Ipv4Addr::new(192, 0, 0, 192),     // Oracle
    ];
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254); // Amazon
    if address.is_unspecified() || address.is_multicast() {
        return true;
    }
    match address {
        IpAddr::V4(address) => {
            // 0.0.0.0/8 is "this network", which some systems take for loopback.
            address.octets()[0] == 0
                || address.is_broadcast()
                || address.is_link_local()
                || METADATA_V4.contains(&address)
        }
        // fe80::/10, and fec0::/10, which older systems treat alike.
        IpAddr::V6(address) => address.segments()[0] & 0xff80 == 0xfe80 || address == METADATA_V6,
    }
}

/// IPv4 addresses in IPv6 clothes.
fn is_disguised(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    let [first, second, ..] = address.segments();
    address.to_ipv4_mapped().is_some()
        || (first, second) == (0x64, 0xff9b)
        || (address.to_ipv4().is_some() && !address.is_loopback())
}

/// Looks names up and leaves out what is not allowed.
pub struct Resolver(pub Rules);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            // Only to this name may go what is not encrypted.
            let here = name.as_str() == "localhost";
            let allowed: Vec<SocketAddr> =
                found.filter(|one| rules.allows(one.ip()) && (!here || one.ip().is_loopback())).collect();
            if allowed.is_empty() {
                return Err(Box::new(NotAllowed) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
