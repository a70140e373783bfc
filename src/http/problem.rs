//! Errors as `/api/v1` shows them: RFC 9457 problem details that also carry `message` and `statusCode`, so that both kinds
//! of client read them. This is the one place where an [`Error`] becomes a status.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sessiond_core::Time;
use sessiond_core::reason::Reason;
use sessiond_core::scope::Scope;
use sessiond_core::session::Refusal;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::response::Response as Answer;
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, HeaderBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use uuid::Uuid;

use super::document::Surfaces;
use super::shared;
use super::surface::Surface;
use super::time;
use crate::auth::NothingGenuine;
use crate::error::Error;
use crate::meter;

/// The beginning of a problem's `type`: the page about problems, on the service that answers (RFC 9457, section 3.1.1).
const TYPES: &str = "/problems#";

/// The message for a client that presents nothing that is known, whether it was never known or no longer is.
const NOTHING_KNOWN: &str = "No credential that is good here was presented. Send Authorization: Bearer and an access token from \
     POST /oauth2/token, or an API key";

/// The media type of errors for clients that accept it.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error on its way to a client.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    /// A stable word for programs.
    pub code: &'static str,
    pub message: String,
    /// What was wrong and what to do, where `message` is a word that clients compare.
    pub detail: Option<Box<str>>,
    /// The field or parameter that was wrong.
    pub field: Option<Cow<'static, str>>,
    pub missing_scopes: Vec<&'static str>,
    /// On 401 and 403.
    pub challenge: Option<Challenge>,
    pub retry_after: Option<u32>,
    /// Why a session ended, where that is what is wrong.
    pub reason: Option<&'static str>,
    /// When a bar ends, where that is what stands against it.
    pub until: Option<Time>,
    /// Whether the client used something that was ended or revoked, which is counted.
    pub after_end: bool,
}

/// What `WWW-Authenticate: Bearer` says.
#[derive(Debug)]
pub enum Challenge {
    /// Nothing genuine was presented, and nothing more is said.
    Bare,
    /// A genuine token that is no good here opens nothing however often it is sent: it counts as a failure to authenticate.
    Unfit(&'static str),
    /// `error` and `error_description`.
    Because(&'static str, String),
}

/// The body of every error on `/api/v1`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Where it is said what `code` means: `/problems#<code>`.
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong and what to do, for people.
    pub detail: String,
    /// A stable word for programs.
    #[schema(value_type = String)]
    pub code: &'static str,
    /// A word that clients compare, or the same as `detail`.
    pub message: String,
    /// The same as `status`.
    pub status_code: u16,
    /// The field or parameter that was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub field: Option<Cow<'static, str>>,
    /// `insufficient_scope`, where a scope is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub error: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub missing_scopes: Vec<&'static str>,
    /// Why a session ended, where that is what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<&'static str>,
    /// When a bar ends, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub until: Option<String>,
}

/// Marks a response as a problem, so that its shape can follow the surface, and its media type the request's `Accept`.
#[derive(Clone)]
pub struct IsProblem {
    pub code: &'static str,
    pub message: String,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: None,
            field: None,
            missing_scopes: vec![],
            challenge: None,
            retry_after: None,
            reason: None,
            until: None,
            after_end: false,
        }
    }

    /// A request that is wrong in a named field.
    pub fn invalid(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", message) }
    }

    /// Nothing valid was presented.
    pub fn unauthorized(reason: Option<Refusal>) -> Self {
        let plain = |code, detail: String| Self {
            detail: Some(detail.into()),
            ..Self::new(StatusCode::UNAUTHORIZED, code, "Unauthorized")
        };
        let said = |code, description: String, todo: &str| Self {
            challenge: Some(Challenge::Because("invalid_token", description.clone())),
            ..plain(code, format!("{description}. {todo}"))
        };
        let ended = |reason: Reason| Self {
            reason: Some(reason.word()),
            after_end: true,
            ..said(
                "session_revoked",
                format!("session disconnected: {reason}"),
                "Open another session with a fresh credential; this token only reads how the session ended",
            )
        };
        match reason {
            None => {
                Self { challenge: Some(Challenge::Bare), ..plain("unauthorized", NOTHING_KNOWN.to_owned()) }
            }
            Some(Refusal::Ended(over)) => ended(over.reason),
            Some(Refusal::Revoked(reason)) => ended(reason),
            Some(Refusal::CredentialBarred) => Self {
                after_end: true,
                ..said(
                    "credential_revoked",
                    "the credential was revoked; authenticate again".to_owned(),
                    "Whatever was issued before that opens nothing here; what you get now does",
                )
            },
            Some(_) => said(
                "token_expired",
                "the token has expired".to_owned(),
                "Get another where you got this one; a session's token is renewed before it expires",
            ),
        }
    }

    /// A token for the gateway of an application alone.
    pub fn wrong_audience(application: Uuid) -> Self {
        let description = format!("the token is for the gateway /mcp/{application} alone");
        Self {
            challenge: Some(Challenge::Because("invalid_token", description.clone())),
            detail: Some(format!("{description}: ask for one without `resource` to use it here").into()),
            ..Self::new(StatusCode::UNAUTHORIZED, "wrong_audience", "Unauthorized")
        }
    }

    /// A scope is missing; any one of `scopes` would do.
    pub fn forbidden(scopes: &[Scope]) -> Self {
        let missing_scopes: Vec<_> = scopes.iter().map(|scope| scope.word()).collect();
        let message = format!("Insufficient scope: this needs {}", missing_scopes.join(" or "));
        Self {
            challenge: Some(Challenge::Because("insufficient_scope", message.clone())),
            missing_scopes,
            ..Self::new(StatusCode::FORBIDDEN, "insufficient_scope", message)
        }
    }

    /// The value of `WWW-Authenticate`.
    fn challenge(&self) -> Option<HeaderValue> {
        let (error, description) = match self.challenge.as_ref()? {
            Challenge::Bare => return Some(HeaderValue::from_static("Bearer")),
            Challenge::Unfit(why) => ("invalid_token", *why),
            Challenge::Because(error, description) => (*error, description.as_str()),
        };
        let scope = match self.missing_scopes.as_slice() {
            [] => String::new(),
            scopes => format!(", scope=\"{}\"", scopes.join(" ")),
        };
        let value = format!("Bearer error=\"{error}\", error_description=\"{description}\"{scope}");
        HeaderValue::try_from(value).ok()
    }
}

