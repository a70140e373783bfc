//! Authentication of the media surface: an API key with the scope `media`, as the whole of Basic credentials. It is checked
//! before anything else, whatever is asked for.

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::BoxFuture;
use sessiond_core::caller::Caller;
use sessiond_core::scope::Scope;

use super::super::App;
use super::super::problem::{Challenge, Problem};
use crate::error::Error;

/// The surface's check: the caller may keep, read and end the sessions of media streams.
pub fn media_auth<'a>(app: &'a App, parts: &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>> {
    Box::pin(admitted(app, parts))
}

async fn admitted(app: &App, parts: &Parts) -> Result<Caller, Problem> {
    let token = presented(&parts.headers).map_err(refused)?;
    let caller = app.auth.presenting(parts, &token).await.map_err(|error| match error {
        Error::Unauthorized { reason: None } => refused(INVALID),
        // The key was genuine once: only its holder is told that it has ended.
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

/// The key in Basic credentials, which is all of them, without a colon.
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

/// The problem of a request that presents nothing genuine.
fn refused(message: impl Into<String>) -> Problem {
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
    Problem { challenge: Some(Challenge::Bare), ..problem }
}
