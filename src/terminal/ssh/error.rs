//! The reasons why a shell could not be opened, in words for the owner of the machine.

use std::time::Duration;

use russh::keys::HashAlg;
use russh::{AlgorithmKind, Error as Russh};

/// What went wrong on the way to a shell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    #[error("the host {host} has no address: check its name")]
    Unresolved { host: String },
    #[error("the host {host} has no address that sessions may go to")]
    NotAllowed { host: String },
    #[error("{address} cannot be reached: {why}")]
    Unreachable { address: String, why: String },
    #[error("what answers at {address} does not speak SSH as we do: {why}")]
    Handshake { address: String, why: String },
    #[error(
        "the host key has changed: it was {expected} and is now {offered}. Either the machine was set up anew, or somebody \
         stands in between; ask whoever runs it before the new key is accepted"
    )]
    HostKeyChanged { expected: String, offered: String },
    #[error(
        "the host has no key of a kind that is checked here: it offers {offered}, and Ed25519 or ECDSA is needed"
    )]
    HostKeyKind { offered: String },
    #[error("this is no host key: {why}")]
    HostKey { why: String },
    #[error("the private key cannot be used: {why}")]
    Key { why: String },
    #[error("{user} was refused: the {method} is not accepted{accepted}")]
    Refused { user: String, method: &'static str, accepted: String },
    #[error("{user} is asked for more than one credential, which sessions cannot give")]
    MoreAsked { user: String },
    #[error("the password of {user} has expired on the machine: change it there, and here")]
    PasswordExpired { user: String },
    #[error("the machine gave no terminal: {why}")]
    NoTerminal { why: String },
    #[error("the machine did not answer within {} s while {stage}", .after.as_secs())]
    TimedOut { stage: &'static str, after: Duration },
    #[error("the connection was closed while {stage}")]
    Closed { stage: &'static str },
}

impl SshError {
    /// A stable word for the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unresolved { .. } => "HOST_UNKNOWN",
            Self::NotAllowed { .. } => "HOST_NOT_ALLOWED",
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Closed { .. } => "MACHINE_UNREACHABLE",
            Self::Handshake { .. } => "SSH_HANDSHAKE_FAILED",
            Self::HostKeyChanged { .. } => "HOST_KEY_CHANGED",
            Self::HostKeyKind { .. } => "HOST_KEY_UNSUPPORTED",
            Self::HostKey { .. } => "HOST_KEY_INVALID",
            Self::Key { .. } => "PRIVATE_KEY_UNUSABLE",
            Self::Refused { .. } => "CREDENTIAL_REFUSED",
            Self::MoreAsked { .. } => "CREDENTIAL_INCOMPLETE",
            Self::PasswordExpired { .. } => "PASSWORD_EXPIRED",
            Self::NoTerminal { .. } => "NO_TERMINAL",
        }
    }

    /// The error of two sides that have reached each other and cannot talk.
    pub(super) fn handshake(address: &str, error: &Russh) -> Self {
        let address = address.to_owned();
        match error {
            Russh::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => {
                Self::HostKeyKind { offered: theirs.join(", ") }
            }
            Russh::NoCommonAlgo { kind, theirs, .. } => {
                let kind = format!("{kind:?}").to_lowercase();
                Self::Handshake {
                    address,
                    why: format!("no {kind} algorithm in common; it has {}", theirs.join(", ")),
                }
            }
            Russh::Disconnect | Russh::HUP => {
                Self::Handshake { address, why: "it closed the connection at once".to_owned() }
            }
            Russh::IO(error) => Self::Handshake { address, why: error.to_string() },
            error => Self::Handshake { address, why: error.to_string() },
        }
    }
}

/// The hash by which people compare keys.
pub(super) const FINGERPRINT: HashAlg = HashAlg::Sha256;
