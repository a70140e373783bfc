//! The workload surface's value, its routes, and what it adds to the document.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::document::documents;
use super::key::key_auth;
use super::*;
use crate::http::surface::{Authentication, Errors, Fault, MANY, PLAIN, Routes, Surface};

pub static WORKLOADS: Surface = Surface {
    prefixes: &["/pro/session-manager/v1"],
    name: "Workload",
    errors: Errors {
        schema: "WorkloadError",
        body: Some(error_body),
        // This is no registered scheme, but a 401 has to name one (RFC 9110, section 11.6.1).
        challenge: Some("ApiKey realm=\"session-manager\", header=\"apiKey\""),
        ..PLAIN.errors
    },
    authentication: Authentication::Admitted(key_auth),
    idempotency: true,
    ..PLAIN
};
/// The part for reports about many sessions at once.
static REPORTS: Surface = Surface { body_limit: MANY, ..WORKLOADS };
/// The part for log lines, which are in another file, where no outcome of a request is kept.
static LINES: Surface = Surface { idempotency: false, ..REPORTS };

/// The security scheme in the document by which clients authenticate.
pub const SCHEME: &str = "apiKey";

/// What went wrong on the workload surface.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadError {
    /// The same as the HTTP status.
    pub error_code: u16,
    /// Names this request; also in `x-request-id` and in the log.
    pub error_id: String,
    pub message: String,
}

fn error_body(fault: &Fault<'_>) -> Response {
    let (error_code, error_id) = (fault.status.as_u16(), fault.request_id.to_owned());
    Json(WorkloadError { error_code, error_id, message: fault.message.to_owned() }).into_response()
}

/// Schemas that only parameters refer to have to be named here, because utoipa does not find them.
#[derive(OpenApi)]
#[openapi(components(schemas(LogSort, WorkloadSort)))]
struct Parts;

pub fn surface() -> Routes {
    let routes = OpenApiRouter::with_openapi(Parts::openapi())
        .routes(routes!(list_webui_sessions, create_webui_session))
        .routes(routes!(list_task_sessions, create_task_session))
        .routes(routes!(get_webui_session, delete_webui_session))
        .routes(routes!(get_task_session, delete_task_session, change_task_state))
        .routes(routes!(terminate_webui_session))
        .routes(routes!(terminate_task_session))
        .routes(routes!(heartbeat_webui_session))
        .routes(routes!(heartbeat_task_session))
        .routes(routes!(end_webui_session))
        .routes(routes!(end_task_session))
        .routes(routes!(get_webui_logs))
        .routes(routes!(get_task_logs))
        .routes(routes!(download_webui_logs))
        .routes(routes!(download_task_logs));
    Routes::of(&WORKLOADS, routes)
        .with(&REPORTS, OpenApiRouter::new().routes(routes!(heartbeats)))
        .with(
            &LINES,
            OpenApiRouter::new()
                .routes(routes!(list_webui_logs, log_webui_session))
                .routes(routes!(list_task_logs, log_task_session)),
        )
        .with_later(&WORKLOADS, |_, all| documents(all))
        .describe(|document| {
            let key = "An API key with the scope `session` (`sak_…`).";
            let key = ApiKey::Header(ApiKeyValue::with_description("apiKey", key));
            let components = document.components.get_or_insert_default();
            components.add_security_scheme(SCHEME, SecurityScheme::ApiKey(key));
        })
}
