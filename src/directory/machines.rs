//! Machines that terminal sessions are opened on: made, changed, pinned, deleted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sessiond_core::caller::Caller;
use sessiond_core::machine::{
    CredentialType, HostKeyPinned, Machine, MachineChanged, MachineCreated, MachineEvent,
};
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::checked_name;
use crate::committer::{ChangeStream, Origin};
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::secret::{self, labels};

/// Longest host or user; bytes.
const LONGEST: usize = 255;
/// Longest password, private key or passphrase; bytes.
const LONGEST_SECRET: usize = 16_384;

/// What a machine is logged into with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MachineSecret {
    Password {
        password: String,
    },
    /// A private key as OpenSSH writes it.
    PrivateKey {
        private_key: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passphrase: Option<String>,
    },
}

impl MachineSecret {
    fn kind(&self) -> CredentialType {
        match self {
            Self::Password { .. } => CredentialType::Password,
            Self::PrivateKey { .. } => CredentialType::PrivateKey,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let fits = |text: &String| !text.is_empty() && text.len() <= LONGEST_SECRET;
        let (field, fits) = match self {
            Self::Password { password } => ("credential.password", fits(password)),
            Self::PrivateKey { private_key, passphrase } => {
                ("credential.private_key", fits(private_key) && passphrase.as_ref().is_none_or(fits))
            }
        };
        let message = || format!("{field} must be 1 to {LONGEST_SECRET} bytes");
        if fits { Ok(()) } else { Err(Error::field(field, message())) }
    }
}

/// A machine that is to be made.
pub struct NewMachine {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub secret: MachineSecret,
    /// Type and base64, as OpenSSH writes public keys.
    pub host_key: Option<String>,
}

/// What is to be changed of a machine.
#[derive(Default)]
pub struct ChangedMachine {
    pub name: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub secret: Option<MachineSecret>,
    pub host_key: Option<String>,
}

/// The machines that terminal sessions are opened on.
#[derive(Clone)]
pub struct Machines {
    context: Arc<AppContext>,
}

impl Machines {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Makes a machine.
    pub async fn create(&self, caller: &Caller, new: NewMachine) -> Result<Machine, Error> {
        if let Some(made) = Origin::caller(caller).recorded::<ChangeStream<Machine>>()? {
            return Ok(made);
        }
        new.secret.check()?;
        let id = secret::new_id();
        let created = MachineCreated {
            id,
            name: checked_name("name", &new.name)?,
            host: checked_word("host", &new.host)?,
            port: checked_port(new.port)?,
            user: checked_word("user", &new.user)?,
            credential: new.secret.kind(),
            host_key: new.host_key,
        };
        let side = vec![self.sealed(id, &new.secret)];
        let command = MachineEvent::Created(created);
        self.context.change_stream(caller, None, command, side).await
    }

    fn sealed(&self, id: Uuid, secret: &MachineSecret) -> SideWrite {
        // Plain data with string keys: serializing it cannot fail.
        let plain = serde_json::to_vec(secret).unwrap_or_default();
        SideWrite::MachineSecret { id, sealed: self.context.key.seal(&labels::machine(id), &plain) }
    }

    /// Lists the organization's machines, oldest first, without the first `skip`; and how many there are in all.
    pub fn list(&self, caller: &Caller, skip: usize, limit: usize) -> (Vec<Machine>, usize) {
        let known = self.context.gate.known();
        let own: Vec<_> = known
            .streams::<Machine>()
            .filter(|one| one.organization == caller.organization && one.deleted_at.is_none())
            .collect();
        let total = own.len();
        (own.into_iter().skip(skip).take(limit).cloned().collect(), total)
    }

    /// Finds a machine that is not deleted.
    pub fn find(&self, caller: &Caller, id: Uuid) -> Result<Machine, Error> {
        let machine = self.find_any(caller, id).filter(|one| one.deleted_at.is_none());
        machine.ok_or(Error::NotFound(Thing::Machine))
    }

    /// Finds a machine, deleted or not: sessions were on it.
    pub fn find_any(&self, caller: &Caller, id: Uuid) -> Option<Machine> {
        let known = self.context.gate.known();
        known.stream_by_id(id).filter(|one: &&Machine| one.organization == caller.organization).cloned()
    }

    /// Changes a machine. Another host or port forgets the key that was pinned, unless one comes along; and it must
    /// bring its credential, so that nobody has a secret sent where its owner never wanted it.
    pub async fn change(&self, caller: &Caller, id: Uuid, changed: ChangedMachine) -> Result<Machine, Error> {
        let mut machine = self.find(caller, id)?;
        let changes = MachineChanged {
            name: changed.name.as_deref().map(|name| checked_name("name", name)).transpose()?,
            host: changed.host.as_deref().map(|host| checked_word("host", host)).transpose()?,
            port: changed.port.map(checked_port).transpose()?,
            user: changed.user.as_deref().map(|user| checked_word("user", user)).transpose()?,
            credential: changed.secret.as_ref().map(MachineSecret::kind),
        };
        let mut side = vec![];
        if let Some(secret) = &changed.secret {
            secret.check()?;
            side.push(self.sealed(id, secret));
        }
        if changes != MachineChanged::default() {
            machine = self
                .context
                .change_stream(caller, Some(machine.number), MachineEvent::Changed(changes), side)
                .await?;
        }
        match changed.host_key {
            Some(host_key) => self.pin_host_key(caller, &machine, host_key).await,
            None => Ok(machine),
        }
    }

    /// Pins the key that a machine must show from now on.
    pub async fn pin_host_key(
        &self,
        caller: &Caller,
        machine: &Machine,
        host_key: String,
    ) -> Result<Machine, Error> {
        let command = MachineEvent::HostKeyPinned(HostKeyPinned { host_key });
        self.context.change_stream(caller, Some(machine.number), command, vec![]).await
    }

    /// Deletes a machine: no session is opened on it any more; those that are open stay. Twice is success.
    pub async fn delete(&self, caller: &Caller, id: Uuid) -> Result<(), Error> {
        let machine = self.find(caller, id)?;
        let side = vec![SideWrite::ForgetMachine(id)];
        self.context
            .change_stream::<Machine>(caller, Some(machine.number), MachineEvent::Deleted, side)
            .await
            .map(|_| ())
    }

    /// Opens the secret that a machine is logged into with.
    pub async fn secret(&self, machine: &Machine) -> Result<MachineSecret, Error> {
        let broken =
            |what: String| Error::Internal(format!("the credential of machine {}: {what}", machine.id));
        let sealed =
            self.context.store.machine_secret(machine.id).await?.ok_or(Error::NotFound(Thing::Machine))?;
        let plain = self
            .context
            .key
            .open(&labels::machine(machine.id), &sealed)
            .map_err(|error| broken(error.to_string()))?;
        serde_json::from_slice(&plain).map_err(|error| broken(error.to_string()))
    }
}

fn checked_word(field: &'static str, text: &str) -> Result<String, Error> {
    let fits = (1..=LONGEST).contains(&text.len());
    if fits && text.chars().all(|one| !one.is_whitespace() && !one.is_control()) {
        return Ok(text.to_owned());
    }
    Err(Error::field(
        field,
        format!("{field} must be 1 to {LONGEST} bytes, without spaces and control characters"),
    ))
}

fn checked_port(port: u16) -> Result<u16, Error> {
    if port == 0 { Err(Error::field("port", "port must be 1 to 65535")) } else { Ok(port) }
}
