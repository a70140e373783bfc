//! The extractors of handlers: the caller with the right that is needed (in the signature, so that no handler forgets it),
//! and path, query and body, refused in our own words.

use axum::body::{self, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use sessiond_core::caller::{Caller, CredentialKind};
use sessiond_core::scope::Scope;
use sessiond_core::session::Refusal;
use utoipa::openapi::{Content, OpenApi, RefOr, Required, Schema};
use uuid::Uuid;

use super::limits_layer::TooSlow;
use super::problem::Problem;
use super::surface::{Authentication, LetIn, Surface};
use super::{App, idempotency, unknown};
use crate::limits::{NotRead, Sender};
use crate::sessions::AGENT_SCOPES;

/// A caller who may read sessions.
pub struct CanRead(pub Caller);
/// A caller who may end sessions.
pub struct CanEnd(pub Caller);
/// A caller who may manage applications and service accounts.
pub struct CanManage(pub Caller);
/// A caller who may found and name organizations: the one who runs the installation.
pub struct Platform(pub Caller);
/// A person, with the id of the principal. A session's token does not count as the person's own credential.
pub struct Person(pub Caller, pub Uuid);
/// A caller who may keep sessions: an agent, or whoever fronts agents.
pub struct Agent(pub Caller);
/// A caller like [`Agent`], or the token of a session that has ended, which may still learn why.
pub struct AgentOrEnded(pub Caller);
/// A caller whom the surface's own authentication has let in.
pub struct Admitted(pub Caller);

/// The caller of a request. A token for one application's gateway opens only that (RFC 8707).
async fn caller_of(parts: &Parts, app: &App) -> Result<Caller, Problem> {
    check_audience(app.auth.caller(parts).await?)
}

/// Refuses a token that is for one application's gateway alone.
fn check_audience(caller: Caller) -> Result<Caller, Problem> {
    match caller.audience() {
        Some(id) => Err(Problem::wrong_audience(id)),
        None => Ok(caller),
    }
}

/// The caller of a request, if it has one of these scopes.
async fn with_any(parts: &Parts, app: &App, scopes: &[Scope]) -> Result<Caller, Problem> {
    understood(parts, app, allowed(app.auth.caller(parts).await?, scopes)?).await
}

/// Checks that a caller has one of these scopes.
pub fn allowed(caller: Caller, scopes: &[Scope]) -> Result<Caller, Problem> {
    let caller = not_ended(check_audience(caller)?)?;
    match scopes.iter().any(|scope| caller.scopes.has(*scope)) {
        true => Ok(caller),
        false => Err(Problem::forbidden(scopes)),
    }
}

/// Completes the check of a caller: refuses unknown parameters, and takes the idempotency key. Every extractor of a caller
/// ends with it.
async fn understood(parts: &Parts, app: &App, caller: Caller) -> Result<Caller, Problem> {
    unknown::understood(parts)?;
    idempotency::caller_of(parts, app, caller).await
}

/// Checks that an API key may keep sessions alive, for which it must be an agent's.
fn check_keeps_sessions(caller: &Caller) -> Result<(), Problem> {
    match caller.credential.kind {
        CredentialKind::ApiKey { .. } if !caller.scopes.has(Scope::McpInvoke) => {
            Err(Problem::forbidden(&[Scope::McpInvoke]))
        }
        _ => Ok(()),
    }
}

/// Refuses the token of a session that has ended.
fn not_ended(caller: Caller) -> Result<Caller, Problem> {
    match caller.ended {
        Some(ended) => Err(Problem::unauthorized(Some(Refusal::Ended(ended)))),
        None => Ok(caller),
    }
}

impl FromRequestParts<App> for CanRead {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        with_any(parts, app, &[Scope::SessionsRead, Scope::ManagementAll]).await.map(Self)
    }
}

impl FromRequestParts<App> for CanEnd {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        with_any(parts, app, &[Scope::SessionsWrite, Scope::ManagementAll]).await.map(Self)
    }
}

impl FromRequestParts<App> for CanManage {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        with_any(parts, app, &[Scope::ManagementAll]).await.map(Self)
    }
}

impl FromRequestParts<App> for Platform {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        with_any(parts, app, &[Scope::PlatformAdmin]).await.map(Self)
    }
}

impl FromRequestParts<App> for Person {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = not_ended(caller_of(parts, app).await?)?;
        match app.directory.principals.person(&caller) {
            Some(principal) => {
                unknown::understood(parts)?;
                Ok(Self(caller, principal))
            }
            None => {
                let message =
                    "This credential is no person's: present the token of a user, or an API key with a user";
                Err(Problem::new(StatusCode::FORBIDDEN, "no_person", message))
            }
        }
    }
}

