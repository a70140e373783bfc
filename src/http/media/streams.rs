//! Virtual hosts, their apps and their streams, through which clients find sessions.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use uuid::Uuid;

use super::super::App;
use super::super::problem::Problem;
use super::names::{Names, check_app, ensure_stream};
use super::surface::MediaError;
use super::{Media, MediaAnswer, answer};
use crate::gate::MediaLookup;

/// Names.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MediaNames)]
pub struct NameList(pub Vec<String>);

/// Something that was made, or was there.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = MediaMade)]
pub struct Made {
    pub name: String,
    pub id: Uuid,
}

type NamesAnswer = MediaAnswer<NameList>;
pub type MadeAnswer = MediaAnswer<Made>;

/// List virtual hosts
///
/// The virtual hosts of the key's organization: a virtual host, an app or a stream is there once a stream was declared or
/// a session was reported in it, and as long as the application that stands for the app is not archived.
#[utoipa::path(get, path = "/v1/vhosts", operation_id = "media.listVhosts", tag = "media", security(("accessToken" = [])),
    responses((status = 200, description = "Their names, in order.", body = NamesAnswer)))]
pub async fn list_vhosts(Media(caller): Media, State(app): State<App>) -> Response {
    answer(StatusCode::OK, NameList(app.sessions.media.names_below(&caller, &[])))
}

/// List apps of a virtual host
#[utoipa::path(get, path = "/v1/vhosts/{vhost}/apps", operation_id = "media.listApps", tag = "media",
    security(("accessToken" = [])), params(("vhost" = String, Path, description = "The virtual host.")),
    responses(
        (status = 200, description = "Their names, in order.", body = NamesAnswer),
    ))]
pub async fn list_apps(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<1>,
) -> Result<Response, Problem> {
    let [vhost] = names;
    check_app(&app, &caller, &vhost, None)?;
    Ok(answer(StatusCode::OK, NameList(app.sessions.media.names_below(&caller, &[&vhost]))))
}

/// List streams of an app
#[utoipa::path(get, path = "/v1/vhosts/{vhost}/apps/{app}/streams", operation_id = "media.listStreams", tag = "media",
    security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app."),
    ),
    responses(
        (status = 200, description = "Their names, in order.", body = NamesAnswer),
    ))]
pub async fn list_streams(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<2>,
) -> Result<Response, Problem> {
    let [vhost, media_app] = names;
    check_app(&app, &caller, &vhost, Some(&media_app))?;
    Ok(answer(StatusCode::OK, NameList(app.sessions.media.names_below(&caller, &[&vhost, &media_app]))))
}

/// Declare a stream
///
/// From then on it is there, with no sessions yet. Needs no body, and can be said again. Streams on which sessions are
/// reported, or which a hook is called for, declare themselves.
#[utoipa::path(put, path = "/v1/vhosts/{vhost}/apps/{app}/streams/{stream}", operation_id = "media.declareStream",
    tag = "media", security(("accessToken" = [])),
    params(
        ("vhost" = String, Path, description = "The virtual host."),
        ("app" = String, Path, description = "The app; an application `vhost/app` of the main API stands for it."),
        ("stream" = String, Path, description = "The stream; the `resource` of its sessions in the main API."),
    ),
    responses(
        (status = 201, description = "It is there now.", body = MadeAnswer),
        (status = 200, description = "It was there.", body = MadeAnswer),
        (status = 400, description = "A name is empty, too long, or has characters that none may have.", body = MediaError),
        (status = 409, description = "There are as many streams, or applications made for them, as there may be.", body = MediaError),
    ))]
pub async fn declare_stream(
    Media(caller): Media,
    State(app): State<App>,
    Names(names): Names<3>,
) -> Result<Response, Problem> {
    let names = names.each_ref().map(String::as_str);
    let there = matches!(app.sessions.media.resolve(&caller, names), MediaLookup::Stream(_));
    let stream = ensure_stream(&app, &caller, names).await?;
    let status = if there { StatusCode::OK } else { StatusCode::CREATED };
    Ok(answer(status, Made { id: stream.id, name: stream.stream }))
}
