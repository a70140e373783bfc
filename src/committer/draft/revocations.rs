//! Revocations in a batch.

use uuid::Uuid;

use super::{Draft, Fact};
use crate::committer::{By, Done};
use crate::core::Time;
use crate::core::event::{ApplicationEvent, Event, RevocationBegan, RevocationEnded, RevocationEvent};
use crate::core::ids::{ApplicationNumber, Head, OrganizationNumber, Position, RevocationNumber};
use crate::core::reason::Reason;
use crate::core::revocation::{self, Filter, Revocation};
use crate::error::Error;
use crate::gate::{Change, Known};
use crate::store::SideWrite;

impl Draft<'_> {
    pub(super) fn begin_revocation(
        &mut self,
        by: &By,
        organization: OrganizationNumber,
        began: RevocationBegan,
    ) -> Result<Done, Error> {
        let filter = began.filter;
        let archives = began.reason == Reason::Archived;
        if let Some(session) = filter.session {
            // Also the one by which somebody attached to it in this very batch.
            let latest = self.session(session).and_then(|session| session.credential);
            for token in self.known.presented(session).into_iter().chain(latest) {
                self.side.push(SideWrite::BarAccessToken(token));
                self.changes.push(Change::BarAccessToken(token));
            }
        }
        let application = match filter.application {
            Some(number) if filter.session.is_none() => {
                let application = self.application(number).cloned().ok_or(Error::NotFound("Application"))?;
                if application.archived_at.is_some() {
                    return Err(Error::NotFound("Application"));
                }
                Some(application)
            }
            _ => None,
        };
        self.chain.last_revocation += 1;
        let number = RevocationNumber(self.chain.last_revocation);
        let revocation = self.revocation_event(
            by,
            organization,
            filter.application,
            number,
            None,
            RevocationEvent::Began(began),
        );
        if let Some(application) = application {
            let application = self.application_event(
                by,
                application.number,
                Some(application),
                ApplicationEvent::CredentialsBarred,
                Some(number),
            );
            if archives {
                self.application_event(
                    by,
                    application.number,
                    Some(application),
                    ApplicationEvent::Archived,
                    Some(number),
                );
            }
        }
        revocation.map(Done::Revocation).ok_or(Error::NotFound("Revocation"))
    }

    pub(super) fn end_revocation(&mut self, by: &By, number: RevocationNumber) -> Result<Done, Error> {
        let revocation = self.revocation(number).filter(|revocation| revocation.ended_at.is_none());
        let revocation = revocation.cloned().ok_or(Error::NotFound("Revocation"))?;
        let ended = RevocationEnded { disconnected_count: revocation.disconnected_count };
        let application = revocation.filter.application;
        self.revocation_event(
            by,
            revocation.organization,
            application,
            number,
            Some(revocation),
            RevocationEvent::Ended(ended),
        )
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
    organization: OrganizationNumber,
    filter: Filter,
    reason: Reason,
    head: Position,
    now: Time,
) -> Vec<Change> {
    let fence = Position(head.0 + 1);
    let revocation = Revocation {
        number,
        id: Uuid::nil(),
        organization,
        filter,
        reason,
        note: None,
        fence,
        instant: now,
        ended_at: None,
        disconnected_count: 0,
        head: Head::default(),
    };
    let mut changes = vec![Change::Revocation(revocation)];
    if let Some(session) = filter.session {
        changes.extend(known.presented(session).into_iter().map(Change::BarAccessToken));
    }
    changes
}
