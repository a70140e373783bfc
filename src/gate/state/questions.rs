//! What the Gate is asked: who and what there is, and which open sessions fit. Who is kept out is in `bars`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::api_key::ApiKey;
use sessiond_core::application::Application;
use sessiond_core::filter::{Facts, Filter};
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, PrincipalNumber, RevocationNumber, ServiceAccountNumber,
    SessionNumber, StreamId, StreamKind,
};
use sessiond_core::kind::Kind;
use sessiond_core::natural_key::KeyDigest;
use sessiond_core::organization::{Issuer, Organization};
use sessiond_core::principal::Standing;
use sessiond_core::revocation::Revocation;
use sessiond_core::scope::Scopes;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::Session;
use sessiond_core::session::event::Counts;
use sessiond_core::status::{DerivedStatus, derived_status};
use sessiond_core::streams::{AnyStream, Registered};
use sessiond_core::token::{AccessToken, SessionToken};
use uuid::Uuid;

use super::{GateState, Open};
use crate::gate::ordered::By;
use crate::gate::{Client, Seen, Summary, index};

/// What sessions are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Connected,
    LastActive,
    Expires,
}

/// A part of an ordered list.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    pub order: Order,
    pub descending: bool,
    /// Only what comes after this one: what it is ordered by, and its number.
    pub after: Option<(Time, SessionNumber)>,
    pub limit: usize,
}

impl Slice {
    /// Whether something at this place comes after where the slice begins.
    fn is_after(&self, place: (Time, SessionNumber)) -> bool {
        self.after.is_none_or(|after| if self.descending { place < after } else { place > after })
    }
}

impl GateState {
    pub fn organization_id(&self, number: OrganizationNumber) -> Uuid {
        self.stream::<Organization>(number).map_or(Uuid::nil(), |organization| organization.id)
    }

    pub fn application_id(&self, number: ApplicationNumber) -> Uuid {
        self.stream::<Application>(number).map_or(Uuid::nil(), |application| application.id)
    }

    pub fn application(&self, id: Uuid) -> Option<&Application> {
        self.stream_by_id(id)
    }

    /// The client id of an application or service account.
    pub fn client_id(&self, actor: Actor) -> Option<String> {
        match actor.kind {
            ActorKind::Application => self.application(actor.id).map(|one| one.oauth.client_id.clone()),
            ActorKind::ServiceAccount => {
                self.stream_by_id::<ServiceAccount>(actor.id).map(|one| one.client_id.clone())
            }
            _ => None,
        }
    }

    pub fn client(&self, client_id: &str) -> Option<Client> {
        self.clients.get(client_id).copied()
    }

    /// An open session by number.
    pub fn session(&self, number: SessionNumber) -> Option<&Session> {
        self.sessions.get(&number).map(|open| &open.session)
    }

    /// An open session with its token and its latest sign of life.
    pub fn seen(&self, number: SessionNumber) -> Option<Seen> {
        self.sessions.get(&number).map(|open| Seen {
            session: open.session.clone(),
            seen_at: open.seen_at(),
            token: open.token,
        })
    }

    /// The current token of an open session.
    pub fn session_token(&self, number: SessionNumber) -> Option<SessionToken> {
        self.sessions.get(&number).and_then(|open| open.token)
    }

    /// What of an open session's traffic is not in the log yet.
    pub fn unwritten(&self, number: SessionNumber) -> Counts {
        let flight = self.sessions.get(&number).and_then(|open| open.flight.get());
        flight.map_or_else(Counts::default, |flight| flight.tally.read())
    }

    /// Whether a request or stream of the session is under way.
    pub fn busy(&self, number: SessionNumber) -> bool {
        self.sessions.get(&number).is_some_and(|open| open.busy())
    }

    /// The number of an open session.
    pub fn session_number(&self, id: Uuid) -> Option<SessionNumber> {
        self.by_id.get(&id).copied()
    }

    /// The hash of the open session's `Mcp-Session-Id`.
    pub fn mcp_hash(&self, number: SessionNumber) -> Option<[u8; 32]> {
        self.sessions.get(&number).and_then(|open| open.mcp_hash)
    }

    /// The open session that holds a natural key.
    pub fn holder(&self, key: &KeyDigest) -> Option<&Session> {
        self.by_key.get(key).and_then(|number| self.session(*number))
    }

    pub fn access_token(&self, id: Uuid) -> Option<&AccessToken> {
        self.access_tokens.get(&id)
    }

