//! What is known of tokens and people: never their secrets, only digests.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::actor::ActorKind;
use crate::ids::{OrganizationNumber, Position, PrincipalNumber};
use crate::scope::Scopes;

/// An access token (`sat_…`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessToken {
    pub id: Uuid,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    pub organization: OrganizationNumber,
    /// Application or service account.
    pub client_kind: ActorKind,
    /// Number of the application or service account.
    pub client: i64,
    pub scopes: Scopes,
    /// The log's head when it was issued: a revocation at a later position that covers it bars it.
    pub issued_at: Position,
    pub expires_at: Time,
    /// Barred by itself: it was the last one presented for a session that was revoked.
    pub barred: bool,
    /// The application whose gateway alone it opens (RFC 8707); none: everything its scopes open.
    pub audience: Option<Uuid>,
}

/// A session's one current token (`sst_…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionToken {
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    pub issued_at: Position,
    pub expires_at: Time,
}

/// A subject of an issuer, within an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Principal {
    pub number: PrincipalNumber,
    pub organization: OrganizationNumber,
    pub issuer: String,
    /// HMAC-SHA-256 of issuer and subject under the secret key.
    pub subject_digest: [u8; 32],
    /// Erasable.
    pub subject: Option<String>,
    /// The public id that it was met under, where that is not made from the digest any more: another secret key makes
    /// another digest, and the id stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_id: Option<Uuid>,
}

impl Principal {
    /// Its public id: made from the digest that it was met under, so that it stays what it is when the name is erased.
    pub fn id(&self) -> Uuid {
        self.kept_id.unwrap_or_else(|| principal_id(&self.subject_digest))
    }
}

/// The public id of a principal that is met under this digest.
pub fn principal_id(subject_digest: &[u8; 32]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&subject_digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
