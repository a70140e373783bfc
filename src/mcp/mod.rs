//! The MCP gateway: one endpoint for each application, before the MCP server that the application names. It speaks
//! every revision: Streamable HTTP with sessions (2025-03-26 to 2025-11-25) and without (2026-07-28), and HTTP+SSE
//! (2024-11-05).
//!
//! Reading order: Host and Origin (origin), the order of checks (here), what a message is and of which era (message,
//! era), how a session opens (initialize), how a request goes to the upstream (forward), and how its answer comes back:
//! as it is (relay), or on a stream that a client can resume (resumable_stream, pump).

pub mod budget;
mod detach;
mod elsewhere;
pub mod era;
pub mod event_id;
mod forward;
mod get_stream;
mod goodbye;
mod goodbye_sender;
mod in_flight;
mod initialize;
mod legacy;
pub mod lost_session;
pub mod message;
pub mod meta;
mod modern;
mod origin;
mod pump;
mod relay;
mod reopen;
mod reply;
mod request_headers;
mod resource_metadata;
mod resumable_stream;
mod sse;
mod sse_connection;
pub mod sse_events;
mod sse_exchange;
mod sse_session;
mod stream_registry;
pub mod upstream;
mod upstream_sessions;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use lost_session::speaks_of_lost_session;
pub use upstream::{TO_CLIENT, TO_UPSTREAM, Upstreams, check_credential, check_headers, check_upstream};

use crate::auth::{self, Auth};
use crate::clock::Clock;
use crate::config::Config;
use crate::config::names::Names;
use crate::directory::Directory;
use crate::error::Error;
use crate::limits::{Bodies, NotRead, Sender};
use crate::nodes::{Claims, Peers};
use crate::sessions::Sessions;
use budget::{Budget, BudgetLimits};
use era::Era;
use goodbye::Goodbyes;
use origin::AllowedOrigins;
use reply::{ErrorResponse, RpcError};
use sessiond_core::application::Application;
use sessiond_core::caller::Caller;
use sessiond_core::scope::Scope;
use sessiond_core::session::Refusal;
use sse_connection::SseConnections;
use stream_registry::ResumableStreams;
use upstream::CookieJars;
use upstream_sessions::UpstreamSessions;

/// The largest POST that is taken, as large as the SDKs' servers take.
const BODY: usize = 4 << 20;

/// The gateway.
pub struct Gateway {
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    auth: Arc<Auth>,
    clock: Clock,
    config: Arc<Config>,
    names: Arc<Names>,
    stopping: CancellationToken,
    allowed_origins: AllowedOrigins,
    upstreams: Arc<Upstreams>,
    upstream_sessions: UpstreamSessions,
    streams: ResumableStreams,
    sse_connections: SseConnections,
    bodies: Arc<Bodies>,
    jars: CookieJars,
    goodbyes: Arc<Goodbyes>,
    budget: Arc<Budget>,
    peers: Arc<Peers>,
    claims: Claims,
}

/// A request whose sender may use the application's gateway.
#[derive(Clone)]
struct RequestContext {
    caller: Caller,
    application: Application,
    /// The upstream's URL.
    url: String,
    /// The URL of the document that tells the client how to authenticate.
    metadata: String,
    /// The beginning of our URLs, as this client knows them.
    base: String,
}

