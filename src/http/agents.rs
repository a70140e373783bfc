//! The main surface: sessions of an application, read and ended by its owners, kept alive by its agents.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::extract::{Agent, AgentOrEnded, Body, CanEnd, CanRead, Ids, Query};
use super::page::{cursor, read_cursor, read_flag, read_limit};
use super::problem::{Problem, ProblemBody};
use super::{App, time};
use crate::core::Time;
use crate::core::event::{ActivitySource, Counts};
use crate::core::kind::{Kind, Policy};
use crate::directory::Slice;
use crate::sessions::{ListQuery, NewSession, Page, Revoked, View};

/// A session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub id: Uuid,
    /// Human-readable name.
    pub name: String,
    /// Changes only when the session ends.
    pub status: Status,
    /// What the session is at the moment of asking.
    pub derived_status: Derived,
    /// When the session's token expires.
    #[schema(required = false, format = DateTime)]
    pub token_expires_at: Option<String>,
    /// The last sign of life.
    #[schema(required = false, format = DateTime)]
    pub last_active_at: Option<String>,
    /// When the session was established.
    #[schema(required = false, format = DateTime)]
    pub connected_at: Option<String>,
    /// When it ended.
    #[schema(required = false, format = DateTime)]
    pub disconnected_at: Option<String>,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// The application that created the session.
    pub agent_id: Uuid,
    pub organization_id: Uuid,
    /// Host name reported by the client.
    #[schema(required = true)]
    pub hostname: Option<String>,
    /// User agent reported by the client.
    #[schema(required = true)]
    pub user_agent: Option<String>,
    /// Client metadata.
    #[schema(required = true, value_type = Option<Object>)]
    pub client_info: Option<Value>,
    /// Why it ended: `client`, `terminated`, `revoked`, `archived`, `stale`, `lifetime`, …
    #[schema(required = false)]
    pub disconnect_reason: Option<&'static str>,
    /// What it has reported since it connected.
    pub activity: Activity,
}

/// Whether a session has ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Active,
    Disconnected,
}

/// Disconnected before expired before idle before active.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Derived {
    Active,
    Idle,
    Expired,
    Disconnected,
}

/// Countable work.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl From<View> for Session {
    fn from(view: View) -> Self {
        use crate::core::status::DerivedStatus as D;
        let (session, detail) = (view.session, view.detail);
        Self {
            id: session.id,
            name: detail.name.unwrap_or_else(|| "(erased)".to_owned()),
            status: if session.ended.is_some() { Status::Disconnected } else { Status::Active },
            derived_status: match view.derived {
                D::Active => Derived::Active,
                D::Idle => Derived::Idle,
                D::Expired => Derived::Expired,
                D::Disconnected => Derived::Disconnected,
            },
            token_expires_at: Some(time(session.token_expires_at)),
            last_active_at: Some(time(view.last_active_at)),
            connected_at: Some(time(session.connected_at)),
            disconnected_at: session.ended.map(|ended| time(ended.at)),
            created_at: time(session.connected_at),
            agent_id: view.application_id,
            organization_id: view.organization_id,
            hostname: detail.hostname,
            user_agent: detail.user_agent,
            client_info: detail.client_info.and_then(|text| serde_json::from_str(&text).ok()),
            disconnect_reason: session.ended.map(|ended| ended.reason.word()),
            activity: Activity {
                requests: session.total.requests,
                bytes_in: session.total.bytes_in,
                bytes_out: session.total.bytes_out,
            },
        }
    }
}

/// One session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SessionEnvelope {
    pub session: Session,
}

/// A page of sessions, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionList {
    pub items: Vec<Session>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListParameters {
    limit: Option<String>,
    status: Option<String>,
    include_inactive: Option<String>,
    cursor: Option<String>,
    application_id: Option<String>,
}

impl ListParameters {
    /// An explicit `status` wins over `includeInactive`; absent means active.
    fn read(&self, default_limit: u32) -> Result<ListQuery, Problem> {
        let include_inactive = read_flag("includeInactive", self.include_inactive.as_deref())?;
        let (live, inactive) = match self.status.as_deref() {
            None => (true, include_inactive),
            Some("active") => (true, false),
            Some("inactive") => (false, true),
            Some("all") => (true, true),
            Some(_) => return Err(Problem::invalid("status", "status must be active, inactive or all")),
        };
        let limit = read_limit(self.limit.as_deref(), default_limit)?;
        Ok(ListQuery { live, inactive, limit, after: read_cursor(self.cursor.as_deref())? })
    }
}

