//! Bars: who is kept out, until when, and what they are told.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sessiond_core::bar::Bar;
use uuid::Uuid;

use super::extract::{Body, CanEnd, CanRead, Query, given};
use super::filter::{read_principal, read_time};
use super::ids::{self, Id};
use super::page::{self, PAGE, PagedParameters, read_flag, read_limit};
use super::problem::{Problem, ProblemBody};
use super::revocations::RevocationActor;
use super::{App, time};
use crate::sessions::{BarShown, BarTerms, Whom};
use crate::telling::PersonNamed;

/// Whom to keep out, and until when.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlaceBar {
    /// A principal by id, subject or e-mail address; this, or `clientId`.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    principal: Option<String>,
    /// An OAuth client, by its client id.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    client_id: Option<String>,
    /// When it ends (RFC 3339); without, it stands until it is lifted.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = DateTime)]
    until: Option<String>,
    /// What whoever is kept out reads.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 500)]
    message: Option<String>,
    /// For operators.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 200)]
    reason: Option<String>,
}

/// A bar.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Bar)]
pub struct BarView {
    id: Uuid,
    /// Whom it keeps out.
    principal: PersonNamed,
    /// The OAuth client or API key that this principal is, and that is kept out whomever it acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_id: Option<String>,
    status: BarStatus,
    #[schema(required = true, format = DateTime)]
    until: Option<String>,
    #[schema(required = true)]
    message: Option<String>,
    #[schema(required = true)]
    reason: Option<String>,
    /// Who placed it.
    actor: RevocationActor,
    #[schema(format = DateTime)]
    placed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    lifted_at: Option<String>,
    /// The revocation that ended what there was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    revocation_id: Option<Uuid>,
}

/// How a bar stands: it keeps somebody out, or is over, by the clock or because it was lifted.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BarStatus {
    Standing,
    Ended,
    Lifted,
}

/// One bar.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BarEnvelope {
    bar: BarView,
    /// Of one that was just placed: how many sessions that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    disconnected_count: Option<u64>,
}

impl BarEnvelope {
    fn of(shown: BarShown) -> Json<Self> {
        Json(Self { bar: shown.into(), disconnected_count: None })
    }
}

/// A page of bars, newest first.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BarList {
    items: Vec<BarView>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

impl From<BarShown> for BarView {
    fn from(shown: BarShown) -> Self {
        let BarShown { bar, stands, principal, client, actor, actor_name, revocation } = shown;
        let Bar { id, until, message, note, placed_at, lifted_at, .. } = bar;
        let status = match lifted_at {
            Some(_) => BarStatus::Lifted,
            None if stands => BarStatus::Standing,
            None => BarStatus::Ended,
        };
        Self {
            id,
            principal,
            client_id: client,
            status,
            until: until.map(time),
            message,
            reason: note,
            actor: RevocationActor { kind: actor.kind.word(), id: actor.id, name: actor_name },
            placed_at: time(placed_at),
            lifted_at: lifted_at.map(time),
            revocation_id: revocation,
        }
    }
}

/// The terms of bars, where a revocation is told to place any.
pub fn read_terms(until: Option<&str>, message: Option<String>) -> Result<Option<BarTerms>, Problem> {
    let until = read_time("until", until)?;
    Ok((until.is_some() || message.is_some()).then_some(BarTerms { until, message }))
}

impl PlaceBar {
    fn whom(&self) -> Result<Whom, Problem> {
        match (read_principal(self.principal.as_deref())?, &self.client_id) {
            ((Some(id), _), None) => Ok(Whom::Principal(id)),
            ((_, Some(called)), None) => Ok(Whom::Called(called)),
            ((None, None), Some(client_id)) => Ok(Whom::Client(client_id.clone())),
            _ => Err(Problem::invalid("principal", "say whom to bar: either principal or clientId")),
        }
    }
}

