//! A batch while it is being decided: the Gate as it was, with what the units before decided laid over it.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::core::Time;
use crate::core::application::{
    self, Application, ApplicationCommand, DirectoryRefusal, Organization, ServiceAccount,
    decide_application, decide_service_account,
};
use crate::core::caller::{Actor, ActorKind};
use crate::core::command::{Command, Connect, Presented};
use crate::core::event::{
    ActivityRecorded, ApplicationCreated, ApplicationEvent, Event, OrganizationEvent, Recorded,
    RevocationBegan, RevocationEnded, RevocationEvent, ServiceAccountCreated, ServiceAccountEvent,
    SessionEvent, commit_hash,
};
use crate::core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, RevocationNumber,
    ServiceAccountNumber, SessionNumber, Stream,
};
use crate::core::kind::Policy;
use crate::core::reason::Reason;
use crate::core::revocation::{self, Filter, Revocation};
use crate::core::session::{
    Context, Envelope, Refusal, Session, decide, evolve, must_end_first, takes_effect_at,
};
use crate::core::token::{Principal, SessionToken};
use crate::error::Error;
use crate::gate::{Change, KeyDigest, Known, key_digest};
use crate::store::{Batch, Detail, Entry, SideWrite};

use super::{By, Chain, Done, Founding, Opening, Work};

/// A batch, decided.
pub struct Decided {
    pub batch: Batch,
    pub changes: Vec<Change>,
    pub chain: Chain,
    /// Sessions as this batch leaves them.
    pub sessions: HashMap<SessionNumber, Session>,
    /// Sessions whose activity is newer than their lifecycle row.
    pub active: Vec<SessionNumber>,
    /// Position of the last event that is not activity.
    pub lifecycle: Option<Position>,
}

impl Decided {
    pub fn empty(chain: Chain) -> Self {
        Self {
            batch: Batch::default(),
            changes: vec![],
            chain,
            sessions: HashMap::new(),
            active: vec![],
            lifecycle: None,
        }
    }
}

/// A session in a draft.
struct Drafted {
    session: Session,
    key: Option<KeyDigest>,
    /// Its lifecycle row changes.
    lifecycle: bool,
    /// Index of its last event in this batch, if that is an activity: the next call of the same actor joins it.
    joinable: Option<usize>,
}

pub struct Draft<'a> {
    known: &'a Known,
    policy: Policy,
    now: Time,
    chain: Chain,
    events: Vec<Recorded>,
    /// Hash of each touched stream before this batch.
    before: HashMap<Stream, [u8; 32]>,
    sessions: HashMap<SessionNumber, Drafted>,
    keys: HashMap<KeyDigest, SessionNumber>,
    organizations: BTreeMap<OrganizationNumber, Organization>,
    applications: BTreeMap<ApplicationNumber, Application>,
    service_accounts: BTreeMap<ServiceAccountNumber, ServiceAccount>,
    revocations: BTreeMap<RevocationNumber, Revocation>,
    principals: HashMap<(OrganizationNumber, [u8; 32]), PrincipalNumber>,
    details: Vec<(SessionNumber, Detail)>,
    side: Vec<SideWrite>,
    changes: Vec<Change>,
}

/// One event to be recorded, before it has a place in the log.
struct Fact<'a> {
    by: &'a By,
    stream: Stream,
    head: Head,
    organization: OrganizationNumber,
    application: Option<ApplicationNumber>,
    revocation: Option<RevocationNumber>,
    occurred_at: Time,
    event: Event,
    personal: Option<String>,
}

impl<'a> Draft<'a> {
    pub fn new(known: &'a Known, chain: Chain, policy: Policy, now: Time) -> Self {
        Self {
            known,
            policy,
            now,
            chain,
            events: vec![],
            before: HashMap::new(),
            sessions: HashMap::new(),
            keys: HashMap::new(),
            organizations: BTreeMap::new(),
            applications: BTreeMap::new(),
            service_accounts: BTreeMap::new(),
            revocations: BTreeMap::new(),
            principals: HashMap::new(),
            details: vec![],
            side: vec![],
            changes: vec![],
        }
    }

