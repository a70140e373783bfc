//! Revocations as things: begun with a filter, looked at, listed; and those that are scheduled.

mod credentials;
mod scheduled;

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use credentials::*;
pub use scheduled::*;

use super::agents::Session;
use super::bars::read_terms;
use super::extract::{Body, CanEnd, CanRead, Query, given};
use super::filter::FilterBody;
use super::page::{self, PAGE, PagedParameters, read_flag, read_limit};
use super::problem::{Problem, ProblemBody};
use super::words::ActorWord;
use super::{App, time};
use crate::http::ids::{self, Id};
use crate::sessions::{Preview, Progress, Revoked};
use sessiond_core::barring::BarOptions;
use sessiond_core::revocation::Acknowledged;

/// What to revoke.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRevocation {
    pub filter: FilterBody,
    /// The operator's own words.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 200)]
    pub reason: Option<String>,
    /// Only tell what it would come to; the same as the parameter.
    #[serde(default)]
    pub dry_run: bool,
    /// Bar what was issued before to the principals and OAuth clients of the sessions that fit: they have to authenticate
    /// anew. Where everything of a principal, an application or the organization is meant, that is barred anyway.
    #[serde(default)]
    pub bar: bool,
    /// Revoke API keys too: those that act for these principals, and those that opened these sessions. Needs
    /// `management:all`.
    #[serde(default)]
    pub include_keys: bool,
    /// With `bar`: keep the principals of the sessions that fit out until this instant, whatever they present.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, format = DateTime)]
    pub until: Option<String>,
    /// What they read. Without `until` they are kept out until the bars are lifted.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 500)]
    pub message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateParameters {
    dry_run: Option<String>,
}

/// A revocation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    pub id: Uuid,
    pub filter: FilterBody,
    /// What its `disconnected` events say: `revoked`, or `archived`.
    pub disconnect_reason: &'static str,
    /// The operator's own words.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Who began it.
    pub actor: RevocationActor,
    /// The scheduled revocation whose run it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scheduled_revocation_id: Option<Uuid>,
    /// When it began: nothing it covers is served from then on.
    #[schema(format = DateTime)]
    pub began_at: String,
    #[schema(required = true, format = DateTime)]
    pub ended_at: Option<String>,
    pub status: Progressing,
    /// How many sessions it covered when it began.
    #[schema(required = true)]
    pub matched: Option<u64>,
    /// How many it has disconnected: the number of `disconnected` events that carry its id.
    pub disconnected_count: u64,
    /// How many of the matched ended by themselves before it came to them; known when it is completed.
    #[schema(required = true)]
    pub already_ended: Option<u64>,
    /// How many requests and streams it cut off; known when it is completed.
    #[schema(required = true)]
    pub streams_closed: Option<u64>,
    /// On how many nodes what it ended has ended; known when it is completed.
    #[schema(required = true)]
    pub nodes: Option<NodesView>,
    /// What it barred, what not, and who may come back for it. Absent of revocations from before that was noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub credentials: Option<CredentialsView>,
}

/// On how many nodes something is true. A node is a process of this service; where there is one, it is asked and has
/// acknowledged.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[schema(as = Nodes)]
pub struct NodesView {
    /// Nodes that could let somebody in.
    pub asked: u32,
    /// Those that have applied it, and let go of what it cut off.
    pub acknowledged: u32,
    /// Those whose leave to let somebody in ran out instead. Such a node refuses everybody until it has applied it.
    pub expired: u32,
}

impl From<Acknowledged> for NodesView {
    fn from(nodes: Acknowledged) -> Self {
        let Acknowledged { asked, acknowledged, expired } = nodes;
        Self { asked, acknowledged, expired }
    }
}

impl NodesView {
    /// Of a revocation, if there was anything to revoke.
    pub fn of(revoked: &Revoked) -> Option<Self> {
        revoked.id.map(|_| revoked.nodes.unwrap_or(Acknowledged::ALONE).into())
    }
}

/// How far a revocation is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Progressing {
    Running,
    Completed,
}

/// Who did something.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RevocationActor {
    #[schema(value_type = ActorWord)]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Uuid::is_nil")]
    #[schema(required = false)]
    pub id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub name: Option<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RevocationEnvelope {
    pub revocation: Revocation,
}

/// What a revocation would come to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationPreview {
    /// Always true: nothing was changed.
    pub dry_run: bool,
    /// How many sessions it would end now.
    pub matched: u64,
    /// Some of them, newest first.
    pub sample: Vec<Session>,
    /// What it would bar, what not, and who may come back for it.
    pub credentials: CredentialsView,
    pub would_bar: WouldBarView,
}

impl From<Preview> for RevocationPreview {
    fn from(preview: Preview) -> Self {
        Self {
            dry_run: true,
            matched: preview.matched,
            sample: preview.sample.into_iter().map(Session::from).collect(),
            credentials: CredentialsView::of(preview.credentials, false),
            would_bar: preview.would_bar.into(),
        }
    }
}

/// A page of revocations, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationList {
    pub items: Vec<Revocation>,
    /// Where the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

