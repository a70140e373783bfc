//! Letting go of what is kept no longer: for the scheduler's jobs. It goes in chunks, each one transaction with the event that
//! accounts for it, so that a process that ends in between has let go of some and not of others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::ids::{OrganizationNumber, Position, SessionNumber};
use sessiond_core::organization::Organization;
use sessiond_core::retention::{Departing, Figures, kept_since};
use sessiond_store::FoldableEvent;
use tokio::time::Instant;

use crate::committer::{CHUNK, FoldActivity, LetSessionsGo, Operation, Origin, WriteBeside};
use crate::context::AppContext;
use crate::error::Error;
use crate::journals::Journals;
use crate::meter;

/// Events that one transaction lets go, and that are looked at at a time.
const EVENTS: usize = 1_000;
/// The pause after each, in which others have the store.
const PAUSE: Duration = Duration::from_millis(10);
/// How long it waits at most for what is to go to be counted.
const COUNTING: Duration = Duration::from_secs(3);
/// How long one run of the job works at most: what is left is for the next.
const RUN: Duration = Duration::from_secs(5);

/// What lets go.
#[derive(Clone)]
pub struct Retention {
    context: Arc<AppContext>,
    journals: Journals,
    /// How far blocks of journals were looked at for those who keep them equally long.
    walked: Arc<Mutex<BTreeMap<Keepers, i64>>>,
}

/// Organizations that keep something for so many seconds.
type Keepers = (u32, Vec<OrganizationNumber>);

/// What a run let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LetGo {
    pub sessions: u64,
    /// Activity events of sessions that were kept.
    pub activity: u64,
    /// Whether there was more than a run has time for.
    pub more: bool,
}

/// An organization, and how long it keeps things.
#[derive(Debug, Clone, Copy)]
struct Keeper {
    organization: OrganizationNumber,
    figures: Figures,
}

impl Retention {
    pub fn new(context: Arc<AppContext>, journals: Journals) -> Self {
        Self { context, journals, walked: Arc::default() }
    }

    /// The journals that it lets go of.
    pub fn journals(&self) -> &Journals {
        &self.journals
    }

    /// Lets go of ended sessions and folds activity, as long as there is some and the run has time.
    pub async fn run(&self) -> Result<LetGo, Error> {
        let until = Instant::now() + RUN;
        let mut done = LetGo::default();
        let mut waiting = self.keepers();
        // A chunk of each in turn: none waits until another is through.
        while !waiting.is_empty() && Instant::now() < until {
            let mut more = Vec::new();
            for keeper in waiting {
                let sessions = self.let_sessions_go(&keeper).await?;
                done.sessions += sessions;
                more.extend((sessions > 0).then_some(keeper));
            }
            waiting = more;
        }
        done.more = !waiting.is_empty();
        for (keepers, after) in self.folding().await? {
            done.activity += self.fold(&keepers, after, until).await?;
        }
        done.more |= Instant::now() >= until;
        Ok(done)
    }

    fn keepers(&self) -> Vec<Keeper> {
        let known = self.context.gate.known();
        let keeper = |one: &Organization| Keeper {
            organization: one.number,
            figures: one.retention.over(self.context.retention),
        };
        known.streams::<Organization>().map(keeper).collect()
    }

    // ---- sessions ----

    /// Lets go of some of an organization's sessions; returns of how many.
    async fn let_sessions_go(&self, keeper: &Keeper) -> Result<u64, Error> {
        let Some(seconds) = keeper.figures.ended_after else { return Ok(0) };
        let before = kept_since(self.context.clock.now(), seconds);
        let Some((as_of, departing)) = self.departing(keeper, before).await? else { return Ok(0) };
        let last = departing.iter().flat_map(|one| &one.events).map(|(position, _)| *position).max();
        if !self.counted(last.unwrap_or_default()).await? {
            return Ok(0);
        }
        let (sessions, events) = (departing.len() as u64, events(&departing));
        let numbers: Vec<_> = departing.iter().map(|one| one.session).collect();
        self.forget_journals(&numbers).await?;
        let letting = LetSessionsGo { organization: keeper.organization, as_of, departing };
        if !self.submit(letting).await? {
            return Ok(0);
        }
        // Also what was filed for one of them in between.
        self.forget_journals(&numbers).await?;
        metrics::counter!(meter::SESSIONS_LET_GO).increment(sessions);
        metrics::counter!(meter::EVENTS_LET_GO, "kind" => "session").increment(events);
        tokio::time::sleep(PAUSE).await;
        Ok(sessions)
    }

