//! Reading, and ending by owners.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sessiond_core::barring::BarOptions;
use sessiond_core::caller::Caller;
use uuid::Uuid;

use super::{Session, SessionEnvelope, SessionList};
use crate::http::App;
use crate::http::bars::read_terms;
use crate::http::extract::{CanEnd, CanRead, Query};
use crate::http::figures::PolicyBody;
use crate::http::filter::FilterParameters;
use crate::http::ids::{self, Id};
use crate::http::list_parameters::{
    AsOfParameter, EndingParameters, LimitParameter, ListParameters, PAGE, PageParameters, StatusParameters,
    WordsParameter,
};
use crate::http::page::read_flag;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::revocations::{CredentialsView, NodesView, RevocationPreview, WouldBarView};
use crate::http::time;
use crate::http::words::EndingWord;
use crate::sessions::{Page, Revoked, SessionQuery, Sort, StatusCounts};

/// The log position an answer was true at, so that list-then-follow has no gap.
static LOG_POSITION: HeaderName = HeaderName::from_static("log-position");

pub(super) fn listed(page: Page, parameters: &ListParameters, sort: Sort, uri: &Uri) -> Response {
    let (next_cursor, mut headers) = parameters.next(uri.path(), sort, &page);
    headers.insert(LOG_POSITION.clone(), HeaderValue::from(page.position.0));
    let items = page.items.into_iter().map(Session::from).collect();
    let exact_since = page.exact_since.map(time);
    (headers, Json(SessionList { items, next_cursor, exact_since })).into_response()
}

/// List sessions
///
/// Newest first unless `sort` says otherwise, ties by id. The answer's `Log-Position` header is the position to follow
/// the events from; `Link` leads to the next page.
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions", operation_id = "agentSessions.list",
    tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application."), StatusParameters, FilterParameters, WordsParameter, AsOfParameter, LimitParameter, PageParameters),
    responses(
        (status = 200, description = "A page of sessions.", body = SessionList, headers(
            ("Log-Position" = i64, description = "The log position that this was true at."),
            ("Link" = String, description = "The next page, if there is one (RFC 8288)."),
        )),
    ))]
pub async fn list(
    CanRead(caller): CanRead,
    Id(application, ..): Id<ids::Application>,
    OriginalUri(uri): OriginalUri,
    Query(parameters): Query<ListParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let query = parameters.read(Some(application), PAGE)?;
    Ok(listed(app.sessions.queries.list(&caller, &query).await?, &parameters, query.sort, &uri))
}

/// List the organization's sessions
///
/// As listing an application's, over all applications.
#[utoipa::path(get, path = "/api/v1/sessions", operation_id = "sessions.list", tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Option<Uuid>, Query, description = "Only this application's."),
        StatusParameters, FilterParameters, WordsParameter, AsOfParameter, LimitParameter, PageParameters,
    ),
    responses(
        (status = 200, description = "A page of sessions.", body = SessionList, headers(
            ("Log-Position" = i64, description = "The log position that this was true at."),
            ("Link" = String, description = "The next page, if there is one (RFC 8288)."),
        )),
    ))]
pub async fn list_all(
    CanRead(caller): CanRead,
    OriginalUri(uri): OriginalUri,
    Query(parameters): Query<ListParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let query = parameters.read(parameters.application()?, PAGE)?;
    Ok(listed(app.sessions.queries.list(&caller, &query).await?, &parameters, query.sort, &uri))
}

/// How many sessions there are, by derived status at the moment of asking or the one asked about.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionCount {
    pub counts: StatusCount,
    /// Active and idle ones.
    pub live: u64,
    pub total: u64,
    /// With `asOf`, where something was let go since: from when on it is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub exact_since: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct StatusCount {
    pub active: u64,
    pub idle: u64,
    pub expired: u64,
    pub disconnected: u64,
}

