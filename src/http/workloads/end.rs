//! Ends of sessions: reported by those who run the work, or wanted by others. An end is recorded at once. Whether those who
//! run the work know of it is kept beside it, and until they do a task shows the state that it had.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use sessiond_core::phase::Outcome;
use sessiond_core::reason::Reason;
use sessiond_core::relation::{MayAct, Way};
use sessiond_core::shown;
use uuid::Uuid;

use super::key::{Key, WorkId};
use super::surface::WorkloadError;
use super::{WorkloadSession, show};
use crate::http::App;
use crate::http::extract::Body;
use crate::http::problem::Problem;
use crate::sessions::WorkEnd;

/// How a task ended.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadEnd {
    /// `finished`, `failed`, `crashed` or `terminated`.
    #[schema(example = "finished")]
    pub state: String,
    /// For people. What is above 2,000 characters is cut, control characters are written out (`\u{1b}`): what is said of an
    /// end is no reason to lose it.
    pub message: Option<String>,
}

/// How a WebUI session ended.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebuiEnd {
    /// `Terminated`, which is all there is.
    pub state: Option<String>,
}

/// The longest message about an end; characters.
const LONGEST_MESSAGE: usize = 2_000;

/// Report that a task has ended
///
/// Records the end, or confirms one that was recorded before: of a session that was terminated, say, whose job is dead now. A
/// confirmation changes neither `ended_at` nor how it ended; its message is shown where nothing more was said. The last log
/// lines go before this.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/task/{session_id}/end", operation_id = "workloads.endTaskSession",
    tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    request_body(content = WorkloadEnd, description = "What came of it."),
    responses((status = 200, description = "The session, which is over.", body = WorkloadSession)))]
pub async fn end_task_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Body(body): Body<WorkloadEnd>,
) -> Result<Json<WorkloadSession>, Problem> {
    let word = body.state.to_ascii_lowercase();
    let ending = match Outcome::from_word(&word) {
        Some(outcome) => WorkEnd::Finished(outcome),
        None if word == "terminated" => WorkEnd::Stopped(Reason::Terminated),
        None => {
            let message = "state must be finished, failed, crashed or terminated";
            return Err(Problem::invalid("state", message));
        }
    };
    let message = body.message.filter(|message| !message.trim().is_empty()).map(readable);
    let session = app.sessions.queries.find_to_act_on(&caller, Way::Task, id).await?;
    app.sessions.workloads.report_end(&caller, &session, ending, message).await?;
    show(&app, &caller, Way::Task, id).await
}

fn readable(message: String) -> String {
    shown::cut(shown::lines(&message.replace("\r\n", "\n")).into_owned(), LONGEST_MESSAGE)
}

/// Report that a WebUI session has ended
///
/// Whoever was there has left, or was shown out. Needs no body.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/webui/{session_id}/end",
    operation_id = "workloads.endWebuiSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    request_body(content = WebuiEnd, description = "May be left out."),
    responses((status = 200, description = "The session, which is over.", body = WorkloadSession)))]
pub async fn end_webui_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Body(body): Body<WebuiEnd>,
) -> Result<Json<WorkloadSession>, Problem> {
    if body.state.is_some_and(|word| !word.eq_ignore_ascii_case("terminated")) {
        return Err(Problem::invalid("state", "state of a WebUI session that is over must be Terminated"));
    }
    let session = app.sessions.queries.find_to_act_on(&caller, Way::Webui, id).await?;
    app.sessions.workloads.report_end(&caller, &session, WorkEnd::Stopped(Reason::Client), None).await?;
    show(&app, &caller, Way::Webui, id).await
}

/// Terminate a WebUI session
///
/// It is `Terminated` when this answers, and its record stays; its portal learns of it by webhook, by the live feed, or from
/// its next heartbeat. With the id of a task this terminates the task, as the vendor's document once had it; that is
/// deprecated, and the answer says so with the header `Deprecation: true`: use the path with `task`.
#[utoipa::path(delete, path = "/pro/session-manager/v1/sessions/webui/{session_id}",
    operation_id = "workloads.deleteWebuiSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session; or, deprecated, a task's.",
        example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    responses(
        (status = 204, description = "It is terminated.", headers(
            ("Deprecation" = String, description = "`true` where the id was a task's."))),
        (status = 409, description = "It is over already.", body = WorkloadError),
    ))]
pub async fn delete_webui_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let session = terminate(&app, &caller, Way::Work, id).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if session.kind == Kind::Task {
        let name = HeaderName::from_static("deprecation");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Terminate a task session
///
/// Its job is to die on the cluster, which learns of it by webhook, by the live feed, or from its next heartbeat. The session
/// is out of reach at once: heartbeats, states and log lines are refused with 410, reading its logs with 409. Its state
/// follows when the cluster has reported the end, or a grace period (`--workload-grace`) has passed. What was queued never
/// runs. The record stays.
#[utoipa::path(delete, path = "/pro/session-manager/v1/sessions/task/{session_id}",
    operation_id = "workloads.deleteTaskSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    responses(
        (status = 204, description = "It is out of reach, and about to be terminated."),
        (status = 409, description = "It is over already, or about to be.", body = WorkloadError),
    ))]
pub async fn delete_task_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    terminate(&app, &caller, Way::Task, id).await.map(|_| StatusCode::NO_CONTENT)
}

/// Terminate a WebUI session, by the newer path
///
/// The same as `DELETE`, which in later versions of the vendor's API removes the record; this will always terminate.
#[utoipa::path(patch, path = "/pro/session-manager/v1/sessions/webui/{session_id}/terminate",
    operation_id = "workloads.terminateWebuiSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    responses(
        (status = 204, description = "It is terminated."),
        (status = 409, description = "It is over already.", body = WorkloadError),
    ))]
pub async fn terminate_webui_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    terminate(&app, &caller, Way::Webui, id).await.map(|_| StatusCode::NO_CONTENT)
}

/// Terminate a task session, by the newer path
///
/// The same as `DELETE`, which in later versions of the vendor's API removes the record; this will always terminate.
#[utoipa::path(patch, path = "/pro/session-manager/v1/sessions/task/{session_id}/terminate",
    operation_id = "workloads.terminateTaskSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    responses(
        (status = 204, description = "It is out of reach, and about to be terminated."),
        (status = 409, description = "It is over already, or about to be.", body = WorkloadError),
    ))]
pub async fn terminate_task_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    terminate(&app, &caller, Way::Task, id).await.map(|_| StatusCode::NO_CONTENT)
}

async fn terminate(app: &App, caller: &Caller, way: Way, id: Uuid) -> Result<MayAct, Problem> {
    let session = app.sessions.queries.find_to_act_on(caller, way, id).await?;
    if app.sessions.workloads.terminate(caller, &session).await? {
        return Ok(session);
    }
    let message = "The session is over already, or was terminated before";
    Err(Problem::new(StatusCode::CONFLICT, "session_over", message))
}
