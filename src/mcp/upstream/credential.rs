//! How the gateway authenticates at upstreams: with a header of the owner's choice, or with a token that it fetches
//! itself (RFC 6749, section 4.4).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::TimeDelta;
use http_body_util::{BodyExt, Full, Limited};
use parking_lot::Mutex;
use serde::Deserialize;
use sessiond_core::Time;
use sessiond_core::application::UpstreamCredential;
use sessiond_core::ids::{ApplicationNumber, Position};
use sessiond_core::object::Object;
use url::{Url, form_urlencoded};

use super::{HttpClients, address};
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::{UpstreamSecret, UpstreamSettings};
use crate::error::Error;
use crate::mcp::reply::RpcError;
use crate::outbound::HOP;

const LONGEST_NAME: usize = 100;
const LONGEST_TEXT: usize = 1_024;
const LONGEST_SECRET: usize = 8_192;
/// How long a token endpoint may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer of a token endpoint.
const LARGEST: usize = 64 << 10;
/// How long before its expiry a token is no longer used, because a request takes its time; a fifth of its life if that
/// is less.
const MARGIN: TimeDelta = TimeDelta::seconds(60);
/// How long a token is used whose life is not said. If it lives less, the upstream says so with 401.
const UNSAID: TimeDelta = TimeDelta::minutes(10);
/// The longest life that a token is believed to have, in seconds.
const LONGEST_LIFE: i64 = 86_400;

/// The headers that the gateway sets, reads or keeps back itself, beside the hop-by-hop ones.
const OURS: [&str; 14] = [
    "host",
    "origin",
    "referer",
    "expect",
    "range",
    "date",
    "via",
    "forwarded",
    "last-event-id",
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "user-agent",
];
/// The prefixes of further headers that the gateway needs itself.
const OUR_KINDS: [&str; 8] =
    ["accept", "access-control-", "content-", "if-", "mcp-", "sec-", "sessiond-", "x-forwarded-"];

/// Checks how the gateway is to authenticate at an upstream, and brings it into its normal form.
pub fn check_credential(
    shown: UpstreamCredential,
    secret: &str,
    config: &Config,
    here: bool,
) -> Result<UpstreamCredential, Error> {
    match shown {
        UpstreamCredential::Header { name } => {
            let name = check_name(&name)?;
            check_value(secret)?;
            Ok(UpstreamCredential::Header { name })
        }
        UpstreamCredential::ClientCredentials { token_url, client_id, scope, resource } => {
            let token_url = address::check("credential.tokenUrl", &token_url, config, here)?;
            check_text("credential.clientId", &client_id, LONGEST_TEXT)?;
            check_text("credential.clientSecret", secret, LONGEST_SECRET)?;
            if let Some(scope) = &scope {
                check_text("credential.scope", scope, LONGEST_TEXT)?;
            }
            if let Some(resource) = &resource {
                check_text("credential.resource", resource, LONGEST_TEXT)?;
                if !Url::parse(resource).is_ok_and(|url| url.fragment().is_none()) {
                    let message = "credential.resource must be an absolute URL without a fragment";
                    return Err(Error::field("credential.resource", message));
                }
            }
            Ok(UpstreamCredential::ClientCredentials { token_url, client_id, scope, resource })
        }
    }
}

fn check_name(name: &str) -> Result<String, Error> {
    let wrong = |message: String| Error::field("credential.name", format!("credential.name {message}"));
    let good = HeaderName::try_from(name).ok().filter(|name| name.as_str().len() <= LONGEST_NAME);
    let good = good.ok_or_else(|| wrong("must be the name of a header, such as X-Api-Key".to_owned()))?;
    let lower = good.as_str();
    if HOP.contains(&lower) || OURS.contains(&lower) || OUR_KINDS.iter().any(|kind| lower.starts_with(kind)) {
        return Err(wrong(format!("must not be {lower:?}: the gateway needs that header itself")));
    }
    // The name stays as it was written, so that whoever reads it again recognises it.
    Ok(name.to_owned())
}

