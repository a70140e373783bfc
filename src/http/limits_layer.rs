//! The layer of limits: how often a client may ask, how long a body may take to come, and how long a request may take to be
//! answered.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Body as _, Frame, SizeHint};
use metrics::counter;
use tokio::time::{Sleep, sleep, timeout};

use super::again;
use super::problem::Problem;
use super::surface::Layered;
use crate::auth::{self, ClientAddress, NothingGenuine};
use crate::limits::{FAILURES, Left, TooMany};
use crate::meter;
use crate::secret;

/// Lets a request through that is within its limits, and says in the response how much is left.
pub async fn limits_layer(State(at): State<Layered>, request: Request, next: Next) -> Response {
    let app = &at.app;
    let from = ClientAddress::of(request.extensions());
    if let Some(problem) = ambiguity(request.headers()) {
        return in_place_of_surface(&at, request, problem.into_response());
    }
    let (genuine, presented) = {
        let token = auth::presented(request.headers());
        let token = token.as_deref();
        (token.and_then(|token| app.auth.genuine(token)), token.and_then(secret::parse))
    };
    let left = match genuine.map(|id| app.limits.request(id)).transpose() {
        Ok(left) => left.flatten(),
        Err(too_many) => return in_place_of_surface(&at, request, limited(too_many)),
    };
    let mut response = again::answer(&at, request, next).await;
    count_refusal(&response);
    if genuine.is_none() && response.status() == StatusCode::UNAUTHORIZED {
        let counted = if response.extensions().get::<NothingGenuine>().is_some() {
            app.limits.failure(from).map(Some)
        } else {
            // The credential was genuine and has ended: its holder may learn why, as often as others may ask.
            presented.map_or(Ok(None), |presented| app.limits.request(presented.id))
        };
        match counted {
            Err(too_many) => return in_place_of(response, limited(too_many)),
            Ok(Some(left)) => drop(response.extensions_mut().insert(left)),
            Ok(None) => {}
        }
    }
    if let Some(left) = left {
        set_limit_headers(&mut response, left);
    }
    response
}

/// Counts refusals in the metrics.
fn count_refusal(response: &Response) {
    let reason = match response.status() {
        StatusCode::UNAUTHORIZED if response.extensions().get::<NothingGenuine>().is_some() => {
            "unauthenticated"
        }
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::SERVICE_UNAVAILABLE => "busy",
        StatusCode::INSUFFICIENT_STORAGE => "disk_full",
        _ => return,
    };
    counter!(meter::REFUSED, "reason" => reason).increment(1);
}

/// Headers that may be there only once: of two, a proxy may have looked at the other one.
const ONCE: [&str; 4] = ["host", "authorization", "apikey", "x-ome-signature"];

/// The problem of a request from which it is not clear who asks, because the headers that say so are there twice, or in two
/// ways.
fn ambiguity(headers: &HeaderMap) -> Option<Problem> {
    let refused = |message: String| {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "ambiguous_request", message);
        Some(problem)
    };
    for name in ONCE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return refused(format!("The header {name} is there more than once: send it once"));
        }
    }
    if headers.contains_key(header::AUTHORIZATION) && headers.contains_key("apikey") {
        let message = "Two credentials were presented: send either Authorization or apiKey, not both";
        return refused(message.to_owned());
    }
    None
}

/// Completes a response that is given in place of the surface's own, with what a page of another origin may read of it.
fn in_place_of_surface(at: &Layered, request: Request, mut response: Response) -> Response {
    if let Some(set_cors_headers) = at.surface.cors {
        set_cors_headers(&at.app, &request.into_parts().0, response.headers_mut());
    }
    response
}

/// Completes a response that replaces one of the surface's: what that says about other origins holds for it too.
fn in_place_of(mut former: Response, mut response: Response) -> Response {
    for name in [header::VARY, header::ACCESS_CONTROL_ALLOW_ORIGIN, header::ACCESS_CONTROL_EXPOSE_HEADERS] {
        if let Some(value) = former.headers_mut().remove(&name) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// Sets the headers that say what the limit is, and how much of it is left (draft-ietf-httpapi-ratelimit-headers-10).
fn set_limit_headers(response: &mut Response, left: Left) {
    let policy = format!("\"default\";q={};w=1", left.rate);
    let remaining = format!("\"default\";r={};t={}", left.remaining, left.reset);
    let headers = response.headers_mut();
    for (name, text) in [(&POLICY, policy), (&LEFT, remaining)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
    response.extensions_mut().insert(left);
}

/// The response to a client that asks too often.
pub fn limited(too_many: TooMany) -> Response {
    let reason = if too_many.rate.is_some() { "rate" } else { "address" };
    counter!(meter::REFUSED, "reason" => reason).increment(1);
    let message = match too_many.rate {
        Some(rate) => format!("Too many requests: this credential may make {rate} a second"),
        None => "Too many failed attempts to authenticate from this address".to_owned(),
    };
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
    let mut response = Problem { retry_after: Some(too_many.retry_after), ..problem }.into_response();
    match too_many.rate {
        Some(rate) => set_limit_headers(&mut response, Left { rate, remaining: 0, reset: 1 }),
        None => {
            let left = Left { rate: FAILURES.get(), remaining: 0, reset: too_many.retry_after };
            response.extensions_mut().insert(left);
        }
    }
    response
}

/// Runs the request, with a time limit for its body and, where the surface has one, for its response.
pub(super) async fn in_time(at: &Layered, request: Request, next: Next) -> Response {
    let Layered { app, surface, .. } = at;
    let patience = app.config.body_timeout * surface.body_patience;
    // Requests that end many sessions take as long as they take: the response is the count.
    let unhurried = !surface.deadline || request.method() == Method::DELETE;
    let request = request.map(|body| if body.is_end_stream() { body } else { Timed::body(body, patience) });
    if unhurried {
        return next.run(request).await;
    }
    timeout(app.config.request_timeout, next.run(request)).await.unwrap_or_else(|_| {
        let message = "The request took too long. It may have been carried out: look before repeating it";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message);
        Problem { retry_after: Some(1), ..problem }.into_response()
    })
}

/// The error of a body that did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the body took too long to come")]
pub struct TooSlow;

impl TooSlow {
    /// Whether this error is the cause of another.
    pub fn is_behind(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<Self>())
    }

    /// The problem for the client. The rest of the body is not waited for.
    pub fn problem() -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "The body took too long to come")
    }
}

/// A body that has to come whole within a time, however slowly its pieces come.
struct Timed {
    body: Body,
    patience: Duration,
    /// The timer, which is set when the body is first waited for: most bodies are there at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    fn body(body: Body, patience: Duration) -> Body {
        Body::new(Self { body, patience, timer: None })
    }
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Some(Err(axum::Error::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
