//! How often somebody may ask: each credential for itself, and each address for what it presents that is not genuine.
//! Failures never use up what a genuine credential has, so nobody can lock another out by guessing. And how much memory the
//! bodies of requests take.

mod bodies;

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::RwLock;
use uuid::Uuid;

pub use bodies::{Bodies, NotRead, Sender};

/// Failed authentications an address has at once, and how many come back each second.
pub const FAILURES: NonZeroU32 = NonZeroU32::new(100).unwrap();
const FAILURES_BACK: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Addresses that are told apart; beyond that, new ones share one allowance until old ones are forgotten.
const ADDRESSES: usize = 65_536;

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// The limits in force.
pub struct Limits {
    /// None where there is no limit.
    credentials: RwLock<Option<Credentials>>,
    failures: Keyed<IpAddr>,
    pub bodies: Arc<Bodies>,
}

struct Credentials {
    rate: NonZeroU32,
    limiter: Keyed<Uuid>,
}

/// What is left of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Requests a second, and at once after quiet; of failures, at once after quiet.
    pub rate: u32,
    pub remaining: u32,
    /// Seconds until all of it is there again.
    pub reset: u32,
}

/// The allowance is used up: come back after so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after: u32,
    /// What the policy was, where it is a credential's.
    pub rate: Option<u32>,
}

impl Limits {
    /// So many requests a second for each credential, where 0 is no limit; so many bytes for all bodies together.
    pub fn new(rate: u32, body_bytes: usize) -> Self {
        let quota = Quota::per_second(FAILURES_BACK).allow_burst(FAILURES);
        let limits =
            Self { credentials: RwLock::default(), failures: keyed(quota), bodies: Bodies::new(body_bytes) };
        limits.set_rate(rate);
        limits
    }

    /// Another limit from now on; everybody begins afresh if it changes.
    pub fn set_rate(&self, rate: u32) {
        let rate = NonZeroU32::new(rate);
        let mut credentials = self.credentials.write();
        if credentials.as_ref().map(|one| one.rate) != rate {
            *credentials = rate.map(|rate| Credentials { rate, limiter: keyed(Quota::per_second(rate)) });
        }
    }

    /// One more request with a genuine credential; `None` where there is no limit.
    pub fn request(&self, credential: Uuid) -> Result<Option<Left>, TooMany> {
        let credentials = self.credentials.read();
        let Some(Credentials { rate, limiter }) = credentials.as_ref() else { return Ok(None) };
        let rate = rate.get();
        match limiter.check_key(&credential) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let reset = rate.saturating_sub(remaining).div_ceil(rate);
                Ok(Some(Left { rate, remaining, reset }))
            }
            Err(until) => Err(TooMany {
                retry_after: seconds(until.wait_time_from(DefaultClock::default().now())),
                rate: Some(rate),
            }),
        }
    }

    /// One more failure to authenticate from an address.
    pub fn failure(&self, from: IpAddr) -> Result<Left, TooMany> {
        let from = if self.failures.len() < ADDRESSES { network(from) } else { Ipv6Addr::UNSPECIFIED.into() };
        match self.failures.check_key(&from) {
            Ok(state) => {
                let (rate, remaining) = (FAILURES.get(), state.remaining_burst_capacity());
                let reset = rate.saturating_sub(remaining).div_ceil(FAILURES_BACK.get());
                Ok(Left { rate, remaining, reset })
            }
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                Err(TooMany { retry_after: seconds(wait), rate: None })
            }
        }
    }

    /// Forgets whoever has a full allowance again. Returns how many are still remembered.
    pub fn forget(&self) -> usize {
        self.failures.retain_recent();
        self.failures.shrink_to_fit();
        let credentials = self.credentials.read();
        let remembered = credentials.as_ref().map_or(0, |one| {
            one.limiter.retain_recent();
            one.limiter.shrink_to_fit();
            one.limiter.len()
        });
        remembered + self.failures.len()
    }
}

fn keyed<K: std::hash::Hash + Eq + Clone>(quota: Quota) -> Keyed<K> {
    RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>()
}

/// Whole seconds, rounded up: whoever comes back after them is let in.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1)
}

/// One customer has a whole /64 of IPv6 addresses (RFC 6177), so these count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}
