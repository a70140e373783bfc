//! Machines: where they may be, how to log in to one, and whether that works.

use std::net::IpAddr;

use sessiond_core::ids::OrganizationNumber;
use sessiond_core::machine::Machine;
use tokio::time::Instant;

use super::registry::{NotOpened, Terminals};
use super::ssh::{self, HostKey, Pin, SshCredential, Timeouts};
use crate::directory::MachineSecret;
use crate::error::Error;
use crate::outbound::{Allowances, Purpose};

/// What a test of a machine found.
#[derive(Debug)]
pub struct MachineTest {
    pub host_key: HostKey,
    /// Whether the host showed the key that was pinned before.
    pub pinned: bool,
    /// How many milliseconds the login took; none if nobody logged in.
    pub took: Option<u64>,
}

impl Terminals {
    /// Judges a host that is an address. A name is judged by its addresses at each connection.
    pub fn check_host(&self, organization: OrganizationNumber, host: &str) -> Result<(), Error> {
        match host.parse::<IpAddr>() {
            Ok(address) if !self.allowances(organization).allows(address) => {
                let message = if organization.is_operators() {
                    "host is an address that is not allowed: only loopback is, and what --allow-machine adds"
                } else {
                    "host is an address that is not allowed: only what --allow-machine adds is"
                };
                Err(Error::field("host", message))
            }
            _ => Ok(()),
        }
    }

    /// Where machines of an organization may be.
    pub(super) fn allowances(&self, organization: OrganizationNumber) -> Allowances {
        Allowances::of(Purpose::Machine, &self.config, organization.is_operators())
    }

    /// Where a machine is, and how to log in there.
    pub(super) async fn target(&self, machine: &Machine) -> Result<ssh::SshTarget, NotOpened> {
        let credential = match self.directory.machines.secret(machine).await? {
            MachineSecret::Password { password } => SshCredential::Password(password),
            MachineSecret::PrivateKey { private_key, passphrase } => {
                SshCredential::Key { pem: private_key, passphrase }
            }
        };
        let host_key = machine.host_key.as_deref().map(str::parse::<Pin>).transpose()?;
        let (host, user) = (machine.host.clone(), machine.user.clone());
        Ok(ssh::SshTarget { host, port: machine.port, user, credential, host_key })
    }

    /// Tests a machine: whether it can be reached, shows its key, and takes the credential. Without a pinned key
    /// nothing secret is sent, and the result is only the key.
    pub async fn test(&self, machine: &Machine) -> Result<MachineTest, NotOpened> {
        let target = self.target(machine).await?;
        let allowances = self.allowances(machine.organization);
        let begun = Instant::now();
        if target.host_key.is_none() {
            let host_key = ssh::ask_host_key(&target, &allowances, Timeouts::default()).await?;
            return Ok(MachineTest { host_key, pinned: false, took: None });
        }
        let host_key = ssh::test(&target, &allowances, Timeouts::default()).await?;
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(MachineTest { host_key, pinned: true, took: Some(took) })
    }
}
