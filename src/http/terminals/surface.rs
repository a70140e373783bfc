//! The terminal surface's value, its routes, and what it adds to the document.

use axum::Json;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use serde::Serialize;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::scope::Scope;
use utoipa::ToSchema;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, Ref, RefOr, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::*;
use crate::auth;
use crate::http::surface::{Authentication, Errors, Fault, LimitHeaders, PLAIN, Routes, Surface};
use crate::limits::Left;

static TERMINALS: Surface = Surface {
    prefixes: &["/v1/sessions", "/v1/machines"],
    name: "Terminal",
    errors: Errors { schema: "TerminalError", body: Some(error_body), ..PLAIN.errors },
    authentication: Authentication::Admitted(terminal_auth),
    idempotency: true,
    limit_headers: Some(LimitHeaders { documented: &LIMIT_HEADERS, set: set_limit_headers }),
    ..PLAIN
};

/// What went wrong on the terminal surface.
#[derive(Debug, Serialize, ToSchema)]
pub struct TerminalError {
    /// Always false.
    pub success: bool,
    pub error: TerminalErrorBody,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TerminalErrorBody {
    /// A stable word: `VALIDATION_ERROR`, `UNAUTHORIZED`, `FORBIDDEN`, `NOT_FOUND`, `CONFLICT`, …
    pub code: String,
    pub message: String,
}

fn error_body(fault: &Fault<'_>) -> Response {
    let said = fault.message.to_owned();
    let (code, message) = match fault.status {
        StatusCode::UNAUTHORIZED => ("UNAUTHORIZED".to_owned(), "Invalid or expired token".to_owned()),
        StatusCode::BAD_REQUEST => ("VALIDATION_ERROR".to_owned(), said),
        _ => (fault.code.to_ascii_uppercase(), said),
    };
    Json(TerminalError { success: false, error: TerminalErrorBody { code, message } }).into_response()
}

const LIMIT_HEADERS: [(&str, &str); 3] = [
    (
        "X-RateLimit-Limit",
        "Requests this credential may make in a second; on 401, failures that an address may have at once. Absent \
         where there is no limit.",
    ),
    ("X-RateLimit-Remaining", "How many of them are left."),
    ("X-RateLimit-Reset", "When all of them are there again; seconds since 1970."),
];

static LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Sets the headers that clients look for on every response: requests a second (on 401: failures of the address), how many
/// are left, and when all are there again, in seconds since 1970.
fn set_limit_headers(headers: &mut HeaderMap, left: Left, now: Time) {
    headers.insert(&LIMIT, left.rate.into());
    headers.insert(&REMAINING, left.remaining.into());
    headers.insert(&RESET, (now.timestamp() + i64::from(left.reset)).into());
}

/// The surface's check: a person, by a key with the scope `terminal`, or a program.
fn terminal_auth<'a>(app: &'a App, parts: &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>> {
    Box::pin(async {
        let token = auth::bearer(&parts.headers).ok_or_else(|| Problem::unauthorized(None))?;
        let caller = app.auth.presenting(parts, token).await?;
        match caller.scopes.has(Scope::Terminal) {
            true => Ok(caller),
            false => Err(Problem::forbidden(&[Scope::Terminal])),
        }
    })
}

/// Schemas that only parameters refer to have to be named here, because utoipa does not find them.
#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(LogFormat, PeriodWord, StatusWord)))]
struct Words;

pub fn surface() -> Routes {
    let routes = OpenApiRouter::with_openapi(<Words as utoipa::OpenApi>::openapi())
        .routes(routes!(list_machines, create_machine))
        .routes(routes!(get_machine, update_machine, delete_machine))
        .routes(routes!(test_machine))
        .routes(routes!(list_sessions, create_session))
        .routes(routes!(statistics))
        .routes(routes!(search_commands))
        .routes(routes!(get_session, terminate_session))
        .routes(routes!(create_viewer))
        .routes(routes!(session_logs))
        .routes(routes!(recording))
        .route("/v1/sessions/{sessionId}/ws", get(websocket));
    Routes::of(&TERMINALS, routes).describe(describe)
}

/// Has each envelope in the document refer to the schema of its content, which would otherwise be written out once more.
fn describe(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let mut key = Http::new(HttpAuthScheme::Bearer);
    key.description = Some("An API key with the scope `terminal` (`sak_…`).".into());
    components.add_security_scheme("terminalKey", SecurityScheme::Http(key));
    let names: Vec<String> = components.schemas.keys().cloned().collect();
    for (envelope, schema) in &mut components.schemas {
        let inner = envelope.strip_prefix("Success_").filter(|inner| names.iter().any(|name| name == inner));
        if let (Some(inner), RefOr::T(Schema::Object(object))) = (inner, schema) {
            object.properties.insert("data".into(), Ref::from_schema_name(inner).into());
            object.description = None;
        }
    }
}
