//! AdmissionWebhooks of OvenMediaEngine: a media server asks whether a viewer may come in, and says when one has left. It
//! authenticates by a signature over the body, and is answered in the engine's own form, not in the surface's.

use std::net::IpAddr;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use sessiond_core::admission_hook::AdmissionHook;
use sessiond_core::caller::Caller;
use sessiond_core::media_stream::{MediaStream, checked_segment};
use sessiond_core::reason::Reason;
use sessiond_core::relation::MayAct;
use sessiond_core::session::Session;
use url::Url;
use uuid::Uuid;

use super::super::App;
use super::super::extract::{body_of_stranger, read_object};
use super::super::problem::{Challenge, Problem};
use super::names::ensure_stream;
use super::sessions::{name_taken, user_agent, viewer};
use super::surface::MediaError;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::error::Error;
use crate::gate::MediaLookup;
use crate::secret;
use crate::sessions::{NewSession, Sessions};

/// The header of the engine's signature.
const SIGNATURE: &str = "x-ome-signature";
/// The length of a signature: twenty bytes in base64 without padding.
const SIGNATURE_LENGTH: usize = 27;

/// What a media server says of a viewer or of whoever sends a stream. Unknown members are ignored.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = HookCall)]
pub struct Call {
    /// None where the engine itself asks, for a stream that it pulls.
    client: Option<Client>,
    request: Asked,
}

/// The other end of the connection.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = HookClient)]
pub struct Client {
    address: String,
    port: u16,
    /// The address behind a proxy.
    real_ip: Option<String>,
    user_agent: Option<String>,
}

/// What it asks for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = HookRequest)]
pub struct Asked {
    direction: Direction,
    protocol: Option<String>,
    /// Older engines ask only before somebody comes in, and do not say so.
    #[serde(default)]
    status: Status,
    /// The app and the stream are in its path, or in its `streamid`; the session's name is its `session`.
    url: String,
    /// Where it was sent instead; when it closes.
    new_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = HookDirection)]
pub enum Direction {
    Incoming,
    Outgoing,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = HookStatus)]
pub enum Status {
    #[default]
    Opening,
    Closing,
}

/// Whether it may come in; empty where something was only said.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = HookReply)]
pub struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    allowed: Option<bool>,
    /// Milliseconds until the session's lifetime is over: then it is to be cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    lifetime: Option<i64>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

impl Reply {
    const SEEN: Self = Self { allowed: None, lifetime: None, reason: None };

    fn allowed(lifetime: Option<TimeDelta>) -> Self {
        // 0 is for ever.
        let lifetime = lifetime.map(|lifetime| lifetime.num_milliseconds().max(1));
        Self { allowed: Some(true), lifetime, reason: None }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self { allowed: Some(false), lifetime: None, reason: Some(reason.into()) }
    }
}

/// Call a hook
///
/// What OvenMediaEngine's AdmissionWebhooks send, with the hook's secret as `SecretKey`. `outgoing` and `opening`: the
/// stream is declared, and a session opened on it, by the name in `?session=` or one made of the connection; refused where a
/// session of that name is live, and at a limit. `closing` ends the session that this connection opened. `incoming` declares
/// the stream. A decision is always 200.
#[utoipa::path(post, path = "/v1/hooks/ome/{hookId}", operation_id = "media.callHook", tag = "media",
    security(("hookSignature" = [])),
    params(("hookId" = Uuid, Path, description = "The hook.")),
    request_body(content = Call, description = "At most 16 KiB: it has to be read before it is known whether it is signed."),
    responses(
        (status = 200, description = "The decision, or `{}` to whoever leaves.", body = Reply),
        (status = 401, description = "No such hook, or it is not signed with its secret; nothing was recorded.", body = MediaError),
    ))]
