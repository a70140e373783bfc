//! Revocations in a batch.

use sessiond_core::Time;
use sessiond_core::application::ApplicationEvent;
use sessiond_core::event::Event;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, RevocationNumber, SessionNumber, Stream,
};
use sessiond_core::item::{self, ItemEvent};
use sessiond_core::organization::OrganizationEvent;
use sessiond_core::principal::{Principal, PrincipalEvent};
use sessiond_core::reason::Reason;
use sessiond_core::revocation::{self, Revocation, RevocationBegan, RevocationEnded, RevocationEvent};
use sessiond_core::schedule::{Ran, ScheduleEvent};
use sessiond_store::SideWrite;

use super::{Draft, Fact};
use crate::committer::{Beginning, By, Done};
use crate::error::Error;
use crate::gate::{Change, Known};

impl Draft<'_> {
    pub(super) fn begin_revocation(&mut self, by: &By, beginning: &Beginning) -> Result<Done, Error> {
        let Beginning { id, organization, filter, reason, note, .. } = beginning;
        if let Some(number) = filter.whole_application() {
            let application = self.application(number).ok_or(Error::NotFound("Application"))?;
            if application.archived_at.is_some() {
                return Err(Error::NotFound("Application"));
            }
        }
        let number = RevocationNumber(self.chain.last_revocation + 1);
        let run = self.run(beginning, number)?;
        let covered = self.covered(number, *organization, filter);
        let plan = self.plan_to_bar(by, beginning, &covered)?;
        self.chain.last_revocation += 1;
        if let Some(session) = filter.session {
            self.bar_presented(session);
        }
        let began = RevocationBegan {
            id: *id,
            filter: filter.clone(),
            reason: *reason,
            note: note.clone(),
            matched: Some(covered.len() as u64),
            schedule: beginning.schedule.map(|(stream, _)| stream.number),
            credentials: Some(plan.said),
        };
        let event = RevocationEvent::Began(Box::new(began));
        let revocation = self.revocation_event(by, *organization, filter.application, number, None, event);
        self.bar(by, beginning, number);
        self.bar_one_by_one(by, *organization, number, plan);
        if let Some((stream, event)) = run {
            self.item_event(by, *organization, stream, event, Some(number));
        }
        revocation.map(Done::Revocation).ok_or(Error::NotFound("Revocation"))
    }

    /// The event by which a schedule remembers this run, if it is one and not done yet.
    fn run(
        &self,
        beginning: &Beginning,
        revocation: RevocationNumber,
    ) -> Result<Option<(Stream, ItemEvent)>, Error> {
        let Some((stream, due_at)) = beginning.schedule else { return Ok(None) };
        let wish = ItemEvent::Schedule(ScheduleEvent::Ran(Ran { due_at, revocation }));
        match item::decide(self.item(stream), &wish) {
            Ok(Some(event)) => Ok(Some((stream, event))),
            _ => Err(Error::Conflict { code: "run_over", message: "this run is over already".to_owned() }),
        }
    }

    /// The access tokens by which a session was last kept alive open nothing on the agent side any more.
    fn bar_presented(&mut self, session: SessionNumber) {
        // Also the one by which somebody attached to it in this very batch.
        let latest = self.session(session).and_then(|session| session.credential);
        for token in self.known.presented(session).into_iter().chain(latest) {
            self.side.push(SideWrite::BarAccessToken(token));
            self.changes.push(Change::BarAccessToken(token));
        }
    }

    /// The sessions that a revocation that begins now covers.
    fn covered(
        &self,
        number: RevocationNumber,
        organization: OrganizationNumber,
        filter: &Filter,
    ) -> Vec<SessionNumber> {
        let fence = Position(self.chain.position.0 + 1);
        let planned = Revocation::planned(number, organization, (filter, Reason::Revoked), fence, self.now);
        let open = |number: &SessionNumber| self.session(*number).is_some_and(|one| one.ended.is_none());
        let known = self.known.covered(&planned).into_iter().filter(open);
        let opened = self.sessions.iter().filter(|(number, drafted)| {
            drafted.fresh.is_some()
                && drafted.session.ended.is_none()
                && planned.covers(&drafted.session, &self.facts(**number))
        });
        known.chain(opened.map(|(number, _)| *number)).collect()
    }

    /// Raises the position before which credentials are barred, where everything of someone is revoked.
    fn bar(&mut self, by: &By, beginning: &Beginning, number: RevocationNumber) {
        let Beginning { organization, filter, reason, .. } = beginning;
        if filter.whole_organization() {
            if let Some(before) = self.organization(*organization).cloned() {
                let event = OrganizationEvent::CredentialsBarred;
                self.organization_event(by, *organization, Some(before), event, Some(number));
            }
        } else if let Some(application) = filter.whole_application() {
            let archived = (*reason == Reason::Archived).then_some(ApplicationEvent::Archived);
            for event in [ApplicationEvent::CredentialsBarred].into_iter().chain(archived) {
                let before = self.application(application).cloned();
                self.application_event(by, application, before, event, Some(number));
            }
        } else if let Some(principal) = filter.whole_principal() {
            let id = self.known.principal_id(principal);
            let barred = PrincipalEvent::CredentialsBarred(Principal { id });
            let disabled = beginning.disable.map(|(_, id)| PrincipalEvent::Disabled(Principal { id }));
            for wish in [barred].into_iter().chain(disabled) {
                let wish = ItemEvent::Principal(wish);
                if let Ok(Some(event)) = item::decide(self.item(principal.into()), &wish) {
                    self.item_event(by, *organization, principal.into(), event, Some(number));
                }
            }
        }
    }

    pub(super) fn end_revocation(
        &mut self,
        by: &By,
        number: RevocationNumber,
        streams_closed: u64,
    ) -> Result<Done, Error> {
        let revocation = self.revocation(number).filter(|revocation| revocation.ended_at.is_none());
        let revocation = revocation.cloned().ok_or(Error::NotFound("Revocation"))?;
        let ended = RevocationEnded {
            disconnected_count: revocation.disconnected_count,
            streams_closed: Some(streams_closed),
        };
        let (organization, application) = (revocation.organization, revocation.filter.application);
        let event = RevocationEvent::Ended(ended);
        self.revocation_event(by, organization, application, number, Some(revocation), event)
            .map(Done::Revocation)
            .ok_or(Error::NotFound("Revocation"))
    }

    pub(super) fn revocation_event(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        number: RevocationNumber,
        before: Option<Revocation>,
        event: RevocationEvent,
    ) -> Option<Revocation> {
        let head = self.record(Fact {
            by,
            stream: number.into(),
            head: before.as_ref().map_or_else(Head::default, |revocation| revocation.head),
            organization,
            application,
            revocation: Some(number),
            occurred_at: self.now,
            event: Event::Revocation(event.clone()),
            personal: None,
        });
        let revocation = revocation::evolve(before, &event, number, organization, self.now, head)?;
        self.revocations.insert(number, revocation.clone());
        Some(revocation)
    }
}

/// A revocation that cannot be recorded for want of space, in force in memory: it would not outlive a restart. Nothing
/// that has a row of its own may change for it, or the row would say one day what the log does not.
pub fn provisional(
    known: &Known,
    number: RevocationNumber,
    beginning: &Beginning,
    head: Position,
    now: Time,
) -> Vec<Change> {
    let Beginning { organization, filter, reason, .. } = beginning;
    let fence = Position(head.0 + 1);
    let revocation = Revocation::planned(number, *organization, (filter, *reason), fence, now);
    let mut changes = vec![Change::Revocation(revocation)];
    if let Some(session) = filter.session {
        changes.extend(known.presented(session).into_iter().map(Change::BarAccessToken));
    }
    changes
}
