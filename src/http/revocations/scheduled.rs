//! Scheduled revocations: a nightly sign-out, a maintenance window.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sessiond_core::bar::KeepOut;
use sessiond_core::barring::BarOptions;
use sessiond_core::schedule::{Missed, When};
use uuid::Uuid;

use super::{PlainList, link};
use crate::http::bars::read_terms;
use crate::http::extract::{Body, CanEnd, CanRead, Query, given};
use crate::http::filter::{FilterBody, read_time};
use crate::http::ids::{self, Id};
use crate::http::page::{self, PagedParameters};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::words::MissedWord;
use crate::http::{App, time};
use crate::sessions::{NewSchedule, Scheduled};

/// A revocation to be scheduled: `at` one moment, or again and again by `cron`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateScheduledRevocation {
    #[schema(max_length = 200)]
    pub name: String,
    pub filter: FilterBody,
    /// The operator's own words, for each run.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 200)]
    pub reason: Option<String>,
    /// One moment in the future.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = DateTime)]
    pub at: Option<String>,
    /// Five fields: minute, hour, day of month, month, day of week, by the wall clock of `timeZone`; or `@hourly`, `@daily`,
    /// `@weekly`, `@monthly`, `@yearly`. In an hour that comes twice, `*` runs both times and what is named once.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "0 3 * * *")]
    pub cron: Option<String>,
    /// The time zone that `cron` is in, by its name in the IANA database; UTC if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, example = "Europe/Berlin")]
    pub time_zone: Option<String>,
    /// What becomes of a run that was missed while the service was down: `run_once` makes up for all that were missed
    /// with one run, `skip` does not.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = Option<MissedWord>)]
    pub missed: Option<Missed>,
    /// As of a revocation: each run bars what was issued to the principals and OAuth clients of the sessions that fit. A
    /// run that would have to bar too much, or more than whoever made it may, bars less, and its revocation says so.
    #[serde(default)]
    pub bar: bool,
    /// As of a revocation: each run revokes API keys too.
    #[serde(default)]
    pub include_keys: bool,
    /// With `bar`, as of a revocation: each run keeps the principals of the sessions that fit out until this instant, which lies
    /// after the first run. Runs that come later keep nobody out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = DateTime)]
    pub until: Option<String>,
    /// What they read. Without `until` they are kept out until the bars are lifted.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 500)]
    pub message: Option<String>,
}

/// A scheduled revocation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledRevocation {
    pub id: Uuid,
    pub name: String,
    pub filter: FilterBody,
    #[schema(required = true)]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub cron: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub time_zone: Option<String>,
    #[schema(value_type = MissedWord)]
    pub missed: Missed,
    pub bar: bool,
    pub include_keys: bool,
    /// Until when the bars stand that its runs place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub until: Option<String>,
    /// What whoever they keep out reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<String>,
    pub status: ScheduleStatus,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Never in the past. Absent while it is paused and when it is over.
    #[schema(required = true, format = DateTime)]
    pub next_run_at: Option<String>,
    #[schema(required = true, format = DateTime)]
    pub last_run_at: Option<String>,
    /// The revocation of the last run.
    #[schema(required = true)]
    pub last_revocation_id: Option<Uuid>,
    /// How often it ran.
    pub runs: u64,
}

/// Whether there will be runs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleStatus {
    Active,
    Paused,
    /// Its one moment has passed.
    Over,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledRevocationEnvelope {
    pub scheduled_revocation: ScheduledRevocation,
}

/// A page of scheduled revocations, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledRevocationList {
    pub items: Vec<ScheduledRevocation>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

impl From<Scheduled> for ScheduledRevocation {
    fn from(scheduled: Scheduled) -> Self {
        let schedule = scheduled.schedule;
        let over = schedule.over();
        let KeepOut { until, message, .. } = schedule.keep_out.unwrap_or_default();
        let (at, cron, time_zone) = match schedule.when {
            When::At(at) => (Some(time(at)), None, None),
            When::Cron { expression, time_zone } => (None, Some(expression), Some(time_zone)),
        };
        Self {
            id: schedule.id,
            name: schedule.name,
            filter: scheduled.filter.into(),
            reason: schedule.note,
            at,
            cron,
            time_zone,
            missed: schedule.missed,
            bar: schedule.bar.matched,
            include_keys: schedule.bar.keys,
            until: until.map(time),
            message,
            status: match (over, schedule.paused) {
                (true, _) => ScheduleStatus::Over,
                (false, true) => ScheduleStatus::Paused,
                (false, false) => ScheduleStatus::Active,
            },
            created_at: time(schedule.created_at),
            next_run_at: scheduled.next_run_at.map(time),
            last_run_at: schedule.last_run_at.map(time),
            last_revocation_id: scheduled.last_revocation,
            runs: schedule.runs,
        }
    }
}

fn enveloped(scheduled: Scheduled) -> Json<ScheduledRevocationEnvelope> {
    Json(ScheduledRevocationEnvelope { scheduled_revocation: scheduled.into() })
}

/// Schedule a revocation
///
/// Each run is a revocation of its own, with its own count.
#[utoipa::path(post, path = "/api/v1/scheduled-revocations", operation_id = "scheduledRevocations.create",
    tag = "revocations", security(("bearer" = [])),
    request_body(content = CreateScheduledRevocation, description = "Which sessions, and when."),
    responses(
        (status = 201, description = "It is scheduled.", body = ScheduledRevocationEnvelope),
        (status = 409, description = "There are as many as there may be.", body = ProblemBody),
    ))]