impl From<Progress> for Revocation {
    fn from(progress: Progress) -> Self {
        let row = progress.revocation;
        let ended = row.ended_at.is_some();
        let already = progress.matched.map(|matched| matched.saturating_sub(row.disconnected_count));
        Self {
            id: row.id,
            filter: progress.filter.into(),
            disconnect_reason: row.reason.word(),
            reason: row.note,
            actor: RevocationActor {
                kind: progress.actor.kind.word(),
                id: progress.actor.id,
                name: progress.actor_name,
            },
            scheduled_revocation_id: progress.schedule,
            began_at: time(row.instant),
            ended_at: row.ended_at.map(time),
            status: if ended { Progressing::Completed } else { Progressing::Running },
            matched: progress.matched,
            disconnected_count: row.disconnected_count,
            already_ended: already.filter(|_| ended),
            streams_closed: progress.streams_closed,
            nodes: progress.nodes.map(NodesView::from),
            credentials: progress.credentials.map(|barring| CredentialsView::of(barring, false)),
        }
    }
}

/// Revoke sessions
///
/// Ends every session that fits the filter, and answers when nothing of them is served any more. Where everything of a
/// principal, an application or the organization is meant, its credentials issued before are barred from the agent side too; with
/// `bar` those of the principals and clients of whatever fits, and with `includeKeys` their API keys. The answer says what was barred.
/// With `dryRun` nothing happens: it says what it would come to.
#[utoipa::path(post, path = "/api/v1/revocations", operation_id = "revocations.create", tag = "revocations",
    security(("bearer" = [])),
    params(("dryRun" = Option<bool>, Query, description = "Only tell what it would come to.")),
    request_body(content = CreateRevocation, description = "Which sessions, and why."),
    responses(
        (status = 200, description = "A dry run: what it would come to.", body = RevocationPreview),
        (status = 201, description = "The revocation, completed.", body = RevocationEnvelope, headers(("Location" = String, description = "Where it can be looked at."))),
        (status = 409, description = "It would bar more one by one than fits into one step (`too_many_to_bar`).", body = ProblemBody),
        (status = 507, description = "The disk is full. It is in force from now on, but not on record to its end.", body = ProblemBody),
    ))]
pub async fn create_revocation(
    CanEnd(caller): CanEnd,
    State(app): State<App>,
    Query(parameters): Query<CreateParameters>,
    Body(body): Body<CreateRevocation>,
) -> Result<Response, Problem> {
    let (query, terms) = (body.filter.read()?, read_terms(body.until.as_deref(), body.message)?);
    let bar = BarOptions { matched: body.bar, keys: body.include_keys };
    if body.dry_run || read_flag("dryRun", parameters.dry_run.as_deref())? {
        let preview = app.sessions.revocations.preview(&caller, &query, bar, terms).await?;
        return Ok(Json(RevocationPreview::from(preview)).into_response());
    }
    let revoked = app.sessions.revocations.revoke_matching(&caller, &query, bar, terms, body.reason).await?;
    let progress = app.sessions.revocations.find(&caller, revoked.id.unwrap_or_default()).await?;
    let location = format!("/api/v1/revocations/{}", progress.revocation.id);
    let body = RevocationEnvelope { revocation: progress.into() };
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

/// Get a revocation
///
/// Its filter, who began it and when, and how far it is. `GET /api/v1/events?revocation=…` has what it caused.
#[utoipa::path(get, path = "/api/v1/revocations/{revocationId}", operation_id = "revocations.get", tag = "revocations",
    security(("bearer" = [])), params(("revocationId" = Uuid, Path, description = "The revocation.")),
    responses(
        (status = 200, description = "The revocation.", body = RevocationEnvelope),
    ))]
pub async fn get_revocation(
    CanRead(caller): CanRead,
    Id(id, ..): Id<ids::Revocation>,
    State(app): State<App>,
) -> Result<Json<RevocationEnvelope>, Problem> {
    let progress = app.sessions.revocations.find(&caller, id).await?;
    Ok(Json(RevocationEnvelope { revocation: progress.into() }))
}

/// Where a list that is ordered by its things' making begins, and how long it is.
#[derive(Debug, Deserialize)]
pub struct PlainList {
    limit: Option<String>,
    cursor: Option<String>,
}

impl PlainList {
    fn read(&self) -> Result<(Option<Uuid>, u32), Problem> {
        let after = page::read_cursor(self.cursor.as_deref())?.map(|(_, id)| id);
        Ok((after, read_limit(self.limit.as_deref(), PAGE)?))
    }
}

/// `Link` to the next page, for lists without other parameters than `limit`.
fn link(uri: &Uri, limit: u32, cursor: Option<&str>) -> HeaderMap {
    page::next_link(uri.path(), [("limit", limit.to_string())], cursor)
}

/// List revocations
///
/// The organization's, newest first, running and completed.
#[utoipa::path(get, path = "/api/v1/revocations", operation_id = "revocations.list", tag = "revocations",
    security(("bearer" = [])),
    params(
        PagedParameters,
    ),
    responses(
        (status = 200, description = "A page of revocations.", body = RevocationList, headers(("Link" = String, description = "The next page, if there is one (RFC 8288)."))),
    ))]
pub async fn list_revocations(
    CanRead(caller): CanRead,
    OriginalUri(uri): OriginalUri,
    Query(list): Query<PlainList>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let (after, limit) = list.read()?;
    let (page, more) = app.sessions.revocations.list(&caller, after, limit).await?;
    let last = page.last().map(|progress| (progress.revocation.instant, progress.revocation.id));
    let next_cursor = last.filter(|_| more).map(page::cursor);
    let headers = link(&uri, limit, next_cursor.as_deref());
    let items = page.into_iter().map(Revocation::from).collect();
    Ok((headers, Json(RevocationList { items, next_cursor })).into_response())
}
