//! The OAuth 2 surface: access tokens for clients that authenticate as themselves (RFC 6749, client credentials), and where
//! to get them (RFC 8414). Its errors are OAuth's own.

mod discovery;
mod forms;
mod tokens;

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub use discovery::*;
pub use forms::TokenRequest;
pub use tokens::*;

use super::extract::{body_bytes, body_of_stranger};
use super::surface::{PLAIN, Routes, Surface};
use super::{App, limits_layer};
use crate::auth::NothingGenuine;
use crate::config::names::Names;
use crate::directory::Issued;
use crate::error::Error;
use crate::gate::Client;

/// Clients authenticate as OAuth wants it, and each request takes effect anew.
static OAUTH: Surface = Surface { prefixes: &["/oauth2"], ..PLAIN };

pub fn surface() -> Routes {
    let routes = OpenApiRouter::new()
        .routes(routes!(token))
        .routes(routes!(introspect))
        .routes(routes!(revoke))
        .routes(routes!(authorization_server));
    Routes::of(&OAUTH, routes.merge(aliases().into()))
}

/// An access token.
#[derive(Serialize, ToSchema)]
pub struct TokenResponse {
    /// Opaque; begins with `sat_`.
    access_token: String,
    /// `Bearer`
    token_type: &'static str,
    /// Seconds.
    expires_in: u32,
    /// The scopes it has, separated by spaces.
    scope: String,
}

/// Why there is no token.
#[derive(Serialize, ToSchema)]
pub struct TokenError {
    /// `invalid_request`, `invalid_client`, `invalid_scope`, `invalid_target`, `unsupported_grant_type`,
    /// `unauthorized_client`, `unsupported_token_type`, `insufficient_scope`, `temporarily_unavailable` or `server_error`.
    error: &'static str,
    /// For people.
    error_description: String,
}

