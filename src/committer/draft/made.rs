//! How much an organization may have: decided with the unit that makes one more, so that no two can both be the last.

use sessiond_core::ids::{OrganizationNumber, StreamKind};
use sessiond_core::item::Item;

use super::Draft;
use crate::error::Error;

/// The most of each small thing that people make one by one; with what it is called, and the word for having too many.
fn most(kind: StreamKind) -> Option<(usize, &'static str, &'static str)> {
    match kind {
        StreamKind::Machine => Some((10_000, "machines", "machine_limit_reached")),
        StreamKind::Webhook => Some((100, "webhooks", "webhook_limit_reached")),
        StreamKind::Hook => Some((100, "hooks", "hook_limit_reached")),
        StreamKind::Schedule => Some((1_000, "scheduled revocations", "too_many_schedules")),
        _ => None,
    }
}

fn is_there(item: &Item) -> bool {
    match item {
        Item::Schedule(one) => one.deleted_at.is_none(),
        Item::Webhook(one) => one.deleted_at.is_none(),
        Item::Hook(one) => one.deleted_at.is_none(),
        Item::Machine(one) => one.deleted_at.is_none(),
        Item::Principal(_) | Item::ApiKey(_) | Item::MediaStream(_) => true,
    }
}

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
        Err(Error::Conflict { code: "application_limit_reached", message })
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
        Err(Error::Denied { code: "principal_limit_reached", message })
    }

    /// That one more small thing of a kind may be there.
    pub(super) fn room_for_item(
        &self,
        organization: OrganizationNumber,
        kind: StreamKind,
    ) -> Result<(), Error> {
        if kind == StreamKind::MediaStream {
            return self.room_for_stream(organization);
        }
        let Some((most, what, code)) = most(kind) else { return Ok(()) };
        let known = self.known.items(kind).filter(|item| !self.items.contains_key(&item.stream()));
        let drafted = self.items.values().filter(|item| item.stream().kind == kind);
        let own = known.chain(drafted).filter(|item| item.organization() == organization && is_there(item));
        if own.count() < most {
            return Ok(());
        }
        let message = format!("an organization may have at most {most} {what}");
        Err(Error::Conflict { code, message })
    }

    /// That one more media stream may be declared.
    pub(super) fn room_for_stream(&self, organization: OrganizationNumber) -> Result<(), Error> {
        let most = self.maxima.streams;
        let fresh = |item: &&Item| {
            let stream = item.stream();
            stream.kind == StreamKind::MediaStream
                && item.organization() == organization
                && self.known.item(stream).is_none()
        };
        let drafted = self.items.values().filter(fresh).count();
        if self.known.streams_in(organization) + drafted < most as usize {
            return Ok(());
        }
        let message = format!(
            "There are {most} media streams already, and that is the most (--max-made-streams): name one that there is"
        );
        Err(Error::Conflict { code: "stream_limit_reached", message })
    }
}
