//! What portals and clusters report while the work goes on: that it has come, how far it is, and that it lives.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use sessiond_core::phase::Phase;
use sessiond_core::relation::Way;
use uuid::Uuid;

use super::key::{Key, WorkId, read_id};
use super::surface::WorkloadError;
use super::{WorkloadSession, show, way_to};
use crate::auth::ClientAddress;
use crate::http::extract::{Body, given};
use crate::http::problem::Problem;
use crate::http::{App, time};
use crate::sessions::NewSession;

/// A session that a portal or a cluster has begun.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWorkload {
    pub app: NewWorkloadApp,
    /// Whom it belongs to, in the organization's own words. A key that acts for a person begins sessions of that person.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 320)]
    pub owner: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    pub environment: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 1_000)]
    pub description: Option<String>,
    /// The machine it runs on.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    pub hostname: Option<String>,
    /// Of a task `queued`, `launching` or `running`; `queued` if nothing is said. A WebUI session is `Running`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    pub state: Option<String>,
    /// It ends after so many seconds at the latest, if that comes before what its application's policy says.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, minimum = 1, maximum = 315_360_000)]
    pub lifetime: Option<u32>,
}

/// What is running. An application of this name is made when it is first spoken of.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWorkloadApp {
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    pub version: Option<String>,
}

/// Report a WebUI session
///
/// For a portal, when somebody opens an application. It is `Running` until it ends; without a heartbeat it goes stale.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/webui", operation_id = "workloads.createWebuiSession",
    tag = "workloads", security(("apiKey" = [])),
    request_body(content = NewWorkload, description = "What is known of it."),
    responses(
        (status = 201, description = "The session.", body = WorkloadSession),
        (status = 409, description = "The application allows no more sessions at a time.", body = WorkloadError),
    ))]
pub async fn create_webui_session(
    Key(caller): Key,
    State(app): State<App>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    Body(body): Body<NewWorkload>,
) -> Result<(StatusCode, Json<WorkloadSession>), Problem> {
    create(&app, &caller, Kind::Webui, body, (address, &headers)).await
}

/// Report a task session
///
/// For a cluster, when a job is queued or begins to run. Without a heartbeat it goes stale, also while it is queued.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/task", operation_id = "workloads.createTaskSession",
    tag = "workloads", security(("apiKey" = [])),
    request_body(content = NewWorkload, description = "What is known of it."),
    responses(
        (status = 201, description = "The session.", body = WorkloadSession),
        (status = 409, description = "The application allows no more sessions at a time.", body = WorkloadError),
    ))]
pub async fn create_task_session(
    Key(caller): Key,
    State(app): State<App>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    Body(body): Body<NewWorkload>,
) -> Result<(StatusCode, Json<WorkloadSession>), Problem> {
    create(&app, &caller, Kind::Task, body, (address, &headers)).await
}

async fn create(
    app: &App,
    caller: &Caller,
    kind: Kind,
    body: NewWorkload,
    (address, headers): (ClientAddress, &HeaderMap),
) -> Result<(StatusCode, Json<WorkloadSession>), Problem> {
    body.check()?;
    let phase = first_phase(kind, body.state.as_deref())?;
    let owner = owner_of(app, caller, body.owner)?;
    // A repeated request needs no application made for it again.
    let application = match caller.repeats() {
        true => None,
        false => Some(app.directory.applications.ensure(caller, &body.app.name).await?.id),
    };
    let user_agent =
        headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut info = json!({ "name": body.app.name.trim() });
    for (name, value) in [
        ("version", &body.app.version),
        ("environment", &body.environment),
        ("description", &body.description),
    ] {
        if let Some(value) = value {
            info[name] = json!(value);
        }
    }
    let new = NewSession {
        application,
        hostname: body.hostname,
        user_agent: user_agent.map(|text| text.chars().take(512).collect()),
        client_info: Some(info),
        ip: Some(address.0.to_string()),
        owner,
        resource: body.app.version,
        phase,
        lifetime: body.lifetime.map(|seconds| TimeDelta::seconds(seconds.into())),
        ..NewSession::of(kind)
    };
    let opened = app.sessions.lifecycle.connect(caller, new).await?;
    let session = show(app, caller, way_to(kind), opened.session.id).await?;
    Ok((StatusCode::CREATED, session))
}

