//! The MCP gateway: one endpoint an application, before the MCP server it names. It speaks Streamable HTTP of the revisions
//! that have sessions (2025-03-26 to 2025-11-25), and tells clients of later ones to fall back.
//!
//! Reading order: the door (Host, Origin), the order of checks (here), what a message is, how a session opens, how a
//! request goes to the upstream and its answer comes back.

mod door;
pub mod events;
mod forward;
mod kept;
pub mod message;
mod metadata;
mod open;
mod reply;
mod stream;
pub mod upstream;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use forward::speaks_of_lost_session;
pub use upstream::{Upstreams, check_credential, check_upstream};

use crate::auth::{self, Auth};
use crate::config::Config;
use crate::core::application::Application;
use crate::core::caller::{Caller, Scope};
use crate::core::event::Counts;
use crate::core::session::{Refusal as Rule, Session};
use crate::directory::Directory;
use crate::error::Error;
use crate::gate::Pass;
use crate::sessions::Sessions;
use door::Door;
use forward::{Outgoing, is_events};
use kept::Far;
use message::Posted;
use reply::{Fault, Refusal, in_place_of_answer};
use stream::Errand;
use upstream::{PROTOCOL_VERSION, SESSION};

/// Largest POST: what the SDKs' servers take.
const BODY: usize = 4 << 20;

/// The gateway.
pub struct Gateway {
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    auth: Arc<Auth>,
    config: Arc<Config>,
    public_url: Arc<str>,
    stopping: CancellationToken,
    door: Door,
    upstreams: Arc<Upstreams>,
    far: Far,
}

/// A request whose sender may use the application's gateway.
struct Visit {
    caller: Caller,
    application: Application,
    /// The upstream's.
    url: String,
    /// Where the client reads how to authenticate.
    metadata: String,
}

impl Gateway {
    pub fn new(
        sessions: Arc<Sessions>,
        directory: Arc<Directory>,
        auth: Arc<Auth>,
        config: Arc<Config>,
        public_url: Arc<str>,
        stopping: CancellationToken,
        upstreams: Arc<Upstreams>,
    ) -> Self {
        let door = Door::new(&config, &public_url);
        Self { sessions, directory, auth, config, public_url, stopping, door, upstreams, far: Far::default() }
    }
}

/// The gateway's routes. `/mcp` without an id is for clients that know only that: the credential says which application.
pub fn router<S: Clone + Send + Sync + 'static>(gateway: Arc<Gateway>) -> Router<S> {
    Router::new()
        .route("/mcp", any(|State(gateway): State<Arc<Gateway>>, request| gateway.handle(None, request)))
        .route(
            "/mcp/{application}",
            any(|State(gateway): State<Arc<Gateway>>, id: Named, request| {
                gateway.handle(Some(named(id)), request)
            }),
        )
        .merge(metadata::router())
        .with_state(gateway)
}

/// The application in a path, if it is text.
type Named = Result<Path<String>, PathRejection>;

/// What is not even text is no application's id: it goes the way of every other that is none.
fn named(id: Named) -> String {
    id.map(|Path(id)| id).unwrap_or_default()
}

impl Gateway {
    /// Lets a page of an allowed origin read an answer that was given before the request got here.
    pub fn share(&self, parts: &Parts, answer: &mut HeaderMap) {
        if let Ok(origin) = self.door.check(parts) {
            door::share(answer, origin);
        }
    }

    async fn handle(self: Arc<Self>, named: Option<String>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let origin = match self.door.check(&parts) {
            Ok(origin) => origin,
            Err(refusal) => return refusal.into_response(),
        };
        let mut response = match self.serve(named.as_deref(), &parts, body).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        door::share(response.headers_mut(), origin);
        response
    }

    async fn serve(
        self: &Arc<Self>,
        named: Option<&str>,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, Refusal> {
        if parts.method == Method::OPTIONS {
            return Ok(door::preflight());
        }
        if ![Method::GET, Method::POST, Method::DELETE].contains(&parts.method) {
            let refusal =
                Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Fault::new(-32000, "Method not allowed"));
            return Ok(([(header::ALLOW, door::METHODS)], refusal.into_response()).into_response());
        }
        let visit = self.admit(named, parts).await?;
        match parts.method {
            Method::POST => self.post(visit, parts, body).await,
            Method::GET => self.get(visit, parts).await,
            _ => self.delete(visit, parts).await,
        }
    }