impl FromRequestParts<App> for Agent {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = with_any(parts, app, &AGENT_SCOPES).await?;
        check_keeps_sessions(&caller)?;
        Ok(Self(caller))
    }
}

impl FromRequestParts<App> for AgentOrEnded {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = caller_of(parts, app).await?;
        if !AGENT_SCOPES.iter().any(|scope| caller.scopes.has(*scope)) {
            return Err(Problem::forbidden(&AGENT_SCOPES));
        }
        check_keeps_sessions(&caller)?;
        understood(parts, app, caller).await.map(Self)
    }
}

impl FromRequestParts<App> for Admitted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = match Surface::of(&parts.extensions).authentication {
            Authentication::Admitted(check) => Some(check(app, parts).await?),
            Authentication::First(_) => parts.extensions.get().map(|LetIn(caller)| caller.clone()),
            Authentication::Handlers => None,
        };
        let caller = caller.ok_or_else(|| Problem::unauthorized(None))?;
        understood(parts, app, caller).await.map(Self)
    }
}

/// The query string, read into a struct whose fields are all optional.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|rejection| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                format!("In the query: {}", rejection.body_text()),
            )
        })
    }
}

/// A JSON body. An absent one is read as `{}`, so that calls without arguments need none.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        read_object(&body_bytes(request, app).await?).map(Self)
    }
}

/// Reads a JSON object; an absent one as `{}`.
pub fn read_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let json: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    // Serde would read the items of an array as members, by their order.
    if json.trim_ascii_start().starts_with(b"[") {
        let message = "In the body: invalid type: sequence, expected an object";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message));
    }
    read_json(json)
}

/// Reads a JSON value of any type.
pub fn read_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if let Some((name, said)) = unknown::in_body(&error.to_string()) {
            // The path ends with the member itself.
            let place = path.rsplit_once('.').map(|(place, _)| format!(", {place}")).unwrap_or_default();
            let field = if path == "." { name } else { path };
            return Problem::invalid(field, format!("In the body{place}: {said}"));
        }
        let message = match error.classify() {
            serde_json::error::Category::Data if path == "." => format!("In the body: {error}"),
            serde_json::error::Category::Data => format!("In the body, {path}: {error}"),
            _ => format!("The body is not JSON: {error}"),
        };
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    })?;
    reader.end().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request", format!("The body is not JSON: {error}"))
    })?;
    Ok(read)
}

/// Reads a member that may be left out but must not be null: in a filter or a list of scopes null would mean more than was
/// said.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Says in the document that bodies in which nothing is required may be left out.
pub fn describe(document: &mut OpenApi) {
    let schemas =
        document.components.as_ref().map(|components| components.schemas.clone()).unwrap_or_default();
    let optional = |content: &RefOr<Content>| {
        let RefOr::T(Content { schema: Some(RefOr::Ref(reference)), .. }) = content else { return false };
        let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
        matches!(schemas.get(name), Some(RefOr::T(Schema::Object(object))) if object.required.is_empty())
    };
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.post, &mut item.put, &mut item.patch].into_iter().flatten() {
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && body.content.get("application/json").is_some_and(optional)
            {
                body.required = Some(Required::False);
            }
        }
    }
}

/// Reads the whole body of a request whose sender is known, up to the surface's limit.
pub async fn body_bytes(request: Request, app: &App) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    match idempotency::body_of(&parts) {
        Some(bytes) => Ok(bytes),
        None => body_of(&parts.extensions, body, app).await,
    }
}

/// Reads the whole body of a request without an idempotency key.
pub async fn body_of(extensions: &Extensions, body: body::Body, app: &App) -> Result<Bytes, Problem> {
    read_body(body, app, Surface::of(extensions).body_limit, Sender::Known).await
}

/// Reads the body of a request whose sender is not known yet.
pub async fn body_of_stranger(request: Request, app: &App) -> Result<Bytes, Problem> {
    read_body(request.into_body(), app, STRANGERS, Sender::Stranger).await
}

/// The largest body that is read before it is known who sends it.
pub const STRANGERS: usize = 16 << 10;

async fn read_body(body: body::Body, app: &App, most: usize, from: Sender) -> Result<Bytes, Problem> {
    app.limits.bodies.read(body, most, from).await.map_err(|reason| match reason {
        NotRead::Broken(error) if TooSlow::is_behind(&error) => TooSlow::problem(),
        NotRead::Broken(_) => {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "The body could not be read")
        }
        NotRead::TooLarge => {
            let most =
                if most >= 1 << 20 { format!("{} MiB", most >> 20) } else { format!("{} KiB", most >> 10) };
            let message = format!("The body must be at most {most}");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        }
        NotRead::Full => {
            let message = "The bodies of all requests together are too large at the moment: try again";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message);
            Problem { retry_after: Some(1), ..problem }
        }
    })
}