fn counted(counts: StatusCounts) -> Response {
    let StatusCounts { active, idle, expired, disconnected, position, exact_since } = counts;
    let body = SessionCount {
        counts: StatusCount { active, idle, expired, disconnected },
        live: active + idle,
        total: active + idle + expired + disconnected,
        exact_since: exact_since.map(time),
    };
    ([(LOG_POSITION.clone(), HeaderValue::from(position.0))], Json(body)).into_response()
}

async fn count_of(
    app: &App,
    caller: &Caller,
    query: &SessionQuery,
    parameters: &ListParameters,
) -> Result<Response, Problem> {
    let (queries, as_of) = (&app.sessions.queries, parameters.as_of()?);
    Ok(counted(match parameters.words()? {
        Some(words) => queries.count_found(caller, query, &words, as_of).await?,
        None => queries.count(caller, query, as_of).await?,
    }))
}

/// Count sessions
///
/// By derived status, of all sessions that fit; without `status`, of every status.
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions/count", operation_id = "agentSessions.count",
    tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application."), StatusParameters, FilterParameters, WordsParameter, AsOfParameter),
    responses(
        (status = 200, description = "How many there are.", body = SessionCount, headers(("Log-Position" = i64, description = "The log position that this was true at."))),
    ))]
pub async fn count(
    CanRead(caller): CanRead,
    Id(application, ..): Id<ids::Application>,
    Query(parameters): Query<ListParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let query = parameters.to_count(Some(application))?;
    count_of(&app, &caller, &query, &parameters).await
}

/// Count the organization's sessions
///
/// As counting an application's, over all applications.
#[utoipa::path(get, path = "/api/v1/sessions/count", operation_id = "sessions.count", tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Option<Uuid>, Query, description = "Only this application's."), StatusParameters, FilterParameters, WordsParameter, AsOfParameter),
    responses(
        (status = 200, description = "How many there are.", body = SessionCount, headers(("Log-Position" = i64, description = "The log position that this was true at."))),
    ))]
pub async fn count_all(
    CanRead(caller): CanRead,
    Query(parameters): Query<ListParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let query = parameters.to_count(parameters.application()?)?;
    count_of(&app, &caller, &query, &parameters).await
}

/// Get a session
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}", operation_id = "agentSessions.get",
    tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        ("sessionId" = Uuid, Path, description = "The session."),
        AsOfParameter,
    ),
    responses(
        (status = 200, description = "The session, live or ended.", body = SessionEnvelope),
    ))]
pub async fn get(
    CanRead(caller): CanRead,
    Id(application, ..): Id<ids::Application>,
    Id(session, ..): Id<ids::Session>,
    Query(parameters): Query<AsOfParameter>,
    State(app): State<App>,
) -> Result<Json<SessionEnvelope>, Problem> {
    let queries = &app.sessions.queries;
    Ok(Json(match parameters.read()? {
        Some(as_of) => {
            let (view, exact_since) = queries.get_as_of(&caller, application, session, as_of).await?;
            SessionEnvelope { session: view.into(), exact_since: exact_since.map(time) }
        }
        None => SessionEnvelope::of(queries.get(&caller, application, session).await?),
    }))
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
    /// Of a revocation: on how many nodes all this has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub nodes: Option<NodesView>,
    /// What a revocation barred, what not, and who may come back for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub credentials: Option<CredentialsView>,
}

/// What ending an application's sessions came to; of a dry run, what it would come to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedMany {
    /// Always true on success.
    pub success: bool,
    /// How many sessions this call ended; none in a dry run.
    pub disconnected_count: u64,
    /// The revocation, as the events it caused carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub revocation_id: Option<Uuid>,
    /// Of a revocation: on how many nodes all this has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub nodes: Option<NodesView>,
    /// What was barred, what not, and who may come back for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub credentials: Option<CredentialsView>,
    /// True of a dry run: nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dry_run: Option<bool>,
    /// Of a dry run: how many sessions it would end now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub matched: Option<u64>,
    /// Of a dry run: some of them, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sample: Option<Vec<Session>>,
    /// Of a dry run: whose credentials would be barred.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub would_bar: Option<WouldBarView>,
}

