//! Names are looked up where it is known which addresses are allowed: a connection is made to none that was not judged, so that nobody
//! can move a name behind our back.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tower::Service;

use super::Allowances;

/// How long a look-up may take where whoever connects has no deadline of its own for it.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    #[error("the name has no address")]
    Unresolved(#[from] io::Error),
    #[error("the endpoint has no address that is allowed")]
    NotAllowed,
}

impl Allowances {
    /// The addresses of a host that may be connected to: at least one.
    pub async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, LookUpError> {
        let mut found = tokio::net::lookup_host((host, port)).await?.peekable();
        if found.peek().is_none() {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        // By this name goes what is not encrypted, wherever else a file of hosts would have it.
        let here = host == "localhost";
        let allowed: Vec<_> =
            found.filter(|one| self.allows(one.ip()) && (!here || one.ip().is_loopback())).collect();
        if allowed.is_empty() { Err(LookUpError::NotAllowed) } else { Ok(allowed) }
    }
}

/// Looks names up for HTTP clients. They do not ask it about hosts that are addresses: those are judged with their URL.
#[derive(Clone)]
pub struct Resolver(pub Allowances);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowances = self.0.clone();
        Box::pin(async move {
            let allowed = allowances.look_up(name.as_str(), 0).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

impl Service<dns::Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookUpError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookUpError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookUpError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        let allowances = self.0.clone();
        Box::pin(async move {
            // The connector's own time-out begins only when the address is known.
            let looked_up = tokio::time::timeout(LOOK_UP, allowances.look_up(name.as_str(), 0)).await;
            Ok(looked_up.map_err(io::Error::from)??.into_iter())
        })
    }
}
