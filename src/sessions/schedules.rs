//! Scheduled revocations: made, paused and deleted by owners, run by the scheduler. Each run is a revocation of its own.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sessiond_core::Time;
use sessiond_core::bar::KeepOut;
use sessiond_core::barring::BarOptions;
use sessiond_core::caller::Caller;
use sessiond_core::cron::{Cron, Unreadable};
use sessiond_core::ids::OrganizationNumber;
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Revocation;
use sessiond_core::schedule::{Missed, Schedule, ScheduleCreated, ScheduleEvent, Skipped, When};
use uuid::Uuid;

use super::bar::may_bar;
use super::revocations::{beginning, check_note};
use super::{BarTerms, Revocations, SessionQuery, Traffic};
use crate::committer::{BeginRevocation, ChangeStream, Origin};
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::secret;

/// Longest name of a schedule, and longest cron expression.
const LONGEST: usize = 200;

/// A schedule to be made.
#[derive(Debug)]
pub struct NewSchedule {
    pub name: String,
    pub filter: SessionQuery,
    pub note: Option<String>,
    pub at: Option<Time>,
    pub cron: Option<String>,
    pub time_zone: Option<String>,
    pub missed: Missed,
    /// What each run bars beyond what its filter bars by itself.
    pub bar: BarOptions,
    /// The bars that each run places, if it is to place any.
    pub keep_out: Option<BarTerms>,
}

/// A schedule as it stands.
pub struct Scheduled {
    pub schedule: Schedule,
    pub filter: SessionQuery,
    pub next_run_at: Option<Time>,
    /// The revocation of its last run.
    pub last_revocation: Option<Uuid>,
}

/// Scheduled revocations.
#[derive(Clone)]
pub struct Schedules {
    context: Arc<AppContext>,
    revocations: Revocations,
    traffic: Traffic,
    timetable: Arc<Mutex<Timetable>>,
}

/// When each schedule is due next, by its number, as of what it has done: so that nobody computes it every second.
type Timetable = HashMap<i64, (Time, Option<Time>)>;

impl Schedules {
    pub(super) fn new(context: Arc<AppContext>, revocations: Revocations, traffic: Traffic) -> Self {
        Self { context, revocations, traffic, timetable: Arc::default() }
    }

    /// Makes a schedule.
    pub async fn create(&self, caller: &Caller, new: NewSchedule) -> Result<Scheduled, Error> {
        if let Some(schedule) = Origin::caller(caller).recorded::<ChangeStream<Schedule>>()? {
            return self.shown(schedule).await;
        }
        check_note(new.note.as_deref())?;
        let name = new.name.trim();
        if name.is_empty() || name.chars().count() > LONGEST || name.chars().any(char::is_control) {
            let message =
                format!("name must have 1 to {LONGEST} characters, none of them a control character");
            return Err(Error::field("name", message));
        }
        let when = self.when(&new)?;
        let filter = self.revocations.filter_to_revoke(caller, &new.filter).await?;
        may_bar(caller, &filter, new.bar)?;
        let now = self.context.clock.now();
        let first_run = next_after(&when, now).unwrap_or(now);
        let keep_out = self.revocations.may_keep_out(caller, &filter, new.bar, new.keep_out, first_run)?;
        let created = ScheduleCreated {
            id: secret::new_id(),
            name: name.to_owned(),
            filter,
            note: new.note,
            when,
            missed: new.missed,
            bar: new.bar,
            keep_out,
        };
        let command = ScheduleEvent::Created(Box::new(created));
        let schedule = self.command(Origin::caller(caller), caller.organization, None, command).await?;
        self.shown(schedule).await
    }

    /// Lists the organization's schedules that are not deleted, newest first, after one of them; and whether there are more.
    pub async fn list(
        &self,
        caller: &Caller,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<Scheduled>, bool), Error> {
        let mut own = self.own(caller);
        own.reverse();
        if let Some(after) = after {
            let found = self.context.gate.known().any_stream_by_id(after).map(|item| item.stream().number);
            let number = found.ok_or_else(Error::foreign_cursor)?;
            own.retain(|schedule| schedule.number < number);
        }
        let more = own.len() > limit as usize;
        let mut items = Vec::new();
        for schedule in own.into_iter().take(limit as usize) {
            items.push(self.shown(schedule).await?);
        }
        Ok((items, more))
    }

    pub async fn find(&self, caller: &Caller, id: Uuid) -> Result<Scheduled, Error> {
        self.shown(self.find_own(caller, id)?).await
    }

