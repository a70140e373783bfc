//! Looks names up and judges their addresses in one step: a connection is made only to an address that was judged, so that
//! the owner of a name cannot change in between where it leads.

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

/// How long a look-up may take for HTTP clients, whose own time-out begins only afterwards.
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
    /// Looks up the addresses of a host that may be connected to; at least one.
    pub async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, LookUpError> {
        let mut found = tokio::net::lookup_host((host, port)).await?.peekable();
        if found.peek().is_none() {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        // Requests to `localhost` may go unencrypted, so it has to be this machine, whatever a file of hosts says.
        let here = host == "localhost";
        let allowed: Vec<_> =
            found.filter(|one| self.allows(one.ip()) && (!here || one.ip().is_loopback())).collect();
        if allowed.is_empty() { Err(LookUpError::NotAllowed) } else { Ok(allowed) }
    }
}

/// The resolver of HTTP clients. They do not ask it about hosts that are addresses, which are judged with their URL.
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
