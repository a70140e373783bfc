//! The directory in a batch: organizations, applications, service accounts.

use sessiond_core::application::{
    self, Application, ApplicationCommand, ApplicationCreated, ApplicationEvent, decide_application,
};
use sessiond_core::event::Event;
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, RevocationNumber, ServiceAccountNumber, StreamId, StreamKind,
};
use sessiond_core::media_stream::{MediaStream, MediaStreamDeclared, MediaStreamEvent};
use sessiond_core::organization::{
    Issuer, IssuersSet, Organization, OrganizationCommand, OrganizationEvent, decide_organization,
    evolve_organization,
};
use sessiond_core::service_account::{
    ServiceAccount, ServiceAccountCommand, ServiceAccountCreated, ServiceAccountEvent,
    decide_service_account, evolve_service_account,
};
use sessiond_core::stream::{DirectoryRefusal, Envelope, StreamRefusal};
use sessiond_core::streams::{AnyStream, Registered};
use sessiond_store::SideWrite;

use super::{Draft, Fact};
use crate::committer::{CreateOrganization, DeclareStream, Origin};
use crate::error::{Error, Thing};

impl Draft<'_> {
    /// That no OAuth client has this id, neither from before nor from this batch.
    pub(in crate::committer) fn free_client(&self, client_id: &str) -> Result<(), Error> {
        let mut applications = self.applications.values();
        let mut accounts = self.service_accounts.values();
        let taken = self.known.client(client_id).is_some()
            || applications.any(|application| application.oauth.client_id == client_id)
            || accounts.any(|account| account.client_id == client_id);
        if taken { Err(client_taken(client_id)) } else { Ok(()) }
    }

    pub(in crate::committer) fn found(
        &mut self,
        origin: &Origin,
        founding: &CreateOrganization,
    ) -> Result<(Organization, ServiceAccount), Error> {
        let application = founding.application.as_ref().map(|created| created.oauth.client_id.as_str());
        self.free_client(&founding.account.client_id)?;
        application.map_or(Ok(()), |client_id| self.free_client(client_id))?;
        if application == Some(&founding.account.client_id) {
            return Err(client_taken(&founding.account.client_id));
        }
        let last = self.known.organizations.keys().chain(self.organizations.keys()).max();
        let number = OrganizationNumber(last.map_or(0, |number| number.0) + 1);
        let event = OrganizationEvent::Created(founding.organization.clone());
        let organization = self.organization_event(origin, number, None, event, None);
        let mut account = founding.account.clone();
        if let Some(created) = &founding.application {
            let secret = founding.application_secret_hash;
            account.application = Some(self.create_application(origin, number, created, secret)?.number);
        }
        let account = self.create_service_account(origin, number, account, founding.secret_hash);
        Ok((organization, account))
    }

    pub(in crate::committer) fn change_organization(
        &mut self,
        origin: &Origin,
        number: OrganizationNumber,
        command: &OrganizationCommand,
    ) -> Result<Organization, Error> {
        let organization = self.organization(number).cloned().ok_or(Error::NotFound(Thing::Organization))?;
        if let OrganizationCommand::SetIssuers(set) = command {
            self.free_issuers(number, set)?;
            for application in set.issuers.iter().filter_map(|issuer| issuer.application) {
                self.live_application(application).map_err(|_| {
                    Error::field("applicationId", "applicationId names no application of yours")
                })?;
            }
        }
        Ok(match decide_organization(&organization, command) {
            Some(event) => self.organization_event(origin, number, Some(organization), event, None),
            None => organization,
        })
    }

    /// That no other organization has an issuer with the same audience: a token must say by itself whose it is.
    fn free_issuers(&self, number: OrganizationNumber, set: &IssuersSet) -> Result<(), Error> {
        let known = self.known.organizations.keys().chain(self.organizations.keys());
        let others = known.filter(|other| **other != number);
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
        origin: &Origin,
        number: OrganizationNumber,
        before: Option<Organization>,
        event: OrganizationEvent,
        revocation: Option<RevocationNumber>,
    ) -> Organization {
        let head = self.record(Fact {
            origin,
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
    pub(in crate::committer) fn application_named(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        made: &ApplicationCreated,
    ) -> Result<Application, Error> {
        let found = self.live_applications(organization).find(|one| one.name == made.name).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        self.room_for_application(organization)?;
        self.free_client(&made.oauth.client_id)?;
        self.create_application(origin, organization, made, None)
    }

    /// That an application is not archived: nothing new is bound to one that is.
    pub(in crate::committer) fn live_application(&self, number: ApplicationNumber) -> Result<(), Error> {
        let live = self.application(number).is_some_and(|one| one.archived_at.is_none());
        if live { Ok(()) } else { Err(Error::NotFound(Thing::Application)) }
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
    pub(in crate::committer) fn declare(
        &mut self,
        origin: &Origin,
        declaration: &DeclareStream,
    ) -> Result<MediaStream, Error> {
        let [vhost, app, stream] = &declaration.names;
        let organization = declaration.organization;
        let known = self.known.declared(organization, [vhost, app, stream]).map(|one| one.number);
        let drafted = self.streams.values().filter_map(MediaStream::of).find(|one| {
            one.organization == organization && [&one.vhost, &one.app, &one.stream] == [vhost, app, stream]
        });
        let number = known.or(drafted.map(|one| one.number));
        let before = number.and_then(|number| self.stream::<MediaStream>(number));
        if let Some(before) = before
            && self.live_application(before.application).is_ok()
        {
            return Ok(before.clone());
        }
        if number.is_none() {
            // Before an application is made for it.
            self.room_for_stream(organization)?;
        }
        let application = self.application_named(origin, organization, &declaration.application)?.number;
        let command = MediaStreamEvent::Declared(MediaStreamDeclared {
            id: declaration.id,
            vhost: vhost.clone(),
            app: app.clone(),
            stream: stream.clone(),
            application,
        });
        self.change_stream(origin, organization, number, &command, &[])
    }

    /// Does what a command wants of a stream; without a number, of a new one.
    pub(in crate::committer) fn change_stream<S: Registered>(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        number: Option<i64>,
        command: &S::Command,
        side: &[SideWrite],
    ) -> Result<S, Error> {
        let refused = |refusal: StreamRefusal| match refusal {
            StreamRefusal::Gone => Error::NotFound(S::KIND.into()),
            StreamRefusal::NeedsCredential => Error::field("credential", refusal.to_string()),
        };
        let id = match number {
            Some(number) => StreamId { kind: S::KIND, number },
            None => {
                self.room_for_another::<S>(organization)?;
                self.next_stream(S::KIND)
            }
        };
        self.concern(id);
        let before = self.any_stream(id).filter(|one| one.organization() == organization);
        let before = before.and_then(S::of).cloned();
        match S::decide(before.as_ref(), command).map_err(refused)? {
            Some(event) => {
                side.iter().for_each(|side| self.write_beside(side));
                self.stream_event(origin, organization, id.number, &event, None)
            }
            None => before.ok_or(StreamRefusal::Gone).map_err(refused),
        }
    }

    fn next_stream(&self, kind: StreamKind) -> StreamId {
        let drafted = self.streams.keys().filter(|stream| stream.kind == kind).map(|stream| stream.number);
        let known = self.known.any_streams(kind).next_back().map(|one| one.stream().number);
        StreamId { kind, number: drafted.chain(known).max().unwrap_or(0) + 1 }
    }

    /// Does what a command wants of a stream that is there, because of a revocation; what it does not apply to any more
    /// stays as it is.
    pub(super) fn change_stream_for<S: Registered>(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        number: i64,
        command: &S::Command,
        revocation: RevocationNumber,
    ) -> Result<(), Error> {
        self.concern(StreamId { kind: S::KIND, number });
        match S::decide(self.stream::<S>(number), command) {
            Ok(Some(event)) => {
                self.stream_event::<S>(origin, organization, number, &event, Some(revocation)).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Records an event of a stream.
    pub(super) fn stream_event<S: Registered>(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        number: i64,
        event: &S::Event,
        revocation: Option<RevocationNumber>,
    ) -> Result<S, Error> {
        let stream = StreamId { kind: S::KIND, number };
        let head = self.any_stream(stream).map_or_else(Head::default, AnyStream::head);
        // Whose feed it is in has to be known before it has its place in the log.
        let envelope = Envelope { number, organization, occurred_at: self.now, head: self.next_head(head) };
        let after = S::evolve(self.stream(number).cloned(), event, &envelope);
        let after =
            after.ok_or_else(|| Error::Internal(format!("{} {number} folds to nothing", S::KIND.word())))?;
        self.record(Fact {
            origin,
            stream,
            head,
            organization,
            application: after.application(),
            revocation,
            occurred_at: self.now,
            event: Event::Directory(S::event(event.clone())),
            personal: None,
        });
        self.streams.insert(stream, after.clone().any());
        Ok(after)
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

    pub(in crate::committer) fn create_application(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        created: &ApplicationCreated,
        secret_hash: Option<[u8; 32]>,
    ) -> Result<Application, Error> {
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
            origin,
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
        Ok(application)
    }

    pub(in crate::committer) fn command_application(
        &mut self,
        origin: &Origin,
        number: ApplicationNumber,
        command: &ApplicationCommand,
    ) -> Result<Application, Error> {
        let application = self.application(number).cloned().ok_or(Error::NotFound(Thing::Application))?;
        let name_taken = match command {
            ApplicationCommand::Change(changed) => {
                let taken = |name: &String| self.name_taken(application.organization, name, Some(number));
                changed.name.as_ref().is_some_and(taken)
            }
            _ => false,
        };
        let events = decide_application(&application, command, name_taken)?;
        Ok(events.into_iter().fold(application, |application, event| {
            self.application_event(origin, number, Some(application), event, None)
        }))
    }

    /// Records an event of an application that exists.
    pub(super) fn application_event(
        &mut self,
        origin: &Origin,
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
            origin,
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

    pub(in crate::committer) fn create_service_account(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        created: ServiceAccountCreated,
        secret_hash: [u8; 32],
    ) -> ServiceAccount {
        let last = self.known.service_accounts.keys().chain(self.service_accounts.keys()).max();
        let number = ServiceAccountNumber(last.map_or(0, |number| number.0) + 1);
        self.side.push(SideWrite::ClientSecret { client_id: created.client_id.clone(), secret_hash });
        self.service_account_event(origin, organization, number, None, ServiceAccountEvent::Created(created))
    }

    pub(in crate::committer) fn change_service_account(
        &mut self,
        origin: &Origin,
        number: ServiceAccountNumber,
        command: ServiceAccountCommand,
    ) -> Result<ServiceAccount, Error> {
        let account = self.service_account(number).cloned().ok_or(Error::NotFound(Thing::ServiceAccount))?;
        let events =
            decide_service_account(&account, command).map_err(|_| Error::NotFound(Thing::ServiceAccount))?;
        Ok(events.into_iter().fold(account, |account, event| {
            self.service_account_event(origin, account.organization, account.number, Some(account), event)
        }))
    }

    pub(super) fn service_account_event(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        number: ServiceAccountNumber,
        before: Option<ServiceAccount>,
        event: ServiceAccountEvent,
    ) -> ServiceAccount {
        let head = self.record(Fact {
            origin,
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

fn client_taken(client_id: &str) -> Error {
    Error::Conflict { code: "client_id_taken", message: format!("the client id {client_id:?} is taken") }
}

impl From<DirectoryRefusal> for Error {
    fn from(refusal: DirectoryRefusal) -> Self {
        match refusal {
            DirectoryRefusal::NameTaken => {
                Self::Conflict { code: "name_taken", message: refusal.to_string() }
            }
            DirectoryRefusal::Archived => Self::NotFound(Thing::Application),
        }
    }
}