impl Gateway {
    #[allow(clippy::too_many_arguments)] // it is made in one place, of everything that it works with
    pub fn new(
        sessions: Arc<Sessions>,
        directory: Arc<Directory>,
        auth: Arc<Auth>,
        clock: Clock,
        config: Arc<Config>,
        names: Arc<Names>,
        stopping: CancellationToken,
        upstreams: Arc<Upstreams>,
        bodies: Arc<Bodies>,
        (peers, claims): (Arc<Peers>, Claims),
    ) -> Self {
        let allowed_origins = AllowedOrigins::new(&config, &names);
        let (upstream_sessions, streams, sse_connections, jars) = Default::default();
        let bytes = |mib: u32| (mib as usize) << 20;
        let budget = Budget::new(BudgetLimits {
            stream: bytes(config.mcp_stream_mib),
            session: bytes(config.mcp_session_mib),
            application: bytes(config.mcp_application_mib),
            all: bytes(config.mcp_total_mib),
        });
        let goodbyes = Goodbyes::new(sessions.gateway.departures());
        Self {
            sessions,
            directory,
            auth,
            clock,
            config,
            names,
            stopping,
            allowed_origins,
            upstreams,
            upstream_sessions,
            streams,
            sse_connections,
            bodies,
            jars,
            goodbyes,
            budget,
            peers,
            claims,
        }
    }
}

/// The gateway's routes, each with and without a slash at its end. `/mcp` without an id serves clients that know no id:
/// the credential says which application is meant.
pub fn router<S: Clone + Send + Sync + 'static>(gateway: Arc<Gateway>) -> Router<S> {
    Router::new()
        .merge(routes("/mcp", Endpoint::Streamable))
        .merge(routes("/mcp/sse", Endpoint::Sse))
        .merge(routes("/mcp/messages", Endpoint::SseMessages))
        .merge(routes_of_application("/mcp/{application}", Endpoint::Streamable))
        .merge(routes_of_application("/mcp/{application}/sse", Endpoint::Sse))
        .merge(routes_of_application("/mcp/{application}/messages", Endpoint::SseMessages))
        .with_state(gateway)
}

/// The documents about the gateway, for whoever has no token yet.
pub fn documents<S: Clone + Send + Sync + 'static>(gateway: Arc<Gateway>) -> Router<S> {
    resource_metadata::router().with_state(gateway)
}

/// The kinds of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    /// The endpoint of Streamable HTTP, in all revisions that have it.
    Streamable,
    /// The endpoint of HTTP+SSE for the stream.
    Sse,
    /// The endpoint of HTTP+SSE for the client's messages.
    SseMessages,
}

fn routes(path: &str, endpoint: Endpoint) -> Router<Arc<Gateway>> {
    let handle = move |State(gateway): State<Arc<Gateway>>, request| gateway.handle(endpoint, None, request);
    Router::new().route(path, any(handle)).route(&format!("{path}/"), any(handle))
}

fn routes_of_application(path: &str, endpoint: Endpoint) -> Router<Arc<Gateway>> {
    let handle = move |State(gateway): State<Arc<Gateway>>, id: IdInPath, request| {
        gateway.handle(endpoint, Some(named(id)), request)
    };
    Router::new().route(path, any(handle)).route(&format!("{path}/"), any(handle))
}

/// The application's id in a path, if the path is text.
type IdInPath = Result<Path<String>, PathRejection>;

/// Reads the id. One that is not even text becomes the empty id, which is refused like every other that no application
/// has.
fn named(id: IdInPath) -> String {
    id.map(|Path(id)| id).unwrap_or_default()
}

impl Gateway {
    /// Lets a page of an allowed origin read a response that was given before the request got to the gateway.
    pub fn set_cors_headers(&self, parts: &Parts, headers: &mut HeaderMap) {
        if let Ok(origin) = self.allowed_origins.check(parts) {
            origin::set_cors_headers(headers, origin);
        }
    }

    /// Serves a request from the check of its origin to the headers of its response.
    async fn handle(
        self: Arc<Self>,
        endpoint: Endpoint,
        named: Option<String>,
        request: Request,
    ) -> Response {
        let (parts, body) = request.into_parts();
        let origin = match self.allowed_origins.check(&parts) {
            Ok(origin) => origin,
            Err(refusal) => return refusal.into_response(),
        };
        let mut response = match self.serve(endpoint, named.as_deref(), &parts, body).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        origin::set_cors_headers(response.headers_mut(), origin);
        response
    }