    /// Decides one unit. A refusal leaves nothing behind.
    pub fn decide(&mut self, by: &By, work: &Work) -> Result<Done, Error> {
        match work {
            Work::Session { number, command, token_hash } => {
                let session = self.session(*number).cloned().ok_or(Refusal::Unknown)?;
                self.wish(by, &session, command, None)?;
                if let Some(hash) = token_hash {
                    self.issue_session_token(*number, *hash);
                }
                let session = self.session(*number).cloned().unwrap_or(session);
                Ok(Done::Session { session: Box::new(session), opened: false })
            }
            Work::Connect(opening) => self.connect(by, opening),
            Work::Bulk { items, revocation } => self.bulk(by, items, *revocation),
            Work::BeginRevocation { id, organization, filter, reason, note } => {
                let began = RevocationBegan { id: *id, filter: *filter, reason: *reason, note: note.clone() };
                self.begin_revocation(by, *organization, began)
            }
            Work::EndRevocation(number) => self.end_revocation(by, *number),
            Work::CreateOrganization(founding) => self.found(by, founding),
            Work::CreateApplication { organization, created, secret_hash } => {
                self.free_client(&created.oauth.client_id)?;
                self.create_application(by, *organization, created, *secret_hash)
            }
            Work::Application { number, command, secret_hash } => {
                self.change_application(by, *number, command, *secret_hash)
            }
            Work::CreateServiceAccount { organization, created, secret_hash } => {
                self.free_client(&created.client_id)?;
                let account = self.create_service_account(by, *organization, created.clone(), *secret_hash);
                Ok(Done::ServiceAccount(Box::new(account)))
            }
            Work::ServiceAccount { number, command, secret_hash } => {
                let account =
                    self.service_account(*number).cloned().ok_or(Error::NotFound("Service account"))?;
                let events = decide_service_account(&account, *command)
                    .map_err(|_| Error::NotFound("Service account"))?;
                if let Some(secret_hash) = secret_hash {
                    self.side.push(SideWrite::ClientSecret {
                        client_id: account.client_id.clone(),
                        secret_hash: *secret_hash,
                    });
                }
                let account = events.into_iter().fold(account, |account, event| {
                    self.service_account_event(by, account.organization, account.number, Some(account), event)
                });
                Ok(Done::ServiceAccount(Box::new(account)))
            }
            Work::IssueToken(token) => {
                let archived = match token.client_kind {
                    ActorKind::Application => self
                        .application(ApplicationNumber(token.client))
                        .is_none_or(|application| application.archived_at.is_some()),
                    _ => self
                        .service_account(ServiceAccountNumber(token.client))
                        .is_none_or(|account| account.archived_at.is_some()),
                };
                if archived {
                    return Err(Error::Unauthorized { reason: None });
                }
                let mut token = token.clone();
                token.issued_at = self.chain.position;
                self.side.push(SideWrite::AccessToken(token.clone()));
                self.changes.push(Change::AccessToken(token.clone()));
                Ok(Done::Token(token))
            }
            Work::Side(side) => {
                match side {
                    SideWrite::ForgetTokens(before) => self.changes.push(Change::ForgetTokens(*before)),
                    SideWrite::McpSession(number, mcp) => {
                        self.changes.push(Change::McpSession(*number, mcp.id_hash));
                    }
                    _ => {}
                }
                self.side.push(side.clone());
                Ok(Done::Nothing)
            }
            Work::Health => Ok(Done::Nothing),
        }
    }

    // ---- what is known, with this batch laid over it ----

    fn session(&self, number: SessionNumber) -> Option<&Session> {
        match self.sessions.get(&number) {
            Some(drafted) => Some(&drafted.session),
            None => self.known.session(number),
        }
    }

    fn application(&self, number: ApplicationNumber) -> Option<&Application> {
        self.applications.get(&number).or_else(|| self.known.applications.get(&number))
    }

    fn service_account(&self, number: ServiceAccountNumber) -> Option<&ServiceAccount> {
        self.service_accounts.get(&number).or_else(|| self.known.service_accounts.get(&number))
    }

