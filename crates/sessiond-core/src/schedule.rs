//! Scheduled revocations: at an instant, or again and again by a cron expression in a time zone. Each run is a
//! revocation of its own. When the next run is due is read from the clock elsewhere; here stands which were done.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::bar::KeepOut;
use crate::barring::BarOptions;
use crate::filter::Filter;
use crate::ids::{Head, OrganizationNumber, RevocationNumber, StreamKind};
use crate::stream::{EMPTY, Envelope, Most, Stream, StreamEvent, StreamRefusal, text};

/// What happens to a schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum ScheduleEvent {
    Created(Box<ScheduleCreated>),
    Paused,
    /// Runs that came due while it was paused are not made up.
    Resumed,
    Ran(Ran),
    /// Runs were missed while nobody was there to do them, and its owner wanted them skipped.
    Skipped(Skipped),
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleCreated {
    pub id: Uuid,
    pub name: String,
    pub filter: Filter,
    /// The operator's own words, for each run's revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub when: When,
    pub missed: Missed,
    /// What each run bars beyond what its filter bars by itself.
    #[serde(default, skip_serializing_if = "BarOptions::is_none")]
    pub bar: BarOptions,
    /// Each run keeps the principals behind what it covers out, as long as that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_out: Option<KeepOut>,
}

/// When a schedule runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum When {
    /// Once; milliseconds since the epoch.
    At(#[serde(with = "chrono::serde::ts_milliseconds")] Time),
    /// Again and again.
    Cron { expression: String, time_zone: String },
}

/// What becomes of runs that came due while the service was down. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One run makes up for all of them.
    RunOnce,
    Skip,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ran {
    /// The moment it was meant for.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub due_at: Time,
    pub revocation: RevocationNumber,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// The last moment that was missed.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub due_at: Time,
}

/// The fold of a schedule's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    pub number: i64,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub name: String,
    pub filter: Filter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub when: When,
    pub missed: Missed,
    #[serde(default, skip_serializing_if = "BarOptions::is_none")]
    pub bar: BarOptions,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_out: Option<KeepOut>,
    pub created_at: Time,
    /// Runs due up to here are over, one way or the other: the next is the first after it.
    pub done_until: Time,
    pub runs: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_revocation: Option<RevocationNumber>,
    pub paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Time>,
    #[serde(skip)]
    pub head: Head,
}

impl Schedule {
    /// Whether there can be another run.
    pub fn over(&self) -> bool {
        self.deleted_at.is_some() || matches!(self.when, When::At(at) if at <= self.done_until)
    }
}

impl Stream for Schedule {
    const KIND: StreamKind = StreamKind::Schedule;
    type Event = ScheduleEvent;
    type Command = ScheduleEvent;

    fn decide(
        before: Option<&Self>,
        command: &ScheduleEvent,
    ) -> Result<Option<ScheduleEvent>, StreamRefusal> {
        let happens = match (before, command) {
            (None, ScheduleEvent::Created(_)) => true,
            // Deleting twice is success.
            (Some(schedule), ScheduleEvent::Deleted) => schedule.exists(),
            (Some(schedule), _) if !schedule.exists() => return Err(StreamRefusal::Gone),
            (Some(schedule), ScheduleEvent::Paused) => !schedule.paused,
            (Some(schedule), ScheduleEvent::Resumed) => schedule.paused,
            // A run for a moment that is over happens no second time.
            (
                Some(schedule),
                ScheduleEvent::Ran(Ran { due_at, .. }) | ScheduleEvent::Skipped(Skipped { due_at }),
            ) => !schedule.paused && *due_at > schedule.done_until,
            _ => return Err(StreamRefusal::Gone),
        };
        Ok(happens.then(|| command.clone()))
    }

    fn evolve(schedule: Option<Self>, event: &ScheduleEvent, envelope: &Envelope) -> Option<Self> {
        let (now, head) = (envelope.occurred_at, envelope.head);
        if let ScheduleEvent::Created(created) = event {
            return Some(Schedule {
                number: envelope.number,
                id: created.id,
                organization: envelope.organization,
                name: created.name.clone(),
                filter: created.filter.clone(),
                note: created.note.clone(),
                when: created.when.clone(),
                missed: created.missed,
                bar: created.bar,
                keep_out: created.keep_out.clone(),
                created_at: now,
                done_until: now,
                runs: 0,
                last_run_at: None,
                last_revocation: None,
                paused: false,
                deleted_at: None,
                head,
            });
        }
        let before = schedule?;
        Some(match event {
            ScheduleEvent::Created(_) => before,
            ScheduleEvent::Paused => Schedule { paused: true, head, ..before },
            ScheduleEvent::Resumed => {
                Schedule { paused: false, done_until: before.done_until.max(now), head, ..before }
            }
            ScheduleEvent::Ran(ran) => Schedule {
                done_until: ran.due_at,
                runs: before.runs + 1,
                last_run_at: Some(now),
                last_revocation: Some(ran.revocation),
                head,
                ..before
            },
            ScheduleEvent::Skipped(skipped) => Schedule { done_until: skipped.due_at, head, ..before },
            ScheduleEvent::Deleted => Schedule { deleted_at: Some(now), head, ..before },
        })
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    fn exists(&self) -> bool {
        self.deleted_at.is_none()
    }

    const MOST: Option<Most> =
        Some(Most { count: 1_000, plural: "scheduled revocations", code: "too_many_schedules" });
}

impl StreamEvent for ScheduleEvent {
    const NAMES: &[&str] = &[
        "schedule_created",
        "schedule_paused",
        "schedule_resumed",
        "schedule_ran",
        "schedule_skipped",
        "schedule_deleted",
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "schedule_created",
            Self::Paused => "schedule_paused",
            Self::Resumed => "schedule_resumed",
            Self::Ran(_) => "schedule_ran",
            Self::Skipped(_) => "schedule_skipped",
            Self::Deleted => "schedule_deleted",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Created(body) => text(body),
            Self::Ran(body) => text(body),
            Self::Skipped(body) => text(body),
            Self::Paused | Self::Resumed | Self::Deleted => EMPTY.to_owned(),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "schedule_created" => Self::Created(serde_json::from_str(body)?),
            "schedule_paused" => Self::Paused,
            "schedule_resumed" => Self::Resumed,
            "schedule_ran" => Self::Ran(serde_json::from_str(body)?),
            "schedule_skipped" => Self::Skipped(serde_json::from_str(body)?),
            "schedule_deleted" => Self::Deleted,
            _ => return Ok(None),
        }))
    }
}
