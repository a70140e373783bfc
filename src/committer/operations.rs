//! Every operation there is, by what it is about.

use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::application::{
    Application, ApplicationChanged, ApplicationCommand, ApplicationCreated, UpstreamSet,
};
use sessiond_core::bar::Bar;
use sessiond_core::command::{Command, Connect};
use sessiond_core::filter::Filter;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, ServiceAccountNumber,
    SessionNumber,
};
use sessiond_core::media_stream::MediaStream;
use sessiond_core::organization::{Organization, OrganizationCommand, OrganizationCreated};
use sessiond_core::phase::{Outcome, Phase};
use sessiond_core::policy::ApplicationPolicy;
use sessiond_core::presented::Presented;
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Revocation;
use sessiond_core::service_account::{ServiceAccount, ServiceAccountCommand, ServiceAccountCreated};
use sessiond_core::session::event::{ActivitySource, Counts};
use sessiond_core::session::{Refusal, Session};
use sessiond_core::streams::Registered;
use sessiond_core::throughput::{Reading, Sample};
use sessiond_core::token::AccessToken;
use sessiond_core::webhook::{Webhook, WebhookCreated, WebhookEvent};
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::{Draft, Operation, Origin};
use crate::error::Error;
use crate::gate::Due;

// ---- sessions ----

/// Opens a session, or attaches to the one that holds the same natural key; with what belongs to it beside the rules.
#[derive(Debug)]
pub struct OpenSession {
    pub connect: Connect,
    /// None for kinds of session that have no token.
    pub token_hash: Option<[u8; 32]>,
    pub issuer: String,
    pub subject: String,
    pub subject_digest: [u8; 32],
}

/// A session as it stands after somebody connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connected {
    pub session: Box<Session>,
    /// Whether it was opened by that, and not attached to.
    pub opened: bool,
}

impl Operation for OpenSession {
    type Outcome = Connected;
    /// Who makes room under a limit depends on it.
    const LOOKS_AT_OTHERS: bool = true;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Connected, Error> {
        draft.connect(origin, self)
    }
}

/// What a session did.
#[derive(Debug, Clone, Copy)]
pub struct Activity {
    pub source: ActivitySource,
    pub counts: Counts,
    pub presented: Presented,
}

impl From<Activity> for Command {
    fn from(Activity { source, counts, presented }: Activity) -> Self {
        Self::RecordActivity { source, counts, presented }
    }
}

/// Records a sign of life of a session.
#[derive(Debug)]
pub struct RecordActivity {
    pub session: SessionNumber,
    pub activity: Activity,
}

impl Operation for RecordActivity {
    type Outcome = Box<Session>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Box<Session>, Error> {
        draft.command_session(origin, self.session, &self.activity.into())
    }
}

/// Notes how far the work behind a session has come.
#[derive(Debug)]
pub struct ChangePhase {
    pub session: SessionNumber,
    pub phase: Phase,
    pub presented: Presented,
}

impl Operation for ChangePhase {
    type Outcome = Box<Session>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Box<Session>, Error> {
        let command = Command::ChangePhase { phase: self.phase, presented: self.presented };
        draft.command_session(origin, self.session, &command)
    }
}

/// Refuses every request of a session from now on, or no longer, and changes nothing else.
#[derive(Debug)]
pub struct SetSuspended {
    pub session: SessionNumber,
    pub suspended: bool,
}

impl Operation for SetSuspended {
    type Outcome = Box<Session>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Box<Session>, Error> {
        let command = if self.suspended { Command::Suspend } else { Command::Resume };
        draft.command_session(origin, self.session, &command)
    }
}

/// Replaces a session's token by one with this hash.
#[derive(Debug)]
pub struct RenewToken {
    pub session: SessionNumber,
    pub presented: Presented,
    pub token_hash: [u8; 32],
}

impl Operation for RenewToken {
    type Outcome = Box<Session>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Box<Session>, Error> {
        let command = Command::RenewToken { presented: self.presented };
        let session = draft.command_session(origin, self.session, &command)?;
        draft.issue_session_token(self.session, self.token_hash);
        Ok(session)
    }
}

