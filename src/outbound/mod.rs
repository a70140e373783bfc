//! Which addresses our own requests to others may go to, for all who send any: gateway, terminals, issuers, webhooks. What
//! each may reach is data, its [`Allowances`], made from the settings. An address is judged when a URL or a host is set, and
//! again at each connection, by the address that is connected to, because the owner of a name can change where it leads.

mod address;
mod resolver;
mod trust;
mod url;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Config;

use address::{is_disguised, is_forbidden, is_public};

pub use resolver::{LookUpError, Resolver};
pub use trust::tls;

/// The headers that concern one connection only (RFC 9110, section 7.6.1), or the message on it.
pub const HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// What a request to somebody outside is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An MCP server behind a gateway, over https://.
    Upstream,
    /// An MCP server behind a gateway, over http://, where everybody in between sees what is sent.
    PlainUpstream,
    /// A machine that terminals are opened on.
    Machine,
    /// An issuer and its keys.
    Issuer,
    /// A receiver of webhooks.
    Webhook,
}

impl Purpose {
    /// Every purpose there is.
    pub const ALL: [Self; 5] =
        [Self::Upstream, Self::PlainUpstream, Self::Machine, Self::Issuer, Self::Webhook];
}

/// Which addresses may be reached for a purpose. Some may never be reached, whatever the settings say.
#[derive(Debug, Clone)]
pub struct Allowances {
    /// Whether addresses of the public Internet are allowed.
    public: bool,
    /// Whether this machine is.
    loopback: bool,
    /// The networks that a setting adds.
    networks: Arc<[IpNet]>,
    /// Whether IPv6 addresses that stand for IPv4 ones are judged by those; otherwise none of them is allowed.
    disguised: bool,
    /// The setting that an error names when an address is not allowed.
    setting: &'static str,
}

impl Allowances {
    /// What the settings allow for a purpose. `own` says whether it is for the organization whose installation this is: what
    /// only this machine can reach is its operator's.
    pub fn of(purpose: Purpose, config: &Config, own: bool) -> Self {
        let (public, loopback, networks, disguised, setting) = match purpose {
            // What is sent over TLS reaches only a server that can show the name's certificate.
            Purpose::Upstream => (true, own, &config.allow_upstream, true, "--allow-upstream"),
            Purpose::PlainUpstream => (false, own, &config.allow_upstream, true, "--allow-upstream"),
            Purpose::Machine => (false, own, &config.allow_machine, true, "--allow-machine"),
            Purpose::Issuer => {
                (true, config.issuer_allow_loopback, &config.issuer_allow, false, "--issuer-allow")
            }
            Purpose::Webhook => {
                (true, config.webhook_allow_loopback, &config.webhook_allow, false, "--webhook-allow")
            }
        };
        Self { public, loopback, networks: networks.as_slice().into(), disguised, setting }
    }

    /// Whether this address may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        if is_disguised(address) && !self.disguised {
            return false;
        }
        // An IPv4 address in the form that sockets take for IPv6 is that IPv4 address.
        let address = address.to_canonical();
        !is_forbidden(address)
            && ((self.loopback && address.is_loopback())
                || (self.public && is_public(address))
                || self.networks.iter().any(|network| network.contains(&address)))
    }
}

/// An error and all its causes, for the log.
pub fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
