//! How long an organization keeps what happened.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sessiond_core::retention::{Figures, Retention, said};
use utoipa::ToSchema;

use super::Organization;
use crate::directory::EndedBefore;
use crate::http::App;
use crate::http::extract::{Body, Query};
use crate::http::page::read_flag;
use crate::http::problem::Problem;

/// What differs from the server's figures, in seconds. All of it is replaced: what is left out is the server's, `null` is for
/// ever.
#[derive(Debug, Default, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schema(as = Retention)]
pub struct RetentionChoice {
    /// How long every activity event is kept; from then on it is the last of each session and day, with the totals.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 60, maximum = 3_153_600_000_u32, format = "uint32")]
    activity_after: Option<Option<u32>>,
    /// How long a session is kept after it ended. Then all that is known of it goes.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 60, maximum = 3_153_600_000_u32, format = "uint32")]
    ended_after: Option<Option<u32>>,
    /// How long log lines and recordings are kept; never longer than their session.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 60, maximum = 3_153_600_000_u32, format = "uint32")]
    journals_after: Option<Option<u32>>,
}

/// How long things are kept, in seconds; null: for ever.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RetentionFigures)]
pub struct FiguresBody {
    #[schema(required = true, format = "uint32")]
    activity_after: Option<u32>,
    #[schema(required = true, format = "uint32")]
    ended_after: Option<u32>,
    #[schema(required = true, format = "uint32")]
    journals_after: Option<u32>,
}

/// What ended too long ago to be kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct LetsGo {
    sessions: u64,
    /// Events that those sessions have had.
    events: u64,
}

/// How long an organization keeps things.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionEnvelope {
    /// What differs from the server's.
    retention: RetentionChoice,
    /// The figures that are in force.
    effective: FiguresBody,
    /// What goes by them now, a little at a time. It does not come back.
    lets_go: LetsGo,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionParameters {
    dry_run: Option<String>,
}

/// The shortest and longest that anything may be kept: a minute, and a hundred years.
const SHORTEST: u32 = 60;
const LONGEST: u32 = 100 * 365 * 86_400;

impl RetentionChoice {
    fn read(self) -> Result<Retention, Problem> {
        for (field, figure) in [
            ("activityAfter", self.activity_after),
            ("endedAfter", self.ended_after),
            ("journalsAfter", self.journals_after),
        ] {
            if figure.flatten().is_some_and(|seconds| !(SHORTEST..=LONGEST).contains(&seconds)) {
                let message = format!(
                    "{field} must be {SHORTEST} to {LONGEST} seconds (a minute to a hundred years), or null for ever"
                );
                return Err(Problem::invalid(field, message));
            }
        }
        Ok(Retention {
            activity_after: self.activity_after,
            ended_after: self.ended_after,
            journals_after: self.journals_after,
        })
    }
}

fn enveloped(retention: Retention, figures: Figures, goes: EndedBefore) -> Json<RetentionEnvelope> {
    Json(RetentionEnvelope {
        retention: RetentionChoice {
            activity_after: retention.activity_after,
            ended_after: retention.ended_after,
            journals_after: retention.journals_after,
        },
        effective: FiguresBody {
            activity_after: figures.activity_after,
            ended_after: figures.ended_after,
            journals_after: figures.journals_after,
        },
        lets_go: LetsGo { sessions: goes.sessions, events: goes.events },
    })
}

/// Get how long the organization keeps things
#[utoipa::path(
    get, path = "/api/v1/organization/retention", operation_id = "retention.get", tag = "retention",
    security(("bearer" = [])),
    responses((status = 200, description = "What it chose, and what is in force.", body = RetentionEnvelope)),
)]
pub async fn get_retention(
    Organization(caller): Organization,
    State(app): State<App>,
) -> Result<Json<RetentionEnvelope>, Problem> {
    let settings = &app.directory.retention_settings;
    let chosen = settings.chosen(&caller);
    let figures = chosen.over(settings.server());
    Ok(enveloped(chosen, figures, settings.lets_go(&caller, figures).await?))
}

/// Set how long the organization keeps things
///
/// What is kept no longer goes a little at a time, and **does not come back**: `dryRun` says how much that would be. Of a session that
/// was let go nothing is found any more; what a media stream has sent in all, and how many a revocation disconnected, stays. The log
/// says how much went and still proves the rest.
#[utoipa::path(
    put, path = "/api/v1/organization/retention", operation_id = "retention.set", tag = "retention",
    security(("bearer" = [])),
    params(("dryRun" = Option<bool>, Query, description = "Only say what would go.")),
    request_body = RetentionChoice,
    responses((status = 200, description = "What it chose, and what is in force.", body = RetentionEnvelope)),
)]
pub async fn set_retention(
    Organization(caller): Organization,
    State(app): State<App>,
    Query(parameters): Query<RetentionParameters>,
    Body(body): Body<RetentionChoice>,
) -> Result<Json<RetentionEnvelope>, Problem> {
    let settings = &app.directory.retention_settings;
    let wanted = body.read()?;
    let chosen = match read_flag("dryRun", parameters.dry_run.as_deref())? {
        true => wanted,
        false => settings.set(&caller, wanted).await?,
    };
    let figures = chosen.over(settings.server());
    Ok(enveloped(chosen, figures, settings.lets_go(&caller, figures).await?))
}