/// Place a bar
///
/// Keeps a principal out, whatever it presents, until the bar ends or is lifted; everything it has ends as by a revocation.
/// It is answered 403 `barred` with the message. An OAuth client is kept out of the agent side alone.
#[utoipa::path(post, path = "/api/v1/bars", operation_id = "bars.place", tag = "bars", security(("bearer" = [])),
    request_body(content = PlaceBar, description = "Whom, until when, and why."),
    responses(
        (status = 201, description = "It stands.", body = BarEnvelope, headers(("Location" = String, description = "Where it can be looked at."))),
        (status = 409, description = "There are as many as there may be.", body = ProblemBody),
    ))]
pub async fn place_bar(
    CanEnd(caller): CanEnd,
    State(app): State<App>,
    Body(body): Body<PlaceBar>,
) -> Result<Response, Problem> {
    let whom = body.whom()?;
    let terms = BarTerms { until: read_time("until", body.until.as_deref())?, message: body.message };
    let (bar, revoked) = app.sessions.bars.place(&caller, &whom, terms, body.reason).await?;
    let location = format!("/api/v1/bars/{}", bar.bar.id);
    let body = BarEnvelope { bar: bar.into(), disconnected_count: Some(revoked.disconnected) };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

/// Get a bar
#[utoipa::path(get, path = "/api/v1/bars/{barId}", operation_id = "bars.get", tag = "bars", security(("bearer" = [])),
    params(("barId" = Uuid, Path, description = "The bar.")),
    responses((status = 200, description = "The bar.", body = BarEnvelope)))]
pub async fn get_bar(
    CanRead(caller): CanRead,
    Id(id, ..): Id<ids::Bar>,
    State(app): State<App>,
) -> Result<Json<BarEnvelope>, Problem> {
    Ok(BarEnvelope::of(app.sessions.bars.find(&caller, id).await?))
}

/// Lift a bar
///
/// What was issued before stays put aside. Lifting twice is success.
#[utoipa::path(delete, path = "/api/v1/bars/{barId}", operation_id = "bars.lift", tag = "bars", security(("bearer" = [])),
    params(("barId" = Uuid, Path, description = "The bar.")),
    responses((status = 200, description = "The bar.", body = BarEnvelope)))]
pub async fn lift_bar(
    CanEnd(caller): CanEnd,
    Id(id, ..): Id<ids::Bar>,
    State(app): State<App>,
) -> Result<Json<BarEnvelope>, Problem> {
    Ok(BarEnvelope::of(app.sessions.bars.lift(&caller, id).await?))
}

#[derive(Debug, Deserialize)]
pub struct ListBars {
    standing: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// List bars
///
/// The organization's, newest first.
#[utoipa::path(get, path = "/api/v1/bars", operation_id = "bars.list", tag = "bars", security(("bearer" = [])),
    params(
        ("standing" = Option<bool>, Query, description = "Only those that keep somebody out now."),
        PagedParameters,
    ),
    responses(
        (status = 200, description = "A page of bars.", body = BarList, headers(("Link" = String, description = "The next page, if there is one (RFC 8288)."))),
    ))]
pub async fn list_bars(
    CanRead(caller): CanRead,
    OriginalUri(uri): OriginalUri,
    Query(list): Query<ListBars>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let standing = read_flag("standing", list.standing.as_deref())?;
    let after = page::read_cursor(list.cursor.as_deref())?.map(|(_, id)| id);
    let limit = read_limit(list.limit.as_deref(), PAGE)?;
    let (bars, more) = app.sessions.bars.list(&caller, standing, after, limit).await?;
    let last = bars.last().filter(|_| more);
    let next_cursor = last.map(|shown| page::cursor((shown.bar.placed_at, shown.bar.id)));
    let others = [("standing", standing.to_string()), ("limit", limit.to_string())];
    let headers = page::next_link(uri.path(), others, next_cursor.as_deref());
    let items = bars.into_iter().map(BarView::from).collect();
    Ok((headers, Json(BarList { items, next_cursor })).into_response())
}
