//! Principals: the people and clients behind sessions.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Organization, PAGE};
use crate::directory::{Person, PersonQuery};
use crate::http::extract::Query;
use crate::http::ids::{self, Id};
use crate::http::problem::Problem;
use crate::http::revocations::{CredentialsView, NodesView};
use crate::http::{App, page, time};

/// Somebody to whom sessions belong. Times are ISO 8601, UTC, in milliseconds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Principal)]
pub struct PrincipalView {
    #[schema(format = Uuid)]
    id: Uuid,
    /// Who vouches for it: an identity provider, an OAuth client that named it, `sessiond:users` for the users of API
    /// keys, or `sessiond` for a client itself.
    issuer: String,
    /// What the issuer calls it.
    #[schema(required = true)]
    subject: Option<String>,
    #[schema(required = true)]
    name: Option<String>,
    #[schema(required = true)]
    email: Option<String>,
    /// Since when nothing is opened or kept alive for it.
    #[schema(required = true, format = DateTime)]
    disabled_at: Option<String>,
    open_sessions: u64,
}

impl From<Person> for PrincipalView {
    fn from(person: Person) -> Self {
        let Person { id, issuer, subject, name, email, disabled_at, open_sessions } = person;
        Self { id, issuer, subject, name, email, disabled_at: disabled_at.map(time), open_sessions }
    }
}

/// A page of principals, in the order in which they were met.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrincipalList {
    items: Vec<PrincipalView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One principal.
#[derive(Serialize, ToSchema)]
pub struct PrincipalResponse {
    principal: PrincipalView,
}

/// What disabling came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disabled {
    /// Always true on success.
    success: bool,
    /// How many sessions it ended.
    disconnected_count: u64,
    /// The revocation, as the events it caused carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = Uuid)]
    revocation_id: Option<Uuid>,
    /// On how many nodes all this has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    nodes: Option<NodesView>,
    /// What was barred, what not, and who may come back for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    credentials: Option<CredentialsView>,
}

/// What the list of principals can be asked for.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct PrincipalQuery {
    /// How many to return at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
    /// Only those of this issuer.
    #[param(value_type = String, required = false)]
    issuer: Option<String>,
    /// Only those whom their issuer calls so.
    #[param(value_type = String, required = false)]
    subject: Option<String>,
    /// Only those with words in name or e-mail address that begin so; at most 4, and nothing beside.
    #[param(value_type = String, required = false)]
    q: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DisableParameters {
    reason: Option<String>,
    include_keys: Option<String>,
}

/// List principals
///
/// In the order in which they were met.
#[utoipa::path(
    get, path = "/api/v1/principals", operation_id = "principals.list", tag = "principals",
    security(("bearer" = [])),
    params(PrincipalQuery),
    responses((status = 200, description = "A page of principals.", body = PrincipalList)),
)]
pub async fn list_principals(
    Organization(caller): Organization,
    State(app): State<App>,
    Query(query): Query<PrincipalQuery>,
) -> Result<Json<PrincipalList>, Problem> {
    if query.q.is_some() && (query.issuer.is_some() || query.subject.is_some()) {
        return Err(Problem::invalid("q", "q goes with neither issuer nor subject"));
    }
    let query = PersonQuery {
        words: query.q,
        issuer: query.issuer,
        subject: query.subject,
        after: page::read_cursor(query.cursor.as_deref())?.map(|(_, id)| id),
        limit: page::read_limit(query.limit.as_deref(), PAGE)?,
    };
    let (people, more) = app.directory.principals.list(&caller, &query).await?;
    let last = people.last().filter(|_| more);
    let next_cursor = last.map(|person| page::cursor((Time::default(), person.id)));
    Ok(Json(PrincipalList { items: people.into_iter().map(PrincipalView::from).collect(), next_cursor }))
}

/// Get a principal
#[utoipa::path(
    get, path = "/api/v1/principals/{principalId}", operation_id = "principals.get", tag = "principals",
    security(("bearer" = [])),
    params(("principalId" = Uuid, Path, description = "The principal.")),
    responses(
        (status = 200, description = "The principal.", body = PrincipalResponse),
    ),
)]
pub async fn get_principal(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Principal>,
) -> Result<Json<PrincipalResponse>, Problem> {
    let person = app.directory.principals.find(&caller, id).await?;
    Ok(Json(PrincipalResponse { principal: person.into() }))
}

/// Disable a principal
///
/// Ends all its sessions and bars its credentials; when this answers, nothing of it is served any more, and nothing is
/// opened for it until it is enabled again. Its API keys open nothing while it is disabled, and open again when it is
/// enabled, unless `includeKeys` revokes them for good.
#[utoipa::path(
    post, path = "/api/v1/principals/{principalId}/disable", operation_id = "principals.disable", tag = "principals",
    security(("bearer" = [])),
    params(
        ("principalId" = Uuid, Path, description = "The principal."),
        ("reason" = Option<String>, Query, description = "The operator's own words, at most 200 characters.", max_length = 200),
        ("includeKeys" = Option<bool>, Query, description = "Revoke the API keys that act for it."),
    ),
    responses(
        (status = 200, description = "It is disabled; how many sessions that ended.", body = Disabled),
    ),
)]
pub async fn disable_principal(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Principal>,
    Query(parameters): Query<DisableParameters>,
) -> Result<Json<Disabled>, Problem> {
    let keys = page::read_flag("includeKeys", parameters.include_keys.as_deref())?;
    let revoked = app.sessions.revocations.disable_principal(&caller, id, keys, parameters.reason).await?;
    Ok(Json(Disabled {
        success: true,
        disconnected_count: revoked.disconnected,
        revocation_id: revoked.id,
        nodes: NodesView::of(&revoked),
        credentials: revoked.credentials.map(|barring| CredentialsView::of(barring, true)),
    }))
}

/// Enable a principal
///
/// It may connect again, with credentials from after it was disabled. Enabling twice is success.
#[utoipa::path(
    post, path = "/api/v1/principals/{principalId}/enable", operation_id = "principals.enable", tag = "principals",
    security(("bearer" = [])),
    params(("principalId" = Uuid, Path, description = "The principal.")),
    responses(
        (status = 200, description = "The principal.", body = PrincipalResponse),
    ),
)]
pub async fn enable_principal(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Principal>,
) -> Result<Json<PrincipalResponse>, Problem> {
    let person = app.directory.principals.enable(&caller, id).await?;
    Ok(Json(PrincipalResponse { principal: person.into() }))
}

/// What erasing came to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Erased {
    /// Always true on success.
    success: bool,
    /// How many sessions the principal has had, open ones included.
    sessions: u64,
}

/// Forget who a principal is
///
/// Erases its subject, name and e-mail address, and of each of its sessions the name, host name, user agent, client
/// metadata and address, and what the client itself called it (`clientSessionId`, `tokenIdentifier`). The principal's id,
/// and what happened when, stays; so does the name of a session within a media stream. Doing it again is success. What
/// sessions it opens later report is new.
#[utoipa::path(
    delete, path = "/api/v1/principals/{principalId}/personal", operation_id = "principals.erase", tag = "principals",
    security(("bearer" = [])),
    params(("principalId" = Uuid, Path, description = "The principal.")),
    responses(
        (status = 200, description = "It is forgotten.", body = Erased),
    ),
)]
pub async fn erase_principal(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Principal>,
) -> Result<Json<Erased>, Problem> {
    let sessions = app.directory.principals.erase(&caller, id).await?;
    Ok(Json(Erased { success: true, sessions }))
}