fn check_value(value: &str) -> Result<(), Error> {
    let plain = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if value.is_empty() || value.len() > LONGEST_SECRET || !plain || value.trim() != value {
        let message = format!(
            "credential.value must be 1 to {LONGEST_SECRET} visible ASCII characters, with no space at its ends"
        );
        return Err(Error::field("credential.value", message));
    }
    Ok(())
}

fn check_text(field: &'static str, text: &str, longest: usize) -> Result<(), Error> {
    if text.is_empty() || text.len() > longest || text.chars().any(char::is_control) {
        let message = format!("{field} must be 1 to {longest} bytes, without control characters");
        return Err(Error::field(field, message));
    }
    Ok(())
}

/// The applications' credentials for upstreams, decrypted when they are first used.
pub(super) struct Credentials {
    settings: UpstreamSettings,
    clock: Clock,
    opened: Mutex<HashMap<ApplicationNumber, (Position, Arc<OpenedCredential>)>>,
}

/// One application's credential, decrypted.
pub(super) struct OpenedCredential {
    pub own: UpstreamSecret,
    /// The only URL that the credential may be shown to.
    url: Uri,
    /// The token that was fetched. The lock is held while another is fetched, so that one is fetched at a time.
    token: tokio::sync::Mutex<Option<Token>>,
    /// How often a token was fetched: a request that waited for a fetch that failed does not begin another.
    fetches: AtomicU64,
}

struct Token {
    /// The header's value, `Bearer …`.
    value: HeaderValue,
    /// The moment from which the token is no longer used.
    until: Time,
}

/// The answer of a token endpoint: RFC 6749, section 5.1, and section 5.2 for an error.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<f64>,
    error: Option<String>,
}

impl OpenedCredential {
    fn new(own: UpstreamSecret, url: Uri) -> Arc<Self> {
        Arc::new(Self { own, url, token: tokio::sync::Mutex::default(), fetches: AtomicU64::new(0) })
    }

    /// Puts a header credential onto a request, in place of any header of that name.
    pub fn show(&self, request: &mut Request<Full<Bytes>>) -> Result<(), RpcError> {
        let UpstreamCredential::Header { name } = &self.own.credential else { return Ok(()) };
        let name = HeaderName::try_from(name.as_str()).map_err(|_| unusable(&"no header's name"))?;
        let value = secret_value(&self.own.secret).ok_or_else(|| unusable(&"no header's value"))?;
        request.headers_mut().insert(name, value);
        Ok(())
    }
}

impl Credentials {
    pub fn new(settings: UpstreamSettings, clock: Clock) -> Self {
        Self { settings, clock, opened: Mutex::default() }
    }

    /// The credential for an application at this URL; from memory, unless something about the application has changed
    /// since.
    pub async fn of(
        &self,
        application: ApplicationNumber,
        url: &Uri,
    ) -> Result<Option<Arc<OpenedCredential>>, RpcError> {
        let text = url.to_string();
        let Some(set_at) = self.settings.authenticates_at(application, &text) else { return Ok(None) };
        let kept = self.opened.lock().get(&application).cloned();
        if let Some((_, opened)) = kept.as_ref().filter(|(at, opened)| *at >= set_at && opened.url == *url) {
            return Ok(Some(opened.clone()));
        }
        let own = self.settings.secret(application, &text).await.map_err(|error| unusable(&error))?;
        let Some(own) = own else { return Ok(None) };
        // Something else about the application may have changed, and other requests may have looked at the same time:
        // an equal credential stays the one that is in memory, with its one token.
        let mut all = self.opened.lock();
        let same =
            all.get(&application).filter(|(_, opened)| opened.own == own && opened.url == *url).cloned();
        let (at, opened) = same.unwrap_or_else(|| (set_at, OpenedCredential::new(own, url.clone())));
        all.insert(application, (at.max(set_at), opened.clone()));
        Ok(Some(opened))
    }