/// Records signs of life of many sessions, at most [`super::CHUNK`]. Each may be refused for itself: the outcome has the
/// refusals, in the order of the sessions.
#[derive(Debug)]
pub struct ReportActivity(pub Vec<(SessionNumber, Activity)>);

impl Operation for ReportActivity {
    type Outcome = Vec<Option<Refusal>>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Self::Outcome, Error> {
        Ok(draft.report(origin, &self.0))
    }

    fn sessions(&self) -> usize {
        self.0.len()
    }
}

/// A reading of the counter of what a session was sent.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    pub sample: Sample,
    pub presented: Presented,
}

/// Takes readings of many sessions' counters, at most [`super::CHUNK`]. Each may be refused for itself: the outcome has what
/// became of each, in their order.
#[derive(Debug)]
pub struct MeasureSessions(pub Vec<(SessionNumber, Measurement)>);

impl Operation for MeasureSessions {
    type Outcome = Vec<Result<Reading, Refusal>>;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Self::Outcome, Error> {
        Ok(draft.measure(origin, &self.0))
    }

    fn sessions(&self) -> usize {
        self.0.len()
    }
}

/// How a session is to end.
#[derive(Debug, Clone)]
pub enum SessionEnd {
    Disconnect(Reason),
    /// The work behind it is over.
    Finish {
        outcome: Outcome,
        message: Option<String>,
    },
    /// Its absolute lifetime has passed.
    Lifetime,
}

impl From<&SessionEnd> for Command {
    fn from(end: &SessionEnd) -> Self {
        match end {
            SessionEnd::Disconnect(reason) => Self::Disconnect { reason: *reason },
            SessionEnd::Finish { outcome, message } => {
                Self::Finish { outcome: *outcome, message: message.clone() }
            }
            SessionEnd::Lifetime => Self::EndLifetime,
        }
    }
}

/// Ends sessions, at most [`super::CHUNK`], perhaps because a revocation covers them. The outcome is how many it ended.
#[derive(Debug)]
pub struct EndSessions {
    pub ends: Vec<(SessionNumber, SessionEnd)>,
    pub revocation: Option<RevocationNumber>,
}

impl Operation for EndSessions {
    type Outcome = u64;
    /// A revocation ends many before it answers, and waits for all of them at once.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<u64, Error> {
        let commands = self.ends.iter().map(|(number, end)| (*number, end.into()));
        Ok(draft.end_sessions(origin, commands, self.revocation))
    }

    fn sessions(&self) -> usize {
        self.ends.len()
    }
}

/// Does what the clock demands of sessions, at most [`super::CHUNK`]. The outcome is how many it ended.
#[derive(Debug)]
pub struct MeetDeadlines {
    pub due: Vec<(SessionNumber, Due)>,
    /// The later of process start and last clock jump: our own absence never counts as theirs.
    pub not_before: Time,
}

impl Operation for MeetDeadlines {
    type Outcome = u64;
    /// Nobody is told that it is over.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<u64, Error> {
        let not_before = self.not_before;
        let command = |due| match due {
            Due::Expire => Command::Expire,
            Due::Lifetime => Command::EndLifetime,
            Due::Stale(seen_at) => Command::EndStale { not_before, seen_at },
        };
        Ok(draft.end_sessions(origin, self.due.iter().map(|(number, due)| (*number, command(*due))), None))
    }

    fn sessions(&self) -> usize {
        self.due.len()
    }
}

// ---- revocations ----

/// Closes the Gate for what a filter covers and records that a revocation began, with what happens in the same transaction.
#[derive(Debug, Clone)]
pub struct BeginRevocation {
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub filter: Filter,
    pub reason: Reason,
    pub note: Option<String>,
    /// What it bars beyond what its filter bars by itself.
    pub bar: Bar,
    /// The principal is disabled with it; with its public id.
    pub disable: Option<(PrincipalNumber, Uuid)>,
    /// It is a run of this schedule, for this moment. A run that is done already does not begin again.
    pub schedule: Option<(i64, Time)>,
}

