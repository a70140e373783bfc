//! Traffic of a session that is not in the log yet: counted as it happens, taken by the event that records it.

use std::sync::atomic::{AtomicU64, Ordering};

use sessiond_core::session::event::Counts;

/// What has come of a session's traffic since its last event.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Tally {
    /// Counts some more.
    pub fn add(&self, counts: Counts) {
        self.requests.fetch_add(counts.requests, Ordering::Relaxed);
        self.bytes_in.fetch_add(counts.bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(counts.bytes_out, Ordering::Relaxed);
    }

    /// What there is now.
    pub fn read(&self) -> Counts {
        Counts {
            requests: self.requests.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }

    /// Takes off what is on record now. It was read here before, so there is as much.
    pub(super) fn take(&self, counts: Counts) {
        self.requests.fetch_sub(counts.requests, Ordering::Relaxed);
        self.bytes_in.fetch_sub(counts.bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_sub(counts.bytes_out, Ordering::Relaxed);
    }
}
