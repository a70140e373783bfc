//! The write side: what agents, and those who front them, report.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sessiond_core::Time;
use sessiond_core::kind::Kind;
use sessiond_core::session::event::{ActivitySource, Counts};
use uuid::Uuid;

use crate::auth::ClientAddress;
use crate::http::extract::{Agent, AgentOrEnded, Body};
use crate::http::ids::{self, Id};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::words::ReasonWord;
use crate::http::{App, time};
use crate::sessions::NewSession;

/// A session to open. Unknown fields are ignored: published clients send more than is kept.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateSession {
    /// What the client calls its credential. While a session with it lives, creating again attaches to that session.
    pub token_identifier: Option<String>,
    /// Whom the client acts for: an e-mail address or subject, in the client's own words.
    pub authenticated_user_id: Option<String>,
    /// The client's own id for this run; comes before `tokenIdentifier` in finding the session to attach to.
    pub client_session_id: Option<String>,
    pub hostname: Option<String>,
    /// Client metadata; `name` and `version` are shown to people.
    #[schema(value_type = Option<Object>)]
    pub client_info: Option<Value>,
    /// A name for people; one is made up if there is none.
    pub name: Option<String>,
    /// Where to create it, for a credential that is bound to no application.
    pub application_id: Option<Uuid>,
}

/// A session that was opened, or attached to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedSession {
    pub session_id: Uuid,
    /// The same as `sessionId`.
    pub id: Uuid,
    pub name: String,
    /// The session's own token, shown this once: it opens this session's write side and nothing else.
    pub token: String,
    #[schema(format = DateTime)]
    pub token_expires_at: String,
    /// The application.
    pub agent_id: Uuid,
}

/// Open a session
///
/// Opens a session, or attaches to the principal's live one with the same `clientSessionId` (else `tokenIdentifier`): the
/// same id, a fresh token, the old token dead. What another principal calls so is another session.
#[utoipa::path(post, path = "/api/v1/agent-sessions", operation_id = "agent.create", tag = "agent", security(("bearer" = [])),
    request_body(content = CreateSession, description = "What is known of the client."),
    responses(
        (status = 201, description = "A session was opened.", body = CreatedSession),
        (status = 200, description = "Attached to the live session with the same key.", body = CreatedSession),
        (status = 409, description = "The application allows no more sessions at a time.", body = ProblemBody),
    ))]
pub async fn create(
    Agent(caller): Agent,
    State(app): State<App>,
    Extension(address): Extension<ClientAddress>,
    headers: HeaderMap,
    Body(body): Body<CreateSession>,
) -> Result<(StatusCode, Json<CreatedSession>), Problem> {
    if caller.session().is_some() {
        let message = "A session's own token cannot open sessions; present an access token";
        return Err(Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", message));
    }
    let user_agent =
        headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let new = NewSession {
        application: body.application_id,
        client_session_id: body.client_session_id,
        token_identifier: body.token_identifier,
        authenticated_user: body.authenticated_user_id,
        name: body.name,
        hostname: body.hostname,
        user_agent: user_agent.map(|text| text.chars().take(512).collect()),
        client_info: body.client_info,
        ip: Some(address.0.to_string()),
        ..NewSession::of(Kind::Agent)
    };
    let opened = app.sessions.lifecycle.connect(&caller, new).await?;
    let status = if opened.opened { StatusCode::CREATED } else { StatusCode::OK };
    let id = opened.session.id;
    let created = CreatedSession {
        session_id: id,
        id,
        name: opened.name,
        token: opened.token.unwrap_or_default(),
        token_expires_at: time(opened.session.token_expires_at),
        agent_id: opened.application_id,
    };
    Ok((status, Json(created)))
}

/// A sign of life was recorded.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    pub success: bool,
    #[schema(format = DateTime)]
    pub last_active_at: String,
    #[schema(format = DateTime)]
    pub token_expires_at: String,
}

fn recorded(last_active_at: Time, token_expires_at: Time) -> Json<Recorded> {
    Json(Recorded {
        success: true,
        last_active_at: time(last_active_at),
        token_expires_at: time(token_expires_at),
    })
}

/// Send a heartbeat
///
/// A sign of life; durable when this answers. Needs no body.
#[utoipa::path(post, path = "/api/v1/agent-sessions/{sessionId}/heartbeat", operation_id = "agent.heartbeat", tag = "agent",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "Recorded.", body = Recorded),
        (status = 403, description = "A scope is missing, or the session is of a kind that another surface keeps (`other_surface`).", body = ProblemBody),
        (status = 410, description = "The session has ended; `reason` says why.", body = ProblemBody),
    ))]
pub async fn heartbeat(
    Agent(caller): Agent,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<Recorded>, Problem> {
    let session =
        app.sessions.lifecycle.record(&caller, session, ActivitySource::Heartbeat, Counts::default()).await?;
    Ok(recorded(session.last_active_at, session.token_expires_at))
}

/// Work to add to a session's figures.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReportedActivity {
    /// Requests since the last report.
    #[schema(format = "uint64")]
    pub requests: u64,
    /// Bytes received since the last report.
    #[schema(format = "uint64")]
    pub bytes_in: u64,
    /// Bytes sent since the last report.
    #[schema(format = "uint64")]
    pub bytes_out: u64,
}

/// Report activity
///
/// A sign of life with what was done since the last one; durable when this answers.
#[utoipa::path(post, path = "/api/v1/agent-sessions/{sessionId}/activity", operation_id = "agent.activity", tag = "agent",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    request_body(content = ReportedActivity, description = "What was done; may be left out."),
    responses(
        (status = 200, description = "Recorded.", body = Recorded),
        (status = 403, description = "A scope is missing, or the session is of a kind that another surface keeps (`other_surface`).", body = ProblemBody),
        (status = 410, description = "The session has ended; `reason` says why.", body = ProblemBody),
    ))]
