//! What can be done with a token once it is issued: asking what it is worth (RFC 7662), and giving it up (RFC 7009).

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sessiond_core::caller::Caller;
use sessiond_core::scope::Scope;
use utoipa::ToSchema;

use super::forms::TokenForm;
use super::{Form, Presented, Refused, TokenError, authenticate};
use crate::auth::{self, GivenUp, Introspected};
use crate::error::Error;
use crate::http::App;

/// What a token is worth now. Of one that opens nothing there is `active` and nothing else.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = Introspection)]
pub struct IntrospectionBody {
    active: bool,
    /// Separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scope: Option<String>,
    /// The client it was issued to; of a session's token, the one that opened the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_id: Option<String>,
    /// The principal's id; of a client's own token, the client's; of another issuer's, its own `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aud: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    iss: Option<String>,
    /// Seconds since the epoch; absent for an API key without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    jti: Option<String>,
    /// The session whose token it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = Uuid)]
    sid: Option<String>,
    /// What that session is: `active` or `idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    derived_status: Option<&'static str>,
    /// `Bearer`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    token_type: Option<&'static str>,
}

impl IntrospectionBody {
    fn new(app: &App, token: Introspected) -> Self {
        let own = || {
            let base = &app.public_url;
            let audiences = match token.only {
                Some(id) => vec![format!("{base}/mcp/{id}")],
                None => vec![format!("{base}/api/v1"), format!("{base}/mcp")],
            };
            (app.public_url.to_string(), audiences)
        };
        let theirs = token.issuer.map(|(issuer, audience)| (issuer, vec![audience]));
        let (issuer, audiences) = theirs.unwrap_or_else(own);
        Self {
            active: true,
            scope: Some(token.scopes.to_string()),
            client_id: token.client_id,
            sub: token.subject,
            aud: audiences,
            iss: Some(issuer),
            exp: token.expires_at.map(|at| at.timestamp()),
            iat: token.issued_at.map(|at| at.timestamp()),
            jti: token.id,
            sid: token.session.map(|(id, _)| id.to_string()),
            derived_status: token.session.map(|(_, status)| status.word()),
            token_type: Some("Bearer"),
        }
    }
}

