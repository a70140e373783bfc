//! Revocation. The request records that it began, which closes the Gate; the worker ends what it covers, chunk by
//! chunk, by one code path for new, dropped and crashed ones; whoever asked waits for the worker's count.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use sessiond_core::actor::Actor;
use sessiond_core::bar::{Bar, Barring};
use sessiond_core::caller::Caller;
use sessiond_core::event::Event;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{OrganizationNumber, PrincipalNumber, StreamId, StreamKind};
use sessiond_core::reason::Reason;
use sessiond_core::relation::MayAct;
use sessiond_core::revocation::{Revocation, RevocationEvent};
use sessiond_core::scope::Scopes;
use sessiond_core::shown;
use sessiond_core::status::DerivedStatus;
use sessiond_core::streams::AnyStream;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bar::{WouldBar, may_bar};
use super::{ListQuery, Sessions, View, Wanted};
use crate::committer::{Answer, BeginRevocation, CHUNK, EndRevocation, EndSessions, Origin, SessionEnd};
use crate::error::{Error, Thing};
use crate::{meter, secret};

/// Before a revocation that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Sessions shown with a preview.
const SAMPLE: u32 = 10;
/// Longest words an operator may give with a revocation.
const LONGEST_NOTE: usize = 200;

/// What a revocation came to.
#[derive(Debug, Clone, Copy)]
pub struct Revoked {
    /// The revocation's id; none where there was nothing to revoke.
    pub id: Option<Uuid>,
    /// How many sessions it disconnected: the number of `disconnected` events that carry it.
    pub disconnected: u64,
    /// What became of the credentials behind them.
    pub credentials: Option<Barring>,
}

/// Those who wait for the worker, and what wakes it.
#[derive(Default)]
pub(super) struct Worker {
    wake: Notify,
    waiting: Mutex<HashMap<Uuid, Vec<Waiting>>>,
}

type Waiting = oneshot::Sender<Result<u64, Error>>;

/// What a revocation would come to, at the moment of asking.
pub struct Preview {
    pub matched: u64,
    /// Some of them, newest first.
    pub sample: Vec<View>,
    /// What would become of the credentials behind them.
    pub credentials: Barring,
    pub would_bar: WouldBar,
}

/// A revocation as it stands.
pub struct Progress {
    pub revocation: Revocation,
    /// What it covers, in public ids.
    pub wanted: Wanted,
    /// Who began it.
    pub actor: Actor,
    /// How many sessions it covered when it began; not known of those from before this was counted.
    pub matched: Option<u64>,
    /// Requests and streams that it cut off; known when it has ended.
    pub streams_closed: Option<u64>,
    /// The schedule it was a run of.
    pub schedule: Option<Uuid>,
    /// What became of the credentials behind what it covered; not known of those from before this was noted.
    pub credentials: Option<Barring>,
}

/// What a revocation covers, in a word.
fn scope(filter: &Filter) -> &'static str {
    if filter.session.is_some() {
        "session"
    } else if filter.whole_application().is_some() {
        "application"
    } else if filter.whole_principal().is_some() {
        "principal"
    } else if filter.whole_organization() {
        "organization"
    } else {
        "filter"
    }
}

impl Sessions {
    /// Ends every session of an application and bars the agent-side use of every token issued for it before.
    pub async fn revoke_all(
        &self,
        caller: &Caller,
        application: Uuid,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let filter = Filter { application: Some(self.readable(caller, application)?), ..Filter::default() };
        self.revoke(caller, filter, Reason::Revoked, note).await
    }

    /// The same, and the application is archived with it.
    pub async fn archive(&self, caller: &Caller, application: Uuid) -> Result<Revoked, Error> {
        let number = self.readable(caller, application)?;
        let client = self.gate.known().applications.get(&number).map(|one| one.oauth.scopes.join(" "));
        // Its client gets no more tokens.
        Error::unless_may_give(caller.scopes, Scopes::parse(&client.unwrap_or_default()).0)?;
        let filter = Filter { application: Some(number), ..Filter::default() };
        self.revoke(caller, filter, Reason::Archived, None).await
    }

    /// Ends one session of an application and bars its token and the access token last presented with it; `bar` says what
    /// else.
    pub async fn revoke_one(
        &self,
        caller: &Caller,
        application: Uuid,
        id: Uuid,
        bar: Bar,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let session = self.managed(caller, application, id).await?;
        self.revoke_session(caller, &session, bar, note).await
    }

