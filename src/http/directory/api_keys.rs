//! API keys: long-lived credentials of programs, for one surface or several, perhaps on behalf of a person.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sessiond_core::scope::Scopes;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Organization, PAGE, RotateSecret, next_cursor};
use crate::directory::{KeyView, NewKey, Slice, User};
use crate::http::extract::{Body, Query, given};
use crate::http::filter::read_time;
use crate::http::ids::{self, Id};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::words::ScopeWord;
use crate::http::{App, page, time};

/// An API key. Times are ISO 8601, UTC, in milliseconds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKey)]
pub struct ApiKeyView {
    #[schema(format = Uuid)]
    id: Uuid,
    name: String,
    /// What it opens.
    #[schema(value_type = Vec<ScopeWord>)]
    scopes: Vec<&'static str>,
    /// The person it acts for.
    #[schema(required = true)]
    user: Option<KeyUserView>,
    /// Null if it lives until it is revoked.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
    /// Written down once a minute.
    #[schema(required = true, format = DateTime)]
    last_used_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    /// Absent as long as it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    revoked_at: Option<String>,
}

/// The person a key acts for, as far as it was not erased.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ApiKeyUser)]
pub struct KeyUserView {
    /// The principal that its sessions belong to.
    #[schema(format = Uuid)]
    principal_id: Uuid,
    /// Empty if it was erased.
    id: String,
    #[schema(required = true)]
    name: Option<String>,
    #[schema(required = true)]
    email: Option<String>,
}

/// A page of API keys, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyList {
    items: Vec<ApiKeyView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One API key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyResponse {
    api_key: ApiKeyView,
}

/// One API key with its text.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyWithText {
    api_key: ApiKeyView,
    /// What to present; begins with `sak_` and is shown this once.
    key: String,
}

/// A new API key.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateApiKey {
    /// At most 200 characters, without the spaces around them.
    #[schema(min_length = 1)]
    name: String,
    /// What it opens: `media`, `session` and `terminal` for the surface of that name, `mcp:invoke` for agents, and the
    /// management scopes. None that its maker could not give.
    #[schema(min_items = 1, value_type = Vec<ScopeWord>)]
    scopes: Vec<String>,
    /// In the future. A key with the scope `session` lives at most a year, which is also what it gets if nothing is said;
    /// others live until they are revoked.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = DateTime)]
    expires_at: Option<String>,
    /// The person it acts for: its sessions are that person's.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    user: Option<ApiKeyUserBody>,
}

/// A person, as the organization names them.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ApiKeyUserInput)]
pub struct ApiKeyUserBody {
    /// Whatever tells them apart; the same id is the same person in every key.
    #[schema(min_length = 1, max_length = 320)]
    id: String,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 320)]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 1, max_length = 320)]
    email: Option<String>,
}

/// What the list of API keys can be asked for.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ApiKeyQuery {
    /// How many to return at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
    /// Whether to return revoked ones too.
    #[param(value_type = bool, required = false, default = false)]
    include_revoked: Option<String>,
}

impl From<KeyView> for ApiKeyView {
    fn from(view: KeyView) -> Self {
        let KeyView { key, last_used_at, user } = view;
        let shown = |(principal_id, user): (Uuid, User)| {
            let User { id, name, email } = user;
            KeyUserView { principal_id, id, name, email }
        };
        Self {
            id: key.id,
            name: key.name,
            scopes: Scopes::parse(&key.scopes).0.iter().map(|scope| scope.word()).collect(),
            user: user.map(shown),
            expires_at: key.expires_at.map(time),
            last_used_at: last_used_at.map(time),
            created_at: time(key.created_at),
            revoked_at: key.revoked_at.map(time),
        }
    }
}