/// The responses that any operation with authentication may give. The document has all of them together as the `default` of
/// their surface.
const ANYWHERE: [(u16, &str); 12] = [
    (400, "something is wrong or unknown"),
    (401, "authenticate again"),
    (403, "a right is missing"),
    (404, "not there, or not within reach"),
    (408, "the body was too slow"),
    (409, "this `Idempotency-Key` is under way"),
    (413, "the body is larger than 64 KiB, or 2 MiB of many reports"),
    (422, "another request had this `Idempotency-Key`"),
    (429, "too many requests or failures: see `Retry-After`"),
    (500, "a fault of ours"),
    (503, "busy or stopping: see `Retry-After`"),
    (507, "the disk is full"),
];

/// Adds to a document the responses that any operation may give, and to its errors the media type for clients that accept
/// it.
pub fn describe(document: &mut OpenApi, surfaces: &Surfaces) {
    for (path, operation) in shared::operations(document) {
        let surface = surfaces.at(path);
        // Operations that need no credential are for probes. They have no limits, and so no default response.
        if operation.security.as_ref().is_some_and(|all| all != &[SecurityRequirement::default()]) {
            let reference = Ref::from_response_name(default_name(surface));
            operation.responses.responses.insert("default".to_owned(), reference.into());
        }
        for response in operation.responses.responses.values_mut() {
            let RefOr::T(response) = response else { continue };
            complete(response, surface);
        }
    }
    let components = document.components.get_or_insert_default();
    for surface in surfaces.all() {
        components.responses.insert(default_name(surface), RefOr::T(anywhere(surface)));
    }
}

fn default_name(surface: &Surface) -> String {
    format!("{}Default", surface.name)
}