    /// The same of a session that was judged already.
    pub async fn revoke_session(
        &self,
        caller: &Caller,
        session: &MayAct,
        bar: Bar,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        if session.ended.is_some() && !caller.repeats() {
            return Ok(Revoked { id: None, disconnected: 0, credentials: None });
        }
        let filter = Filter {
            application: Some(session.application),
            session: Some(session.number),
            ..Filter::default()
        };
        may_bar(caller, &filter, bar)?;
        let beginning =
            BeginRevocation { bar, ..beginning(caller.organization, filter, Reason::Revoked, note)? };
        self.carry_through(Origin::caller(caller), beginning).await
    }

    /// Ends every session that fits. Where everything of an organization, an application or a principal is meant, their
    /// credentials issued before are barred with it; `bar` says what else is.
    pub async fn revoke_wanted(
        &self,
        caller: &Caller,
        wanted: &Wanted,
        bar: Bar,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let filter = self.filter_to_revoke(caller, wanted).await?;
        may_bar(caller, &filter, bar)?;
        if filter.moves() {
            // What was seen and is not in the log yet would be forgotten in a crash, and the filter asks for it.
            self.flush_traffic(true).await;
        }
        let beginning =
            BeginRevocation { bar, ..beginning(caller.organization, filter, Reason::Revoked, note)? };
        self.carry_through(Origin::caller(caller), beginning).await
    }

    /// What a revocation would come to now. Changes nothing.
    pub async fn preview(&self, caller: &Caller, wanted: &Wanted, bar: Bar) -> Result<Preview, Error> {
        let filter = self.filter_to_revoke(caller, wanted).await?;
        may_bar(caller, &filter, bar)?;
        let (credentials, would_bar) = self.would_bar(caller, &filter, bar)?;
        let mut wanted = wanted.clone();
        if wanted.status.is_empty() {
            wanted.status = DerivedStatus::OPEN.to_vec();
        }
        let counts = self.count(caller, &wanted).await?;
        let query = ListQuery { wanted, limit: SAMPLE, ..ListQuery::default() };
        let sample = self.list(caller, &query).await?.items;
        let matched = counts.active + counts.idle + counts.expired;
        Ok(Preview { matched, sample, credentials, would_bar })
    }

    /// Disables a principal: nothing more is opened or kept alive for it, and everything it has is revoked; its API keys
    /// for good where that is said, else they open nothing until it is enabled.
    pub async fn disable_principal(
        &self,
        caller: &Caller,
        id: Uuid,
        include_keys: bool,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let number = self.gate.known().principal_by_id(caller.organization, id);
        let number = number.ok_or(Error::NotFound(Thing::Principal))?;
        self.check_keys_of(caller, number)?;
        let filter = Filter { principal: Some(number), ..Filter::default() };
        let bar = Bar { matched: false, keys: include_keys };
        may_bar(caller, &filter, bar)?;
        let beginning = BeginRevocation {
            bar,
            disable: Some((number, id)),
            ..beginning(caller.organization, filter, Reason::Revoked, note)?
        };
        self.carry_through(Origin::caller(caller), beginning).await
    }

    /// That the caller may end what a person's API keys may do: disabling the person ends it.
    pub fn check_keys_of(&self, caller: &Caller, person: PrincipalNumber) -> Result<(), Error> {
        Error::unless_may_give(caller.scopes, self.gate.known().rights_of_keys(person))
    }

    /// The filter of a revocation: what it names must be there, and be open.
    pub(super) async fn filter_to_revoke(&self, caller: &Caller, wanted: &Wanted) -> Result<Filter, Error> {
        if wanted.status.contains(&DerivedStatus::Disconnected) {
            let message = "status must not name disconnected: those have ended already";
            return Err(Error::field("status", message));
        }
        if let Some(id) = wanted.principal {
            let known = self.gate.known();
            known.principal_by_id(caller.organization, id).ok_or(Error::NotFound(Thing::Principal))?;
        }
        self.filter(caller, wanted).await
    }

    async fn revoke(
        &self,
        caller: &Caller,
        filter: Filter,
        reason: Reason,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let beginning = beginning(caller.organization, filter, reason, note)?;
        self.carry_through(Origin::caller(caller), beginning).await
    }

