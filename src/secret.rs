//! Secrets: the only place with randomness. Mints tokens and ids, hashes what is ours, seals what is others'.

pub mod labels;

use std::fs::{self, Metadata};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sessiond_core::idempotency::IdempotencyKey;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// The prefix tells what a token is, the id which one, the secret that it is genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// `sst_`: the token of a session.
    Session,
    /// `sat_`: an access token.
    Access,
    /// `sak_`: an API key.
    ApiKey,
    /// `smc_`: an `Mcp-Session-Id` given out by the gateway. Not a credential: it opens nothing without one.
    Mcp,
    /// `stt_`: opens the WebSocket of one terminal session, and nothing else.
    Terminal,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Session => "sst",
            Self::Access => "sat",
            Self::ApiKey => "sak",
            Self::Mcp => "smc",
            Self::Terminal => "stt",
        }
    }
}

/// A token as its holder sees it, with the hash that is all we keep. Never logged: it has no `Debug`.
pub struct Minted {
    pub text: String,
    pub hash: [u8; 32],
}

/// A presented token, taken apart.
#[derive(Clone, Copy)]
pub struct Presented {
    pub kind: TokenKind,
    pub id: Uuid,
    pub hash: [u8; 32],
}

/// Mints a token: `<prefix>_<id>_<256 random bits>`, of characters 0x21–0x7E only.
pub fn mint(kind: TokenKind, id: Uuid) -> Minted {
    mint_for(None, kind, id)
}

/// As [`mint`], for a request: one with an `Idempotency-Key` gets the same token each time it is sent, so that its answer
/// can be given again and the token is kept nowhere. Whatever is shown once in an answer is to be minted so, with
/// `caller.once.as_deref()`; and where the id is the caller's own, it is the recorded one that the answer must name.
pub fn mint_for(once: Option<&IdempotencyKey>, kind: TokenKind, id: Uuid) -> Minted {
    let secret = URL_SAFE_NO_PAD.encode(secret_bytes(once, kind.prefix()));
    let text = format!("{}_{}_{secret}", kind.prefix(), id.simple());
    Minted { text, hash: hash(&secret) }
}

/// Mints a client secret: `sck_` and 256 bits, random or, as in [`mint_for`], those of a request.
pub fn mint_client_secret(once: Option<&IdempotencyKey>) -> Minted {
    let text = format!("sck_{}", URL_SAFE_NO_PAD.encode(secret_bytes(once, "sck")));
    Minted { hash: hash(&text), text }
}

/// 256 bits for a secret: random, or those of a request with an `Idempotency-Key`, each purpose its own.
pub fn secret_bytes(once: Option<&IdempotencyKey>, purpose: &str) -> [u8; 32] {
    match once {
        Some(once) => digest(&once.seed, purpose, &[]),
        None => random(),
    }
}

/// A salt for the secrets of a request.
pub fn request_salt() -> [u8; 16] {
    random()
}

/// Takes a token apart; `None` if it cannot be one of ours.
pub fn parse(text: &str) -> Option<Presented> {
    let mut parts = text.splitn(3, '_');
    let prefix = parts.next()?;
    let kind =
        [TokenKind::Session, TokenKind::Access, TokenKind::ApiKey, TokenKind::Mcp, TokenKind::Terminal]
            .into_iter()
            .find(|kind| kind.prefix() == prefix)?;
    let id = parts.next().filter(|id| id.len() == 32)?;
    let secret = parts.next().filter(|secret| secret.len() == 43)?;
    Some(Presented { kind, id: Uuid::try_parse(id).ok()?, hash: hash(secret) })
}

/// SHA-256. Our secrets have 256 random bits: nothing slower is needed to keep them.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Compares hashes without telling by its time where they differ.
pub fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.ct_eq(right).into()
}

/// A new id: a UUID of version 7, so that ids sort by when they were made. An id is not a secret.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// A short id for a request: 64 random bits, in hex.
pub fn request_id() -> String {
    hex::encode(random::<8>())
}

/// A salt for personal facts.
pub fn salt() -> String {
    URL_SAFE_NO_PAD.encode(random::<16>())
}

/// A name for a session that came without one, where names are UUIDs of version 4.
pub fn random_name() -> String {
    uuid::Builder::from_random_bytes(random()).into_uuid().to_string()
}

/// A name for a session that came without one: something a person can say.
pub fn session_name() -> String {
    const FIRST: [&str; 16] = [
        "amber", "brisk", "calm", "clever", "dusty", "eager", "gentle", "golden", "keen", "lively", "mellow",
        "nimble", "quiet", "rapid", "silver", "sturdy",
    ];
    const SECOND: [&str; 16] = [
        "badger", "beacon", "cedar", "comet", "falcon", "harbor", "heron", "lantern", "maple", "meadow",
        "otter", "pebble", "raven", "river", "sparrow", "willow",
    ];
    let [first, second, number] = random::<3>();
    format!("{}-{}-{:02}", FIRST[usize::from(first % 16)], SECOND[usize::from(second % 16)], number % 100)
}

/// Mints a secret that signs webhooks: 256 bits, random or those of a request.
pub fn mint_signing_key(once: Option<&IdempotencyKey>) -> [u8; 32] {
    secret_bytes(once, "whsec")
}

/// A signing secret as its owner gets it: `whsec_` and base64, as Standard Webhooks has it.
pub fn signing_text(key: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(key))
}