impl NewWorkload {
    fn check(&self) -> Result<(), Problem> {
        let version = self.app.version.as_deref();
        for (field, text, most) in [
            ("app.version", version, 200),
            ("owner", self.owner.as_deref(), 320),
            ("environment", self.environment.as_deref(), 200),
            ("hostname", self.hostname.as_deref(), 255),
            ("description", self.description.as_deref(), 1_000),
        ] {
            let Some(text) = text else { continue };
            // Only texts for people may have several lines.
            let control = |one: char| one.is_control() && !(field == "description" && one == '\n');
            if text.trim().is_empty() || text.chars().count() > most || text.chars().any(control) {
                let message = format!("{field} must be 1 to {most} characters, without control characters");
                return Err(Problem::invalid(field, message));
            }
        }
        match self.lifetime {
            Some(0) => Err(Problem::invalid("lifetime", "lifetime must be at least 1 second")),
            Some(seconds) if seconds > LONGEST_LIFETIME => {
                let message = format!("lifetime must be at most {LONGEST_LIFETIME} seconds");
                Err(Problem::invalid("lifetime", message))
            }
            _ => Ok(()),
        }
    }
}

/// The longest lifetime: ten years, in seconds.
const LONGEST_LIFETIME: u32 = 315_360_000;

fn first_phase(kind: Kind, state: Option<&str>) -> Result<Option<Phase>, Problem> {
    match (kind, state) {
        (Kind::Task, None) => Ok(Some(Phase::Queued)),
        (Kind::Task, Some(word)) => read_phase(word).map(Some),
        (_, None) => Ok(None),
        (_, Some(word)) if word.eq_ignore_ascii_case("running") => Ok(None),
        (_, Some(_)) => Err(Problem::invalid("state", "state of a WebUI session must be Running")),
    }
}

fn read_phase(word: &str) -> Result<Phase, Problem> {
    let phase = Phase::from_word(&word.to_ascii_lowercase());
    phase.ok_or_else(|| Problem::invalid("state", "state must be queued, launching or running"))
}

/// The owner of a new session. With a key that acts for a person sessions can be begun only for that person.
fn owner_of(app: &App, caller: &Caller, named: Option<String>) -> Result<Option<String>, Problem> {
    if caller.acts_on_all() {
        return Ok(named);
    }
    // Without a name the owner is the person whom the key acts for.
    let own = app.directory.principals.person(caller);
    if named.is_none_or(|owner| own.is_some() && app.sessions.workloads.own_user(caller, &owner) == own) {
        return Ok(None);
    }
    let message =
        "owner: this key acts for another person; leave owner out, and the session is that person's";
    Err(Problem::new(StatusCode::FORBIDDEN, "another_person", message))
}

/// How far a task has come.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadState {
    /// `launching` or `running`; `queued` changes nothing.
    #[schema(example = "running")]
    pub state: String,
}

/// Report how far a task has come
///
/// It only goes forward. What was terminated while it was queued never runs: the answer is 410.
#[utoipa::path(patch, path = "/pro/session-manager/v1/sessions/task/{session_id}", operation_id = "workloads.changeTaskState",
    tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    request_body(content = WorkloadState, description = "Its state now."),
    responses(
        (status = 200, description = "The session.", body = WorkloadSession),
        (status = 409, description = "It had come further before.", body = WorkloadError),
        (status = 410, description = "It has ended, or was ended: stop it.", body = WorkloadError),
    ))]
pub async fn change_task_state(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
    Body(body): Body<WorkloadState>,
) -> Result<Json<WorkloadSession>, Problem> {
    let phase = read_phase(&body.state)?;
    let session = app.sessions.queries.find_to_act_on(&caller, Way::Task, id).await?;
    app.sessions.workloads.change_phase(&caller, &session, phase).await?;
    show(&app, &caller, Way::Task, id).await
}

/// A sign of life was recorded.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WorkloadHeartbeat {
    pub id: String,
    #[schema(format = DateTime)]
    pub last_active_at: String,
}

/// Send a WebUI session's heartbeat
///
/// A sign of life, durable when this answers. 410 means that the session is over: show the person out.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/webui/{session_id}/heartbeat",
    operation_id = "workloads.heartbeatWebuiSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    responses(
        (status = 200, description = "Recorded.", body = WorkloadHeartbeat),
        (status = 410, description = "It has ended, or was ended.", body = WorkloadError),
    ))]
