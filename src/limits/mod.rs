//! Rate limits: one for each credential, and one for each address for what it presents that is not genuine. Failures never
//! use up the allowance of a genuine credential, so nobody can lock another out by guessing. The bound on the memory that
//! bodies of requests take is here too.

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

/// How many failed authentications an address may have at once.
pub const FAILURES: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// How many of them come back each second.
const FAILURES_BACK: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// How many addresses are told apart; beyond them, new ones share one allowance until old ones are forgotten.
const ADDRESSES: usize = 65_536;

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// The limits in force.
pub struct Limits {
    /// The limiter of credentials; none where there is no limit.
    credentials: RwLock<Option<Credentials>>,
    /// The limiter of addresses.
    failures: Keyed<IpAddr>,
    pub bodies: Arc<Bodies>,
}

/// The limiter of credentials, with the rate that it was made for.
struct Credentials {
    rate: NonZeroU32,
    limiter: Keyed<Uuid>,
}

/// What is left of an allowance after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How many requests a second are allowed, and at once after quiet; for failures, how many at once after quiet.
    pub rate: u32,
    /// How many requests are left now.
    pub remaining: u32,
    /// In how many seconds the whole allowance is there again.
    pub reset: u32,
}

/// The error for an allowance that is used up; the client may come back after so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after: u32,
    /// The limit that was exceeded, if it is a credential's.
    pub rate: Option<u32>,
}

impl Limits {
    /// Makes limits of so many requests a second for each credential, where 0 is no limit, and so many bytes for all bodies
    /// together.
    pub fn new(rate: u32, body_bytes: usize) -> Self {
        let quota = Quota::per_second(FAILURES_BACK).allow_burst(FAILURES);
        let limits =
            Self { credentials: RwLock::default(), failures: keyed(quota), bodies: Bodies::new(body_bytes) };
        limits.set_rate(rate);
        limits
    }

    /// Sets another limit for credentials. If it changes, everybody's allowance begins afresh.
    pub fn set_rate(&self, rate: u32) {
        let rate = NonZeroU32::new(rate);
        let mut credentials = self.credentials.write();
        if credentials.as_ref().map(|one| one.rate) != rate {
            *credentials = rate.map(|rate| Credentials { rate, limiter: keyed(Quota::per_second(rate)) });
        }
    }

    /// Counts one more request with a genuine credential; none where there is no limit.
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

    /// Counts one more failure to authenticate from an address.
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

    /// Forgets credentials and addresses that have their full allowance again. Returns how many are still remembered.
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

/// Makes a limiter that keeps an allowance for each key.
fn keyed<K: std::hash::Hash + Eq + Clone>(quota: Quota) -> Keyed<K> {
    RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>()
}

/// A wait in whole seconds, rounded up, so that whoever comes back after them is let in.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1)
}

/// The network that an address counts for: one customer has a whole /64 of IPv6 addresses (RFC 6177), so these count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}