impl From<Ended> for EndedMany {
    fn from(ended: Ended) -> Self {
        Self {
            success: true,
            disconnected_count: ended.disconnected_count,
            revocation_id: ended.revocation_id,
            nodes: ended.nodes,
            credentials: ended.credentials,
            dry_run: None,
            matched: None,
            sample: None,
            would_bar: None,
        }
    }
}

impl From<RevocationPreview> for EndedMany {
    fn from(preview: RevocationPreview) -> Self {
        Self {
            success: true,
            disconnected_count: 0,
            revocation_id: None,
            nodes: None,
            credentials: Some(preview.credentials),
            dry_run: Some(true),
            matched: Some(preview.matched),
            sample: Some(preview.sample),
            would_bar: Some(preview.would_bar),
        }
    }
}

impl From<Revoked> for Ended {
    fn from(revoked: Revoked) -> Self {
        let credentials = revoked.credentials.map(|barring| CredentialsView::of(barring, false));
        Self {
            success: true,
            disconnected_count: revoked.disconnected,
            revocation_id: revoked.id,
            nodes: NodesView::of(&revoked),
            credentials,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokeParameters {
    bar: Option<String>,
    include_keys: Option<String>,
    until: Option<String>,
    message: Option<String>,
    reason: Option<String>,
}

/// Revoke all sessions
///
/// Ends every session of the application and bars the agent-side use of every token issued for it before. With a filter
/// it ends those sessions that fit, and bars no more than `bar` says. When this answers, nothing of them is served any
/// more. With `dryRun` nothing happens: the answer says how many it would be.
#[utoipa::path(delete, path = "/api/v1/applications/{applicationId}/sessions", operation_id = "agentSessions.revokeAll",
    tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        FilterParameters,
        ("status" = Option<EndingWord>, Query, description = "`active` (active and idle ones, as in lists), `idle`, `expired` or `inactive` (of which expired ones are open), `all`; all that are open if left out."),
        ("dryRun" = Option<bool>, Query, description = "Only tell what it would come to."),
        ("bar" = Option<bool>, Query, description = "Bar what was issued before to the principals and OAuth clients of the sessions that fit. Without a filter everything issued for the application before is barred anyway."),
        ("includeKeys" = Option<bool>, Query, description = "Revoke API keys too: those that act for these principals, and those that opened these sessions. Needs `management:all`."),
        ("until" = Option<String>, Query, format = DateTime, description = "With `bar` and a filter: keep the principals of the sessions that fit out until this instant (RFC 3339), whatever they present."),
        ("message" = Option<String>, Query, description = "What they read. Without `until` they are kept out until the bars are lifted.", max_length = 500),
        ("reason" = Option<String>, Query, description = "The operator's own words, at most 200 characters.", max_length = 200),
    ),
    responses(
        (status = 200, description = "How many sessions this call ended, and what it barred.", body = EndedMany),
        (status = 409, description = "It would bar more one by one than fits into one step (`too_many_to_bar`).", body = ProblemBody),
    ))]
pub async fn revoke_all(
    CanEnd(caller): CanEnd,
    Id(application, ..): Id<ids::Application>,
    Query(parameters): Query<EndingParameters>,
    State(app): State<App>,
) -> Result<Json<EndedMany>, Problem> {
    let query = parameters.read(application)?;
    let bar = BarOptions { matched: parameters.flag("bar")?, keys: parameters.flag("includeKeys")? };
    let terms = read_terms(parameters.text("until").as_deref(), parameters.text("message"))?;
    if parameters.flag("dryRun")? {
        let preview = app.sessions.revocations.preview(&caller, &query, bar, terms).await?;
        return Ok(Json(RevocationPreview::from(preview).into()));
    }
    let reason = parameters.text("reason");
    let revoked = app.sessions.revocations.revoke_matching(&caller, &query, bar, terms, reason).await?;
    Ok(Json(Ended::from(revoked).into()))
}

