//! Organizations, for whoever runs the installation.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sessiond_core::organization::Organization;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{PAGE, next_cursor};
use crate::directory::Slice;
use crate::http::extract::{Body, Platform, Query};
use crate::http::ids::{self, Id};
use crate::http::problem::Problem;
use crate::http::{App, page, time};

/// An organization.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Organization)]
pub struct OrganizationView {
    #[schema(format = Uuid)]
    id: Uuid,
    name: String,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Organization> for OrganizationView {
    fn from(organization: Organization) -> Self {
        Self { id: organization.id, name: organization.name, created_at: time(organization.created_at) }
    }
}

/// A page of organizations, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrganizationList {
    items: Vec<OrganizationView>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One organization.
#[derive(Serialize, ToSchema)]
pub struct OrganizationResponse {
    organization: OrganizationView,
}

/// An organization that was just created, with what it starts with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundedOrganization {
    organization: OrganizationView,
    application: FirstApplication,
    service_account: FirstAccount,
}

/// The application that a new organization starts with.
#[derive(Serialize, ToSchema)]
pub struct FirstApplication {
    #[schema(format = Uuid)]
    id: Uuid,
    name: &'static str,
}

/// The service account that a new organization starts with; it may do everything in it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirstAccount {
    client_id: String,
    /// Shown this once.
    client_secret: String,
}

/// What an organization is called.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrganizationName {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
}

/// What the list of organizations can be asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OrganizationQuery {
    /// How many to return at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

/// List organizations, newest first
#[utoipa::path(
    get, path = "/api/v1/organizations", operation_id = "organizations.list", tag = "organizations",
    security(("bearer" = [])),
    params(OrganizationQuery),
    responses((status = 200, description = "A page of organizations.", body = OrganizationList)),
)]
pub async fn list_organizations(
    Platform(_caller): Platform,
    State(app): State<App>,
    Query(query): Query<OrganizationQuery>,
) -> Result<Json<OrganizationList>, Problem> {
    let limit = page::read_limit(query.limit.as_deref(), PAGE)?;
    let after = page::read_cursor(query.cursor.as_deref())?;
    let (organizations, more) = app.directory.organizations.list(Slice { after, limit });
    let next_cursor = next_cursor(organizations.last().map(|one| (one.created_at, one.id)), more);
    let items = organizations.into_iter().map(OrganizationView::from).collect();
    Ok(Json(OrganizationList { items, next_cursor }))
}

/// Found an organization
///
/// With an application `default` and a service account that may do everything in it. Whoever founds it sees nothing
/// inside it.
#[utoipa::path(
    post, path = "/api/v1/organizations", operation_id = "organizations.create", tag = "organizations",
    security(("bearer" = [])),
    request_body = OrganizationName,
    responses(
        (status = 201, description = "The organization, with its first credentials.", body = FoundedOrganization),
    ),
)]
pub async fn create_organization(
    Platform(caller): Platform,
    State(app): State<App>,
    Body(body): Body<OrganizationName>,
) -> Result<(StatusCode, Json<FoundedOrganization>), Problem> {
    let created = app.directory.organizations.create_for(&caller, &body.name).await?;
    let created = FoundedOrganization {
        organization: created.organization.into(),
        application: FirstApplication { id: created.application_id.unwrap_or_default(), name: "default" },
        service_account: FirstAccount { client_id: created.client_id, client_secret: created.client_secret },
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Get an organization
#[utoipa::path(
    get, path = "/api/v1/organizations/{organizationId}", operation_id = "organizations.get", tag = "organizations",
    security(("bearer" = [])),
    params(("organizationId" = Uuid, Path, description = "The organization.")),
    responses(
        (status = 200, description = "The organization.", body = OrganizationResponse),
    ),
)]
pub async fn get_organization(
    Platform(_caller): Platform,
    State(app): State<App>,
    Id(id, ..): Id<ids::Organization>,
) -> Result<Json<OrganizationResponse>, Problem> {
    let organization = app.directory.organizations.find(id)?;
    Ok(Json(OrganizationResponse { organization: organization.into() }))
}

/// Rename an organization
#[utoipa::path(
    patch, path = "/api/v1/organizations/{organizationId}", operation_id = "organizations.update", tag = "organizations",
    security(("bearer" = [])),
    params(("organizationId" = Uuid, Path, description = "The organization.")),
    request_body = OrganizationName,
    responses(
        (status = 200, description = "The organization.", body = OrganizationResponse),
    ),
)]
pub async fn update_organization(
    Platform(caller): Platform,
    State(app): State<App>,
    Id(id, ..): Id<ids::Organization>,
    Body(body): Body<OrganizationName>,
) -> Result<Json<OrganizationResponse>, Problem> {
    let organization = app.directory.organizations.rename(&caller, id, &body.name).await?;
    Ok(Json(OrganizationResponse { organization: organization.into() }))
}
