//! Who may come in: whoever presents, as the whole of Basic credentials, an API key with the scope `media`. Looked at before
//! anything else, whatever is asked for.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sessiond_core::caller::Caller;
use sessiond_core::scope::Scope;

use super::super::family::Family;
use super::super::problem::Problem;
use super::super::{App, idempotency, unknown};
use crate::error::Error;

/// Who asks; an extension of requests that were let in.
#[derive(Clone)]
struct Admitted(Caller);

/// May keep, read and end the sessions of media streams.
pub struct Media(pub Caller);

impl FromRequestParts<App> for Media {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // Without the door nobody is in.
        let Some(Admitted(caller)) = parts.extensions.get().cloned() else { return Err(refused(MISSING)) };
        unknown::understood(parts)?;
        idempotency::caller_of(parts, app, caller).await.map(Self)
    }
}

/// The layer before the routes of the surface, and before what is said where there is none.
pub async fn door(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if Family::of(path) != Family::Media {
        return next.run(request).await;
    }
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    if Family::is_signed(path) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match admitted(&app, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(Admitted(caller));
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn admitted(app: &App, parts: &Parts) -> Result<Caller, Problem> {
    let token = presented(&parts.headers).map_err(refused)?;
    let caller = app.auth.presenting(parts, &token).await.map_err(|error| match error {
        Error::Unauthorized { reason: None } => refused(INVALID),
        // Genuine once: that it is over is for its holder to know.
        Error::Unauthorized { reason: Some(_) } => Problem { challenge: None, ..refused(INVALID) },
        error => error.into(),
    })?;
    match caller.scopes.has(Scope::Media) {
        _ if caller.ended.is_some() => Err(Problem { challenge: None, ..refused(INVALID) }),
        true => Ok(caller),
        false => Err(Problem::forbidden(&[Scope::Media])),
    }
}

const MISSING: &str = "Authorization header is required to call API";
const INVALID: &str = "Invalid credential";

/// The token in Basic credentials: all of them, without a colon.
fn presented(headers: &HeaderMap) -> Result<String, String> {
    let value = headers.get(header::AUTHORIZATION).filter(|value| !value.is_empty()).ok_or(MISSING)?;
    let malformed = "Invalid authorization header";
    let mut parts = value.to_str().map_err(|_| malformed)?.split(' ');
    let (Some(scheme), Some(credentials), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed.to_owned());
    };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(format!("Not supported credential type: {scheme}"));
    }
    let decoded = BASE64_STANDARD.decode(credentials).ok().filter(|bytes| !bytes.is_empty());
    let decoded = decoded.ok_or("Invalid credential format")?;
    String::from_utf8(decoded).map_err(|_| INVALID.to_owned())
}

/// Nothing genuine was presented.
fn refused(message: impl Into<String>) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
    Problem { challenge: Some(("", String::new())), ..problem }
}
