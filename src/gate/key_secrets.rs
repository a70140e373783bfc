//! Secrets of API keys, as hashes, and when each key was last used: in memory, so that no request waits for the store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

use sessiond_core::Time;
use sessiond_core::change::KeyHashes;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// The secrets of API keys, by the key's id.
#[derive(Default)]
pub struct KeySecrets(HashMap<Uuid, KeySecret>);

/// Times are milliseconds; zero is never.
struct KeySecret {
    hash: [u8; 32],
    /// Of the secret before the last rotation.
    before: Option<[u8; 32]>,
    used_at: AtomicI64,
    /// What is on record of it.
    recorded_at: AtomicI64,
}

impl KeySecrets {
    pub(super) fn learn(&mut self, id: Uuid, secret: KeyHashes, used_at: Option<Time>) {
        let at = used_at.map_or(0, |at| at.timestamp_millis());
        let KeyHashes { hash, before } = secret;
        self.0.insert(id, KeySecret { hash, before, used_at: at.into(), recorded_at: at.into() });
    }

    /// Whose secret a hash is of: 0 for a key's own, 1 for the one that it had before its last rotation; none if of neither.
    pub fn age(&self, id: Uuid, hash: &[u8; 32]) -> Option<u32> {
        let secret = self.0.get(&id)?;
        // Both are compared, whichever fits: how long this takes tells nothing.
        let is = |known: &[u8; 32]| bool::from(known.ct_eq(hash));
        match (is(&secret.hash), secret.before.is_some_and(|before| is(&before))) {
            (true, _) => Some(0),
            (false, true) => Some(1),
            (false, false) => None,
        }
    }

    /// SHA-256 of a key's secret.
    pub fn hash(&self, id: Uuid) -> Option<&[u8; 32]> {
        self.0.get(&id).map(|secret| &secret.hash)
    }

    /// When a key was last used.
    pub fn used_at(&self, id: Uuid) -> Option<Time> {
        let at = self.0.get(&id)?.used_at.load(Ordering::Relaxed);
        Time::from_timestamp_millis(at).filter(|_| at != 0)
    }

    /// Notes that a key is used.
    pub fn note(&self, id: Uuid, now: Time) {
        if let Some(secret) = self.0.get(&id) {
            secret.used_at.fetch_max(now.timestamp_millis(), Ordering::Relaxed);
        }
    }

    /// Uses that are not on record.
    pub fn unrecorded(&self) -> Vec<(Uuid, Time)> {
        let newer = |(id, secret): (&Uuid, &KeySecret)| {
            let at = secret.used_at.load(Ordering::Relaxed);
            let news = at != secret.recorded_at.load(Ordering::Relaxed);
            Time::from_timestamp_millis(at).filter(|_| news).map(|at| (*id, at))
        };
        self.0.iter().filter_map(newer).collect()
    }

    /// Takes note of uses that are on record now, whichever process noted them.
    pub(super) fn recorded(&mut self, used: &[(Uuid, Time)]) {
        for (id, at) in used {
            if let Some(secret) = self.0.get_mut(id) {
                let at = at.timestamp_millis();
                *secret.used_at.get_mut() = at.max(*secret.used_at.get_mut());
                *secret.recorded_at.get_mut() = at;
            }
        }
    }

    /// Whether the same is on record of the same secrets.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same = |(id, secret): (&Uuid, &KeySecret)| {
            other.0.get(id).is_some_and(|one| {
                one.hash == secret.hash
                    && one.recorded_at.load(Ordering::Relaxed) == secret.recorded_at.load(Ordering::Relaxed)
            })
        };
        self.0.len() == other.0.len() && self.0.iter().all(same)
    }
}
