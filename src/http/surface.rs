//! A surface is one way in, as a value: it says everything that requests meet because of where they came in. The value is
//! layered on the surface's own routes, so that every layer and handler is handed the surface, and none reads a path to find
//! out which one it is.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Router, extract};
use futures_util::future::BoxFuture;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::document::Documented;
use super::problem::{IsProblem, Problem};
use super::{App, idempotency, limits_layer, request_layer, unknown};
use crate::limits::Left;

/// The largest body where a surface says nothing else.
pub const BODY: usize = 64 << 10;
/// The largest body of many reports at once.
pub const MANY: usize = 2 << 20;

/// One way in.
#[derive(Clone, Copy)]
pub struct Surface {
    /// The prefixes of the surface's paths. A path below one of them that leads nowhere is answered by this surface; the
    /// surface with the empty prefix answers for whatever is below no other.
    pub prefixes: &'static [&'static str],
    /// The prefix of the names of components that only this surface has in the document.
    pub name: &'static str,
    pub errors: Errors,
    pub authentication: Authentication,
    /// Whether OPTIONS is answered with 204, whatever is asked for and whoever asks.
    pub answers_options: bool,
    /// The largest body that is read of a known sender, in bytes.
    pub body_limit: usize,
    /// How many times the configured time a body may take to come.
    pub body_patience: u32,
    /// Whether requests that take longer than configured are given up.
    pub deadline: bool,
    /// Whether `Idempotency-Key` applies to what writes.
    pub idempotency: bool,
    /// Whether requests are counted against the limits, and timed. Those of probes are not.
    pub limits: bool,
    /// The headers about limits that its clients look for besides the standard ones.
    pub limit_headers: Option<LimitHeaders>,
    /// Sets the CORS headers on a response that was given before the request reached the surface's handlers.
    pub cors: Option<fn(&App, &Parts, &mut HeaderMap)>,
    /// The headers by which every response tells browsers what they may do with it.
    pub security_headers: &'static [(HeaderName, HeaderValue)],
}

/// How a surface shows errors. Each error is made once, as a problem, and gets this shape on its way out.
#[derive(Clone, Copy)]
pub struct Errors {
    /// The schema of the bodies in the document.
    pub schema: &'static str,
    /// The body for a fault; none where problems stay as they are.
    pub body: Option<fn(&Fault<'_>) -> Response>,
    /// The challenge on 401, in place of the problem's own; no other status has one then.
    pub challenge: Option<&'static str>,
    /// The message where there is nothing at a path.
    pub nothing_there: &'static str,
    /// Whether methods that a path does not take are answered as if the path were not there.
    pub hides_methods: bool,
}

/// What an error body is made of.
pub struct Fault<'a> {
    pub status: StatusCode,
    /// A stable word for programs.
    pub code: &'static str,
    pub message: &'a str,
    pub request_id: &'a str,
}

/// How the surface authenticates.
#[derive(Clone, Copy)]
pub enum Authentication {
    /// Each handler says which credential it takes, by an extractor of [`extract`](super::extract) or on its own.
    Handlers,
    /// This check authenticates for every handler that takes [`Admitted`](super::extract::Admitted).
    Admitted(Check),
    /// This check authenticates before anything else, so that a client without a credential does not even learn what is
    /// there.
    First(Check),
}

/// A check that finds the caller by the head of a request.
pub type Check = for<'a> fn(&'a App, &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>>;

/// Headers about limits that are a surface's own.
#[derive(Clone, Copy)]
pub struct LimitHeaders {
    /// Names and descriptions, for the document.
    pub documented: &'static [(&'static str, &'static str)],
    /// Sets the headers on a response.
    pub set: fn(&mut HeaderMap, Left, Time),
}

/// Nothing here is a page for browsers, and nothing may be made to look like one.
static SECURITY: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// A surface without a prefix that behaves like the main one. Others are made of it by naming what is different about them.
pub static PLAIN: Surface = Surface {
    prefixes: &[],
    name: "",
    errors: Errors {
        schema: "Problem",
        body: None,
        challenge: None,
        nothing_there: "Not found: there is nothing at this path",
        hides_methods: false,
    },
    authentication: Authentication::Handlers,
    answers_options: false,
    body_limit: BODY,
    body_patience: 1,
    deadline: true,
    idempotency: false,
    limits: true,
    limit_headers: None,
    cors: None,
    security_headers: &SECURITY,
};

