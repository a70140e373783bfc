//! Webhooks: where events are delivered to.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use sessiond_core::webhook::{Because, Webhook, WebhookChanged};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Organization, PAGE, RotateSecret, next_cursor};
use crate::directory::{NewWebhook, Slice, WithSecret};
use crate::http::extract::{Body, Query, given};
use crate::http::ids::{self, Id};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::{App, page, time};

/// A webhook. Times are ISO 8601, UTC, in milliseconds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub struct WebhookView {
    #[schema(format = Uuid)]
    id: Uuid,
    url: String,
    /// Only what happens in this application is delivered; null: in the whole organization.
    #[schema(format = Uuid)]
    application_id: Option<Uuid>,
    /// Types of events that are delivered; empty: all but `activity_recorded`.
    types: Vec<String>,
    description: Option<String>,
    enabled: bool,
    /// Why it is disabled; null while it is enabled.
    disabled_because: Option<DisabledBecause>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// Why a webhook is disabled: its owner said so, the endpoint answered 410, or one delivery failed ten times.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisabledBecause {
    Owner,
    Gone,
    Failing,
}

/// A page of webhooks, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookList {
    items: Vec<WebhookView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One webhook.
#[derive(Serialize, ToSchema)]
pub struct WebhookResponse {
    webhook: WebhookView,
}

/// One webhook with its signing secret.
#[derive(Serialize, ToSchema)]
pub struct WebhookWithSecret {
    webhook: WebhookView,
    /// `whsec_` and base64. Shown this once.
    secret: String,
}

/// A new webhook.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateWebhook {
    /// Where to deliver to: `https://`, at a public address.
    #[schema(max_length = 2048)]
    url: String,
    /// Deliver only what happens in this application.
    application_id: Option<Uuid>,
    /// Types of events to deliver; empty or left out: all but `activity_recorded`.
    #[serde(default)]
    #[schema(nullable = false, required = false)]
    types: Vec<String>,
    #[schema(max_length = 1000)]
    description: Option<String>,
}

/// What is to change of a webhook; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateWebhook {
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 2048, nullable = false)]
    url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    types: Option<Vec<String>>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "there")]
    #[schema(value_type = Option<String>, max_length = 1000)]
    description: Option<Option<String>>,
    /// Disabled, nothing is sent; enabled again, what happened meanwhile is delivered too.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    enabled: Option<bool>,
}

/// Tells null from left out.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

/// What came of a test.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookTest {
    /// The `webhook-id` that was sent.
    id: String,
    /// Whether the answer was 2xx.
    delivered: bool,
    /// HTTP status of the answer; null if there was none.
    status: Option<u16>,
    latency_milliseconds: u64,
    /// Why it was not delivered.
    error: Option<String>,
}

/// What the list of webhooks can be asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WebhooksQuery {
    /// How many to return at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

impl WebhookView {
    fn new(app: &App, webhook: &Webhook) -> Self {
        Self {
            id: webhook.id,
            url: webhook.url.clone(),
            application_id: webhook.application.map(|number| app.directory.public_ids.application(number)),
            types: webhook.types.clone(),
            description: webhook.description.clone().filter(|text| !text.is_empty()),
            enabled: webhook.disabled.is_none(),
            disabled_because: webhook.disabled.map(|because| match because {
                Because::Owner => DisabledBecause::Owner,
                Because::Gone => DisabledBecause::Gone,
                Because::Failing => DisabledBecause::Failing,
            }),
            created_at: time(webhook.created_at),
            updated_at: time(webhook.updated_at),
        }
    }
}

fn with_secret(app: &App, made: WithSecret<Webhook>) -> Json<WebhookWithSecret> {
    let webhook = WebhookView::new(app, &made.made);
    Json(WebhookWithSecret { webhook, secret: made.secret.unwrap_or_default() })
}

/// List webhooks, newest first
#[utoipa::path(
    get, path = "/api/v1/webhooks", operation_id = "webhooks.list", tag = "webhooks",
    security(("bearer" = [])),
    params(WebhooksQuery),
    responses((status = 200, description = "A page of webhooks.", body = WebhookList)),
)]
pub async fn list_webhooks(
    Organization(caller): Organization,
    State(app): State<App>,
    Query(query): Query<WebhooksQuery>,
) -> Result<Json<WebhookList>, Problem> {
    let limit = page::read_limit(query.limit.as_deref(), PAGE)?;
    let after = page::read_cursor(query.cursor.as_deref())?;
    let (found, more) = app.directory.webhooks.list(&caller, Slice { after, limit });
    let last = found.last().map(|webhook| (webhook.created_at, webhook.id));
    let items = found.iter().map(|webhook| WebhookView::new(&app, webhook)).collect();
    Ok(Json(WebhookList { items, next_cursor: next_cursor(last, more) }))
}

