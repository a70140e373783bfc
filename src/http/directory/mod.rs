//! Management: applications, and the service accounts of an organization's own programs.

mod api_keys;
mod applications;
mod deliveries;
mod hooks;
mod issuers;
mod nodes;
mod organizations;
mod policy;
mod principals;
mod retention;
mod service_accounts;
mod upstreams;
mod webhooks;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

pub use api_keys::*;
pub use applications::*;
pub use deliveries::*;
pub use hooks::*;
pub use issuers::*;
pub use nodes::*;
pub use organizations::*;
pub use policy::*;
pub use principals::*;
pub use retention::*;
pub use service_accounts::*;
pub use upstreams::*;
pub use webhooks::*;

use super::App;
use super::extract::{CanManage, given};
use super::filter::read_time;
use super::page;
use super::problem::Problem;
use crate::directory::Slice;
use sessiond_core::Time;
use sessiond_core::caller::Caller;

/// Items on a page that says nothing else.
const PAGE: u32 = 50;

/// May manage the whole organization: an application's own token manages nothing beside that application.
pub struct Organization(pub Caller);

impl FromRequestParts<App> for Organization {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let CanManage(caller) = CanManage::from_request_parts(parts, app).await?;
        if caller.manages_organization() {
            return Ok(Self(caller));
        }
        let message =
            "This token belongs to one application and manages nothing beside it; use a service account's";
        Err(Problem::new(StatusCode::FORBIDDEN, "confined_to_application", message))
    }
}

/// How a secret is to be replaced.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateSecret {
    /// Until when the old secret is good beside the new one, at most 30 days; if it is left out, until now.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = DateTime)]
    expire_old_at: Option<String>,
}

impl RotateSecret {
    fn expire_old_at(&self) -> Result<Option<Time>, Problem> {
        read_time("expireOldAt", self.expire_old_at.as_deref())
    }
}

/// What lists of the directory can be asked for.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct DirectoryQuery {
    /// How many to return at most.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
    /// Whether to return archived ones too.
    #[param(value_type = bool, required = false, default = false)]
    include_archived: Option<String>,
}

impl DirectoryQuery {
    /// Whether archived ones are wanted, and which page.
    fn read(&self) -> Result<(bool, Slice), Problem> {
        let limit = page::read_limit(self.limit.as_deref(), PAGE)?;
        let after = page::read_cursor(self.cursor.as_deref())?;
        let archived = page::read_flag("includeArchived", self.include_archived.as_deref())?;
        Ok((archived, Slice { after, limit }))
    }
}

/// The cursor of the page after one that ends with `last`, if there is one.
fn next_cursor(last: Option<(Time, Uuid)>, more: bool) -> Option<String> {
    last.filter(|_| more).map(page::cursor)
}
