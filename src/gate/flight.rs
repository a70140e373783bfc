//! What is under way: requests and streams of a session, and the leave they hold to go on. They hold it of two: of the
//! session, and of the credential that opened them.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sessiond_core::ending::{CredentialEnd, Ending};
use sessiond_core::reason::Reason;
use sessiond_core::session::event::Counts;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::holdings::Held;
use super::lease::Lease;
use super::tally::Tally;

/// The requests and streams of one session, or one thing that a credential opened.
#[derive(Default)]
pub struct Flight {
    count: AtomicUsize,
    /// How many of them are another node's streams on their way through this one.
    escorts: AtomicUsize,
    cancelled: CancellationToken,
    ending: OnceLock<Ending>,
    landed: Notify,
    /// What it comes to, as far as that is not on record.
    pub(super) tally: Tally,
}

/// How long what was cut off may take to let go before it is given up on: whoever does not let go by then is dropped.
pub const YIELD: Duration = Duration::from_millis(100);

/// Waits until all of these have let go, but not for ever.
pub async fn landed(flights: &[Arc<Flight>]) {
    let all = join_all(flights.iter().map(|flight| flight.landed()));
    tokio::time::timeout(YIELD, all).await.ok();
}

impl Flight {
    /// How many requests and streams are under way.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The same without those that another node counts.
    pub(super) fn own_count(&self) -> usize {
        self.count().saturating_sub(self.escorts.load(Ordering::SeqCst))
    }

    /// Tells what is under way that it is over, and why.
    pub(super) fn cancel(&self, ending: Ending) {
        self.ending.set(ending).ok();
        self.cancelled.cancel();
    }

    /// One more is under way.
    pub(super) fn begin(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// One is over.
    pub(super) fn land(&self) {
        if self.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.landed.notify_waiters();
        }
    }

    /// Waits until nothing is under way any more.
    pub async fn landed(&self) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            landed.await;
        }
    }

    fn ending(&self) -> Option<Ending> {
        if self.cancelled.is_cancelled() { self.ending.get().copied() } else { None }
    }
}

/// Leave to go on, as long as it is held, and neither the session nor the credential has ended.
pub struct Pass {
    /// None for what belongs to no session.
    session: Option<Arc<Flight>>,
    /// None for what another node has let in: it judges the credential.
    credential: Option<Held>,
    lease: Arc<Lease>,
    /// Whether it is for what another node hands on by way of this one.
    escort: bool,
}

/// Fires when a [`Pass`] is good no more, without holding on to it.
#[derive(Clone, Default)]
pub struct Signal {
    session: Option<CancellationToken>,
    credential: Option<CancellationToken>,
    lease: Arc<Lease>,
}

impl Signal {
    /// Resolves when it fires.
    pub async fn cancelled(&self) {
        tokio::select! {
            () = fired(self.session.as_ref()) => {}
            () = fired(self.credential.as_ref()) => {}
        }
    }

    /// Whether it has fired, or will as soon as somebody can say so: a process that was paused goes on in the middle of what it
    /// did, before the task that ends everything with the lease has its turn.
    pub fn is_cancelled(&self) -> bool {
        let fired =
            [&self.session, &self.credential].into_iter().flatten().any(CancellationToken::is_cancelled);
        fired || !self.lease.holds()
    }
}

/// Resolves when a token is cancelled; never without one.
async fn fired(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

impl Pass {
    pub(super) fn enter(session: Option<&Arc<Flight>>, credential: Option<Held>) -> Self {
        session.iter().for_each(|flight| flight.begin());
        Self { session: session.cloned(), credential, lease: Arc::default(), escort: false }
    }

    /// It is for what another node hands on by way of this one, and is counted there.
    pub fn escorting(mut self) -> Self {
        if let Some(flight) = &self.session {
            flight.escorts.fetch_add(1, Ordering::SeqCst);
        }
        self.escort = true;
        self
    }

    /// It is good only while a lease holds.
    pub(super) fn on(mut self, lease: Arc<Lease>) -> Self {
        self.lease = lease;
        self
    }

    /// Resolves when the session or the credential ends, with which, and why.
    pub async fn ended(&self) -> Ending {
        let cancelled = self.cancelled();
        match self.credential {
            Some(_) => cancelled.cancelled().await,
            // Whatever a credential opened is told when the lease runs out; this is not among it.
            None => tokio::select! {
                () = cancelled.cancelled() => {}
                () = self.lease.ended() => {}
            },
        }
        // Of these only a lease begins again.
        self.ending().unwrap_or(Ending::Lapsed)
    }

    /// What has ended, if anything has. The session's end says more than that of a credential which ends with it. The lease is
    /// looked at here too: whoever was suspended with the whole machine goes on before anybody could tell it.
    pub fn ending(&self) -> Option<Ending> {
        let session = self.session.as_ref().and_then(|flight| flight.ending());
        let lapsed = || (!self.lease.holds()).then_some(Ending::Lapsed);
        let credential = || self.credential.as_ref().and_then(|held| held.holding.flight.ending());
        session.or_else(credential).or_else(lapsed)
    }

    /// Why the session has ended, if it has.
    pub fn reason(&self) -> Option<Reason> {
        match self.ending() {
            Some(Ending::Session(reason)) => Some(reason),
            _ => None,
        }
    }

    /// How the credential has ended, if that is what ended.
    pub fn credential_end(&self) -> Option<CredentialEnd> {
        match self.ending() {
            Some(Ending::Credential(end)) => Some(end),
            _ => None,
        }
    }

    /// Counts traffic of the session, as it happens: so it is there to be written whoever ends the session, and whenever.
    pub fn count(&self, counts: Counts) {
        self.session.iter().for_each(|flight| flight.tally.add(counts));
    }

    /// What fires when the session or the credential ends.
    pub fn cancelled(&self) -> Signal {
        Signal {
            session: self.session.as_ref().map(|flight| flight.cancelled.clone()),
            credential: self.credential.as_ref().map(|held| held.holding.flight.cancelled.clone()),
            lease: self.lease.clone(),
        }
    }

    /// The lease that it is good for.
    pub fn lease(&self) -> Arc<Lease> {
        self.lease.clone()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(flight) = &self.session {
            if self.escort {
                flight.escorts.fetch_sub(1, Ordering::SeqCst);
            }
            flight.land();
        }
    }
}