    fn revocation(&self, number: RevocationNumber) -> Option<&Revocation> {
        self.revocations.get(&number).or_else(|| self.known.revocations.get(&number))
    }

    fn covering(&self, session: &Session) -> Option<Revocation> {
        let drafted = self.revocations.values().find(|revocation| revocation.covers(session));
        let known = || {
            let covers = |revocation: &&Revocation| {
                revocation.covers(session) && !self.revocations.contains_key(&revocation.number)
            };
            self.known.revocations.values().find(covers)
        };
        drafted.or_else(known).cloned()
    }

    fn context<'c>(
        &'c self,
        number: ApplicationNumber,
        revocation: Option<&'c Revocation>,
        presented: Option<&Presented>,
    ) -> Context<'c> {
        let application = self.application(number);
        let drafted = application.map_or(Position(0), |application| application.barred_before);
        let token = presented.and_then(|presented| presented.access_token);
        Context {
            credential_barred: token.is_some_and(|token| self.token_barred(token)),
            application_archived: application.is_none_or(|application| application.archived_at.is_some()),
            barred_before: drafted.max(self.known.barred_before(number)),
            revocation,
            policy: &self.policy,
            personal: None,
        }
    }

    fn token_barred(&self, token: Uuid) -> bool {
        let drafted =
            || self.changes.iter().any(|change| matches!(change, Change::BarAccessToken(id) if *id == token));
        // A token that is not known any more has expired; the rules see that by its time.
        self.known.access_token(token).is_some_and(|token| token.barred) || drafted()
    }

    // ---- sessions ----

    /// `on_behalf_of` is the revocation that wishes it, where one does.
    fn wish(
        &mut self,
        by: &By,
        session: &Session,
        command: &Command,
        on_behalf_of: Option<RevocationNumber>,
    ) -> Result<(), Refusal> {
        let own = on_behalf_of.and_then(|number| self.revocation(number)).filter(|own| own.covers(session));
        let covering = own.cloned().or_else(|| self.covering(session));
        let context = self.context(session.application, covering.as_ref(), command.presented());
        let events = decide(&context, Some(session), command, self.now)?;
        // What ends for another reason, a goodbye say, is not its doing and not counted. One that is in force in memory
        // only is nothing that an event could point to.
        let cause = covering.filter(|revocation| {
            matches!(command, Command::Disconnect { reason } if *reason == revocation.reason)
                && !revocation.is_provisional()
        });
        for event in events {
            self.session_event(by, session.number, event, cause.as_ref(), None);
        }
        Ok(())
    }

    fn connect(&mut self, by: &By, opening: &Opening) -> Result<Done, Error> {
        let connect = &opening.connect;
        let principal = self.principal_of(opening);
        let connect = Connect { principal, ..connect.clone() };
        let key = connect.key().map(|key| key_digest(connect.application, key));
        let holder = key.and_then(|key| self.holder(&key)).cloned();
        let personal = serde_json::to_string(&connect.personal).unwrap_or_default();
        let covering = holder.as_ref().and_then(|holder| self.covering(holder));
        let first = {
            let context = self.context(connect.application, covering.as_ref(), Some(&connect.presented));
            let command = Command::Connect(Box::new(connect.clone()));
            // The rules decide on the connect first: one that is refused ends nobody.
            let fresh = Context { revocation: None, personal: Some(&personal), ..context };
            let first = holder.as_ref().and_then(|holder| must_end_first(&context, holder, self.now));
            let onto = if first.is_some() { None } else { holder.as_ref() };
            (first, decide(&fresh, onto, &command, self.now)?)
        };
        let (first, events) = first;
        if let (Some(first), Some(holder)) = (first, &holder) {
            self.wish(&By { actor: Actor::SYSTEM, ..by.clone() }, holder, &first, None)?;
        }
        let opened = matches!(events.first(), Some(SessionEvent::Connected(_)));
        let number = match &holder {
            Some(holder) if !opened => holder.number,
            _ => self.open(key),
        };
        self.introduce(opening, principal);
        for event in events {
            self.session_event(by, number, event, None, Some((&connect, &personal)));
        }
        self.issue_session_token(number, opening.token_hash);
        let session = self.session(number).cloned().ok_or(Refusal::Unknown)?;
        Ok(Done::Session { session: Box::new(session), opened })
    }

    fn holder(&self, key: &KeyDigest) -> Option<&Session> {
        let drafted = self.keys.get(key).and_then(|number| self.session(*number));
        drafted
            .or_else(|| self.known.holder(key).and_then(|session| self.session(session.number)))
            .filter(|session| session.ended.is_none())
    }

    fn open(&mut self, key: Option<KeyDigest>) -> SessionNumber {
        self.chain.last_session += 1;
        let number = SessionNumber(self.chain.last_session);
        if let Some(key) = key {
            self.keys.insert(key, number);
        }
        number
    }

    /// The number this principal has, or would get.
    fn principal_of(&self, opening: &Opening) -> PrincipalNumber {
        let organization = opening.connect.organization;
        let drafted = self.principals.get(&(organization, opening.subject_digest)).copied();
        drafted
            .or_else(|| self.known.principal(organization, &opening.subject_digest))
            .unwrap_or(PrincipalNumber(self.chain.last_principal + 1))
    }

    /// Writes the principal down if it is new.
    fn introduce(&mut self, opening: &Opening, number: PrincipalNumber) {
        if number.0 <= self.chain.last_principal {
            return;
        }
        self.chain.last_principal = number.0;
        let principal = Principal {
            number,
            organization: opening.connect.organization,
            issuer: opening.issuer.clone(),
            subject_digest: opening.subject_digest,
            subject: Some(opening.subject.clone()),
        };
        self.principals.insert((principal.organization, principal.subject_digest), number);
        self.side.push(SideWrite::Principal(principal.clone()));
        self.changes.push(Change::Principal(principal));
    }

    fn issue_session_token(&mut self, number: SessionNumber, secret_hash: [u8; 32]) {
        let Some(session) = self.session(number) else { return };
        let token = SessionToken {
            secret_hash,
            issued_at: session.head.position,
            expires_at: session.token_expires_at,
        };
        self.side.push(SideWrite::SessionToken(number, token));
        self.changes.push(Change::SessionToken(number, token));
    }

    fn bulk(
        &mut self,
        by: &By,
        items: &[(SessionNumber, Command)],
        revocation: Option<RevocationNumber>,
    ) -> Result<Done, Error> {
        let mut ended = 0;
        for (number, command) in items {
            let Some(session) = self.session(*number).cloned() else { continue };
            if self.wish(by, &session, command, revocation).is_ok()
                && session.ended.is_none()
                && self.session(*number).is_some_and(|session| session.ended.is_some())
            {
                ended += 1;
            }
        }
        Ok(Done::Bulk(ended))
    }

    /// Records an event of a session. A call that meets another of the same session, actor and source in this batch
    /// joins its event.
    fn session_event(
        &mut self,
        by: &By,
        number: SessionNumber,
        event: SessionEvent,
        cause: Option<&Revocation>,
        connecting: Option<(&Connect, &str)>,
    ) {
        if let SessionEvent::ActivityRecorded(activity) = &event
            && self.join(by, number, activity)
        {
            return;
        }
        let before = self.session(number).cloned();
        let (organization, application) = match (&before, connecting) {
            (Some(session), _) => (session.organization, session.application),
            (None, Some((connect, _))) => (connect.organization, connect.application),
            (None, None) => return,
        };
        if let (SessionEvent::Connected(connected), Some((connect, _))) = (&event, connecting) {
            self.details.push((number, Detail::of(connected, Some(&connect.personal))));
        }
        let activity = matches!(event, SessionEvent::ActivityRecorded(_));
        let connected = matches!(event, SessionEvent::Connected(_));
        let occurred_at = takes_effect_at(&event, before.as_ref(), cause, self.now);
        if let (SessionEvent::Disconnected(_), Some(revocation)) = (&event, cause) {
            let mut revocation = self.revocation(revocation.number).unwrap_or(revocation).clone();
            revocation.disconnected_count += 1;
            self.revocations.insert(revocation.number, revocation);
        }
        let head = self.record(Fact {
            by,
            stream: number.into(),
            head: before.as_ref().map_or_else(Head::default, |session| session.head),
            organization,
            application: Some(application),
            revocation: cause.map(|revocation| revocation.number),
            occurred_at,
            event: Event::Session(event.clone()),
            personal: connecting.filter(|_| connected).map(|(_, personal)| personal.to_owned()),
        });
        let envelope = Envelope { number, organization, application, actor: by.actor, occurred_at, head };
        let Some(session) = evolve(before, &event, &envelope) else { return };
        let index = self.events.len() - 1;
        let key = connecting.and_then(|(connect, _)| connect.key().map(|key| key_digest(application, key)));
        let drafted = self.sessions.entry(number).or_insert_with(|| Drafted {
            session: session.clone(),
            key: None,
            lifecycle: false,
            joinable: None,
        });
        drafted.session = session;
        drafted.key = drafted.key.or(key);
        drafted.lifecycle |= !activity;
        drafted.joinable = activity.then_some(index);
    }

    fn join(&mut self, by: &By, number: SessionNumber, activity: &ActivityRecorded) -> bool {
        let Some(drafted) = self.sessions.get_mut(&number) else { return false };
        let Some(recorded) = drafted.joinable.and_then(|index| self.events.get_mut(index)) else {
            return false;
        };
        let Event::Session(SessionEvent::ActivityRecorded(earlier)) = &mut recorded.event else {
            return false;
        };
        if recorded.actor != by.actor || earlier.source != activity.source {
            return false;
        }
        earlier.counts = earlier.counts.plus(activity.counts);
        earlier.total = activity.total;
        drafted.session.total = activity.total;
        true
    }

    // ---- revocations ----

    fn begin_revocation(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        began: RevocationBegan,
    ) -> Result<Done, Error> {
        let filter = began.filter;
        let archives = began.reason == Reason::Archived;
        if let Some(session) = filter.session {
            // Also the one by which somebody attached to it in this very batch.
            let latest = self.session(session).and_then(|session| session.credential);
            for token in self.known.presented(session).into_iter().chain(latest) {
                self.side.push(SideWrite::BarAccessToken(token));
                self.changes.push(Change::BarAccessToken(token));
            }
        }
        let application = match filter.application {
            Some(number) if filter.session.is_none() => {
                let application = self.application(number).cloned().ok_or(Error::NotFound("Application"))?;
                if application.archived_at.is_some() {
                    return Err(Error::NotFound("Application"));
                }
                Some(application)
            }
            _ => None,
        };
        self.chain.last_revocation += 1;
        let number = RevocationNumber(self.chain.last_revocation);
        let revocation = self.revocation_event(
            by,
            organization,
            filter.application,
            number,
            None,
            RevocationEvent::Began(began),
        );
        if let Some(application) = application {
            let application = self.application_event(
                by,
                application.number,
                Some(application),
                ApplicationEvent::CredentialsBarred,
                Some(number),
            );
            if archives {
                self.application_event(
                    by,
                    application.number,
                    Some(application),
                    ApplicationEvent::Archived,
                    Some(number),
                );
            }
        }
        revocation.map(Done::Revocation).ok_or(Error::NotFound("Revocation"))
    }

    fn end_revocation(&mut self, by: &By, number: RevocationNumber) -> Result<Done, Error> {
        let revocation = self.revocation(number).filter(|revocation| revocation.ended_at.is_none());
        let revocation = revocation.cloned().ok_or(Error::NotFound("Revocation"))?;
        let ended = RevocationEnded { disconnected_count: revocation.disconnected_count };
        let application = revocation.filter.application;
        self.revocation_event(
            by,
            revocation.organization,
            application,
            number,
            Some(revocation),
            RevocationEvent::Ended(ended),
        )
        .map(Done::Revocation)
        .ok_or(Error::NotFound("Revocation"))
    }

    fn revocation_event(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        number: RevocationNumber,
        before: Option<Revocation>,
        event: RevocationEvent,
    ) -> Option<Revocation> {
        let head = self.record(Fact {
            by,
            stream: number.into(),
            head: before.as_ref().map_or_else(Head::default, |revocation| revocation.head),
            organization,
            application,
            revocation: Some(number),
            occurred_at: self.now,
            event: Event::Revocation(event.clone()),
            personal: None,
        });
        let revocation = revocation::evolve(before, &event, number, organization, self.now, head)?;
        self.revocations.insert(number, revocation.clone());
        Some(revocation)
    }

    // ---- the directory ----

    /// That no OAuth client has this id, neither from before nor from this batch.
    fn free_client(&self, client_id: &str) -> Result<(), Error> {
        let mut applications = self.applications.values();
        let mut accounts = self.service_accounts.values();
        let taken = self.known.client(client_id).is_some()
            || applications.any(|application| application.oauth.client_id == client_id)
            || accounts.any(|account| account.client_id == client_id);
        if taken { Err(client_taken(client_id)) } else { Ok(()) }
    }

    fn found(&mut self, by: &By, founding: &Founding) -> Result<Done, Error> {
        let application = founding.application.as_ref().map(|created| created.oauth.client_id.as_str());
        self.free_client(&founding.account.client_id)?;
        application.map_or(Ok(()), |client_id| self.free_client(client_id))?;
        if application == Some(&founding.account.client_id) {
            return Err(client_taken(&founding.account.client_id));
        }
        let last = self.known.organizations.keys().chain(self.organizations.keys()).max();
        let number = OrganizationNumber(last.map_or(0, |number| number.0) + 1);
        let event = OrganizationEvent::Created(founding.organization.clone());
        let head = self.record(Fact {
            by,
            stream: number.into(),
            head: Head::default(),
            organization: number,
            application: None,
            revocation: None,
            occurred_at: self.now,
            event: Event::Organization(event.clone()),
            personal: None,
        });
        let envelope =
            application::Envelope { number: number.0, organization: number, occurred_at: self.now, head };
        let organization = application::evolve_organization(&event, &envelope);
        self.organizations.insert(number, organization.clone());
        let mut account = founding.account.clone();
        if let Some(created) = &founding.application {
            let secret = founding.application_secret_hash;
            if let Done::Application(application) = self.create_application(by, number, created, secret)? {
                account.application = Some(application.number);
            }
        }
        let account = self.create_service_account(by, number, account, founding.secret_hash);
        Ok(Done::Organization(organization, account))
    }

    /// Whether another application of the organization, not archived, has the name.
    fn name_taken(
        &self,
        organization: OrganizationNumber,
        name: &str,
        but: Option<ApplicationNumber>,
    ) -> bool {
        let known =
            self.known.applications.values().filter(|one| !self.applications.contains_key(&one.number));
        known.chain(self.applications.values()).any(|one| {
            one.organization == organization
                && one.archived_at.is_none()
                && one.name == name
                && Some(one.number) != but
        })
    }

    fn create_application(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        created: &ApplicationCreated,
        secret_hash: Option<[u8; 32]>,
    ) -> Result<Done, Error> {
        if self.name_taken(organization, &created.name, None) {
            return Err(DirectoryRefusal::NameTaken.into());
        }
        let last = self.known.applications.keys().chain(self.applications.keys()).max();
        let number = ApplicationNumber(last.map_or(0, |number| number.0) + 1);
        if let Some(secret_hash) = secret_hash {
            let client_id = created.oauth.client_id.clone();
            self.side.push(SideWrite::ClientSecret { client_id, secret_hash });
        }
        let event = ApplicationEvent::Created(Box::new(created.clone()));
        let head = self.record(Fact {
            by,
            stream: number.into(),
            head: Head::default(),
            organization,
            application: Some(number),
            revocation: None,
            occurred_at: self.now,
            event: Event::Application(event.clone()),
            personal: None,
        });
        let envelope = application::Envelope { number: number.0, organization, occurred_at: self.now, head };
        let application = application::evolve_application(None, &event, &envelope)
            .ok_or_else(|| Error::Internal("a new application folds to nothing".to_owned()))?;
        self.applications.insert(number, application.clone());
        Ok(Done::Application(Box::new(application)))
    }

    fn change_application(
        &mut self,
        by: &By,
        number: ApplicationNumber,
        command: &ApplicationCommand,
        secret_hash: Option<[u8; 32]>,
    ) -> Result<Done, Error> {
        let application = self.application(number).cloned().ok_or(Error::NotFound("Application"))?;
        let name_taken = match command {
            ApplicationCommand::Change(changed) => {
                let taken = |name: &String| self.name_taken(application.organization, name, Some(number));
                changed.name.as_ref().is_some_and(taken)
            }
            _ => false,
        };
        let events = decide_application(&application, command, name_taken)?;
        if let Some(secret_hash) = secret_hash {
            let client_id = application.oauth.client_id.clone();
            self.side.push(SideWrite::ClientSecret { client_id, secret_hash });
        }
        let application = events.into_iter().fold(application, |application, event| {
            self.application_event(by, number, Some(application), event, None)
        });
        Ok(Done::Application(Box::new(application)))
    }

    /// Records an event of an application that exists.
    fn application_event(
        &mut self,
        by: &By,
        number: ApplicationNumber,
        before: Option<Application>,
        event: ApplicationEvent,
        revocation: Option<RevocationNumber>,
    ) -> Application {
        let Some(before) = before else { unreachable!("an application's later events follow its creation") };
        let organization = before.organization;
        let head = self.record(Fact {
            by,
            stream: number.into(),
            head: before.head,
            organization,
            application: Some(number),
            revocation,
            occurred_at: self.now,
            event: Event::Application(event.clone()),
            personal: None,
        });
        let envelope = application::Envelope { number: number.0, organization, occurred_at: self.now, head };
        let after =
            application::evolve_application(Some(before.clone()), &event, &envelope).unwrap_or(before);
        self.applications.insert(number, after.clone());
        after
    }

    fn create_service_account(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        created: ServiceAccountCreated,
        secret_hash: [u8; 32],
    ) -> ServiceAccount {
        let last = self.known.service_accounts.keys().chain(self.service_accounts.keys()).max();
        let number = ServiceAccountNumber(last.map_or(0, |number| number.0) + 1);
        self.side.push(SideWrite::ClientSecret { client_id: created.client_id.clone(), secret_hash });
        self.service_account_event(by, organization, number, None, ServiceAccountEvent::Created(created))
    }

    fn service_account_event(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        number: ServiceAccountNumber,
        before: Option<ServiceAccount>,
        event: ServiceAccountEvent,
    ) -> ServiceAccount {
        let head = self.record(Fact {
            by,
            stream: number.into(),
            head: before.as_ref().map_or_else(Head::default, |account| account.head),
            organization,
            application: None,
            revocation: None,
            occurred_at: self.now,
            event: Event::ServiceAccount(event.clone()),
            personal: None,
        });
        let envelope = application::Envelope { number: number.0, organization, occurred_at: self.now, head };
        let Some(account) = application::evolve_service_account(before, &event, &envelope) else {
            unreachable!("a service account's later events follow its creation")
        };
        self.service_accounts.insert(number, account.clone());
        account
    }

    // ---- the log ----

    /// Never falls along the log. Only this: whoever decided by the latest time on record would refuse everybody as
    /// expired for as long as a clock once ran ahead.
    fn recorded_at(&self) -> Time {
        self.now.max(self.chain.recorded_at)
    }

    /// Gives an event its place in the log. Its hash comes last, when the batch is whole.
    fn record(&mut self, fact: Fact<'_>) -> Head {
        self.before.entry(fact.stream).or_insert(fact.head.hash);
        self.chain.position.0 += 1;
        let head =
            Head { version: fact.head.version + 1, position: self.chain.position, hash: fact.head.hash };
        self.events.push(Recorded {
            position: self.chain.position,
            stream: fact.stream,
            version: head.version,
            previous_position: fact.head.position,
            occurred_at: fact.occurred_at,
            recorded_at: self.recorded_at(),
            organization: fact.organization,
            application: fact.application,
            actor: fact.by.actor,
            revocation: fact.revocation,
            request_id: fact.by.request_id.clone(),
            traceparent: fact.by.traceparent.clone(),
            event: fact.event,
            personal: fact.personal,
        });
        head
    }

    /// Seals the events into their chains and makes the rows from what the batch came to.
    pub fn finish(mut self) -> Decided {
        let recorded_at = self.recorded_at();
        let mut hashes = std::mem::take(&mut self.before);
        let mut entries: Vec<Entry> = Vec::with_capacity(self.events.len());
        let mut lifecycle = None;
        for recorded in self.events {
            let hash = hashes.entry(recorded.stream).or_default();
            if !matches!(recorded.event, Event::Session(SessionEvent::ActivityRecorded(_))) {
                lifecycle = Some(recorded.position);
            }
            let entry = Entry::seal(recorded, hash);
            *hash = entry.hash;
            entries.push(entry);
        }
        if let Some(last) = entries.len().checked_sub(1) {
            let hash = commit_hash(&self.chain.commit_hash, entries.iter().map(|entry| &entry.hash));
            entries[last].commit_hash = Some(hash);
            self.chain.commit_hash = hash;
            self.chain.recorded_at = recorded_at;
        }
        let sealed = |head: &mut Head, stream: Stream| {
            if let Some(hash) = hashes.get(&stream) {
                head.hash = *hash;
            }
        };
        let mut decided = Decided::empty(self.chain);
        decided.lifecycle = lifecycle;
        let mut changes = Vec::with_capacity(self.sessions.len() + self.changes.len());
        let batch = &mut decided.batch;
        for (number, mut row) in self.organizations {
            sealed(&mut row.head, number.into());
            changes.push(Change::Organization(row.clone()));
            batch.organizations.push(row);
        }
        for (number, mut row) in self.applications {
            sealed(&mut row.head, number.into());
            changes.push(Change::Application(row.clone()));
            batch.applications.push(row);
        }
        for (number, mut row) in self.service_accounts {
            sealed(&mut row.head, number.into());
            changes.push(Change::ServiceAccount(row.clone()));
            batch.service_accounts.push(row);
        }
        for (number, mut row) in self.revocations {
            sealed(&mut row.head, number.into());
            changes.push(Change::Revocation(row.clone()));
            batch.revocations.push(row);
        }
        for (number, mut drafted) in self.sessions {
            sealed(&mut drafted.session.head, number.into());
            if drafted.lifecycle {
                batch.sessions.push(drafted.session.clone());
            } else {
                decided.active.push(number);
            }
            changes.push(Change::Session(drafted.session.clone(), drafted.key));
            decided.sessions.insert(number, drafted.session);
        }
        batch.sessions.sort_unstable_by_key(|session| session.number);
        batch.details = self.details;
        batch.events = entries;
        batch.side = self.side;
        changes.extend(self.changes);
        decided.changes = changes;
        decided
    }
}

