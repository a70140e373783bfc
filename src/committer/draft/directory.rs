//! The directory in a batch: organizations, applications, service accounts, media streams.

use sessiond_core::application::{Application, ApplicationCommand, ApplicationCreated};
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, StreamKind};
use sessiond_core::media_stream::{MediaStream, MediaStreamDeclared, MediaStreamEvent};
use sessiond_core::organization::{Issuer, IssuersSet, Organization, OrganizationCommand};
use sessiond_core::service_account::{ServiceAccount, ServiceAccountCommand, ServiceAccountCreated};
use sessiond_store::SideWrite;

use super::Draft;
use crate::committer::{CreateOrganization, DeclareStream, Origin};
use crate::error::{Error, Thing};

impl Draft<'_> {
    /// That no OAuth client has this id, neither from before nor from this batch.
    pub(in crate::committer) fn free_client(&self, client_id: &str) -> Result<(), Error> {
        let mut applications = self.drafted::<Application>();
        let mut accounts = self.drafted::<ServiceAccount>();
        let taken = self.known.client(client_id).is_some()
            || applications.any(|application| application.oauth.client_id == client_id)
            || accounts.any(|account| account.client_id == client_id);
        if taken { Err(client_taken(client_id)) } else { Ok(()) }
    }

    pub(in crate::committer) fn create_organization(
        &mut self,
        origin: &Origin,
        creation: &CreateOrganization,
    ) -> Result<(Organization, ServiceAccount), Error> {
        let application = creation.application.as_ref().map(|created| created.oauth.client_id.as_str());
        self.free_client(&creation.account.client_id)?;
        application.map_or(Ok(()), |client_id| self.free_client(client_id))?;
        if application == Some(&creation.account.client_id) {
            return Err(client_taken(&creation.account.client_id));
        }
        let number = OrganizationNumber(self.next_stream(StreamKind::Organization).number);
        let command = OrganizationCommand::Create(creation.organization.clone());
        let organization = self.change_stream(origin, number, None, &command, &[])?;
        let mut account = creation.account.clone();
        if let Some(created) = &creation.application {
            let secret = creation.application_secret_hash;
            account.application = Some(self.create_application(origin, number, created, secret)?.number);
        }
        let account = self.create_service_account(origin, number, account, creation.secret_hash)?;
        Ok((organization, account))
    }

    pub(in crate::committer) fn change_organization(
        &mut self,
        origin: &Origin,
        number: OrganizationNumber,
        command: &OrganizationCommand,
    ) -> Result<Organization, Error> {
        if let OrganizationCommand::SetIssuers(set) = command {
            self.free_issuers(number, set)?;
            for application in set.issuers.iter().filter_map(|issuer| issuer.application) {
                self.live_application(application).map_err(|_| {
                    Error::field("applicationId", "applicationId names no application of yours")
                })?;
            }
        }
        self.change_stream(origin, number, Some(number.into()), command, &[])
    }

    /// That no other organization has an issuer with the same audience: a token must say by itself whose it is.
    fn free_issuers(&self, number: OrganizationNumber, set: &IssuersSet) -> Result<(), Error> {
        let others = self.streams_of::<Organization>().filter(|other| other.number != number);
        let mut others = others.flat_map(|other| &other.issuers);
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
        self.streams_of::<Application>()
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
        let drafted = self.drafted::<MediaStream>().find(|one| {
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
            return Err(name_taken());
        }
        let client_id = created.oauth.client_id.clone();
        let secret = secret_hash.map(|secret_hash| SideWrite::ClientSecret {
            client_id,
            secret_hash,
            before_until: None,
        });
        let command = ApplicationCommand::Create(Box::new(created.clone()));
        self.change_stream(origin, organization, None, &command, secret.as_slice())
    }

    pub(in crate::committer) fn change_application(
        &mut self,
        origin: &Origin,
        number: ApplicationNumber,
        command: &ApplicationCommand,
    ) -> Result<Application, Error> {
        let application = self.application(number).ok_or(Error::NotFound(Thing::Application))?;
        let organization = application.organization;
        if let ApplicationCommand::Change(changed) = command
            && application.archived_at.is_none()
            && changed.name.as_ref().is_some_and(|name| self.name_taken(organization, name, Some(number)))
        {
            return Err(name_taken());
        }
        self.change_stream(origin, organization, Some(number.into()), command, &[])
    }

    pub(in crate::committer) fn create_service_account(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        created: ServiceAccountCreated,
        secret_hash: [u8; 32],
    ) -> Result<ServiceAccount, Error> {
        let secret =
            SideWrite::ClientSecret { client_id: created.client_id.clone(), secret_hash, before_until: None };
        let command = ServiceAccountCommand::Create(created);
        self.change_stream(origin, organization, None, &command, &[secret])
    }
}

fn client_taken(client_id: &str) -> Error {
    Error::Conflict { code: "client_id_taken", message: format!("the client id {client_id:?} is taken") }
}

fn name_taken() -> Error {
    let message = "another application of this organization has this name".to_owned();
    Error::Conflict { code: "name_taken", message }
}
