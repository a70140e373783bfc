//! The bytes that the gateway holds in memory for others, and the bounds on them: for one call or stream, for a
//! session, for an application, and in all. Beyond a bound the oldest holder is given up, and its client is told so, to
//! make room for the newest: what was held longest belongs to the slowest client or upstream.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use tokio_util::sync::CancellationToken;

use super::resumable_stream::ResumableStream;
use crate::meter;

/// The budget counts in steps of this many bytes, so that a holder of little causes no work.
const STEP: usize = 4 << 10;

/// The most bytes that may be held: by one call or stream, one session, one application, and in all.
#[derive(Debug, Clone, Copy)]
pub struct BudgetLimits {
    pub stream: usize,
    pub session: usize,
    pub application: usize,
    pub all: usize,
}

/// The order in which holders are given up, the first variant first. Among holders of one rank the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A stream that has ended is held only for a client that may come back for it.
    Ended,
    Call,
    /// A standalone stream carries whatever the upstream sends by itself, so it goes last.
    Standalone,
}

/// A holder among those of one scope: its rank, and the number of its share.
type Key = (Rank, u64);

/// All bytes that are held, with their holders.
pub struct Budget {
    most: BudgetLimits,
    held: Mutex<Accounts>,
}

/// What is held, and by whom.
#[derive(Default)]
struct Accounts {
    /// How many shares were made so far; numbers them.
    begun: u64,
    all: ScopeUsage,
    by_application: HashMap<ApplicationNumber, ScopeUsage>,
    by_session: HashMap<SessionNumber, ScopeUsage>,
    holders: HashMap<u64, Holder>,
}

/// The bytes and the holders within one scope.
#[derive(Default)]
struct ScopeUsage {
    bytes: usize,
    holders: BTreeSet<Key>,
}

/// One share that holds something.
struct Holder {
    rank: Rank,
    session: SessionNumber,
    application: ApplicationNumber,
    bytes: usize,
    given_up: CancellationToken,
    /// The stream, if it has ended: it is emptied when it is given up, because no task of its own does that any more.
    ended: Option<Weak<ResumableStream>>,
}

impl Budget {
    pub fn new(most: BudgetLimits) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// The most that one call or stream may hold.
    pub fn stream(&self) -> usize {
        self.most.stream
    }

    /// Makes a share that holds nothing yet. The budget cancels `given_up` when its holder has to go.
    pub fn share(
        self: &Arc<Self>,
        rank: Rank,
        (session, application): (SessionNumber, ApplicationNumber),
        given_up: CancellationToken,
    ) -> Share {
        let number = {
            let mut accounts = self.held.lock();
            accounts.begun += 1;
            accounts.begun
        };
        Share {
            budget: self.clone(),
            number,
            rank,
            session,
            application,
            counted: AtomicUsize::new(0),
            given_up,
        }
    }

    /// About how many bytes are held in all.
    pub fn held(&self) -> usize {
        self.held.lock().all.bytes
    }

    /// Counts what a share holds now, and gives up holders as long as a bound is exceeded.
    fn count(&self, share: &Share, bytes: usize) {
        let mut gone = vec![];
        {
            let mut accounts = self.held.lock();
            accounts.count(share, bytes);
            while let Some((scope, key)) = accounts.exceeded(&self.most, share) {
                counter!(meter::GIVEN_UP, "beyond" => scope).increment(1);
                gone.extend(accounts.remove(key));
            }
            gauge!(meter::HELD).set(accounts.all.bytes as f64);
        }
        for holder in gone {
            holder.given_up.cancel();
            if let Some(stream) = holder.ended.and_then(|stream| stream.upgrade()) {
                stream.forget();
            }
        }
    }
}

impl Accounts {
    /// Counts what a share holds now.
    fn count(&mut self, share: &Share, bytes: usize) {
        let &Share { number, rank, session, application, ref given_up, .. } = share;
        if given_up.is_cancelled() {
            return;
        }
        let holder = self.holders.entry(number).or_insert_with(|| {
            let given_up = given_up.clone();
            Holder { rank, session, application, bytes: 0, given_up, ended: None }
        });
        let before = std::mem::replace(&mut holder.bytes, bytes);
        let key = (holder.rank, number);
        for usage in self.usages(session, application) {
            usage.bytes = usage.bytes + bytes - before;
            usage.holders.insert(key);
        }
        if bytes == 0 {
            self.remove(key);
        }
    }

