//! Management: applications, and the service accounts of an organization's own programs.

mod api_keys;
mod applications;
mod deliveries;
mod hooks;
mod issuers;
mod organizations;
mod policy;
mod principals;
mod service_accounts;
mod upstreams;
mod webhooks;

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses};
use uuid::Uuid;

pub use api_keys::*;
pub use applications::*;
pub use deliveries::*;
pub use hooks::*;
pub use issuers::*;
pub use organizations::*;
pub use policy::*;
pub use principals::*;
pub use service_accounts::*;
pub use upstreams::*;
pub use webhooks::*;

use super::App;
use super::extract::CanManage;
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
        if caller.confined_to.is_none() {
            return Ok(Self(caller));
        }
        let message =
            "This token belongs to one application and manages nothing beside it; use a service account's";
        Err(Problem::new(StatusCode::FORBIDDEN, "confined_to_application", message))
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
    /// `nextCursor` of the page before.
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

/// How every operation that only reads may fail, for the document.
pub struct ReadFailures;

impl IntoResponses for ReadFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described(&[
            ("400", "An id is not a UUID, or a parameter or the body is wrong; `field` names it."),
            ("401", "No valid token."),
            (
                "403",
                "The token lacks the scope, or belongs to one application; `missingScopes` names any one that would do.",
            ),
        ])
    }
}

/// How every operation that writes may fail, for the document.
pub struct WriteFailures;

impl IntoResponses for WriteFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = ReadFailures::responses();
        responses.extend(described(&[
            ("503", "Busy or about to stop: try again after `Retry-After` seconds."),
            ("507", "The disk is full; nothing was written."),
        ]));
        responses
    }
}

fn described(failures: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response =
        |text: &str| ResponseBuilder::new().description(text).content("application/json", content()).build();
    failures.iter().map(|(status, text)| ((*status).to_owned(), response(text).into())).collect()
}
