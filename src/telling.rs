//! Who is behind sessions and events, by name, and who ended a session and why. Events hold numbers and ids and no names,
//! because what is personal can be erased: names are looked up when something is told, a page at a time, with as many
//! questions to the store as there are kinds of things to ask for. Who may be told which name is judged by
//! [`Acquaintance`] alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::admission_hook::AdmissionHook;
use sessiond_core::api_key::ApiKey;
use sessiond_core::application::Application;
use sessiond_core::bar::BarEvent;
use sessiond_core::end_story::{End, EndedBy, EnderKind, RevokedWith};
use sessiond_core::event::{Event, Recorded};
use sessiond_core::ids::{OrganizationNumber, Position, PrincipalNumber, RevocationNumber, SessionNumber};
use sessiond_core::reason::Reason;
use sessiond_core::relation::Acquaintance;
use sessiond_core::revocation::{RevocationBegan, RevocationEvent};
use sessiond_core::schedule::Schedule;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::Session;
use sessiond_core::session::event::SessionEvent;
use sessiond_core::streams::AnyEvent;
use sessiond_store::{Addressed, Detail, Entry, Store, StoreError};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::gate::Gate;

/// Whom something belongs to; by name for readers who may read principals, unless that is unknown or was erased.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = NamedPrincipal)]
pub struct PersonNamed {
    pub id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub email: Option<String>,
}

/// Who ended a session.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EndedByBody {
    #[schema(value_type = String)]
    kind: EnderKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
}

impl From<EndedBy> for EndedByBody {
    fn from(by: EndedBy) -> Self {
        let EndedBy { kind, id, name } = by;
        Self { kind, id, name }
    }
}

/// How a session ended, as the reader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTold {
    pub by: EndedBy,
    /// One sentence for people.
    pub why: String,
}

/// What is told of an event beyond what it says itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventTold {
    /// What whoever did it is called.
    pub actor_name: Option<String>,
    pub principal: Option<PersonNamed>,
    pub hostname: Option<String>,
    /// The client's own name.
    pub client: Option<String>,
    pub end: Option<EndTold>,
}

/// Looks up who is who.
#[derive(Clone)]
pub struct Telling {
    store: Arc<dyn Store>,
    gate: Arc<Gate>,
}

/// Principals by number, with what all of them are called.
#[derive(Default)]
pub struct People(HashMap<PrincipalNumber, PersonNamed>);

/// The event that ended a session, with the first one of the revocation that did it.
#[derive(Clone)]
struct EndOnRecord {
    organization: OrganizationNumber,
    actor: Actor,
    message: Option<String>,
    revocation: Option<(Actor, Box<RevocationBegan>)>,
}

/// Who sessions belong to and how those that have ended did, for any reader.
pub struct SessionsTold {
    pub people: People,
    ends: HashMap<Position, EndOnRecord>,
}

/// What is needed of a session to tell about it.
struct SessionFacts {
    principal: PrincipalNumber,
    hostname: Option<String>,
    client: Option<String>,
    /// Of one that has ended.
    ended: Option<(Session, Detail)>,
}

/// What events are about, for any reader.
pub struct EventsTold {
    sessions: HashMap<SessionNumber, SessionFacts>,
    about: SessionsTold,
}

impl Telling {
    pub fn new(store: Arc<dyn Store>, gate: Arc<Gate>) -> Self {
        Self { store, gate }
    }

    /// Looks up principals by number.
    pub async fn people(&self, numbers: BTreeSet<PrincipalNumber>) -> Result<People, StoreError> {
        let numbers: Vec<_> = numbers.into_iter().collect();
        let rows = self.store.principals_numbered(&numbers).await?.into_iter();
        let named = rows.map(|row| {
            let id = row.principal.id();
            (row.principal.number, PersonNamed { id, name: row.name, email: row.email })
        });
        Ok(People(named.collect()))
    }

    /// Looks up whose sessions these are, and how those that have ended did.
    pub async fn sessions(
        &self,
        sessions: impl Iterator<Item = &Session> + Clone,
    ) -> Result<SessionsTold, StoreError> {
        let mut principals: BTreeSet<_> = sessions.clone().map(|session| session.principal).collect();
        // Nothing happens to a session after its end.
        let ended = sessions.filter(|session| session.ended.is_some());
        let ends = self.ends(ended.map(|session| session.head.position).collect()).await?;
        principals.extend(ends.values().filter_map(|end| self.person_behind(end)));
        Ok(SessionsTold { people: self.people(principals).await?, ends })
    }

