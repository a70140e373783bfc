//! One session.

use axum::Json;
use axum::extract::State;
use sessiond_core::relation::Way;

use super::key::{Key, WorkId};
use super::{WorkloadSession, show};
use crate::http::App;
use crate::http::problem::Problem;

/// Get a WebUI session
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/webui/{session_id}", operation_id = "workloads.getWebuiSession",
    tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    responses((status = 200, description = "The session.", body = WorkloadSession)))]
pub async fn get_webui_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
) -> Result<Json<WorkloadSession>, Problem> {
    show(&app, &caller, Way::Webui, id).await
}

/// Get a task session
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/task/{session_id}", operation_id = "workloads.getTaskSession",
    tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    responses((status = 200, description = "The session.", body = WorkloadSession)))]
pub async fn get_task_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
) -> Result<Json<WorkloadSession>, Problem> {
    show(&app, &caller, Way::Task, id).await
}
