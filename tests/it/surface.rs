//! A surface of its own in twenty lines: one value on its routes, and one line of the column. It meets whatever every surface
//! meets, and no other file knows of it.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::IntoResponse;
use axum::{Json, Router};
use serde_json::{Value, json};
use sessiond::http::document::Documented;
use sessiond::http::extract::{self, Admitted};
use sessiond::http::surface::{Authentication, Errors, PLAIN, Routes, Surface};
use sessiond::http::{column, router};
use sessiond_core::scope::Scope;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::support::Server;

// ---- the surface ----

static SIXTH: Surface = Surface {
    prefixes: &["/sixth/v1"],
    name: "Sixth",
    errors: Errors {
        schema: "SixthError",
        body: Some(|fault| Json(json!({ "wrong": fault.message, "code": fault.code })).into_response()),
        challenge: Some("Bearer realm=\"sixth\""),
        ..PLAIN.errors
    },
    authentication: Authentication::First(|app, parts| {
        Box::pin(async { extract::allowed(app.auth.caller(parts).await?, &[Scope::ManagementAll]) })
    }),
    body_limit: 1 << 10,
    idempotency: true,
    ..PLAIN
};

#[utoipa::path(post, path = "/sixth/v1/echo", security(("bearer" = [])), responses((status = 200, body = String)))]
async fn echo(Admitted(_caller): Admitted, extract::Body(body): extract::Body<Value>) -> Json<Value> {
    Json(body)
}

fn sixth() -> Routes {
    Routes::of(&SIXTH, OpenApiRouter::new().routes(routes!(echo)))
}

// ---- what it meets ----

/// The service with a column of one line more.
struct Six {
    server: Server,
    router: Router,
}

impl Six {
    async fn new(flags: &[&str]) -> Self {
        let server = Server::with(flags).await;
        let app = server.running.as_ref().unwrap().app.clone();
        let router = router(app, column().into_iter().chain([sixth()]).collect());
        Self { server, router }
    }

    async fn ask(
        &self,
        request: (&str, &str),
        headers: &[(&str, &str)],
        body: String,
    ) -> (StatusCode, HeaderMap, Value) {
        let builder = Request::builder().method(request.0).uri(request.1);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        let answer = self.router.clone().oneshot(builder.body(Body::from(body)).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

const ECHO: (&str, &str) = ("POST", "/sixth/v1/echo");

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_its_credential_learns_what_is_on_a_sixth_surface_and_is_told_so_in_its_words() {
    let six = Six::new(&[]).await;
    let paths = ["/sixth/v1", "/sixth/v1/", "/sixth/v1/echo", "/sixth/v1/nothing/there"];
    for (method, path) in paths.iter().flat_map(|path| [("GET", *path), ("POST", *path)]) {
        let (status, headers, body) = six.ask((method, path), &[], String::new()).await;
        assert_eq!(status, 401, "{method} {path}");
        assert_eq!(body, json!({ "wrong": "Unauthorized", "code": "unauthorized" }), "{method} {path}");
        let carried = [
            ("www-authenticate", "Bearer realm=\"sixth\""),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ];
        for (name, value) in carried {
            assert_eq!(headers[name], value, "{method} {path}: {name}");
        }
        assert!(headers.contains_key("x-request-id"));
    }
    let other = format!("Bearer {}", six.server.token("mcp:invoke").await);
    let (status, headers, body) = six.ask(ECHO, &[("authorization", &other)], String::new()).await;
    assert_eq!((status.as_u16(), &body["code"]), (403, &json!("insufficient_scope")));
    assert!(!headers.contains_key("www-authenticate"), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sixth_surface_has_limits_keys_and_refusals_by_being_a_value() {
    let six = Six::new(&["--rate-limit", "50"]).await;
    let token = format!("Bearer {}", six.server.token("management:all").await);
    let known = [("authorization", token.as_str())];
    let (status, headers, body) = six.ask(ECHO, &known, r#"{"said":"this"}"#.to_owned()).await;
    assert_eq!((status.as_u16(), body), (200, json!({ "said": "this" })));
    assert_eq!(headers["ratelimit-policy"], "\"default\";q=50;w=1");

    let large = json!({ "said": "x".repeat(2 << 10) }).to_string();
    let (status, _, body) = six.ask(ECHO, &known, large).await;
    let most = json!({ "wrong": "The body must be at most 1 KiB", "code": "body_too_large" });
    assert_eq!((status.as_u16(), body), (413, most));

    let malformed = [known[0], ("idempotency-key", "\"unfinished")];
    let (status, _, body) = six.ask(ECHO, &malformed, "{}".to_owned()).await;
    assert_eq!(status, 400, "{body}");
    assert!(body["wrong"].as_str().unwrap().starts_with("Idempotency-Key must be"), "{body}");

    let (status, _, body) = six.ask(("POST", "/sixth/v1/echo?surprise=1"), &known, "{}".to_owned()).await;
    assert!(status == 400 && body["wrong"].as_str().unwrap().contains("`surprise`"), "{body}");

    let (status, headers, body) = six.ask(("GET", "/sixth/v1/echo"), &known, String::new()).await;
    assert_eq!((status.as_u16(), &body["code"]), (405, &json!("method_not_allowed")));
    assert_eq!(headers["allow"], "POST");
    let (status, _, body) = six.ask(("GET", "/sixth/v1/nothing"), &known, String::new()).await;
    assert_eq!((status.as_u16(), &body["code"]), (404, &json!("not_found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_surfaces_do_not_notice_a_sixth() {
    let six = Six::new(&[]).await;
    let shapes = [
        ("/sixth", "detail"),
        ("/sixth/v10", "detail"),
        ("/nowhere", "detail"),
        ("/api/v1/nothing", "detail"),
        ("/v1/nothing", "statusCode"),
        ("/v1", "statusCode"),
        ("/v1/", "statusCode"),
        ("/v10", "detail"),
        ("/v1/sessions/", "success"),
        ("/v1/machines/a/b/c", "success"),
        ("/v1/sessionsandmore", "statusCode"),
        ("/pro/session-manager/v1", "errorId"),
        ("/pro/session-manager/v1/", "errorId"),
        ("/pro/session-manager", "detail"),
    ];
    for (path, member) in shapes {
        let (status, _, body) = six.ask(("GET", path), &[], String::new()).await;
        assert!(status.is_client_error() && body.get(member).is_some(), "{path}: {status} {body}");
        assert!(body.get("wrong").is_none(), "{path}: {body}");
    }
}

#[test]
fn the_document_has_a_sixth_surface_as_it_has_the_others() {
    let all = Documented::of(&column().into_iter().chain([sixth()]).collect::<Vec<_>>());
    let document = serde_json::to_value(&all.document).unwrap();
    let echo = &document["paths"]["/sixth/v1/echo"]["post"];
    assert_eq!(echo["responses"]["default"]["$ref"], "#/components/responses/SixthDefault");
    let refused = &document["components"]["responses"]["SixthDefault"]["content"]["application/json"];
    assert_eq!(refused["schema"]["$ref"], "#/components/schemas/SixthError");
    let key = &document["components"]["parameters"]["IdempotencyKeyHeader"];
    assert_eq!(echo["parameters"][0]["$ref"], "#/components/parameters/IdempotencyKeyHeader", "{key}");
    assert_eq!(all.surfaces.at("/sixth/v1/echo").name, "Sixth");
}