    /// Looks up what events are about and who did them.
    pub async fn events(&self, events: &[&Addressed]) -> Result<EventsTold, StoreError> {
        let numbers: BTreeSet<_> = events.iter().filter_map(|event| event.session()).collect();
        let mut sessions = HashMap::new();
        let mut ended = vec![];
        {
            let known = self.gate.known();
            for number in numbers {
                let Some(session) = known.session(number) else {
                    ended.push(number);
                    continue;
                };
                let facts = known.facts(number);
                let (hostname, client) = (facts.hostname.map(str::to_owned), facts.client.map(str::to_owned));
                let principal = session.principal;
                sessions.insert(number, SessionFacts { principal, hostname, client, ended: None });
            }
        }
        for row in self.store.sessions(&ended).await? {
            let (principal, detail) = (row.session.principal, row.detail);
            let (hostname, client) = (detail.hostname.clone(), detail.client.clone());
            let ended = row.session.ended.is_some().then(|| (row.session.clone(), detail));
            sessions.insert(row.session.number, SessionFacts { principal, hostname, client, ended });
        }
        let disconnected = events.iter().filter(|event| ends_session(&event.entry.recorded.event));
        let ends = self.ends(disconnected.map(|event| event.entry.recorded.position).collect()).await?;
        let mut principals: BTreeSet<_> = sessions.values().map(|facts| facts.principal).collect();
        principals.extend(ends.values().filter_map(|end| self.person_behind(end)));
        principals.extend(events.iter().filter_map(|event| barred(&event.entry.recorded.event)));
        let actors = events.iter().map(|event| &event.entry.recorded);
        principals.extend(actors.filter_map(|event| self.person(event.organization, event.actor)));
        let about = SessionsTold { people: self.people(principals).await?, ends };
        Ok(EventsTold { sessions, about })
    }

    /// The principal who is an actor.
    fn person(&self, organization: OrganizationNumber, actor: Actor) -> Option<PrincipalNumber> {
        let person = (actor.kind == ActorKind::User).then_some(actor.id)?;
        self.gate.known().principal_by_id(organization, person)
    }

    fn person_behind(&self, end: &EndOnRecord) -> Option<PrincipalNumber> {
        self.person(end.organization, end.actor())
    }

    /// Looks up who began revocations, and how.
    pub async fn beginnings(
        &self,
        revocations: &[RevocationNumber],
    ) -> Result<HashMap<RevocationNumber, (Actor, Box<RevocationBegan>)>, StoreError> {
        Ok(self.store.beginnings(revocations).await?.into_iter().filter_map(began).collect())
    }

    /// What is on record of the ends at these positions.
    async fn ends(&self, positions: Vec<Position>) -> Result<HashMap<Position, EndOnRecord>, StoreError> {
        let events = self.store.events(&positions).await?;
        let revocations: BTreeSet<RevocationNumber> =
            events.iter().filter_map(|entry| entry.recorded.revocation).collect();
        let began = self.beginnings(&revocations.into_iter().collect::<Vec<_>>()).await?;
        let on_record = events.into_iter().map(|entry| {
            let Recorded { position, organization, actor, revocation, event, .. } = entry.recorded;
            let message = match event {
                Event::Session(SessionEvent::Disconnected(body)) => body.message,
                _ => None,
            };
            let revocation = revocation.and_then(|number| began.get(&number).cloned());
            (position, EndOnRecord { organization, actor, message, revocation })
        });
        Ok(on_record.collect())
    }

    /// Looks up whoever did something, and principals beside them.
    pub async fn actors(
        &self,
        organization: OrganizationNumber,
        actors: &[Actor],
        principals: impl Iterator<Item = PrincipalNumber>,
    ) -> Result<People, StoreError> {
        let people = actors.iter().filter_map(|actor| self.person(organization, *actor));
        self.people(people.chain(principals).collect()).await
    }

    /// What an actor is called, as far as the reader may know.
    pub fn actor_name(
        &self,
        (organization, actor): (OrganizationNumber, Actor),
        people: &People,
        reader: Acquaintance,
    ) -> Option<String> {
        if let Some(number) = self.person(organization, actor) {
            return people.called(number, reader);
        }
        let known = self.gate.known();
        match actor.kind {
            ActorKind::ServiceAccount => {
                known.stream_by_id::<ServiceAccount>(actor.id).map(|one| one.name.clone())
            }
            ActorKind::Application => known.stream_by_id::<Application>(actor.id).map(|one| one.name.clone()),
            ActorKind::ApiKey => known.stream_by_id::<ApiKey>(actor.id).map(|one| one.name.clone()),
            ActorKind::Hook => known.stream_by_id::<AdmissionHook>(actor.id).map(|one| one.name.clone()),
            ActorKind::User | ActorKind::Session | ActorKind::Operator | ActorKind::System => None,
        }
    }

    /// What a reader is told of a session's principal.
    pub fn principal(&self, number: PrincipalNumber, people: &People, reader: Acquaintance) -> PersonNamed {
        people.shown(number, reader).unwrap_or_else(|| PersonNamed {
            id: self.gate.known().principal_id(number),
            ..PersonNamed::default()
        })
    }

