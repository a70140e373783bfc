//! Revocations: who may begin which, and how they stand. The request records that one began, which closes the Gate for what
//! it covers; how it is carried out is in `revocation_worker`, what it bars beside sessions in `bar`.

use std::sync::Arc;

use sessiond_core::actor::Actor;
use sessiond_core::application::Application;
use sessiond_core::barring::{BarOptions, Barring};
use sessiond_core::caller::Caller;
use sessiond_core::event::Event;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{OrganizationNumber, PrincipalNumber, StreamId, StreamKind};
use sessiond_core::reason::Reason;
use sessiond_core::relation::MayAct;
use sessiond_core::revocation::{Acknowledged, Revocation, RevocationEnded, RevocationEvent};
use sessiond_core::scope::Scopes;
use sessiond_core::shown;
use sessiond_core::status::DerivedStatus;
use sessiond_core::streams::AnyEvent;
use sessiond_core::streams::AnyStream;
use uuid::Uuid;

use super::bar::{WouldBar, may_bar};
use super::revocation_worker::Worker;
use super::{BarTerms, ListQuery, Queries, SessionQuery, Traffic, View};
use crate::committer::{BeginRevocation, Origin};
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::secret;

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
    /// On how many nodes they have ended; none where there was one process.
    pub nodes: Option<Acknowledged>,
    /// What became of the credentials behind them.
    pub credentials: Option<Barring>,
}

/// What a revocation would come to, at the moment of asking.
pub struct Preview {
    pub matched: u64,
    /// Some of the matched sessions, newest first.
    pub sample: Vec<View>,
    /// What would become of the credentials behind them.
    pub credentials: Barring,
    pub would_bar: WouldBar,
}

/// A revocation as it stands.
pub struct Progress {
    pub revocation: Revocation,
    /// What it covers, in public ids.
    pub filter: SessionQuery,
    /// Who began it.
    pub actor: Actor,
    /// What whoever began it is called, as far as the caller may know.
    pub actor_name: Option<String>,
    /// How many sessions it covered when it began; none for revocations from before this was counted.
    pub matched: Option<u64>,
    /// Requests and streams that it cut off; known when it has ended.
    pub streams_closed: Option<u64>,
    /// On how many nodes what it ended has ended; known when it has.
    pub nodes: Option<Acknowledged>,
    /// The schedule it was a run of.
    pub schedule: Option<Uuid>,
    /// What became of the credentials behind what it covered; none for revocations from before this was noted.
    pub credentials: Option<Barring>,
}

/// Revocations: begun, looked at, carried out.
#[derive(Clone)]
pub struct Revocations {
    pub(super) context: Arc<AppContext>,
    queries: Queries,
    traffic: Traffic,
    pub(super) worker: Arc<Worker>,
}

impl Revocations {
    pub(super) fn new(context: Arc<AppContext>, queries: Queries, traffic: Traffic) -> Self {
        Self { context, queries, traffic, worker: Arc::default() }
    }

    /// Ends every session of an application and bars the agent-side use of every token issued for it before.
    pub async fn revoke_all(
        &self,
        caller: &Caller,
        application: Uuid,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let filter = Filter {
            application: Some(self.context.application_number(caller, application)?),
            ..Filter::default()
        };
        self.revoke(caller, filter, Reason::Revoked, note).await
    }

    /// Ends every session of an application likewise, and archives the application.
    pub async fn archive(&self, caller: &Caller, application: Uuid) -> Result<Revoked, Error> {
        let number = self.context.application_number(caller, application)?;
        let client =
            self.context.gate.known().stream::<Application>(number).map(|one| one.oauth.scopes.join(" "));
        // Its client gets no more tokens, which takes the rights that it has.
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
        bar: BarOptions,
        terms: Option<BarTerms>,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let session = self.context.managed_session(caller, application, id).await?;
        self.revoke_found(caller, &session, bar, terms, note).await
    }

    /// Revokes a session likewise that the caller is known to be allowed to act on, and bars nothing else.
    pub async fn revoke_session(&self, caller: &Caller, session: &MayAct) -> Result<Revoked, Error> {
        self.revoke_found(caller, session, BarOptions::default(), None, None).await
    }

    async fn revoke_found(
        &self,
        caller: &Caller,
        session: &MayAct,
        bar: BarOptions,
        terms: Option<BarTerms>,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let filter = Filter {
            application: Some(session.application),
            session: Some(session.number),
            ..Filter::default()
        };
        may_bar(caller, &filter, bar)?;
        let keep_out = self.may_keep_out(caller, &filter, bar, terms, self.context.clock.now())?;
        if session.ended.is_some() && !caller.repeats() {
            return Ok(Revoked { id: None, disconnected: 0, nodes: None, credentials: None });
        }
        let beginning = BeginRevocation {
            bar,
            keep_out,
            ..beginning(caller.organization, filter, Reason::Revoked, note)?
        };
        self.carry_through(Origin::caller(caller), beginning).await
    }