    /// Some sessions that can go, and the version of the organization from before they were looked for.
    async fn departing(&self, keeper: &Keeper, before: Time) -> Result<Option<(i64, Vec<Departing>)>, Error> {
        let (store, own) = (&self.context.store, keeper.organization);
        let mut as_of = self.version(own);
        let departing = store.departing(own, before, CHUNK as u32, EVENTS).await?;
        let [one] = departing.as_slice() else {
            return Ok(Some((as_of, departing)).filter(|(_, some)| !some.is_empty()));
        };
        if one.events.len() <= EVENTS {
            return Ok(Some((as_of, departing)));
        }
        // One with more events than a transaction takes: its activity goes first, some at a time.
        loop {
            let events = store.foldable_of(own, one.session, EVENTS).await?;
            if events.is_empty() {
                return Ok(Some((as_of, store.departing(own, before, 1, usize::MAX).await?)));
            }
            if self.fold_some((keeper, as_of), events).await?.is_none() {
                return Ok(None);
            }
            as_of = self.version(own);
        }
    }

    /// Whether statistics have counted what is to go; waits for them, but not for long: what is not counted yet goes another time.
    async fn counted(&self, up_to: Position) -> Result<bool, Error> {
        let until = Instant::now() + COUNTING;
        loop {
            let counted = self.context.store.counted_to().await?.unwrap_or_default();
            if counted.position >= up_to {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The version of an organization as this process knows it. What is read of the store after that is not older.
    fn version(&self, organization: OrganizationNumber) -> i64 {
        self.context.gate.known().stream::<Organization>(organization).map_or(0, |one| one.head.version)
    }

    // ---- activity ----

    /// Those whose activity is folded, with how far that has come, by how long they keep it.
    async fn folding(&self) -> Result<Vec<(Vec<Keeper>, Position)>, Error> {
        let folded_to: BTreeMap<_, _> = self.context.store.folded_to().await?.into_iter().collect();
        let mut groups: BTreeMap<(u32, Position), Vec<Keeper>> = BTreeMap::new();
        for keeper in self.keepers() {
            let Some(seconds) = keeper.figures.activity_after else { continue };
            let after = folded_to.get(&keeper.organization).copied().unwrap_or_default();
            groups.entry((seconds, after)).or_default().push(keeper);
        }
        Ok(groups.into_iter().map(|((_, after), keepers)| (keepers, after)).collect())
    }

    /// Folds what these keep no longer, from a position on; returns how many events went.
    async fn fold(&self, keepers: &[Keeper], mut after: Position, until: Instant) -> Result<u64, Error> {
        let organizations: Vec<_> = keepers.iter().map(|one| one.organization).collect();
        let Some(seconds) = keepers.first().and_then(|one| one.figures.activity_after) else { return Ok(0) };
        let mut folded = 0;
        while Instant::now() < until {
            let before = kept_since(self.context.clock.now(), seconds);
            let versions: Vec<_> = organizations.iter().map(|one| self.version(*one)).collect();
            let page = self.context.store.foldable(&organizations, after, before, EVENTS as u32).await?;
            let Some(up_to) = page.up_to else { break };
            if !self.counted(up_to).await? {
                break;
            }
            for (keeper, as_of) in keepers.iter().zip(versions) {
                let own = page.events.iter().filter(|one| one.organization == keeper.organization);
                let own: Vec<_> = own.copied().collect();
                if !own.is_empty() {
                    // Somebody else was faster, or they are to be kept: the next run looks again.
                    let Some(some) = self.fold_some((keeper, as_of), own).await? else { return Ok(folded) };
                    folded += some;
                }
            }
            let side = sessiond_store::SideWrite::FoldedTo(organizations.clone(), up_to);
            self.submit(WriteBeside(side)).await?;
            after = up_to;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(folded)
    }

    /// Folds some events; returns how many, or none where something has happened to the organization meanwhile.
    async fn fold_some(
        &self,
        (keeper, as_of): (&Keeper, i64),
        events: Vec<FoldableEvent>,
    ) -> Result<Option<u64>, Error> {
        let count = events.len() as u64;
        let folding = FoldActivity { organization: keeper.organization, as_of, events };
        if !self.submit(folding).await? {
            return Ok(None);
        }
        metrics::counter!(meter::EVENTS_LET_GO, "kind" => "activity").increment(count);
        Ok(Some(count))
    }

    async fn submit<O: Operation>(&self, operation: O) -> Result<O::Outcome, Error> {
        Ok(self.context.committer.submit(Origin::system(), operation).await?.outcome)
    }

    // ---- journals ----

    /// Forgets log lines and recordings that are kept no longer; returns how many entries.
    pub async fn forget_lines(&self) -> Result<u64, Error> {
        let mut groups: BTreeMap<Option<u32>, Vec<OrganizationNumber>> = BTreeMap::new();
        for keeper in self.keepers() {
            groups.entry(keeper.figures.journals_after).or_default().push(keeper.organization);
        }
        let mut forgotten = 0;
        let all_alike = groups.len() == 1;
        let mut walked = BTreeMap::new();
        for (seconds, organizations) in groups {
            let Some(seconds) = seconds else { continue };
            let before = kept_since(self.context.clock.now(), seconds);
            if all_alike {
                forgotten += self.journals.forget(before).await?.entries;
                continue;
            }
            let keepers = (seconds, organizations);
            let begin = self.walked.lock().get(&keepers).copied().unwrap_or_default();
            let (entries, reached) = self.walk(&keepers.1, begin, before).await?;
            forgotten += entries;
            walked.insert(keepers, reached);
        }
        *self.walked.lock() = walked;
        Ok(forgotten)
    }

    /// Forgets the blocks after one, recorded before an instant, that are of some organizations' sessions or of none that is
    /// kept; returns how many entries, and the last block that was looked at.
    async fn walk(
        &self,
        organizations: &[OrganizationNumber],
        begin: i64,
        before: Time,
    ) -> Result<(u64, i64), Error> {
        let (mut forgotten, mut reached) = (0, begin);
        loop {
            let page = self.journals.old_blocks(reached, before).await?;
            let Some((last, _)) = page.last() else { return Ok((forgotten, reached)) };
            reached = *last;
            let mut sessions: Vec<_> = page.iter().map(|(_, session)| *session).collect();
            sessions.sort_unstable();
            sessions.dedup();
            let whose = self.whose(&sessions).await?;
            let goes = |session| whose.get(session).is_none_or(|one| organizations.contains(one));
            let numbers = page.iter().filter(|(_, session)| goes(session)).map(|(number, _)| *number);
            let numbers: Vec<_> = numbers.collect();
            forgotten += self.journals.forget_blocks(&numbers).await?.entries;
        }
    }

    /// Where journals are closed there is nobody who would forget; what they hold of these goes when it is old.
    async fn forget_journals(&self, sessions: &[SessionNumber]) -> Result<(), Error> {
        match self.journals.fault() {
            Some(_) => Ok(()),
            None => self.journals.let_go(sessions).await.map(|_| ()),
        }
    }

    /// Whose sessions are, as far as they are kept.
    async fn whose(
        &self,
        sessions: &[SessionNumber],
    ) -> Result<BTreeMap<SessionNumber, OrganizationNumber>, Error> {
        let rows = self.context.store.sessions(sessions).await?;
        Ok(rows.into_iter().map(|row| (row.session.number, row.session.organization)).collect())
    }
}

fn events(departing: &[Departing]) -> u64 {
    departing.iter().map(|one| one.events.len() as u64).sum()
}
