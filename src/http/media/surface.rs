//! The media surface's value, its routes, and what it adds to the document.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{HttpMethod, OpenApi, PathItem, RefOr, Required};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::surface::{Authentication, Errors, Fault, MANY, PLAIN, Routes, Surface};
use super::media_auth::media_auth;
use super::*;

pub static MEDIA: Surface = Surface {
    prefixes: &["/v1"],
    name: "Media",
    errors: Errors {
        schema: "MediaError",
        body: Some(error_body),
        challenge: Some("Basic realm=\"OvenMediaEngine\""),
        nothing_there: "Controller not found",
        hides_methods: true,
    },
    authentication: Authentication::First(media_auth),
    answers_options: true,
    idempotency: true,
    ..PLAIN
};
/// The part for reports about many sessions at once.
static REPORTS: Surface = Surface { body_limit: MANY, ..MEDIA };
/// The part for calls of hooks, which are signed. A hook repeats a call by itself, and gets the same reply.
static HOOKS: Surface = Surface { authentication: Authentication::Handlers, idempotency: false, ..MEDIA };

/// What went wrong on the media surface.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaError {
    /// `[HTTP] <what was wrong> (<status>)`; where a session is what was not found, `Not Found`.
    pub message: String,
    /// What was wrong, where `message` does not say it: that there is no such session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub response: Option<&'static str>,
    pub status_code: u16,
}

fn error_body(fault: &Fault<'_>) -> Response {
    let status_code = fault.status.as_u16();
    let message = format!("[HTTP] {} ({status_code})", fault.message);
    Json(MediaError { message, response: None, status_code }).into_response()
}

pub fn surface() -> Routes {
    let routes = OpenApiRouter::new()
        .routes(routes!(list_vhosts))
        .routes(routes!(list_apps))
        .routes(routes!(list_streams))
        .routes(routes!(declare_stream))
        .routes(routes!(report_session, terminate_session))
        .routes(routes!(throughput))
        .routes(routes!(stream_throughput))
        .routes(routes!(app_throughput))
        .routes(routes!(vhost_throughput))
        .routes(routes!(vhost_statistics))
        .routes(routes!(app_statistics))
        .routes(routes!(stream_statistics))
        .routes(routes!(session_statistics))
        .routes(routes!(current_throughput));
    Routes::of(&MEDIA, routes)
        .with(
            &REPORTS,
            OpenApiRouter::new()
                .routes(routes!(list_sessions, create_sessions))
                .routes(routes!(report_stream))
                .routes(routes!(report_app)),
        )
        .with(&HOOKS, OpenApiRouter::new().routes(routes!(call_hook)))
        .describe(describe)
}

/// Adds to the document what routes cannot say: actions stand behind a colon in the last segment of a path. And that the
/// body of a reported session may be left out.
fn describe(document: &mut OpenApi) {
    let sessions = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}/sessions";
    let session = format!("{sessions}/{{session}}");
    let paths = &mut document.paths.paths;
    if let Some(report) = paths.get_mut(&session).and_then(|item| item.post.take()) {
        paths.insert(format!("{session}:report"), PathItem::new(HttpMethod::Post, report));
    }
    let create = paths.get_mut(sessions).and_then(|item| item.post.as_mut());
    if let Some(RefOr::T(body)) = create.and_then(|create| create.request_body.as_mut()) {
        body.required = Some(Required::False);
    }
    let mut token = Http::new(HttpAuthScheme::Basic);
    token.description =
        Some("An API key with the scope `media` (`sak_…`), in base64 as it is: no user and no colon.".into());
    let signature = ApiKeyValue::with_description(
        "X-OME-Signature",
        "HMAC-SHA1 of the body with the hook's secret, in base64 for URLs without padding.",
    );
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("accessToken", SecurityScheme::Http(token));
    components.add_security_scheme("hookSignature", SecurityScheme::ApiKey(ApiKey::Header(signature)));
}
