//! A listener accepts connections, encrypts them, and gives up those that are not used.

mod stream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::tls::Tls;
use crate::http::connection::{Connection, Listening, ResponseBody};
use stream::{Observed, TimedStream};

/// How long connections may take to finish after a stop.
const DRAIN: Duration = Duration::from_secs(8);
/// A connection is given up when its client has received nothing for this long of what waits for it.
const TAKES_NOTHING: Duration = Duration::from_secs(30);
/// Where nothing waits for the client, it is probed after this long …
const QUIET: Duration = Duration::from_secs(15);
/// … and again this often until it answers. A client that has been silent for [`TAKES_NOTHING`] in all has gone: a stream
/// that nobody reads must not keep a session alive.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The largest head of a request; a larger one is answered with 431.
const LARGEST_HEAD: usize = 16 << 10;
/// If less than this part of the places is free, connections are not kept between requests, because others wait for their
/// places.
const SPARE_PART: usize = 8;

/// The router behind a listener: first the one that answers while the service starts, then the service's.
pub struct Behind {
    starting: Router,
    service: OnceLock<Router>,
}

impl Behind {
    /// Makes it with the router that answers until [`Self::set_service`] is called, or for good.
    pub fn new(starting: Router) -> Arc<Self> {
        Self { starting, service: OnceLock::new() }.into()
    }

    /// Lets requests go to the service from now on, also those on connections that are open.
    pub fn set_service(&self, service: Router) {
        self.service.set(service).ok();
    }

    fn router(&self) -> Router {
        self.service.get().unwrap_or(&self.starting).clone()
    }
}

/// A listener that accepts nothing yet.
pub struct Listener {
    pub socket: TcpListener,
    pub behind: Arc<Behind>,
    pub tls: Option<Arc<Tls>>,
    /// How many connections may be open at the same time.
    pub limit: usize,
    /// What its connections have in common: how long they may take, and the metrics.
    pub shared: Arc<Listening>,
    pub stopping: CancellationToken,
}

/// What the tasks of all connections work with.
struct ConnectionContext {
    behind: Arc<Behind>,
    tls: Option<Arc<Tls>>,
    builder: http1::Builder,
    limit: usize,
    places: Arc<Semaphore>,
    shared: Arc<Listening>,
    stopping: CancellationToken,
    /// Cancelled when connections have to close as soon as no request is under way on them.
    closing: CancellationToken,
}

impl Listener {
    /// Accepts connections until it is told to stop, then lets those that are open finish, up to a limit.
    pub async fn run(self) {
        let Self { socket, behind, tls, limit, shared, stopping } = self;
        let mut builder = http1::Builder::new();
        // The stream keeps all time limits, so that they are in one place; hyper's own is switched off.
        builder.header_read_timeout(None).max_buf_size(LARGEST_HEAD);
        let (places, closing) = (Arc::new(Semaphore::new(limit)), CancellationToken::new());
        let (connections, stop) = (TaskTracker::new(), stopping.clone());
        let context =
            Arc::new(ConnectionContext { behind, tls, builder, limit, places, shared, stopping, closing });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = context.next(&socket) => accepted,
            };
            let (place, (stream, peer)) = match accepted {
                (place, Ok(accepted)) => (place, accepted),
                (_, Err(error)) => {
                    // Mostly there are no file descriptors left: waiting lets some close.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            stream.set_nodelay(true).ok();
            set_timeouts(&stream);
            let connection = Connection::new(peer, context.shared.clone());
            let stream = TimedStream::new(stream, connection.clone(), place);
            let context = context.clone();
            connections.spawn(async move { context.admit(stream, connection).await });
        }
        drop(socket);
        connections.close();
        context.closing.cancel();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!("some connections did not finish in time and are cut off");
        }
    }
}

/// A place among the connections that may be open.
type Place = tokio::sync::OwnedSemaphorePermit;

impl ConnectionContext {
    /// Accepts the next connection as soon as there is a place for it. At the limit nobody is turned away: clients wait in
    /// the system's queue.
    async fn next(&self, socket: &TcpListener) -> (Place, std::io::Result<(TcpStream, SocketAddr)>) {
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.shared.count_full();
                match self.places.clone().acquire_owned().await {
                    Ok(place) => place,
                    // Nobody closes the semaphore.
                    Err(_) => std::future::pending().await,
                }
            }
        };
        (place, socket.accept().await)
    }

    /// Serves a connection, after its handshake where connections are encrypted.
    async fn admit(&self, stream: TimedStream, connection: Arc<Connection>) {
        let Some(tls) = &self.tls else { return self.serve(stream, connection).await };
        let shaken = tokio::select! {
            () = self.stopping.cancelled() => return,
            shaken = timeout(self.shared.head(), Box::pin(tls.acceptor().accept(stream))) => shaken,
        };
        match shaken {
            // The futures are boxed, because a connection that is not encrypted would otherwise keep room for one that is.
            Ok(Ok(stream)) => {
                connection.handshake_done();
                Box::pin(self.serve(stream, connection)).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    /// Serves the requests of a connection until it closes.
    async fn serve<S>(&self, stream: S, connection: Arc<Connection>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| self.answer(&connection, request));
        let stream = TokioIo::new(Observed::new(stream, connection.clone()));
        let serving = self.builder.serve_connection(stream, service).with_upgrades();
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = self.closing.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended badly");
        }
    }

    /// Serves one request.
    async fn answer(
        &self,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let (mut parts, body) = request.into_parts();
        let (guard, body) = connection.begin(body, &parts.headers);
        parts.extensions.insert(connection.clone());
        let request = Request::from_parts(parts, body.map_or_else(Body::empty, Body::new));
        let response = self.behind.router().oneshot(request).await?;
        let closes = self.stopping.is_cancelled() || self.is_crowded();
        Ok(connection.on_response(response, guard, closes))
    }

    /// Whether nearly all places are taken.
    fn is_crowded(&self) -> bool {
        self.places.available_permits() < self.limit / SPARE_PART
    }
}

/// Has the kernel notice that a client has gone without a word.
fn set_timeouts(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    // The user timeout counts from the moment at which data waits, also while the client says that its buffer is full.
    socket.set_tcp_user_timeout(Some(TAKES_NOTHING)).ok();
    // The kernel looks at the number of probes only where there is no user timeout.
    let probes = (TAKES_NOTHING - QUIET).as_secs() / ASK_AGAIN.as_secs();
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(QUIET)
        .with_interval(ASK_AGAIN)
        .with_retries(u32::try_from(probes).unwrap_or(3));
    socket.set_tcp_keepalive(&keepalive).ok();
}
