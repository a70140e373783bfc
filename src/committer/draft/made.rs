//! How much an organization may have: decided with the operation that makes one more, so that no two can both be the last.

use sessiond_core::ids::{OrganizationNumber, StreamKind};
use sessiond_core::streams::{AnyStream, Registered};

use super::Draft;
use crate::error::Error;

impl Draft<'_> {
    /// That one more application may be made on the way.
    pub(super) fn room_for_application(&self, organization: OrganizationNumber) -> Result<(), Error> {
        let most = self.maxima.applications;
        let made = self.live_applications(organization).filter(|one| one.on_the_way).count();
        if made < most as usize {
            return Ok(());
        }
        let message = format!(
            "There are {most} applications already that were made because somebody named them, and that is the most \
             (--max-made-applications): name one that there is, or have one made under /api/v1/applications"
        );
        Err(Error::LimitReached { code: "application_limit_reached", message, shuts_out: false })
    }

    /// That one more principal may be met.
    pub(super) fn room_for_principal(&self, organization: OrganizationNumber) -> Result<(), Error> {
        let most = self.maxima.principals;
        let drafted = self.principals.keys().filter(|(of, _)| *of == organization).count();
        if self.known.principals_in(organization) + drafted < most as usize {
            return Ok(());
        }
        let message = format!(
            "The organization knows {most} people and clients already, and that is the most (--max-principals): only those \
             who are known get in"
        );
        Err(Error::LimitReached { code: "principal_limit_reached", message, shuts_out: true })
    }

    /// That there may be one more of a kind of stream.
    pub(super) fn room_for_another<S: Registered>(
        &self,
        organization: OrganizationNumber,
    ) -> Result<(), Error> {
        match S::KIND {
            StreamKind::MediaStream => self.room_for_stream(organization),
            _ => self.room_for_more::<S>(organization, 1),
        }
    }

    /// That there may be so many more of a kind of stream.
    pub(super) fn room_for_more<S: Registered>(
        &self,
        organization: OrganizationNumber,
        more: usize,
    ) -> Result<(), Error> {
        let Some(most) = S::MOST else { return Ok(()) };
        let counts = |one: &&AnyStream| {
            one.organization() == organization && S::of(one).is_some_and(|one| one.exists_at(self.now))
        };
        // What this batch changed stands in for what was known of it.
        let drafted = self.streams.values().filter(counts).count();
        let replaced = self.streams.keys().filter_map(|id| self.known.any_stream(*id)).filter(counts).count();
        let known = self.known.any_streams(S::KIND).filter(counts).count();
        if known + drafted - replaced + more <= most.count {
            return Ok(());
        }
        let message = format!("an organization may have at most {} {}", most.count, most.plural);
        Err(Error::LimitReached { code: most.code, message, shuts_out: false })
    }

    /// That one more media stream may be declared.
    pub(super) fn room_for_stream(&self, organization: OrganizationNumber) -> Result<(), Error> {
        let most = self.maxima.streams;
        let fresh = |one: &&AnyStream| {
            let id = one.stream();
            id.kind == StreamKind::MediaStream
                && one.organization() == organization
                && self.known.any_stream(id).is_none()
        };
        let drafted = self.streams.values().filter(fresh).count();
        if self.known.streams_in(organization) + drafted < most as usize {
            return Ok(());
        }
        let message = format!(
            "There are {most} media streams already, and that is the most (--max-made-streams): name one that there is"
        );
        Err(Error::LimitReached { code: "stream_limit_reached", message, shuts_out: false })
    }
}