/// A hook's secret as its owner gets it: `osh_` and base64 for URLs, which is what any configuration file can hold.
pub fn hook_text(key: &[u8]) -> String {
    format!("osh_{}", URL_SAFE_NO_PAD.encode(key))
}

/// Whether a call of a hook is signed with its secret: HMAC-SHA1 over the body, in base64 for URLs without padding, as
/// OvenMediaEngine signs (https://airensoft.gitbook.io/ovenmediaengine/access-control/admission-webhooks).
#[allow(clippy::expect_used)]
pub fn hook_signed(secret: &[u8], body: &[u8], signature: &str) -> bool {
    let mut mac =
        <Hmac<Sha1> as hmac::KeyInit>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(body);
    // Another alphabet, or padding, is not what it sends: only one text stands for one signature.
    URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| mac.verify_slice(&signature).is_ok())
}

/// HMAC-SHA256, in base64.
#[allow(clippy::expect_used)]
pub fn sign(key: &[u8], parts: &[&[u8]]) -> String {
    let mut mac =
        <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    STANDARD.encode(mac.finalize().into_bytes())
}

/// A number between -1 and 1, so that what would come at once does not.
pub fn jitter() -> f64 {
    f64::from(i32::from_be_bytes(random::<4>())) / f64::from(i32::MAX)
}

#[allow(clippy::disallowed_methods)] // this is the one place
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes);
    bytes
}

fn digest(key: &[u8; 32], purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = mac(key);
    for part in [purpose.as_bytes()].iter().chain(parts) {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[allow(clippy::expect_used)]
fn mac(key: &[u8; 32]) -> Hmac<Sha256> {
    <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The key of this installation: seals other systems' secrets, and keys the digests of people's names.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

/// What can be wrong with the key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read or make the secret key file {path}: {error}")]
    File { path: String, error: std::io::Error },
    #[error("the secret key file {0} must hold 64 hex digits")]
    Shape(String),
    #[error("the secret key file {path} {fault}")]
    Exposed { path: String, fault: String },
    #[error("what was sealed cannot be opened: another secret key sealed it, or it is damaged")]
    Sealed,
}

/// Why a file of secrets is not kept as one, in words that follow its name. As ssh has it with its keys: nobody else may
/// read or change it. A group may read one that belongs to root, which is how it is handed to a service.
pub fn exposure(file: &Metadata) -> Option<String> {
    let (owner, mode, us) = (file.uid(), file.mode() & 0o777, rustix::process::geteuid().as_raw());
    let readers = if owner == 0 && us != 0 { 0o007 } else { 0o077 };
    if owner != 0 && owner != us {
        Some(format!(
            "belongs to user {owner}, who can change it: it must belong to user {us}, who runs this, or to root"
        ))
    } else if mode & 0o022 != 0 {
        Some(format!("can be changed by others (its mode is {mode:04o}): take that from them with chmod 600"))
    } else if mode & readers != 0 {
        Some(format!("can be read by others (its mode is {mode:04o}): take that from them with chmod 600"))
    } else {
        None
    }
}

impl SecretKey {
    /// Reads the key file; none if there is none. One that others can read or change is refused.
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let (shown, mut text) = (path.display().to_string(), String::new());
        let failed = |error| KeyError::File { path: shown.clone(), error };
        let mut file = match fs::File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            outcome => outcome.map_err(failed)?,
        };
        // Asked of what was opened, so that no other file can take its place in between.
        if let Some(fault) = exposure(&file.metadata().map_err(failed)?) {
            return Err(KeyError::Exposed { path: shown, fault });
        }
        file.read_to_string(&mut text).map_err(failed)?;
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| KeyError::Shape(shown))?;
        Ok(Some(Self(key)))
    }

    /// A new key.
    pub fn random() -> Self {
        Self(random())
    }

    /// Writes the key file, readable by its owner only. There must be none.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |error| KeyError::File { path: path.display().to_string(), error };
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        writeln!(file, "{}", hex::encode(self.0)).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// By what a database knows its key again.
    pub fn check(&self) -> [u8; 32] {
        self.digest("secret key", &[])
    }

    /// The digest under which a subject of an issuer is kept: its name cannot be found from it without the key.
    pub fn subject_digest(&self, issuer: &str, subject: &str) -> [u8; 32] {
        let mut mac = mac(&self.0);
        mac.update(&(issuer.len() as u64).to_be_bytes());
        mac.update(issuer.as_bytes());
        mac.update(subject.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// A digest that nobody can make without the key, for one purpose.
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        digest(&self.0, purpose, parts)
    }

    /// Seals bytes. `about` says what they belong to; they open only with the same words.
    pub fn seal(&self, about: &str, plain: &[u8]) -> Vec<u8> {
        let nonce = random::<24>();
        let cipher = XChaCha20Poly1305::new((&self.0).into());
        let payload = Payload { msg: plain, aad: about.as_bytes() };
        // Encryption fails only for messages of more than 256 GiB.
        let sealed = cipher.encrypt(XNonce::from_slice(&nonce), payload).unwrap_or_default();
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what `seal` sealed.
    pub fn open(&self, about: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (nonce, sealed) = sealed.split_at_checked(24).ok_or(KeyError::Sealed)?;
        let cipher = XChaCha20Poly1305::new((&self.0).into());
        let payload = Payload { msg: sealed, aad: about.as_bytes() };
        cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| KeyError::Sealed)
    }
}
