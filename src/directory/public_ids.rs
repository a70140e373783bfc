//! Public ids of what the log names by numbers, for whoever tells others of events.

use std::sync::Arc;

use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, StreamId};
use sessiond_core::streams::AnyStream;
use uuid::Uuid;

use crate::context::AppContext;

/// Public ids by numbers.
#[derive(Clone)]
pub struct PublicIds {
    context: Arc<AppContext>,
}

impl PublicIds {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Returns the public id of an organization.
    pub fn organization(&self, number: OrganizationNumber) -> Uuid {
        self.context.organization_id(number)
    }

    /// Returns the public id of an application.
    pub fn application(&self, number: ApplicationNumber) -> Uuid {
        self.context.gate.known().application_id(number)
    }

    /// Returns the public id of what a stream of the directory is about.
    pub fn thing(&self, stream: StreamId) -> Option<Uuid> {
        self.context.gate.known().any_stream(stream).map(AnyStream::id)
    }
}