/// The log position an answer was true at, so that list-then-follow has no gap.
static LOG_POSITION: HeaderName = HeaderName::from_static("log-position");

fn listed(page: Page) -> Response {
    let position = HeaderValue::from(page.position.0);
    let next_cursor = page.next.map(cursor);
    let items = page.items.into_iter().map(Session::from).collect();
    ([(LOG_POSITION.clone(), position)], Json(SessionList { items, next_cursor })).into_response()
}

/// List sessions
///
/// Newest first, ties by id. The answer's `Log-Position` header is the position to follow the events from.
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions", operation_id = "agentSessions.list",
    tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        ("limit" = Option<u32>, Query, description = "Most sessions to return, 1 to 200.", minimum = 1, maximum = 200, example = 100),
        ("status" = Option<String>, Query, description = "`active` (the default: active and idle ones), `inactive` (expired and disconnected) or `all`. Wins over `includeInactive`."),
        ("includeInactive" = Option<bool>, Query, description = "Without `status`: include expired and disconnected sessions."),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before."),
    ),
    responses(
        (status = 200, description = "A page of sessions.", body = SessionList, headers(("Log-Position" = i64, description = "The log position the page was true at."))),
        (status = 400, description = "A parameter is wrong.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such application.", body = ProblemBody),
    ))]
pub async fn list(
    CanRead(caller): CanRead,
    Ids(ids): Ids<1>,
    Query(parameters): Query<ListParameters>,
    app: axum::extract::State<App>,
) -> Result<Response, Problem> {
    let [application] = ids;
    let query = parameters.read(100)?;
    Ok(listed(app.sessions.list(&caller, application, query).await?))
}

/// Get a session
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}", operation_id = "agentSessions.get",
    tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application."), ("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session, live or ended.", body = SessionEnvelope),
        (status = 400, description = "An id is not a UUID.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such application, or no such session in it.", body = ProblemBody),
    ))]
pub async fn get(
    CanRead(caller): CanRead,
    Ids(ids): Ids<2>,
    app: axum::extract::State<App>,
) -> Result<Json<SessionEnvelope>, Problem> {
    let [application, session] = ids;
    let view = app.sessions.get(&caller, application, session).await?;
    Ok(Json(SessionEnvelope { session: view.into() }))
}

/// What an ending came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Always true on success.
    pub success: bool,
    /// How many sessions this call ended.
    pub disconnected_count: u64,
    /// The revocation, as the events it caused carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_id: Option<Uuid>,
}

impl From<Revoked> for Ended {
    fn from(revoked: Revoked) -> Self {
        Self { success: true, disconnected_count: revoked.disconnected, revocation_id: revoked.id }
    }
}

#[derive(Debug, Deserialize)]
pub struct RevokeParameters {
    reason: Option<String>,
}

/// Revoke all sessions
///
/// Ends every session of the application and bars the agent-side use of every token issued for it before. When this
/// answers, nothing of them is served any more.
#[utoipa::path(delete, path = "/api/v1/applications/{applicationId}/sessions", operation_id = "agentSessions.revokeAll",
    tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        ("reason" = Option<String>, Query, description = "The operator's own words, at most 200 characters.", max_length = 200),
    ),
    responses(
        (status = 200, description = "How many sessions this call ended.", body = Ended),
        (status = 400, description = "A parameter is wrong.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such application, or it is archived.", body = ProblemBody),
    ))]
pub async fn revoke_all(
    CanEnd(caller): CanEnd,
    Ids(ids): Ids<1>,
    Query(parameters): Query<RevokeParameters>,
    app: axum::extract::State<App>,
) -> Result<Json<Ended>, Problem> {
    let [application] = ids;
    let revoked = app.sessions.revoke_all(&caller, application, parameters.reason).await?;
    Ok(Json(revoked.into()))
}

