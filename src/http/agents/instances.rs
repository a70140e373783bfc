//! The older names of the same things.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use sessiond_core::relation::Way;

use super::read::listed;
use super::{Session, SessionList};
use crate::http::App;
use crate::http::extract::{CanEnd, CanRead, Query};
use crate::http::filter::FilterParameters;
use crate::http::ids::{self, Id};
use crate::http::list_parameters::{
    ListParameters, OLDER_PAGE, OlderLimitParameter, PageParameters, StatusParameters,
};
use crate::http::problem::Problem;

/// One session, under its older name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceEnvelope {
    pub agent_instance: Session,
}

/// List agent instances
///
/// The older name of listing sessions; without `applicationId` those of the whole organization.
#[utoipa::path(get, path = "/api/v1/agent-instances", operation_id = "agentInstances.list", tag = "agentInstances",
    security(("bearer" = [])),
    params(
        ("applicationId" = Option<Uuid>, Query, description = "Only this application's."),
        StatusParameters, FilterParameters, OlderLimitParameter, PageParameters,
    ),
    responses(
        (status = 200, description = "A page of sessions.", body = SessionList),
    ))]
pub async fn list_instances(
    CanRead(caller): CanRead,
    OriginalUri(uri): OriginalUri,
    Query(parameters): Query<ListParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let query = parameters.read(parameters.application()?, OLDER_PAGE)?;
    Ok(listed(app.sessions.queries.list(&caller, &query).await?, &parameters, query.sort, &uri))
}

/// Get an agent instance
///
/// The older name of getting a session.
#[utoipa::path(get, path = "/api/v1/agent-instances/{sessionId}", operation_id = "agentInstances.get", tag = "agentInstances",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session, live or ended.", body = InstanceEnvelope),
    ))]
pub async fn get_instance(
    CanRead(caller): CanRead,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<InstanceEnvelope>, Problem> {
    let view = app.sessions.queries.find(&caller, Way::Management, session).await?;
    Ok(Json(InstanceEnvelope { agent_instance: view.into() }))
}

/// Revoke an agent instance
///
/// The older name of revoking a session.
#[utoipa::path(delete, path = "/api/v1/agent-instances/{sessionId}", operation_id = "agentInstances.revoke", tag = "agentInstances",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 204, description = "The session has ended."),
    ))]
pub async fn revoke_instance(
    CanEnd(caller): CanEnd,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    let session = app.sessions.queries.find_to_act_on(&caller, Way::Management, session).await?;
    app.sessions.revocations.revoke_session(&caller, &session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revoke all agent instances
///
/// The older name of revoking all sessions of an application.
#[utoipa::path(delete, path = "/api/v1/applications/{applicationId}/agent-instances", operation_id = "agentInstances.revokeAll",
    tag = "agentInstances", security(("bearer" = [])), params(("applicationId" = Uuid, Path, description = "The application.")),
    responses(
        (status = 204, description = "All have ended."),
    ))]
pub async fn revoke_instances(
    CanEnd(caller): CanEnd,
    Id(application, ..): Id<ids::Application>,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    app.sessions.revocations.revoke_all(&caller, application, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