pub async fn heartbeat_webui_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
) -> Result<Json<WorkloadHeartbeat>, Problem> {
    heartbeat(&app, &caller, Kind::Webui, id).await
}

/// Send a task session's heartbeat
///
/// A sign of life, durable when this answers. 410 means that the session is over: stop its job, then report its end.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/task/{session_id}/heartbeat",
    operation_id = "workloads.heartbeatTaskSession", tag = "workloads", security(("apiKey" = [])),
    params(("session_id" = String, Path, description = "The session.", example = "68ce8ce7c4a6fd1afa97672e7080d645")),
    responses(
        (status = 200, description = "Recorded.", body = WorkloadHeartbeat),
        (status = 410, description = "It has ended, or was ended.", body = WorkloadError),
    ))]
pub async fn heartbeat_task_session(
    Key(caller): Key,
    WorkId(id): WorkId,
    State(app): State<App>,
) -> Result<Json<WorkloadHeartbeat>, Problem> {
    heartbeat(&app, &caller, Kind::Task, id).await
}

async fn heartbeat(
    app: &App,
    caller: &Caller,
    kind: Kind,
    id: Uuid,
) -> Result<Json<WorkloadHeartbeat>, Problem> {
    let session = app.sessions.queries.find_to_act_on(caller, way_to(kind), id).await?;
    let session = app.sessions.workloads.beat(caller, &session).await?;
    Ok(Json(WorkloadHeartbeat {
        id: session.id.simple().to_string(),
        last_active_at: time(session.last_active_at),
    }))
}

/// Sessions that live.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadHeartbeats {
    /// Ids of WebUI and task sessions.
    #[schema(max_items = 10_000)]
    pub sessions: Vec<String>,
}

/// What became of each, in the order given.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WorkloadHeartbeatOutcomes {
    /// How many were recorded.
    pub recorded: u64,
    pub sessions: Vec<WorkloadHeartbeatOutcome>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WorkloadHeartbeatOutcome {
    /// As it was given.
    pub id: String,
    /// As the status of a heartbeat of this session alone: 200, 400, 401, 403, 404, 410, 503 or 507.
    pub status: u16,
    /// Why it was not recorded; empty where it was.
    pub message: String,
}

/// How many heartbeats one call may have.
const MOST: usize = 10_000;

/// Send heartbeats of many sessions
///
/// For whoever runs many: up to 10,000 signs of life in one call, each answered for itself; what is said to be recorded is
/// durable when this answers.
#[utoipa::path(post, path = "/pro/session-manager/v1/sessions/heartbeats", operation_id = "workloads.heartbeats",
    tag = "workloads", security(("apiKey" = [])),
    request_body(content = WorkloadHeartbeats, description = "Which sessions."),
    responses(
        (status = 200, description = "What became of each.", body = WorkloadHeartbeatOutcomes),
    ))]
pub async fn heartbeats(
    Key(caller): Key,
    State(app): State<App>,
    Body(body): Body<WorkloadHeartbeats>,
) -> Result<Json<WorkloadHeartbeatOutcomes>, Problem> {
    if body.sessions.len() > MOST {
        return Err(Problem::invalid("sessions", format!("sessions must be at most {MOST}")));
    }
    let read: Vec<_> = body.sessions.iter().map(|text| read_id(text)).collect();
    let ids: Vec<Uuid> = read.iter().flatten().copied().collect();
    let mut outcomes = app.sessions.workloads.beat_many(&caller, &ids).await.into_iter();
    let mut answer = WorkloadHeartbeatOutcomes { recorded: 0, sessions: Vec::with_capacity(read.len()) };
    for (id, read) in body.sessions.into_iter().zip(read) {
        let outcome = match read {
            Some(_) => outcomes.next().unwrap_or(Ok(())).map_err(Problem::from),
            None => Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "This is no session's id")),
        };
        let (status, message) = match outcome {
            Ok(()) => (StatusCode::OK, String::new()),
            Err(problem) => (problem.status, problem.message),
        };
        answer.recorded += u64::from(status.is_success());
        answer.sessions.push(WorkloadHeartbeatOutcome { id, status: status.as_u16(), message });
    }
    Ok(Json(answer))
}
