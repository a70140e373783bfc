//! The families of surfaces that live under one roof, told apart by the path. Each has error bodies of its own: whatever
//! went wrong is said once, as a problem, and gets the shape of the family on its way out.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::IsProblem;

/// Whose clients a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `/api/v1`, `/oauth2`, `/mcp` and all else.
    Main,
    /// Media servers and their operators: `/v1`.
    Media,
    /// Portals and clusters: `/pro/session-manager/v1`.
    Workloads,
    /// People and agents at terminals: `/v1/sessions` and `/v1/machines`.
    Terminals,
}

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

/// What went wrong on the terminal surface.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TerminalError {
    /// Always false.
    pub success: bool,
    pub error: TerminalErrorBody,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TerminalErrorBody {
    /// A stable word: `VALIDATION_ERROR`, `UNAUTHORIZED`, `FORBIDDEN`, `NOT_FOUND`, `CONFLICT`, …
    pub code: String,
    pub message: String,
}

impl TerminalError {
    fn of(status: StatusCode, code: &str, message: String) -> Self {
        let (code, message) = match status {
            StatusCode::UNAUTHORIZED => ("UNAUTHORIZED".to_owned(), "Invalid or expired token".to_owned()),
            StatusCode::BAD_REQUEST => ("VALIDATION_ERROR".to_owned(), message),
            _ => (code.to_ascii_uppercase(), message),
        };
        Self { success: false, error: TerminalErrorBody { code, message } }
    }
}

impl Family {
    pub const ALL: [Self; 4] = [Self::Main, Self::Media, Self::Workloads, Self::Terminals];

    pub fn of(path: &str) -> Self {
        if under(path, "/v1/sessions") || under(path, "/v1/machines") {
            Self::Terminals
        } else if under(path, "/v1") {
            Self::Media
        } else if under(path, "/pro/session-manager/v1") {
            Self::Workloads
        } else {
            Self::Main
        }
    }

    /// Whether idempotency keys apply to what writes at a path.
    pub fn takes_keys(path: &str) -> bool {
        // Log lines are in another file, where no outcome of a request is kept.
        let lines = path.ends_with("/logs");
        path.starts_with("/api/v1/") || (Self::of(path) != Self::Main && !Self::is_signed(path) && !lines)
    }

    /// Whether requests to a path authenticate by a signature, and not as the rest of their family.
    pub fn is_signed(path: &str) -> bool {
        path.strip_prefix("/v1/hooks/ome/").is_some_and(|id| !id.is_empty() && !id.contains('/'))
    }

    /// What is said where there is nothing at a path, or nothing for a method.
    pub fn nothing_there(self) -> &'static str {
        match self {
            Self::Media => "Controller not found",
            _ => "Not found: there is nothing at this path",
        }
    }

    /// The name of its error bodies in the document.
    pub fn error_schema(self) -> &'static str {
        match self {
            Self::Main => "Problem",
            Self::Media => "MediaError",
            Self::Workloads => "WorkloadError",
            Self::Terminals => "TerminalError",
        }
    }

    /// What the names of components begin with that are its own.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Media => "Media",
            Self::Workloads => "Workload",
            Self::Terminals => "Terminal",
        }
    }

    /// The scheme by which its clients authenticate, as the document names it.
    pub fn security(self) -> &'static str {
        match self {
            Self::Main => "bearer",
            Self::Media => "accessToken",
            Self::Workloads => "apiKey",
            Self::Terminals => "terminalKey",
        }
    }

    /// An answer in the shape of the family.
    pub fn shaped(self, response: Response, request_id: &str) -> Response {
        let Some(IsProblem { code, message }) = response.extensions().get::<IsProblem>().cloned() else {
            return response;
        };
        let status = response.status();
        let body = match self {
            Self::Main => return response,
            Self::Media => {
                let message = format!("[HTTP] {message} ({})", status.as_u16());
                Json(MediaError { message, response: None, status_code: status.as_u16() }).into_response()
            }
            Self::Terminals => Json(TerminalError::of(status, code, message)).into_response(),
            Self::Workloads => {
                let error_id = request_id.to_owned();
                Json(WorkloadError { error_code: status.as_u16(), error_id, message }).into_response()
            }
        };
        let (mut parts, _) = response.into_parts();
        parts.extensions.remove::<IsProblem>();
        parts.headers.remove(header::CONTENT_LENGTH);
        if self != Self::Terminals {
            parts.headers.remove(header::WWW_AUTHENTICATE);
        }
        if let (StatusCode::UNAUTHORIZED, Self::Media) = (status, self) {
            let challenge = HeaderValue::from_static("Basic realm=\"OvenMediaEngine\"");
            parts.headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let (StatusCode::UNAUTHORIZED, Self::Workloads) = (status, self) {
            // No scheme that is registered; but a refusal has to name one (RFC 9110, section 11.6.1).
            let challenge = HeaderValue::from_static("ApiKey realm=\"session-manager\", header=\"apiKey\"");
            parts.headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        let (own, body) = body.into_parts();
        parts.headers.extend(own.headers);
        Response::from_parts(parts, body)
    }
}

fn under(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