impl Surface {
    /// The surface that a request came in by.
    pub fn of(extensions: &Extensions) -> &'static Self {
        extensions.get::<&'static Self>().copied().unwrap_or(&PLAIN)
    }

    /// Gives a problem the shape of the surface's errors.
    pub fn shaped(&self, response: Response, request_id: &str) -> Response {
        let (Some(body), Some(problem)) = (self.errors.body, response.extensions().get::<IsProblem>()) else {
            return response;
        };
        let (status, code, message) = (response.status(), problem.code, &problem.message);
        let body = body(&Fault { status, code, message, request_id });
        let (mut parts, _) = response.into_parts();
        parts.extensions.remove::<IsProblem>();
        parts.headers.remove(header::CONTENT_LENGTH);
        if let Some(challenge) = self.errors.challenge {
            parts.headers.remove(header::WWW_AUTHENTICATE);
            if status == StatusCode::UNAUTHORIZED {
                parts.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        let (own, body) = body.into_parts();
        parts.headers.extend(own.headers);
        Response::from_parts(parts, body)
    }

    /// The problem where there is nothing at a path.
    pub fn nothing_there(&self) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", self.errors.nothing_there)
    }

    fn no_such_method(&self) -> Problem {
        if self.errors.hides_methods {
            return self.nothing_there();
        }
        let message = "Method not allowed at this path; see Allow";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }
}

/// What the layers of a surface work with.
#[derive(Clone)]
pub struct Layered {
    pub app: App,
    pub surface: &'static Surface,
    /// Whether a route leads here; otherwise there is nothing at the path.
    pub routed: bool,
}

/// Makes routes that are no operations of the API, once all operations are known.
type Later = fn(&App, &Documented) -> Router<App>;

/// A surface with its routes: what the module of a surface hands to the column.
pub struct Routes {
    surface: &'static Surface,
    parts: Vec<(&'static Surface, Router<App>)>,
    later: Vec<(&'static Surface, Later)>,
    pub(super) document: OpenApi,
    /// The paths of the document, each with the part of the surface that has it.
    pub(super) own: BTreeMap<String, &'static Surface>,
}

impl Routes {
    pub fn of(surface: &'static Surface, router: OpenApiRouter<App>) -> Self {
        let (parts, later, document, own) = Default::default();
        Self { surface, parts, later, document, own }.with(surface, router)
    }

    /// Adds routes, with a value that says in what they differ from the rest. A path is in one part with all its methods.
    pub fn with(mut self, surface: &'static Surface, router: OpenApiRouter<App>) -> Self {
        let (router, document) = router.split_for_parts();
        self.own.extend(document.paths.paths.keys().map(|path| (path.clone(), surface)));
        self.document.merge(document);
        self.parts.push((surface, router));
        self
    }

    /// Adds routes that the document does not have.
    pub fn with_later(mut self, surface: &'static Surface, routes: Later) -> Self {
        self.later.push((surface, routes));
        self
    }

    /// Completes the surface's part of the document.
    pub fn describe(mut self, complete: impl FnOnce(&mut OpenApi)) -> Self {
        complete(&mut self.document);
        self
    }

    pub(super) fn surface(&self) -> &'static Surface {
        self.surface
    }

    /// The router of the surface's routes, and the one that answers below its prefixes where no route leads.
    pub(super) fn layered(self, app: &App, all: &Documented) -> (Router<App>, Router<App>) {
        let later = self.later.into_iter().map(|(surface, routes)| (surface, routes(app, all)));
        let mut routes = Router::new();
        for (surface, router) in self.parts.into_iter().chain(later) {
            routes = routes.merge(layer(router, Layered { app: app.clone(), surface, routed: true }, all));
        }
        let at = Layered { app: app.clone(), surface: self.surface, routed: false };
        (routes, layer(nowhere(self.surface), at, all))
    }
}

/// Answers below the surface's prefixes where no route leads. No other place reads prefixes.
fn nowhere(surface: &'static Surface) -> Router<App> {
    let nothing = move || async move { surface.nothing_there() };
    surface.prefixes.iter().fold(Router::new(), |router, prefix| match *prefix {
        "" => router.fallback(nothing),
        prefix => router
            .route(prefix, any(nothing))
            .route(&format!("{prefix}/"), any(nothing))
            .route(&format!("{prefix}/{{*rest}}"), any(nothing)),
    })
}

/// Puts around every route, from the inside to the outside, the layers that its surface asks for.
fn layer(router: Router<App>, at: Layered, all: &Documented) -> Router<App> {
    let surface = at.surface;
    let mut router = router
        .method_not_allowed_fallback(move || async move { surface.no_such_method() })
        .layer(from_fn_with_state(all.parameters.clone(), unknown::layer));
    if surface.idempotency {
        router = router.layer(from_fn(idempotency::layer));
    }
    if let Authentication::First(check) = surface.authentication {
        router = router.layer(from_fn_with_state((at.app.clone(), check), admission));
    }
    if surface.answers_options {
        router = router.layer(from_fn(options));
    }
    router = router.layer(CatchPanicLayer::custom(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal server error")
            .into_response()
    }));
    if surface.limits {
        router = router.layer(from_fn_with_state(at.clone(), limits_layer::limits_layer));
    }
    router.layer(from_fn_with_state(at, request_layer::request_layer))
}

/// The caller; an extension of requests whose surface authenticates before anything else.
#[derive(Clone)]
pub(super) struct LetIn(pub Caller);

/// The layer that authenticates before anything else.
async fn admission(
    extract::State((app, check)): extract::State<(App, Check)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match check(&app, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(LetIn(caller));
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The layer that answers OPTIONS.
async fn options(request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    next.run(request).await
}