/// Ask what a token is worth
///
/// RFC 7662, for access tokens, session tokens, API keys and trusted issuers' JWTs of the caller's organization. Everything that opens nothing on
/// the agent side now, for whatever reason, and everything of others is `{"active": false}`. Authenticate as an OAuth
/// client, or with a token that may read sessions.
#[utoipa::path(
    post, path = "/oauth2/introspect", operation_id = "oauth.introspect", tag = "oauth",
    security(("client" = []), ("bearer" = [])),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "What it is worth.", body = IntrospectionBody),
        (status = 400, description = "The request is wrong.", body = TokenError),
        (status = 401, description = "Authentication failed.", body = TokenError),
        (status = 403, description = "The presented token may not ask.", body = TokenError),
        (status = 413, description = "The body is too large.", body = TokenError),
    ),
)]
pub async fn introspect(State(app): State<App>, request: Request) -> Result<Response, Refused> {
    let headers = request.headers().clone();
    let asks = bearer_of(&app, &headers).await?;
    if let Some(caller) = &asks {
        require(caller, &[Scope::ManagementAll, Scope::SessionsRead])?;
    }
    let known = if asks.is_none() { Presented::by(&app, &headers).await? } else { None };
    let form = Form::read(request, &app, asks.is_some() || known.is_some()).await?;
    let caller = match asks {
        Some(caller) => caller,
        None => client(&app, known, &form).await?,
    };
    let token = form.one("token").ok_or_else(|| Refused::new("invalid_request", "token is missing"))?;
    let body = match app.auth.introspect(caller.organization, token).await {
        Some(token) => IntrospectionBody::new(&app, token),
        None => IntrospectionBody::default(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Give up a token
///
/// RFC 7009. An access token opens nothing anywhere from the answer on; the session of a session's token ends, as if its
/// client had said goodbye. Authenticate as an OAuth client, with a token that may end sessions, or with the very token.
/// A token that is not known, or not the organization's, is no error.
#[utoipa::path(
    post, path = "/oauth2/revoke", operation_id = "oauth.revoke", tag = "oauth",
    security(("client" = []), ("bearer" = [])),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "It opens nothing, if it ever did."),
        (status = 400, description = "The request is wrong, the token is another client's, or of a kind that is revoked elsewhere (`unsupported_token_type`): API keys at `/api/v1/api-keys`, others' tokens at their issuer.", body = TokenError),
        (status = 401, description = "Authentication failed.", body = TokenError),
        (status = 403, description = "The presented token may not revoke another.", body = TokenError),
        (status = 413, description = "The body is too large.", body = TokenError),
        (status = 503, description = "Busy or about to stop: try again after `Retry-After` seconds.", body = TokenError),
        (status = 507, description = "The disk is full; nothing was written.", body = TokenError),
    ),
)]
pub async fn revoke(State(app): State<App>, request: Request) -> Result<Response, Refused> {
    let headers = request.headers().clone();
    let asks = bearer_of(&app, &headers).await?;
    let ends = [Scope::ManagementAll, Scope::SessionsWrite];
    let known = if asks.is_none() { Presented::by(&app, &headers).await? } else { None };
    let form = Form::read(request, &app, asks.is_some() || known.is_some()).await?;
    let itself = form.one("token").is_some_and(|token| auth::bearer(&headers) == Some(token));
    let caller = match asks {
        Some(caller) if itself => caller,
        Some(caller) => require(&caller, &ends).map(|()| caller)?,
        None => client(&app, known, &form).await?,
    };
    let token = form.one("token").ok_or_else(|| Refused::new("invalid_request", "token is missing"))?;
    match app.auth.given_up(&caller, token) {
        GivenUp::Nothing => {}
        GivenUp::NotYours => {
            let description = "The token was issued to another client";
            return Err(Refused::new("unauthorized_client", description));
        }
        GivenUp::Unsupported => {
            let description = "API keys are revoked at /api/v1/api-keys, JWTs where they were issued";
            return Err(Refused::new("unsupported_token_type", description));
        }
        GivenUp::AccessToken(id) => {
            app.directory.access_tokens.revoke(&caller, id).await.map_err(Refused::from_error)?;
        }
        GivenUp::Session(number) => {
            app.sessions.lifecycle.give_up(&caller, number).await.map_err(Refused::from_error)?;
        }
    }
    Ok(([(header::CACHE_CONTROL, "no-store")], StatusCode::OK).into_response())
}

/// The caller of a request that authenticates with a bearer token; none if it does not. A session that has ended may ask
/// nothing.
async fn bearer_of(app: &App, headers: &HeaderMap) -> Result<Option<Caller>, Refused> {
    let Some(token) = auth::bearer(headers) else { return Ok(None) };
    match app.auth.bearer(token).await {
        Ok(caller) if caller.ended.is_none() => Ok(Some(caller)),
        Ok(_) => Err(Refused::client()),
        Err(Error::Denied { message, .. } | Error::LimitReached { shuts_out: true, message, .. }) => {
            Err(Refused::forbidden(message))
        }
        Err(Error::Barred(told)) => Err(Refused::forbidden(told.sentence())),
        Err(error) => Err(Refused::from_error(error)),
    }
}

async fn client(app: &App, known: Option<Presented>, form: &Form) -> Result<Caller, Refused> {
    let client = authenticate(app, known, form).await?;
    app.auth.client_caller(client).ok_or_else(Refused::client)
}

fn require(caller: &Caller, scopes: &[Scope]) -> Result<(), Refused> {
    if let Some(id) = caller.audience() {
        return Err(Refused::forbidden(format!("The presented token is for the gateway /mcp/{id} alone")));
    }
    if scopes.iter().any(|scope| caller.scopes.has(*scope)) {
        return Ok(());
    }
    let words: Vec<_> = scopes.iter().map(|scope| scope.word()).collect();
    Err(Refused::forbidden(format!("This needs {}", words.join(" or "))))
}