    /// Begins a revocation and waits until the worker is through with it.
    pub(super) async fn carry_through(
        &self,
        origin: Origin,
        beginning: BeginRevocation,
    ) -> Result<Revoked, Error> {
        if let Some(begun) = origin.recorded::<BeginRevocation>()? {
            return self.carried_through_before(begun).await;
        }
        let id = beginning.id;
        let (tell, told) = oneshot::channel();
        self.revocations.waiting.lock().insert(id, vec![tell]);
        let scope = scope(&beginning.filter);
        let begun = match self.committer.submit(origin, beginning).await {
            Ok(answer) => answer,
            Err(error) => {
                self.revocations.waiting.lock().remove(&id);
                self.revocations.wake.notify_one();
                return Err(error);
            }
        };
        metrics::counter!(meter::REVOCATIONS, "scope" => scope).increment(1);
        self.revocations.wake.notify_one();
        // The worker goes on whether or not anybody still waits here.
        let disconnected = told.await.map_err(|_| Error::Busy)??;
        // What was open by credentials that it bars, of sessions that it leaves alone.
        begun.landed().await;
        Ok(Revoked { id: Some(id), disconnected, credentials: self.credentials_of(&begun.outcome).await? })
    }

    /// What became of the credentials behind a revocation, as its first event tells.
    async fn credentials_of(&self, revocation: &Revocation) -> Result<Option<Barring>, Error> {
        let began = self.reader.event(revocation.fence).await?.map(|entry| entry.recorded.event);
        Ok(match began {
            Some(Event::Revocation(RevocationEvent::Began(began))) => began.credentials,
            _ => None,
        })
    }

    /// The answer to a request that began a revocation before: its count, once it has one.
    async fn carried_through_before(&self, begun: Revocation) -> Result<Revoked, Error> {
        let (id, credentials) = (begun.id, self.credentials_of(&begun).await?);
        let (tell, told) = oneshot::channel();
        // First in the line, then the look: whatever ends after the look is told to the line.
        self.revocations.waiting.lock().entry(id).or_default().push(tell);
        let stored = self.reader.revocation_by_id(id).await;
        match stored.map(|revocation| revocation.filter(|revocation| revocation.ended_at.is_some())) {
            Ok(None) => {
                let disconnected = told.await.map_err(|_| Error::Busy)??;
                Ok(Revoked { id: Some(id), disconnected, credentials })
            }
            known => {
                drop(told);
                let mut waiting = self.revocations.waiting.lock();
                let line = waiting.entry(id).or_default();
                line.retain(|tell| !tell.is_closed());
                if line.is_empty() {
                    waiting.remove(&id);
                }
                let disconnected = known?.map_or(0, |revocation| revocation.disconnected_count);
                Ok(Revoked { id: Some(id), disconnected, credentials })
            }
        }
    }

    /// Tells everybody who waits for a revocation what came of it.
    fn tell(&self, id: Uuid, outcome: impl Fn() -> Result<u64, Error>) {
        for tell in self.revocations.waiting.lock().remove(&id).unwrap_or_default() {
            tell.send(outcome()).ok();
        }
    }

    /// A revocation of the organization, by its id.
    pub async fn revocation(&self, caller: &Caller, id: Uuid) -> Result<Progress, Error> {
        let found = self.reader.revocation_by_id(id).await?.filter(|revocation| {
            revocation.organization == caller.organization
                && caller.confined_to.is_none_or(|own| revocation.filter.application == Some(own))
        });
        self.progress(found.ok_or(Error::NotFound(Thing::Revocation))?).await
    }

    /// The organization's revocations, newest first, after one of them; and whether there are more.
    pub async fn revocations(
        &self,
        caller: &Caller,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<Progress>, bool), Error> {
        let before = match after {
            Some(id) => {
                let last = self.reader.revocation_by_id(id).await?;
                let last = last.filter(|last| last.organization == caller.organization);
                Some(last.ok_or_else(Error::foreign_cursor)?.number)
            }
            None => None,
        };
        let page =
            self.reader.revocations(caller.organization, caller.confined_to, before, limit + 1).await?;
        let more = page.len() > limit as usize;
        let mut items = Vec::with_capacity(page.len());
        for revocation in page.into_iter().take(limit as usize) {
            items.push(self.progress(revocation).await?);
        }
        Ok((items, more))
    }

    async fn progress(&self, revocation: Revocation) -> Result<Progress, Error> {
        let began = self.reader.event(revocation.fence).await?.map(|entry| entry.recorded);
        let actor = began.as_ref().map_or(Actor::SYSTEM, |recorded| recorded.actor);
        let (mut matched, mut schedule, mut streams_closed, mut credentials) = (None, None, None, None);
        if let Some(Event::Revocation(RevocationEvent::Began(began))) = began.map(|recorded| recorded.event) {
            matched = began.matched;
            schedule = began.schedule;
            credentials = began.credentials;
        }
        let ended = match revocation.ended_at {
            Some(_) => self.reader.event(revocation.head.position).await?,
            None => None,
        };
        if let Some(Event::Revocation(RevocationEvent::Ended(ended))) =
            ended.map(|entry| entry.recorded.event)
        {
            streams_closed = ended.streams_closed;
        }
        let schedule = schedule.and_then(|number| {
            let stream = StreamId { kind: StreamKind::Schedule, number };
            self.gate.known().any_stream(stream).map(AnyStream::id)
        });
        let wanted = self.wanted(&revocation.filter).await?;
        Ok(Progress { wanted, actor, matched, streams_closed, schedule, credentials, revocation })
    }