/// Revoke a session
///
/// Ends the session and bars its token and the access token last presented with it.
#[utoipa::path(delete, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}", operation_id = "agentSessions.revoke",
    tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        ("sessionId" = Uuid, Path, description = "The session."),
        ("reason" = Option<String>, Query, description = "The operator's own words, at most 200 characters.", max_length = 200),
    ),
    responses(
        (status = 200, description = "One session ended, or none where it had ended before.", body = Ended),
        (status = 400, description = "An id or parameter is wrong.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such application, or no such session in it.", body = ProblemBody),
    ))]
pub async fn revoke(
    CanEnd(caller): CanEnd,
    Ids(ids): Ids<2>,
    Query(parameters): Query<RevokeParameters>,
    app: axum::extract::State<App>,
) -> Result<Json<Ended>, Problem> {
    let [application, session] = ids;
    let revoked = app.sessions.revoke_one(&caller, application, session, parameters.reason).await?;
    Ok(Json(revoked.into()))
}

/// Terminate a session
///
/// Ends the session with its own token, and leaves every other credential alone: the client may connect again.
#[utoipa::path(post, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}/terminate", operation_id = "agentSessions.terminate",
    tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application."), ("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "One session ended, or none where it had ended before.", body = Ended),
        (status = 400, description = "An id is not a UUID.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such application, or no such session in it.", body = ProblemBody),
    ))]
pub async fn terminate(
    CanEnd(caller): CanEnd,
    Ids(ids): Ids<2>,
    app: axum::extract::State<App>,
) -> Result<Json<Ended>, Problem> {
    let [application, session] = ids;
    let disconnected_count = app.sessions.terminate(&caller, application, session).await?;
    Ok(Json(Ended { success: true, disconnected_count, revocation_id: None }))
}

// ---- the write side ----

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
/// Opens a session, or attaches to the live one with the same `clientSessionId` (else `tokenIdentifier`): the same id, a
/// fresh token, the old token dead.
#[utoipa::path(post, path = "/api/v1/agent-sessions", operation_id = "agent.create", tag = "agent", security(("bearer" = [])),
    request_body(content = CreateSession, description = "What is known of the client."),
    responses(
        (status = 201, description = "A session was opened.", body = CreatedSession),
        (status = 200, description = "Attached to the live session with the same key.", body = CreatedSession),
        (status = 400, description = "A field is wrong.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented, or it was revoked: authenticate again.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such application, or it is archived.", body = ProblemBody),
        (status = 409, description = "A live session of another principal holds the key.", body = ProblemBody),
    ))]
pub async fn create(
    Agent(caller): Agent,
    app: axum::extract::State<App>,
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
        kind: Kind::Agent,
        application: body.application_id,
        client_session_id: body.client_session_id,
        token_identifier: body.token_identifier,
        authenticated_user: body.authenticated_user_id,
        name: body.name,
        hostname: body.hostname,
        user_agent: user_agent.map(|text| text.chars().take(512).collect()),
        client_info: body.client_info,
        ip: None,
        protocol_version: None,
    };
    let opened = app.sessions.connect(&caller, new).await?;
    let status = if opened.opened { StatusCode::CREATED } else { StatusCode::OK };
    let id = opened.session.id;
    let created = CreatedSession {
        session_id: id,
        id,
        name: opened.name,
        token: opened.token,
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
        (status = 400, description = "The id is not a UUID.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented; the reason says whether it expired or was revoked.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such session.", body = ProblemBody),
        (status = 410, description = "The session has ended; `reason` says why.", body = ProblemBody),
        (status = 503, description = "Too much is waiting; come back after `Retry-After` seconds.", body = ProblemBody),
    ))]
pub async fn heartbeat(
    Agent(caller): Agent,
    Ids(ids): Ids<1>,
    app: axum::extract::State<App>,
) -> Result<Json<Recorded>, Problem> {
    let [session] = ids;
    let session = app.sessions.record(&caller, session, ActivitySource::Heartbeat, Counts::default()).await?;
    Ok(recorded(session.last_active_at, session.token_expires_at))
}

/// Work to add to a session's figures.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReportedActivity {
    /// Requests since the last report.
    pub requests: u64,
    /// Bytes received since the last report.
    pub bytes_in: u64,
    /// Bytes sent since the last report.
    pub bytes_out: u64,
}

