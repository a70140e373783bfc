//! Bodies that hold one object or several, and the responses for each.

use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::super::App;
use super::super::extract::{body_bytes, read_json, read_object};
use super::super::problem::Problem;
use super::{Refused, answer, words};

/// The content of a body: one object, or an array in which each item is valid or not by itself.
pub enum Several<T> {
    One(T),
    Many(Vec<Result<T, Problem>>),
}

impl<T> Several<T> {
    /// The items that are valid.
    pub fn good(&self) -> impl Iterator<Item = &T> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), &[][..]),
            Self::Many(many) => (None, &many[..]),
        };
        one.into_iter().chain(many.iter().filter_map(|item| item.as_ref().ok()))
    }
}

impl<T: DeserializeOwned> FromRequest<App> for Several<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let bytes = body_bytes(request, app).await?;
        if !bytes.trim_ascii_start().starts_with(b"[") {
            return read_object(&bytes).map(Self::One);
        }
        // Most bodies are valid, and are read at once.
        if let Ok(items) = serde_json::from_slice::<Vec<T>>(&bytes)
            && !holds_arrays(&bytes)
        {
            return Ok(Self::Many(items.into_iter().map(Ok).collect()));
        }
        let items: Vec<&RawValue> = serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("The body is not JSON: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message)
        })?;
        let read = |(index, item): (usize, &RawValue)| {
            read_item(item.get().as_bytes())
                .map_err(|problem| Problem { message: at(index, &problem.message), ..problem })
        };
        Ok(Self::Many(items.into_iter().enumerate().map(read).collect()))
    }
}

/// Whether an item may be an array, which serde would read as an object by the order of its items.
fn holds_arrays(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte == b'[').count() > 1
}

fn read_item<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.starts_with(b"[") { read_object(bytes) } else { read_json(bytes) }
}

/// Adds to a message the index of the item that is wrong.
fn at(index: usize, message: &str) -> String {
    match (message.strip_prefix("In the body, "), message.strip_prefix("In the body")) {
        (Some(rest), _) => format!("In the body, [{index}].{rest}"),
        (None, Some(rest)) => format!("In the body, [{index}]{rest}"),
        _ => message.to_owned(),
    }
}

/// Checks that there are not too many items.
pub fn at_most(most: usize, items: &[impl Sized]) -> Result<(), Problem> {
    if items.len() <= most {
        return Ok(());
    }
    let message = format!("A call may hold at most {most} items; this one holds {}", items.len());
    Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message))
}

/// An array.
#[derive(Debug, Serialize)]
pub struct Each<Item>(pub Vec<Item>);

/// What became of one of several.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaItem<T> {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<T>,
    status_code: u16,
}

/// The outcome of one item: its status and value, or the error.
pub type Outcome<T> = Result<(StatusCode, T), Refused>;

/// The response for one item.
pub fn one<T: Serialize>(outcome: Outcome<T>) -> Response {
    match outcome {
        Ok((status, response)) => answer(status, response),
        Err(refused) => refused.into_response(),
    }
}

/// The responses for several items, in their order: under the status that they share, or 207.
pub fn many<T: Serialize>(outcomes: Vec<Outcome<T>>) -> Response {
    let mut shared = None;
    let mut items = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let (status, item) = match outcome {
            Ok((status, response)) => (status, (words(status), Some(response))),
            Err(refused) => {
                let (status, message) = refused.said();
                (status, (message, None))
            }
        };
        let (message, response) = item;
        items.push(MediaItem { message, response, status_code: status.as_u16() });
        let same = shared.is_none_or(|shared| shared == status);
        shared = Some(if same { status } else { StatusCode::MULTI_STATUS });
    }
    (shared.unwrap_or(StatusCode::OK), Json(Each(items))).into_response()
}