/// List API keys
///
/// Newest first; revoked ones only with `includeRevoked`.
#[utoipa::path(
    get, path = "/api/v1/api-keys", operation_id = "apiKeys.list", tag = "apiKeys", security(("bearer" = [])),
    params(ApiKeyQuery),
    responses((status = 200, description = "A page of API keys.", body = ApiKeyList)),
)]
pub async fn list_api_keys(
    Organization(caller): Organization,
    State(app): State<App>,
    Query(query): Query<ApiKeyQuery>,
) -> Result<Json<ApiKeyList>, Problem> {
    let limit = page::read_limit(query.limit.as_deref(), PAGE)?;
    let after = page::read_cursor(query.cursor.as_deref())?;
    let revoked = page::read_flag("includeRevoked", query.include_revoked.as_deref())?;
    let (keys, more) = app.directory.api_keys.list(&caller, revoked, Slice { after, limit }).await?;
    let next_cursor = next_cursor(keys.last().map(|view| (view.key.created_at, view.key.id)), more);
    Ok(Json(ApiKeyList { items: keys.into_iter().map(ApiKeyView::from).collect(), next_cursor }))
}

/// Make an API key
///
/// A key opens the surfaces its scopes name and nothing else. Present it as `Authorization: Bearer sak_…` here, or as
/// the surface it is for wants it.
#[utoipa::path(
    post, path = "/api/v1/api-keys", operation_id = "apiKeys.create", tag = "apiKeys", security(("bearer" = [])),
    request_body = CreateApiKey,
    responses(
        (status = 201, description = "The key, with its text.", body = ApiKeyWithText),
        (status = 409, description = "The organization has as many API keys as it may have.", body = ProblemBody),
    ),
)]
pub async fn create_api_key(
    Organization(caller): Organization,
    State(app): State<App>,
    Body(body): Body<CreateApiKey>,
) -> Result<(StatusCode, Json<ApiKeyWithText>), Problem> {
    let user = body.user.map(|user| User { id: user.id, name: user.name, email: user.email });
    let expires_at = read_time("expiresAt", body.expires_at.as_deref())?;
    let new = NewKey { name: body.name, scopes: body.scopes, expires_at, user };
    let made = app.directory.api_keys.create(&caller, new).await?;
    let key = made.secret.unwrap_or_default();
    Ok((StatusCode::CREATED, Json(ApiKeyWithText { api_key: made.made.into(), key })))
}

/// Get an API key, revoked or not
#[utoipa::path(
    get, path = "/api/v1/api-keys/{apiKeyId}", operation_id = "apiKeys.get", tag = "apiKeys",
    security(("bearer" = [])),
    params(("apiKeyId" = Uuid, Path, description = "The API key.")),
    responses(
        (status = 200, description = "The API key.", body = ApiKeyResponse),
    ),
)]
pub async fn get_api_key(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::ApiKey>,
) -> Result<Json<ApiKeyResponse>, Problem> {
    let view = app.directory.api_keys.find(&caller, id).await?;
    Ok(Json(ApiKeyResponse { api_key: view.into() }))
}

/// Revoke an API key
///
/// It opens nothing any more when this answers. Sessions it opened go on by their own tokens. Revoking twice is success.
#[utoipa::path(
    delete, path = "/api/v1/api-keys/{apiKeyId}", operation_id = "apiKeys.revoke", tag = "apiKeys",
    security(("bearer" = [])),
    params(("apiKeyId" = Uuid, Path, description = "The API key.")),
    responses(
        (status = 204, description = "It is revoked."),
    ),
)]
pub async fn revoke_api_key(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::ApiKey>,
) -> Result<StatusCode, Problem> {
    app.directory.api_keys.revoke(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give an API key another secret
///
/// The old text opens nothing from now on, or from `expireOldAt`, and what it has open ends then. Sessions that it opened go
/// on by their own tokens.
#[utoipa::path(
    post, path = "/api/v1/api-keys/{apiKeyId}/rotate-secret", operation_id = "apiKeys.rotateSecret", tag = "apiKeys",
    security(("bearer" = [])),
    params(("apiKeyId" = Uuid, Path, description = "The API key.")),
    request_body = RotateSecret,
    responses(
        (status = 200, description = "The key, with its new text.", body = ApiKeyWithText),
    ),
)]
pub async fn rotate_api_key_secret(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::ApiKey>,
    Body(body): Body<RotateSecret>,
) -> Result<Json<ApiKeyWithText>, Problem> {
    let made = app.directory.api_keys.rotate_secret(&caller, id, body.expire_old_at()?).await?;
    Ok(Json(ApiKeyWithText { api_key: made.made.into(), key: made.secret.unwrap_or_default() }))
}
