//! Encrypted connections to upstreams: which certificates are trusted, and what the client is told about those that are
//! not.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use tokio::net::TcpStream;
use tower::Service;

use super::{CONNECT, RpcError};
use crate::outbound::{self, Resolver};

type Failure = Box<dyn Error + Send + Sync>;

/// Connects to `https` URLs and no others, in bounded time.
#[derive(Clone)]
pub(super) struct Encrypted(HttpsConnector<HttpConnector<Resolver>>);

impl Encrypted {
    /// Trusts the authorities that the system trusts, and those in the file.
    pub fn new(mut connector: HttpConnector<Resolver>, authorities: Option<&Path>) -> anyhow::Result<Self> {
        connector.enforce_http(false);
        let config = outbound::tls(authorities, "--upstream-ca")?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1();
        Ok(Self(builder.wrap_connector(connector)))
    }
}

impl Service<Uri> for Encrypted {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            // The inner connector limits the look-up and the connection, but would wait for a handshake without end.
            match tokio::time::timeout(3 * CONNECT, connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long").into())
                }
            }
        })
    }
}

/// The error for a failure of TLS, if the failure is one. The log has the details: a certificate is the upstream's own
/// affair.
pub(super) fn rpc_error(error: &(dyn Error + 'static)) -> Option<RpcError> {
    use CertificateError as Bad;
    let how = match find(error)? {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => "shows a certificate that has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "shows a certificate that is not valid yet",
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "shows a certificate for another name"
            }
            Bad::UnknownIssuer | Bad::BadSignature => {
                "shows a certificate of an authority that is not trusted here"
            }
            _ => "shows a certificate that is not accepted",
        },
        _ => "cannot be spoken to in encrypted form",
    };
    let data = Some(serde_json::json!({ "reason": "upstream_not_trusted" }));
    let message = format!("The MCP server behind this gateway {how}");
    Some(RpcError { data, ..RpcError::new(-32603, message) })
}

/// Finds the error of TLS among an error's causes.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // `source` of an I/O error skips the error that it wraps.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}
