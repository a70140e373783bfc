//! RFC 9728: where to get a token for the gateway, and which tokens are for it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::json;
use uuid::Uuid;

use super::reply::Refusal;
use super::{Gateway, Named, named};
use crate::core::caller::{Caller, Scope};

const PLACE: &str = "/.well-known/oauth-protected-resource";

/// A resource of ours, by its path; the document about it stands under the same path (RFC 9728, section 3).
enum Resource {
    /// Everything that is here.
    Root,
    /// The gateway of whatever application the credential is bound to.
    Gateway,
    /// One application's gateway, by its id as the client wrote it: that is how it will compare.
    Application(Uuid, String),
    /// Its endpoint of the oldest revision.
    Events(Uuid, String),
}

impl Resource {
    fn path(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Gateway => "/mcp".to_owned(),
            Self::Application(_, id) => format!("/mcp/{id}"),
            Self::Events(_, id) => format!("/mcp/{id}/sse"),
        }
    }
}

/// An id in a path and its text, where that can stand in a URL as it is.
fn id_of(text: &str) -> Option<(Uuid, String)> {
    let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    Uuid::try_parse(text).ok().filter(|_| plain).map(|id| (id, text.to_owned()))
}

/// The URL of the document about a gateway, for challenges; `named` is the id in the request's path.
pub fn url(public_url: &str, named: Option<&str>) -> String {
    let resource = match named.and_then(id_of) {
        Some((id, text)) => Resource::Application(id, text),
        None => Resource::Gateway,
    };
    format!("{public_url}{PLACE}{}", resource.path())
}

/// The routes of the documents.
pub fn router() -> Router<Arc<Gateway>> {
    let of_one = |resource: fn(Uuid, String) -> Resource| {
        get(move |State(gateway): State<Arc<Gateway>>, id: Named| async move {
            match id_of(&named(id)) {
                Some((id, text)) => gateway.metadata(&resource(id, text)),
                None => Refusal::not_found("Not found: there is nothing at this path").into_response(),
            }
        })
    };
    let of = |resource: fn() -> Resource| {
        get(move |State(gateway): State<Arc<Gateway>>| async move { gateway.metadata(&resource()) })
    };
    // Some SDKs send their protocol version along, which makes browsers ask first.
    let shared = |route: MethodRouter<Arc<Gateway>>| route.options(|| async { preflight() });
    Router::new()
        .route(PLACE, shared(of(|| Resource::Root)))
        .route(&format!("{PLACE}/mcp"), shared(of(|| Resource::Gateway)))
        .route(&format!("{PLACE}/mcp/{{application}}"), shared(of_one(Resource::Application)))
        .route(&format!("{PLACE}/mcp/{{application}}/sse"), shared(of_one(Resource::Events)))
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
    fn metadata(&self, resource: &Resource) -> Response {
        let document = json!({
            // What the path was made from and nothing else, or clients throw the document away (section 3.3).
            "resource": format!("{}{}", self.public_url, resource.path()),
            "authorization_servers": self.authorization_servers(resource),
            "scopes_supported": [Scope::McpInvoke.word()],
            "bearer_methods_supported": ["header"],
            "resource_name": "sessiond MCP gateway",
        });
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        (headers, axum::Json(document)).into_response()
    }

    /// Ours, and those whose tokens open this application's gateway. Whoever has an application's id must learn these
    /// without a credential, because they say where to get one; so they are all that is told: no name, no audience, nothing
    /// of the organization's other applications. An application that does not exist, is archived, or trusts nobody else has
    /// one and the same document, so that no id can be found by asking.
    fn authorization_servers(&self, resource: &Resource) -> Vec<String> {
        let others = match resource {
            Resource::Application(id, _) | Resource::Events(id, _) => self.directory.gateway_issuers(*id),
            Resource::Root | Resource::Gateway => vec![],
        };
        [self.public_url.to_string()].into_iter().chain(others).collect()
    }
}

/// The application whose gateway a request is for, by its path and, where that names none, by its token's audience. A token
/// for another's gateway is told so before anything is said about that other one.
pub fn check_audience(caller: &Caller, named: Option<Uuid>, metadata: &str) -> Result<Option<Uuid>, Refusal> {
    match (caller.audience(), named) {
        (Some(only), Some(named)) if only != named => {
            let said = format!("the token is for the gateway /mcp/{only} alone");
            Err(Refusal::unauthorized(Some((said, None)), metadata))
        }
        (only, named) => Ok(named.or(only)),
    }
}