    /// Who asks, with which right, for which application: 401, 403, 404 and, for a credential from before a revocation,
    /// 401 again.
    async fn admit(&self, named: Option<&str>, parts: &Parts) -> Result<Visit, Refusal> {
        let id = named.map(Uuid::try_parse).and_then(Result::ok);
        let metadata = metadata::url(&self.public_url, named);
        let refused = |error| Refusal::from_error(error, &metadata);
        let caller = match self.auth.caller(parts).await {
            Ok(caller) => caller,
            Err(Error::Unauthorized { reason: None }) if auth::bearer(&parts.headers).is_some() => {
                let said = ("the token is unknown here".to_owned(), None);
                let refusal = Refusal::unauthorized(Some(said), &metadata);
                return Err(Refusal { nothing_genuine: true, ..refusal });
            }
            Err(error) => return Err(refused(error)),
        };
        if let Some(ended) = caller.ended {
            return Err(refused(Error::Unauthorized { reason: Some(Rule::Ended(ended)) }));
        }
        if caller.session().is_some() {
            // What it opened here would outlive the revocation of the session it belongs to.
            return Err(Refusal::forbidden(
                "A session's own token opens no gateway: present an access token",
            ));
        }
        let id = metadata::check_audience(&caller, id, &metadata)?;
        if !caller.scopes.has(Scope::McpInvoke) {
            return Err(Refusal::insufficient_scope(&metadata));
        }
        if named.is_some_and(|named| Uuid::try_parse(named).is_err()) {
            return Err(Refusal::not_found("Application not found"));
        }
        if id.is_none() && caller.bound_to.is_none() {
            return Err(Refusal::not_found(
                "This credential is bound to no application: use /mcp/{applicationId}",
            ));
        }
        let application = self.directory.gateway_application(&caller, id);
        let application = application.ok_or_else(|| Refusal::not_found("Application not found"))?;
        let url = application.upstream.clone().ok_or_else(|| {
            let way = format!("PUT /api/v1/applications/{}/upstream names one", application.id);
            Refusal::not_found(format!("This application has no upstream MCP server yet: {way}"))
        })?;
        self.sessions.agent_side(&caller, application.number).map_err(refused)?;
        Ok(Visit { caller, application, url, metadata })
    }

    async fn post(self: &Arc<Self>, visit: Visit, parts: &Parts, body: Body) -> Result<Response, Refusal> {
        check_media(&parts.headers)?;
        let body = read_body(body).await?;
        let posted = message::read(&body).map_err(Refusal::bad_request)?;
        let header = door::text(&parts.headers, &PROTOCOL_VERSION);
        if let Some((id, requested)) = posted.unsupported(header) {
            return Err(Refusal::bad_request(message::unsupported_fault(&requested)).to(&id));
        }
        if let Some(initialize) = &posted.initialize {
            return self.initialize(visit, parts, &posted, initialize, body).await;
        }
        let session = self.session(&visit, &parts.headers).await?;
        self.forward(visit, session, parts, posted, body).await
    }