/// Report activity
///
/// A sign of life with what was done since the last one; durable when this answers.
#[utoipa::path(post, path = "/api/v1/agent-sessions/{sessionId}/activity", operation_id = "agent.activity", tag = "agent",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    request_body(content = Option<ReportedActivity>, description = "What was done; may be left out."),
    responses(
        (status = 200, description = "Recorded.", body = Recorded),
        (status = 400, description = "A field or the id is wrong.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented; the reason says whether it expired or was revoked.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such session.", body = ProblemBody),
        (status = 410, description = "The session has ended; `reason` says why.", body = ProblemBody),
        (status = 503, description = "Too much is waiting; come back after `Retry-After` seconds.", body = ProblemBody),
    ))]
pub async fn activity(
    Agent(caller): Agent,
    Ids(ids): Ids<1>,
    app: axum::extract::State<App>,
    Body(body): Body<ReportedActivity>,
) -> Result<Json<Recorded>, Problem> {
    let [session] = ids;
    let counts = Counts { requests: body.requests, bytes_in: body.bytes_in, bytes_out: body.bytes_out };
    let counts = Counts::default().plus(counts);
    let session = app.sessions.record(&caller, session, ActivitySource::Report, counts).await?;
    Ok(recorded(session.last_active_at, session.token_expires_at))
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
        (status = 200, description = "The new token.", body = Renewed),
        (status = 400, description = "The id is not a UUID.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented; the reason says whether it expired or was revoked.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such session.", body = ProblemBody),
        (status = 410, description = "The session has ended; `reason` says why.", body = ProblemBody),
    ))]
pub async fn renew(
    Agent(caller): Agent,
    Ids(ids): Ids<1>,
    app: axum::extract::State<App>,
) -> Result<Json<Renewed>, Problem> {
    let [session] = ids;
    let (session, token) = app.sessions.renew(&caller, session).await?;
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
    #[schema(required = false)]
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
        (status = 400, description = "The id is not a UUID.", body = ProblemBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
        (status = 404, description = "No such session.", body = ProblemBody),
    ))]
pub async fn disconnect(
    AgentOrEnded(caller): AgentOrEnded,
    Ids(ids): Ids<1>,
    app: axum::extract::State<App>,
) -> Result<Json<Disconnected>, Problem> {
    let [session] = ids;
    let view = app.sessions.disconnect(&caller, session).await?;
    let ended = view.session.ended;
    Ok(Json(Disconnected {
        success: true,
        disconnected_at: ended.map(|ended| time(ended.at)),
        reason: ended.map(|ended| ended.reason.word()),
    }))
}

/// Get the policy
///
/// How long things last here, in seconds.
#[utoipa::path(get, path = "/api/v1/policy", operation_id = "policy.get", tag = "service", security(("bearer" = [])),
    responses(
        (status = 200, description = "The policy new sessions are opened under.", body = PolicyBody),
        (status = 401, description = "Nothing valid was presented.", body = ProblemBody),
        (status = 403, description = "A scope is missing.", body = ProblemBody),
    ))]
pub async fn policy(CanRead(_caller): CanRead, app: axum::extract::State<App>) -> Json<PolicyBody> {
    Json(app.sessions.policy().into())
}

/// How long things last, in seconds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Policy)]
pub struct PolicyBody {
    /// Without activity for this long a session reads as `idle`.
    pub idle_after: u32,
    /// Without a sign of life for this long a session is disconnected.
    pub stale_after: u32,
    /// The same for MCP sessions.
    pub mcp_stale_after: u32,
    /// Life of tokens issued here.
    pub token_lifetime: u32,
    /// A session ends this long after it connected, whatever happens.
    pub absolute_lifetime: u32,
}

impl From<Policy> for PolicyBody {
    fn from(policy: Policy) -> Self {
        Self {
            idle_after: policy.idle_after,
            stale_after: policy.stale_after,
            mcp_stale_after: policy.mcp_stale_after,
            token_lifetime: policy.token_lifetime,
            absolute_lifetime: policy.absolute_lifetime,
        }
    }
}

// ---- the older names ----

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
        ("status" = Option<String>, Query, description = "`active` (the default), `inactive` or `all`."),
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
    app: axum::extract::State<App>,
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
    let mut whole = Page { items: vec![], next: None, position: crate::core::ids::Position(0) };
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
    app: axum::extract::State<App>,
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
    app: axum::extract::State<App>,
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
    app: axum::extract::State<App>,
) -> Result<StatusCode, Problem> {
    let [application] = ids;
    app.sessions.revoke_all(&caller, application, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
