//! OAuth protected resource metadata (RFC 9728): where to get a token for the gateway, and which tokens are for it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use sessiond_core::caller::Caller;
use sessiond_core::scope::Scope;
use uuid::Uuid;

use super::Gateway;
use super::reply::ErrorResponse;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// A protected resource of ours, by its path as the client wrote it, because the client will compare it so. The
/// document about it stands under the same path (RFC 9728, section 3).
struct Resource<'a> {
    path: &'a str,
    /// The one application whose gateway the resource is; none where it is not one application's.
    application: Option<Uuid>,
}

impl<'a> Resource<'a> {
    /// The resource at a path: the whole service, the gateway of whichever application a credential is bound to, the
    /// gateway of one application by its id, or that gateway's endpoint of the oldest revision. A slash at the end
    /// makes no other resource of it.
    fn at(path: &'a str) -> Option<Self> {
        let plain = path.strip_suffix('/').unwrap_or(path);
        let application = match plain {
            "" | "/mcp" => None,
            _ => {
                let id = plain.strip_prefix("/mcp/")?;
                Some(id_of(id.strip_suffix("/sse").unwrap_or(id))?)
            }
        };
        Some(Self { path, application })
    }
}

/// An id in a path, where its text can stand in a URL as it is.
fn id_of(text: &str) -> Option<Uuid> {
    let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    Uuid::try_parse(text).ok().filter(|_| plain)
}

/// The URL of the document about the gateway at a path, for challenges.
pub fn url(base: &str, path: &str) -> String {
    // The endpoint for the messages of HTTP+SSE belongs to the same gateway, and so to the same resource.
    let path = path.strip_suffix("/messages").unwrap_or(path);
    let resource = Resource::at(path).map_or("/mcp", |resource| resource.path);
    format!("{base}{WELL_KNOWN}{resource}")
}

/// The routes of the documents.
pub fn router() -> Router<Arc<Gateway>> {
    let about = |State(gateway): State<Arc<Gateway>>, parts: Parts| async move {
        let path = parts.uri.path();
        match path.strip_prefix(WELL_KNOWN).and_then(Resource::at) {
            Some(resource) => gateway.metadata(&parts, &resource),
            None => ErrorResponse::not_found("Not found: there is nothing at this path").into_response(),
        }
    };
    // Some SDKs send their protocol version along, so that browsers send a preflight request.
    let shared = || get(about).options(|| async { preflight() });
    Router::new().route(WELL_KNOWN, shared()).route(&format!("{WELL_KNOWN}/{{*path}}"), shared())
}

fn preflight() -> Response {
    let headers = [
        (header::ALLOW, "GET, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Mcp-Protocol-Version, Accept, Content-Type"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

impl Gateway {
    fn metadata(&self, parts: &Parts, resource: &Resource<'_>) -> Response {
        let base = self.names.asked(&parts.uri, &parts.headers);
        let document = json!({
            // The resource must be exactly what the path was made from, or clients throw the document away (section
            // 3.3).
            "resource": format!("{base}{}", resource.path),
            "authorization_servers": self.authorization_servers(base.clone(), resource),
            "scopes_supported": [Scope::McpInvoke.word()],
            "bearer_methods_supported": ["header"],
            "resource_name": "sessiond MCP gateway",
        });
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        (headers, axum::Json(document)).into_response()
    }

    /// The authorization servers whose tokens open this application's gateway, and ours last: an application that
    /// trusts another has its people sign in there, and the SDKs ask only the first. The document needs no credential,
    /// because it says where to get one, so these names are all that it tells: no audience, and nothing of the
    /// organization's other applications. An application that does not exist, is archived, or trusts nobody else has
    /// one and the same document, so that no id can be found by asking.
    fn authorization_servers(&self, base: String, resource: &Resource<'_>) -> Vec<String> {
        let others = resource
            .application
            .map(|id| self.directory.upstream_settings.gateway_issuers(id))
            .unwrap_or_default();
        others.into_iter().chain([base]).collect()
    }
}

/// The application whose gateway a request is for: the one in its path or, where the path names none, the one in its
/// token's audience. A token for another application's gateway is refused before anything is said about the application
/// in the path.
pub fn check_audience(
    caller: &Caller,
    named: Option<Uuid>,
    metadata: &str,
) -> Result<Option<Uuid>, ErrorResponse> {
    match (caller.audience(), named) {
        (Some(only), Some(named)) if only != named => {
            let said = format!("the token is for the gateway /mcp/{only} alone");
            Err(ErrorResponse::unauthorized(Some((said, None)), metadata))
        }
        (only, named) => Ok(named.or(only)),
    }
}
