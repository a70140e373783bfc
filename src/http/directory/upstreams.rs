//! Where applications' gateways lead, and how they authenticate there.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sessiond_core::application::{UpstreamCredential, UpstreamHeaders};
use utoipa::ToSchema;

use super::applications::{ApplicationResponse, shown};
use crate::directory::NewUpstream;
use crate::http::App;
use crate::http::extract::{Body, CanManage};
use crate::http::ids::{self, Id};
use crate::http::problem::Problem;
use crate::mcp;

/// How the gateway authenticates at an upstream: all of it but the secret.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = UpstreamCredential)]
pub enum UpstreamCredentialView {
    Header {
        name: String,
    },
    #[serde(rename_all = "camelCase")]
    ClientCredentials {
        token_url: String,
        client_id: String,
        scope: Option<String>,
        resource: Option<String>,
    },
}

/// Headers that pass beside those that pass every gateway: by name, at most 32 each way.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PassHeaders {
    /// Of a client's requests, on their way to the upstream. What would be a credential, says who somebody is, or is
    /// between the gateway and its neighbours never passes.
    #[serde(default)]
    #[schema(max_items = 32)]
    to_upstream: Vec<String>,
    /// Of the upstream's answers, on their way to the client. What speaks to browsers or proxies about more than the answer
    /// never passes.
    #[serde(default)]
    #[schema(max_items = 32)]
    to_client: Vec<String>,
}

impl From<UpstreamHeaders> for PassHeaders {
    fn from(UpstreamHeaders { to_upstream, to_client }: UpstreamHeaders) -> Self {
        Self { to_upstream, to_client }
    }
}

/// Where an application's gateway leads.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetUpstream {
    /// URL of an MCP server (Streamable HTTP): `http` on this machine or in a network that the service was told to allow,
    /// `https` at public addresses too.
    #[schema(format = "uri")]
    url: String,
    /// How the gateway authenticates there. Left out or null: not at all, and what it had before is forgotten.
    #[serde(default)]
    credential: Option<NewUpstreamCredential>,
    /// Headers that pass beside those of MCP and HTTP that always do. Left out or null: no others.
    #[serde(default)]
    headers: Option<PassHeaders>,
}

/// How the gateway is to authenticate at an upstream. What clients present to the gateway never goes there.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum NewUpstreamCredential {
    /// With a header of each request.
    Header {
        /// Such as `Authorization` or `X-Api-Key`; no header that the gateway itself needs.
        #[schema(min_length = 1, max_length = 100)]
        name: String,
        /// Shown nowhere again.
        #[schema(min_length = 1, max_length = 8_192)]
        value: String,
    },
    /// With a bearer token of its own, fetched from an authorization server (RFC 6749, section 4.4, HTTP Basic).
    #[serde(rename_all = "camelCase")]
    ClientCredentials {
        /// Where; the rules are those for `url`.
        #[schema(format = "uri")]
        token_url: String,
        #[schema(min_length = 1, max_length = 1_024)]
        client_id: String,
        /// Shown nowhere again.
        #[schema(min_length = 1, max_length = 8_192)]
        client_secret: String,
        scope: Option<String>,
        /// What the token is for (RFC 8707).
        #[schema(format = "uri")]
        resource: Option<String>,
    },
}

impl NewUpstreamCredential {
    /// What is shown of it, and the secret.
    fn split(self) -> (UpstreamCredential, String) {
        match self {
            Self::Header { name, value } => (UpstreamCredential::Header { name }, value),
            Self::ClientCredentials { token_url, client_id, client_secret, scope, resource } => {
                let shown = UpstreamCredential::ClientCredentials { token_url, client_id, scope, resource };
                (shown, client_secret)
            }
        }
    }
}

impl From<UpstreamCredential> for UpstreamCredentialView {
    fn from(credential: UpstreamCredential) -> Self {
        match credential {
            UpstreamCredential::Header { name } => Self::Header { name },
            UpstreamCredential::ClientCredentials { token_url, client_id, scope, resource } => {
                Self::ClientCredentials { token_url, client_id, scope, resource }
            }
        }
    }
}

/// Name the MCP server behind an application's gateway
///
/// Replaces all of it, the credential included.
#[utoipa::path(
    put, path = "/api/v1/applications/{applicationId}/upstream", operation_id = "applications.setUpstream",
    tag = "applications",
    security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application.")),
    request_body = SetUpstream,
    responses(
        (status = 200, description = "The application as it is now.", body = ApplicationResponse),
    ),
)]
pub async fn set_upstream(
    CanManage(caller): CanManage,
    State(app): State<App>,
    Id(id, ..): Id<ids::Application>,
    Body(body): Body<SetUpstream>,
) -> Result<Json<ApplicationResponse>, Problem> {
    let here = caller.organization.is_operators();
    let url = mcp::check_upstream(&body.url, &app.config, here)?;
    let credential = body.credential.map(|new| {
        let (shown, secret) = new.split();
        mcp::check_credential(shown, &secret, &app.config, here).map(|shown| (shown, secret))
    });
    let headers = body.headers.map(|PassHeaders { to_upstream, to_client }| {
        mcp::check_headers(UpstreamHeaders { to_upstream, to_client })
    });
    let new =
        NewUpstream { url, credential: credential.transpose()?, headers: headers.transpose()?.flatten() };
    app.directory.upstream_settings.set(&caller, id, new).await?;
    shown(&app, &caller, id)
}
