//! Service accounts: what an organization's own programs authenticate as.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sessiond_core::service_account::ServiceAccount;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{DirectoryQuery, Organization, RotateSecret, next_cursor};
use crate::directory::WithSecret;
use crate::http::extract::{Body, Query, given};
use crate::http::ids::{self, Id};
use crate::http::problem::Problem;
use crate::http::words::ScopeWord;
use crate::http::{App, time};

/// A service account. Times are ISO 8601, UTC, in milliseconds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServiceAccount)]
pub struct ServiceAccountView {
    #[schema(format = Uuid)]
    id: Uuid,
    name: String,
    /// What it authenticates as.
    client_id: String,
    /// The most that its tokens may do.
    #[schema(value_type = Vec<ScopeWord>)]
    scopes: Vec<&'static str>,
    /// The application in which it creates sessions when it names none.
    #[schema(format = Uuid)]
    application_id: Option<Uuid>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    archived_at: Option<String>,
}

/// A page of service accounts, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountList {
    items: Vec<ServiceAccountView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One service account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountResponse {
    service_account: ServiceAccountView,
}

/// One service account with its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountWithSecret {
    service_account: ServiceAccountView,
    /// Shown this once.
    client_secret: String,
    credentials: ServiceAccountCredentials,
}

/// What a service account authenticates with, in one piece: the words that clients of Kontext's API read.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountCredentials {
    client_id: String,
    /// Shown this once.
    client_secret: String,
}

/// A new service account.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateServiceAccount {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// The most that its tokens may do; `management:all` if left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_items = 1, value_type = Option<Vec<ScopeWord>>)]
    scopes: Option<Vec<String>>,
    /// The application in which it creates sessions when it names none.
    application_id: Option<Uuid>,
}

impl ServiceAccountView {
    fn new(app: &App, account: &ServiceAccount) -> Self {
        Self {
            id: account.id,
            name: account.name.clone(),
            client_id: account.client_id.clone(),
            scopes: account.scopes.iter().map(|scope| scope.word()).collect(),
            application_id: app.directory.service_accounts.bound_application(account),
            created_at: time(account.created_at),
            archived_at: account.archived_at.map(time),
        }
    }
}

fn shown_with_secret(app: &App, made: WithSecret<ServiceAccount>) -> Json<ServiceAccountWithSecret> {
    let service_account = ServiceAccountView::new(app, &made.made);
    let (client_id, client_secret) = (made.made.client_id, made.secret.unwrap_or_default());
    let credentials = ServiceAccountCredentials { client_id, client_secret: client_secret.clone() };
    Json(ServiceAccountWithSecret { service_account, client_secret, credentials })
}

/// List service accounts, newest first
#[utoipa::path(
    get, path = "/api/v1/service-accounts", operation_id = "serviceAccounts.list", tag = "serviceAccounts",
    security(("bearer" = [])),
    params(DirectoryQuery),
    responses((status = 200, description = "A page of service accounts.", body = ServiceAccountList)),
)]
pub async fn list_service_accounts(
    Organization(caller): Organization,
    State(app): State<App>,
    Query(query): Query<DirectoryQuery>,
) -> Result<Json<ServiceAccountList>, Problem> {
    let (archived, slice) = query.read()?;
    let (found, more) = app.directory.service_accounts.list(&caller, archived, slice);
    let last = found.last().map(|account| (account.created_at, account.id));
    let items = found.iter().map(|account| ServiceAccountView::new(&app, account)).collect();
    Ok(Json(ServiceAccountList { items, next_cursor: next_cursor(last, more) }))
}

/// Create a service account
///
/// Its client secret is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/api/v1/service-accounts", operation_id = "serviceAccounts.create", tag = "serviceAccounts",
    security(("bearer" = [])),
    request_body = CreateServiceAccount,
    responses(
        (status = 201, description = "The service account, with its secret.", body = ServiceAccountWithSecret),
    ),
)]
pub async fn create_service_account(
    Organization(caller): Organization,
    State(app): State<App>,
    Body(body): Body<CreateServiceAccount>,
) -> Result<(StatusCode, Json<ServiceAccountWithSecret>), Problem> {
    let (scopes, application) = (body.scopes.as_deref(), body.application_id);
    let made = app.directory.service_accounts.create(&caller, &body.name, scopes, application).await?;
    Ok((StatusCode::CREATED, shown_with_secret(&app, made)))
}

/// Get a service account, archived or not
#[utoipa::path(
    get, path = "/api/v1/service-accounts/{serviceAccountId}", operation_id = "serviceAccounts.get",
    tag = "serviceAccounts",
    security(("bearer" = [])),
    params(("serviceAccountId" = Uuid, Path, description = "The service account.")),
    responses(
        (status = 200, description = "The service account.", body = ServiceAccountResponse),
    ),
)]
pub async fn get_service_account(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::ServiceAccount>,
) -> Result<Json<ServiceAccountResponse>, Problem> {
    let account = app.directory.service_accounts.find(&caller, id)?;
    Ok(Json(ServiceAccountResponse { service_account: ServiceAccountView::new(&app, &account) }))
}

/// Archive a service account
///
/// It gets no more tokens, and those it has open nothing. Archiving twice is success.
#[utoipa::path(
    delete, path = "/api/v1/service-accounts/{serviceAccountId}", operation_id = "serviceAccounts.archive",
    tag = "serviceAccounts",
    security(("bearer" = [])),
    params(("serviceAccountId" = Uuid, Path, description = "The service account.")),
    responses(
        (status = 204, description = "It is archived."),
    ),
)]
pub async fn archive_service_account(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::ServiceAccount>,
) -> Result<StatusCode, Problem> {
    app.directory.service_accounts.archive(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a service account a new client secret
///
/// The old one opens nothing from now on, or from `expireOldAt`; tokens issued before stay valid until they expire.
#[utoipa::path(
    post, path = "/api/v1/service-accounts/{serviceAccountId}/rotate-secret",
    operation_id = "serviceAccounts.rotateSecret", tag = "serviceAccounts",
    security(("bearer" = [])),
    params(("serviceAccountId" = Uuid, Path, description = "The service account.")),
    request_body = RotateSecret,
    responses(
        (status = 200, description = "The service account, with its new secret.", body = ServiceAccountWithSecret),
    ),
)]
pub async fn rotate_service_account_secret(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::ServiceAccount>,
    Body(body): Body<RotateSecret>,
) -> Result<Json<ServiceAccountWithSecret>, Problem> {
    let made = app.directory.service_accounts.rotate_secret(&caller, id, body.expire_old_at()?).await?;
    Ok(shown_with_secret(&app, made))
}
