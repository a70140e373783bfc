//! What the application works with, whichever subject it is about: who writes, who decides who may pass, who reads, the time,
//! the key and the policy. Each subject of `sessions` and `directory` has it by an `Arc`, beside what is its own.

use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, PrincipalNumber};
use sessiond_core::policy::Policy;
use sessiond_core::retention::Figures;
use sessiond_core::streams::Registered;
use sessiond_store::{SideWrite, Store};
use uuid::Uuid;

use crate::clock::Clock;
use crate::committer::{ChangeStream, Committer, IntroducePrincipal, Operation, Origin, WriteBeside};
use crate::error::{Error, Thing};
use crate::gate::Gate;
use crate::nodes::Claims;
use crate::secret::SecretKey;
use crate::telling::Telling;

/// What the subjects of the application share.
pub struct AppContext {
    pub committer: Committer,
    pub gate: Arc<Gate>,
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    /// Who is who, for whatever is told.
    pub telling: Telling,
    pub key: SecretKey,
    /// The server's policy, for what an application has not chosen for itself.
    pub policy: Policy,
    /// What of all that only one of several processes does.
    pub claims: Claims,
    /// How long the server keeps things, for what an organization has not chosen for itself.
    pub retention: Figures,
}

impl AppContext {
    /// The number of the application behind an id, if the caller may read it: archived ones stay readable.
    pub fn application_number(&self, caller: &Caller, id: Uuid) -> Result<ApplicationNumber, Error> {
        let known = self.gate.known();
        let found = known.application(id).filter(|one| is_readable(caller, one));
        found.map(|one| one.number).ok_or(Error::NotFound(Thing::Application))
    }

    /// The same application as a whole.
    pub fn application(&self, caller: &Caller, id: Uuid) -> Result<Application, Error> {
        let known = self.gate.known();
        let found = known.application(id).filter(|one| is_readable(caller, one));
        found.cloned().ok_or(Error::NotFound(Thing::Application))
    }

    /// Hands in an operation in a caller's name, and returns its outcome.
    pub async fn submit<O: Operation>(&self, caller: &Caller, operation: O) -> Result<O::Outcome, Error> {
        Ok(self.committer.submit(Origin::caller(caller), operation).await?.outcome)
    }

    /// Hands in a command to a stream of the caller's organization; without a number, to a new one.
    pub async fn change_stream<S>(
        &self,
        caller: &Caller,
        number: Option<i64>,
        command: S::Command,
        side: Vec<SideWrite>,
    ) -> Result<S, Error>
    where
        S: Registered<Command: Send> + Send + Sync,
    {
        let organization = caller.organization;
        self.submit(caller, ChangeStream { organization, number, command, side }).await
    }

    /// Writes beside the log what no event says, in nobody's name.
    pub async fn write_beside(&self, side: SideWrite) -> Result<(), Error> {
        self.committer.submit(Origin::system(), WriteBeside(side)).await.map(|_| ())
    }

    /// The number of a principal, which is recorded if it is new.
    pub async fn introduce(&self, introduction: IntroducePrincipal) -> Result<PrincipalNumber, Error> {
        Ok(self.committer.submit(Origin::system(), introduction).await?.outcome)
    }

    /// When the event at a position was recorded, or the next one that is kept, where there is one.
    pub async fn recorded_from(&self, position: Position) -> Result<Option<Time>, Error> {
        let next = self.store.log(Position(position.0 - 1), 1).await?;
        Ok(next.first().map(|entry| entry.recorded.recorded_at))
    }

    /// The public id of an organization.
    pub fn organization_id(&self, number: OrganizationNumber) -> Uuid {
        self.gate.known().organization_id(number)
    }
}

/// Whether a caller may know of an application.
pub fn is_readable(caller: &Caller, application: &Application) -> bool {
    application.organization == caller.organization && caller.may_touch(application.number)
}