    /// Pauses a schedule: it does not run until it is resumed.
    pub async fn pause(&self, caller: &Caller, id: Uuid) -> Result<Scheduled, Error> {
        self.change(caller, id, ScheduleEvent::Paused).await
    }

    /// Resumes a schedule. Runs that came due meanwhile are not made up for.
    pub async fn resume(&self, caller: &Caller, id: Uuid) -> Result<Scheduled, Error> {
        self.change(caller, id, ScheduleEvent::Resumed).await
    }

    pub async fn delete(&self, caller: &Caller, id: Uuid) -> Result<(), Error> {
        self.change(caller, id, ScheduleEvent::Deleted).await.map(|_| ())
    }

    async fn change(&self, caller: &Caller, id: Uuid, command: ScheduleEvent) -> Result<Scheduled, Error> {
        if let Some(schedule) = Origin::caller(caller).recorded::<ChangeStream<Schedule>>()? {
            return self.shown(schedule).await;
        }
        let number = self.find_own(caller, id)?.number;
        let schedule =
            self.command(Origin::caller(caller), caller.organization, Some(number), command).await?;
        self.shown(schedule).await
    }

    /// Begins the runs that are due. Returns how many began.
    pub async fn run_due(&self) -> Result<usize, Error> {
        let (now, steady_since) = (self.context.clock.now(), self.context.clock.steady_since());
        let schedules: Vec<_> = {
            let known = self.context.gate.known();
            known.streams::<Schedule>().filter(|one| !one.paused && !one.over()).cloned().collect()
        };
        let mut runs = 0;
        for schedule in schedules {
            let Some(due_at) = self.due(&schedule, now) else { continue };
            let missed = due_at < steady_since;
            if missed && schedule.missed == Missed::Skip {
                self.skip(&schedule, due_at).await?;
            } else {
                runs += usize::from(self.run(&schedule, due_at).await?);
            }
        }
        Ok(runs)
    }

    /// Returns the last moment up to now for which the schedule is due, if there is one: it stands for all before it.
    fn due(&self, schedule: &Schedule, now: Time) -> Option<Time> {
        let next = self.next(schedule).filter(|next| *next <= now)?;
        match &schedule.when {
            When::At(_) => Some(next),
            When::Cron { expression, time_zone } => {
                let last = Cron::read(expression, time_zone).ok()?.last_until(now)?;
                Some(last.max(next))
            }
        }
    }

    /// Returns when a schedule is due next.
    fn next(&self, schedule: &Schedule) -> Option<Time> {
        let mut timetable = self.timetable.lock();
        match timetable.get(&schedule.number) {
            Some((since, next)) if *since == schedule.done_until => *next,
            _ => {
                let next = next_after(&schedule.when, schedule.done_until);
                timetable.insert(schedule.number, (schedule.done_until, next));
                next
            }
        }
    }

