//! The metadata of our authorization server (RFC 8414), in the form that the parsers of MCP clients accept.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use sessiond_core::scope::Scope;
use utoipa::ToSchema;

use crate::http::App;
use crate::http::problem::Problem;

/// Where and how tokens are to be had (RFC 8414).
#[derive(Serialize, ToSchema)]
pub struct AuthorizationServer {
    issuer: String,
    /// Where people would sign in. It is named because the SDKs of MCP clients read no document without it; what is there
    /// says that people cannot sign in here yet. No response type and no grant type that leads there is supported.
    authorization_endpoint: String,
    token_endpoint: String,
    grant_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    scopes_supported: Vec<&'static str>,
    /// Empty: nobody can sign in here yet.
    response_types_supported: Vec<&'static str>,
}

/// How clients authenticate.
const METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];

impl AuthorizationServer {
    /// The document of the issuer at `path` below the base that the client asked at.
    fn new(base: &str, path: &str) -> Self {
        Self {
            issuer: format!("{base}{path}"),
            authorization_endpoint: format!("{base}/oauth2/authorize"),
            token_endpoint: format!("{base}/oauth2/token"),
            grant_types_supported: vec!["client_credentials"],
            token_endpoint_auth_methods_supported: METHODS.to_vec(),
            introspection_endpoint: format!("{base}/oauth2/introspect"),
            introspection_endpoint_auth_methods_supported: [&METHODS[..], &["Bearer"]].concat(),
            revocation_endpoint: format!("{base}/oauth2/revoke"),
            revocation_endpoint_auth_methods_supported: METHODS.to_vec(),
            scopes_supported: Scope::ALL
                .into_iter()
                .filter(|scope| !scope.is_for_keys())
                .map(Scope::word)
                .collect(),
            response_types_supported: vec![],
        }
    }
}

/// Learn where tokens are to be had
///
/// RFC 8414. Also at `/.well-known/oauth-authorization-server/mcp…`, for clients that take the gateway's URL for the
/// issuer's.
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", operation_id = "oauth.authorizationServer", tag = "oauth",
    security(()),
    responses((status = 200, description = "The authorization server's metadata.", body = AuthorizationServer)),
)]
pub async fn authorization_server(State(app): State<App>, parts: Parts) -> Json<AuthorizationServer> {
    let base = app.names.asked(&parts.uri, &parts.headers);
    Json(AuthorizationServer::new(&base, ""))
}

/// The endpoint where people would sign in (RFC 6749, section 3.1). A client that comes here has not authenticated, and
/// names where to send its user back to, which nobody has checked: it is told in place that people cannot sign in yet, and
/// sent nowhere.
async fn authorize() -> Problem {
    let text = "People cannot sign in here yet. Programs get a token with client credentials at /oauth2/token \
                (grant_type=client_credentials); people sign in with an issuer that the organization trusts";
    Problem::new(StatusCode::FORBIDDEN, "sign_in_not_available", text)
}

/// What no operation of the API is: where people would sign in, and the document for issuers with a path: an issuer's document stands under its path, and names it (RFC 8414 3.1 and 3.3).
pub fn aliases() -> Router<App> {
    let answer = |State(app): State<App>,
                  path: Result<RawPathParams, RawPathParamsRejection>,
                  parts: Parts| async move {
        let Ok(path) = path else { return nothing().into_response() };
        let application = path.iter().next().map_or_else(String::new, |(_, id)| format!("/{id}"));
        document(&app, &parts, &format!("/mcp{application}"))
    };
    Router::new()
        .route("/oauth2/authorize", get(authorize))
        .route("/.well-known/oauth-authorization-server/mcp", get(answer))
        .route("/.well-known/oauth-authorization-server/mcp/{applicationId}", get(answer))
}

fn document(app: &App, parts: &Parts, path: &str) -> Response {
    let base = app.names.asked(&parts.uri, &parts.headers);
    Json(AuthorizationServer::new(&base, path)).into_response()
}

fn nothing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "Not found: there is nothing at this path")
}
