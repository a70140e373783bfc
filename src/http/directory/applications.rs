//! Applications: what is called agents elsewhere. Sessions belong to one.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{DirectoryQuery, Organization, PassHeaders, RotateSecret, UpstreamCredentialView, next_cursor};
use crate::directory::{NewApplication, WithSecret};
use crate::gate::Summary;
use crate::http::extract::{Body, CanManage, CanRead, Query, given};
use crate::http::ids::{self, Id};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::words::ScopeWord;
use crate::http::{App, time};

/// An application. Times are ISO 8601, UTC, in milliseconds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Application)]
pub struct ApplicationView {
    #[schema(format = Uuid)]
    id: Uuid,
    /// Unique among the organization's applications that are not archived.
    name: String,
    description: Option<String>,
    /// `app_` and the id: what it authenticates as.
    client_id: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(format = DateTime)]
    archived_at: Option<String>,
    /// The MCP server behind the application's gateway.
    upstream_url: Option<String>,
    /// How the gateway authenticates there; its secret is never shown.
    upstream_credential: Option<UpstreamCredentialView>,
    /// Headers that pass the gateway beside those that always do.
    upstream_headers: Option<PassHeaders>,
    sessions: ApplicationSessions,
}

/// How many sessions an application has, at the moment of asking.
#[derive(Serialize, ToSchema)]
pub struct ApplicationSessions {
    active: u64,
    idle: u64,
    /// Active and idle.
    live: u64,
    /// All there ever were, expired and disconnected ones included.
    total: u64,
}

/// How an application authenticates.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationOauth {
    r#type: ClientType,
    client_id: String,
    /// Shown this once; null for a public application.
    client_secret: Option<String>,
    pkce_required: bool,
    /// The most that its tokens may do.
    #[schema(value_type = Vec<ScopeWord>)]
    scopes: Vec<String>,
    /// Where people would sign in; what is there says that they cannot yet. Their tokens come from an issuer of theirs.
    authorization_url: String,
    token_url: String,
    /// Where its MCP clients connect.
    gateway_url: String,
    redirect_uris: Vec<String>,
    allowed_resources: Vec<String>,
}

/// Whether a client can keep a secret. Public ones are recorded, but can get no token here.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientType {
    Confidential,
    Public,
}

/// A page of applications, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationList {
    items: Vec<ApplicationView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One application.
#[derive(Serialize, ToSchema)]
pub struct ApplicationResponse {
    application: ApplicationView,
}

/// One application and how it authenticates, its secret included.
#[derive(Serialize, ToSchema)]
pub struct ApplicationWithOauth {
    application: ApplicationView,
    oauth: ApplicationOauth,
}

/// A new application.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApplication {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Left out: confidential, with the scope `mcp:invoke`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    oauth: Option<CreateOauth>,
}

/// How a new application is to authenticate.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateOauth {
    /// Confidential if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    r#type: Option<ClientType>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, default = true)]
    pkce_required: Option<bool>,
    /// The most that its tokens may do; `mcp:invoke` if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, value_type = Option<Vec<ScopeWord>>)]
    scopes: Option<Vec<String>>,
    #[serde(default)]
    allowed_resources: Vec<String>,
}

/// What to change; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateApplication {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Null or an empty text takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 1_000)]
    description: Option<Option<String>>,
}

/// Tells a field that is null from one that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl ApplicationView {
    fn new(application: Application, summary: Summary) -> Self {
        let live = summary.active + summary.idle;
        Self {
            id: application.id,
            name: application.name,
            description: application.description.filter(|text| !text.is_empty()),
            client_id: application.oauth.client_id,
            created_at: time(application.created_at),
            updated_at: time(application.updated_at),
            archived_at: application.archived_at.map(time),
            upstream_url: application.upstream,
            upstream_credential: application.upstream_credential.map(Into::into),
            upstream_headers: application.upstream_headers.map(Into::into),
            sessions: ApplicationSessions {
                active: summary.active,
                idle: summary.idle,
                live,
                total: summary.total,
            },
        }
    }
}

impl ApplicationOauth {
    fn new(app: &App, application: &Application, client_secret: Option<String>) -> Self {
        let (oauth, base) = (application.oauth.clone(), &app.public_url);
        Self {
            r#type: if oauth.r#type == "public" { ClientType::Public } else { ClientType::Confidential },
            client_id: oauth.client_id,
            client_secret,
            pkce_required: oauth.pkce_required,
            scopes: oauth.scopes,
            authorization_url: format!("{base}/oauth2/authorize"),
            token_url: format!("{base}/oauth2/token"),
            gateway_url: format!("{base}/mcp/{}", application.id),
            redirect_uris: oauth.redirect_uris,
            allowed_resources: oauth.allowed_resources,
        }
    }
}

pub(super) fn shown(app: &App, caller: &Caller, id: Uuid) -> Result<Json<ApplicationResponse>, Problem> {
    let (application, summary) = app.directory.applications.find(caller, id)?;
    Ok(Json(ApplicationResponse { application: ApplicationView::new(application, summary) }))
}

fn shown_with_secret(
    app: &App,
    caller: &Caller,
    made: WithSecret<Application>,
) -> Result<Json<ApplicationWithOauth>, Problem> {
    let oauth = ApplicationOauth::new(app, &made.made, made.secret);
    // As it was made: this may be a request's answer of before. Only the counts of sessions are those of now.
    let (_, summary) = app.directory.applications.find(caller, made.made.id)?;
    Ok(Json(ApplicationWithOauth { application: ApplicationView::new(made.made, summary), oauth }))
}