    /// A token to authenticate with, other than the one that was `refused`.
    pub async fn token(
        &self,
        opened: &OpenedCredential,
        clients: &HttpClients,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, RpcError> {
        let fetches = opened.fetches.load(Ordering::Acquire);
        let mut token = opened.token.lock().await;
        let now = self.clock.now();
        if let Some(good) = token.as_ref().filter(|one| now < one.until && Some(&one.value) != refused) {
            return Ok(good.value.clone());
        }
        if token.is_none() && opened.fetches.load(Ordering::Acquire) != fetches {
            return Err(no_token());
        }
        *token = None;
        let fetched = tokio::time::timeout(PATIENCE, fetch(&opened.own, clients)).await;
        opened.fetches.fetch_add(1, Ordering::AcqRel);
        let (value, life) = fetched.unwrap_or_else(|_| {
            tracing::warn!("the token endpoint of an upstream did not answer in time");
            Err(no_token())
        })?;
        let life = life.unwrap_or(UNSAID);
        *token = Some(Token { value: value.clone(), until: now + life - MARGIN.min(life / 5) });
        Ok(value)
    }
}

/// Fetches a token, and how long it lives if the answer says so. The log says what went wrong, without anything secret.
async fn fetch(
    own: &UpstreamSecret,
    clients: &HttpClients,
) -> Result<(HeaderValue, Option<TimeDelta>), RpcError> {
    let UpstreamCredential::ClientCredentials { token_url, client_id, scope, resource } = &own.credential
    else {
        return Err(no_token());
    };
    let request = token_request(token_url, client_id, &own.secret, scope.as_deref(), resource.as_deref());
    let request = request.ok_or_else(no_token)?;
    let answer = clients.send(request).await.map_err(|_| no_token())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map(|body| body.to_bytes());
    let answer = body.ok().and_then(|body| serde_json::from_slice::<Object<Answer>>(&body).ok());
    let Some(Object(answer)) = answer else {
        tracing::warn!(token_url, %status, "the answer of a token endpoint could not be read");
        return Err(no_token());
    };
    let bearer = answer.token_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    let value = answer.access_token.filter(|_| status == StatusCode::OK && bearer);
    let Some(value) = value.and_then(|token| secret_value(&format!("Bearer {token}"))) else {
        let error: String = answer.error.unwrap_or_default().chars().take(100).collect();
        tracing::warn!(token_url, %status, ?error, "a token endpoint gave no bearer token");
        return Err(no_token());
    };
    #[allow(clippy::cast_possible_truncation)] // it is cut to size before
    let life = answer.expires_in.map(|seconds| (seconds as i64).clamp(0, LONGEST_LIFE));
    Ok((value, life.map(TimeDelta::seconds)))
}

fn token_request(
    url: &str,
    client_id: &str,
    secret: &str,
    scope: Option<&str>,
    resource: Option<&str>,
) -> Option<Request<Full<Bytes>>> {
    // Id and secret are form-encoded inside Basic (RFC 6749, section 2.3.1).
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret)));
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (name, value) in [("scope", scope), ("resource", resource)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let mut request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json")
        .body(Full::new(Bytes::from(form.finish())))
        .ok()?;
    request.headers_mut().insert(header::AUTHORIZATION, secret_value(&format!("Basic {pair}"))?);
    Some(request)
}

/// A header value that is shown in no log.
fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn no_token() -> RpcError {
    let message = "The MCP server behind this gateway wants a token that could not be fetched: whoever runs the gateway \
                   finds the reason in its log";
    rpc_error(message)
}

fn unusable(error: &dyn std::fmt::Display) -> RpcError {
    tracing::error!(%error, "an upstream's credential cannot be used; set the upstream again");
    rpc_error(
        "The gateway's own credential for the MCP server behind it cannot be used: set the upstream again",
    )
}

fn rpc_error(message: &'static str) -> RpcError {
    let data = Some(serde_json::json!({ "reason": "upstream_credential" }));
    RpcError { data, ..RpcError::new(-32603, message) }
}
