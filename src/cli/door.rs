//! The door: accepts connections, encrypts them, and sees that nobody keeps one without using it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::tls::Tls;

/// After being told to stop, connections have this long to finish.
const DRAIN: Duration = Duration::from_secs(8);
/// A connection whose other end takes nothing of what waits for it is given up after this long.
const TAKES_NOTHING: Duration = Duration::from_secs(30);
/// Where nothing waits to be taken, the other end is asked after this long whether it is still there …
const QUIET: Duration = Duration::from_secs(15);
/// … and asked again this often until it answers. A connection that has been dead for [`TAKES_NOTHING`] is given up: a
/// stream that nobody reads must not keep a session alive.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Largest head of a request: more is answered with 431.
const LARGEST_HEAD: usize = 16 << 10;

/// A door, not yet open.
pub struct Door {
    pub listener: TcpListener,
    pub router: Router,
    pub tls: Option<Arc<Tls>>,
    /// Connections open at the same time.
    pub limit: usize,
    /// How long the handshake may take, and the head of each request.
    pub head: Duration,
    pub stopping: CancellationToken,
}

/// What each connection needs.
struct Way {
    router: Router,
    tls: Option<Arc<Tls>>,
    builder: auto::Builder<TokioExecutor>,
    head: Duration,
    stopping: CancellationToken,
}

impl Door {
    /// Accepts connections until it is told to stop, then lets those that are open finish, up to a limit.
    pub async fn open(self) {
        let Self { listener, router, tls, limit, head, stopping } = self;
        let graceful = GracefulShutdown::new();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(LARGEST_HEAD);
        let way = Arc::new(Way { router, tls, builder, head, stopping: stopping.clone() });
        let places = Arc::new(Semaphore::new(limit));
        loop {
            // At the limit nobody is turned away: whoever comes waits in the system's queue.
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                accepted = async {
                    let place = places.clone().acquire_owned().await;
                    (place, listener.accept().await)
                } => accepted,
            };
            let (place, (stream, peer)) = match accepted {
                (place, Ok(accepted)) => (place, accepted),
                (_, Err(error)) => {
                    // Out of file descriptors, mostly: waiting lets some close.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (way, watcher) = (way.clone(), graceful.watcher());
            tokio::spawn(async move {
                way.admit(stream, peer, watcher).await;
                drop(place);
            });
        }
        drop(listener);
        if timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!("some connections did not finish in time and are cut off");
        }
    }
}

impl Way {
    async fn admit(&self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        stream.set_nodelay(true).ok();
        watch(&stream);
        let Some(tls) = &self.tls else { return self.serve(stream, peer, watcher).await };
        let shaken = tokio::select! {
            () = self.stopping.cancelled() => return,
            shaken = timeout(self.head, Box::pin(tls.acceptor().accept(stream))) => shaken,
        };
        match shaken {
            // In boxes: a connection that is not encrypted would keep room for one that is.
            Ok(Ok(stream)) => Box::pin(self.serve(stream, peer, watcher)).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve<S>(&self, stream: S, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        });
        let service = TowerToHyperService::new(router);
        let connection = self.builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(%error, "a connection ended badly");
        }
    }
}

/// Has the kernel notice that the other end has gone without a word.
fn watch(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    // It counts from when something was there to be taken, also while the other end says that it is full.
    socket.set_tcp_user_timeout(Some(TAKES_NOTHING)).ok();
    // The number of probes counts only where there is no user timeout.
    let probes = (TAKES_NOTHING - QUIET).as_secs() / ASK_AGAIN.as_secs();
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(QUIET)
        .with_interval(ASK_AGAIN)
        .with_retries(u32::try_from(probes).unwrap_or(3));
    socket.set_tcp_keepalive(&keepalive).ok();
}
