//! The surface's authentication, and the id in its paths.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::future::BoxFuture;
use sessiond_core::caller::Caller;
use sessiond_core::scope::Scope;
use sessiond_core::session::Refusal;
use uuid::Uuid;

use crate::error::Error;
use crate::http::problem::Problem;
use crate::http::{App, extract};

/// The header of the API key.
const HEADER: &str = "apikey";

/// A caller with an API key that has the scope `session`.
pub use crate::http::extract::Admitted as Key;

/// The surface's check.
pub fn key_auth<'a>(app: &'a App, parts: &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>> {
    Box::pin(async {
        let mut values = parts.headers.get_all(HEADER).iter();
        let one = values.next().and_then(|value| value.to_str().ok()).filter(|_| values.next().is_none());
        let Some(key) = one else { return Err(Problem { message: NO_KEY.to_owned(), ..nobody() }) };
        let caller = app.auth.presenting(parts, key.trim()).await.map_err(|error| {
            let message = match &error {
                Error::Unauthorized { reason: Some(Refusal::Expired) } => "The API key has expired",
                Error::Unauthorized { .. } | Error::Unfit(_) => "This API key is not known, or was revoked",
                _ => return error.into(),
            };
            Problem { message: message.to_owned(), ..Problem::from(error) }
        })?;
        extract::allowed(caller, &[Scope::Session])
    })
}

const NO_KEY: &str = "Unauthorized: send one API key with the scope session in the header apiKey";

fn nobody() -> Problem {
    Problem::unauthorized(None)
}

/// The id of the session in the path: 32 hexadecimal digits, with or without hyphens.
pub struct WorkId(pub Uuid);

impl FromRequestParts<App> for WorkId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, app).await.map_err(|_| not_an_id())?;
        path.iter().next().and_then(|(_, text)| read_id(text)).map(Self).ok_or_else(not_an_id)
    }
}

/// Reads an id as this surface writes it, or as all others do.
pub fn read_id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| matches!(text.len(), 32 | 36))
}

fn not_an_id() -> Problem {
    let message = "session_id must be the 32 hexadecimal digits of a session's id";
    Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message)
}
