//! The hashes that chain the log: what each covers.

use sha2::{Digest, Sha256};

/// An event's envelope exactly as it is stored: what its hash covers. Kept apart from [`Recorded`], because damage and
/// newer releases bring values that no `Recorded` can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub position: i64,
    pub stream_kind: i64,
    pub stream_number: i64,
    pub version: i64,
    pub previous_position: i64,
    pub occurred_at: i64,
    pub recorded_at: i64,
    pub name: &'a str,
    pub type_version: i64,
    pub organization: i64,
    pub application: Option<i64>,
    pub actor_kind: i64,
    pub actor_id: Option<&'a [u8]>,
    pub revocation: Option<i64>,
    pub request_id: Option<&'a str>,
    pub traceparent: Option<&'a str>,
}

impl Header<'_> {
    /// The hash of an event: SHA-256 over the hash before it in its stream, the envelope and the digest of the body.
    /// What may be missing is marked as there or not, what has no fixed length carries its length: no two envelopes
    /// have the same bytes.
    pub fn hash(&self, before: &[u8; 32], body_digest: &[u8; 32]) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(320);
        bytes.extend_from_slice(before);
        for number in [
            self.position,
            self.stream_kind,
            self.stream_number,
            self.version,
            self.previous_position,
            self.occurred_at,
            self.recorded_at,
            self.type_version,
            self.organization,
            self.actor_kind,
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for number in [self.application, self.revocation] {
            bytes.push(u8::from(number.is_some()));
            bytes.extend_from_slice(&number.unwrap_or(0).to_be_bytes());
        }
        for part in [
            Some(self.name.as_bytes()),
            self.actor_id,
            self.request_id.map(str::as_bytes),
            self.traceparent.map(str::as_bytes),
        ] {
            bytes.push(u8::from(part.is_some()));
            let part = part.unwrap_or_default();
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(body_digest);
        Sha256::digest(&bytes).into()
    }
}

/// SHA-256 of a body as stored.
pub fn body_digest(body: &str) -> [u8; 32] {
    Sha256::digest(body.as_bytes()).into()
}

/// SHA-256 over the hashes of events, in order: what is kept of those that were let go.
pub fn digest_of<'a>(events: impl IntoIterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    events.into_iter().for_each(|hash| hasher.update(hash));
    hasher.finalize().into()
}

/// The hash of a commit: SHA-256 over the commit before it and the hashes of its events, in order. Stored with the
/// last event of the commit, so that a stream that was cut out whole, or a tail that was cut off, shows.
pub fn commit_hash<'a>(before: &[u8; 32], events: impl IntoIterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    for hash in events {
        hasher.update(hash);
    }
    hasher.finalize().into()
}