    /// Serves a request of an allowed origin, in the order of the checks.
    async fn serve(
        self: &Arc<Self>,
        endpoint: Endpoint,
        named: Option<&str>,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, ErrorResponse> {
        if parts.method == Method::OPTIONS {
            return Ok(origin::preflight(&parts.headers));
        }
        if upstream::is_loop(&parts.headers) {
            return Err(ErrorResponse::loop_detected());
        }
        if ![Method::GET, Method::POST, Method::DELETE].contains(&parts.method) {
            return Err(ErrorResponse::method_not_allowed(origin::METHODS));
        }
        let context = self.admit(named, parts).await?;
        match (endpoint, &parts.method) {
            (Endpoint::Sse, _) => self.open_sse(context, parts).await,
            (Endpoint::SseMessages, _) => self.on_message(context, parts, body).await,
            (Endpoint::Streamable, &Method::POST) => self.post(context, parts, body).await,
            (Endpoint::Streamable, &Method::GET) => self.get(context, parts).await,
            (Endpoint::Streamable, _) => self.delete(context, parts).await,
        }
    }

    /// Finds out who asks, with which right, for which application. It refuses with 401, 403, 404 and, for a credential
    /// from before a revocation, 401 again.
    async fn admit(&self, named: Option<&str>, parts: &Parts) -> Result<RequestContext, ErrorResponse> {
        let id = named.map(Uuid::try_parse).and_then(Result::ok);
        let base = self.names.asked(&parts.uri, &parts.headers);
        let metadata = resource_metadata::url(&base, parts.uri.path());
        let refused = |error| ErrorResponse::from_error(error, &metadata);
        let caller = match self.auth.caller(parts).await {
            Ok(caller) => caller,
            Err(Error::Unauthorized { reason: None }) if auth::bearer(&parts.headers).is_some() => {
                let said = ("the token is unknown here".to_owned(), None);
                let refusal = ErrorResponse::unauthorized(Some(said), &metadata);
                return Err(ErrorResponse { nothing_genuine: true, ..refusal });
            }
            Err(error) => return Err(refused(error)),
        };
        if let Some(ended) = caller.ended {
            return Err(refused(Error::Unauthorized { reason: Some(Refusal::Ended(ended)) }));
        }
        if caller.session().is_some() {
            // A session that such a token opened here would outlive the revocation of the session that the token
            // belongs to.
            return Err(ErrorResponse::forbidden(
                "A session's own token opens no gateway: present an access token",
            ));
        }
        let id = resource_metadata::check_audience(&caller, id, &metadata)?;
        if !caller.scopes.has(Scope::McpInvoke) {
            return Err(ErrorResponse::insufficient_scope(&metadata));
        }
        if named.is_some_and(|named| Uuid::try_parse(named).is_err()) {
            return Err(ErrorResponse::not_found("Application not found"));
        }
        if id.is_none() && caller.bound_to.is_none() {
            return Err(ErrorResponse::not_found(
                "This credential is bound to no application: use /mcp/{applicationId}",
            ));
        }
        let application = self.directory.applications.for_gateway(&caller, id);
        let application = application.ok_or_else(|| ErrorResponse::not_found("Application not found"))?;
        let url = application.upstream.clone().ok_or_else(|| {
            let way = format!("PUT /api/v1/applications/{}/upstream names one", application.id);
            ErrorResponse::not_found(format!("This application has no upstream MCP server yet: {way}"))
        })?;
        self.sessions.admission.check_agent_side(&caller, application.number).map_err(refused)?;
        Ok(RequestContext { caller, application, url, metadata, base })
    }

    /// Reads the whole of a POST's body.
    async fn read_body(&self, body: Body) -> Result<Bytes, ErrorResponse> {
        self.bodies.read(body, BODY, Sender::Known).await.map_err(not_read)
    }

    /// Serves a POST of Streamable HTTP: reads its message once, and tells by it which era it is of.
    async fn post(
        self: &Arc<Self>,
        context: RequestContext,
        parts: &Parts,
        body: Body,
    ) -> Result<Response, ErrorResponse> {
        check_media(&parts.headers)?;
        let body = self.read_body(body).await?;
        let posted = message::read(&body).map_err(ErrorResponse::bad_request)?;
        match era::of(&posted, &parts.headers)? {
            Era::Modern => self.serve_modern(context, parts, posted, body).await,
            Era::Unknown => self.refused_by_upstream(context, parts, posted, body).await,
            Era::Legacy => match &posted.initialize {
                Some(_) => self.initialize(context, parts, &posted, body).await,
                None => {
                    let session = self.session(&context, &parts.headers).await?;
                    self.forward(context, session, parts, posted, body).await
                }
            },
        }
    }
}

/// Checks the `Accept` and `Content-Type` of a POST as the SDKs' servers do (a convention of theirs, not of the
/// specification).
fn check_media(headers: &HeaderMap) -> Result<(), ErrorResponse> {
    if !(request_headers::accepts(headers, "application/json")
        && request_headers::accepts(headers, "text/event-stream"))
    {
        let text = "Not Acceptable: Client must accept both application/json and text/event-stream";
        return Err(ErrorResponse::new(StatusCode::NOT_ACCEPTABLE, RpcError::new(-32000, text)));
    }
    check_content(headers)
}

/// Checks that a body is JSON without a content coding.
fn check_content(headers: &HeaderMap) -> Result<(), ErrorResponse> {
    if let Some(coding) = upstream::coding(headers) {
        let text = format!(
            "Unsupported Media Type: Content-Encoding {coding:?} is not taken here: send it as it is"
        );
        return Err(ErrorResponse::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, RpcError::new(-32000, text)));
    }
    let content_type = request_headers::text(headers, &header::CONTENT_TYPE).unwrap_or("");
    let media = content_type.split(';').next().unwrap_or(content_type).trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let text = "Unsupported Media Type: Content-Type must be application/json";
        return Err(ErrorResponse::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, RpcError::new(-32000, text)));
    }
    Ok(())
}

