//! A person's own sessions: seen and ended with the person's own credential, without any right to manage.

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use sessiond_core::relation::Way;

use super::{Ended, SessionEnvelope, listed};
use crate::http::App;
use crate::http::extract::{Person, Query};
use crate::http::filter::FilterParameters;
use crate::http::ids::{self, Id};
use crate::http::list_parameters::{LimitParameter, ListParameters, PAGE, PageParameters, StatusParameters};
use crate::http::problem::{Problem, ProblemBody};
use crate::sessions::SessionQuery;

/// List my sessions
///
/// Those of the person whose credential is presented, over all applications; filtered and ordered as any list of sessions.
#[utoipa::path(get, path = "/api/v1/me/sessions", operation_id = "me.sessions", tag = "me", security(("bearer" = [])),
    params(
        ("applicationId" = Option<Uuid>, Query, description = "Only this application's."),
        StatusParameters, FilterParameters, LimitParameter, PageParameters,
    ),
    responses(
        (status = 200, description = "A page of sessions.", body = super::SessionList, headers(
            ("Log-Position" = i64, description = "The log position that this was true at."),
            ("Link" = String, description = "The next page, if there is one (RFC 8288)."),
        )),
        (status = 403, description = "The credential is no person's.", body = ProblemBody),
    ))]
pub async fn my_sessions(
    Person(caller, principal): Person,
    OriginalUri(uri): OriginalUri,
    Query(parameters): Query<ListParameters>,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let mut query = parameters.read(parameters.application()?, PAGE)?;
    // Of nobody else, whatever is asked for.
    let own = SessionQuery { principal: Some(principal), called: None, ..query.filter };
    query.filter = own;
    Ok(listed(app.sessions.queries.list(&caller, &query).await?, &parameters, query.sort, &uri))
}

/// Get one of my sessions
#[utoipa::path(get, path = "/api/v1/me/sessions/{sessionId}", operation_id = "me.session", tag = "me",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "The session, live or ended.", body = SessionEnvelope),
        (status = 403, description = "The credential is no person's.", body = ProblemBody),
    ))]
pub async fn my_session(
    Person(caller, _): Person,
    Id(id, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<SessionEnvelope>, Problem> {
    Ok(Json(SessionEnvelope::of(app.sessions.queries.find(&caller, Way::Person, id).await?)))
}

/// End one of my sessions
///
/// As revoking it: its token and the access token last presented with it open nothing any more.
#[utoipa::path(delete, path = "/api/v1/me/sessions/{sessionId}", operation_id = "me.endSession", tag = "me",
    security(("bearer" = [])), params(("sessionId" = Uuid, Path, description = "The session.")),
    responses(
        (status = 200, description = "One session ended, or none where it had ended before.", body = Ended),
        (status = 403, description = "The credential is no person's.", body = ProblemBody),
    ))]
pub async fn end_my_session(
    Person(caller, _): Person,
    Id(id, ..): Id<ids::Session>,
    State(app): State<App>,
) -> Result<Json<Ended>, Problem> {
    let session = app.sessions.queries.find_to_act_on(&caller, Way::Person, id).await?;
    let revoked = app.sessions.revocations.revoke_session(&caller, &session).await?;
    Ok(Json(revoked.into()))
}
