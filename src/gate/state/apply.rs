//! How changes change the state.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use sessiond_core::bar::{Bar, BarredClient};
use sessiond_core::change::{Change, IndexEntry};
use sessiond_core::ending::Ending;
use sessiond_core::ids::{RevocationNumber, SessionNumber};
use sessiond_core::organization::Organization;
use sessiond_core::principal::CLIENTS_THEMSELVES;
use sessiond_core::revocation::Revocation;
use sessiond_core::session::Session;
use sessiond_core::session::event::Counts;
use sessiond_core::status::{DerivedStatus, derived_status};
use sessiond_core::streams::AnyStream;
use sessiond_core::token::Principal;
use uuid::Uuid;

use super::{Coverage, GateState, Open};
use crate::gate::flight::Flight;
use crate::gate::index::{self, SharedTerms};
use crate::gate::ordered::By;
use crate::gate::{Client, Departed};

impl GateState {
    pub(in crate::gate) fn apply(&mut self, change: Change, cancelled: &mut Vec<Arc<Flight>>) {
        match change {
            Change::Stream(stream) => self.put_stream(stream),
            Change::CredentialsBarred(position, at) => {
                self.barrings.insert(position, at);
            }
            Change::Session(session, _) if session.ended.is_some() => self.end(&session, cancelled),
            Change::Session(session, entry) => self.open(session, entry.unwrap_or_default()),
            Change::SessionToken(number, token) => {
                if let Some(open) = self.sessions.get_mut(&number) {
                    open.token = Some(token);
                }
            }
            Change::McpSession(number, hash) => {
                if let Some(open) = self.sessions.get_mut(&number) {
                    open.mcp_hash = Some(hash);
                }
            }
            Change::AccessToken(token) => {
                self.access_tokens.insert(token.id, token);
            }
            Change::BarAccessToken(id) => {
                if let Some(token) = self.access_tokens.get_mut(&id) {
                    token.barred = true;
                }
            }
            Change::Principal(principal) => self.meet(&principal),
            Change::ApiKeySecret(id, hashes, used_at) => self.key_secrets.learn(id, hashes, used_at),
            Change::ApiKeysUsed(used) => self.key_secrets.recorded(&used),
            Change::ForgetTokens(before) => {
                self.access_tokens.retain(|_, token| token.expires_at >= before);
                self.given_up.retain(|_, expires_at| *expires_at >= before);
            }
            Change::ErasePersonal(sessions) => {
                for number in sessions {
                    let Some(open) = self.sessions.get_mut(&number) else { continue };
                    self.index.remove(&open.session, &open.terms, open.status);
                    open.terms = SharedTerms { name: open.terms.name.take(), ..SharedTerms::default() };
                    self.index.insert(&open.session, &open.terms, open.status);
                }
            }
            Change::RevokeAccessToken(id) => {
                if let Some(token) = self.access_tokens.remove(&id) {
                    self.given_up.insert(id, token.expires_at);
                }
            }
            Change::SessionTotal(application, total) => {
                self.totals.insert(application, total);
            }
            Change::SessionsLetGo(application, count) => {
                let total = self.totals.entry(application).or_default();
                *total = total.saturating_sub(count);
            }
            Change::Presented(number, token) => self.note(number, token),
            Change::SeenAlive(sessions) => self.seen_alive(&sessions),
            Change::ResourceTotals(application, resource, totals) => {
                self.resource_totals.entry(application).or_default().insert(resource, totals);
            }
        }
    }

    /// A stream as it stands now, with what it is found by.
    fn put_stream(&mut self, stream: AnyStream) {
        match &stream {
            AnyStream::Organization(organization) => self.trust_issuers_of(organization),
            AnyStream::Application(application) => {
                let client = Client::Application(application.number);
                self.clients.insert(application.oauth.client_id.clone(), client);
            }
            AnyStream::ServiceAccount(account) => {
                self.clients.insert(account.client_id.clone(), Client::ServiceAccount(account.number));
            }
            AnyStream::Revocation(revocation) if revocation.ended_at.is_some() => {
                return self.forget_revocation(revocation.number);
            }
            AnyStream::Revocation(revocation) => {
                self.unfinished.insert(revocation.number);
            }
            AnyStream::MediaStream(stream) => self.media_streams.put(stream),
            AnyStream::Bar(bar) => self.put_bar(bar),
            AnyStream::Principal(_)
            | AnyStream::ApiKey(_)
            | AnyStream::Schedule(_)
            | AnyStream::Webhook(_)
            | AnyStream::Hook(_)
            | AnyStream::Machine(_) => {}
        }
        if !matches!(stream, AnyStream::Revocation(_)) {
            self.streams_by_id.insert(stream.id(), stream.stream());
        }
        self.streams.insert(stream.stream(), stream);
    }

