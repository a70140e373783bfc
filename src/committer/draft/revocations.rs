//! Revocations in a batch.

use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::application::{Application, ApplicationCommand};
use sessiond_core::change::Change;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{OrganizationNumber, Position, RevocationNumber, SessionNumber};
use sessiond_core::organization::{Organization, OrganizationCommand};
use sessiond_core::principal::{Principal, PrincipalEvent, Standing};
use sessiond_core::reason::Reason;
use sessiond_core::revocation::{Acknowledged, Revocation, RevocationBegan, RevocationCommand};
use sessiond_core::schedule::{Ran, Schedule, ScheduleEvent};
use sessiond_core::stream::Stream;
use sessiond_core::streams::Registered;
use sessiond_store::SideWrite;

use super::Draft;
use crate::committer::{BeginRevocation, Origin};
use crate::error::{Error, Thing};
use crate::gate::{Begun, GateState};

impl Draft<'_> {
    pub(in crate::committer) fn begin_revocation(
        &mut self,
        origin: &Origin,
        beginning: &BeginRevocation,
    ) -> Result<Revocation, Error> {
        let BeginRevocation { id, organization, filter, reason, note, .. } = beginning;
        if let Some(number) = filter.whole_application() {
            let application = self.application(number).ok_or(Error::NotFound(Thing::Application))?;
            if application.archived_at.is_some() {
                return Err(Error::NotFound(Thing::Application));
            }
        }
        let number = RevocationNumber(self.log.last_revocation + 1);
        let run = self.run(beginning, number)?;
        let covered = self.covered(number, *organization, filter);
        let plan = self.plan_to_bar(origin, beginning, &covered)?;
        self.log.last_revocation += 1;
        if let Some(session) = filter.session {
            self.bar_presented(session);
        }
        let began = RevocationBegan {
            id: *id,
            filter: filter.clone(),
            reason: *reason,
            note: note.clone(),
            matched: Some(covered.len() as u64),
            schedule: beginning.schedule.map(|(schedule, _)| schedule),
            credentials: Some(plan.said),
        };
        let command = RevocationCommand::Begin(Box::new(began));
        let revocation = self.change_revocation(origin, *organization, number, &command)?;
        self.bar(origin, beginning, number)?;
        self.bar_one_by_one(origin, beginning, number, plan)?;
        if let Some((schedule, event)) = run {
            self.stream_event::<Schedule>(origin, *organization, schedule, &event, Some(number))?;
        }
        let cause = self.current - 1;
        self.begun.push(Begun { revocation: number, covered: covered.into(), cause });
        Ok(revocation)
    }

    /// The event by which a schedule remembers this run, if it is one and not done yet.
    fn run(
        &self,
        beginning: &BeginRevocation,
        revocation: RevocationNumber,
    ) -> Result<Option<(i64, ScheduleEvent)>, Error> {
        let Some((schedule, due_at)) = beginning.schedule else { return Ok(None) };
        match Schedule::decide(self.stream(schedule), &ScheduleEvent::Ran(Ran { due_at, revocation })) {
            Ok(Some(event)) => Ok(Some((schedule, event))),
            _ => Err(Error::RunOver),
        }
    }

    /// The access tokens by which a session was last kept alive open nothing on the agent side any more.
    fn bar_presented(&mut self, session: SessionNumber) {
        // Also the one by which somebody attached to it in this very batch.
        let latest = self.session(session).and_then(|session| session.credential);
        for token in self.known.presented(session).into_iter().chain(latest) {
            self.write_beside(SideWrite::BarAccessToken(token));
        }
    }

    /// The sessions that a revocation that begins now covers.
    fn covered(
        &self,
        number: RevocationNumber,
        organization: OrganizationNumber,
        filter: &Filter,
    ) -> Vec<SessionNumber> {
        let fence = Position(self.log.position.0 + 1);
        let planned = Revocation::planned(number, organization, (filter, Reason::Revoked), fence, self.now);
        let open = |number: &SessionNumber| self.session(*number).is_some_and(|one| one.ended.is_none());
        let known = self.known.covered(&planned).into_iter().filter(open);
        let opened = self.sessions.iter().filter(|(number, drafted)| {
            drafted.entry.is_some()
                && drafted.session.ended.is_none()
                && planned.covers(&drafted.session, &self.facts(**number))
        });
        known.chain(opened.map(|(number, _)| *number)).collect()
    }

    /// Raises the position before which credentials are barred, where everything of someone is revoked.
    fn bar(
        &mut self,
        origin: &Origin,
        beginning: &BeginRevocation,
        number: RevocationNumber,
    ) -> Result<(), Error> {
        let BeginRevocation { organization, filter, reason, .. } = beginning;
        if filter.whole_organization() {
            let (own, command) = (*organization, OrganizationCommand::BarCredentials);
            self.change_stream_for::<Organization>(origin, own, own.0, &command, number)?;
        } else if let Some(application) = filter.whole_application() {
            let archive = (*reason == Reason::Archived).then_some(ApplicationCommand::Archive);
            if archive.is_some() {
                // Nothing goes to its upstream any more.
                self.write_beside(SideWrite::UpstreamSecret { application, sealed: None });
            }
            for command in [ApplicationCommand::BarCredentials].into_iter().chain(archive) {
                self.change_stream_for::<Application>(
                    origin,
                    *organization,
                    application.0,
                    &command,
                    number,
                )?;
            }
        } else {
            let disabled = beginning.disable.map(|(_, id)| PrincipalEvent::Disabled(Principal { id }));
            for principal in filter.whole_principals() {
                let id = self.known.principal_id(*principal);
                let barred = PrincipalEvent::CredentialsBarred(Principal { id });
                for command in [barred].into_iter().chain(disabled.clone()) {
                    self.change_stream_for::<Standing>(origin, *organization, principal.0, &command, number)?;
                }
            }
        }
        Ok(())
    }

    pub(in crate::committer) fn end_revocation(
        &mut self,
        origin: &Origin,
        number: RevocationNumber,
        (streams_closed, nodes): (u64, Option<Acknowledged>),
    ) -> Result<Revocation, Error> {
        let revocation = self.stream::<Revocation>(number).ok_or(Error::NotFound(Thing::Revocation))?;
        let organization = revocation.organization;
        self.change_revocation(
            origin,
            organization,
            number,
            &RevocationCommand::End { streams_closed, nodes },
        )
    }

    /// Does what a command wants of a revocation. Its events carry it too, as those do that come of it.
    fn change_revocation(
        &mut self,
        origin: &Origin,
        organization: OrganizationNumber,
        number: RevocationNumber,
        command: &RevocationCommand,
    ) -> Result<Revocation, Error> {
        match Revocation::decide(self.stream(number), command) {
            Ok(Some(event)) => self.stream_event(origin, organization, number.0, &event, Some(number)),
            Ok(None) | Err(_) => Err(Error::NotFound(Thing::Revocation)),
        }
    }
}

/// A revocation that cannot be recorded for want of space, in force in memory: it would not outlive a restart. Nothing
/// that has a row of its own may change for it, or the row would say one day what the log does not. With the sessions that
/// it covers.
pub fn provisional(
    known: &GateState,
    number: RevocationNumber,
    beginning: &BeginRevocation,
    head: Position,
    now: Time,
) -> (Vec<Change>, Arc<[SessionNumber]>) {
    let BeginRevocation { organization, filter, reason, .. } = beginning;
    let fence = Position(head.0 + 1);
    let revocation = Revocation::planned(number, *organization, (filter, *reason), fence, now);
    let covered = known.covered(&revocation).into();
    let mut changes = vec![Change::Stream(revocation.any())];
    if let Some(session) = filter.session {
        changes.extend(known.presented(session).into_iter().map(Change::BarAccessToken));
    }
    (changes, covered)
}