impl Operation for BeginRevocation {
    type Outcome = Revocation;
    /// Its worker has more to cut off before anybody is answered.
    const WAITS: bool = false;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Revocation, Error> {
        draft.begin_revocation(origin, self)
    }

    fn revocation(&self) -> Option<&BeginRevocation> {
        Some(self)
    }
}

/// Records that a revocation is through.
#[derive(Debug)]
pub struct EndRevocation {
    pub number: RevocationNumber,
    /// Requests and streams that it cut off.
    pub streams_closed: u64,
}

impl Operation for EndRevocation {
    type Outcome = Revocation;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Revocation, Error> {
        draft.end_revocation(origin, self.number, self.streams_closed)
    }
}

// ---- the directory ----

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

/// Sets an application's policy, for sessions opened from now on.
#[derive(Debug)]
pub struct SetPolicy {
    pub number: ApplicationNumber,
    pub policy: ApplicationPolicy,
}

impl Operation for SetPolicy {
    type Outcome = Application;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Application, Error> {
        draft.change_application(
            origin,
            self.number,
            &ApplicationCommand::SetPolicy(Box::new(self.policy.clone())),
        )
    }
}

/// Gives an application another secret.
#[derive(Debug)]
pub struct RotateApplicationSecret {
    pub number: ApplicationNumber,
    pub secret_hash: [u8; 32],
}

impl Operation for RotateApplicationSecret {
    type Outcome = Application;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<Application, Error> {
        let application = draft.change_application(origin, self.number, &ApplicationCommand::RotateSecret)?;
        let (client_id, secret_hash) = (application.oauth.client_id.clone(), self.secret_hash);
        draft.write_beside(&SideWrite::ClientSecret { client_id, secret_hash });
        Ok(application)
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
        draft.write_beside(&SideWrite::UpstreamSecret {
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

/// Gives a service account another secret.
#[derive(Debug)]
pub struct RotateServiceAccountSecret {
    pub number: ServiceAccountNumber,
    pub secret_hash: [u8; 32],
}

impl Operation for RotateServiceAccountSecret {
    type Outcome = ServiceAccount;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<ServiceAccount, Error> {
        let account =
            draft.change_service_account(origin, self.number, &ServiceAccountCommand::RotateSecret)?;
        let (client_id, secret_hash) = (account.client_id.clone(), self.secret_hash);
        draft.write_beside(&SideWrite::ClientSecret { client_id, secret_hash });
        Ok(account)
    }
}

/// Archives a service account: it gets no more tokens, and those it has open nothing.
#[derive(Debug)]
pub struct ArchiveServiceAccount(pub ServiceAccountNumber);

impl Operation for ArchiveServiceAccount {
    type Outcome = ServiceAccount;

    fn decide(&self, origin: &Origin, draft: &mut Draft<'_>) -> Result<ServiceAccount, Error> {
        draft.change_service_account(origin, self.0, &ServiceAccountCommand::Archive)
    }
}

/// Wants something of a stream of the directory; without a number, of a new one.
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

// ---- beside the log ----

/// Issues an access token; the draft fills in where in the log.
#[derive(Debug)]
pub struct IssueToken {
    pub token: AccessToken,
    /// When in the log its client was looked at: what has changed since has to be looked at again.
    pub as_of: Position,
}

impl Operation for IssueToken {
    type Outcome = ();

    fn decide(&self, _: &Origin, draft: &mut Draft<'_>) -> Result<(), Error> {
        draft.issue_token(&self.token, self.as_of)
    }
}

/// Writes what is no event.
#[derive(Debug)]
pub struct WriteBeside(pub SideWrite);

impl Operation for WriteBeside {
    type Outcome = ();

    fn decide(&self, _: &Origin, draft: &mut Draft<'_>) -> Result<(), Error> {
        draft.write_beside(&self.0);
        Ok(())
    }
}

/// Nothing: whoever waits for its answer has waited for what was handed in before.
#[derive(Debug)]
pub struct Turn;

impl Operation for Turn {
    type Outcome = ();

    fn decide(&self, _: &Origin, _: &mut Draft<'_>) -> Result<(), Error> {
        Ok(())
    }
}
