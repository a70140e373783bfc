//! The socket to a machine, whose reading can be paused.
//!
//! russh grants the peer more of the SSH window as soon as data has come, whether or not anybody has read it. When its
//! bounded channel is full its whole loop waits, and then no key reaches the shell either, not even ctrl-C. So the flow
//! is controlled where the bytes come in: while nobody reads, nothing is taken from the socket. The peer's TCP window
//! closes, its SSH window stays unused, and the loop goes on writing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How long data may stay unacknowledged by the peer's system.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// Our end of the socket; russh reads from its [`SocketStream`].
pub struct ThrottledSocket {
    socket: TcpStream,
    state: Mutex<State>,
    begun: Instant,
    /// When data last came, or reading went on; milliseconds since the beginning.
    heard: AtomicU64,
    /// How many bytes have come.
    received: AtomicU64,
}

#[derive(Default)]
struct State {
    paused: bool,
    cut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl ThrottledSocket {
    pub fn new(socket: TcpStream) -> io::Result<Arc<Self>> {
        socket.set_nodelay(true)?;
        let options = SockRef::from(&socket);
        // A machine that is gone is noticed by its silence while somebody reads, and by these probes while nobody does.
        let probes = TcpKeepalive::new().with_time(UNACKNOWLEDGED / 2).with_interval(UNACKNOWLEDGED / 6);
        options.set_tcp_keepalive(&probes)?;
        options.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        let (state, heard, received) = Default::default();
        Ok(Arc::new(Self { socket, state, begun: Instant::now(), heard, received }))
    }

    /// Pauses reading what the machine sends, or goes on with it.
    pub fn set_paused(&self, paused: bool) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.paused, paused) && !paused {
            self.hears();
            state.reader.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Ends the connection at once.
    pub fn cut(&self) {
        let mut state = self.state.lock();
        state.cut = true;
        state.reader.take().into_iter().for_each(Waker::wake);
        state.writer.take().into_iter().for_each(Waker::wake);
        drop(state);
        SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both).ok();
    }

    pub fn is_cut(&self) -> bool {
        self.state.lock().cut
    }

    /// Whether the connection has failed while reading was paused.
    pub fn has_failed(&self) -> bool {
        self.socket.take_error().is_ok_and(|error| error.is_some())
    }

    /// For how long the machine has been silent while reading was not paused.
    pub fn silence(&self) -> Duration {
        if self.state.lock().paused {
            return Duration::ZERO;
        }
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }

    /// How many bytes have come so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn hears(&self) {
        let now = self.begun.elapsed().as_millis();
        self.heard.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn was_cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was ended here")
}

/// The stream that russh reads from and writes to.
pub struct SocketStream(pub Arc<ThrottledSocket>);

impl AsyncRead for SocketStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = &self.0;
        loop {
            let mut state = socket.state.lock();
            if state.cut {
                return Poll::Ready(Err(was_cut()));
            }
            // Whatever the reader waits for, cutting the connection wakes it.
            state.reader = Some(cx.waker().clone());
            if state.paused {
                return Poll::Pending;
            }
            drop(state);
            ready!(socket.socket.poll_read_ready(cx))?;
            match socket.socket.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    socket.received.fetch_add(count as u64, Ordering::Relaxed);
                    socket.hears();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = &self.0;
        loop {
            let mut state = socket.state.lock();
            if state.cut {
                return Poll::Ready(Err(was_cut()));
            }
            state.writer = Some(cx.waker().clone());
            drop(state);
            ready!(socket.socket.poll_write_ready(cx))?;
            match socket.socket.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is read after the last word, so both directions are closed.
        SockRef::from(&self.0.socket).shutdown(std::net::Shutdown::Both).ok();
        Poll::Ready(Ok(()))
    }
}
