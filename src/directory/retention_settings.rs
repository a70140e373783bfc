//! How long an organization keeps things, as it chooses.

use std::sync::Arc;

use sessiond_core::caller::Caller;
use sessiond_core::ids::Position;
use sessiond_core::organization::{Organization, OrganizationCommand};
use sessiond_core::retention::{Figures, Retention, kept_since};
pub use sessiond_store::EndedBefore;

use crate::committer::ChangeOrganization;
use crate::context::AppContext;
use crate::error::Error;

/// How long organizations keep things.
#[derive(Clone)]
pub struct RetentionSettings {
    context: Arc<AppContext>,
}

impl RetentionSettings {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Returns the server's figures, for what an organization has not chosen for itself.
    pub fn server(&self) -> Figures {
        self.context.retention
    }

    /// Returns what the caller's organization chose.
    pub fn chosen(&self, caller: &Caller) -> Retention {
        let known = self.context.gate.known();
        known.stream::<Organization>(caller.organization).map(|one| one.retention).unwrap_or_default()
    }

    /// Chooses for the caller's organization.
    pub async fn set(&self, caller: &Caller, retention: Retention) -> Result<Retention, Error> {
        let command = OrganizationCommand::SetRetention(retention);
        let change = ChangeOrganization { number: caller.organization, command };
        Ok(self.context.submit(caller, change).await?.retention)
    }

    /// Returns how far whoever follows the caller's organization has to have come to have missed nothing that was let go.
    pub fn let_go_up_to(&self, caller: &Caller) -> Position {
        let known = self.context.gate.known();
        known.stream::<Organization>(caller.organization).map(|one| one.let_go.up_to).unwrap_or_default()
    }

    /// Counts what ended too long ago to be kept, were this in force.
    pub async fn lets_go(&self, caller: &Caller, figures: Figures) -> Result<EndedBefore, Error> {
        let Some(seconds) = figures.ended_after else { return Ok(EndedBefore::default()) };
        let before = kept_since(self.context.clock.now(), seconds);
        Ok(self.context.store.ended_before(caller.organization, before).await?)
    }
}
