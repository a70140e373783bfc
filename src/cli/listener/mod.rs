//! A listener accepts connections, encrypts them, and sees that nobody keeps one without using it.

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
use crate::http::connection::{Answer, Connection, Listening};
use stream::{Heard, Watched};

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
/// Where so small a part of the places is free, connections are not kept between requests: others wait for them.
const FREE: usize = 8;

/// What is behind a listener: at first what answers while the service starts, then the service.
pub struct Behind {
    starting: Router,
    service: OnceLock<Router>,
}

impl Behind {
    /// What answers until [`Self::comes`] is said, or for good.
    pub fn new(starting: Router) -> Arc<Self> {
        Self { starting, service: OnceLock::new() }.into()
    }

    /// From here on requests go to the service, also those on connections that are open.
    pub fn comes(&self, service: Router) {
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
    /// Connections open at the same time.
    pub limit: usize,
    /// How long its connections may take, and how many there are of them.
    pub shared: Arc<Listening>,
    pub stopping: CancellationToken,
}

/// What each connection needs.
struct Way {
    behind: Arc<Behind>,
    tls: Option<Arc<Tls>>,
    builder: http1::Builder,
    limit: usize,
    places: Arc<Semaphore>,
    shared: Arc<Listening>,
    stopping: CancellationToken,
    /// Cancelled when whoever is not in the middle of something has to go.
    closing: CancellationToken,
}

impl Listener {
    /// Accepts connections until it is told to stop, then lets those that are open finish, up to a limit.
    pub async fn run(self) {
        let Self { socket, behind, tls, limit, shared, stopping } = self;
        let mut builder = http1::Builder::new();
        // Time is kept below, where all states of a connection are alike.
        builder.header_read_timeout(None).max_buf_size(LARGEST_HEAD);
        let (places, closing) = (Arc::new(Semaphore::new(limit)), CancellationToken::new());
        let (connections, stop) = (TaskTracker::new(), stopping.clone());
        let way = Arc::new(Way { behind, tls, builder, limit, places, shared, stopping, closing });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = way.next(&socket) => accepted,
            };
            let (place, (stream, peer)) = match accepted {
                (place, Ok(accepted)) => (place, accepted),
                (_, Err(error)) => {
                    // Out of file descriptors, mostly: waiting lets some close.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            stream.set_nodelay(true).ok();
            watch(&stream);
            let connection = Connection::new(peer, way.shared.clone());
            let stream = Watched::new(stream, connection.clone(), place);
            let way = way.clone();
            connections.spawn(async move { way.admit(stream, connection).await });
        }
        drop(socket);
        connections.close();
        way.closing.cancel();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!("some connections did not finish in time and are cut off");
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

impl Way {
    /// The next connection, as soon as there is a place for it. At the limit nobody is turned away: whoever comes waits in
    /// the system's queue.
    async fn next(&self, socket: &TcpListener) -> (Place, std::io::Result<(TcpStream, SocketAddr)>) {
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.shared.is_full();
                match self.places.clone().acquire_owned().await {
                    Ok(place) => place,
                    // Nobody closes it.
                    Err(_) => std::future::pending().await,
                }
            }
        };
        (place, socket.accept().await)
    }

    async fn admit(&self, stream: Watched, connection: Arc<Connection>) {
        let Some(tls) = &self.tls else { return self.serve(stream, connection).await };
        let shaken = tokio::select! {
            () = self.stopping.cancelled() => return,
            shaken = timeout(self.shared.head(), Box::pin(tls.acceptor().accept(stream))) => shaken,
        };
        match shaken {
            // In boxes: a connection that is not encrypted would keep room for one that is.
            Ok(Ok(stream)) => {
                connection.shaken();
                Box::pin(self.serve(stream, connection)).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve<S>(&self, stream: S, connection: Arc<Connection>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| self.answer(&connection, request));
        let stream = TokioIo::new(Heard::new(stream, connection.clone()));
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

    async fn answer(
        &self,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let (mut parts, body) = request.into_parts();
        let (turn, body) = connection.begin(body, &parts.headers);
        parts.extensions.insert(connection.clone());
        let request = Request::from_parts(parts, body.map_or_else(Body::empty, Body::new));
        let response = self.behind.router().oneshot(request).await?;
        let closes = self.stopping.is_cancelled() || self.is_crowded();
        Ok(connection.answered(response, turn, closes))
    }

    /// Whether nearly all places are taken.
    fn is_crowded(&self) -> bool {
        self.places.available_permits() < self.limit / FREE
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
