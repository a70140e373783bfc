//! A surface is one way in, as a value: everything that requests meet because of where they came in. The value is layered
//! on the surface's own routes, so that whatever stands around a handler is handed the surface and never reads a path to
//! find out which one it is.

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

/// Largest body where a surface says nothing else.
pub const BODY: usize = 64 << 10;
/// Largest body of many reports at once.
pub const MANY: usize = 2 << 20;

/// One way in.
#[derive(Clone, Copy)]
pub struct Surface {
    /// What its paths begin with. A path below one of them that leads nowhere is answered by this surface; below the empty
    /// prefix is whatever is below no other.
    pub prefixes: &'static [&'static str],
    /// What the names of components begin with that are the surface's own in the document.
    pub name: &'static str,
    pub errors: Errors,
    pub authentication: Authentication,
    /// Whether OPTIONS is answered with 204, whatever is asked for and whoever asks.
    pub answers_options: bool,
    /// The largest body that is read of a known sender, in bytes.
    pub body_limit: usize,
    /// A body may take this many times the configured time to come.
    pub body_patience: u32,
    /// Whether requests are given up that take longer than configured.
    pub deadline: bool,
    /// Whether `Idempotency-Key` applies to what writes.
    pub idempotency: bool,
    /// Whether requests are counted against the limits, and timed: not those of whoever watches over the service.
    pub limits: bool,
    /// What its clients look for besides the standard headers about limits.
    pub limit_headers: Option<LimitHeaders>,
    /// Says on an answer that was given before the request reached the surface what a page of another origin may read.
    pub share: Option<fn(&App, &Parts, &mut HeaderMap)>,
    /// What browsers are told about every answer.
    pub security_headers: &'static [(HeaderName, HeaderValue)],
}

/// How a surface says what went wrong. Whatever it was is said once, as a problem, and gets this shape on its way out.
#[derive(Clone, Copy)]
pub struct Errors {
    /// The schema of the bodies in the document.
    pub schema: &'static str,
    /// The body for a fault; none where problems stay as they are.
    pub body: Option<fn(&Fault<'_>) -> Response>,
    /// The challenge on 401 in place of the problem's own, which no other status then has either.
    pub challenge: Option<&'static str>,
    /// What is said where there is nothing at a path.
    pub nothing_there: &'static str,
    /// Whether a path is said not to be there for the methods that it does not take.
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

/// How it is found out who asks, and whether they may be here at all.
#[derive(Clone, Copy)]
pub enum Authentication {
    /// Each handler says which credential it takes, by an extractor of [`extract`](super::extract) or on its own.
    Handlers,
    /// By this check, for every handler that takes [`Admitted`](super::extract::Admitted).
    Admitted(Check),
    /// By this check before anything else: whoever has no credential does not even learn what is there.
    First(Check),
}

/// Finds out who asks, by the head of the request.
pub type Check = for<'a> fn(&'a App, &'a Parts) -> BoxFuture<'a, Result<Caller, Problem>>;

/// Headers about limits that are a surface's own.
#[derive(Clone, Copy)]
pub struct LimitHeaders {
    /// Names and descriptions, for the document.
    pub documented: &'static [(&'static str, &'static str)],
    pub tell: fn(&mut HeaderMap, Left, Time),
}

/// Nothing here is a page, and nothing may be made to look like one.
static SECURITY: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// A surface at no prefix that speaks as the main one does: others are this one with what is different about them.
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
    share: None,
    security_headers: &SECURITY,
};

impl Surface {
    /// The surface that a request came in by.
    pub fn of(extensions: &Extensions) -> &'static Self {
        extensions.get::<&'static Self>().copied().unwrap_or(&PLAIN)
    }

    /// An answer in the shape of the surface.
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

    /// What is answered where there is nothing at a path.
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

/// What the layers of a surface are told.
#[derive(Clone)]
pub struct Layered {
    pub app: App,
    pub surface: &'static Surface,
    /// Whether a route leads here; else there is nothing at the path.
    pub routed: bool,
}

/// Routes that no operation of the API are, made of what there is when all operations are known.
type Later = fn(&App, &Documented) -> Router<App>;

/// A surface on its routes: what the folder of a surface hands to the column.
pub struct Routes {
    surface: &'static Surface,
    parts: Vec<(&'static Surface, Router<App>)>,
    later: Vec<(&'static Surface, Later)>,
    pub(super) document: OpenApi,
    /// The paths of the document that a part with a value of its own has.
    pub(super) own: BTreeMap<String, &'static Surface>,
}

impl Routes {
    pub fn of(surface: &'static Surface, router: OpenApiRouter<App>) -> Self {
        let (parts, later, document, own) = Default::default();
        Self { surface, parts, later, document, own }.with(surface, router)
    }

    /// More routes, with a value that says in what they differ from the rest. A path is in one part with all its methods.
    pub fn with(mut self, surface: &'static Surface, router: OpenApiRouter<App>) -> Self {
        let (router, document) = router.split_for_parts();
        self.own.extend(document.paths.paths.keys().map(|path| (path.clone(), surface)));
        self.document.merge(document);
        self.parts.push((surface, router));
        self
    }

    /// More routes, which the document does not have.
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

    /// The routes, and apart from them what answers below the surface's prefixes where no route leads.
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

/// The one place that reads prefixes: the router finds by them whose words an answer is in where it has nothing else to go by.
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

/// Puts around every route, from the inside to the outside, what its surface says.
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

/// Who asks; an extension of requests that were let in before anything else was looked at.
#[derive(Clone)]
pub(super) struct LetIn(pub Caller);

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

async fn options(request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    next.run(request).await
}