pub async fn call_hook(
    State(app): State<App>,
    id: Result<Path<Uuid>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let called = match id {
        Ok(Path(id)) => app.directory.admission_hooks.called(id).await?,
        Err(_) => None,
    };
    let (hook, caller, secrets) = called.ok_or_else(unsigned)?;
    let signature = parts.headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
    let signature = signature.filter(|text| text.len() == SIGNATURE_LENGTH).ok_or_else(unsigned)?;
    let bytes = body_of_stranger(Request::from_parts(parts.clone(), body), &app).await?;
    if !secrets.iter().any(|secret| secret::hook_signed(secret, &bytes, signature)) {
        return Err(unsigned());
    }
    let call: Call = read_object(&bytes)?;
    let reply = decide(&app, &parts, &hook, caller, &call).await?;
    Ok((StatusCode::OK, Json(reply)).into_response())
}

/// The problem of a call that is not signed, which is the same whether or not there is such a hook.
fn unsigned() -> Problem {
    let message = "Not signed with the secret of this hook";
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
    Problem { challenge: Some(Challenge::Bare), ..problem }
}

async fn decide(
    app: &App,
    parts: &Parts,
    hook: &AdmissionHook,
    caller: Caller,
    call: &Call,
) -> Result<Reply, Problem> {
    let caller = Auth::making(parts, caller);
    let viewer = Viewer { sessions: &app.sessions, clock: &app.clock, hook, call };
    match (call.request.status, call.request.direction) {
        (Status::Closing, Direction::Incoming) => Ok(Reply::SEEN),
        (Status::Closing, Direction::Outgoing) => {
            viewer.leave(&caller).await?;
            Ok(Reply::SEEN)
        }
        (Status::Opening, direction) => {
            let target = match Target::read(&call.request.url) {
                Ok(target) => target,
                Err(reason) => return Ok(Reply::refused(reason)),
            };
            let names = [hook.vhost.as_str(), &target.app, &target.stream];
            let stream = match ensure_stream(app, &caller, names).await {
                Ok(stream) => stream,
                Err(problem) => return refusal(problem),
            };
            if direction == Direction::Incoming {
                return Ok(Reply::allowed(None));
            }
            let application = app.directory.public_ids.application(stream.application);
            viewer.enter(&caller, application, &stream, &target).await
        }
    }
}

/// Turns a refusal of the rules into a reply; a failure of the service itself stays a problem.
fn refusal(problem: Problem) -> Result<Reply, Problem> {
    if problem.status.is_server_error() { Err(problem) } else { Ok(Reply::refused(problem.message)) }
}

/// The viewer that a hook's call is about.
struct Viewer<'a> {
    sessions: &'a Sessions,
    clock: &'a Clock,
    hook: &'a AdmissionHook,
    call: &'a Call,
}