fn client_taken(client_id: &str) -> Error {
    Error::Conflict { code: "client_id_taken", message: format!("the client id {client_id:?} is taken") }
}

impl From<DirectoryRefusal> for Error {
    fn from(refusal: DirectoryRefusal) -> Self {
        match refusal {
            DirectoryRefusal::NameTaken => {
                Self::Conflict { code: "name_taken", message: refusal.to_string() }
            }
            DirectoryRefusal::Archived => Self::NotFound("Application"),
        }
    }
}

/// A revocation that cannot be recorded for want of space, in force in memory: it would not outlive a restart. Nothing
/// that has a row of its own may change for it, or the row would say one day what the log does not.
pub fn provisional(
    known: &Known,
    number: RevocationNumber,
    organization: OrganizationNumber,
    filter: Filter,
    reason: Reason,
    head: Position,
    now: Time,
) -> Vec<Change> {
    let fence = Position(head.0 + 1);
    let revocation = Revocation {
        number,
        id: Uuid::nil(),
        organization,
        filter,
        reason,
        note: None,
        fence,
        instant: now,
        ended_at: None,
        disconnected_count: 0,
        head: Head::default(),
    };
    let mut changes = vec![Change::Revocation(revocation)];
    if let Some(session) = filter.session {
        changes.extend(known.presented(session).into_iter().map(Change::BarAccessToken));
    }
    changes
}
