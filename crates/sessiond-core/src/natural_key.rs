//! Natural keys: what makes a second connect the same session.

use sha2::{Digest, Sha256};

use crate::ids::{ApplicationNumber, PrincipalNumber};

/// What makes a second connect the same session. What a client makes up is told apart by whose it is: two principals who
/// say the same have a session each, and neither learns of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NaturalKey<'a> {
    /// Made by the gateway, from whose it is too.
    Anchor(&'a str),
    /// A name within a resource, which is the application's: whoever has it, it is taken.
    Named {
        resource: &'a str,
        name: &'a str,
    },
    ClientSessionId(PrincipalNumber, &'a str),
    TokenIdentifier(PrincipalNumber, &'a str),
}

/// The first half of SHA-256 over an application and a natural key.
pub type KeyDigest = [u8; 16];

/// The anchor if there is one, else `clientSessionId` (within the resource if there is one), else `tokenIdentifier`.
pub fn natural_key<'a>(
    principal: PrincipalNumber,
    anchor: Option<&'a str>,
    resource: Option<&'a str>,
    client_session_id: Option<&'a str>,
    token_identifier: Option<&'a str>,
) -> Option<NaturalKey<'a>> {
    let named = client_session_id.map(|name| match resource {
        Some(resource) => NaturalKey::Named { resource, name },
        None => NaturalKey::ClientSessionId(principal, name),
    });
    let token = token_identifier.map(|text| NaturalKey::TokenIdentifier(principal, text));
    anchor.map(NaturalKey::Anchor).or(named).or(token)
}

impl NaturalKey<'_> {
    /// The digest under which the key is kept in memory.
    pub fn digest(self, application: ApplicationNumber) -> KeyDigest {
        let (tag, principal, text) = match self {
            Self::Anchor(text) => (b'a', None, text),
            Self::Named { name, .. } => (b'n', None, name),
            Self::ClientSessionId(principal, text) => (b'c', Some(principal), text),
            Self::TokenIdentifier(principal, text) => (b't', Some(principal), text),
        };
        let mut hasher = Sha256::new();
        hasher.update(application.0.to_be_bytes());
        hasher.update([tag]);
        if let Some(principal) = principal {
            hasher.update(principal.0.to_be_bytes());
        }
        if let Self::Named { resource, .. } = self {
            hasher.update((resource.len() as u64).to_be_bytes());
            hasher.update(resource.as_bytes());
        }
        hasher.update(text.as_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        half
    }
}