    /// Ends every session that fits. Where everything of an organization, an application or a principal is meant, their
    /// credentials issued before are barred with it; `bar` says what else is.
    pub async fn revoke_matching(
        &self,
        caller: &Caller,
        query: &SessionQuery,
        bar: BarOptions,
        terms: Option<BarTerms>,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let filter = self.filter_to_revoke(caller, query).await?;
        may_bar(caller, &filter, bar)?;
        let keep_out = self.may_keep_out(caller, &filter, bar, terms, self.context.clock.now())?;
        if filter.moves() {
            // Signs of life that are not in the log yet would be forgotten in a crash, and the filter depends on them.
            self.traffic.flush_all().await;
        }
        let beginning = BeginRevocation {
            bar,
            keep_out,
            ..beginning(caller.organization, filter, Reason::Revoked, note)?
        };
        self.carry_through(Origin::caller(caller), beginning).await
    }

    /// Tells what a revocation would come to now. Changes nothing.
    pub async fn preview(
        &self,
        caller: &Caller,
        query: &SessionQuery,
        bar: BarOptions,
        terms: Option<BarTerms>,
    ) -> Result<Preview, Error> {
        let filter = self.filter_to_revoke(caller, query).await?;
        may_bar(caller, &filter, bar)?;
        let keep_out = self.may_keep_out(caller, &filter, bar, terms, self.context.clock.now())?;
        let (credentials, would_bar) = self.would_bar(caller, &filter, bar, keep_out.as_ref())?;
        let mut filter = query.clone();
        if filter.status.is_empty() {
            filter.status = DerivedStatus::OPEN.to_vec();
        }
        let counts = self.queries.count(caller, &filter, None).await?;
        let query = ListQuery { filter, limit: SAMPLE, ..ListQuery::default() };
        let sample = self.queries.list(caller, &query).await?.items;
        let matched = counts.active + counts.idle + counts.expired;
        Ok(Preview { matched, sample, credentials, would_bar })
    }

    /// Ends everything of a principal, and keeps it out from then on.
    pub(super) async fn keep_out(
        &self,
        caller: &Caller,
        filter: Filter,
        terms: BarTerms,
        note: Option<String>,
    ) -> Result<Revoked, Error> {
        let (bar, now) = (BarOptions::default(), self.context.clock.now());
        let keep_out = self.may_keep_out(caller, &filter, bar, Some(terms), now)?;
        let beginning =
            BeginRevocation { keep_out, ..beginning(caller.organization, filter, Reason::Revoked, note)? };
        self.carry_through(Origin::caller(caller), beginning).await
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
        let number = self.context.gate.known().principal_by_id(caller.organization, id);
        let number = number.ok_or(Error::NotFound(Thing::Principal))?;
        self.check_keys_of(caller, number)?;
        let filter = Filter { principal: Some(number), ..Filter::default() };
        let bar = BarOptions { matched: false, keys: include_keys };
        may_bar(caller, &filter, bar)?;
        let beginning = BeginRevocation {
            bar,
            disable: Some((number, id)),
            ..beginning(caller.organization, filter, Reason::Revoked, note)?
        };
        self.carry_through(Origin::caller(caller), beginning).await
    }

    /// Checks that the caller may end what a person's API keys may do: disabling the person ends it.
    fn check_keys_of(&self, caller: &Caller, person: PrincipalNumber) -> Result<(), Error> {
        Error::unless_may_give(caller.scopes, self.context.gate.known().rights_of_keys(person))
    }