    /// The access tokens that were issued to a service account. Looks at all there are.
    pub fn access_tokens_of(&self, account: ServiceAccountNumber) -> impl Iterator<Item = &AccessToken> {
        self.access_tokens
            .values()
            .filter(move |token| token.client_kind == ActorKind::ServiceAccount && token.client == account.0)
    }

    /// How many principals an organization knows.
    pub fn principals_in(&self, organization: OrganizationNumber) -> usize {
        self.met.get(&organization).copied().unwrap_or(0)
    }

    pub fn principal(&self, organization: OrganizationNumber, digest: &[u8; 32]) -> Option<PrincipalNumber> {
        self.principals.get(&(organization, *digest)).copied()
    }

    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is a revocation that is not finished.
    pub fn is_revoking(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// The unfinished revocation that covers an open session.
    pub fn covering(&self, session: &Session) -> Option<&Revocation> {
        if self.unfinished.is_empty() {
            return None;
        }
        let facts = self.facts(session.number);
        self.streams::<Revocation>().find(|revocation| revocation.covers(session, &facts))
    }

    /// What a filter asks of an open session beyond its fold.
    pub fn facts(&self, number: SessionNumber) -> Facts<'_> {
        self.sessions.get(&number).map(|open| open.facts()).unwrap_or_default()
    }

    /// The sessions that an unfinished revocation is to end: those that it covered when it began, some of which may have
    /// ended since. Of one that was begun by the process before, those that it covers now.
    pub fn covered_since_it_began(&self, revocation: &Revocation) -> Arc<[SessionNumber]> {
        let begun = self.coverage.lock().get(&revocation.number).map(|coverage| coverage.sessions.clone());
        begun.unwrap_or_else(|| self.covered(revocation).into())
    }

    /// The open sessions that a revocation covers, by number.
    pub fn covered(&self, revocation: &Revocation) -> Vec<SessionNumber> {
        let covers = |number: &SessionNumber| {
            let open = self.sessions.get(number);
            open.is_some_and(|open| revocation.covers(&open.session, &open.facts()))
        };
        if let Some(number) = revocation.filter.session {
            return Some(number).filter(covers).into_iter().collect();
        }
        let applications = self.applications_of(revocation.organization, &revocation.filter);
        let sets = self.index.candidates(&revocation.filter, &applications, false);
        index::ascending(sets, None).filter(covers).collect()
    }

    /// The applications of an organization in which something can fit a filter, archived ones too.
    fn applications_of(&self, organization: OrganizationNumber, filter: &Filter) -> Vec<ApplicationNumber> {
        let own = |number: &ApplicationNumber| {
            self.stream::<Application>(*number).is_some_and(|one| one.organization == organization)
                && (filter.applications.is_empty() || filter.applications.contains(number))
        };
        match filter.application {
            Some(number) => Some(number).filter(own).into_iter().collect(),
            None => self.streams::<Application>().map(|one| one.number).filter(own).collect(),
        }
    }

    /// A slice of the open sessions that fit a filter, in order, with what they are ordered by.
    pub fn page(
        &self,
        organization: OrganizationNumber,
        filter: &Filter,
        slice: &Slice,
        now: Time,
    ) -> Vec<(Time, SessionNumber)> {
        let now = now.max(self.looked_at);
        let applications = self.applications_of(organization, filter);
        let sets = match filter.session {
            Some(_) => vec![],
            None => self.index.candidates(filter, &applications, true),
        };
        let place = |number: SessionNumber| {
            let open = self.sessions.get(&number)?;
            let fits =
                open.session.organization == organization && filter.fits(&open.session, &open.facts(), now);
            fits.then(|| (open.ordered_by(slice.order), number)).filter(|place| slice.is_after(*place))
        };
        match (slice.order, filter.session) {
            (_, Some(number)) => place(number).into_iter().collect(),
            (Order::Connected, None) => {
                let after = slice.after.map(|(_, number)| number);
                if slice.descending {
                    index::descending(sets, after).filter_map(place).take(slice.limit).collect()
                } else {
                    index::ascending(sets, after).filter_map(place).take(slice.limit).collect()
                }
            }
            (Order::LastActive | Order::Expires, None) => {
                let fitting: usize = sets.iter().map(|set| set.len()).sum();
                let ordered = self.walk_in_order(&applications, slice, fitting);
                let numbers: Box<dyn Iterator<Item = SessionNumber>> = match ordered {
                    Some(walk) => {
                        Box::new(walk.filter_map(place).take(slice.limit).map(|(_, number)| number))
                    }
                    None => Box::new(sets.into_iter().flatten().copied()),
                };
                // Also those that were walked to: what was seen since has moved.
                let places = numbers.filter_map(place);
                if slice.descending {
                    least(places.map(Reverse), slice.limit).into_iter().map(|Reverse(place)| place).collect()
                } else {
                    least(places, slice.limit)
                }
            }
        }
    }