    fn put_bar(&mut self, bar: &Bar) {
        for barred in bar.barred() {
            let standing = self.bars.entry(barred).or_default();
            match bar.lifted_at {
                None => standing.insert(bar.number),
                Some(_) => standing.remove(&bar.number),
            };
            if standing.is_empty() {
                self.bars.remove(&barred);
            }
        }
    }

    fn trust_issuers_of(&mut self, organization: &Organization) {
        let number = organization.number;
        let before = self.stream::<Organization>(number);
        if before.is_some_and(|before| before.issuers != organization.issuers) {
            self.trusting.retain(|_, trusting| {
                trusting.retain(|one| *one != number);
                !trusting.is_empty()
            });
        }
        for issuer in &organization.issuers {
            let trusting = self.trusting.entry(issuer.issuer.clone()).or_default();
            if !trusting.contains(&number) {
                trusting.push(number);
            }
        }
    }

    fn meet(&mut self, principal: &Principal) {
        let Principal { number, organization, .. } = *principal;
        if self.principals.insert((organization, principal.subject_digest), number).is_none() {
            *self.met.entry(organization).or_default() += 1;
        }
        self.principals_by_id.insert((organization, principal.id()), number);
        self.principal_ids.insert(number, principal.id());
        if principal.issuer == CLIENTS_THEMSELVES
            && let Some(client) = principal.subject.as_deref().and_then(|subject| self.client_named(subject))
        {
            self.own_clients.insert(number, client);
        }
    }

    /// The client that is called so where it is a principal by itself: an OAuth client by its client id, an API key by its id.
    fn client_named(&self, subject: &str) -> Option<BarredClient> {
        self.oauth_client(subject).or_else(|| self.key_client(Uuid::try_parse(subject).ok()?))
    }

    fn open(&mut self, session: Session, entry: IndexEntry) {
        let number = session.number;
        if self.sessions.contains_key(&number) {
            return self.update(session);
        }
        let unannounced = session.expiry().filter(|_| !session.announced());
        self.expiries.extend(unannounced.map(|at| (at, number)));
        self.by_id.insert(session.id, number);
        if let Some(key) = entry.key {
            self.by_key.insert(key, number);
        }
        let terms = self.index.shared(session.application, entry.terms);
        let loaded = entry.loaded_at.map(|at| derived_status(&session, None, at));
        let status = loaded.unwrap_or(DerivedStatus::Active);
        self.index.insert(&session, &terms, status);
        self.ordered.insert(session.application, By::Activity, (session.last_active_at, number));
        self.ordered.insert(session.application, By::Expiry, (session.token_expires_at, number));
        *self.totals.entry(session.application).or_default() += 1;
        let mut open = Open {
            terms,
            status,
            changes_at: index::changes_at(&session, None, status),
            woken: AtomicBool::new(false),
            stands_at: session.last_active_at,
            stirred: AtomicBool::new(false),
            key: entry.key,
            token: None,
            mcp_hash: None,
            presented: None,
            seen_at: AtomicI64::new(0),
            alive_at: None,
            deadline: session.lifetime_ends_at,
            flight: OnceLock::new(),
            session,
        };
        open.deadline = open.next_deadline(open.session.last_active_at);
        self.deadlines.insert((open.deadline, number));
        self.changes.extend(open.changes_at.map(|at| (at, number)));
        self.sessions.insert(number, Box::new(open));
    }

