//! What has happened: a session's history, and the organization's log.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sessiond_core::event;
use sessiond_core::ids::Position;

use super::App;
use super::events::FeedEvent;
use super::extract::{CanRead, Query};
use super::filter::{read_id, read_time};
use super::ids::{self, Id};
use super::page::{PAGE, PagedParameters, next_link, read_flag, read_limit};
use super::problem::Problem;
use crate::live::EventData;
use crate::sessions::{EventQuery, Events, NamedEvent};

/// An event on record: as on a feed, with its place in its stream and its hash.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedEvent<'a> {
    #[serde(flatten)]
    #[schema(value_type = FeedEvent)]
    event: EventData<'a>,
    /// Counts from 1 in its stream.
    version: i64,
    /// The position of the stream's event before; 0 for its first.
    previous_position: i64,
    /// SHA-256 (hex) over the hash before it in its stream, its envelope and its body's digest.
    hash: String,
    /// The request that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
    /// The W3C trace it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    traceparent: Option<&'a str>,
}

/// A page of events.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    #[schema(value_type = Vec<RecordedEvent>)]
    pub items: Vec<Value>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

fn listed(events: Events, uri: &Uri, others: &[(&str, &str)]) -> Response {
    let next_cursor = events.next.map(|position| position.to_string());
    let mut headers = next_link(uri.path(), others.iter().copied(), next_cursor.as_deref());
    headers.insert(HeaderName::from_static("log-position"), HeaderValue::from(events.position.0));
    let items = events.items.into_iter().map(recorded);
    (headers, Json(EventList { items: items.collect(), next_cursor })).into_response()
}

/// An event as it is shown.
pub(super) fn recorded((event, told): NamedEvent) -> Value {
    let recorded = &event.entry.recorded;
    let shown = RecordedEvent {
        event: EventData::new(&event, told),
        version: recorded.version,
        previous_position: recorded.previous_position.0,
        hash: hex::encode(event.entry.hash),
        request_id: recorded.request_id.as_deref(),
        traceparent: recorded.traceparent.as_deref(),
    };
    serde_json::to_value(shown).unwrap_or_default()
}

fn read_cursor(text: Option<&str>) -> Result<Option<Position>, Problem> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(position @ 0..) => Ok(Some(Position(position))),
        _ => Err(Problem::invalid("cursor", "cursor must be nextCursor of a page of this list")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryParameters {
    pub(super) activity: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Get a session's history
///
/// Its events, newest first: who did what to it, when, and why. Activity comes along only if asked for; of old activity it is
/// the last event of each day, with the totals.
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/sessions/{sessionId}/history", operation_id = "agentSessions.history",
    tag = "agentSessions", security(("bearer" = [])),
    params(
        ("applicationId" = Uuid, Path, description = "The application."),
        ("sessionId" = Uuid, Path, description = "The session."),
        ("activity" = Option<bool>, Query, description = "Whether to show activity too."),
        PagedParameters,
    ),
    responses(
        (status = 200, description = "A page of events.", body = EventList, headers(
            ("Log-Position" = i64, description = "The log position that this was true at."),
            ("Link" = String, description = "The next page, if there is one (RFC 8288)."),
        )),
    ))]
pub async fn session_history(
    CanRead(caller): CanRead,
    Id(application, ..): Id<ids::Application>,
    Id(session, ..): Id<ids::Session>,
    OriginalUri(uri): OriginalUri,
    Query(parameters): Query<HistoryParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let activity = read_flag("activity", parameters.activity.as_deref())?;
    let limit = read_limit(parameters.limit.as_deref(), PAGE)?;
    let before = read_cursor(parameters.cursor.as_deref())?;
    let events = app.sessions.queries.history(&caller, application, session, activity, before, limit).await?;
    let (activity, limit) = (activity.to_string(), limit.to_string());
    Ok(listed(events, &uri, &[("activity", &activity), ("limit", &limit)]))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventParameters {
    application_id: Option<String>,
    revocation: Option<String>,
    types: Option<String>,
    from: Option<String>,
    until: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
    after: Option<String>,
}

impl EventParameters {
    pub(super) fn read(&self) -> Result<EventQuery, Problem> {
        let after = read_cursor(self.cursor.as_deref().or(self.after.as_deref()))?;
        Ok(EventQuery {
            application: read_id("applicationId", self.application_id.as_deref())?,
            revocation: read_id("revocation", self.revocation.as_deref())?,
            types: read_types(self.types.as_deref())?,
            from: read_time("from", self.from.as_deref())?,
            until: read_time("until", self.until.as_deref())?,
            after,
            limit: read_limit(self.limit.as_deref(), PAGE)?,
        })
    }

    /// The parameters that the link to the next page must repeat.
    fn others(&self) -> Vec<(&str, &str)> {
        let named = [
            ("applicationId", &self.application_id),
            ("revocation", &self.revocation),
            ("types", &self.types),
            ("from", &self.from),
            ("until", &self.until),
            ("limit", &self.limit),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// Reads types of events, separated by commas.
fn read_types(text: Option<&str>) -> Result<Vec<String>, Problem> {
    let Some(text) = text else { return Ok(vec![]) };
    let known: BTreeSet<_> = event::names().collect();
    let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    match names.iter().find(|name| !known.contains(*name)) {
        Some(unknown) => {
            let all = event::names().collect::<Vec<_>>().join(", ");
            Err(Problem::invalid("types", format!("there is no event {unknown:?}; there are: {all}")))
        }
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

/// List events
///
/// The organization's log, oldest first: by position, type and time, of one application, or all that one revocation
/// caused. Activity comes along only where `types` names it. A page may have fewer events than it could, even none, and
/// yet have a next one.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "events.list", tag = "events", security(("bearer" = [])),
    params(
        ("applicationId" = Option<Uuid>, Query, description = "Only what happened in this application."),
        ("revocation" = Option<Uuid>, Query, description = "Only what carries this revocation."),
        ("types" = Option<String>, Query, description = "Only these types, separated by commas."),
        ("from" = Option<String>, Query, description = "Recorded at this instant or later (RFC 3339).", format = DateTime),
        ("until" = Option<String>, Query, description = "Recorded before this instant.", format = DateTime),
        ("after" = Option<i64>, Query, description = "Only what lies beyond this position, such as a list's `Log-Position`.", minimum = 0),
        PagedParameters,
    ),
    responses(
        (status = 200, description = "A page of events.", body = EventList, headers(
            ("Log-Position" = i64, description = "The log position that this was true at."),
            ("Link" = String, description = "The next page, if there is one (RFC 8288)."),
        )),
    ))]
pub async fn list_events(
    CanRead(caller): CanRead,
    OriginalUri(uri): OriginalUri,
    Query(parameters): Query<EventParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let events = app.sessions.queries.events(&caller, &parameters.read()?).await?;
    Ok(listed(events, &uri, &parameters.others()))
}
