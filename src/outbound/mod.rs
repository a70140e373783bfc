//! Where requests of ours to others may go: one engine for all who send any. What each may reach is data, its [`Allowances`], made
//! from the settings. An address is judged when a URL or a host is set, and again, by the address that is connected to, each time
//! something is sent: a name can be moved behind our back.

mod address;
mod resolver;
mod url;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::Config;

use address::{is_disguised, is_forbidden, is_public};

pub use resolver::{LookUpError, Resolver};

/// What somebody outside is reached for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An MCP server behind a gateway, over https://.
    Upstream,
    /// The same over http://, where everybody in between sees what is sent.
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

/// Which addresses may be reached for a purpose. Some may never be, whatever the settings say.
#[derive(Debug, Clone)]
pub struct Allowances {
    /// Addresses of the public Internet.
    public: bool,
    /// This machine.
    loopback: bool,
    /// What a setting adds.
    networks: Arc<[IpNet]>,
    /// IPv4 addresses written as IPv6 ones are judged by what they reach; else none is allowed.
    disguised: bool,
    /// What to look at when something is not allowed.
    setting: &'static str,
}

impl Allowances {
    /// What the settings allow for a purpose. `own` says whether it is for the organization whose installation this is: what
    /// only this machine can reach is its operator's.
    pub fn of(purpose: Purpose, config: &Config, own: bool) -> Self {
        let (public, loopback, networks, disguised, setting) = match purpose {
            // What is sent reaches nobody but who can show the name's certificate.
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