    /// An open session as it stands now.
    fn update(&mut self, session: Session) {
        let number = session.number;
        let Some(open) = self.sessions.get_mut(&number) else { return };
        let announcement = |session: &Session| session.expiry().filter(|_| !session.announced());
        let (before, after) = (announcement(&open.session), announcement(&session));
        if before != after {
            before.map(|at| self.expiries.remove(&(at, number)));
            self.expiries.extend(after.map(|at| (at, number)));
        }
        if open.session.credential != session.credential {
            open.presented = None;
        }
        let expiry = |session: &Session| (session.token_expires_at, number);
        self.ordered.shift(session.application, By::Expiry, expiry(&open.session), expiry(&session));
        if session.last_active_at > open.stands_at && !open.stirred.swap(true, Ordering::Relaxed) {
            self.stirred.lock().push_back(number);
        }
        let resumed = open.session.suspended_at.is_some() && session.suspended_at.is_none();
        open.session = session;
        if resumed {
            self.deadlines.remove(&(open.deadline, number));
            open.deadline = open.next_deadline(open.session.last_active_at);
            self.deadlines.insert((open.deadline, number));
        }
        // What is filed as active stays so at least until the moment noted, unless its token expires sooner now. Anything
        // else may have changed with this very event.
        let next = index::changes_at(&open.session, None, open.status);
        let sooner = next.is_some_and(|next| open.changes_at.is_none_or(|at| next < at));
        if sooner && open.status == DerivedStatus::Active {
            open.changes_at.map(|at| self.changes.remove(&(at, number)));
            open.changes_at = next;
            self.changes.extend(next.map(|at| (at, number)));
        } else if open.status != DerivedStatus::Active && !open.woken.swap(true, Ordering::Relaxed) {
            self.woken.lock().push(number);
        }
    }

    fn end(&mut self, session: &Session, cancelled: &mut Vec<Arc<Flight>>) {
        let Some(open) = self.sessions.remove(&session.number) else { return };
        self.by_id.remove(&session.id);
        self.expiries.remove(&(open.session.token_expires_at, session.number));
        self.deadlines.remove(&(open.deadline, session.number));
        open.changes_at.map(|at| self.changes.remove(&(at, session.number)));
        self.index.remove(&open.session, &open.terms, open.status);
        let (application, expiry) = (session.application, open.session.token_expires_at);
        self.ordered.remove(application, By::Activity, (open.stands_at, session.number));
        self.ordered.remove(application, By::Expiry, (expiry, session.number));
        self.add_to_resource(session);
        if open.mcp_hash.is_some()
            && let Some(departures) = self.departures.as_ref().filter(|_| self.tells_departures)
        {
            let Session { number, id, application, .. } = *session;
            departures.send(Departed { number, id, application }).ok();
        }
        if let Some(key) = open.key
            && self.by_key.get(&key) == Some(&session.number)
        {
            self.by_key.remove(&key);
        }
        if let (Some(flight), Some(ended)) = (open.flight.into_inner(), session.ended) {
            flight.cancel(Ending::Session(ended.reason));
            if flight.count() > 0 {
                cancelled.push(flight);
            }
        }
    }

    /// Cancels what is under way of the sessions that a revocation covers, and keeps which they are and how much that was.
    pub(in crate::gate) fn cut_off(
        &self,
        number: RevocationNumber,
        sessions: Arc<[SessionNumber]>,
    ) -> Vec<Arc<Flight>> {
        let Some(revocation) = self.stream::<Revocation>(number) else { return vec![] };
        let mut cancelled = Vec::new();
        for open in sessions.iter().filter_map(|number| self.sessions.get(number)) {
            let under_way = open.flight.get().filter(|flight| flight.count() > 0);
            // One that gave a sign of life before this was in force may not be covered any more.
            if let Some(flight) = under_way.filter(|_| revocation.covers(&open.session, &open.facts())) {
                flight.cancel(Ending::Session(revocation.reason));
                cancelled.push(flight.clone());
            }
        }
        let cut_off = cancelled.iter().map(|flight| flight.own_count() as u64).sum();
        self.coverage.lock().insert(number, Coverage { sessions, cut_off });
        cancelled
    }

    pub(in crate::gate) fn forget_revocation(&mut self, number: RevocationNumber) {
        self.unfinished.remove(&number);
        self.streams.remove(&number.into());
        self.coverage.get_mut().remove(&number);
    }

    /// Traffic of a session that was counted here is on record now.
    pub(in crate::gate) fn traffic_recorded(&mut self, number: SessionNumber, counts: Counts) {
        let flight = self.sessions.get(&number).and_then(|open| open.flight.get());
        flight.iter().for_each(|flight| flight.tally.take(counts));
    }

    /// Adds a session that has ended to what those of its resource came to.
    fn add_to_resource(&mut self, session: &Session) {
        let Some(resource) = &session.resource else { return };
        let resources = self.resource_totals.entry(session.application).or_default();
        let totals = resources.entry(resource.clone()).or_default();
        totals.add(1, session.total.bytes_out);
    }
}
