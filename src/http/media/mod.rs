//! The media surface: viewers of streams, for media servers and those who run them, in the form of OvenMediaEngine's REST
//! API. Here is what its parts share: the form of a response, errors, and times.

mod hooks;
mod media_auth;
mod names;
mod reports;
mod schema;
mod sessions;
mod several;
mod statistics;
mod streams;
mod surface;
mod throughput;

pub use hooks::*;
pub use reports::*;
pub use sessions::*;
pub use statistics::*;
pub use streams::*;
pub use surface::surface;
pub use throughput::*;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::App;
use super::extract::Admitted as Media;
use super::problem::Problem;
use crate::error::{Error, Thing};
use sessiond_core::Time;
use surface::{MEDIA, MediaError};

/// An answer with something in it. Members are in the order of their names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaAnswer<T> {
    pub message: String,
    pub response: T,
    pub status_code: u16,
}

/// An answer that says only that it was done.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaDone {
    pub message: String,
    pub status_code: u16,
}

/// Responds with a value.
fn answer<T: Serialize>(status: StatusCode, response: T) -> Response {
    let message = words(status);
    (status, Json(MediaAnswer { message, response, status_code: status.as_u16() })).into_response()
}

/// Responds that something was done.
fn done() -> Response {
    let status = StatusCode::OK;
    Json(MediaDone { message: words(status), status_code: status.as_u16() }).into_response()
}

fn words(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("Error").to_owned()
}

/// An error of the surface, which has two forms: that there is no such session is returned as a response, everything else as
/// a problem.
#[derive(Debug)]
pub enum Refused {
    Thrown(Problem),
    NoSession,
}

/// The message where there is no such session.
const NO_SESSION: &str = "Could not find the session";

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Thrown(problem) => return problem.into_response(),
            Self::NoSession => StatusCode::NOT_FOUND,
        };
        let (message, response) = (words(status), Some(NO_SESSION));
        (status, Json(MediaError { message, response, status_code: status.as_u16() })).into_response()
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Thrown(problem)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            // The session has just ended, so that there is none of this name any more.
            Error::Gone(_) | Error::NotFound(Thing::Session) => Self::NoSession,
            error => Self::Thrown(error.into()),
        }
    }
}

impl Refused {
    /// The status and the plain message.
    fn said(self) -> (StatusCode, String) {
        match self {
            Self::Thrown(problem) => (problem.status, problem.message),
            Self::NoSession => (StatusCode::NOT_FOUND, NO_SESSION.to_owned()),
        }
    }
}

/// The problem where there is nothing at a path, or nothing for its method.
fn nothing_there() -> Refused {
    Refused::Thrown(MEDIA.nothing_there())
}

/// A time as the surface writes it: in the configured zone, milliseconds, with its offset.
fn local(app: &App, time: Time) -> String {
    let local = time.with_timezone(&app.config.media_time_zone);
    local.to_rfc3339_opts(chrono::SecondsFormat::Millis, false)
}
