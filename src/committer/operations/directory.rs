//! Operations on the directory: organizations, applications, service accounts and other streams, and principals.

use sessiond_core::application::{
    Application, ApplicationChanged, ApplicationCommand, ApplicationCreated, UpstreamSet,
};
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, PrincipalNumber};
use sessiond_core::media_stream::MediaStream;
use sessiond_core::organization::{Organization, OrganizationCommand, OrganizationCreated};
use sessiond_core::service_account::{ServiceAccount, ServiceAccountCreated};
use sessiond_core::streams::Registered;
use sessiond_core::webhook::{Webhook, WebhookCreated, WebhookEvent};
use sessiond_store::SideWrite;
use uuid::Uuid;

use crate::committer::{Draft, Operation, Origin};
use crate::error::Error;

/// Makes an organization with its first service account, and an application to go with it.
#[derive(Debug)]
pub struct CreateOrganization {
    pub organization: OrganizationCreated,
    pub application: Option<ApplicationCreated>,
    pub application_secret_hash: Option<[u8; 32]>,
    pub account: ServiceAccountCreated,
    pub secret_hash: [u8; 32],
}

impl Operation for CreateOrganization {
    type Outcome = (Organization, ServiceAccount);

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Self::Outcome, Error> {
        draft.create_organization(origin, self)
    }
}

/// Changes an organization.
#[derive(Debug)]
pub struct ChangeOrganization {
    pub number: OrganizationNumber,
    pub command: OrganizationCommand,
}

impl Operation for ChangeOrganization {
    type Outcome = Organization;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Organization, Error> {
        draft.change_organization(origin, self.number, &self.command)
    }
}

/// Makes an application.
#[derive(Debug)]
pub struct CreateApplication {
    pub organization: OrganizationNumber,
    pub created: ApplicationCreated,
    pub secret_hash: Option<[u8; 32]>,
}

impl Operation for CreateApplication {
    type Outcome = Application;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Application, Error> {
        draft.free_client(&self.created.oauth.client_id)?;
        draft.create_application(origin, self.organization, &self.created, self.secret_hash)
    }
}

/// Makes sure that there is an application of this name.
#[derive(Debug)]
pub struct EnsureApplication {
    pub organization: OrganizationNumber,
    /// How to make it where there is none.
    pub created: ApplicationCreated,
}

impl Operation for EnsureApplication {
    type Outcome = Application;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Application, Error> {
        draft.application_named(origin, self.organization, &self.created)
    }
}

/// Changes what is said of an application.
#[derive(Debug)]
pub struct ChangeApplication {
    pub number: ApplicationNumber,
    pub changed: ApplicationChanged,
}

impl Operation for ChangeApplication {
    type Outcome = Application;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Application, Error> {
        draft.change_application(origin, self.number, &ApplicationCommand::Change(self.changed.clone()))
    }
}

/// Names the server behind an application's gateway.
#[derive(Debug)]
pub struct SetUpstream {
    pub number: ApplicationNumber,
    pub set: UpstreamSet,
    /// The sealed secret of its credential; without one, the secret before is forgotten.
    pub sealed: Option<Vec<u8>>,
}

impl Operation for SetUpstream {
    type Outcome = Application;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Application, Error> {
        let application = draft.change_application(
            origin,
            self.number,
            &ApplicationCommand::SetUpstream(self.set.clone()),
        )?;
        draft.write_beside(SideWrite::UpstreamSecret {
            application: self.number,
            sealed: self.sealed.clone(),
        });
        Ok(application)
    }
}

/// Makes a service account.
#[derive(Debug)]
pub struct CreateServiceAccount {
    pub organization: OrganizationNumber,
    pub created: ServiceAccountCreated,
    pub secret_hash: [u8; 32],
}

impl Operation for CreateServiceAccount {
    type Outcome = ServiceAccount;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<ServiceAccount, Error> {
        draft.free_client(&self.created.client_id)?;
        self.created.application.map_or(Ok(()), |application| draft.live_application(application))?;
        draft.create_service_account(origin, self.organization, self.created.clone(), self.secret_hash)
    }
}

/// Does what a command wants of a stream about which nothing else has to be known; without a number, of a new one.
#[derive(Debug)]
pub struct ChangeStream<S: Registered> {
    pub organization: OrganizationNumber,
    pub number: Option<i64>,
    pub command: S::Command,
    /// Written with it, if it happens.
    pub side: Vec<SideWrite>,
}

impl<S> Operation for ChangeStream<S>
where
    S: Registered<Command: Send> + Send + Sync,
{
    type Outcome = S;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<S, Error> {
        draft.change_stream(origin, self.organization, self.number, &self.command, &self.side)
    }
}

/// Makes a webhook.
#[derive(Debug)]
pub struct CreateWebhook {
    pub organization: OrganizationNumber,
    pub created: WebhookCreated,
    /// Its signing secret, sealed.
    pub sealed: Vec<u8>,
}

impl Operation for CreateWebhook {
    type Outcome = Webhook;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Webhook, Error> {
        self.created.application.map_or(Ok(()), |application| draft.live_application(application))?;
        let secret = SideWrite::WebhookSecret { id: self.created.id, sealed: self.sealed.clone() };
        let command = WebhookEvent::Created(self.created.clone());
        draft.change_stream(origin, self.organization, None, &command, &[secret])
    }
}

/// Makes sure that there is a media stream, with an application for its app.
#[derive(Debug, Clone)]
pub struct DeclareStream {
    pub organization: OrganizationNumber,
    pub id: Uuid,
    /// Virtual host, app and stream.
    pub names: [String; 3],
    /// The application that stands for the app, where there is none of its name yet.
    pub application: ApplicationCreated,
}

impl Operation for DeclareStream {
    type Outcome = MediaStream;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<MediaStream, Error> {
        draft.declare(origin, self)
    }
}

/// Knows a principal, whether it is new or not, as whoever vouches for it describes it.
#[derive(Debug, Clone)]
pub struct IntroducePrincipal {
    pub organization: OrganizationNumber,
    pub issuer: String,
    pub subject: String,
    pub subject_digest: [u8; 32],
    /// Replace what was known, where they are said.
    pub name: Option<String>,
    pub email: Option<String>,
}

impl Operation for IntroducePrincipal {
    type Outcome = PrincipalNumber;

    fn decide(&self, _: &Origin, draft: &mut Draft<'_>) -> Result<PrincipalNumber, Error> {
        draft.meet(self)
    }
}
