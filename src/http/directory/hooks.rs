//! Hooks: where media servers ask whether a viewer may come in.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sessiond_core::admission_hook::AdmissionHook;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Organization, PAGE, next_cursor};
use crate::directory::{NewAdmissionHook, Slice};
use crate::http::extract::{Body, Query, given};
use crate::http::filter::read_time;
use crate::http::ids::{self, Id};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::{App, page, time};

/// A hook. Times are ISO 8601, UTC, in milliseconds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Hook)]
pub struct HookView {
    #[schema(format = Uuid)]
    id: Uuid,
    name: String,
    /// What to put into `ControlServerUrl` of OvenMediaEngine's `AdmissionWebhooks`.
    url: String,
    /// The virtual host of the streams that it is asked about.
    vhost: String,
    /// Seconds after which sessions end; null: when their application's policy says.
    #[schema(required = true)]
    lifetime: Option<u32>,
    #[schema(format = DateTime)]
    created_at: String,
}

/// A page of hooks, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookList {
    items: Vec<HookView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One hook.
#[derive(Serialize, ToSchema)]
pub struct HookResponse {
    hook: HookView,
}

/// One hook with its secret.
#[derive(Serialize, ToSchema)]
pub struct HookWithSecret {
    hook: HookView,
    /// What to put into `SecretKey`. Shown this once.
    secret: String,
}

/// A new hook.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateHook {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// The virtual host of the streams that it is asked about.
    #[serde(default = "default_vhost")]
    #[schema(required = false, min_length = 1, max_length = 255, default = "default")]
    vhost: String,
    /// Seconds after which sessions end that come in by it, if that is before their application's policy says so.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, minimum = 1)]
    lifetime: Option<u32>,
    /// What the media server signs with: 16 to 256 visible ASCII characters; made up if it is left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 16, max_length = 256)]
    secret: Option<String>,
}

/// How a hook's secret is to be replaced.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateHookSecret {
    /// What the media server signs with: 16 to 256 visible ASCII characters; made up if it is left out.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_length = 16, max_length = 256)]
    secret: Option<String>,
    /// Until when the old secret is good beside the new one, at most 30 days; if it is left out, until now.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = DateTime)]
    expire_old_at: Option<String>,
}

fn default_vhost() -> String {
    "default".to_owned()
}

/// What the list of hooks can be asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HooksQuery {
    /// How many to return at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

impl HookView {
    fn new(app: &App, hook: AdmissionHook) -> Self {
        Self {
            id: hook.id,
            name: hook.name,
            url: format!("{}/v1/hooks/ome/{}", app.public_url, hook.id),
            vhost: hook.vhost,
            lifetime: hook.lifetime,
            created_at: time(hook.created_at),
        }
    }
}

/// List hooks, newest first
#[utoipa::path(
    get, path = "/api/v1/hooks", operation_id = "hooks.list", tag = "hooks", security(("bearer" = [])),
    params(HooksQuery),
    responses((status = 200, description = "A page of hooks.", body = HookList)),
)]
pub async fn list_hooks(
    Organization(caller): Organization,
    State(app): State<App>,
    Query(query): Query<HooksQuery>,
) -> Result<Json<HookList>, Problem> {
    let limit = page::read_limit(query.limit.as_deref(), PAGE)?;
    let after = page::read_cursor(query.cursor.as_deref())?;
    let (found, more) = app.directory.admission_hooks.list(&caller, Slice { after, limit });
    let next_cursor = next_cursor(found.last().map(|hook| (hook.created_at, hook.id)), more);
    let items = found.into_iter().map(|hook| HookView::new(&app, hook)).collect();
    Ok(Json(HookList { items, next_cursor }))
}

/// Create a hook
///
/// For the `AdmissionWebhooks` of an OvenMediaEngine: the answer's `url` is its `ControlServerUrl`, the `secret` its
/// `SecretKey`. Viewers that it asks for are sessions of the streams of one virtual host.
#[utoipa::path(
    post, path = "/api/v1/hooks", operation_id = "hooks.create", tag = "hooks", security(("bearer" = [])),
    request_body = CreateHook,
    responses(
        (status = 201, description = "The hook, with its secret.", body = HookWithSecret),
        (status = 409, description = "The organization has as many hooks as it may have.", body = ProblemBody),
    ),
)]
pub async fn create_hook(
    Organization(caller): Organization,
    State(app): State<App>,
    Body(body): Body<CreateHook>,
) -> Result<(StatusCode, Json<HookWithSecret>), Problem> {
    if body.lifetime == Some(0) {
        return Err(Problem::invalid(
            "lifetime",
            "lifetime must be at least 1 second; leave it out for none",
        ));
    }
    let CreateHook { name, vhost, lifetime, secret } = body;
    let new = NewAdmissionHook { name, vhost, lifetime, secret };
    let made = app.directory.admission_hooks.create(&caller, new).await?;
    let secret = made.secret.unwrap_or_default();
    Ok((StatusCode::CREATED, Json(HookWithSecret { hook: HookView::new(&app, made.made), secret })))
}

/// Get a hook
#[utoipa::path(
    get, path = "/api/v1/hooks/{hookId}", operation_id = "hooks.get", tag = "hooks", security(("bearer" = [])),
    params(("hookId" = Uuid, Path, description = "The hook.")),
    responses(
        (status = 200, description = "The hook.", body = HookResponse),
    ),
)]
pub async fn get_hook(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Hook>,
) -> Result<Json<HookResponse>, Problem> {
    let hook = app.directory.admission_hooks.find(&caller, id)?;
    Ok(Json(HookResponse { hook: HookView::new(&app, hook) }))
}

/// Delete a hook
///
/// It lets nobody in any more when this answers. Sessions that came in by it go on.
#[utoipa::path(
    delete, path = "/api/v1/hooks/{hookId}", operation_id = "hooks.delete", tag = "hooks", security(("bearer" = [])),
    params(("hookId" = Uuid, Path, description = "The hook.")),
    responses(
        (status = 204, description = "It is deleted."),
    ),
)]
pub async fn delete_hook(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Hook>,
) -> Result<StatusCode, Problem> {
    app.directory.admission_hooks.delete(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a hook another secret
///
/// Calls that are signed with the old one are refused from now on, or from `expireOldAt`.
#[utoipa::path(
    post, path = "/api/v1/hooks/{hookId}/rotate-secret", operation_id = "hooks.rotateSecret", tag = "hooks",
    security(("bearer" = [])),
    params(("hookId" = Uuid, Path, description = "The hook.")),
    request_body = RotateHookSecret,
    responses(
        (status = 200, description = "The hook, with its new secret.", body = HookWithSecret),
    ),
)]
pub async fn rotate_hook_secret(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Hook>,
    Body(body): Body<RotateHookSecret>,
) -> Result<Json<HookWithSecret>, Problem> {
    let expire_old_at = read_time("expireOldAt", body.expire_old_at.as_deref())?;
    let hooks = &app.directory.admission_hooks;
    let made = hooks.rotate_secret(&caller, id, body.secret.as_deref(), expire_old_at).await?;
    let secret = made.secret.unwrap_or_default();
    Ok(Json(HookWithSecret { hook: HookView::new(&app, made.made), secret }))
}