pub async fn create_scheduled_revocation(
    CanEnd(caller): CanEnd,
    State(app): State<App>,
    Body(body): Body<CreateScheduledRevocation>,
) -> Result<(StatusCode, Json<ScheduledRevocationEnvelope>), Problem> {
    let new = NewSchedule {
        name: body.name,
        filter: body.filter.read()?,
        note: body.reason,
        at: read_time("at", body.at.as_deref())?,
        cron: body.cron,
        time_zone: body.time_zone,
        missed: body.missed.unwrap_or(Missed::RunOnce),
        bar: BarOptions { matched: body.bar, keys: body.include_keys },
        keep_out: read_terms(body.until.as_deref(), body.message)?,
    };
    Ok((StatusCode::CREATED, enveloped(app.sessions.schedules.create(&caller, new).await?)))
}

/// List scheduled revocations
///
/// The organization's, newest first, also those that are paused or over.
#[utoipa::path(get, path = "/api/v1/scheduled-revocations", operation_id = "scheduledRevocations.list",
    tag = "revocations", security(("bearer" = [])),
    params(
        PagedParameters,
    ),
    responses(
        (status = 200, description = "A page of scheduled revocations.", body = ScheduledRevocationList, headers(("Link" = String, description = "The next page, if there is one (RFC 8288)."))),
    ))]
pub async fn list_scheduled_revocations(
    CanRead(caller): CanRead,
    OriginalUri(uri): OriginalUri,
    Query(list): Query<PlainList>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let (after, limit) = list.read()?;
    let (page, more) = app.sessions.schedules.list(&caller, after, limit).await?;
    let last = page.last().map(|one| (one.schedule.created_at, one.schedule.id));
    let next_cursor = last.filter(|_| more).map(page::cursor);
    let headers = link(&uri, limit, next_cursor.as_deref());
    let items = page.into_iter().map(ScheduledRevocation::from).collect();
    Ok((headers, Json(ScheduledRevocationList { items, next_cursor })).into_response())
}

/// Get a scheduled revocation
#[utoipa::path(get, path = "/api/v1/scheduled-revocations/{scheduledRevocationId}", operation_id = "scheduledRevocations.get",
    tag = "revocations", security(("bearer" = [])), params(("scheduledRevocationId" = Uuid, Path, description = "The scheduled revocation.")),
    responses(
        (status = 200, description = "The scheduled revocation.", body = ScheduledRevocationEnvelope),
    ))]
pub async fn get_scheduled_revocation(
    CanRead(caller): CanRead,
    Id(id, ..): Id<ids::ScheduledRevocation>,
    State(app): State<App>,
) -> Result<Json<ScheduledRevocationEnvelope>, Problem> {
    Ok(enveloped(app.sessions.schedules.find(&caller, id).await?))
}

/// Pause a scheduled revocation
///
/// No runs until it is resumed.
#[utoipa::path(post, path = "/api/v1/scheduled-revocations/{scheduledRevocationId}/pause", operation_id = "scheduledRevocations.pause",
    tag = "revocations", security(("bearer" = [])), params(("scheduledRevocationId" = Uuid, Path, description = "The scheduled revocation.")),
    responses(
        (status = 200, description = "It is paused.", body = ScheduledRevocationEnvelope),
    ))]
pub async fn pause_scheduled_revocation(
    CanEnd(caller): CanEnd,
    Id(id, ..): Id<ids::ScheduledRevocation>,
    State(app): State<App>,
) -> Result<Json<ScheduledRevocationEnvelope>, Problem> {
    Ok(enveloped(app.sessions.schedules.pause(&caller, id).await?))
}

/// Resume a scheduled revocation
///
/// Runs that came due while it was paused are not made up.
#[utoipa::path(post, path = "/api/v1/scheduled-revocations/{scheduledRevocationId}/resume", operation_id = "scheduledRevocations.resume",
    tag = "revocations", security(("bearer" = [])), params(("scheduledRevocationId" = Uuid, Path, description = "The scheduled revocation.")),
    responses(
        (status = 200, description = "It will run again.", body = ScheduledRevocationEnvelope),
    ))]
pub async fn resume_scheduled_revocation(
    CanEnd(caller): CanEnd,
    Id(id, ..): Id<ids::ScheduledRevocation>,
    State(app): State<App>,
) -> Result<Json<ScheduledRevocationEnvelope>, Problem> {
    Ok(enveloped(app.sessions.schedules.resume(&caller, id).await?))
}

/// Delete a scheduled revocation
///
/// The revocations of its runs stay on record.
#[utoipa::path(delete, path = "/api/v1/scheduled-revocations/{scheduledRevocationId}", operation_id = "scheduledRevocations.delete",
    tag = "revocations", security(("bearer" = [])), params(("scheduledRevocationId" = Uuid, Path, description = "The scheduled revocation.")),
    responses(
        (status = 204, description = "It will not run any more."),
    ))]
pub async fn delete_scheduled_revocation(
    CanEnd(caller): CanEnd,
    Id(id, ..): Id<ids::ScheduledRevocation>,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    app.sessions.schedules.delete(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
