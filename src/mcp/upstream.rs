//! The clients for upstreams: which addresses they may go to, how the gateway authenticates there, and the connections.

mod address;
mod cookies;
mod credential;
mod headers;
mod tls;

use std::time::Duration;

use axum::http::{Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use address::check_upstream;
pub use cookies::CookieJars;
pub use credential::check_credential;
pub use headers::{
    CORRELATION, LAST_EVENT_ID, PROTOCOL_VERSION, SESSION, TO_CLIENT, TO_UPSTREAM, check_headers, coding,
    from_upstream, is_loop, set_own_headers, to_upstream, visible_to_client,
};

use super::reply::RpcError;
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::UpstreamSettings;
use crate::outbound::{self, Allowances, Purpose, Resolver};
use credential::Credentials;
use sessiond_core::application::UpstreamCredential;
use sessiond_core::ids::ApplicationNumber;
use tls::Encrypted;

/// How long a connection may take to come about, and how long its TLS handshake may take after that.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection may be idle. Node's and uvicorn's servers close one after 5 s, which must not happen under a
/// request.
const IDLE: Duration = Duration::from_secs(4);

/// How many bytes of an answer are read ahead; the answer's head has to fit into them.
const BUFFER: usize = 128 << 10;

/// The clients for all upstreams. They follow no redirects, use no proxy, and keep connections open.
pub struct Upstreams {
    /// The clients of the organization whose installation this is; they may also go to this machine.
    own: HttpClients,
    others: HttpClients,
    settings: UpstreamSettings,
    credentials: Credentials,
}

/// The clients of those who may reach the same addresses, each with what these are.
struct HttpClients {
    plain: Client<HttpConnector<Resolver>, Full<Bytes>>,
    encrypted: Client<Encrypted, Full<Bytes>>,
    plain_allowances: Allowances,
    encrypted_allowances: Allowances,
}

impl Upstreams {
    /// Makes the clients; fails if the file of certificate authorities cannot be used.
    pub fn new(config: &Config, settings: UpstreamSettings, clock: Clock) -> anyhow::Result<Self> {
        let (own, others) = (HttpClients::new(config, true)?, HttpClients::new(config, false)?);
        Ok(Self { own, others, credentials: Credentials::new(settings.clone(), clock), settings })
    }

    fn clients(&self, application: ApplicationNumber) -> &HttpClients {
        if self.settings.is_operators(application) { &self.own } else { &self.others }
    }

    /// Sends a request of an application to its upstream, authenticated as the upstream wants, and waits for the
    /// answer's head without a limit: a call may well be long. A credential goes only to the URL that it was set for; a
    /// request for another URL goes without one.
    pub async fn send(
        &self,
        application: ApplicationNumber,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, RpcError> {
        let clients = self.clients(application);
        let Some(opened) = self.credentials.of(application, request.uri()).await? else {
            return clients.send(request).await;
        };
        let mut request = request;
        match &opened.own.credential {
            UpstreamCredential::Header { .. } => {
                opened.show(&mut request)?;
                clients.send(request).await
            }
            UpstreamCredential::ClientCredentials { .. } => {
                let token = self.credentials.token(&opened, clients, None).await?;
                let mut again = request.clone();
                request.headers_mut().insert(header::AUTHORIZATION, token.clone());
                let answer = clients.send(request).await?;
                if answer.status() != StatusCode::UNAUTHORIZED {
                    return Ok(answer);
                }
                // The request was refused and so not carried out: it may be sent once more, with a fresh token.
                let token = self.credentials.token(&opened, clients, Some(&token)).await?;
                again.headers_mut().insert(header::AUTHORIZATION, token);
                clients.send(again).await
            }
        }
    }
}

impl HttpClients {
    fn new(config: &Config, own: bool) -> anyhow::Result<Self> {
        let plain_allowances = Allowances::of(Purpose::PlainUpstream, config, own);
        let encrypted_allowances = Allowances::of(Purpose::Upstream, config, own);
        let connect = |allowances: &Allowances| connector(Resolver(allowances.clone()));
        let plain = builder().build(connect(&plain_allowances));
        let encrypted = Encrypted::new(connect(&encrypted_allowances), config.upstream_ca.as_deref())?;
        let encrypted = builder().build(encrypted);
        Ok(Self { plain, encrypted, plain_allowances, encrypted_allowances })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, RpcError> {
        let encrypted = request.uri().scheme_str() == Some("https");
        let allowances = if encrypted { &self.encrypted_allowances } else { &self.plain_allowances };
        let uri = request.uri().clone();
        // The connectors do not ask their resolvers about hosts that are addresses.
        if literal(request.uri()).is_some_and(|address| !allowances.allows(address)) {
            tracing::warn!(url = without_query(&uri), "the upstream's address is not allowed");
            return Err(RpcError::upstream_unreachable());
        }
        let answer =
            if encrypted { self.encrypted.request(request).await } else { self.plain.request(request).await };
        answer.map_err(|error| {
            let cause = std::error::Error::source(&error).map(outbound::causes).unwrap_or_default();
            tracing::warn!(%error, cause, url = without_query(&uri), "the upstream did not answer");
            match tls::rpc_error(&error) {
                Some(rpc_error) => rpc_error,
                None if error.is_connect() => RpcError::upstream_unreachable(),
                None => RpcError::upstream_lost(),
            }
        })
    }
}

/// A URL for the log, without its query, where some people put keys.
fn without_query(uri: &Uri) -> String {
    let mut url = uri.to_string();
    url.truncate(url.find('?').unwrap_or(url.len()));
    url
}

fn connector(resolver: Resolver) -> HttpConnector<Resolver> {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_nodelay(true);
    connector
}

fn builder() -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.http1_max_buf_size(BUFFER);
    builder.pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).timer(TokioTimer::new());
    builder
}

fn literal(uri: &Uri) -> Option<std::net::IpAddr> {
    uri.host()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