    /// What a reader is told of how a session ended.
    pub fn end(
        &self,
        session: &Session,
        detail: &Detail,
        told: &SessionsTold,
        reader: Acquaintance,
    ) -> Option<EndTold> {
        let ended = session.ended?;
        let on_record = told.ends.get(&session.head.position)?;
        let by = self.ended_by(ended.reason, on_record, &told.people, reader);
        let revoked_with = on_record
            .revocation
            .as_ref()
            .map(|(_, began)| RevokedWith { filter: &began.filter, note: began.note.as_deref() });
        let why = End {
            reason: ended.reason,
            by: &by,
            at: ended.at,
            revoked_with,
            message: on_record.message.as_deref(),
            last_active_at: session.last_active_at,
            token_expires_at: session.expiry(),
            hostname: detail.hostname.as_deref(),
            client: detail.client.as_deref(),
            resource: session.resource.as_deref(),
        }
        .sentence();
        Some(EndTold { by, why })
    }

    /// Who ended a session, and of a scheduled revocation which one.
    fn ended_by(&self, reason: Reason, end: &EndOnRecord, people: &People, reader: Acquaintance) -> EndedBy {
        if let Some(number) = end.revocation.as_ref().and_then(|(_, began)| began.schedule) {
            let known = self.gate.known();
            let schedule = known.stream::<Schedule>(number);
            return EndedBy {
                kind: EnderKind::Schedule,
                id: schedule.map(|one| one.id),
                name: schedule.map(|one| one.name.clone()),
            };
        }
        let actor = end.actor();
        let kind = EnderKind::of(reason, actor.kind);
        if matches!(kind, EnderKind::Policy | EnderKind::System | EnderKind::Operator) {
            return EndedBy { kind, id: None, name: None };
        }
        EndedBy { kind, id: Some(actor.id), name: self.actor_name((end.organization, actor), people, reader) }
    }

    /// What a reader is told of an event.
    pub fn event(&self, event: &Addressed, told: &EventsTold, reader: Acquaintance) -> EventTold {
        let recorded = &event.entry.recorded;
        let actor_name = self.actor_name((recorded.organization, recorded.actor), &told.about.people, reader);
        let Some(facts) = event.session().and_then(|number| told.sessions.get(&number)) else {
            let barred = barred(&recorded.event);
            let principal = barred.map(|number| self.principal(number, &told.about.people, reader));
            return EventTold { actor_name, principal, ..EventTold::default() };
        };
        let ended = facts.ended.as_ref().filter(|_| ends_session(&recorded.event));
        EventTold {
            actor_name,
            principal: Some(self.principal(facts.principal, &told.about.people, reader)),
            hostname: facts.hostname.clone(),
            client: facts.client.clone(),
            end: ended.and_then(|(session, detail)| self.end(session, detail, &told.about, reader)),
        }
    }

    /// What whoever began something is called.
    pub async fn named(
        &self,
        organization: OrganizationNumber,
        actor: Actor,
        reader: Acquaintance,
    ) -> Result<Option<String>, StoreError> {
        let people = self.actors(organization, &[actor], std::iter::empty()).await?;
        Ok(self.actor_name((organization, actor), &people, reader))
    }
}

impl EndOnRecord {
    /// Who did it: whoever began the revocation, if it was one, and not the worker that carried it out.
    fn actor(&self) -> Actor {
        self.revocation.as_ref().map_or(self.actor, |(actor, _)| *actor)
    }
}

impl People {
    /// What a reader is told of a principal.
    pub fn shown(&self, number: PrincipalNumber, reader: Acquaintance) -> Option<PersonNamed> {
        let person = self.0.get(&number)?;
        Some(match reader.knows(number) {
            true => person.clone(),
            false => PersonNamed { id: person.id, ..PersonNamed::default() },
        })
    }

    /// The one word for a person: the name, else the e-mail address.
    fn called(&self, number: PrincipalNumber, reader: Acquaintance) -> Option<String> {
        let shown = self.shown(number, reader)?;
        shown.name.or(shown.email)
    }
}

/// Whom an event bars.
fn barred(event: &Event) -> Option<PrincipalNumber> {
    match event {
        Event::Stream(AnyEvent::Bar(BarEvent::Placed(placed))) => Some(placed.principal),
        _ => None,
    }
}

fn ends_session(event: &Event) -> bool {
    matches!(event, Event::Session(SessionEvent::Disconnected(_)))
}

/// A revocation's number with who began it and how.
fn began(entry: Entry) -> Option<(RevocationNumber, (Actor, Box<RevocationBegan>))> {
    let Recorded { revocation, actor, event, .. } = entry.recorded;
    match event {
        Event::Stream(AnyEvent::Revocation(RevocationEvent::Began(began))) => {
            Some((revocation?, (actor, began)))
        }
        _ => None,
    }
}
