//! The bodies of requests that are held whole in memory. There is a bound for one body and one for all together; bodies of
//! clients that are not known yet may take only a part of the latter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use http_body::Body as _;
use http_body_util::BodyExt;
use metrics::{counter, gauge};

use crate::meter;

/// Bodies of clients that are not known yet may take this part of all.
const STRANGERS: usize = 4;

/// The bytes of all bodies that are held.
pub struct Bodies {
    most: usize,
    held: AtomicUsize,
}

/// Whether it is known who sends a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The sender has a good credential.
    Known,
    /// The sender is not known yet: the credential is in the body, or is a signature over it.
    Stranger,
}

/// Why a body was not read.
#[derive(Debug)]
pub enum NotRead {
    /// The body is larger than one body may be.
    TooLarge,
    /// All bodies together would be too large; later there may be room.
    Full,
    /// The body broke off, or did not come in time.
    Broken(axum::Error),
}

/// The bytes that one body takes, until its last holder drops it.
struct Share {
    bodies: Arc<Bodies>,
    bytes: usize,
}

/// A body with its share.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    /// Makes the bound of so many bytes for all bodies together.
    pub fn new(most: usize) -> Arc<Self> {
        gauge!(meter::BODY_BYTES).set(0.0);
        counter!(meter::BODIES_REFUSED).increment(0);
        Arc::new(Self { most, held: AtomicUsize::new(0) })
    }

    /// Reads the whole of a body of at most so many bytes.
    pub async fn read(self: &Arc<Self>, mut body: Body, most: usize, from: Sender) -> Result<Bytes, NotRead> {
        if body.size_hint().lower() > most as u64 {
            return Err(NotRead::TooLarge);
        }
        let mut share = Share { bodies: self.clone(), bytes: 0 };
        let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            // Trailers are passed over: nobody has asked for them.
            let Ok(data) = frame.map_err(NotRead::Broken)?.into_data() else { continue };
            if share.bytes + data.len() > most {
                return Err(NotRead::TooLarge);
            }
            share.grow(data.len(), from)?;
            if first.is_empty() {
                first = data;
            } else {
                if whole.is_empty() {
                    whole.extend_from_slice(&first);
                }
                whole.extend_from_slice(&data);
            }
        }
        // Most bodies come in one piece, which is not copied.
        let bytes = if whole.is_empty() { first } else { whole.freeze() };
        Ok(if bytes.is_empty() { bytes } else { Bytes::from_owner(Held { bytes, _share: share }) })
    }
}

impl Share {
    /// Takes so many bytes more, if there is room.
    fn grow(&mut self, bytes: usize, from: Sender) -> Result<(), NotRead> {
        let most = match from {
            Sender::Known => self.bodies.most,
            Sender::Stranger => self.bodies.most / STRANGERS,
        };
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= most);
        if self.bodies.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            counter!(meter::BODIES_REFUSED).increment(1);
            return Err(NotRead::Full);
        }
        self.bytes += bytes;
        gauge!(meter::BODY_BYTES).increment(bytes as f64);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
        gauge!(meter::BODY_BYTES).decrement(self.bytes as f64);
    }
}