pub async fn activity(
    Agent(caller): Agent,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
    Body(body): Body<ReportedActivity>,
) -> Result<Json<Recorded>, Problem> {
    let counts = Counts { requests: body.requests, bytes_in: body.bytes_in, bytes_out: body.bytes_out };
    let counts = Counts::default().plus(counts);
    let session = app.sessions.lifecycle.record(&caller, session, ActivitySource::Report, counts).await?;
    Ok(recorded(session.last_active_at, session.token_expires_at))
}

/// Reports about many sessions.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ReportedActivities {
    #[schema(max_items = 10_000)]
    pub items: Vec<ReportedItem>,
}

/// Work of one session since the last report about it; a sign of life, also without figures.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportedItem {
    pub session_id: Uuid,
    #[serde(default)]
    #[schema(format = "uint64")]
    pub requests: u64,
    #[serde(default)]
    #[schema(format = "uint64")]
    pub bytes_in: u64,
    #[serde(default)]
    #[schema(format = "uint64")]
    pub bytes_out: u64,
}

/// What became of each report, in the order they were given.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportedOutcomes {
    /// How many were recorded.
    pub recorded: u64,
    pub items: Vec<ReportedOutcome>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportedOutcome {
    pub session_id: Uuid,
    /// As the status of a report about this session alone: 200, 401, 403, 404, 410, 503 or 507.
    pub status: u16,
    /// A stable word for programs, where it was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    pub code: Option<&'static str>,
    /// For people, where it was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<String>,
    /// Why the session ended, where that is what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    pub reason: Option<&'static str>,
}

/// Most reports in one call.
const MOST: usize = 10_000;

/// Report activity of many sessions
///
/// For whoever fronts many sessions: up to 10,000 signs of life in one call, each answered for itself; what is said to be
/// recorded is durable when this answers.
#[utoipa::path(post, path = "/api/v1/agent-sessions/activity", operation_id = "agent.activityMany", tag = "agent",
    security(("bearer" = [])),
    request_body(content = ReportedActivities, description = "What was done in which session."),
    responses(
        (status = 200, description = "What became of each.", body = ReportedOutcomes),
    ))]
pub async fn activity_many(
    Agent(caller): Agent,
    State(app): State<App>,
    Body(body): Body<ReportedActivities>,
) -> Result<Json<ReportedOutcomes>, Problem> {
    if body.items.len() > MOST {
        return Err(Problem::invalid("items", format!("items must be at most {MOST}")));
    }
    let counts = |item: &ReportedItem| {
        let counts = Counts { requests: item.requests, bytes_in: item.bytes_in, bytes_out: item.bytes_out };
        (item.session_id, Counts::default().plus(counts))
    };
    let items: Vec<_> = body.items.iter().map(counts).collect();
    let outcomes = app.sessions.lifecycle.record_many(&caller, &items).await;
    let mut answer = ReportedOutcomes { recorded: 0, items: Vec::with_capacity(items.len()) };
    for ((session_id, _), outcome) in items.into_iter().zip(outcomes) {
        answer.items.push(match outcome.map_err(Problem::from) {
            Ok(()) => {
                answer.recorded += 1;
                ReportedOutcome { session_id, status: 200, code: None, message: None, reason: None }
            }
            Err(problem) => ReportedOutcome {
                session_id,
                status: problem.status.as_u16(),
                code: Some(problem.code),
                message: Some(problem.message),
                reason: problem.reason,
            },
        });
    }
    Ok(Json(answer))
}

/// A fresh token.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Renewed {
    /// Shown this once; the old one is dead.
    pub token: String,
    #[schema(format = DateTime)]
    pub token_expires_at: String,
}

/// Renew a session's token
///
/// The old token is dead when this answers. The new one lives no longer than the session may.
#[utoipa::path(post, path = "/api/v1/agent-sessions/{sessionId}/renew", operation_id = "agent.renew", tag = "agent",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "The new token. Of several who present the same token, one gets this.", body = Renewed),
        (status = 409, description = "A session of this kind has no token (`no_session_token`).", body = ProblemBody),
        (status = 410, description = "The session has ended; `reason` says why.", body = ProblemBody),
    ))]
pub async fn renew(
    Agent(caller): Agent,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<Renewed>, Problem> {
    let (session, token) = app.sessions.lifecycle.renew(&caller, session).await?;
    Ok(Json(Renewed { token, token_expires_at: time(session.token_expires_at) }))
}

/// How a session stands after its client said goodbye.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disconnected {
    pub success: bool,
    #[schema(format = DateTime, required = false)]
    pub disconnected_at: Option<String>,
    /// Why it ended: not `client` where something else ended it before.
    #[schema(required = false, value_type = Option<ReasonWord>)]
    pub reason: Option<&'static str>,
}

/// Say goodbye
///
/// Ends the session; ending it again changes nothing. The token of a session that was ended by others still opens this,
/// and learns why.
#[utoipa::path(post, path = "/api/v1/agent-sessions/{sessionId}/disconnect", operation_id = "agent.disconnect", tag = "agent",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session has ended.", body = Disconnected),
        (status = 403, description = "A scope is missing, or the session is of a kind that another surface keeps (`other_surface`).", body = ProblemBody),
    ))]
pub async fn disconnect(
    AgentOrEnded(caller): AgentOrEnded,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<Disconnected>, Problem> {
    let view = app.sessions.lifecycle.disconnect(&caller, session).await?;
    let ended = view.session.ended;
    Ok(Json(Disconnected {
        success: true,
        disconnected_at: ended.map(|ended| time(ended.at)),
        reason: ended.map(|ended| ended.reason.word()),
    }))
}
