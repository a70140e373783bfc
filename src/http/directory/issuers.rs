//! Whose JWT access tokens an organization takes.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Organization;
use crate::directory::NewIssuer;
use crate::error::Error;
use crate::http::App;
use crate::http::extract::Body;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::words::ScopeWord;
use crate::issuers::{ALGORITHMS, Claimant};

/// An issuer of JWT access tokens (RFC 9068) that the organization trusts.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Issuer)]
pub struct IssuerBody {
    /// The exact `iss` of its tokens: an `https://` URL.
    #[schema(max_length = 2048)]
    issuer: String,
    /// One `aud` of its tokens; with the issuer it says whose organization they are for. The organization's own URL
    /// (`<public URL>/api/v1/organizations/<id>`) or that of one of its gateways (`<public URL>/mcp/<application id>`); others
    /// need the operator's word (`--issuer-claim`), save for the first organization.
    #[schema(min_length = 1, max_length = 1024)]
    audience: String,
    /// The signature algorithms to accept: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`.
    #[schema(min_items = 1)]
    algorithms: Vec<String>,
    /// Where its keys are; without it, its metadata is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 2048)]
    jwks_uri: Option<String>,
    /// The only application in which its tokens act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    application_id: Option<Uuid>,
    /// The most its tokens may do. What a token may is what both this and its own `scope` say.
    #[schema(min_items = 1, value_type = Vec<ScopeWord>)]
    scopes: Vec<String>,
}

/// All issuers that the organization trusts.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Issuers)]
pub struct IssuersBody {
    #[schema(max_items = 20)]
    issuers: Vec<IssuerBody>,
}

impl IssuerBody {
    fn checked(self, app: &App) -> Result<NewIssuer, Error> {
        let allowances = app.issuers.allowances();
        let url = allowances.check("issuer", &self.issuer)?;
        if url.query().is_some() {
            return Err(Error::field("issuer", "issuer must not contain a query"));
        }
        let jwks_uri = self.jwks_uri.map(|url| allowances.check("jwksUri", &url)).transpose()?;
        let strange = self.algorithms.iter().find(|one| !ALGORITHMS.contains(&one.as_str()));
        if strange.is_some() || self.algorithms.is_empty() || self.algorithms.len() > ALGORITHMS.len() {
            let message = format!("algorithms must name one or more of {}", ALGORITHMS.join(", "));
            return Err(Error::field("algorithms", message));
        }
        Ok(NewIssuer {
            issuer: self.issuer,
            audience: self.audience,
            algorithms: self.algorithms,
            jwks_uri: jwks_uri.map(Url::into),
            application: self.application_id,
            scopes: self.scopes,
        })
    }
}

fn shown(app: &App, caller: &sessiond_core::caller::Caller) -> Json<IssuersBody> {
    let issuers =
        app.directory.trusted_issuers.list(caller).into_iter().map(|(issuer, application_id)| IssuerBody {
            issuer: issuer.issuer,
            audience: issuer.audience,
            algorithms: issuer.algorithms,
            jwks_uri: issuer.jwks_uri,
            application_id,
            scopes: issuer.scopes,
        });
    Json(IssuersBody { issuers: issuers.collect() })
}

/// Get the external issuers that the organization trusts
#[utoipa::path(
    get, path = "/api/v1/organization/issuers", operation_id = "issuers.get", tag = "issuers",
    security(("bearer" = [])),
    responses((status = 200, description = "The issuers.", body = IssuersBody)),
)]
pub async fn get_issuers(Organization(caller): Organization, State(app): State<App>) -> Json<IssuersBody> {
    shown(&app, &caller)
}

/// Trust these external issuers and no others
///
/// Their JWT access tokens are taken wherever ours are, for the principal that is issuer and subject. Tokens of an issuer
/// that is left out open nothing from the answer on. An audience that another organization could name as well is refused
/// (`audience_not_own`) unless the operator has given it to this one.
#[utoipa::path(
    put, path = "/api/v1/organization/issuers", operation_id = "issuers.set", tag = "issuers",
    security(("bearer" = [])),
    request_body = IssuersBody,
    responses(
        (status = 200, description = "The issuers.", body = IssuersBody),
        (status = 409, description = "Tokens of this issuer for this audience are taken already (`issuer_taken`).", body = ProblemBody),
    ),
)]
pub async fn set_issuers(
    Organization(caller): Organization,
    State(app): State<App>,
    Body(body): Body<IssuersBody>,
) -> Result<Json<IssuersBody>, Problem> {
    let claimant = Claimant {
        number: caller.organization,
        id: caller.organization_id,
        public_url: &app.public_url,
        claims: &app.config.issuer_claim,
    };
    for issuer in &body.issuers {
        let owns = |id| app.directory.applications.find(&caller, id).is_ok();
        claimant.check(&issuer.issuer, &issuer.audience, owns)?;
    }
    let issuers = body.issuers.into_iter().map(|issuer| issuer.checked(&app));
    let issuers = issuers.collect::<Result<Vec<_>, _>>()?;
    app.directory.trusted_issuers.set(&caller, issuers).await?;
    Ok(shown(&app, &caller))
}