/// A [`TokenError`] with its status.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Refused {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.into() }
    }

    fn client() -> Self {
        let refused = Self::new("invalid_client", "Client authentication failed");
        Self { status: StatusCode::UNAUTHORIZED, ..refused }
    }

    /// The error of a client that has authenticated but lacks the right (RFC 6750, section 3.1).
    fn forbidden(description: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, ..Self::new("insufficient_scope", description) }
    }

    /// The OAuth error for an error of ours.
    fn from_error(error: Error) -> Self {
        match error {
            Error::Unauthorized { .. } => Self::client(),
            Error::Barred(told) => {
                Self { status: StatusCode::FORBIDDEN, ..Self::new("access_denied", told.sentence()) }
            }
            Error::InvalidTarget(message) => Self::new("invalid_target", message),
            Error::Invalid { message, .. } => Self::new("invalid_scope", message),
            Error::Busy | Error::OutcomeUnknown => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                ..Self::new("temporarily_unavailable", error.to_string())
            },
            Error::DiskFull => Self {
                status: StatusCode::INSUFFICIENT_STORAGE,
                ..Self::new("temporarily_unavailable", error.to_string())
            },
            error => {
                tracing::error!(?error, "a token could not be issued");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self { status, ..Self::new("server_error", "Internal server error") }
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = Json(TokenError { error: self.error, error_description: self.description });
        let mut response = (self.status, [(header::CACHE_CONTROL, "no-store")], body).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"sessiond\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
            response.extensions_mut().insert(NothingGenuine);
            return response;
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Get an access token
///
/// For clients that authenticate as themselves: applications and service accounts, with HTTP Basic or with `client_id`
/// and `client_secret` in the form. Tokens are not refreshed: ask again shortly before one expires.
#[utoipa::path(
    post, path = "/oauth2/token", operation_id = "oauth.token", tag = "oauth",
    security(("client" = [])),
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "An access token.", body = TokenResponse),
        (status = 400, description = "The request, its grant type, its scope or its audience is wrong.", body = TokenError),
        (status = 401, description = "Client authentication failed.", body = TokenError),
        (status = 413, description = "The body is too large.", body = TokenError),
        (status = 503, description = "Busy or about to stop: try again after `Retry-After` seconds.", body = TokenError),
        (status = 507, description = "The disk is full; nothing was written.", body = TokenError),
    ),
)]
pub async fn token(State(app): State<App>, request: Request) -> Result<Response, Refused> {
    let mut as_of = app.directory.access_tokens.position();
    let headers = request.headers().clone();
    let known = Presented::by(&app, &headers).await?;
    let form = Form::read(request, &app, known.is_some()).await?;
    let client = authenticate(&app, known, &form).await?;
    if let Err(too_many) = app.limits.request(allowance(client)) {
        return Ok(limits_layer::limited(too_many));
    }
    match form.one("grant_type") {
        Some("client_credentials") => {}
        Some(_) => {
            return Err(Refused::new("unsupported_grant_type", "grant_type must be client_credentials"));
        }
        None => return Err(Refused::new("invalid_request", "grant_type is missing")),
    }
    let audience = audience(&app.names, &form)?;
    let mut issued = app.directory.access_tokens.issue(client, form.one("scope"), audience, as_of).await;
    // The client's secret may have been replaced while it was checked; what counts is which one is valid now.
    for _ in 0..TRIES {
        if !matches!(issued, Err(Error::Busy)) {
            break;
        }
        as_of = app.directory.access_tokens.position();
        let known = Presented::by(&app, &headers).await?;
        let client = authenticate(&app, known, &form).await?;
        issued = app.directory.access_tokens.issue(client, form.one("scope"), audience, as_of).await;
    }
    let issued = issued.map_err(Refused::from_error)?;
    let Issued { token, scopes, expires_in } = issued;
    let body =
        TokenResponse { access_token: token, token_type: "Bearer", expires_in, scope: scopes.to_string() };
    Ok(([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(body)).into_response())
}

/// How often a client that changes meanwhile is checked again.
const TRIES: usize = 3;

/// The id that the rate limit counts a client's requests under; no token has an id like it.
fn allowance(client: Client) -> Uuid {
    match client {
        Client::Application(number) => Uuid::from_u64_pair(1, number.0.unsigned_abs()),
        Client::ServiceAccount(number) => Uuid::from_u64_pair(2, number.0.unsigned_abs()),
    }
}

/// The application whose gateway alone the token is for (RFC 8707); none if something wider is named beside it, or nothing.
fn audience(names: &Names, form: &Form) -> Result<Option<Uuid>, Refused> {
    let refused = |description| Refused::new("invalid_target", description);
    let (mut all, mut only) = (false, None);
    for target in form.all("audience").chain(form.all("resource")) {
        match target_of(names, target) {
            Some(None) => all = true,
            Some(Some(id)) if only.is_none_or(|other| other == id) => only = Some(id),
            Some(Some(_)) => {
                let way =
                    "a token opens one application's gateway or all: name one, or ask for a token for each";
                return Err(refused(way.to_owned()));
            }
            None => {
                let base = names.all().next().unwrap_or_default();
                let way = format!(
                    "resource must be {base}, {base}/api/v1, {base}/mcp or {base}/mcp/{{applicationId}}"
                );
                return Err(refused(format!("{way}, or be left out")));
            }
        }
    }
    Ok(only.filter(|_| !all))
}

/// What a target stands for: the gateway of one application, or everything; none if it is not ours.
fn target_of(names: &Names, target: &str) -> Option<Option<Uuid>> {
    let base = names.base_of(target);
    let Some(path) = base.and_then(|base| target.strip_prefix(base)) else {
        return (target == "mcp-gateway").then_some(None);
    };
    let path = path.trim_end_matches('/');
    if matches!(path, "" | "/api/v1" | "/mcp") {
        return Some(None);
    }
    let id = path.strip_prefix("/mcp/")?;
    // The endpoint of the oldest revision belongs to the same gateway.
    Uuid::try_parse(id.strip_suffix("/sse").unwrap_or(id)).ok().map(Some)
}

/// A form. Each name may be there once, except those that may repeat; an empty value counts as left out (RFC 6749, section
/// 3.2).
struct Form(HashMap<String, Vec<String>>);

impl Form {
    /// Reads a form. Of a sender who is not known yet only a small one is read.
    async fn read(request: Request, app: &App, known: bool) -> Result<Self, Refused> {
        let is_form = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
            let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        if !is_form {
            let description = "The body must be a form: application/x-www-form-urlencoded";
            return Err(Refused::new("invalid_request", description));
        }
        let read = if known { body_bytes(request, app).await } else { body_of_stranger(request, app).await };
        let bytes = read.map_err(|problem| {
            let busy = problem.status == StatusCode::SERVICE_UNAVAILABLE;
            let error = if busy { "temporarily_unavailable" } else { "invalid_request" };
            Refused { status: problem.status, ..Refused::new(error, problem.message) }
        })?;
        let mut fields: HashMap<String, Vec<String>> = HashMap::new();
        for (name, value) in form_urlencoded::parse(&bytes).filter(|(_, value)| !value.is_empty()) {
            let values = fields.entry(name.into_owned()).or_default();
            values.push(value.into_owned());
        }
        match fields
            .iter()
            .find(|(name, values)| values.len() > 1 && *name != "resource" && *name != "audience")
        {
            Some((name, _)) => {
                Err(Refused::new("invalid_request", format!("{name:?} is given more than once")))
            }
            None => Ok(Self(fields)),
        }
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }
}

/// A client that has authenticated by HTTP Basic, with the id that it has there.
struct Presented {
    client: Client,
    id: String,
}

impl Presented {
    /// The client that authenticates in the head of a request, if one does.
    async fn by(app: &App, headers: &HeaderMap) -> Result<Option<Self>, Refused> {
        let Some(header) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let pair = header.to_str().ok().and_then(basic).ok_or_else(Refused::client)?;
        // Id and secret are form-encoded inside Basic (RFC 6749, section 2.3.1), but many clients send them as they are.
        let plain = (decoded(&pair.0), decoded(&pair.1));
        let client = match app.auth.client(&plain.0, &plain.1).await {
            Err(Error::Unauthorized { .. }) if plain != pair => app.auth.client(&pair.0, &pair.1).await,
            other => other,
        };
        Ok(Some(Self { client: client.map_err(Refused::from_error)?, id: pair.0 }))
    }
}

/// The client of a request: the one in its head, which was checked before, or the one in the form.
async fn authenticate(app: &App, known: Option<Presented>, form: &Form) -> Result<Client, Refused> {
    let (id, secret) = (form.one("client_id"), form.one("client_secret"));
    let Some(known) = known else {
        let (Some(id), Some(secret)) = (id, secret) else { return Err(Refused::client()) };
        return app.auth.client(id, secret).await.map_err(Refused::from_error);
    };
    if secret.is_some() || id.is_some_and(|id| id != known.id && id != decoded(&known.id)) {
        let description =
            "Authenticate once: with HTTP Basic, or with client_id and client_secret in the form";
        return Err(Refused::new("invalid_request", description));
    }
    Ok(known.client)
}

/// The user and password of `Authorization: Basic …`, not decoded further.
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let bytes = STANDARD.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// Decodes one form-encoded text.
fn decoded(text: &str) -> String {
    let one = text.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(one.as_bytes()).map(|(text, _)| text.into_owned()).next().unwrap_or_default()
}