/// The response to a POST that was not read.
fn not_read(reason: NotRead) -> ErrorResponse {
    match reason {
        NotRead::TooLarge => {
            let rpc_error = RpcError::invalid_request("Payload Too Large: a message must be at most 4 MiB");
            ErrorResponse::new(StatusCode::PAYLOAD_TOO_LARGE, rpc_error)
        }
        NotRead::Full => {
            let rpc_error = RpcError::new(-32000, "Too much is being sent at the moment: try again");
            let refusal = ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, rpc_error);
            ErrorResponse { retry_after: Some(1), ..refusal }
        }
        NotRead::Broken(_) => ErrorResponse::bad_request(RpcError::parse("Parse error: the body broke off")),
    }
}

/// Checks that a request for a stream accepts events.
fn check_takes_events(headers: &HeaderMap) -> Result<(), ErrorResponse> {
    if !request_headers::accepts(headers, "text/event-stream") {
        let rpc_error = RpcError::new(-32000, "Not Acceptable: Client must accept text/event-stream");
        return Err(ErrorResponse::new(StatusCode::NOT_ACCEPTABLE, rpc_error));
    }
    Ok(())
}

/// A response with those headers of the upstream's answer that may be handed on.
fn client_response(status: StatusCode, headers: &HeaderMap, events: bool, body: Body) -> Response {
    let mut response = (status, body).into_response();
    *response.headers_mut() = client_headers(headers, events);
    response
}

/// The headers of a response that hands on an upstream's answer.
fn client_headers(headers: &HeaderMap, events: bool) -> HeaderMap {
    let mut headers = upstream::visible_to_client(headers);
    if events {
        // A stream that is resumed from memory has no upstream's head, and most SDKs take nothing for a stream that
        // does not say so.
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("text/event-stream"));
        // Without this header proxies hold events back until a buffer is full.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    headers
}