/// List applications, newest first
#[utoipa::path(
    get, path = "/api/v1/applications", operation_id = "applications.list", tag = "applications",
    security(("bearer" = [])),
    params(DirectoryQuery),
    responses((status = 200, description = "A page of applications.", body = ApplicationList)),
)]
pub async fn list_applications(
    CanRead(caller): CanRead,
    State(app): State<App>,
    Query(query): Query<DirectoryQuery>,
) -> Result<Json<ApplicationList>, Problem> {
    let (archived, slice) = query.read()?;
    let (found, more) = app.directory.applications.list(&caller, archived, slice);
    let last = found.last().map(|(application, _)| (application.created_at, application.id));
    let items =
        found.into_iter().map(|(application, summary)| ApplicationView::new(application, summary)).collect();
    Ok(Json(ApplicationList { items, next_cursor: next_cursor(last, more) }))
}

/// Create an application
///
/// Its client secret is in this answer and nowhere else. A public application is recorded, but can get no token here,
/// as people cannot sign in here yet: its users' tokens come from an issuer of theirs.
#[utoipa::path(
    post, path = "/api/v1/applications", operation_id = "applications.create", tag = "applications",
    security(("bearer" = [])),
    request_body = CreateApplication,
    responses(
        (status = 201, description = "The application, with its secret.", body = ApplicationWithOauth),
        (status = 409, description = "Another application has this name.", body = ProblemBody),
    ),
)]
pub async fn create_application(
    Organization(caller): Organization,
    State(app): State<App>,
    Body(body): Body<CreateApplication>,
) -> Result<(StatusCode, Json<ApplicationWithOauth>), Problem> {
    let oauth = body.oauth;
    let kind = oauth.as_ref().and_then(|oauth| oauth.r#type).map(|kind| match kind {
        ClientType::Confidential => "confidential".to_owned(),
        ClientType::Public => "public".to_owned(),
    });
    let new = match oauth {
        None => NewApplication { name: body.name, ..NewApplication::default() },
        Some(oauth) => {
            check_redirects(&oauth.redirect_uris)?;
            NewApplication {
                name: body.name,
                kind,
                redirect_uris: oauth.redirect_uris,
                pkce_required: oauth.pkce_required,
                scopes: oauth.scopes,
                allowed_resources: oauth.allowed_resources,
            }
        }
    };
    let made = app.directory.applications.create(&caller, new).await?;
    Ok((StatusCode::CREATED, shown_with_secret(&app, &caller, made)?))
}

/// RFC 6749 3.1.2: absolute, without a fragment.
fn check_redirects(uris: &[String]) -> Result<(), Problem> {
    let good = |uri: &String| url::Url::parse(uri).is_ok_and(|uri| uri.fragment().is_none());
    match uris.iter().find(|uri| !good(uri)) {
        None => Ok(()),
        Some(uri) => {
            let message =
                format!("oauth.redirectUris must be absolute URLs without a fragment; {uri:?} is not");
            Err(Problem::invalid("oauth.redirectUris", message))
        }
    }
}

/// Get an application, archived or not
#[utoipa::path(
    get, path = "/api/v1/applications/{applicationId}", operation_id = "applications.get", tag = "applications",
    security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application.")),
    responses(
        (status = 200, description = "The application.", body = ApplicationResponse),
    ),
)]
pub async fn get_application(
    CanRead(caller): CanRead,
    State(app): State<App>,
    Id(id, ..): Id<ids::Application>,
) -> Result<Json<ApplicationResponse>, Problem> {
    shown(&app, &caller, id)
}

/// Rename or describe an application
#[utoipa::path(
    patch, path = "/api/v1/applications/{applicationId}", operation_id = "applications.update", tag = "applications",
    security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application.")),
    request_body = UpdateApplication,
    responses(
        (status = 200, description = "The application as it is now.", body = ApplicationResponse),
        (status = 409, description = "Another application has this name.", body = ProblemBody),
    ),
)]
pub async fn update_application(
    CanManage(caller): CanManage,
    State(app): State<App>,
    Id(id, ..): Id<ids::Application>,
    Body(body): Body<UpdateApplication>,
) -> Result<Json<ApplicationResponse>, Problem> {
    let description = body.description.map(Option::unwrap_or_default);
    app.directory.applications.change(&caller, id, body.name, description).await?;
    shown(&app, &caller, id)
}

/// Archive an application and revoke all its sessions
///
/// Its sessions and their history stay readable. Its client gets no more tokens, and its name is free again.
#[utoipa::path(
    delete, path = "/api/v1/applications/{applicationId}", operation_id = "applications.archive", tag = "applications",
    security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application.")),
    responses(
        (status = 204, description = "It is archived; nothing of its sessions is under way any more."),
    ),
)]
pub async fn archive_application(
    CanManage(caller): CanManage,
    State(app): State<App>,
    Id(id, ..): Id<ids::Application>,
) -> Result<StatusCode, Problem> {
    app.sessions.revocations.archive(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give an application a new client secret
///
/// The old one opens nothing from now on, or from `expireOldAt`; tokens issued before stay valid until they expire or are
/// revoked.
#[utoipa::path(
    post, path = "/api/v1/applications/{applicationId}/rotate-secret", operation_id = "applications.rotateSecret",
    tag = "applications",
    security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application.")),
    request_body = RotateSecret,
    responses(
        (status = 200, description = "The application, with its new secret.", body = ApplicationWithOauth),
        (status = 409, description = "A public application has no secret.", body = ProblemBody),
    ),
)]
pub async fn rotate_application_secret(
    CanManage(caller): CanManage,
    State(app): State<App>,
    Id(id, ..): Id<ids::Application>,
    Body(body): Body<RotateSecret>,
) -> Result<Json<ApplicationWithOauth>, Problem> {
    let made = app.directory.applications.rotate_secret(&caller, id, body.expire_old_at()?).await?;
    shown_with_secret(&app, &caller, made)
}
