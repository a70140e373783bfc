//! Deliveries of a webhook: how they stand, and sending one again.

use axum::Json;
use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sessiond_core::delivery::{Delivery, DeliveryStatus};
use sessiond_core::ids::Position;
use utoipa::{IntoParams, ToSchema};

use super::{Organization, PAGE};
use crate::http::elsewhere::of_deliverer;
use crate::http::extract::Query;
use crate::http::ids::{self, Id};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::words::DeliveryWord;
use crate::http::{App, page, time};

/// One event on its way to a webhook.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub struct DeliveryView {
    /// The event's position in the log.
    position: i64,
    /// The `webhook-id` it is sent with, each time: the event's position, and the beginning of its hash.
    id: String,
    #[schema(value_type = DeliveryWord)]
    status: &'static str,
    attempts: u32,
    /// When it is tried next; null when it is over.
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    #[schema(format = DateTime)]
    delivered_at: Option<String>,
    /// When it was given up.
    #[schema(format = DateTime)]
    failed_at: Option<String>,
    /// HTTP status of the last answer.
    last_status: Option<u16>,
    /// Why the last attempt failed.
    last_error: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A page of deliveries, newest event first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryList {
    items: Vec<DeliveryView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One delivery.
#[derive(Serialize, ToSchema)]
pub struct DeliveryResponse {
    delivery: DeliveryView,
}

/// What the list of deliveries can be asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeliveriesQuery {
    /// Only those that stand like this.
    #[param(value_type = DeliveryWord, required = false)]
    status: Option<String>,
    /// How many to return at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

impl DeliveryView {
    async fn of(app: &App, delivery: &Delivery) -> Result<Self, Problem> {
        Ok(Self {
            position: delivery.position.0,
            id: app.outbox.id_of(delivery.position).await?.unwrap_or_default(),
            status: delivery.delivery_status().word(),
            attempts: delivery.attempts,
            next_attempt_at: delivery.next_at.map(time),
            delivered_at: delivery.delivered_at.map(time),
            failed_at: delivery.failed_at.map(time),
            last_status: delivery.status,
            last_error: delivery.error.clone(),
            created_at: time(delivery.created_at),
            updated_at: time(delivery.updated_at),
        })
    }
}

/// List a webhook's deliveries, newest event first
///
/// Those that were delivered are kept for 7 days, those that were given up for 30.
#[utoipa::path(
    get, path = "/api/v1/webhooks/{webhookId}/deliveries", operation_id = "webhooks.deliveries", tag = "webhooks",
    security(("bearer" = [])),
    params(("webhookId" = Uuid, Path, description = "The webhook."), DeliveriesQuery),
    responses(
        (status = 200, description = "A page of deliveries.", body = DeliveryList),
    ),
)]
pub async fn list_deliveries(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Webhook>,
    Query(query): Query<DeliveriesQuery>,
) -> Result<Json<DeliveryList>, Problem> {
    let limit = page::read_limit(query.limit.as_deref(), PAGE)?;
    let before = page::read_position_cursor(query.cursor.as_deref())?;
    let status = match query.status.as_deref() {
        None => None,
        Some(word) => Some(DeliveryStatus::from_word(word).ok_or_else(|| {
            Problem::invalid("status", "status must be pending, delivered or failed".to_owned())
        })?),
    };
    let webhook = app.directory.webhooks.find(&caller, id)?;
    let (found, more) = app.directory.webhooks.deliveries(&webhook, status, before, limit).await?;
    let last = found.last().filter(|_| more).map(|delivery| page::position_cursor(delivery.position));
    let mut items = Vec::with_capacity(found.len());
    for delivery in &found {
        items.push(DeliveryView::of(&app, delivery).await?);
    }
    Ok(Json(DeliveryList { items, next_cursor: last }))
}

/// Send a delivery again
///
/// With the same `webhook-id`, and as if it had never been tried.
#[utoipa::path(
    post, path = "/api/v1/webhooks/{webhookId}/deliveries/{position}/resend", operation_id = "webhooks.resend",
    tag = "webhooks",
    security(("bearer" = [])),
    params(
        ("webhookId" = Uuid, Path, description = "The webhook."),
        ("position" = i64, Path, description = "The event's position in the log."),
    ),
    responses(
        (status = 202, description = "The delivery; it is sent as soon as it is its turn.", body = DeliveryResponse),
        (status = 409, description = "The webhook is disabled.", body = ProblemBody),
    ),
)]
pub async fn resend_delivery(
    Organization(caller): Organization,
    State(app): State<App>,
    Id(id, ..): Id<ids::Webhook>,
    path: RawPathParams,
    mut parts: Parts,
) -> Result<Response, Problem> {
    let position = path.iter().find(|(name, _)| *name == "position").and_then(|(_, text)| text.parse().ok());
    let position =
        position.ok_or_else(|| Problem::invalid("position", "position must be a whole number".to_owned()))?;
    app.directory.webhooks.find(&caller, id)?;
    if let Some(response) = of_deliverer(&app, &caller, &mut parts).await? {
        return Ok(response);
    }
    let delivery = app.outbox.resend(id, Position(position)).await?;
    let delivery = DeliveryView::of(&app, &delivery).await?;
    Ok((StatusCode::ACCEPTED, Json(DeliveryResponse { delivery })).into_response())
}