    /// Begins a run, unless it was begun before. Nobody waits for its end here.
    async fn run(&self, schedule: &Schedule, due_at: Time) -> Result<bool, Error> {
        if schedule.filter.moves() {
            self.traffic.flush_all().await;
        }
        let plain = beginning(
            schedule.organization,
            schedule.filter.clone(),
            Reason::Revoked,
            schedule.note.clone(),
        )?;
        // Whoever has had a schedule run for longer than its bars were to stand has it end sessions still.
        let now = self.context.clock.now();
        let is_ahead = |keep_out: &KeepOut| keep_out.until.is_none_or(|until| until > now);
        let beginning = BeginRevocation {
            bar: schedule.bar,
            keep_out: schedule.keep_out.clone().filter(is_ahead),
            schedule: Some((schedule.number, due_at)),
            ..plain
        };
        match self.begin_as_far_as_it_may(schedule, beginning).await {
            Ok(_) => {
                tracing::info!(schedule = %schedule.id, %due_at, "a scheduled revocation began");
                self.revocations.wake();
                Ok(true)
            }
            // The run was done already, or the schedule was deleted meanwhile.
            Err(Error::RunOver) => Ok(false),
            // Its application is archived: nothing is left to end.
            Err(Error::NotFound(Thing::Application)) => self.skip(schedule, due_at).await.map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Begins a run with as much of what it is to bar as may be barred. The sessions are ended all the same, and whoever looks at
    /// the revocation sees what it did not bar.
    async fn begin_as_far_as_it_may(
        &self,
        schedule: &Schedule,
        mut beginning: BeginRevocation,
    ) -> Result<Revocation, Error> {
        loop {
            let begun = self.context.committer.submit(Origin::system(), beginning.clone()).await;
            match begun.map(|committed| committed.outcome) {
                Err(error @ (Error::LimitReached { .. } | Error::Forbidden { .. }))
                    if beginning.keep_out.is_some() =>
                {
                    tracing::warn!(schedule = %schedule.id, %error, "a scheduled revocation keeps nobody out");
                    beginning.keep_out = None;
                }
                Err(error @ Error::TooManyToBar(_))
                    if beginning.keep_out.is_some() || !beginning.bar.is_none() =>
                {
                    tracing::warn!(schedule = %schedule.id, %error, "a scheduled revocation bars nothing");
                    (beginning.keep_out, beginning.bar) = (None, BarOptions::default());
                }
                begun => return begun,
            }
        }
    }

    async fn skip(&self, schedule: &Schedule, due_at: Time) -> Result<(), Error> {
        let command = ScheduleEvent::Skipped(Skipped { due_at });
        match self.command(Origin::system(), schedule.organization, Some(schedule.number), command).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn command(
        &self,
        origin: Origin,
        organization: OrganizationNumber,
        number: Option<i64>,
        command: ScheduleEvent,
    ) -> Result<Schedule, Error> {
        let change = ChangeStream { organization, number, command, side: vec![] };
        Ok(self.context.committer.submit(origin, change).await?.outcome)
    }

    fn own(&self, caller: &Caller) -> Vec<Schedule> {
        let known = self.context.gate.known();
        let own = known.streams::<Schedule>().filter(|one| {
            one.organization == caller.organization
                && one.deleted_at.is_none()
                && caller.confined_to.is_none()
        });
        own.cloned().collect()
    }

    fn find_own(&self, caller: &Caller, id: Uuid) -> Result<Schedule, Error> {
        let own = self.own(caller);
        own.into_iter().find(|one| one.id == id).ok_or(Error::NotFound(Thing::Schedule))
    }

    async fn shown(&self, schedule: Schedule) -> Result<Scheduled, Error> {
        let now = self.context.clock.now();
        let next = Some(&schedule).filter(|one| !one.paused && !one.over()).and_then(|one| self.next(one));
        // One that is due is about to run, once for all runs that it missed, so the next run is the one after that.
        let next_run_at = match next {
            Some(due) if due < now => next_after(&schedule.when, now),
            next => next,
        };
        let last_revocation = match schedule.last_revocation {
            Some(number) => self.context.store.revocation(number).await?.map(|revocation| revocation.id),
            None => None,
        };
        let filter = self.context.query_of(&schedule.filter).await?;
        Ok(Scheduled { filter, next_run_at, last_revocation, schedule })
    }

    /// Reads when a new schedule is to run.
    fn when(&self, new: &NewSchedule) -> Result<When, Error> {
        match (new.at, new.cron.as_deref()) {
            (Some(at), None) if new.time_zone.is_none() => {
                if at <= self.context.clock.now() {
                    return Err(Error::field("at", "at must be in the future"));
                }
                Ok(When::At(at))
            }
            (None, Some(expression)) => {
                let time_zone = new.time_zone.clone().unwrap_or_else(|| "UTC".to_owned());
                if expression.len() > LONGEST {
                    return Err(Error::field("cron", format!("cron must be at most {LONGEST} bytes")));
                }
                Cron::read_new(expression, &time_zone).map_err(unreadable)?;
                let when = When::Cron { expression: expression.to_owned(), time_zone };
                match next_after(&when, self.context.clock.now()) {
                    Some(_) => Ok(when),
                    None => Err(Error::field("cron", "cron never comes due")),
                }
            }
            (Some(_), None) => {
                Err(Error::field("timeZone", "timeZone belongs to cron; at has its own offset"))
            }
            _ => Err(Error::field("at", "give either at, one moment, or cron, with a timeZone")),
        }
    }
}

/// Returns the first moment after another for which something is due.
fn next_after(when: &When, after: Time) -> Option<Time> {
    match when {
        When::At(at) => Some(*at).filter(|at| *at > after),
        When::Cron { expression, time_zone } => Cron::read(expression, time_zone).ok()?.next_after(after),
    }
}

fn unreadable(fault: Unreadable) -> Error {
    match fault {
        Unreadable::Expression(message) => Error::field("cron", message),
        Unreadable::TimeZone => {
            Error::field("timeZone", "timeZone must be a name of the IANA database, such as Europe/Berlin")
        }
    }
}
