//! Reads the names in a path, and finds what they name.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use sessiond_core::caller::Caller;
use sessiond_core::media_stream::{MediaStream, checked_segment};
use sessiond_core::relation::{MayAct, MayLook};

use super::super::App;
use super::super::problem::Problem;
use super::Refused;
use crate::gate::MediaLookup;

/// The names of a path in its order: virtual host, app, stream, session, as far as it goes.
pub struct Names<const N: usize>(pub [String; N]);

impl<const N: usize> FromRequestParts<App> for Names<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let wrong = |_| {
            let message = "Names in the path must be UTF-8, percent-encoded where that is needed";
            Problem::new(StatusCode::BAD_REQUEST, "invalid_request", message)
        };
        let path = RawPathParams::from_request_parts(parts, app).await.map_err(wrong)?;
        let mut names = [const { String::new() }; N];
        for (name, (_, value)) in names.iter_mut().zip(path.iter()) {
            value.clone_into(name);
        }
        Ok(Self(names))
    }
}

/// Makes the problem for names by which nothing is found: it names the first that leads nowhere.
pub fn missing(placed: &MediaLookup, [vhost, app, stream]: [&str; 3]) -> Problem {
    let message = match placed {
        MediaLookup::NoVhost => format!("Could not find the virtual host: [{vhost}]"),
        MediaLookup::NoApp => format!("Could not find the application: [{vhost}/{app}]"),
        MediaLookup::NoStream | MediaLookup::Stream(_) => {
            format!("Could not find the stream: [{vhost}/#{vhost}#{app}/{stream}]")
        }
    };
    Problem::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// Finds the stream of these names.
pub fn find_stream(app: &App, caller: &Caller, names: [&str; 3]) -> Result<MediaStream, Problem> {
    match app.sessions.media.resolve(caller, names) {
        MediaLookup::Stream(stream) => Ok(stream),
        placed => Err(missing(&placed, names)),
    }
}

/// Checks that there is this virtual host, and this app if one is named.
pub fn check_app(app: &App, caller: &Caller, vhost: &str, media_app: Option<&str>) -> Result<(), Problem> {
    // No stream has an empty name, so the answer is how many of the other names lead somewhere.
    let names = [vhost, media_app.unwrap_or_default(), ""];
    match app.sessions.media.resolve(caller, names) {
        MediaLookup::NoApp if media_app.is_none() => Ok(()),
        MediaLookup::NoStream | MediaLookup::Stream(_) => Ok(()),
        placed => Err(missing(&placed, names)),
    }
}

/// Finds the stream of these names; makes it if there is none.
pub async fn ensure_stream(app: &App, caller: &Caller, names: [&str; 3]) -> Result<MediaStream, Problem> {
    if let MediaLookup::Stream(stream) = app.sessions.media.resolve(caller, names) {
        return Ok(stream);
    }
    for (what, name) in ["vhost", "app", "stream"].into_iter().zip(names) {
        checked_segment(what, name).map_err(|message| Problem::invalid(what, message))?;
    }
    Ok(app.directory.applications.declare_stream(caller, names.map(str::to_owned)).await?)
}

/// Finds the live session of these names: virtual host, app, stream, session.
pub fn find_session(app: &App, caller: &Caller, names: &[String; 4]) -> Result<MayLook, Refused> {
    let [vhost, media_app, stream, session] = names.each_ref().map(String::as_str);
    let stream = find_stream(app, caller, [vhost, media_app, stream])?;
    app.sessions.media.find(caller, &stream, session).ok_or(Refused::NoSession)
}

/// Finds the same session or, where none is live, the one that had the name last.
pub async fn find_session_or_ended(
    app: &App,
    caller: &Caller,
    names: &[String; 4],
) -> Result<MayLook, Refused> {
    let [vhost, media_app, stream, session] = names.each_ref().map(String::as_str);
    let stream = find_stream(app, caller, [vhost, media_app, stream])?;
    if let Some(live) = app.sessions.media.find(caller, &stream, session) {
        return Ok(live);
    }
    app.sessions.media.find_ended(caller, &stream, session).await?.ok_or(Refused::NoSession)
}

/// Finds the same session, to end it.
pub fn session_to_end(app: &App, caller: &Caller, names: &[String; 4]) -> Result<MayAct, Refused> {
    let [vhost, media_app, stream, session] = names.each_ref().map(String::as_str);
    let stream = find_stream(app, caller, [vhost, media_app, stream])?;
    app.sessions.media.find_to_act_on(caller, &stream, session).ok_or(Refused::NoSession)
}
