//! The directory in a batch: organizations, applications, service accounts.

use sessiond_core::application::{
    self, Application, ApplicationCommand, ApplicationCreated, ApplicationEvent, decide_application,
};
use sessiond_core::event::Event;
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, RevocationNumber, ServiceAccountNumber, Stream, StreamKind,
};
use sessiond_core::item::{self, Item, ItemEvent};
use sessiond_core::organization::{
    Issuer, IssuersSet, Organization, OrganizationCommand, OrganizationEvent, decide_organization,
    evolve_organization,
};
use sessiond_core::place::{MediaStreamDeclared, MediaStreamEvent};
use sessiond_core::service_account::{
    ServiceAccount, ServiceAccountCreated, ServiceAccountEvent, evolve_service_account,
};
use sessiond_core::stream::{DirectoryRefusal, Envelope};
use sessiond_core::webhook::WebhookEvent;
use sessiond_store::SideWrite;

use super::{Draft, Fact};
use crate::committer::{By, Declaration, Done, Founding};
use crate::error::Error;

impl Draft<'_> {
    /// That no OAuth client has this id, neither from before nor from this batch.
    pub(super) fn free_client(&self, client_id: &str) -> Result<(), Error> {
        let mut applications = self.applications.values();
        let mut accounts = self.service_accounts.values();
        let taken = self.known.client(client_id).is_some()
            || applications.any(|application| application.oauth.client_id == client_id)
            || accounts.any(|account| account.client_id == client_id);
        if taken { Err(client_taken(client_id)) } else { Ok(()) }
    }

    pub(super) fn found(&mut self, by: &By, founding: &Founding) -> Result<Done, Error> {
        let application = founding.application.as_ref().map(|created| created.oauth.client_id.as_str());
        self.free_client(&founding.account.client_id)?;
        application.map_or(Ok(()), |client_id| self.free_client(client_id))?;
        if application == Some(&founding.account.client_id) {
            return Err(client_taken(&founding.account.client_id));
        }
        let last = self.known.organizations.keys().chain(self.organizations.keys()).max();
        let number = OrganizationNumber(last.map_or(0, |number| number.0) + 1);
        let event = OrganizationEvent::Created(founding.organization.clone());
        let organization = self.organization_event(by, number, None, event, None);
        let mut account = founding.account.clone();
        if let Some(created) = &founding.application {
            let secret = founding.application_secret_hash;
            if let Done::Application(application) = self.create_application(by, number, created, secret)? {
                account.application = Some(application.number);
            }
        }
        let account = self.create_service_account(by, number, account, founding.secret_hash);
        Ok(Done::Founded(organization, account))
    }

    pub(super) fn change_organization(
        &mut self,
        by: &By,
        number: OrganizationNumber,
        command: &OrganizationCommand,
    ) -> Result<Done, Error> {
        let organization = self.organization(number).cloned().ok_or(Error::NotFound("Organization"))?;
        if let OrganizationCommand::SetIssuers(set) = command {
            self.free_issuers(number, set)?;
        }
        let organization = match decide_organization(&organization, command) {
            Some(event) => self.organization_event(by, number, Some(organization), event, None),
            None => organization,
        };
        Ok(Done::Organization(Box::new(organization)))
    }

    /// That no other organization has an issuer with the same audience: a token must say by itself whose it is.
    fn free_issuers(&self, number: OrganizationNumber, set: &IssuersSet) -> Result<(), Error> {
        let others = self.known.organizations.keys().filter(|other| **other != number);
        let mut others = others.filter_map(|other| self.organization(*other)).flat_map(|one| &one.issuers);
        let taken = |other: &Issuer| {
            set.issuers.iter().any(|one| one.issuer == other.issuer && one.audience == other.audience)
        };
        match others.find(|other| taken(other)) {
            Some(other) => Err(Error::Conflict {
                code: "issuer_taken",
                message: format!(
                    "tokens of {} for {} are taken already; choose an audience of your own",
                    other.issuer, other.audience
                ),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn organization_event(
        &mut self,
        by: &By,
        number: OrganizationNumber,
        before: Option<Organization>,
        event: OrganizationEvent,
        revocation: Option<RevocationNumber>,
    ) -> Organization {
        let head = self.record(Fact {
            by,
            stream: number.into(),
            head: before.as_ref().map_or_else(Head::default, |organization| organization.head),
            organization: number,
            application: None,
            revocation,
            occurred_at: self.now,
            event: Event::Organization(event.clone()),
            personal: None,
        });
        let envelope = Envelope { number: number.0, organization: number, occurred_at: self.now, head };
        let Some(organization) = evolve_organization(before, &event, &envelope) else {
            unreachable!("an organization's later events follow its creation")
        };
        self.organizations.insert(number, organization.clone());
        organization
    }

    /// The application of this name that is not archived, made if there is none. Nothing authenticates as it until
    /// somebody rotates its secret.
    fn application_named(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        made: &ApplicationCreated,
    ) -> Result<Application, Error> {
        let found = self.live_applications(organization).find(|one| one.name == made.name).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        self.room_for_application(organization)?;
        self.free_client(&made.oauth.client_id)?;
        match self.create_application(by, organization, made, None)? {
            Done::Application(application) => Ok(*application),
            _ => Err(Error::Internal("a new application is none".to_owned())),
        }
    }

    /// The same as an outcome.
    pub(super) fn ensure_application(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        made: &ApplicationCreated,
    ) -> Result<Done, Error> {
        let application = self.application_named(by, organization, made)?;
        Ok(Done::Application(Box::new(application)))
    }

    pub(super) fn live_applications(
        &self,
        organization: OrganizationNumber,
    ) -> impl Iterator<Item = &Application> {
        let known =
            self.known.applications.values().filter(|one| !self.applications.contains_key(&one.number));
        known
            .chain(self.applications.values())
            .filter(move |one| one.organization == organization && one.archived_at.is_none())
    }

    /// Makes sure that there is a media stream, and an application for its app.
    pub(super) fn declare(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        declaration: &Declaration,
    ) -> Result<Done, Error> {
        let [vhost, app, stream] = &declaration.names;
        let known = self.known.declared(organization, [vhost, app, stream]).map(|one| one.number);
        let drafted = self.items.values().find_map(|item| match item {
            Item::MediaStream(one)
                if one.organization == organization
                    && [&one.vhost, &one.app, &one.stream] == [vhost, app, stream] =>
            {
                Some(one.number)
            }
            _ => None,
        });
        let place = known.or(drafted).map(|number| Stream { kind: StreamKind::MediaStream, number });
        let before = place.and_then(|place| self.item(place)).cloned();
        if let Some(Item::MediaStream(one)) = &before
            && self.application(one.application).is_some_and(|application| application.archived_at.is_none())
        {
            return Ok(Done::Item(Box::new(Item::MediaStream(one.clone()))));
        }
        if place.is_none() {
            // Before an application is made for it.
            self.room_for_stream(organization)?;
        }
        let application = self.application_named(by, organization, &declaration.application)?.number;
        let declared = MediaStreamDeclared {
            id: declaration.id,
            vhost: vhost.clone(),
            app: app.clone(),
            stream: stream.clone(),
            application,
        };
        let wish = ItemEvent::MediaStream(MediaStreamEvent::Declared(declared));
        self.wish_item(by, organization, place, &wish, &[])
    }

    /// A wish about a small thing. Without a stream it is the beginning of a new one.
    pub(super) fn wish_item(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        stream: Option<Stream>,
        wish: &ItemEvent,
        side: &[SideWrite],
    ) -> Result<Done, Error> {
        let stream = match stream {
            Some(stream) => stream,
            None => {
                self.room_for_item(organization, wish.kind())?;
                self.next_stream(wish.kind())
            }
        };
        let before = self.item(stream).filter(|item| item.organization() == organization).cloned();
        match item::decide(before.as_ref(), wish).map_err(|_| Error::NotFound(thing(wish.kind())))? {
            Some(event) => {
                side.iter().for_each(|side| self.write_beside(side));
                let item = self.item_event(by, organization, stream, event, None);
                Ok(Done::Item(Box::new(item)))
            }
            None => before.map(|item| Done::Item(Box::new(item))).ok_or(Error::NotFound(thing(wish.kind()))),
        }
    }

    fn next_stream(&self, kind: StreamKind) -> Stream {
        let drafted = self.items.keys().filter(|stream| stream.kind == kind).map(|stream| stream.number);
        let known = self.known.items(kind).next_back().map(|item| item.stream().number);
        Stream { kind, number: drafted.chain(known).max().unwrap_or(0) + 1 }
    }

    /// Records an event of a small thing.
    pub(super) fn item_event(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        stream: Stream,
        event: ItemEvent,
        revocation: Option<RevocationNumber>,
    ) -> Item {
        let before = self.item(stream).cloned();
        let application = match (&before, &event) {
            (Some(Item::Webhook(webhook)), _) => webhook.application,
            (None, ItemEvent::Webhook(WebhookEvent::Created(created))) => created.application,
            (_, ItemEvent::MediaStream(MediaStreamEvent::Declared(declared))) => Some(declared.application),
            _ => None,
        };
        let head = self.record(Fact {
            by,
            stream,
            head: before.as_ref().map_or_else(Head::default, Item::head),
            organization,
            application,
            revocation,
            occurred_at: self.now,
            event: Event::Item(event.clone()),
            personal: None,
        });
        let envelope = Envelope { number: stream.number, organization, occurred_at: self.now, head };
        let Some(item) = item::evolve(before, &event, &envelope) else {
            unreachable!("a stream's later events follow the one that begins it")
        };
        self.items.insert(stream, item.clone());
        item
    }

    /// Whether another application of the organization, not archived, has the name.
    pub(super) fn name_taken(
        &self,
        organization: OrganizationNumber,
        name: &str,
        but: Option<ApplicationNumber>,
    ) -> bool {
        self.live_applications(organization).any(|one| one.name == name && Some(one.number) != but)
    }

    pub(super) fn create_application(
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
        let envelope = Envelope { number: number.0, organization, occurred_at: self.now, head };
        let application = application::evolve_application(None, &event, &envelope)
            .ok_or_else(|| Error::Internal("a new application folds to nothing".to_owned()))?;
        self.applications.insert(number, application.clone());
        Ok(Done::Application(Box::new(application)))
    }

    pub(super) fn change_application(
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
    pub(super) fn application_event(
        &mut self,
        by: &By,
        number: ApplicationNumber,
        before: Option<Application>,
        event: ApplicationEvent,
        revocation: Option<RevocationNumber>,
    ) -> Application {
        let Some(before) = before else { unreachable!("an application's later events follow its creation") };
        let organization = before.organization;
        if matches!(event, ApplicationEvent::Archived) {
            // Nothing goes to its upstream any more.
            self.side.push(SideWrite::UpstreamSecret { application: number, sealed: None });
        }
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
        let envelope = Envelope { number: number.0, organization, occurred_at: self.now, head };
        let after =
            application::evolve_application(Some(before.clone()), &event, &envelope).unwrap_or(before);
        self.applications.insert(number, after.clone());
        after
    }

    pub(super) fn create_service_account(
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

    pub(super) fn service_account_event(
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
        let envelope = Envelope { number: number.0, organization, occurred_at: self.now, head };
        let Some(account) = evolve_service_account(before, &event, &envelope) else {
            unreachable!("a service account's later events follow its creation")
        };
        self.service_accounts.insert(number, account.clone());
        account
    }
}

/// What people call a thing of this kind.
fn thing(kind: StreamKind) -> &'static str {
    match kind {
        StreamKind::Principal => "Principal",
        StreamKind::ApiKey => "API key",
        StreamKind::Schedule => "Scheduled revocation",
        StreamKind::Webhook => "Webhook",
        StreamKind::Hook => "Hook",
        StreamKind::Machine => "Machine",
        StreamKind::MediaStream => "Media stream",
        _ => "Resource",
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
