//! Public ids of what the log names by numbers, for whoever tells others of events.

use std::sync::Arc;

use sessiond_core::application::Application;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, ServiceAccountNumber, StreamId, StreamKind};
use sessiond_core::organization::Organization;
use sessiond_core::service_account::ServiceAccount;
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
        let known = self.context.gate.known();
        match stream.kind {
            StreamKind::Organization => {
                known.stream::<Organization>(OrganizationNumber(stream.number)).map(|one| one.id)
            }
            StreamKind::Application => {
                known.stream::<Application>(ApplicationNumber(stream.number)).map(|one| one.id)
            }
            StreamKind::ServiceAccount => {
                let number = ServiceAccountNumber(stream.number);
                known.stream::<ServiceAccount>(number).map(|one| one.id)
            }
            _ => known.any_stream(stream).map(AnyStream::id),
        }
    }
}