    async fn get(self: &Arc<Self>, visit: Visit, parts: &Parts) -> Result<Response, Refusal> {
        if !door::accepts(&parts.headers, "text/event-stream") {
            let fault = Fault::new(-32000, "Not Acceptable: Client must accept text/event-stream");
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, fault));
        }
        check_version(&parts.headers)?;
        let session = self.session(&visit, &parts.headers).await?;
        self.forward(visit, session, parts, Posted::default(), Bytes::new()).await
    }

    async fn delete(self: &Arc<Self>, visit: Visit, parts: &Parts) -> Result<Response, Refusal> {
        check_version(&parts.headers)?;
        let session = self.session(&visit, &parts.headers).await?;
        let refused = |error| Refusal::from_error(error, &visit.metadata);
        let far = self.far.of(&self.sessions, &session).await.ok();
        self.sessions.disconnect(&visit.caller, session.id).await.map_err(refused)?;
        self.far.remove(session.number);
        if let Some(kept) = far.map(|held| held.now()) {
            self.say_goodbye(
                session.application,
                kept.url.clone(),
                kept.session.clone(),
                Some(kept.protocol_version.clone()),
            );
        }
        // 200 and 204 are what every SDK takes for success; 202 the Python client calls a failure.
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// The session a request belongs to. Unknown, another's and ended are one and the same 404, save that its owner
    /// learns how it ended.
    async fn session(&self, visit: &Visit, headers: &HeaderMap) -> Result<Session, Refusal> {
        let Some(id) = headers.get(&SESSION) else {
            let fault = Fault::new(-32000, "Bad Request: Mcp-Session-Id header is required");
            return Err(Refusal::bad_request(fault));
        };
        let id = id.to_str().unwrap_or("");
        let open = self.auth.mcp_session(id).and_then(|number| self.sessions.open_session(number));
        let own = open.filter(|session| {
            session.application == visit.application.number
                && self.sessions.belongs_to(&visit.caller, session)
        });
        match own {
            Some(session) => Ok(session),
            None => {
                let reason = self.sessions.how_mcp_ended(&visit.caller, visit.application.number, id).await;
                let reason = reason.map_err(|error| Refusal::from_error(error, &visit.metadata))?;
                Err(Refusal::session_not_found(reason))
            }
        }
    }

    /// Carries a request to the upstream and the answer back. It is registered before anything else, so that a revocation
    /// finds it.
    async fn forward(
        self: &Arc<Self>,
        visit: Visit,
        session: Session,
        parts: &Parts,
        posted: Posted,
        body: Bytes,
    ) -> Result<Response, Refusal> {
        let pass = match self.sessions.enter(&visit.caller, session.number) {
            Ok(pass) => pass,
            // A revocation that is under way covers it: for its owner, who has a fresh credential, it is over.
            Err(Error::Unauthorized { reason: Some(Rule::Revoked(reason)) }) => {
                return Err(Refusal::session_not_found(Some(reason)));
            }
            Err(Error::Denied { code: "session_suspended", .. }) => {
                return Ok(in_place_of_answer(&Fault::suspended(), &posted.ids, posted.batch));
            }
            Err(error) => return Err(Refusal::from_error(error, &visit.metadata)),
        };
        let far = self.far.of(&self.sessions, &session).await;
        let far = far.map_err(|error| Refusal::from_error(error, &visit.metadata))?;
        let counts = Counts { requests: 1, bytes_in: body.len() as u64, bytes_out: 0 };
        self.sessions.observe(&visit.caller, &session, counts);
        let errand = Errand {
            sessions: self.sessions.clone(),
            caller: visit.caller,
            number: session.number,
            pass: Some(pass),
            ids: posted.ids,
            batch: posted.batch,
            stopping: self.stopping.clone(),
        };
        let outgoing = Outgoing {
            application: session.application,
            method: parts.method.clone(),
            headers: upstream::inward(&parts.headers),
            body,
        };
        match errand.wait(self.exchange(&session, &far, &visit.url, outgoing)).await {
            Err(fault) => match errand.pass.as_ref().and_then(Pass::reason) {
                // There is no call to answer with the reason.
                Some(reason) if errand.ids.is_empty() => Err(Refusal::session_not_found(Some(reason))),
                _ => Ok(in_place_of_answer(&fault, &errand.ids, errand.batch)),
            },
            Ok(answer) => {
                let events = is_events(&answer.head.headers);
                let empty = matches!(answer.head.status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT);
                let headers = outward(&answer.head.headers, events);
                let body =
                    if empty { Body::empty() } else { errand.relay(Bytes::new(), Some(answer.body), events) };
                let mut response = (answer.head.status, body).into_response();
                *response.headers_mut() = headers;
                Ok(response)
            }
        }
    }
}

/// What the SDKs' servers ask of a POST (a convention of theirs, not of the specification).
fn check_media(headers: &HeaderMap) -> Result<(), Refusal> {
    if !(door::accepts(headers, "application/json") && door::accepts(headers, "text/event-stream")) {
        let text = "Not Acceptable: Client must accept both application/json and text/event-stream";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, Fault::new(-32000, text)));
    }
    let content_type = door::text(headers, &header::CONTENT_TYPE).unwrap_or("");
    let media = content_type.split(';').next().unwrap_or(content_type).trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let text = "Unsupported Media Type: Content-Type must be application/json";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Fault::new(-32000, text)));
    }
    Ok(())
}

/// MCP 2025-11-25, basic/transports: an unsupported `MCP-Protocol-Version` MUST be 400.
fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    match Posted::default().unsupported(door::text(headers, &PROTOCOL_VERSION)) {
        Some((_, requested)) => Err(Refusal::bad_request(message::unsupported_fault(&requested))),
        None => Ok(()),
    }
}

/// The whole of a POST. Of one that is too large some more is read and thrown away, so that a client that is still writing
/// gets to read the answer.
async fn read_body(mut body: Body) -> Result<Bytes, Refusal> {
    let (mut whole, mut length) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Refusal::bad_request(Fault::parse("Parse error: the body broke off")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= BODY {
            whole.extend_from_slice(&data);
        } else if length > 2 * BODY {
            break;
        }
    }
    if length > BODY {
        let fault = Fault::invalid_request("Payload Too Large: a message must be at most 4 MiB");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, fault));
    }
    Ok(whole.freeze())
}

/// The head of an answer that is handed on.
fn outward(headers: &HeaderMap, events: bool) -> HeaderMap {
    let mut headers = upstream::outward(headers);
    if events {
        // Otherwise proxies hold events back until a buffer is full.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    headers
}