impl Viewer<'_> {
    /// A digest of the connection and of `more`, which nobody can make without the key. Calls that name no connection all
    /// have the same.
    fn digest(&self, more: &[&str]) -> String {
        let client = self.call.client.as_ref();
        let port = client.map_or(0, |client| client.port).to_be_bytes();
        let address = client.map_or("", |client| client.address.as_str());
        let mut parts: Vec<&[u8]> = vec![self.hook.id.as_bytes(), address.as_bytes(), &port];
        parts.extend(more.iter().map(|part| part.as_bytes()));
        self.sessions.media.name_for(&parts)
    }

    /// The session's name: the one that the URL asks for, else one of this connection and stream.
    fn name(&self, target: &Target) -> String {
        target.session.clone().unwrap_or_else(|| self.digest(&[&target.app, &target.stream]))
    }

    async fn enter(
        &self,
        caller: &Caller,
        application: Uuid,
        stream: &MediaStream,
        target: &Target,
    ) -> Result<Reply, Problem> {
        let name = self.name(target);
        if let Err(reason) = checked_segment("session", &name) {
            return Ok(Reply::refused(reason));
        }
        let client = self.call.client.as_ref();
        let address = client.map(|client| client.real_ip.as_deref().unwrap_or(&client.address));
        let address = address.and_then(|address| address.parse::<IpAddr>().ok());
        let address = address.map(|address| address.to_canonical().to_string());
        let protocol = self.call.request.protocol.as_deref().filter(|text| !text.is_empty());
        let new = NewSession {
            application: Some(application),
            token_identifier: Some(self.digest(&[])),
            ip: address,
            user_agent: user_agent(client.and_then(|client| client.user_agent.as_deref())),
            lifetime: self.hook.lifetime.map(|seconds| TimeDelta::seconds(seconds.into())),
            silent: true,
            ..viewer(stream, name.clone(), protocol, client.map(|client| client.port))
        };
        let session = match self.sessions.lifecycle.connect(caller, new).await {
            Ok(opened) => opened.session,
            // A call that is repeated because its response was lost finds its own session.
            Err(Error::KeyTaken(_)) => match self.own(caller, stream, &name).await? {
                Some(session) => Session::clone(&session),
                None => return Ok(Reply::refused(name_taken(&name))),
            },
            Err(error) => return refusal(error.into()),
        };
        Ok(Reply::allowed(Some(session.lifetime_ends_at - self.clock.now())))
    }

    /// Ends the session that this connection opened; a session of that name that another connection has opened since is left
    /// alone.
    async fn leave(&self, caller: &Caller) -> Result<(), Problem> {
        let request = &self.call.request;
        let urls = [Some(request.url.as_str()), request.new_url.as_deref()];
        for target in urls.into_iter().flatten().filter_map(|url| Target::read(url).ok()) {
            let names = [self.hook.vhost.as_str(), &target.app, &target.stream];
            let MediaLookup::Stream(stream) = self.sessions.media.resolve(caller, names) else { continue };
            if let Some(session) = self.own(caller, &stream, &self.name(&target)).await? {
                self.sessions.lifecycle.end(caller, &session, Reason::Client).await?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The live session of this name, if this connection opened it.
    async fn own(&self, caller: &Caller, stream: &MediaStream, name: &str) -> Result<Option<MayAct>, Error> {
        let Some(session) = self.sessions.media.find_to_act_on(caller, stream, name) else { return Ok(None) };
        let own = self.sessions.media.is_of_connection(&session, &self.digest(&[])).await?;
        Ok(own.then_some(session))
    }
}

/// What the URL of a stream names.
#[derive(Debug, PartialEq)]
struct Target {
    app: String,
    stream: String,
    session: Option<String>,
}

impl Target {
    /// Reads `ws`, `http`, `rtmp` and `srt` URLs: `…/app/stream[/playlist][?session=…]`. An SRT URL has all that in its
    /// `streamid`, as a URL, or as `[vhost/]app/stream[/playlist]`.
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("The url names no app and stream: [{text}]");
        let url = Url::parse(text).map_err(|_| wrong())?;
        if let Some(id) = query(&url, "streamid") {
            let session = query(&url, "session");
            let target = Self::of_stream_id(&id).ok_or_else(wrong)?;
            return Ok(Self { session: target.session.or(session), ..target });
        }
        Self::of_url(&url).ok_or_else(wrong)
    }

    fn of_url(url: &Url) -> Option<Self> {
        let mut segments = url.path_segments()?;
        let (app, stream) = (decoded(segments.next()?)?, decoded(segments.next()?)?);
        Some(Self { app, stream, session: query(url, "session") })
    }

    fn of_stream_id(id: &str) -> Option<Self> {
        if id.contains("://") {
            return Self::of_url(&Url::parse(id).ok()?);
        }
        // The text is joined to a base, so that it is parsed as other URLs are.
        let url = Url::parse("srt://host/").ok()?.join(&format!("/{}", id.trim_start_matches('/'))).ok()?;
        let segments = url.path_segments()?.filter(|segment| !segment.is_empty()).count();
        if segments < 3 {
            return Self::of_url(&url);
        }
        let mut segments = url.path_segments()?.skip(1);
        let (app, stream) = (decoded(segments.next()?)?, decoded(segments.next()?)?);
        Some(Self { app, stream, session: query(&url, "session") })
    }
}

/// The first value of this name in a URL's query; none where it is empty.
fn query(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs().filter(|(key, _)| key == name);
    pairs.next().map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
}

/// Decodes a segment of a path; none where it is empty or not UTF-8.
fn decoded(segment: &str) -> Option<String> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    Some(decoded.into_owned()).filter(|decoded| !decoded.is_empty())
}
