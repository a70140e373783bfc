//! The keys of hosts, which are pinned, and of users, which are never shown.

use std::str::FromStr;
use std::sync::Arc;

use russh::keys::ssh_key::{Algorithm, EcdsaCurve, Fingerprint, Kdf};
use russh::keys::{Error as KeyError, PrivateKey, PublicKey, decode_secret_key, ssh_encoding, ssh_key};

use super::error::{FINGERPRINT, SshError};

/// The longest private key that is looked at.
const LONGEST_KEY: usize = 32 << 10;
/// The most rounds that a passphrase may take to try; `ssh-keygen` makes 16 or 24.
const MOST_ROUNDS: u32 = 256;
/// The kinds of host keys that are checked, the preferred first. RSA is left out: see `deny.toml`.
pub(super) const KINDS: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// The key of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// The key as in a line of `known_hosts`: its kind and the key itself.
    pub key: String,
    /// The fingerprint as `ssh-keygen -l` shows it.
    pub fingerprint: String,
}

impl HostKey {
    pub(super) fn new(key: &PublicKey) -> Self {
        let fingerprint = key.fingerprint(FINGERPRINT).to_string();
        let mut key = key.clone();
        key.set_comment("");
        Self { key: key.to_openssh().unwrap_or_default().trim_end().to_owned(), fingerprint }
    }
}

/// What a host's key has to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    Key(PublicKey),
    /// A fingerprint alone does not say which of the host's keys it is of, so each kind has to be tried.
    Fingerprint(Fingerprint),
}

impl FromStr for Pin {
    type Err = SshError;

    /// Reads a key, as in `known_hosts` or a `.pub` file, or a fingerprint (`SHA256:…`).
    fn from_str(text: &str) -> Result<Self, SshError> {
        let text = text.trim();
        if text.len() > LONGEST_KEY {
            return Err(SshError::HostKey { why: "it is too long".to_owned() });
        }
        if let Ok(fingerprint) = text.parse::<Fingerprint>() {
            return Ok(Self::Fingerprint(fingerprint));
        }
        let mut key = PublicKey::from_openssh(text).map_err(|_| SshError::HostKey {
            why: "it is written as its kind and the key (ssh-ed25519 AAAA…) or as a fingerprint (SHA256:…)"
                .to_owned(),
        })?;
        if !KINDS.contains(&key.algorithm()) {
            let why = format!(
                "keys of kind {} cannot be checked here, Ed25519 or ECDSA is needed",
                key.algorithm()
            );
            return Err(SshError::HostKey { why });
        }
        key.set_comment("");
        Ok(Self::Key(key))
    }
}

impl std::fmt::Display for Pin {
    /// Writes the pin in the form in which it is read.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => formatter.write_str(&HostKey::new(key).key),
            Self::Fingerprint(fingerprint) => fingerprint.fmt(formatter),
        }
    }
}

impl Pin {
    pub(super) fn accepts(&self, key: &PublicKey) -> bool {
        match self {
            Self::Key(pinned) => pinned.key_data() == key.key_data(),
            Self::Fingerprint(pinned) => key.fingerprint(pinned.algorithm()) == *pinned,
        }
    }

    /// The fingerprint as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        match self {
            Self::Key(key) => key.fingerprint(FINGERPRINT).to_string(),
            Self::Fingerprint(fingerprint) => fingerprint.to_string(),
        }
    }
}

/// The kinds of host keys to ask for, attempt by attempt. A host shows only one of its keys, of the kind that is asked
/// for first: with a pinned key its kind is asked for, with a fingerprint alone one kind after the other.
pub(super) fn kinds(pin: Option<&Pin>) -> Vec<Vec<Algorithm>> {
    match pin {
        None => vec![KINDS.to_vec()],
        Some(Pin::Key(key)) => {
            let (first, others): (Vec<_>, Vec<_>) =
                KINDS.into_iter().partition(|kind| *kind == key.algorithm());
            vec![[first, others].concat()]
        }
        Some(Pin::Fingerprint(_)) => KINDS.into_iter().map(|kind| vec![kind]).collect(),
    }
}

/// Reads a user's private key.
pub fn private_key(pem: &str, passphrase: Option<&str>) -> Result<Arc<PrivateKey>, SshError> {
    let unusable = |why: &str| SshError::Key { why: why.to_owned() };
    if pem.len() > LONGEST_KEY {
        return Err(unusable("it is too long"));
    }
    let passphrase = passphrase.filter(|passphrase| !passphrase.is_empty());
    let sealed = PrivateKey::from_openssh(pem).ok();
    if let Some(Kdf::Bcrypt { rounds, .. }) = sealed.as_ref().map(PrivateKey::kdf)
        && *rounds > MOST_ROUNDS
    {
        return Err(unusable("trying its passphrase would take too long: make it with fewer rounds"));
    }
    let key = decode_secret_key(pem, passphrase).map_err(|error| match error {
        KeyError::KeyIsEncrypted => unusable("it is encrypted and needs its passphrase"),
        KeyError::UnsupportedKeyType { key_type_string, .. } => rsa_or(&key_type_string),
        // ssh-key 0.7.0-rc.11 expects an ECDSA key's number in its full length; OpenSSH leaves zeros out.
        KeyError::SshKey(ssh_key::Error::Encoding(ssh_encoding::Error::Length)) => unusable(
            "one in 250 ECDSA keys cannot be read here, and this is one: make another, best an Ed25519 key",
        ),
        _ if passphrase.is_some() && pem.contains("-----BEGIN ") => {
            unusable("it cannot be read with this passphrase, or it is damaged")
        }
        _ if pem.contains("PUBLIC KEY") || pem.trim_start().starts_with("ssh-") => {
            unusable("this is a public key; the private one is needed, in the file without .pub")
        }
        _ => unusable("it is no private key in a format of OpenSSH's, or it is damaged"),
    })?;
    let kind = key.algorithm();
    if !KINDS.contains(&kind) {
        return Err(rsa_or(kind.as_str()));
    }
    if key.is_encrypted() {
        return Err(unusable("it is encrypted and needs its passphrase"));
    }
    Ok(Arc::new(key))
}

fn rsa_or(kind: &str) -> SshError {
    let why = format!("keys of kind {kind} are not supported here: make one with ssh-keygen -t ed25519");
    SshError::Key { why }
}