    /// Reads the filter of a revocation: whatever it names must exist, and be open.
    pub(super) async fn filter_to_revoke(
        &self,
        caller: &Caller,
        query: &SessionQuery,
    ) -> Result<Filter, Error> {
        if query.status.contains(&DerivedStatus::Disconnected) {
            let message = "status must not name disconnected: those have ended already";
            return Err(Error::field("status", message));
        }
        if let Some(id) = query.principal {
            let known = self.context.gate.known();
            known.principal_by_id(caller.organization, id).ok_or(Error::NotFound(Thing::Principal))?;
        }
        if let Some(called) = &query.called
            && self.context.principals_called(caller, called).await?.is_empty()
        {
            return Err(nobody_called(called));
        }
        let known_all = {
            let known = self.context.gate.known();
            query.principals.iter().all(|id| known.principal_by_id(caller.organization, *id).is_some())
        };
        if !known_all {
            return Err(Error::NotFound(Thing::Principal));
        }
        self.context.filter(caller, query).await
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

    /// Reads what became of the credentials behind a revocation from its first event.
    pub(super) async fn credentials_of(&self, revocation: &Revocation) -> Result<Option<Barring>, Error> {
        let began = self.context.store.event(revocation.fence).await?.map(|entry| entry.recorded.event);
        Ok(match began {
            Some(Event::Stream(AnyEvent::Revocation(RevocationEvent::Began(began)))) => began.credentials,
            _ => None,
        })
    }

    /// The last event of a revocation, once it is through.
    pub(super) async fn ending_of(&self, revocation: &Revocation) -> Result<Option<RevocationEnded>, Error> {
        if revocation.ended_at.is_none() {
            return Ok(None);
        }
        let last = self.context.store.event(revocation.head.position).await?;
        Ok(match last.map(|entry| entry.recorded.event) {
            Some(Event::Stream(AnyEvent::Revocation(RevocationEvent::Ended(ended)))) => Some(ended),
            _ => None,
        })
    }

    /// Finds a revocation of the organization by its id.
    pub async fn find(&self, caller: &Caller, id: Uuid) -> Result<Progress, Error> {
        self.progress(caller, self.context.revocation(caller, id).await?).await
    }

    /// Lists the organization's revocations, newest first, after one of them; and whether there are more.
    pub async fn list(
        &self,
        caller: &Caller,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<Progress>, bool), Error> {
        let before = match after {
            Some(id) => {
                let last = self.context.store.revocation_by_id(id).await?;
                let last = last.filter(|last| last.organization == caller.organization);
                Some(last.ok_or_else(Error::foreign_cursor)?.number)
            }
            None => None,
        };
        let page = self
            .context
            .store
            .revocations(caller.organization, caller.confined_to, before, limit + 1)
            .await?;
        let more = page.len() > limit as usize;
        let mut items = Vec::with_capacity(page.len());
        for revocation in page.into_iter().take(limit as usize) {
            items.push(self.progress(caller, revocation).await?);
        }
        Ok((items, more))
    }

    async fn progress(&self, caller: &Caller, revocation: Revocation) -> Result<Progress, Error> {
        let began = self.context.store.event(revocation.fence).await?.map(|entry| entry.recorded);
        let actor = began.as_ref().map_or(Actor::SYSTEM, |recorded| recorded.actor);
        let (mut matched, mut schedule, mut credentials) = (None, None, None);
        if let Some(Event::Stream(AnyEvent::Revocation(RevocationEvent::Began(began)))) =
            began.map(|recorded| recorded.event)
        {
            matched = began.matched;
            schedule = began.schedule;
            credentials = began.credentials;
        }
        let ended = self.ending_of(&revocation).await?;
        let nodes = ended.as_ref().map(|ended| ended.nodes.unwrap_or(Acknowledged::ALONE));
        let streams_closed = ended.and_then(|ended| ended.streams_closed);
        let schedule = schedule.and_then(|number| {
            let stream = StreamId { kind: StreamKind::Schedule, number };
            self.context.gate.known().any_stream(stream).map(AnyStream::id)
        });
        let filter = self.context.query_of(&revocation.filter).await?;
        let actor_name =
            self.context.telling.named(caller.organization, actor, caller.acquaintance()).await?;
        Ok(Progress {
            filter,
            actor,
            actor_name,
            matched,
            streams_closed,
            nodes,
            schedule,
            credentials,
            revocation,
        })
    }
}

impl AppContext {
    /// Finds a revocation of the caller's organization by its id.
    pub(super) async fn revocation(&self, caller: &Caller, id: Uuid) -> Result<Revocation, Error> {
        let found = self.store.revocation_by_id(id).await?.filter(|revocation| {
            revocation.organization == caller.organization
                && caller.confined_to.is_none_or(|own| revocation.filter.application == Some(own))
        });
        found.ok_or(Error::NotFound(Thing::Revocation))
    }
}

/// The error for a subject or e-mail address that is nobody's: who mistypes it must not think that somebody is out.
pub(super) fn nobody_called(called: &str) -> Error {
    let message = format!(
        "nobody is called {called:?}, neither by a subject nor by an e-mail address; nothing was done"
    );
    Error::field("principal", message)
}

/// Makes the operation that begins a revocation, with nothing else in its transaction.
pub(super) fn beginning(
    organization: OrganizationNumber,
    filter: Filter,
    reason: Reason,
    note: Option<String>,
) -> Result<BeginRevocation, Error> {
    // A note that is too long is cut and not refused: somebody is to be cut off, and that must not wait for words.
    // Nor for a character that not every database keeps.
    let note = note.map(|note| shown::cut(note.replace('\0', ""), LONGEST_NOTE));
    let id = secret::new_id();
    let bar = BarOptions::default();
    let (keep_out, disable, schedule) = (None, None, None);
    Ok(BeginRevocation { id, organization, filter, reason, note, bar, keep_out, disable, schedule })
}

/// Checks the note of a schedule, which is refused if it is too long: nobody is cut off yet, so it can be said again.
pub(super) fn check_note(note: Option<&str>) -> Result<(), Error> {
    if note.is_some_and(|note| note.chars().count() > LONGEST_NOTE) {
        return Err(Error::field("reason", format!("reason must be at most {LONGEST_NOTE} characters")));
    }
    Ok(())
}