/// Revoke a session
///
/// Ends the session and bars its token and the access token last presented with it.
#[utoipa::path(delete, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}", operation_id = "agentSessions.revoke",
    tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        ("sessionId" = Uuid, Path, description = "The session."),
        ("bar" = Option<bool>, Query, description = "Bar what was issued before to its principal and to the OAuth client that opened it."),
        ("includeKeys" = Option<bool>, Query, description = "With `bar`: revoke API keys too, those that act for its principal and the one that opened it. Needs `management:all`."),
        ("until" = Option<String>, Query, format = DateTime, description = "With `bar`: keep its principal out until this instant (RFC 3339), whatever it presents."),
        ("message" = Option<String>, Query, description = "What it reads. Without `until` it is kept out until the bar is lifted.", max_length = 500),
        ("reason" = Option<String>, Query, description = "The operator's own words, at most 200 characters.", max_length = 200),
    ),
    responses(
        (status = 200, description = "One session ended, or none where it had ended before.", body = Ended),
    ))]
pub async fn revoke(
    CanEnd(caller): CanEnd,
    Id(application, ..): Id<ids::Application>,
    Id(session, ..): Id<ids::Session>,
    Query(parameters): Query<RevokeParameters>,
    State(app): State<App>,
) -> Result<Json<Ended>, Problem> {
    let bar = BarOptions {
        matched: read_flag("bar", parameters.bar.as_deref())?,
        keys: read_flag("includeKeys", parameters.include_keys.as_deref())?,
    };
    let terms = read_terms(parameters.until.as_deref(), parameters.message)?;
    let reason = parameters.reason;
    let revoked =
        app.sessions.revocations.revoke_one(&caller, application, session, bar, terms, reason).await?;
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
    ))]
pub async fn terminate(
    CanEnd(caller): CanEnd,
    Id(application, ..): Id<ids::Application>,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<Ended>, Problem> {
    let disconnected_count = app.sessions.lifecycle.terminate(&caller, application, session).await?;
    Ok(Json(Ended { success: true, disconnected_count, revocation_id: None, nodes: None, credentials: None }))
}

/// Suspend a session
///
/// From now on every request of the session is refused with `session_suspended`; nothing else about it changes, and it
/// does not go stale. What is under way goes on to its end.
#[utoipa::path(post, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}/suspend", operation_id = "agentSessions.suspend",
    tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application."), ("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session, suspended.", body = SessionEnvelope),
        (status = 410, description = "The session has ended; `reason` says why.", body = ProblemBody),
    ))]
pub async fn suspend(
    CanEnd(caller): CanEnd,
    Id(application, ..): Id<ids::Application>,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<SessionEnvelope>, Problem> {
    let view = app.sessions.lifecycle.suspend(&caller, application, session).await?;
    Ok(Json(SessionEnvelope::of(view)))
}

/// Resume a session
///
/// A suspended session may go on; its silence counts from now.
#[utoipa::path(post, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}/resume", operation_id = "agentSessions.resume",
    tag = "agentSessions", security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application."), ("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session.", body = SessionEnvelope),
        (status = 410, description = "The session has ended; `reason` says why.", body = ProblemBody),
    ))]
pub async fn resume(
    CanEnd(caller): CanEnd,
    Id(application, ..): Id<ids::Application>,
    Id(session, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<SessionEnvelope>, Problem> {
    let view = app.sessions.lifecycle.resume(&caller, application, session).await?;
    Ok(Json(SessionEnvelope::of(view)))
}

/// Get the policy
///
/// How long things last here, in seconds.
#[utoipa::path(get, path = "/api/v1/policy", operation_id = "policy.get", tag = "service", security(("bearer" = [])),
    responses(
        (status = 200, description = "The policy new sessions are opened under.", body = PolicyBody),
    ))]
pub async fn policy(CanRead(_caller): CanRead, State(app): State<App>) -> Json<PolicyBody> {
    Json(app.directory.applications.server_policy().into())
}