    /// Wakes the worker, in case a wake-up was dropped.
    pub fn wake_revocations(&self) {
        self.revocations.wake.notify_one();
    }

    /// How many revocations have begun and not ended.
    pub fn unfinished_revocations(&self) -> usize {
        self.gate.known().revocations.len()
    }

    /// The worker: carries out every unfinished revocation, side by side, until it is told to stop.
    pub async fn run_revocations(&self, stopping: CancellationToken) {
        let mut running = FuturesUnordered::new();
        let mut begun = HashSet::new();
        loop {
            let unfinished: Vec<_> = self.gate.known().revocations.values().cloned().collect();
            // One that is in force in memory only, for want of disk space, has no log to end anything in. The committer
            // records it when it can; then it comes again under a number of its own.
            for revocation in unfinished.into_iter().filter(|revocation| !revocation.is_provisional()) {
                if begun.insert(revocation.number) {
                    running.push(async move {
                        (revocation.number, revocation.id, self.carry_out(&revocation).await)
                    });
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.revocations.wake.notified() => {}
                Some((number, id, outcome)) = running.next() => match outcome {
                    Ok(()) => {
                        begun.remove(&number);
                    }
                    Err(error) => {
                        // The next wake-up tries it again; the scheduler sees to it that there is one.
                        tracing::error!(?error, revocation = number.0, "a revocation could not go on");
                        begun.remove(&number);
                        // It goes on, but nobody should wait for what may take until somebody empties a disk.
                        match error {
                            Error::Busy => {}
                            Error::DiskFull => self.tell(id, || Err(Error::DiskFull)),
                            error => self.tell(id, || Err(Error::Internal(error.to_string()))),
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// The request behind a revocation, as its first event tells: the events it comes to name it too.
    async fn cause(&self, revocation: &Revocation) -> Result<Origin, Error> {
        let began = self.reader.event(revocation.fence).await?.map(|entry| entry.recorded);
        Ok(began.map_or_else(Origin::system, |began| Origin {
            request_id: began.request_id,
            traceparent: began.traceparent,
            ..Origin::system()
        }))
    }

    /// Ends what one revocation covers. Anything may have happened before: it looks at what is left.
    async fn carry_out(&self, revocation: &Revocation) -> Result<(), Error> {
        let cause = self.cause(revocation).await?;
        let covered = self.gate.known().covered_since_it_began(revocation);
        let mut landing = Vec::new();
        for chunk in covered.chunks(CHUNK) {
            let end = SessionEnd::Disconnect(revocation.reason);
            let ends = chunk.iter().map(|number| (*number, end.clone())).collect();
            let ending = EndSessions { ends, revocation: Some(revocation.number) };
            landing.push(self.committer.submit(cause.clone(), ending).await?);
        }
        join_all(landing.iter().map(Answer::landed)).await;
        // Only now: whoever woke the worker may have been ahead of the committer, which cuts off and then goes on.
        let streams_closed = self.gate.known().cut_off_by(revocation.number);
        let end = EndRevocation { number: revocation.number, streams_closed };
        let ended = self.committer.submit(cause, end).await?.outcome;
        metrics::counter!(meter::REVOKED).increment(ended.disconnected_count);
        self.tell(revocation.id, || Ok(ended.disconnected_count));
        Ok(())
    }
}

/// A revocation that is to begin, with nothing else in its transaction.
pub(super) fn beginning(
    organization: OrganizationNumber,
    filter: Filter,
    reason: Reason,
    note: Option<String>,
) -> Result<BeginRevocation, Error> {
    // Somebody is to be cut off: too many words about why do not keep that from happening.
    let note = note.map(|note| shown::cut(note, LONGEST_NOTE));
    let id = secret::new_id();
    let bar = Bar::default();
    Ok(BeginRevocation { id, organization, filter, reason, note, bar, disable: None, schedule: None })
}

/// That the words of a plan, which somebody can say again, are short enough.
pub(super) fn check_note(note: Option<&str>) -> Result<(), Error> {
    if note.is_some_and(|note| note.chars().count() > LONGEST_NOTE) {
        return Err(Error::field("reason", format!("reason must be at most {LONGEST_NOTE} characters")));
    }
    Ok(())
}