/// Create a webhook
///
/// It gets what happens from now on, as CloudEvents 1.0 in JSON, signed by Standard Webhooks with the secret that is in
/// this answer and nowhere else.
#[utoipa::path(
    post, path = "/api/v1/webhooks", operation_id = "webhooks.create", tag = "webhooks",
    security(("bearer" = [])),
    request_body = CreateWebhook,
    responses(
        (status = 201, description = "The webhook, with its secret.", body = WebhookWithSecret),
        (status = 409, description = "The organization has as many webhooks as it may have.", body = ProblemBody),
    ),
)]
pub async fn create_webhook(
    Organization(caller): Organization,
    State(app): State<App>,
    Body(body): Body<CreateWebhook>,
) -> Result<(StatusCode, Json<WebhookWithSecret>), Problem> {
    let url = app.outbox.check_url(&body.url)?;
    let CreateWebhook { application_id: application, types, description, .. } = body;
    let new = NewWebhook { url, application, types, description };
    let made = app.directory.webhooks.create(&caller, new).await?;
    Ok((StatusCode::CREATED, with_secret(&app, made)))
}

/// Get a webhook
#[utoipa::path(
    get, path = "/api/v1/webhooks/{webhookId}", operation_id = "webhooks.get", tag = "webhooks",
    security(("bearer" = [])),
    params(("webhookId" = Uuid, Path, description = "The webhook.")),
    responses(
        (status = 200, description = "The webhook.", body = WebhookResponse),
    ),
)]
pub async fn get_webhook(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Webhook>,
) -> Result<Json<WebhookResponse>, Problem> {
    let webhook = app.directory.webhooks.find(&caller, id)?;
    Ok(Json(WebhookResponse { webhook: WebhookView::new(&app, &webhook) }))
}

/// Change, disable or enable a webhook
///
/// Enabled again, it goes on where it was: what waits is sent at once, and so is what happened while it was disabled.
#[utoipa::path(
    patch, path = "/api/v1/webhooks/{webhookId}", operation_id = "webhooks.update", tag = "webhooks",
    security(("bearer" = [])),
    params(("webhookId" = Uuid, Path, description = "The webhook.")),
    request_body = UpdateWebhook,
    responses(
        (status = 200, description = "The webhook as it is now.", body = WebhookResponse),
    ),
)]
pub async fn update_webhook(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Webhook>,
    Body(body): Body<UpdateWebhook>,
) -> Result<Json<WebhookResponse>, Problem> {
    let url = body.url.map(|url| app.outbox.check_url(&url)).transpose()?;
    let description = body.description.map(Option::unwrap_or_default);
    let changed = WebhookChanged { url, types: body.types, description };
    let webhook = app.directory.webhooks.change(&caller, id, changed, body.enabled).await?;
    Ok(Json(WebhookResponse { webhook: WebhookView::new(&app, &webhook) }))
}

/// Delete a webhook
///
/// Nothing more is sent, not even what waits.
#[utoipa::path(
    delete, path = "/api/v1/webhooks/{webhookId}", operation_id = "webhooks.delete", tag = "webhooks",
    security(("bearer" = [])),
    params(("webhookId" = Uuid, Path, description = "The webhook.")),
    responses(
        (status = 204, description = "It is deleted."),
    ),
)]
pub async fn delete_webhook(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Webhook>,
) -> Result<StatusCode, Problem> {
    app.directory.webhooks.delete(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a webhook a new signing secret
///
/// For 24 hours, or until `expireOldAt`, deliveries carry two signatures, the second with the secret before.
#[utoipa::path(
    post, path = "/api/v1/webhooks/{webhookId}/rotate-secret", operation_id = "webhooks.rotateSecret", tag = "webhooks",
    security(("bearer" = [])),
    params(("webhookId" = Uuid, Path, description = "The webhook.")),
    request_body = RotateSecret,
    responses(
        (status = 200, description = "The webhook, with its new secret.", body = WebhookWithSecret),
    ),
)]
pub async fn rotate_webhook_secret(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Webhook>,
    Body(body): Body<RotateSecret>,
) -> Result<Json<WebhookWithSecret>, Problem> {
    let made = app.directory.webhooks.rotate_secret(&caller, id, body.expire_old_at()?).await?;
    Ok(with_secret(&app, made))
}

/// Send a webhook a test
///
/// An event of type `dev.sessiond.webhook.test.v1`, once, also if the webhook is disabled; it is not in the log. Answers
/// 200 whatever the receiver says.
#[utoipa::path(
    post, path = "/api/v1/webhooks/{webhookId}/test", operation_id = "webhooks.test", tag = "webhooks",
    security(("bearer" = [])),
    params(("webhookId" = Uuid, Path, description = "The webhook.")),
    responses(
        (status = 200, description = "What came of it.", body = WebhookTest),
        (status = 409, description = "Another key file sealed its secret: rotate it.", body = ProblemBody),
    ),
)]
pub async fn test_webhook(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Webhook>,
) -> Result<Json<WebhookTest>, Problem> {
    let webhook = app.directory.webhooks.find(&caller, id)?;
    let tested = app.outbox.test(&webhook).await?;
    Ok(Json(WebhookTest {
        id: tested.id,
        delivered: tested.error.is_none(),
        status: tested.status,
        latency_milliseconds: u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX),
        error: tested.error,
    }))
}