/// The default response of a surface; `x-statuses` tells programs which statuses it stands for.
fn anywhere(surface: &Surface) -> Answer {
    let list: Vec<_> = ANYWHERE.iter().map(|(status, text)| format!("- {status}: {text}")).collect();
    let description = format!("What any operation may answer:\n\n{}.", list.join(";\n"));
    let statuses = ANYWHERE.map(|(status, _)| status);
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/json", Content::new(Some(Ref::from_schema_name(surface.errors.schema))))
        .extensions(Some(Extensions::from_iter([("x-statuses", statuses.to_vec())])))
        .build();
    complete(&mut response, surface);
    response
}

/// Adds what all responses of a surface have in common.
fn complete(response: &mut Answer, surface: &Surface) {
    for (name, description) in surface.limit_headers.iter().flat_map(|own| own.documented) {
        let header = HeaderBuilder::new()
            .schema(Some(Object::with_type(Type::Integer)))
            .description(Some(*description))
            .build();
        response.headers.insert((*name).to_owned(), RefOr::T(header));
    }
    let json = response.content.get("application/json").cloned();
    if let Some(json) = json.filter(is_problem) {
        response.content.insert(MEDIA_TYPE.to_owned(), json);
    }
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) = content else { return false };
    schema.ref_location.ends_with("/Problem")
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid { field, message } => {
                let field = field.map(Cow::Borrowed);
                Self { field, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", message) }
            }
            Error::Unauthorized { reason } => Self::unauthorized(reason),
            Error::Unfit(why) => Self {
                challenge: Some(Challenge::Unfit(why)),
                ..Self::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
            },
            Error::Forbidden { .. } => Self::new(StatusCode::FORBIDDEN, "insufficient_scope", message),
            Error::Denied { code, message } => Self::new(StatusCode::FORBIDDEN, code, message),
            Error::Barred(told) => {
                Self { until: told.until, ..Self::new(StatusCode::FORBIDDEN, "barred", message) }
            }
            Error::Suspended(_) => Self::new(StatusCode::FORBIDDEN, "session_suspended", message),
            Error::LimitReached { code, message, shuts_out } => {
                let status = if shuts_out { StatusCode::FORBIDDEN } else { StatusCode::CONFLICT };
                Self::new(status, code, message)
            }
            Error::InvalidTarget(message) => Self::invalid("resource", message),
            Error::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            Error::KeyTaken(_) => Self::new(StatusCode::CONFLICT, "session_key_taken", message),
            Error::TooManyToBar(message) => Self::new(StatusCode::CONFLICT, "too_many_to_bar", message),
            Error::RunOver => Self::new(StatusCode::CONFLICT, "run_over", message),
            Error::Conflict { code, message } => Self::new(StatusCode::CONFLICT, code, message),
            Error::Unprocessable { code, message } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
            }
            Error::Gone(ended) => Self {
                reason: Some(ended.reason.word()),
                after_end: true,
                ..Self::new(StatusCode::GONE, "session_disconnected", message)
            },
            Error::Busy => {
                Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message) }
            }
            Error::OutcomeUnknown => Self {
                retry_after: Some(1),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "outcome_unknown",
                    "The database has not said whether this was carried out: look before repeating it, or repeat it with the \
                     same Idempotency-Key",
                )
            },
            Error::DiskFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "The disk is full; nothing was written. A revocation is in force from now on, but not yet on record to its \
                 end: until there is space, it may not outlive a restart",
            ),
            Error::Internal(cause) => {
                tracing::error!(%cause, "internal error");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal server error")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let challenge = self.challenge();
        let status = self.status;
        let nothing_genuine = matches!(self.challenge, Some(Challenge::Bare | Challenge::Unfit(_)));
        if self.after_end {
            metrics::counter!(meter::AFTER_END).increment(1);
        }
        let body = ProblemBody {
            r#type: format!("{TYPES}{}", self.code),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: self.detail.map_or_else(|| self.message.clone(), String::from),
            code: self.code,
            message: self.message.clone(),
            status_code: status.as_u16(),
            field: self.field,
            error: (!self.missing_scopes.is_empty()).then_some("insufficient_scope"),
            missing_scopes: self.missing_scopes,
            reason: self.reason,
            until: self.until.map(time),
        };
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(IsProblem { code: self.code, message: self.message });
        if nothing_genuine {
            response.extensions_mut().insert(NothingGenuine);
        }
        let headers = response.headers_mut();
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
