//! Sessions in a batch: opened, attached to, kept alive, ended.

use sessiond_core::Time;
use sessiond_core::change::IndexEntry;
use sessiond_core::command::{Command, Connect};
use sessiond_core::event::Event;
use sessiond_core::ids::{Head, PrincipalNumber, RevocationNumber, SessionNumber};
use sessiond_core::natural_key::KeyDigest;
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Revocation;
use sessiond_core::session::earlier::EarlierState;
use sessiond_core::session::event::{ActivityRecorded, ActivitySource, Counts, SessionEvent};
use sessiond_core::session::reading::decide_reading;
use sessiond_core::session::{
    Context, Envelope, Refusal, Session, decide, evolve, must_end_first, takes_effect_at,
};
use sessiond_core::streams::Registered;
use sessiond_core::throughput::Reading;
use sessiond_core::token::SessionToken;
use sessiond_store::{Detail, SideWrite};
use uuid::Uuid;

use super::{Draft, Drafted, Fact};
use crate::committer::{Activity, Connected, Measurement, OpenSession, Origin};
use crate::error::Error;

impl Draft<'_> {
    /// Does what a command wants of a session. `on_behalf_of` is the revocation that it comes from, if any.
    pub(super) fn command(
        &mut self,
        origin: &Origin,
        session: &Session,
        command: &Command,
        on_behalf_of: Option<RevocationNumber>,
    ) -> Result<(), Refusal> {
        let own = on_behalf_of.and_then(|number| self.stream::<Revocation>(number));
        let own = own.filter(|own| own.covers(session, &self.facts(session.number)));
        if on_behalf_of.is_some() && own.is_none() {
            // It gave a sign of life between being found and the revocation's being in force.
            return Ok(());
        }
        let covering = own.cloned().or_else(|| self.covering(session));
        let context =
            self.context(session.application, session.principal, covering.as_ref(), command.presented());
        let (command, traffic) = &self.with_traffic(session.number, command);
        let events = decide(&context, Some(session), command, self.now)?;
        if *traffic != Counts::default() {
            self.counted(session.number, *traffic);
        }
        // What ends for another reason, a goodbye say, is not its doing and not counted. One that is in force in memory
        // only is nothing that an event could point to.
        let cause = covering.filter(|revocation| {
            matches!(command, Command::Disconnect { reason } if *reason == revocation.reason)
                && !revocation.is_provisional()
        });
        for event in events {
            self.session_event(origin, session.number, event, cause.as_ref(), None);
        }
        Ok(())
    }

    /// Traffic of a session that is not in the log yet, and not in this batch.
    fn unwritten(&self, number: SessionNumber) -> Counts {
        let (all, taken) = (self.known.unwritten(number), self.counted.get(&number).copied());
        all.minus(taken.unwrap_or_default())
    }

    fn counted(&mut self, number: SessionNumber, counts: Counts) {
        let counted = self.counted.entry(number).or_default();
        *counted = counted.plus(counts);
    }

    /// A command that records the gateway's traffic, with all that there is of it by now; and how much was counted in memory.
    fn with_traffic(&self, number: SessionNumber, command: &Command) -> (Command, Counts) {
        match command {
            Command::RecordActivity { source: ActivitySource::Gateway, counts, presented } => {
                let traffic = self.unwritten(number);
                let (source, counts) = (ActivitySource::Gateway, counts.plus(traffic));
                (Command::RecordActivity { source, counts, presented: *presented }, traffic)
            }
            command => (command.clone(), Counts::default()),
        }
    }

    /// Whatever ends a session, what was counted of it and is not in the log yet is written first: in its owner's name, as
    /// of when it was last seen.
    fn write_figures(&mut self, number: SessionNumber) {
        let counts = self.unwritten(number);
        let Some(session) = self.session(number).filter(|_| counts != Counts::default()).cloned() else {
            return;
        };
        self.counted(number, counts);
        let origin = Origin { actor: session.owner, ..Origin::system() };
        let event = SessionEvent::ActivityRecorded(ActivityRecorded {
            source: ActivitySource::Gateway,
            counts,
            total: session.total.plus(counts),
            throughput: session.throughput.clone(),
        });
        let seen_at = self.known.seen(number).and_then(|seen| seen.seen_at).filter(|at| *at < self.now);
        self.session_event_at(&origin, number, event, (None, None), seen_at);
    }

    /// Does what a command wants of an open session, which it returns as it stands then.
    pub(in crate::committer) fn command_session(
        &mut self,
        origin: &Origin,
        number: SessionNumber,
        command: &Command,
    ) -> Result<Box<Session>, Error> {
        let session = self.session(number).cloned().ok_or(Refusal::Unknown)?;
        let refused = |draft: &Self, refusal| draft.refused(refusal, session.principal);
        self.command(origin, &session, command, None).map_err(|refusal| refused(self, refusal))?;
        Ok(Box::new(self.session(number).cloned().unwrap_or(session)))
    }

    pub(in crate::committer) fn connect(
        &mut self,
        origin: &Origin,
        opening: &OpenSession,
    ) -> Result<Connected, Error> {
        let connect = &opening.connect;
        let principal = self.principal_of(opening);
        if principal.0 > self.log.last_principal {
            self.room_for_principal(opening.connect.organization)?;
        }
        let personal = connect.facts();
        let connect = Connect { principal, id: self.later_id(connect.id), personal, ..connect.clone() };
        let key = connect.key().map(|key| key.digest(connect.application));
        let holder = key.and_then(|key| self.holder(&key)).cloned();
        let personal = serde_json::to_string(&connect.personal).unwrap_or_default();
        let covering = holder.as_ref().and_then(|holder| self.covering(holder));
        let (first, room, events) = {
            let presented = Some(&connect.presented);
            let context = self.context(connect.application, principal, covering.as_ref(), presented);
            let command = Command::Connect(Box::new(connect.clone()));
            let first = holder.as_ref().and_then(|holder| must_end_first(&context, holder, self.now));
            let onto = if first.is_some() { None } else { holder.as_ref() };
            let leaving = holder.as_ref().filter(|_| first.is_some()).map(|holder| holder.number);
            let room = if onto.is_some() { Ok(vec![]) } else { self.room_for(&connect, leaving) };
            // The rules decide on the connect first: one that is refused ends nobody.
            let fresh = Context {
                revocation: None,
                personal: Some(&personal),
                full: room.as_ref().err().copied(),
                ..context
            };
            let events = decide(&fresh, onto, &command, self.now);
            (first, room.unwrap_or_default(), events.map_err(|refusal| self.refused(refusal, principal))?)
        };
        let system = origin.as_system();
        if let (Some(first), Some(holder)) = (first, &holder) {
            self.command(&system, holder, &first, None)?;
        }
        for number in room {
            if let Some(session) = self.session(number).cloned() {
                self.command(&system, &session, &Command::Disconnect { reason: Reason::Evicted }, None)?;
            }
        }
        let opened = matches!(events.first(), Some(SessionEvent::Connected(_)));
        let number = match &holder {
            Some(holder) if !opened => holder.number,
            _ => self.open(key, connect.id),
        };
        if principal.0 > self.log.last_principal {
            let (issuer, subject) = (opening.issuer.clone(), opening.subject.clone());
            self.record_principal(opening.connect.organization, issuer, subject, opening.subject_digest);
        }
        for event in events {
            self.session_event(origin, number, event, None, Some((&connect, &personal)));
        }
        if let Some(hash) = opening.token_hash {
            self.issue_session_token(number, hash);
        }
        let session = self.session(number).cloned().ok_or(Refusal::Unknown)?;
        Ok(Connected { session: Box::new(session), opened })
    }

    /// The id of a session that is about to be opened: greater than that of the session before, as its number is, so
    /// that both orders are the same. Ids are no secrets.
    fn later_id(&self, id: Uuid) -> Uuid {
        let last = self.log.last_session_id;
        if id > last { id } else { Uuid::from_u128(last.as_u128() + 1) }
    }

    pub(super) fn holder(&self, key: &KeyDigest) -> Option<&Session> {
        let drafted = self.keys.get(key).and_then(|number| self.session(*number));
        drafted
            .or_else(|| self.known.holder(key).and_then(|session| self.session(session.number)))
            .filter(|session| session.ended.is_none())
    }

    pub(super) fn open(&mut self, key: Option<KeyDigest>, id: Uuid) -> SessionNumber {
        self.log.last_session.0 += 1;
        self.log.last_session_id = id;
        let number = self.log.last_session;
        if let Some(key) = key {
            self.keys.insert(key, number);
        }
        number
    }

    /// The number this principal has, or would get.
    pub(super) fn principal_of(&self, opening: &OpenSession) -> PrincipalNumber {
        if opening.connect.principal > PrincipalNumber(0) {
            return opening.connect.principal;
        }
        let organization = opening.connect.organization;
        let drafted = self.principals.get(&(organization, opening.subject_digest)).copied();
        drafted
            .or_else(|| self.known.principal(organization, &opening.subject_digest))
            .unwrap_or(PrincipalNumber(self.log.last_principal + 1))
    }

    pub(in crate::committer) fn issue_session_token(&mut self, number: SessionNumber, secret_hash: [u8; 32]) {
        let Some(session) = self.session(number) else { return };
        let token = SessionToken {
            secret_hash,
            issued_at: session.head.position,
            expires_at: session.token_expires_at,
        };
        self.tokens.insert(number, token.issued_at);
        self.write_beside(SideWrite::SessionToken(number, token));
    }

    /// Does what commands want that end sessions; those that are over already stay as they are. Returns how many it ended.
    pub(in crate::committer) fn end_sessions(
        &mut self,
        origin: &Origin,
        commands: impl Iterator<Item = (SessionNumber, Command)>,
        revocation: Option<RevocationNumber>,
    ) -> u64 {
        let mut ended = 0;
        for (number, command) in commands {
            self.concern(number.into());
            // The look that found it silent may be a moment old: something may have begun since.
            let command = &self.as_seen_now(number, &command);
            let Some(session) = self.session(number).cloned() else { continue };
            if self.command(origin, &session, command, revocation).is_ok()
                && session.ended.is_none()
                && self.session(number).is_some_and(|session| session.ended.is_some())
            {
                ended += 1;
            }
        }
        ended
    }

    /// Records what many sessions did, each refused for itself.
    pub(in crate::committer) fn report(
        &mut self,
        origin: &Origin,
        reports: &[(SessionNumber, Activity)],
    ) -> Vec<Option<Refusal>> {
        let record = |(number, activity): &(SessionNumber, Activity)| match self.session(*number).cloned() {
            Some(session) => self.command(origin, &session, &(*activity).into(), None).err(),
            None => Some(Refusal::Unknown),
        };
        reports.iter().map(record).collect()
    }

    /// Takes readings of many sessions' counters, and says what became of each.
    pub(in crate::committer) fn measure(
        &mut self,
        origin: &Origin,
        readings: &[(SessionNumber, Measurement)],
    ) -> Vec<Result<Reading, Refusal>> {
        let take = |(number, measurement): &(SessionNumber, Measurement)| {
            let Measurement { sample, presented } = *measurement;
            let session = self.session(*number).cloned().ok_or(Refusal::Unknown)?;
            let covering = self.covering(&session);
            let context =
                self.context(session.application, session.principal, covering.as_ref(), Some(&presented));
            let (reading, events) = decide_reading(&context, &session, (sample, &presented), self.now)?;
            for event in events {
                self.session_event(origin, *number, event, None, None);
            }
            Ok(reading)
        };
        readings.iter().map(take).collect()
    }

    /// A command that ends a stale session, with what has been seen of it since.
    fn as_seen_now(&self, number: SessionNumber, command: &Command) -> Command {
        match (command, self.known.seen(number)) {
            (Command::EndStale { not_before, .. }, Some(_)) if self.known.busy(number) => {
                Command::EndStale { not_before: *not_before, seen_at: Some(self.now) }
            }
            (Command::EndStale { not_before, .. }, Some(seen)) => {
                Command::EndStale { not_before: *not_before, seen_at: seen.seen_at }
            }
            (command, _) => command.clone(),
        }
    }

    /// Records an event of a session. A call that meets another of the same session, actor and source in this batch
    /// joins its event.
    pub(super) fn session_event(
        &mut self,
        origin: &Origin,
        number: SessionNumber,
        event: SessionEvent,
        cause: Option<&Revocation>,
        connecting: Option<(&Connect, &str)>,
    ) {
        if matches!(event, SessionEvent::Disconnected(_)) {
            self.write_figures(number);
        }
        self.session_event_at(origin, number, event, (cause, connecting), None);
    }

    /// The same, at a moment that is not the one at which such an event takes effect otherwise.
    fn session_event_at(
        &mut self,
        origin: &Origin,
        number: SessionNumber,
        event: SessionEvent,
        (cause, connecting): (Option<&Revocation>, Option<(&Connect, &str)>),
        at: Option<Time>,
    ) {
        if let SessionEvent::ActivityRecorded(activity) = &event
            && self.join(origin, number, activity)
        {
            return;
        }
        let before = self.session(number).cloned();
        let (organization, application) = match (&before, connecting) {
            (Some(session), _) => (session.organization, session.application),
            (None, Some((connect, _))) => (connect.organization, connect.application),
            (None, None) => return,
        };
        if let (SessionEvent::Connected(connected), Some((connect, _))) = (&event, connecting) {
            self.details.push((number, application, Detail::of(connected, Some(&connect.personal))));
        }
        let activity = matches!(event, SessionEvent::ActivityRecorded(_));
        let connected = matches!(event, SessionEvent::Connected(_));
        let occurred_at = at.unwrap_or_else(|| {
            takes_effect_at(&event, before.as_ref(), cause.map(Revocation::covered), self.now)
        });
        // The last activity says when a session was last active, also where the clock was set back.
        let last_active_at = before.as_ref().filter(|_| activity).map(|session| session.last_active_at);
        let occurred_at = last_active_at.map_or(occurred_at, |last| last.max(occurred_at));
        if let (SessionEvent::Disconnected(_), Some(revocation)) = (&event, cause) {
            let mut revocation = self.stream(revocation.number).unwrap_or(revocation).clone();
            revocation.disconnected_count += 1;
            self.streams.insert(revocation.number.into(), revocation.any());
        }
        let head = self.record(Fact {
            origin,
            stream: number.into(),
            head: before.as_ref().map_or_else(Head::default, |session| session.head),
            organization,
            application: Some(application),
            revocation: cause.map(|revocation| revocation.number),
            occurred_at,
            event: Event::Session(event.clone()),
            personal: connecting.filter(|_| connected).map(|(_, personal)| personal.to_owned()),
        });
        if let Some(before) = &before {
            let ended = EarlierState::ended_by(before, &event, head.position, self.recorded_at());
            self.earlier.extend(ended);
        }
        let envelope = Envelope { number, organization, application, actor: origin.actor, occurred_at, head };
        let Some(session) = evolve(before, &event, &envelope) else { return };
        let index = self.events.len() - 1;
        let entry = connecting.filter(|_| connected).map(|(connect, _)| IndexEntry::of(connect));
        self.count(&event, &session);
        let drafted = self.sessions.entry(number).or_insert_with(|| Drafted {
            session: session.clone(),
            entry: None,
            lifecycle: false,
            joinable: None,
        });
        drafted.session = session;
        drafted.entry = drafted.entry.take().or(entry);
        drafted.lifecycle |= !activity;
        drafted.joinable = activity.then_some(index);
    }

    pub(super) fn join(
        &mut self,
        origin: &Origin,
        number: SessionNumber,
        activity: &ActivityRecorded,
    ) -> bool {
        let Some(drafted) = self.sessions.get_mut(&number) else { return false };
        let Some(recorded) = drafted.joinable.and_then(|index| self.events.get_mut(index)) else {
            return false;
        };
        let Event::Session(SessionEvent::ActivityRecorded(earlier)) = &mut recorded.event else {
            return false;
        };
        if recorded.actor != origin.actor || earlier.source != activity.source {
            return false;
        }
        earlier.counts = earlier.counts.plus(activity.counts);
        earlier.total = activity.total;
        drafted.session.total = activity.total;
        // Whole, with the readings before: so is what is recorded.
        earlier.throughput.clone_from(&activity.throughput);
        drafted.session.throughput.clone_from(&activity.throughput);
        true
    }
}