    /// The scopes that a holder counts in.
    fn usages(&mut self, session: SessionNumber, application: ApplicationNumber) -> [&mut ScopeUsage; 3] {
        [
            &mut self.all,
            self.by_application.entry(application).or_default(),
            self.by_session.entry(session).or_default(),
        ]
    }

    /// Removes a holder, and forgets scopes in which nothing is held any more.
    fn remove(&mut self, key: Key) -> Option<Holder> {
        let holder = self.holders.remove(&key.1)?;
        for usage in self.usages(holder.session, holder.application) {
            usage.bytes -= holder.bytes;
            usage.holders.remove(&key);
        }
        if self.by_session.get(&holder.session).is_some_and(|usage| usage.holders.is_empty()) {
            self.by_session.remove(&holder.session);
        }
        if self.by_application.get(&holder.application).is_some_and(|usage| usage.holders.is_empty()) {
            self.by_application.remove(&holder.application);
        }
        Some(holder)
    }

    /// Finds the holder that has to go, and names the bound that is exceeded.
    fn exceeded(&self, most: &BudgetLimits, share: &Share) -> Option<(&'static str, Key)> {
        if let Some(holder) = self.holders.get(&share.number).filter(|holder| holder.bytes > most.stream) {
            return Some(("stream", (holder.rank, share.number)));
        }
        let of_session = self.by_session.get(&share.session);
        let of_application = self.by_application.get(&share.application);
        let scopes = [
            // The connections that have no session yet all count under number 0, and are many clients': no session's
            // bound is theirs.
            ("session", of_session.filter(|_| share.session != SessionNumber(0)), most.session),
            ("application", of_application, most.application),
            ("all", Some(&self.all), most.all),
        ];
        scopes.into_iter().find_map(|(scope, usage, most)| {
            let usage = usage.filter(|usage| usage.bytes > most)?;
            Some((scope, *usage.holders.first()?))
        })
    }
}

/// The bytes that one call or stream holds of the budget, for as long as the share lives.
pub struct Share {
    budget: Arc<Budget>,
    number: u64,
    rank: Rank,
    session: SessionNumber,
    application: ApplicationNumber,
    counted: AtomicUsize,
    given_up: CancellationToken,
}

impl Share {
    /// Makes another share in the same scopes, which holds nothing.
    pub fn empty(&self) -> Self {
        self.budget.share(self.rank, (self.session, self.application), CancellationToken::new())
    }

    /// Says how many bytes the holder holds now.
    pub fn set(&self, bytes: usize) {
        let bytes = bytes / STEP * STEP;
        if self.counted.swap(bytes, Ordering::Relaxed) != bytes {
            self.budget.count(self, bytes);
        }
    }

    /// Moves the holder to the first rank: its stream has ended, and is held only for a client that may come back.
    pub fn mark_ended(&self, stream: &Arc<ResumableStream>) {
        let mut accounts = self.budget.held.lock();
        let Some(holder) = accounts.holders.get_mut(&self.number) else { return };
        let before = std::mem::replace(&mut holder.rank, Rank::Ended);
        holder.ended = Some(Arc::downgrade(stream));
        let number = self.number;
        for usage in accounts.usages(self.session, self.application) {
            usage.holders.remove(&(before, number));
            usage.holders.insert((Rank::Ended, number));
        }
    }

    /// The token that is cancelled when the holder has to go.
    pub fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }

    /// The most bytes that one call or stream may hold.
    pub fn most(&self) -> usize {
        self.budget.most.stream
    }

    /// Makes a further share in the same scopes, which is given up together with this one.
    pub fn sibling(&self, rank: Rank) -> Self {
        self.budget.share(rank, (self.session, self.application), self.given_up.clone())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if *self.counted.get_mut() == 0 {
            return;
        }
        let mut accounts = self.budget.held.lock();
        if let Some(rank) = accounts.holders.get(&self.number).map(|holder| holder.rank) {
            accounts.remove((rank, self.number));
            gauge!(meter::HELD).set(accounts.all.bytes as f64);
        }
    }
}
