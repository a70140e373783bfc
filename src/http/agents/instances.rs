//! The older names of the same things.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use uuid::Uuid;

use super::read::{ListParameters, StatusFilter, listed};
use super::{Session, SessionList};
use crate::core::ids::Position;
use crate::directory::Slice;
use crate::http::App;
use crate::http::extract::{CanEnd, CanRead, Ids, Query};
use crate::http::problem::{Problem, ProblemBody};
use crate::sessions::Page;

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
        ("limit" = Option<u32>, Query, description = "Most to return, 1 to 200.", minimum = 1, maximum = 200),
        ("status" = inline(Option<StatusFilter>), Query, description = "`active` (the default), `inactive` or `all`."),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before."),
    ),
    responses(
        (status = 200, description = "A page of sessions.", body = SessionList),
        (status = 400, description = "A parameter is wrong.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such application.", body = ProblemBody),
    ))]
pub async fn list_instances(
    CanRead(caller): CanRead,
    Query(parameters): Query<ListParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let query = parameters.read(50)?;
    let applications = match parameters.application_id.as_deref() {
        Some(text) => vec![
            Uuid::try_parse(text)
                .map_err(|_| Problem::invalid("applicationId", "Validation failed (uuid is expected)"))?,
        ],
        None => {
            let (all, _) = app.directory.applications(&caller, true, Slice { after: None, limit: u32::MAX });
            all.into_iter().map(|(application, _)| application.id).collect()
        }
    };
    let mut whole = Page { items: vec![], next: None, position: Position(0) };
    let mut more = false;
    for application in applications {
        let page = app.sessions.list(&caller, application, query).await?;
        more |= page.next.is_some();
        whole.position = page.position;
        whole.items.extend(page.items);
    }
    whole.items.sort_by_key(|view| std::cmp::Reverse((view.session.connected_at, view.session.id)));
    more |= whole.items.len() > query.limit as usize;
    whole.items.truncate(query.limit as usize);
    whole.next = whole.items.last().filter(|_| more).map(|view| (view.session.connected_at, view.session.id));
    Ok(listed(whole))
}

/// Get an agent instance
///
/// The older name of getting a session.
#[utoipa::path(get, path = "/api/v1/agent-instances/{sessionId}", operation_id = "agentInstances.get", tag = "agentInstances",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session, live or ended.", body = InstanceEnvelope),
        (status = 400, description = "The id is not a UUID.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such session.", body = ProblemBody),
    ))]
pub async fn get_instance(
    CanRead(caller): CanRead,
    Ids(ids): Ids<1>,
    State(app): State<App>,
) -> Result<Json<InstanceEnvelope>, Problem> {
    let [session] = ids;
    let view = app.sessions.view_by_id(&caller, session).await?;
    Ok(Json(InstanceEnvelope { agent_instance: view.into() }))
}

/// Revoke an agent instance
///
/// The older name of revoking a session.
#[utoipa::path(delete, path = "/api/v1/agent-instances/{sessionId}", operation_id = "agentInstances.revoke", tag = "agentInstances",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 204, description = "The session has ended."),
        (status = 400, description = "The id is not a UUID.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such session.", body = ProblemBody),
    ))]
pub async fn revoke_instance(
    CanEnd(caller): CanEnd,
    Ids(ids): Ids<1>,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    let [session] = ids;
    let view = app.sessions.view_by_id(&caller, session).await?;
    app.sessions.revoke_one(&caller, view.application_id, session, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revoke all agent instances
///
/// The older name of revoking all sessions of an application.
#[utoipa::path(delete, path = "/api/v1/applications/{applicationId}/agent-instances", operation_id = "agentInstances.revokeAll",
    tag = "agentInstances", security(("bearer" = [])), params(("applicationId" = Uuid, Path, description = "The application.")),
    responses(
        (status = 204, description = "All have ended."),
        (status = 400, description = "The id is not a UUID.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such application, or it is archived.", body = ProblemBody),
    ))]
pub async fn revoke_instances(
    CanEnd(caller): CanEnd,
    Ids(ids): Ids<1>,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    let [application] = ids;
    app.sessions.revoke_all(&caller, application, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