    /// The open sessions of applications in order, where that is less to look at than all that may fit a filter: on the
    /// way to a whole page of them lie, each time, as many others as there are more of those.
    fn walk_in_order<'a>(
        &'a self,
        applications: &[ApplicationNumber],
        slice: &Slice,
        fitting: usize,
    ) -> Option<impl Iterator<Item = SessionNumber> + use<'a>> {
        let by = match slice.order {
            Order::LastActive => By::Activity,
            Order::Expires => By::Expiry,
            Order::Connected => return None,
        };
        let all = self.ordered.len(applications);
        let pays = slice.limit.saturating_mul(all) < fitting.saturating_mul(fitting);
        pays.then(|| self.ordered.walk(applications, by, slice.descending, slice.after))
    }

    /// How many open sessions of an organization fit a filter, by status. Without more than an application, a kind and
    /// statuses to ask for, nothing is looked at one by one.
    pub fn count(&self, organization: OrganizationNumber, filter: &Filter, now: Time) -> Summary {
        let now = now.max(self.looked_at);
        let applications = self.applications_of(organization, filter);
        let plain = Filter {
            application: filter.application,
            kind: filter.kind,
            status: filter.status.clone(),
            ..Filter::default()
        };
        let mut counts = [0; 3];
        if *filter == plain {
            for (count, status) in
                counts.iter_mut().zip(DerivedStatus::OPEN).filter(|(_, status)| filter.has_status(*status))
            {
                *count = applications.iter().map(|one| self.index.count(*one, status, filter.kind)).sum();
            }
        } else {
            let sets = self.index.candidates(filter, &applications, true);
            for open in sets.into_iter().flatten().filter_map(|number| self.sessions.get(number)) {
                if filter.fits(&open.session, &open.facts(), now) {
                    let status = derived_status(&open.session, open.seen_at(), now);
                    if let Some(count) = DerivedStatus::OPEN.iter().position(|one| *one == status) {
                        counts[count] += 1;
                    }
                }
            }
        }
        let [active, idle, expired] = counts;
        let total = applications.iter().filter_map(|number| self.totals.get(number)).sum();
        Summary { active, idle, expired, total }
    }

    /// How many requests and streams an unfinished revocation cut off when it began.
    pub fn cut_off_by(&self, revocation: RevocationNumber) -> u64 {
        self.coverage.lock().get(&revocation).map_or(0, |coverage| coverage.cut_off)
    }

    /// The same of every unfinished revocation that is on record, as far as it cut off anything.
    pub fn all_cut_off(&self) -> Vec<(RevocationNumber, u64)> {
        let on_record = |number: &RevocationNumber| {
            self.stream::<Revocation>(*number).is_some_and(|revocation| !revocation.is_provisional())
        };
        let coverage = self.coverage.lock();
        let some = coverage.iter().filter(|(number, one)| one.cut_off > 0 && on_record(number));
        some.map(|(number, one)| (*number, one.cut_off)).collect()
    }

    // ---- limits ----

    /// How many sessions an application has open.
    pub fn open_of_application(&self, application: ApplicationNumber) -> u64 {
        self.index.open(application)
    }

    /// How many sessions a principal has open in an application.
    pub fn count_of_principal(&self, application: ApplicationNumber, principal: PrincipalNumber) -> u64 {
        self.index.count_of_principal(application, principal)
    }

    /// The open sessions of a principal in an application.
    pub fn open_of_principal(
        &self,
        application: ApplicationNumber,
        principal: PrincipalNumber,
    ) -> impl Iterator<Item = SessionNumber> {
        self.index.of_principal(application, principal)
    }

    /// Open sessions of an application with a status as filed, oldest first.
    pub fn standing(
        &self,
        application: ApplicationNumber,
        status: DerivedStatus,
    ) -> impl Iterator<Item = SessionNumber> {
        self.index.standing(application, status)
    }

    // ---- streams of the directory ----

    pub fn any_stream(&self, stream: StreamId) -> Option<&AnyStream> {
        self.streams.get(&stream)
    }

    pub fn any_stream_by_id(&self, id: Uuid) -> Option<&AnyStream> {
        self.streams_by_id.get(&id).and_then(|stream| self.streams.get(stream))
    }

    /// Every stream of one kind, oldest first.
    pub fn any_streams(&self, kind: StreamKind) -> impl DoubleEndedIterator<Item = &AnyStream> {
        let stream = |number| StreamId { kind, number };
        self.streams.range(stream(i64::MIN)..=stream(i64::MAX)).map(|(_, one)| one)
    }

    pub fn stream<S: Registered>(&self, number: impl Into<i64>) -> Option<&S> {
        S::of(self.any_stream(StreamId { kind: S::KIND, number: number.into() })?)
    }

    pub fn stream_by_id<S: Registered>(&self, id: Uuid) -> Option<&S> {
        S::of(self.any_stream_by_id(id)?)
    }

    /// All of one kind, oldest first.
    pub fn streams<S: Registered>(&self) -> impl DoubleEndedIterator<Item = &S> {
        self.any_streams(S::KIND).filter_map(S::of)
    }

    pub fn standing_of(&self, principal: PrincipalNumber) -> Option<&Standing> {
        self.stream(principal)
    }

    /// Whether a principal was disabled.
    pub fn disabled(&self, principal: PrincipalNumber) -> bool {
        self.standing_of(principal).is_some_and(|standing| standing.disabled_at.is_some())
    }

    /// What the API keys of a person open together.
    pub fn rights_of_keys(&self, person: PrincipalNumber) -> Scopes {
        let keys =
            self.streams::<ApiKey>().filter(|key| key.principal == Some(person) && key.revoked_at.is_none());
        let scopes = keys.flat_map(|key| Scopes::parse(&key.scopes).0.iter().collect::<Vec<_>>());
        scopes.fold(Scopes::default(), Scopes::with)
    }

    /// The public id of a principal.
    pub fn principal_id(&self, number: PrincipalNumber) -> Uuid {
        self.principal_ids.get(&number).copied().unwrap_or_default()
    }

    /// The number of a principal by its public id.
    pub fn principal_by_id(&self, organization: OrganizationNumber, id: Uuid) -> Option<PrincipalNumber> {
        self.principals_by_id.get(&(organization, id)).copied()
    }

    /// The access tokens by which an open session was last kept alive.
    pub fn presented(&self, number: SessionNumber) -> Vec<Uuid> {
        let Some(open) = self.sessions.get(&number) else { return vec![] };
        open.presented.into_iter().chain(open.session.credential).collect()
    }

    /// How many sessions of an application are what, and how many there ever were.
    pub fn summary(&self, application: ApplicationNumber) -> Summary {
        let [active, idle, expired] =
            DerivedStatus::OPEN.map(|status| self.index.count(application, status, None));
        Summary { active, idle, expired, total: self.totals.get(&application).copied().unwrap_or(0) }
    }

    /// How many sessions of a kind an application has open.
    pub fn open_of_kind(&self, application: ApplicationNumber, kind: Kind) -> u64 {
        DerivedStatus::OPEN.into_iter().map(|status| self.index.count(application, status, Some(kind))).sum()
    }

    /// What organizations say of an issuer, by its exact name.
    pub fn issuers(&self, name: &str) -> impl Iterator<Item = (&Organization, &Issuer)> {
        let trusting = self.trusting.get(name).map(Vec::as_slice).unwrap_or_default();
        let organizations = trusting.iter().filter_map(|number| self.stream::<Organization>(*number));
        organizations.flat_map(move |organization| {
            let own = organization.issuers.iter().filter(move |issuer| issuer.issuer == name);
            own.map(move |issuer| (organization, issuer))
        })
    }
}

impl Open {
    fn ordered_by(&self, order: Order) -> Time {
        match order {
            Order::Connected => self.session.connected_at,
            Order::LastActive => self.last_active_at(),
            Order::Expires => self.session.token_expires_at,
        }
    }
}

/// The least `limit` of what there is, in order.
fn least<Place: Ord>(places: impl Iterator<Item = Place>, limit: usize) -> Vec<Place> {
    let mut heap = BinaryHeap::with_capacity(limit + 1);
    for place in places {
        heap.push(place);
        if heap.len() > limit {
            heap.pop();
        }
    }
    heap.into_sorted_vec()
}
